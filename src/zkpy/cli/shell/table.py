"""What a command is: its usage, its options, the function that does it; and the usage block.

Commands add themselves with `command(...)`; the table is complete once `commands` is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from zkpy.cli.shell.parser import Arguments, Option, ParseError, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from zkpy.cli.shell.context import Context

    Run = Callable[[Context, Arguments], Coroutine[Any, Any, int | None]]
    R = TypeVar("R", bound=Run)

FIRST_LINE: Final = "ZooKeeper -server host:port -client-configuration properties-file cmd args"
EXTRAS_LINE: Final = "In addition to ZooKeeper's commands (all take --json):"
NOT_FOUND: Final = 127


class CliError(Exception):
    """A command that failed; the text is for stderr, `status` the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class OperationError(Exception):
    """An operation on `path` that was refused, or got no answer; `code` as KeeperException.Code.

    `reason` goes behind the reference's words where these alone would leave a person guessing.
    """

    def __init__(self, code: int, path: str | None, reason: str = "") -> None:
        super().__init__(code, path)
        self.code = code
        self.path = path
        self.reason = reason


class Command:
    """One command.

    `syntax` is what the usage block shows. `described`: the usage of the command alone lists its
    options. `words`: how many arguments it takes at least; at most, where `exact`.
    `extra`: ZooKeeper has no such command. `hidden`: an old name, in no list. `offline`: needs no
    session. `raw`: takes its words as they are, -1 is no option.
    """

    __slots__ = (
        "described", "exact", "extra", "hidden", "name", "offline", "options", "raw", "required",
        "run", "syntax", "words",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        syntax: str,
        run: Run,
        options: list[Option],
        *,
        words: int = 0,
        exact: bool = False,
        required: bool = False,
        described: bool = False,
        extra: bool = False,
        hidden: bool = False,
        offline: bool = False,
        raw: bool = False,
    ) -> None:
        self.name = name
        self.syntax = syntax
        self.run = run
        self.options = options
        self.words = words
        self.exact = exact
        self.required = required
        self.described = described
        self.extra = extra
        self.hidden = hidden
        self.offline = offline
        self.raw = raw

    @property
    def usage(self) -> str:
        """What a wrong call of the command prints."""
        line = f"{self.name} {self.syntax}"
        if not self.described or not self.options:
            return line
        return "\n".join([line, *self.option_lines()])

    def option_lines(self) -> list[str]:
        """A line per option, sorted, as HelpFormatter of commons-cli prints them."""
        options = sorted(self.options, key=lambda o: o.name.lower())
        names = [f" -{o.name}{' <arg>' if o.has_value else ''}" for o in options]
        width = max(map(len, names)) + 3
        return [
            f"{name:<{width}}{option.description}"
            for name, option in zip(names, options, strict=True)
        ]

    def parse(self, words: list[str]) -> Arguments:
        """Sort out the words behind the name. Raises CliError."""
        if self.raw:
            return Arguments(words)
        try:
            arguments = parse_options(words, self.options, required=self.required)
        except ParseError as error:
            raise CliError(str(error)) from None
        count = len(arguments.words)
        if count < self.words or (self.exact and count > self.words):
            self.fail()
        return arguments

    def fail(self) -> NoReturn:
        """Say how the command is used."""
        raise CliError(self.usage)


COMMANDS: Final[dict[str, Command]] = {}


def command(name: str, syntax: str, *options: Option, **details: Any) -> Callable[[R], R]:
    """Put the decorated function into the table as command `name`."""

    def register(run: R) -> R:
        COMMANDS[name] = Command(name, syntax, run, list(options), **details)
        return run

    return register


def command_names() -> list[str]:
    """What completion offers."""
    return sorted(name for name, known in COMMANDS.items() if not known.hidden)


def usage_block() -> str:
    """The block of an unknown command: ZooKeeper's, to the byte."""
    return "\n".join([FIRST_LINE, *_lines(extra=False)])


def help_text() -> str:
    """`help`: the block, and what there is besides."""
    return "\n".join([usage_block(), EXTRAS_LINE, *_lines(extra=True)])


def _lines(extra: bool) -> list[str]:
    listed = sorted(COMMANDS.items())
    return [f"\t{name} {c.syntax}" for name, c in listed if c.extra == extra and not c.hidden]
