"""Bodies of requests as they lie between two offsets of a received chunk.

Hand-written where a client can be fast; a body never borrows bytes of the frame behind it.
Raises DecodeError for what is truncated or malformed: the client gets MARSHALLINGERROR.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls, encode_acls, read_acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Record, read_ustring
from zkpy.protocol.records import (
    CheckVersionRequest,
    CreateRequest,
    CreateTTLRequest,
    DeleteRequest,
    PathWatchRequest,
    SetDataRequest,
)
from zkpy.protocol.zoodefs import TTL_MODES, OpCode

_INT: Final = struct.Struct(">i")
_MULTI_HEADER: Final = struct.Struct(">i?i")
_PART: Final = struct.Struct(">i?ii")  # MultiHeader, and the length of the path behind it
_LEAST_SET_DATA: Final = 21  # MultiHeader, two lengths, version
_LONG: Final = struct.Struct(">q")

# Encoded ACL vectors seen before. Most clients only ever send one; bounded, since they choose it.
_MAX_KNOWN_ACLS: Final = 256
_MAX_KNOWN_ACL_BYTES: Final = 512
_known_acls: dict[bytes, Acls] = {encode_acls(OPEN_ACL_UNSAFE): OPEN_ACL_UNSAFE}


def decode_path_version(buf: bytes, pos: int, end: int) -> tuple[str | None, int]:
    """DeleteRequest, CheckVersionRequest."""
    path, pos = decode_ustring(buf, pos, end)
    return path, decode_int(buf, pos, end)


def decode_int(buf: bytes, pos: int, end: int) -> int:
    """A signed 32-bit integer before `end`."""
    if end - pos < 4:
        raise DecodeError(f"int at {pos} ends behind {end}")
    value: int = _INT.unpack_from(buf, pos)[0]
    return value


def decode_ustring(buf: bytes, pos: int, end: int) -> tuple[str | None, int]:
    """A string before `end`, and the offset behind it."""
    data, pos = decode_buffer(buf, pos, end)
    return (None if data is None else data.decode("utf-8", "replace")), pos


def decode_buffer(buf: bytes, pos: int, end: int) -> tuple[bytes | None, int]:
    """A buffer before `end`, and the offset behind it."""
    if end - pos < 4:
        raise DecodeError(f"length at {pos} ends behind {end}")
    (length,) = _INT.unpack_from(buf, pos)
    pos += 4
    stop = pos + length
    if length < 0 or stop > end:
        if length == -1:
            return None, pos
        raise DecodeError(f"length {length} at {pos - 4}")
    return buf[pos:stop], stop


def decode_set_data(buf: bytes, pos: int, end: int) -> tuple[str | None, bytes | None, int, int]:
    """SetDataRequest: path, data, version; and where the version begins."""
    if end - pos >= 12:
        # The well-formed body in one go; anything odd is for the careful code below.
        (length,) = _INT.unpack_from(buf, pos)
        data_at = pos + 4 + length
        if length >= 0 and data_at + 8 <= end:
            (data_length,) = _INT.unpack_from(buf, data_at)
            stop = data_at + 4 + data_length
            if data_length >= 0 and stop + 4 <= end:
                path = buf[pos + 4 : data_at].decode("utf-8", "replace")
                return path, buf[data_at + 4 : stop], _INT.unpack_from(buf, stop)[0], stop
    path_or_null, pos = decode_ustring(buf, pos, end)
    data, pos = decode_buffer(buf, pos, end)
    return path_or_null, data, decode_int(buf, pos, end), pos


def decode_create(
    buf: bytes, pos: int, end: int, with_ttl: bool
) -> tuple[str | None, bytes | None, Acls | None, int, int, int]:
    """CreateRequest or CreateTTLRequest: path, data, acls, flags, ttl (-1 without).

    And where the flags begin.
    """
    path: str | None
    data: bytes | None
    (length,) = _INT.unpack_from(buf, pos) if end - pos >= 8 else (-1,)
    data_at = pos + 4 + length
    data_length = _INT.unpack_from(buf, data_at)[0] if 0 <= length <= end - pos - 8 else -1
    if 0 <= data_length <= end - data_at - 4:
        # The well-formed beginning in one go.
        path = buf[pos + 4 : data_at].decode("utf-8", "replace")
        pos = data_at + 4 + data_length
        data = buf[data_at + 4 : pos]
    else:
        path, pos = decode_ustring(buf, pos, end)
        data, pos = decode_buffer(buf, pos, end)
    tail = 12 if with_ttl else 4
    if end - pos < tail:
        raise DecodeError("no ACL or no flags")
    raw = buf[pos : end - tail]
    acls = _known_acls.get(raw)
    if acls is None:
        body = buf[pos:end]
        acls, used = read_acls(body, 0)
        if acls is not None and used == len(raw) <= _MAX_KNOWN_ACL_BYTES:
            if len(_known_acls) < _MAX_KNOWN_ACLS:
                _known_acls[raw] = acls
        pos += used
    else:
        pos += len(raw)
    flags = decode_int(buf, pos, end)
    if not with_ttl:
        return path, data, acls, flags, -1, pos
    if end - pos < 12:
        raise DecodeError("ttl missing")
    return path, data, acls, flags, _LONG.unpack_from(buf, pos + 4)[0], pos


def decode_path_watch(buf: bytes, pos: int, end: int) -> tuple[str | None, bool]:
    """exists, getData, getChildren, getChildren2: path, watch."""
    path, pos = decode_ustring(buf, pos, end)
    if pos >= end:
        raise DecodeError("watch flag missing")
    return path, buf[pos] != 0


class NullAcl(DecodeError):
    """A multi whose ACL vector is null: unlike other bad multis it uses up no zxid."""


_MULTI_WRITES: Final[dict[int, type[Record]]] = {
    OpCode.CREATE: CreateRequest,
    OpCode.CREATE2: CreateRequest,
    OpCode.CREATE_CONTAINER: CreateRequest,
    OpCode.CREATE_TTL: CreateTTLRequest,
    OpCode.DELETE: DeleteRequest,
    OpCode.SET_DATA: SetDataRequest,
    OpCode.CHECK: CheckVersionRequest,
}
_MULTI_READS: Final[dict[int, type[Record]]] = {
    OpCode.GET_DATA: PathWatchRequest,
    OpCode.GET_CHILDREN: PathWatchRequest,
}
_CREATES: Final = frozenset({OpCode.CREATE, OpCode.CREATE2, OpCode.CREATE_CONTAINER})

# Type, path, data, acls, flags or version, ttl; where path and data lie in the body.
Op = tuple[int, str, "bytes | None", "Acls | None", int, int, int, int]


def decode_multi(body: bytes) -> list[Op]:
    """The parts of a multi, normalised.

    Types come out as they are executed: containers by flag, TTL creates without TTL flags as
    plain creates. Raises DecodeError for the whole request, NullAcl where no zxid is used up.
    """
    ops: list[Op] = []
    pos = 0
    end = len(body)
    header_at = _MULTI_HEADER.unpack_from
    part_at = _PART.unpack_from
    int_at = _INT.unpack_from
    while True:
        if end - pos >= _LEAST_SET_DATA:
            # A well-formed setData in one go; anything odd is for the careful code below.
            type, done, _, length = part_at(body, pos)
            data_at = pos + 13 + length
            if type == OpCode.SET_DATA and not done and length >= 0 and data_at + 8 <= end:
                (data_length,) = int_at(body, data_at)
                stop = data_at + 4 + data_length
                if data_length >= 0 and stop + 4 <= end:
                    text = body[pos + 13 : data_at].decode("utf-8", "replace")
                    (version,) = int_at(body, stop)
                    ops.append(
                        (type, text, body[data_at + 4 : stop], None, version, -1, pos + 9, stop)
                    )
                    pos = stop + 4
                    continue
        if end - pos < 9:
            raise DecodeError("multi ends without its end header")
        type, done, _ = header_at(body, pos)
        pos += 9
        if done:
            return ops
        if type == OpCode.SET_DATA:
            path, data, version, stop = decode_set_data(body, pos, end)
            if path is None:
                raise DecodeError("null path inside a multi")
            ops.append((type, path, data, None, version, -1, pos, stop))
            pos = stop + 4
            continue
        if type not in _MULTI_WRITES:
            raise DecodeError(f"operation {type} inside a multi")
        op, pos = _decode_multi_op(type, body, pos, end)
        ops.append(op)


def decode_multi_header(body: bytes, pos: int) -> tuple[int, bool, int]:
    """Type, done, and the offset behind a MultiHeader."""
    if len(body) - pos < 9:
        raise DecodeError("multi ends without its end header")
    type, done, _ = _MULTI_HEADER.unpack_from(body, pos)
    return type, done, pos + 9


def _decode_multi_op(type: int, body: bytes, pos: int, end: int) -> tuple[Op, int]:
    path, pos = decode_ustring(body, pos, end)
    if path is None:
        raise DecodeError("null path inside a multi")
    if type == OpCode.DELETE or type == OpCode.CHECK:
        return (type, path, None, None, decode_int(body, pos, end), -1, 0, 0), pos + 4
    data, pos = decode_buffer(body, pos, end)
    acls, pos = read_acls(body, pos)
    flags = decode_int(body, pos, end)
    pos += 4
    ttl = -1
    if type == OpCode.CREATE_TTL:
        if end - pos < 8:
            raise DecodeError("ttl missing")
        ttl = _LONG.unpack_from(body, pos)[0]
        pos += 8
        if flags not in TTL_MODES:
            type, ttl = OpCode.CREATE, -1
    elif not 0 <= flags <= 6:
        raise DecodeError(f"flags {flags} inside a multi")
    elif acls is None:
        raise NullAcl("null ACL inside a multi")
    elif flags in TTL_MODES:
        raise DecodeError(f"flags {flags} inside a multi")
    if flags == 4 and type in _CREATES:
        type = OpCode.CREATE_CONTAINER
    return (type, path, data, acls, flags, ttl, 0, 0), pos


def decode_multi_read(body: bytes) -> list[tuple[int, str]]:
    """The parts of a multiRead as (type, path); their watch flags mean nothing."""
    ops: list[tuple[int, str]] = []
    pos = 0
    while True:
        type, done, pos = decode_multi_header(body, pos)
        if done:
            return ops
        if type not in _MULTI_READS:
            raise DecodeError(f"operation {type} inside a multiRead")
        path, pos = read_ustring(body, pos)
        if path is None or pos >= len(body):
            raise DecodeError("part of a multiRead is cut off")
        pos += 1
        ops.append((type, path))
