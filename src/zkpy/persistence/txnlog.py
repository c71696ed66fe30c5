"""FileTxnLog: txns on disk before anybody is told of them.

Owns the newest log file: its name, its header, group commit, the zeros written ahead. Reading is
in `logreader.py`. Knows no clock and no thread, but allows two: one appends, another commits.
Source: FileTxnLog, FilePadding, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING, Final
from zlib import adler32

from zkpy.persistence.errors import (
    CorruptFile,
    DiskWriteError,
    PersistenceError,
    TruncateError,
)
from zkpy.persistence.files import TEMPORARY, logs_from, logs_in
from zkpy.persistence.logreader import (
    DEFAULT_MAX_RECORD_BYTES,
    FILE_HEADER,
    HEADER_BYTES,
    RECORD_HEAD,
    RECORD_HEAD_BYTES,
    FileReader,
    LogReader,
)
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import decode_txn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkpy.persistence.disk import Disk, DiskFile
    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import TxnDigest, TxnHeader

log = getLogger(__name__)

DEFAULT_PREALLOCATE_BYTES: Final = 65536 * 1024
# Zeros are written ahead in steps: small at first, since a start must be quick, then large enough
# that the file rarely has to grow and small enough that no commit waits long behind one.
FIRST_STEP_BYTES: Final = 64 * 1024
LAST_STEP_BYTES: Final = 1024 * 1024
BLOCK_BYTES: Final = 4096

_ZEROS: Final = bytes(FIRST_STEP_BYTES)
_END: Final = b"B"
_pack_head = RECORD_HEAD.pack


class ZxidOutOfOrder(PersistenceError):
    """A txn was to be logged whose zxid is not above the last one's: a bug, and no record."""


def _zxid_of(txn: bytes) -> int:
    return int.from_bytes(txn[12:20], "big", signed=True)


