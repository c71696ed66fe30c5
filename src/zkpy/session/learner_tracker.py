"""Sessions as the members of an ensemble know them: global ones of all, local ones of one server.

Global sessions expire only at the leader; a learner tells it which of them were active. A local
session is known to the server that made it and to nobody else, until it is upgraded.
Source: LearnerSessionTracker, UpgradeableSessionTracker, LeaderSessionTracker, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.session.tracker import SessionTracker, initial_session_id

NEVER: Final = 1 << 62


class LocalSessionTracker(SessionTracker):
    """The local sessions of one server: as SessionTracker, and the timeout each began with."""

    __slots__ = ("timeouts",)

    def __init__(self, tick_time_ms: int, server_id: int, initial_ms: int, now_ms: int = 0) -> None:
        super().__init__(tick_time_ms, server_id, initial_ms, now_ms)
        self.timeouts: dict[int, int] = {}

    def track(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """Start to track a local session."""
        self.timeouts[session_id] = timeout_ms
        return super().track(session_id, timeout_ms, now_ms)

    def remove(self, session_id: int) -> None:
        """It has ended, or is global from now on."""
        self.timeouts.pop(session_id, None)
        super().remove(session_id)


class LearnerSessionTracker:
    """What a learner has in place of a SessionTracker.

    `global_sessions` (id -> timeout in ms) is the tree's own dict. `local` is None where there are
    no local sessions. Times are ms of one monotonic clock; `initial_ms` is wall-clock time.
    """

    __slots__ = ("_next_id", "_touched", "_upgrading", "global_sessions", "local")

    def __init__(
        self,
        global_sessions: dict[int, int],
        server_id: int,
        initial_ms: int,
        local: LocalSessionTracker | None = None,
    ) -> None:
        self.global_sessions = global_sessions
        self.local = local
        self._next_id = initial_session_id(server_id, initial_ms)
        # Active since the leader was told last: session id -> timeout in ms.
        self._touched: dict[int, int] = {}
        # Local until their createSession is committed, and not any more.
        self._upgrading: dict[int, None] = {}

    @property
    def sessions(self) -> int:
        """How many global ones there are."""
        return len(self.global_sessions)

    @property
    def next_expiry_ms(self) -> int:
        """When `expired` has to be called next."""
        return NEVER if self.local is None else self.local.next_expiry_ms

    def create_id(self) -> int:
        """A session id that was not handed out before."""
        while self.is_tracked(self._next_id):
            self._next_id += 1
        session_id = self._next_id
        self._next_id += 1
        return session_id

    def track(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """The leader tracks global sessions, once they are committed; nothing to do here."""
        return False

    def touch(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """A client has spoken; False if its session is known to have ended.

        What the leader knows better is not known here: that a global session is closing.
        """
        local = self.local
        if local is not None:
            if local.touch(session_id, timeout_ms, now_ms):
                return True
            if session_id not in self.global_sessions and session_id not in self._upgrading:
                return False
        self._touched[session_id] = timeout_ms
        return True

    def take_touches(self) -> list[tuple[int, int]]:
        """Who was active since the last call, with timeouts: the answer to the leader's ping."""
        touched = self._touched
        if not touched:
            return []
        self._touched = {}
        return list(touched.items())

    def is_tracked(self, session_id: int) -> bool:
        """Whether the session is known here."""
        if session_id in self.global_sessions or session_id in self._upgrading:
            return True
        return self.local is not None and self.local.is_tracked(session_id)

    def is_closing(self, session_id: int) -> bool:
        """Whether a local session is about to end."""
        return self.local is not None and self.local.is_closing(session_id)

    def set_closing(self, session_id: int) -> None:
        """Its closeSession is on the way to the leader, who will see to it."""

    def upgrade(self, session_id: int, now_ms: int) -> int:
        """A local session asks to be global; its timeout in ms, for the createSession."""
        assert self.local is not None, "only a local session is upgraded"
        timeout_ms = self.local.timeouts[session_id]
        self.local.remove(session_id)
        self._upgrading[session_id] = None
        return timeout_ms

    def committed(self, session_id: int, timeout_ms: int) -> None:
        """Its createSession has been applied, and a client of ours waits for it."""
        self._upgrading.pop(session_id, None)
        self._touched[session_id] = timeout_ms

    def revalidated(self, session_id: int, timeout_ms: int) -> None:
        """The leader knows it, maybe before its createSession is applied here."""
        if self.local is not None and session_id not in self.global_sessions:
            self._upgrading[session_id] = None
        self._touched[session_id] = timeout_ms

    def remove(self, session_id: int) -> None:
        """Its closeSession has been applied."""
        self._touched.pop(session_id, None)
        self._upgrading.pop(session_id, None)
        if self.local is not None:
            self.local.remove(session_id)

    def expired(self, now_ms: int) -> list[int]:
        """No global session expires here; local ones are asked for their own."""
        return []

    def expiry_map(self) -> list[tuple[int, list[int]]]:
        """What `dump` shows of the local ones."""
        return [] if self.local is None else self.local.expiry_map()


class LeaderSessionTracker(SessionTracker):
    """The global sessions of the ensemble, and the leader's own local ones where there are such."""

    __slots__ = ("local",)

    def __init__(
        self,
        tick_time_ms: int,
        server_id: int,
        initial_ms: int,
        now_ms: int = 0,
        local: LocalSessionTracker | None = None,
    ) -> None:
        super().__init__(tick_time_ms, server_id, initial_ms, now_ms)
        self.local = local

    @property
    def next_expiry_ms(self) -> int:
        """When one of either kind may expire."""
        expiry_ms = super().next_expiry_ms
        return expiry_ms if self.local is None else min(expiry_ms, self.local.next_expiry_ms)

    def touch(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """Let a session live on, global or local."""
        if super().touch(session_id, timeout_ms, now_ms):
            return True
        return self.local is not None and self.local.touch(session_id, timeout_ms, now_ms)

    def is_local(self, session_id: int) -> bool:
        """Whether it is a local one of this server."""
        return self.local is not None and self.local.is_tracked(session_id)

    def upgrade(self, session_id: int, now_ms: int) -> int:
        """A local session is global from now on; its timeout in ms, for the createSession."""
        assert self.local is not None, "only a local session is upgraded"
        timeout_ms = self.local.timeouts[session_id]
        # Global first: there is no moment in which nobody tracks it.
        self.track(session_id, timeout_ms, now_ms)
        self.local.remove(session_id)
        return timeout_ms

    def remove(self, session_id: int) -> None:
        """It has ended."""
        super().remove(session_id)
        if self.local is not None:
            self.local.remove(session_id)
