"""The shell itself: lines, history, sessions and their ends, events, JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cli.memory import Dialog, Terminal
from tests.server.machine import Machine

from zkpy.cli.shell.main import main
from zkpy.cli.shell.options import parse_command_line
from zkpy.cli.shell.properties import client_properties, reply_limit, ssl_context
from zkpy.cli.shell.table import COMMANDS, CliError, command_names, usage_block

HOSTS = "127.0.0.1:2181"
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal(extended_types_enabled=True) as terminal:
        yield terminal


@pytest.fixture
def dialog(terminal: Terminal) -> Dialog:
    return terminal.session("-server", HOSTS)


def event(state: str, kind: str = "None", path: str = "null", zxid: int = -1) -> str:
    return f"\nWATCHER::\n\nWatchedEvent state:{state} type:{kind} path:{path} zxid: {zxid}\n"


# Lines


def test_blank_lines_are_nothing(dialog: Dialog) -> None:
    for line in ("", "   ", "\t"):
        assert dialog.type(line) == ""
    assert dialog.shell.prompt == f"[zk: {HOSTS}(CONNECTED) 0] "
    dialog.type("nonsense")
    assert dialog.shell.prompt == f"[zk: {HOSTS}(CONNECTED) 1] "


def test_help(dialog: Dialog) -> None:
    text = dialog.type("help")
    assert dialog.shell.status == 0
    assert text.startswith(usage_block() + "\n")
    for name in ("help", "tree", "find", "watch", "export", "import"):
        assert f"\n\t{name} " in text
    assert dialog.type("help create").splitlines()[0] == COMMANDS["create"].usage
    assert dialog.type("help nonsense") == "Command not found: nonsense\n"


def test_history_shows_eleven(dialog: Dialog) -> None:
    for number in range(20):
        dialog.type(f"printwatches {number}")
    lines = dialog.type("history").splitlines()
    assert lines[0] == "10 - printwatches 10"
    assert lines[-1] == "20 - history"
    assert len(lines) == 11


def test_redo(dialog: Dialog) -> None:
    dialog.type("ls /nope")
    assert dialog.type("redo 0") == "Node does not exist: /nope\n"
    assert dialog.shell.status == 1
    assert dialog.shell.history[1] == "ls /nope"
    assert dialog.type("redo x") == 'For input string: "x"\n'
    assert dialog.type("redo 2") == "No redoing redos\n"
    assert dialog.type("redo 4") == "Command index out of range\n", "itself"


def test_quit_keeps_the_status(dialog: Dialog) -> None:
    dialog.type("ls /nope")
    assert dialog.type("quit") == event("Closed")
    assert dialog.shell.finished
    assert dialog.shell.status == 1
    assert dialog.type("exit") == ""


# Left out: those that wait for time to pass, or write files.
ANY_COMMAND = sorted(COMMANDS.keys() - {"connect", "watch", "export", "import"})
ANY_WORD = st.sampled_from(["-s", "-w", "-v", "-R", "-e", "-x", "-1", "/", "/a", "''", "--", "-n"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ANY_COMMAND), st.lists(ANY_WORD | st.text(max_size=5)))
def test_no_line_ends_the_shell(terminal: Terminal, name: str, words: list[str]) -> None:
    dialog = terminal.session("-server", HOSTS)
    dialog.type(f"{name} {' '.join(words)}")
    assert dialog.shell.status in (0, 1, 127)
    dialog.type("quit")


# Sessions


def test_connect_elsewhere(terminal: Terminal, dialog: Dialog) -> None:
    terminal.servers[2182] = Machine()
    dialog.type("create /here")
    assert dialog.type("connect 127.0.0.1:2182") == event("Closed") + event("SyncConnected")
    assert dialog.shell.prompt == "[zk: 127.0.0.1:2182(CONNECTED) 2] "
    assert dialog.type("ls /") == "[zookeeper]\n"


@pytest.mark.parametrize("hosts", ["127.0.0.1:x", "127.0.0.1:99999", "/a/", "a:1/b/", ","])
def test_connect_to_nonsense_keeps_the_session(dialog: Dialog, hosts: str) -> None:
    text = dialog.type(f"connect {hosts}")
    assert text.count("\n") == 1
    assert "WATCHER" not in text
    assert dialog.shell.status == 1
    assert dialog.type("ls /") == "[zookeeper]\n"


def test_not_connected(dialog: Dialog) -> None:
    dialog.type("close")
    for line in ("ls /", "get", "close", "tree /"):
        assert dialog.type(line) == "Not connected\n"
        assert dialog.shell.status == 1
    assert dialog.type("history").endswith("\nNot connected\n")
    assert dialog.type("version").startswith("ZooKeeper CLI version: ")
    assert dialog.type("nonsense").endswith("\nCommand not found: nonsense\n")
    assert dialog.type("connect") == event("SyncConnected")
    assert dialog.type("ls /") == "[zookeeper]\n"


def test_connection_breaks_and_comes_back(
    terminal: Terminal, dialog: Dialog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands fail while no server can be had; the session, its watches and ephemerals stay."""
    monkeypatch.setattr("zkpy.client.core.RECONNECT_SPREAD_MS", 1)
    monkeypatch.setattr("zkpy.client.core.ROUND_DELAY_MS", 2)
    dialog.type("create -e /eph x")
    dialog.type("get -w /eph")
    machine = terminal.servers.pop(2181)
    dialog.console.take()
    terminal.loop.transports[-1].lose()
    assert dialog.console.take() == event("Disconnected")
    assert dialog.shell.prompt == f"[zk: {HOSTS}(CONNECTING) 2] "
    assert dialog.type("ls /") == "KeeperErrorCode = ConnectionLoss for /\n"
    terminal.servers[2181] = machine
    assert dialog.shell.session is not None
    assert terminal.runner.run(dialog.shell.session.connected(20))
    assert dialog.console.take() == event("SyncConnected")
    assert dialog.type("ls /") == "[eph, zookeeper]\n"
    assert "type:NodeDataChanged path:/eph" in dialog.type("set /eph y")


