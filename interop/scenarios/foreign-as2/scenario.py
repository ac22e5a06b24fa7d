"""A foreign daemon that knows AS numbers of two octets only, and ours has four: sessions, AS paths, changes."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.daemon import AS_TRANS
from lib.drivers import FOREIGN
from lib.net import version

# those that put AS_PATH and AS4_PATH together though they say that they cannot: they see our number, where others see AS_TRANS
MERGE = {"bird1", "openbgpd", "exabgp"}
VARIANTS = [kind for kind, driver in FOREIGN.items() if driver.two_octets]


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    # BIRD 2 reads our number in our capability all the same, and does not take it in its configuration
    ours = 64602 if variant == "bird2" else 4200000002
    # node-1 is dialled by us, node-3 dials
    asns = {"node-1": 64601, "node-2": ours, "node-3": 64603}
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd", "node-3": variant}, asns, as4=False)
    here, families = cluster["node-2"], FOREIGN[variant].two_octets
    pairs = [(cluster[name], own, theirs) for name in ("node-1", "node-3")
             for own, theirs in zip(here.addresses(), cluster[name].addresses(), strict=True) if version(own) in families]
    seen = ours if ours < 65536 or variant in MERGE else AS_TRANS
    cluster.start()

    def right():
        for there, own, theirs in pairs:
            family = version(own)
            for node, other, address, path in ((here, there, theirs, (there.asn,)), (there, here, own, (seen,))):
                up = node.daemon.established(address)
                if up is not True:
                    return up
                # what came through us from the third one has our AS in its path, too
                have = {p: r.as_path for p, r in node.daemon.received(address).items() if len(r.as_path) == 1}
                want = {b: path for b in other.blocks if version(b) == family}
                value = wait.equal(f"paths that {node.name} has from {address}", have, want)
                if value is not True:
                    return value
        return True

    wait.until("sessions are up and AS paths are right", right, 60)
    cluster.claim_second()
    cluster.give_back_first()
    wait.until("changes are everywhere", right, 30)
