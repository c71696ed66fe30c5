"""ZooKeeperServer: the way of a request, from received bytes to queued reply.

    received -> _frames -> reads.handlers                               (a read, no write pending)
                        -> write ->  prep -> zab.propose                (a write)
    durable  -> zab -> commit -> apply_txn -> watch events -> reply -> reads that waited behind it

Calls in; what is to be done comes out as `zab.take_appended()` and as `dirty` connections with
bytes in `out`. No socket, disk, clock or thread here: the shell performs that once per loop turn.
Source: ZooKeeperServer, CommitProcessor, FinalRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from zkpy.datatree.tree import DataTree
from zkpy.protocol.errors import (
    DecodeError,
    MarshallingError,
    SessionMoved,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.cnxn import ESTABLISHED, ServerCnxn
from zkpy.server.connect import Handshake
from zkpy.server.containers import ContainerManager
from zkpy.server.environment import Environment
from zkpy.server.final import apply_request
from zkpy.server.prep import PrepRequestProcessor
from zkpy.server.reads import REPLY, ReadHandler, ReadProcessor
from zkpy.server.replies import MAX_OUT_BYTES, Replies
from zkpy.server.request import Request
from zkpy.server.role import Role
from zkpy.server.special import SpecialOperations
from zkpy.server.stats import ServerStats
from zkpy.session.auth import ProviderRegistry
from zkpy.session.expiry import ExpiryQueue
from zkpy.session.tracker import SessionTracker

if TYPE_CHECKING:
    from zkpy.protocol.records import ConnectRequest
    from zkpy.server.interfaces import Sessions, Zab
    from zkpy.server.settings import Config
    from zkpy.server.throttle import ConnectionThrottle

log = logging.getLogger(__name__)

_INT: Final = struct.Struct(">i")
HEAD: Final = struct.Struct(">iii")  # frame length, xid, opcode
# Requests of one connection, in bytes, behind a write that is not on disk yet.
MAX_PENDING_BYTES: Final = 16 * 1024 * 1024

WRITES: Final = frozenset(
    {
        OpCode.CREATE,
        OpCode.CREATE2,
        OpCode.CREATE_CONTAINER,
        OpCode.CREATE_TTL,
        OpCode.DELETE,
        OpCode.SET_DATA,
        OpCode.SET_ACL,
        OpCode.MULTI,
        OpCode.RECONFIG,
        OpCode.CLOSE_SESSION,
    }
)
_NO_READS: Final[dict[int, ReadHandler]] = {}
_NO_WRITES: Final[frozenset[int]] = frozenset()


class ZooKeeperServer:
    """The request processors around one tree.

    `now_ms` (monotonic) and `wall_ms` (since 1970) are set by the shell before its calls.
    `dirty` are the connections to look at when the loop turn ends: bytes to send, or to close.
    While not `serving`, only four letter words are answered.
    `tracker`, `role` and `stats`: where they are not those of a standalone server just started.
    """

    # Whether `sync` waits for somebody else: then `sync_requested` is called. Alone it is a read.
    asynchronous_sync: bool = False
    # Whether applying computes the digest, to be compared with the one in the txn. Who makes the
    # txns knows it already.
    counts_digest: bool = False
    # Whether clients are told so, and only served if they do not mind.
    read_only: bool = False

    def __init__(
        self,
        config: Config,
        tree: DataTree,
        zab: Zab,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
        tracker: Sessions | None = None,
        role: Role | None = None,
        stats: ServerStats | None = None,
    ) -> None:
        self.config = config
        self.tree = tree
        self.zab = zab
        self.auth = auth
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.serving = True
        self.stats = stats or ServerStats(now_ms)
        # Replaced by those who know more: the shell, and a member of an ensemble.
        self.environment = Environment()
        self.role = role or Role()
        self.tracker: Sessions = tracker or SessionTracker(
            config.tick_time_ms, config.my_id or 1, wall_ms, now_ms
        )
        self.prep = PrepRequestProcessor(
            tree,
            auth,
            extended_types=config.extended_types_enabled,
            enforce_quota=config.enforce_quota,
            digests=config.digest_enabled,
            close_session_paths=config.close_session_txn_enabled,
            reconfig_enabled=config.reconfig_enabled,
            max_record_bytes=config.jute_max_buffer_bytes,
        )
        tree.count_digest = self.counts_digest and config.digest_enabled
        tree.data_watches.on_fired = tree.child_watches.on_fired = self.stats.watches_fired
        self.reads = ReadProcessor(tree, auth)
        self.containers = ContainerManager(
            tree,
            check_interval_ms=config.container_check_interval_ms,
            max_per_minute=config.container_max_per_minute,
            max_never_used_interval_ms=config.container_max_never_used_interval_ms,
            now_ms=now_ms,
        )
        self.replies = Replies(self)
        self.handshake = Handshake(self)
        self._special = SpecialOperations(self, WRITES)
        self.in_flight: deque[Request] = deque()
        self.dirty: list[ServerCnxn] = []
        self.cnxns: dict[ServerCnxn, None] = {}
        self.cnxns_per_address: dict[str, int] = {}
        self.cnxn_of_session: dict[int, ServerCnxn] = {}
        self.sessionless: ExpiryQueue[ServerCnxn] = ExpiryQueue(
            max(1, config.sessionless_cnxn_timeout_ms), now_ms
        )
        self.max_frame = config.jute_max_buffer_bytes
        self._max_outstanding = max(1, config.global_outstanding_limit)
        self._throttle_requests = config.request_throttle_max_requests
        self._large_threshold = config.large_request_threshold_bytes
        if self._large_threshold < 0:
            self._large_threshold = 0x7FFFFFFF
        self._large_bytes = 0
        # Connections that wait for the pipeline to have room, and since when.
        self._stalled: dict[ServerCnxn, int] = {}
        self._throttle: ConnectionThrottle | None = None
        if config.connection_throttle_tokens > 0:
            from zkpy.server.throttle import new_throttle  # off by default, and then not loaded

            self._throttle = new_throttle(config, now_ms, wall_ms)
        self._enforced = config.enforce_auth_schemes
        self._handlers = self.reads.handlers
        if self.asynchronous_sync:
            self._handlers = dict(self._handlers)
            del self._handlers[OpCode.SYNC]
        for session_id, timeout_ms in tree.sessions.items():
            self.tracker.track(session_id, timeout_ms, now_ms)

    # ------------------------------------------------------------------ connections

    def accept(self, address: str, port: int, secure: bool = False) -> ServerCnxn | None:
        """A client has connected; None if there are too many, and it is to be closed."""
        limit = self.config.max_client_cnxns
        count = self.cnxns_per_address.get(address, 0)
        if limit > 0 and count >= limit:
            self.stats.connection_rejected += 1
            log.warning("Too many connections from /%s - max is %s", address, limit)
            return None
        total = self.config.max_cnxns
        if total > 0 and len(self.cnxns) >= total:
            self.stats.connection_rejected += 1
            log.error("Too many connections %s - max is %s", len(self.cnxns), total)
            return None
        cnxn = ServerCnxn(self, address, port, secure)
        self.cnxns[cnxn] = None
        self.cnxns_per_address[address] = count + 1
        self.sessionless.touch(cnxn, self.sessionless.tick_time_ms, self.now_ms)
        return cnxn

    def admits_session(self, renewed: bool) -> bool:
        """Whether the connection throttle lets a ConnectRequest pass."""
        throttle = self._throttle
        if throttle is None:
            self.stats.record("connection_token_deficit", 0)
            return True
        admitted = throttle.admits(renewed, self.now_ms)
        self.stats.record("connection_token_deficit", throttle.deficit)
        if not admitted:
            self.stats.connection_rejected += 1
        return admitted

    def connection_drop_probability(self) -> float:
        """How likely the connection throttle is to turn away a client now, 0 to 1."""
        return 0.0 if self._throttle is None else self._throttle.drop

    def admits_client(self, request: ConnectRequest, takes_read_only: bool) -> bool:
        """Whether this server may serve the client at all; else its connection is closed."""
        return True

    @property
    def caught_up_zxid(self) -> int:
        """A client that has seen more than this is to look for another server."""
        return self.tree.last_processed_zxid

    def create_session(self, cnxn: ServerCnxn) -> None:
        """Begin a session for `cnxn`; `handshake.session_created` is called once it is there."""
        cnxn.session_id = session_id = self.tracker.create_id()
        self.tracker.track(session_id, cnxn.timeout_ms, self.now_ms)
        self.cnxn_of_session[session_id] = cnxn
        self.submit(session_id, OpCode.CREATE_SESSION, _INT.pack(cnxn.timeout_ms), cnxn)

    def revalidate_session(self, cnxn: ServerCnxn, session_id: int) -> None:
        """Find out whether a session, whose password was right, lives; now or later.

        Then `handshake.session_found` or `handshake.session_refused` is called.
        """
        if self.tracker.touch(session_id, cnxn.timeout_ms, self.now_ms):
            self.handshake.session_found(cnxn, session_id)
        else:
            self.handshake.session_refused(cnxn, session_id)

    def close_all(self) -> None:
        """This server's role is over: hang up on everybody. Sessions live on."""
        self.serving = False
        for cnxn in list(self.cnxns):
            self.close(cnxn)

    def close(self, cnxn: ServerCnxn) -> None:
        """Forget a connection: what it has in `out` is still sent, then its socket is closed.

        Its session lives on until it is closed or expires.
        """
        if cnxn.closed:
            return
        cnxn.closed = True
        cnxn.pending.clear()
        cnxn.rest.clear()
        self.sessionless.remove(cnxn)
        self._stalled.pop(cnxn, None)
        if cnxn.state == ESTABLISHED:
            self.stats.connection_drop_count += 1
        del self.cnxns[cnxn]
        left = self.cnxns_per_address[cnxn.address] - 1
        if left:
            self.cnxns_per_address[cnxn.address] = left
        else:
            del self.cnxns_per_address[cnxn.address]
        if self.cnxn_of_session.get(cnxn.session_id) is cnxn:
            del self.cnxn_of_session[cnxn.session_id]
        self.tree.data_watches.remove_watcher(cnxn)
        self.tree.child_watches.remove_watcher(cnxn)
        self.mark_dirty(cnxn)

    def mark_dirty(self, cnxn: ServerCnxn) -> None:
        """The shell is to look at `cnxn` when the loop turn ends."""
        if not cnxn.dirty:
            cnxn.dirty = True
            self.dirty.append(cnxn)

    def take_dirty(self) -> list[ServerCnxn]:
        """The connections to flush, each once."""
        dirty = self.dirty
        if dirty:
            self.dirty = []
        return dirty

    # ------------------------------------------------------------------ bytes in

    def received(self, cnxn: ServerCnxn, data: bytes) -> None:
        """Take a chunk from a client's socket, of any length."""
        if cnxn.closed or cnxn.finishing:
            return
        rest = cnxn.rest
        if rest or cnxn.held:
            rest += data
            if cnxn.held or len(rest) < cnxn.need:
                return
            data = bytes(rest)
            rest.clear()
        if cnxn.state == ESTABLISHED:
            self._frames(cnxn, data)
        else:
            self.handshake.first_bytes(cnxn, data)

    def resume(self, cnxn: ServerCnxn) -> None:
        """Go on with the frames of a held connection, if what held it is over."""
        pending = cnxn.pending
        if cnxn.closed or cnxn.state != ESTABLISHED or cnxn.write_blocked:
            return
        if pending and type(pending[0]) is tuple:
            self.replies.serve_deferred(cnxn)
            if pending:
                return
            if cnxn.finishing:
                self.close(cnxn)
        if (
            cnxn.finishing
            or len(pending) * 2 > self._max_outstanding
            or (pending and cnxn.pending_bytes >= MAX_PENDING_BYTES)
        ):
            return
        now_ms = self.now_ms
        if self._throttle_requests and len(self.in_flight) >= self._throttle_requests:
            if cnxn not in self._stalled:
                self._stalled[cnxn] = now_ms
                self.stats.count("request_throttle_wait_count")
            return
        cnxn.held = False
        if not pending:
            cnxn.pending_bytes = 0
        wait_ms = self.config.throttled_op_wait_time_ms
        throttled = 0 < wait_ms < now_ms - self._stalled.pop(cnxn, now_ms)
        data = bytes(cnxn.rest)
        cnxn.rest.clear()
        if data:
            self._frames(cnxn, data, throttled)

    def _frames(self, cnxn: ServerCnxn, data: bytes, throttled: bool = False) -> None:
        """Serve every complete frame of `data`; keep the rest."""
        if not self.tracker.touch(cnxn.session_id, cnxn.timeout_ms, self.now_ms):
            return  # the session is closing: its requests are dropped
        restricted = throttled or (self._enforced and not self.may_speak(cnxn))
        reads = _NO_READS if restricted else self._handlers
        writes = _NO_WRITES if restricted else WRITES
        pending = cnxn.pending
        head = HEAD.unpack_from
        max_frame = self.max_frame
        max_pending = self._max_outstanding
        if self._throttle_requests and not throttled:  # refusals take no room
            room = self._throttle_requests - len(self.in_flight)
            if room <= 0:
                self.keep(cnxn, data, 0)
                self.hold(cnxn)
                return
            max_pending = min(max_pending, len(pending) + room)
        size = len(data)
        pos = frames = served = xid = op = 0
        while size - pos >= 12:
            length, xid, op = head(data, pos)
            end = pos + 4 + length
            if end > size or not 8 <= length <= max_frame:
                break
            start = pos + 12
            pos = end
            frames += 1
            read = reads.get(op)
            if read is not None:
                if pending:
                    pending.append((xid, op, data[start:end], cnxn.ids))
                else:
                    served += 1
                    read(cnxn, xid, data, start, end, cnxn.ids)
            elif op in writes:
                self.write(cnxn, xid, op, data, start, end)
                if cnxn.finishing or cnxn.closed:
                    break
            else:
                self._special.handle(cnxn, xid, op, data[start:end], throttled)
                if cnxn.closed or cnxn.finishing:
                    break
                if restricted and not throttled and self.may_speak(cnxn):
                    reads, writes, restricted = self._handlers, WRITES, False
            if len(pending) >= max_pending or len(cnxn.out) >= MAX_OUT_BYTES:
                self.hold(cnxn)
                break
        self._count(cnxn, frames, pos, served, xid, op)
        if not cnxn.closed and not cnxn.finishing:
            if pos < size:
                self.keep(cnxn, data, pos)
            if pending:
                cnxn.pending_bytes += pos
                if cnxn.pending_bytes >= MAX_PENDING_BYTES:
                    self.hold(cnxn)

    def keep(self, cnxn: ServerCnxn, data: bytes, pos: int) -> None:
        """Keep an unfinished frame; close the connection if its length is impossible."""
        left = len(data) - pos
        if left >= 4:
            (length,) = struct.unpack_from(">i", data, pos)
            least = 8 if cnxn.state == ESTABLISHED else 0
            if not least <= length <= self.max_frame:
                if not 0 <= length <= self.max_frame:
                    log.warning(
                        "Len error. A message from %s with advertised length of %s is either a "
                        "malformed message or too large to process "
                        "(length is greater than jute.maxbuffer=%s)",
                        cnxn,
                        length,
                        self.max_frame,
                    )
                self.finish(cnxn)
                return
            if length > self._large_threshold and not self._admits(length):
                self.finish(cnxn)
                return
            cnxn.need = 4 + length
        else:
            cnxn.need = 4
        cnxn.rest += data[pos:]

    def finish(self, cnxn: ServerCnxn) -> None:
        """Read nothing more; close once what came before is answered."""
        cnxn.rest.clear()
        if cnxn.pending:
            cnxn.finishing = True
        else:
            self.close(cnxn)

    def hold(self, cnxn: ServerCnxn) -> None:
        """Take no further frame of `cnxn` until `resume`."""
        cnxn.held = True
        self.mark_dirty(cnxn)

    def _count(
        self, cnxn: ServerCnxn, frames: int, size: int, served: int, xid: int, op: int
    ) -> None:
        """Once per chunk: `frames` of `size` bytes, of which `served` are answered."""
        stats = self.stats
        stats.bytes_received += size
        stats.packets_received += frames
        cnxn_stats = cnxn.stats
        cnxn_stats.received += frames
        if served:
            stats.packets_sent += served
            stats.reads += served
            cnxn_stats.replied(served, xid, op, self.tree.last_processed_zxid, self.now_ms)
        if cnxn.out and not cnxn.dirty:
            cnxn.dirty = True
            self.dirty.append(cnxn)

    def may_speak(self, cnxn: ServerCnxn) -> bool:
        """Whether a connection has a scheme that enforce.auth.schemes asks for, if it does."""
        return not self._enforced or any(scheme in self._enforced for scheme, _ in cnxn.ids)

    def _admits(self, length: int) -> bool:
        if self._large_bytes + length > self.config.large_request_max_bytes:
            self.stats.large_requests_rejected += 1
            return False
        return True

    # ------------------------------------------------------------------ writes

    def write(self, cnxn: ServerCnxn, xid: int, op: int, buf: bytes, pos: int, end: int) -> None:
        """Prepare and propose a write whose body is buf[pos:end]."""
        request = Request(cnxn, cnxn.session_id, xid, op, cnxn.ids, self.now_ms)
        if end - pos > self._large_threshold and not self._take_room(request, end - pos):
            return
        try:
            txn = self.prep.prepare(request, buf, pos, end, self.wall_ms)
        except DecodeError:
            self._large_bytes -= request.large_bytes
            self.replies.refuse(cnxn, xid, MarshallingError.code)
            return
        cnxn.pending.append(request)
        self.in_flight.append(request)
        self.zab.propose(request.zxid, txn)
        if op == OpCode.CLOSE_SESSION:
            self.tracker.set_closing(cnxn.session_id)
            cnxn.rest.clear()
            cnxn.finishing = True

    def _take_room(self, request: Request, size: int) -> bool:
        """A large request takes its share of the memory for such, or ends its connection."""
        if not self._admits(size):
            assert request.cnxn is not None, "a client's"
            self.finish(request.cnxn)
            return False
        request.large_bytes = size
        self._large_bytes += size
        return True

    def submit(self, session_id: int, op: int, body: bytes, cnxn: ServerCnxn | None) -> None:
        """Put a request of the server itself on its way: sessions, expiry, containers."""
        request = Request(cnxn, session_id, 0, op, (), self.now_ms)
        txn = self.prep.prepare(request, body, 0, len(body), self.wall_ms)
        self.in_flight.append(request)
        self.zab.propose(request.zxid, txn)

    def durable(self, zxid: int) -> None:
        """Everything proposed up to `zxid` is on this server's disk."""
        self.zab.durable(zxid)
        self.commit_until(self.zab.committed_zxid)

    def commit_until(self, zxid: int) -> None:
        """Apply, in order, every write up to `zxid`: a quorum has them on disk."""
        in_flight = self.in_flight
        if not in_flight or in_flight[0].zxid > zxid:
            return
        oldest = newest = in_flight[0]
        count = received_ms = 0
        while in_flight and in_flight[0].zxid <= zxid:
            newest = in_flight.popleft()
            count += 1
            received_ms += newest.received_ms
            self._commit(newest)
        # Once per batch, not per request: all of it is answered at the same moment.
        now_ms = self.now_ms
        total_ms = count * now_ms - received_ms
        self.stats.writes_served(
            count, total_ms, now_ms - newest.received_ms, now_ms - oldest.received_ms
        )
        if self._stalled:
            self._let_in()

    def _let_in(self) -> None:
        """Connections that waited for room in the pipeline go on, if there is some."""
        if len(self.in_flight) < self._throttle_requests:
            for cnxn in self._stalled:
                self.mark_dirty(cnxn)

    def _commit(self, request: Request) -> None:
        """Apply one write, let its watch events out, then its reply."""
        zxid = request.zxid
        assert zxid > self.tree.last_processed_zxid, "applied once, in order"
        err, body = apply_request(self.tree, request)
        if not zxid & 127:
            self.stats.digests.append((zxid, request.digest))
        self.prep.applied(request.changes)
        if request.large_bytes:
            self._large_bytes -= request.large_bytes
        cnxn = request.cnxn
        op = request.op
        if cnxn is None or cnxn.closed or op < 0:
            self._session_changed(request)
            return
        if err and err == SessionMoved.code:
            self.close(cnxn)  # the client is elsewhere, and to be told nothing
            return
        cnxn.out += REPLY.pack(16 + len(body), request.xid, zxid, err)
        cnxn.out += body
        cnxn.stats.replied_write(
            self.now_ms - request.received_ms, request.xid, None if err else op, zxid, self.now_ms
        )
        pending = cnxn.pending
        head = pending.popleft()
        assert head is request, "replies in the order of requests"
        if pending or cnxn.finishing:
            self.replies.answer_deferred(cnxn)
        if not cnxn.dirty:
            cnxn.dirty = True
            self.dirty.append(cnxn)

    # ------------------------------------------------------------------ sync

    def sync_requested(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """A client's sync, where it is asynchronous: `await_sync`, later `sync_completed`."""
        raise NotImplementedError

    def _session_changed(self, request: Request) -> None:
        """A createSession or closeSession has been applied, or nobody waits for the reply."""
        self.stats.packets_sent -= 1  # as the batch counts it; what is sent after all is added
        if request.op == OpCode.CLOSE_SESSION:
            self._session_closed(request)
        elif request.op == OpCode.CREATE_SESSION:
            cnxn = request.cnxn
            if cnxn is not None and not cnxn.closed:
                self.handshake.session_created(cnxn)

    def _session_closed(self, request: Request) -> None:
        session_id = request.session_id
        self.tracker.remove(session_id)
        cnxn = self.cnxn_of_session.get(session_id)
        if cnxn is None:
            return
        if cnxn is request.cnxn:
            cnxn.out += REPLY.pack(16, request.xid, request.zxid, 0)
            self.stats.packets_sent += 1
        self.close(cnxn)

    # ------------------------------------------------------------------ the rest

    # ------------------------------------------------------------------ time

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        return min(
            self.tracker.next_expiry_ms,
            self.sessionless.next_expiry_ms,
            self.containers.next_due_ms(),
        )

    def tick(self) -> None:
        """Expire sessions and connections without one; propose removals of containers."""
        self.expire_sessions()
        self.expire_connections()
        for path in self.containers.due(self.now_ms, self.wall_ms):
            text = path.encode()
            self.submit(0, OpCode.DELETE_CONTAINER, _INT.pack(len(text)) + text, None)

    def expire_sessions(self) -> None:
        """Begin to close the sessions whose time has come."""
        for session_id in self.tracker.expired(self.now_ms):
            log.info("Expiring session 0x%x", session_id & (1 << 64) - 1)
            self.stats.stale_sessions_expired += 1
            self.submit(session_id, OpCode.CLOSE_SESSION, b"", None)

    def expire_connections(self) -> None:
        """Close those that have been without a session for too long."""
        for cnxn in self.sessionless.expired(self.now_ms):
            self.stats.sessionless_connections_expired += 1
            self.close(cnxn)