def test_session_expires_while_away(terminal: Terminal, dialog: Dialog) -> None:
    dialog.type("create -e /eph x")
    machine = terminal.servers.pop(2181)
    terminal.loop.transports[-1].lose()
    machine.advance(100_000)
    terminal.servers[2181] = machine
    dialog.console.take()
    assert dialog.shell.session is not None
    assert not terminal.runner.run(dialog.shell.session.connected(20))
    assert dialog.console.take() == event("Expired")
    assert dialog.shell.prompt == f"[zk: {HOSTS}(CLOSED) 1] "
    assert dialog.type("ls /") == "Not connected\n"
    dialog.type("connect")
    assert dialog.type("ls /") == "[zookeeper]\n"


def test_chroot(terminal: Terminal) -> None:
    terminal.one_shot(["-server", HOSTS, "create", "/root"])
    dialog = terminal.session("-server", f"{HOSTS}/root")
    assert dialog.type("create /a") == "Created /a\n"
    assert dialog.type("ls /") == "[a]\n"
    assert dialog.type("get /nope") == "Node does not exist: /nope\n"
    dialog.type("addWatch /a")
    assert "path:/a zxid" in dialog.type("set /a 1")
    assert dialog.shell.prompt == f"[zk: {HOSTS}/root(CONNECTED) 5] "


# Events


def test_legacy_events(terminal: Terminal) -> None:
    dialog = terminal.session("-server", HOSTS, "--legacy-events")
    dialog.type("get -w /zookeeper")
    assert dialog.type("set /zookeeper x") == (
        "\nWATCHER::\n\nWatchedEvent state:SyncConnected type:NodeDataChanged path:/zookeeper\n"
    )


def test_events_as_json(terminal: Terminal) -> None:
    dialog = terminal.session("-server", HOSTS, "--json")
    dialog.type("create /a")
    dialog.type("get -w /a")
    seen, result = map(json.loads, dialog.type("set /a 1").splitlines())
    assert seen["event"] == "NodeDataChanged"
    assert seen["path"] == "/a"
    assert result["stat"]["dataVersion"] == 1


