"""Reading txn logs: what is a record, what is the end of the data, and what is damage.

    file    header ("ZKLG", version, dbid), records, zeros to the end (or not)
    record  long Adler32 of the txn, int length, txn, "B"

A crash leaves a torn tail that was never acknowledged: it is passed over. Whatever could be an
acknowledged record is refused, never skipped: a member that is down costs availability, one that
lost a write costs data. Source: FileTxnLog.FileTxnIterator, ZooKeeper 3.9, which is more lenient
in places marked below.
"""

from __future__ import annotations

import struct
from logging import getLogger
from typing import TYPE_CHECKING, Final
from zlib import adler32

from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.files import logs_from, logs_in
from zkpy.protocol.zxid import counter_of, epoch_of, make_zxid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from zkpy.persistence.disk import Disk

log = getLogger(__name__)

MAGIC: Final = b"ZKLG"
FILE_HEADER: Final = MAGIC + b"\0\0\0\x02" + bytes(8)
HEADER_BYTES: Final = 16
RECORD_HEAD: Final = struct.Struct(">Qi")
RECORD_HEAD_BYTES: Final = 12
END_OF_RECORD: Final = 0x42
TXN_HEADER_BYTES: Final = 32

CHUNK_BYTES: Final = 1 << 20
# jute.maxbuffer and its equal extra size: what the reference accepts in one record.
DEFAULT_MAX_RECORD_BYTES: Final = 2 * 0xFFFFF

_head_at = RECORD_HEAD.unpack_from
_zxid_at = struct.Struct(">q").unpack_from


