"""Many commands: from a person at a terminal, or from standard input.

The event loop runs in a thread of its own; the main thread waits for lines, since line editing and
Ctrl-C belong there.
"""

from __future__ import annotations

import asyncio
import sys
import threading
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
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Ctrl-C ends the work, and what it raised then is of no interest any more."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
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
