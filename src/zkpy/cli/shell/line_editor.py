"""readline, and what of it Python's module has no names for.

It must not know what is typed, nor why the line is drawn anew.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

try:
    import readline
except ImportError:  # built without; lines can be typed, but not edited
    readline = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable


class LineEditor:
    """The line that `input()` is reading. Its methods are for the main thread."""

    def __init__(self) -> None:
        self.available = readline is not None
        self._point: Any = None
        self._update: Any = None
        if not self.available:
            return
        # Now, as no import may be under way when a handler of a signal runs.
        import ctypes

        try:
            library = ctypes.PyDLL(readline.__file__)
            self._point = ctypes.c_int.in_dll(library, "rl_point")
            self._update = library.rl_forced_update_display
        except (OSError, TypeError, ValueError, AttributeError):
            pass  # built in, or libedit; then the cursor is taken to be at the end

    def complete_with(self, completer: Callable[[str, int], str | None]) -> None:
        """Use `completer`, as readline wants it, for words between blanks."""
        if self.available:
            readline.set_completer(completer)
            readline.set_completer_delims(" \t")
            libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")

    def text(self) -> str:
        """What has been typed so far."""
        return readline.get_line_buffer() if self.available else ""

    def row(self, prompt: str) -> int:
        """In which row of prompt and text the cursor is, counted from 0."""
        columns = shutil.get_terminal_size().columns or 80
        typed = self.text()
        if self._point is not None:
            data = typed.encode("utf-8", "surrogateescape")[: self._point.value]
            typed = data.decode("utf-8", "replace")
        return width(prompt + typed) // columns

    def redraw(self, prompt: str) -> str:
        """Draw prompt and text from the start of an empty row, or return what to write for that.

        A SIGWINCH would do it before readline 8.2, which looks first whether the size has changed.
        """
        if self._update is None:
            return prompt + self.text()
        self._update()
        return ""


def width(text: str) -> int:
    """The columns `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))
