"""A standalone server without sockets, threads or a clock, through crashes, from one seed.

Everything that the shell does is done here in small steps, in an order the seed chooses: bytes in,
the log handed over, committed, made known, snapshots in slices, purges, time, replies out. The disk
loses power amid any operation, or fails. After each restart the state must be a prefix of what was
proposed, with all in it that any client has seen; a tree made by ModelTree says what that looks
like. No code of the shell is used, nor any that talks to it.
"""

from __future__ import annotations

import struct
from collections import deque
from random import Random
from typing import Any, NamedTuple

from tests.datatree.tree_compare import check_against_model, check_inner_consistency
from tests.datatree.tree_model import ModelTree
from tests.support import wire
from tests.support.rawclient import Reply, Session
from tests.support.wire import Reader

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.serialize import serialize_tree
from zkpy.persistence.errors import DiskWriteError
from zkpy.persistence.purge import purge
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol import txns as t
from zkpy.quorum.standalone import Standalone
from zkpy.server.cnxn import ServerCnxn
from zkpy.server.settings import make_config
from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.auth import IPAuthenticationProvider, ProviderRegistry
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

WRITES = {
    wire.CREATE, wire.CREATE2, wire.CREATE_CONTAINER, wire.CREATE_TTL, wire.DELETE,
    wire.SET_DATA, wire.SET_ACL, wire.MULTI, wire.CLOSE_SESSION,
}  # fmt: skip
FAULTS = (
    faults.CREATE, faults.WRITE, faults.SYNC, faults.RENAME, faults.SYNC_DIR,
)  # fmt: skip
ACLS: list[list[wire.Acl]] = [
    wire.OPEN_ACL,
    [*wire.OPEN_ACL, (wire.READ, "ip", "10.0.0.0/8")],
    [(wire.READ, "ip", "10.0.0.0/8"), *wire.OPEN_ACL],
]
NAMES = "abcd"
PASSWORD_BYTES = 16


class PowerCut(Exception):
    """Raised by the disk in the middle of whatever the server was doing."""


class Request(NamedTuple):
    xid: int
    op: int
    path: str
    data: bytes | None


class History:
    """Every txn proposed, by zxid, and what each node held when."""

    def __init__(self) -> None:
        self.txns: dict[int, bytes] = {}
        self.forget_after(0)

    def forget_after(self, zxid: int) -> None:
        """What was proposed later never happened. Builds the state at `zxid` anew."""
        self.txns = {known: txn for known, txn in self.txns.items() if known <= zxid}
        self.model = ModelTree()
        self.applied = 0
        self.values: dict[str, list[tuple[int, bytes | None, bool]]] = {}
        self.sessions: set[int] = set()  # also those that are closed again
        self.apply_until(zxid)

    def apply_until(self, zxid: int) -> None:
        for next_zxid in range(self.applied + 1, zxid + 1):
            header, record, _ = t.decode_txn(self.txns[next_zxid])
            assert header.zxid == next_zxid
            owned = self.model.ephemerals().get(header.client_id, set())
            self.model.apply(header, record)
            self.sessions.update(self.model.sessions)
            for path in {*paths_of(record), *owned}:
                node = self.model.nodes.get(path)
                entry = (next_zxid, node.data if node else None, node is not None)
                self.values.setdefault(path, []).append(entry)
            self.applied = next_zxid

    def value_at(self, path: str, zxid: int) -> tuple[bytes | None, bool]:
        """Data of a node and whether it existed, after the txn `zxid`."""
        found: tuple[bytes | None, bool] = (None, False)
        for changed, data, exists in self.values.get(path, ()):
            if changed <= zxid:
                found = (data, exists)
        return found


def paths_of(record: Any) -> list[str]:
    if isinstance(record, t.MultiTxn):
        subs = [t.decode_record(sub.type, sub.data or b"")[0] for sub in record.txns or ()]
        return [path for sub in subs for path in paths_of(sub)]
    if isinstance(record, t.CloseSessionTxn):
        return [path or "" for path in record.paths or ()]
    path = getattr(record, "path", None)
    return [path] if path else []


