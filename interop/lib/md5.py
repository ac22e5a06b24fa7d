"""TCP MD5 keys of other people's sockets: a daemon that can only take a new password with a new session gets it into the one it has."""

import ctypes
import ipaddress
import os
import socket
import struct

PIDFD_GETFD = 438
TCP_MD5SIG = 14
TCP_MD5SIG_MAXKEYLEN = 80
libc = ctypes.CDLL(None, use_errno=True)


def rekey(host, address, password):
    """Gives every TCP connection between the host's processes and an address another key, as an operator of a router would. Returns how many."""
    count = 0
    for pid in host.pids():
        for sock in connections(pid, address):
            with sock:
                sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, key(sock.family, address, password))
                count += 1
    return count


def connections(pid, address):
    """Duplicates of the sockets of a process that are connected with an address."""
    pidfd = os.pidfd_open(pid)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            copy = libc.syscall(PIDFD_GETFD, pidfd, int(name), 0)
            if copy < 0:
                continue
            sock = socket.socket(fileno=copy)
            try:
                wanted = sock.type & socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6) \
                    and plain(sock.getpeername()[0]) == ipaddress.ip_address(address)
            except OSError:
                wanted = False
            if wanted:
                yield sock
            else:
                sock.close()
    finally:
        os.close(pidfd)


def plain(address):
    """An address as such, where a socket of both families has it mapped."""
    found = ipaddress.ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


def key(family, address, password):
    """struct tcp_md5sig of linux/tcp.h."""
    if family == socket.AF_INET:
        peer = struct.pack("=HH4s", family, 0, socket.inet_pton(family, address))
    else:
        mapped = address if ":" in address else f"::ffff:{address}"
        peer = struct.pack("=HHI16sI", family, 0, 0, socket.inet_pton(family, mapped), 0)
    octets = password.encode()
    return struct.pack(f"=128sBBHi{TCP_MD5SIG_MAXKEYLEN}s", peer, 0, 0, len(octets), 0, octets)
