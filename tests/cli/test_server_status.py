"""zkpy-server status: where it looks for the server, what it says, and TLS.

The lines are those of tests/golden/cli/zkServer-3.9.5.txt and section 2.5 of zkServer.sh's text.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tls import TLS, handshake

from zkpy.cli import server, status
from zkpy.cli.status import Target, converse, find_target

GOLDEN = Path(__file__).parent.parent / "golden"
NO_MYID = "myid could not be determined, will not able to locate clientPort in the server configs."
LOOK_IN_DYNAMIC = "Client port not found in static config file. Looking in dynamic config file."
NOT_IN_SERVERS = "Client port not found in the server configs"
LOOK_FOR_SECURE = "Client port not found. Looking for secureClientPort in the static config."
DYNAMIC = {"dataDir": "/d", "dynamicConfigFile": "/z.dynamic"}


def found(
    entries: Mapping[str, str], files: Mapping[str, str] | None = None
) -> tuple[Target | None, list[str]]:
    """What find_target finds, and what it says."""
    lines: list[str] = []
    return find_target(entries, (files or {}).get, lines.append), lines


# ---------------------------------------------------------------------- where the server is


@pytest.mark.parametrize(
    ("entries", "files", "target", "lines"),
    [
        ({"clientPort": "2181"}, {}, ("localhost", "2181", False), []),
        (
            {"clientPort": "2181", "clientPortAddress": "10.0.0.1", "secureClientPort": "2281"},
            {},
            ("10.0.0.1", "2181", False),
            [],
        ),
        ({"clientPort": "1", "clientPortAddress": "[::1]"}, {}, ("::1", "1", False), []),
        # The port is in the line of the server that myid names.
        (
            {"dataDir": "/d", "server.1": "a:1:2;2181", "server.2": "b:1:2:observer;2182"},
            {"/d/myid": "2\n"},
            ("localhost", "2182", False),
            [],
        ),
        (
            {"dataDir": "/d", "server.1": "a:1:2;127.0.0.1:2181", "clientPortAddress": "c"},
            {"/d/myid": "1"},
            ("127.0.0.1", "2181", False),
            [],
        ),
        (
            {"dataDir": "/d", "server.1": "a:1:2;[127::1]:2181"},
            {"/d/myid": "1"},
            ("127::1", "2181", False),
            [],
        ),
        # Or in that of the dynamic configuration.
        (
            DYNAMIC,
            {"/d/myid": "3", "/z.dynamic": "server.1=a:1:2;1\nserver.3=c:1:2;127.0.0.1:2183\n"},
            ("127.0.0.1", "2183", False),
            [LOOK_IN_DYNAMIC],
        ),
        (DYNAMIC, {"/d/myid": "3"}, None, [LOOK_IN_DYNAMIC, NOT_IN_SERVERS, LOOK_FOR_SECURE]),
        (
            {**DYNAMIC, "secureClientPort": "2281"},
            {"/d/myid": "3", "/z.dynamic": "server.3=c:1:2\n"},
            ("localhost", "2281", True),
            [LOOK_IN_DYNAMIC, NOT_IN_SERVERS, LOOK_FOR_SECURE],
        ),
        # A server for TLS only.
        (
            {"secureClientPort": "2281"},
            {},
            ("localhost", "2281", True),
            [NO_MYID, LOOK_FOR_SECURE],
        ),
        (
            {"secureClientPort": "2281", "secureClientPortAddress": "::1", "dataDir": "/d"},
            {"/d/myid": "x"},
            ("::1", "2281", True),
            [NO_MYID, LOOK_FOR_SECURE],
        ),
        ({}, {"/myid": "1"}, None, [NO_MYID, LOOK_FOR_SECURE]),
        # What is no number is shown as it is, as there.
        ({"clientPort": "abc"}, {}, ("localhost", "abc", False), [NO_MYID]),
    ],
)
def test_where_the_server_is(
    entries: dict[str, str],
    files: dict[str, str],
    target: tuple[str, str, bool] | None,
    lines: list[str],
) -> None:
    assert found(entries, files) == (target and Target(*target), lines)


HOSTS = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.ip_addresses().map(str)


@given(st.integers(1, 255), st.integers(0, 65535), HOSTS)
def test_the_line_of_a_server_is_found_wherever_it_is(my_id: int, port: int, host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    line = f"zk{my_id}:2888:3888:participant;{written}:{port}"
    files = {"/d/myid": str(my_id), "/z.dynamic": f"server.{my_id}={line}\n"}
    target = Target(host, str(port), False)
    assert found({"dataDir": "/d", f"server.{my_id}": line}, files) == (target, [])
    assert found(DYNAMIC, files) == (target, [LOOK_IN_DYNAMIC])


# ---------------------------------------------------------------------- what is said


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty current directory, and nothing in the environment that counts."""
    for name in ("ZOOCFG", "ZOOCFGDIR", "JVMFLAGS", "SERVER_JVMFLAGS", "CLIENT_JVMFLAGS",
                 "ZOO_DATADIR_AUTOCREATE_DISABLE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def answering(
    monkeypatch: pytest.MonkeyPatch, answer: str | Exception
) -> list[tuple[Target, ssl.SSLContext | None]]:
    """Let the server answer, without one; returns what it is asked."""
    asked: list[tuple[Target, ssl.SSLContext | None]] = []

    def ask(target: Target, context: ssl.SSLContext | None) -> str:
        asked.append((target, context))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(status, "ask", ask)
    return asked


