"""Clients that write to and read from an ensemble at once, and record what they were told.

Owns: threads with a session each, which move to another member when they lose theirs, as clients
do. What they did goes to `history.problems`. Must not import zkpy.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random

from . import history, wire
from .history import READ, SYNC_READ, WRITE, Operation
from .rawclient import NO_PASSWORD, Closed, RawClient

Address = tuple[str, int]
Connect = Callable[[Address, float], socket.socket]

ANSWER_TIMEOUT_S = 3.0
SESSION_TIMEOUT_MS = 12_000
RECONNECT_PAUSE_S = 0.02
LOSSES = (Closed, OSError, TimeoutError)


class Member:
    """A client: one session, one request or one batch of writes at a time."""

    def __init__(self, load: Load, name: str, seed: int) -> None:
        self.load = load
        self.name = name
        self.random = Random(seed)
        self.client: RawClient | None = None
        self.session_id = 0
        self.password = NO_PASSWORD
        self.last_zxid = 0
        self.versions: dict[str, int] = {}
        self.turn = self.random.randrange(100)
        self.written = 0
        self.sessions = 0
        self.connections = 0

    def run(self) -> None:
        while not self.load.stopping.is_set():
            if self.client is None and not self.connect():
                time.sleep(RECONNECT_PAUSE_S)
                continue
            try:
                self.step()
            except LOSSES:
                self.drop()
        self.leave()

    def leave(self) -> None:
        """End the session, so that nothing of it is left to expire."""
        if self.client is not None:
            with contextlib.suppress(*LOSSES):
                self.client.end_session()
            self.drop()

    def drop(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def connect(self) -> bool:
        """To the next member, with the session if there is one."""
        addresses = self.load.addresses
        address = addresses[self.turn % len(addresses)]
        self.turn += 1
        try:
            client = RawClient(address, ANSWER_TIMEOUT_S, self.load.connect)
        except OSError:
            return False
        try:
            session = client.connect(
                self.session_id, self.password, SESSION_TIMEOUT_MS, self.last_zxid
            )
        except LOSSES:
            client.close()
            return False
        if session.session_id == 0:  # expired
            self.session_id, self.password = 0, NO_PASSWORD
            client.close()
            return False
        if session.session_id != self.session_id:
            self.sessions += 1
        self.session_id, self.password = session.session_id, session.password
        self.client = client
        self.connections += 1
        return True

    def step(self) -> None:
        key = self.random.choice(self.load.keys)
        roll = self.random.random()
        if roll < 0.15:
            self.read(key)
        elif roll < 0.35:
            self.sync_read(key)
        elif roll < 0.45:
            self.write([(key, self.versions.get(key, -1))])
        else:
            count = self.random.randint(1, self.load.window)
            self.write([(self.random.choice(self.load.keys), -1) for _ in range(count)])

    def write(self, wanted: Sequence[tuple[str, int]]) -> None:
        """setData of all (key, expected version) at once; every one of them is recorded."""
        client = self.client
        assert client is not None
        sent: list[tuple[int, str, bytes]] = []
        values = []
        for key, _ in wanted:
            self.written += 1
            values.append((key, f"{self.name}:{self.written}".encode() + self.load.padding))
        answered = 0
        try:
            for (key, version), (_, value) in zip(wanted, values, strict=True):
                sent.append((time.monotonic_ns(), key, value))
                client.send(wire.SET_DATA, wire.set_data(key, value, version))
            for begin, key, value in sent:
                reply = client.recv_reply()
                now = time.monotonic_ns()
                self.last_zxid = max(self.last_zxid, reply.zxid)
                if reply.err == wire.SESSION_EXPIRED:
                    raise Closed("session expired")
                answered += 1
                if reply.err == wire.BAD_VERSION:
                    self.versions.pop(key, None)
                    self.note(WRITE, key, value, begin, now, refused=True)
                    continue
                stat = reply.value(wire.SET_DATA)
                self.note(WRITE, key, value, begin, now, stat)
        finally:
            for begin, key, value in sent[answered:]:
                self.note(WRITE, key, value, begin, None)

    def read(self, key: str, kind: str = READ, begin: int = 0) -> None:
        assert self.client is not None
        begin = begin or time.monotonic_ns()
        reply = self.client.call(wire.GET_DATA, wire.path_watch(key))
        now = time.monotonic_ns()
        self.last_zxid = max(self.last_zxid, reply.zxid)
        data, stat = reply.value(wire.GET_DATA)
        self.note(kind, key, data, begin, now, stat)

    def sync_read(self, key: str) -> None:
        assert self.client is not None
        begin = time.monotonic_ns()
        reply = self.client.call(wire.SYNC, wire.string(key))
        if reply.err == 0:
            self.read(key, SYNC_READ, begin)

    def note(
        self,
        kind: str,
        key: str,
        value: bytes,
        begin: int,
        end: int | None,
        stat: wire.Stat | None = None,
        refused: bool = False,
    ) -> None:
        version = mzxid = None
        if stat is not None:
            version, mzxid = stat.version, stat.mzxid
            self.versions[key] = version
        self.load.history.append(
            Operation(self.name, kind, key, value, begin, end, version, mzxid, refused)
        )


class Load:
    """`clients` sessions on all `addresses`, from start() to stop(); or `with load.running():`."""

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        clients: int = 8,
        keys: int = 16,
        window: int = 4,
        padding: int = 0,
        root: str = "/load",
        seed: int = 1,
        connect: Connect = socket.create_connection,
    ) -> None:
        """`window`: most writes that a client sends at once; `padding`: bytes added to values."""
        self.addresses = list(addresses)
        self.root = root
        self.keys = [f"{root}/k{number}" for number in range(keys)]
        self.window = window
        self.padding = bytes(padding)
        self.connect = connect
        self.stopping = threading.Event()
        self.history: list[Operation] = []  # append is atomic
        self.members = [Member(self, f"c{n}", seed * 1000 + n) for n in range(clients)]
        self.threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def prepare(self) -> None:
        """Make the nodes; harmless when they are there."""
        client = self.session()
        for path in (self.root, *self.keys):
            reply = client.call(wire.CREATE, wire.create(path, b"initial"))
            assert reply.err in (0, wire.NODE_EXISTS), reply
        client.end_session()

    def session(self, address: Address | None = None) -> RawClient:
        """A client with a session at that member, or at the first that gives one."""
        deadline = time.monotonic() + 30
        while True:
            for candidate in [address] if address else self.addresses:
                try:
                    client = RawClient(candidate, ANSWER_TIMEOUT_S, self.connect)
                    if client.connect(timeout_ms=SESSION_TIMEOUT_MS).session_id:
                        return client
                except LOSSES as error:
                    assert time.monotonic() < deadline, f"no session: {error!r}"
            time.sleep(RECONNECT_PAUSE_S)

    def start(self) -> None:
        self.prepare()
        for member in self.members:
            thread = threading.Thread(target=self._run, args=(member,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, member: Member) -> None:
        try:
            member.run()
        except BaseException as error:
            self.failures.append(error)

    def stop(self) -> None:
        """End all sessions; raises what went wrong in a client beyond a lost connection."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive(), "a client hangs"
        if self.failures:
            raise self.failures[0]

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    @property
    def acknowledged(self) -> int:
        """How many writes have been acknowledged so far."""
        return sum(one.kind == WRITE and one.version is not None for one in list(self.history))

    def wait_for_writes(self, more: int, timeout_s: float = 40.0) -> float:
        """Wait until so many more writes are acknowledged; returns the seconds it took."""
        begin = time.monotonic()
        wanted = self.acknowledged + more
        while self.acknowledged < wanted:
            if self.failures:
                raise self.failures[0]
            assert time.monotonic() - begin < timeout_s, f"{more} more writes: not in {timeout_s} s"
            time.sleep(0.01)
        return time.monotonic() - begin

    def final(self, address: Address) -> history.Final:
        """Data and version of all keys, read after a sync at that member."""
        client = self.session(address)
        found = {}
        for key in self.keys:
            client.call(wire.SYNC, wire.string(key))
            data, stat = client.value(wire.GET_DATA, wire.path_watch(key))
            found[key] = (data, stat.version)
        client.end_session()
        return found

    def check(self, *, strict_reads: bool = False) -> None:
        """Fail with what no ensemble may answer, or leave behind."""
        found = history.problems(
            self.history, self.final(self.addresses[0]), strict_reads=strict_reads
        )
        assert not found, f"{len(found)} problems:\n" + "\n".join(found[:10])