class Client:
    """One client through all its connections. `session`: while it may still be alive."""

    def __init__(self, simulation: StandaloneSimulation, number: int) -> None:
        self.simulation = simulation
        self.number = number
        self.cnxn: ServerCnxn | None = None
        self.session: Session | None = None
        self.connecting = False
        self.inbox = bytearray()
        self.sent: deque[Request] = deque()
        self.xid = 0

    # The socket

    def connect(self) -> None:
        server = self.simulation.server
        cnxn = self.cnxn = server.accept("127.0.0.1", 40_000 + self.number)
        assert cnxn is not None
        cnxn.transport = self
        self.inbox.clear()
        self.sent.clear()
        self.connecting = True
        old = self.session
        payload = (
            wire.int32(0) + wire.int64(0) + wire.int32(self.simulation.rng.choice((4000, 9000)))
        )
        payload += wire.int64(old.session_id if old else 0)
        payload += wire.buffer(old.password if old else bytes(PASSWORD_BYTES)) + b"\0"
        server.received(cnxn, wire.buffer(payload))

    def disconnected(self) -> None:
        self.cnxn = None
        self.connecting = False
        self.sent.clear()

    def send(self, requests: list[tuple[int, str, bytes | None, bytes]]) -> None:
        data = b""
        for op, path, value, body in requests:
            self.xid += 1
            self.sent.append(Request(self.xid, op, path, value))
            data += wire.buffer(struct.pack(">ii", self.xid, op) + body)
        assert self.cnxn is not None
        self.simulation.server.received(self.cnxn, data)

    def take(self) -> None:
        """Look at what has arrived."""
        while len(self.inbox) >= 4:
            (length,) = struct.unpack_from(">i", self.inbox)
            if len(self.inbox) < 4 + length:
                return
            payload = bytes(self.inbox[4 : 4 + length])
            del self.inbox[: 4 + length]
            if self.connecting:
                self.connected(payload)
            else:
                xid, zxid, err = struct.unpack_from(">iqi", payload)
                self.replied(Reply(xid, zxid, err, payload[16:]))

    # Replies

    def connected(self, payload: bytes) -> None:
        reader = Reader(payload)
        _, timeout_ms, session_id = reader.int32(), reader.int32(), reader.int64()
        password = reader.buffer() or b""
        simulation = self.simulation
        self.connecting = False
        if session_id == 0:
            assert self.session is not None, "a new session is never refused"
            self.session = None
            return
        if self.session is not None:
            assert session_id == self.session.session_id
        assert session_id in simulation.history.sessions, "it is durable"
        simulation.seen(simulation.server.tree.last_processed_zxid)
        self.session = Session(0, timeout_ms, session_id, password, False)

    def replied(self, reply: Reply) -> None:
        simulation = self.simulation
        if reply.is_event:
            simulation.seen(reply.zxid)
            return
        request = self.sent.popleft()
        assert reply.xid == request.xid, "in the order of requests"
        simulation.seen(reply.zxid)
        simulation.replies += 1
        if request.op in WRITES:
            self.wrote(request, reply)
        elif request.op == wire.GET_DATA:
            data, exists = simulation.history.value_at(request.path, reply.zxid)
            if reply.err:
                assert (reply.err, exists) == (wire.NO_NODE, False)
            else:
                assert exists
                assert reply.value(wire.GET_DATA)[0] == data
        else:
            assert reply.err in (0, wire.NO_NODE)

    def wrote(self, request: Request, reply: Reply) -> None:
        """The reply belongs to the txn of its zxid, which says what was asked for."""
        header, record, _ = t.decode_txn(self.simulation.history.txns[reply.zxid])
        assert self.session is not None
        assert header.client_id == self.session.session_id
        assert header.cxid == request.xid
        if reply.err:
            if request.op != wire.MULTI:
                assert isinstance(record, t.ErrorTxn)
                assert record.err == reply.err
            return
        if request.op == wire.CLOSE_SESSION:
            assert isinstance(record, t.CloseSessionTxn), (header, record, reply, request)
            self.session = None
            return
        value = reply.value(request.op)
        if request.op == wire.CREATE:
            assert record.path == value  # type: ignore[union-attr]
        if request.data is not None:
            assert record.data == request.data  # type: ignore[union-attr]
        if request.op == wire.SET_DATA:
            assert value.version == record.version  # type: ignore[union-attr]
            assert value.mzxid == reply.zxid


