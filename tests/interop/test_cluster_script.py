"""scripts/cluster, on ports and folders of the test's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import wire
from tests.support.oracle import PROJECT
from tests.support.rawclient import open_session

from zkpy.testing.ensemble import free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

SCRIPT = PROJECT / "scripts" / "cluster"
Cluster = Callable[..., "subprocess.CompletedProcess[str]"]
ROW = re.compile(r"^(\d)  127\.0\.0\.1:(\d+)  (.*)$", re.MULTILINE)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """conf/z1.cfg to z3.cfg with other ports, and data below `tmp_path`."""
    folder = tmp_path / "conf"
    folder.mkdir()
    ports: dict[str, int] = {}
    for original in sorted((PROJECT / "conf").glob("z?.cfg")):
        text = original.read_text().replace("./data", str(tmp_path / "data"))
        text = text.replace("tickTime=2000", "tickTime=500")
        for port in sorted(set(re.findall(r"(?<=[:=])\d{4}\b", text))):
            text = re.sub(rf"\b{port}\b", str(ports.setdefault(port, free_port())), text)
        (folder / original.name).write_text(text)
    assert len(ports) == 12, "a client and an admin port each, and two for peers"
    return folder


@pytest.fixture
def cluster(conf: Path) -> Iterator[Cluster]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), "--conf", str(conf), *words]
        environment = {**os.environ, "PYTHON": sys.executable}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )

    yield run
    assert run("stop").returncode == 0


def rows(done: subprocess.CompletedProcess[str]) -> dict[int, str]:
    """Number -> leader, follower, stopped, ... as the script shows it."""
    return {int(number): state.split(" (")[0] for number, _, state in ROW.findall(done.stdout)}


def leader_of(done: subprocess.CompletedProcess[str]) -> int:
    (leader,) = [number for number, state in rows(done).items() if state == "leader"]
    return leader


def test_a_cluster_from_start_to_stop(cluster: Cluster, tmp_path: Path) -> None:
    started = cluster("start")
    assert started.returncode == 0, started
    assert sorted(rows(started).values()) == ["follower", "follower", "leader"]
    for number in (1, 2, 3):
        assert (tmp_path / f"data/z{number}/myid").read_text() == f"{number}\n"
    ports = {int(number): int(port) for number, port, _ in ROW.findall(started.stdout)}
    again = cluster("start")
    assert again.returncode == 0
    assert "1 runs already" in again.stdout

    # The leader dies, another one leads, and what was written is there.
    leader = leader_of(started)
    client = open_session(("127.0.0.1", ports[leader]))
    client.value(wire.CREATE, wire.create("/x", b"1"))
    client.close()
    killed = cluster("kill", str(leader))
    assert killed.returncode == 0
    assert rows(killed)[leader] == "stopped"
    assert leader_of(killed) != leader
    other = leader % 3 + 1
    back = cluster("restart", str(leader))
    assert back.returncode == 0, back
    assert leader_of(back) != leader
    assert rows(back)[leader] == "follower"
    with open_session(("127.0.0.1", ports[other])) as client:
        assert client.value(wire.GET_DATA, wire.path_watch("/x"))[0] == b"1"
    status = cluster("status")
    assert (status.returncode, rows(status)) == (0, rows(back))

    # The logs, of all and of one.
    logs = cluster("logs").stdout
    assert [f"z{number}/server.log" in logs for number in (1, 2, 3)] == [True] * 3
    assert "z1/server.log" not in cluster("logs", "2").stdout

    # Without a quorum there is no leader, and a start of one does not wait for it.
    first, second = sorted({1, 2, 3} - {leader})
    assert cluster("kill", str(first), str(second)).returncode == 0
    status = cluster("status")
    assert status.returncode == 1
    stopped = cluster("stop", str(leader))
    assert (stopped.returncode, set(rows(stopped).values())) == (0, {"stopped"})
    alone = cluster("start", "1")
    assert alone.returncode == 1
    assert "no quorum" in alone.stdout
    assert leader_of(cluster("start", "2")) == 2


def test_what_cannot_be_done_is_said(cluster: Cluster, conf: Path, tmp_path: Path) -> None:
    for words, reason in [
        (("kill",), "kill which? Numbers: 1, 2, 3"),
        (("start", "4"), "there is no z4.cfg"),
    ]:
        done = cluster(*words)
        assert done.returncode == 1
        assert reason in done.stderr
    done = cluster("dance")
    assert done.returncode == 2
    # A member that does not start: its last words are shown.
    config = conf / "z2.cfg"
    text = config.read_text()
    config.write_text(text.replace("initLimit=10", "initLimit=ten"))
    done = cluster("start")
    assert done.returncode == 1
    assert "2 has ended; it said:" in done.stderr
    assert "initLimit" in done.stderr
    config.write_text(text)
    # A number in a file is no process of ours.
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        cluster("stop")
        (tmp_path / "data/z1/zookeeper_server.pid").write_text(str(stranger.pid))
        assert rows(cluster("kill", "1"))[1] == "stopped"
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()
