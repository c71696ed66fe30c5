"""SimulatedDisk: a disk in memory that forgets what was not made durable.

Implements persistence.disk.Disk. Files and directory entries have two states: what programs see,
and what a crash leaves. A crash keeps everything synced, and of the rest an arbitrary part, chosen
by a seeded generator: any subset of the writes, one of them torn, and any subset of the changes to
a directory. It is harsher than common file systems, which write some of this in order.
"""

from __future__ import annotations

import errno as errno_module
import os
from typing import TYPE_CHECKING, Final

from zkpy.persistence.errors import DirectoryInUse, DiskReadError, DiskWriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

SECTOR_BYTES: Final = 512

# Kinds of operations that can be made to fail.
CREATE: Final = "create"
WRITE: Final = "write"
SYNC: Final = "sync"
RENAME: Final = "rename"
REMOVE: Final = "remove"
SYNC_DIR: Final = "sync_dir"
TRUNCATE: Final = "truncate"
READ: Final = "read"


class _Inode:
    """A file's content: `durable` on the disk, `pending` changes since, `seen` by programs.

    What a failed sync dropped is seen but neither pending nor durable.
    """

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = bytearray()
        # (offset, data), or (size, None) for a truncation.
        self.pending: list[tuple[int, bytes | None]] = []

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.seen, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def crash(self, rng: Random, torn_in_sectors: bool) -> None:
        content = self.durable
        torn = rng.randrange(len(self.pending)) if self.pending else -1
        for index, (offset, data) in enumerate(self.pending):
            if index != torn or data is None:
                if rng.random() < 0.5:
                    _apply(content, offset, data)
            elif torn_in_sectors:
                for start, end in _sectors(offset, offset + len(data)):
                    if rng.random() < 0.5:
                        _apply(content, start, data[start - offset : end - offset])
            else:
                _apply(content, offset, data[: rng.randint(0, len(data))])
        self.pending.clear()
        self.seen = bytearray(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    if len(content) < offset:
        content += bytes(offset - len(content))
    if data:
        content[offset : offset + len(data)] = data


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        stop = min(end, start - start % SECTOR_BYTES + SECTOR_BYTES)
        yield start, stop
        start = stop


class _Fault:
    """One failure to come: the `after`-th matching operation from now on, and `times` from then."""

    def __init__(self, kind: str, part: str, after: int, times: int, errno: int) -> None:
        self.kind = kind
        self.part = part
        self.after = after
        self.times = times
        self.errno = errno

    def hits(self, kind: str, path: str) -> bool:
        if kind != self.kind or self.part not in path:
            return False
        self.after -= 1
        if self.after >= 0 or self.times == 0:
            return False
        self.times -= 1
        return True


class SimulatedFile:
    """An open file; a crash of the disk makes it useless."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: _Inode) -> None:
        self.path = path
        self._disk = disk
        self._inode = inode
        self._life = disk.life
        self._closed = False

    def _check(self, kind: str, offset: int | None = None) -> None:
        assert not self._closed, f"{self.path} is closed"
        assert self._life == self._disk.life, "an open file does not survive a crash"
        self._disk.operation(kind, self.path, offset)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        data = bytes(data)
        try:
            self._check(WRITE, offset)
            room = self._disk.room_for(self._inode, offset, len(data))
        except DiskWriteError:
            # A failing write may have written some of it.
            part = self._disk.rng_part(len(data))
            self._inode.change(offset, data[:part])
            raise
        if room < len(data):
            self._inode.change(offset, data[:room])
            raise _write_error(self.path, errno_module.ENOSPC, offset)
        self._inode.change(offset, data)

    def fdatasync(self) -> float:
        try:
            self._check(SYNC)
        except DiskWriteError:
            # The kernel forgets what it could not write: what is seen stays, but a later sync will
            # not bring it to the disk.
            self._inode.pending.clear()
            raise
        self._disk.sync_count += 1
        self._inode.sync()
        return self._disk.sync_ms

    def truncate(self, size_bytes: int) -> None:
        self._check(TRUNCATE, size_bytes)
        self._inode.change(size_bytes, None)

    def close(self) -> None:
        self._closed = True


class SimulatedLock:
    """Held until released, or until the disk crashes."""

    def __init__(self, disk: SimulatedDisk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.locks.discard(self._path)


class SimulatedDisk:
    """See the module. `life` counts crashes; `sync_ms` is what each sync reports.

    `before(kind, path)`, if set, is called before each operation that changes something, and may
    raise to stop the program there.
    """

    def __init__(self, rng: Random | None = None) -> None:
        self.rng = rng
        self.life = 0
        self.sync_ms = 0.1
        self.sync_count = 0
        self.capacity_bytes: int | None = None
        self.before: Callable[[str, str], None] | None = None
        self.locks: set[str] = set()
        self._seen: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._changes: list[tuple[str, str, _Inode | None]] = []  # directory, path, its new file
        self._directories = {"", "/"}
        self._read_only: set[str] = set()
        self._faults: list[_Fault] = []

    # ------------------------------------------------------------------ what tests do

    def crash(self, rng: Random, *, torn_in_sectors: bool = False) -> None:
        """Lose power. `torn_in_sectors`: a write may also lose sectors from its middle."""
        self.life += 1
        self.locks.clear()
        self._faults.clear()
        for _, path, inode in self._changes:
            if rng.random() < 0.5:
                _enter(self._durable, path, inode)
        self._changes.clear()
        self._seen = dict(self._durable)
        for inode in dict.fromkeys(self._seen.values()):
            inode.crash(rng, torn_in_sectors)

    def restart(self) -> None:
        """End the process only: the operating system keeps what was written."""
        self.life += 1
        self.locks.clear()
        self._faults.clear()

    def fail(
        self,
        kind: str,
        path_part: str = "",
        *,
        after: int = 0,
        times: int = -1,
        errno: int = errno_module.EIO,
    ) -> None:
        """Let operations of `kind` on paths with `path_part` fail, `times` times (-1: always).

        The first `after` ones still succeed. Lasts until the next crash or restart.
        """
        self._faults.append(_Fault(kind, path_part, after, times, errno))

    def mend(self) -> None:
        """Nothing fails from now on."""
        self._faults.clear()

    def make_read_only(self, path: str) -> None:
        """Forbid to create files in a directory, as far as `is_writable` tells."""
        self._read_only.add(path)

    def put(self, path: str, data: bytes) -> None:
        """A file with durable content, and its directory."""
        self.make_dirs(path.rpartition("/")[0])
        inode = _Inode()
        inode.change(0, data)
        inode.sync()
        self._seen[path] = self._durable[path] = inode

    def used_bytes(self) -> int:
        """What all files take together."""
        return sum(len(inode.seen) for inode in self._seen.values())

    # ------------------------------------------------------------------ inner workings

    def operation(self, kind: str, path: str, offset: int | None = None) -> None:
        """Account for one operation; raises what was injected."""
        if self.before is not None:
            self.before(kind, path)
        for fault in self._faults:
            if fault.hits(kind, path):
                if kind == READ:
                    raise _read_error(path, fault.errno, offset)
                raise _write_error(path, fault.errno, offset)

    def room_for(self, inode: _Inode, offset: int, size: int) -> int:
        """How many of `size` bytes at `offset` fit on the disk."""
        if self.capacity_bytes is None:
            return size
        free = max(0, self.capacity_bytes - self.used_bytes())
        return min(size, max(0, len(inode.seen) - offset) + free)

    def rng_part(self, size: int) -> int:
        """How much of a failing write arrives."""
        return self.rng.randint(0, size) if self.rng is not None else size // 2

    def _file(self, path: str) -> _Inode:
        inode = self._seen.get(path)
        if inode is None:
            raise _read_error(path, errno_module.ENOENT)
        return inode

    def _change(self, path: str, inode: _Inode | None) -> None:
        _enter(self._seen, path, inode)
        self._changes.append((path.rpartition("/")[0], path, inode))

    # ------------------------------------------------------------------ Disk

    def list_dir(self, path: str) -> list[str]:
        self.operation(READ, path)
        if path not in self._directories:
            raise _read_error(path, errno_module.ENOENT)
        start = path.rstrip("/") + "/"
        names = {
            other[len(start) :].partition("/")[0]
            for other in (*self._seen, *self._directories)
            if other.startswith(start) and other != start
        }
        return sorted(names)

    def exists(self, path: str) -> bool:
        return path in self._seen or path in self._directories

    def size(self, path: str) -> int:
        return len(self._file(path).seen)

    def read(self, path: str, offset: int = 0, size_bytes: int = -1) -> bytes:
        self.operation(READ, path, offset)
        seen = self._file(path).seen
        end = len(seen) if size_bytes < 0 else offset + size_bytes
        return bytes(seen[offset:end])

    def read_chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        offset = 0
        while chunk := self.read(path, offset, chunk_bytes):
            offset += len(chunk)
            yield chunk

    def create(self, path: str) -> SimulatedFile:
        self.operation(CREATE, path)
        if path.rpartition("/")[0] not in self._directories:
            raise _write_error(path, errno_module.ENOENT)
        inode = self._seen.get(path)
        if inode is None:
            inode = _Inode()
            self._change(path, inode)
        elif inode.seen:
            inode.change(0, None)
        return SimulatedFile(self, path, inode)

    def open(self, path: str) -> SimulatedFile:
        if path not in self._seen:
            raise _write_error(path, errno_module.ENOENT)
        return SimulatedFile(self, path, self._seen[path])

    def settle(self, path: str) -> None:
        file = self.open(path)
        file.fdatasync()
        file.close()
        inode = self._seen[path]
        inode.seen = bytearray(inode.durable)

    def rename(self, source: str, target: str) -> None:
        self.operation(RENAME, target)
        inode = self._seen.get(source)
        if inode is None:
            raise _write_error(target, errno_module.ENOENT)
        # Two changes, of which a crash may keep one: nobody may rely on a rename before fsync_dir.
        self._change(target, inode)
        self._change(source, None)

    def remove(self, path: str) -> None:
        self.operation(REMOVE, path)
        if path not in self._seen:
            raise _write_error(path, errno_module.ENOENT)
        self._change(path, None)

    def fsync_dir(self, path: str) -> None:
        self.operation(SYNC_DIR, path)
        for directory, changed, inode in self._changes:
            if directory == path:
                _enter(self._durable, changed, inode)
        self._changes = [change for change in self._changes if change[0] != path]

    def make_dirs(self, path: str) -> None:
        while path not in self._directories:
            self.operation(CREATE, path)
            self._directories.add(path)
            path = path.rpartition("/")[0]

    def is_writable(self, path: str) -> bool:
        return path in self._directories and path not in self._read_only

    def lock(self, path: str) -> SimulatedLock:
        if path in self.locks:
            raise DirectoryInUse(
                f"Data directory {path.rpartition('/')[0]} is in use by another server"
            )
        if path not in self._seen:
            self.create(path)
        self.locks.add(path)
        return SimulatedLock(self, path)


def _enter(entries: dict[str, _Inode], path: str, inode: _Inode | None) -> None:
    if inode is None:
        entries.pop(path, None)
    else:
        entries[path] = inode


def _read_error(path: str, number: int, offset: int | None = None) -> DiskReadError:
    return DiskReadError(path, os.strerror(number), offset, number)


def _write_error(path: str, number: int, offset: int | None = None) -> DiskWriteError:
    return DiskWriteError(path, os.strerror(number), offset, number)
