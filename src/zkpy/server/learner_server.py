"""LearnerZooKeeperServer: the request processors of a follower or an observer.

    write  -> own order (cnxn.pending), then REQUEST to the leader      nothing is prepared here
    COMMIT -> apply -> watch events -> the reply, if it is ours -> reads that waited behind it
    sync   -> REQUEST ... SYNC, behind the commits it waits for -> the sync is a read

Reads are served from the tree as it is applied here. A request is put in order before it is sent,
so that its commit can never overtake it.
Source: LearnerZooKeeperServer, FollowerRequestProcessor, CommitProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import SessionMoved
from zkpy.protocol.packets import (
    COMMIT,
    COMMITANDACTIVATE,
    PING,
    REVALIDATE,
    SYNC,
    decode_revalidated,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.cnxn import CONNECTING, ServerCnxn
from zkpy.server.final import reply_of
from zkpy.server.local_sessions import LocalSessions, new_local_tracker
from zkpy.server.reads import REPLY
from zkpy.server.request import Request
from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.learner_tracker import LearnerSessionTracker

if TYPE_CHECKING:
    from zkpy.datatree.apply import AppliedTxn
    from zkpy.server.interfaces import Database, Learner
    from zkpy.server.settings import Config
    from zkpy.server.stats import ServerStats
    from zkpy.session.auth import ProviderRegistry


log = logging.getLogger(__name__)

_COMMITS: Final = frozenset({COMMIT, COMMITANDACTIVATE})


class LearnerZooKeeperServer(ZooKeeperServer):
    """Serves the clients of one learner, from UPTODATE to the end of its role."""

    asynchronous_sync = True
    counts_digest = True

    def __init__(
        self,
        config: Config,
        database: Database,
        zab: Learner,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
        stats: ServerStats | None = None,
    ) -> None:
        tree = database.tree
        local = new_local_tracker(config, now_ms, wall_ms)
        self.learner_tracker = LearnerSessionTracker(
            tree.sessions, config.my_id or 1, wall_ms, local
        )
        super().__init__(
            config,
            tree,
            zab,  # type: ignore[arg-type]  # nobody here calls `propose`
            auth,
            now_ms=now_ms,
            wall_ms=wall_ms,
            tracker=self.learner_tracker,
            stats=stats,
        )
        self.database = database
        self.learner = zab
        self.local = LocalSessions(self, self.learner_tracker) if local is not None else None
        # Syncs that the leader has not answered, oldest first.
        self._syncs: deque[Request] = deque()
        # Who waits for the leader to find a session valid; the newest connection of each.
        self._revalidating: dict[int, ServerCnxn] = {}
        # Writes whose connection is gone, by session: their commits are not those of writes that
        # the session makes on its next connection, though xids may begin anew there.
        self._orphans: dict[int, deque[Request]] = {}
        # Of those that the database has found, how many were counted as ours.
        self._digest_mismatches = database.digest_mismatches
        # Of the present call of `deliver`: writes that were answered.
        self._served: list[Request] = []

    @property
    def caught_up_zxid(self) -> int:
        """As the leader's clients saw its epoch begin, of which there is no txn."""
        return max(self.tree.last_processed_zxid, (self.learner.new_epoch or 0) << 32)

    # ------------------------------------------------------------------ requests out

    def write(self, cnxn: ServerCnxn, xid: int, op: int, buf: bytes, pos: int, end: int) -> None:
        """Put a write whose body is buf[pos:end] in order, and forward it."""
        body = buf[pos:end]
        request = Request(cnxn, cnxn.session_id, xid, op, cnxn.ids, self.now_ms)
        if end - pos > self._large_threshold and not self._take_room(request, end - pos):
            return
        if self.local is not None and self.local.takes(cnxn, xid, op, body):
            self._large_bytes -= request.large_bytes
            return
        cnxn.pending.append(request)
        self.in_flight.append(request)
        self.learner.request(cnxn.session_id, xid, op, body, cnxn.ids)
        if op == OpCode.CLOSE_SESSION:
            cnxn.rest.clear()
            cnxn.finishing = True

    def submit(self, session_id: int, op: int, body: bytes, cnxn: ServerCnxn | None) -> None:
        """Forward a request of the server itself, for sessions."""
        self.learner.request(session_id, 0, op, body, None)

    def sync_requested(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """Ask the leader, who answers behind the commits that this sync is to see."""
        self._syncs.append(self.replies.await_sync(cnxn, xid, body))
        self.learner.request(cnxn.session_id, xid, OpCode.SYNC, body, cnxn.ids)

    def durable(self, zxid: int) -> None:
        """Everything the leader proposed up to `zxid` is on this server's disk."""
        self.learner.durable(zxid)

    # ------------------------------------------------------------------ sessions

    def create_session(self, cnxn: ServerCnxn) -> None:
        """A local session is there at once; a global one when its txn is committed."""
        if self.local is not None:
            self.local.create(cnxn)
        else:
            super().create_session(cnxn)

    def revalidate_session(self, cnxn: ServerCnxn, session_id: int) -> None:
        """Only the leader knows whether a global session lives."""
        local = self.local
        if local is not None and local.local.touch(session_id, cnxn.timeout_ms, self.now_ms):
            self.handshake.session_found(cnxn, session_id)
            return
        older = self._revalidating.get(session_id)
        if older is not None:
            self.close(older)
        self._revalidating[session_id] = cnxn
        self.learner.revalidate(session_id, cnxn.timeout_ms)

    def _revalidated(self, zxid: int, data: bytes | None) -> None:
        """The leader's answer; `zxid` is what it had proposed last, or -1 from Apache's leader."""
        session_id, valid = decode_revalidated(data)
        cnxn = self._revalidating.pop(session_id, None)
        if cnxn is None or cnxn.closed:
            return
        if valid:
            self.learner_tracker.revalidated(session_id, cnxn.timeout_ms)
            # What the session asked of other servers has been proposed, or will be refused: its
            # commits are still to come, with xids like those the client may give out anew (kazoo
            # begins with 1 on each connection).
            cnxn.since_zxid = max(zxid, self.learner.last_zxid)
            self.handshake.session_found(cnxn, session_id)
        else:
            self.handshake.session_refused(cnxn, session_id)

    def close(self, cnxn: ServerCnxn) -> None:
        """Forget a connection; its writes stay on their way."""
        if not cnxn.closed and cnxn.pending:
            writes = [
                entry
                for entry in cnxn.pending
                if type(entry) is not tuple and entry.op != OpCode.SYNC  # type: ignore[union-attr]
            ]
            if writes:
                self._orphans.setdefault(cnxn.session_id, deque()).extend(writes)  # type: ignore[arg-type]
        super().close(cnxn)

    # ------------------------------------------------------------------ from the leader

    def deliver(self, items: list[tuple[int, int, bytes | None]]) -> None:
        """Perform what `take_delivered` of the learner gave, in order.

        Raises DecodeError for a txn that cannot be read: the leader's fault, and the end of the
        role, before anything of it is applied.
        """
        commits = commit_ms = 0
        for type, zxid, data in items:
            if type in _COMMITS:
                assert data is not None, "a commit comes with its txn"
                commit_ms = self._commit_txn(zxid, data)
                commits += 1
            elif type == PING:
                self.learner.pong(zxid, self.learner_tracker.take_touches())
            elif type == SYNC:
                if self._syncs:
                    self.replies.sync_completed(self._syncs.popleft())
            elif type == REVALIDATE:
                self._revalidated(zxid, data)
        if commits:
            stats = self.stats
            mismatches = self.database.digest_mismatches - self._digest_mismatches
            if mismatches:
                self._digest_mismatches += mismatches
                stats.count("digest_mismatches_count", mismatches)
            stats.count("learner_commit_received_count", commits)
            stats.count("learner_proposal_received_count", commits)
            # Once per batch, as all of it is applied at the same moment.
            stats.record("propagation_latency", max(0, self.wall_ms - commit_ms), commits)
            if self._served:
                self._count_served()
            if self._stalled:
                self._let_in()

    def _commit_txn(self, zxid: int, txn: bytes) -> int:
        """Apply a committed txn, then answer whoever waits for it; returns the txn's time."""
        applied = self.database.apply(zxid, txn, self.cnxn_of_session)
        if not zxid & 127:
            self.stats.digests.append((zxid, self.tree.digest))
        session_id = applied.client_id
        if self._orphans and self._is_orphan(applied):
            cnxn = None
        else:
            cnxn = self.cnxn_of_session.get(session_id)
            if cnxn is not None and cnxn.pending:
                self._answer(cnxn, applied)
        type = applied.type
        if type == OpCode.CREATE_SESSION:
            self._session_created(session_id, self.tree.sessions[session_id])
        elif type == OpCode.CLOSE_SESSION:
            self._session_gone(session_id)
        return applied.time

    def _answer(self, cnxn: ServerCnxn, applied: AppliedTxn) -> None:
        """A txn of a session that has requests waiting here: its reply, if it is the oldest."""
        request = cnxn.pending[0]
        if applied.zxid <= cnxn.since_zxid:
            return
        if not _is_txn_of(request, applied):
            self._passed_over(cnxn, applied)
            return
        assert isinstance(request, Request), "so it is found out"
        self._done(request)
        pending = cnxn.pending
        pending.popleft()
        err = applied.err
        if err == SessionMoved.code or _has_moved(applied):
            self.close(cnxn)  # the client is elsewhere, and to be told nothing
            return
        zxid = applied.zxid
        body = b"" if err else reply_of(self.tree, applied)
        cnxn.out += REPLY.pack(16 + len(body), request.xid, zxid, err)
        cnxn.out += body
        now_ms = self.now_ms
        cnxn.stats.replied_write(
            now_ms - request.received_ms, request.xid, None if err else request.op, zxid, now_ms
        )
        self._served.append(request)
        if pending or cnxn.finishing:
            self.replies.answer_deferred(cnxn)
        if not cnxn.dirty:
            cnxn.dirty = True
            self.dirty.append(cnxn)

    def _passed_over(self, cnxn: ServerCnxn, applied: AppliedTxn) -> None:
        """A txn of the session that is not its oldest request here.

        Most likely of a connection that it had to another server. But if it is a later request of
        ours, the earlier ones will never be answered: the client shall learn that something is
        lost, rather than wait for ever.
        """
        if any(_is_txn_of(entry, applied) for entry in cnxn.pending):
            log.warning("closing %s: the leader has passed over its oldest request", cnxn)
            self.close(cnxn)
            self._is_orphan(applied)

    def _is_orphan(self, applied: AppliedTxn) -> bool:
        """Whether a txn is that of a write whose connection is gone; then it is forgotten."""
        orphans = self._orphans.get(applied.client_id)
        if orphans is None or not any(_is_txn_of(request, applied) for request in orphans):
            return False
        # In the order they were forwarded: what comes before it will not be answered.
        while True:
            request = orphans.popleft()
            self._done(request)
            if _is_txn_of(request, applied):
                break
        if not orphans:
            del self._orphans[applied.client_id]
        return True

    def _done(self, request: Request) -> None:
        """The leader has answered a request, or never will."""
        self._large_bytes -= request.large_bytes
        in_flight = self.in_flight
        if in_flight[0] is request:
            in_flight.popleft()
        else:
            in_flight.remove(request)

    def _count_served(self) -> None:
        served, self._served = self._served, []
        now_ms = self.now_ms
        latencies = [now_ms - request.received_ms for request in served]
        self.stats.writes_served(len(served), sum(latencies), min(latencies), max(latencies))

    def _session_created(self, session_id: int, timeout_ms: int) -> None:
        """A session is committed: made for a client of ours, perhaps, or upgraded."""
        cnxn = self.cnxn_of_session.get(session_id)
        if cnxn is None:
            return
        self.learner_tracker.committed(session_id, timeout_ms)
        if cnxn.state == CONNECTING:
            self.handshake.session_created(cnxn)

    def _session_gone(self, session_id: int) -> None:
        """A session has ended; if its client asked for that, it has the reply already."""
        self.tracker.remove(session_id)
        for request in self._orphans.pop(session_id, ()):
            self._done(request)
        cnxn = self.cnxn_of_session.get(session_id)
        if cnxn is not None:
            self.close(cnxn)
            for request in self._orphans.pop(session_id, ()):
                self._done(request)

    # ------------------------------------------------------------------ time

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        return min(self.tracker.next_expiry_ms, self.sessionless.next_expiry_ms)

    def tick(self) -> None:
        """Expire local sessions, and connections without one; all else is the leader's."""
        if self.local is not None:
            self.local.expire()
        self.expire_connections()


def _is_txn_of(entry: object, applied: AppliedTxn) -> bool:
    """Whether a txn can be what became of a request that was forwarded."""
    return (
        isinstance(entry, Request)
        and entry.xid == applied.cxid
        and (entry.op == applied.type or (applied.type == OpCode.ERROR and entry.op != OpCode.SYNC))
    )


def _has_moved(result: AppliedTxn) -> bool:
    """Whether a part of a multi was refused because its session had moved."""
    subs = result.subs
    return subs is not None and any(sub.err == SessionMoved.code for sub in subs)
