"""A person at a terminal: prompt, line editing, completion, and events above the line being typed.

readline waits for keys in the main thread. What other threads have to say meanwhile is handed to
that thread with a signal: its handler clears the line, writes, and has readline draw the line anew,
with the cursor where it was.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from zkpy.cli.shell.console import write_all
from zkpy.cli.shell.formats import sorted_names
from zkpy.cli.shell.table import OperationError, command_names

try:
    import readline
except ImportError:  # built without; lines can be typed, but not edited
    readline = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from zkpy.cli.shell.interactive import LoopThread
    from zkpy.cli.shell.shell import Shell

COMPLETION_TIMEOUT_S: Final = 3.0
# A signal that came while readline was busy with a key is noticed at the next one.
REPEAT_S: Final = 0.05
LEAVING_HINT: Final = "(Ctrl-C again, Ctrl-D or quit leaves)"
EXIT_INTERRUPTED: Final = 130


class Terminal:
    """Reads lines and has them executed, until `quit` or Ctrl-D."""

    def __init__(self, shell: Shell, loop: LoopThread) -> None:
        self.shell = shell
        self.loop = loop
        self.prompt = ""
        self.prompting = False
        self.typed = ""  # what Ctrl-C threw away
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.candidates: list[str] = []

    def run(self) -> None:
        """Returns when the person is done."""
        self._prepare()
        assert self.shell.session is not None
        self.loop.call(self.shell.session.connected())
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
            try:
                self.loop.call(self.shell.execute(line))
            except KeyboardInterrupt:
                self.shell.status = EXIT_INTERRUPTED
                write_all(1, b"\n")

    def _prepare(self) -> None:
        self.shell.console.interrupt = self._write
        signal.signal(signal.SIGUSR1, self._on_signal)
        signal.signal(signal.SIGINT, self._on_interrupt)
        if readline is not None:
            readline.set_completer(self._complete)
            readline.set_completer_delims(" \t")
            libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def _read(self) -> str:
        self.prompt = self.shell.prompt
        self.typed = ""
        self.prompting = True
        try:
            return input(self.prompt)
        finally:
            self.prompting = False
            self._on_signal()

    def _on_interrupt(self, *_: Any) -> None:
        if self.prompting and readline is not None:
            self.typed = readline.get_line_buffer()
        raise KeyboardInterrupt

    # Output

    def _write(self, descriptor: int, data: bytes) -> None:
        """Called in any thread."""
        if not self.prompting or readline is None:
            write_all(descriptor, data)
            return
        self.waiting.append((descriptor, data))
        self._notify()

    def _notify(self) -> None:
        if self.waiting:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            self.loop.loop.call_later(REPEAT_S, self._notify)

    def _on_signal(self, *_: Any) -> None:
        """In the main thread: write what is waiting, above the line being typed."""
        if not self.waiting:
            return
        rows = self._rows_above() if self.prompting else 0
        if self.prompting:
            write_all(1, (f"\x1b[{rows}A" if rows else "").encode() + b"\r\x1b[J")
        while self.waiting:
            write_all(*self.waiting.popleft())
        if self.prompting:
            redraw(self.prompt)

    def _rows_above(self) -> int:
        """In which row of the line the cursor is, counted from 0."""
        columns = shutil.get_terminal_size().columns or 80
        return width(self.prompt + before_cursor()) // columns

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


def library() -> Any:
    """GNU readline itself, or what stands for it: Python's module has no names for all it can do.

    Raises OSError; TypeError where the module is built in, and has no file.
    """
    import ctypes

    return ctypes.PyDLL(readline.__file__)


def before_cursor() -> str:
    """The part of the line that stands before the cursor; all of it where that isn't known."""
    import ctypes

    line = readline.get_line_buffer()
    try:
        point = ctypes.c_int.in_dll(library(), "rl_point").value
    except (OSError, TypeError, ValueError):
        return line
    return line.encode(errors="surrogateescape")[:point].decode(errors="replace")


def redraw(prompt: str) -> None:
    """Have the line drawn anew, from the start of an empty row.

    A SIGWINCH would do that before readline 8.2, which looks first whether the size has changed.
    Where the function can't be had, the cursor is left at the end, which is where it mostly is.
    """
    try:
        library().rl_forced_update_display()
    except (OSError, TypeError, AttributeError):
        write_all(1, (prompt + readline.get_line_buffer()).encode(errors="surrogateescape"))


def width(text: str) -> int:
    """The columns `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
