"""Restarts under a probe: no packet is lost, and BIRD as a neighbour does not touch its routes."""

import json
import pathlib
import signal
import sys

from lib import wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

VARIANTS = ["marker", "no-marker"]
PROBE = (sys.executable, "-u", str(pathlib.Path(__file__).resolve().parents[2] / "lib" / "probe.py"))
PORT = 7007


def needs(variant):
    return ["calico-bgpd", "bird1"]


class Probe:
    """From a pod of a neighbour to a pod of the node that restarts."""

    def __init__(self, lab, source, to):
        self.name = f"{source.host.name} to {to}"
        self.log = lab.out / f"probe-{source.host.name}-{to.replace(':', '_')}.log"
        self.process = spawn(source, self.log, *PROBE, "probe", to, str(PORT))
        wait.until(f"the probe from {self.name} runs", lambda: "probes" in self.log.read_text(), 20)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return json.loads(self.log.read_text().splitlines()[-1])


def spawn(pod, log, *command):
    import subprocess
    with open(log, "wb") as sink:
        return subprocess.Popen(["ip", "netns", "exec", pod.ns, *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)


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
        log = lab.out / f"echo-{address.replace(':', '_')}.log"
        spawn(target, log, *PROBE, "echo", address, str(PORT))
        wait.until("the echo runs", lambda: "echoes" in log.read_text(), 20)
    bird = cluster["node-2"].host
    for family in (4, 6):
        bird.spawn("ip", "-N", f"-{family}", "monitor", "route", log="monitor.log")
    monitor = bird.folder / "monitor.log"

    for how in (node.daemon.kill, node.daemon.stop):
        monitor.write_bytes(b"")
        probes = [Probe(lab, pods[name][0], address) for name in ("node-2", "node-3") for address in addresses]
        how()
        if variant == "no-marker":
            marker.unlink()
        wait.stays("the others keep the node's routes", cluster.blocks_everywhere, 2)
        node.daemon.start()
        cluster.settled()
        wait.until("recovery is over", lambda: node.daemon.show("status")["phase"] == "normal", 60)
        # what BIRD would do late, at its next scan
        wait.stays("the routes are there", cluster.blocks_everywhere, 3)
        found = {probe.name: probe.end() for probe in probes}
        lab.say(f"{how.__name__}: " + "; ".join(f"{name}: {r['lost']} of {r['sent']} lost" for name, r in found.items()))
        touched = [line for line in monitor.read_text().splitlines() if any(block.split("/")[0] in line for block in node.blocks)]
        if variant == "no-marker":
            wait.check("without the marker BIRD takes the routes out and back", bool(touched))
            continue
        wait.check("BIRD does not touch the node's routes", wait.equal("changes in BIRD's kernel", touched, []))
        for name, result in found.items():
            wait.check(f"no packet from {name} is lost", wait.equal("lost", (result["lost"], result["errors"]), (0, {})))
            wait.check(f"the probe from {name} ran", result["sent"] > 3000)
