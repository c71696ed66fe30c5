"""Four letter words: which there are, which may run, and who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.zkserver import ZooKeeperServer

COMMANDS: Final[dict[bytes, str]] = {b"ruok": "ruok", b"srvr": "srvr"}


def execute(server: ZooKeeperServer, cnxn: ServerCnxn, name: str, rest: bytes) -> bytes | None:
    """The answer to `name`; None for silence."""
    if name == "ruok":
        return b"imok"
    return b"Zookeeper version: 3.9.5-zkpy, built on 2026-01-01 00:00 UTC\nMode: standalone\n"
