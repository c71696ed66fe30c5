"""Work that takes long, done in a thread of its own, with its result back on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_thread(
    loop: asyncio.AbstractEventLoop, name: str, work: Callable[[], T]
) -> asyncio.Future[T]:
    """Run `work` in a new thread; the future has what it returns or raises.

    A daemon, unlike the threads of an executor: a disk that does not answer must not keep the
    process from ending.
    """
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        error: BaseException | None = None
        result: T | None = None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - whoever waits for the future has it
            error = caught
        post(loop, settle, result, error)

    def settle(result: T, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def post(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call on the loop, from another thread; does nothing once the loop is closed."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        pass  # closed: nobody is left to be told
