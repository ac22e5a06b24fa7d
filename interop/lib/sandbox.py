"""A scenario's own small machine: mount, PID and network namespaces that end with it.

`command()` gives the command line that runs a scenario as PID 1 of new namespaces, with an empty /run. Network namespaces that the scenario
makes are mounted below that /run, and every process it starts is in its PID namespace: when PID 1 ends, however it ends, the kernel ends them all
and nothing is left on the machine. So scenarios run side by side with the same names, addresses and ports.
"""

import os
import pathlib
import shutil
import subprocess
import sys

from . import net


def command(*inner):
    """The command line that runs `inner` in a sandbox. Killing the process ends the sandbox."""
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts", *inner]


def enter(scenario):
    """As PID 1 of the sandbox: prepares it, runs scenario() in a child, buries orphans meanwhile, and ends with the child's status."""
    if os.getpid() != 1:
        raise RuntimeError("not in a sandbox: start scenarios by interop/run")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    for folder in ("/run/netns", "/run/lock", "/run/calico"):
        os.makedirs(folder)
    if not os.path.islink("/var/run"):
        subprocess.run(["mount", "--bind", "/run", "/var/run"], check=True)
    child = os.fork()
    if child == 0:
        scenario()
        sys.stdout.flush()
        os._exit(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status) and 1)


class Lab:
    """What a scenario is given: a folder for logs, one segment, and the machine's tools."""

    def __init__(self, out):
        self.out = pathlib.Path(out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.run = pathlib.Path("/run")
        self.segment = net.Segment(self)

    def host(self, name, number):
        """A host on the segment: 10.0.0.NUMBER and fd00::NUMBER."""
        return self.segment.host(name, number)

    def say(self, text):
        """A line in the scenario's log."""
        print(text, flush=True)


def available():
    """Why sandboxes cannot be made here, or None."""
    if os.geteuid() != 0:
        return "the labs must be run as root"
    for tool in ("unshare", "ip", "nft", "ping"):
        if not shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"{tool} is not installed"
    done = subprocess.run(command("true"), capture_output=True, text=True)
    return None if done.returncode == 0 else f"namespaces cannot be made here: {done.stderr.strip()}"
