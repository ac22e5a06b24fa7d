"""A peer's AS changes, then the node's own: sessions are replaced, and no packet is lost."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

from lib import calico, wait
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1"]
PROBE = (sys.executable, "-u", str(pathlib.Path(__file__).resolve().parents[2] / "lib" / "probe.py"))
PORT = 7007


def spawn(pod, log, *command):
    with open(log, "wb") as sink:
        return subprocess.Popen(["ip", "netns", "exec", pod.ns, *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)


class Probe:
    """From a pod to an address of another."""

    def __init__(self, lab, phase, source, to):
        self.name = f"{source.host.name} to {to}"
        self.log = lab.out / f"{phase}-{source.host.name}-{to.replace(':', '_')}.log"
        self.process = spawn(source, self.log, *PROBE, "probe", to, str(PORT))
        wait.until(f"the probe from {self.name} runs", lambda: "probes" in self.log.read_text(), 20)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return json.loads(self.log.read_text().splitlines()[-1])


def run(lab):
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": "calico-bgpd", "node-2": "bird1", "node-3": "calico-bgpd"})
    here, bird, other = cluster.nodes.values()
    pods = {}
    for number, name in enumerate(cluster.nodes, 1):
        addresses = (f"10.244.{number}.10", f"fd00:10:244:{number:x}::a")
        pods[name] = (cluster[name].host.pod("a", *addresses), addresses)
        if number != 2:
            bird.host.ip("route", "add", f"10.244.{number}.0/24", "via", cluster[name].host.v4)
            bird.host.ip("-6", "route", "add", f"fd00:10:244:{number:x}::/64", "via", cluster[name].host.v6)
    cluster.start()
    cluster.settled()
    for name, (pod, addresses) in pods.items():
        for address in addresses:
            log = lab.out / f"echo-{address.replace(':', '_')}.log"
            spawn(pod, log, *PROBE, "echo", address, str(PORT))
            wait.until("the echo runs", lambda log=log: "echoes" in log.read_text(), 20)

    def under_probe(phase, ways, change):
        probes = [Probe(lab, phase, pods[source][0], address) for source, to in ways for address in pods[to][1]]
        change()
        # BIRD has two ways now that the nodes are not all in one AS
        wait.until("all sessions are up", cluster.established, 60)
        for name in ("node-1", "node-3"):
            wait.until(f"{name} has every block", lambda name=name: cluster.blocks_everywhere(name), 30)
            wait.stays("and keeps them", lambda name=name: cluster.blocks_everywhere(name), 1)
        found = {probe.name: probe.end() for probe in probes}
        lab.say(f"{phase}: " + "; ".join(f"{name}: {r['lost']} of {r['sent']} lost" for name, r in found.items()))
        for name, result in found.items():
            wait.check(f"{phase}: no packet from {name} is lost", wait.equal("lost", (result["lost"], result["errors"]), (0, {})))
            wait.check(f"{phase}: the probe from {name} ran", result["sent"] > 2000)

    def change_as(node, asn):
        node.asn = node.daemon.asn = asn
        cluster.datastore.put(calico.node(node.host, asn))

    def the_peers():
        change_as(bird, 64513)
        for node in (here, other):
            for address in bird.addresses():
                wait.until(f"{node.name} has ended the old session with {address}", lambda n=node, a=address: n.daemon.state(a) != "Established", 30)
        # confd of that node is slower than we are
        wait.stays("nothing is taken out meanwhile", lambda: all(block in node.host.kernel() for node in (here, other) for block in bird.blocks), 3)
        bird.daemon.reconfigure()

    def our_own():
        change_as(here, 64514)
        for address in bird.addresses():
            wait.until(f"the old session with {address} has ended", lambda a=address: here.daemon.state(a) != "Established", 30)
        bird.daemon.neighbours = [dataclasses.replace(n, asn=64514) if n.address in here.addresses() else n for n in bird.daemon.neighbours]
        bird.daemon.reconfigure()

    under_probe("the peer's AS", [("node-1", "node-2"), ("node-3", "node-2")], the_peers)
    under_probe("the node's AS", [("node-1", "node-2"), ("node-1", "node-3"), ("node-3", "node-1")], our_own)
    wait.check("one after another", "replaced one after another" in here.daemon.log())
