"""ReadOnlyZooKeeperServer: reads for clients that do not mind, while there is no leader.

What it shows may be old, and changes never: writes and `sync` are refused. It must touch neither
the log nor the zxids. Source: ReadOnlyZooKeeperServer, ReadOnlyRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkpy.protocol.errors import NotReadOnly
from zkpy.server.cnxn import ServerCnxn
from zkpy.server.idle_server import IdleZooKeeperServer
from zkpy.server.local_sessions import LocalSessions, new_local_tracker
from zkpy.server.reads import REPLY
from zkpy.session.learner_tracker import LearnerSessionTracker

if TYPE_CHECKING:
    from zkpy.datatree.tree import DataTree
    from zkpy.protocol.records import ConnectRequest
    from zkpy.server.settings import Config
    from zkpy.server.stats import ServerStats
    from zkpy.session.auth import ProviderRegistry


class ReadOnlyZooKeeperServer(IdleZooKeeperServer):
    """Serves what the last role left behind."""

    asynchronous_sync = True
    read_only = True

    def __init__(
        self,
        config: Config,
        tree: DataTree,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
        stats: ServerStats | None = None,
    ) -> None:
        local = new_local_tracker(config, now_ms, wall_ms)
        super().__init__(
            config, tree, auth, now_ms=now_ms, wall_ms=wall_ms, stats=stats, local=local
        )
        self.serving = True
        self.local: LocalSessions | None = None
        if local is not None:
            assert isinstance(self.tracker, LearnerSessionTracker), "made above"
            self.local = LocalSessions(self, self.tracker)

    def admits_client(self, request: ConnectRequest, takes_read_only: bool) -> bool:
        """Not who wants to write, nor who has a session that only a leader can answer for."""
        return takes_read_only and request.sessionId not in self.tree.sessions

    def create_session(self, cnxn: ServerCnxn) -> None:
        """A local one; where there are none the client is told what its request is not."""
        if self.local is not None:
            self.local.create(cnxn)
            return
        # As the reference: in place of the ConnectResponse, and the connection stays, unread.
        cnxn.out += REPLY.pack(16, 0, self.tree.last_processed_zxid, NotReadOnly.code)
        self.stats.packets_sent += 1
        self.sessionless.touch(cnxn, self.sessionless.tick_time_ms, self.now_ms)
        self.mark_dirty(cnxn)

    def revalidate_session(self, cnxn: ServerCnxn, session_id: int) -> None:
        """Only our own local sessions can be resumed."""
        local = self.local
        if local is not None and local.local.touch(session_id, cnxn.timeout_ms, self.now_ms):
            self.handshake.session_found(cnxn, session_id)
        else:
            self.handshake.session_refused(cnxn, session_id)

    def write(self, cnxn: ServerCnxn, xid: int, op: int, buf: bytes, pos: int, end: int) -> None:
        """Refuse it, unless it ends a local session."""
        if self.local is None or not self.local.closes(cnxn, xid, op):
            self.replies.refuse(cnxn, xid, NotReadOnly.code)

    def sync_requested(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """There is nobody to catch up with."""
        self.replies.refuse(cnxn, xid, NotReadOnly.code)

    def tick(self) -> None:
        """Expire local sessions, and connections without one."""
        if self.local is not None:
            self.local.expire()
        self.expire_connections()
