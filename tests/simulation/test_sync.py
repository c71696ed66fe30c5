"""`sync` at a leader that was deposed and does not know it yet: it is not answered.

Its clients reach it, and others do not; a new leader has committed. Whoever syncs and reads, at the
old leader or at a follower that it has kept, must not be shown the state from before. Each test is
run with leaders that get it wrong, too, and these have to be found out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.simulation import broken
from tests.simulation.scenario import Scenario

from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.leader import Leader
from zkpy.quorum.sync_requests import SyncRequests
from zkpy.testing import requests
from zkpy.testing.history import Violation
from zkpy.testing.workload import Client

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def deposed(s: Scenario) -> tuple[Client, Client]:
    """z5 leads z4, and the others have another leader, who has committed: clients of z5 and z4."""
    old, kept = s.hosts[5], s.hosts[4]
    others = [s.a, s.b, s.c]
    for host in (old, kept):
        vars(host.config)["sync_limit_ticks"] = 40  # they take long to notice
    s.start()
    s.settle()
    assert s.leads(old)
    clients = s.client(old), s.client(kept)
    writer = s.client(*others)
    s.create(writer, "/x", data=b"old")
    s.settle()
    s.separate((old, kept), others)
    s.until(lambda: len(s.checker.leaders) == 2)
    s.until(lambda: writer.established)
    s.call(writer, requests.set_data("/x", b"new"))
    zab = old.member.zab
    assert isinstance(zab, Leader) and zab.failed is None
    assert old.has_role and kept.has_role
    return clients


def read_x() -> requests.Request:
    return requests.read(OpCode.GET_DATA, "/x")


def test_a_read_without_sync_is_old_where_the_leader_is() -> None:
    """What makes the rest of this file worth its while: they do serve."""
    s = Scenario(5)
    for client in deposed(s):
        s.call(client, read_x())
    s.finish()


def sync_and_read() -> None:
    s = Scenario(5)
    clients = deposed(s)
    for client in clients:
        client.send([requests.sync(), read_x()])
    s.run(2)
    old = s.hosts[5].member.zab
    assert isinstance(old, Leader) and old.failed is None, "it still has not noticed"
    for client in clients:
        assert len(client.sent) == 2, "not answered"
    s.heal()
    s.until(lambda: all(client.established and not client.sent for client in clients))
    assert [client.lost_requests for client in clients] == [2, 2]
    for client in clients:
        s.call(client, requests.sync(), read_x())
    s.finish()


def test_sync_at_a_deposed_leader_is_not_answered() -> None:
    sync_and_read()


def a_quorum_that_once_answered(patch: Patch) -> None:
    """Answers to PINGs from before the sync are good enough."""
    original = SyncRequests.start_round

    def start_round(self: Any, followers: Any, *zxids: int) -> None:
        for handler in followers if self._waiting and self._round is None else ():
            handler.pings_answered = handler.pings_sent + 1
        original(self, followers, *zxids)

    patch.setattr(SyncRequests, "start_round", start_round)


def whoever_is_left(patch: Patch) -> None:
    """The followers that there still are stand for a quorum."""
    original = SyncRequests.ping_answered

    def ping_answered(self: Any, committed_zxid: int) -> None:
        view, round = self._view, self._round
        answered = round is not None and any(
            handler.pings_answered >= mark for handler, mark in round.marks.items()
        )
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(type(view), "has_quorum", lambda self, sids: answered)
            original(self, committed_zxid)

    patch.setattr(SyncRequests, "ping_answered", ping_answered)


@pytest.mark.parametrize(
    "break_it", [broken.sync_without_a_quorum, a_quorum_that_once_answered, whoever_is_left]
)
def test_a_leader_that_answers_it_is_found_out(break_it: Any, monkeypatch: Patch) -> None:
    break_it(monkeypatch)
    with pytest.raises(Violation, match=r"sync shows 0x1.* had been seen before it was sent"):
        sync_and_read()
