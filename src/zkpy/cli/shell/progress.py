"""How far long work is, on stderr: in place at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zkpy.cli.shell.console import Console

# Work that is done within the first pause never shows.
FIRST_S: Final = 1.0
TERMINAL_S: Final = 0.2
LINE_S: Final = 5.0


class Progress:
    """`step` once per piece of work; `total` is 0 if nobody knows it."""

    def __init__(self, console: Console, what: str, total: int = 0) -> None:
        self.console = console
        self.what = what
        self.total = total
        self.count = 0
        self.in_place = sys.stderr.isatty()
        self.next_s = time.monotonic() + (FIRST_S if self.in_place else LINE_S)
        self.shown = False

    def step(self, count: int = 1) -> None:
        """`count` more are done."""
        self.count += count
        now = time.monotonic()
        if now < self.next_s:
            return
        self.next_s = now + (TERMINAL_S if self.in_place else LINE_S)
        part = f" of {self.total} ({self.count * 100 // self.total} %)" if self.total else ""
        text = f"{self.what} {self.count}{part} nodes"
        if self.in_place:
            self.console.write(2, f"\r\x1b[K{text}")
        else:
            self.console.err(text)
        self.shown = True

    def end(self) -> None:
        """Make room for what comes next."""
        if self.shown and self.in_place:
            self.console.write(2, "\r\x1b[K")
        self.shown = False
