"""What a ZooKeeperServer asks of its collaborators, which are others in each role of a member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Container

    from zkpy.datatree.apply import AppliedTxn
    from zkpy.datatree.tree import DataTree
    from zkpy.protocol.records import ReconfigRequest
    from zkpy.quorum.members import Members
    from zkpy.session.auth import Id
    from zkpy.session.learner_tracker import LocalSessionTracker


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


class Ensemble(Protocol):
    """What a leader's request processors ask of what it knows of its members."""

    def new_members(self, request: ReconfigRequest, zxid: int) -> Members:
        """The members that `request` asks for, `zxid` as their version. Raises KeeperError."""

    def propose_reconfig(self, zxid: int, members: Members) -> None:
        """`zxid`, proposed next, will make `members` the committed configuration."""


class Learner(Protocol):
    """What a LearnerZooKeeperServer asks of its Follower or Observer."""

    new_epoch: int | None
    last_zxid: int
    committed_zxid: int

    def request(
        self,
        session_id: int,
        cxid: int,
        op: int,
        payload: bytes,
        ids: tuple[Id, ...] | None,
    ) -> None: ...

    def revalidate(self, session_id: int, timeout_ms: int) -> None: ...

    def pong(self, zxid: int, touches: list[tuple[int, int]]) -> None: ...

    def take_appended(self) -> list[tuple[int, bytes]]: ...

    def durable(self, zxid: int) -> None: ...


class Database(Protocol):
    """What a LearnerZooKeeperServer asks of the member's state; it serves `tree`."""

    @property
    def tree(self) -> DataTree: ...

    @property
    def digest_mismatches(self) -> int: ...

    def apply(self, zxid: int, txn: bytes, clients: Container[int] | None = None) -> AppliedTxn: ...


class Upgrading(Protocol):
    """The tracker to which a local session goes when it becomes global."""

    local: LocalSessionTracker | None

    def upgrade(self, session_id: int, now_ms: int) -> int: ...
