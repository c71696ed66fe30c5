"""zkpy-snapshot: what is in a snapshot, how large its parts are, and how two differ.

Also takes what SnapshotFormatter, SnapshotComparer and SnapshotRecursiveSummary take.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from zkpy.cli.snapshot_file import (
    Snapshot,
    children_of,
    load,
    node_at,
    node_object,
    size_of,
    subtrees,
    walk,
)
from zkpy.cli.tools import EXIT_OK, EXIT_USAGE, ToolError, for_terminal, hex64, iso_date, run
from zkpy.datatree.node import CONTAINER, EPHEMERAL, PERSISTENT, TTL, owner_kind
from zkpy.persistence.errors import PersistenceError

if TYPE_CHECKING:
    import argparse

USAGE: Final = """\
usage: zkpy-snapshot {summary|dump|sizes|compare} [options] FILE    (zkpy-snapshot COMMAND --help)
       zkpy-snapshot [-d|-json] snapshot_file                       as SnapshotFormatter
       -d dump the data for each znode
       -json dump znode info in json format, for ncdu"""
DESCRIPTION: Final = (
    "Reads snapshots of zkpy and Apache ZooKeeper, plain, gz and snappy; never writes to them. A "
    "damaged one ends with exit code 1, with file, offset and reason on stderr."
)
BOTH: Final = "Cannot specify both data dump (-d) and json mode (-json) in same call"
EXIT_TROUBLE: Final = 2
KIND_NAMES: Final = {
    PERSISTENT: "persistent",
    EPHEMERAL: "ephemeral",
    CONTAINER: "container",
    TTL: "TTL",
}


def _write(text: str) -> None:
    sys.stdout.write(for_terminal(text) + "\n")


def _write_json(found: dict[str, Any]) -> None:
    from json import dumps

    sys.stdout.write(dumps(found, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------------- summary


def summary(snapshot: Snapshot) -> dict[str, Any]:
    """What there is to know about a snapshot as a whole."""
    tree = snapshot.tree
    kinds = dict.fromkeys(KIND_NAMES.values(), 0)
    largest = most = deepest = "/"
    newest = 0
    data_bytes = 0
    for path, node in tree.nodes.items():
        if not path:
            continue  # the root, which is there as "/" too
        owner = int.from_bytes(node.stat[-8:], "big", signed=True)
        kinds[KIND_NAMES[owner_kind(owner, True)]] += 1
        data_bytes += size_of(node)
        newest = max(newest, int.from_bytes(node.stat[32:40], "big", signed=True))
        if size_of(node) > size_of(tree.nodes[largest]):
            largest = path
        if len(node.children or ()) > len(tree.nodes[most].children or ()):
            most = path
        if path.count("/") > deepest.count("/"):
            deepest = path
    found: dict[str, Any] = {
        "file": snapshot.path,
        "fileBytes": os.path.getsize(snapshot.path),
        "zxid": hex64(snapshot.zxid) if snapshot.zxid >= 0 else None,
        "lastProcessedZxid": None,
        "znodes": len(tree.nodes) - 1,
        "kinds": kinds,
        "dataBytes": data_bytes,
        "largest": {"path": largest, "bytes": size_of(tree.nodes[largest])},
        "mostChildren": {"path": most, "children": len(tree.nodes[most].children or ())},
        "deepest": {"path": deepest, "depth": 0 if deepest == "/" else deepest.count("/")},
        "newestChange": iso_date(newest),
        "sessions": len(tree.sessions),
        "acls": len(tree.acl_cache.entries()),
        "digest": None,
    }
    if snapshot.last_processed_zxid is not None:
        found["lastProcessedZxid"] = hex64(snapshot.last_processed_zxid)
    if snapshot.digest is not None:
        zxid, version, digest = snapshot.digest
        found["digest"] = {"zxid": hex64(zxid), "version": version, "treeDigest": hex64(digest)}
        found["digest"]["computed"] = hex64(tree.digest)
    return found


def summary_lines(found: dict[str, Any]) -> list[str]:
    """The summary for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["kinds"].items() if count)
    processed = found["lastProcessedZxid"]
    lines = [
        ("zxid", found["zxid"] or "not in the file's name"),
        ("last zxid", processed or "not recorded"),
        ("znodes", f"{found['znodes']} ({kinds})"),
        ("data", f"{found['dataBytes']} bytes, in a file of {found['fileBytes']}"),
        ("largest", f"{found['largest']['bytes']} bytes: {found['largest']['path']}"),
        ("children", f"{found['mostChildren']['children']} below {found['mostChildren']['path']}"),
        ("depth", f"{found['deepest']['depth']}: {found['deepest']['path']}"),
        ("last change", found["newestChange"] or "?"),
        ("sessions", str(found["sessions"])),
        ("ACLs", str(found["acls"])),
        ("digest", _digest_text(found["digest"], found["zxid"])),
    ]
    return [found["file"], *(f"  {name:<12}{value}" for name, value in lines)]