def run(
    capsys: pytest.CaptureFixture[str], lines: str = "clientPort=2181\n"
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr without its first line) for a configuration of these lines."""
    Path("z.cfg").write_text(lines)
    code = server.main(["status", "./z.cfg"])
    captured = capsys.readouterr()
    first, _, rest = captured.err.partition("\n")
    assert first == "Using config: ./z.cfg"
    return code, captured.out, rest


PORT_FOUND = "Client port found: 2181. Client address: localhost. Client SSL: false.\n"
NO_SERVICE = "Error contacting service. It is probably not running.\n"


@pytest.mark.parametrize("mode", ["standalone", "leader", "follower", "observer", "read-only"])
def test_the_mode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    asked = answering(monkeypatch, f"Zookeeper version: 3\nMode: {mode}\nNode count: 5\n")
    assert run(capsys) == (0, f"{PORT_FOUND}Mode: {mode}\n", "")
    assert asked == [(Target("localhost", "2181", False), None)]


@pytest.mark.parametrize(
    ("answer", "line", "reason"),
    [
        ("This ZooKeeper instance is not currently serving requests\n",
         "This ZooKeeper instance is not currently serving requests\n", ""),
        ("srvr is not executed because it is not in the whitelist.\n",
         "srvr is not executed because it is not in the whitelist.\n", ""),
        ("", NO_SERVICE, ""),
        ("HTTP/1.1 400 Bad Request\r\n\r\n<p>Mode: \x1b[31m</p>", NO_SERVICE, ""),
        (ConnectionRefusedError(), NO_SERVICE, ""),
        (TimeoutError(), NO_SERVICE, "localhost:2181: no answer within 5 s"),
        (ConnectionResetError(104, "Connection reset by peer"), NO_SERVICE,
         "localhost:2181: Connection reset by peer"),
        (UnicodeError("label too long"), NO_SERVICE, "label too long"),
    ],
)  # fmt: skip
def test_without_a_mode(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str | Exception,
    line: str,
    reason: str,
) -> None:
    answering(monkeypatch, answer)
    told = f"zkpy-server: {reason}\n" if reason else ""
    assert run(capsys) == (1, PORT_FOUND + line, told)


def test_a_configuration_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code = server.main(["status", "nosuch.cfg"])
    captured = capsys.readouterr()
    terminating = (
        "Unable to find either secure or unsecure client port in any configs. Terminating."
    )
    assert (code, captured.out.splitlines()) == (1, [NO_MYID, LOOK_FOR_SECURE, terminating])
    assert captured.err.endswith("/conf/nosuch.cfg file is missing\n")


def test_directories_that_must_be_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_DATADIR_AUTOCREATE_DISABLE", "1")
    assert run(capsys, "dataDir=/none\nclientPort=1\n") == (
        1, "ZooKeeper data directory is missing at /none fix the path or run initialize\n", "",
    )  # fmt: skip


def test_a_bad_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for port in ("abc", "70000", "0"):
        code, out, err = run(capsys, f"clientPort={port}\n")
        assert (code, out.splitlines()[-1] + "\n") == (1, NO_SERVICE)
        assert err == f"zkpy-server: {port} is not a port\n"


# ---------------------------------------------------------------------- the conversation


def conversation(sent: bytes, timeout_s: float = 5.0) -> str:
    """What converse() makes of a server that sends this and closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        answer = converse(ours, time.monotonic() + timeout_s)
        assert theirs.recv(100) == b"srvr"
    return answer


