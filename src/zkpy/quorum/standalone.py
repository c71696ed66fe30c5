"""One server without peers: the calls of a leader, and a quorum that is its own disk.

The write path is the ensemble's: propose, log, durable, commit.
"""

from __future__ import annotations

Proposal = tuple[int, bytes]


class Standalone:
    """Orders txns and commits each once it is on disk here."""

    __slots__ = ("_appended", "committed_zxid", "last_zxid")

    def __init__(self, last_zxid: int) -> None:
        self.last_zxid = last_zxid
        self.committed_zxid = last_zxid
        self._appended: list[Proposal] = []

    def propose(self, zxid: int, txn: bytes) -> None:
        """Start an encoded txn on its way to the disk."""
        assert zxid == self.last_zxid + 1, "prep hands out zxids in order"
        self.last_zxid = zxid
        self._appended.append((zxid, txn))

    def take_appended(self) -> list[Proposal]:
        """What is to be logged, in zxid order; each is taken once."""
        appended = self._appended
        if appended:
            self._appended = []
        return appended

    def durable(self, zxid: int) -> None:
        """All txns up to `zxid` are on disk: they are committed."""
        assert self.committed_zxid <= zxid <= self.last_zxid, "only what was proposed, in order"
        self.committed_zxid = zxid
