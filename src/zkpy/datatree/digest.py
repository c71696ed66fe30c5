"""The tree digest: a sum over nodes that members compare to find out that they differ.

Source: DigestCalculator, ZooKeeper 3.9 (digest version 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from zkpy.protocol.jute import encode_text
from zkpy.protocol.txns import MASK64

if TYPE_CHECKING:
    from zkpy.datatree.node import DataNode


def node_digest(path: str, data: bytes | None, stat: bytes) -> int:
    """Unsigned 32 bits; 0 below /zookeeper/, which differs between members. The root is ""."""
    if path.startswith("/zookeeper/"):
        return 0
    if data:
        return crc32(stat, crc32(data, crc32(encode_text(path))))
    return crc32(stat, crc32(encode_text(path)))


def tree_digest(nodes: dict[str, DataNode]) -> int:
    """The digest of a whole tree, unsigned 64 bits."""
    total = 0
    for path, node in nodes.items():
        if path != "/":
            total += node_digest(path, node.data, node.stat)
    return total & MASK64
