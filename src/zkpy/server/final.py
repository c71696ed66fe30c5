"""FinalRequestProcessor: the reply to a write, once its transaction is applied.

Source: FinalRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.datatree.apply import TxnResult
from zkpy.datatree.tree import DataTree
from zkpy.protocol.jute import encode_text
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.reads import MULTI_END

_INT: Final = struct.Struct(">i")
_MULTI_HEADER: Final = struct.Struct(">i?i")

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


def reply_body(tree: DataTree, result: TxnResult) -> bytes:
    """The record behind the header of a successful write; `result` was applied just now."""
    type = result.type
    if type == OpCode.MULTI:
        return b"".join([*map(_part, result.subs or ()), MULTI_END])
    if result.node is None:
        return b""
    if type == OpCode.SET_DATA or type == OpCode.SET_ACL:
        return tree.wire_stat(result.node)
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
