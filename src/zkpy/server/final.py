"""FinalRequestProcessor: a committed write goes into the tree, and its reply comes out.

What this server has prepared itself is applied from the changes that it noted then; the tests hold
that against applying the logged bytes. Source: FinalRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.datatree.apply import TxnResult, apply_part, apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol.jute import encode_text
from zkpy.protocol.txns import SubTxn
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.reads import MULTI_END
from zkpy.server.request import Request

_INT: Final = struct.Struct(">i")
_MULTI_HEADER: Final = struct.Struct(">i?i")
_SET_DATA_HEADER: Final = _MULTI_HEADER.pack(OpCode.SET_DATA, False, 0)
_NO_OWNER: Final = bytes(8)

# What a part of a multi calls its result.
_RESULT_TYPES: Final[dict[int, int]] = {
    OpCode.CREATE: OpCode.CREATE,
    OpCode.CREATE2: OpCode.CREATE2,
    OpCode.CREATE_TTL: OpCode.CREATE2,
    OpCode.CREATE_CONTAINER: OpCode.CREATE2,
    OpCode.DELETE: OpCode.DELETE,
    OpCode.SET_DATA: OpCode.SET_DATA,
    OpCode.CHECK: OpCode.CHECK,
    OpCode.ERROR: OpCode.ERROR,
}


def apply_request(tree: DataTree, request: Request) -> tuple[int, bytes]:
    """Apply a write; return its error code, and the record of the reply if that is 0.

    Empty where there is no connection: another member answers its client.
    """
    zxid = request.zxid
    txn = request.txn
    answers = request.cnxn is not None
    body = b""
    if txn is not None:
        result = apply_txn(tree, request.header(), txn)
        err = result.err
        if answers and not err:
            body = reply_of(tree, result)
    else:
        err = 0
        parts = request.parts
        if parts is not None:
            body = _apply_multi(tree, request, answers)
        elif request.type == OpCode.SET_DATA:
            change = request.changes[0]
            node = tree.set_data(change.path or "/", change.data, 0, zxid, 0, change.stat)
            if answers:
                body = tree.wire_stat(node)
        else:
            body = _apply_create(tree, request, answers)
        tree.last_processed_zxid = zxid
    tree.digest = request.digest
    return err, body


def _apply_create(tree: DataTree, request: Request, answers: bool) -> bytes:
    parent, child = request.changes
    path = child.path
    stat = child.stat
    assert stat is not None, "nothing in this request deletes it again"
    owner = stat[52:60]
    node = tree.create_node(
        path,
        child.data,
        child.acls,
        0 if owner == _NO_OWNER else int.from_bytes(owner, "big", signed=True),
        0,
        request.zxid,
        request.time,
        (parent.stat, stat),
    )
    if not answers:
        return b""
    name = encode_text(path)
    if request.type == OpCode.CREATE:
        return _INT.pack(len(name)) + name
    return _INT.pack(len(name)) + name + tree.wire_stat(node)


def _apply_multi(tree: DataTree, request: Request, answers: bool) -> bytes:
    out: list[bytes] = []
    header = request.header()
    zxid = request.zxid
    for part in request.parts or ():
        if isinstance(part, SubTxn):
            result = apply_part(tree, header, part)
            if answers:
                out.append(_part(result))
        else:
            node = tree.set_data(part.path or "/", part.data, 0, zxid, 0, part.stat)
            if answers:
                out += (_SET_DATA_HEADER, tree.wire_stat(node))
    out.append(MULTI_END)
    return b"".join(out)


def reply_of(tree: DataTree, result: TxnResult) -> bytes:
    """The record behind the header of a successful write; `result` was applied just now."""
    type = result.type
    if type == OpCode.MULTI:
        return b"".join([*map(_part, result.subs or ()), MULTI_END])
    if result.node is None:
        return b""
    if type == OpCode.SET_DATA or type == OpCode.SET_ACL:
        return tree.wire_stat(result.node)
    if type == OpCode.RECONFIG:
        data = result.node.data or b""
        return _INT.pack(len(data)) + data + tree.wire_stat(result.node)
    path = encode_text(result.path)
    if type == OpCode.CREATE:
        return _INT.pack(len(path)) + path
    return _INT.pack(len(path)) + path + tree.wire_stat(result.node)


def _part(result: TxnResult) -> bytes:
    type = _RESULT_TYPES[result.type]
    if type == OpCode.ERROR:
        return _MULTI_HEADER.pack(type, False, result.err) + _INT.pack(result.err)
    header = _MULTI_HEADER.pack(type, False, 0)
    if type == OpCode.SET_DATA:
        return header + result.stat
    if type == OpCode.CREATE or type == OpCode.CREATE2:
        path = encode_text(result.path)
        stat = result.stat if type == OpCode.CREATE2 else b""
        return header + _INT.pack(len(path)) + path + stat
    return header
