"""The node's TCP handshakes, watched at the far ends of its links: its first packets tell the TTL that it sends with, whether it signs, and whom it
calls at all."""

import asyncio
import ipaddress
import pathlib
import socket

from .world import inside

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SYN, ACK = 0x02, 0x10
# RFC 2385
OPTION_MD5 = 19
SYN_SENT, LISTEN = "02", "0A"


class Handshakes:
    """The last SYN to each address and port (`called`), the last SYN with ACK to each address (`answered`): (source address, TTL, signed)."""

    def __init__(self):
        self.called, self.answered = {}, {}

    def watch(self, namespaces):
        for namespace in namespaces:
            with inside(namespace):
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            tap.setblocking(False)
            asyncio.get_running_loop().add_reader(tap.fileno(), self.drain, tap)

    def drain(self, tap):
        while True:
            try:
                packet, (interface, protocol, direction, *_) = tap.recvfrom(256)
            except OSError:  # nothing more
                return
            if direction == socket.PACKET_HOST and interface != "lo":
                self.note(protocol, packet)

    def note(self, protocol, packet):
        if protocol == ETH_P_IP and len(packet) >= 20 and packet[9] == socket.IPPROTO_TCP:
            ttl, source, target, segment = packet[8], packet[12:16], packet[16:20], packet[(packet[0] & 0xF) * 4:]
        elif protocol == ETH_P_IPV6 and len(packet) >= 40 and packet[6] == socket.IPPROTO_TCP:
            ttl, source, target, segment = packet[7], packet[8:24], packet[24:40], packet[40:]
        else:
            return
        if len(segment) < 20 or not segment[13] & SYN:
            return
        seen = str(ipaddress.ip_address(source)), ttl, OPTION_MD5 in options(segment[20:(segment[12] >> 4) * 4])
        target = str(ipaddress.ip_address(target))
        if segment[13] & ACK:
            self.answered[target] = seen
        else:
            self.called[target, int.from_bytes(segment[2:4], "big")] = seen


def options(data):
    """The kinds of a segment's TCP options."""
    kinds, at = set(), 0
    while at < len(data) and data[at]:
        kinds.add(data[at])
        at += 1 if data[at] == 1 else max(data[at + 1], 2) if at + 1 < len(data) else 2
    return kinds


def sockets(pid, family):
    """The TCP sockets of a process's namespace: (state, local port, (remote address, port))."""
    path = pathlib.Path(f"/proc/{pid}/net/{'tcp' if family == 'ipv4' else 'tcp6'}")
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return [(state, end(local)[1], end(remote)) for _, local, remote, state, *_ in map(str.split, lines)]


def end(text):
    """One end of a line of /proc/net/tcp: words of 32 bits in the machine's order, and the port."""
    words, port = text.split(":")
    found = ipaddress.ip_address(b"".join(bytes.fromhex(words[i:i + 8])[::-1] for i in range(0, len(words), 8)))
    return str(getattr(found, "ipv4_mapped", None) or found), int(port, 16)
