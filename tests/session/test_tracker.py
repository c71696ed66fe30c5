"""SessionTracker: ids, life and end of sessions, under a clock that is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zkpy.session.tracker import SessionTracker, initial_session_id

TICK = 10
SESSIONS = st.integers(1, 6)
TIMEOUTS = st.integers(20, 60)


class TrackerMachine(RuleBasedStateMachine):
    """Each session is unknown, live (with a deadline) or closing."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 12345
        self.tracker = SessionTracker(TICK, 1, 1_700_000_000_000, self.now)
        self.live: dict[int, int] = {}
        self.closing: set[int] = set()

    @rule(session=SESSIONS, timeout=TIMEOUTS)
    def track(self, session: int, timeout: int) -> None:
        known = session in self.live or session in self.closing
        assert self.tracker.track(session, timeout, self.now) is not known
        if session not in self.closing:
            self.live[session] = self.now + timeout

    @rule(session=SESSIONS, timeout=TIMEOUTS)
    def touch(self, session: int, timeout: int) -> None:
        assert self.tracker.touch(session, timeout, self.now) is (session in self.live)
        if session in self.live:
            self.live[session] = self.now + timeout

    @rule(session=SESSIONS)
    def set_closing(self, session: int) -> None:
        self.tracker.set_closing(session)
        if self.live.pop(session, None) is not None:
            self.closing.add(session)

    @rule(session=SESSIONS)
    def remove(self, session: int) -> None:
        self.tracker.remove(session)
        self.live.pop(session, None)
        self.closing.discard(session)

    @rule(passed=st.integers(0, 40))
    def wait(self, passed: int) -> None:
        self.now += passed

    @precondition(lambda self: self.now >= self.tracker.next_expiry_ms)
    @rule()
    def expire(self) -> None:
        for session in self.tracker.expired(self.now):
            assert self.now > self.live.pop(session)
            self.closing.add(session)
        assert all(self.now < deadline + TICK for deadline in self.live.values())

    @invariant()
    def states_agree(self) -> None:
        for session in range(1, 7):
            assert self.tracker.is_closing(session) is (session in self.closing)
            tracked = session in self.live or session in self.closing
            assert self.tracker.is_tracked(session) is tracked
        assert self.tracker.sessions == len(self.live) + len(self.closing)

    @invariant()
    def the_dump_lists_the_live_ones(self) -> None:
        dump = self.tracker.expiry_map()
        assert sorted(expiry for expiry, _ in dump) == [expiry for expiry, _ in dump]
        listed = {session: expiry for expiry, ids in dump for session in ids}
        assert listed.keys() == self.live.keys()
        for session, expiry in listed.items():
            assert self.live[session] < expiry <= self.live[session] + TICK


TestTrackerMachine = TrackerMachine.TestCase


@given(server=st.integers(0, 255), clock=st.integers(0, 1 << 62))
def test_initial_id_by_its_bytes(server: int, clock: int) -> None:
    value = initial_session_id(server, clock)
    if value == -(1 << 63) + 1:
        value -= 1
    raw = value.to_bytes(8, "big", signed=True)
    assert raw[0] == server
    assert int.from_bytes(raw[1:6], "big") == clock % (1 << 40)
    assert raw[6:] == b"\0\0"


def test_the_owner_of_containers_is_no_session_id() -> None:
    assert initial_session_id(0x80, 0) == -(1 << 63) + 1


def test_captured_id() -> None:
    # 0x010000134b500000: server 1, started 0x134b50 ms after its machine.
    assert initial_session_id(1, 0x134B50) == 0x010000134B500000
    assert initial_session_id(256 + 1, 0x134B50) == 0x010000134B500000


def test_ids_count_up_from_the_initial_one() -> None:
    tracker = SessionTracker(TICK, 3, 77)
    first = initial_session_id(3, 77)
    assert [tracker.create_id() for _ in range(3)] == [first, first + 1, first + 2]


def test_an_id_in_use_is_not_handed_out_again() -> None:
    first = initial_session_id(1, 77)
    tracker = SessionTracker(TICK, 1, 77)
    tracker.track(first, 100, 0)
    tracker.track(first + 1, 100, 0)
    tracker.set_closing(first + 1)
    assert tracker.create_id() == first + 2


@pytest.mark.parametrize("timeout", [20, 25, 30])
def test_a_closing_session_neither_lives_nor_expires(timeout: int) -> None:
    tracker = SessionTracker(TICK, 1, 0)
    tracker.track(9, timeout, 0)
    tracker.set_closing(9)
    assert not tracker.touch(9, timeout, 5)
    assert not tracker.track(9, timeout, 5)
    assert tracker.expired(1000) == []
    assert tracker.is_closing(9)
    tracker.remove(9)
    assert not tracker.is_tracked(9)
    assert tracker.sessions == 0
