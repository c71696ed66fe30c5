"""What monitoring wants to know of the process and its disks, which the core cannot ask itself.

The shell puts a real one into `ZooKeeperServer.environment`; this one answers for a server that
has neither files nor sockets, as in tests.
"""

from __future__ import annotations


class Environment:
    """Answers about the world outside the core. Sizes in bytes; -1 is unknown."""

    def data_dir(self) -> str:
        """The absolute path of the snapshots."""
        return "/version-2"

    def log_dir(self) -> str:
        """The absolute path of the transaction logs."""
        return "/version-2"

    def data_dir_size(self) -> int:
        """Bytes of all files below `data_dir`."""
        return 0

    def log_dir_size(self) -> int:
        """Bytes of all files below `log_dir`."""
        return 0

    def client_port(self) -> int:
        """The port clients can reach, -1 if there is none."""
        return -1

    def secure_client_port(self) -> int:
        """The TLS port, -1 if there is none."""
        return -1

    def open_file_descriptors(self) -> int:
        """How many are open now."""
        return -1

    def max_file_descriptors(self) -> int:
        """How many may be open."""
        return -1

    def environment_lines(self) -> list[tuple[str, str]]:
        """What `envi` shows behind the version, in its order."""
        return []
