"""Two snapshots compared: znode by znode, and by subtree sizes as SnapshotComparer does.

Source of the second: SnapshotComparer, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import sys
import time
from getopt import GetoptError, gnu_getopt
from typing import TYPE_CHECKING, Any, Final

from zkpy.cli.snapshot_file import (
    Snapshot,
    Stat,
    Subtree,
    load,
    node_object,
    size_of,
    stat_of,
    subtrees,
)
from zkpy.cli.tools import EXIT_OK, EXIT_USAGE, for_terminal, hex64, number
from zkpy.datatree.node import CONTAINER, EPHEMERAL, TTL, owner_kind, ttl_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkpy.datatree.node import DataNode

EXIT_DIFFERENT: Final = 1

COMPARER_USAGE: Final = """\
usage: zkpy-snapshot compare
 -b,--bytes <BYTETHRESHOLD>   (Required) The node data delta size threshold, in bytes, for \
printing the node.
 -d,--debug                   Use debug output.
 -i,--interactive             Enter interactive mode.
 -l,--left <LEFT>             (Required) The left snapshot file.
 -n,--nodes <NODETHRESHOLD>   (Required) The descendant node delta size threshold, in nodes, for \
printing the node.
 -r,--right <RIGHT>           (Required) The right snapshot file."""
MENU: Final = """\
- Press enter to move to print current depth layer;
- Type a number to jump to and print all nodes at a given depth;
- Enter an ABSOLUTE path to print the immediate subtree of a node. Path must start with '/'."""


def _write(text: str) -> None:
    sys.stdout.write(for_terminal(text) + "\n")


# ---------------------------------------------------------------------- znode by znode


def differences(left: Snapshot, right: Snapshot, start: str) -> Iterator[dict[str, Any]]:
    """What is different at `start` and below, as objects for JSON, by path; then sessions."""
    below = "/" if start == "/" else f"{start}/"
    paths = {
        path
        for snapshot in (left, right)
        for path in snapshot.tree.nodes
        if path == start or path.startswith(below)
    }
    for path in sorted(paths):
        one, other = left.tree.nodes.get(path), right.tree.nodes.get(path)
        if one is None:
            assert other is not None, "it is in one of them"
            yield {"change": "added"} | node_object(right.tree, path, other, data=False)
        elif other is None:
            yield {"change": "removed"} | node_object(left.tree, path, one, data=False)
        else:
            fields = _changed_fields(left, right, one, other)
            if fields:
                yield {"change": "changed", "path": path, "fields": fields}
    if start == "/":
        yield from _session_differences(left, right)


def _changed_fields(
    left: Snapshot, right: Snapshot, one: DataNode, other: DataNode
) -> dict[str, list[Any]]:
    """Field: [left, right]. Of data the sizes."""
    found: dict[str, list[Any]] = {}
    if one.data != other.data:
        found["data"] = [size_of(one), size_of(other)]
    acls = [
        [f"{acl.scheme}:{acl.id}:{acl.perms}" for acl in snapshot.tree.acls_of(node)]
        for snapshot, node in ((left, one), (right, other))
    ]
    if acls[0] != acls[1]:
        found["acl"] = acls
    if one.stat != other.stat:
        for name, before, after in zip(Stat._fields, stat_of(one), stat_of(other), strict=True):
            if before != after:
                is_id = name.endswith("zxid") or name == "owner"
                shown = [hex64(before), hex64(after)] if is_id else [before, after]
                found["ephemeralOwner" if name == "owner" else name] = shown
    return found


def _session_differences(left: Snapshot, right: Snapshot) -> Iterator[dict[str, Any]]:
    one, other = left.tree.sessions, right.tree.sessions
    for session in sorted(one.keys() | other.keys()):
        named: dict[str, Any] = {"session": hex64(session)}
        if session not in one:
            yield {"change": "added"} | named | {"timeout": other[session]}
        elif session not in other:
            yield {"change": "removed"} | named | {"timeout": one[session]}
        elif one[session] != other[session]:
            yield (
                {"change": "changed"}
                | named
                | {"fields": {"timeout": [one[session], other[session]]}}
            )


def compare(left_path: str, right_path: str, start: str, *, json: bool) -> int:
    """Print what is different; the exit code is 0 if nothing is, else 1."""
    left, right = load(left_path), load(right_path)
    counts = {"added": 0, "removed": 0, "changed": 0}
    for found in differences(left, right, start):
        counts[found["change"]] += 1
        if json:
            from json import dumps

            sys.stdout.write(dumps(found, ensure_ascii=False) + "\n")
        else:
            _write(_difference_line(found))
    if not json:
        _write(", ".join(f"{count} {change}" for change, count in counts.items()))
    return EXIT_DIFFERENT if any(counts.values()) else EXIT_OK


def _difference_line(found: dict[str, Any]) -> str:
    mark = {"added": "+", "removed": "-", "changed": "~"}[found["change"]]
    name = found.get("path") or f"session {found['session']}"
    if "fields" in found:
        parts = [_field_text(*item) for item in found["fields"].items()]
        return f"{mark} {name}  {', '.join(parts)}"
    if "path" not in found:
        return f"{mark} {name}  timeout {found['timeout']}"
    return f"{mark} {name}  {found['dataLength']} bytes{_kind_text(found['ephemeralOwner'])}"


def _kind_text(owner_text: str) -> str:
    owner = number(owner_text)
    kind = owner_kind(owner, True)
    if kind == EPHEMERAL:
        return f", ephemeral of session {owner_text}"
    if kind == TTL:
        return f", TTL {ttl_of(owner)} ms"
    return ", container" if kind == CONTAINER else ""


def _field_text(name: str, values: list[Any]) -> str:
    before, after = (";".join(value) if isinstance(value, list) else str(value) for value in values)
    if name == "data":
        return f"data {before} -> {after} bytes" if before != after else f"data ({after} bytes)"
    return f"{name} {before} -> {after}"


# ---------------------------------------------------------------------- by subtree sizes


class TreeInfo:
    """The znodes of a snapshot by depth and path, the root being ""."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.totals: dict[str, Subtree] = subtrees(snapshot)
        self.totals[""] = self.totals.pop("/")
        self.depths: list[list[str]] = []
        self.children: dict[str, list[str]] = {}
        for path in sorted(self.totals):
            depth = path.count("/")
            while len(self.depths) <= depth:
                self.depths.append([])
            self.depths[depth].append(path)
            if path:
                self.children.setdefault(path.rpartition("/")[0], []).append(path)

    def at_depth(self, depth: int) -> list[str]:
        """Paths, sorted; none beyond the deepest."""
        return self.depths[depth] if depth < len(self.depths) else []

    def print_counts(self) -> None:
        """What the tool says of each of the two first."""
        _write(f"Node count: {len(self.totals)}")
        _write(f"Total size: {self.totals[''].bytes}")
        _write(f"Max depth: {len(self.depths)}")
        for depth, paths in enumerate(self.depths):
            _write(f"Count of nodes at depth {depth}: {len(paths)}")
        _write("")


