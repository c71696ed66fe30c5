"""zkpy-cli as a process: at a terminal, in pipes, next to ZooKeeper's own zkCli."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support import oracle
from tests.support.terminal import Terminal

from .conftest import StartServer, node_numbers
from .test_apache_cli import SCRIPTS, Output, normalise
from .test_apache_cli import run as run_apache

pytestmark = pytest.mark.interop

COMMAND = [sys.executable, "-m", "zkpy.cli.shell"]
ENVIRONMENT = {"PYTHONPATH": str(oracle.SOURCE), "TZ": "UTC", "PYTHONUTF8": "1"}
CONNECTED = "WatchedEvent state:SyncConnected type:None path:null zxid: -1"


def cli(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run zkpy-cli to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )


@pytest.fixture(scope="module")
def zkpy(start_server: StartServer) -> oracle.Server:
    """A server for tests that only look at the shell."""
    return start_server("zkpy", {"tickTime": 200})


@pytest.fixture
def root(zkpy: oracle.Server) -> str:
    """A node of the test's own."""
    path = f"/root{next(node_numbers)}"
    assert cli("-server", zkpy.hosts, "create", path, "0").returncode == 0
    return path


class Window:
    """zkpy-cli in a terminal."""

    def __init__(self, hosts: str, *options: str) -> None:
        self.hosts = hosts
        command = [*COMMAND, "-server", hosts, *options]
        self.terminal = Terminal(command, environment=ENVIRONMENT)
        self.terminal.screen.columns = COLUMNS
        set_columns(self.terminal.fd)
        self.see(f"[zk: {hosts}(CONNECTED) 0]")

    def type(self, text: str) -> None:
        self.terminal.type(text)

    def see(self, text: str, times: int = 1) -> None:
        """Wait until `text` stands on the screen, wrapped or not."""
        self.terminal.wait_for(lambda screen: "".join(screen.text()).count(text) >= times, text)

    def last(self, text: str) -> None:
        """Wait until the last line ends with `text`."""
        self.terminal.wait_for(lambda screen: screen.text()[-1].endswith(text), text)

    def run(self, line: str) -> list[str]:
        """Type a line; what stands between it and the next prompt."""
        prompt = re.compile(r"\[zk: .* \d+\]( |$)")
        self.terminal.wait_for(lambda screen: bool(prompt.match(screen.text()[-1])), "a prompt")
        start = len(self.lines())
        self.type(line + "\r")
        self.terminal.wait_for(
            lambda screen: len(screen.text()) > start and bool(prompt.match(screen.text()[-1])),
            f"a prompt after {line}",
        )
        return self.lines()[start:-1]

    def lines(self) -> list[str]:
        return self.terminal.screen.text()

    def end(self) -> int:
        """The exit status; the program is about to end."""
        while self.terminal.read(5.0):
            pass
        return self.terminal.process.wait(10)


COLUMNS = 100


def set_columns(fd: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))


@pytest.fixture
def window(zkpy: oracle.Server) -> Iterator[Window]:
    window = Window(zkpy.hosts)
    yield window
    window.terminal.close()


# At a terminal


def test_a_session(window: Window, root: str) -> None:
    assert window.run(f"get {root}") == ["0"]
    assert window.run(f"create {root}/a x") == [f"Created {root}/a"]
    assert window.run("foo")[-1] == "Command not found: foo"
    window.run("history")
    assert window.lines()[-5:-1] == [
        f"0 - get {root}",
        f"1 - create {root}/a x",
        "2 - foo",
        "3 - history",
    ]
    window.type("\x1b[A\x1b[A\x1b[A\x1b[A\r")  # four lines up
    window.see("(CONNECTED) 5]")
    assert window.lines()[-2] == "0"
    window.type("quit\r")
    window.see("state:Closed")
    assert window.end() == 0


def test_banner(window: Window) -> None:
    assert window.lines()[:7] == [
        f"Connecting to {window.hosts}",
        "Welcome to ZooKeeper!",
        "JLine support is enabled",
        "",
        "WATCHER::",
        "",
        CONNECTED,
    ]


