"""Work in a thread, its result on the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from zkpy.server.aio.threads import in_thread, post


def test_results_and_errors_arrive() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        name = await in_thread(loop, "worker", lambda: threading.current_thread().name)
        assert name == "worker"
        with pytest.raises(ZeroDivisionError):
            await in_thread(loop, "worker", lambda: 1 // 0)

    asyncio.run(run())


def test_who_has_given_up_is_not_bothered() -> None:
    async def run() -> None:
        gate = threading.Event()
        future = in_thread(asyncio.get_running_loop(), "worker", gate.wait)
        future.cancel()
        gate.set()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_closed_loop_is_told_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    post(loop, print, "never")
