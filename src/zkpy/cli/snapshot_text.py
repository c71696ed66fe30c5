"""Snapshots in the text of Apache's tools: SnapshotFormatter and SnapshotRecursiveSummary.

Siblings come by name, where Apache's come as Java's hash set has them.
Source: those classes, ZooKeeper 3.9.
"""

from __future__ import annotations

import sys
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from zkpy import __version__
from zkpy.cli.snapshot_file import (
    Snapshot,
    children_of,
    node_at,
    size_of,
    stat_of,
    subtrees,
    walk,
)
from zkpy.cli.tools import for_terminal, long_date

if TYPE_CHECKING:
    from zkpy.datatree.node import DataNode

_MASK64: Final = (1 << 64) - 1
# ncdu takes nodes of one number for one; its own begin here.
FIRST_INO: Final = 1001


def _write(text: str) -> None:
    sys.stdout.write(for_terminal(text))


def print_details(snapshot: Snapshot, *, data: bool, start: str = "/") -> None:
    """All znodes with their stats, and the sessions. With `data` as base64."""
    tree = snapshot.tree
    node_at(snapshot, start)
    # The root counts twice there, under its two names.
    _write(f"ZNode Details (count={len(tree.nodes)}):\n")
    newest = snapshot.zxid
    progress = snapshot.progress
    progress.begin("printing", len(tree.nodes))
    for path, node in walk(tree, start):
        stat = stat_of(node)
        newest = max(newest, stat.mzxid, stat.pzxid)
        _write(_details(path, node, data))
        progress.advance()
    progress.clear()
    _write("----\nSession Details (sid, timeout, ephemeralCount):\n")
    for session, timeout_ms in sorted(tree.sessions.items()):
        _write(f"{_hex(session)}, {timeout_ms}, {len(tree.ephemerals.get(session, ()))}\n")
    _write(f"----\nLast zxid: {newest & _MASK64:#x}\n")


def _details(path: str, node: DataNode, data: bool) -> str:
    stat = stat_of(node)
    content = f"dataLength = {size_of(node)}"
    if data:
        content = f"data = {b64encode(node.data or b'').decode('ascii')}"
    return (
        f"----\n{path}\n"
        f"  cZxid = {_hex(stat.czxid)}\n"
        f"  ctime = {long_date(stat.ctime)}\n"
        f"  mZxid = {_hex(stat.mzxid)}\n"
        f"  mtime = {long_date(stat.mtime)}\n"
        f"  pZxid = {_hex(stat.pzxid)}\n"
        f"  cversion = {stat.cversion}\n"
        f"  dataVersion = {stat.version}\n"
        f"  aclVersion = {stat.aversion}\n"
        f"  ephemeralOwner = {_hex(stat.owner)}\n"
        f"  {content}\n"
    )


def _hex(value: int) -> str:
    return f"{value & _MASK64:#016x}"


def print_ncdu(snapshot: Snapshot) -> None:
    """All znodes and their sizes as nested JSON arrays, which `ncdu -f` shows."""
    from json import dumps

    now_ms = int(time.time() * 1000)
    about = {"progname": "zkpy-snapshot", "progver": __version__, "timestamp": now_ms}
    out = sys.stdout.write
    out("[1,0," + dumps(about, separators=(",", ":")))
    tree = snapshot.tree
    progress = snapshot.progress
    progress.begin("printing", len(tree.nodes))
    ino = FIRST_INO
    stack: list[str | None] = ["/"]  # None: an array ends
    while stack:
        path = stack.pop()
        if path is None:
            out("]")
            continue
        node = tree.nodes[path]
        size = size_of(node)
        name = dumps(path.rpartition("/")[2] or "/", ensure_ascii=False)
        children = children_of(tree, path, node)
        out(f',{"[" if children else ""}{{"name":{name},"asize":{size},"dsize":{size},')
        out(f'"dev":0,"ino":{ino}}}')
        ino += 1
        if children:
            stack.append(None)
            stack += reversed(children)
        progress.advance()
    progress.clear()
    out("]\n")


def print_recursive_summary(snapshot: Snapshot, start: str, max_depth: int) -> None:
    """Of each znode with children how many are below it and how much data they hold.

    Down to `max_depth` levels below `start`; 0: all.
    """
    node_at(snapshot, start)
    totals = subtrees(snapshot)
    top = 0 if start == "/" else start.count("/")
    for path, node in walk(snapshot.tree, start):
        level = (0 if path == "/" else path.count("/")) - top
        if not node.children or (max_depth and level > max_depth):
            continue
        tab = "--" * level
        _write(f"{tab} {path}\n")
        _write(f"{tab}   children: {totals[path].znodes - 1}\n")
        _write(f"{tab}   data: {totals[path].bytes}\n")
    _write("\n")