def change(server: oracle.Server, path: str, value: str = "1") -> None:
    assert cli("-server", server.hosts, "set", path, value).returncode == 0


def test_an_event_does_not_disturb_the_line_being_typed(
    window: Window, zkpy: oracle.Server, root: str
) -> None:
    window.run(f"get -w {root}")
    window.type(f"set {root} abc")
    window.see(f"1] set {root} abc")
    window.type("\x1b[D\x1b[D")  # the cursor is on the b now
    change(zkpy, root)
    window.see("type:NodeDataChanged")
    window.last(f"1] set {root} abc")
    before = window.lines()
    at = next(n for n, line in enumerate(before) if "NodeDataChanged" in line)
    assert before[at - 3 : at] == ["", "WATCHER::", ""]
    assert before[at + 1].endswith(f"set {root} abc")
    window.type("X\r")
    window.see("(CONNECTED) 2]")
    assert window.run(f"get {root}") == ["aXbc"]


def test_an_event_above_a_line_of_several_rows(
    window: Window, zkpy: oracle.Server, root: str
) -> None:
    window.run(f"get -w {root}")
    value = "".join(f"{n:03}" for n in range(100))
    window.type(f"set {root} {value}")
    window.see(value)
    change(zkpy, root)
    window.see("type:NodeDataChanged")
    window.see(value)
    text = window.lines()
    at = next(n for n, line in enumerate(text) if "NodeDataChanged" in line)
    assert "".join(text[at + 1 :]).endswith(f"set {root} {value}")
    assert [line for line in text[:at] if value[-30:] in line] == [], "a rest of the old line"
    window.type("\r")
    window.see("(CONNECTED) 2]")
    assert "".join(window.run(f"get {root}")) == value


def test_many_events(window: Window, zkpy: oracle.Server, root: str) -> None:
    window.run(f"addWatch {root}")
    window.type("ls /zoo")
    script = "".join(f"create {root}/n{number:02}\n" for number in range(60))
    cli("-server", zkpy.hosts, text=script)
    window.see(f"path:{root}/n59")
    window.last("1] ls /zoo")
    events = [line for line in window.lines() if "type:NodeCreated" in line]
    assert [line.split("path:")[1].split()[0] for line in events] == [
        f"{root}/n{number:02}" for number in range(60)
    ]
    window.type("keeper\r")
    window.see("[config, quota]")


def test_completion(window: Window, root: str) -> None:
    window.run(f"create {root}/alpha")
    window.run(f"create {root}/beta")
    window.type("getAl\t")
    window.see("2] getAllChildrenNumber")
    window.type(f"{root}/al\t\r")
    window.see(f"getAllChildrenNumber {root}/alpha")
    window.see("(CONNECTED) 3]")
    assert window.lines()[-2] == "0"
    window.type(f"ls {root}/\t\t")
    window.see(f"{root}/beta")
    window.type("\x15/zoo\t")
    window.last("3] /zookeeper")
    window.type("\x15get /no/such/node\t\t")
    window.last("3] get /no/such/node")


def test_ctrl_c_and_ctrl_d(window: Window) -> None:
    window.type("create /never")
    window.see("0] create /never")
    window.type("\x03")
    window.see("^C")
    window.see("(CONNECTED) 0]", 2)
    assert window.run("ls /never") == ["Node does not exist: /never"]
    window.type("\x03")
    window.see("(Ctrl-C again, Ctrl-D or quit leaves)")
    window.last("(CONNECTED) 1]")
    assert window.run("ls /zookeeper") == ["[config, quota]"]
    window.type("\x04")
    window.see("state:Closed")
    assert window.end() == 0


def test_ctrl_c_twice_leaves_with_the_last_status(window: Window) -> None:
    window.run("ls /nope")
    window.type("\x03")
    window.see("Ctrl-C again")
    window.last("(CONNECTED) 1]")
    window.type("\x03")
    window.see("state:Closed")
    assert window.end() == 1


