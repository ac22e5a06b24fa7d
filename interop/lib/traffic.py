"""Datagrams between pods of a lab: who sends a thousand a second through a change, and what of them was lost (probe.py runs in the pods)."""

import json
import pathlib
import signal
import subprocess
import sys

from . import wait

TOOL = (sys.executable, "-u", str(pathlib.Path(__file__).with_name("probe.py")))
PORT = 7007


def spawn(namespace, log, *command):
    with open(log, "wb") as sink:
        return subprocess.Popen(["ip", "netns", "exec", namespace, *TOOL, *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                                start_new_session=True)


def echo(lab, pod, address):
    """From now on a pod (or host) sends back what comes to one of its addresses."""
    log = lab.out / f"echo-{address.replace(':', '_')}.log"
    spawn(pod.ns, log, "echo", address, str(PORT))
    wait.until("the echo runs", lambda: "echoes" in log.read_text(), 20)


class Probe:
    """From a pod (or host) to an address that echoes, so many datagrams a second. Runs until end()."""

    def __init__(self, lab, source, to, rate=1000):
        self.name = f"{source.ns.removeprefix('cb-')} to {to}"
        log = lab.out / f"probe-{source.ns}-{to.replace(':', '_')}.log"
        self.log, self.process = log, spawn(source.ns, log, "probe", to, str(PORT), str(rate))
        wait.until(f"the probe from {self.name} runs", lambda: "probes" in log.read_text(), 20)

    def end(self):
        """What probe.py tells: sent, lost, when, errors, longest_pause."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return json.loads(self.log.read_text().splitlines()[-1])


def all_arrived(lab, probes, least):
    """Ends probes, and fails where one of them has lost a packet or has sent fewer than `least`."""
    found = {probe.name: probe.end() for probe in probes}
    lab.say("; ".join(f"{name}: {r['lost']} of {r['sent']} lost" for name, r in found.items()))
    for name, result in found.items():
        wait.check(f"no packet from {name} is lost", wait.equal("lost", (result["lost"], result["errors"]), (0, {})))
        wait.check(f"the probe from {name} ran", result["sent"] >= least)