class Comparer:
    """SnapshotComparer: what differs by more than a number of bytes or znodes, by depth."""

    def __init__(
        self, left: TreeInfo, right: TreeInfo, most_bytes: int, most_nodes: int, debug: bool
    ) -> None:
        self.left = left
        self.right = right
        self.most_bytes = most_bytes
        self.most_nodes = most_nodes
        self.debug = debug
        self.tells_filtered = debug
        self.depths = max(len(left.depths), len(right.depths))

    def print_thresholds(self) -> None:
        _write(
            f"Printing analysis for nodes difference larger than {self.most_bytes} bytes "
            f"or node count difference larger than {self.most_nodes}."
        )

    def all_depths(self) -> None:
        """Print every depth."""
        self.print_thresholds()
        for depth in range(self.depths):
            self.depth(depth)
        _write("All layers compared.")

    def interactive(self) -> None:
        """Print what is asked for on standard input, until the last depth or its end."""
        self.tells_filtered = True
        depth = 0
        while depth < self.depths:
            _write(f"Current depth is {depth}\n{MENU}")
            sys.stdout.flush()
            line = sys.stdin.readline()
            if not line:
                return
            text = line.rstrip("\r\n")
            self.print_thresholds()
            if not text:
                self.depth(depth)
                depth += 1
            elif text.startswith("/"):
                _write(f"Analysis for node {text}")
                self.lines(self.left.children.get(text, []), self.right.children.get(text, []))
            else:
                depth = self._jump(text, depth)
            _write("")
        _write("All layers compared.")

    def _jump(self, text: str, depth: int) -> int:
        bounds = f"[0, {self.depths - 1}]"
        try:
            wanted = int(text)
        except ValueError:
            _write(
                f"Input {text} is not valid. Depth must be in range {bounds}. "
                f"Path must be an absolute path which starts with '/'."
            )
            return depth
        if not 0 <= wanted < self.depths:
            _write(f"Depth must be in range {bounds}")
            return depth
        self.depth(wanted)
        return wanted

    def depth(self, depth: int) -> None:
        """Print one depth."""
        _write(f"Analysis for depth {depth}")
        self.lines(self.left.at_depth(depth), self.right.at_depth(depth))

    def lines(self, left: list[str], right: list[str]) -> None:
        """Compare two sorted lists of paths."""
        one, other = 0, 0
        while one < len(left) or other < len(right):
            if other == len(right):
                self._only("left", left[one], self.left)
                one += 1
                continue
            if one == len(left):
                self._only("right", right[other], self.right)
                other += 1
                continue
            self._tell(f"Comparing {left[one]} to {right[other]}")
            if left[one] < right[other]:
                self._tell("left is less")
                self._only("left", left[one], self.left)
                one += 1
            elif left[one] > right[other]:
                self._tell("right is less")
                self._only("right", right[other], self.right)
                other += 1
            else:
                self._tell("same")
                self._both(left[one])
                one += 1
                other += 1

    def _tell(self, text: str) -> None:
        if self.debug:
            _write(text)

    def _only(self, side: str, path: str, tree: TreeInfo) -> None:
        size, count = tree.totals[path].bytes, tree.totals[path].znodes - 1
        if size > self.most_bytes or count > self.most_nodes:
            _write(
                f"Node {path} found only in {side} tree. "
                f"Descendant size: {size}. Descendant count: {count}"
            )
        elif self.tells_filtered:
            _write(f"Filtered {side} node {path} of size {size}")

    def _both(self, path: str) -> None:
        left, right = self.left.totals[path], self.right.totals[path]
        size, count = right.bytes - left.bytes, right.znodes - left.znodes
        if abs(size) > self.most_bytes or abs(count) > self.most_nodes:
            _write(f"Node {path} found in both trees. Delta: {size} bytes, {count} descendants")
        elif self.tells_filtered:
            _write(f"Filtered node {path} of left size {left.bytes}, right size {right.bytes}")


