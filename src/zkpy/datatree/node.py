"""One znode, small: its stat is 60 packed bytes, not eleven Python integers.

Owns the layout of a stored stat and the meaning of ephemeralOwner; knows nothing of paths or trees.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zkpy.datatree.children import Children

# czxid mzxid pzxid ctime mtime, version cversion aversion, ephemeralOwner: the order in which the
# digest wants them. cversion counts creations only, as stored on disk; clients see
# 2 * cversion - numChildren.
NODE_STAT: Final = struct.Struct(">qqqqqiiiq")
EMPTY_STAT: Final = bytes(60)

CONTAINER_OWNER: Final = -(1 << 63)
TTL_MASK: Final = (1 << 40) - 1

# Kinds of ephemeralOwner.
PERSISTENT: Final = 0
EPHEMERAL: Final = 1
CONTAINER: Final = 2
TTL: Final = 3


class DataNode:
    """Data (None is not empty), id of its ACL in the tree's cache, packed stat, children."""

    __slots__ = ("acl", "children", "data", "stat")

    def __init__(self, data: bytes | None, acl: int, stat: bytes) -> None:
        self.data = data
        self.acl = acl
        self.stat = stat
        self.children: Children | None = None


def wrap32(value: int) -> int:
    """The signed 32-bit integer that Java arithmetic would have ended with."""
    return ((value + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def ttl_owner(ttl_ms: int) -> int:
    """The ephemeralOwner of a TTL node: 0xff, two zero bytes, 40 bits of milliseconds."""
    return (ttl_ms & TTL_MASK) - (1 << 56)


def owner_kind(owner: int, extended_types: bool, emulate_353: bool = False) -> int:
    """PERSISTENT, EPHEMERAL, CONTAINER or TTL.

    TTL owners exist only with extended types; without them they are ids of dead sessions.
    Source: EphemeralType, EphemeralTypeEmulate353, ZooKeeper 3.9.
    """
    if owner == 0:
        return PERSISTENT
    if owner == CONTAINER_OWNER:
        return CONTAINER
    if extended_types and owner < 0:
        if emulate_353:
            return TTL
        if (owner >> 56) & 0xFF == 0xFF:
            return TTL
    return EPHEMERAL


def ttl_of(owner: int, emulate_353: bool = False) -> int:
    """Milliseconds a TTL owner stands for."""
    return owner & (0x0FFFFFFFFFFFFFFF if emulate_353 else TTL_MASK)
