"""FileTxnSnapLog: directories to a database: the newest snapshot, and the log behind it.

Owns the checks of the directories, the order of start-up and its refusals, and replay.
Source: FileTxnSnapLog, ZKDatabase, ZooKeeper 3.9.
"""

from __future__ import annotations

import gc
from logging import getLogger
from typing import TYPE_CHECKING, Final, NamedTuple

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import (
    CorruptFile,
    DatadirError,
    DiskError,
    NoSnapshot,
    TTLNodesDisabled,
)
from zkpy.persistence.files import LOG, SNAPSHOT, TEMPORARY, logs_in, snapshots_in
from zkpy.persistence.logreader import DEFAULT_MAX_RECORD_BYTES
from zkpy.persistence.replay import DigestCheck
from zkpy.persistence.snapshot import FileSnap, LoadedSnapshot
from zkpy.persistence.txnlog import DEFAULT_PREALLOCATE_BYTES, FileTxnLog
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import decode_txn
from zkpy.protocol.zxid import counter_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from zkpy.persistence.disk import Disk, DiskLock
    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import TxnDigest, TxnHeader

    OnTxn: TypeAlias = Callable[[TxnHeader, Record, TxnDigest | None, bytes], object]

log = getLogger(__name__)

VERSION_DIRECTORY: Final = "version-2"
LOCK: Final = "zkpy.lock"
INITIALIZE: Final = "initialize"
AUTOCREATE: Final = "zookeeper.datadir.autocreate"
# The top three bytes of a TTL node's owner. Source: EphemeralType.TTL, ZooKeeper 3.9.
TTL_OWNER_TOP: Final = 0xFF0000


class Settings(NamedTuple):
    """How this server's directories are read and written; the names are those of zoo.cfg's keys."""

    data_dir: str
    data_log_dir: str = ""  # empty: data_dir
    preallocate_bytes: int = DEFAULT_PREALLOCATE_BYTES
    force_sync: bool = True
    txn_log_size_limit_bytes: int = 0
    max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    compression_method: str = ""
    digest_enabled: bool = True
    serialize_last_processed_zxid: bool = True
    trust_empty_snapshot: bool = False
    datadir_autocreate: bool = True
    db_autocreate: bool = True
    extended_types_enabled: bool = False
    emulate_353_ttl_nodes: bool = False


class LoadedDatabase(NamedTuple):
    """What a directory held.

    `last_zxid`: of the last txn; -1 if there is no database and none may be made up.
    `snapshot_zxid`: where replay began; -1 if there was no snapshot.
    `snapshot_needed`: the log was applied to an empty tree, on the operator's word.
    `digest_mismatches`: txns after which the tree was not what its proposer had.
    `content_zxid`: up to here the snapshot may show txns, be they replayed or not; None if it does
    not say (only its digest section does).
    """

    tree: DataTree
    last_zxid: int
    snapshot_zxid: int
    txns_replayed: int
    digest_mismatches: int
    snapshot_needed: bool
    content_zxid: int | None


