"""Plays a situation to its end: builds the world, starts the daemon, waits until all is quiet, and writes down what was seen."""

import asyncio
import json
import os
import pathlib
import subprocess
import time

from lib import programs, wait

from . import record
from .handshakes import LISTEN, SYN_SENT, Handshakes, sockets
from .neighbour import DIAL_AFTER, Neighbour
from .world import NODE, WORLD, World, inside

# the whole; a daemon that does not listen by then never will; a session that is not up so long after the first dial stays down
LIMIT, LISTENS_WITHIN, UP_WITHIN = 60.0, 15.0, 15.0
TICK = 0.25


def calico_bgpd(situation, folder):
    """The command line and environment of our daemon for a situation."""
    datastore, run, felix = folder / "datastore", folder / "run", folder / "felix"
    for each in (datastore, run, felix / "endpoint-status"):
        each.mkdir(parents=True)
    (datastore / "resources.yaml").write_text(situation.resources)
    for name, content in situation.endpoint_status.items():
        (felix / "endpoint-status" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return [programs.calico_bgpd(), "run"], {
        "PATH": os.environ["PATH"], "NODENAME": situation.node, "DATASTORE_TYPE": "file", "DATASTORE_PATH": str(datastore), "RUST_BACKTRACE": "1",
        "CALICO_BGPD_RUN_DIR": str(run), "CALICO_ENDPOINT_STATUS_PATH_PREFIX": str(felix), "CALICO_BGPD_CLUSTER_RELEASE": situation.release,
        **situation.env}


def bird(situation, folder):
    """BIRD 1.6.8 with what `intent --format bird` makes of the situation's resources, one process for each family."""
    command, environment = calico_bgpd(situation, folder)
    found = {}
    for name in ("bird", "bird6"):
        done = subprocess.run([command[0], "intent", "--format", name, "--with-passwords"], env=environment, capture_output=True, text=True, timeout=30)
        wait.check(f"calico-bgpd writes a configuration of {name}", done.returncode == 0 or f"!{done.stderr}")
        (folder / f"{name}.conf").write_text(done.stdout)
        files = [word.format(folder / name) for word in ("{}.conf", "{}.ctl", "{}.pid")]
        found[name] = [programs.cached(f"bird-1.6.8/usr/sbin/{name}"), "-f", "-c", files[0], "-s", files[1], "-P", files[2]], environment
    return found


def start(name, command, environment, folder):
    with inside(NODE), open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def play(situation, folder, say):
    """Plays with our daemon in `folder` and answers what was seen."""
    return observe(situation, {"calico-bgpd": calico_bgpd(situation, folder)}, folder, say)


def observe(situation, daemons, folder, say):
    """Plays with `daemons`: name → (command, environment)."""
    world = World(situation)
    world.build()
    return asyncio.run(Play(situation, world, folder, say).run(daemons))


class Play:
    """One situation in progress."""

    def __init__(self, situation, world, folder, say):
        self.situation, self.folder = situation, pathlib.Path(folder)
        began = time.monotonic()
        self.say = lambda text: say(f"{time.monotonic() - began:6.2f} {text}")
        self.world, self.handshakes, self.attempts = world, Handshakes(), set()
        self.neighbours = [Neighbour(peer, world.namespace_of(peer), situation.listen, self.say)
                           for peer in sorted(situation.peers, key=lambda peer: (peer["family"], record.order(peer["address"])))]
        self.listens, self.listens_since = {family: asyncio.Event() for family in ("ipv4", "ipv6")}, {}

    async def run(self, daemons):
        self.handshakes.watch([WORLD, *self.world.pods.values()])
        for neighbour in self.neighbours:
            neighbour.start(self.listens[neighbour.family])
        before = record.kernel_routes()
        processes = {name: start(name, *told, self.folder) for name, told in daemons.items()}
        try:
            after = await self.quiet(processes)
            return record.record(self.neighbours, self.handshakes, self.attempts, before, after)
        finally:
            for process in processes.values():
                process.kill()

    async def quiet(self, processes):
        """Waits until every session is up or has had its time and nothing changes any more; the kernel's routes then."""
        start = kernel_changed = time.monotonic()
        seen = None
        while True:
            for name, process in processes.items():
                wait.check(f"{name} runs", process.poll() is None or f"!it ended with status {process.returncode}")
            for neighbour in self.neighbours:
                if neighbour.failed:
                    raise neighbour.failed
            now = time.monotonic()
            self.look(next(iter(processes.values())).pid, now)
            routes = record.kernel_routes()
            if routes != seen:
                seen, kernel_changed = routes, now
            quiet_for = now - max(kernel_changed, *(n.changed for n in self.neighbours), start)
            if now - start >= LIMIT or quiet_for >= self.situation.settle and all(self.decided(n, start, now) for n in self.neighbours):
                self.say("settled" if now - start < LIMIT else "did not settle")
                return routes
            await asyncio.sleep(TICK)

    def look(self, pid, now):
        """Notes when the daemon begins to listen, and its calls that nobody answers."""
        for family, event in self.listens.items():
            found = sockets(pid, family)
            self.attempts.update(target for state, _, target in found if state == SYN_SENT)
            # one IPv6 socket may serve both families
            listens = any(state == LISTEN and port == self.situation.listen for state, port, _ in found) \
                or family == "ipv4" and self.listens["ipv6"].is_set()
            if listens and not event.is_set():
                self.say(f"the daemon listens for {family}")
                self.listens_since[family] = now
                event.set()

    def decided(self, neighbour, start, now):
        return neighbour.established or now >= self.listens_since.get(neighbour.family, start + LISTENS_WITHIN) + DIAL_AFTER + UP_WITHIN
