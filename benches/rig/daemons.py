"""The daemons that benches/macro measures: each is a class that writes a configuration and names what to start.

A further one: a subclass of Subject with `name`, `missing()`, `start(role)` (see Role), and its line in ALL. What it starts is in `self.processes`, whose
CPU time and memory, with those of all their children, count.
"""

import grp
import json
import os
import pwd
import subprocess
import time
from dataclasses import dataclass, field

from lib import programs, wait

ADDRESS = "198.51.100.1"


@dataclass
class Role:
    """What a daemon is to be: its AS, the speakers (address, AS) that it dials, whether it reflects to them, whether it writes the kernel's routes."""

    asn: int
    peers: list = field(default_factory=list)
    reflects: bool = False
    kernel: bool = False

    @property
    def internal(self):
        return all(asn == self.asn for _, asn in self.peers)


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as text:
                for child in map(int, text.read().split()):
                    found += [child, *children(child)]
    except OSError:
        pass
    return found


def status(pid, name):
    """A number of /proc/PID/status; of several threads it is that of the first."""
    try:
        with open(f"/proc/{pid}/status") as text:
            return next((int(line.split()[1]) for line in text if line.startswith(f"{name}:")), 0)
    except OSError:
        return 0


class Subject:
    """A daemon under measurement, in the namespace `ns`, with a folder of its own."""

    name = ""
    # whether it can write the kernel's routes here
    kernel = True
    program = None

    def __init__(self, ns, folder):
        self.ns, self.folder, self.processes = ns, folder, []
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def missing(cls):
        raise NotImplementedError

    def start(self, role):
        raise NotImplementedError

    def spawn(self, *command, env=None):
        with open(self.folder / "out", "ab") as sink:
            self.processes.append(subprocess.Popen(["ip", "netns", "exec", self.ns, *command], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                                                   env={**os.environ, **(env or {})}, cwd=self.folder))

    def write(self, name, *lines):
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    def pids(self):
        return [pid for p in self.processes for pid in (p.pid, *children(p.pid))]

    def cpu(self):
        """Seconds of CPU, of all threads and processes."""
        total = 0
        for pid in self.pids():
            try:
                # clock id of another process: CPUCLOCK_SCHED, all of its threads
                total += time.clock_gettime_ns((~pid << 3) | 2)
            except OSError:
                pass
        return total / 1e9

    def peak(self):
        """Peak resident memory, MiB."""
        return sum(status(pid, "VmHWM") for pid in self.pids()) / 1024

    def wakeups(self):
        """How often its threads have waited and been woken."""
        return sum(status(f"{pid}/task/{task}", "voluntary_ctxt_switches") for pid in self.pids() for task in os.listdir(f"/proc/{pid}/task"))

    def stop(self):
        pids = self.pids()
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in pids:
            if os.path.exists(f"/proc/{pid}"):
                os.kill(pid, 9)


class CalicoBgpd(Subject):
    """Ours. Peers of its own AS are Nodes of the cluster (its mesh, or its clients as a reflector), others are BGPPeers. Two pools have all of IPv4, so
    that nothing is refused. Routes of VXLAN pools are Felix's to write: so it keeps a table only where the kernel is left out."""

    name = "calico-bgpd"

    @classmethod
    def missing(cls):
        return None if programs.calico_bgpd() else "calico-bgpd is not built"

    def start(self, role):
        def item(kind, name, spec, labels=None):
            return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name, "labels": labels or {}}, "spec": spec}
        items = [item("BGPConfiguration", "default", {"asNumber": role.asn, "nodeToNodeMeshEnabled": role.internal and not role.reflects})]
        items += [item("IPPool", f"half-{n}", {"cidr": cidr, "ipipMode": "Never", "vxlanMode": "Never" if role.kernel else "Always"})
                  for n, cidr in enumerate(("0.0.0.0/1", "128.0.0.0/1"))]
        own = {"ipv4Address": f"{ADDRESS}/24"}
        if role.reflects:
            own["routeReflectorClusterID"] = ADDRESS
            items.append(item("BGPPeer", "clients", {"nodeSelector": "has(reflector)", "peerSelector": "!has(reflector)"}))
        items.append(item("Node", "self", {"bgp": own}, {"reflector": ""} if role.reflects else None))
        for n, (address, asn) in enumerate(role.peers):
            items.append(item("Node", f"peer-{n}", {"bgp": {"ipv4Address": f"{address}/32"}}) if asn == role.asn else
                         item("BGPPeer", f"peer-{n}", {"node": "self", "peerIP": address, "asNumber": asn}))
        (self.folder / "resources").mkdir()
        self.write("resources/all.yaml", *("---\n" + json.dumps(i) for i in items))
        self.spawn(programs.calico_bgpd(), "run", env={"NODENAME": "self", "DATASTORE_TYPE": "file", "DATASTORE_PATH": str(self.folder / "resources"),
                                                       "CALICO_BGPD_RUN_DIR": str(self.folder), "CALICO_BGPD_STATE_DIR": str(self.folder / "state")})


class Bird2(Subject):
    name = "bird2"
    template = 'ipv4 {{ import all; export where source = RTS_BGP; {recursive} }};'

    @classmethod
    def missing(cls):
        return programs.absent("bird", "birdc")

    def program(self):
        return programs.installed("bird")

    def kernels(self):
        return "protocol kernel { scan time 60; ipv4 { import none; export where source = RTS_BGP; }; }", 'protocol direct { ipv4; interface "*"; }'

    def start(self, role):
        kernel, direct = self.kernels()
        options = [f"local {ADDRESS} as {role.asn};", "connect delay time 1; connect retry time 1; error wait time 1,2; hold time 90;",
                   self.template.format(recursive="gateway recursive;" if role.internal else ""),
                   "multihop;", "rr client;" if role.reflects else "", f"source address {ADDRESS};"]
        peers = (f"protocol bgp p{n} from t {{ neighbor {address} as {asn}; }}" for n, (address, asn) in enumerate(role.peers))
        path = self.write("bird.conf", f"router id {ADDRESS};", "protocol device { scan time 60; }", direct, kernel if role.kernel else "",
                          f"template bgp t {{ {' '.join(options)} }}", *peers)
        self.spawn(self.program(), "-f", "-c", path, "-s", str(self.folder / "ctl"))


