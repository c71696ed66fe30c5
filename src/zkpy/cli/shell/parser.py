"""Words of a command line, and the options among them.

Owns: splitting a typed line, and options by the rules of commons-cli. It knows no command.
Source: ZooKeeperMain.MyCommandOptions, and DefaultParser of commons-cli 1.5.
"""

from __future__ import annotations

import re
from typing import Final

# A word that starts with a quote runs to the same quote; there are no escapes. A quote that is
# never closed is skipped. Blanks are ASCII, as in Java.
_WORD: Final = re.compile(r"""\s*([^"']\S*|"[^"]*"|'[^']*')\s*""", re.ASCII)


class ParseError(Exception):
    """Options that do not fit the command; the text is the line for stderr."""


class Option:
    """`-name`, with a value if `has_value`. Of those in one `group` only one may be given."""

    __slots__ = ("description", "group", "has_value", "name")

    def __init__(
        self, name: str, description: str, *, value: bool = False, group: bool = False
    ) -> None:
        self.name = name
        self.description = description
        self.has_value = value
        self.group = group


class Arguments:
    """What was typed after a command: `words` without options, and the options."""

    __slots__ = ("options", "words")

    def __init__(self, words: list[str] | None = None) -> None:
        self.words = words or []
        self.options: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.options

    def value(self, name: str) -> str:
        """The first value given for an option that takes one."""
        return self.options[name]


def split_words(line: str) -> list[str]:
    """The words of a typed line; `""` is an empty word."""
    words = []
    for match in _WORD.finditer(line.strip(" \t\r\n\f\v")):
        word = match[1]
        if len(word) > 1 and word[0] in "'\"" and word[-1] == word[0]:
            word = word[1:-1]
        words.append(word)
    return words


def parse_options(words: list[str], known: list[Option], *, required: bool = False) -> Arguments:
    """Sort `words` into options, which may stand anywhere, and arguments; `--` ends options.

    `required`: one option of the group has to be there. Raises ParseError.
    """
    parser = _Parser(known)
    for word in words:
        parser.take(word)
    parser.end_option()
    if required and parser.group is None:
        names = ", ".join(f"-{o.name} {o.description}" for o in known if o.group)
        raise ParseError(f"Missing required option: [{names}]")
    return parser.arguments


class _Parser:
    """Takes one word after the other."""

    def __init__(self, known: list[Option]) -> None:
        self.known = {option.name: option for option in known}
        self.arguments = Arguments()
        self.open: Option | None = None  # it waits for its value
        self.group: str | None = None
        self.only_words = False

    def take(self, word: str) -> None:
        if self.only_words:
            self.arguments.words.append(word)
        elif word == "--":
            self.only_words = True
        elif self.open is not None and not self.is_option(word):
            self.give(self.open, unquoted(word))
        elif len(word) > 1 and word[0] == "-":
            self.take_option(word)
        else:
            self.arguments.words.append(word)

    def is_option(self, word: str) -> bool:
        """Whether `word` cannot be the value of an option: -5 and -x can, unless -x is known."""
        name = word[1:].partition("=")[0] if word[:1] == "-" else ""
        return name in self.known or name[:1] in self.known

    def take_option(self, word: str) -> None:
        name, equals, value = word.lstrip("-").partition("=")
        option = self.known.get(name)
        if word.startswith("--") or (equals and (len(name) > 1 or not option)):
            raise ParseError(f"Unrecognized option: {word}")
        if option is None:
            self.take_joined(word)
        elif not equals:
            self.begin(option)
        elif option.has_value:
            self.begin(option)
            self.give(option, value)
        else:
            raise ParseError(f"Unrecognized option: {word}")

    def take_joined(self, word: str) -> None:
        """`-sw` is -s -w, `-v3` is -v 3."""
        for at, letter in enumerate(word[1:], 1):
            option = self.known.get(letter)
            if option is None:
                raise ParseError(f"Unrecognized option: {word}")
            self.begin(option)
            if option.has_value and at + 1 < len(word):
                self.give(option, word[at + 1 :])
                return

    def begin(self, option: Option) -> None:
        self.end_option()
        if option.group:
            if self.group not in (None, option.name):
                raise ParseError(
                    f"The option '{option.name}' was specified but an option from this group "
                    f"has already been selected: '{self.group}'"
                )
            self.group = option.name
        if option.has_value:
            self.open = option
        else:
            self.arguments.options[option.name] = ""

    def give(self, option: Option, value: str) -> None:
        self.arguments.options.setdefault(option.name, value)
        self.open = None

    def end_option(self) -> None:
        if self.open is not None:
            raise ParseError(f"Missing argument for option: {self.open.name}")


def unquoted(value: str) -> str:
    """`value` without the double quotes around it."""
    if len(value) > 1 and value[0] == value[-1] == '"' and '"' not in value[1:-1]:
        return value[1:-1]
    return value
