"""Purging: which old snapshots and logs may go, as a function, and the removal.

Source: PurgeTxnLog, FileTxnSnapLog.getSnapshotLogs, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING, Final

from zkpy.persistence.files import logs_in, snapshots_in
from zkpy.persistence.snapshot import FileSnap

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk

log = getLogger(__name__)

MIN_RETAIN_COUNT: Final = 3


def purgeable(
    snapshots: list[tuple[int, str]], valid: list[tuple[int, str]], logs: list[int], retain: int
) -> tuple[list[str], list[str]]:
    """Names of the snapshots and of the logs that may go, oldest first.

    `snapshots`: all, (zxid, name); `valid`: those that look complete, newest first; `logs`: first
    zxids. The `retain` newest valid snapshots stay, and every log that a replay from one of them
    could need. Nothing goes where no snapshot is valid.
    """
    if not valid:
        return [], []
    oldest_kept = valid[: max(retain, 1)][-1][0]
    old_snapshots = [name for zxid, name in sorted(snapshots) if zxid < oldest_kept]
    old_logs = sorted(zxid for zxid in logs if zxid <= oldest_kept)
    # The last of these begins before the snapshot and may hold what follows it; the one that
    # begins with the snapshot's own zxid certainly does.
    newest_old = old_logs[-1] if old_logs else -1
    return old_snapshots, [f"log.{zxid:x}" for zxid in old_logs if zxid < newest_old]


def purge(disk: Disk, snap_directory: str, log_directory: str, retain: int) -> list[str]:
    """Remove what may go; returns the paths. `retain` is at least 3.

    Snapshots go first: whenever a crash comes, the snapshots that are left have their logs.
    Raises DiskError.
    """
    if retain < MIN_RETAIN_COUNT:
        log.warning("snapRetainCount %d is too small, keeping %d", retain, MIN_RETAIN_COUNT)
        retain = MIN_RETAIN_COUNT
    valid = FileSnap(disk, snap_directory).find_valid(retain)
    old_snapshots, old_logs = purgeable(
        snapshots_in(disk, snap_directory), valid, logs_in(disk, log_directory), retain
    )
    removed = []
    for directory, names in ((snap_directory, old_snapshots), (log_directory, old_logs)):
        for name in names:
            log.info("Removing file: %s/%s", directory, name)
            disk.remove(f"{directory}/{name}")
            removed.append(f"{directory}/{name}")
        if names:
            # Before the next kind: a log must not be gone while its snapshot comes back.
            disk.fsync_dir(directory)
    return removed
