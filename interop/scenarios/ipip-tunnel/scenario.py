"""IPIP routes: they wait for their device, follow it by name, and change mode without a gap."""

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1"]
BLOCK, FAR = "10.244.2.0/26", "10.0.0.2"


def mode(cluster, ipip):
    cluster.datastore.put(calico.pool("pool-v4", "10.244.0.0/16", ipipMode=ipip))


def goes(node, dev):
    """Whether the block's route leads over a device to the other node, onlink where that is the tunnel."""
    route = node.host.kernel(family=4).get(BLOCK)
    if route is None:
        return f"!no route for {BLOCK}"
    seen = (route.get("dev"), route.get("gateway"), "onlink" in route.get("flags", []))
    return seen == (dev, FAR, dev == "tunl0") or f"!{BLOCK} goes {seen}"


def told(node, state, *words):
    """Whether `show kernel` has the block in this state, for a reason with these words."""
    line = next((r for r in node.daemon.show("kernel")["routes"] if r["prefix"] == BLOCK), None)
    if line is None:
        return f"!show kernel has no {BLOCK}"
    said = line.get("reason") or ""
    return (line["state"] == state and all(w in said for w in words)) or f"!show kernel says {line}"


def make_tunnel(node):
    node.host.ip("link", "add", "tunl0", "type", "veth", "peer", "name", "tunl0p")
    node.host.ip("link", "set", "tunl0p", "up")
    node.host.ip("link", "set", "tunl0", "up")


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "bird1"})
    # before v3.33 the BGP daemon writes routes of IPIP pools unless something else is said (KERN-10a)
    cluster.datastore.put(calico.cluster("v3.26.0"))
    mode(cluster, "Always")
    here = cluster["node-1"]
    cluster.start()
    wait.until("sessions are up", lambda: cluster.established("node-1"), 60)
    wait.until("the route waits for its device", lambda: told(here, "waiting", "tunl0"), 30)
    wait.check("nothing goes without the tunnel", BLOCK not in here.host.kernel(family=4) or "!it does")
    make_tunnel(here)
    wait.until("the route goes through the tunnel", lambda: goes(here, "tunl0"), 10)
    wait.until("show kernel knows", lambda: told(here, "installed"), 10)
    lab.say("a tunnel that comes late is used at once")

    watch = here.host.spawn("ip", "-N", "-4", "monitor", "route", log="monitor.log")
    for ipip, dev in (("CrossSubnet", "eth0"), ("Always", "tunl0"), ("Never", "eth0"), ("Always", "tunl0")):
        mode(cluster, ipip)
        wait.until(f"{ipip}: the route goes over {dev}", lambda d=dev: goes(here, d), 10)
    watch.terminate()
    watch.wait(10)
    deleted = [line for line in (here.folder / "monitor.log").read_text().splitlines() if line.startswith("Deleted ") and BLOCK in line]
    wait.check("no change of mode deletes the route", not deleted or f"!{deleted}")
    lab.say("Always, CrossSubnet and Never change in place")

    here.host.ip("link", "del", "tunl0")
    wait.until("the route waits again", lambda: told(here, "waiting", "tunl0"), 10)
    make_tunnel(here)
    wait.until("the new device is used", lambda: goes(here, "tunl0"), 10)
    lab.say("a device made anew is followed by its name")

    for _ in range(3):
        here.host.ip("route", "flush", "proto", "12")
        wait.until("a flush is repaired", lambda: goes(here, "tunl0"), 3)
    # the same release that a Felix would be a rival in: tunnel routes alone, twice
    cluster.datastore.put(calico.cluster("v3.33.0"), calico.configuration(programClusterRoutes="Enabled"))
    wait.until("the release is another", lambda: here.daemon.show("status")["release"] == "v3.33" or "!not yet", 30)
    wait.stays("the route", lambda: goes(here, "tunl0"), 2)
    here.host.ip("route", "del", BLOCK, "proto", "12")
    wait.until("once is repaired", lambda: goes(here, "tunl0"), 3)
    here.host.ip("route", "del", BLOCK, "proto", "12")
    wait.until("twice is yielded to", lambda: told(here, "failed", "Felix"), 5)
    wait.check("the other routes stay", "10.244.1.0/26" in here.host.kernel(family=4) or "!they do not")
    cluster.datastore.put(calico.configuration(programClusterRoutes="EnabledIPIPOnly"))
    wait.until("other owner settings are a new attempt", lambda: goes(here, "tunl0"), 10)
    lab.say("a flush is repaired, a rival is yielded to")

    here.daemon.stop()
    status, text = here.daemon.once("cleanup")
    wait.check("cleanup lists", (status == 0 and f"{BLOCK} via {FAR} dev tunl0 onlink metric" in text) or f"!{status} {text}")
    wait.check("it removes nothing unasked", goes(here, "tunl0"))
    status, text = here.daemon.once("cleanup", "--yes")
    wait.check("cleanup removes", (status == 0 and not here.host.kernel()) or f"!{status} {text} {here.host.kernel()}")
