"""SyncRequests: at a leader with scripted learners, and alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.quorum.leader_host import LeaderHost

from zkpy.protocol import packets as p
from zkpy.protocol.packets import PacketReader
from zkpy.quorum import learner_handler as phases
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.link import Link
from zkpy.quorum.sync_requests import SyncRequests


def test_sync_asks_a_quorum_that_answers_after_it_came() -> None:
    host = LeaderHost(voters=5)
    first, second, third = host.established(2, 3, 4)
    host.tick()
    for follower in (first, second, third):
        follower.take()
    host.leader.sync("a client")
    host.collect()
    assert first.take() == second.take() == third.take() == [("PING", 1 << 32)]
    for follower in (first, second):
        follower.send(p.PING, 1 << 32, b"")  # of the tick before
    assert host.leader.take_synced() == []
    first.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == []
    second.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == ["a client"]


def test_sync_waits_for_what_was_proposed_before() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    (zxid,) = host.propose()
    follower.take()
    host.leader.sync(follower.handler)
    host.collect()
    follower.send(p.PING, 0, b"")
    assert follower.take() == [("PING", zxid)]
    host.leader.durable(zxid)
    follower.ack(zxid)
    assert follower.take() == [("COMMIT", zxid), ("SYNC", 0)]


def test_syncs_of_one_turn_share_a_round_and_later_ones_wait_for_the_next() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync(1)
    host.leader.sync(2)
    host.collect()
    host.leader.sync(3)
    host.collect()
    assert follower.take() == [("PING", 1 << 32)]
    follower.send(p.PING, 0, b"")
    assert host.leader.take_synced() == [1, 2]
    assert follower.take() == [("PING", 1 << 32)]
    follower.send(p.PING, 0, b"")
    assert host.leader.take_synced() == [3]


def test_a_sync_goes_ahead_of_the_commits_of_what_came_after_it() -> None:
    # Apache's CommitProcessor answers its clients in the order they asked, and stops for good at
    # a COMMIT that comes before the SYNC of an earlier request.
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync(follower.handler)
    one, two = host.propose(2)
    host.leader.sync(follower.handler)
    follower.take()
    host.leader.durable(two)
    follower.ack(two)
    taken = [packet for packet in follower.take() if packet[0] != "PING"]
    assert taken == [("SYNC", 0), ("COMMIT", one), ("COMMIT", two)]
    follower.send(p.PING, 0, b"")
    follower.send(p.PING, 0, b"")
    assert follower.take() == [("PING", two), ("SYNC", 0)]


def test_a_round_that_lost_its_followers_counts_those_that_come_back() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync("a client")
    host.collect()
    follower.handler.lost(follower.link, "gone, and the PING with it")
    again = host.learner(2)
    again.join()
    host.tick()
    assert again.take()[-1] == ("PING", 1 << 32)
    again.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == ["a client"]


def test_a_leader_that_nobody_follows_any_more_completes_no_sync() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    follower.handler.lost(follower.link, "gone")
    host.leader.sync("a client")
    for _ in range(3):
        host.tick()
    assert host.leader.take_synced() == []
    assert host.leader.failed is not None


# ---------------------------------------------------------------------- without a leader


class Quorum:
    """A View of which only this is asked; three servers, of which we are number 1."""

    def has_quorum(self, sids: set[int]) -> bool:
        return len(sids) >= 2


def learner(sid: int, phase: str = phases.BROADCAST) -> Any:
    """A LearnerHandler that has not answered anything, on a link that is open."""
    leader: Any = SimpleNamespace(settings=SimpleNamespace(max_record_bytes=1000))
    handler = LearnerHandler(leader, Link([], f"10.0.0.{sid}:40000"), 0)
    handler.sid, handler.phase = sid, phase
    return handler


def requests(flushed: list[None] | None = None) -> SyncRequests:
    view: Any = Quorum()
    return SyncRequests(1, view, lambda: None if flushed is None else flushed.append(None))


def sent(handler: LearnerHandler) -> list[str]:
    packets = [p.PACKET_NAMES[packet[0]] for packet in PacketReader().feed(bytes(handler.link.out))]
    handler.link.out.clear()
    return packets


@pytest.mark.patches
def test_a_round_begins_when_somebody_waits_and_one_at_a_time() -> None:
    syncs, follower = requests(), learner(2)
    syncs.start_round([follower], 5, 5)
    assert sent(follower) == [] and syncs.pending == 0
    syncs.add("first", 5)
    syncs.start_round([follower], 5, 5)
    syncs.add("second", 5)
    syncs.start_round([follower], 5, 5)
    assert sent(follower) == ["PING"] and syncs.pending == 2
    follower.pings_answered += 1
    syncs.ping_answered(5)
    assert syncs.take_synced() == ["first"] and syncs.pending == 1
    assert syncs.take_synced() == []


@pytest.mark.patches
def test_who_still_catches_up_is_not_asked() -> None:
    syncs, late = requests(), learner(2, phases.SYNC)
    syncs.add("a client", 5)
    syncs.start_round([late], 5, 5)
    assert sent(late) == []
    late.phase, late.pings_sent = phases.BROADCAST, 1
    syncs.ping_sent(late)
    syncs.ping_answered(5)
    assert syncs.take_synced() == []
    late.pings_answered = 1
    syncs.ping_answered(5)
    assert syncs.take_synced() == ["a client"]


@pytest.mark.patches
def test_what_is_proven_waits_for_the_commit_of_what_was_proposed() -> None:
    syncs, follower = requests(), learner(2)
    syncs.add("a client", 7)
    syncs.start_round([follower], 7, 5)
    follower.pings_answered += 1
    syncs.ping_answered(5)
    syncs.release(6)
    assert syncs.take_synced() == [] and syncs.pending == 1
    syncs.release(7)
    assert syncs.take_synced() == ["a client"] and syncs.pending == 0


@pytest.mark.patches
def test_a_commit_proves_what_came_before_its_proposal_and_nothing_else() -> None:
    syncs, follower = requests(), learner(2)
    syncs.add("in the round", 5)
    syncs.start_round([follower], 5, 5)
    syncs.add("waiting", 5)
    syncs.add("behind the proposal", 6)
    syncs.release_before(6, 5)
    assert syncs.take_synced() == ["in the round", "waiting"] and syncs.pending == 1


@pytest.mark.patches
def test_sync_goes_behind_the_packets_of_the_turn_and_to_nobody_who_is_gone() -> None:
    flushed: list[None] = []
    syncs, asking, gone = requests(flushed), learner(2), learner(3)
    syncs.add(asking, 5)
    syncs.add(gone, 5)
    gone.link.close()
    syncs.release_before(6, 5)
    assert flushed == [None] and sent(asking) == ["SYNC"]
    assert sent(gone) == [] and syncs.pending == 0 and syncs.take_synced() == []