def test_an_answer_is_read_to_its_end() -> None:
    assert conversation(b"Mode: leader\nNode count: 5\n") == "Mode: leader\nNode count: 5\n"
    assert conversation(b"\xff\xfe") == "\ufffd\ufffd"


def test_an_endless_answer_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MAX_ANSWER_BYTES", 1000)
    assert 1000 <= len(conversation(bytes(5000))) < 5000


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        converse(ours, time.monotonic())


def test_an_answer_counts_even_if_the_end_is_rude() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"Mode: follower\n")
        assert converse(ours, time.monotonic()) == "Mode: follower\n"


# ---------------------------------------------------------------------- TLS


SECURE = f"""secureClientPort=2281
dataDir=/none
ssl.keyStore.location={TLS}/server.pem
ssl.trustStore.location={TLS}/ca.pem
"""
SECURE_FOUND = f"""{NO_MYID}
{LOOK_FOR_SECURE}
Client port found: 2281. Client address: localhost. Client SSL: true.
"""


def test_status_on_a_tls_port_uses_the_stores_of_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, "Mode: standalone\n")
    assert run(capsys, SECURE) == (0, f"{SECURE_FOUND}Mode: standalone\n", "")
    ((_, context),) = asked
    assert context is not None
    assert not context.check_hostname, "localhost is in no certificate"
    assert handshake(context) == "TLSv1.3"


def test_status_on_a_tls_port_uses_the_stores_of_client_jvmflags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answering(monkeypatch, "Mode: standalone\n")
    monkeypatch.setenv(
        "CLIENT_JVMFLAGS",
        "-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty"
        f" -Dzookeeper.ssl.trustStore.location={TLS}/trust.jks"
        " -Dzookeeper.ssl.trustStore.password=password"
        f" -Dzookeeper.ssl.keyStore.location={TLS}/server.jks"
        " -Dzookeeper.ssl.keyStore.password=password -Dzookeeper.client.secure=true",
    )
    assert run(capsys, "secureClientPort=2281\n")[0] == 0
    ((_, context),) = asked
    assert context is not None
    assert handshake(context) == "TLSv1.3"


def transcript_of_a_failure() -> str:
    """stdout of `status tls.cfg` without stores for it, as zkServer.sh printed it."""
    text = (GOLDEN / "cli" / "zkServer-3.9.5.txt").read_text()
    block = text.partition("$ bin/zkServer.sh status tls.cfg\n")[2].partition("=>")[0]
    lines = re.findall(r"^1\| (.*)$", block, re.MULTILINE)
    return "".join(f"{line}\n" for line in lines[1:])


@pytest.mark.parametrize("lines", ["secureClientPort=2281\n", SECURE + "ssl.clientAuth=x\n"])
def test_a_tls_port_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    answering(monkeypatch, ConnectionResetError(104, "Connection reset by peer"))
    code, out, err = run(capsys, lines)
    assert (code, out) == (1, transcript_of_a_failure())
    assert err.count("\n") == 1


def test_flags_with_open_quotes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIENT_JVMFLAGS", "-Da='")
    code, out, err = run(capsys, SECURE)
    assert (code, out) == (1, transcript_of_a_failure())
    assert err == "zkpy-server: CLIENT_JVMFLAGS=-Da=': No closing quotation\n"
