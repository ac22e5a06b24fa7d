"""Driver of FRRouting 8.4: zebra, which writes to the kernel, and bgpd."""

import dataclasses
import grp
import json
import os
import pwd

from . import net, programs, wait
from .daemon import Daemon, Route


class Frr(Daemon):
    kind = "frr"
    # it can only leave out all capabilities, with that of IPv6
    two_octets = (4,)
    FOLDER = "/usr/lib/frr"

    @classmethod
    def missing(cls):
        return programs.absent("vtysh") or (None if os.path.exists(f"{cls.FOLDER}/bgpd") else "FRRouting is not installed")

    def text(self):
        top = [f"router bgp {self.asn}", f" bgp router-id {self.host.v4}", " no bgp ebgp-requires-policy", " no bgp network import-check",
               " no bgp default ipv4-unicast", " bgp graceful-restart", " bgp graceful-restart preserve-fw-state"]
        inner = {4: [], 6: []}
        for n in self.neighbours:
            a = n.address
            top += [f" neighbor {a} remote-as {n.asn}", f" neighbor {a} update-source {self.host.address(n.family)}",
                    f" neighbor {a} timers {max(n.hold // 3, 1)} {n.hold}", f" neighbor {a} timers connect 2"]
            if n.asn != self.asn and not n.gtsm:
                top.append(f" neighbor {a} ebgp-multihop 64")
            if n.gtsm:
                top.append(f" neighbor {a} ttl-security hops 1")
            if not n.as4:
                # leaves out all capabilities
                top.append(f" neighbor {a} dont-capability-negotiate")
            if n.passive:
                top.append(f" neighbor {a} passive")
            if n.password:
                top.append(f" neighbor {a} password {n.password}")
            if n.restart:
                top += [f" bgp graceful-restart restart-time {n.restart}"]
            else:
                top += [f" neighbor {a} graceful-restart-disable"]
            inner[n.family] += [f"  neighbor {a} activate", f"  neighbor {a} addpath-tx-all-paths"]
        for prefix in self.prefixes:
            inner[net.version(prefix)].append(f"  network {prefix}")
        for family, lines in inner.items():
            top += [f" address-family ipv{family} unicast", *lines, " exit-address-family"]
        return "\n".join(["log file " + str(self.sockets / "bgpd.log"), "debug bgp neighbor-events", "debug bgp updates", *top]) + "\n"

    @property
    def sockets(self):
        """A folder of user frr, to which both daemons drop; in the sandbox's own /run."""
        return self.host.lab.run / f"frr-{self.host.name}"

    def launch(self, restarting):
        # FRR is a restarting speaker after every start; there is nothing to ask for
        if not self.sockets.exists():
            self.sockets.mkdir(parents=True)
            os.chown(self.sockets, pwd.getpwnam("frr").pw_uid, grp.getgrnam("frr").gr_gid)
        config = self.sockets / "bgpd.conf"
        config.write_text(self.text())
        os.chown(config, pwd.getpwnam("frr").pw_uid, grp.getgrnam("frr").gr_gid)
        base = ["-z", f"{self.sockets}/zserv.api", "--vty_socket", str(self.sockets), "-A", "127.0.0.1"]
        self.processes.append(self.host.spawn(f"{self.FOLDER}/zebra", "-f", "/dev/null", "-i", f"{self.sockets}/zebra.pid", *base, log="zebra.out"))
        wait.until("zebra listens", lambda: (self.sockets / "zserv.api").exists(), 30)
        self.processes.append(self.host.spawn(f"{self.FOLDER}/bgpd", "-f", str(config), "-i", f"{self.sockets}/bgpd.pid", *base, log="bgpd.out"))

    def kill(self):
        super().kill()
        for left in ("zserv.api", "bgpd.vty", "zebra.vty"):
            (self.sockets / left).unlink(missing_ok=True)

    def vty(self, *commands):
        return self.host.run("vtysh", "--vty_socket", str(self.sockets), *(w for c in commands for w in ("-c", c)))

    def network(self, prefix, no=""):
        self.vty("configure terminal", f"router bgp {self.asn}", f"address-family ipv{net.version(prefix)} unicast", f"{no}network {prefix}")

    def announce(self, prefix):
        self.network(net.canonical(prefix))
        self.prefixes.append(net.canonical(prefix))

    def withdraw(self, prefix):
        self.network(net.canonical(prefix), "no ")
        self.prefixes.remove(net.canonical(prefix))

    def state(self, address):
        return json.loads(self.vty(f"show bgp neighbors {address} json"))[address]["bgpState"]

    def received(self, address):
        told = json.loads(self.vty(f"show bgp ipv{net.version(address)} unicast neighbors {address} routes json"))
        routes = {}
        for prefix, paths in told.get("routes", {}).items():
            first = paths[0]
            # with a link-local next hop beside it, the global one is the one that was sent to everybody
            hop = next((h["ip"] for h in first["nexthops"] if not h["ip"].startswith("fe80:")), first["nexthops"][0]["ip"])
            routes[net.canonical(prefix)] = Route(hop, tuple(int(a) for a in first.get("path", "").split() if a.isdigit()), first.get("locPrf"))
        return routes

    def paths(self, address):
        """With what a reflector adds, for which each prefix has to be asked for."""
        found = []
        for prefix, route in self.received(address).items():
            told = json.loads(self.vty(f"show bgp ipv{net.version(prefix)} unicast {prefix} json"))
            for path in told.get("paths", ()):
                if path["peer"]["peerId"] == address:
                    clusters = path.get("clusterList", {}).get("list", ())
                    found.append((prefix, dataclasses.replace(route, originator=path.get("originatorId"), clusters=tuple(clusters))))
        return found

    def refresh(self, address):
        self.vty(f"clear bgp ipv{net.version(address)} unicast {address} soft in")

    def updates(self, address):
        return json.loads(self.vty(f"show bgp neighbors {address} json"))[address]["messageStats"]["updatesRecv"]

    def shut(self, address):
        self.vty("configure terminal", f"router bgp {self.asn}", f"neighbor {address} shutdown message closed by the lab")

    def unshut(self, address):
        self.vty("configure terminal", f"router bgp {self.asn}", f"no neighbor {address} shutdown")
