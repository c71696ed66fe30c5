"""What a call of the client can raise besides the server's errors (zkpy.protocol.errors).

Source: KeeperException, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Any

from zkpy.protocol.errors import ERRORS, KeeperError


class ConnectionLoss(KeeperError):
    """The connection went before the answer came, or there was none to be had.

    A write may have been executed. `reason` says what happened to the connection.
    """

    code = -4

    def __init__(self, path: str | None = None, reason: str = "") -> None:
        super().__init__(path)
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.args[0], self.reason) if part)


class EventsLost(Exception):
    """An EventStream was read so slowly that it had to forget events: read the nodes again."""


class MultiFailed(KeeperError):
    """A multi of which nothing was done.

    What is raised is also of the class that the failed operation alone would raise, so
    `except NoNode` works as well. `index` says which operation it was; `results` has one entry
    per operation: None before it, its KeeperError, RuntimeInconsistency behind it.
    """

    index: int
    results: list[KeeperError | None]


_made: dict[tuple[type, ...], type[KeeperError]] = {}


def error_of(code: int, *args: Any) -> KeeperError:
    """The exception for a code in a reply; KeeperError with that `code` if nobody knows it."""
    cls = ERRORS.get(code)
    if cls is None:
        cls = type(f"UnknownError{code}", (KeeperError,), {"code": code})
    return cls(*args)


def multi_failed(results: list[KeeperError | None]) -> MultiFailed:
    """The exception for a failed multi: what failed first, and all results.

    Operations behind the failed one say RuntimeInconsistency; it alone can be meant if all do.
    """
    failed = [(index, error) for index, error in enumerate(results) if error is not None]
    real = [(index, error) for index, error in failed if error.code != -2]
    index, error = (real or failed)[0]
    bases = (type(error), MultiFailed)
    cls = _made.get(bases)
    if cls is None:
        cls = _made[bases] = type(type(error).__name__, bases, {})
    raised = cls(*error.args)
    assert isinstance(raised, MultiFailed)
    raised.index = index
    raised.results = results
    return raised
