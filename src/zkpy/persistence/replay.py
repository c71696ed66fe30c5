"""DigestCheck: after a load, does the tree agree with the digests that were written with it?

A snapshot may show txns beyond its name, up to the zxid in its digest section; only from there on
is the tree in a state that some server had. Source: DataTree.compareDigest, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING

from zkpy.protocol.txns import DIGEST_VERSION

if TYPE_CHECKING:
    from zkpy.datatree.tree import DataTree
    from zkpy.persistence.snapshot import SnapshotDigest
    from zkpy.protocol.txns import TxnDigest

log = getLogger(__name__)


class DigestCheck:
    """Compares `tree.digest` after each txn; counts and logs what differs, never stops the load."""

    __slots__ = ("_doubtful", "_section", "_tree", "mismatches")

    def __init__(self, tree: DataTree, snapshot_zxid: int, section: SnapshotDigest | None) -> None:
        self.mismatches = 0
        self._tree = tree
        self._section: SnapshotDigest | None = None
        self._doubtful = 0
        if section is None or section.zxid == 0 or section.zxid < snapshot_zxid:
            return
        if section.zxid == snapshot_zxid:
            self._compare_section(section)
        else:
            self._section = section

    def applied(self, zxid: int, digest: TxnDigest | None) -> None:
        """Note that the tree now includes `zxid`, whose txn carried `digest`."""
        section = self._section
        if section is not None:
            if zxid >= section.zxid:
                self._section = None
                self._compare_section(section)
            return
        if digest is None or digest.version != DIGEST_VERSION:
            return
        if digest.tree_digest != self._tree.digest:
            self._mismatch(zxid, digest.tree_digest)
        self._doubtful = 0

    def finish(self) -> None:
        """The log is at its end."""
        section = self._section
        if section is not None:
            log.warning(
                "the snapshot's content reaches zxid %#x, the log only %#x",
                section.zxid,
                self._tree.last_processed_zxid,
            )
        if self._doubtful:
            self._mismatch(self._tree.last_processed_zxid, self._doubtful)
        if self.mismatches > 1:
            log.error("%d txns had a digest that differs from the tree's", self.mismatches)

    def _compare_section(self, section: SnapshotDigest) -> None:
        # The reference may write the section while a txn is under way that its nodes show already.
        # The digest of the next txn tells whether that was all.
        if section.version == DIGEST_VERSION and section.tree_digest != self._tree.digest:
            self._doubtful = section.tree_digest

    def _mismatch(self, zxid: int, expected: int) -> None:
        self.mismatches += 1
        if self.mismatches == 1:
            log.error(
                "digests differ at zxid %#x: the tree has %#x, its writer had %#x",
                zxid,
                self._tree.digest,
                expected,
            )