class StandaloneSimulation:
    """`run()` raises what went wrong; the seed makes it happen again."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = Random(seed)
        self.disk = SimulatedDisk(rng)
        self.disk.make_dirs("/data/version-2")
        self.config = make_config(
            data_dir="/data",
            tick_time_ms=2000,
            extended_types_enabled=True,
            container_check_interval_ms=5000,
            snap_count=rng.choice((2, 10, 40, 100_000)),
            snap_size_limit_kib=rng.choice((1, 100, -1)),
        )
        self.settings = Settings(
            "/data",
            preallocate_bytes=rng.choice((0, 100, 4096, 65536)),
            txn_log_size_limit_bytes=rng.choice((-1, 500, 5000)),
            compression_method=rng.choice(("", "", "gz")),
            extended_types_enabled=True,
        )
        self.history = History()
        self.now_ms = 1_000_000
        self.seen_zxid = 0
        self.durable_zxid = 0
        self.replies = 0
        self.lives = 0
        self.operations_left: int | None = None
        self.clients = [Client(self, number) for number in range(rng.randint(1, 4))]
        self.disk.before = self._before

    # ------------------------------------------------------------------ lives

    def run(self, lives: int = 6, steps: int = 300) -> None:
        """From start to crash to start."""
        for _ in range(lives):
            try:
                self.plan_the_end()
                self.start()
                for _ in range(self.rng.randint(1, steps)):
                    self.step()
                if self.rng.random() < 0.3:
                    self.stop()
            except (PowerCut, DiskWriteError):
                pass
            self.die()
        self.start()

    def plan_the_end(self) -> None:
        rng = self.rng
        if rng.random() < 0.5:
            self.operations_left = rng.choice((1, 5, 20, 100, 300))
        if rng.random() < 0.3:
            self.disk.fail(rng.choice(FAULTS), after=rng.choice((1, 5, 20, 60)))

    def _before(self, kind: str, _path: str) -> None:
        if self.operations_left is not None and kind != faults.READ:
            self.operations_left -= 1
            if self.operations_left < 0:
                raise PowerCut

    def start(self) -> None:
        self.lives += 1
        self.now_ms += self.rng.choice((0, 100, 20_000))
        self.store = FileTxnSnapLog(self.disk, self.settings)
        self.store.open()
        loaded = self.store.restore()
        tree = loaded.tree
        self.check_recovered(loaded.last_zxid)
        assert loaded.digest_mismatches == 0
        check_against_model(tree, self.history.model)
        check_inner_consistency(tree)
        assert tree.digest == tree_digest(tree.nodes)
        assert tree.kill_dead_sessions() == []
        self.server = ZooKeeperServer(
            self.config,
            tree,
            Standalone(loaded.last_zxid),
            ProviderRegistry([IPAuthenticationProvider()]),
            now_ms=self.now_ms,
            wall_ms=1_764_000_000_000 + self.now_ms,
        )
        assert self.server.tracker.sessions == len(self.history.model.sessions)
        self.synced: deque[int] = deque()
        self.writer: Any = None
        self.slices: Any = None
        self.new_limits()
        if loaded.snapshot_zxid != loaded.last_zxid:
            self.start_snapshot()

    def check_recovered(self, last_zxid: int) -> None:
        assert self.seen_zxid <= last_zxid, "somebody has seen what is lost"
        assert last_zxid <= max(self.history.txns, default=0)
        self.history.forget_after(last_zxid)
        self.durable_zxid = last_zxid

    def stop(self) -> None:
        """A clean stop answers everything."""
        self.flush()
        self.commit()
        self.take_synced()
        self.flush()
        if self.writer is not None:
            self.writer.abort()
        self.store.close()
        assert self.server.tree.last_processed_zxid == max(self.history.txns, default=0)

    def die(self) -> None:
        self.operations_left = None
        for client in self.clients:
            client.take()  # what was sent before the end arrives
            client.disconnected()
        if self.rng.random() < 0.6:
            self.disk.crash(self.rng)
        else:
            self.disk.restart()

    # ------------------------------------------------------------------ steps

    def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.45:
            self.client_acts(self.rng.choice(self.clients))
        elif choice < 0.6:
            self.flush()
        elif choice < 0.72:
            self.commit()
        elif choice < 0.82:
            self.take_synced()
            self.flush()
        elif choice < 0.85:
            self.store.log.prepare_ahead()
        elif choice < 0.93:
            self.snapshot_goes_on()
        elif choice < 0.95:
            purge(self.disk, self.store.snap_directory, self.store.log_directory, 3)
        elif choice < 0.98:
            self.time_passes(self.rng.choice((10, 500, 3000)))
        else:
            self.check_tree()

    def time_passes(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        server = self.server
        server.now_ms = self.now_ms
        server.wall_ms = 1_764_000_000_000 + self.now_ms
        if self.now_ms >= server.next_timer_ms():
            server.tick()

    def check_tree(self) -> None:
        tree = self.server.tree
        assert self.history.applied == tree.last_processed_zxid
        check_against_model(tree, self.history.model)
        assert tree.digest == tree_digest(tree.nodes)

    def seen(self, zxid: int) -> None:
        """A client has been shown the state at `zxid`."""
        assert zxid <= self.durable_zxid, "shown before it was on disk"
        self.seen_zxid = max(self.seen_zxid, zxid)

    # ------------------------------------------------------------------ what the shell does

    def flush(self) -> None:
        """The end of a loop turn."""
        appended = self.server.zab.take_appended()
        for zxid, txn in appended:
            self.history.txns[zxid] = txn
            self.store.log.append(zxid, txn)
            self.snap_txns += 1
            self.snap_bytes += len(txn)
        if self.snap_txns > self.count_limit or 0 < self.size_limit < self.snap_bytes:
            self.new_limits()
            self.store.log.roll()
            if self.writer is None:
                self.start_snapshot()
        for _ in range(100):
            dirty = self.server.take_dirty()
            if not dirty:
                break
            for cnxn in dirty:
                self.attend(cnxn)
        for client in self.clients:
            client.take()

    def attend(self, cnxn: ServerCnxn) -> None:
        cnxn.dirty = False
        client: Any = cnxn.transport
        if client.cnxn is not cnxn:
            return  # it has turned away
        client.inbox += cnxn.out
        cnxn.out = bytearray()
        if cnxn.closed:
            client.take()
            client.disconnected()
        elif cnxn.held:
            self.server.resume(cnxn)

    def commit(self) -> None:
        """A round of the log thread."""
        self.store.log.commit()
        self.durable_zxid = max(self.durable_zxid, self.store.log.durable_zxid)
        self.synced.append(self.store.log.durable_zxid)

    def take_synced(self) -> None:
        while self.synced:
            zxid = self.synced.popleft()
            if zxid > self.server.zab.committed_zxid:
                self.server.durable(zxid)
                self.history.apply_until(zxid)

    def new_limits(self) -> None:
        self.snap_txns = self.snap_bytes = 0
        half = self.config.snap_count // 2
        self.count_limit = half + self.rng.randrange(max(1, half))
        half = self.config.snap_size_limit_kib * 512
        self.size_limit = half + self.rng.randrange(max(1, half)) if half > 0 else 0

    def start_snapshot(self) -> None:
        self.writer = self.store.snap.writer(self.server.tree)
        self.slices = serialize_tree(self.server.tree)

    def snapshot_goes_on(self) -> None:
        writer = self.writer
        if writer is None:
            return
        for _ in range(self.rng.randint(1, 4)):
            data = next(self.slices, None)
            if data is None:
                self.store.snap.finish(writer, self.server.tree)
                writer.commit()
                self.writer = None
                return
            writer.feed(data)
        if self.rng.random() < 0.4:
            writer.write()

    # ------------------------------------------------------------------ what clients do

    def client_acts(self, client: Client) -> None:
        if client.cnxn is None:
            client.connect()
        elif client.connecting or client.cnxn.closed or client.session is None:
            return
        elif self.rng.random() < 0.03:
            self.server.close(client.cnxn)
            client.disconnected()
        elif self.rng.random() < 0.03:
            client.send([(wire.CLOSE_SESSION, "", None, b"")])
        else:
            client.send([self.operation() for _ in range(self.rng.randint(1, 5))])

    def path(self) -> str:
        return "".join("/" + self.rng.choice(NAMES) for _ in range(self.rng.randint(1, 3)))

    def operation(self) -> tuple[int, str, bytes | None, bytes]:
        """(opcode, path, data that must be in the txn, body)"""
        rng = self.rng
        path = self.path()
        data = rng.randbytes(rng.choice((0, 1, 20, 20, 2000)))
        kind = rng.randrange(12)
        if kind < 4:
            op = rng.choice((wire.CREATE, wire.CREATE2))
            return op, path, data, self.create_body(path, data)
        if kind < 6:
            return wire.SET_DATA, path, data, wire.set_data(path, data, rng.choice((-1, -1, 0, 1)))
        if kind == 6:
            return wire.DELETE, path, None, wire.path_version(path, rng.choice((-1, -1, 0)))
        if kind == 7:
            return wire.MULTI, path, None, wire.multi(self.part() for _ in range(rng.randint(0, 4)))
        if kind == 8:
            return wire.SET_ACL, path, None, wire.set_acl(path, rng.choice(ACLS))
        if kind == 9:
            if rng.random() < 0.5:
                return wire.CREATE_CONTAINER, path, data, wire.create(path, data, wire.CONTAINER)
            return wire.CREATE_TTL, path, data, wire.create_ttl(path, data, ttl_ms=4000)
        if kind == 10:
            return wire.GET_CHILDREN2, path, None, wire.path_watch(path, rng.random() < 0.5)
        return wire.GET_DATA, path, None, wire.path_watch(path, rng.random() < 0.5)

    def create_body(self, path: str, data: bytes) -> bytes:
        return wire.create(path, data, self.rng.choice((0, 0, 1, 2, 3)), self.rng.choice(ACLS))

    def part(self) -> tuple[int, bytes]:
        rng = self.rng
        path = self.path()
        data = rng.randbytes(5)
        op = rng.choice((wire.CREATE, wire.SET_DATA, wire.DELETE, wire.CHECK))
        if op == wire.CREATE:
            return op, self.create_body(path, data)
        if op == wire.SET_DATA:
            return op, wire.set_data(path, data)
        return op, wire.path_version(path)


def simulate(seed: int) -> StandaloneSimulation:
    """Run one seed to its end."""
    simulation = StandaloneSimulation(seed)
    simulation.run()
    return simulation
