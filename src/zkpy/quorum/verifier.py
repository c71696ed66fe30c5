"""QuorumMaj and QuorumHierarchical: which sets of servers are a quorum of a configuration.

Source: QuorumMaj, QuorumHierarchical and SyncedLearnerTracker, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.quorum.members import Members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set


class QuorumMaj:
    """More than half of the voters."""

    __slots__ = ("half", "members", "voters")

    def __init__(self, members: Members) -> None:
        self.members = members
        self.voters = frozenset(members.participants)
        self.half = len(self.voters) // 2

    def contains_quorum(self, sids: Set[int]) -> bool:
        """Whether the voters among `sids` are a quorum; others do not count."""
        return len(self.voters & sids) > self.half

    def weight(self, sid: int) -> int:
        """Whoever has weight 0 is never elected; here all are equal."""
        return 1


class QuorumHierarchical:
    """More than half of the groups, in each more than half of its weight.

    A group whose servers all have weight 0 does not count as one.
    """

    __slots__ = ("_group_of", "_group_weights", "_half_of_groups", "members", "voters")

    def __init__(self, members: Members) -> None:
        self.members = members
        self.voters = frozenset(members.participants)
        self._group_of = {sid: gid for gid, sids in members.groups.items() for sid in sids}
        # Observers that were given a weight are counted here, as in the reference, though they
        # can never bring theirs.
        self._group_weights = {
            gid: sum(map(members.weight_of, sids)) for gid, sids in members.groups.items()
        }
        self._half_of_groups = sum(weight > 0 for weight in self._group_weights.values()) // 2

    def contains_quorum(self, sids: Set[int]) -> bool:
        """Whether the voters among `sids` are a quorum; others do not count."""
        present: dict[int, int] = {}
        for sid in self.voters & sids:
            gid = self._group_of[sid]
            present[gid] = present.get(gid, 0) + self.members.weight_of(sid)
        groups = 0
        for gid, weight in present.items():
            if weight > self._group_weights[gid] // 2:
                groups += 1
        return groups > self._half_of_groups

    def weight(self, sid: int) -> int:
        """0 for observers and strangers; whoever has weight 0 is never elected."""
        return self.members.weight_of(sid)


QuorumVerifier = QuorumMaj | QuorumHierarchical


def verifier_of(members: Members) -> QuorumVerifier:
    """How quorums of `members` are counted."""
    return QuorumHierarchical(members) if members.hierarchical else QuorumMaj(members)