def test_watch_until_ctrl_c(window: Window, zkpy: oracle.Server, root: str) -> None:
    window.type(f"watch -v {root}\r")
    window.see("Ctrl-C ends it")
    change(zkpy, root, "news")
    window.see(f"NodeDataChanged {root} zxid")
    window.see("version 1: news")
    window.type("\x03")
    window.see("(CONNECTED) 1]")
    change(zkpy, root, "more")
    assert window.run(f"get {root}") == ["more"], "no event any more"


def test_events_of_several_sessions(zkpy: oracle.Server, window: Window, root: str) -> None:
    """What the other window does is seen here, and the own line is not lost."""
    other = Window(zkpy.hosts, "-timeout", "1000")
    try:
        window.run(f"ls -w {root}")
        window.type("ls /zookeeper")
        window.see("1] ls /zookeeper")
        other.run(f"create -e {root}/worker")
        window.see(f"type:NodeChildrenChanged path:{root}")
        assert window.run("") == ["[config, quota]"]
        window.run(f"stat -w {root}/worker")
        other.terminal.process.send_signal(signal.SIGKILL)  # its session expires
        window.see(f"type:NodeDeleted path:{root}/worker")
    finally:
        other.terminal.close()


# Losing the server


def test_server_stops_and_comes_back(start_server: StartServer) -> None:
    server = start_server("zkpy", {"tickTime": 2000})
    window = Window(server.hosts)
    try:
        window.run("create -e /eph x")
        window.run("get -w /eph")
        server.kill()
        window.see("state:Disconnected")
        window.see("(CONNECTED) 2]")
        assert window.run("ls /")[-1] == "KeeperErrorCode = ConnectionLoss for /"
        assert window.lines()[-1] == f"[zk: {server.hosts}(CONNECTING) 3]"
        server.start()
        window.see(CONNECTED, 2)
        assert window.run("ls /") == ["[eph, zookeeper]"]
        assert "type:NodeDataChanged path:/eph" in "".join(window.run("set /eph y"))
        window.type("quit\r")
        assert window.end() == 0
    finally:
        window.terminal.close()


def test_session_expires(zkpy: oracle.Server, root: str) -> None:
    window = Window(zkpy.hosts, "-timeout", "400")
    try:
        window.run(f"create -e {root}/eph x")
        window.terminal.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: cli("-server", zkpy.hosts, "ls", f"{root}/eph").returncode == 1)
        window.terminal.process.send_signal(signal.SIGCONT)
        window.see("state:Expired")
        assert window.run("ls /") == ["Not connected"]
        assert window.lines()[-1] == f"[zk: {zkpy.hosts}(CLOSED) 2]"
        assert window.run("connect")[-1] == CONNECTED
        assert window.run(f"ls {root}") == ["[]"]
    finally:
        window.terminal.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)


# One command, and scripts


def test_one_command(zkpy: oracle.Server, root: str) -> None:
    done = cli("-server", zkpy.hosts, "ls", root)
    banner = f"Connecting to {zkpy.hosts}\n\nWATCHER::\n\n{CONNECTED}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{banner}[]\n", "")
    done = cli("-server", zkpy.hosts, "get", f"{root}/nope")
    assert (done.returncode, done.stdout) == (1, banner)
    assert done.stderr == f"Node does not exist: {root}/nope\n"
    assert cli("-server", zkpy.hosts, "foo").returncode == 127
    assert cli("-server", zkpy.hosts, "version").returncode == 0


def test_ephemeral_of_one_command(zkpy: oracle.Server, root: str) -> None:
    """It goes with the command's session, or lives on as long as a kept one."""
    cli("-server", zkpy.hosts, "create", "-e", f"{root}/gone")
    cli("-server", zkpy.hosts, "--keep-session", "create", "-e", f"{root}/kept")
    done = cli("-server", zkpy.hosts, "--json", "ls", root)
    assert json.loads(done.stdout)["children"] == ["kept"]


