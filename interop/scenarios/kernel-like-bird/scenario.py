"""The same routes and the same kernel events: the same kernel as BIRD 1.6."""

import itertools
import json
import os
import random

from lib import calico, net, wait
from lib.bird import LOCAL_PREF, Bird1
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.crowd import Feed, address, place
from lib.daemon import Neighbour

NEEDS = ["calico-bgpd", "bird1"]

# number of the address, AS, router id
SPEAKERS = [(11, 64512, "10.9.0.5"), (12, 64512, "10.9.0.4"), (13, 64512, "200.9.0.3"), (21, 65001, "10.9.0.2"), (22, 65002, "10.9.0.1"), (23, 65001, "10.9.0.7")]
DUELS = 400
# on both links, behind foreign routes of every kind, behind a route of BGP, an own address, behind the default route or nothing
HOPS = {4: ["10.0.0.50", "10.0.0.51", "10.1.0.50", "192.0.2.7", "192.0.3.7", "192.0.4.1", "192.0.5.1", "172.20.0.1", "10.1.0.1", "8.8.8.8", "10.244.9.5"],
        6: ["fd00::50", "fd00::51", "fd01::50", "fd02:2::7", "fd02:3::7", "fd02:4::1", "fd02:5::1", "fd20::1", "fd01::1", "2001:db8::8", "fd00:10:244:9::5"]}
SECOND_LINK = [
    "link add eth1 address 02:00:00:00:01:01 type veth peer name far1",
    "link set far1 up",
    "link set eth1 up",
    "addr add 10.1.0.1/24 dev eth1",
    "addr add fd01::1/64 dev eth1 nodad",
]
FOREIGN = [
    "route add 192.0.2.0/24 via 10.0.0.3 dev eth0 proto static metric 5",
    "route add 192.0.3.0/24 via 10.1.0.3 dev eth1 proto 80",
    "route add blackhole 192.0.4.0/24 proto static",
    "route add 192.0.5.0/24 proto static nexthop via 10.0.0.3 dev eth0 nexthop via 10.0.0.4 dev eth0",
    "route add fd02:2::/64 via fd00::3 dev eth0 proto static metric 5",
    "route add fd02:3::/64 via fd01::3 dev eth1 proto 80",
    "route add blackhole fd02:4::/64 proto static",
    "route add fd02:5::/64 proto static nexthop via fd00::3 dev eth0 nexthop via fd00::4 dev eth0",
]
EVENTS = {
    "default routes": ["route add default via 10.0.0.3 proto static metric 100", "route add default via fd00::3 proto static metric 100"],
    "default routes of lower metric over the second link": ["route add default via 10.1.0.3 proto 16",
                                                           "route add default via fd01::3 proto 16 metric 10"],
    "more specific foreign routes": ["route add 192.0.2.0/28 via 10.1.0.3 proto 80", "route add unreachable 8.8.8.0/24 proto static",
                                     "route add fd02:2::/124 via fd01::3 proto 80", "route add prohibit 2001:db8::/32 proto static"],
    "foreign routes for prefixes of BGP": ["route add 172.21.0.0/24 via 10.0.0.3 proto 80 metric 7", "route add fd21::/64 via fd00::3 proto 80 metric 7"],
    "the second link is down": ["link set eth1 down"],
    "the second link is back under another name": ["link set eth1 name lan1", "link set lan1 up", "addr add fd01::1/64 dev lan1 nodad"],
    "its address is gone": ["addr del 10.1.0.1/24 dev lan1", "addr del fd01::1/64 dev lan1"],
    "its address is another": ["addr add 10.1.0.50/24 dev lan1", "addr add fd01::50/64 dev lan1 nodad"],
    "the foreign routes are gone": ["route flush proto static", "-6 route flush proto static"],
    "everything of ours is deleted": ["route flush proto 12", "-6 route flush proto 12"],
}


