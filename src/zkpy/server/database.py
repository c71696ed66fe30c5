"""ZKDatabase: the replicated state of one member, in memory and on disk, for election and ZAB.

Owns what ties tree, log, snapshots and epoch files together, and the rule that memory never claims
what the disk could not give back. It must not know who leads, nor who is connected.
Source: ZKDatabase, FileTxnSnapLog, ZooKeeper 3.9.
"""

from __future__ import annotations

from itertools import chain
from logging import getLogger
from struct import Struct
from typing import TYPE_CHECKING, Final

from zkpy.datatree.apply import AppliedTxn, apply_bytes
from zkpy.datatree.serialize import TreeReceiver, serialize_stream
from zkpy.persistence.epochs import EpochFiles, Epochs
from zkpy.persistence.errors import PersistenceError
from zkpy.persistence.files import snapshots_in
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.zxid import counter_of, epoch_of
from zkpy.quorum.committed_log import CommittedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from zkpy.datatree.tree import DataTree
    from zkpy.persistence.disk import Disk
    from zkpy.persistence.store import FileTxnSnapLog, LoadedDatabase
    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import TxnDigest, TxnHeader
    from zkpy.quorum.database import SnapshotReceiver
    from zkpy.quorum.members import Members
    from zkpy.server.settings import Config

log = getLogger(__name__)

# Digests differ for good once they do: not a line for each txn.
DIGEST_LOG_INTERVAL: Final = 1000
_ZXID_AT: Final = 12
_ZXID_END: Final = 20
MZXID_PZXID: Final = Struct(">8xqq36x")


def _nothing() -> None:
    pass


