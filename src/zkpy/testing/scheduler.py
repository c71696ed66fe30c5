"""Scheduler: virtual time. Calls happen in the order of (time, when they were scheduled).

Nothing else in a simulation knows what time it is, so one seed always gives one history.
"""

from __future__ import annotations

from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    Event = tuple[int, int, Callable[..., object], tuple[Any, ...]]

MS: Final = 1000
SECOND: Final = 1_000_000


class Scheduler:
    """Time is in microseconds since the simulation began; it passes between calls only."""

    __slots__ = ("_events", "_seq", "executed", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self.executed = 0
        self._seq = 0
        self._events: list[Event] = []

    @property
    def now_ms(self) -> int:
        return self.now_us // MS

    def after(self, delay_us: int, call: Callable[..., object], *args: Any) -> None:
        """Let `call(*args)` happen `delay_us` from now."""
        assert delay_us >= 0, "the past is over"
        self._seq = seq = self._seq + 1
        heappush(self._events, (self.now_us + delay_us, seq, call, args))

    def step(self) -> bool:
        """Make the next call; False if there is none."""
        if not self._events:
            return False
        self.now_us, _, call, args = heappop(self._events)
        self.executed += 1
        call(*args)
        return True

    def run_until(self, time_us: int) -> None:
        """Make all calls up to a time, which is the present then."""
        events = self._events
        while events and events[0][0] <= time_us:
            self.step()
        self.now_us = max(self.now_us, time_us)

    def run_while(self, condition: Callable[[], bool], limit_us: int) -> bool:
        """Make calls as long as `condition()`; False if it still holds `limit_us` from now."""
        end_us = self.now_us + limit_us
        events = self._events
        while condition():
            if not events or events[0][0] > end_us:
                self.now_us = end_us
                return not condition()
            self.step()
        return True
