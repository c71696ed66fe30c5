"""Dynamic reconfiguration of real ensembles: members join, leave, change their role, and the leader
goes; zkpy's and Apache's together, by kazoo.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.ensembles import NEW, ZKPY, check_equal_trees, kind, new_ensemble
from tests.support.load import Load

from zkpy.testing.ensemble import Ensemble, Member

kazoo = pytest.importorskip("kazoo")

from kazoo import exceptions as errors  # noqa: E402
from kazoo.client import KazooClient  # noqa: E402

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

CONFIG: dict[str, object] = {
    "reconfigEnabled": "true",
    "standaloneEnabled": "false",
    "skipACL": "yes",
}
IN_THE_LINES = {"clientPort": None, "clientPortAddress": None}
WAIT_S = 30.0

MIXES = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY, ZKPY, ZKPY, ZKPY), id="zkpy"),
        pytest.param((NEW, NEW, ZKPY, NEW), id="zkpy-leads-apache"),
        pytest.param((ZKPY, ZKPY, NEW, ZKPY), id="apache-leads-zkpy"),
    ],
)


def line(member: Member, role: str = "participant") -> str:
    """What stands behind server.N=, with the client's address, as the configuration has it."""
    ports = f"{member.host}:{member.peer_port}:{member.election_port}"
    return f"{ports}:{role};{member.host}:{member.client_port}"


def write_configs(ensemble: Ensemble, sids: Sequence[int]) -> None:
    lines = {sid: line(ensemble[sid]) for sid in sids}
    for sid in sids:
        ensemble[sid].write_config({**ensemble.config, **IN_THE_LINES}, lines)


@contextmanager
def client_of(*members: Member) -> Iterator[Any]:
    hosts = ",".join(f"{m.host}:{m.client_port}" for m in members)
    client = KazooClient(hosts, timeout=10)
    client.start(WAIT_S)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def members_in(config: bytes) -> dict[int, str]:
    found = re.findall(rb"^server\.(\d+)=(.*)$", config, re.MULTILINE)
    return {int(sid): text.decode() for sid, text in found}


def version_of(config: bytes) -> int:
    found = re.search(rb"^version=([0-9a-f]+)$", config, re.MULTILINE)
    assert found is not None, config
    return int(found[1], 16)


def join(ensemble: Ensemble, sid: int, known: Sequence[int]) -> None:
    """Start a member that is not in the configuration: it follows, and has no vote."""
    member = ensemble[sid]
    lines = {one: line(ensemble[one]) for one in known}
    # It has to be in its own list; as an observer it does no harm in elections meanwhile.
    lines[sid] = line(member, "observer")
    member.write_config({**ensemble.config, **IN_THE_LINES}, lines)
    ensemble.start(sid)


def check_config(ensemble: Ensemble, sids: Sequence[int], observers: Sequence[int] = ()) -> None:
    """Every running member shows the same configuration with these, behind a sync."""
    wanted = {sid: line(ensemble[sid]) for sid in sids}
    wanted |= {sid: line(ensemble[sid], "observer") for sid in observers}
    texts: dict[int, bytes] = {}
    for member in ensemble.running:
        with client_of(member) as client:
            client.sync("/")
            # Apache's order is that of a hash table.
            lines = sorted(client.get("/zookeeper/config")[0].split(b"\n"))
            texts[member.sid] = b"\n".join(lines)
    assert len(set(texts.values())) == 1, texts
    text = next(iter(texts.values()))
    assert members_in(text) == wanted
    for member in ensemble.running:
        version = version_of(text)
        names = {path.name for path in member.folder.glob("zoo.cfg.dynamic.*")}
        assert f"zoo.cfg.dynamic.{version:x}" in names, f"{member}: {names}"