class ZKDatabase:
    """The state of one member; `load` comes first.

    `tree` is another object after `load`, `install_snapshot`, `truncate` and `reload`.
    `quiesce`, set by the shell, is called before the files are read or changed here: when it
    returns, all that was appended is on disk, no thread touches log or snapshots, and a snapshot
    that was under way is given up. `wall_ms` (since 1970) is set by the shell.
    """

    tree: DataTree

    def __init__(self, store: FileTxnSnapLog, disk: Disk, config: Config) -> None:
        self.store = store
        self.committed_log = CommittedLog(config.commit_log_count)
        self.quiesce: Callable[[], None] = _nothing
        self.wall_ms = 0
        self.digest_mismatches = 0
        self._disk = disk
        self._max_record_bytes = store.settings.max_record_bytes
        self._digest_enabled = store.settings.digest_enabled
        self._epoch_files = EpochFiles(disk, store.snap_directory)
        self._epochs = Epochs(0, 0)
        # The log on disk leads from this zxid, the one of a snapshot, to where we are.
        self._base_zxid = 0
        # Of the first txn replayed behind it, -1 if there was none.
        self._replayed_zxid = -1
        # Memory was replaced by what a leader sent, and the disk does not lead there.
        self._installed = False
        # Up to this zxid a snapshot that was received may be ahead; -1: to be found out.
        self._fuzzy_until_zxid = 0
        # What a restart would come to, besides what this process has logged.
        self._loaded_zxid = -1

    # ------------------------------------------------------------------ start

    def load(self) -> LoadedDatabase:
        """Read everything from disk. Raises PersistenceError: what is there cannot be used."""
        replayed = _Recorder(self.committed_log.limit)
        loaded = self.store.restore(replayed)
        self._adopt(loaded, replayed)
        self._epochs = self._epoch_files.load(max(loaded.last_zxid, 0))
        self.digest_mismatches += loaded.digest_mismatches
        if loaded.snapshot_needed:
            # Taken at the operator's word once, a log alone is trusted no more (ZOOKEEPER-3781).
            self.store.save(self.tree)
        return loaded

    def reload(self) -> None:
        """Read the state from disk again, as at a start: memory may be ahead of the disk."""
        self.quiesce()
        self.store.log.close()
        loaded = self.load()
        self.store.log.last_zxid = loaded.last_zxid

    def _adopt(self, loaded: LoadedDatabase, replayed: _Recorder) -> None:
        self.tree = loaded.tree
        self.committed_log.replace(replayed.recent)
        self._replayed_zxid = replayed.first_zxid
        self.store.log.first_written_zxid = -1
        self._installed = False
        # A snapshot may show what the log, on a slower disk, never got. Until that has come again
        # digests say nothing; where the snapshot does not tell how far, the nodes have to.
        self._fuzzy_until_zxid = -1 if loaded.content_zxid is None else loaded.content_zxid
        self._loaded_zxid = loaded.last_zxid
        self._base_zxid = max(loaded.snapshot_zxid, 0)

    # ------------------------------------------------------------------ zxid and epochs

    @property
    def last_zxid(self) -> int:
        """Of the last txn applied to the tree."""
        return self.tree.last_processed_zxid

    @last_zxid.setter
    def last_zxid(self, zxid: int) -> None:
        self.tree.last_processed_zxid = zxid

    @property
    def accepted_epoch(self) -> int:
        """The newest epoch promised to a leader."""
        return self._epochs.accepted

    @property
    def current_epoch(self) -> int:
        """The epoch whose leader's history we have."""
        return self._epochs.current

    def write_accepted_epoch(self, epoch: int) -> None:
        """Durable on return. Raises DiskWriteError."""
        # Memory last: it must never be ahead of the file (ZOOKEEPER-2307).
        self._epoch_files.write_accepted(epoch)
        self._epochs = Epochs(epoch, self._epochs.current)

    def write_current_epoch(self, epoch: int) -> None:
        """Durable on return. Raises DiskWriteError."""
        assert epoch <= self._epochs.accepted, "a promise comes first"
        self._epoch_files.write_current(epoch)
        self._epochs = Epochs(self._epochs.accepted, epoch)

    # ------------------------------------------------------------------ txns

    def apply(self, zxid: int, txn: bytes, clients: Container[int] | None = None) -> AppliedTxn:
        """Apply a committed txn; also into `committed_log`. `clients`: as of `apply_bytes`.

        Idempotent, as what follows a fuzzy snapshot may be in it already. Raises DecodeError for
        what is no txn, or that of another zxid; then nothing has changed.
        """
        if txn[_ZXID_AT:_ZXID_END] != zxid.to_bytes(8, "big", signed=True):
            raise DecodeError(f"committed as {zxid:#x}: a txn that begins with {txn[:32].hex()}")
        tree = self.tree
        if self._digest_enabled and not tree.count_digest:
            tree.count_digest = True  # we led until now, and were told the digest
        result = apply_bytes(tree, txn, clients)
        digest = result.digest
        if digest is not None and digest != tree.digest and tree.count_digest:
            self._digest_differs(zxid, digest)
        self.committed_log.add(zxid, txn)
        return result

    def _digest_differs(self, zxid: int, expected: int) -> None:
        """Our tree is not the leader's: for operators to see, there is no way back from here."""
        if self._installed or zxid < self._fuzzy_until_zxid:
            return
        if self._fuzzy_until_zxid < 0:
            # Sent while txns were applied, the snapshot shows what of them comes only now.
            self._fuzzy_until_zxid = newest_change(self.tree)
            if zxid < self._fuzzy_until_zxid:
                return
        self.digest_mismatches += 1
        if self.digest_mismatches % DIGEST_LOG_INTERVAL == 1:
            log.error(
                "Digests are not matching. Value is Zxid: 0x%x, expected %d, have %d",
                zxid,
                expected,
                self.tree.digest,
            )

    def committed(self, zxid: int, txn: bytes) -> None:
        """Note a txn that the server has applied itself."""
        self.committed_log.add(zxid, txn)

    def set_config(self, members: Members) -> None:
        """Write /zookeeper/config in memory: text, version -1, mzxid = members.version."""
        self.tree.set_config(members.text().encode(), members.version, self.wall_ms)

    # ------------------------------------------------------------------ snapshots

    def snapshot_receiver(self) -> TreeReceiver:
        """For one SNAP; the present state stays until `install_snapshot`."""
        return TreeReceiver(self.store.new_tree(), self._max_record_bytes)

    def install_snapshot(self, receiver: SnapshotReceiver, zxid: int) -> None:
        """Replace the tree by what was received; only in memory. `last_zxid` is `zxid` then.

        From here to the end of `save_snapshot` memory is ahead of the disk.
        """
        assert isinstance(receiver, TreeReceiver), "made by snapshot_receiver"
        self.tree = receiver.finished_tree()
        self.tree.last_processed_zxid = zxid
        self.committed_log.clear()
        self._installed = True
        self._fuzzy_until_zxid = -1

    def save_snapshot(self) -> None:
        """Write a snapshot of the tree; durable on return. Raises DiskWriteError."""
        zxid = self.last_zxid
        logged = self.store.log.last_zxid
        if not self._installed and (counter_of(zxid) == 0 or logged >= zxid):
            self.store.save(self.tree)
            return
        self.quiesce()
        self.store.replace(self.tree)
        self._installed = False
        self._base_zxid = self._loaded_zxid = zxid
        self._replayed_zxid = self.store.log.first_written_zxid = -1

    def snapshot_slices(self) -> Iterator[bytes]:
        """The stream to send behind SNAP, up to and with the signature, in slices.

        The tree may change between slices (fuzzy).
        """
        return serialize_stream(self.tree)

    def snapshot_size(self) -> int:
        """Bytes of the newest snapshot file; 0 without one."""
        for _, name in snapshots_in(self._disk, self.store.snap_directory):
            return self._disk.size(f"{self.store.snap_directory}/{name}")
        return 0

    def has_snapshot_at(self, zxid: int) -> bool:
        """Whether a snapshot on disk is of just that zxid."""
        return any(
            found == zxid for found, _ in snapshots_in(self._disk, self.store.snap_directory)
        )

    # ------------------------------------------------------------------ the log

    def truncate(self, zxid: int) -> bool:
        """Forget every txn above `zxid`, on disk and in memory; False if that cannot be.

        Then nothing has changed. Raises DiskError, CorruptFile.
        """
        self.quiesce()
        replayed = _Recorder(self.committed_log.limit)
        loaded = self.store.truncate(zxid, replayed)
        if loaded is None:
            return False
        self._adopt(loaded, replayed)
        return True

    def log_records(self, zxid: int, budget_bytes: int) -> Iterator[tuple[int, bytes]] | None:
        """(zxid, txn) of the log on disk: from `zxid` or, if that is a snapshot's, behind it.

        Only what is known to be of our history and without a hole: it ends where that ends. None
        if the log does not reach back that far, or more than `budget_bytes` (if >= 0) would have
        to be read.
        """
        base = self._base_zxid
        if zxid < base and epoch_of(zxid) != epoch_of(base):
            # Zxids do not tell whether something is missing between two epochs.
            return None
        txn_log = self.store.log
        try:
            if 0 <= budget_bytes < txn_log.size_from(zxid):
                return None
            until = max(txn_log.durable_zxid, self._loaded_zxid)
            reader = txn_log.reader()
            if zxid == base:
                records = reader.records(zxid + 1, after=base, until=until, strict=True)
            else:
                records = reader.records(zxid, until=until, strict=True)
            first = next(records, None)
            if first is None or not (first[0] == zxid or self._continues(first[0], zxid)):
                return None
        except PersistenceError as error:
            log.warning("the log cannot be used for catching up: %s", error)
            return None
        return _readable(chain((first,), records), until, base if zxid < base else -1)

    def _continues(self, first: int, zxid: int) -> bool:
        """Whether record `first` comes next behind `zxid`, which no record has to have.

        That is: a snapshot's, or the mark of an epoch that was joined. What came in between may
        have been purged; if `first` begins an epoch, zxids do not tell.
        """
        txn_log = self.store.log
        if zxid == self._base_zxid:
            next_zxid = (
                self._replayed_zxid if self._replayed_zxid >= 0 else txn_log.first_written_zxid
            )
            return first == next_zxid
        if counter_of(zxid) != 0:
            return False
        return first == zxid + 1 or (counter_of(first) == 1 and txn_log.reaches_back_to(zxid))


