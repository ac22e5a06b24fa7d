"""A scripted neighbour: one BGP speaker at one address that says a fixed list of routes and keeps what it is told.

It listens from the start. Where no session is up DIAL_AFTER seconds after the daemon began to listen, it dials: Calico's daemons wait 2 s before they
dial, so who dialled does not hang on luck. A second connection beside a living one is closed. All its packets have TTL 255.
"""

import asyncio
import contextlib
import socket
import struct
import time

from . import messages
from .messages import KEEPALIVE, NOTIFICATION, OPEN, UPDATE
from .world import inside

DIAL_AFTER, RETRY, ANSWER_WITHIN, HANDSHAKE_WITHIN = 4.0, 1.0, 3.0, 10.0
TCP_MD5SIG_EXT, MD5_BY_PREFIX = 32, 1
HOPS = 255
HEADER = 19


class Closed(Exception):
    """The connection ended."""


class Connection:
    """A TCP connection with the node."""

    def __init__(self, sock, dialled_by):
        self.sock, self.dialled_by = sock, dialled_by
        # the node's end
        self.address, self.port = sock.getpeername()[:2]
        self.open, self.established = None, False

    async def message(self):
        header = await self.octets(HEADER)
        size, kind = struct.unpack("!HB", header[16:])
        if header[:16] != b"\xff" * 16 or not HEADER <= size <= 4096:
            raise Closed(f"not a BGP header: {header.hex()}")
        body = await self.octets(size - HEADER)
        if kind == NOTIFICATION:
            raise Closed(f"NOTIFICATION {body[0]}/{body[1]} from the node")
        return kind, body

    async def octets(self, size):
        data = b""
        while len(data) < size:
            try:
                piece = await asyncio.get_running_loop().sock_recv(self.sock, size - len(data))
            except OSError as error:
                raise Closed(error) from error
            if not piece:
                raise Closed("end of stream")
            data += piece
        return data

    async def send(self, octets):
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, octets)
        except OSError as error:
            raise Closed(error) from error


class Neighbour:
    """Plays one entry of case.json's `peers`."""

    def __init__(self, spec, namespace, node_port, say):
        self.spec, self.namespace, self.node_port = spec, namespace, node_port
        self.address, self.port, self.family = spec["address"], spec.get("port", 179), spec["family"]
        self.connection, self.last_open, self.routes = None, None, {}
        self.changed = time.monotonic()
        self.tasks, self.failed = set(), None
        self.say = lambda text: say(f"{self.address}: {text}")

    @property
    def established(self):
        return self.connection is not None and self.connection.established

    def start(self, daemon_listens):
        """Opens the listener at once; dials when `daemon_listens`, an event, is set."""
        listener = self.socket()
        listener.bind((self.address, self.port))
        listener.listen(16)
        self.spawn(self.accept(listener))
        if self.spec.get("mode", "both") == "both" and self.spec.get("dial"):
            self.spawn(self.dial(daemon_listens))

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.failed = task.exception()

    def socket(self):
        v6 = self.family == "ipv6"
        with inside(self.namespace):
            sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, HOPS)
        if password := self.spec.get("password", "").encode():
            # struct tcp_md5sig with an empty prefix: whoever talks to this socket must sign
            sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG_EXT, struct.pack("=H126xBBHi80s", sock.family, MD5_BY_PREFIX, 0, len(password), 0, password))
        return sock

    async def accept(self, listener):
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            self.adopt(sock, "node")

    async def dial(self, daemon_listens):
        await daemon_listens.wait()
        await asyncio.sleep(DIAL_AFTER)
        while True:
            if self.connection is None:
                sock = self.socket()
                try:
                    sock.bind((self.address, 0))
                    await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (self.spec["dial"], self.node_port)), ANSWER_WITHIN)
                    self.adopt(sock, "world")
                except (OSError, asyncio.TimeoutError) as error:
                    self.say(f"dialling {self.spec['dial']} port {self.node_port}: {error or 'no answer'}")
                    sock.close()
            await asyncio.sleep(RETRY)

    def adopt(self, sock, dialled_by):
        with contextlib.suppress(OSError):
            connection = Connection(sock, dialled_by)
            if self.connection is None:
                self.say(f"connected with {connection.address} port {connection.port}, dialled by the {dialled_by}")
                self.connection = connection
                self.spawn(self.hold(connection))
                return
            self.say(f"a second connection, dialled by the {dialled_by}, is closed")
        sock.close()

    async def hold(self, connection):
        """Runs a connection to its end."""
        keepalives = None
        try:
            if self.spec.get("mode") == "silent":
                while True:
                    self.opened(connection, await connection.message())
            await asyncio.wait_for(self.handshake(connection), HANDSHAKE_WITHIN)
            keepalives = asyncio.create_task(self.keep_alive(connection))
            connection.established = True
            self.changed = time.monotonic()
            self.say("established")
            internal = connection.open["asn"] == self.spec["asn"]
            for route in self.spec.get("announce", []):
                await connection.send(messages.announce(self.spec, route, internal))
            await connection.send(messages.end_of_rib(self.family))
            as4 = any(c["code"] == messages.CAPABILITY_AS4 for c in connection.open["capabilities"])
            while True:
                kind, body = await connection.message()
                if kind == UPDATE:
                    self.learn(*messages.read_update(body, as4))
        except (Closed, ValueError, asyncio.TimeoutError) as error:
            self.say(f"closed: {error or 'no handshake'}")
        finally:
            if keepalives:
                keepalives.cancel()
            connection.sock.close()
            self.connection = None
            if connection.established:
                self.routes.clear()
                self.changed = time.monotonic()

    def opened(self, connection, message):
        kind, body = message
        if kind == OPEN:
            connection.open = self.last_open = messages.read_open(body)
        elif connection.open is None:
            raise Closed(f"message type {kind} where OPEN is due")

    async def handshake(self, connection):
        await connection.send(messages.open_message(self.spec))
        self.opened(connection, await connection.message())
        await connection.send(messages.raw.message(KEEPALIVE))
        kind, _ = await connection.message()
        if kind != KEEPALIVE:
            raise Closed(f"message type {kind} where KEEPALIVE is due")

    async def keep_alive(self, connection):
        hold = min(self.spec.get("holdTime", 240), connection.open["holdTime"])
        with contextlib.suppress(Closed):
            while hold:
                await asyncio.sleep(hold / 3)
                await connection.send(messages.raw.message(KEEPALIVE))

    def learn(self, gone, came, attributes):
        for prefix in gone:
            self.say(f"withdrawn {prefix}")
            self.routes.pop(prefix, None)
        for prefix in came:
            self.say(f"told {prefix} {attributes}")
            self.routes[prefix] = attributes
        if gone or came:
            self.changed = time.monotonic()
