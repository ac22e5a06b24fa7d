"""A mesh of three, partly run by BIRD 1.6.8: blocks everywhere, changes followed, a killed daemon comes back."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

MIXES = {
    "one-ours": {"node-1": "bird1", "node-2": "calico-bgpd", "node-3": "bird1"},
    "two-ours": {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "calico-bgpd"},
    "all-bird": {"node-1": "bird1", "node-2": "bird1", "node-3": "bird1"},
}
VARIANTS = list(MIXES)


def needs(variant):
    return sorted(set(MIXES[variant].values()))


def when(variant):
    return "asked" if variant == "all-bird" else "always"


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), MIXES[variant]).start()
    cluster.settled()
    lab.say("all nodes have all blocks")

    cluster.claim_second(["node-1", "node-2"])
    wait.until("new blocks are everywhere", cluster.blocks_everywhere, 30)
    cluster.give_back_first(["node-1", "node-2"])
    wait.until("blocks given back are gone everywhere", cluster.blocks_everywhere, 30)
    lab.say("changes are followed")

    for name in ("node-1", "node-2"):
        daemon = cluster[name].daemon
        daemon.kill()
        # graceful restart: the others keep its routes, and it left its own in the kernel
        wait.check("routes stay where a daemon was killed", cluster.blocks_everywhere())
        # as Calico starts BIRD: in recovery
        daemon.start(restarting=True)
        cluster.settled()
        lab.say(f"{name} was killed and is back")
