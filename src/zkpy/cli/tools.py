"""What the tools for files share: how they end, progress, dates as Java writes them, arguments.

Source of the date formats: DateFormat and Date.toString in the locale en_US, which Apache's tools
print in; the time zone is the machine's.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import PersistenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_OK: Final = 0
EXIT_DAMAGE: Final = 1  # also for whatever else went wrong
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

# Work this long says nothing; then a line on the terminal is kept up to date.
QUIET_S: Final = 2.0
UPDATE_S: Final = 0.2

_MASK64: Final = (1 << 64) - 1
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
# What would move the cursor or change the terminal's state. Newline and tab stay.
_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}


class ToolError(Exception):
    """Ends the program with this message on stderr and `exit_code`."""

    def __init__(self, message: str, exit_code: int = EXIT_DAMAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(command: Callable[[list[str]], int], arguments: list[str] | None) -> int:
    """Call `command`; whatever ends it early becomes one line on stderr and an exit code."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # Paths may hold what the terminal's encoding has not.
        reconfigure(errors="backslashreplace")
    try:
        code = command(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except ToolError as error:
        complain(str(error))
        return error.exit_code
    except PersistenceError as error:
        complain(str(error))
        return EXIT_DAMAGE
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `zkpy-log FILE | head`: nobody reads on. What is buffered must not fail again at exit.
        _discard_output()
        return EXIT_OK
    except OSError as error:
        # A directory that cannot be listed, or no room for the output.
        _discard_output()
        print(f"{error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return EXIT_DAMAGE


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Print a line on stderr."""
    sys.stdout.flush()  # the order of both on one terminal
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")  # over what progress may have left
    print(text, file=sys.stderr)


def for_terminal(text: str) -> str:
    """`text`; on a terminal without control characters, which data may hold."""
    return text.translate(_CONTROLS) if sys.stdout.isatty() else text


# ---------------------------------------------------------------------- progress


class Progress:
    """A line on stderr for work that takes longer than `QUIET_S`, if stderr is a terminal.

    Output that goes to the same terminal shows progress itself, and would be garbled: a command
    which prints as it reads passes `prints`.
    """

    def __init__(self, *, prints: bool = False) -> None:
        self._shown = sys.stderr.isatty() and not (prints and sys.stdout.isatty())
        self._next = time.monotonic() + QUIET_S
        self._label = ""
        self._total = 0
        self._done = 0
        self._visible = False

    def begin(self, label: str, total: int) -> None:
        """Start a piece of work: `total` bytes, or whatever else `advance` counts."""
        self._label = label
        self._total = total
        self._done = 0

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        if self._shown and time.monotonic() >= self._next:
            self._show()

    def _show(self) -> None:
        self._next = time.monotonic() + UPDATE_S
        percent = min(100, 100 * self._done // max(self._total, 1))
        sys.stderr.write(f"\r{self._label}: {percent} %\x1b[K")
        sys.stderr.flush()
        self._visible = True

    def clear(self) -> None:
        """Remove the line, before anything else is written to the terminal."""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._visible = False


class ReadingDisk(OsDisk):
    """The disk, with progress for what is read in pieces."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def read_chunks(self, path: str, chunk_bytes: int) -> Iterator[bytes]:
        self.progress.begin(f"reading {path}", self.file_size(path))
        for chunk in super().read_chunks(path, chunk_bytes):
            self.progress.advance(len(chunk))
            yield chunk
        self.progress.clear()

    def file_size(self, path: str) -> int:
        """Bytes of the file as it is, compressed or not."""
        return super().size(path)


# ---------------------------------------------------------------------- dates


def _local(time_ms: int) -> time.struct_time | None:
    try:
        return time.localtime(time_ms // 1000)
    except (OverflowError, ValueError, OSError):
        return None  # no date: a damaged record may hold any number


def _clock(t: time.struct_time) -> str:
    return f"{t.tm_hour % 12 or 12}:{t.tm_min:02}:{t.tm_sec:02} {'AM' if t.tm_hour < 12 else 'PM'}"


def short_date(time_ms: int) -> str:
    """As `11/22/26, 1:10:33 PM UTC`."""
    t = _local(time_ms)
    if t is None:
        return f"{time_ms} ms"
    return f"{t.tm_mon}/{t.tm_mday}/{t.tm_year % 100:02}, {_clock(t)} {t.tm_zone}"


def medium_date(time_ms: int) -> str:
    """As `Nov 22, 2026, 12:57:15 PM`."""
    t = _local(time_ms)
    if t is None:
        return f"{time_ms} ms"
    return f"{_MONTHS[t.tm_mon - 1]} {t.tm_mday}, {t.tm_year}, {_clock(t)}"


def long_date(time_ms: int) -> str:
    """As `Sun Nov 22 12:53:25 UTC 2026`."""
    t = _local(time_ms)
    if t is None:
        return f"{time_ms} ms"
    return (
        f"{_DAYS[t.tm_wday]} {_MONTHS[t.tm_mon - 1]} {t.tm_mday:02} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} {t.tm_zone} {t.tm_year}"
    )


def iso_date(time_ms: int) -> str | None:
    """As `2026-11-22T13:10:33.123Z`; None for what is no date."""
    try:
        t = time.gmtime(time_ms // 1000)
    except (OverflowError, ValueError, OSError):
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", t) + f".{time_ms % 1000:03}Z"


# ---------------------------------------------------------------------- arguments


def hex64(value: int) -> str:
    """A signed 64-bit number as `0x...`, without a sign."""
    return f"{value & _MASK64:#x}"


def number(text: str) -> int:
    """A zxid or session id: `0x...` as the tools print it, or decimal. Raises ValueError."""
    value = int(text, 16 if text.lower().startswith("0x") else 10)
    return value - (1 << 64) if value >> 63 == 1 else value


def moment_ms(text: str) -> int:
    """ms since 1970 of `2026-11-22`, `2026-11-22 13:10[:33[.123]][Z|+01:00]` or a number of ms.

    Without a zone it is the machine's. Raises ValueError.
    """
    if text.isdigit() and len(text) > 8:  # shorter ones are dates: 20261122
        return int(text)
    from datetime import datetime

    return int(datetime.fromisoformat(text).timestamp() * 1000)
