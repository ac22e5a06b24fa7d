"""The kernel's table: leftovers cleaned, routes of others untouched, own routes kept over exit and start."""

import subprocess

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1"]

LEFTOVERS = [  # what a dead BIRD may have left
    "route add 10.244.77.0/26 via 10.0.0.2 dev eth0 proto 12 metric 1024",
    "route add blackhole 10.244.78.0/26 proto 12",
    "route add 10.244.2.0/26 via 10.0.0.3 dev eth0 proto 12 metric 1024",
    "-6 route add fd00:10:244:77::/122 via fd00::2 dev eth0 proto 12 metric 1024",
    "-6 route add blackhole fd00:10:244:78::/122 proto 12 metric 1024",
]
OTHERS = [  # Felix, the administrator, a routing daemon of another kind; one on a prefix that BGP brings too
    "route add 10.97.0.0/24 via 10.0.0.2 dev eth0 proto 80",
    "route add 10.96.0.0/24 via 10.0.0.2 dev eth0 proto static metric 7",
    "route add 10.95.0.0/24 via 10.0.0.2 dev eth0 proto 186 metric 20",
    "route add 10.244.2.0/26 via 10.0.0.3 dev eth0 proto static metric 5000",
    "route add default via 10.0.0.2 dev eth0",
    "-6 route add fd00:97::/64 via fd00::2 dev eth0 proto 80 metric 1024",
    "-6 route add fd00:96::/64 via fd00::2 dev eth0 proto static metric 7",
    "-6 route add fd00:10:244:2::/122 via fd00::3 dev eth0 proto static metric 5000",
    "-6 route add default via fd00::2 dev eth0",
]


def of_others(host):
    """Every route that is not of protocol 12, as text. The kernel's own flags for a next hop's neighbour state are no part of it."""
    text = host.ip("-N", "-4", "route", "show", "table", "all") + host.ip("-N", "-6", "route", "show", "table", "all")
    return {line.strip() for line in text.splitlines() if " proto 12 " not in line + " "}


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "bird1"})
    here = cluster["node-1"]
    for line in LEFTOVERS + OTHERS:
        here.host.ip(*line.split())
    before = of_others(here.host)
    for name in ("node-2", "node-3"):
        cluster[name].daemon.start()
    here.daemon.start()
    wait.until("sessions are up", lambda: cluster.established("node-1"), 60)
    wait.until("leftovers are gone, wanted routes are there", lambda: cluster.blocks_everywhere("node-1"), 60)
    wait.check("routes of others", wait.equal("routes of others", of_others(here.host), before))
    lab.say("leftovers are gone")

    watch = here.host.spawn("ip", "-N", "-4", "monitor", "route", log="monitor.log")
    watch6 = here.host.spawn("ip", "-N", "-6", "monitor", "route", log="monitor.log")
    for how in (here.daemon.stop, here.daemon.kill):
        how()
        wait.stays(f"routes after {how.__name__}", lambda: cluster.blocks_everywhere("node-1"), 3)
        # what changes while nobody looks is made up for
        cluster.add_block("node-2", "10.244.2.64/26")
        cluster.remove_block("node-2", "fd00:10:244:2::/122")
        here.daemon.start(restarting=True)
        wait.until("sessions are up", lambda: cluster.established("node-1"), 60)
        wait.until("wanted routes are there", lambda: cluster.blocks_everywhere("node-1"), 60)
        cluster.remove_block("node-2", "10.244.2.64/26")
        cluster.add_block("node-2", "fd00:10:244:2::/122")
        wait.until("wanted routes are there", lambda: cluster.blocks_everywhere("node-1"), 30)
        lab.say(f"{how.__name__} and start changed nothing that was wanted")

    # all restart at once: who dials first is refused, and that says nothing about routes
    for node in (here, cluster["node-2"], cluster["node-3"]):
        node.daemon.kill()
    here.daemon.start(restarting=True)
    wait.stays("routes while no peer is there", lambda: cluster.blocks_everywhere("node-1"), 5)
    for name in ("node-2", "node-3"):
        cluster[name].daemon.start(restarting=True)
    wait.until("sessions are up", lambda: cluster.established("node-1"), 60)
    wait.until("wanted routes are there", lambda: cluster.blocks_everywhere("node-1"), 60)
    lab.say("a restart of all changed nothing that was wanted")
    for process in (watch, watch6):
        process.terminate()
        process.wait(10)
    deleted = {line.split()[1] for line in (here.folder / "monitor.log").read_text().splitlines() if line.startswith("Deleted ")}
    wait.check("no wanted route was deleted", wait.equal("deleted", deleted, {"10.244.2.64/26", "fd00:10:244:2::/122"}))

    here.host.ip("route", "del", "10.244.3.0/26", "proto", "12")
    here.host.ip("-6", "route", "del", "fd00:10:244:3::/122", "proto", "12")
    wait.until("a route that someone deleted is back", lambda: cluster.blocks_everywhere("node-1"), 30)
    wait.check("routes of others", wait.equal("routes of others", of_others(here.host), before))
