"""Members that a leader cannot have as they are: they come back, or at least do not spin."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.simulation.scenario import Scenario

from zkpy.quorum.leader import Leader
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer
from zkpy.testing.cluster import Shape
from zkpy.testing.host import DATA_DIR, Host

ACCEPTED_EPOCH = f"{DATA_DIR}/version-2/acceptedEpoch"
CURRENT_EPOCH = f"{DATA_DIR}/version-2/currentEpoch"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def elections(host: Host) -> int:
    return host.member.server.stats.counters["looking_count"]


def test_a_promise_to_a_leader_that_never_was_is_no_end_of_following() -> None:
    """B was elected twice, and lost power both times when it had written its new epoch."""
    s = Scenario()
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/a")
    s.run(0.1)  # all have it on their disks
    s.c.kill()
    for epoch in (2, 3):
        s.a.kill()
        s.b.kill()
        s.start(s.a, s.b)
        s.until(lambda: isinstance(s.b.member.zab, Leader))
        while s.b.member.zab is not None and s.b.member.zab.new_epoch is None:
            s.scheduler.step()
        s.b.power_off()
        assert int(s.b.disk.read(ACCEPTED_EPOCH)) == epoch
        s.a.kill()
    assert int(s.a.disk.read(ACCEPTED_EPOCH)) == 1, "it was not told in time"
    s.start(s.a, s.c)
    s.settle(s.a, s.c)
    assert max(s.checker.leaders) == 2
    s.start(s.b)
    s.settle()
    assert max(s.checker.leaders) == 4
    s.finish()


def test_a_history_of_another_ensemble_is_kept_out() -> None:
    """In an election it would win, and what is acknowledged now would be lost."""
    s = Scenario()
    s.lead(s.b)
    s.c.kill()
    s.c.disk.put(ACCEPTED_EPOCH, b"7")
    s.c.disk.put(CURRENT_EPOCH, b"7")
    s.start(s.c)
    client = s.client(s.a)
    s.create(client, "/a")
    s.run(20)
    assert s.leads(s.b) and len(s.checker.leaders) == 1
    assert not s.serving(s.c)
    s.create(client, "/b")


def test_an_observer_whose_promise_is_in_the_way_does_not_spin() -> None:
    s = Scenario(shape=Shape(3, 1))
    s.start()
    s.settle()
    observer = s.hosts[4]
    observer.kill()
    observer.disk.put(ACCEPTED_EPOCH, b"7")
    s.start(observer)
    s.run(5)
    before = elections(observer)
    s.run(10)
    assert 10 < elections(observer) - before < 50
    assert len(s.checker.leaders) == 1
    # Once there is a later epoch, it is there at once.
    for host in (s.a, s.b, s.c):
        host.kill()
        host.disk.put(ACCEPTED_EPOCH, b"8")
    s.start()
    s.settle()


def test_an_observer_without_a_leader_serves_reads() -> None:
    s = Scenario(shape=Shape(3, 1), overrides={"read_only_mode_enabled": True})
    s.start()
    s.settle()
    observer = s.hosts[4]
    assert elections(observer) == 1
    for host in (s.a, s.b, s.c):
        host.kill()
    s.until(lambda: isinstance(observer.member.server, ReadOnlyZooKeeperServer), 4)
    assert elections(observer) == 2
    s.start()
    s.settle()
