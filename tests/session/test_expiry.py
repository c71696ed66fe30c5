"""ExpiryQueue against a dict of deadlines, under a clock that is an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zkpy.session.expiry import ExpiryQueue

KEYS = st.integers(0, 7)
# Around the multiples of small ticks, where an off-by-one would show.
TIMES = st.integers(0, 60)


class ExpiryMachine(RuleBasedStateMachine):
    """Keys expire after their timeout, within one tick, and not before."""

    @initialize(tick=st.integers(1, 12), start=st.integers(0, 1000))
    def begin(self, tick: int, start: int) -> None:
        self.tick = tick
        self.now = start
        self.queue: ExpiryQueue[int] = ExpiryQueue(tick, start)
        self.deadline: dict[int, int] = {}

    @rule(key=KEYS, timeout=TIMES)
    def touch(self, key: int, timeout: int) -> None:
        self.queue.touch(key, timeout, self.now)
        self.deadline[key] = self.now + timeout

    @rule(key=KEYS)
    def remove(self, key: int) -> None:
        self.queue.remove(key)
        self.deadline.pop(key, None)

    @rule(passed=TIMES)
    def wait(self, passed: int) -> None:
        self.now += passed

    @rule()
    def expire(self) -> None:
        due = self.queue.next_expiry_ms
        keys = self.queue.expired(self.now)
        assert len(set(keys)) == len(keys)
        if self.now < due:
            assert keys == []
        for key in keys:
            assert self.now > self.deadline.pop(key)
        for deadline in self.deadline.values():
            assert self.now < deadline + self.tick
        assert self.queue.next_expiry_ms > self.now
        assert self.queue.next_expiry_ms <= self.now + self.tick

    @invariant()
    def buckets_hold_each_key_once(self) -> None:
        if not hasattr(self, "queue"):
            return
        held = {key: at for at, keys in self.queue.buckets.items() for key in keys}
        assert sum(len(keys) for keys in self.queue.buckets.values()) == len(held)
        assert held == self.queue.expiry_of
        assert held.keys() == self.deadline.keys()
        assert len(self.queue) == len(self.deadline)
        for key, at in held.items():
            assert at % self.tick == 0
            assert self.deadline[key] < at <= self.deadline[key] + self.tick
        for keys in self.queue.buckets.values():
            assert keys


TestExpiryMachine = ExpiryMachine.TestCase


@given(tick=st.integers(1, 5000), time=st.integers(-(10**15), 10**15))
def test_bucket_is_the_next_multiple(tick: int, time: int) -> None:
    bucket = ExpiryQueue[str](tick, 0).bucket_of(time)
    assert bucket % tick == 0
    assert time < bucket <= time + tick


def test_next_expiry_begins_one_bucket_after_the_start() -> None:
    assert ExpiryQueue[str](1000, 2500).next_expiry_ms == 3000
    assert ExpiryQueue[str](1000, 3000).next_expiry_ms == 4000


def test_a_key_on_the_edge() -> None:
    queue: ExpiryQueue[str] = ExpiryQueue(1000, 0)
    queue.touch("a", 1000, 0)
    # The timeout itself is not enough: the bucket after 1000 is 2000.
    assert queue.expired(1999) == []
    assert queue.expired(2000) == ["a"]
    assert "a" not in queue


def test_a_touch_within_the_bucket_changes_nothing() -> None:
    queue: ExpiryQueue[str] = ExpiryQueue(1000, 0)
    queue.touch("a", 1500, 0)
    queue.touch("b", 1500, 0)
    bucket = queue.buckets[2000]
    queue.touch("a", 1500, 499)
    assert queue.buckets == {2000: bucket}
    assert list(bucket) == ["a", "b"]
    queue.touch("b", 1000, 0)
    queue.touch("a", 1000, 0)
    queue.touch("a", 1999, 0)
    assert list(bucket) == ["a", "b"]
    queue.touch("a", 1500, 500)
    assert list(bucket) == ["b"]
    assert list(queue.buckets[3000]) == ["a"]


def test_a_shorter_timeout_moves_a_key_forward() -> None:
    queue: ExpiryQueue[str] = ExpiryQueue(1000, 0)
    queue.touch("a", 9000, 0)
    queue.touch("a", 1000, 10)
    assert queue.expired(2000) == ["a"]


def test_after_a_long_stop_all_due_buckets_come_at_once_and_in_order() -> None:
    queue: ExpiryQueue[int] = ExpiryQueue(1, 0)
    for key in (5, 3, 9, 1):
        queue.touch(key, key, 0)
    assert queue.expired(10**12) == [1, 3, 5, 9]
    assert queue.next_expiry_ms == 10**12 + 1
