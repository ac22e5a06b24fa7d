#!/usr/bin/env python3
"""A wire that can be held: run in namespaces of a lab by net.Segment.

usage: wire.py relay INTERFACE INTERFACE
       wire.py plain INTERFACE

relay   passes every Ethernet frame between two interfaces. While the process is stopped (SIGSTOP) the frames wait; they are not lost.
plain   makes the kernel fill in checksums by itself and send no frames that are larger than the wire takes: a relay sees what the wire would.
"""

import array
import fcntl
import select
import socket
import struct
import sys

ETH_P_ALL, PACKET_OUTGOING = 3, 4
SIOCETHTOOL = 0x8946
# of linux/ethtool.h: set the checksums that the device fills in on sending; off, the larger frames are off as well
ETHTOOL_STXCSUM = 0x17


def relay(names):
    sockets = []
    for name in names:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((name, 0))
        sockets.append(sock)
    print("relaying", flush=True)
    others = dict(zip(sockets, reversed(sockets), strict=True))
    while True:
        for sock in select.select(sockets, [], [])[0]:
            frame, (_, _, kind, _, _) = sock.recvfrom(65536)
            if kind != PACKET_OUTGOING:
                others[sock].send(frame)


def plain(name):
    value = array.array("B", struct.pack("=II", ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP", name.encode(), value.buffer_info()[0]))


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        relay(sys.argv[2:4])
    else:
        plain(sys.argv[2])
