#!/usr/bin/env python3
"""A crowd of BGP speakers that say the same to several others: run in a host of a lab by the scenarios.

usage: feed.py SOURCE=ASN=ROUTERID... TO TARGET...

Dials every target of its family from every source, says 'established' when all sessions are up, and reads lines of JSON from its input:
{"from": SOURCE, "prefix": P, "next_hop": A, "path": [...], "origin": 0, "med": N, "local_pref": N, "originator": A, "clusters": [...], "link_local": A}
announces, {"from": SOURCE, "withdraw": P} withdraws; to every target. In place of one prefix, "first": P and "count": N stand for so many that follow one
another. {"from": SOURCE, "close": true} ends its sessions without a word. Says 'said N' after the line {"say": N}.
"""

import ipaddress
import json
import select
import socket
import struct
import sys
import threading

from raw import KEEPALIVE, establish, message

UPDATE = 2
# flags and codes of path attributes
ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF = (0x40, 1), (0x40, 2), (0x40, 3), (0x40, 5)
MED, ORIGINATOR, CLUSTERS, MP_REACH, MP_UNREACH = (0x80, 4), (0x80, 9), (0x80, 10), (0x80, 14), (0x80, 15)


def attribute(kind, value):
    return bytes([*kind, len(value)]) + value


def packed(address):
    return ipaddress.ip_address(address).packed


def nlri(prefix):
    network = ipaddress.ip_network(prefix)
    return bytes([network.prefixlen]) + network.network_address.packed[:(network.prefixlen + 7) // 8]


def series(first, count):
    """So many prefixes of one length, one after the other, as they stand in a message (IPv4)."""
    network = ipaddress.ip_network(first)
    begin, step, octets = int(network.network_address), 1 << 32 - network.prefixlen, (network.prefixlen + 7) // 8
    head = bytes([network.prefixlen])
    return [head + struct.pack("!I", begin + n * step)[:octets] for n in range(count)]


# of a message's 4,096 octets, what prefixes may take beside their attributes
ROOM = 3800


def announce(route):
    if "first" in route:
        rest = series(route["first"], route["count"])
        each = ROOM // len(rest[0])
        return b"".join(with_attributes(route, b"".join(rest[at:at + each]), False) for at in range(0, len(rest), each))
    return with_attributes(route, nlri(route["prefix"]), ":" in route["prefix"])


def with_attributes(route, prefix, v6):
    number = lambda kind, value: attribute(kind, struct.pack("!I", value)) if value is not None else b""  # noqa: E731
    path = route.get("path", [])
    attributes = attribute(ORIGIN, bytes([route.get("origin", 0)]))
    attributes += attribute(AS_PATH, bytes([2, len(path)]) + b"".join(struct.pack("!I", a) for a in path) if path else b"")
    attributes += b"" if v6 else attribute(NEXT_HOP, packed(route["next_hop"]))
    attributes += number(MED, route.get("med")) + number(LOCAL_PREF, route.get("local_pref"))
    attributes += attribute(ORIGINATOR, packed(route["originator"])) if route.get("originator") else b""
    attributes += attribute(CLUSTERS, b"".join(map(packed, route["clusters"]))) if route.get("clusters") else b""
    if v6:
        hop = packed(route["next_hop"]) + (packed(route["link_local"]) if route.get("link_local") else b"")
        attributes += attribute(MP_REACH, struct.pack("!HBB", 2, 1, len(hop)) + hop + b"\0" + prefix)
        prefix = b""
    return message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes + prefix)


def withdraw(route):
    if "first" in route:
        rest = series(route["first"], route["count"])
        each = ROOM // len(rest[0])
        parts = [b"".join(rest[at:at + each]) for at in range(0, len(rest), each)]
        return b"".join(message(UPDATE, struct.pack("!H", len(part)) + part + b"\0\0") for part in parts)
    text = route["withdraw"]
    prefix = nlri(text)
    if ":" in text:
        attributes = attribute(MP_UNREACH, struct.pack("!HB", 2, 1) + prefix)
        return message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes)
    return message(UPDATE, struct.pack("!H", len(prefix)) + prefix + struct.pack("!H", 0))


def say(text):
    """A line in one piece, whichever thread speaks."""
    print(f"{text}\n", end="", flush=True)


def keep(sock, lock):
    """Reads what comes, and sends KEEPALIVEs."""
    try:
        while True:
            if select.select([sock], [], [], 20)[0] and not sock.recv(65536):
                return say("closed")
            with lock:
                sock.sendall(message(KEEPALIVE))
    except OSError as error:
        say(f"closed: {error}")


def main():
    at = sys.argv.index("TO")
    sessions = {}
    for text in sys.argv[1:at]:
        source, asn, router_id = text.split("=")
        for target in sys.argv[at + 1:]:
            if (":" in source) == (":" in target):
                sock, _ = establish(source, target, int(asn), router_id=router_id)
                # what is slow to take it all is waited for
                sock.settimeout(None)
                lock = threading.Lock()
                sessions.setdefault(source, []).append((sock, lock))
                threading.Thread(target=keep, args=(sock, lock), daemon=True).start()
    say("established")
    for line in sys.stdin:
        told = json.loads(line)
        if "say" in told:
            say(f"said {told['say']}")
            continue
        if told.get("close"):
            for sock, lock in sessions.pop(told["from"]):
                with lock:
                    sock.shutdown(socket.SHUT_RDWR)
            continue
        octets = withdraw(told) if "withdraw" in told else announce(told)
        for sock, lock in sessions[told["from"]]:
            try:
                with lock:
                    sock.sendall(octets)
            except OSError as error:
                say(f"not said: {error}")


if __name__ == "__main__":
    main()