def comparer(arguments: list[str]) -> int:
    """Run SnapshotComparer's command line; returns the exit code."""
    names = ["bytes=", "debug", "interactive", "left=", "nodes=", "right="]
    try:
        pairs, _ = gnu_getopt(arguments, "b:dil:n:r:", names)
    except GetoptError as error:
        return _comparer_usage(f"Unrecognized option: {error}")
    options = {name.lstrip("-")[:1]: value for name, value in pairs}
    missing = [name for name in "lrbn" if name not in options]
    if missing:
        option = "option" if len(missing) == 1 else "options"
        return _comparer_usage(f"Missing required {option}: {', '.join(missing)}")
    try:
        most_bytes, most_nodes = int(options["b"]), int(options["n"])
    except ValueError:
        return _comparer_usage("The thresholds of -b and -n are numbers")
    _write("Successfully parsed options!")
    left, right = _timed(options["l"]), _timed(options["r"])
    left.print_counts()
    right.print_counts()
    found = Comparer(left, right, most_bytes, most_nodes, "d" in options)
    if "i" in options:
        found.interactive()
    else:
        found.all_depths()
    return EXIT_OK


def _comparer_usage(message: str) -> int:
    print(message, file=sys.stderr)
    print(COMPARER_USAGE)
    return EXIT_USAGE


def _timed(path: str) -> TreeInfo:
    begin = time.perf_counter()
    snapshot = load(path)
    loaded = time.perf_counter()
    _write(f"Deserialized snapshot in {os.path.basename(path)} in {loaded - begin:.6f} seconds")
    tree = TreeInfo(snapshot)
    _write(f"Processed data tree in {time.perf_counter() - loaded:.6f} seconds")
    return tree
