"""Transactions to changes: one function per type, total for whatever passed validation.

A failure inside (a node that replay finds missing or present) becomes the result's error and the
load goes on. Source: DataTree.processTxn, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container
from typing import Any, Final

from zkpy.datatree.node import CONTAINER_OWNER, DataNode, ttl_owner
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, encode_acls
from zkpy.protocol.errors import DecodeError, KeeperError
from zkpy.protocol.jute import Record
from zkpy.protocol.txns import (
    DIGEST_SIZE,
    DIGEST_VERSION,
    HEADER_SIZE,
    ErrorTxn,
    SubTxn,
    TxnHeader,
    decode_record,
    decode_txn,
)
from zkpy.protocol.zoodefs import OpCode

RUNTIME_INCONSISTENCY: Final = -2

_HEADER: Final = struct.Struct(">qiqqi")
_INT: Final = struct.Struct(">i")
# A part of a multi: type and length of its record, length of the path with which that begins.
_SUB: Final = struct.Struct(">iii")
_DIGEST: Final = struct.Struct(">iQ")
# The end of most creates, before the parent's cversion: open to all, not ephemeral.
_OPEN_ACL_PERSISTENT: Final = encode_acls(OPEN_ACL_UNSAFE) + b"\0"
_OPEN_ACL_PERSISTENT_SIZE: Final = len(_OPEN_ACL_PERSISTENT)
PATH_START: Final = HEADER_SIZE + 4
SET_DATA: Final = OpCode.SET_DATA
CREATE: Final = OpCode.CREATE
CREATE2: Final = OpCode.CREATE2
MULTI: Final = OpCode.MULTI


class TxnResult:
    """Outcome of one txn, or of one part of a multi.

    `stat` is the wire stat of `node` at that moment; parts of a multi only, since a later part may
    change the node again.
    """

    __slots__ = ("err", "node", "path", "stat", "subs", "type")

    def __init__(self, type: int, err: int, path: str, node: DataNode | None) -> None:
        self.type = type
        self.err = err
        self.path = path
        self.node = node
        self.stat = b""
        self.subs: list[TxnResult] | None = None


class AppliedTxn(TxnResult):
    """Outcome of a txn that came as bytes: with the fields of its header.

    `digest`: of its proposer's tree after it; None if the txn does not say.
    """

    __slots__ = ("client_id", "cxid", "digest", "time", "zxid")

    def __init__(
        self,
        client_id: int,
        cxid: int,
        zxid: int,
        time: int,
        type: int,
        err: int,
        path: str,
        node: DataNode | None,
        digest: int | None,
    ) -> None:
        self.client_id = client_id
        self.cxid = cxid
        self.zxid = zxid
        self.time = time
        self.type = type
        self.err = err
        self.path = path
        self.node = node
        self.stat = b""
        self.subs = None
        self.digest = digest


def _create(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    owner = header.client_id if txn.ephemeral else 0
    return tree.create_node(
        txn.path, txn.data, txn.acl or (), owner, txn.parent_cversion, header.zxid, header.time
    )


def _create_container(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    return tree.create_node(
        txn.path,
        txn.data,
        txn.acl or (),
        CONTAINER_OWNER,
        txn.parent_cversion,
        header.zxid,
        header.time,
    )


def _create_ttl(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    return tree.create_node(
        txn.path,
        txn.data,
        txn.acl or (),
        ttl_owner(txn.ttl),
        txn.parent_cversion,
        header.zxid,
        header.time,
    )


def _delete(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    tree.delete_node(txn.path or "", header.zxid)
    return None


def _set_data(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    return tree.set_data(txn.path, txn.data, txn.version, header.zxid, header.time)


def _set_acl(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    return tree.set_acl(txn.path or "", txn.acl or (), txn.version)


def _check(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    return None


def _create_session(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    tree.sessions[header.client_id] = txn.timeout_ms
    return None


def _close_session(tree: DataTree, header: TxnHeader, txn: Any) -> DataNode | None:
    tree.close_session(header.client_id, txn.paths, header.zxid)
    return None


_APPLY: Final[dict[int, Callable[[DataTree, TxnHeader, Any], DataNode | None]]] = {
    OpCode.CREATE: _create,
    OpCode.CREATE2: _create,
    OpCode.CREATE_CONTAINER: _create_container,
    OpCode.CREATE_TTL: _create_ttl,
    OpCode.DELETE: _delete,
    OpCode.DELETE_CONTAINER: _delete,
    OpCode.SET_DATA: _set_data,
    OpCode.RECONFIG: _set_data,
    OpCode.SET_ACL: _set_acl,
    OpCode.CHECK: _check,
    OpCode.CREATE_SESSION: _create_session,
    OpCode.CLOSE_SESSION: _close_session,
}


def apply_txn(tree: DataTree, header: TxnHeader, txn: Record) -> TxnResult:
    """Apply one txn; afterwards `tree.last_processed_zxid` says so.

    Raises DecodeError for a multi with a part that is no txn, which no server proposes.
    """
    if header.type == OpCode.MULTI:
        result = _apply_multi(tree, header, txn)
    else:
        result = _apply_one(tree, header, header.type, txn)
    # Last, so that a snapshot named by it never claims a half-applied multi.
    if header.zxid > tree.last_processed_zxid:
        tree.last_processed_zxid = header.zxid
    return result


def apply_bytes(tree: DataTree, txn: bytes, clients: Container[int] | None = None) -> AppliedTxn:
    """Decode and apply one txn: what a learner does for each commit.

    Setting data and creating plain nodes, nearly all there is, make no object on the way.
    `clients` are the sessions to which anything is answered here, None for all: for others the
    result of a multi may lack its parts. Raises DecodeError.
    """
    try:
        client_id, cxid, zxid, time, type = _HEADER.unpack_from(txn)
        is_set = type == SET_DATA
        if not is_set and type != CREATE and type != CREATE2:
            if type == MULTI:
                wanted = clients is None or client_id in clients
                applied = _apply_sets(tree, txn, client_id, cxid, zxid, time, wanted)
                if applied is not None:
                    return applied
            return _apply_decoded(tree, txn)
        (length,) = _INT.unpack_from(txn, HEADER_SIZE)
        path_end = PATH_START + length
        (size,) = _INT.unpack_from(txn, path_end)
        start = path_end + 4
        stop = start + size
        if length < 0 or size < 0:
            return _apply_decoded(tree, txn)  # null data, or a length that lies
        offset = stop
        if not is_set:
            if not txn.startswith(_OPEN_ACL_PERSISTENT, stop):
                return _apply_decoded(tree, txn)
            offset += _OPEN_ACL_PERSISTENT_SIZE
        # Of the data for a setData, of the parent's children for a create.
        (version,) = _INT.unpack_from(txn, offset)
        offset += 4
    except struct.error:
        return _apply_decoded(tree, txn)  # an old form, or a txn that is none
    path = txn[PATH_START:path_end].decode("utf-8", "replace")
    err = 0
    node: DataNode | None = None
    try:
        if is_set:
            node = tree.set_data(path, txn[start:stop], version, zxid, time)
        else:
            data = txn[start:stop]
            node = tree.create_node(path, data, OPEN_ACL_UNSAFE, 0, version, zxid, time)
    except KeeperError as error:
        err = error.code
        path = ""
    # Last, as in `apply_txn`.
    if zxid > tree.last_processed_zxid:
        tree.last_processed_zxid = zxid
    digest = _digest_in(txn, offset)
    return AppliedTxn(client_id, cxid, zxid, time, type, err, path, node, digest)


def _apply_sets(
    tree: DataTree, txn: bytes, client_id: int, cxid: int, zxid: int, time: int, wanted: bool
) -> AppliedTxn | None:
    """Apply a multi of setData alone, which most are; None, and nothing is done, for any other.

    `wanted`: whether anybody looks at the results of the parts.

    Raises struct.error where `txn` ends too early.
    """
    (count,) = _INT.unpack_from(txn, HEADER_SIZE)
    offset = HEADER_SIZE + 4
    if count <= 0:
        return None
    sets: list[tuple[str, bytes, int]] = []
    for _ in range(count):
        type, size, length = _SUB.unpack_from(txn, offset)
        start = offset + 12
        path_end = start + length
        offset += 8 + size
        (data_length,) = _INT.unpack_from(txn, path_end)
        if type != SET_DATA or length < 0 or data_length < 0:
            return None
        data_end = path_end + 4 + data_length
        if data_end + 4 != offset:
            return None
        (version,) = _INT.unpack_from(txn, data_end)
        path = txn[start:path_end].decode("utf-8", "replace")
        sets.append((path, txn[path_end + 4 : data_end], version))
    subs: list[TxnResult] = []
    for path, data, version in sets:
        try:
            node = tree.set_data(path, data, version, zxid, time)
        except KeeperError as error:
            subs.append(TxnResult(SET_DATA, error.code, "", None))
            continue
        if wanted:
            part = TxnResult(SET_DATA, 0, path, node)
            part.stat = tree.wire_stat(node)
            subs.append(part)
    if zxid > tree.last_processed_zxid:
        tree.last_processed_zxid = zxid
    applied = AppliedTxn(client_id, cxid, zxid, time, MULTI, 0, "", None, _digest_in(txn, offset))
    applied.subs = subs
    return applied


def _digest_in(txn: bytes, offset: int) -> int | None:
    """The tree digest at the end of a txn; None without one that is ours to compare."""
    if len(txn) < offset + DIGEST_SIZE:
        return None
    version, digest = _DIGEST.unpack_from(txn, offset)
    return digest if version == DIGEST_VERSION else None


def _apply_decoded(tree: DataTree, txn: bytes) -> AppliedTxn:
    header, record, digest = decode_txn(txn)
    result = apply_txn(tree, header, record)
    applied = AppliedTxn(
        header.client_id,
        header.cxid,
        header.zxid,
        header.time,
        header.type,
        result.err,
        result.path,
        result.node,
        digest.tree_digest if digest is not None and digest.version == DIGEST_VERSION else None,
    )
    applied.subs = result.subs
    return applied


def _apply_one(tree: DataTree, header: TxnHeader, type: int, txn: Any) -> TxnResult:
    if isinstance(txn, ErrorTxn):
        return TxnResult(type, txn.err, "", None)
    try:
        node = _APPLY[type](tree, header, txn)
    except KeeperError as error:
        return TxnResult(type, error.code, "", None)
    return TxnResult(type, 0, getattr(txn, "path", None) or "", node)


def _apply_multi(tree: DataTree, header: TxnHeader, txn: Any) -> TxnResult:
    subs: list[SubTxn] = txn.txns or []
    result = TxnResult(OpCode.MULTI, 0, "", None)
    failed = next((i for i, sub in enumerate(subs) if sub.type == OpCode.ERROR), None)
    if failed is not None:
        # All or nothing. Parts before the failing one may carry type -1 with their old bodies
        # (a race in the reference); which failed is told by the first error that is not 0.
        result.subs = [TxnResult(OpCode.ERROR, err, "", None) for err in _multi_errors(subs)]
        return result
    result.subs = [apply_part(tree, header, sub) for sub in subs]
    return result


def apply_part(tree: DataTree, header: TxnHeader, sub: SubTxn) -> TxnResult:
    """Apply one part of a multi. Raises DecodeError if its bytes are no record."""
    record = sub.record
    if record is None:
        if sub.type not in _APPLY:
            raise DecodeError(f"Unsupported Txn with type={sub.type} inside a multi")
        record, _ = decode_record(sub.type, sub.data or b"")
    part = _apply_one(tree, header, sub.type, record)
    if part.node is not None:
        part.stat = tree.wire_stat(part.node)
    return part


def _multi_errors(subs: list[SubTxn]) -> list[int]:
    """0 before the failing part, its code, RUNTIMEINCONSISTENCY after it."""
    errors: list[int] = []
    seen = 0
    for sub in subs:
        if seen:
            errors.append(RUNTIME_INCONSISTENCY)
            continue
        data = sub.data or b""
        if sub.type == OpCode.ERROR and len(data) == 4:
            seen = int.from_bytes(data, "big", signed=True)
        errors.append(seen)
    return errors
