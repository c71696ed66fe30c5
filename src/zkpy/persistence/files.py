"""Names of data files: `log.<zxid>`, `snapshot.<zxid>` and its compressed forms, zxids in hex.

Stricter than the reference, which also takes `log.1.bak` for a log: a copy or a half-written file
must not be read as data. Source: Util, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk

LOG: Final = "log."
SNAPSHOT: Final = "snapshot."
SUFFIXES: Final = ("", ".gz", ".snappy")
# Begins the names of files under way, which neither implementation takes for data. Left over from
# a crash, they are removed at the next start.
TEMPORARY: Final = "zkpy-tmp."


def log_zxid(name: str) -> int | None:
    """Zxid of the first record of log file `name`; None if it is not the name of a log file."""
    return _zxid(name[len(LOG) :]) if name.startswith(LOG) else None


def snapshot_zxid(name: str) -> int | None:
    """Zxid from which the log continues snapshot `name`; None if it is not one's name."""
    if not name.startswith(SNAPSHOT):
        return None
    digits, dot, suffix = name[len(SNAPSHOT) :].partition(".")
    return _zxid(digits) if dot + suffix in SUFFIXES else None


def _zxid(text: str) -> int | None:
    try:
        zxid = int(text, 16)
    except ValueError:
        return None
    return zxid if f"{zxid:x}" == text and 0 <= zxid < 1 << 63 else None


def logs_in(disk: Disk, directory: str) -> list[int]:
    """First zxids of the log files, ascending."""
    zxids = [log_zxid(name) for name in disk.list_dir(directory)]
    return sorted(zxid for zxid in zxids if zxid is not None)


def snapshots_in(disk: Disk, directory: str) -> list[tuple[int, str]]:
    """(zxid, name) of the snapshot files, newest first."""
    found = [(snapshot_zxid(name), name) for name in disk.list_dir(directory)]
    return sorted(((z, name) for z, name in found if z is not None), reverse=True)


def logs_from(zxids: list[int], from_zxid: int) -> list[int]:
    """Those of `zxids` (ascending) that a reader from `from_zxid` on needs.

    All that start there or later, and the last one before, which may reach beyond it.
    """
    first = 0
    for index, zxid in enumerate(zxids):
        if zxid < from_zxid:
            first = index
    return zxids[first:]
