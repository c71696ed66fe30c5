"""The harness of real ensembles, as far as it goes without servers: files, processes, waiting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from zkpy.testing import ensemble as module
from zkpy.testing.ensemble import (
    Ensemble,
    EnsembleError,
    Kind,
    Member,
    apache_kind,
    free_port,
    zkpy_kind,
)

# Says its configuration and its properties, then waits for a signal.
PROGRAM = """
import signal, sys
print("started with", *sys.argv[1:], flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
signal.pause()
"""


def command(config_path: Path, properties: Mapping[str, object]) -> list[str]:
    words = [f"{key}={value}" for key, value in properties.items()]
    return [sys.executable, "-c", PROGRAM, config_path.name, *words]


STANDIN = Kind("stand-in", command)
OTHER = Kind("other", lambda path, _: command(path, {"other": 1}))


def wait_for_line(member: Member, text: str, times: int = 1) -> None:
    ensemble = Ensemble(member.folder / "none", [])
    ensemble.eventually(lambda: member.log_text(all_starts=True).count(text) >= times, text, 20)


def test_configurations(tmp_path: Path) -> None:
    config = {"tickTime": 100, "syncLimit": None, "group.1": "1:2"}
    ensemble = Ensemble(tmp_path, [STANDIN, STANDIN, STANDIN], config, observers=[3])
    one, _, three = ensemble.members.values()
    lines = one.config_path.read_text().splitlines()
    assert f"dataDir={tmp_path}/m1/data" in lines
    assert f"clientPort={one.client_port}" in lines
    assert "tickTime=100" in lines
    assert "group.1=1:2" in lines
    assert not [line for line in lines if line.startswith(("syncLimit", "peerType"))]
    assert f"server.1=127.0.0.1:{one.peer_port}:{one.election_port}:participant" in lines
    assert f"server.3=127.0.0.1:{three.peer_port}:{three.election_port}:observer" in lines
    assert "peerType=observer" in three.config_path.read_text().splitlines()
    assert (one.data_dir / "myid").read_text() == "1\n"
    assert (three.data_dir / "myid").read_text() == "3\n"
    assert ensemble.hosts == ",".join(
        f"127.0.0.1:{m.client_port}" for m in ensemble.members.values()
    )


def test_ports_are_given_out_once() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200


def test_commands(tmp_path: Path) -> None:
    config, properties = tmp_path / "zoo.cfg", {"jute.maxbuffer": 100, "zookeeper.x": "y"}
    zkpy = zkpy_kind(tmp_path / "src", "python")
    assert zkpy.command(config, properties)[-2:] == ["start-foreground", str(config)]
    assert zkpy.environment(properties) == {
        "PYTHONPATH": str(tmp_path / "src"),
        "SERVER_JVMFLAGS": "-Djute.maxbuffer=100 -Dzookeeper.x=y",
    }
    java = apache_kind("3.9.5", "/jars/*").command(config, properties)
    assert java[0] == "java"
    assert {"-Djute.maxbuffer=100", "-Dzookeeper.x=y"} <= set(java)
    assert java[java.index("-cp") + 1] == "/jars/*"
    assert java[-1] == str(config)


def test_a_member_through_its_life(tmp_path: Path) -> None:
    with Ensemble(tmp_path, [STANDIN], properties={"a": "b"}) as ensemble:
        member = ensemble[1]
        member.start()
        wait_for_line(member, "started with zoo.cfg a=b")
        assert ensemble.running == [member]
        assert (member.mode(), member.zxid(), member.monitor()) == (None, None, {})
        member.pause()
        assert member.running
        assert ensemble.running == []
        member.resume()
        assert ensemble.running == [member]
        assert member.stop() == 7
        assert not member.running
        member.start()
        member.restart()
        wait_for_line(member, "started with", times=2)
        member.swap(OTHER)
        wait_for_line(member, "started with zoo.cfg other=1")
        assert member.log_text() == "started with zoo.cfg other=1\n"
        assert member.kind is OTHER
        process = member.process
    assert process is not None
    assert process.poll() == -9
    assert not member.running


def test_a_stop_that_is_not_followed_ends_in_a_kill(tmp_path: Path) -> None:
    program = PROGRAM.replace("lambda *_: sys.exit(7)", "signal.SIG_IGN")
    deaf = Kind("deaf", lambda *_: [sys.executable, "-c", program])
    with Ensemble(tmp_path, [deaf]) as ensemble:
        ensemble[1].start()
        wait_for_line(ensemble[1], "started with")
        process = ensemble[1].process
        # The signal must find its handler: that is set right behind the line.
        assert process is not None
        ensemble.eventually(lambda: ignores_sigterm(process.pid), "SIGTERM ignored", 20)
        with pytest.raises(subprocess.TimeoutExpired):
            ensemble[1].stop(0.05)
        assert process.poll() == -9


def ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (ignored,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored, 16) & 1 << 14)


def test_failures_show_the_logs(tmp_path: Path) -> None:
    broken = Kind("broken", lambda *_: [sys.executable, "-c", "print('no such quorum')"])
    with Ensemble(tmp_path, [broken]) as ensemble:
        with pytest.raises(EnsembleError, match=r"has ended(.|\n)*no such quorum"):
            ensemble.start()
        ensemble.kill()
        with pytest.raises(EnsembleError, match=r"not within 0 s: rain(.|\n)*not running"):
            ensemble.eventually(lambda: False, "rain", 0)


class Answers(Member):
    """Answers four letter words from a table."""

    table: Mapping[str, str]

    @property
    def running(self) -> bool:
        return True

    def ask(self, word: str, timeout_s: float = 0) -> str:
        return self.table.get(word, "")


def answering(ensemble: Ensemble, sid: int, mode: str, zxid: int) -> None:
    member = ensemble.members[sid]
    member.__class__ = Answers
    assert isinstance(member, Answers)
    member.table = {
        "srvr": f"Zookeeper version: x\nZxid: {zxid:#x}\nMode: {mode}\nNode count: 5\n",
        "mntr": f"zk_version\tx, built on y\nzk_server_state\t{mode}\n",
    }


def test_who_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0)
    ensemble = Ensemble(tmp_path, [STANDIN] * 3)
    answering(ensemble, 1, "leader", 0x100000005)
    answering(ensemble, 2, "leader", 0x200000001)
    answering(ensemble, 3, "follower", 0x200000001)
    assert ensemble.leader() is ensemble[2]
    assert ensemble.followers() == [ensemble[3]]
    assert ensemble.wait_for_leader() is ensemble[2]
    assert ensemble.wait_for_leader([2, 3]) is ensemble[2]
    with pytest.raises(EnsembleError, match=r"a leader among \[1, 3\]"):
        ensemble.wait_for_leader([1, 3], 0)
    assert ensemble[1].monitor() == {"version": "x, built on y", "server_state": "leader"}
    with pytest.raises(EnsembleError, match="the same zxid"):
        ensemble.wait_until_equal(0)
    answering(ensemble, 1, "follower", 0x200000001)
    assert ensemble.wait_until_equal() == 0x200000001