def duels(dice):
    """Routes of several speakers to one prefix each, equal in most things."""
    for family, n in itertools.product((4, 6), range(DUELS)):
        prefix = f"172.16.{n // 200}.{n % 200}/32" if family == 4 else f"fd16:{n:x}::/64"
        speakers = dice.sample(SPEAKERS, dice.choice([2, 2, 2, 3]))
        for number, asn, _ in speakers:
            plain = dice.random() < 0.6
            path = [65005, 65006] if plain else dice.choice([[], [65005], [65005, 65006], [65007, 65006]])
            route = {"from": address(number, family), "prefix": prefix, "origin": 0 if plain else dice.choice([0, 1, 2])}
            # which of three wins depends on their order in BIRD where MEDs are compared
            route["med"] = dice.choice([None, 0, 10]) if len(speakers) == 2 else None
            # hops of one prefix are of one kind in half of the cases: later steps are reached
            route["next_hop"] = dice.choice(HOPS[family] if dice.random() < 0.5 else HOPS[family][:2])
            if asn == 64512:
                route["path"] = path
                route["local_pref"] = dice.choice([100, 100, 100, None, 99, LOCAL_PREF, LOCAL_PREF + 512, 4294967295])
                route["originator"] = dice.choice([None, None, "1.1.1.1", "10.9.0.4"])
                route["clusters"] = dice.choice([None, None, ["3.3.3.3"], ["3.3.3.3", "4.4.4.4"]])
            else:
                route["path"] = [asn, *path[:1]] if plain else [asn, *path]
            yield route


def singles():
    """A route over each next hop, one that covers a next hop, one to a prefix that the kernel has from others, too."""
    first, second = SPEAKERS[0][0], SPEAKERS[1][0]
    for family in (4, 6):
        for n, hop in enumerate(HOPS[family]):
            yield {"from": address(first, family), "prefix": f"172.17.{n}.0/24" if family == 4 else f"fd17:{n:x}::/64", "next_hop": hop, "local_pref": LOCAL_PREF}
        covers = "172.20.0.0/16" if family == 4 else "fd20::/32"
        yield {"from": address(second, family), "prefix": covers, "next_hop": address(50, family), "local_pref": LOCAL_PREF}
        yield {"from": address(second, family), "prefix": "172.21.0.0/24" if family == 4 else "fd21::/64", "next_hop": address(50, family), "local_pref": LOCAL_PREF}


def kernel(host):
    """Routes of protocol 12 as far as a daemon decides about them."""
    keys = ("type", "gateway", "dev", "metric")
    def plain(route):  # noqa: E306
        hops = sorted((h.get("gateway"), h["dev"], h["weight"]) for h in route.get("nexthops", []))
        return json.dumps([{k: route[k] for k in keys if k in route}, hops], sort_keys=True)
    return {prefix: plain(route) for prefix, route in host.kernel().items()}


def run(lab):
    ours, theirs, crowd = lab.host("node-1", 1), lab.host("node-2", 2), lab.host("crowd", 3)
    both = [(number, asn) for number, asn, _ in SPEAKERS]
    place(crowd, [number for number, _ in both])
    neighbours = [Neighbour(address(number, family), asn) for family in (4, 6) for number, asn in both]
    blocks = ["10.244.9.0/26", "fd00:10:244:9::/122"]
    datastore = FileDatastore(lab.out / "datastore")
    datastore.put(*calico.base(nodeToNodeMeshEnabled=False), calico.node(ours), *(calico.block(ours, block) for block in blocks))
    datastore.put(*(calico.peer(n.name.replace("_", "-"), node=ours.name, peerIP=n.address, asNumber=n.asn) for n in neighbours))
    for host in (ours, theirs):
        net.batch(host.ns, SECOND_LINK + FOREIGN)
    CalicoBgpd(ours, datastore).start()
    Bird1(theirs, 64512, neighbours, blocks).start()

    speakers = [(address(number, family), asn, router_id) for family in (4, 6) for number, asn, router_id in SPEAKERS]
    feed = Feed(crowd, "feed", speakers, [host.address(family) for host in (ours, theirs) for family in (4, 6)]).up()

    def same(what, least=2 * DUELS):  # noqa: E306
        def equal():
            have, want = kernel(ours), kernel(theirs)
            return wait.equal("our kernel, as BIRD has it", have, want) if len(want) >= least else f"! BIRD has {len(want)} routes"
        wait.until(f"the same kernel routes: {what}", equal, 20)
        # BIRD looks every two seconds
        wait.stays(f"the same kernel routes: {what}", equal, 2.5, every=0.5)
        lab.say(f"{what}: {len(kernel(ours))} routes, all alike")

    dice = random.Random(os.environ.get("SEED", "1"))
    routes = [*duels(dice), *singles()]
    feed.tell(*routes)
    same("everything announced")
    for what, lines in EVENTS.items():
        for host, line in itertools.product((ours, theirs), lines):
            host.ip(*line.split())
        same(what)
    gone = dice.sample(routes, len(routes) // 3)
    feed.tell(*({"from": route["from"], "withdraw": route["prefix"]} for route in gone))
    same("a third withdrawn", DUELS)
