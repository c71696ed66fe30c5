"""The process and its disks, asked for what monitoring wants to know."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from zkpy.server.environment import Environment

if TYPE_CHECKING:
    from zkpy.server.settings import Config

UNKNOWN: Final = "<NA>"
MEBIBYTE: Final = 1024 * 1024


class OsEnvironment(Environment):
    """Answers for this process. Files and descriptors are counted when asked, not before."""

    def __init__(self, config: Config) -> None:
        self._data_dir = config.data_dir
        self._log_dir = config.data_log_dir
        # Set once the ports are bound: in the configuration they may be 0, "any".
        self.bound_client_port = -1
        self.bound_secure_client_port = -1

    def data_dir(self) -> str:
        return os.path.abspath(os.path.join(self._data_dir, "version-2"))

    def log_dir(self) -> str:
        return os.path.abspath(os.path.join(self._log_dir, "version-2"))

    def data_dir_size(self) -> int:
        return size_below(self.data_dir())

    def log_dir_size(self) -> int:
        return size_below(self.log_dir())

    def client_port(self) -> int:
        return self.bound_client_port

    def secure_client_port(self) -> int:
        return self.bound_secure_client_port

    def open_file_descriptors(self) -> int:
        try:
            return len(os.listdir("/proc/self/fd")) - 1  # less the one that lists them
        except OSError:
            return -1

    def max_file_descriptors(self) -> int:
        try:
            import resource
        except ImportError:
            return -1
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def environment_lines(self) -> list[tuple[str, str]]:
        import getpass
        import platform

        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):
            user = UNKNOWN
        free_mib, total_mib, used_mib = _memory_mib()
        java = ("version", "vendor", "home", "class.path", "library.path", "io.tmpdir", "compiler")
        return [
            ("host.name", socket.gethostname()),
            *((f"java.{name}", UNKNOWN) for name in java),
            ("os.name", platform.system()),
            ("os.arch", platform.machine()),
            ("os.version", platform.release()),
            ("user.name", user),
            ("user.home", os.path.expanduser("~")),
            ("user.dir", os.getcwd()),
            ("os.memory.free", f"{free_mib}MB"),
            ("os.memory.max", f"{total_mib}MB"),
            ("os.memory.total", f"{used_mib}MB"),
        ]


def size_below(directory: str) -> int:
    """Bytes of all files below `directory`; 0 if it is not there."""
    size = 0
    todo = [directory]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue  # purged while we looked
    return size


def _memory_mib() -> tuple[int, int, int]:
    """Free and all memory of the machine, and what this process holds."""
    values = dict.fromkeys(("MemAvailable:", "MemTotal:"), 0)
    resident = 0
    if sys.platform == "linux":
        try:
            with open("/proc/meminfo", encoding="ascii") as lines:
                for line in lines:
                    name, number, *_ = line.split()
                    if name in values:
                        values[name] = int(number) // 1024
            with open("/proc/self/statm", encoding="ascii") as statm:
                pages = int(statm.read().split()[1])
                resident = pages * os.sysconf("SC_PAGE_SIZE") // MEBIBYTE
        except (OSError, ValueError, IndexError):
            pass
    return values["MemAvailable:"], values["MemTotal:"], resident
