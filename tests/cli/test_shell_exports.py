"""export and import: the file, and subtrees that come back whole."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.memory import Result, Terminal

from zkpy.cli.shell.exports import (
    Exported,
    ExportError,
    end_line,
    header_line,
    node_line,
    read_export,
)
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE

NAMES = st.text(
    st.characters(min_codepoint=0x30, max_codepoint=0xD7FF, exclude_characters="/"), min_size=1
)
ACLS = st.builds(ACL, st.integers(0, 31), st.just("digest"), st.text())
NODES = st.builds(
    Exported,
    NAMES.filter(lambda name: not re.search(r"[\x7f-\x9f]", name)).map("/{}".format),
    st.none() | st.binary() | st.text().map(str.encode),
    st.just(OPEN_ACL_UNSAFE) | st.lists(ACLS, min_size=1).map(tuple),
    st.booleans(),
)  # fmt: skip


@given(st.lists(NODES))
def test_nodes_come_back(nodes: list[Exported]) -> None:
    lines = [header_line("/app"), *map(node_line, nodes), end_line(len(nodes))]
    assert all("\n" not in line for line in lines)
    assert list(read_export(lines)) == ["/app", *nodes]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: the file is empty"),
        (["no"], "line 1: not JSON"),
        (["[]"], "line 1: not a JSON object"),
        (["[" * 100_000], "line 1: not JSON"),
        (['{"zkpy-export": 2}'], "line 1: not an export of zkpy-cli that this version can read"),
        (['{"zkpy-export": 1, "root": "x"}'], "line 1: no root: 'x'"),
        ([header_line("/a")], "line 2: the end is missing"),
        ([header_line("/a"), '{"path": ""}'], "line 3: the end is missing"),
        ([header_line("/a"), '{"path": ""}', end_line(2)], "line 3: 1 nodes, not 2"),
        ([header_line("/a"), end_line(0), "{}"], "line 3: nothing comes behind the end"),
        ([header_line("/a"), '{"path": "x"}'], "line 2: no path: 'x'"),
        ([header_line("/a"), '{"path": "/x/../y"}'], "line 2: no path: '/x/../y'"),
        ([header_line("/a"), '{"path": "", "data": 1}'], "line 2: no data: 1"),
        ([header_line("/a"), '{"path": "", "data": "!", "encoding": "base64"}'], "not base64"),
        ([header_line("/a"), '{"path": "", "acl": "x"}'], "line 2: no ACL: 'x'"),
        ([header_line("/a"), '{"path": "", "acl": ["x"]}'], r"line 2: no ACL: \['x'\]"),
    ],
)
def test_a_wrong_line_is_named(lines: list[str], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        list(read_export(lines))


def call(terminal: Terminal, *words: str, status: int = 0) -> Result:
    result = terminal.one_shot(["-server", "127.0.0.1", "--json", *words])
    assert result.status == status, result.err
    return result


def plant(terminal: Terminal) -> None:
    """Some nodes below /app, in one session."""
    dialog = terminal.session("-server", "127.0.0.1")
    for line in (
        "create /app root",
        "create /app/null",
        "create /app/empty ''",
        "create /app/text 'ü \"quoted\"'",
        "create /app/read r world:anyone:rwda",
        "create -e /app/gone x",
        "create /app/text/deep 1",
        *(f"create /app/empty/n{number:03} {number}" for number in range(120)),
    ):
        assert "Created" in dialog.type(line)


def content(terminal: Terminal, root: str) -> dict[str, object]:
    """Data and ACL of each node below `root`."""
    found: dict[str, object] = {}
    dialog = terminal.session("-server", "127.0.0.1", "--json")
    for path in json.loads(dialog.type(f"ls -R {root}"))["paths"]:
        node = json.loads(dialog.type(f"get {path}"))
        acl = json.loads(dialog.type(f"getAcl {path}"))
        found[path.removeprefix(root)] = (node["data"], node.get("encoding"), acl["acl"])
    return found


def test_a_subtree_comes_back(tmp_path: Path) -> None:
    file = str(tmp_path / "app.export")
    with Terminal() as terminal:
        plant(terminal)
        call(terminal, "set", "-b", "/app/text/deep", "/wA=")
        before = content(terminal, "/app")
        result = call(terminal, "export", "/app", file)
        assert result.err == f"Exported 127 nodes of /app to {file}\n"
        assert json.loads(result.out) == {"path": "/app", "file": file, "nodes": 127}
        result = call(terminal, "import", file, "/copy")
        assert result.err == "Ephemeral nodes left out: 1\nImported 126 nodes to /copy\n"
        del before["/gone"]
        assert content(terminal, "/copy") == before
        assert os.listdir(tmp_path) == ["app.export"]


def test_import_into_nodes_that_are_there(tmp_path: Path) -> None:
    file = str(tmp_path / "app.export")
    with Terminal() as terminal:
        plant(terminal)
        call(terminal, "export", "/app", file)
        before = content(terminal, "/app")
        call(terminal, "set", "/app/text", "changed")
        call(terminal, "delete", "/app/null")
        result = call(terminal, "import", file, status=1)
        assert result.err == "Node already exists: /app (-f overwrites)\n"
        assert "changed" in call(terminal, "get", "/app/text").out
        call(terminal, "import", "-f", file)
        assert content(terminal, "/app") == before


def test_all_of_the_tree(tmp_path: Path) -> None:
    """An export of / leaves out /zookeeper; into / it is merged."""
    file = str(tmp_path / "all.export")
    with Terminal() as terminal, Terminal() as other:
        plant(terminal)
        call(terminal, "export", "/", file)
        assert "zookeeper" not in Path(file).read_text()
        call(other, "import", file)
        kept = content(terminal, "/app")
        del kept["/gone"]
        assert content(other, "/app") == kept


def test_a_file_that_is_not_whole_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "app.export"
    with Terminal() as terminal:
        plant(terminal)
        call(terminal, "export", "/app", str(file))
        file.write_bytes(file.read_bytes()[:-20])
        result = call(terminal, "import", str(file), "/copy", status=1)
        assert re.fullmatch(rf"{file}: line \d+: .*\n", result.err)
        assert "copy" not in call(terminal, "ls", "/").out
        file.write_bytes(b"\xff\xfe")
        assert "not UTF-8" in call(terminal, "import", str(file), status=1).err


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    with Terminal() as terminal:
        nowhere = str(tmp_path / "no" / "file")
        assert call(terminal, "import", nowhere, status=1).err == (
            f"{nowhere}: No such file or directory\n"
        )
        assert call(terminal, "export", "/", nowhere, status=1).err == (
            f"{nowhere}: No such file or directory\n"
        )
        there = tmp_path / "there"
        there.write_text("precious")
        assert call(terminal, "export", "/nope", str(there), status=1).err == (
            "Node does not exist: /nope\n"
        )
        assert there.read_text() == "precious", "only a whole export replaces a file"
        assert os.listdir(tmp_path) == ["there"]


def test_parts_that_may_not_be_read(tmp_path: Path) -> None:
    file = str(tmp_path / "app.export")
    with Terminal() as terminal:
        plant(terminal)
        call(terminal, "create", "/app/secret", "s", "digest:bob:hash=:cdrwa")
        call(terminal, "create", "/app/shared", "s", "digest:bob:hash=:cdrwa,world:anyone:r")
        result = call(terminal, "export", "/app", file, status=1)
        assert "Insufficient permission : /app/secret\n" in result.err
        assert "ACLs with passwords that only ADMIN may see: 1\n" in result.err
