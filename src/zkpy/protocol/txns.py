"""Transactions: what is logged, sent to peers and applied, byte for byte the same.

    txn = TxnHeader, record of its type, optional TxnDigest

Hand-written code, because every write encodes one and every restart decodes all; the tests compare
it with the interpreter of the same tables. Source: zookeeper.jute (module txn), SerializeUtils,
FileTxnLog, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from zkpy.protocol.acl import OPEN_ACL_UNSAFE, encode_acls, read_acls
from zkpy.protocol.acl import Acls as _Acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import (
    NULL,
    Bool,
    Buffer,
    Int,
    Long,
    Record,
    UString,
    Vector,
    encode_text,
    read_buffer,
    read_int,
    read_ustring,
)
from zkpy.protocol.zoodefs import OpCode

Acls: TypeAlias = "_Acls | None"

_HEADER = struct.Struct(">qiqqi")
_INT = struct.Struct(">i")
_INT2 = struct.Struct(">ii")
_BOOL_INT = struct.Struct(">?i")
_INT_LONG = struct.Struct(">iq")
_DIGEST = struct.Struct(">iQ")
HEADER_SIZE: Final = 32
DIGEST_SIZE: Final = 12
DIGEST_VERSION: Final = 2
OPEN_ACL: Final = encode_acls(OPEN_ACL_UNSAFE)
OPEN_ACL_SIZE: Final = len(OPEN_ACL)
MASK64: Final = (1 << 64) - 1


class TxnHeader(Record):
    """Who asked (`client_id`, `cxid`), the order (`zxid`), when (`time`, ms since 1970), what."""

    __slots__ = ("client_id", "cxid", "time", "type", "zxid")
    client_id: Long
    cxid: Int
    zxid: Long
    time: Long
    type: Int

    def __init__(self, client_id: int, cxid: int, zxid: int, time: int, type: int) -> None:
        self.client_id = client_id
        self.cxid = cxid
        self.zxid = zxid
        self.time = time
        self.type = type

    def encode(self) -> bytes:
        return _HEADER.pack(self.client_id, self.cxid, self.zxid, self.time, self.type)


class CreateTxn(Record):
    """Types 1 and 15. `parent_cversion` -1 (old logs) means one more than the parent has."""

    __slots__ = ("acl", "data", "ephemeral", "parent_cversion", "path")
    path: UString
    data: Buffer
    acl: Acls
    ephemeral: Bool
    parent_cversion: Int

    def __init__(
        self, path: str, data: bytes | None, acl: Acls, ephemeral: bool, parent_cversion: int
    ) -> None:
        self.path = path
        self.data = data
        self.acl = acl
        self.ephemeral = ephemeral
        self.parent_cversion = parent_cversion

    def encode(self) -> bytes:
        path = encode_text(self.path or "")
        data = self.data
        return b"".join(
            (
                _INT.pack(len(path)),
                path,
                NULL if data is None else _INT.pack(len(data)),
                data or b"",
                encode_acls(self.acl),
                _BOOL_INT.pack(self.ephemeral, self.parent_cversion),
            )
        )


class CreateContainerTxn(Record):
    __slots__ = ("acl", "data", "parent_cversion", "path")
    path: UString
    data: Buffer
    acl: Acls
    parent_cversion: Int


class CreateTTLTxn(Record):
    """`ttl` in ms."""

    __slots__ = ("acl", "data", "parent_cversion", "path", "ttl")
    path: UString
    data: Buffer
    acl: Acls
    parent_cversion: Int
    ttl: Long


class DeleteTxn(Record):
    """Types 2 and 20."""

    __slots__ = ("path",)
    path: UString


class SetDataTxn(Record):
    """Types 5 and 16. `version` is the new version of the data."""

    __slots__ = ("data", "path", "version")
    path: UString
    data: Buffer
    version: Int

    def __init__(self, path: str, data: bytes | None, version: int) -> None:
        self.path = path
        self.data = data
        self.version = version

    def encode(self) -> bytes:
        path = encode_text(self.path or "")
        data = self.data
        if data is None:
            return _INT.pack(len(path)) + path + _INT2.pack(-1, self.version)
        return b"".join(
            (_INT.pack(len(path)), path, _INT.pack(len(data)), data, _INT.pack(self.version))
        )


class SetACLTxn(Record):
    """`version` is the new aversion."""

    __slots__ = ("acl", "path", "version")
    path: UString
    acl: Acls
    version: Int


class CheckVersionTxn(Record):
    """Only inside a multi."""

    __slots__ = ("path", "version")
    path: UString
    version: Int


class ErrorTxn(Record):
    """A request that was refused but used up a zxid."""

    __slots__ = ("err",)
    err: Int


class CreateSessionTxn(Record):
    __slots__ = ("timeout_ms",)
    timeout_ms: Int


class CloseSessionTxn(Record):
    """`paths` are the session's ephemerals, or None where an old or odd writer left them out."""

    __slots__ = ("paths",)
    paths: Vector[UString] | None

    def encode(self) -> bytes:
        return b"" if self.paths is None else super().encode()


