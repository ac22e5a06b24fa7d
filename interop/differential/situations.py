"""The recorded situations: where they are, and one of them as an object."""

import ipaddress
import json
import pathlib

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "fixtures"
FOLDERS, LINES = FIXTURES / "confd", FIXTURES / "situations"
# the release of those that name none
NEWEST = "v3.33"
NAME = '{"name":"'


def names():
    """All situations, in order: those of folders first; a line of the same name is the same situation."""
    found = {path.parent.name: None for path in sorted(FOLDERS.glob("*/case.json"))}
    for path in sorted(LINES.glob("*.jsonl")):
        with open(path, encoding="utf-8") as lines:
            found.update((line[len(NAME):line.index('"', len(NAME))], None) for line in lines)
    return list(found)


def not_yet():
    """Those that do not come out as recorded, which tests/replay.rs holds to the same list."""
    return {line for line in (LINES / "not-yet.txt").read_text().splitlines() if line and not line.startswith("#")}


def load(name):
    """One situation by its name."""
    folder = FOLDERS / name
    if folder.is_dir():
        return Situation(json.loads((folder / "case.json").read_text()), (folder / "resources.yaml").read_text(),
                         json.loads((folder / "observed.json").read_text()))
    for path in sorted(LINES.glob("*.jsonl")):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(f'{NAME}{name}"'):
                    told = json.loads(line)
                    return Situation(told["case"], told["resources"], told["observed"])
    raise KeyError(f"no situation {name}")


class Situation:
    """A datastore, a node, the world around it, and what was seen there."""

    def __init__(self, case, resources, observed):
        self.resources, self.observed = resources, observed
        self.name, self.node = case["name"], case["node"]
        self.release = case.get("release", NEWEST)
        self.env = {key: str(value) for key, value in case.get("env", {}).items()}
        self.endpoint_status = case.get("endpointStatus", {})
        self.links, self.routes, self.peers = case.get("links", []), case.get("routes", []), case.get("peers", [])
        self.listen, self.settle = case.get("listen", 179), case.get("settle", 5)

    def link(self, name):
        return next(link for link in self.links if link["name"] == name)

    def link_of(self, address):
        """The wire behind which an address lives: the one whose subnet holds it, else the first."""
        wires = [link for link in self.links if link["kind"] == "wire"]
        near = [link for link in wires if any(ipaddress.ip_address(address) in net for net in networks(link))]
        return next(iter(near + wires), None)


def networks(link):
    """The subnets of a link's addresses."""
    return [ipaddress.ip_interface(address).network for address in link.get("addresses", [])]
