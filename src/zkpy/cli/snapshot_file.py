"""A snapshot file read into a tree, and the walks over it that the tools share. No output."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from zkpy.cli.tools import EXIT_USAGE, Progress, ReadingDisk, ToolError
from zkpy.cli.txn_text import acl_objects, data_object
from zkpy.datatree.node import NODE_STAT
from zkpy.datatree.serialize import SnapshotInput
from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.files import snapshot_zxid
from zkpy.persistence.snapshot import MIN_LENGTH_LIMIT_BYTES, FileSnap, read_snapshot
from zkpy.protocol.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from zkpy.datatree.node import DataNode
    from zkpy.persistence.snapshot import SnapshotDigest


class Snapshot(NamedTuple):
    """`zxid`: from the file's name, -1 if there is none. Sections may be absent: None."""

    path: str
    zxid: int
    tree: DataTree
    digest: SnapshotDigest | None
    last_processed_zxid: int | None
    progress: Progress


class Stat(NamedTuple):
    """As stored: `cversion` counts creations only, unlike what clients see."""

    czxid: int
    mzxid: int
    pzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    owner: int


def stat_of(node: DataNode) -> Stat:
    """The node's stat, unpacked."""
    return Stat._make(NODE_STAT.unpack(node.stat))


def load(path: str, progress: Progress | None = None) -> Snapshot:
    """Read a snapshot, plain or compressed as its suffix says.

    Raises ToolError for what is no file, with SnapshotFormatter's messages, CorruptFile with the
    offset (in what a compressed file holds), and DiskReadError.
    """
    if not os.path.exists(path):
        raise ToolError(f"File '{os.path.abspath(path)}' does not exist.", EXIT_USAGE)
    if os.path.isdir(path):
        raise ToolError(f"'{os.path.abspath(path)}' is a directory. it must be a file.", EXIT_USAGE)
    progress = progress or Progress()
    snap = FileSnap(ReadingDisk(progress), os.path.dirname(path))
    tree = DataTree(extended_types=True)
    source = SnapshotInput(snap.chunks_of(path))
    try:
        digest, last_processed = read_snapshot(source, tree, MIN_LENGTH_LIMIT_BYTES)
    except DecodeError as error:
        where = " (offset in what it holds)" if path.endswith((".gz", ".snappy")) else ""
        raise CorruptFile(path, f"{error}{where}", source.offset()) from None
    finally:
        progress.clear()
    zxid = snapshot_zxid(os.path.basename(path))
    return Snapshot(path, -1 if zxid is None else zxid, tree, digest, last_processed, progress)


def node_at(snapshot: Snapshot, path: str) -> DataNode:
    """Raises ToolError if there is none."""
    node = snapshot.tree.nodes.get(path)
    if node is None:
        raise ToolError(f"{snapshot.path} has no znode {path}")
    return node


def walk(tree: DataTree, start: str = "/") -> Iterator[tuple[str, DataNode]]:
    """`start` and all below it, parents first, siblings by name."""
    stack = [start]
    while stack:
        path = stack.pop()
        node = tree.nodes[path]
        yield path, node
        stack += reversed(children_of(tree, path, node))


def children_of(tree: DataTree, path: str, node: DataNode) -> list[str]:
    """Paths of the children, by name."""
    prefix = "/" if path == "/" else f"{path}/"
    return [prefix + name for name in sorted(tree.child_names(path, node))]


def size_of(node: DataNode) -> int:
    """Bytes of data; null counts as none."""
    return len(node.data or b"")


class Subtree:
    """Totals of a znode and all below it."""

    __slots__ = ("bytes", "znodes")

    def __init__(self, size: int) -> None:
        self.znodes = 1
        self.bytes = size


def subtrees(snapshot: Snapshot) -> dict[str, Subtree]:
    """The totals of every znode, "/" for the root."""
    paths = [path for path in snapshot.tree.nodes if path and path != "/"]
    progress = snapshot.progress
    progress.begin("adding up", len(paths))
    found = {path: Subtree(size_of(snapshot.tree.nodes[path])) for path in ("/", *paths)}
    for path in sorted(paths, key=lambda path: path.count("/"), reverse=True):
        above = found[path.rpartition("/")[0] or "/"]
        below = found[path]
        above.znodes += below.znodes
        above.bytes += below.bytes
        progress.advance()
    progress.clear()
    return found


def node_object(tree: DataTree, path: str, node: DataNode, *, data: bool) -> dict[str, Any]:
    """The znode for JSON, with the names of a stat's fields; zxids are hex text."""
    stat = stat_of(node)
    found: dict[str, Any] = {
        "path": path,
        "czxid": f"{stat.czxid:#x}",
        "mzxid": f"{stat.mzxid:#x}",
        "pzxid": f"{stat.pzxid:#x}",
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeralOwner": f"{stat.owner & (1 << 64) - 1:#x}",
        "dataLength": size_of(node),
        "numChildren": len(node.children or ()),
        "acl": acl_objects(tree.acls_of(node)),
    }
    if data:
        found.update(data_object(node.data))
    return found
