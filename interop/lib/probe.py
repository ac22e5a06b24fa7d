"""A probe of forwarding: a thousand datagrams a second (or as many as are asked for), each numbered, each to be echoed. A program of its own, run in the hosts and pods of a lab."""

import json
import select
import signal
import socket
import sys
import time


def opened(address):
    """A socket for datagrams to or from an address. What waits in it while a busy machine runs others is not lost."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    # SO_RCVBUFFORCE, which the module does not name: beyond the system's limit
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
    return sock


def echo(address, port):
    """Sends back what comes."""
    with opened(address) as sock:
        sock.bind((address, port))
        print("echoes", flush=True)
        while True:
            data, whom = sock.recvfrom(64)
            try:
                sock.sendto(data, whom)
            except OSError:
                pass  # the way back is what others look at


def probe(address, port, rate=1000):
    """Sends until SIGTERM, waits a second for the rest, and prints how many were sent and which were lost: numbers, and the second of each."""
    going = True

    def end(*_):
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, end)
    sent, back, refused = [], set(), {}
    with opened(address) as sock:
        sock.connect((address, port))
        sock.setblocking(False)
        begun = time.monotonic()

        def hear(until):
            while True:
                left = until - time.monotonic()
                if not select.select([sock], [], [], max(left, 0))[0]:
                    return
                try:
                    back.add(int(sock.recv(64)))
                except OSError as error:
                    refused[error.strerror] = refused.get(error.strerror, 0) + 1

        while going:
            now = time.monotonic()
            try:
                sock.send(str(len(sent)).encode())
            except OSError as error:
                refused[error.strerror] = refused.get(error.strerror, 0) + 1
            sent.append(now - begun)
            if len(sent) == 1:
                print("probes", flush=True)
            hear(max(begun + len(sent) / rate, now + 0.0002))
        hear(time.monotonic() + 1)
    lost = [number for number in range(len(sent)) if number not in back]
    print(json.dumps({"sent": len(sent), "lost": len(lost), "when": [round(sent[n], 3) for n in lost[:20]], "errors": refused,
                      "longest_pause": round(max((b - a for a, b in zip(sent, sent[1:])), default=0), 3)}), flush=True)


if __name__ == "__main__":
    {"echo": echo, "probe": probe}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
