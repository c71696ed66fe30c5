"""Real processes under faults and load: killed, frozen, cut off from each other.

Every test ends with the same checks: no acknowledged write lost, every key linearizable, reads
behind a sync included where zkpy leads, and one tree on all members.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from tests.support import namespaces
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    check_directories,
    check_equal_trees,
    new_ensemble,
)
from tests.support.load import Load
from tests.support.namespaces import Namespaces

from zkpy.testing.ensemble import Ensemble

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

# How many seconds of random faults; scripts/soak sets more.
SOAK_S = float(os.environ.get("ZKPY_SOAK_S", "0"))
SEED = int(os.environ.get("ZKPY_SEED", "1"))

THREE = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY, ZKPY, ZKPY), id="zkpy"),
        pytest.param((NEW, ZKPY, OLD), id="zkpy-and-two-apaches"),
    ],
)
FIVE = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY,) * 5, id="zkpy"),
        pytest.param((ZKPY, NEW, ZKPY, OLD, ZKPY), id="zkpy-and-two-apaches"),
    ],
)


@contextmanager
def under_load(ensemble: Ensemble, folder: Path, kinds: Sequence[str]) -> Iterator[Load]:
    """Clients on all members until the block ends; then everything must be right."""
    addresses = [member.address for member in ensemble.members.values()]
    load = Load(addresses, clients=10, connect=ensemble.network.connect, seed=SEED)
    with load.running():
        load.wait_for_writes(100)
        yield load
        ensemble.wait_until_serving()
        load.wait_for_writes(100)
    load.check(strict_reads=set(kinds) == {ZKPY})
    check_equal_trees(ensemble)
    for member in ensemble.running:
        member.stop()
    check_directories(ensemble, folder)


@THREE
def test_followers_and_leaders_are_killed(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path / "e", kinds) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            for sid in (1, 2, 3):
                ensemble[sid].kill()
                ensemble.wait_for_leader()
                load.wait_for_writes(100)
                ensemble.start(sid)
                load.wait_for_writes(100)


def test_all_members_are_killed_at_once(tmp_path: Path) -> None:
    kinds = (ZKPY, ZKPY, ZKPY)
    with new_ensemble(tmp_path / "e", kinds) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            for _ in range(4):
                ensemble.kill()
                ensemble.start()
                load.wait_for_writes(100)


@THREE
def test_a_frozen_leader_is_replaced_and_finds_out(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path / "e", kinds) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            for _ in range(2):
                leader = ensemble.wait_for_leader()
                leader.pause()
                others = {1, 2, 3} - {leader.sid}
                ensemble.wait_for_leader(others)
                load.wait_for_writes(100)
                leader.resume()
                ensemble.eventually(
                    lambda leader=leader: leader.mode() == "follower",
                    "the old leader follows",
                )
                load.wait_for_writes(100)


def test_a_frozen_follower_holds_nobody_up(tmp_path: Path) -> None:
    kinds = (ZKPY, ZKPY, ZKPY)
    with new_ensemble(tmp_path / "e", kinds) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            for follower in ensemble.followers():
                leader = ensemble.wait_for_leader()
                follower.pause()
                load.wait_for_writes(300)
                assert ensemble.wait_for_leader() is leader
                follower.resume()
                ensemble.wait_until_serving()
                load.wait_for_writes(100)


@pytest.fixture
def network() -> Iterator[Namespaces]:
    reason = namespaces.missing()
    if reason is not None:
        pytest.skip(reason)
    with Namespaces(5) as made:
        yield made


@FIVE
def test_a_leader_cut_off_with_a_minority(
    kinds: Sequence[str], network: Namespaces, tmp_path: Path
) -> None:
    with new_ensemble(tmp_path / "e", kinds, network=network) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            for _ in range(2):
                leader = ensemble.wait_for_leader()
                follower = ensemble.followers()[0]
                minority = {leader.sid, follower.sid}
                network.isolate(*minority)
                ensemble.wait_for_leader({1, 2, 3, 4, 5} - minority)
                ensemble.eventually(lambda old=leader: old.mode() is None, "the old leader ends")
                load.wait_for_writes(100)
                network.heal()
                ensemble.wait_until_serving()
                load.wait_for_writes(100)


def test_one_direction_is_cut(network: Namespaces, tmp_path: Path) -> None:
    kinds = (ZKPY,) * 5
    with new_ensemble(tmp_path / "e", kinds, network=network) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            leader = ensemble.wait_for_leader()
            others = [member.sid for member in ensemble.members.values() if member is not leader]
            # Nobody hears the leader, and it hears everybody; then the other way round.
            for sid in others:
                network.cut_one_way(leader.sid, sid)
            ensemble.wait_for_leader(others)
            load.wait_for_writes(100)
            network.heal()
            ensemble.wait_until_serving()
            load.wait_for_writes(100)
            leader = ensemble.wait_for_leader()
            others = [member.sid for member in ensemble.members.values() if member is not leader]
            for sid in others:
                network.cut_one_way(sid, leader.sid)
            ensemble.wait_for_leader(others)
            load.wait_for_writes(100)
            network.heal()


@pytest.mark.slow
@pytest.mark.timeout(int(SOAK_S) + 600)
@pytest.mark.skipif(not SOAK_S, reason="scripts/soak runs it")
@FIVE
def test_random_faults(kinds: Sequence[str], network: Namespaces, tmp_path: Path) -> None:
    random = Random(SEED)
    with new_ensemble(tmp_path / "e", kinds, network=network) as ensemble:
        ensemble.start()
        with under_load(ensemble, tmp_path, kinds) as load:
            end = time.monotonic() + SOAK_S
            while time.monotonic() < end:
                hurt = random.sample(sorted(ensemble.members), random.choice((1, 1, 2, 2, 5)))
                fault = random.choice(("kill", "pause", "cut"))
                if random.random() < 0.5 and (leader := ensemble.leader()):
                    hurt[0] = leader.sid
                hurt = list(dict.fromkeys(hurt))
                for sid in hurt:
                    if fault == "kill":
                        ensemble[sid].kill()
                    elif fault == "pause":
                        ensemble[sid].pause()
                if fault == "cut":
                    network.isolate(*hurt)
                time.sleep(random.random() * 5)
                network.heal()
                for sid in hurt:
                    if fault == "kill":
                        ensemble[sid].start()
                    elif fault == "pause":
                        ensemble[sid].resume()
                if random.random() < 0.7:
                    ensemble.wait_until_serving()
                    load.wait_for_writes(50)
