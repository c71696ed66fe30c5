"""Local sessions: known only to the server that a client is connected to, until they need more.

No txn makes, closes or expires one. It may write, but owns no ephemerals: for the first one it is
upgraded to a global session, or refused. Used by the servers of leaders, learners and read-only
members alike. Source: UpgradeableSessionTracker, QuorumZooKeeperServer, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import DecodeError, EphemeralOnLocalSession, RuntimeInconsistency
from zkpy.protocol.zoodefs import EPHEMERAL_MODES, OpCode
from zkpy.server.decode import decode_create, decode_multi
from zkpy.server.reads import MULTI_END

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.interfaces import Upgrading
    from zkpy.server.settings import Config
    from zkpy.server.zkserver import ZooKeeperServer
    from zkpy.session.learner_tracker import LocalSessionTracker


log = logging.getLogger(__name__)

_INT: Final = struct.Struct(">i")
_ERROR_PART: Final = struct.Struct(">i?ii")  # MultiHeader of an error, and its ErrorResponse
_CREATES: Final = frozenset({OpCode.CREATE, OpCode.CREATE2})
MASK64: Final = (1 << 64) - 1


def new_local_tracker(config: Config, now_ms: int, wall_ms: int) -> LocalSessionTracker | None:
    """The tracker of local sessions; None where they are not enabled."""
    if not config.local_sessions_enabled:
        return None
    from zkpy.session.learner_tracker import LocalSessionTracker

    return LocalSessionTracker(config.tick_time_ms, config.my_id or 1, wall_ms, now_ms)


def first_ephemeral(op: int, body: bytes) -> int | None:
    """Which part of a write creates an ephemeral, 0 if it is no multi; None if none does.

    Only of create, create2 and multi: so the reference. What cannot be decoded has none; whoever
    prepares it will say so.
    """
    try:
        if op in _CREATES:
            flags = decode_create(body, 0, len(body), False)[3]
            return 0 if flags in EPHEMERAL_MODES else None
        if op == OpCode.MULTI:
            for index, (type, _, _, _, number, _, _, _) in enumerate(decode_multi(body)):
                if type in _CREATES and number in EPHEMERAL_MODES:
                    return index
    except DecodeError:
        pass
    return None


class LocalSessions:
    """The local sessions of `server`, whose tracker has a `local` one."""

    def __init__(self, server: ZooKeeperServer, tracker: Upgrading) -> None:
        assert tracker.local is not None, "enabled"
        self.server = server
        self.tracker = tracker
        self.local = tracker.local
        self._upgrades = server.config.local_sessions_upgrading_enabled

    def create(self, cnxn: ServerCnxn) -> None:
        """Begin a session for `cnxn`; it is there at once."""
        server = self.server
        cnxn.session_id = session_id = server.tracker.create_id()
        self.local.track(session_id, cnxn.timeout_ms, server.now_ms)
        server.cnxn_of_session[session_id] = cnxn
        server.handshake.session_created(cnxn)

    def takes(self, cnxn: ServerCnxn, xid: int, op: int, body: bytes) -> bool:
        """Whether a write of a local session is dealt with here, and not to be passed on.

        It may be upgraded by this; then its createSession is on its way before the write.
        """
        session_id = cnxn.session_id
        if session_id not in self.local.timeouts:
            return False
        if self.closes(cnxn, xid, op):
            return True
        index = first_ephemeral(op, body)
        if index is None:
            return False
        if not self._upgrades:
            self._refuse(cnxn, xid, op, body, index)
            return True
        log.info("Upgrading session 0x%x", session_id & MASK64)
        timeout_ms = self.tracker.upgrade(session_id, self.server.now_ms)
        self.server.submit(session_id, OpCode.CREATE_SESSION, _INT.pack(timeout_ms), None)
        return False

    def _refuse(self, cnxn: ServerCnxn, xid: int, op: int, body: bytes, index: int) -> None:
        server = self.server
        code = EphemeralOnLocalSession.code
        if op != OpCode.MULTI:
            server.replies.refuse(cnxn, xid, code)
            return
        after = RuntimeInconsistency.code
        codes = [0] * index + [code] + [after] * (len(decode_multi(body)) - index - 1)
        parts = [_ERROR_PART.pack(OpCode.ERROR, False, each, each) for each in codes]
        server.replies.answer_record(cnxn, xid, b"".join(parts) + MULTI_END)

    def closes(self, cnxn: ServerCnxn, xid: int, op: int) -> bool:
        """Whether a request ends a local session; if so it is answered at its turn."""
        if op != OpCode.CLOSE_SESSION or cnxn.session_id not in self.local.timeouts:
            return False
        # From now on nobody speaks for the session.
        self.local.remove(cnxn.session_id)
        self.server.replies.answer_record(cnxn, xid, b"")
        self.server.finish(cnxn)
        return True

    def expire(self) -> None:
        """End those whose time has come, and their connections."""
        server = self.server
        for session_id in self.local.expired(server.now_ms):
            log.info("Expiring session 0x%x", session_id & MASK64)
            server.stats.stale_sessions_expired += 1
            self.local.remove(session_id)
            cnxn = server.cnxn_of_session.get(session_id)
            if cnxn is not None:
                server.close(cnxn)
