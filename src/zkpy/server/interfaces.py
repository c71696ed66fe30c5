"""What a ZooKeeperServer asks of its collaborators, which are others in each role of a member."""

from __future__ import annotations

from typing import Protocol


class Zab(Protocol):
    """Orders and commits txns. A learner has no `propose`, and its server does not call it."""

    @property
    def committed_zxid(self) -> int:
        """The newest zxid that a quorum has on disk; alone, that we have."""

    def propose(self, zxid: int, txn: bytes) -> None:
        """Start an encoded txn, whose header holds `zxid`, towards the log and the others."""

    def take_appended(self) -> list[tuple[int, bytes]]:
        """What is to be logged, (zxid, txn), in zxid order; each once."""

    def durable(self, zxid: int) -> None:
        """Everything taken up to `zxid` is on this server's disk."""


class Sessions(Protocol):
    """A SessionTracker, or what takes its place on a member that does not track them all."""

    @property
    def sessions(self) -> int:
        """How many there are."""

    @property
    def next_expiry_ms(self) -> int:
        """When `expired` may have something next (monotonic ms)."""

    def create_id(self) -> int:
        """An id that no session had before."""

    def track(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """Know a session from now on; whether it is new."""

    def touch(self, session_id: int, timeout_ms: int, now_ms: int) -> bool:
        """It lives `timeout_ms` from `now_ms` on; False if it is unknown or closing."""

    def is_tracked(self, session_id: int) -> bool:
        """Whether it is known, be it closing."""

    def is_closing(self, session_id: int) -> bool:
        """Whether its closeSession is on its way."""

    def set_closing(self, session_id: int) -> None:
        """Its closeSession is on its way: `touch` refuses it."""

    def remove(self, session_id: int) -> None:
        """Forget it."""

    def expired(self, now_ms: int) -> list[int]:
        """The sessions whose time is over; they are closing then, and each is told once."""

    def expiry_map(self) -> list[tuple[int, list[int]]]:
        """When (monotonic ms) which sessions expire if they stay silent."""