def test_watch_follows_until_it_is_ended(terminal: Terminal, dialog: Dialog) -> None:
    dialog.type("create /a")
    dialog.console.take()

    async def follow() -> int:
        work = asyncio.ensure_future(dialog.shell.run(["watch", "-v", "/a"]))
        other = terminal.session_in_loop("-server", HOSTS)
        await other.connect(other.hosts)
        for line in ("create /a/b one", "set /a/b two", "create /elsewhere", "delete /a/b"):
            await other.execute(line)
        await other.close()
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        return await dialog.shell.run(["set", "/a", "unseen"])

    assert terminal.runner.run(follow()) == 0
    lines = dialog.console.take().splitlines()
    assert lines[0] == "Watching /a and what is below; Ctrl-C ends it"
    shown = [line.split(" ", 1)[1].split(" zxid ")[0] for line in lines[1:]]
    assert shown == ["NodeCreated /a/b", "NodeDataChanged /a/b", "NodeDeleted /a/b"]
    assert lines[2].endswith(" version 1: two")


# tree and find


def plant(dialog: Dialog) -> None:
    for line in (
        "create /a 12345",
        "create /a/b",
        "create /a/b/c deep",
        "create /a/d x",
        "create -e /a/e",
        "create /a/hidden h digest:bob:x=:cdrwa",
        "create /b",
    ):
        dialog.type(line)


def test_tree(dialog: Dialog) -> None:
    plant(dialog)
    owner = dialog.shell.session.zk.session_id  # type: ignore[union-attr]
    assert dialog.type("tree -s /a").splitlines() == [
        "/a (5 bytes)",
        "├── b (0 bytes)",
        "│   └── c (4 bytes)",
        "├── d (1 bytes)",
        f"├── e (0 bytes, ephemeral of {owner:#x})",
        "└── hidden (no permission to read)",
        "",
        "6 nodes",
    ]
    assert dialog.shell.status == 1, "not all could be read"
    assert dialog.type("tree -d 1 /").splitlines()[:3] == ["/", "├── a", "├── b"]
    assert dialog.shell.status == 0
    assert dialog.type("tree -d 0 /a") == "/a\n\n1 node\n"
    assert dialog.type("tree /nope") == "Node does not exist: /nope\n"
    assert dialog.type("tree -d x /") == 'For input string: "x"\n'
    nodes = [json.loads(line) for line in dialog.type("tree --json /a").splitlines()]
    assert [node["path"] for node in nodes] == ["/a", "/a/b", "/a/b/c", "/a/d", "/a/e", "/a/hidden"]
    assert nodes[-1]["error"] == "NoAuth"


def test_find(dialog: Dialog) -> None:
    plant(dialog)
    assert dialog.type("find /a -name 'c'") == "/a/b/c\nInsufficient permission : /a/hidden\n"
    assert dialog.type("find /a/b") == "/a/b\n/a/b/c\n"
    assert dialog.type("find /a/b -name [c-z]") == "/a/b/c\n"
    assert dialog.type("find /a/b -data ^d..p$") == "/a/b/c\n"
    assert dialog.type("find -d 1 -name '?'") == "/a\n/b\n"
    assert dialog.type("find /a -e -name *").startswith("/a/e\n")
    assert dialog.type("find / -data (").startswith("-data (: ")
    (line,) = dialog.type("find --json /a/b/c").splitlines()
    assert json.loads(line)["dataLength"] == 4


def test_wide_trees(terminal: Terminal, dialog: Dialog) -> None:
    """More children than are asked for at once."""
    dialog.type("create /wide")
    for number in range(230):
        dialog.type(f"create /wide/{number:03}")
    lines = dialog.type("tree /wide").splitlines()
    assert lines[1:-2] == [f"├── {n:03}" for n in range(229)] + ["└── 229"]
    assert json.loads(dialog.type("deleteall /wide --json")) == {"path": "/wide", "deleted": 231}


