"""Ensembles of zkpy and Apache ZooKeeper: each kind leads, each kind catches up in each way, and
the leader is killed under load. Nothing acknowledged is lost, and all members hold the same tree.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import wire
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    append_uncommitted,
    check_directories,
    check_equal_trees,
    new_ensemble,
    session,
)
from tests.support.load import Load

from zkpy.testing.ensemble import Ensemble, Member

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

# The log on disk is not used to catch up, only the last 500 txns in memory: else there would be
# no snapshot.
PROPERTIES = {"zookeeper.snapshotSizeFactor": "-1"}
MORE_THAN_IN_MEMORY = 600

DIFF, SNAP, TRUNC = (
    "Getting a diff from the leader",
    "Getting a snapshot from leader",
    "Truncating log to get in sync with the leader",
)

# Members 1 and 2 start with the leader, 3, whose id is the largest.
MIXES = [
    pytest.param((NEW, OLD, ZKPY), id="zkpy-leads-two-apaches"),
    pytest.param((ZKPY, OLD, NEW), id="apache-395-leads-zkpy-and-380"),
    pytest.param((ZKPY, ZKPY, OLD), id="apache-380-leads-two-zkpys"),
    pytest.param((ZKPY, NEW, ZKPY), id="zkpy-leads-zkpy-and-apache"),
    pytest.param((ZKPY, ZKPY, ZKPY), id="zkpy-alone"),
]


def start_led_by_three(ensemble: Ensemble, *, without: int = 0) -> None:
    """Of two that start together with equal logs, that with the larger id leads."""
    first = 2 if without == 1 else 1
    ensemble.start(3, first)
    assert ensemble.leader() is ensemble[3], f"not the larger id leads{ensemble.logs()}"
    second = 3 - first
    if second != without:
        ensemble.start(second)


def write(member: Member, path: str, count: int = 1) -> None:
    """Create a node and set it often, through that member."""
    client = session(member)
    client.call(wire.CREATE, wire.create(path))
    for number in range(count):
        client.send(wire.SET_DATA, wire.set_data(path, b"%d" % number))
    for _ in range(count):
        client.recv_reply().value(wire.SET_DATA)
    client.end_session()


def check_way(member: Member, way: str, ensemble: Ensemble) -> None:
    assert way in member.log_text(), f"{member} did not say: {way}{ensemble.logs()}"


@pytest.mark.parametrize("kinds", MIXES)
def test_followers_catch_up_in_every_way(kinds: tuple[str, ...], tmp_path: Path) -> None:
    # Of two followers of one kind, one is enough.
    sids = (1, 2) if kinds[0] != kinds[1] else (1,)
    with new_ensemble(tmp_path / "e", kinds, properties=PROPERTIES) as ensemble:
        start_led_by_three(ensemble)
        leader = ensemble[3]
        write(leader, "/before")
        for sid in sids:
            follower = ensemble[sid]
            for way, count in ((DIFF, 20), (SNAP, MORE_THAN_IN_MEMORY)):
                follower.kill()
                write(leader, f"/while-{sid}-was-away", count)
                ensemble.start(sid)
                assert ensemble.leader() is leader
                check_way(follower, way, ensemble)
                write(follower, f"/by-{sid}")
        check_equal_trees(ensemble)
        for sid in sids:
            write(ensemble[3 - sid], f"/before-truncation-{sid}")
            ensemble.wait_until_equal()
            ensemble.kill()
            # As if it had been proposed to this one alone, and no other has lived to tell.
            append_uncommitted(ensemble[sid], "/never")
            start_led_by_three(ensemble, without=sid)
            ensemble.start(sid)
            check_way(ensemble[sid], TRUNC, ensemble)
            write(ensemble[sid], "/after")
            assert "/never" not in check_equal_trees(ensemble)
        for member in ensemble.members.values():
            member.stop()
        check_directories(ensemble, tmp_path)


@pytest.mark.parametrize("kinds", MIXES[:-1])  # zkpy alone: test_ensemble_faults
def test_the_leader_is_killed_under_load(kinds: tuple[str, ...], tmp_path: Path) -> None:
    with new_ensemble(tmp_path / "e", kinds) as ensemble:
        start_led_by_three(ensemble)
        load = Load([member.address for member in ensemble.members.values()])
        with load.running():
            for _ in range(2):
                load.wait_for_writes(300)
                leader = ensemble.wait_for_leader()
                leader.kill()
                ensemble.wait_for_leader({1, 2, 3} - {leader.sid})
                load.wait_for_writes(300)
                leader.start()
                ensemble.wait_until_serving()
            load.wait_for_writes(300)
        load.check()
        check_equal_trees(ensemble)
        for member in ensemble.members.values():
            member.stop()
        check_directories(ensemble, tmp_path)