class Bird1(Bird2):
    name = "bird1"
    template = "import all; export where source = RTS_BGP; {recursive}"

    @classmethod
    def missing(cls):
        return None if programs.cached("bird-1.6.8/usr/sbin/bird") else "BIRD 1.6.8 is not unpacked"

    def program(self):
        return programs.cached("bird-1.6.8/usr/sbin/bird")

    def kernels(self):
        return "protocol kernel { scan time 60; import none; export where source = RTS_BGP; }", 'protocol direct { interface "*"; }'


class Frr(Subject):
    """bgpd with zebra, which resolves next hops for it; without the kernel bgpd gives zebra no routes."""

    name = "frr"
    FOLDER = "/usr/lib/frr"

    @classmethod
    def missing(cls):
        return None if os.path.exists(f"{cls.FOLDER}/bgpd") else "FRRouting is not installed"

    def start(self, role):
        lines = [f"router bgp {role.asn}", f" bgp router-id {ADDRESS}", " no bgp ebgp-requires-policy", " no bgp network import-check", " neighbor all peer-group",
                 *([f" neighbor all remote-as {role.asn}"] if role.internal else []), " neighbor all timers 30 90", " neighbor all timers connect 1",
                 " neighbor all advertisement-interval 0", f" neighbor all update-source {ADDRESS}", " neighbor all disable-connected-check"]
        for address, asn in role.peers:
            lines += [*([] if role.internal else [f" neighbor {address} remote-as {asn}"]), f" neighbor {address} peer-group all"]
        lines += [" address-family ipv4 unicast", "  neighbor all activate", *(["  neighbor all route-reflector-client"] if role.reflects else []), " exit-address-family"]
        # it drops to user frr
        sockets = self.folder
        os.chown(sockets, pwd.getpwnam("frr").pw_uid, grp.getgrnam("frr").gr_gid)
        path = self.write("bgpd.conf", *lines)
        common = ["-z", f"{sockets}/zserv.api", "--vty_socket", str(sockets), "-P", "0"]
        self.spawn(f"{self.FOLDER}/zebra", "-f", "/dev/null", "-i", f"{sockets}/zebra.pid", *common)
        wait.until("zebra listens", lambda: (sockets / "zserv.api").exists(), 30)
        self.spawn(f"{self.FOLDER}/bgpd", "-f", path, "-i", f"{sockets}/bgpd.pid", *common, *([] if role.kernel else ["-n"]))


class Openbgpd(Subject):
    """The portable one has no kernel to write to."""

    name, kernel = "openbgpd", False

    @classmethod
    def missing(cls):
        return programs.absent("bgpd")

    def start(self, role):
        options = f"local-address {ADDRESS}\n multihop 64\n" if not role.internal else f"local-address {ADDRESS}\n"
        options += f" route-reflector {ADDRESS}\n" if role.reflects else ""
        peers = (f"neighbor {address} {{\n remote-as {asn}\n {options}}}" for address, asn in role.peers)
        path = self.write("bgpd.conf", f"AS {role.asn}", f"router-id {ADDRESS}", "fib-update no", f'socket "{self.folder}/ctl"', "nexthop qualify via default", *peers,
                          "allow from any", "allow to any")
        os.chmod(path, 0o600)
        os.makedirs("/run/openbgpd", exist_ok=True)
        self.spawn(programs.installed("bgpd"), "-d", "-f", path)


class Gobgp(Subject):
    """It writes to the kernel through zebra only."""

    name, kernel = "gobgp", False

    @classmethod
    def missing(cls):
        return programs.absent("gobgpd")

    def start(self, role):
        lines = ["[global.config]", f"  as = {role.asn}", f'  router-id = "{ADDRESS}"', "  port = -1"]
        for address, asn in role.peers:
            lines += ["[[neighbors]]", "  [neighbors.config]", f'    neighbor-address = "{address}"', f"    peer-as = {asn}",
                      "  [neighbors.timers.config]", "    hold-time = 90", "    keepalive-interval = 30", "    connect-retry = 1",
                      "  [neighbors.transport.config]", f'    local-address = "{ADDRESS}"']
            if role.reflects:
                lines += ["  [neighbors.route-reflector.config]", "    route-reflector-client = true", f'    route-reflector-cluster-id = "{ADDRESS}"']
            elif not role.internal:
                lines += ["  [neighbors.ebgp-multihop.config]", "    enabled = true", "    multihop-ttl = 64"]
        self.spawn(programs.installed("gobgpd"), "-f", self.write("gobgpd.toml", *lines), "-l", "error", "--api-hosts", "127.0.0.1:50051", "--pprof-disable")


class Relay(Subject):
    """No daemon: passes every UPDATE on and keeps no routes. The floor."""

    name, kernel = "relay", False
    program = None

    @classmethod
    def missing(cls):
        return None

    def start(self, role):
        self.spawn(self.program, "relay", str(role.asn), str(len(role.peers)))


ALL = {c.name: c for c in (CalicoBgpd, Bird1, Bird2, Frr, Openbgpd, Gobgp, Relay)}
