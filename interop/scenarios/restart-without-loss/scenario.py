"""Restarts under a probe: no packet is lost, and BIRD as a neighbour does not touch its routes."""

import json

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster
from lib.traffic import Probe, all_arrived, echo

VARIANTS = ["marker", "no-marker", "cold"]


def needs(variant):
    return ["calico-bgpd", "bird1"]


def run(lab, variant):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "calico-bgpd"})
    pods = {}
    for number, name in enumerate(cluster.nodes, 1):
        addresses = (f"10.244.{number}.10", f"fd00:10:244:{number:x}::a")
        pods[name] = (cluster[name].host.pod("a", *addresses), addresses)
    cluster.start()
    cluster.settled()
    node = cluster["node-1"]
    marker = node.daemon.run_folder / "restart-marker"
    wait.until("the marker names all sessions", lambda: len(json.loads(marker.read_text())["sessions"]) == 4, 10)

    target, addresses = pods["node-1"]
    for address in addresses:
        echo(lab, target, address)
    bird = cluster["node-2"].host
    for family in (4, 6):
        bird.spawn("ip", "-N", f"-{family}", "monitor", "route", log="monitor.log")
    monitor = bird.folder / "monitor.log"

    for how in (node.daemon.kill, node.daemon.stop):
        monitor.write_bytes(b"")
        probes = [Probe(lab, pods[name][0], address) for name in ("node-2", "node-3") for address in addresses]
        how()
        if variant != "marker":
            marker.unlink()
        wait.stays("the others keep the node's routes", cluster.blocks_everywhere, 2)
        if variant == "cold":
            for family in ("-4", "-6"):
                node.host.run("ip", family, "route", "flush", "proto", "bird")
        node.daemon.start()
        cluster.settled()
        wait.until("recovery is over", lambda: node.daemon.show("status")["phase"] == "normal", 60)
        # what BIRD would do late, at its next scan
        wait.stays("the routes are there", cluster.blocks_everywhere, 3)
        touched = [line for line in monitor.read_text().splitlines() if any(block.split("/")[0] in line for block in node.blocks)]
        lab.say(f"{how.__name__}: {len(touched)} changes of BIRD's kernel")
        if variant == "cold":
            wait.check("without the marker and the routes BIRD takes the node's routes out and back", bool(touched))
            for probe in probes:
                probe.end()
            continue
        wait.check("BIRD does not touch the node's routes", wait.equal("changes in BIRD's kernel", touched, []))
        all_arrived(lab, probes, 3000)