@MIXES
def test_members_join_and_leave(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds, CONFIG) as ensemble:
        write_configs(ensemble, (1, 2, 3))
        ensemble.start(3, 1)
        ensemble.start(2)
        assert ensemble.wait_for_leader().sid == 3
        with client_of(ensemble[1], ensemble[2]) as client:
            config, _ = client.get("/zookeeper/config")
            assert sorted(members_in(config)) == [1, 2, 3]
            check_config(ensemble, (1, 2, 3))
            # A new member follows first; then it gets a vote.
            client.create("/before", b"")
            join(ensemble, 4, (1, 2, 3))
            config, stat = client.reconfig(
                joining=f"server.4={line(ensemble[4])}", leaving=None, new_members=None
            )
            assert sorted(members_in(config)) == [1, 2, 3, 4]
            assert stat.mzxid == version_of(config) or stat.version == -1
            check_config(ensemble, (1, 2, 3, 4))
            # Out of date, or nonsense: refused, and nothing changes.
            with pytest.raises(errors.BadVersionError):
                client.reconfig(
                    joining=None, leaving="4", new_members=None, from_config=version_of(config) - 1
                )
            with pytest.raises(errors.BadArgumentsError):
                client.reconfig(joining="server.5=nonsense", leaving=None, new_members=None)
            with pytest.raises(errors.NewConfigNoQuorumError):
                nobody = "127.0.0.1:1:2:participant;127.0.0.1:3"
                lines = "".join(f"\nserver.{sid}={nobody[:-1]}{sid}" for sid in (7, 8, 9))
                client.reconfig(joining=None, leaving=None, new_members=lines.strip())
            check_config(ensemble, (1, 2, 3, 4))
            # A follower leaves, in the old configuration's number.
            client.reconfig(
                joining=None, leaving="1", new_members=None, from_config=version_of(config)
            )
        ensemble[1].kill()
        check_config(ensemble, (2, 3, 4))
        # The leader leaves: another one leads, at once.
        with client_of(ensemble[2]) as client:
            reconfigure(client, leaving="3")
        ensemble[3].kill()
        ensemble.wait_for_leader((2, 4))
        check_config(ensemble, (2, 4))
        with client_of(ensemble[2], ensemble[4]) as client:
            # And comes back.
            join(ensemble, 3, (2, 4))
            client.reconfig(joining=f"server.3={line(ensemble[3])}", leaving=None, new_members=None)
        check_config(ensemble, (2, 3, 4))
        # All of that is there after a restart of everything.
        for member in ensemble.running:
            member.stop()
        ensemble.start(2, 3, 4)
        check_config(ensemble, (2, 3, 4))
        with client_of(ensemble[2]) as client:
            assert client.exists("/before")
        check_equal_trees(ensemble)


@MIXES
def test_roles_change_under_load(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds, CONFIG) as ensemble:
        write_configs(ensemble, (1, 2, 3, 4))
        ensemble.start()
        load = Load([m.address for m in ensemble.members.values()], clients=6)
        with load.running():
            load.wait_for_writes(100)
            for _ in range(2):
                leader = ensemble.wait_for_leader()
                follower = ensemble.followers()[0]
                # A follower loses its vote, and gets it back; then the leader does.
                for member in (follower, leader):
                    others = [m for m in ensemble.members.values() if m is not member]
                    for role in ("observer", "participant"):
                        with client_of(*others) as client:
                            reconfigure(client, f"server.{member.sid}={line(member, role)}")
                        wait_for_role(ensemble, member, role)
                        load.wait_for_writes(100)
        load.check()
        check_config(ensemble, (1, 2, 3, 4))
        check_equal_trees(ensemble)


def reconfigure(client: Any, joining: str | None = None, leaving: str | None = None) -> None:
    """Again where the connection was lost: then nobody knows whether it took effect."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            client.reconfig(joining=joining, leaving=leaving, new_members=None)
            return
        except (
            errors.ConnectionLoss,
            errors.SessionExpiredError,
            errors.NewConfigNoQuorumError,
            errors.ReconfigInProcessError,
            errors.OperationTimeoutError,
        ):
            assert time.monotonic() < deadline, "no reconfig gets through"
            time.sleep(0.2)


def wait_for_role(ensemble: Ensemble, member: Member, role: str) -> None:
    modes = ("observer",) if role == "observer" else ("leader", "follower")
    ensemble.eventually(lambda: member.mode() in modes, f"{member} becomes {role}", WAIT_S)
    ensemble.wait_for_leader()


def test_one_grows_to_three_and_shrinks_again(tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY, ZKPY, NEW], CONFIG) as ensemble:
        write_configs(ensemble, (1,))
        ensemble.start(1)
        for sid in (2, 3):
            join(ensemble, sid, range(1, sid))
            with client_of(ensemble[1]) as client:
                client.reconfig(
                    joining=f"server.{sid}={line(ensemble[sid])}", leaving=None, new_members=None
                )
            check_config(ensemble, range(1, sid + 1))
        for sid in (3, 2):
            with client_of(ensemble[1]) as client:
                client.reconfig(joining=None, leaving=str(sid), new_members=None)
            ensemble[sid].kill()
            ensemble.wait_for_leader()
            check_config(ensemble, range(1, sid))
        ensemble[1].swap(kind(NEW))
        ensemble.wait_until_serving()
        check_config(ensemble, (1,))
