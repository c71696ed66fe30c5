"""A terminal with a program in it: what is typed goes in, what a user would see comes out.

Owns: the pseudo terminal, the child in it, and a screen that follows the control sequences line
editors use (readline, zkpy's own, bash's). Must not know what the programs are.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROWS, COLUMNS = 50, 160
WAIT_S = 20.0
# Escape sequences: CSI with its parameters and final byte, OSC to its end, any other.
SEQUENCE = re.compile(
    r"\x1b(?:\[([0-9;?<>=]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|.)"
)
UNFINISHED = re.compile(r"\x1b(?:\[[0-9;?<>=]*|\][^\x07\x1b]*|[()])?\Z")
# A printed tab jumps to the next multiple of this.
TAB = 8


class Screen:
    """Lines as a terminal shows them, from the first on: nothing is lost at the top."""

    def __init__(self, rows: int = ROWS, columns: int = COLUMNS) -> None:
        self.rows = rows
        self.columns = columns
        self.lines: list[str] = [""]
        self.row = 0
        self.column = 0
        self._rest = ""

    @property
    def top(self) -> int:
        """The first line that is still in the window."""
        return max(0, len(self.lines) - self.rows)

    def feed(self, text: str) -> None:
        text = self._rest + text
        self._rest = ""
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
                continue
            found = SEQUENCE.match(text, at)
            if found is None or UNFINISHED.match(text, at):
                self._rest = text[at:]
                return
            if found[2]:
                self._control(found[1], found[2])
            at = found.end()

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._down()
        elif character == "\b":
            self.column = max(0, self.column - 1)
        elif character == "\t":
            self.column = min(self.columns - 1, (self.column // TAB + 1) * TAB)
        elif character >= " ":
            if self.column >= self.columns:
                self.column = 0
                self._down()
            self._write(character)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _write(self, character: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _control(self, parameters: str, final: str) -> None:
        """One CSI sequence; colours and modes change nothing here."""
        numbers = [int(one) if one.isdigit() else 0 for one in parameters.split(";")]
        count = max(1, numbers[0])
        line = self.lines[self.row]
        if final == "A":
            self.row = max(self.top, self.row - count)
        elif final == "B":
            self.row = min(len(self.lines) - 1, self.row + count)
        elif final == "C":
            self.column = min(self.columns - 1, self.column + count)
        elif final == "D":
            self.column = max(0, self.column - count)
        elif final == "G":
            self.column = count - 1
        elif final in "Hf":
            self.row = self.top + count - 1
            self.column = max(1, numbers[1] if len(numbers) > 1 else 1) - 1
            while self.row >= len(self.lines):
                self.lines.append("")
        elif final == "K":
            start = self.column if numbers[0] == 0 else 0
            end = len(line) if numbers[0] != 1 else self.column
            self.lines[self.row] = line[:start] + " " * (end - start) + line[end:]
        elif final == "J":
            if numbers[0] == 0:
                self.lines[self.row] = line[: self.column]
                del self.lines[self.row + 1 :]
            else:
                self.lines[self.top :] = [""] * (len(self.lines) - self.top)
        elif final == "P":
            self.lines[self.row] = line[: self.column] + line[self.column + count :]
        elif final == "@":
            self.lines[self.row] = line[: self.column] + " " * count + line[self.column :]

    def text(self) -> list[str]:
        """All lines, without blanks at their ends."""
        return [line.rstrip() for line in self.lines]


class Terminal:
    """A process with a pseudo terminal of its own as its standard input and outputs."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = Screen()
        self.raw = b""  # all that was written, for the text of a failure
        self._decode = _decoder()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.fd = master
        try:
            self.process = subprocess.Popen(
                command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=folder,
                env={**os.environ, "TERM": "xterm", **(environment or {})},
                start_new_session=True,
                preexec_fn=_take_terminal,
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the window: whatever still runs in it is killed, stopped jobs as well."""
        if self.fd == -1:
            return
        for pid in self._session():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        os.close(self.fd)
        self.fd = -1

    def _session(self) -> list[int]:
        """All processes started from here that have not left for a session of their own."""
        found = [self.process.pid] if self.process.poll() is None else []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(entry.name)) == self.process.pid:
                    found.append(int(entry.name))
            except ProcessLookupError:
                pass
        return found

    def type(self, text: str) -> None:
        """Press these keys; "\\r" is Enter."""
        data = text.encode()
        while data:
            data = data[os.write(self.fd, data) :]

    def read(self, timeout_s: float) -> bool:
        """Take in what has come; waits for the first of it. False: nothing came, or it is over."""
        ready, _, _ = select.select([self.fd], [], [], timeout_s)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.raw += data
        self.screen.feed(self._decode(data))
        return bool(data)

    def wait_for(
        self, condition: Callable[[Screen], bool], what: str, timeout_s: float = WAIT_S
    ) -> None:
        """Raises AssertionError with the end of the screen when it does not come true in time."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.screen):
            left = deadline - time.monotonic()
            if left <= 0:
                shown = "\n".join(self.screen.text()[-60:])
                raise AssertionError(
                    f"not seen within {timeout_s:g} s: {what}\n--- screen:\n{shown}"
                )
            if not self.read(min(left, 0.5)) and self.process.poll() is not None:
                time.sleep(0.01)  # it has ended: nothing more will wake us

    def settle(self, quiet_s: float = 0.05) -> None:
        """Take in what comes until nothing has come for this long."""
        while self.read(quiet_s):
            pass


def _take_terminal() -> None:
    """In the child: standard input becomes the terminal that controls it (Ctrl-C, job control)."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _decoder() -> Callable[[bytes], str]:
    return codecs.getincrementaldecoder("utf-8")("replace").decode
