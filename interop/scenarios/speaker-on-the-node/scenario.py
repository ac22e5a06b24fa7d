"""Another BGP speaker on the node, over loopback or at the node's own address and another port: a peer, and never ourselves."""

import sys

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.daemon import Neighbour
from lib.gobgp import Gobgp3

VARIANTS = ["loopback", "own-address"]
ASN, PORT, ADDRESS = 65003, 1790, "10.245.0.5/32"


def needs(variant):
    return ["calico-bgpd", "bird1", "gobgp3"]


class Speaker(Gobgp3):
    """A load balancer's: over loopback it dials and listens nowhere, else it listens beside us."""

    def __init__(self, node, variant):
        self.address = "127.0.0.1" if variant == "loopback" else node.host.v4
        self.port = -1 if variant == "loopback" else PORT
        super().__init__(node.host, ASN, [Neighbour(self.address, node.asn, passive=variant != "loopback")])

    def source(self, neighbour):
        return self.address


def ready(host):
    """What /readyz answers."""
    ask = "import urllib.request as u, urllib.error as e\ntry: print(u.urlopen('http://127.0.0.1:9179/readyz', timeout=5).status)\nexcept e.HTTPError as x: print(x.code, x.read())"
    told = host.run(sys.executable, "-c", ask).strip()
    return True if told == "200" else f"!{told}"


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1"})
    node, there = cluster["node-1"], cluster["node-2"]
    speaker = Speaker(node, variant)
    at = speaker.address if variant == "loopback" else f"{speaker.address}:{PORT}"
    cluster.datastore.put(calico.pool("balanced", "10.245.0.0/24"), calico.peer("balancer", node=node.name, peerIP=at, asNumber=ASN))
    cluster.start()
    cluster.settled()
    daemon = node.daemon

    def never_up():
        peer = daemon.peers()[speaker.address]
        itself = node.host.run("ss", "-Htn", "state", "established", "( sport = :179 and dport != :179 ) and ( dst 127.0.0.0/8 or dst "
                               f"{node.host.v4} )").strip()
        if itself or peer["state"] == "Established" or not peer.get("reason"):
            return f"!{peer['state']}, {peer.get('reason')}, connections {itself}"
        return cluster.all_right()

    wait.until("the start is over", lambda: daemon.show("status")["phase"] == "normal", 60)
    wait.until("the node is ready without the speaker", lambda: ready(node.host), 15)
    wait.until("there is a reason", lambda: daemon.peers()[speaker.address].get("reason"), 15)
    wait.stays("no session with ourselves, and the mesh", never_up, 10, every=0.5)
    peer = daemon.peers()[speaker.address]
    lab.say(f"without the speaker: {peer['state']}, {peer['reason']}")
    if variant == "loopback":
        wait.check("we wait for the speaker's call", daemon.tells(speaker.address, "waiting for the peer to connect"))
        wait.check("the wait is told once", len([e for e in peer["events"] if "127.0.0.1" in e["text"]]) <= 1 or f"!{peer['events']}")
    wait.check("the node is ready", ready(node.host))

    # it dials some seconds after its start, and so do we
    speaker.start()
    wait.until("the session is up", lambda: daemon.established(speaker.address), 15)
    wait.check("the mesh is untouched", cluster.all_right())
    speaker.client("global", "rib", "-a", "ipv4", "add", ADDRESS, "nexthop", node.host.v4)
    wait.until("the neighbour has the speaker's address", lambda: there.daemon.received(node.host.v4).get(ADDRESS), 15)
    hop = there.daemon.received(node.host.v4)[ADDRESS].next_hop
    wait.check("it leads to this node", wait.equal("next hop", hop, node.host.v4))
    wait.until("it is in the neighbour's kernel", lambda: there.host.hops().get(ADDRESS) == node.host.v4, 15)
    # a next hop that is an address of our own resolves to nothing (kernel-like-bird): what the node itself does with the address is in table local
    wait.stays("no route of ours leads to ourselves", lambda: node.host.hops().get(ADDRESS) in (None, "unreachable") or f"!{node.host.kernel()[ADDRESS]}", 3)
    speaker.client("global", "rib", "-a", "ipv4", "del", ADDRESS)
    wait.until("the address is gone from the neighbour", lambda: ADDRESS not in there.daemon.received(node.host.v4), 15)
    wait.check("the mesh is untouched", cluster.all_right())