def _digest_text(digest: dict[str, Any] | None, zxid: str | None) -> str:
    if digest is None:
        return "not recorded"
    if digest["zxid"] == "0x0":
        return "of an empty tree"
    text = f"{digest['treeDigest']} at zxid {digest['zxid']}"
    if digest["treeDigest"] == digest["computed"]:
        return f"{text}, as the content has it"
    why = "" if digest["zxid"] == zxid else ": written while txns went on, it needs the log"
    return f"{text}, the content has {digest['computed']}{why}"


def summary_command(options: argparse.Namespace) -> int:
    for path in options.file:
        found = summary(load(path))
        if options.json:
            _write_json(found)
        else:
            _write("\n".join(summary_lines(found)))
    return EXIT_OK


# ---------------------------------------------------------------------- dump


def dump_command(options: argparse.Namespace) -> int:
    snapshot = load(options.file)
    if not options.json:
        from zkpy.cli.snapshot_text import print_details

        print_details(snapshot, data=options.data, start=options.path)
        return EXIT_OK
    node_at(snapshot, options.path)
    tree = snapshot.tree
    snapshot.progress.begin("printing", len(tree.nodes))
    for path, node in walk(tree, options.path):
        _write_json(node_object(tree, path, node, data=options.data))
        snapshot.progress.advance()
    snapshot.progress.clear()
    if options.path == "/":
        for session, timeout_ms in sorted(tree.sessions.items()):
            owned = sorted(tree.ephemerals.get(session, ()))
            _write_json({"session": hex64(session), "timeout": timeout_ms, "ephemerals": owned})
    return EXIT_OK


# ---------------------------------------------------------------------- sizes


def sizes_command(options: argparse.Namespace) -> int:
    snapshot = load(options.file)
    if options.max_depth is not None:
        from zkpy.cli.snapshot_text import print_recursive_summary

        print_recursive_summary(snapshot, options.start, options.max_depth)
        return EXIT_OK
    node = node_at(snapshot, options.start)
    totals = subtrees(snapshot)
    children = children_of(snapshot.tree, options.start, node)
    children.sort(key=lambda path: (totals[path].bytes, totals[path].znodes), reverse=True)
    shown = children if options.all else children[: options.top]
    if not options.json:
        _write(f"{'bytes':>14} {'znodes':>10}  path")
    for path in (options.start, *shown):
        size, count = totals[path].bytes, totals[path].znodes
        if options.json:
            _write_json({"path": path, "bytes": size, "znodes": count})
        else:
            _write(f"{size:>14} {count:>10}  {path}")
    if len(shown) < len(children) and not options.json:
        _write(f"... and {len(children) - len(shown)} smaller ones (--all shows them)")
    return EXIT_OK


# ---------------------------------------------------------------------- compare


def compare_command(options: argparse.Namespace) -> int:
    from zkpy.cli.snapshot_compare import compare

    try:
        return compare(options.left, options.right, options.path, json=options.json)
    except PersistenceError as error:
        raise ToolError(str(error), EXIT_TROUBLE) from None


