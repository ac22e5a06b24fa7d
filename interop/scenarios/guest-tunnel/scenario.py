"""Packets through real ipip devices, under a kernel that has them: the tunnel's mode changes, the device comes late and is made anew."""

import subprocess

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.traffic import Probe, all_arrived, echo

GUEST = True
NEEDS = ["calico-bgpd", "bird1"]
# the guest takes seconds to start, and its processor is slow
SECONDS = 300
OURS = ("node-1", "node-2", "node-4")


def block(node):
    return next(b for b in node.blocks if ":" not in b)


def mode(cluster, ipip):
    cluster.datastore.put(calico.pool("pool-v4", "10.244.0.0/16", ipipMode=ipip))


def goes(node, other, dev):
    """Whether a block's route leads to the other node over a device, onlink where that is the tunnel."""
    route = node.host.kernel(family=4).get(block(other))
    if route is None:
        return f"!{node.name} has no route for {block(other)}"
    seen = (route.get("dev"), route.get("gateway"), "onlink" in route.get("flags", []))
    return seen == (dev, other.host.v4, dev == "tunl0") or f"!on {node.name} {block(other)} goes {seen}"


def all_go(cluster, device):
    """Whether every route between our nodes goes over the device that device(node, other) names."""
    for node in (cluster[name] for name in OURS):
        for other in (o for o in cluster.nodes.values() if o is not node):
            value = goes(node, other, device(node, other))
            if value is not True:
                return value
    return True


def crossing(node, other):
    """node-4 is in a subnet of its own."""
    return "tunl0" if "node-4" in (node.name, other.name) else "eth0"


def make_tunnel(node):
    node.host.ip("link", "add", "tunl0", "type", "ipip")
    node.host.ip("link", "set", "tunl0", "mtu", "1480", "up")
    # rp_filter of a device that is made later is the namespace's default
    node.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/tunl0/rp_filter")


def received(node):
    """Packets that have come through the node's tunnel."""
    return int(node.host.run("cat", "/sys/class/net/tunl0/statistics/rx_packets"))


def fits(pod, address, octets):
    """Whether an echo request of so many octets in all, which nobody may cut, is answered."""
    done = subprocess.run(["ip", "netns", "exec", pod.ns, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(octets - 28), address],
                          capture_output=True, text=True)
    return done.returncode == 0


def run(lab):
    nodes = {"node-1": "calico-bgpd", "node-2": "calico-bgpd", "node-3": "bird1", "node-4": "calico-bgpd"}
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), nodes)
    # before v3.33 the BGP daemon writes routes of IPIP pools unless something else is said (KERN-10a)
    cluster.datastore.put(calico.cluster("v3.26.0"))
    for node in cluster.nodes.values():
        # 10.0.0.0/30 has the first three, 10.0.0.4/30 the fourth
        cluster.datastore.put(calico.node(node.host, ipv4Address=f"{node.host.v4}/30"))
    mode(cluster, "Always")
    here = cluster["node-1"]
    pods = {name: node.host.pod("a", f"10.244.{node.host.number}.10") for name, node in cluster.nodes.items()}
    cluster.start()
    wait.until("sessions are up", cluster.established, 90)
    wait.check("nothing goes without the tunnel", block(cluster["node-2"]) not in here.host.kernel(family=4) or "!it does")

    for node in cluster.nodes.values():
        make_tunnel(node)
    wait.until("every route goes through the tunnel that came late", lambda: all_go(cluster, lambda *_: "tunl0"), 20)
    # BIRD 1.6.8 knows no tunnels, Calico's does: a Felix that writes the routes stands in for that
    third = cluster["node-3"]
    for other in (cluster[name] for name in OURS):
        third.host.ip("route", "add", block(other), "via", other.host.v4, "dev", "tunl0", "onlink", "proto", "80")
    target = "10.244.1.10"
    echo(lab, pods["node-1"], target)
    before = received(here)
    for name in ("node-2", "node-3", "node-4"):
        wait.check(f"a pod of {name} reaches one of node-1", pods[name].pings(target) or "!it does not")
    wait.check("through the tunnel", received(here) >= before + 3 or f"!{received(here) - before} packets")
    for octets, through in ((1480, True), (1481, False)):
        value = fits(pods["node-2"], target, octets)
        wait.check(f"{octets} octets {'fit' if through else 'do not fit'}", value is through or f"!{value}")
    lab.say("packets go through the tunnel, up to its MTU")

    # what the guest's one processor can carry beside all else
    probes = [Probe(lab, pods[name], target, 100) for name in ("node-2", "node-4")]
    for ipip, device in (("CrossSubnet", crossing), ("Never", lambda *_: "eth0"), ("Always", lambda *_: "tunl0"), ("CrossSubnet", crossing)):
        mode(cluster, ipip)
        wait.until(f"{ipip}: routes go as they should", lambda d=device: all_go(cluster, d), 20)
    all_arrived(lab, probes, 100)
    before = received(here)
    wait.check("a pod of the same subnet gets through", pods["node-2"].pings(target) or "!it does not")
    wait.check("beside the tunnel", received(here) == before or f"!{received(here) - before} packets")
    wait.check("a pod of the other subnet gets through", pods["node-4"].pings(target) or "!it does not")
    wait.check("through the tunnel", received(here) > before or "!no packet")
    lab.say("Always, CrossSubnet and Never change without the loss of a packet")

    fourth = cluster["node-4"]
    index = here.host.run("cat", "/sys/class/net/tunl0/ifindex")
    here.host.ip("link", "del", "tunl0")
    wait.until("the route goes with the device", lambda: block(fourth) not in here.host.kernel(family=4) or "!it is there", 20)
    make_tunnel(here)
    wait.check("the device is another", here.host.run("cat", "/sys/class/net/tunl0/ifindex") != index or f"!it has index {index}")
    wait.until("the new device is used", lambda: goes(here, fourth, "tunl0"), 20)
    wait.until("a pod of the other subnet gets through again", lambda: pods["node-4"].pings(target) or "!it does not", 20)
    lab.say("a device made anew is followed by its name")
