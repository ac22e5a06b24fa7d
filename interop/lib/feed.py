#!/usr/bin/env python3
"""A crowd of BGP speakers that say the same to several others: run in a host of a lab by the scenarios.

usage: feed.py SOURCE=ASN=ROUTERID... TO TARGET...

Dials every target of its family from every source, says 'established' when all sessions are up, and reads lines of JSON from its input:
{"from": SOURCE, "prefix": P, "next_hop": A, "path": [...], "origin": 0, "med": N, "local_pref": N, "originator": A, "clusters": [...], "link_local": A}
announces, {"from": SOURCE, "withdraw": P} withdraws; to every target. Says 'said N' after the line {"say": N}.
"""

import ipaddress
import json
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


def announce(route):
    prefix, v6 = nlri(route["prefix"]), ":" in route["prefix"]
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


def withdraw(text):
    prefix = nlri(text)
    if ":" in text:
        attributes = attribute(MP_UNREACH, struct.pack("!HB", 2, 1) + prefix)
        return message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes)
    return message(UPDATE, struct.pack("!H", len(prefix)) + prefix + struct.pack("!H", 0))


def keep(sock, lock):
    """Reads what comes, and sends KEEPALIVEs."""
    sock.settimeout(20)
    while True:
        try:
            if not sock.recv(65536):
                return print("closed", flush=True)
        except TimeoutError:
            pass
        with lock:
            sock.sendall(message(KEEPALIVE))


def main():
    at = sys.argv.index("TO")
    sessions = {}
    for text in sys.argv[1:at]:
        source, asn, router_id = text.split("=")
        for target in sys.argv[at + 1:]:
            if (":" in source) == (":" in target):
                sock, _ = establish(source, target, int(asn), router_id=router_id)
                lock = threading.Lock()
                sessions.setdefault(source, []).append((sock, lock))
                threading.Thread(target=keep, args=(sock, lock), daemon=True).start()
    print("established", flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        if "say" in told:
            print("said", told["say"], flush=True)
            continue
        octets = withdraw(told["withdraw"]) if "withdraw" in told else announce(told)
        for sock, lock in sessions[told["from"]]:
            with lock:
                sock.sendall(octets)


if __name__ == "__main__":
    main()
