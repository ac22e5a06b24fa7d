"""BGP messages of the scripted neighbours, written with the standard library alone, so that no error of the daemon's codec can hide behind itself.

An UPDATE sent is built from case.json's announcement; one received becomes the route of observed.json.
"""

import ipaddress
import struct

from lib import raw

OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
ORIGINS = ("igp", "egp", "incomplete")
AFI = {"ipv4": 1, "ipv6": 2}
TRANSITIVE, OPTIONAL, BOTH = 0x40, 0x80, 0xC0
EXTENDED = 0x10
AS_SET, AS_SEQUENCE = 1, 2
CAPABILITY_AS4 = 65


def packed(text):
    return ipaddress.ip_address(text).packed


def nlri(prefix):
    network = ipaddress.ip_network(prefix)
    return bytes([network.prefixlen]) + network.network_address.packed[:(network.prefixlen + 7) // 8]


def attribute(kind, value):
    flags, code = kind
    return bytes([flags, code, len(value)]) + value if len(value) < 256 else struct.pack("!BBH", flags | EXTENDED, code, len(value)) + value


def open_message(peer):
    return raw.open_message(peer["asn"], peer.get("holdTime", 240), ipaddress.IPv4Address(peer["routerId"]), AFI[peer["family"]])


def read_open(body):
    """An OPEN as observed.json has it."""
    _, asn, hold, router_id, size = struct.unpack("!BHH4sB", body[:10])
    capabilities, rest = [], Reader(body[10:10 + size])
    while rest.data:
        kind, value = rest.number(1), Reader(rest.take(rest.number(1)))
        while kind == 2 and value.data:
            code, told = value.number(1), value.take(value.number(1))
            capabilities.append({"code": code, "value": told.hex()})
            asn = int.from_bytes(told, "big") if code == CAPABILITY_AS4 else asn
    return {"asn": asn, "holdTime": hold, "routerId": str(ipaddress.IPv4Address(router_id)), "capabilities": capabilities}


def communities(texts, layout):
    return b"".join(struct.pack(layout, *map(int, text.split(":"))) for text in texts)


def as_path(hops):
    """Segments of a path; a list inside it is an AS_SET."""
    segments, run = b"", []
    for hop in [*hops, None]:
        if isinstance(hop, int):
            run.append(hop)
            continue
        if run:
            segments += bytes([AS_SEQUENCE, len(run)]) + struct.pack(f"!{len(run)}I", *run)
        if hop is not None:
            segments += bytes([AS_SET, len(hop)]) + struct.pack(f"!{len(hop)}I", *hop)
        run = []
    return segments


def announce(peer, route, internal):
    """The UPDATE of an announcement. What it leaves out follows from the kind of session."""
    v6 = peer["family"] == "ipv6"
    hop, prefix = packed(route.get("nextHop") or peer["address"]), nlri(route["prefix"])
    path = route["asPath"] if route.get("asPath") is not None else [] if internal else [peer["asn"]]
    preference = route.get("localPref") if route.get("localPref") is not None else 100 if internal else None
    clusters = b"".join(map(packed, route.get("clusterList", [])))
    parts = [
        ((TRANSITIVE, 1), bytes([ORIGINS.index(route.get("origin", "igp"))])),
        ((TRANSITIVE, 2), as_path(path)),
        ((TRANSITIVE, 3), None if v6 else hop),
        ((OPTIONAL, 4), None if route.get("med") is None else struct.pack("!I", route["med"])),
        ((TRANSITIVE, 5), None if preference is None else struct.pack("!I", preference)),
        ((BOTH, 8), communities(route.get("communities", []), "!HH") or None),
        ((OPTIONAL, 9), packed(route["originatorId"]) if route.get("originatorId") else None),
        ((OPTIONAL, 10), clusters or None),
        ((OPTIONAL, 14), struct.pack("!HBB", AFI["ipv6"], 1, len(hop)) + hop + b"\0" + prefix if v6 else None),
        ((BOTH, 32), communities(route.get("largeCommunities", []), "!III") or None),
    ]
    return update(b"".join(attribute(kind, value) for kind, value in parts if value is not None), b"" if v6 else prefix)


def end_of_rib(family):
    """RFC 4724 section 2."""
    return update(b"" if family == "ipv4" else attribute((OPTIONAL, 15), struct.pack("!HB", AFI[family], 1)), b"")


def update(attributes, prefixes):
    return raw.message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes + prefixes)


class Reader:
    """Takes from the front and never past the end."""

    def __init__(self, data):
        self.data = data

    def take(self, size):
        if size > len(self.data):
            raise ValueError(f"{size} octets wanted, {len(self.data)} left")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def each(self, size):
        while self.data:
            yield self.take(size)

    def prefixes(self, family):
        octets, found = 4 if family == 1 else 16, []
        while self.data:
            length = self.number(1)
            address = self.take((length + 7) // 8).ljust(octets, b"\0")
            found.append(str(ipaddress.ip_network((address, length), strict=False)))
        return found


def address(octets):
    return str(ipaddress.ip_address(octets))


def read_update(body, as4):
    """An UPDATE: prefixes withdrawn, prefixes announced, and the attributes of these as observed.json names them."""
    reader = Reader(body)
    gone, attributes = Reader(reader.take(reader.number(2))).prefixes(1), Reader(reader.take(reader.number(2)))
    came, told = reader.prefixes(1), {}
    while attributes.data:
        flags, code = attributes.number(1), attributes.number(1)
        value = Reader(attributes.take(attributes.number(2 if flags & EXTENDED else 1)))
        if code == 1:
            origin = value.number(1)
            told["origin"] = ORIGINS[origin] if origin < len(ORIGINS) else str(origin)
        elif code == 2:
            told["asPath"] = path = []
            while value.data:
                kind, count = value.number(1), value.number(1)
                hops = [value.number(4 if as4 else 2) for _ in range(count)]
                path.extend(hops if kind == AS_SEQUENCE else [sorted(hops)])
        elif code in (3, 9):
            told["nextHop" if code == 3 else "originatorId"] = address(value.take(4))
        elif code in (4, 5):
            told["med" if code == 4 else "localPref"] = value.number(4)
        elif code == 8:
            told["communities"] = [":".join(map(str, struct.unpack("!HH", each))) for each in sorted(value.each(4))]
        elif code == 10:
            told["clusterList"] = [address(each) for each in value.each(4)]
        elif code == 14:
            family, _ = value.number(2), value.number(1)
            hops = Reader(value.take(value.number(1)))
            told["nextHop"] = address(hops.take(min(len(hops.data), 16)))
            if hops.data:
                told["linkLocal"] = address(hops.take(16))
            value.number(1)
            came += value.prefixes(family)
        elif code == 15:
            family, _ = value.number(2), value.number(1)
            gone += value.prefixes(family)
        elif code == 16:
            told["extCommunities"] = [each.hex() for each in sorted(value.each(8))]
        elif code == 32:
            told["largeCommunities"] = [":".join(map(str, struct.unpack("!III", each))) for each in sorted(value.each(12))]
        else:
            told.setdefault("others", []).append({"code": code, "flags": flags, "value": value.data.hex()})
    return gone, came, told
