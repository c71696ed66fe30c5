"""A person at a terminal: prompt, line editing, completion, and events above the line being typed.

readline waits for keys in the main thread. What other threads have to say meanwhile is handed to
that thread with a signal: its handler clears the line, writes, and has readline draw the line anew,
with the cursor where it was.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from zkpy.cli.shell.console import write_all
from zkpy.cli.shell.formats import sorted_names
from zkpy.cli.shell.line_editor import LineEditor
from zkpy.cli.shell.table import OperationError, command_names

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from zkpy.cli.shell.interactive import LoopThread
    from zkpy.cli.shell.shell import Shell

COMPLETION_TIMEOUT_S: Final = 3.0
# readline notices a signal that comes while it is busy with a key only at the next key, or at the
# next signal.
REPEAT_S: Final = 0.05
LEAVING_HINT: Final = "(Ctrl-C again, Ctrl-D or quit leaves)"
EXIT_INTERRUPTED: Final = 130


class Terminal:
    """Reads lines and has them executed, until `quit` or Ctrl-D."""

    def __init__(self, shell: Shell, loop: LoopThread) -> None:
        self.shell = shell
        self.loop = loop
        self.editor = LineEditor()
        self.prompt = ""
        self.prompting = False
        self.working = False
        self.typed = ""  # what Ctrl-C threw away
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.interrupted = False  # by Ctrl-C, and the handler has not run yet
        self.poking = False
        self.writing = False
        self.candidates: list[str] = []

    def run(self) -> None:
        """Returns when the person is done."""
        self._prepare()
        try:
            self._work(self._connected())
            self._converse()
        finally:
            # What is left to do, closing the session, Ctrl-C ends as usual.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.shell.console.interrupt = None

    async def _connected(self) -> None:
        """Wait for a moment, so that the first prompt can say CONNECTED."""
        assert self.shell.session is not None
        await self.shell.session.connected()

    def _converse(self) -> None:
        empty_interrupts = 0
        while not self.shell.finished:
            try:
                line = self._read()
            except EOFError:
                write_all(1, b"\n")
                return
            except KeyboardInterrupt:
                write_all(1, b"^C\n")
                empty_interrupts = 0 if self.typed else empty_interrupts + 1
                if empty_interrupts == 2:
                    return
                if empty_interrupts:
                    self.shell.console.err(LEAVING_HINT)
                continue
            empty_interrupts = 0
            self._work(self.shell.execute(line))

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done by the loop; Ctrl-C ends it, not the program."""
        try:
            self.working = True
            self.loop.call(work)
        except KeyboardInterrupt:
            self.shell.status = EXIT_INTERRUPTED
            write_all(1, b"\n")
        finally:
            self.working = False

    def _prepare(self) -> None:
        self.shell.console.interrupt = self._write
        signal.signal(signal.SIGUSR1, self._on_signal)
        signal.signal(signal.SIGINT, self._on_interrupt)
        # The loop hears of each signal at once, whatever the main thread does.
        heard, told = socket.socketpair()
        heard.setblocking(False)
        told.setblocking(False)
        signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)
        self.loop.loop.call_soon_threadsafe(self.loop.loop.add_reader, heard, self._hear, heard)
        self.editor.complete_with(self._complete)

    def _read(self) -> str:
        self.prompt = self.shell.prompt
        self.typed = ""
        try:
            self.prompting = True
            return input(self.prompt)
        except SystemError as error:
            # Python runs another signal's handler behind the one for Ctrl-C, before it leaves
            # input(), and is surprised by the exception.
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            self.prompting = False
            self._on_signal()

    def _hear(self, heard: socket.socket) -> None:
        """In the loop: the numbers of signals that came."""
        if signal.SIGINT in heard.recv(1000):
            self.interrupted = True
            self._poke_later()

    def _on_interrupt(self, *_: Any) -> None:
        """Ctrl-C. Between two things to interrupt, it is too late or too early."""
        self.interrupted = False
        if self.prompting:
            self.typed = self.editor.text()
        if self.prompting or self.working:
            raise KeyboardInterrupt

    # Output

    def _write(self, descriptor: int, data: bytes) -> None:
        """In the loop, or in the main thread while nobody types."""
        if not self.prompting or not self.editor.available:
            write_all(descriptor, data)
            return
        self.waiting.append((descriptor, data))
        self._poke()

    def _poke(self) -> None:
        """In the loop: have the main thread run its handlers, until it has."""
        self.poking = False
        if self.waiting or self.interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            self._poke_later()

    def _poke_later(self) -> None:
        if not self.poking:
            self.poking = True
            self.loop.loop.call_later(REPEAT_S, self._poke)

    def _on_signal(self, *_: Any) -> None:
        """In the main thread: write what is waiting, above the line being typed."""
        self.interrupted = False  # the handler for Ctrl-C had its turn before this one
        if self.writing:
            return  # in the midst of itself; it goes on as long as something is waiting
        self.writing = True
        try:
            while self.waiting:
                self._write_waiting()
        finally:
            self.writing = False

    def _write_waiting(self) -> None:
        if self.prompting:
            row = self.editor.row(self.prompt)
            write_all(1, (f"\x1b[{row}A" if row else "").encode() + b"\r\x1b[J")
        while self.waiting:
            write_all(*self.waiting.popleft())
        if self.prompting:
            write_all(1, self.editor.redraw(self.prompt).encode(errors="surrogateescape"))

    # Completion

    def _complete(self, text: str, state: int) -> str | None:
        """readline's completer: the candidates for `text`, one per call."""
        if state == 0:
            self.candidates = self._candidates(text)
        return self.candidates[state] if state < len(self.candidates) else None

    def _candidates(self, text: str) -> list[str]:
        if not text.startswith("/"):
            return [f"{name} " for name in command_names() if name.startswith(text)]
        directory, _, prefix = text.rpartition("/")
        names = self.loop.call(self._children(directory or "/"))
        return [f"{directory}/{name}" for name in names if name.startswith(prefix)]

    async def _children(self, path: str) -> list[str]:
        """No children where they cannot be had: completion never complains."""
        import asyncio

        session = self.shell.session
        try:
            if session is None or not session.is_alive:
                return []
            async with asyncio.timeout(COMPLETION_TIMEOUT_S):
                return sorted_names((await session.get_children(path))[0])
        except (OperationError, TimeoutError, ValueError):
            return []
