"""An asyncio event loop on which a server's sockets are served without asyncio's detours.

    epoll -> sockets of clients and peers, the log's doorbell -> turn -> epoll -> ...
          -> asyncio's own: timers, signals, other threads    -> back to asyncio

From a ready descriptor to its callback, and from there to the next wait, asyncio takes ten
microseconds, more than most requests need. All of it works as ever: it is passed by only while it
has nothing to do.
"""

from __future__ import annotations

import asyncio
from selectors import DefaultSelector
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVarTuple

if TYPE_CHECKING:
    import select
    from collections.abc import Callable
    from contextvars import Context
    from selectors import SelectorKey

    Events = list[tuple[int, int]]


Args = TypeVarTuple("Args")

# Per turn; the others wait in the kernel, and timers and the log get their turn.
MAX_EVENTS: Final = 1024


class TurnSelector(DefaultSelector):
    """asyncio's selector, which waits by way of a server's epoll instance while it has one.

    `due`: asyncio has something to do. Whoever watches the descriptor of this selector, in that
    epoll instance, says so as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.due = False
        self._epoll: select.epoll | None = None
        self._turn: Callable[[Events], None] = lambda events: None

    @property
    def attached(self) -> bool:
        """Whether a server has it already; others then hang on asyncio."""
        return self._epoll is not None

    def attach(self, epoll: select.epoll, turn: Callable[[Events], None]) -> None:
        """Wait with `epoll` from now on, and give `turn` what is ready there."""
        self._epoll = epoll
        self._turn = turn

    def detach(self) -> None:
        """The epoll instance is about to be closed."""
        self._epoll = None

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """What is ready of asyncio's, once there is any, or `timeout` seconds are over.

        Until then any number of turns.
        """
        epoll = self._epoll
        if epoll is None:
            return super().select(timeout)
        self.due = False
        left = timeout
        end = 0.0 if timeout is None else monotonic() + timeout
        while True:
            events = epoll.poll(left, MAX_EVENTS)
            if events:
                self._turn(events)
            if self.due or self._epoll is not epoll:
                break
            if timeout is not None:
                left = end - monotonic()
                if left <= 0:
                    break
        return super().select(0)


class ServerLoop(asyncio.SelectorEventLoop):
    """An event loop for `asyncio.Runner(loop_factory=ServerLoop)`."""

    def __init__(self) -> None:
        self.turns = TurnSelector()
        super().__init__(self.turns)

    # Everything that gives asyncio something to do passes through one of these.

    def stop(self) -> None:
        """As the base class."""
        self.turns.due = True
        super().stop()

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """As the base class."""
        self.turns.due = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As the base class."""
        self.turns.due = True
        return super().call_at(when, callback, *args, context=context)
