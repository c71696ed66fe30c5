"""Vote: whom a server wants as leader, in which round, and why that one.

Source: Vote and FastLeaderElection.totalOrderPredicate, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.quorum.states import LOOKING, STATE_NAMES


class Vote:
    """For `leader`, whose last txn is `zxid` and whose current epoch is `peer_epoch`.

    `election_epoch` is the round of the election; it has nothing to do with the epochs of zxids.
    `state` is that of the server that sent the vote, `version` the format it used. A value.
    """

    __slots__ = ("election_epoch", "leader", "peer_epoch", "state", "version", "zxid")

    def __init__(
        self,
        leader: int,
        zxid: int,
        election_epoch: int,
        peer_epoch: int,
        state: int = LOOKING,
        version: int = 0,
    ) -> None:
        self.leader = leader
        self.zxid = zxid
        self.election_epoch = election_epoch
        self.peer_epoch = peer_epoch
        self.state = state
        self.version = version

    def rank(self) -> tuple[int, int, int]:
        """The total order of votes, ascending."""
        return self.peer_epoch, self.zxid, self.leader

    def beats(self, other: Vote, weight: int) -> bool:
        """Whether this is the better vote; `weight` is that of its leader: 0 never wins."""
        return weight != 0 and self.rank() > other.rank()

    def counts_as(self, other: Vote) -> bool:
        """Whether both support the same leader when votes are counted.

        Among servers that found a leader zxid and round may differ: they came to it at different
        times and by different ways (ZOOKEEPER-1732, 1805). Servers too old to send the epoch are
        taken at their word. Not transitive, hence no `__eq__`.
        """
        if self.leader != other.leader:
            return False
        if self.state == LOOKING or other.state == LOOKING:
            return (self.zxid, self.election_epoch, self.peer_epoch) == (
                other.zxid,
                other.election_epoch,
                other.peer_epoch,
            )
        return (self.version > 0) != (other.version > 0) or self.peer_epoch == other.peer_epoch

    def with_peer_epoch(self, peer_epoch: int) -> Vote:
        """As it is told to others once the new leader's epoch is established."""
        return Vote(
            self.leader, self.zxid, self.election_epoch, peer_epoch, self.state, self.version
        )

    def __repr__(self) -> str:
        return (
            f"Vote(leader={self.leader}, zxid={self.zxid:#x}, round={self.election_epoch:#x},"
            f" peerEpoch={self.peer_epoch:#x}, {STATE_NAMES[self.state]})"
        )