class FileTxnSnapLog:
    """The data directories of one server. `open` comes first, `close` last."""

    def __init__(self, disk: Disk, settings: Settings) -> None:
        data_dir = settings.data_dir.rstrip("/")
        log_dir = (settings.data_log_dir or settings.data_dir).rstrip("/")
        self.settings = settings
        self.snap_directory = f"{data_dir}/{VERSION_DIRECTORY}"
        self.log_directory = f"{log_dir}/{VERSION_DIRECTORY}"
        self._parents = (data_dir,) if data_dir == log_dir else (data_dir, log_dir)
        self._disk = disk
        self._locks: list[DiskLock] = []
        self.log = FileTxnLog(
            disk,
            self.log_directory,
            preallocate_bytes=settings.preallocate_bytes,
            force_sync=settings.force_sync,
            size_limit_bytes=settings.txn_log_size_limit_bytes,
            max_record_bytes=settings.max_record_bytes,
        )
        self.snap = FileSnap(
            disk,
            self.snap_directory,
            compression_method=settings.compression_method,
            digest_enabled=settings.digest_enabled,
            serialize_last_processed_zxid=settings.serialize_last_processed_zxid,
            max_record_bytes=settings.max_record_bytes,
        )

    # ------------------------------------------------------------------ directories

    def open(self) -> None:
        """Create and lock the directories, and look whether they are what they should be.

        Raises DatadirError, DirectoryInUse and DiskError.
        """
        self._prepare(self.log_directory, "data")
        if self.snap_directory != self.log_directory:
            self._prepare(self.snap_directory, "snap")
        try:
            for directory in dict.fromkeys((self.log_directory, self.snap_directory)):
                self._locks.append(self._disk.lock(f"{directory}/{LOCK}"))
                self._remove_temporaries(directory)
            if self.snap_directory != self.log_directory:
                self._check_contents()
            if self.settings.force_sync:
                self._settle()
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Commit what was appended, close the log and let another server in."""
        try:
            self.log.close()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        while self._locks:
            self._locks.pop().release()

    def _prepare(self, directory: str, kind: str) -> None:
        disk = self._disk
        if not disk.exists(directory):
            if not self.settings.datadir_autocreate:
                raise DatadirError(
                    f"Missing {kind} directory {directory}, automatic data directory creation is "
                    f"disabled ({AUTOCREATE} is false). Please create this directory manually."
                )
            try:
                disk.make_dirs(directory)
            except DiskError as error:
                reason = f"Unable to create {kind} directory {directory}: {error.reason}"
                raise DatadirError(reason) from error
        if not disk.is_writable(directory):
            raise DatadirError(f"Cannot write to {kind} directory {directory}")

    def _remove_temporaries(self, directory: str) -> None:
        for name in self._disk.list_dir(directory):
            if name.startswith(TEMPORARY):
                log.info("removing %s/%s, left over from a crash", directory, name)
                self._disk.remove(f"{directory}/{name}")

    def _check_contents(self) -> None:
        hint = "Check if dataLogDir and dataDir configuration is correct."
        if any(name.startswith(SNAPSHOT) for name in self._disk.list_dir(self.log_directory)):
            raise DatadirError(f"Log directory has snapshot files. {hint} ({self.log_directory})")
        if any(name.startswith(LOG) for name in self._disk.list_dir(self.snap_directory)):
            raise DatadirError(f"Snapshot directory has log files. {hint} ({self.snap_directory})")

    def _settle(self) -> None:
        """Let the disk hold what will be read: the last process may have ended before a sync did.

        Its last txns, never acknowledged but found in a cache, become history when they are
        replayed, and later txns are acknowledged on top of them.
        """
        logs = logs_in(self._disk, self.log_directory)
        if logs:
            self._disk.settle(f"{self.log_directory}/log.{logs[-1]:x}")
        for directory in dict.fromkeys((self.log_directory, self.snap_directory)):
            self._disk.fsync_dir(directory)

    # ------------------------------------------------------------------ loading

    def new_tree(self) -> DataTree:
        """An empty tree with this server's settings."""
        settings = self.settings
        tree = DataTree(
            extended_types=settings.extended_types_enabled,
            emulate_353=settings.emulate_353_ttl_nodes,
        )
        tree.count_digest = settings.digest_enabled
        return tree

    def restore(self, on_txn: OnTxn | None = None) -> LoadedDatabase:
        """Load the newest snapshot and replay the log behind it; `on_txn` sees each txn replayed.

        A directory without any data gets snapshot.0 of an empty tree.
        Raises NoSnapshot, CorruptFile, TTLNodesDisabled, DiskError.
        """
        # Loading makes millions of objects and no garbage: collections would take a third of it.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._restore(on_txn)
        finally:
            if collecting:
                gc.enable()

    def _restore(self, on_txn: OnTxn | None) -> LoadedDatabase:
        marked = self._take_initialize()
        snapshot = self.snap.load_newest(self.new_tree)
        if snapshot is None:
            logged = self.log.last_logged_zxid()
            if logged == -1:
                return self._empty_database(trusted=marked or self.settings.db_autocreate)
            if not self.settings.trust_empty_snapshot:
                raise NoSnapshot(
                    "No snapshot found, but there are log entries. Something is broken! "
                    f"({self.log_directory} has entries up to zxid {logged:#x}, "
                    f"{self.snap_directory} has no valid snapshot)"
                )
            log.warning("No snapshot found, but there are log entries. Starting from an empty tree")
        loaded = self._replay(snapshot, on_txn, None)
        self.log.last_zxid = max(loaded.last_zxid, self.log.last_zxid)
        return loaded

    def save(self, tree: DataTree) -> str:
        """Write a snapshot of `tree` at once; returns its path. Raises DiskWriteError."""
        return self.snap.save(tree).path

    def replace(self, tree: DataTree) -> None:
        """Make `tree`, which came from a leader, all there is on disk: nothing leads to it.

        Log records and snapshots of the past go once the new snapshot is durable. They must not
        be replayed on top of it, nor be what a damaged snapshot is replaced with, nor be sent to
        a learner (ZOOKEEPER-2846). Raises DiskError.
        """
        self.log.close()
        kept = self.save(tree)
        self.log.clear(tree.last_processed_zxid)
        self.snap.remove_others(kept)

    def truncate(self, zxid: int, on_txn: OnTxn | None = None) -> LoadedDatabase | None:
        """Go back to `zxid`: forget all later txns, on disk too; return the database as of then.

        None, with nothing changed, if snapshots and log cannot rebuild it: the leader then has to
        send its snapshot. Snapshots that may show later txns are removed, else they would come
        back at the next start, as with the reference. Raises DiskError.
        """
        self.log.close()
        snapshot = self.snap.load_newest(self.new_tree, lambda content: content <= zxid)
        if snapshot is None:
            return None
        try:
            loaded = self._replay(snapshot, on_txn, zxid)
            if loaded.last_zxid != zxid:
                if not self._is_begin_of_epoch(zxid):
                    return None
                loaded.tree.last_processed_zxid = zxid
                loaded = loaded._replace(last_zxid=zxid)
        except CorruptFile as error:
            log.warning("going back to zxid %#x is impossible: %s", zxid, error)
            return None
        self.snap.remove_newer(snapshot)
        if self.log.last_zxid > zxid:
            self.log.truncate(zxid)
        return loaded

    def _is_begin_of_epoch(self, zxid: int) -> bool:
        """Whether `zxid`, which no record has, is where the log's next epoch begins.

        Its leader has that zxid before the first txn; who has logged that one began like it.
        """
        if counter_of(zxid) != 0:
            return False
        following = next(self.log.reader().records(zxid + 1), None)
        return following is not None and following[0] == zxid + 1

    def _take_initialize(self) -> bool:
        """Remove the file that says an empty directory is meant to be empty; tell if it was there.

        The reference's script creates it in dataDir, its server looks in dataLogDir.
        """
        found = False
        for parent in self._parents:
            path = f"{parent}/{INITIALIZE}"
            if self._disk.exists(path):
                self._disk.remove(path)
                self._disk.fsync_dir(parent)
                found = True
        return found

    def _empty_database(self, trusted: bool) -> LoadedDatabase:
        tree = self.new_tree()
        if trusted:
            self.save(tree)
            self.log.last_zxid = 0
            return LoadedDatabase(tree, 0, 0, 0, 0, False, 0)
        log.warning("Unexpected empty data tree, setting zxid to -1")
        tree.last_processed_zxid = -1
        return LoadedDatabase(tree, -1, -1, 0, 0, False, None)

    def _replay(
        self, snapshot: LoadedSnapshot | None, on_txn: OnTxn | None, until: int | None
    ) -> LoadedDatabase:
        """Apply the log behind `snapshot`, or all of it to an empty tree, up to zxid `until`."""
        tree = snapshot.tree if snapshot is not None else self.new_tree()
        begin = tree.last_processed_zxid
        digests = tree.count_digest
        section = snapshot.digest if snapshot is not None and digests else None
        check = DigestCheck(tree, begin, section)
        replayed = 0
        reader = self.log.reader()
        passed_over = self._passed_over(snapshot, until)
        strict = bool(passed_over)
        for zxid, txn in reader.records(begin + 1, after=begin, until=until, strict=strict):
            if until is not None and zxid > until:
                break
            if strict:
                passed_over.pop(zxid, None)
            try:
                header, record, digest = decode_txn(txn)
                apply_txn(tree, header, record)
            except DecodeError as error:
                raise CorruptFile(reader.path, str(error), reader.offset) from None
            replayed += 1
            if digests:
                check.applied(zxid, digest)
            if on_txn is not None:
                on_txn(header, record, digest, txn)
        check.finish()
        if passed_over:
            zxid, name = passed_over.popitem()
            raise CorruptFile(
                f"{self.snap_directory}/{name}",
                f"it cannot be used, and the log does not lead from snapshot {begin:#x} to zxid "
                f"{zxid:#x}, but to {tree.last_processed_zxid:#x}: txns would be lost",
            )
        self._check_ttl_nodes(tree)
        last = tree.last_processed_zxid
        log.info("loaded zxid %#x: snapshot %#x and %d txns", last, begin, replayed)
        found = begin if snapshot is not None else -1
        shown = section.zxid if section is not None else None
        return LoadedDatabase(
            tree, last, found, replayed, check.mismatches, snapshot is None, shown
        )

    def _passed_over(self, snapshot: LoadedSnapshot | None, until: int | None) -> dict[int, str]:
        """Snapshots, by zxid, that are newer than the one in use, up to `until`: unreadable ones.

        If a leader sent one, its txns are not in our log, and no older snapshot can replace it.
        """
        if snapshot is None:
            return {}
        return {
            zxid: name
            for zxid, name in snapshots_in(self._disk, self.snap_directory)
            if snapshot.zxid < zxid and (until is None or zxid <= until)
        }

    def _check_ttl_nodes(self, tree: DataTree) -> None:
        if tree.extended_types:
            return
        for owner, paths in tree.ephemerals.items():
            if owner >> 40 & 0xFFFFFF == TTL_OWNER_TOP and owner not in tree.sessions and paths:
                raise TTLNodesDisabled(
                    f"{self.snap_directory} has TTL nodes ({next(iter(paths))}), but "
                    f"extendedTypesEnabled is false: they would be taken for ephemerals of dead "
                    f"sessions and deleted. Set zookeeper.extendedTypesEnabled=true"
                )
