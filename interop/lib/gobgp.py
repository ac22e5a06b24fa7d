"""Drivers of GoBGP 3.10 (Debian's) and 4.8 (built from its Go module). Neither writes to the kernel."""

import json

from . import net, programs, wait
from .daemon import Daemon, Route

STATES = {0: "Unknown", 1: "Idle", 2: "Connect", 3: "Active", 4: "OpenSent", 5: "OpenConfirm", 6: "Established"}


class Gobgp(Daemon):
    """What both versions have in common: all but where the programs are."""

    # its 'softresetin' applies policy to what it holds; it never sends a ROUTE-REFRESH
    can_refresh = False
    # it always sends the capability
    two_octets = ()
    # where it listens; -1: nowhere
    port = 179

    def source(self, neighbour):
        """Its end of a session."""
        return self.host.address(neighbour.family)

    def text(self):
        out = f'[global.config]\n  as = {self.asn}\n  router-id = "{self.host.v4}"\n  port = {self.port}\n'
        for n in self.neighbours:
            out += f"""[[neighbors]]
  [neighbors.config]
    neighbor-address = "{n.address}"
    peer-as = {n.asn}
""" + (f'    auth-password = "{n.password}"\n' if n.password else "") + f"""  [neighbors.transport.config]
    local-address = "{self.source(n)}"
    passive-mode = {"true" if n.passive else "false"}
  [neighbors.timers.config]
    hold-time = {n.hold}
    keepalive-interval = {max(n.hold // 3, 1)}
    connect-retry = 2
    idle-hold-time-after-reset = 2
"""
            if n.gtsm:
                out += "  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n"
            if n.restart:
                out += f"  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = {n.restart}\n"
            out += f"""  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv{n.family}-unicast"
""" + ("    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n" if n.restart else "")
        return out

    def launch(self, restarting):
        (self.folder / "gobgpd.toml").write_text(self.text())
        self.processes.append(self.host.spawn(self.program("gobgpd"), "-f", "gobgpd.toml", "--api-hosts", "127.0.0.1:50051", "--pprof-disable",
                                              "--log-plain", "-l", "debug", *["-r"] * restarting, log="gobgpd.log"))

    def start(self, restarting=False):
        self.launch(restarting)
        wait.until(f"{self.kind} on {self.host.name} answers", lambda: self.client("global"), 30)
        for prefix in self.prefixes:
            self.client("global", "rib", "-a", self.family(prefix), "add", prefix)
        return self

    def client(self, *words):
        return self.host.run(self.program("gobgp"), "-u", "127.0.0.1", *words)

    @staticmethod
    def family(prefix):
        return f"ipv{net.version(prefix)}"

    def announce(self, prefix):
        self.client("global", "rib", "-a", self.family(prefix), "add", net.canonical(prefix))
        self.prefixes.append(net.canonical(prefix))

    def withdraw(self, prefix):
        self.client("global", "rib", "-a", self.family(prefix), "del", net.canonical(prefix))
        self.prefixes.remove(net.canonical(prefix))

    def state(self, address):
        told = json.loads(self.client("neighbor", address, "-j"))
        state = told["state"].get("session_state", told["state"].get("session-state", 0))
        return STATES.get(state, str(state))

    def received(self, address):
        text = self.client("neighbor", address, "adj-in", "-a", f"ipv{net.version(address)}", "-j")
        routes = {}
        for prefix, paths in (json.loads(text) or {}).items() if text.strip().startswith("{") else ():
            attrs = {a["type"]: a for a in paths[0]["attrs"]}
            hop = attrs[3]["nexthop"] if 3 in attrs else attrs[14]["nexthop"]
            path = tuple(a for segment in attrs.get(2, {}).get("as_paths") or () for a in segment["asns"])
            routes[net.canonical(prefix)] = Route(hop, path, attrs[5]["value"] if 5 in attrs else None, attrs.get(9, {}).get("value"),
                                                  tuple(attrs.get(10, {}).get("value", ())))
        return routes

    def updates(self, address):
        return json.loads(self.client("neighbor", address, "-j"))["state"]["messages"]["received"]["update"]

    def shut(self, address):
        self.client("neighbor", address, "disable")

    def unshut(self, address):
        self.client("neighbor", address, "enable")


class Gobgp3(Gobgp):
    kind = "gobgp3"

    @classmethod
    def program(cls, name):
        return programs.installed(name)

    @classmethod
    def missing(cls):
        return programs.absent("gobgpd", "gobgp")


class Gobgp4(Gobgp):
    kind = "gobgp4"

    @classmethod
    def program(cls, name):
        return programs.cached(f"gobgp-4.8.0/{name}")

    @classmethod
    def missing(cls):
        return None if cls.program("gobgpd") and cls.program("gobgp") else "GoBGP 4.8.0 is not built (make deps does it)"
