"""Three of ours on a real kube-apiserver: changes followed, nothing lost when it dies, forgets, refuses or falls silent."""

import time

from lib import calico, wait
from lib.cluster import Cluster
from lib.kubernetes import KubeApi, KubernetesDatastore

NEEDS = ["calico-bgpd", "kubernetes"]
SECONDS = 420
REGISTRY = "/registry/crd.projectcalico.org/blockaffinities/"


def troubled(node):
    """The kinds that are not in sync, with their states."""
    return {kind["kind"]: kind["state"] for kind in node.daemon.show("status")["datastore"].get("kinds", [])}


def run(lab):
    api = KubeApi(lab.host("api", 250)).start()
    api.define()
    store = KubernetesDatastore(api)
    store.credentials()
    cluster = Cluster(lab, store, dict.fromkeys(("node-1", "node-2", "node-3"), "calico-bgpd"), password="hush")
    cluster["node-1"].daemon.environment = store.as_pod()
    cluster["node-2"].daemon.environment = store.by_certificate()
    cluster.start()
    cluster.settled()
    one = cluster["node-1"]
    lab.say("all nodes have all blocks, and sessions are signed")

    since = {(node.name, address): peer["sinceSeconds"] for node in cluster.nodes.values() for address, peer in node.daemon.peers().items()}
    began = time.monotonic()

    def all_in_sync():
        for node in cluster.nodes.values():
            if troubled(node):
                return f"!{node.name}: {troubled(node)}"
        return True

    # changes
    cluster.add_block("node-1", "10.244.1.64/26")
    cluster.add_block("node-3", "fd00:10:244:3::40/122")
    wait.until("new blocks are everywhere", cluster.blocks_everywhere, 15)
    cluster.remove_block("node-1", "10.244.1.64/26")
    wait.until("a block given back is gone everywhere", cluster.blocks_everywhere, 15)
    outside = calico.peer("outside", node="node-1", peerIP="10.0.0.77", asNumber=64599)
    store.put(outside)
    wait.until("a BGPPeer has a session", lambda: one.daemon.peers()["10.0.0.77"]["asNumber"] == 64599, 15)
    outside["spec"]["asNumber"] = 64600
    store.put(outside)
    wait.until("its change counts", lambda: one.daemon.peers()["10.0.0.77"]["asNumber"] == 64600, 15)
    store.delete(outside)
    wait.until("it has none when it is gone", lambda: "10.0.0.77" not in one.daemon.peers(), 15)
    lab.say("changes are followed")

    # the server dies; what is deleted meanwhile is beyond what it can tell when it is back
    api.kill()
    wait.until("node-1 notices", lambda: one.daemon.show("status")["datastore"]["state"] == "retrying", 30)
    cidr = "fd00:10:244:3::40/122"
    name = calico.block(cluster["node-3"].host, cidr)["metadata"]["name"]
    api.etcd.delete(f"{REGISTRY}{name}")
    api.compact()
    wait.stays("sessions and routes while it is dead", cluster.all_right, 5, every=1)
    api.start()
    cluster["node-3"].blocks.remove(cidr)
    wait.until("what was deleted is gone", cluster.blocks_everywhere, 60)
    cluster.add_block("node-2", "10.244.2.128/26")
    wait.until("what is written after its return arrives", cluster.blocks_everywhere, 60)
    wait.until("every kind is in sync", all_in_sync, 60)
    lab.say("kube-apiserver died, its history was compacted, and it came back")

    # one kind is refused
    api.role(without=("ippools",))
    api.kill()
    api.start()
    for node in cluster.nodes.values():
        wait.until(f"{node.name} says what it may not read", lambda n=node: troubled(n) == {"IPPool": "refused"} or f"!{troubled(n)}", 60)
    cluster.add_block("node-1", "10.244.1.128/26")
    wait.until("the other kinds are followed", cluster.blocks_everywhere, 60)
    api.role()
    lab.say("a kind that is refused costs no other")

    # the connection dies in silence: what is written now comes over another one
    wait.until("every kind is in sync again", all_in_sync, 120)
    lines = one.host.run("ss", "-Htn", "state", "established", f"dst {api.host.v4} and dport = :6443").splitlines()
    wait.check("one connection for all kinds", len(lines) == 1 or f"!{lines}")
    lab.segment.cut(one.host, int(lines[0].split()[2].rsplit(":", 1)[1]))
    cluster.add_block("node-3", "10.244.3.128/26")
    wait.until("a dead connection is replaced", cluster.blocks_everywhere, 90)
    lab.segment.heal()
    lab.say("a connection that died in silence was noticed")

    # another authority signs all certificates, and tokens of before are refused
    api.kill()
    api.pki()
    api.start()
    store.credentials()
    cluster.add_block("node-2", "fd00:10:244:2::80/122")
    wait.until("new certificates and tokens are used", cluster.blocks_everywhere, 90)
    wait.until("every kind is in sync at last", all_in_sync, 60)
    stood = int(time.monotonic() - began)
    for node in cluster.nodes.values():
        for address, peer in node.daemon.peers().items():
            wait.check(f"the session of {node.name} with {address} stood all the time", peer["sinceSeconds"] >= since[node.name, address] + stood - 2)
    lab.say("certificates and tokens were replaced, and no session ended in all that")
