"""Three of ours on a real etcd: blocks everywhere, changes followed, nothing lost when etcd dies."""

from lib import wait
from lib.calico import EtcdDatastore
from lib.cluster import Cluster
from lib.etcd import Etcd

NEEDS = ["calico-bgpd", "etcd"]


def run(lab):
    etcd = Etcd(lab.host("etcd", 250)).start()
    cluster = Cluster(lab, EtcdDatastore(etcd), dict.fromkeys(("node-1", "node-2", "node-3"), "calico-bgpd")).start()
    cluster.settled()
    lab.say("all nodes have all blocks")

    cluster.add_block("node-1", "10.244.1.64/26")
    cluster.add_block("node-3", "fd00:10:244:3::40/122")
    wait.until("new blocks are everywhere", cluster.blocks_everywhere, 15)
    cluster.remove_block("node-1", "10.244.1.64/26")
    cluster.remove_block("node-2", "fd00:10:244:2::/122")
    wait.until("blocks given back are gone everywhere", cluster.blocks_everywhere, 15)
    lab.say("changes are followed")

    etcd.kill()
    wait.stays("sessions and routes while etcd is dead", cluster.all_right, 12, every=1)
    etcd.start()
    cluster.add_block("node-2", "10.244.2.128/26")
    wait.until("what is written after etcd's return arrives", cluster.blocks_everywhere, 60)
    lab.say("etcd died and came back")

    # calicoctl gives the blocks back first, then deletes the Node
    for cidr in list(cluster["node-3"].blocks):
        cluster.remove_block("node-3", cidr)
    cluster.leave("node-3")
    wait.until("nothing is left of a node that left", cluster.blocks_everywhere, 30)
    wait.check("the others are up", cluster.established())
