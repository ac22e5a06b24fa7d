"""Between two nodes of a foreign daemon: active and passive, IPv4 and IPv6, internal and external, changes, refresh."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = [f"{kind}-{session}" for kind in FOREIGN for session in ("ibgp", "ebgp")]


def needs(variant):
    return ["calico-bgpd", variant.split("-")[0]]


def run(lab, variant):
    kind, session = variant.split("-")
    asns = {"node-1": 64601, "node-3": 4200000003} if session == "ebgp" else {}
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": kind, "node-2": "calico-bgpd", "node-3": kind}, asns).start()
    cluster.settled()
    here = cluster["node-2"]
    for name in ("node-1", "node-3"):
        there = cluster[name]
        for block, address in zip(here.blocks, here.addresses(), strict=True):
            path = there.daemon.received(address)[block].as_path
            wait.check("the AS path that we send", wait.equal("AS path", path, (here.asn,) if asns else ()))
        for block, address in zip(there.blocks, there.addresses(), strict=True):
            path = here.daemon.received(address)[block].as_path
            wait.check("the AS path that they send", wait.equal("AS path", path, (there.asn,) if asns else ()))
    lab.say("routes are exchanged")

    cluster.claim_second()
    wait.until("new blocks are everywhere", cluster.blocks_everywhere, 30)
    cluster.give_back_first()
    wait.until("blocks given back are gone everywhere", cluster.blocks_everywhere, 30)
    lab.say("changes are followed")

    for name in ("node-1", "node-3"):
        daemon = cluster[name].daemon
        for address in here.addresses() if daemon.can_refresh else ():
            before = daemon.updates(address)
            daemon.refresh(address)
            wait.until(f"{name} is sent the routes of {address} again", lambda d=daemon, a=address, b=before: d.updates(a) > b, 20)
        for address in cluster[name].addresses() if daemon.answers_refresh else ():
            before = here.daemon.updates(address)
            here.daemon.refresh(address)
            wait.until(f"{name} sends its routes again at {address}", lambda a=address, b=before: here.daemon.updates(a) > b, 20)
    wait.until("nothing is lost by a refresh", cluster.blocks_everywhere, 20)
    wait.check("all sessions are still up", cluster.established())
