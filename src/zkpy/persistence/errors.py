"""What can go wrong with files: which file, at which offset, why, and how the process ends.

`exit_code` and `headline` are those of the reference: what the process ends with and says first.
Source: QuorumPeerMain.main, ExitCode, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.protocol.config_error import UNEXPECTED

NO_DATADIR = "Unable to access datadir, exiting abnormally"


class PersistenceError(Exception):
    """Base of all errors of this package; `str()` of it is complete for a log line."""

    exit_code = 1
    headline = UNEXPECTED

    @property
    def stderr_line(self) -> str:
        """The one line for stderr: the reference's headline and the reason."""
        return f"{self.headline}: {self}"


class FileError(PersistenceError):
    """Something about one file; `offset` in bytes, None where the whole file is meant."""

    def __init__(self, path: str, reason: str, offset: int | None = None) -> None:
        where = path if offset is None else f"{path} at offset {offset}"
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


class DiskError(FileError):
    """The operating system refused; `errno` is its number (0 if unknown)."""

    def __init__(
        self, path: str, reason: str, offset: int | None = None, errno: int | None = None
    ) -> None:
        super().__init__(path, reason, offset)
        self.errno = errno or 0


class DiskReadError(DiskError):
    """Reading, listing or looking failed."""


class DiskWriteError(DiskError):
    """Writing, syncing, renaming or removing failed: what is durable is now unknown."""

    exit_code = 10


class CorruptFile(FileError):
    """A file's bytes are not what its format asks for, and ignoring them could lose data."""


class DatadirError(PersistenceError):
    """The directories cannot be used: missing, not writable, mixed up, or in use."""

    exit_code = 3
    headline = NO_DATADIR


class DirectoryInUse(DatadirError):
    """Another server has locked the directory."""


class NoSnapshot(PersistenceError):
    """There are log entries but no snapshot to apply them to."""


class TTLNodesDisabled(PersistenceError):
    """TTL nodes are there, but the settings make them look like ephemerals of dead sessions."""


class EpochError(PersistenceError):
    """acceptedEpoch, currentEpoch and the last zxid contradict each other."""


class TruncateError(PersistenceError):
    """The log cannot be cut where the leader wants it."""

    exit_code = 13
