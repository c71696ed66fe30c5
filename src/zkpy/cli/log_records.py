"""The records of one log file, and what is wrong in it: reads on behind damage.

What a record is, where data ends and what damage is, FileReader decides, as at a server's start.
Here is only how to go on: where the next whole record begins, and what lies between.
Knows nothing of output.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import adler32

from zkpy.cli.tools import ReadingDisk
from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.files import SUFFIXES, log_zxid
from zkpy.persistence.logreader import (
    CHUNK_BYTES,
    DEFAULT_MAX_RECORD_BYTES,
    END_OF_RECORD,
    HEADER_BYTES,
    RECORD_HEAD,
    RECORD_HEAD_BYTES,
    TXN_HEADER_BYTES,
    FileReader,
)
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.zxid import counter_of, epoch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD: Final = "good"
CHECKSUM: Final = "checksum"  # whole, but its checksum does not fit: `txn` may be anything
END_MARK: Final = "end mark"  # whole and with the right checksum, but with no mark behind it
LOST: Final = "lost"  # bytes that are no record, where one was or records follow
TORN: Final = "torn"  # the same at the end of the data: what a crash leaves; servers pass it over

_HEADER = struct.Struct(">4siq")
_ZXID = struct.Struct(">12xq")
_NOT_ZERO = re.compile(rb"[^\0]")
# A record begins with its checksum: 32 bits in a long.
_BEGINNING: Final = bytes(4)


class Entry(NamedTuple):
    """Bytes `offset` to `end` of the file. `txn` is None for LOST and TORN."""

    kind: str
    offset: int
    end: int
    txn: bytes | None
    problem: str

    @property
    def zxid(self) -> int | None:
        """Of the txn, as far as there is one."""
        if self.txn is None or len(self.txn) < TXN_HEADER_BYTES:
            return None
        zxid: int = _ZXID.unpack_from(self.txn)[0]
        return zxid


class LogDisk(ReadingDisk):
    """The disk, with logs that were compressed since read as if they were not."""

    def size(self, path: str) -> int:
        if _suffix(path):
            size = 0
            try:
                for chunk in self.read_chunks(path, CHUNK_BYTES):
                    size += len(chunk)
            except CorruptFile:
                pass  # whoever reads on will meet it at the right place
            return size
        return super().size(path)

    def read(self, path: str, offset: int = 0, size_bytes: int = -1) -> bytes:
        if not _suffix(path):
            return super().read(path, offset, size_bytes)
        found = b""
        position = 0
        try:
            for chunk in self.read_chunks(path, CHUNK_BYTES):
                found += chunk[max(offset - position, 0) :]
                position += len(chunk)
                if 0 <= size_bytes <= len(found):
                    break
        except CorruptFile:
            pass
        return found if size_bytes < 0 else found[:size_bytes]

    def read_chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        chunks = super().read_chunks(path, chunk_bytes)
        suffix = _suffix(path)
        if not suffix:
            yield from chunks
            return
        from zkpy.persistence.compression import DECOMPRESSORS

        offset = 0
        try:
            for chunk in DECOMPRESSORS[suffix](chunks):
                offset += len(chunk)
                yield chunk
        except DecodeError as error:
            raise CorruptFile(path, f"{error} (offset in what it holds)", offset) from None


def _suffix(path: str) -> str:
    return next((suffix for suffix in SUFFIXES if suffix and path.endswith(suffix)), "")


def is_log_name(name: str) -> bool:
    """Whether a file in a directory is a log, or one that was compressed since."""
    return log_zxid(name.removesuffix(_suffix(name))) is not None


class LogFile:
    """One log file. Raises CorruptFile if it does not begin as one, and DiskReadError."""

    def __init__(
        self, disk: LogDisk, path: str, max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    ) -> None:
        self.path = path
        self.disk = disk
        self._max_record_bytes = max_record_bytes
        header = disk.read(path, 0, HEADER_BYTES)
        try:
            next(FileReader(disk, path, max_record_bytes, False).records(), None)
        except CorruptFile as error:
            if (error.offset or 0) < HEADER_BYTES:
                raise
        self.magic, self.version, self.dbid = _HEADER.unpack(header)

    def entries(self) -> Iterator[Entry]:
        """Everything between the header and the end of the data, in order, without gaps."""
        start = HEADER_BYTES
        while start >= 0:
            reader = FileReader(self.disk, self.path, self._max_record_bytes, False)
            try:
                for _, txn in reader.records(start):
                    end = reader.offset + RECORD_HEAD_BYTES + len(txn) + 1
                    yield Entry(GOOD, reader.offset, end, txn, "")
            except CorruptFile as error:
                entry = self._damage(error.offset or start, error.reason)
            else:
                rest = self._behind(reader.offset, reader.torn)
                if rest is None:
                    return
                entry = rest
            yield entry
            start = -1 if entry.kind == TORN else entry.end

    def _damage(self, offset: int, reason: str) -> Entry:
        head = self.disk.read(self.path, offset, RECORD_HEAD_BYTES)
        if len(head) == RECORD_HEAD_BYTES:
            checksum, length = RECORD_HEAD.unpack(head)
            if 0 < length <= self._max_record_bytes:
                record = self.disk.read(self.path, offset + RECORD_HEAD_BYTES, length + 1)
                txn = record[:length]
                fits = adler32(txn) == checksum
                if len(record) > length and (fits or record[length] == END_OF_RECORD):
                    end = offset + RECORD_HEAD_BYTES + length + 1
                    is_marked = record[length] == END_OF_RECORD
                    return Entry(CHECKSUM if is_marked else END_MARK, offset, end, txn, reason)
        following = self._next_record(offset + 1)
        if following < 0:
            return Entry(LOST, offset, self._data_end(offset), None, reason)
        return Entry(LOST, offset, following, None, reason)

    def _behind(self, offset: int, torn: str) -> Entry | None:
        """What lies behind the end of the data, if it is not just zeros."""
        following = self._next_record(offset)
        if following >= 0:
            # A server takes the file to end here, and would lose what follows.
            reason = torn or "zeros in place of a record"
            return Entry(LOST, offset, following, None, f"{reason}; records follow")
        end = self._data_end(offset)
        if not torn and end == offset:
            return None
        return Entry(TORN, offset, end, None, torn or "no record behind zeros")

    def _next_record(self, start: int) -> int:
        """Offset of the first whole record at `start` or behind; -1 without any."""
        most = self._max_record_bytes + RECORD_HEAD_BYTES + 1
        window = b""
        base = start  # where in the file `window` begins
        offset = 0
        for chunk in self.disk.read_chunks(self.path, CHUNK_BYTES):
            offset += len(chunk)
            if offset <= start:
                continue
            window += chunk[max(len(chunk) - (offset - start), 0) :]
            if len(window) < 4 * most:
                continue
            found = _find_record(window, len(window) - most)
            if found >= 0:
                return base + found
            base += len(window) - most
            window = window[-most:]
        found = _find_record(window, len(window))
        return base + found if found >= 0 else -1

    def _data_end(self, start: int) -> int:
        """Behind the last byte from `start` on that is not zero."""
        offset = 0
        end = start
        for chunk in self.disk.read_chunks(self.path, CHUNK_BYTES):
            size = len(chunk.rstrip(b"\0"))
            if size:
                end = max(end, offset + size)
            offset += len(chunk)
        return end


def _find_record(data: bytes, stop: int) -> int:
    """Where the first whole record before `stop` begins; -1 without any."""
    position = 0
    while True:
        position = data.find(_BEGINNING, position, stop + len(_BEGINNING))
        if position < 0 or position + RECORD_HEAD_BYTES > len(data):
            return -1
        checksum, length = RECORD_HEAD.unpack_from(data, position)
        start = position + RECORD_HEAD_BYTES
        end = start + length
        if length >= TXN_HEADER_BYTES and end < len(data) and data[end] == END_OF_RECORD:
            if adler32(memoryview(data)[start:end]) == checksum:
                return position
        if checksum or length:
            position += 1
            continue
        # Through zeros at once: nothing begins before the head that ends in the next other byte.
        other = _NOT_ZERO.search(data, start)
        if other is None:
            return -1
        position = max(position + 1, other.start() - RECORD_HEAD_BYTES)


class Sequence:
    """Watches the order of zxids, as a server does when it reads its log."""

    def __init__(self) -> None:
        self.previous: int | None = None

    def is_next(self, zxid: int) -> bool:
        """Whether `zxid` is the one behind the last."""
        return self.previous is not None and zxid == self.previous + 1

    def damaged(self, zxid: int) -> None:
        """There is a damaged record that may be `zxid`'s: if it fits, that one is not missing."""
        if self.is_next(zxid):
            self.previous = zxid

    def problem(self, zxid: int) -> str:
        """What is wrong about `zxid` coming next; "" if nothing is.

        Servers start where one is not above the one before, but not at a hole.
        """
        expected = self.is_next(zxid)
        previous, self.previous = self.previous, zxid
        if previous is None or expected:
            return ""
        if zxid <= previous:
            return f"zxid {zxid:#x} follows {previous:#x}"
        if epoch_of(zxid) == epoch_of(previous):
            missing = f"{previous + 1:#x}"
            if zxid - previous > 2:
                missing += f" to {zxid - 1:#x}"
            return f"zxid {zxid:#x} follows {previous:#x}; missing: {missing}"
        if counter_of(zxid) > 1:
            return f"zxid {zxid:#x} follows {previous:#x}: its epoch has to begin with counter 1"
        return ""
