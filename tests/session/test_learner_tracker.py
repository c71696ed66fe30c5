"""Sessions as learners and leaders know them, with and without local ones."""

from __future__ import annotations

from zkpy.session.learner_tracker import (
    NEVER,
    LeaderSessionTracker,
    LearnerSessionTracker,
    LocalSessionTracker,
)

TICK = 2000
NOW = 1000
WALL = 1_764_000_000_000
TIMEOUT = 10_000


def learner(*, local: bool = False) -> LearnerSessionTracker:
    own = LocalSessionTracker(TICK, 2, WALL, NOW) if local else None
    return LearnerSessionTracker({}, 2, WALL, own)


def test_ids_are_of_the_server_and_new() -> None:
    tracker = learner()
    first = tracker.create_id()
    assert first >> 56 == 2
    assert tracker.create_id() == first + 1
    tracker.global_sessions[first + 2] = TIMEOUT  # a clock that was set back
    assert tracker.create_id() == first + 3


def test_touches_are_told_once() -> None:
    tracker = learner()
    assert tracker.touch(7, TIMEOUT, NOW)
    assert tracker.touch(8, TIMEOUT, NOW)
    assert tracker.touch(7, 12_000, NOW)
    assert sorted(tracker.take_touches()) == [(7, 12_000), (8, TIMEOUT)]
    assert tracker.take_touches() == []


def test_a_session_that_ended_is_not_told() -> None:
    tracker = learner()
    tracker.touch(7, TIMEOUT, NOW)
    tracker.remove(7)
    assert tracker.take_touches() == []


def test_a_committed_session_is_told() -> None:
    tracker = learner()
    assert not tracker.track(7, TIMEOUT, NOW)
    tracker.committed(7, TIMEOUT)
    assert tracker.take_touches() == [(7, TIMEOUT)]


def test_nothing_expires_without_local_sessions() -> None:
    tracker = learner()
    tracker.global_sessions[7] = TIMEOUT
    tracker.touch(7, TIMEOUT, NOW)
    assert tracker.next_expiry_ms == NEVER
    assert tracker.expired(NOW + 10 * TIMEOUT) == []
    assert tracker.expiry_map() == []
    assert tracker.sessions == 1
    tracker.set_closing(7)
    assert not tracker.is_closing(7)
    assert tracker.is_tracked(7)
    assert not tracker.is_tracked(8)


def test_local_sessions_are_not_the_leaders_business() -> None:
    tracker = learner(local=True)
    assert tracker.local is not None
    tracker.local.track(7, TIMEOUT, NOW)
    assert tracker.touch(7, TIMEOUT, NOW)
    assert tracker.take_touches() == []
    assert tracker.is_tracked(7)
    assert tracker.sessions == 0
    assert tracker.next_expiry_ms == tracker.local.next_expiry_ms
    assert [ids for _, ids in tracker.expiry_map()] == [[7]]
    assert tracker.expired(NOW + 10 * TIMEOUT) == [], "the local tracker is asked itself"
    assert not tracker.touch(8, TIMEOUT, NOW), "neither local nor global"
    tracker.remove(7)
    assert not tracker.touch(7, TIMEOUT, NOW)
    assert not tracker.local.timeouts


def test_an_upgrade_is_told_to_the_leader_from_its_beginning() -> None:
    tracker = learner(local=True)
    assert tracker.local is not None
    tracker.local.track(7, TIMEOUT, NOW)
    assert tracker.upgrade(7, NOW) == TIMEOUT
    assert not tracker.local.is_tracked(7)
    assert tracker.is_tracked(7)
    assert tracker.touch(7, TIMEOUT, NOW)
    tracker.committed(7, TIMEOUT)
    tracker.global_sessions[7] = TIMEOUT
    assert tracker.take_touches() == [(7, TIMEOUT)]
    assert tracker.touch(7, TIMEOUT, NOW)
    tracker.remove(7)
    del tracker.global_sessions[7]
    assert not tracker.is_tracked(7)
    assert not tracker.is_closing(7)


def test_a_leader_knows_both_kinds() -> None:
    local = LocalSessionTracker(TICK, 1, WALL, NOW)
    tracker = LeaderSessionTracker(TICK, 1, WALL, NOW, local)
    tracker.track(7, TIMEOUT, NOW)
    local.track(8, 4000, NOW)
    assert tracker.touch(7, TIMEOUT, NOW)
    assert tracker.touch(8, 4000, NOW)
    assert not tracker.touch(9, TIMEOUT, NOW)
    assert (tracker.is_local(7), tracker.is_local(8)) == (False, True)
    assert tracker.sessions == 1
    assert tracker.next_expiry_ms <= local.next_expiry_ms
    assert tracker.upgrade(8, NOW) == 4000
    assert not tracker.is_local(8)
    assert tracker.touch(8, 4000, NOW)
    assert tracker.sessions == 2
    local.track(9, 4000, NOW)
    for session in (7, 8, 9):
        tracker.remove(session)
        assert not tracker.touch(session, TIMEOUT, NOW)


def test_a_leader_without_local_sessions() -> None:
    tracker = LeaderSessionTracker(TICK, 1, WALL, NOW)
    tracker.track(7, TIMEOUT, NOW)
    assert not tracker.is_local(7)
    assert not tracker.touch(8, TIMEOUT, NOW)
    assert tracker.expired(NOW + 10 * TIMEOUT) == [7]
    tracker.remove(7)


def test_a_session_the_leader_knows_already_is_one() -> None:
    """It was upgraded elsewhere, and its createSession is not applied here yet (seed 30489)."""
    tracker = learner(local=True)
    assert not tracker.touch(7, TIMEOUT, NOW)
    tracker.revalidated(7, TIMEOUT)
    assert tracker.touch(7, TIMEOUT, NOW)
    assert tracker.take_touches() == [(7, TIMEOUT)]
    tracker.remove(7)
    assert not tracker.touch(7, TIMEOUT, NOW)
