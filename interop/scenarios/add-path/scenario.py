"""Two reflectors with the same inputs: calico-bgpd sends the same sets of paths as BIRD 1.6."""

import collections
import json
import os
import random

from lib import calico, wait
from lib.bird import LOCAL_PREF, Bird1
from lib.calico import FileDatastore
from lib.calico_bgpd import CalicoBgpd
from lib.crowd import Collector, Feed, address, place
from lib.daemon import Neighbour

NEEDS = ["calico-bgpd", "bird1"]

ASN, CLUSTER = 64512, "244.0.0.9"
# number of the address, AS, router id
FEEDS = [(11, ASN, "10.9.0.5"), (12, ASN, "10.9.0.4"), (13, ASN, "200.9.0.3"), (14, ASN, "10.9.0.8"), (21, 65001, "10.9.0.2"), (22, 65002, "10.9.0.1"), (23, 65001, "10.9.0.7")]
COLLECTORS = [(31, ASN, "10.9.1.1"), (32, 65010, "10.9.1.2")]
PREFIXES = 300


def routes(dice):
    """For each prefix one to seven paths, each of another speaker."""
    for family in (4, 6):
        for n in range(PREFIXES):
            prefix = f"10.244.{64 + n // 200}.{n % 200}/32" if family == 4 else f"fd00:10:244:ff::{n:x}/128"
            for number, asn, _ in dice.sample(FEEDS, dice.choice([1, 2, 2, 3, 4, 7])):
                yield route(dice, number, asn, prefix, family)


def route(dice, number, asn, prefix, family):
    path = dice.choice([[], [65005], [65005, 65006]])
    told = {"from": address(number, family), "prefix": prefix, "next_hop": address(dice.choice([number, number, 50, 51]), family), "origin": dice.choice([0, 0, 2]),
            "med": dice.choice([None, None, 0, 10])}
    if asn == ASN:
        told |= {"path": path, "local_pref": dice.choice([100, LOCAL_PREF, LOCAL_PREF, LOCAL_PREF + 512])}
        told |= {"originator": dice.choice([None, None, "1.1.1.1"]), "clusters": dice.choice([None, None, ["3.3.3.3"], ["3.3.3.3", "4.4.4.4"]])}
        if told["clusters"] and not told["originator"]:
            told["originator"] = "1.1.1.2"
    else:
        told |= {"path": [asn, *path]}
    return told


def sets(collector, reflector):
    """(source, prefix) → how often each set of attributes is there. Path ids and the reflector's own address are left out, and the order of the clusters:
    RFC 4456 has the own one put in front, and BIRD 1.6 puts it behind."""
    found = {}
    for (source, target), table in collector.held().items():
        if target not in (reflector.v4, reflector.v6):
            continue
        for prefix, paths in table.items():
            paths = [{k: sorted(v) if k == "clusters" else v for k, v in attributes.items()} for attributes in paths.values()]
            texts = (json.dumps(attributes, sort_keys=True).replace(f'"{target}"', '"the reflector"') for attributes in paths)
            found[source, prefix] = dict(collections.Counter(texts))
    return found


def run(lab):
    ours, theirs, crowd = lab.host("node-1", 1), lab.host("node-2", 2), lab.host("crowd", 3)
    place(crowd, [number for number, _, _ in FEEDS + COLLECTORS])
    block = "10.244.9.0/26"
    neighbours = [Neighbour(address(number, f), asn, cluster=CLUSTER if asn == ASN else None) for f in (4, 6) for number, asn, _ in FEEDS + COLLECTORS]
    datastore = FileDatastore(lab.out / "datastore")
    datastore.put(*calico.base(nodeToNodeMeshEnabled=False), calico.node(ours, routeReflectorClusterID=CLUSTER), calico.block(ours, block))
    datastore.put(*(calico.peer(n.name.replace("_", "-"), node=ours.name, peerIP=n.address, asNumber=n.asn) for n in neighbours))
    daemon = CalicoBgpd(ours, datastore).start()
    Bird1(theirs, ASN, neighbours, [block]).start()

    def all_of(speakers):
        return [(address(number, f), asn, router_id) for f in (4, 6) for number, asn, router_id in speakers]

    targets = [host.address(f) for host in (ours, theirs) for f in (4, 6)]
    feed, collector = Feed(crowd, "feed", all_of(FEEDS), targets), Collector(crowd, "collect", all_of(COLLECTORS), targets)
    feed.up()
    collector.up()
    wait.until("the start is over", lambda: daemon.show("status")["phase"] == "normal", 60)

    def same(what, least):
        def equal():
            have, want = sets(collector, ours), sets(collector, theirs)
            return wait.equal("paths as BIRD sends them", have, want) if sum(map(len, want.values())) >= least else f"! BIRD sends {len(want)} prefixes"
        wait.until(f"the same paths: {what}", equal, 20)
        wait.stays(f"the same paths: {what}", equal, 2, every=0.5)
        found = sets(collector, ours)
        lab.say(f"{what}: {len(found)} prefixes to collectors, {sum(sum(c.values()) for c in found.values())} paths, all alike")

    dice = random.Random(os.environ.get("SEED", "1"))
    told = list(routes(dice))
    feed.tell(*told)
    same("everything announced", 2 * PREFIXES)
    changed = [route(dice, int(r["from"].replace("fd00::", "10.0.0.").split(".")[-1]), next(a for n, a, _ in FEEDS if r["from"].endswith(str(n))), r["prefix"],
                     6 if ":" in r["from"] else 4) for r in dice.sample(told, len(told) // 3)]
    feed.tell(*changed)
    same("a third changed", 2 * PREFIXES)
    feed.tell(*({"from": r["from"], "withdraw": r["prefix"]} for r in dice.sample(told, len(told) // 3)))
    same("a third withdrawn", PREFIXES)
    for number in (11, 21):
        feed.tell(*({"from": address(number, f), "close": True} for f in (4, 6)))
    same("two speakers gone", PREFIXES)
    # BDEF-21: the node's own static route and the kernel's are one prefix from two sources
    for host in (ours, theirs):
        host.ip("route", "add", "blackhole", block, "proto", "80", "metric", "2048")
    same("Felix's blackhole on the own block", PREFIXES)
