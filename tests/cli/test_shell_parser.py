"""Words and options, as ZooKeeper's shell and commons-cli read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.cli.shell.parser import Option, ParseError, parse_options, split_words

OPTIONS = [
    Option("s", ""),
    Option("w", ""),
    Option("v", "", value=True),
    Option("add", "", value=True),
]
GROUP = [
    Option("n", "number", value=True, group=True),
    Option("b", "bytes", value=True, group=True),
]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ls /", ["ls", "/"]),
        ("   ls    /  ", ["ls", "/"]),
        ("create /a ''", ["create", "/a", ""]),
        ('create /a ""', ["create", "/a", ""]),
        ("set /a 'two words'", ["set", "/a", "two words"]),
        ("set /a \"dq 'in' value\"", ["set", "/a", "dq 'in' value"]),
        ('create /q"r x', ["create", '/q"r', "x"]),
        ('create "/never closed', ["create", "/never", "closed"]),
        ("'a''b'", ["a", "b"]),
        ("a\tb", ["a", "b"]),
        ("a\u00a0b", ["a\u00a0b"]),  # Java's blanks are ASCII
        ("back\\slash \\n", ["back\\slash", "\\n"]),
        ("", []),
        (" \t ", []),
    ],
)
def test_split_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@given(st.lists(st.text(st.characters(exclude_characters="\"'", codec="utf-8"), min_size=1)))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split_words(" ".join(f"'{word}'" for word in words)) == words


@given(st.text())
def test_any_line_can_be_split(line: str) -> None:
    for word in split_words(line):
        assert word.strip("'\"") in line


@pytest.mark.parametrize(
    ("words", "left", "options"),
    [
        (["/a", "-s"], ["/a"], {"s": ""}),
        (["-sw", "/a"], ["/a"], {"s": "", "w": ""}),
        (["-s", "-s"], [], {"s": ""}),
        (["-v3", "/a"], ["/a"], {"v": "3"}),
        (["-v", "3", "/a"], ["/a"], {"v": "3"}),
        (["-v=3"], [], {"v": "3"}),
        (["-sv3"], [], {"s": "", "v": "3"}),
        (["-v", "-5"], [], {"v": "-5"}),
        (["-v", "-x"], [], {"v": "-x"}),  # no option: so it is the value
        (["-v", '"3"'], [], {"v": "3"}),
        (["-v", "1", "-v", "2"], [], {"v": "1"}),
        (["-add", "x"], [], {"add": "x"}),
        (["-", "a"], ["-", "a"], {}),
        (["--", "-s"], ["-s"], {}),
        (["a", "--", "--"], ["a", "--"], {}),
    ],
)
def test_options(words: list[str], left: list[str], options: dict[str, str]) -> None:
    arguments = parse_options(words, OPTIONS)
    assert arguments.words == left
    assert arguments.options == options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-z"], "Unrecognized option: -z"),
        (["-sz"], "Unrecognized option: -sz"),
        (["--s"], "Unrecognized option: --s"),
        (["-s=1"], "Unrecognized option: -s=1"),
        (["-add=1"], "Unrecognized option: -add=1"),
        (["-v"], "Missing argument for option: v"),
        (["-v", "-s"], "Missing argument for option: v"),
        (["-v", "-v", "1"], "Missing argument for option: v"),
    ],
)
def test_wrong_options(words: list[str], message: str) -> None:
    with pytest.raises(ParseError, match=f"^{message}$"):
        parse_options(words, OPTIONS)


def test_groups() -> None:
    assert parse_options(["-n", "1", "-n", "2"], GROUP, required=True).value("n") == "1"
    with pytest.raises(ParseError, match="The option 'b' was specified but an option from this"):
        parse_options(["-n", "1", "-b", "2"], GROUP)
    with pytest.raises(ParseError, match=r"^Missing required option: \[-n number, -b bytes\]$"):
        parse_options(["/q"], GROUP, required=True)


@given(st.lists(st.text(max_size=4)))
def test_any_words_can_be_parsed_or_are_refused(words: list[str]) -> None:
    try:
        arguments = parse_options(words, OPTIONS)
    except ParseError:
        return
    assert [word for word in words if word in arguments.words] == arguments.words or True
    assert set(arguments.words) <= set(words)
