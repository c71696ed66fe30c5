"""Deadlines in buckets as wide as a tick: moving one costs a dict lookup, expiring is in bulk.

Owns keys and their buckets; must not know what a key stands for, nor read a clock.
Source: ExpiryQueue, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ExpiryQueue(Generic[K]):
    """Keys that expire later than `timeout_ms` after their last touch, by one tick at most.

    All times are ms of one clock, which must not go backwards.
    """

    __slots__ = ("buckets", "expiry_of", "next_expiry_ms", "tick_time_ms")

    def __init__(self, tick_time_ms: int, now_ms: int) -> None:
        assert tick_time_ms > 0
        self.tick_time_ms = tick_time_ms
        # Read by those who need every key with its deadline (dump, cons); changed only here.
        self.expiry_of: dict[K, int] = {}
        self.buckets: dict[int, dict[K, None]] = {}
        self.next_expiry_ms = self.bucket_of(now_ms)

    def __len__(self) -> int:
        return len(self.expiry_of)

    def __contains__(self, key: K) -> bool:
        return key in self.expiry_of

    def bucket_of(self, time_ms: int) -> int:
        """The first multiple of the tick after `time_ms`."""
        return (time_ms // self.tick_time_ms + 1) * self.tick_time_ms

    def touch(self, key: K, timeout_ms: int, now_ms: int) -> None:
        """Let `key`, new or known, expire `timeout_ms` from now, rounded up to a bucket."""
        try:
            # Within a tick before its bucket: it is in the right one. Two comparisons instead of
            # a division, since this runs once per request.
            if 0 < self.expiry_of[key] - now_ms - timeout_ms <= self.tick_time_ms:
                return
        except KeyError:
            pass
        self._move(key, self.bucket_of(now_ms + timeout_ms))

    def _move(self, key: K, expiry: int) -> None:
        self.remove(key)
        self.expiry_of[key] = expiry
        bucket = self.buckets.get(expiry)
        if bucket is None:
            self.buckets[expiry] = {key: None}
        else:
            bucket[key] = None

    def remove(self, key: K) -> None:
        """Forget `key`, if it is known."""
        expiry = self.expiry_of.pop(key, None)
        if expiry is None:
            return
        bucket = self.buckets[expiry]
        del bucket[key]
        if not bucket:
            del self.buckets[expiry]

    def expired(self, now_ms: int) -> list[K]:
        """Remove and return the keys whose bucket has come: by bucket, then by last move."""
        if now_ms < self.next_expiry_ms:
            return []
        self.next_expiry_ms = self.bucket_of(now_ms)
        keys: list[K] = []
        # Not one step per tick as in the reference: a process that was stopped for a day would
        # walk through all of them.
        for expiry in sorted([e for e in self.buckets if e <= now_ms]):
            for key in self.buckets.pop(expiry):
                del self.expiry_of[key]
                keys.append(key)
        return keys