# ---------------------------------------------------------------------- the command line


def parser() -> argparse.ArgumentParser:
    """The commands; SnapshotFormatter's and SnapshotComparer's forms are not among them."""
    import argparse

    top = argparse.ArgumentParser("zkpy-snapshot", description=DESCRIPTION)
    commands = top.add_subparsers(required=True)

    found = commands.add_parser("summary", help="znodes, sizes, sessions, zxids, digest")
    found.add_argument("file", nargs="+")
    found.add_argument("--json", action="store_true", help="an object a line")
    found.set_defaults(command=summary_command)

    found = commands.add_parser("dump", help="every znode, as text or JSON")
    found.add_argument("file")
    found.add_argument("-d", "--data", action="store_true", help="with the data, base64 in text")
    found.add_argument("--json", action="store_true", help="an object a line: znodes, sessions")
    found.add_argument("--path", type=znode, default="/", help="only this znode and those below")
    found.set_defaults(command=dump_command)

    found = commands.add_parser(
        "sizes",
        help="data and znodes by subtree",
        description="Lists a znode and its children with all that is below them, largest first. "
        "With a max_depth the text is that of SnapshotRecursiveSummary.",
    )
    found.add_argument("file")
    found.add_argument("start", nargs="?", type=znode, default="/")
    found.add_argument("max_depth", nargs="?", type=int, help="levels below start; 0: all")
    found.add_argument("--top", type=int, default=20, metavar="N", help="so many children (20)")
    found.add_argument("--all", action="store_true", help="all children")
    found.add_argument("--json", action="store_true", help="an object a line")
    found.set_defaults(command=sizes_command)

    found = commands.add_parser(
        "compare",
        help="what two snapshots differ in",
        description="Lists znodes and sessions that were added (+), removed (-) or changed (~) "
        "from LEFT to RIGHT. The exit code is 0 if there are none, 1 if there are, 2 if a file "
        "cannot be read. With -l, -r, -b and -n it does what SnapshotComparer does.",
    )
    found.add_argument("left")
    found.add_argument("right")
    found.add_argument("--json", action="store_true", help="an object a line")
    found.add_argument("--path", type=znode, default="/", help="only this znode and those below")
    found.set_defaults(command=compare_command)
    return top


def znode(text: str) -> str:
    """A path of a znode. Raises ValueError; argparse shows this function's name then."""
    if not text.startswith("/"):
        raise ValueError(text)
    return text.rstrip("/") or "/"


def formatter(arguments: list[str]) -> int:
    """Run SnapshotFormatter's command line; returns the exit code."""
    flags = {word for word in arguments if word in ("-d", "-json")}
    files = [word for word in arguments if word not in flags]
    if len(files) != 1 or files[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    if len(flags) == 2 and os.path.exists(files[0]):
        raise ToolError(BOTH, EXIT_USAGE)
    from zkpy.cli.snapshot_text import print_details, print_ncdu

    snapshot = load(files[0])
    if "-json" in flags:
        print_ncdu(snapshot)
    else:
        print_details(snapshot, data="-d" in flags)
    return EXIT_OK


def _main(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first == "compare" and any(word.startswith(COMPARER_OPTIONS) for word in arguments[1:]):
        from zkpy.cli.snapshot_compare import comparer

        return comparer(arguments[1:])
    if first in ("-h", "--help"):
        print(f"{USAGE}\n\n{DESCRIPTION}")
        return EXIT_OK
    if first in ("summary", "dump", "sizes", "compare"):
        options = parser().parse_args(arguments)
        command: Any = options.command
        return int(command(options))
    return formatter(arguments)


COMPARER_OPTIONS: Final = ("-l", "-r", "-b", "-n", "--left", "--right", "--bytes", "--nodes")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_main, arguments)


if __name__ == "__main__":
    sys.exit(main())
