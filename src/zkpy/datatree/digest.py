"""The tree digest: a sum over nodes that members compare to find out that they differ.

Source: DigestCalculator, ZooKeeper 3.9 (digest version 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from zkpy.protocol.jute import encode_text
from zkpy.protocol.txns import MASK64

if TYPE_CHECKING:
    from zkpy.datatree.node import DataNode


COPY_BYTES: Final = 4096


def node_digest(path: str, data: bytes | None, stat: bytes) -> int:
    """Unsigned 32 bits; 0 below /zookeeper/, which differs between members. The root is ""."""
    if path.startswith("/zookeeper/"):
        return 0
    name = path.encode() if path.isascii() else encode_text(path)
    if not data:
        return crc32(name + stat)
    if len(data) < COPY_BYTES:
        return crc32(name + data + stat)  # one call, even with the copy, costs less than three
    return crc32(stat, crc32(data, crc32(name)))


def digest_change(
    path: str, old: bytes | None, old_stat: bytes, new: bytes | None, new_stat: bytes
) -> int:
    """What a change of a node adds to the tree's digest (may be negative)."""
    if path.startswith("/zookeeper/"):
        return 0
    name = crc32(path.encode() if path.isascii() else encode_text(path))
    if old is new and old and len(old) >= COPY_BYTES:
        # That of a parent, when a child comes or goes: once through it is enough.
        name = crc32(old, name)
        old = new = None
    return _rest(name, new, new_stat) - _rest(name, old, old_stat)


def _rest(name: int, data: bytes | None, stat: bytes) -> int:
    if not data:
        return crc32(stat, name)
    if len(data) < COPY_BYTES:
        return crc32(data + stat, name)
    return crc32(stat, crc32(data, name))


def tree_digest(nodes: dict[str, DataNode]) -> int:
    """The digest of a whole tree, unsigned 64 bits."""
    total = 0
    for path, node in nodes.items():
        if path != "/":
            total += node_digest(path, node.data, node.stat)
    return total & MASK64
