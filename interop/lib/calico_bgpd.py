"""Driver of our own daemon. Its sessions follow from the datastore; it is asked through its own command line."""

import json
import os
import subprocess

from . import net, programs
from .daemon import Daemon, Route


class CalicoBgpd(Daemon):
    """calico-bgpd as a node of the cluster: NODENAME is the host's name."""

    kind = "calico-bgpd"

    def __init__(self, host, datastore, asn=64512, environment=None):
        super().__init__(host, asn)
        self.datastore, self.environment = datastore, environment or {}
        self.run_folder = self.folder / "run"

    @classmethod
    def missing(cls):
        return None if programs.calico_bgpd() else "calico-bgpd is not built (make build), or CALICO_BGPD does not name it"

    def env(self):
        own = {"NODENAME": self.host.name, "CALICO_BGPD_RUN_DIR": str(self.run_folder), "RUST_BACKTRACE": "1",
               # scenarios take away all of a kind and mean it; what is about the brake on mass losses says so
               "CALICO_BGPD_STATE_DIR": str(self.folder / "state"), "CALICO_BGPD_CONFIRM_LOSSES": "0"}
        # nothing of the machine's environment that might configure it
        return {"PATH": os.environ["PATH"], **own, **self.datastore.environment(), **self.environment}

    def launch(self, restarting):
        self.run_folder.mkdir(exist_ok=True)
        self.processes.append(self.host.spawn(programs.calico_bgpd(), "run", log="calico-bgpd.log", env=self.env()))

    def log(self):
        return (self.folder / "calico-bgpd.log").read_text(errors="replace")

    def once(self, *words):
        """Runs the program to its end (for commands that are to fail): exit status and all that it printed."""
        done = subprocess.run(["ip", "netns", "exec", self.host.ns, programs.calico_bgpd(), *words], env=self.env(), capture_output=True, text=True,
                              timeout=60)
        return done.returncode, done.stdout + done.stderr

    def show(self, what, *words):
        return json.loads(self.host.run(programs.calico_bgpd(), "show", what, "--json", *words, env=self.env()))

    def peers(self):
        """address → session as `show peers --json` tells it."""
        return {p["address"]: p for p in self.show("peers")["peers"]}

    def state(self, address):
        return self.peers()[address]["state"]

    def tells(self, address, *words):
        """Whether the reason why a session is down has all these words."""
        reason = self.peers()[address].get("reason") or ""
        lacking = [w for w in words if w.lower() not in reason.lower()]
        return f"!{address} is told as '{reason}': no {', '.join(lacking)}" if lacking else True

    def remembers(self, address, *words):
        """Whether one of a session's last events has all these words: what is over by now may have another reason already."""
        events = [e["text"] for e in self.peers()[address]["events"]]
        return any(all(w.lower() in e.lower() for w in words) for e in events) or f"!{address}: no event with {', '.join(words)} in {events}"

    def established(self, address):
        peer = self.peers().get(address)
        if peer is None:
            return f"!{self.kind} on {self.host.name} has no session with {address}"
        return True if peer["state"] == "Established" else f"!{self.kind} on {self.host.name} has {address} in {peer['state']}: {peer.get('reason')}"

    def received(self, address):
        return {net.canonical(r["prefix"]): Route(r["nextHop"], tuple(r["asPath"]), r.get("localPref"))
                for r in self.show("routes")["routes"] if r.get("from") == address}

    def refresh(self, address):
        self.host.run(programs.calico_bgpd(), "refresh", address, env=self.env())

    def updates(self, address):
        return self.peers()[address]["messagesReceived"]["update"]

    def announce(self, prefix):
        raise NotImplementedError("give the node a block in the datastore")

    withdraw = announce
