"""Many commands: from a person at a terminal, or from standard input.

The event loop runs in a thread of its own; the main thread waits for lines, since line editing and
Ctrl-C belong there.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from zkpy.cli.shell.options import Options
    from zkpy.cli.shell.shell import Shell

T = TypeVar("T")
EXIT_INTERRUPTED: Final = 130


class LoopThread:
    """An event loop in a thread; `call` runs a coroutine there and waits for its result."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.call(self._cancel_rest())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _cancel_rest(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Ctrl-C ends the work; a second one does not wait for what it still has to do."""
        task: asyncio.Task[T] | None = None

        async def run() -> T:
            nonlocal task
            task = asyncio.current_task()
            return await work

        future = asyncio.run_coroutine_threadsafe(run(), self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            if task is not None:
                self.loop.call_soon_threadsafe(task.cancel)
                wait([future])
            raise


def run_session(shell: Shell, options: Options) -> int:
    """Returns the exit status, which is that of the last command."""
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not options.json:
        shell.console.out("Welcome to ZooKeeper!")
        shell.console.out(f"JLine support is {'enabled' if at_terminal else 'disabled'}")
    with LoopThread() as loop:
        loop.call(shell.connect(shell.hosts))
        try:
            if at_terminal:
                from zkpy.cli.shell.terminal import Terminal

                Terminal(shell, loop).run()
            else:
                run_script(shell, loop)
        finally:
            if not options.keep_session:
                loop.call(shell.close())
    return shell.status


def run_script(shell: Shell, loop: LoopThread) -> None:
    """Run the lines of standard input, without prompt and echo."""
    for line in lines_of_stdin():
        loop.call(shell.execute(line))
        if shell.finished:
            return


def lines_of_stdin() -> Iterator[str]:
    """As they come; bytes that are no UTF-8 keep their value when they are sent as data."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")