class LogReader:
    """Reads records of all log files of a directory in order.

    `path` and `offset` tell where the record last yielded stands, for messages.
    """

    def __init__(
        self, disk: Disk, directory: str, max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._max_record_bytes = max_record_bytes
        self.path = ""
        self.offset = 0

    def records(
        self,
        from_zxid: int,
        *,
        after: int | None = None,
        until: int | None = None,
        strict: bool = False,
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (zxid, txn) of every record with a zxid of at least `from_zxid`.

        `after`: the zxid (of a snapshot) which the first of them must continue without a hole.
        `until`: stop behind this zxid; a log that is being written must not be read beyond what
        is durable.
        `strict`: an epoch has to begin with counter 1, else records are missing.
        Raises CorruptFile and DiskReadError.
        """
        previous = after
        passed_over = ""
        backwards = 0
        starts = logs_from(logs_in(self._disk, self._directory), from_zxid)
        for start in starts:
            path = f"{self._directory}/log.{start:x}"
            file = FileReader(self._disk, path, self._max_record_bytes, start == starts[-1])
            self.path = path
            for zxid, txn in file.records():
                if zxid < from_zxid:
                    continue
                self.offset = file.offset
                if previous is None or zxid == previous + 1:
                    previous = zxid
                elif zxid > previous:
                    in_epoch = epoch_of(zxid) == epoch_of(previous)
                    if in_epoch or (strict and counter_of(zxid) > 1):
                        self._hole(previous, zxid, passed_over)
                    if counter_of(zxid) > 1:
                        log.warning("%s begins its epoch at zxid %#x", path, zxid)
                    previous = zxid
                else:
                    backwards += 1
                    if backwards == 1:
                        log.error("%s: zxid %#x follows %#x", path, zxid, previous)
                yield zxid, txn
                if until is not None and zxid >= until:
                    return
            if file.torn:
                passed_over = f" ({path} ends at offset {file.offset}: {file.torn})"
        if backwards > 1:
            log.error("%d records had a zxid not above the one before", backwards)

    def _hole(self, previous: int, zxid: int, passed_over: str) -> NoReturn:
        first = previous + 1
        if epoch_of(zxid) != epoch_of(previous):
            first = make_zxid(epoch_of(zxid), 1)
        missing = f"{first:#x}"
        if zxid - 1 > first:
            missing += f" to {zxid - 1:#x}"
        reason = f"record {zxid:#x} follows {previous:#x}; missing: {missing}{passed_over}"
        raise CorruptFile(self.path, reason, self.offset)

    def last_zxid(self) -> int:
        """Zxid of the last good record of the newest file that has one; -1 if there is none."""
        zxids = logs_in(self._disk, self._directory)
        for start in reversed(zxids):
            path = f"{self._directory}/log.{start:x}"
            file = FileReader(self._disk, path, self._max_record_bytes, start == zxids[-1])
            last = -1
            for zxid, _ in file.records():
                last = zxid
            if last != -1:
                return last
        return -1


class FileReader:
    """Reads the records of one log file.

    `offset`: where the record last yielded begins; after the last one, where the data ends.
    `torn`: why data ended there, "" if the file simply ends or only zeros follow.
    `is_newest`: an empty newest file is the trace of a crash or a full disk; elsewhere it is a
    loss.
    """

    def __init__(self, disk: Disk, path: str, max_record_bytes: int, is_newest: bool) -> None:
        self._disk = disk
        self._path = path
        self._max_record_bytes = max_record_bytes
        self._is_newest = is_newest
        self._size_bytes = disk.size(path)
        self._chunks = disk.read_chunks(path, CHUNK_BYTES)
        self.offset = 0
        self.torn = ""

    def records(self, start: int = HEADER_BYTES) -> Iterator[tuple[int, bytes]]:
        """Yield (zxid, txn) from offset `start` on. Raises CorruptFile and DiskReadError."""
        buf = next(self._chunks, b"")
        if not self._begins_well(buf):
            return
        base = 0  # where in the file `buf` begins
        pos = start
        while pos > len(buf) > 0:
            base, pos = base + len(buf), pos - len(buf)
            buf = next(self._chunks, b"")
        while True:
            if pos + RECORD_HEAD_BYTES > len(buf):
                chunk = next(self._chunks, b"")
                if not chunk:
                    self._end(base + pos, "in the head of a record" if any(buf[pos:]) else "")
                    return
                buf, base, pos = buf[pos:] + chunk, base + pos, 0
                continue
            checksum, length = _head_at(buf, pos)
            start = pos + RECORD_HEAD_BYTES
            end = start + length
            if length <= 0 or end >= len(buf):
                if self._is_complete(base + pos, checksum, length):
                    chunk = next(self._chunks, b"")
                    if chunk:
                        buf, base, pos = buf[pos:] + chunk, base + pos, 0
                        continue
                self._torn(buf[pos:], base + pos, "the file ends in a record")
                return
            txn = buf[start:end]
            if buf[end] != END_OF_RECORD:
                self._torn(buf[pos:], base + pos, "the last record has no end mark")
                return
            if adler32(txn) != checksum:
                self._checksum_failed(buf, base, pos, end + 1)
            if length < TXN_HEADER_BYTES:
                raise CorruptFile(self._path, f"a txn of {length} bytes", base + pos)
            self.offset = base + pos
            yield _zxid_at(txn, 12)[0], txn
            pos = end + 1

    def _begins_well(self, buf: bytes) -> bool:
        if not buf and self._is_newest:
            self.torn = "no header"
            return False
        if len(buf) < HEADER_BYTES:
            raise CorruptFile(self._path, f"only {len(buf)} bytes, shorter than its header", 0)
        if buf[:4] != MAGIC:
            raise CorruptFile(self._path, f"Invalid magic number {buf[:4].hex()}, not a log", 0)
        return True

    def _end(self, offset: int, torn: str) -> None:
        self.offset = offset
        self.torn = torn

    def _is_complete(self, offset: int, checksum: int, length: int) -> bool:
        """Whether the file is long enough for a record; False also where the data ends.

        Raises CorruptFile for a length no record has.
        """
        if length > 0:
            complete = offset + RECORD_HEAD_BYTES + length < self._size_bytes
            # A longer record that is all there is read: it was written under a larger
            # jute.maxbuffer, where the reference now refuses to start.
            if not complete and length > self._max_record_bytes:
                raise CorruptFile(self._path, f"Unreasonable length = {length}", offset)
            return complete
        if length < 0:
            raise CorruptFile(self._path, f"Unreasonable length = {length}", offset)
        return False

    def _torn(self, rest: bytes, offset: int, reason: str) -> None:
        """End the data at `offset`; `rest` is what the buffer holds from there on.

        Raises CorruptFile if acknowledged records may follow, where the reference drops them.
        """
        checksum, length = _head_at(rest, 0)
        if length == 0 and checksum == 0:
            self._end(offset, "")
            return
        while len(rest) < 2 * (self._max_record_bytes + RECORD_HEAD_BYTES + 1):
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            rest += chunk
        whole = _length_by_checksum(rest, checksum)
        if whole and whole != length:
            reason = f"length {length} is damaged: its checksum fits {whole} bytes"
            raise CorruptFile(self._path, reason, offset)
        following = RECORD_HEAD_BYTES + length + 1
        if length > 0 and _is_record(rest, following):
            reason = f"no end mark, but a complete record follows at {offset + following}"
            raise CorruptFile(self._path, reason, offset)
        self._end(offset, reason)

    def _checksum_failed(self, buf: bytes, base: int, pos: int, end: int) -> NoReturn:
        reason = "CRC check failed"
        rest = buf[end : end + RECORD_HEAD_BYTES]
        if self._is_newest and not any(rest):
            # Only an operator can know: pages of one write may reach the disk in any order.
            reason += (
                f"; no record follows. If power failed while this one was being written, it was "
                f"never acknowledged, and cutting the file to {base + pos} bytes drops it"
            )
        raise CorruptFile(self._path, reason, base + pos)


def _length_by_checksum(rest: bytes, checksum: int) -> int:
    """Length of the txn at the start of `rest` by its checksum and end mark; 0 if none fits."""
    value = 1
    summed = RECORD_HEAD_BYTES
    view = memoryview(rest)
    mark = rest.find(END_OF_RECORD, summed + TXN_HEADER_BYTES)
    while mark >= 0:
        value = adler32(view[summed:mark], value)
        summed = mark
        if value == checksum:
            return mark - RECORD_HEAD_BYTES
        mark = rest.find(END_OF_RECORD, mark + 1)
    return 0


def _is_record(rest: bytes, pos: int) -> bool:
    if pos + RECORD_HEAD_BYTES > len(rest):
        return False
    checksum, length = _head_at(rest, pos)
    start = pos + RECORD_HEAD_BYTES
    end = start + length
    if length < TXN_HEADER_BYTES or end >= len(rest) or rest[end] != END_OF_RECORD:
        return False
    return adler32(rest[start:end]) == int(checksum)
