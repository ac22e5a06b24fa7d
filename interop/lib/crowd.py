"""Many BGP speakers of one host that no daemon is: those that announce (feed.py) and those that take all paths (collect.py)."""

import itertools
import json
import pathlib
import subprocess
import sys

from . import net, wait

FOLDER = pathlib.Path(net.__file__).parent


def place(host, numbers):
    """Gives a host the addresses 10.0.0.N and fd00::M of further speakers; `numbers` are N, and M the same in decimal digits."""
    net.batch(host.ns, [line for n in numbers for line in (f"addr add {address(n, 4)}/24 dev eth0", f"addr add {address(n, 6)}/64 dev eth0 nodad")])


def address(number, family):
    return f"10.0.0.{number}" if family == 4 else f"fd00::{number}"


class Speakers:
    """A program with a session from each source to each target of its family. A speaker is (source, AS, router id)."""

    tool = ""

    def __init__(self, host, name, speakers, targets):
        self.log = host.folder / f"{name}.log"
        self.marks = itertools.count(1)
        self.process = host.spawn(sys.executable, "-u", str(FOLDER / self.tool), *("=".join(map(str, speaker)) for speaker in speakers), "TO", *targets,
                                  log=self.log.name, stdin=subprocess.PIPE)

    def up(self, seconds=60):
        wait.until("the speakers' sessions are up", lambda: "established" in self.log.read_text(), seconds)
        return self

    def write(self, lines):
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()


class Feed(Speakers):
    """Says routes: feed.py has their form."""

    tool = "feed.py"

    def tell(self, *routes, seconds=30):
        """Says routes and waits until they are sent."""
        mark = next(self.marks)
        self.write(json.dumps(line) for line in [*routes, {"say": mark}])
        wait.until("all is said", lambda: f"said {mark}\n" in self.log.read_text(), seconds)


class Collector(Speakers):
    """Takes all paths."""

    tool = "collect.py"

    def held(self):
        """(source, target) → prefix → path id → attributes by name."""
        word = f"look-{next(self.marks)}"
        self.write([word])
        line = wait.until("the collector answers", lambda: next((t for t in self.log.read_text().splitlines(keepends=True)
                                                                 if t.startswith(f"{word} ") and t.endswith("\n")), None), 20, every=0.02)
        return {tuple(name.split()): table for name, table in json.loads(line.removeprefix(f"{word} ")).items()}
