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

    for name in ("node-1", "node-2"):
        cluster.add_block(name, f"10.244.{name[-1]}.64/26")
        cluster.add_block(name, f"fd00:10:244:{name[-1]}::40/122")
    wait.until("new blocks are everywhere", cluster.blocks_everywhere, 30)
    for name in ("node-1", "node-2"):
        cluster.remove_block(name, f"10.244.{name[-1]}.0/26")
        cluster.remove_block(name, f"fd00:10:244:{name[-1]}::/122")
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
