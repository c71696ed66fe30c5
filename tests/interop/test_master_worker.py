"""examples/master_worker: its README, typed line by line into terminals, kills and all."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.oracle import PROJECT
from tests.support.transcripts import Runner, steps_in
from tests.support.walkthroughs import environment_of, make_folder, with_ports, write_cluster

from .conftest import StartServer

pytest.importorskip("kazoo")

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, ConnectionLoss
from kazoo.retry import KazooRetry

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

README = PROJECT / "examples" / "master_worker" / "README.md"
HOSTS = re.search(r'HOSTS = "(.*)"', (README.parent / "common.py").read_text())
SESSION_TIMEOUT_S = 2.0


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """Terminals in a folder like the project's."""
    folder = make_folder(tmp_path / "project", {})
    ports = write_cluster(folder)
    assert HOSTS is not None
    options = f"--hosts {with_ports(HOSTS[1], ports)} --timeout {SESSION_TIMEOUT_S:g}"

    def translate(text: str) -> str:
        text = with_ports(text, ports)
        text = text.replace("scripts/cluster ", "scripts/cluster --conf conf ")
        text = re.sub(r"(examples/\w+/\w+\.py)", rf"\1 {options}", text)
        return re.sub(r"(sleep|slept) 3\b", r"\1 1", text)

    try:
        with Runner(folder, environment_of(folder), translate) as runner:
            yield runner
    finally:
        command = [sys.executable, "scripts/cluster", "--conf", "conf", "stop"]
        subprocess.run(command, cwd=folder, env=dict(os.environ), timeout=60, check=True)


def test_the_readme(runner: Runner) -> None:
    runner.run(steps_in(README))


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, Any]]:
    """The modules of the example, by name."""
    names = ("common", "master", "worker", "client")
    sys.path.insert(0, str(README.parent))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(README.parent))
        for name in names:
            sys.modules.pop(name, None)


NAMES = st.sampled_from([f"worker{number}" for number in range(5)])
TASKS = st.sampled_from([f"task-{10 - number:08x}-{number:010}" for number in range(10)])


@given(alive=st.sets(NAMES), place=st.dictionaries(TASKS, st.none() | NAMES))
def test_the_plan(programs: dict[str, Any], alive: set[str], place: dict[str, str | None]) -> None:
    """Whatever has no living worker gets one, once, oldest first, and the loads are even."""
    assigned = {name: [task for task in place if place[task] == name] for name in place.values()}
    waiting = assigned.pop(None, [])
    moves = programs["master"].plan(alive, assigned, waiting)
    if not alive:
        assert moves == []
        return
    tasks = [move.task for move in moves]
    assert sorted(tasks, key=lambda task: task[-10:]) == tasks
    assert sorted(tasks) == sorted(task for task in place if place[task] not in alive)
    load = {name: len(assigned.get(name, [])) for name in alive}
    for move in moves:
        assert move.source == place[move.task]
        assert load[move.worker] == min(load.values())
        load[move.worker] += 1


@pytest.fixture
def zk(start_server: StartServer) -> Iterator[Any]:
    """Called, it gives one more kazoo client of one and the same server."""
    server = start_server("zkpy")
    clients = []

    def start() -> Any:
        client = KazooClient(server.hosts, timeout=10)
        client.start()
        for path in ("/workers", "/assign", "/tasks"):
            client.ensure_path(path)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.stop()
        client.close()


def test_a_deposed_master_changes_nothing(zk: Any, programs: dict[str, Any]) -> None:
    old, new = (programs["master"].Master(zk(), name) for name in ("old", "new"))
    old.zk.create("/assign/worker1")
    old.term = old.zk.set("/assign", b"old").version
    old.carry_out(programs["master"].Move("task-1", None, "worker1"))
    assert old.zk.get_children("/assign/worker1") == ["task-1"]
    new.term = new.zk.set("/assign", b"new").version
    with pytest.raises(BadVersionError):
        old.carry_out(programs["master"].Move("task-2", None, "worker1"))
    with pytest.raises(BadVersionError):
        old.carry_out(programs["master"].Move("task-1", "worker1", "worker2"))
    assert new.zk.get_children("/assign/worker1") == ["task-1"]


def test_an_outcome_is_written_once(zk: Any, programs: dict[str, Any]) -> None:
    """A worker whose task was given to another one, or withdrawn, writes nothing."""
    client = zk()
    workers = [programs["worker"].Worker(zk(), f"worker{number}") for number in (1, 2)]
    for worker in workers:
        worker.register()
    client.create("/tasks/task-1", b"sum 1 2")
    client.create("/assign/worker2/task-1")
    first, second = workers
    first.do("task-1")
    assert client.get_children("/tasks/task-1") == []
    second.do("task-1")
    assert client.get("/tasks/task-1/status")[0] == b"done"
    assert client.get("/tasks/task-1/result")[0] == b"3"
    assert client.get_children("/assign/worker2") == []
    client.create("/assign/worker1/task-1")  # by a confused master
    first.do("task-1")
    assert client.get_children("/assign/worker1") == []
    client.create("/assign/worker1/withdrawn")
    first.do("withdrawn")
    assert client.get_children("/assign/worker1") == []


def test_a_task_is_handed_in_once(
    zk: Any, programs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the create is lost: the task that was made is found."""
    client = zk()
    client.retry = KazooRetry(max_tries=3, delay=0.01)
    create = client.create

    def lose_the_answer(*args: Any, **options: Any) -> None:
        create(*args, **options)
        raise ConnectionLoss

    monkeypatch.setattr(client, "create", lose_the_answer)
    before = client.get_children("/tasks")
    task = programs["client"].submit(client, "sum 1")
    assert set(client.get_children("/tasks")) - set(before) == {task}


def test_what_is_wrong_is_said(programs: dict[str, Any]) -> None:
    perform = programs["worker"].perform
    assert perform("sum 1 x") == ("failed", "invalid literal for int() with base 10: 'x'")
    assert perform("") == ("failed", "unknown command: ")
    command = [sys.executable, str(README.parent / "client.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "usage: client.py" in done.stderr
