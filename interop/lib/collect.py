#!/usr/bin/env python3
"""A BGP speaker that takes all paths (RFC 7911) and keeps them: run in a host of a lab by the scenarios.

usage: collect.py SOURCE=ASN=ROUTERID... TO TARGET...

Dials every target of its family from every source, says 'established' when all sessions are up, and answers each line of its input, a word, with
the line WORD and JSON: "SOURCE TARGET" → prefix → path id → the attributes, by name.
"""

import ipaddress
import json
import struct
import sys
import threading

from raw import KEEPALIVE, capability, establish, message, read_message

UPDATE = 2
NAMES = {1: "origin", 2: "as_path", 3: "next_hop", 4: "med", 5: "local_pref", 8: "communities", 9: "originator", 10: "clusters"}
MP_REACH, MP_UNREACH = 14, 15
RECEIVE = 1


def nlri(data, v6):
    """(prefix, path id) of each."""
    at, size = 0, 16 if v6 else 4
    while at < len(data):
        number, length = struct.unpack_from("!IB", data, at)
        octets = (length + 7) // 8
        packed = data[at + 5:at + 5 + octets].ljust(size, b"\0")
        yield f"{ipaddress.ip_address(packed)}/{length}", number
        at += 5 + octets


def value(name, data):
    if name in ("med", "local_pref"):
        return struct.unpack("!I", data)[0]
    if name in ("next_hop", "originator"):
        return str(ipaddress.ip_address(data))
    if name == "clusters":
        return [str(ipaddress.ip_address(data[i:i + 4])) for i in range(0, len(data), 4)]
    if name == "as_path":
        return [struct.unpack_from("!I", data, at)[0] for at in range(2, len(data), 4)]
    return data.hex()


class Table:
    """What one session has been told."""

    def __init__(self):
        self.held, self.lock = {}, threading.Lock()

    def update(self, body):
        size = struct.unpack_from("!H", body)[0]
        gone, at = body[2:2 + size], 4 + size
        end = at + struct.unpack_from("!H", body, 2 + size)[0]
        told, came, v6 = {}, body[end:], False
        while at < end:
            flags, kind = body[at], body[at + 1]
            long = flags & 0x10
            length = struct.unpack_from("!H", body, at + 2)[0] if long else body[at + 2]
            at += 4 if long else 3
            data = body[at:at + length]
            at += length
            if kind == MP_REACH:
                v6, hop = True, data[4:4 + data[3]]
                # with a link-local one beside it, it is the global one that counts
                told["next_hop"], came = str(ipaddress.ip_address(hop[:16])), data[5 + data[3]:]
            elif kind == MP_UNREACH:
                v6, gone = True, data[3:]
            else:
                name = NAMES.get(kind, f"attribute {kind}")
                told[name] = value(name, data)
        with self.lock:
            for prefix, number in nlri(gone, v6):
                self.held.get(prefix, {}).pop(number, None)
            for prefix, number in nlri(came, v6):
                self.held.setdefault(prefix, {})[number] = told


def follow(sock, table):
    sock.settimeout(20)
    try:
        while True:
            try:
                kind, body = read_message(sock)
            except TimeoutError:
                sock.sendall(message(KEEPALIVE))
                continue
            if kind == UPDATE:
                table.update(body)
            elif kind != KEEPALIVE:
                return print(f"ended by {kind} {body.hex()}", flush=True)
    except OSError as error:
        print(error, flush=True)


def main():
    at = sys.argv.index("TO")
    tables = {}
    for text in sys.argv[1:at]:
        source, asn, router_id = text.split("=")
        for target in sys.argv[at + 1:]:
            if (":" in source) == (":" in target):
                family = 2 if ":" in source else 1
                paths = capability(69, struct.pack("!HBB", family, 1, RECEIVE))
                sock, _ = establish(source, target, int(asn), router_id=router_id, more=paths)
                table = tables[f"{source} {target}"] = Table()
                threading.Thread(target=follow, args=(sock, table), daemon=True).start()
    print("established", flush=True)
    for line in sys.stdin:
        told = {}
        for name, table in tables.items():
            with table.lock:
                told[name] = {prefix: dict(paths) for prefix, paths in table.held.items() if paths}
        print(line.strip(), json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
