"""A neighbour announces more than CALICO_BGPD_MAX_PREFIXES: its session ends with the reason told, others stay, and it is tried again later."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1", "frr"]


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "frr"})
    here, there = cluster["node-1"].daemon, cluster["node-2"]
    here.environment["CALICO_BGPD_MAX_PREFIXES"] = "2:restart=4"
    cluster.start()
    cluster.settled()
    more = ["10.244.2.64/26", "10.244.2.128/26"]
    for block in more:
        cluster.add_block("node-2", block)
    wait.until("the session is ended", lambda: here.remembers(there.host.v4, "more than 2 ipv4 prefixes", "closed"), 30)
    wait.until("the reason is told", lambda: here.tells(there.host.v4, "6/1", "Maximum Number of Prefixes Reached"), 30)
    wait.stays("its other family", lambda: here.established(there.host.v6), 5)
    wait.stays("the other neighbour", lambda: cluster.established("node-3"), 5)
    before = here.peers()[there.host.v4]["established"]
    wait.until("it is tried again", lambda: here.peers()[there.host.v4]["established"] > before, 30)
    for block in more:
        cluster.remove_block("node-2", block)
    cluster.settled()