class FileTxnLog:
    """The log files of one directory.

    `append` and `roll` belong to one thread; `commit`, `prepare_ahead` and `close` to one, which
    may be another. A list's `+=` and `del` are atomic in CPython, with and without the GIL, so the
    hand-over between the two needs no lock.

    `last_zxid`: of the last txn appended, or found on disk. `durable_zxid`: of the last committed.
    `first_written_zxid`: of the first written since it was set to -1.
    After an error of `commit` or `prepare_ahead` nothing more can be done with this object: what is
    on the disk is unknown until the files are read again.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        preallocate_bytes: int = DEFAULT_PREALLOCATE_BYTES,
        force_sync: bool = True,
        size_limit_bytes: int = 0,
        max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
    ) -> None:
        """`size_limit_bytes` <= 0: no limit. `preallocate_bytes` 0: no zeros ahead."""
        self.directory = directory
        self.force_sync = force_sync
        self.last_zxid = -1
        self.durable_zxid = -1
        self.first_written_zxid = -1
        self._disk = disk
        self._preallocate_bytes = preallocate_bytes
        self._size_limit_bytes = size_limit_bytes
        self._max_record_bytes = max_record_bytes
        # One list of pieces per file to be written; more than one after a roll.
        self._segments: list[list[bytes]] = [[]]
        self._extend = self._segments[0].extend
        self._file: DiskFile | None = None
        self._pos = 0
        self._zeroed_to = 0
        self._step_bytes = 0
        self._failed = False

    # ------------------------------------------------------------------ the appending thread

    def append(self, zxid: int, txn: bytes) -> None:
        """Take over `txn`, whose header holds `zxid`; written by the next `commit`.

        Raises ZxidOutOfOrder. Source of the check: ZOOKEEPER-4712, where the reference only warns
        and then loses data.
        """
        if zxid <= self.last_zxid:
            raise ZxidOutOfOrder(
                f"Current zxid {zxid:#x} is <= {self.last_zxid:#x}: it is not logged"
            )
        self.last_zxid = zxid
        self._extend((_pack_head(adler32(txn), len(txn)), txn, _END))

    def roll(self) -> None:
        """Let the next `append` begin a new file."""
        segments = self._segments
        if len(segments) > 1 and not segments[-1]:
            return
        segment: list[bytes] = []
        segments.append(segment)
        self._extend = segment.extend

    # ------------------------------------------------------------------ the committing thread

    def commit(self) -> float:
        """Write and sync whatever has been appended; `durable_zxid` says how far that was.

        Returns the ms the (longest) sync took. Raises DiskWriteError, after which the process has
        to stop: a sync that failed once must not be tried again.
        """
        self._begin()
        segments = self._segments
        sync_ms = 0.0
        while len(segments) > 1:
            sync_ms = max(sync_ms, self._write(segments[0]))
            self._close_file()
            del segments[0]
        sync_ms = max(sync_ms, self._write(segments[0]))
        if 0 < self._size_limit_bytes < self._pos:
            self._close_file()
        self._failed = False
        return sync_ms

    def prepare_ahead(self) -> float:
        """Write zeros ahead of the records if few are left; call it when nobody waits.

        A sync in blocks that were written before takes half as long as one that makes the file
        grow. Returns ms of the sync, 0.0 if nothing was done. Raises DiskWriteError.
        """
        file = self._file
        step = self._step_bytes
        if file is None or not step or self._zeroed_to - self._pos >= step // 2:
            return 0.0
        self._begin()
        begin = max(self._zeroed_to, self._pos)
        end = begin + step
        try:
            for offset in range(begin, end, FIRST_STEP_BYTES):
                file.write(memoryview(_ZEROS)[: end - offset], offset)
        except DiskWriteError as error:
            # Of no consequence yet, and what room is left should go to records.
            log.warning("no zeros are written ahead any more: %s", error)
            self._step_bytes = 0
            self._failed = False
            return 0.0
        sync_ms = file.fdatasync() if self.force_sync else 0.0
        self._zeroed_to = end
        self._grow_step()
        self._failed = False
        return sync_ms

    def close(self) -> None:
        """Commit what is left and close the file; an `append` after it begins a new one."""
        if not self._failed:
            self.commit()
        self._close_file()

    def _begin(self) -> None:
        if self._failed:
            raise DiskWriteError(self.directory, "an earlier write or sync of the log failed")
        self._failed = True

    def _write(self, segment: list[bytes]) -> float:
        """Write the records in `segment` at the end of the file; returns ms of the sync."""
        count = len(segment)
        if not count:
            return 0.0
        pieces = segment[:count]
        del segment[:count]
        last_txn = pieces[-2]
        file = self._file
        if file is None:
            sync_ms = self._start_file(pieces)
        else:
            data = b"".join(pieces)
            begin = self._pos
            end = begin + len(data)
            if end > self._zeroed_to and self._step_bytes:
                data += self._zeros_after(end)
            file.write(data, begin)
            sync_ms = file.fdatasync() if self.force_sync else 0.0
            self._pos = end
        self.durable_zxid = _zxid_of(last_txn)
        return sync_ms

    def _start_file(self, pieces: list[bytes]) -> float:
        """Create the file of these records.

        Under another name until it is durable: no crash leaves a log without header, at which the
        reference would refuse to start (ZOOKEEPER-2332).
        """
        disk = self._disk
        first_zxid = _zxid_of(pieces[1])
        if self.first_written_zxid < 0:
            self.first_written_zxid = first_zxid
        name = f"log.{first_zxid:x}"
        temporary = f"{self.directory}/{TEMPORARY}{name}"
        path = f"{self.directory}/{name}"
        file = disk.create(temporary)
        self._file = file
        self._step_bytes = min(FIRST_STEP_BYTES, self._preallocate_bytes)
        self._zeroed_to = 0
        data = b"".join((FILE_HEADER, *pieces))
        self._pos = len(data)
        file.write(data + self._zeros_after(self._pos), 0)
        sync_ms = file.fdatasync() if self.force_sync else 0.0
        disk.rename(temporary, path)
        file.path = path
        if self.force_sync:
            disk.fsync_dir(self.directory)
        return sync_ms

    def _zeros_after(self, end: int) -> bytes:
        """Zeros for one step behind `end`, up to the end of a block."""
        step = self._step_bytes
        if not step:
            return b""
        self._zeroed_to = (end + step) // BLOCK_BYTES * BLOCK_BYTES
        self._grow_step()
        return bytes(max(self._zeroed_to - end, 0))

    def _grow_step(self) -> None:
        self._step_bytes = min(2 * self._step_bytes, LAST_STEP_BYTES, self._preallocate_bytes)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        self._pos = 0
        if file is not None:
            file.close()

    # ------------------------------------------------------------------ reading

    def reader(self) -> LogReader:
        """A reader of the files as they are now."""
        return LogReader(self._disk, self.directory, self._max_record_bytes)

    def read(
        self, from_zxid: int, *, after: int | None = None, until: int | None = None
    ) -> Iterator[tuple[TxnHeader, Record, TxnDigest | None, bytes]]:
        """Yield (header, record, digest, txn) of each record; see LogReader.records.

        Raises CorruptFile and DiskReadError.
        """
        reader = self.reader()
        for _, txn in reader.records(from_zxid, after=after, until=until):
            try:
                header, record, digest = decode_txn(txn)
            except DecodeError as error:
                raise CorruptFile(reader.path, str(error), reader.offset) from None
            yield header, record, digest, txn

    def last_logged_zxid(self) -> int:
        """Zxid of the last good record on disk, -1 without any. Raises as `read`."""
        return self.reader().last_zxid()

    def size_from(self, zxid: int) -> int:
        """Bytes of the files that a reader from `zxid` on reads."""
        starts = logs_from(logs_in(self._disk, self.directory), zxid)
        return sum(self._disk.size(f"{self.directory}/log.{start:x}") for start in starts)

    def reaches_back_to(self, zxid: int) -> bool:
        """Whether a file begins there or before: those that are purged are the oldest."""
        starts = logs_in(self._disk, self.directory)
        return bool(starts) and starts[0] <= zxid

    # ------------------------------------------------------------------ cutting

    def truncate(self, zxid: int) -> None:
        """Remove every record above `zxid`, newest first; closes the file being written.

        Raises TruncateError if there is no log, CorruptFile, DiskError. Stricter than the
        reference, which keeps one record more where `zxid` itself is not logged.
        """
        self.close()
        disk = self._disk
        starts = logs_in(disk, self.directory)
        if not starts:
            raise TruncateError(f"Unable to truncate Txn log: no log in {self.directory}")
        # From the newest file to the oldest: whenever a crash comes, a prefix is left.
        while starts and starts[-1] > zxid:
            disk.remove(f"{self.directory}/log.{starts.pop():x}")
            disk.fsync_dir(self.directory)
        if starts:
            self._cut(f"{self.directory}/log.{starts[-1]:x}", zxid)
        self.last_zxid = min(self.last_zxid, zxid)
        self.durable_zxid = min(self.durable_zxid, zxid)

    def clear(self, zxid: int) -> None:
        """Remove all files, newest first; the next txn will be behind `zxid`. Raises DiskError."""
        self.close()
        for start in reversed(logs_in(self._disk, self.directory)):
            self._disk.remove(f"{self.directory}/log.{start:x}")
            # One by one: whenever a crash comes, a prefix is left.
            self._disk.fsync_dir(self.directory)
        self.last_zxid = self.durable_zxid = zxid

    def _cut(self, path: str, zxid: int) -> None:
        end = HEADER_BYTES
        for found, txn in FileReader(self._disk, path, self._max_record_bytes, True).records():
            if found > zxid:
                break
            end += RECORD_HEAD_BYTES + len(txn) + 1
        if end == HEADER_BYTES:
            self._disk.remove(path)
            self._disk.fsync_dir(self.directory)
            return
        file = self._disk.open(path)
        try:
            file.truncate(end)
            file.fdatasync()
        finally:
            file.close()
