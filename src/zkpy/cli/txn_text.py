"""A logged txn as text, as Apache's TxnLogToolkit prints it, and as JSON.

Source: TxnLogToolkit, Request.op2String, ToStringOutputArchive, ZooKeeper 3.9.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

from zkpy.cli.tools import hex64, iso_date, short_date
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import (
    CloseSessionTxn,
    CreateContainerTxn,
    CreateTTLTxn,
    CreateTxn,
    MultiTxn,
    SetACLTxn,
    SetDataTxn,
    decode_record,
)
from zkpy.protocol.zoodefs import OpCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zkpy.protocol.acl import ACL
    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import TxnDigest, TxnHeader

OP_NAMES: Final = {
    OpCode.CREATE: "create",
    OpCode.DELETE: "delete",
    OpCode.SET_DATA: "setData",
    OpCode.SET_ACL: "setACL",
    OpCode.CHECK: "check",
    OpCode.MULTI: "multi",
    OpCode.CREATE2: "create2",
    OpCode.RECONFIG: "reconfig",
    OpCode.CREATE_CONTAINER: "createContainer",
    OpCode.DELETE_CONTAINER: "deleteContainer",
    OpCode.CREATE_TTL: "createTTL",
    OpCode.CREATE_SESSION: "createSession",
    OpCode.CLOSE_SESSION: "closeSession",
    OpCode.ERROR: "error",
}
# Letters of permissions, as zkCli writes them.
_PERMISSIONS: Final = ((4, "c"), (8, "d"), (1, "r"), (2, "w"), (16, "a"))
_JSON_NAMES: Final = {"parent_cversion": "parentCVersion", "timeout_ms": "timeout"}
# What the string form of a record escapes.
_CSV: Final = str.maketrans(
    {"\0": "%00", "\n": "%0A", "\r": "%0D", ",": "%2C", "}": "%7D", "%": "%25"}
)


def op_name(type: int) -> str:
    """The name of a txn's type."""
    return OP_NAMES.get(type, f"unknown {type}")


def txn_line(header: TxnHeader, record: Record) -> str:
    """The txn on a line (more, if there is an ACL), without the line's end."""
    return f"{header_text(header)} {record_text(record)}"


def header_text(header: TxnHeader) -> str:
    """Date, session, cxid, zxid and operation."""
    return (
        f"{short_date(header.time)} session {hex64(header.client_id)} cxid {hex64(header.cxid)} "
        f"zxid {hex64(header.zxid)} {op_name(header.type)}"
    )


def record_text(record: Record) -> str:
    """What is specific to the operation."""
    if isinstance(record, CreateTxn):
        ephemeral = "true" if record.ephemeral else "false"
        return f"{_node(record)},{_acl_list(record.acl)},{ephemeral},{record.parent_cversion}"
    if isinstance(record, SetDataTxn):
        return f"{_node(record)},{record.version}"
    if isinstance(record, CreateContainerTxn):
        return f"{_node(record)},{_acl_list(record.acl)},{record.parent_cversion}"
    if isinstance(record, CreateTTLTxn):
        return f"{_node(record)},{_acl_list(record.acl)},{record.parent_cversion},{record.ttl}"
    if isinstance(record, MultiTxn):
        return ";".join(f"{op_name(sub.type)}:{_text(sub.data)}" for sub in record.txns or ())
    if isinstance(record, CloseSessionTxn):
        return "" if record.paths is None else f"v{{{','.join(map(_csv, record.paths))}}}"
    if isinstance(record, SetACLTxn):
        acls = ",".join(f"s{{{_acl(acl)}}}" for acl in record.acl or ())
        return f"{_csv(record.path)},v{{{acls}}},{record.version}"
    values = (getattr(record, name) for name in record.fields)
    return ",".join(str(value) if isinstance(value, int) else _csv(value) for value in values)


def _node(record: CreateTxn | SetDataTxn | CreateContainerTxn | CreateTTLTxn) -> str:
    return f"{record.path},{_text(record.data)}"


def _text(data: bytes | None) -> str:
    return str(data or b"", "utf-8", "replace")


def _csv(text: str | None) -> str:
    return "" if text is None else "'" + text.translate(_CSV)


def _acl(acl: ACL) -> str:
    return f"{acl.perms},s{{{_csv(acl.scheme)},{_csv(acl.id)}}}"


def _acl_list(acls: Iterable[ACL] | None) -> str:
    if acls is None:
        return "null"
    return f"[{', '.join(f'{_acl(acl)}{chr(10)}' for acl in acls)}]"


# ---------------------------------------------------------------------- JSON


def txn_object(header: TxnHeader, record: Record, digest: TxnDigest | None) -> dict[str, Any]:
    """The txn for JSON. 64-bit ids are hex text, as many readers of JSON round numbers."""
    found = header_object(header)
    found.update(record_object(record))
    if digest is not None:
        found["digest"] = {"version": digest.version, "treeDigest": hex64(digest.tree_digest)}
    return found


def header_object(header: TxnHeader) -> dict[str, Any]:
    """What all txns have."""
    return {
        "zxid": hex64(header.zxid),
        "time": header.time,
        "date": iso_date(header.time),
        "session": hex64(header.client_id),
        "cxid": header.cxid,
        "type": op_name(header.type),
    }


def record_object(record: Record) -> dict[str, Any]:
    """The record's fields; `data` is text, or `dataBase64` where it is no UTF-8."""
    found: dict[str, Any] = {}
    for name in record.fields:
        value = getattr(record, name)
        if name == "data":
            found.update(data_object(value))
        elif name == "acl":
            found["acl"] = acl_objects(value)
        elif name == "txns":
            found["txns"] = [_sub_object(sub.type, sub.data) for sub in value or ()]
        else:
            found[_JSON_NAMES.get(name, name)] = value
    return found


def _sub_object(type: int, data: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": op_name(type)}
    try:
        record, _ = decode_record(type, data or b"")
    except DecodeError:
        found.update(data_object(data))  # in a multi that failed parts may be anything
    else:
        found.update(record_object(record))
    return found


def data_object(data: bytes | None) -> dict[str, Any]:
    """{"data": text or null}, or {"dataBase64": text} where it is no UTF-8."""
    if data is None:
        return {"data": None}
    try:
        return {"data": str(data, "utf-8")}
    except UnicodeDecodeError:
        return {"dataBase64": b64encode(data).decode("ascii")}


def acl_objects(acls: Iterable[ACL] | None) -> list[dict[str, Any]] | None:
    """As {"perms": "cdrwa", "scheme": "world", "id": "anyone"}."""
    if acls is None:
        return None
    return [{"perms": permissions(a.perms), "scheme": a.scheme, "id": a.id} for a in acls]


def permissions(perms: int) -> str:
    """As letters: cdrwa."""
    return "".join(letter for bit, letter in _PERMISSIONS if perms & bit)


def paths_of(record: Record) -> list[str]:
    """The znodes that a txn speaks of, also in the parts of a multi."""
    if isinstance(record, MultiTxn):
        paths = []
        for sub in record.txns or ():
            try:
                paths += paths_of(decode_record(sub.type, sub.data or b"")[0])
            except DecodeError:
                continue
        return paths
    if isinstance(record, CloseSessionTxn):
        return [path for path in record.paths or () if path is not None]
    path = getattr(record, "path", None)
    return [] if path is None else [path]
