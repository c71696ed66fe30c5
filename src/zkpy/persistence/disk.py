"""The disk as this package uses it: `Disk` is what a simulation can replace, `OsDisk` the real one.

The only module of the package that touches the operating system. Every OSError leaves it as a
DiskReadError or DiskWriteError, which says the file, the offset and why.
"""

from __future__ import annotations

import fcntl
import os
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from zkpy.persistence.errors import DirectoryInUse, DiskReadError, DiskWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class DiskFile(Protocol):
        """A file open for writing. Offsets are explicit; one thread at a time."""

        path: str

        def write(self, data: bytes | memoryview, offset: int) -> None:
            """Write all of `data` at byte `offset`."""

        def fdatasync(self) -> float:
            """Make what was written durable; returns how long it took, ms.

            After a failure nothing more must be written: the kernel may have dropped the pages
            and would report success the next time.
            """

        def truncate(self, size_bytes: int) -> None:
            """Cut the file to `size_bytes`."""

        def close(self) -> None:
            """Release the handle; makes nothing durable."""

    class DiskLock(Protocol):
        """Held until `release` or the end of the process."""

        def release(self) -> None:
            """Let another server in."""

    class Disk(Protocol):
        """Files by path; "/" separates. Raises DiskReadError and DiskWriteError."""

        def list_dir(self, path: str) -> list[str]:
            """Names in a directory, sorted."""

        def exists(self, path: str) -> bool:
            """Whether a file or directory is there."""

        def size(self, path: str) -> int:
            """Size of a file in bytes."""

        def read(self, path: str, offset: int = 0, size_bytes: int = -1) -> bytes:
            """Up to `size_bytes` from `offset` on; -1 means to the end."""

        def read_chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
            """The whole file in pieces of at most `chunk_bytes`, none of them empty."""

        def create(self, path: str) -> DiskFile:
            """A new, empty file; replaces an old one of that name."""

        def open(self, path: str) -> DiskFile:
            """An existing file, to overwrite, extend or cut it."""

        def settle(self, path: str) -> None:
            """Make what a file holds durable, and show from now on what is on the disk.

            For a file whose last sync may have failed, or never come, in a process that is gone:
            what is only cached must not be taken for durable.
            """

        def rename(self, source: str, target: str) -> None:
            """Atomically; replaces `target`. Durable after `fsync_dir`."""

        def remove(self, path: str) -> None:
            """Durable after `fsync_dir`."""

        def fsync_dir(self, path: str) -> None:
            """Make creations, renames and removals in a directory durable."""

        def make_dirs(self, path: str) -> None:
            """Create a directory and those above it, durably; nothing if it is there."""

        def is_writable(self, path: str) -> bool:
            """Whether files can be created in a directory."""

        def lock(self, path: str) -> DiskLock:
            """Take the exclusive lock on file `path`, created if missing.

            Raises DirectoryInUse if another holder has it.
            """


# Absent on macOS, where fsync is the nearest there is.
_fdatasync = getattr(os, "fdatasync", os.fsync)


def _read_failed(path: str, error: OSError, offset: int | None = None) -> NoReturn:
    raise DiskReadError(path, error.strerror or str(error), offset, error.errno) from error


def _write_failed(path: str, error: OSError, offset: int | None = None) -> NoReturn:
    raise DiskWriteError(path, error.strerror or str(error), offset, error.errno) from error


class OsFile:
    """A file of the operating system, open for writing."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def write(self, data: bytes | memoryview, offset: int) -> None:
        try:
            written = os.pwrite(self._fd, data, offset)
            while written < len(data):
                # Seen at a full disk or a signal; the rest fails or goes through.
                rest = memoryview(data)[written:]
                written += os.pwrite(self._fd, rest, offset + written)
        except OSError as error:
            _write_failed(self.path, error, offset)

    def fdatasync(self) -> float:
        start = perf_counter()
        try:
            _fdatasync(self._fd)
        except OSError as error:
            _write_failed(self.path, error)
        return (perf_counter() - start) * 1000.0

    def truncate(self, size_bytes: int) -> None:
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            _write_failed(self.path, error, size_bytes)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.close(fd)
        except OSError as error:
            _write_failed(self.path, error)


class OsLock:
    """An flock; the kernel drops it when the process ends, however it ends."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # The file stays: removing it would let two servers lock two files of one name.
            os.close(fd)


class OsDisk:
    """The disk of the operating system."""

    def list_dir(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            _read_failed(path, error)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        try:
            return os.stat(path).st_size
        except OSError as error:
            _read_failed(path, error)

    def read(self, path: str, offset: int = 0, size_bytes: int = -1) -> bytes:
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(offset)
                return file.read(size_bytes) or b""
        except OSError as error:
            _read_failed(path, error, offset)

    def read_chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        offset = 0
        try:
            with open(path, "rb", buffering=0) as file:
                while chunk := file.read(chunk_bytes):
                    offset += len(chunk)
                    yield chunk
        except OSError as error:
            _read_failed(path, error, offset)

    def create(self, path: str) -> OsFile:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            return OsFile(path, os.open(path, flags, 0o666))
        except OSError as error:
            _write_failed(path, error)

    def open(self, path: str) -> OsFile:
        try:
            return OsFile(path, os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            _write_failed(path, error)

    def settle(self, path: str) -> None:
        file = self.open(path)
        try:
            file.fdatasync()
            if hasattr(os, "posix_fadvise"):
                # After a failed sync the kernel keeps pages that never reached the disk, and calls
                # them clean. Dropped from the cache, they are read as what is really there.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            _write_failed(path, error)
        finally:
            file.close()

    def rename(self, source: str, target: str) -> None:
        try:
            os.replace(source, target)
        except OSError as error:
            _write_failed(target, error)

    def remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except OSError as error:
            _write_failed(path, error)

    def fsync_dir(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            _write_failed(path, error)

    def make_dirs(self, path: str) -> None:
        missing = []
        while path and not os.path.isdir(path):
            missing.append(path)
            path = path.rpartition("/")[0]
        for directory in reversed(missing):
            try:
                os.mkdir(directory)
            except FileExistsError as error:
                if not os.path.isdir(directory):
                    _write_failed(directory, error)
            except OSError as error:
                _write_failed(directory, error)
            self.fsync_dir(directory.rpartition("/")[0] or ("/" if directory[0] == "/" else "."))

    def is_writable(self, path: str) -> bool:
        return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)

    def lock(self, path: str) -> OsLock:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            _write_failed(path, error)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise DirectoryInUse(_in_use(path, holder)) from None
        except OSError as error:
            os.close(fd)
            _write_failed(path, error)
        return OsLock(fd)


def _in_use(path: str, holder: str) -> str:
    by = f"process {holder}" if holder.isdigit() else "another process"
    return (
        f"Data directory {path.rpartition('/')[0]} is in use by another server ({by}); "
        f"two servers on one directory would destroy its data"
    )
