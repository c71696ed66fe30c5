"""Where lines go: stdout and stderr, and what happens to the line being typed meanwhile."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


_CONTROLS: Final = {
    **{code: f"^{chr(code ^ 0x40)}" for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"},
    **{code: f"\\x{code:x}" for code in range(0x80, 0xA0)},
}


class Console:
    """Writes whole lines at once, unbuffered: an event must not come in the midst of a result.

    `interrupt` is set while a person types: it is handed what to write, and writes it above.
    """

    def __init__(self) -> None:
        self.interrupt: Callable[[int, bytes], None] | None = None

    def out(self, text: str) -> None:
        """A line, or several, for stdout."""
        self.write(1, visible(1, text) + "\n")

    def err(self, text: str) -> None:
        """A line, or several, for stderr."""
        self.write(2, visible(2, text) + "\n")

    def write(self, descriptor: int, text: str) -> None:
        """Write all of `text`. A reader that went away ends the program, as it does in a shell."""
        stream = sys.stdout if descriptor == 1 else sys.stderr
        data = text.encode(stream.encoding or "utf-8", "replace")
        if self.interrupt is not None:
            self.interrupt(descriptor, data)
        else:
            write_all(descriptor, data)


def visible(descriptor: int, text: str) -> str:
    """`text`; on a terminal with ^X for a control character: data must not drive the terminal."""
    return text.translate(_CONTROLS) if not text.isprintable() and os.isatty(descriptor) else text


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data`, however often it takes. Raises BrokenPipeError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
