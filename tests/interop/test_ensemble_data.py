"""Data directories change hands in the middle of an ensemble's life, under load, both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    check_directories,
    check_equal_trees,
    kind,
    new_ensemble,
)
from tests.support.load import Load

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


@pytest.mark.parametrize("apache", [NEW, OLD])
def test_members_change_hands_under_load(apache: str, tmp_path: Path) -> None:
    # Few txns to a snapshot: there are some in each directory, with logs before and behind.
    config = {"snapCount": 200}
    with new_ensemble(tmp_path / "e", [apache] * 3, config) as ensemble:
        ensemble.start()
        load = Load([member.address for member in ensemble.members.values()], clients=5)
        with load.running():
            load.wait_for_writes(300)
            # One after the other becomes zkpy, the leader last; then all go back.
            for name in (ZKPY, apache):
                leader = ensemble.wait_for_leader().sid
                for sid in (*({1, 2, 3} - {leader}), leader):
                    ensemble[sid].swap(kind(name))
                    ensemble.wait_until_serving()
                    load.wait_for_writes(150)
        load.check()
        check_equal_trees(ensemble)
        for member in ensemble.members.values():
            member.stop()
        check_directories(ensemble, tmp_path)


def test_a_member_that_has_lost_its_directory(tmp_path: Path) -> None:
    with new_ensemble(tmp_path / "e", [ZKPY, NEW, ZKPY]) as ensemble:
        ensemble.start()
        load = Load([member.address for member in ensemble.members.values()], clients=4)
        with load.running():
            load.wait_for_writes(200)
            for sid in (1, 2, 3):
                ensemble[sid].kill()
                ensemble[sid].lose_data()
                ensemble.wait_for_leader()
                ensemble.start(sid)
                load.wait_for_writes(200)
        load.check()
        check_equal_trees(ensemble)