def test_json_is_all_there_is_on_stdout(zkpy: oracle.Server, root: str) -> None:
    done = cli("-server", zkpy.hosts, "--json", "get", root)
    assert json.loads(done.stdout)["data"] == "0"
    done = cli("-server", zkpy.hosts, "--json", "get", "/nope")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Node does not exist: /nope\n")


def test_script_on_standard_input(zkpy: oracle.Server, root: str) -> None:
    script = f"get {root}\n\n  \nls /nope\n"
    done = cli("-server", zkpy.hosts, text=script)
    assert done.returncode == 1, "the status of the last command"
    lines = done.stdout.splitlines()
    assert lines[1:3] == ["Welcome to ZooKeeper!", "JLine support is disabled"]
    assert lines[-5:] == ["0", "", "WATCHER::", "", CONNECTED.replace("SyncConnected", "Closed")]
    assert done.stderr == "Node does not exist: /nope\n"
    assert cli("-server", zkpy.hosts, text="ls /nope\nquit\n").returncode == 1


def test_a_reader_that_goes_away(zkpy: oracle.Server) -> None:
    """zkpy-cli ls -R / | head -1"""
    process = subprocess.Popen(
        [*COMMAND, "-server", zkpy.hosts, "--json", "tree", "/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("command", ["ls", "tree"])
def test_nobody_listens(command: str) -> None:
    hosts = f"127.0.0.1:{oracle.free_port()},127.0.0.1:{oracle.free_port()}"
    started = time.monotonic()
    done = cli("-server", hosts, command, "/")
    assert time.monotonic() - started < 5.0, "not only after the session timeout"
    assert done.stdout == f"Connecting to {hosts}\n"
    assert (done.returncode, done.stderr) == (1, "KeeperErrorCode = ConnectionLoss for /\n")
    done = cli("-server", hosts, "-timeout", "500", "-waitforconnection", command, "/")
    assert (done.returncode, done.stderr) == (1, "KeeperErrorCode = ConnectionLoss\n")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\0" * 64]
)
def test_another_service_listens(answer: bytes) -> None:
    """A wrong port: one line says what is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        hosts = f"127.0.0.1:{listener.getsockname()[1]}"
        done = cli("-server", hosts, "ls", "/")
        listener.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 1
    expected = f"KeeperErrorCode = ConnectionLoss for / ({hosts}: not a ZooKeeper server ("
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_a_service_that_says_nothing_is_named_when_the_time_is_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hosts = f"127.0.0.1:{listener.getsockname()[1]}"
        done = cli("-timeout", "1000", "-server", hosts, "ls", "/")
    assert done.returncode == 1
    expected = f"KeeperErrorCode = ConnectionLoss for / ({hosts}: not connected within 1000 ms)\n"
    assert done.stderr == expected


# Next to ZooKeeper's own

# What the four scripts of test_apache_cli do not have: options in all their forms, odd values.
# Lines that end ZooKeeper's with a stack trace are left out.
ODD_LINES = """
    create /o x
    create /o/u ünïcode-€
    get /o/u
    get -b /o/u
    get -x /o/u
    get -s -b /o/u
    create /o/b64 "two  blanks"
    get /o/b64
    set -b /o/b64 AAECAw==
    get -x /o/b64
    set -b /o/b64 QQ
    get /o/b64
    set /o/b64 ''
    get -bxs /o/b64
    create /o/n
    get -x /o/n
    get -b /o/n
    ls -Rs /o
    ls -Rw /o
    ls -s -- /o
    ls -sR -w /o
    ls -- -x
    ls --s /o
    ls -s=1 /o
    ls -ss /o
    ls -sz /o
    ls - /o
    stat - /o
    create -es /o/e- 1
    create -se /o/e- 1
    ls /o
    create -t /o/t
    create -t5000 /o/t
    create -t=5000 /o/t
    create -t '"5000"' /o/t3 d
    create -s /o/
    create -s /o/x/
    create /o//x
    create /o/../x
    create /o/...
    create /o/.hidden
    create /o/x.
    ls /o
    delete -v=0 /o/.hidden
    delete -v 0 -v 1 /o/...
    delete -v 1 /o/x.
    delete /o/x. -v 0
    set /o 1 -v 0 -s
    set /o -v 0 2
    set /o
    setAcl /o world:anyone:cdrwa,
    setAcl /o ,
    setAcl /o world:anyone
    create /a1
    setAcl /a1 world:anyone:
    getAcl /a1
    setAcl /o world:anyone:cdrwax
    getAcl /o
    setAcl /o ip:127.0.0.1:cdrwa,world:anyone:cdrwa
    getAcl -s -s /o
    setAcl -v -1 /o world:anyone:cdrwa
    addauth digest a:b
    addauth digest c:d
    whoami x -z
    create /o/acl d auth:x:cdrwa
    getAcl /o/acl
    sync /o x
    getEphemerals /o
    getEphemerals /nope
    getEphemerals -x
    getAllChildrenNumber /o /p
    addWatch -m
    addWatch -m x /o
    addWatch -mPERSISTENT /o
    addWatch /o -m persistent_recursive
    removewatches /o -x
    removewatches /o -c
    removewatches -l -p /o
    removewatches /o -r
    removewatches /o -r
    get -w /o
    removewatches -dc /o
    removewatches -d /o
    setquota -n 5 -n 6 /o
    listquota /o
    setquota -n5 /o
    setquota -N 1 /o
    setquota -B 1 /o
    setquota -b 0 /o
    setquota -n 2147483648 /o
    setquota -b 99999999999 /o
    listquota /o
    setquota -x 1 /o
    setquota -n
    setquota -n 3 /zookeeper
    setquota -n 3 o
    delquota -nN /o
    delquota -n x
    listquota x
    listquota /o -n
    delquota /o
    delquota -n /o
    ls -R /zookeeper
    config x y
    config -z
    config -cws
    reconfig -s
    reconfig -add
    reconfig -add X=1 -v 10
    reconfig -v 1x -add y
    reconfig -members a -file b
    reconfig -add=5
    deleteall /o -b
    deleteall -b 2 /o
    deleteall /nope -b 0
    history 3
    redo
    redo 0
    redo 0x1
    redo 01
    redo 999
    redo -5
    history
    printwatches maybe
    printwatches
    printwatches on extra
       create   "/q r"    'a b'
    get "/q r"
    ls /
    create /q"r x
    create "/unterminated x
    ls /
    close
    close
    history x
    get
    foo
    connect
    ls -s /zookeeper
"""


def without_java(line: str) -> str:
    """The reference's line as zkpy has it."""
    line = re.sub(r"^org\.apache\.commons\.cli\.\w+: ", "", line)
    return line.replace("Command not found: Command not found ", "Command not found: ")


def run_zkpy(server: oracle.Server, script: str) -> Output:
    text = "\n".join(line.strip() for line in script.strip().splitlines()) + "\nquit\n"
    done = subprocess.run(
        [*COMMAND, "-server", server.hosts],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    return normalise(done.stdout.replace(server.hosts, "SERVER"))


@pytest.fixture(scope="module")
def servers(start_server: StartServer) -> tuple[oracle.Server, oracle.Server]:
    """Alike, so that even zxids agree; what they are is tested elsewhere."""
    reason = oracle.apache_missing()
    if reason is not None:
        pytest.skip(reason)
    config = {"tickTime": 2000, "extendedTypesEnabled": "true"}
    return start_server("zkpy", config), start_server("zkpy", config)


@pytest.mark.parametrize("name", [*SCRIPTS, "odd"])
def test_same_words_as_zookeeper(servers: tuple[oracle.Server, oracle.Server], name: str) -> None:
    script = SCRIPTS.get(name, ODD_LINES)
    expected = run_apache(servers[0], script)
    got = run_zkpy(servers[1], script)
    assert len(expected.lines) > 10
    assert got.lines == [without_java(line) for line in expected.lines]
    assert got.events == expected.events