class SubTxn(Record):
    """One part of a multi: its type and its encoded record; `record` where it is at hand too."""

    __slots__ = ("data", "record", "type")
    type: Int
    data: Buffer

    def __init__(self, type: int, data: bytes | None, record: Record | None = None) -> None:
        self.type = type
        self.data = data
        self.record = record

    @classmethod
    def read(cls, buf: bytes, offset: int) -> tuple[SubTxn, int]:
        type, offset = read_int(buf, offset)
        data, offset = read_buffer(buf, offset)
        return cls(type, data), offset


class MultiTxn(Record):
    __slots__ = ("txns",)
    txns: Vector[SubTxn] | None

    def encode(self) -> bytes:
        txns = self.txns or ()
        out = [_INT.pack(len(txns))]
        for sub in txns:
            data = sub.data or b""
            out += (_INT2.pack(sub.type, len(data)), data)
        return b"".join(out)


class TxnDigest:
    """The tree digest once a transaction is applied; an unsigned 64-bit sum."""

    __slots__ = ("tree_digest", "version")

    def __init__(self, version: int, tree_digest: int) -> None:
        self.version = version
        self.tree_digest = tree_digest

    def encode(self) -> bytes:
        """The 12 bytes behind a transaction."""
        return _DIGEST.pack(self.version, self.tree_digest)

    def __repr__(self) -> str:
        return f"TxnDigest({self.version}, {self.tree_digest:#x})"


TXN_RECORDS: Final[dict[int, type[Record]]] = {
    OpCode.CREATE: CreateTxn,
    OpCode.CREATE2: CreateTxn,
    OpCode.DELETE: DeleteTxn,
    OpCode.SET_DATA: SetDataTxn,
    OpCode.SET_ACL: SetACLTxn,
    OpCode.CHECK: CheckVersionTxn,
    OpCode.MULTI: MultiTxn,
    OpCode.RECONFIG: SetDataTxn,
    OpCode.CREATE_CONTAINER: CreateContainerTxn,
    OpCode.DELETE_CONTAINER: DeleteTxn,
    OpCode.CREATE_TTL: CreateTTLTxn,
    OpCode.ERROR: ErrorTxn,
    OpCode.CREATE_SESSION: CreateSessionTxn,
    OpCode.CLOSE_SESSION: CloseSessionTxn,
}
# Of the others a null path is a node that is not there.
_NEEDS_PATH: Final = frozenset({OpCode.CREATE_CONTAINER, OpCode.CREATE_TTL, OpCode.RECONFIG})


def _decode_open_create(buf: bytes, offset: int) -> tuple[CreateTxn, int] | None:
    """A create with data and the open ACL, as nearly all in a log are; None for any other."""
    start = offset + 4
    end = start + int.from_bytes(buf[offset:start], "big")
    data_start = end + 4
    stop = data_start + int.from_bytes(buf[end:data_start], "big")
    # A length that is null or lies ends where the ACL cannot be.
    flags_at = stop + OPEN_ACL_SIZE
    if not buf.startswith(OPEN_ACL, stop) or len(buf) < flags_at + 5:
        return None
    ephemeral, parent_cversion = _BOOL_INT.unpack_from(buf, flags_at)
    path = buf[start:end].decode("utf-8", "replace")
    data = buf[data_start:stop]
    return CreateTxn(path, data, OPEN_ACL_UNSAFE, ephemeral, parent_cversion), flags_at + 5


