"""The network of a situation, as namespaces of the scenario's sandbox:

    node      where the daemon runs, with the situation's links, addresses and routes
    world     everything behind its wires
    nowhere   the other ends of links that lead nowhere, so that they have carrier
    pod-N     one for each workload link; its default routes lead to the node

Every link is a veth pair, whatever its name says. MAC addresses follow from names, and with them the link-local addresses that the recordings hold.
"""

import contextlib
import ctypes
import hashlib
import ipaddress
import os

from lib import net, wait

from .situations import networks

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
NODE, WORLD, NOWHERE = "node", "world", "nowhere"
BOTH = "/proc/sys/net/ipv{}/conf/{}/{}"
SWITCHES = {
    "/proc/sys/net/ipv4/ip_forward": 1,
    "/proc/sys/net/ipv4/ip_nonlocal_bind": 1,
    "/proc/sys/net/ipv6/ip_nonlocal_bind": 1,
    **{BOTH.format(4, scope, "rp_filter"): 0 for scope in ("all", "default")},
    **{BOTH.format(6, scope, key): value for scope in ("all", "default")
       for key, value in {"disable_ipv6": 0, "forwarding": 1, "accept_ra": 0, "autoconf": 0, "accept_dad": 0, "dad_transmits": 0, "addr_gen_mode": 0,
                          "router_solicitations": 0}.items()},
}


@contextlib.contextmanager
def inside(namespace):
    """The body runs in a network namespace; sockets and processes that it makes stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def enter(namespace):
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mac(link, end):
    """The MAC address of a link's end, 'node' or 'far'. The situations were recorded with these."""
    return "02:" + ":".join(f"{octet:02x}" for octet in hashlib.sha256(f"{link} {end}".encode()).digest()[:5])


def link_local(mac_address):
    """The address that the kernel forms from a MAC address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac_address.replace(":", ""))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]))


def host_route(address):
    plain = ipaddress.ip_address(address.split("/")[0])
    return f"{plain}/{plain.max_prefixlen}"


def assign(address, dev):
    return f"address add {address} dev {dev}" + (" nodad" if ":" in address else "")


class World:
    """Builds the namespaces; the sandbox's end takes them away."""

    def __init__(self, situation):
        self.situation = situation
        workloads = [link["name"] for link in situation.links if link["kind"] == "workload"]
        self.pods = {name: f"pod-{number}" for number, name in enumerate(workloads)}

    def namespace_of(self, peer):
        """Where a scripted neighbour lives."""
        return self.pods.get(peer.get("link"), WORLD)

    def build(self):
        for namespace in (NODE, WORLD, NOWHERE, *self.pods.values()):
            net.batch("", [f"netns add {namespace}"])
            with inside(namespace):
                for path, value in SWITCHES.items():
                    with open(path, "w") as switch:
                        switch.write(str(value))
            net.batch(namespace, ["link set lo up"])
        for link in self.situation.links:
            self.add(link)
        net.batch(WORLD, self.behind_the_wires())
        net.batch(NODE, [command(route) for route in self.situation.routes])
        wait.until("the links have their addresses", self.ready, 20)

    def ready(self):
        shown = net.sh("ip", "-n", NODE, "-6", "-o", "address", "show")
        wanted = [link_local(mac(link["name"], "node")) for link in self.situation.links if link.get("up", True)]
        return "tentative" not in shown and all(f" {address}/" in shown for address in wanted)

    def add(self, link):
        name, pod = link["name"], self.pods.get(link["name"])
        far = pod or {"wire": WORLD, "plain": NOWHERE}[link["kind"]]
        there = "eth0" if pod else name
        net.batch(NODE, [f"link add {name} address {mac(name, 'node')} type veth peer name {there} netns {far} address {mac(name, 'far')}",
                         *(assign(address, name) for address in link.get("addresses", []))])
        net.batch(far, [f"link set {there} up"])
        if link.get("up", True):
            net.batch(NODE, [f"link set {name} up"])
        if pod:
            addresses = [*link.get("remote", []), *(peer["address"] for peer in self.situation.peers if peer.get("link") == name)]
            net.batch(pod, [*(assign(address, "eth0") for address in sorted(set(map(host_route, addresses)))),
                            "route add 0.0.0.0/0 dev eth0", f"route add ::/0 via {link_local(mac(name, 'node'))} dev eth0"])

    def behind_the_wires(self):
        """Commands that give the world its addresses (in the node's subnets and gateways on the wire, others on its loopback) and routes back."""
        situation = self.situation
        wires = {link["name"]: link for link in situation.links if link["kind"] == "wire"}
        behind = {host_route(address): link for link in wires.values() for address in link.get("remote", [])}
        gateways = [(route["via"], route.get("dev")) for route in situation.routes if route.get("via")]
        for address, dev in [(peer["address"], peer.get("link")) for peer in situation.peers] + gateways:
            link = situation.link(dev) if dev else situation.link_of(address)
            if link and link["name"] in wires:
                behind[host_route(address)] = link
        commands = []
        for address, link in sorted(behind.items()):
            plain = ipaddress.ip_interface(address).ip
            subnet = next((net for net in networks(link) if plain in net), None)
            if subnet is not None:
                commands.append(assign(f"{plain}/{subnet.prefixlen}", link["name"]))
            elif plain.is_link_local and plain.version == 6 or address in {host_route(via) for via, _ in gateways}:
                commands.append(assign(address, link["name"]))
            else:
                commands.append(assign(address, "lo"))
        return commands + [f"route replace {host_route(address)} dev {link['name']}" for link in wires.values() for address in link.get("addresses", [])
                           if not (":" in address and ipaddress.ip_interface(address).ip.is_link_local)]


def command(route):
    words = ["route add", route.get("type", "unicast"), route["prefix"]]
    for key, word in (("via", "via"), ("dev", "dev"), ("protocol", "proto"), ("metric", "metric"), ("scope", "scope")):
        if route.get(key) is not None:
            words += [word, str(route[key])]
    return " ".join(words + ["onlink"] * bool(route.get("onlink")))
