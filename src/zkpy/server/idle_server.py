"""IdleZooKeeperServer: what clients find at a member that serves nobody at present.

It looks for a leader, or has one and is not caught up. Connections are taken, so that four letter
words are answered; whoever asks for a session is hung up on, and tries another member.
Source: NIOServerCnxn without a running ZooKeeperServer, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.learner_tracker import LearnerSessionTracker

if TYPE_CHECKING:
    from zkpy.datatree.tree import DataTree
    from zkpy.server.settings import Config
    from zkpy.server.stats import ServerStats
    from zkpy.session.auth import ProviderRegistry
    from zkpy.session.learner_tracker import LocalSessionTracker


class NoZab:
    """In place of a role: nothing is ordered, logged or committed."""

    __slots__ = ("committed_zxid",)

    def __init__(self, last_zxid: int) -> None:
        self.committed_zxid = last_zxid

    def propose(self, zxid: int, txn: bytes) -> None:
        """Nobody may ask for it."""
        raise AssertionError("a server without a role makes no txns")

    def take_appended(self) -> list[tuple[int, bytes]]:
        """Never anything."""
        return []

    def durable(self, zxid: int) -> None:
        """Of what a role that is over has logged."""


class IdleZooKeeperServer(ZooKeeperServer):
    """Answers four letter words."""

    counts_digest = True

    def __init__(
        self,
        config: Config,
        tree: DataTree,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
        stats: ServerStats | None = None,
        local: LocalSessionTracker | None = None,
    ) -> None:
        super().__init__(
            config,
            tree,
            NoZab(tree.last_processed_zxid),
            auth,
            now_ms=now_ms,
            wall_ms=wall_ms,
            tracker=LearnerSessionTracker(tree.sessions, config.my_id or 1, wall_ms, local),
            stats=stats,
        )
        self.serving = False

    def submit(self, session_id: int, op: int, body: bytes, cnxn: object) -> None:
        """Nobody may ask for it."""
        raise AssertionError("a server without a role makes no txns")

    def next_timer_ms(self) -> int:
        """When a connection has been silent for too long."""
        return min(self.tracker.next_expiry_ms, self.sessionless.next_expiry_ms)

    def tick(self) -> None:
        """Close connections that were silent for too long."""
        self.expire_connections()
