"""Hosts as network namespaces on one Ethernet segment with IPv4 and IPv6.

All namespaces live in the scenario's own sandbox (see sandbox.py): their names cannot meet those of another scenario, and they vanish with it.
"""

import ipaddress
import json
import pathlib
import signal
import subprocess
import sys

from . import wait

NET4 = "10.0.0"
NET6 = "fd00::"
# What the kernel calls the route protocol of BIRD, which Calico's nodes use for what BGP taught them.
RTPROT_BIRD = 12


def sh(*command, check=True, input=None, env=None, timeout=60):
    """Runs a command and returns what it printed."""
    done = subprocess.run(command, input=input, env=env, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def canonical(prefix):
    """A prefix as `ip` and every daemon of the labs should write it."""
    return str(ipaddress.ip_network(prefix))


def hop(route):
    """The next hop of a route of `ip -j -N`: an address, the type of a route without one, or the device. Of several: all, sorted."""
    # -N makes the type a number too: RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
    kinds = {"6": "blackhole", "7": "unreachable", "8": "prohibit"}
    if "nexthops" in route:
        return " ".join(sorted(h.get("gateway", h.get("dev", "")) for h in route["nexthops"]))
    return route.get("gateway") or kinds.get(str(route.get("type"))) or route.get("dev", "")


def version(prefix):
    """4 or 6, of an address or a prefix."""
    return ipaddress.ip_network(prefix, strict=False).version


class Host:
    """One namespace with eth0 on the segment, named after what runs in it."""

    def __init__(self, lab, name, number):
        self.lab, self.name, self.number = lab, name, number
        self.ns = f"cb-{name}"
        self.v4, self.v6 = f"{NET4}.{number}", f"{NET6}{number:x}"
        # follows from the MAC address that Segment.host gives
        self.link_local = str(ipaddress.ip_address(f"fe80::ff:fe00:{number:x}"))
        self.folder = lab.out / name
        self.folder.mkdir(parents=True, exist_ok=True)

    def address(self, family):
        """The host's address of family 4 or 6."""
        return self.v4 if family == 4 else self.v6

    def run(self, *command, **options):
        """Runs a command in the host to its end and returns what it printed."""
        return sh("ip", "netns", "exec", self.ns, *command, **options)

    def spawn(self, *command, log, env=None, stdin=subprocess.DEVNULL):
        """Starts a program in the host. Its output is appended to the file `log` of the host's folder."""
        with open(self.folder / log, "ab") as sink:
            return subprocess.Popen(["ip", "netns", "exec", self.ns, *command], stdin=stdin, stdout=sink, stderr=sink,
                                    env=env, cwd=self.folder, start_new_session=True)

    def ip(self, *arguments):
        return sh("ip", "-n", self.ns, *arguments)

    def kernel(self, protocol=RTPROT_BIRD, family=None):
        """The main table's routes of one protocol: prefix → route as `ip -j` has it, 'via' and 'dev' filled in for single-hop routes.

        Equal prefixes with several metrics (legal, and never wanted by the labs) are an error.
        """
        found = {}
        for version in (4, 6) if family is None else (family,):
            for route in json.loads(self.ip("-j", "-N", f"-{version}", "route", "show", "table", "main") or "[]"):
                if protocol is not None and str(route.get("protocol", "")) != str(protocol):
                    continue
                prefix = route["dst"]
                if prefix == "default":
                    prefix = "0.0.0.0/0" if version == 4 else "::/0"
                if "/" not in prefix:
                    prefix += "/32" if version == 4 else "/128"
                if prefix in found:
                    raise RuntimeError(f"two kernel routes for {prefix} on {self.name}")
                found[prefix] = route
        return found

    def hops(self, protocol=RTPROT_BIRD, family=None):
        """As kernel(), but only prefix → next hop: an address, or the type of a route without one ('blackhole')."""
        return {prefix: hop(route) for prefix, route in self.kernel(protocol, family).items()}

    def count(self, protocol=RTPROT_BIRD):
        """How many IPv4 routes of one protocol the main table has, where they are too many to look at."""
        return self.ip("-4", "-N", "route", "show", "table", "main", "proto", str(protocol)).count("\n")

    def buffers(self, octets):
        """Limits what the kernel buffers for each TCP connection, each way: what is more waits in the programs."""
        for way in ("rmem", "wmem"):
            self.run("sh", "-c", f"echo 4096 {octets} {octets} >/proc/sys/net/ipv4/tcp_{way}")

    def connections(self, address):
        """The TCP connections that are established between the host and an address, on port 179 at either end: both ends of each, as text."""
        lines = self.run("ss", "-Htn", "state", "established",
                         f"( sport = :179 or dport = :179 ) and dst {f'[{address}]' if ':' in address else address}").splitlines()
        return sorted(" ".join(line.split()[2:4]) for line in lines if line.strip())

    def dials(self, address):
        """Whether the host has sent a SYN to an address and waits for the answer."""
        return bool(self.run("ss", "-Htn", "state", "syn-sent", "dst", f"[{address}]" if ":" in address else address).strip())

    def pids(self):
        """The processes in the host."""
        return [int(pid) for pid in sh("ip", "netns", "pids", self.ns).split()]

    def pings(self, address, source=None):
        """Whether one echo request to the address is answered within two seconds."""
        done = subprocess.run(["ip", "netns", "exec", self.ns, "ping", "-n", "-c", "1", "-W", "2", *(["-I", source] if source else []), address],
                              capture_output=True, text=True)
        return done.returncode == 0

    def pod(self, name, *addresses):
        """A pod of this host: a namespace behind a veth with the given addresses, routed as Felix does."""
        return Pod(self, name, addresses)


class Pod:
    """A namespace at the end of a veth. The host has a route to each of its addresses, it has a default route to the host."""

    def __init__(self, host, name, addresses):
        self.ns, self.host = f"cb-{host.name}-{name}", host
        dev = f"cali{host.number:02x}{name}"[:15]
        mac = "ee:ee:ee:ee:ee:ee"
        batch("", [f"netns add {self.ns}"])
        batch(host.ns, [f"link add {dev} address {mac} type veth peer name eth0 netns {self.ns}", f"link set {dev} up"])
        batch(self.ns, ["link set lo up", "link set eth0 up"])
        for address in addresses:
            v6 = ":" in address
            length, gateway = (128, "fe80::ecee:eeff:feee:eeee") if v6 else (32, "169.254.1.1")
            batch(self.ns, [f"addr add {address}/{length} dev eth0" + (" nodad" if v6 else ""),
                            f"neigh replace {gateway} lladdr {mac} dev eth0 nud permanent",
                            f"route add default via {gateway} dev eth0 onlink"])
            # protocol and metric of Felix: a route of another metric counts as raised, and would be told to everybody
            host.ip("route", "add", f"{address}/{length}", "dev", dev, "proto", "80", "metric", "1024", "scope", "global" if v6 else "link")

    def pings(self, address):
        """Whether one echo request to the address is answered within two seconds."""
        return Host.pings(self, address)


def batch(ns, lines):
    """Runs `ip` commands in one process."""
    sh("ip", *(["-n", ns] if ns else []), "-batch", "-", input="\n".join(lines) + "\n")


class Segment:
    """A bridge with hosts on it; made once for each scenario."""

    SWITCH = "cb-sw"

    def __init__(self, lab):
        self.lab, self.hosts = lab, {}
        batch("", [f"netns add {self.SWITCH}"])
        batch(self.SWITCH, ["link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up"])

    def host(self, name, number):
        """Adds a host: 10.0.0.NUMBER/24 and fd00::NUMBER/64 on eth0."""
        host = Host(self.lab, name, number)
        batch("", [f"netns add {host.ns}"])
        batch(self.SWITCH, [f"link add {name} type veth peer name eth0 address 02:00:00:00:00:{number:02x} netns {host.ns}",
                            f"link set {name} master br0 up"])
        host.run("sh", "-c", """
            for f in /proc/sys/net/ipv6/conf/*/dad_transmits /proc/sys/net/ipv6/conf/*/accept_dad /proc/sys/net/ipv4/conf/*/rp_filter; do
                echo 0 >"$f"
            done
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding""")
        batch(host.ns, ["link set lo up", f"addr add {host.v4}/24 dev eth0", f"addr add {host.v6}/64 dev eth0 nodad", "link set eth0 up"])
        self.hosts[name] = host
        return host

    def cut(self, host, port=None):
        """Drops silently what goes to and from a host: all of it, or one TCP port's."""
        matches = [f"iifname {host.name}", f"oifname {host.name}"]
        if port:
            matches = [f"{m} tcp {end} {port}" for m in matches for end in ("sport", "dport")]
        rules = "\n".join(f"add rule bridge cb cuts {m} drop comment \"{host.name}\"" for m in matches)
        sh("ip", "netns", "exec", self.SWITCH, "nft", "-f", "-",
           input=f"add table bridge cb\nadd chain bridge cb cuts {{ type filter hook forward priority 0; policy accept; }}\n{rules}\n")

    def heal(self):
        """Ends all cuts."""
        sh("ip", "netns", "exec", self.SWITCH, "nft", "delete", "table", "bridge", "cb")

    def relayed(self, host):
        """Puts a wire that can be held between a host and the segment."""
        tool = (sys.executable, "-u", str(pathlib.Path(__file__).with_name("wire.py")))
        inner, outer = f"{host.name}-i", f"{host.name}-o"
        batch(self.SWITCH, [f"link set {host.name} nomaster", f"link add {inner} type veth peer name {outer}", f"link set {outer} master br0 up",
                            f"link set {inner} up"])
        for each in self.hosts.values():
            each.run(*tool, "plain", "eth0")
            # a held wire must not cost the addresses of the neighbours
            batch(each.ns, [f"neigh replace {address} lladdr 02:00:00:00:00:{other.number:02x} dev eth0 nud permanent"
                            for other in self.hosts.values() if other is not each for address in (other.v4, other.v6, other.link_local)])
        with open(host.folder / "wire.log", "ab") as log:
            process = subprocess.Popen(["ip", "netns", "exec", self.SWITCH, *tool, "relay", host.name, inner], stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)
        wait.until("the wire relays", lambda: "relaying" in (host.folder / "wire.log").read_text(), 30)
        return Wire(process)


class Wire:
    """The relay between a host and the segment."""

    def __init__(self, process):
        self.process = process

    def hold(self):
        """Frames wait in both directions."""
        self.process.send_signal(signal.SIGSTOP)

    def release(self):
        """All of them arrive."""
        self.process.send_signal(signal.SIGCONT)
