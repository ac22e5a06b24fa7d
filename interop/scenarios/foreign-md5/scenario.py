"""TCP MD5 with a foreign daemon: right, wrong, missing, rotated."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd", "node-3": variant}, password="s3cret",
                      restart=0).start()
    import time; time.sleep(8)
    h=cluster["node-1"].host
    lab.say(h.run("ss","-tan")+h.run("nstat","-az")+h.run("ss","-tln"))
    cluster.settled(1)
    lab.say("the right password")
    here = cluster["node-2"]

    # node-1 is dialled by us, node-3 dials
    cluster.restart("node-1", password="wrong")
    cluster.restart("node-3", password=None)
    for name in ("node-1", "node-3"):
        for address in cluster[name].addresses():
            wait.until(f"{address} is down", lambda a=address: here.daemon.state(a) != "Established", 20)
    wait.stays("sessions are down", lambda: all(here.daemon.state(a) != "Established" for n in ("node-1", "node-3") for a in cluster[n].addresses()), 6)
    if here.kind == "calico-bgpd":
        for address in cluster["node-1"].addresses():
            wait.until("the reason speaks of MD5", lambda a=address: "md5" in str(here.daemon.peers()[a]).lower() or f"!{here.daemon.peers()[a]}", 30)
    for name in ("node-1", "node-3"):
        cluster.restart(name, password="s3cret")
    cluster.settled()
    lab.say("wrong and missing passwords, mended")

    for name in ("node-1", "node-3"):
        cluster.restart(name, password="n3w-s3cret")
    cluster.our_password("n3w-s3cret")
    cluster.settled()
    lab.say("another password")
