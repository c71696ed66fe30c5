"""LeaderZooKeeperServer: the request processors of a leader, for its clients and all learners'.

Sessions of the whole ensemble are tracked here, each with its owner: the learner (or this server)
that spoke for it last. Source: LeaderZooKeeperServer, LeaderSessionTracker, LearnerHandler.run,
PrepRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import (
    DecodeError,
    MarshallingError,
    SessionExpired,
    SessionMoved,
    Unimplemented,
)
from zkpy.protocol.packets import (
    PING,
    REQUEST,
    REVALIDATE,
    decode_request,
    decode_revalidation,
    decode_touches,
    encode_revalidated,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.reconfig import new_members
from zkpy.server.local_sessions import LocalSessions, first_ephemeral, new_local_tracker
from zkpy.server.request import Request
from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.learner_tracker import LeaderSessionTracker

if TYPE_CHECKING:
    from zkpy.datatree.tree import DataTree
    from zkpy.protocol.records import ReconfigRequest
    from zkpy.quorum.leader import Leader
    from zkpy.quorum.members import Members
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.settings import Config
    from zkpy.session.auth import Id, ProviderRegistry

log = logging.getLogger(__name__)

_INT: Final = struct.Struct(">i")
# Far more than end while a request is on its way from a learner.
MAX_ENDED: Final = 65536


class UnknownSession:
    """A client, here or at a learner, has a session that this leader does not know.

    It may have ended; or another leader made it, and we have been deposed without noticing. To tell
    its client that it has expired would be wrong then. (The reference does not ask.)
    """

    __slots__ = ("asker", "session_id", "timeout_ms")

    def __init__(
        self, asker: LearnerHandler | ServerCnxn, session_id: int, timeout_ms: int
    ) -> None:
        self.asker = asker
        self.session_id = session_id
        self.timeout_ms = timeout_ms


class LeaderZooKeeperServer(ZooKeeperServer):
    """Serves the leader's clients, and makes the txns of everybody's."""

    asynchronous_sync = True

    def __init__(
        self,
        config: Config,
        tree: DataTree,
        leader: Leader,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
    ) -> None:
        # Who speaks for a session: a LearnerHandler, or this server. None: nobody yet.
        self.owners: dict[int, object] = {}
        # Syncs of our clients that are not answered, each with the zxid proposed last when it came.
        self._barriers: deque[Request] = deque()
        local = new_local_tracker(config, now_ms, wall_ms)
        # Before the base class, which fills it with the sessions of the tree.
        self.leader_tracker = LeaderSessionTracker(
            config.tick_time_ms, config.my_id or 1, wall_ms, now_ms, local
        )
        super().__init__(
            config,
            tree,
            leader,
            auth,
            now_ms=now_ms,
            wall_ms=wall_ms,
            tracker=self.leader_tracker,
        )
        self.leader = leader
        # Global sessions that ended in this term, oldest first. A learner's late request for one
        # must not pass for that of a local session; the reference lets it, and applies it.
        self._ended: dict[int, None] = {}
        self.local = LocalSessions(self, self.leader_tracker) if local is not None else None
        self.prep.last_zxid = leader.last_zxid
        self.prep.ensemble = self

    # ------------------------------------------------------------------ learners

    def take_inbox(self) -> None:
        """Handle what learners have sent since the last call."""
        for handler, type, _, data, ids in self.leader.take_inbox():
            if handler.link.closed:
                continue
            try:
                if type == REQUEST:
                    self._learner_request(handler, data or b"", ids)
                elif type == PING:
                    self._touches(data)
                elif type == REVALIDATE:
                    self._revalidate(handler, data or b"")
            except DecodeError as error:
                self.leader.drop(handler, f"malformed packet of type {type}: {error}")

    def _touches(self, data: bytes | None) -> None:
        touch = self.tracker.touch
        now_ms = self.now_ms
        for session_id, timeout_ms in decode_touches(data or b""):
            touch(session_id, timeout_ms, now_ms)

    def _revalidate(self, handler: LearnerHandler, data: bytes) -> None:
        """A client came to a learner with a session: it is that learner's now, if it lives."""
        self.stats.count("revalidate_count")
        session_id, timeout_ms = decode_revalidation(data)
        if self._is_valid_for(handler, session_id, timeout_ms):
            self._answer_revalidation(handler, session_id, True)
        else:
            self.leader.sync(UnknownSession(handler, session_id, timeout_ms))

    def _is_valid_for(self, handler: LearnerHandler, session_id: int, timeout_ms: int) -> bool:
        tracker = self.leader_tracker
        # A local session is no other server's business.
        if tracker.is_local(session_id):
            return False
        if not tracker.touch(session_id, timeout_ms, self.now_ms):
            return False
        self.owners[session_id] = handler
        old = self.cnxn_of_session.get(session_id)
        if old is not None:
            self.close(old)
        return True

    def _answer_revalidation(self, handler: LearnerHandler, session_id: int, valid: bool) -> None:
        log.debug("Session 0x%x is valid: %s", session_id, valid)
        # So that the learner can tell what the session asked of others from what it asks of it.
        # (The reference sends back the zxid of the question, -1, and reads none.)
        handler.packet(REVALIDATE, self.leader.last_zxid, encode_revalidated(session_id, valid))

    def _learner_request(
        self, handler: LearnerHandler, data: bytes, ids: tuple[Id, ...] | None
    ) -> None:
        session_id, xid, op, body = decode_request(data)
        if op == OpCode.SYNC:
            self.leader.sync(handler)
            return
        request = Request(None, session_id, xid, op, ids or (), self.now_ms)
        code = 0
        if op == OpCode.CREATE_SESSION:
            if len(body) != 4:
                raise DecodeError("createSession without a timeout, or with more than that")
            self.tracker.track(session_id, _INT.unpack_from(body)[0], self.now_ms)
            self.owners[session_id] = handler
        elif op == OpCode.CLOSE_SESSION:
            self.tracker.set_closing(session_id)
        elif session_id:
            code = self._check_session(session_id, handler)
            if self.local is not None and not self.leader_tracker.is_tracked(session_id):
                # A local one of that learner. Nobody would ever delete its ephemerals.
                if first_ephemeral(op, body) is not None:
                    code = SessionExpired.code
        self._propose(request, body, code)

    def _check_session(self, session_id: int, owner: object) -> int:
        """0, or the code with which a request for the session is refused."""
        tracker = self.leader_tracker
        if tracker.is_closing(session_id):
            return SessionExpired.code
        if not tracker.is_tracked(session_id):
            if session_id in self._ended or not self._may_be_local(session_id):
                return SessionExpired.code
            return 0
        known = self.owners.setdefault(session_id, owner)
        return 0 if known is owner else SessionMoved.code

    def _may_be_local(self, session_id: int) -> bool:
        """Whether a session nobody told us of can be a local one of another member."""
        if self.local is None:
            return False
        is_mine = session_id >> 56 & 0xFF == (self.config.my_id or 0) & 0xFF
        return not is_mine or self.leader_tracker.is_local(session_id)

    def _propose(self, request: Request, body: bytes, code: int = 0) -> None:
        """Make the txn, of an error where `code` is not 0, and start it towards a quorum."""
        prep = self.prep
        if request.op not in prep.operations:
            code = Unimplemented.code
        if code:
            txn = prep.refuse(request, code, self.wall_ms)
        else:
            try:
                txn = prep.prepare(request, body, 0, len(body), self.wall_ms)
            except DecodeError:
                txn = prep.refuse(request, MarshallingError.code, self.wall_ms)
        self.in_flight.append(request)
        self.leader.propose(request.zxid, txn)

    # ------------------------------------------------------------------ own clients

    def write(self, cnxn: ServerCnxn, xid: int, op: int, buf: bytes, pos: int, end: int) -> None:
        """As the base class, unless the session has moved to another member meanwhile."""
        if self.local is not None and self.local.takes(cnxn, xid, op, buf[pos:end]):
            return
        if self.owners.get(cnxn.session_id) is not self and op != OpCode.CLOSE_SESSION:
            code = self._check_session(cnxn.session_id, self)
            if code:
                request = Request(cnxn, cnxn.session_id, xid, op, cnxn.ids, self.now_ms)
                cnxn.pending.append(request)
                self._propose(request, b"", code)
                return
        super().write(cnxn, xid, op, buf, pos, end)

    def create_session(self, cnxn: ServerCnxn) -> None:
        """As the base class; the session is ours. A local one is there at once."""
        if self.local is not None:
            self.local.create(cnxn)
            return
        super().create_session(cnxn)
        self.owners[cnxn.session_id] = self

    def revalidate_session(self, cnxn: ServerCnxn, session_id: int) -> None:
        """As the base class; the session is ours then. It is refused once we know that we lead."""
        if self.tracker.touch(session_id, cnxn.timeout_ms, self.now_ms):
            self.owners[session_id] = self
            super().revalidate_session(cnxn, session_id)
        else:
            self.leader.sync(UnknownSession(cnxn, session_id, cnxn.timeout_ms))

    def _known_by_now(self, unknown: UnknownSession) -> None:
        """We lead, and know of all sessions there are: answer for one that we did not know."""
        asker, session_id = unknown.asker, unknown.session_id
        if isinstance(asker, LearnerHandler):
            if asker.link.closed:
                return
            valid = self._is_valid_for(asker, session_id, unknown.timeout_ms)
            self._answer_revalidation(asker, session_id, valid)
        elif not asker.closed:
            if self.tracker.touch(session_id, unknown.timeout_ms, self.now_ms):
                self.owners[session_id] = self
            super().revalidate_session(asker, session_id)

    def _session_closed(self, request: Request) -> None:
        self.owners.pop(request.session_id, None)
        if self.local is not None:
            self._ended[request.session_id] = None
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        super()._session_closed(request)

    # ------------------------------------------------------------------ reconfiguration

    def new_members(self, request: ReconfigRequest, zxid: int) -> Members:
        """The members that `request` asks for, `zxid` as their version. Raises KeeperError."""
        return new_members(
            request,
            self.leader.view,
            zxid,
            standalone_enabled=self.config.standalone_enabled,
            is_quorum_synced=self.leader.connected_quorum_of,
            multi_address=self.config.multi_address_enabled,
        )

    def propose_reconfig(self, zxid: int, members: Members) -> None:
        """`zxid`, proposed next, will make `members` the committed configuration."""
        self.leader.propose_reconfig(zxid, members)

    # ------------------------------------------------------------------ sync

    def sync_requested(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """Ask a quorum whether we still lead; what the client sent behind it waits."""
        barrier = self.replies.await_sync(cnxn, xid, body)
        barrier.zxid = self.leader.last_zxid
        self._barriers.append(barrier)
        self.leader.sync(barrier)

    def complete_syncs(self) -> None:
        """Answer the syncs of our clients that are proven; what they wait for is applied."""
        for barrier in self.leader.take_synced():
            if isinstance(barrier, UnknownSession):
                self._known_by_now(barrier)
                continue
            assert isinstance(barrier, Request), "of a learner the leader itself takes care"
            if self._barriers and self._barriers[0] is barrier:
                self._barriers.popleft()
                self.replies.sync_completed(barrier)

    def commit_until(self, zxid: int) -> None:
        """As the base class; a sync is answered ahead of what was proposed after it came.

        That a quorum has such a txn proves as well that we led then, and what its client sent
        behind the sync must not be applied before it.
        """
        barriers = self._barriers
        while barriers and barriers[0].zxid < zxid:
            barrier = barriers.popleft()
            super().commit_until(barrier.zxid)
            self.replies.sync_completed(barrier)
        super().commit_until(zxid)

    # ------------------------------------------------------------------ the rest

    def tick(self) -> None:
        """As the base class; and our local sessions expire, too."""
        super().tick()
        if self.local is not None:
            self.local.expire()

    def durable(self, zxid: int) -> None:
        """Everything proposed up to `zxid` is on this server's disk."""
        self.leader.durable(zxid)
        self.commit_until(self.leader.committed_zxid)
