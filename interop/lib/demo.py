#!/usr/bin/env python3
"""A Calico cluster of three nodes on this machine, run by calico-bgpd, shown in a minute. ../demo installs and builds first."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap

INTEROP = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(INTEROP))
sys.dont_write_bytecode = True

from lib import calico, programs, sandbox, wait  # noqa: E402 - found by the line above
from lib.calico_bgpd import CalicoBgpd  # noqa: E402

CLUSTER = INTEROP.parent / "fixtures" / "clusters" / "three-nodes"
NEW_BLOCK, NEW_POD, POD4, POD6 = "10.244.3.64/26", "10.244.3.65", "10.244.{}.10", "fd00:10:244:{}::10"


def say(text):
    print("\n" + textwrap.fill(text, 100), flush=True)


def run(host, *command, **options):
    """Shows a command as one would type it on the host, and what it prints."""
    print(f"\n  {host.name}# {' '.join(pathlib.Path(w).name if '/calico-bgpd' in w else w for w in command)}", flush=True)
    print(textwrap.indent(host.run(*command, **options).rstrip(), "    "), flush=True)


def demo(lab):
    datastore = calico.FileDatastore(lab.out / "datastore")
    for path in sorted(CLUSTER.glob("*.yaml")):
        shutil.copy(path, datastore.folder)
    hosts = [lab.host(f"node-{n}", n) for n in (1, 2, 3)]
    say("Three hosts (network namespaces) on one Ethernet segment: " + ", ".join(f"{h.name} {h.v4} {h.v6}" for h in hosts) + ". "
        f"The cluster's resources are YAML files, as `calicoctl get -o yaml` prints them: a copy of {CLUSTER.relative_to(INTEROP.parent)}.")
    pods = [h.pod("pod", POD4.format(h.number), POD6.format(h.number)) for h in hosts]
    say("On each host one pod with an IPv4 and an IPv6 address out of the host's blocks. Nobody has told the hosts of one another's pods yet: "
        f"a ping from node-1's pod to node-3's is {'answered' if pods[0].pings(POD4.format(3)) else 'not answered'}.")

    say("Start calico-bgpd on each host. It reads the files, peers with the other two over IPv4 and IPv6, announces its own blocks, and writes "
        "the others' into the host's kernel.")
    daemons = [CalicoBgpd(h, datastore).start() for h in hosts]
    program = programs.calico_bgpd()
    wait.until("all sessions are up", lambda: all(d.established(a) is True for d in daemons for h in hosts if h is not d.host for a in (h.v4, h.v6)), 60)
    for daemon in daemons:
        run(daemon.host, program, "show", "peers", env=daemon.env())
    wanted = {f"10.244.{n}.0/26" for n in (1, 2, 3)} | {f"fd00:10:244:{n}::/122" for n in (1, 2, 3)}
    wait.until("all blocks are in all kernels", lambda: all(wanted <= set(h.kernel()) for h in hosts), 30)
    say("The routes that it wrote (protocol 'bird', the number 12, by which Felix knows them). A host's own block is a blackhole, "
        "so that addresses in it that no pod has go nowhere.")
    for host in hosts:
        run(host, "ip", "-4", "route", "show", "proto", "12")
        run(host, "ip", "-6", "route", "show", "proto", "12")

    say("Now node-1's pod reaches the pods of the others:")
    for address in (POD4.format(2), POD4.format(3), POD6.format(2), POD6.format(3)):
        wait.until(f"{address} answers", lambda a=address: pods[0].pings(a), 20)
        print(f"    ping {address}: answered", flush=True)

    say(f"A change in the datastore: node-3 claims one more block, {NEW_BLOCK}. One more file is written; nothing is restarted.")
    datastore.put(calico.block(hosts[2], NEW_BLOCK))
    wait.until("the new block is everywhere", lambda: all(NEW_BLOCK in h.kernel() for h in hosts), 30)
    run(hosts[0], "ip", "route", "show", NEW_BLOCK)
    hosts[2].pod("pod2", NEW_POD)
    wait.until("a pod in the new block answers", lambda: pods[0].pings(NEW_POD), 20)
    print(f"\n    ping {NEW_POD} from node-1's pod: answered", flush=True)

    say("Stop the daemons as a service manager does. Their routes stay, so that traffic goes on while a daemon is replaced:")
    for daemon in daemons:
        daemon.stop()
    wait.until("a pod answers", lambda: pods[0].pings(POD4.format(3)), 5)
    print(f"    ping {POD4.format(3)} from node-1's pod: answered", flush=True)
    say("That was it. The hosts vanish with this program; nothing is left on the machine.")


def main():
    if "--inside" in sys.argv:
        def body():
            try:
                demo(sandbox.Lab(sys.argv[-1]))
            except wait.Failed as failure:
                print(f"\ninterop/demo: {failure}", file=sys.stderr, flush=True)
                sys.exit(1)
        sandbox.enter(body)
    why = sandbox.available() or CalicoBgpd.missing()
    if why:
        print(f"interop/demo: {why}", file=sys.stderr)
        return 1
    folder = tempfile.mkdtemp(prefix="calico-bgpd-demo-")
    try:
        status = subprocess.run(sandbox.command(sys.executable, __file__, "--inside", folder)).returncode
    except KeyboardInterrupt:
        status = 130
    if status == 0:
        shutil.rmtree(folder)
    else:
        print(f"interop/demo: the daemons' logs are in {folder}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
