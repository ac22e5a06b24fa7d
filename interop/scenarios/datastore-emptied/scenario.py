"""The datastore is in reach and suddenly empty, or nearly so: what stood on it stays until the loss is confirmed."""

import base64
import json
import time

from lib import net, wait
from lib.calico import EtcdDatastore
from lib.cluster import Cluster
from lib.etcd import Etcd

NEEDS = ["calico-bgpd", "etcd"]
WINDOW = 10
NODES = "/calico/resources/v3/projectcalico.org/nodes/"


def run(lab):
    etcd = Etcd(lab.host("etcd", 250)).start()
    cluster = Cluster(lab, EtcdDatastore(etcd), dict.fromkeys(("node-1", "node-2", "node-3"), "calico-bgpd"))
    for node in cluster.nodes.values():
        node.daemon.environment = {"CALICO_BGPD_CONFIRM_LOSSES": str(WINDOW)}
    cluster.start()
    cluster.settled()
    content = [(base64.b64decode(kv["key"]).decode(), base64.b64decode(kv["value"]).decode())
               for kv in json.loads(etcd.ctl("get", "--prefix", "/calico/", "-w", "json"))["kvs"]]
    one = cluster["node-1"].daemon
    since = {address: peer["sinceSeconds"] for address, peer in one.peers().items()}
    began = time.monotonic()

    etcd.ctl("del", "--prefix", "/calico/")
    told = wait.until("node-1 tells of the loss", lambda: one.show("status")["datastore"].get("unconfirmed"), WINDOW)
    wait.check("the loss is told by kind", "3 of 3 Node" in told[0]["what"] or f"!{told}")
    wait.check("the log says so", "the datastore lost" in one.log())
    wait.stays("sessions and routes over the loss", cluster.all_right, WINDOW + 5, every=1)
    for key, value in content:
        etcd.put(key, value)
    wait.until("nothing is unconfirmed any more", lambda: not one.show("status")["datastore"].get("unconfirmed"), 30)
    wait.stays("sessions and routes after the return", cluster.all_right, 3, every=1)
    stood = time.monotonic() - began
    for address, peer in one.peers().items():
        wait.check(f"the session with {address} stood all the time", peer["sinceSeconds"] >= since[address] + int(stood) - 1)
    lab.say("a datastore that was empty for a while cost nothing")

    lost = time.monotonic()
    etcd.ctl("del", f"{NODES}node-2", f"{NODES}node-4")

    def alone():
        return not one.peers() and all(net.hop(route) == "blackhole" for route in one.host.kernel().values())

    wait.until("node-1 believes that it is alone", alone, WINDOW + 50)
    wait.check("it did not believe it before", time.monotonic() - lost >= WINDOW)
    for key, value in content:
        etcd.put(key, value)
    cluster.settled()
    lab.say("a loss that lasts is believed")
