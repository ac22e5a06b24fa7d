"""BIRD's control sockets: birdc 1.6.8 and Calico's own parsing over our answers and BIRD's."""

import re
import socket

from lib import wait
from lib.bird import Bird1
from lib.calico import FileDatastore
from lib.cluster import Cluster

NEEDS = ["calico-bgpd", "bird1"]
VARIANTS = ["ours", "bird1"]
SECONDS = 120

# CTL-32: tried in this order on the presence of the word
ROUTES = [
    (" via ", re.compile(r"(?P<dest>\S*)\s*via\s(?P<gateway>\S*)\s*on\s(?P<iface>.*)\s\[(?P<source>\S*)\s.*\].*")),
    (" dev ", re.compile(r"(?P<dest>\S*)\s*dev\s(?P<iface>.*)\s\[(?P<source>\S*)\s.*\].*")),
    (" blackhole ", re.compile(r"(?P<dest>\S*)\s*blackhole\s\[(?P<source>\S*)\s.*\].*")),
    (" unreachable ", re.compile(r"(?P<dest>\S*)\s*unreachable\s\[(?P<source>\S*)\s.*\].*")),
]
SOURCES = re.compile(r"^(kernel.*|static.*|direct.*|(Global|Node|Mesh)_.+)$")
SOCKETS = {4: "bird.ctl", 6: "bird6.ctl"}


def when(variant):
    # with BIRD in our place it is tried whether what is expected is right
    return "always" if variant == "ours" else "asked"


def as_calico(path, command, end):
    """As Calico's Go programs do: the command is sent before the greeting is read, then lines up to `end`."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(f"{command}\n".encode())
        lines = []
        for line in client.makefile():
            lines.append(line.rstrip("\n"))
            if line.startswith(end):
                return lines
    raise RuntimeError(f"no {end} after {command}: {lines}")


def ready(path):
    """CTL-29 and HEALTH-5: name → BGP state of the peers that count."""
    peers = {}
    for line in as_calico(path, "show protocols", "0000"):
        if line.startswith("0000") or line.startswith("0001"):
            continue
        if line.startswith("2002"):
            wait.equal("the header", line[5:].split(), ["name", "proto", "table", "state", "since", "info"])
            continue
        if not line.startswith(("1002", " ")):
            raise RuntimeError(f"readiness gives up at {line!r}")
        fields = line[5:].split() if line.startswith("1002") else line[1:].split()
        if len(fields) >= 6 and fields[1] == "BGP" and re.match(r"^(Global|Node|Mesh)_(.+)$", fields[0]):
            peers[fields[0]] = fields[5]
    return peers


def routes(path):
    """The routes as Calico's status reporter reads them: (prefix, gateway or none, source, in the kernel)."""
    found, before = set(), None
    for line in as_calico(path, "show route", "0000"):
        if line.startswith(("0000", "0001")):
            continue
        text = line[5:] if line.startswith("1007") else line[1:]
        match = next((expression.match(text) for word, expression in ROUTES if word in f" {text}"), None)
        if match is None or not SOURCES.match(match["source"]):
            raise RuntimeError(f"the status reporter gives up at {line!r}")
        before = match["dest"] or before
        found.add((before, match.groupdict().get("gateway"), match["source"], "] *" in text))
    return found


def labels(text):
    """What stands before the colons of one protocol's details."""
    return [line.split(":")[0].strip() for line in text.splitlines() if re.match(r"  +[A-Z]", line)]


def shape(text):
    """An answer without what differs between two nodes: names, numbers, versions."""
    text = re.sub(r"BIRD \S+", "BIRD", text)
    return [re.sub(r"[0-9a-f:.]*\d[0-9a-f:._/-]*", "N", line) for line in text.splitlines()]


def run(lab, variant):
    ours = "calico-bgpd" if variant == "ours" else "bird1"
    cluster = Cluster(lab, FileDatastore(lab.out / "datastore"), {"node-1": ours, "node-2": "bird1"}).start()
    cluster.settled()
    one, two = cluster["node-1"], cluster["node-2"]
    folder = one.daemon.run_folder if variant == "ours" else one.daemon.folder

    def birdc(node, family, *words):
        where = folder if node is one else node.daemon.folder
        return node.host.run(Bird1.program(Bird1.FAMILIES[family][1]), "-s", str(where / SOCKETS[family]), *words)

    for family, socket_name in SOCKETS.items():
        peer = {one: two, two: one}
        session = {}
        for node in (one, two):
            found = [line.split()[0] for line in birdc(node, family, "show", "protocols").splitlines() if " BGP " in line]
            wait.equal(f"sessions of {node.name}", len(found), 1)
            session[node] = found[0]
        wait.check("the greeting and the status are told alike",
                   shape(birdc(one, family, "show", "status")) == shape(birdc(two, family, "show", "status"))
                   or f"!{birdc(one, family, 'show', 'status')}")
        wait.until("recovery is over", lambda: "Graceful restart" not in birdc(one, family, "show", "status"), 40)
        details = {node: labels(birdc(node, family, "show", "protocols", "all", session[node])) for node in (one, two)}
        # the lab's BIRD gives its sessions no description
        wait.equal("details of a session", [label for label in details[one] if label != "Description"],
                   [label for label in details[two] if label != "Description"])

        for node in (one, two):
            theirs = peer[node]
            block = next(b for b in theirs.blocks if (":" in b) == (family == 6))
            own = next(b for b in node.blocks if (":" in b) == (family == 6))
            text = birdc(node, family, "show", "route", "protocol", session[node])
            wait.check("the route of the peer's block", bool(re.search(rf"{block} +via {theirs.host.address(family)} on eth0 \[{session[node]}", text))
                       or f"!{text}")
            wait.check("what the peer is told", "blackhole" in birdc(node, family, "show", "route", "export", session[node]) or "!no blackhole")
            attributes = birdc(node, family, "show", "route", block, "all")
            wait.check("its attributes", all(word in attributes for word in ("BGP.origin: IGP", "BGP.next_hop:", "BGP.local_pref: 2147482623"))
                       or f"!{attributes}")
            wait.check("a network that is in no table", "Network not in table" in birdc(node, family, "show", "route", "198.18.7.0/24" if family == 4 else
                                                                                        "fd77::/64") or "!found")
            wait.check("own block", bool(re.search(rf"{own} +blackhole \[static1 ", birdc(node, family, "show", "route"))) or "!no block")
        if variant == "ours":
            path = folder / socket_name
            seen = routes(path)
            block = next(b for b in two.blocks if (":" in b) == (family == 6))
            wait.check("the reporter sees the peer's block in the kernel", (block, two.host.address(family), session[one], True) in seen or f"!{seen}")
            wait.equal("readiness", list(ready(path).values()), ["Established"])
        wait.check("configure is answered", "Reconfigur" in birdc(one, family, "configure") or "!no")
    lab.say("birdc and Calico's expressions read both alike")

    two.daemon.kill()
    if variant == "ours":
        wait.until("readiness sees the session go", lambda: set(ready(folder / "bird.ctl").values()).isdisjoint({"Established"}), 30)
        lab.say("the session's end shows")
        two.daemon.start(restarting=True)
        wait.until("readiness sees it return", lambda: list(ready(folder / "bird.ctl").values()) == ["Established"], 60)
        one.daemon.stop()
        wait.check("the sockets go with the daemon", not any((folder / s).exists() for s in SOCKETS.values()) or "!they stay")
