"""Transactions to changes: one function per type, total for whatever passed validation.

A failure inside (a node that replay finds missing or present) becomes the result's error and the
load goes on. Source: DataTree.processTxn, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zkpy.datatree.node import CONTAINER_OWNER, DataNode, ttl_owner
from zkpy.datatree.tree import DataTree
from zkpy.protocol.errors import DecodeError, KeeperError
from zkpy.protocol.jute import Record
from zkpy.protocol.txns import ErrorTxn, SubTxn, TxnHeader, decode_record
from zkpy.protocol.zoodefs import OpCode

RUNTIME_INCONSISTENCY: Final = -2


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