def _decode_create(buf: bytes, offset: int, old_form: bool) -> tuple[CreateTxn, int]:
    common = _decode_open_create(buf, offset)
    if common is not None:
        return common
    path, offset = read_ustring(buf, offset)
    data, offset = read_buffer(buf, offset)
    acl, offset = read_acls(buf, offset)
    if offset >= len(buf):
        raise DecodeError("create txn ends before its flags")
    ephemeral = buf[offset] != 0
    offset += 1
    if old_form and offset == len(buf):
        # CreateTxnV0, written before the parent's cversion was part of it.
        return CreateTxn(_path(path), data, acl, ephemeral, -1), offset
    parent_cversion, offset = read_int(buf, offset)
    return CreateTxn(_path(path), data, acl, ephemeral, parent_cversion), offset


def _path(path: str | None) -> str:
    if path is None:
        raise DecodeError("null path in a txn")
    return path


def _decode_set_data(buf: bytes, offset: int) -> tuple[SetDataTxn, int]:
    start = offset + 4
    end = start + int.from_bytes(buf[offset:start], "big")
    data_start = end + 4
    stop = data_start + int.from_bytes(buf[end:data_start], "big")
    if stop + 4 <= len(buf):
        # Data there, and no length that lies.
        path_there = buf[start:end].decode("utf-8", "replace")
        (version,) = _INT.unpack_from(buf, stop)
        return SetDataTxn(path_there, buf[data_start:stop], version), stop + 4
    path, offset = read_ustring(buf, offset)
    data, offset = read_buffer(buf, offset)
    version, offset = read_int(buf, offset)
    return SetDataTxn(_path(path), data, version), offset


def _decode_close_session(buf: bytes, offset: int) -> tuple[CloseSessionTxn, int]:
    # Three forms: no body; a digest and no body, which looks like a vector of two paths but is too
    # short to be one; paths, perhaps with a digest behind them.
    rest = len(buf) - offset
    if rest == 0:
        return CloseSessionTxn(None), offset
    if rest == DIGEST_SIZE and _INT.unpack_from(buf, offset)[0] == DIGEST_VERSION:
        return CloseSessionTxn(None), offset
    return CloseSessionTxn.decode(buf, offset)


def decode_record(type: int, buf: bytes, offset: int = 0) -> tuple[Record, int]:
    """Decode the record of a txn of `type`; return it and the offset behind it.

    Raises DecodeError, also for a type that no txn has.
    """
    if type == OpCode.SET_DATA:
        return _decode_set_data(buf, offset)
    if type == OpCode.CREATE or type == OpCode.CREATE2:
        return _decode_create(buf, offset, type == OpCode.CREATE)
    if type == OpCode.CLOSE_SESSION:
        return _decode_close_session(buf, offset)
    record = TXN_RECORDS.get(type)
    if record is None:
        raise DecodeError(f"Unsupported Txn with type={type}")
    decoded, offset = record.decode(buf, offset)
    if type in _NEEDS_PATH:
        _path(getattr(decoded, "path"))  # noqa: B009 - not all records have one
    return decoded, offset


def decode_txn(buf: bytes) -> tuple[TxnHeader, Record, TxnDigest | None]:
    """Decode a logged or proposed txn; bytes behind the digest are ignored. Raises DecodeError."""
    try:
        header = TxnHeader(*_HEADER.unpack_from(buf))
    except struct.error:
        raise DecodeError(f"txn of {len(buf)} bytes has no header") from None
    record, offset = decode_record(header.type, buf, HEADER_SIZE)
    if len(buf) - offset >= DIGEST_SIZE:
        return header, record, TxnDigest(*_DIGEST.unpack_from(buf, offset))
    return header, record, None


# For those who make txns one by one, without an object for each part.
encode_header = _HEADER.pack
encode_digest = _DIGEST.pack


def encode_txn(header: TxnHeader, record: Record, digest: TxnDigest | None) -> bytes:
    """The bytes that are logged and sent to peers."""
    body = header.encode() + record.encode()
    return body if digest is None else body + digest.encode()
