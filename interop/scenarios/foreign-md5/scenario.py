"""TCP MD5 with a foreign daemon, dialled and dialling: right, rotated while sessions are up, wrong, missing."""

from lib import md5, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN

VARIANTS = list(FOREIGN)
# node-1 is dialled by us, node-3 dials
PEERS = ("node-1", "node-3")
NEW = "n3w-s3cret"


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": variant, "node-2": "calico-bgpd", "node-3": variant}, password="s3cret",
                      restart=0).start()
    cluster.settled()
    here = cluster["node-2"]
    addresses = [(cluster[name], a) for name in PEERS for a in cluster[name].addresses()]
    lab.say("the right password")

    if here.kind == "calico-bgpd":
        before = sessions(here, addresses)
        cluster.our_password(NEW)
        for node, _ in addresses[::2]:
            for own in here.addresses():
                wait.check(f"{node.name} has one session with {own}", wait.equal("sockets", md5.rekey(node.host, own, NEW), 1))
        # only what both ends sign alike arrives
        cluster.claim_second()
        wait.until("new blocks are everywhere", cluster.blocks_everywhere, 60)
        wait.check("the sessions are the same ones", wait.equal("sessions", sessions(here, addresses), before))
        lab.say(f"another password, and the same sessions: {before}")
    else:
        cluster.our_password(NEW)

    for password in ("wrong", None):
        for name in PEERS:
            cluster.restart(name, password=password)
        for node, address in addresses:
            wait.until(f"{address} is down", lambda a=address: here.daemon.state(a) != "Established", 30)
        wait.stays("sessions are down", lambda: all(here.daemon.state(a) != "Established" for _, a in addresses), 6)
        for node, address in addresses if here.kind == "calico-bgpd" else ():
            wait.until("the reason speaks of the password", lambda a=address: here.daemon.tells(a, "password"), 30)
            lab.say(f"{address} of {node.name} with {password}: {here.daemon.peers()[address]['reason']}")
    for name in PEERS:
        cluster.restart(name, password=NEW)
    cluster.settled()
    lab.say("wrong and missing passwords, mended")


def sessions(here, addresses):
    """What tells a session from one that took its place: how often it came up, and its connection."""
    return {a: (here.daemon.peers()[a]["established"], here.host.connections(a)) for _, a in addresses}
