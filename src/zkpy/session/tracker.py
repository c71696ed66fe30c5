"""Which sessions are alive, when each expires, and the id of the next one.

Time is an argument. Must not know connections, nor how a session is closed: `expired` only says
whose time has come. Source: SessionTrackerImpl, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.session.expiry import ExpiryQueue

LONG_MASK: Final = (1 << 64) - 1


def initial_session_id(server_id: int, clock_ms: int) -> int:
    """The first session id of a server process, a signed 64-bit integer.

    Low byte of the server id, 40 bits of the clock, 16 zero bits. Wall-clock ms, so that ids do
    not meet those of sessions persisted before a restart; the reference's clock starts at boot.
    """
    value = (clock_ms << 24 & LONG_MASK) >> 8 | (server_id & 0xFF) << 56
    if value == 1 << 63:  # the owner of container nodes
        value += 1
    return value - (1 << 64) if value >> 63 else value


class SessionTracker:
    """Sessions of a standalone server or a leader, or the local sessions of any server.

    A session is live from `track` on, closing after `set_closing` or `expired` (it cannot be
    touched and does not expire again), and unknown after `remove`. All times are ms of one
    monotonic clock; `initial_ms` is wall-clock time and `now_ms` the monotonic time of the start.
    """

    __slots__ = ("_closing", "_expiry_of", "_next_id", "_queue", "_tick_time_ms")

    def __init__(self, tick_time_ms: int, server_id: int, initial_ms: int, now_ms: int = 0) -> None:
        self._queue: ExpiryQueue[int] = ExpiryQueue(tick_time_ms, now_ms)
        self._expiry_of = self._queue.expiry_of
        self._tick_time_ms = tick_time_ms
        self._closing: set[int] = set()
        self._next_id = initial_session_id(server_id, initial_ms)

    @property
    def sessions(self) -> int:
        """How many are known, with those that are closing."""
        return len(self._expiry_of) + len(self._closing)

    @property
    def next_expiry_ms(self) -> int:
        """When `expired` has to be called next; earlier calls return nothing."""
        return self._queue.next_expiry_ms

    def create_id(self) -> int:
        """A session id that was not handed out before; it is not tracked yet."""
        # A wall clock that was set back could lead to an id that a snapshot brought along.
        while self.is_tracked(self._next_id):
            self._next_id += 1
        session_id = self._next_id
        self._next_id += 1
        return session_id

    def track(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """Start to track a session, or touch one that is live; whether it was unknown."""
        if session_id in self._closing:
            return False
        added = session_id not in self._expiry_of
        self._queue.touch(session_id, timeout_ms, now_ms)
        return added

    def touch(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """Let a session live for another `timeout_ms`; False if it is unknown or closing."""
        try:
            # As in ExpiryQueue.touch, one call less: this runs once per request.
            if 0 < self._expiry_of[session_id] - now_ms - timeout_ms <= self._tick_time_ms:
                return True
        except KeyError:
            return False
        self._queue.touch(session_id, timeout_ms, now_ms)
        return True

    def is_tracked(self, session_id: int) -> bool:
        """Whether the session is live or closing."""
        return session_id in self._expiry_of or session_id in self._closing

    def is_closing(self, session_id: int) -> bool:
        """Whether the session's end has been asked for and is not applied yet."""
        return session_id in self._closing

    def set_closing(self, session_id: int) -> None:
        """Its closeSession is on the way: from now on it can neither be touched nor expire."""
        if session_id in self._expiry_of:
            self._queue.remove(session_id)
            self._closing.add(session_id)

    def remove(self, session_id: int) -> None:
        """Its closeSession has been applied."""
        self._queue.remove(session_id)
        self._closing.discard(session_id)

    def expired(self, now_ms: int) -> list[int]:
        """The sessions whose time has come, now marked closing: earliest bucket first."""
        sessions = self._queue.expired(now_ms)
        self._closing.update(sessions)
        return sessions

    def expiry_map(self) -> list[tuple[int, list[int]]]:
        """What `dump` shows: (expiry in ms of the monotonic clock, its session ids), by expiry.

        Sessions that are closing are in no bucket.
        """
        return [(expiry, list(keys)) for expiry, keys in sorted(self._queue.buckets.items())]
