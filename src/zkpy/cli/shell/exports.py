"""The file that `export` writes and `import` reads: a subtree, one JSON document a line.

    {"zkpy-export": 1, "root": "/app"}
    {"path": "", "data": "text"}
    {"path": "/a", "data": "AAE=", "encoding": "base64", "acl": ["world:anyone:r"]}
    {"end": 2}

`path` is relative to the root, parents come first. Left out: `data` where there is none, `acl`
where everybody may do everything. `"ephemeral": true` marks ephemeral nodes; containers and TTL
nodes look like others, as servers do not tell. The last line counts the nodes: a file without it is
not whole.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zkpy.cli.shell.formats import acl_text, data_json, parse_acls
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.paths import is_valid_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION: Final = 1


class ExportError(ValueError):
    """A file that is no export, or not a whole one; says the line."""


class Exported(NamedTuple):
    """A node of an export; `path` is below its root, "" the root itself."""

    path: str
    data: bytes | None
    acls: Acls
    is_ephemeral: bool


def header_line(root: str) -> str:
    return json.dumps({"zkpy-export": VERSION, "root": root})


def node_line(node: Exported) -> str:
    path, data, acls, is_ephemeral = node
    value: dict[str, Any] = {"path": path}
    if data is not None:
        value |= data_json(data)
    if acls != OPEN_ACL_UNSAFE:
        value["acl"] = [acl_text(acl) for acl in acls]
    if is_ephemeral:
        value["ephemeral"] = True
    return json.dumps(value, ensure_ascii=False)


def end_line(count: int) -> str:
    return json.dumps({"end": count})


def read_export(lines: Iterable[str]) -> Iterator[str | Exported]:
    """The root, then each node. Raises ExportError on the first line that is wrong."""
    count = 0
    number = 0
    ended = False
    for number, line in enumerate(lines, 1):
        value = _document(line, number)
        if number == 1:
            yield _root(value)
        elif ended:
            raise ExportError(f"line {number}: nothing comes behind the end")
        elif "end" in value:
            ended = True
            if value["end"] != count:
                raise ExportError(f"line {number}: {count} nodes, not {value['end']}")
        else:
            count += 1
            yield _node(value, number)
    if number == 0:
        raise ExportError("line 1: the file is empty")
    if not ended:
        raise ExportError(f"line {number + 1}: the end is missing")


def _document(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ExportError(f"line {number}: not JSON") from None
    if not isinstance(value, dict):
        raise ExportError(f"line {number}: not a JSON object")
    return value


def _root(value: dict[str, Any]) -> str:
    if value.get("zkpy-export") != VERSION:
        raise ExportError("line 1: not an export of zkpy-cli that this version can read")
    root = value.get("root")
    if not isinstance(root, str) or not is_valid_path(root):
        raise ExportError(f"line 1: no root: {root!r}")
    return root


def _node(value: dict[str, Any], number: int) -> Exported:
    path = value.get("path")
    if not isinstance(path, str) or (path and not is_valid_path(path)) or path == "/":
        raise ExportError(f"line {number}: no path: {path!r}")
    data, acls = value.get("data"), value.get("acl")
    if data is not None and not isinstance(data, str):
        raise ExportError(f"line {number}: no data: {data!r}")
    content = None
    if data is not None:
        try:
            plain = value.get("encoding") is None
            content = data.encode() if plain else base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ExportError(f"line {number}: not base64") from None
    return Exported(path, content, _acls(acls, number), bool(value.get("ephemeral")))


def _acls(entries: object, number: int) -> Acls:
    if entries is None:
        return OPEN_ACL_UNSAFE
    wrong: list[str] = []
    acls: Acls = ()
    if isinstance(entries, list) and all(str(entry).count(":") > 1 for entry in entries):
        for entry in entries:  # one by one: an id may contain a comma
            scheme, _, rest = str(entry).partition(":")
            id_, _, perms = rest.rpartition(":")
            parsed = parse_acls(f"{scheme}::{perms}", wrong.append)
            acls += tuple(acl._replace(id=id_) for acl in parsed)
    if wrong or not acls:
        raise ExportError(f"line {number}: no ACL: {entries!r}")
    return acls
