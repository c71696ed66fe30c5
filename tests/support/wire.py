"""Bytes of the client protocol, written down a second time and on purpose.

Owns: a minimal encoder per request and a reader for replies, for tests that compare servers.
Must not import zkpy: a mistake in zkpy's codec has to show up as a difference here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# Opcodes
CREATE, DELETE, EXISTS, GET_DATA, SET_DATA, GET_ACL, SET_ACL = 1, 2, 3, 4, 5, 6, 7
GET_CHILDREN, SYNC, PING, GET_CHILDREN2, CHECK, MULTI, CREATE2 = 8, 9, 11, 12, 13, 14, 15
RECONFIG, CHECK_WATCHES, REMOVE_WATCHES, CREATE_CONTAINER = 16, 17, 18, 19
DELETE_CONTAINER, CREATE_TTL, MULTI_READ = 20, 21, 22
AUTH, SET_WATCHES, SASL, GET_EPHEMERALS, GET_ALL_CHILDREN_NUMBER = 100, 101, 102, 103, 104
SET_WATCHES2, ADD_WATCH, WHO_AM_I = 105, 106, 107
CREATE_SESSION, CLOSE_SESSION, ERROR = -10, -11, -1

OP_NAMES = {
    value: name
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, int)
}

# Errors
OK, RUNTIME_INCONSISTENCY, MARSHALLING, UNIMPLEMENTED, BAD_ARGUMENTS = 0, -2, -5, -6, -8
NO_NODE, NO_AUTH, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS = -101, -102, -103, -108
NODE_EXISTS, NOT_EMPTY, SESSION_EXPIRED, INVALID_ACL, AUTH_FAILED = -110, -111, -112, -114, -115
NO_WATCHER, RECONFIG_DISABLED, QUOTA_EXCEEDED = -121, -123, -125

# Event types
NODE_CREATED, NODE_DELETED, NODE_DATA_CHANGED, NODE_CHILDREN_CHANGED = 1, 2, 3, 4

READ, WRITE, CREATE_PERM, DELETE_PERM, ADMIN, ALL = 1, 2, 4, 8, 16, 31

EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL, CONTAINER, TTL, SEQUENTIAL_TTL = 1, 2, 3, 4, 5, 6

Acl = tuple[int, "str | None", "str | None"]
OPEN_ACL: list[Acl] = [(ALL, "world", "anyone")]


# Encoding


def int32(value: int) -> bytes:
    return struct.pack(">i", value)


def int64(value: int) -> bytes:
    return struct.pack(">q", value)


def boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def buffer(value: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if value is None else int32(len(value)) + value


def string(value: str | bytes | None) -> bytes:
    """`bytes` go out as they are: for text that is not valid UTF-8."""
    return buffer(value.encode() if isinstance(value, str) else value)


def vector(items: Iterable[bytes] | None) -> bytes:
    if items is None:
        return int32(-1)
    parts = list(items)
    return int32(len(parts)) + b"".join(parts)


def strings(values: Iterable[str | None] | None) -> bytes:
    return vector(None if values is None else map(string, values))


def acl_list(acl: Iterable[Acl] | None) -> bytes:
    if acl is None:
        return int32(-1)
    return vector(int32(perms) + string(scheme) + string(id_) for perms, scheme, id_ in acl)


def create(
    path: str | bytes | None,
    data: bytes | None = b"",
    flags: int = 0,
    acl: Iterable[Acl] | None = OPEN_ACL,
) -> bytes:
    """Body of create, create2 and createContainer."""
    return string(path) + buffer(data) + acl_list(acl) + int32(flags)


def create_ttl(
    path: str | None,
    data: bytes | None = b"",
    flags: int = TTL,
    ttl_ms: int = 1000,
    acl: Iterable[Acl] | None = OPEN_ACL,
) -> bytes:
    return create(path, data, flags, acl) + int64(ttl_ms)


def path_version(path: str | bytes | None, version: int = -1) -> bytes:
    """Body of delete and check."""
    return string(path) + int32(version)


def path_watch(path: str | bytes | None, watch: bool = False) -> bytes:
    """Body of exists, getData, getChildren and getChildren2."""
    return string(path) + boolean(watch)


def set_data(path: str | bytes | None, data: bytes | None = b"", version: int = -1) -> bytes:
    return string(path) + buffer(data) + int32(version)


def set_acl(path: str | None, acl: Iterable[Acl] | None, version: int = -1) -> bytes:
    return string(path) + acl_list(acl) + int32(version)


def path_type(path: str | None, type_: int) -> bytes:
    """Body of addWatch (its mode), removeWatches and checkWatches."""
    return string(path) + int32(type_)


def auth(scheme: str | None, credential: bytes | None) -> bytes:
    return int32(0) + string(scheme) + buffer(credential)


def set_watches(relative_zxid: int, *lists: Iterable[str | None] | None) -> bytes:
    """Three lists (data, exist, child) for setWatches, five for setWatches2."""
    return int64(relative_zxid) + b"".join(map(strings, lists))


def multi_header(type_: int, done: bool = False, err: int = -1) -> bytes:
    return int32(type_) + boolean(done) + int32(err)


MULTI_END = multi_header(-1, True)


def multi(operations: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(multi_header(type_) + body for type_, body in operations) + MULTI_END


def reconfig(
    joining: str | None, leaving: str | None, members: str | None, config_id: int = -1
) -> bytes:
    return string(joining) + string(leaving) + string(members) + int64(config_id)


# Decoding


class Stat(NamedTuple):
    """Stat as a client sees it: 68 bytes, in the order of the wire."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int


