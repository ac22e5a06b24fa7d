"""What can be seen of a daemon from outside, in the form of observed.json, and the differences between two such records."""

import ipaddress
import itertools
import json

from lib import net

from .world import NODE

KINDS = {1: "unicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
OWN = ("protocol", "scope")


def kernel_routes():
    """All routes of the node in all tables."""
    found = []
    for family in ("ipv4", "ipv6"):
        shown = net.sh("ip", "-n", NODE, f"-{family[3]}", "-N", "-j", "-d", "route", "show", "table", "all")
        found += [kernel_route(family, entry) for entry in json.loads(shown or "[]")]
    return sorted(found, key=lambda route: (route["family"], route["table"], order(route["prefix"]), str(route)))


def order(prefix):
    network = ipaddress.ip_network(prefix)
    return network.version, network.network_address, network.prefixlen


def kernel_route(family, entry):
    everything = "0.0.0.0/0" if family == "ipv4" else "::/0"
    kind = int(entry.get("type", 1))
    route = {"family": family, "table": int(entry["table"]), "prefix": str(ipaddress.ip_network(everything if entry["dst"] == "default" else entry["dst"])),
             "type": KINDS.get(kind, str(kind)), "metric": entry.get("metric", 0), "protocol": int(entry["protocol"]),
             "scope": int(entry.get("scope", 0))}
    if "nexthops" in entry:
        route["nexthops"] = sorted((next_hop(hop, hop.get("weight")) for hop in entry["nexthops"]), key=lambda hop: json.dumps(hop, sort_keys=True))
    elif route["type"] == "unicast":
        route["nexthops"] = [next_hop(entry, None)]
    return route


def next_hop(entry, weight):
    hop = {"via": entry.get("gateway") or entry.get("via", {}).get("host"), "dev": entry.get("dev"), "weight": weight,
           "onlink": True if "onlink" in entry.get("flags", []) else None}
    return {key: value for key, value in hop.items() if value is not None}


def session(neighbour, handshakes):
    called, connection = handshakes.called.get((neighbour.address, neighbour.port)), neighbour.connection
    found, seen = {"peer": neighbour.address, "established": neighbour.established}, called
    if neighbour.established:
        found |= {"dialledBy": connection.dialled_by, "localAddress": connection.address}
        if connection.dialled_by == "world":
            found["localPort"] = connection.port
            seen = handshakes.answered.get(neighbour.address)
    else:
        found["dialledBy"] = "node" if called else None
        if called:
            found["localAddress"] = called[0]
    if seen:
        found |= {"ttl": seen[1], "md5": seen[2]}
    if neighbour.last_open:
        found["open"] = neighbour.last_open
    return found


def record(neighbours, handshakes, attempts, before, after):
    """`attempts`: (address, port) of calls without an answer; `before` and `after`: the kernel's routes."""
    strangers = (set(handshakes.called) | attempts) - {(n.address, n.port) for n in neighbours}
    mine = [route for route in after if route["protocol"] == net.RTPROT_BIRD]
    before, after = ([route for route in routes if route["protocol"] != net.RTPROT_BIRD] for routes in (before, after))
    return {
        "sessions": [session(n, handshakes) for n in neighbours],
        "unexpected": [{"address": address, "port": port} for address, port in sorted(strangers)],
        "exports": {n.address: [{"prefix": prefix, **told} for prefix, told in sorted(n.routes.items())] for n in neighbours if n.established},
        "kernel": [{key: value for key, value in route.items() if key not in OWN} for route in mine],
        "others": [{"change": "removed", **route} for route in before if route not in after]
        + [{"change": "added", **route} for route in after if route not in before],
    }


def differences(expected, actual):
    """Lines that say what is not as recorded; none where all is. Versions are not compared."""
    lines = keyed("session {}", by(expected, "sessions", "peer"), by(actual, "sessions", "peer"))
    lines += listed("connection to", expected, actual, "unexpected")
    theirs, ours = expected.get("exports", {}), actual.get("exports", {})
    for peer in sorted({*theirs, *ours}):
        lines += keyed(f"exports to {peer}: {{}}", by(theirs, peer, "prefix"), by(ours, peer, "prefix"))
    lines += kernel(expected.get("kernel", []), actual.get("kernel", []))
    return lines + listed("other route", expected, actual, "others")


def by(document, name, key):
    return {entry[key]: entry for entry in document.get(name, [])}


def keyed(where, expected, actual):
    lines = []
    for key in [*expected, *(key for key in actual if key not in expected)]:
        if key not in actual or key not in expected:
            lines.append(f"{where.format(key)} {'missing' if key in expected else 'not expected'}")
        else:
            lines += fields(where.format(key), expected[key], actual[key])
    return lines


def fields(where, expected, actual):
    expected, actual = flat(expected), flat(actual)
    return [f"{where} {name} {shown(actual.get(name))}, expected {shown(expected.get(name))}" for name in sorted({*expected, *actual})
            if expected.get(name) != actual.get(name)]


def flat(entry):
    """An entry with the fields of its OPEN beside the others."""
    return {**{name: value for name, value in entry.items() if name != "open"}, **{f"open.{name}": value for name, value in entry.get("open", {}).items()}}


def shown(value):
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def kernel(expected, actual):
    def grouped(routes):
        found = {}
        for route in routes:
            found.setdefault((route["family"], route["table"], route["prefix"]), []).append(route)
        return found

    theirs, ours, lines = grouped(expected), grouped(actual), []
    for key in sorted({*theirs, *ours}, key=str):
        where = "kernel {} table {}: {}".format(*key)
        lacking = [route for route in theirs.get(key, []) if route not in ours.get(key, [])]
        surplus = [route for route in ours.get(key, []) if route not in theirs.get(key, [])]
        for want, have in itertools.zip_longest(lacking, surplus):
            if want and have:
                lines += fields(where, want, have)
            else:
                lines.append(f"{where} missing: {shown(want)}" if want else f"{where} not expected: {shown(have)}")
    return lines


def listed(label, expected, actual, name):
    theirs, ours = expected.get(name, []), actual.get(name, [])
    return [f"{label} {shown(entry)} missing" for entry in theirs if entry not in ours] \
        + [f"{label} {shown(entry)} not expected" for entry in ours if entry not in theirs]
