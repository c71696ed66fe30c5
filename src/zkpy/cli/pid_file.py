"""The pid file, and whether the process it names is there and can be the one that was meant.

A number outlives its process: after a crash or a boot it may name nobody, or anybody.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

# By which a process may seem younger than it is: clocks are set, and times are rounded.
SLACK_S: Final = 10.0
# What the command line of a server has in it, ours or Apache's.
SERVERS: Final = (b"zkpy.cli.server", b"zkpy-server", b"QuorumPeerMain", b"ZooKeeperServerMain")
MAX_PID: Final = 1 << 30


class PidFile:
    """An open pid file: the number without a line end. Locked, so commands go one by one.

    `with` closes it. A context in which the file is replaced or removed is not waited for in vain:
    the file that has the name is the one that is locked.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.written_s = os.fstat(descriptor).st_mtime
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: str) -> PidFile:
        """Open it for a start: it is made where it is not, and its folder too. Raises OSError."""
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return cls(path, _open_locked(path, os.O_RDWR | os.O_CREAT))

    @classmethod
    def find(cls, path: str) -> PidFile | None:
        """Open it where it is; else None. Raises OSError."""
        try:
            try:
                descriptor = _open_locked(path, os.O_RDWR)
            except PermissionError:
                descriptor = _open_locked(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return cls(path, descriptor)

    def __enter__(self) -> PidFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)

    def text(self) -> str:
        """What it holds, without blanks around."""
        return os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip()

    def running(self) -> int | None:
        """The process it names, if that can be the server: it lives, and did when this was written.

        A process which is younger than the file is another one, unless it is a server's: then the
        clock may have been set since.
        """
        pid = parse_pid(self.text())
        if pid is None or pid == os.getpid() or not is_alive(pid):
            return None
        if is_younger(pid, self.written_s) and not is_server(pid):
            return None
        return pid

    def write(self, pid: int) -> None:
        """Replace what it holds. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d" % pid, 0)

    def remove(self) -> None:
        """Raises OSError."""
        os.unlink(self.path)


def _open_locked(path: str, flags: int) -> int:
    flags |= os.O_CLOEXEC | os.O_NONBLOCK  # a pipe of that name must not hold us
    if os.geteuid() == 0:
        flags |= os.O_NOFOLLOW  # or whoever may write to the folder chooses what root overwrites
    while True:
        descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return descriptor  # a file system without locks
        try:
            found = os.stat(path)
            held = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # it was removed while we waited: again, with the one that is there


def parse_pid(text: str) -> int | None:
    """A process number; None for what would mean a group of processes, or all, to kill(2)."""
    if not text.isascii() or not text.isdecimal():
        return None
    pid = int(text[:20])
    return pid if 0 < pid < MAX_PID else None


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet does not any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's
    fields = _stat_fields(pid)
    return not fields or fields[0] not in ("Z", "X")


def is_younger(pid: int, written_s: float) -> bool:
    """Whether the process began after `written_s` (Unix time); False where that is not known."""
    fields = _stat_fields(pid)
    if not fields:
        return False
    with open("/proc/uptime", encoding="ascii") as file:
        uptime_s = float(file.read().split()[0])
    age_s = uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return age_s + SLACK_S < time.time() - written_s


def is_server(pid: int) -> bool:
    """Whether its command line is that of a ZooKeeper server; True where that is not known."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
    except OSError:
        return True
    return any(name in words for name in SERVERS)


def holder_of(lock_path: str) -> int | None:
    """The process that wrote its number into this lock file of a data directory, if it lives.

    The lock itself is not tried: a server which starts at that moment would find it taken.
    """
    try:
        with open(lock_path, encoding="ascii", errors="replace") as file:
            pid = parse_pid(file.read(64).strip())
            written_s = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    if pid is None or pid == os.getpid() or not _stat_fields(pid) or not is_alive(pid):
        return None
    return None if is_younger(pid, written_s) or not is_server(pid) else pid


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where there is no such file."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []
