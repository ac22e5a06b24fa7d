"""The node's address vanishes, returns, moves, changes: sessions fall with a reason and come back; no next hop is ever wrong."""

import threading
import time

from lib import calico, net, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1"]


class Watch:
    """Looks at a node's kernel again and again: every route of ours has the next hop of the node whose block it is, or none (it is unreachable)."""

    def __init__(self, cluster, node):
        self.cluster, self.node, self.wrong, self.looks, self.over = cluster, node, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.over.is_set():
            owners = {b: n for n in self.cluster.nodes.values() for b in n.blocks}
            for prefix, route in self.node.host.kernel().items():
                hop, owner = net.hop(route), owners.get(prefix)
                right = hop == "blackhole" if owner is self.node else owner and (hop == "unreachable" or hop in owner.addresses() and route.get("dev") == "eth0")
                if not right and (prefix, hop) not in self.wrong:
                    self.wrong.append((prefix, hop))
            self.looks += 1
            time.sleep(0.05)

    def end(self):
        self.over.set()
        self.thread.join()
        wait.check("it has looked", self.looks > 20)
        wait.check("no next hop was ever wrong", not self.wrong or f"!{self.wrong}")


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "calico-bgpd"}, hold=9).start()
    here, bird, ours = (cluster[f"node-{n}"] for n in (1, 2, 3))
    cluster.settled()
    # where everything would go that has no better route
    here.host.ip("link", "add", "uplink", "type", "veth", "peer", "name", "outside")
    here.host.ip("link", "set", "outside", "up")
    here.host.ip("addr", "add", "192.168.99.1/24", "dev", "uplink")
    here.host.ip("link", "set", "uplink", "up")
    here.host.ip("route", "add", "default", "via", "192.168.99.254")
    watch = Watch(cluster, here)
    address = here.host.v4

    def down(node, whose, *words):
        wait.until(f"{node.name} gives {whose} up", lambda: node.daemon.state(whose) != "Established", 30)
        if node.ours and node.kind == "calico-bgpd" and words:
            wait.until("the reason is shown", lambda: node.daemon.remembers(whose, *words), 10)

    here.host.ip("addr", "del", f"{address}/24", "dev", "eth0")
    down(here, bird.host.v4, "hold timer expired")
    down(bird, address)
    if here.kind == "calico-bgpd":
        wait.until("the reason names the source address", lambda: here.daemon.tells(bird.host.v4, "source address"), 30)
    wait.check("IPv6 sessions are up", all(here.daemon.established(n.host.v6) is True for n in (bird, ours)))
    lab.say("the address is gone")
    here.host.ip("addr", "add", f"{address}/24", "dev", "eth0")
    cluster.settled()
    lab.say("the address is back")

    # gone for a moment only: no session falls
    before = [here.daemon.peers()[n.host.v4]["established"] for n in (bird, ours)] if here.kind == "calico-bgpd" else None
    here.host.ip("addr", "del", f"{address}/24", "dev", "eth0")
    here.host.ip("addr", "add", f"{address}/24", "dev", "eth0")
    wait.stays("sessions", cluster.established, 10, every=1)
    cluster.settled()
    if before:
        after = [here.daemon.peers()[n.host.v4]["established"] for n in (bird, ours)]
        wait.check("sessions stay over a moment without the address", wait.equal("times established", after, before))

    # moved to another interface, as where a bridge takes over the address of its port
    here.host.ip("addr", "del", f"{address}/24", "dev", "eth0")
    here.host.ip("addr", "add", f"{address}/32", "dev", "lo")
    here.host.ip("route", "add", f"{net.NET4}.0/24", "dev", "eth0", "src", address)
    cluster.settled()
    lab.say("the address has moved")
    here.host.ip("route", "del", f"{net.NET4}.0/24", "dev", "eth0")
    here.host.ip("addr", "del", f"{address}/32", "dev", "lo")

    if here.foreign:
        # a daemon in our place would have to be configured anew
        return watch.end()
    # replaced by another one, which the datastore hears of a moment later
    other = f"{net.NET4}.101"
    here.host.ip("addr", "add", f"{other}/24", "dev", "eth0")
    down(here, bird.host.v4)
    here.host.v4 = other
    cluster.datastore.put(calico.node(here.host))
    bird.daemon.neighbours = [n if n.address != address else type(n)(**{**n.__dict__, "address": other}) for n in bird.daemon.neighbours]
    bird.daemon.reconfigure()
    cluster.settled()
    watch.end()
