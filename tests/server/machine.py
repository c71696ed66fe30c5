"""A ZooKeeperServer without sockets, disk or clock, and clients that are byte streams.

`Machine` does what the shell does, when the test says so: hand bytes in, write the log, call
`durable`, move output to the clients. Time is virtual. Requests are made with tests.support.wire,
which shares no code with zkpy.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.support import wire
from tests.support.rawclient import NO_PASSWORD, SPECIAL_XIDS, Reply, Session
from tests.support.wire import Event, Reader

from zkpy.datatree.tree import DataTree
from zkpy.quorum.standalone import Standalone
from zkpy.server.cnxn import ServerCnxn
from zkpy.server.settings import make_config
from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.auth import (
    AuthenticationProvider,
    DigestAuthenticationProvider,
    IPAuthenticationProvider,
    ProviderRegistry,
)

START_MS = 5_000
WALL_MS = 1_764_000_000_000
# What a socket and the kernel take before a client that does not read is noticed.
SOCKET_BUFFER_BYTES = 64 * 1024


class Machine:
    """A standalone server. Nothing is durable before `durable` or `flush`."""

    def __init__(self, tree: DataTree | None = None, **settings: Any) -> None:
        settings.setdefault("four_letter_words", frozenset("*"))
        self.config = make_config(data_dir="/data", **settings)
        self.tree = tree or DataTree(extended_types=self.config.extended_types_enabled)
        self.zab = Standalone(self.tree.last_processed_zxid)
        self.log: list[tuple[int, bytes]] = []
        self.clients: dict[ServerCnxn, Client] = {}
        providers: list[AuthenticationProvider] = [
            IPAuthenticationProvider(),
            DigestAuthenticationProvider(super_digest=self.config.super_digest),
        ]
        self.server = ZooKeeperServer(
            self.config,
            self.tree,
            self.zab,
            ProviderRegistry(providers, skip_acl=self.config.skip_acl),
            now_ms=START_MS,
            wall_ms=WALL_MS,
        )

    # What the shell does

    def durable(self, zxid: int | None = None) -> None:
        """Log what was proposed; all of it, or what is up to `zxid`, is on disk now."""
        self.log += self.zab.take_appended()
        self.server.durable(self.zab.last_zxid if zxid is None else zxid)
        self.settle()

    def settle(self) -> None:
        """The end of a loop turn, until nothing is left to do: outputs move to the clients."""
        for _ in range(10_000):
            dirty = self.server.take_dirty()
            if not dirty:
                return
            for cnxn in dirty:
                cnxn.dirty = False
                self.clients[cnxn].attend()
        raise AssertionError("the server never comes to rest")

    def flush(self) -> None:
        """Make everything durable until nobody waits for anything."""
        self.settle()
        while self.zab.last_zxid > self.zab.committed_zxid:
            self.durable()

    def advance(self, duration_ms: int) -> None:
        """Let time pass, calling `tick` whenever the server wants it; then flush."""
        server = self.server
        end_ms = server.now_ms + duration_ms
        while server.now_ms < end_ms:
            step = min(max(server.next_timer_ms() - server.now_ms, 1), end_ms - server.now_ms)
            server.now_ms += step
            server.wall_ms += step
            server.tick()
            self.flush()

    # Clients

    def accept(self, address: str = "127.0.0.1", port: int = 40_000) -> Client | None:
        """A TCP connection; None if it is refused."""
        cnxn = self.server.accept(address, port)
        if cnxn is None:
            return None
        client = self.clients[cnxn] = Client(self, cnxn)
        return client

    def plain(self, address: str = "127.0.0.1") -> Client:
        """A TCP connection that has sent nothing."""
        client = self.accept(address)
        assert client is not None
        return client

    def connect(self, **request: Any) -> Client:
        """A client with a new session."""
        client = self.plain()
        client.connect(**request)
        return client

    def four_letter_word(self, word: str | bytes) -> str:
        """The answer to a four letter word, which ends with a close."""
        client = self.plain()
        client.feed(word.encode() if isinstance(word, str) else word)
        self.settle()
        assert client.closed
        return bytes(client.inbox).decode()


class Client:
    """One connection's other end. `inbox` is what it has received and not looked at."""

    def __init__(self, machine: Machine, cnxn: ServerCnxn) -> None:
        self.machine = machine
        self.cnxn = cnxn
        self.inbox = bytearray()
        self.closed: bool = False
        self.reads = True  # False: its receive window is full
        self.session: Session | None = None
        self.events: list[Event] = []
        self._unread = 0
        self._not_taken = bytearray()  # sent, but the server does not read its socket
        self._xid = 0

    # The socket

    def feed(self, data: bytes) -> None:
        """Send bytes; while the server does not read, they wait in the socket."""
        if self.closed:
            return
        if self.cnxn.held:
            self._not_taken += data
        else:
            self.machine.server.received(self.cnxn, data)

    @property
    def not_taken(self) -> int:
        """Bytes that wait in the socket."""
        return len(self._not_taken)

    def attend(self) -> None:
        """What the shell does for a dirty connection."""
        cnxn, server = self.cnxn, self.machine.server
        if cnxn.out:
            if cnxn.state:
                size = len(cnxn.out)
                server.stats.responses(size, size, size, size)
            self.inbox += cnxn.out
            self._unread += len(cnxn.out)
            cnxn.out = bytearray()
        if cnxn.closed:
            self.closed = True
            return
        if not self.reads and self._unread > SOCKET_BUFFER_BYTES and not cnxn.write_blocked:
            cnxn.write_blocked = True
            server.hold(cnxn)
        if cnxn.held:
            server.resume(cnxn)
        if not cnxn.held and self._not_taken:
            data = bytes(self._not_taken)
            self._not_taken.clear()
            server.received(cnxn, data)

    def read_again(self) -> None:
        """Take what has piled up."""
        self.reads = True
        self._unread = 0
        self.cnxn.write_blocked = False
        self.machine.server.mark_dirty(self.cnxn)
        self.machine.settle()

    def drop(self) -> None:
        """Close without a word; the session lives on."""
        self.machine.server.close(self.cnxn)
        self.machine.settle()

    # Frames

    def frames(self) -> list[bytes]:
        """Take the whole frames that have arrived."""
        found = []
        while len(self.inbox) >= 4:
            (length,) = struct.unpack_from(">i", self.inbox)
            if len(self.inbox) < 4 + length:
                break
            found.append(bytes(self.inbox[4 : 4 + length]))
            del self.inbox[: 4 + length]
        return found

    def connect(
        self,
        session_id: int = 0,
        password: bytes | None = NO_PASSWORD,
        timeout_ms: int = 10_000,
        last_zxid_seen: int = 0,
        read_only: bool | None = False,
        flush: bool = True,
    ) -> None:
        """Ask for a session; `session` has the answer once it is there."""
        payload = wire.int32(0) + wire.int64(last_zxid_seen) + wire.int32(timeout_ms)
        payload += wire.int64(session_id) + wire.buffer(password)
        if read_only is not None:
            payload += wire.boolean(read_only)
        self.feed(wire.buffer(payload))
        if flush:
            self.machine.flush()
            self.take_session()

    def take_session(self) -> Session | None:
        """Take the ConnectResponse, which must be the only frame."""
        frames = self.frames()
        if not frames:
            return None
        (payload,) = frames
        reader = Reader(payload)
        version, timeout_ms, session_id = reader.int32(), reader.int32(), reader.int64()
        password = reader.buffer()
        assert password is not None
        read_only = reader.boolean() if reader.left else None
        reader.end()
        self.session = Session(version, timeout_ms, session_id, password, read_only)
        return self.session

    def resume(self, session: Session, **request: Any) -> None:
        """Ask for an existing session."""
        request.setdefault("password", session.password)
        self.connect(session_id=session.session_id, **request)

    @property
    def session_id(self) -> int:
        assert self.session is not None
        return self.session.session_id

    @staticmethod
    def frame(op: int, body: bytes, xid: int) -> bytes:
        """A request as it goes over the wire."""
        return wire.buffer(struct.pack(">ii", xid, op) + body)

    def next_xid(self, op: int) -> int:
        """The xid a client gives a request."""
        if op in SPECIAL_XIDS:
            return SPECIAL_XIDS[op]
        self._xid += 1
        return self._xid

    def send(self, op: int, body: bytes = b"", xid: int | None = None) -> int:
        """Send a request, wait for nothing; returns its xid."""
        xid = self.next_xid(op) if xid is None else xid
        self.feed(self.frame(op, body, xid))
        return xid

    def replies(self) -> list[Reply]:
        """What has arrived, events included."""
        self.machine.settle()
        found = []
        for payload in self.frames():
            xid, zxid, err = struct.unpack_from(">iqi", payload)
            reply = Reply(xid, zxid, err, payload[16:])
            found.append(reply)
            if reply.is_event:
                self.events.append(reply.event())
        return found

    def call(self, op: int, body: bytes = b"", xid: int | None = None) -> Reply:
        """Send, make everything durable, return the one reply; events go to `events`."""
        xid = self.send(op, body, xid)
        self.machine.flush()
        replies = [reply for reply in self.replies() if not reply.is_event]
        assert len(replies) == 1, f"{replies} for one request"
        assert replies[0].xid == (-2 if op == wire.PING else xid)
        return replies[0]

    def code(self, op: int, body: bytes = b"") -> int:
        """The error code of the reply; an error has no body."""
        reply = self.call(op, body)
        assert not reply.err or not reply.body
        return reply.err

    def value(self, op: int, body: bytes = b"") -> Any:
        """The decoded record of the reply, which has to be a success."""
        return self.call(op, body).value(op)

    def create(self, path: str, data: bytes | None = b"", **options: Any) -> str:
        """Create a node; returns its path."""
        created = self.value(wire.CREATE, wire.create(path, data, **options))
        assert isinstance(created, str)
        return created
