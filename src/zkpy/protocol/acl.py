"""ACL entries as hashable tuples, and their vector on the wire.

Source: zookeeper.jute (ACL, Id), ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import NULL, PRIMITIVES, read_int, read_ustring, write_ustring

_INT = struct.Struct(">i")


class ACL(NamedTuple):
    """Who (`scheme`, `id`) may do what (`perms`, bits of `Perms`). Null strings stay None."""

    perms: int
    scheme: str | None
    id: str | None


Acls: TypeAlias = "tuple[ACL, ...]"

OPEN_ACL_UNSAFE: Final[Acls] = (ACL(31, "world", "anyone"),)
READ_ACL_UNSAFE: Final[Acls] = (ACL(1, "world", "anyone"),)


def read_acls(buf: bytes, offset: int) -> tuple[Acls | None, int]:
    """Decode vector<ACL>; null is None. Raises DecodeError."""
    count, offset = read_int(buf, offset)
    if count == -1:
        return None, offset
    if count > (len(buf) - offset) // 12:
        raise DecodeError(f"{count} ACL entries in {len(buf) - offset} bytes")
    acls = []
    for _ in range(count):
        perms, offset = read_int(buf, offset)
        scheme, offset = read_ustring(buf, offset)
        id_, offset = read_ustring(buf, offset)
        acls.append(ACL(perms, scheme, id_))
    return tuple(acls), offset


def write_acls(out: list[bytes], acls: Acls | None) -> None:
    """Append vector<ACL>."""
    if acls is None:
        out.append(NULL)
        return
    out.append(_INT.pack(len(acls)))
    for perms, scheme, id_ in acls:
        out.append(_INT.pack(perms))
        write_ustring(out, scheme)
        write_ustring(out, id_)


# Nearly all nodes of a server share a few lists; bounded, since clients choose them.
_MAX_ENCODED: Final = 256
_MAX_ENCODED_BYTES: Final = 512
_encoded: dict[Acls, bytes] = {}


def encode_acls(acls: Acls | None) -> bytes:
    """Return vector<ACL> as bytes."""
    if acls is None:
        return NULL
    known = _encoded.get(acls)
    if known is not None:
        return known
    out: list[bytes] = []
    write_acls(out, acls)
    encoded = b"".join(out)
    if len(encoded) <= _MAX_ENCODED_BYTES and len(_encoded) < _MAX_ENCODED:
        _encoded[acls] = encoded
    return encoded


PRIMITIVES["Acls"] = (read_acls, write_acls)
