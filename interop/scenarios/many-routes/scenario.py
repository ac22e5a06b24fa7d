"""A router sends a whole Internet, with and without a limit: the mesh does not mind."""

import time

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.crowd import Feed, address, place

VARIANTS = ["all", "limit", "million", "million-limit"]
SECONDS = 300
LIMIT = 5000


def when(variant):
    return "soak" if variant.startswith("million") else "always"


def needs(variant):
    return ["calico-bgpd", "bird1"]


def run(lab, variant):
    count = 1_000_000 if variant.startswith("million") else 100_000
    limited = variant.endswith("limit")
    crowd = lab.host("crowd", 9)
    place(crowd, [11])
    router = address(11, 4)
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1"})
    node = cluster["node-1"]
    cluster.datastore.put(calico.peer("router", node=node.name, peerIP=router, asNumber=65001))
    if limited:
        node.daemon.environment["CALICO_BGPD_MAX_PREFIXES"] = f"{LIMIT}:close"
    cluster.start()
    cluster.settled()
    feed = Feed(crowd, "feed", [(router, 65001, "10.9.0.11")], [node.host.v4]).up()
    wait.until("the start is over", lambda: node.daemon.show("status")["phase"] == "normal", 60)
    own, sessions = node.host.count(), node.host.connections(cluster["node-2"].host.v4)
    lab.say(f"before: {own} routes, {node.daemon.memory()} KiB")

    began = time.monotonic()
    feed.write(['{"from": "%s", "first": "11.0.0.0/24", "count": %d, "next_hop": "%s", "path": [65001, 65002]}' % (router, count, router)])
    cluster.add_block("node-1", "10.244.1.64/26")
    cluster.add_block("node-2", "10.244.2.64/26")

    def mesh():
        """The mesh's routes, one by one: the table is too long to be listed each time."""
        for here, there in ((node, cluster["node-2"]), (cluster["node-2"], node)):
            for block in there.blocks:
                if f"via {there.host.address(calico.net.version(block))} " not in here.host.ip("-N", f"-{calico.net.version(block)}", "route", "show", block):
                    return f"!{here.name} lacks {block}"
        return cluster.established()

    wait.until("changes of the mesh arrive meanwhile", mesh, 20)
    lab.say(f"the mesh's changes arrived after {time.monotonic() - began:.1f} s")
    if limited:
        wait.until("the session is ended", lambda: node.daemon.tells(router, "6/1", "Maximum Number of Prefixes Reached"), 60)
        wait.until("none of the router's routes is left", lambda: node.host.count() == own + 2 or f"!{node.host.count()}", 60)
        wait.check("the session stays down", node.daemon.state(router) != "Established")
    else:
        wait.until("all of them are in the kernel", lambda: node.host.count() == own + 2 + count or f"!{node.host.count()}", 200, every=1)
        lab.say(f"in: {time.monotonic() - began:.1f} s, {node.daemon.memory()} KiB")
        wait.check("the mesh", mesh())
        cluster.remove_block("node-2", "10.244.2.0/26")
        began = time.monotonic()
        wait.until("a change arrives", lambda: not node.host.ip("route", "show", "10.244.2.0/26").strip(), 20)
        lab.say(f"a change with all of them there took {time.monotonic() - began:.2f} s")
        cluster.add_block("node-2", "10.244.2.0/26")
        wait.until("a change arrives", mesh, 20)
        feed.tell({"from": router, "close": True})
        wait.until("they go with the router", lambda: node.host.count() == own + 2 or f"!{node.host.count()}", 200, every=1)
    wait.check("the mesh's sessions were never down", wait.equal("connections", node.host.connections(cluster["node-2"].host.v4), sessions))
    lab.say(f"after: {node.daemon.memory()} KiB")
    cluster.settled()