def newest_change(tree: DataTree) -> int:
    """The highest zxid in the stats of all nodes."""
    zxids: Iterator[tuple[int, int]] = (MZXID_PZXID.unpack(n.stat) for n in tree.nodes.values())
    return max(map(max, zxids))


def _readable(
    records: Iterator[tuple[int, bytes]], until: int, base: int
) -> Iterator[tuple[int, bytes]]:
    """`records` up to zxid `until`, or to where the log cannot be read or lacks `base`.

    A power cut right after a leader's snapshot was saved leaves the log from before it: from its
    end to the next epoch, zxids do not tell what is missing.
    """
    last = 0
    try:
        for zxid, txn in records:
            if zxid > until:
                return
            if last < base < zxid:
                log.warning("the log does not lead to snapshot %#x, but to %#x", base, last)
                return
            yield zxid, txn
            last = zxid
    except PersistenceError as error:
        log.warning("the log can be used for catching up only in part: %s", error)


class _Recorder:
    """Notes the first and the last of the txns replayed."""

    __slots__ = ("first_zxid", "recent")

    def __init__(self, limit: int) -> None:
        self.recent = CommittedLog(limit)
        self.first_zxid = -1

    def __call__(
        self, header: TxnHeader, _record: Record, _digest: TxnDigest | None, txn: bytes
    ) -> None:
        if self.first_zxid < 0:
            self.first_zxid = header.zxid
        self.recent.add(header.zxid, txn)
