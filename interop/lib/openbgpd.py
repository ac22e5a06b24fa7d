"""Driver of OpenBGPD 7.7 (portable). It has no kernel table to write to."""

import json
import os
import signal

from . import net, programs
from .daemon import Daemon, Route


class Openbgpd(Daemon):
    kind = "openbgpd"
    # 120 s, and 7.7 has no setting for it
    dials_rarely = True
    # 7.7 refuses just the families that were negotiated: the condition is the wrong way round (openbgpd-portable issue 46)
    answers_refresh = False

    @classmethod
    def missing(cls):
        return programs.absent("bgpd", "bgpctl")

    def text(self):
        out = f'AS {self.asn}\nrouter-id {self.host.v4}\nsocket "{self.folder}/bgpd.sock"\nlog updates\n'
        out += "".join(f"network {p}\n" for p in self.prefixes)
        for n in self.neighbours:
            lines = [f"remote-as {n.asn}", f"local-address {self.host.address(n.family)}", f"holdtime {n.hold}", "holdtime min 3",
                     f"announce IPv{4 if n.family == 4 else 6} unicast", "announce add-path recv yes",
                     f"announce restart {'yes' if n.restart else 'no'}"]
            if n.asn != self.asn and not n.gtsm:
                lines.append("multihop 64")
            if not n.as4:
                lines.append("announce as-4byte no")
            if n.gtsm:
                lines.append("ttl-security yes")
            # the portable version gives its listening sockets no keys: a signed session comes up only where it dials
            if n.passive and not n.password:
                lines.append("passive")
            if n.password:
                lines.append(f"tcp md5sig password {n.password}")
            out += f"neighbor {n.address} {{\n\t" + "\n\t".join(lines) + "\n}\n"
        return out + "allow from any\nallow to any\n"

    def launch(self, restarting):
        config = self.folder / "bgpd.conf"
        config.write_text(self.text())
        config.chmod(0o600)
        # its user's home, to which it changes its root; /run is the sandbox's own
        os.makedirs("/run/openbgpd", exist_ok=True)
        self.processes.append(self.host.spawn(programs.installed("bgpd"), "-d", "-f", str(config), log="bgpd.log"))

    def kill(self):
        """Ends all of its processes at once: without the parent the others would still say goodbye to the neighbours."""
        os.killpg(self.processes[0].pid, signal.SIGKILL)
        super().kill()

    def client(self, *words):
        return self.host.run("bgpctl", "-s", f"{self.folder}/bgpd.sock", *words)

    def announce(self, prefix):
        self.client("network", "add", net.canonical(prefix))
        self.prefixes.append(net.canonical(prefix))

    def withdraw(self, prefix):
        self.client("network", "delete", net.canonical(prefix))
        self.prefixes.remove(net.canonical(prefix))

    def state(self, address):
        told = json.loads(self.client("-j", "show", "neighbor", address))["neighbors"]
        return next(n["state"] for n in told if n["remote_addr"] == address)

    def received(self, address):
        told = json.loads(self.client("-j", "show", "rib", "in", "neighbor", address))
        return {net.canonical(r["prefix"]): Route(r.get("exit_nexthop") or r.get("nexthop"), tuple(int(a) for a in r.get("aspath", "").split()), r.get("localpref"))
                for r in told.get("rib", ())}

    def refresh(self, address):
        self.client("neighbor", address, "refresh")

    def updates(self, address):
        told = json.loads(self.client("-j", "show", "neighbor", address))["neighbors"]
        return next(n["stats"]["message"]["received"]["updates"] for n in told if n["remote_addr"] == address)

    def shut(self, address):
        self.client("neighbor", address, "down", "closed by the lab")

    def unshut(self, address):
        self.client("neighbor", address, "up")
