"""acceptedEpoch and currentEpoch: what a member promised, in files of a few digits.

Owns their format, how they are replaced, and the checks against the last zxid at a load. When they
are written is the quorum's matter. Source: QuorumPeer.loadDataBase, AtomicFileOutputStream.
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING, Final, NamedTuple

from zkpy.persistence.errors import CorruptFile, EpochError
from zkpy.protocol.zxid import EPOCH_MAX, epoch_of

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk

log = getLogger(__name__)

ACCEPTED_EPOCH: Final = "acceptedEpoch"
CURRENT_EPOCH: Final = "currentEpoch"
MAX_DIGITS: Final = 20


class Epochs(NamedTuple):
    """`accepted`: the newest epoch promised to a leader; `current`: the one last joined."""

    accepted: int
    current: int


class EpochFiles:
    """The two files in `directory`, the snapshots' one."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory

    def write_accepted(self, epoch: int) -> None:
        """Durable on return; only then may the promise be given. Raises DiskWriteError."""
        self._write(ACCEPTED_EPOCH, epoch)

    def write_current(self, epoch: int) -> None:
        """Durable on return. Raises DiskWriteError."""
        self._write(CURRENT_EPOCH, epoch)

    def load(self, last_zxid: int) -> Epochs:
        """Read both files, create those that are missing, and check them against `last_zxid`.

        Raises EpochError, CorruptFile, DiskError.
        """
        last_epoch = epoch_of(last_zxid)
        current = self._read_or_create(CURRENT_EPOCH, last_epoch)
        accepted = self._read_or_create(ACCEPTED_EPOCH, last_epoch)
        if current < last_epoch <= accepted:
            # The process ended between writing what the new epoch began with, and its number
            # (ZOOKEEPER-1653, 4269). Whoever has a txn of an epoch has all before it, too, and so
            # has joined it. The reference refuses, unless it finds the number in a temporary.
            log.info("Setting current epoch to %x, of the last zxid %#x.", last_epoch, last_zxid)
            current = last_epoch
            self.write_current(current)
        if last_epoch > current:
            raise EpochError(
                f"The current epoch, {current:x}, is older than the last zxid, {last_zxid:#x}"
            )
        if accepted < current:
            raise EpochError(
                f"The accepted epoch, {accepted:x} is less than the current epoch, {current:x}"
            )
        return Epochs(accepted, current)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _read_or_create(self, name: str, default: int) -> int:
        if self._disk.exists(self._path(name)):
            return self._read(name)
        log.info(
            "%s not found! Creating with a reasonable default of %d. This should only happen when "
            "you are upgrading your installation",
            name,
            default,
        )
        self._write(name, default)
        return default

    def _read(self, name: str) -> int:
        path = self._path(name)
        line = self._disk.read(path, 0, MAX_DIGITS + 2).partition(b"\n")[0]
        try:
            epoch = int(line.decode("ascii"))
            if epoch <= EPOCH_MAX:
                return epoch
        except ValueError:
            pass
        raise CorruptFile(path, f"Found {line!r}, not an epoch", 0)

    def _write(self, name: str, epoch: int) -> None:
        path = self._path(name)
        file = self._disk.create(f"{path}.tmp")
        try:
            file.write(b"%d" % epoch, 0)
            file.fdatasync()
        finally:
            file.close()
        self._disk.rename(f"{path}.tmp", path)
        self._disk.fsync_dir(self._directory)
