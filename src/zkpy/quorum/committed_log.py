"""CommittedLog: the txns committed most recently, so that a learner can catch up by DIFF.

Source: ZKDatabase.committedLog, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections import deque

Proposal = tuple[int, bytes]


class CommittedLog:
    """The last `limit` committed txns, (zxid, encoded txn), zxids rising and without a hole."""

    __slots__ = ("limit", "proposals")

    def __init__(self, limit: int) -> None:
        assert limit > 0, "a DIFF needs something to send"
        self.limit = limit
        self.proposals: deque[Proposal] = deque(maxlen=limit)

    @property
    def min_zxid(self) -> int | None:
        """Zxid of the oldest, None if there is none."""
        return self.proposals[0][0] if self.proposals else None

    @property
    def max_zxid(self) -> int | None:
        """Zxid of the newest, None if there is none."""
        return self.proposals[-1][0] if self.proposals else None

    def add(self, zxid: int, txn: bytes) -> None:
        """Note a txn that has just been committed; one that is there already is left alone.

        What is no successor of the newest (next counter, or first of a later epoch) begins a new
        log: a hole must not be sent to anybody (ZOOKEEPER-4925).
        """
        proposals = self.proposals
        if proposals:
            newest = proposals[-1][0]
            if zxid <= newest:
                return
            if zxid != newest + 1 and (zxid & 0xFFFFFFFF != 1 or zxid >> 32 <= newest >> 32):
                proposals.clear()
        proposals.append((zxid, txn))

    def clear(self) -> None:
        """Forget all: the state was replaced."""
        self.proposals.clear()

    def replace(self, other: CommittedLog) -> None:
        """Take over what `other` has noted."""
        self.proposals.clear()
        self.proposals.extend(other.proposals)
