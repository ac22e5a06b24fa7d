"""Driver of ExaBGP 4.2. It keeps no table: what it receives goes to a process of ours, which writes it down (exabgp_api.py)."""

import json
import os
import pathlib

from . import net, programs
from .daemon import Daemon, Route


class Exabgp(Daemon):
    kind = "exabgp"
    API = pathlib.Path(__file__).with_name("exabgp_api.py")

    @classmethod
    def missing(cls):
        return programs.absent("exabgp")

    def text(self):
        out = f"process api {{\n  run /usr/bin/python3 -u {self.API} {self.folder};\n  encoder json;\n}}\n"
        for n in self.neighbours:
            lines = [f"router-id {self.host.v4};", f"local-address {self.host.address(n.family)};", f"local-as {self.asn};", f"peer-as {n.told_asn};",
                     f"hold-time {n.hold};", f"family {{ ipv{n.family} unicast; }}",
                     "capability { route-refresh enable; " + ("" if n.as4 else "asn4 disable; ") + (f"graceful-restart {n.restart}; " if n.restart else "") + "}",
                     "api { processes [ api ]; neighbor-changes; receive { parsed; update; } }"]
            if n.passive:
                lines.append("passive true;")
            if n.gtsm:
                lines += ["outgoing-ttl 255;", "incoming-ttl 255;"]
            if n.password:
                lines.append(f"md5-password '{n.password}';")
            statics = " ".join(f"route {p} next-hop self;" for p in self.prefixes if net.version(p) == n.family)
            lines.append(f"static {{ {statics} }}")
            out += f"neighbor {n.address} {{\n  " + "\n  ".join(lines) + "\n}\n"
        return out

    def launch(self, restarting):
        (self.folder / "received.jsonl").unlink(missing_ok=True)
        fifo = self.folder / "commands"
        if not fifo.exists():
            os.mkfifo(fifo)
        (self.folder / "exabgp.conf").write_text(self.text())
        # it listens on as many addresses as are named, and only for neighbours that name them
        env = {**os.environ, "exabgp.daemon.user": "root", "exabgp.api.cli": "false", "exabgp.log.all": "true",
               "exabgp.tcp.bind": f"{self.host.v4} {self.host.v6}", "exabgp.tcp.port": "179", "exabgp.tcp.delay": "0"}
        self.processes.append(self.host.spawn(programs.installed("exabgp"), "exabgp.conf", log="exabgp.log", env=env))

    def command(self, text):
        with open(self.folder / "commands", "w") as fifo:
            fifo.write(text + "\n")

    def announce(self, prefix):
        self.command(f"announce route {net.canonical(prefix)} next-hop self")
        self.prefixes.append(net.canonical(prefix))

    def withdraw(self, prefix):
        self.command(f"withdraw route {net.canonical(prefix)} next-hop self")
        self.prefixes.remove(net.canonical(prefix))

    def events(self, address):
        """What it was told, oldest first. The last line may still be in the writing."""
        path = self.folder / "received.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("neighbor", {}).get("address", {}).get("peer") == address:
                yield event

    def state(self, address):
        state = "Idle"
        for event in self.events(address):
            if event["type"] == "state":
                state = {"up": "Established", "connected": "OpenSent", "down": "Idle"}[event["neighbor"]["state"]]
        return state

    def received(self, address):
        routes = {}
        for event in self.events(address):
            if event["type"] == "state" and event["neighbor"]["state"] == "down":
                routes = {}
            update = event["neighbor"].get("message", {}).get("update", {})
            attributes = update.get("attribute", {})
            for entries in update.get("withdraw", {}).values():
                for entry in entries:
                    routes.pop(net.canonical(entry["nlri"]), None)
            for hops in update.get("announce", {}).values():
                for hop, entries in hops.items():
                    for entry in entries:
                        if "nlri" in entry:
                            path = attributes.get("as-path", [])
                            path = [a for part in path.values() for a in part["value"]] if isinstance(path, dict) else path
                            routes[net.canonical(entry["nlri"])] = Route(hop, tuple(path), attributes.get("local-preference"), attributes.get("originator-id"),
                                                                         tuple(attributes.get("cluster-list", ())))
        return routes

    def refresh(self, address):
        self.command(f"neighbor {address} announce route-refresh ipv{net.version(address)} unicast")

    def updates(self, address):
        return sum(event["type"] == "update" for event in self.events(address))

    def shut(self, address):
        self.command(f"neighbor {address} teardown 2")

    def unshut(self, address):
        """Its teardown is for once: it connects again by itself."""
