"""zkpy-snapshot: the text of Apache's tools, summaries, JSON, comparison, sizes, and damage."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.transcripts import DISK, Run, runs_of, utc
from tests.datatree.txn_source import TxnSource

from zkpy.cli import snapshot_tool, tools
from zkpy.cli.snapshot_compare import Comparer, TreeInfo
from zkpy.cli.snapshot_file import load, stat_of, subtrees, walk
from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.snapshot import FileSnap
from zkpy.protocol.records import STAT

__all__ = ["utc"]
pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
EMPTY = str(DISK / "standalone-395/version-2/snapshot.0")
FULL = str(DISK / "standalone-395/version-2/snapshot.1e")
SNAPPY = str(DISK / "standalone-395-snappy/version-2/snapshot.1e.snappy")
GZ = str(DISK / "standalone-395-gz/version-2/snapshot.1e.gz")


def run(*arguments: str) -> int:
    return snapshot_tool.main(list(arguments))


def objects(capsys: Capture, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(*arguments) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# ---------------------------------------------------------------------- against Apache's tools


def details(text: str) -> tuple[str, set[str], set[str], str]:
    """First line, the blocks of znodes, the lines of sessions, the end: sets have no order."""
    head, *blocks = text.split("----\n")
    sessions = blocks[-2].splitlines()
    assert sessions[0] == "Session Details (sid, timeout, ephemeralCount):"
    return head, set(blocks[:-2]), set(sessions), blocks[-1]


@pytest.mark.parametrize(
    "golden", runs_of("disk-3.9.5.txt", "SnapshotFormatter"), ids=lambda r: r.command
)
def test_snapshot_formatter(golden: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DISK)
    assert run(*golden.words[1:]) == golden.code == 0
    out = capsys.readouterr().out
    if "-json" not in golden.words:
        assert details(out) == details(golden.out)
        return
    ours, theirs = json.loads(out), json.loads(golden.out)
    assert ours[:2] == theirs[:2]
    assert ours[2].keys() == theirs[2].keys()
    assert canonical(ours[3]) == canonical(theirs[3])


def canonical(node: Any) -> Any:
    """An ncdu node, without the numbers of nodes, its children by name."""
    if isinstance(node, dict):
        return {name: value for name, value in node.items() if name != "ino"}
    return [canonical(node[0]), *sorted(map(canonical, node[1:]), key=json.dumps)]


def blocks_of_summary(text: str) -> list[tuple[str, ...]]:
    lines = text.splitlines()
    return sorted(tuple(lines[i : i + 3]) for i in range(0, len(lines), 3))


@pytest.mark.parametrize(
    "golden", runs_of("disk-3.9.5.txt", "SnapshotRecursiveSummary"), ids=lambda r: r.command
)
def test_recursive_summary(golden: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DISK)
    assert run("sizes", *golden.words[1:]) == 0
    out = capsys.readouterr().out
    assert blocks_of_summary(out) == blocks_of_summary(golden.out)
    assert out.splitlines()[0] == golden.out.splitlines()[0]


@pytest.mark.parametrize(
    "golden", runs_of("disk-3.9.5.txt", "SnapshotComparer"), ids=lambda r: r.command
)
def test_snapshot_comparer(golden: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DISK)
    assert run("compare", *golden.words[1:]) == golden.code == 0
    seconds = re.compile(r"\d+\.\d{6} seconds")
    assert seconds.sub("T", capsys.readouterr().out) == seconds.sub("T", golden.out)


@pytest.fixture
def trees_of_transcript() -> Iterator[tuple[TreeInfo, TreeInfo]]:
    """The two trees that the comparisons of tools-3.9.5.txt were given, from what those print."""
    debug = next(r for r in runs_of("tools-3.9.5.txt", "SnapshotComparer") if "-d" in r.words)
    sizes: tuple[dict[str, int], dict[str, int]] = ({"": 0}, {"": 0})
    for line in debug.out.splitlines():
        if match := re.match(r"Filtered node (\S+) of left size (\d+), right size (\d+)", line):
            sizes[0][match[1]], sizes[1][match[1]] = int(match[2]), int(match[3])
        elif match := re.match(r"Filtered left node (\S+) of size (\d+)", line):
            sizes[0][match[1]] = int(match[2])
        elif match := re.match(r"Node (\S+) found only in right tree. .* size: (\d+)\.", line):
            sizes[1][match[1]] = int(match[2])
    yield tree_info(sizes[0]), tree_info(sizes[1])


def tree_info(totals: dict[str, int]) -> TreeInfo:
    """A tree of nodes with these totals."""
    tree = DataTree()
    tree.nodes.clear()
    from zkpy.datatree.node import EMPTY_STAT, DataNode

    for path, total in sorted(totals.items()):
        below = sum(
            size for other, size in totals.items() if other and other.rpartition("/")[0] == path
        )
        node = DataNode(bytes(max(total - below, 0)), -1, EMPTY_STAT)
        tree.nodes[path] = node
        if path:
            parent = tree.nodes[path.rpartition("/")[0]]
            parent.children = {**(parent.children or {}), path: None}  # type: ignore[dict-item]
    tree.nodes["/"] = tree.nodes[""]
    from zkpy.cli.snapshot_file import Snapshot

    return TreeInfo(Snapshot("", 0, tree, None, None, tools.Progress()))


def test_the_interactive_comparison(
    trees_of_transcript: tuple[TreeInfo, TreeInfo],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    golden = next(r for r in runs_of("tools-3.9.5.txt", "SnapshotComparer") if "-i" in r.words)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n1\n/n1\nzzz\n\n\n\n"))
    Comparer(*trees_of_transcript, 2, 1, debug=False).interactive()
    _, _, expected = golden.out.partition("Current depth is 0\n")
    out = capsys.readouterr().out
    root = re.compile(r"Node  found in both.*")  # of the root the transcript does not say enough
    assert root.sub("", out) == root.sub("", "Current depth is 0\n" + expected)


def test_the_interactive_comparison_ends_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("9\n"))
    assert run("compare", "-l", EMPTY, "-r", FULL, "-b", "0", "-n", "0", "-i") == 0
    out = capsys.readouterr().out
    assert "Depth must be in range [0, 4]\n" in out
    assert out.count("Current depth is 0\n") == 2


@pytest.mark.parametrize("golden", runs_of("tools-3.9.5.txt", "SnapshotFormatter"))
def test_wrong_calls_of_snapshot_formatter(
    golden: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EMPTY, "snapshot.0")
    if golden.code == 0:
        return  # on a file that is not kept
    assert run(*golden.words[1:]) == golden.code
    out, err = capsys.readouterr()
    assert out == ""
    expected = golden.err.replace("/srv/tt", str(tmp_path))
    if "USAGE" in expected:
        assert {*expected.splitlines()[1:2]} <= {*err.splitlines()}
    else:
        assert err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-l", EMPTY], "Missing required options: r, b, n"),
        (["-l", EMPTY, "-r", FULL, "-b", "1"], "Missing required option: n"),
        (
            ["-l", EMPTY, "-r", FULL, "-b", "x", "-n", "1"],
            "The thresholds of -b and -n are numbers",
        ),
        (["-l", EMPTY, "-q"], "Unrecognized option: option -q not recognized"),
    ],
)
def test_wrong_calls_of_snapshot_comparer(
    arguments: list[str], message: str, capsys: Capture
) -> None:
    assert run("compare", *arguments) == 2
    out, err = capsys.readouterr()
    assert err == f"{message}\n"
    golden = runs_of("tools-3.9.5.txt", "SnapshotComparer")[0]
    assert set(golden.out.splitlines()[1:]) <= set(out.splitlines())


# ---------------------------------------------------------------------- summary


def test_summary(capsys: Capture) -> None:
    assert run("summary", FULL, EMPTY) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"{FULL}\n"
        "  zxid        0x1e\n"
        "  last zxid   0x1e\n"
        "  znodes      17 (14 persistent, 1 ephemeral, 1 container, 1 TTL)\n"
        "  data        66 bytes, in a file of 1818\n"
        "  largest     18 bytes: /zookeeper/quota/a/zookeeper_limits\n"
        "  children    9 below /\n"
        "  depth       4: /zookeeper/quota/a/zookeeper_limits\n"
        "  last change 2026-11-22T12:38:54.575Z\n"
        "  sessions    2\n"
        "  ACLs        3\n"
        "  digest      0x638adb7d7 at zxid 0x1e, as the content has it\n"
        f"{EMPTY}\n"
    )
    assert out.endswith("  digest      of an empty tree\n")


def test_summary_as_json(capsys: Capture) -> None:
    for path in (SNAPPY, GZ):
        (found,) = objects(capsys, "summary", "--json", path)
        assert (found["znodes"], found["dataBytes"], found["sessions"]) == (17, 66, 2)
        assert found["digest"]["treeDigest"] == found["digest"]["computed"]


def test_summary_of_a_snapshot_that_needs_the_log(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "snapshot.10"
    shutil.copy(FULL, path)
    data = bytearray(path.read_bytes())
    # Another digest, and the seals to it.
    from zlib import adler32

    at = len(data) - 21 - 20 - 13
    data[at + 19] ^= 1
    for end in (at + 20, at + 20 + 13 + 8):
        data[end : end + 8] = adler32(data[:end]).to_bytes(8, "big")
    path.write_bytes(data)
    assert run("summary", str(path)) == 0
    assert "written while txns went on, it needs the log" in capsys.readouterr().out


# ---------------------------------------------------------------------- dump, sizes, compare


def grown(seed: int, directory: Path, steps: int = 60) -> tuple[DataTree, str]:
    """A tree after some txns, and a snapshot of it."""
    tree = DataTree(extended_types=True)
    source = TxnSource(Random(seed), tree)
    for _ in range(steps):
        apply_txn(tree, *source.next())
    method = ("", "gz", "snappy")[seed % 3]
    writer = FileSnap(OsDisk(), str(directory), compression_method=method).save(tree)
    return tree, writer.path


@given(seed=st.integers(0, 1 << 32))
def test_a_dump_shows_every_znode(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    tree, path = grown(seed, tmp_path_factory.mktemp("snap"))
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert run("dump", "--json", "--data", path) == 0
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    nodes = {found["path"]: found for found in lines if "path" in found}
    assert nodes.keys() == tree.nodes.keys() - {""}
    for name, node in tree.nodes.items():
        if not name or name.startswith("/zookeeper/quota"):
            continue  # usage is counted again when a tree is read
        found = nodes[name]
        stat = stat_of(node)
        assert found["czxid"] == f"{stat.czxid:#x}"
        assert (found["version"], found["cversion"]) == (stat.version, stat.cversion)
        if "dataBase64" not in found:
            assert (found["data"] and found["data"].encode()) == (node.data or found["data"])
        assert found["numChildren"] == STAT.unpack(tree.wire_stat(node))[9]
    sessions = {int(f["session"], 16): f["timeout"] for f in lines if "session" in f}
    assert sessions == tree.sessions


def test_dump_of_a_part(capsys: Capture) -> None:
    found = objects(capsys, "dump", "--json", "--path", "/a", FULL)
    assert [each["path"] for each in found] == ["/a", "/a/c", "/a/s-0000000001"]
    assert "data" not in found[0]
    assert found[1]["acl"][1] == {"perms": "r", "scheme": "world", "id": "anyone"}
    assert run("dump", "--path", "/a", FULL) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("/")] == [
        "/a", "/a/c", "/a/s-0000000001",
    ]  # fmt: skip
    assert run("dump", "--path", "/b", FULL) == 1
    assert capsys.readouterr().err == f"{FULL} has no znode /b\n"
    (value,) = objects(capsys, "dump", "--json", "--data", "--path", "/a/c", FULL)
    assert value["data"] == "\0\1"


@given(seed=st.integers(0, 1 << 32))
def test_sizes_add_up(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    _, path = grown(seed, tmp_path_factory.mktemp("snap"))
    snapshot = load(path)
    totals = subtrees(snapshot)
    for top in totals:
        below = [node for _, node in walk(snapshot.tree, top)]
        assert totals[top].znodes == len(below)
        assert totals[top].bytes == sum(len(node.data or b"") for node in below)


def test_sizes(capsys: Capture) -> None:
    assert run("sizes", FULL, "--top", "3") == 0
    assert capsys.readouterr().out == (
        "         bytes     znodes  path\n"
        "            66         17  /\n"
        "            34          6  /zookeeper\n"
        "            16          3  /a\n"
        "             4          1  /last\n"
        "... and 6 smaller ones (--all shows them)\n"
    )
    assert objects(capsys, "sizes", "--json", "--all", FULL, "/a") == [
        {"path": "/a", "bytes": 16, "znodes": 3},
        {"path": "/a/c", "bytes": 2, "znodes": 1},
        {"path": "/a/s-0000000001", "bytes": 1, "znodes": 1},
    ]
    assert run("sizes", FULL, "/nope", "1") == 1
    assert capsys.readouterr().err == f"{FULL} has no znode /nope\n"


def test_compare(capsys: Capture) -> None:
    assert run("compare", EMPTY, FULL) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "+ /live-eph  0 bytes, ephemeral of session 0x1000011029b0002" in lines
    assert "+ /ttl  1 bytes, TTL 1000000 ms" in lines
    assert "+ /cont  1 bytes, container" in lines
    assert "~ /zookeeper/quota  pzxid 0x0 -> 0x17, cversion 0 -> 1" in lines
    assert "+ session 0x1000011029b0000  timeout 30000" in lines
    assert lines[0].startswith("~ /  data 0 -> 8 bytes, mzxid 0x0 -> 0x16")
    assert lines[-1] == "15 added, 0 removed, 2 changed"
    assert run("compare", FULL, EMPTY) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 added, 15 removed, 2 changed"
    assert run("compare", FULL, FULL) == 0
    assert capsys.readouterr().out == "0 added, 0 removed, 0 changed\n"
    assert run("compare", EMPTY, FULL, "--path", "/a") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 added, 0 removed, 0 changed"
    assert run("compare", EMPTY, "nosuch") == 2


@given(seed=st.integers(0, 1 << 32), steps=st.integers(0, 12))
def test_compare_finds_exactly_what_changed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int
) -> None:
    before, path = grown(seed, tmp_path_factory.mktemp("one"))
    after, later = grown(seed, tmp_path_factory.mktemp("two"), 60 + steps)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        code = run("compare", "--json", path, later)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert code == bool(found)

    def state(tree: DataTree) -> dict[str, object]:
        return {
            path: (node.data, node.stat, tree.acls_of(node))
            for path, node in tree.nodes.items()
            if path and not path.endswith("/zookeeper_stats")
        }

    one, two = state(before), state(after)
    changed = {
        f["path"] for f in found if not f.get("path", "x/zookeeper_stats").endswith("_stats")
    }
    assert changed == {path for path in one | two if one.get(path) != two.get(path)}
    sessions = {int(each["session"], 16) for each in found if "session" in each}
    assert sessions == before.sessions.keys() ^ after.sessions.keys()


# ---------------------------------------------------------------------- damage


COMMANDS = [["summary"], ["dump"], ["dump", "--json"], ["sizes"], [], ["-json"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("source", [FULL, SNAPPY, GZ], ids=["plain", "snappy", "gz"])
def test_damage_is_named_with_file_and_offset(
    source: str, command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    data = bytearray(Path(source).read_bytes())
    path = tmp_path / Path(source).name
    for content in (data[: len(data) // 2], data[:100] + bytes([data[100] ^ 0xFF]) + data[101:]):
        path.write_bytes(content)
        assert run(*command, str(path)) == 1
        out, err = capsys.readouterr()
        assert re.match(rf"{re.escape(str(path))} at offset \d+: \S", err)
        assert len(err.splitlines()) == 1
        assert out == ""
        assert path.read_bytes() == content


def test_what_is_no_snapshot(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "snapshot.0"
    path.write_bytes(b"ZKLG" + bytes(100))
    assert run("summary", str(path)) == 1
    assert "at offset 16: mismatching magic headers 5a4b4c47 != 5a4b534e" in capsys.readouterr().err
    path.write_bytes(b"")
    assert run("summary", str(path)) == 1
    assert f"{path} at offset 0: " in capsys.readouterr().err
    assert run("summary", str(tmp_path)) == 2
    assert "is a directory" in capsys.readouterr().err


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(tools, "QUIET_S", 0.0)
    monkeypatch.setattr(tools, "UPDATE_S", 0.0)
    assert run("sizes", FULL) == 0
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert f"\rreading {FULL}: 100 %" in shown
    assert "\radding up: " in shown
    assert shown.endswith("\r\x1b[K")


def test_help(capsys: Capture) -> None:
    assert run("--help") == 0
    assert capsys.readouterr().out.startswith("usage: zkpy-snapshot {summary|dump|sizes|compare}")
    for command in ("summary", "dump", "sizes", "compare"):
        with pytest.raises(SystemExit) as error:
            run(command, "--help")
        assert error.value.code == 0
    with pytest.raises(SystemExit) as error:
        run("dump", "--path", "a", FULL)
    assert error.value.code == 2
    assert "argument --path: invalid znode value: 'a'" in capsys.readouterr().err