class Event(NamedTuple):
    """WatcherEvent, with the zxid of its reply header."""

    type: int
    state: int
    path: str | None
    zxid: int


class Reader:
    """Reads one payload front to back; running out of bytes raises struct.error or ValueError."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.offset = 0

    def _unpack(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self.payload, self.offset)
        self.offset += struct.calcsize(layout)
        return value

    def int32(self) -> int:
        return int(self._unpack(">i"))

    def int64(self) -> int:
        return int(self._unpack(">q"))

    def boolean(self) -> bool:
        return bool(self._unpack(">?"))

    def buffer(self) -> bytes | None:
        length = self.int32()
        if length == -1:
            return None
        if length < 0 or self.offset + length > len(self.payload):
            raise ValueError(f"length {length} at {self.offset} of {len(self.payload)}")
        self.offset += length
        return self.payload[self.offset - length : self.offset]

    def string(self) -> str | None:
        raw = self.buffer()
        return None if raw is None else raw.decode("utf-8", "surrogatepass")

    def vector(self, element: Callable[[], T]) -> list[T] | None:
        count = self.int32()
        return None if count == -1 else [element() for _ in range(count)]

    def strings(self) -> list[str | None] | None:
        return self.vector(self.string)

    def stat(self) -> Stat:
        values = struct.unpack_from(">qqqqiiiqiiq", self.payload, self.offset)
        self.offset += 68
        return Stat(*values)

    def acl(self) -> Acl:
        return (self.int32(), self.string(), self.string())

    def acls(self) -> list[Acl] | None:
        return self.vector(self.acl)

    @property
    def left(self) -> int:
        return len(self.payload) - self.offset

    def end(self) -> None:
        assert self.left == 0, f"{self.left} bytes too many: {self.payload.hex()}"


class Result(NamedTuple):
    """One result of a multi: `type` and the header's `err`, then what the type says."""

    type: int
    err: int
    value: Any


def decode_multi(reader: Reader) -> list[Result]:
    """The results up to the end header, which is checked and left out."""
    results: list[Result] = []
    while True:
        type_, done, err = reader.int32(), reader.boolean(), reader.int32()
        if done:
            assert (type_, err) == (-1, -1), f"odd end of multi: {type_}, {err}"
            return results
        value: Any = reader.int32() if type_ == ERROR else decode_body(type_, reader)
        results.append(Result(type_, err, value))


def decode_body(op: int, reader: Reader) -> Any:
    """The response record of a successful reply to `op`; None for those without one."""
    if op in (CREATE, SYNC):
        return reader.string()
    if op in (CREATE2, CREATE_CONTAINER, CREATE_TTL):
        return reader.string(), reader.stat()
    if op in (EXISTS, SET_DATA, SET_ACL):
        return reader.stat()
    if op in (GET_DATA, RECONFIG):
        return reader.buffer(), reader.stat()
    if op == GET_ACL:
        return reader.acls(), reader.stat()
    if op in (GET_CHILDREN, GET_EPHEMERALS):
        return reader.strings()
    if op == SASL:
        return reader.buffer()
    if op == GET_CHILDREN2:
        return reader.strings(), reader.stat()
    if op in (GET_ALL_CHILDREN_NUMBER, ADD_WATCH):
        return reader.int32()
    if op == WHO_AM_I:
        return reader.vector(lambda: (reader.string(), reader.string()))
    if op in (MULTI, MULTI_READ):
        return decode_multi(reader)
    return None
