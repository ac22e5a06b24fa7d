#!/usr/bin/env python3
"""BGP speakers that no daemon is: run in a host of a lab by the scenarios.

usage: raw.py deaf --from ADDRESS --to ADDRESS --asn N [--hold N]
       raw.py storm --from ADDRESS[,ADDRESS...] --to ADDRESS --count N [--may-stay N]

deaf    comes up, says 'established', then sends KEEPALIVEs and asks for all routes again and again but never reads: the other end meets a zero window.
        Says 'closed' and after how many seconds, when the other end has ended the connection.
storm   dials so many times as fast as it can, sends nothing, and keeps what it gets open until the other end has closed all but so many as may stay, or
        a minute is over. Says how many were still connected then.
"""

import argparse
import ipaddress
import select
import socket
import struct
import sys
import time

MARKER = b"\xff" * 16
# of TCP_INFO
ESTABLISHED, SYN_SENT = 1, 2
OPEN, NOTIFICATION, KEEPALIVE, REFRESH = 1, 3, 4, 5


def message(kind, body=b""):
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def capability(code, value=b""):
    return bytes([code, len(value)]) + value


def open_message(asn, hold, router_id, family, more=b""):
    capabilities = capability(1, struct.pack("!HBB", family, 0, 1)) + capability(2) + capability(65, struct.pack("!I", asn)) + more
    parameters = bytes([2, len(capabilities)]) + capabilities
    return message(OPEN, struct.pack("!BHH", 4, asn if asn < 65536 else 23456, hold) + router_id.packed + bytes([len(parameters)]) + parameters)


def dial(source, target, timeout=10.0, buffer=None):
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(timeout)
    sock.bind((source, 0))
    sock.connect((target, 179))
    return sock


def read_message(sock):
    data = b""
    while len(data) < 19 or len(data) < struct.unpack("!H", data[16:18])[0]:
        want = 19 if len(data) < 19 else struct.unpack("!H", data[16:18])[0]
        got = sock.recv(want - len(data))
        if not got:
            raise ConnectionError("closed")
        data += got
    return data[18], data[19:]


def establish(source, target, asn, hold=240, router_id="10.0.0.200", buffer=None, more=b""):
    """Dials until a session is up: the other end may still be starting, or hold us off for a while. `more`: capabilities beside the usual ones. The
    answer is the socket and the family."""
    deadline = time.monotonic() + 60
    family = 2 if ":" in target else 1
    while True:
        try:
            sock = dial(source, target, buffer=buffer)
            sock.sendall(open_message(asn, hold, ipaddress.IPv4Address(router_id), family, more))
            kind, body = read_message(sock)
            if kind != OPEN:
                raise ConnectionError(f"not an OPEN but {kind} {body.hex()}")
            sock.sendall(message(KEEPALIVE))
            kind, body = read_message(sock)
            if kind != KEEPALIVE:
                raise ConnectionError(f"not a KEEPALIVE but {kind} {body.hex()}")
            return sock, family
        except OSError as error:
            print(error, flush=True)
            if time.monotonic() > deadline:
                sys.exit("never established")
            time.sleep(0.5)


def deaf(args):
    sock, family = establish(args.source, args.target, args.asn, args.hold, buffer=2048)
    print("established", flush=True)
    sock.setblocking(False)
    refresh = message(REFRESH, struct.pack("!HBB", family, 0, 1))
    began = time.monotonic()
    # what is begun must be ended before the next message: a socket that is nearly full takes half of one
    pending, last = b"", 0.0
    while True:
        poll = select.poll()
        # only errors and the other end's close: what it sends stays in the buffer
        poll.register(sock, select.POLLRDHUP)
        if poll.poll(50):
            break
        if not pending:
            pending = refresh
            if time.monotonic() - last > max(args.hold / 3, 0.5):
                pending += message(KEEPALIVE)
                last = time.monotonic()
        try:
            pending = pending[sock.send(pending):]
        except BlockingIOError:
            pass
        except OSError:
            break
    print(f"closed after {time.monotonic() - began:.0f} s", flush=True)


def connected(sock):
    """Whether a connection is there: neither refused, closed nor reset; and a SYN that is still not answered has no peer."""
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([ESTABLISHED])
    except OSError:
        return False


def undecided(sock):
    """Whether a SYN still waits for its answer."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([SYN_SENT])


def storm(args):
    sources = args.source.split(",")
    family = socket.AF_INET6 if ":" in args.target else socket.AF_INET
    held = []
    for number in range(args.count):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((sources[number % len(sources)], 0))
        sock.connect_ex((args.target, 179))
        held.append(sock)
    deadline = time.monotonic() + 60
    # a SYN that met a full queue is sent again after 1, 3, 7 s, and counts as well
    while time.monotonic() < deadline and (any(map(undecided, held)) or sum(map(connected, held)) > args.may_stay):
        time.sleep(0.1)
    print(f"{sum(map(connected, held))} of {args.count} still connected", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["deaf", "storm"])
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--to", dest="target", required=True)
    parser.add_argument("--asn", type=int, default=64512)
    parser.add_argument("--hold", type=int, default=240)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--may-stay", type=int, default=0)
    args = parser.parse_args()
    {"deaf": deaf, "storm": storm}[args.what](args)


if __name__ == "__main__":
    main()
