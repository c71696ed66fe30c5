"""What a command has to work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zkpy.cli.shell.formats import stat_json, stat_lines
from zkpy.cli.shell.table import CliError
from zkpy.client.paths import validate_path

if TYPE_CHECKING:
    from zkpy.cli.shell.console import Console
    from zkpy.cli.shell.session import Session
    from zkpy.cli.shell.shell import Shell
    from zkpy.client.codec import Stat


class Context:
    """The shell, its session and where to print. `json`: results are wanted as JSON."""

    __slots__ = ("console", "json", "shell")

    def __init__(self, shell: Shell, console: Console, json: bool) -> None:
        self.shell = shell
        self.console = console
        self.json = json

    @property
    def zk(self) -> Session:
        """The session; a command only runs while there is one."""
        session = self.shell.session
        assert session is not None
        return session

    def out(self, text: str) -> None:
        """A result."""
        self.console.out(text)

    def err(self, text: str) -> None:
        """Everything else."""
        self.console.err(text)

    def out_json(self, value: Any) -> None:
        """A result as one line of JSON."""
        import json  # most calls want none

        self.console.out(json.dumps(value, ensure_ascii=False))

    def out_stat(self, stat: Stat) -> None:
        """The stat block."""
        self.out("\n".join(stat_lines(stat)))

    def result(self, lines: list[str], value: Any) -> None:
        """`lines`, or `value` where JSON is wanted."""
        if self.json:
            self.out_json(value)
        elif lines:
            self.out("\n".join(lines))

    def stat_result(self, path: str, stat: Stat, shown: bool) -> None:
        """The stat block if it is `shown`; as JSON always."""
        lines = stat_lines(stat) if shown else []
        self.result(lines, {"path": path, "stat": stat_json(stat)})


def checked(path: str, sequential: bool = False) -> str:
    """`path`, which names a znode; of a sequential one the number is still missing.

    Raises CliError.
    """
    try:
        validate_path(path, sequential)
    except ValueError as error:
        raise CliError(str(error)) from None
    return path


def number(text: str, bits: int = 32) -> int:
    """A number of `bits` bits as Java reads it. Raises CliError."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    # int() alone would also take blanks and underscores. Java's message names only the text.
    value = int(text) if digits.isdecimal() and len(digits) < 40 else 1 << bits
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise CliError(f'For input string: "{text}"')
    return value
