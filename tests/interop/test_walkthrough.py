"""docs/walkthrough.md, typed line by line into terminals.

The page is the acceptance script of ZooKeeper's users, step by step. It is run as it stands, in the
old syntax, and once more in the new one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import oracle
from tests.support.oracle import PROJECT
from tests.support.terminal import COLUMNS, Screen, Terminal
from tests.support.transcripts import Runner, Step, at_prompt, steps_of
from tests.support.walkthroughs import (
    TICK_TIME_MS,
    environment_of,
    make_folder,
    with_ports,
    write_cluster,
)

from .conftest import StartServer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

PAGE = PROJECT / "docs" / "walkthrough.md"
ZKPY_CLI = [sys.executable, "-m", "zkpy.cli.shell"]


APACHE_CLI = [
    "java",
    *oracle.JVM_FLAGS,
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
    "-cp",
    oracle.classpath("3.9.5"),
    "org.apache.zookeeper.ZooKeeperMain",
]
# Old forms and what they are called now.
NEW_FORMS = [
    (r"(ls|stat|get) (\S+) (true|1)", r"\1 -w \2"),
    (r"set (\S+) (\S+) (\d+)", r"set -v \3 \1 \2"),
    (r"delete (\S+) (\d+)", r"delete -v \2 \1"),
    (r"rmr (\S+)", r"deleteall \1"),
]
# What is typed in the acceptance script, in the old syntax.
ACCEPTANCE = """
zkpy-server start
zkpy-server status
zkpy-cli
ls /
create /workers ""
delete /workers
create /workers "workers"
get /workers
help
help get
create -e /master "master1.example.com:2223"
get /master
create -e /master "master2.example.com:2223"
stat /master true
quit
create /tasks ""
create /assign ""
ls /workers true
ls /tasks true
get /tasks 1
create -e /workers/worker1.example.com "worker1.example.com:2224"
create /assign/worker1.example.com ""
ls /assign/worker1.example.com true
create -s /tasks/task- "cmd"
ls /tasks/task-0000000000 true
ls /tasks
ls /workers
create /assign/worker1.example.com/task-0000000000 ""
ls /assign/worker1.example.com
create /tasks/task-0000000000/status "done"
get /tasks/task-0000000000
get /tasks/task-0000000000/status
create /root ""
create /root/a ""
create /root/a/b ""
delete /root
rmr /root
create /v a
set /v b 0
set /v c 0
delete /v 0
delete /v 1
zkpy-server stop
zkpy-server start-foreground ./conf/z1.cfg
zkpy-server status ./conf/z1.cfg
zkpy-cli -server localhost:2181 ls /
zkpy-server start-foreground ./conf/z2.cfg
zkpy-server status ./conf/z2.cfg
zkpy-server start-foreground ./conf/z3.cfg
zkpy-server status ./conf/z3.cfg
zkpy-cli -server localhost:2181,localhost:2182,localhost:2183
create /x 1
sync /x
get /x
"""
# What tools look for in the logs of members that start, elect and join; the rest of a line.
LOGGED = [
    r"Reading configuration from: \S+/conf/z1\.cfg",
    r"clientPortAddress is 0\.0\.0\.0:\d+",
    r"Starting quorum peer, myid=2",
    r"binding to port 0\.0\.0\.0:\d+",
    r"LOOKING",
    r"New election\. My id = 1, proposed zxid=0x0",
    r"Notification time out: \d+ ms",
    r"Cannot open channel to 3 at election address /127\.0\.0\.1:\d+: Connection refused",
    r"Received connection request from /127\.0\.0\.1:\d+",
    r"FOLLOWING - LEADER ELECTION TOOK - \d+ MS",
    r"LEADING - LEADER ELECTION TOOK - \d+ MS",
    r"Peer state changed: following - discovery",
    r"Peer state changed: following - synchronization - diff",
    r"Peer state changed: following - broadcast",
    r"Peer state changed: leading - broadcast",
]


@contextmanager
def terminals(folder: Path, command: list[str], *, prompts: bool) -> Iterator[Runner]:
    """Terminals in which `command` is zkpy-cli."""
    make_folder(folder, {"zkpy-cli": command})
    # Only those the page names: others look the same, and are somebody's address.
    every = write_cluster(folder)
    ports = {port: every[port] for port in ("2181", "2182", "2183", "3334")}
    text = (PROJECT / "conf" / "zoo.cfg").read_text()
    text = re.sub(r"tickTime=\d+", f"tickTime={TICK_TIME_MS}", text)
    (folder / "conf" / "zoo.cfg").write_text(with_ports(text, ports))

    def translate(text: str) -> str:
        text = re.sub(r"^zkpy-cli(?! -server)", "zkpy-cli -server localhost:2181", text)
        return with_ports(text.replace("-timeout 5000", "-timeout 2000"), ports)

    environment = environment_of(folder)
    try:
        with Runner(folder, environment, translate, prompts=prompts) as runner:
            yield runner
    finally:
        stop = [sys.executable, "-m", "zkpy.cli.server", "stop"]
        subprocess.run(stop, cwd=folder, env=environment, timeout=30, check=False)


def in_new_syntax(step: Step) -> Step:
    typed = step.typed or ""
    for old, new in NEW_FORMS:
        typed = re.sub(f"^{old}$", new, typed)
    if typed == (step.typed or ""):
        return step
    return step._replace(
        typed=typed, seen=[line for line in step.seen if "has been deprecated" not in line]
    )


def one_server() -> list[Step]:
    """The page up to the ensemble, in the new syntax."""
    text = PAGE.read_text()
    return [in_new_syntax(step) for step in steps_of(text[: text.index("## E.")])]


def test_the_page(tmp_path: Path) -> None:
    with terminals(tmp_path / "project", ZKPY_CLI, prompts=True) as runner:
        runner.run(list(steps_of(PAGE.read_text())))
        logged = b"".join(runner.terminal(name).raw for name in "123").decode()
    assert [words for words in LOGGED if not re.search(f" - {words}\r\n", logged)] == []


def test_the_page_in_new_syntax(tmp_path: Path) -> None:
    with terminals(tmp_path / "project", ZKPY_CLI, prompts=True) as runner:
        runner.run(one_server())


def test_the_page_with_apaches_cli(tmp_path: Path) -> None:
    """Checks the page: it says what Apache's own program says, with zkpy's server."""
    reason = oracle.apache_missing()
    if reason is not None:
        pytest.skip(reason)
    steps = [step for step in one_server() if not (step.typed or "").startswith("help")]
    without = "JLine support is disabled"  # its line editor: no prompts
    for step in steps:
        step.seen[:] = [line.replace("JLine support is enabled", without) for line in step.seen]
    with terminals(tmp_path / "project", APACHE_CLI, prompts=False) as runner:
        runner.run(steps)


def test_every_step_is_on_the_page() -> None:
    """The page can be rewritten; what users of ZooKeeper type in the course of it stays."""
    typed = [step.typed for step in steps_of(PAGE.read_text()) if step.typed]
    missing = [line for line in ACCEPTANCE.split("\n") if line and line not in typed]
    assert missing == []


@pytest.mark.parametrize(
    ("shown", "right"),
    [
        ("one\ntwo", True),
        ("…\ntwo", True),
        ("o…e\ntwo", True),
        ("one", False),
        ("one\ntwo\nthree", False),
        ("two\none", False),
        ("one\ntw", False),
        ("one\ntwo\n\nWATCHER::\n\nWatchedEvent type:NodeCreated path:/x", False),
    ],
)
def test_a_page_that_is_wrong_is_found_out(tmp_path: Path, shown: str, right: bool) -> None:
    """Checks the tests above."""
    page = f"```console 1\n$ printf 'one\\ntwo\\n'\n{shown}\n$\n```\n"
    with Runner(tmp_path, {}, wait_s=20.0 if right else 0.3) as runner:
        if right:
            runner.run(list(steps_of(page)))
        else:
            with pytest.raises(AssertionError, match=r"(?s)line 2, terminal 1.*one.two"):
                runner.run(list(steps_of(page)))


def in_rows(text: str) -> list[str]:
    return [text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS)]


@pytest.mark.parametrize("path", ["/pq", "/" + "x" * COLUMNS + "pq"], ids=["short", "two rows"])
def test_an_event_comes_while_a_line_is_typed(start_server: StartServer, path: str) -> None:
    """It is written above the line, which stays as it was, cursor and all."""
    server = start_server("zkpy")
    command = [*ZKPY_CLI, "-server", server.hosts]
    environment = {**os.environ, "PYTHONPATH": str(oracle.SOURCE)}
    prompts = [f"[zk: {server.hosts}(CONNECTED) {number}]" for number in range(3)]
    rows = in_rows(f"{prompts[1]} create {path}")

    def untouched(screen: Screen) -> bool:
        """The line is there, and the cursor on the last but one letter."""
        return screen.text()[-len(rows) :] == rows and screen.column == len(rows[-1]) - 2

    with Terminal(command, environment=environment) as terminal:
        terminal.wait_for(lambda screen: at_prompt(screen, prompts[0]), prompts[0])
        terminal.type("addWatch /\r")
        terminal.wait_for(lambda screen: at_prompt(screen, prompts[1]), prompts[1])
        terminal.type(f"create {path}\x1b[D\x1b[D")
        terminal.wait_for(untouched, path)
        before = terminal.screen.text()[: -len(rows)]
        create = [*command, "create", "/other"]
        subprocess.run(create, env=environment, check=True, capture_output=True)
        terminal.wait_for(
            lambda screen: untouched(screen) and len(screen.lines) > len(before) + len(rows),
            "the event",
        )
        *above, event = terminal.screen.text()[: -len(rows)]
        assert above == [*before, "", "WATCHER::", ""]
        assert event.startswith("WatchedEvent state:SyncConnected type:NodeCreated path:/other ")
        terminal.type("o\r")  # where the cursor is
        terminal.wait_for(lambda screen: at_prompt(screen, prompts[2]), prompts[2])
        assert f"Created {path[:-2]}opq" in "".join(terminal.screen.text())
