"""TTL security with a foreign daemon: right, and one hop too far."""

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.drivers import FOREIGN
from lib.net import sh

VARIANTS = list(FOREIGN)
# These send TTL 255 only where they dial (GoBGP 4.8: over IPv6; its SYN-ACK has 64), so they get the greater address.
DIALS = {"exabgp", "gobgp4"}


def needs(variant):
    return ["calico-bgpd", variant]


def run(lab, variant):
    foreign, ours = ("node-2", "node-1") if variant in DIALS else ("node-1", "node-2")
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), dict(sorted({foreign: variant, ours: "calico-bgpd"}.items())), {foreign: 64601},
                      gtsm=True, hold=6, restart=0)
    here, there = cluster[ours], cluster[foreign]
    cluster.strict_ttl(foreign)
    cluster.start().settled()
    lab.say("one hop away")

    # as if a router were between: what leaves the foreign host has one hop less
    sh("ip", "netns", "exec", there.host.ns, "nft", "-f", "-", input="""
        add table inet far
        add chain inet far out { type filter hook output priority 0; }
        add rule inet far out tcp sport 179 ip ttl set 254
        add rule inet far out tcp dport 179 ip ttl set 254
        add rule inet far out tcp sport 179 ip6 hoplimit set 254
        add rule inet far out tcp dport 179 ip6 hoplimit set 254
    """)
    for address in there.addresses():
        wait.until(f"{address} is given up", lambda a=address: here.daemon.state(a) != "Established", 30)
    # for longer than either end waits between two dials
    if here.kind == "calico-bgpd":
        for address in there.addresses():
            wait.until("the reason names the TTL", lambda a=address: here.daemon.tells(a, "TTL below 255"), 30)
            lab.say(here.daemon.peers()[address]["reason"])
    wait.stays("the sessions are down", lambda: all(here.daemon.state(a) != "Established" for a in there.addresses()), 8)
