"""Requests to bytes and replies to values, by hand for what is asked often.

The rest goes through the records' tables (zkpy.protocol.records), against which the tests hold
this. A decoder takes a reply's payload, whose record begins at byte 16, and returns what the caller
of the operation gets; it raises DecodeError or struct.error on bytes that are not that record.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from zkpy.protocol import records as r
from zkpy.protocol.acl import Acls, encode_acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import encode_text
from zkpy.protocol.records import STAT

_INT = struct.Struct(">i")
_INT_LONG = struct.Struct(">iq")
_PATH_WATCH_END: Final = (b"\0", b"\1")
HEADER_BYTES: Final = 16

Decoder: TypeAlias = Callable[[bytes], Any]


class Stat(NamedTuple):
    """What a server says of a node. Times in ms since 1970, zxids of the latest changes.

    `cversion` counts children made and removed, `ephemeralOwner` is a session id or 0.
    """

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeralOwner: int
    dataLength: int
    numChildren: int
    pzxid: int


class ClientInfo(NamedTuple):
    """One of the identities of a connection."""

    auth_scheme: str
    user: str


# Encoding


def text(value: str | None) -> bytes:
    """A ustring."""
    if value is None:
        return b"\xff\xff\xff\xff"
    data = encode_text(value)
    return _INT.pack(len(data)) + data


def buffer(value: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if value is None else _INT.pack(len(value)) + value


def path_watch(path: str, watch: bool) -> bytes:
    """exists, getData, getChildren, getChildren2."""
    data = encode_text(path)
    return _INT.pack(len(data)) + data + _PATH_WATCH_END[watch]


def create(path: str, data: bytes | None, acl: Acls, flags: int) -> bytes:
    return text(path) + buffer(data) + encode_acls(acl) + _INT.pack(flags)


def create_ttl(path: str, data: bytes | None, acl: Acls, flags: int, ttl_ms: int) -> bytes:
    return text(path) + buffer(data) + encode_acls(acl) + _INT_LONG.pack(flags, ttl_ms)


def set_data(path: str, data: bytes | None, version: int) -> bytes:
    return text(path) + buffer(data) + _INT.pack(version)


def delete(path: str, version: int) -> bytes:
    """delete, check."""
    return text(path) + _INT.pack(version)


# Decoding


def nothing(payload: bytes) -> None:
    """A reply that is a header only."""


def stat_at(payload: bytes, offset: int) -> Stat:
    return Stat._make(STAT.unpack_from(payload, offset))


def stat(payload: bytes) -> Stat:
    """exists, setData, setACL."""
    return Stat._make(STAT.unpack_from(payload, HEADER_BYTES))


def buffer_at(payload: bytes, offset: int) -> tuple[bytes | None, int]:
    (length,) = _INT.unpack_from(payload, offset)
    offset += 4
    if length < 0:
        if length == -1:
            return None, offset
        raise DecodeError(f"length {length} at {offset - 4}")
    end = offset + length
    if end > len(payload):
        raise DecodeError(f"length {length} at {offset - 4} of {len(payload)} bytes")
    return payload[offset:end], end


def text_at(payload: bytes, offset: int) -> tuple[str, int]:
    """A ustring; null, which no server sends here, reads as empty."""
    data, offset = buffer_at(payload, offset)
    return ("" if data is None else data.decode("utf-8", "replace")), offset


def path(payload: bytes) -> str:
    """create, sync."""
    return text_at(payload, HEADER_BYTES)[0]


def path_and_stat(payload: bytes) -> tuple[str, Stat]:
    """create2, createContainer, createTTL."""
    name, offset = text_at(payload, HEADER_BYTES)
    return name, stat_at(payload, offset)


def data_at(payload: bytes, offset: int) -> tuple[tuple[bytes | None, Stat], int]:
    data, offset = buffer_at(payload, offset)
    return (data, stat_at(payload, offset)), offset + STAT.size


def data(payload: bytes) -> tuple[bytes | None, Stat]:
    """getData, reconfig."""
    return data_at(payload, HEADER_BYTES)[0]


def names_at(payload: bytes, offset: int) -> tuple[list[str], int]:
    """vector<ustring>; null and negative counts read as empty."""
    unpack = _INT.unpack_from
    (count,) = unpack(payload, offset)
    offset += 4
    size = len(payload)
    names = []
    for _ in range(count):
        (length,) = unpack(payload, offset)
        offset += 4
        end = offset + length
        if length < 0 or end > size:
            raise DecodeError(f"name of {length} bytes at {offset} of {size}")
        names.append(payload[offset:end].decode("utf-8", "replace"))
        offset = end
    return names, offset


def names(payload: bytes) -> list[str]:
    """getChildren, getEphemerals."""
    return names_at(payload, HEADER_BYTES)[0]


def names_and_stat(payload: bytes) -> tuple[list[str], Stat]:
    """getChildren2."""
    found, offset = names_at(payload, HEADER_BYTES)
    return found, stat_at(payload, offset)


def acl_and_stat(payload: bytes) -> tuple[Acls, Stat]:
    """getACL."""
    reply, _ = r.GetACLResponse.decode(payload, HEADER_BYTES)
    return reply.acl or (), Stat(*(getattr(reply.stat, name) for name in Stat._fields))


def number(payload: bytes) -> int:
    """getAllChildrenNumber."""
    count: int = _INT.unpack_from(payload, HEADER_BYTES)[0]
    return count


def identities(payload: bytes) -> list[ClientInfo]:
    """whoAmI."""
    reply, _ = r.WhoAmIResponse.decode(payload, HEADER_BYTES)
    found = reply.clientInfo or []
    return [ClientInfo(each.authScheme or "", each.user or "") for each in found]