# JSON


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("create /new", {"path": "/new"}),
        ("create -s /new", {"path": "/new0000000002"}),
        ("delete /a", {"path": "/a"}),
        ("getAllChildrenNumber /", {"path": "/", "count": 5}),
        ("getEphemerals", ["/e"]),
        ("sync /a", {"path": "/a", "rc": 0}),
        ("whoami", [{"scheme": "ip", "user": "127.0.0.1"}]),
        ("printwatches", {"printwatches": "on"}),
        ("addWatch /a", {"path": "/a"}),
        ("listquota /a", {"path": "/a", "limits": None, "stat": None}),
        ("history", [{"number": n, "line": line} for n, line in enumerate(
            ["create /a x", "create -e /e", "history"])]),
    ],
)  # fmt: skip
def test_json(terminal: Terminal, line: str, value: object) -> None:
    dialog = terminal.session("-server", HOSTS, "--json")
    dialog.type("create /a x")
    dialog.type("create -e /e")
    assert json.loads(dialog.type(line).splitlines()[-1]) == value


def test_json_of_one_command_only(dialog: Dialog) -> None:
    dialog.type("create /a x")
    assert json.loads(dialog.type("get /a --json"))["data"] == "x"
    assert json.loads(dialog.type("ls --json /"))["children"] == ["a", "zookeeper"]
    assert dialog.type("create /b -- --json") == "Created /b\n"
    assert dialog.type("get /b") == "--json\n"


# The command line


def test_options() -> None:
    options = parse_command_line(["-server", "a:1,b:2/c", "-r", "-timeout", "5", "ls", "-s", "/"])
    assert (options.hosts, options.read_only, options.timeout_ms()) == ("a:1,b:2/c", True, 5)
    assert options.words == ["ls", "-s", "/"]
    options = parse_command_line(["-zzz", "-waitforconnection", "-h"])
    assert (options.unknown, options.wait, options.help) == (["-zzz"], True, True)


@pytest.mark.parametrize("option", ["-server", "-timeout", "-client-configuration"])
def test_option_without_its_argument(option: str) -> None:
    with pytest.raises(
        CliError, match=f"^Error: no argument found for option {option}$"
    ) as failure:
        parse_command_line(["-r", option])
    assert failure.value.status == 2


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["-server"], 2, "Error: no argument found for option -server\n"),
        (["-timeout", "abc", "ls", "/"], 1, 'For input string: "abc"\n'),
        (["-timeout", "0", "ls", "/"], 2, "-timeout must be more than 0\n"),
        (["-server", "h:abc", "ls", "/"], 1, "not a port: 'abc' in 'h:abc'\n"),
        (["-server", "h/a/", "ls", "/"], 1, "Path must not end with / character\n"),
        (
            ["-client-configuration", "/nope", "ls", "/"],
            2,
            "Error while processing /nope: /nope file is missing\n",
        ),
        (["-zzz", "version"], 0, "Unknown option: -zzz\n"),
    ],
)
def test_wrong_command_lines(
    capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, error: str
) -> None:
    assert main(arguments) == status
    assert capfd.readouterr().err == error


def test_help_of_the_program(capfd: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "-help", "--help"):
        assert main([option]) == 0
        assert capfd.readouterr().out.startswith("Usage: zkpy-cli [option ...]")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "zookeeper.client.secure=true\nzookeeper.ssl.trustStore.location=/nope.pem\n",
            "/nope.pem",
        ),
        ("bad=\\u12", "Malformed"),
    ],
)
def test_wrong_client_properties(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(text)
    assert main(["-client-configuration", str(file), "version"]) == 2
    err = capfd.readouterr().err
    assert error in err
    assert err.count("\n") == 1


def test_client_properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the flags, then of the file; TLS only where it is asked for."""
    store = GOLDEN / "tls" / "ca.pem"
    file = tmp_path / "client.properties"
    file.write_text(f"zookeeper.client.secure=true\nzookeeper.ssl.trustStore.location={store}\n")
    monkeypatch.setenv("CLIENT_JVMFLAGS", "-Djute.maxbuffer=0x1000 -Xmx1g")
    properties = client_properties(str(file))
    assert reply_limit(properties) == 4096
    context = ssl_context(properties)
    assert context is not None
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    monkeypatch.setenv("CLIENT_JVMFLAGS", "-Djute.maxbuffer=much")
    properties = client_properties(None)
    assert reply_limit(properties) is None
    assert ssl_context(properties) is None


def test_names_for_completion() -> None:
    names = command_names()
    assert names == sorted(names)
    assert {"getAcl", "ls", "tree", "quit"} <= set(names)
    assert not {"ls2", "rmr", "exit"} & set(names)
