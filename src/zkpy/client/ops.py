"""Operations of a multi and of a multiRead: to bytes, and their results from bytes.

Source: MultiOperationRecord, MultiResponse, Op, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zkpy.client import codec
from zkpy.client.errors import error_of, multi_failed
from zkpy.client.paths import prepend_chroot, strip_chroot, validate_path
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.errors import DecodeError, KeeperError
from zkpy.protocol.records import STAT
from zkpy.protocol.zoodefs import SEQUENTIAL_MODES, TTL_MODES, CreateMode, OpCode

_HEADER = struct.Struct(">i?i")  # type, done, err
_INT = struct.Struct(">i")
_END: Final = _HEADER.pack(-1, True, -1)


@dataclass(frozen=True, slots=True)
class Op:
    """An operation of a multi."""

    path: str


@dataclass(frozen=True, slots=True)
class ReadOp:
    """An operation of a multiRead."""

    path: str


@dataclass(frozen=True, slots=True)
class Create(Op):
    """Result: the path of the node. `ttl_ms` for the modes that have one."""

    data: bytes | None = b""
    acl: Acls = OPEN_ACL_UNSAFE
    mode: int = CreateMode.PERSISTENT
    ttl_ms: int = -1


@dataclass(frozen=True, slots=True)
class Delete(Op):
    """Result: None."""

    version: int = -1


@dataclass(frozen=True, slots=True)
class SetData(Op):
    """Result: the node's Stat."""

    data: bytes | None
    version: int = -1


@dataclass(frozen=True, slots=True)
class Check(Op):
    """The node is there and has that version. Result: None."""

    version: int = -1


@dataclass(frozen=True, slots=True)
class GetData(ReadOp):
    """Result: (data, Stat)."""


@dataclass(frozen=True, slots=True)
class GetChildren(ReadOp):
    """Result: the names."""


def encode_op(op: Op | ReadOp, path: str) -> tuple[int, bytes]:
    """(opcode, request record) of an operation on the server's `path`."""
    if isinstance(op, Create):
        return encode_create(op, path)
    if isinstance(op, SetData):
        return OpCode.SET_DATA, codec.set_data(path, op.data, op.version)
    if isinstance(op, GetData):
        return OpCode.GET_DATA, codec.path_watch(path, False)
    if isinstance(op, GetChildren):
        return OpCode.GET_CHILDREN, codec.path_watch(path, False)
    if isinstance(op, Delete):
        return OpCode.DELETE, codec.delete(path, op.version)
    if isinstance(op, Check):
        return OpCode.CHECK, codec.delete(path, op.version)
    raise TypeError(f"not an operation: {op!r}")


def encode_create(op: Create, path: str, stat: bool = False) -> tuple[int, bytes]:
    """(opcode, request record); `stat`: by an opcode that answers with a Stat as well.

    The kind of a container or TTL node is decided by the opcode, not by the flags alone.
    """
    acl = tuple(op.acl)
    if op.mode in TTL_MODES:
        return OpCode.CREATE_TTL, codec.create_ttl(path, op.data, acl, op.mode, op.ttl_ms)
    body = codec.create(path, op.data, acl, op.mode)
    if op.mode == CreateMode.CONTAINER:
        return OpCode.CREATE_CONTAINER, body
    return (OpCode.CREATE2 if stat else OpCode.CREATE), body


def encode_multi(ops: Iterable[Op | ReadOp], chroot: str) -> bytes:
    """The body of a multi or multiRead. Raises ValueError on a path that names no node."""
    out = []
    for op in ops:
        is_sequential = isinstance(op, Create) and op.mode in SEQUENTIAL_MODES
        validate_path(op.path, is_sequential)
        opcode, body = encode_op(op, prepend_chroot(chroot, op.path, is_sequential))
        out.append(_HEADER.pack(opcode, False, -1))
        out.append(body)
    out.append(_END)
    return b"".join(out)


def decode_multi(payload: bytes, ops: Sequence[Op | ReadOp], chroot: str) -> list[Any]:
    """One result per operation; a failed one's is its KeeperError. Raises DecodeError."""
    results: list[Any] = []
    offset = codec.HEADER_BYTES
    while True:
        type_, done, _ = _HEADER.unpack_from(payload, offset)
        offset += _HEADER.size
        if done:
            break
        if len(results) == len(ops):
            raise DecodeError(f"more than {len(ops)} results")
        result, offset = _result(type_, payload, offset, ops[len(results)], chroot)
        results.append(result)
    if len(results) != len(ops):
        raise DecodeError(f"{len(results)} results for {len(ops)} operations")
    return results


def _result(
    type_: int, payload: bytes, offset: int, op: Op | ReadOp, chroot: str
) -> tuple[Any, int]:
    if type_ == OpCode.ERROR:
        (code,) = _INT.unpack_from(payload, offset)
        return (error_of(code, op.path) if code else None), offset + 4
    if type_ in (OpCode.CREATE, OpCode.CREATE2):
        path, offset = codec.text_at(payload, offset)
        end = offset if type_ == OpCode.CREATE else offset + STAT.size
        return strip_chroot(chroot, path), end
    if type_ == OpCode.SET_DATA:
        return codec.stat_at(payload, offset), offset + STAT.size
    if type_ == OpCode.GET_DATA:
        return codec.data_at(payload, offset)
    if type_ == OpCode.GET_CHILDREN:
        return codec.names_at(payload, offset)
    if type_ in (OpCode.DELETE, OpCode.CHECK):
        return None, offset
    raise DecodeError(f"result of type {type_}")


def raise_if_failed(results: list[Any]) -> list[Any]:
    """The results of a multi. Raises MultiFailed, in which nothing was done."""
    if any(isinstance(result, KeeperError) for result in results):
        raise multi_failed(results)
    return results
