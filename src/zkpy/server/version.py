"""Which ZooKeeper this server is compatible with, in the form that clients parse."""

from __future__ import annotations

from typing import Final

VERSION: Final = "3.9.5"
# Where the reference shows a git commit. Ours is "zkpy" in hex, padded to the length of one: some
# clients only connect if there is a `-` and something behind it.
REVISION: Final = b"zkpy".hex().ljust(40, "0")
BUILT_ON: Final = "2026-11-24 00:00 UTC"


def zookeeper_version_text() -> str:
    """What `srvr`, `envi` and `mntr` call the version."""
    return f"{VERSION}-{REVISION}, built on {BUILT_ON}"
