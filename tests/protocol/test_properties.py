"""The syntax of Java properties, and Java's ways to read numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.config_error import IllegalArgument
from zkpy.protocol.properties import (
    INT_BITS,
    LONG_BITS,
    decode_integer,
    load_properties,
    parse_integer,
)


@pytest.mark.parametrize(
    "line",
    [
        "clientPort=2181",
        "clientPort 2181",
        "clientPort: 2181",
        "clientPort = 2181",
        "  clientPort\t=\t2181  ",
        "clientPort=2181\r",
        "client\\\n   Port=21\\\r\n\t81",
        "clientPort \\\n 2181",
        "# comment \\\nclientPort=2181",
        "\n\n! comment\n   \nclientPort=2181",
        "\\\n# a comment, since nothing came before\nclientPort=2181",
        "cl\\ientP\\u006frt=2181",
        "clientPort=2181\\",
    ],
)
def test_ways_to_write_one_entry(line: str) -> None:
    assert load_properties(line) == {"clientPort": "2181"}
    assert load_properties(line + "\n") == {"clientPort": "2181"}


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", {}),
        ("key", {"key": ""}),
        ("key=", {"key": ""}),
        ("=value", {"": "value"}),
        ("a==b", {"a": "=b"}),
        ("a = : b", {"a": ": b"}),
        ("a b = c", {"a": "b = c"}),
        ("a\\ b\\=c\\:d=e", {"a b=c:d": "e"}),
        ("tickTime=2000 # ms", {"tickTime": "2000 # ms"}),
        ("a=1\\\n\nb=2", {"a": "1", "b": "2"}),
        ("a=1\\\n#2", {"a": "1#2"}),
        ("a=1\\\\\nb=2", {"a": "1\\", "b": "2"}),
        ("a=C:\\temp\\new\\x", {"a": "C:\temp\newx"}),
        ("a=x\\ty\\n\\r\\fz", {"a": "x\ty\n\r\fz"}),
        ("a=\\ud83d\\ude00", {"a": "\U0001f600"}),
        ("a=1\nb=2\na=3", {"a": "3", "b": "2"}),
        ("a=1\x0c2", {"a": "1\x0c2"}),
        ("a=caf\xe9\x85b\u2028c", {"a": "caf\xe9\x85b\u2028c"}),
    ],
)
def test_syntax(text: str, entries: dict[str, str]) -> None:
    assert load_properties(text) == entries


@pytest.mark.parametrize("text", ["a=\\u12", "a=\\u12G4", "\\uzzzz=1"])
def test_broken_unicode_escape(text: str) -> None:
    with pytest.raises(IllegalArgument, match="Malformed"):
        load_properties(text)


# Trimming takes the ends of a text away, and a pair of lone surrogates would be read as one.
words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[chr(n) for n in range(33)])
    | st.sampled_from("\\=:#!"),
    min_size=1,
).flatmap(lambda ends: st.text("ab \t\n\f").map(lambda middle: ends + middle + ends))


def escaped(text: str, wide: bool) -> str:
    """Write `text` so that every special character is escaped."""
    result = ""
    for char in text:
        if wide:
            data = char.encode("utf-16-be")
            units = [data[i : i + 2].hex() for i in range(0, len(data), 2)]
            result += "".join("\\u" + unit for unit in units)
        elif char in "\t\n\f":
            result += {"\t": "\\t", "\n": "\\n", "\f": "\\f"}[char]
        else:
            result += "\\" + char if char in "\\=:#! \r" else char
    return result


@given(st.dictionaries(words, words), st.booleans(), st.sampled_from(["=", ":", " ", " = "]))
def test_round_trip(entries: dict[str, str], wide: bool, separator: str) -> None:
    lines = [escaped(k, wide) + separator + escaped(v, wide) for k, v in entries.items()]
    assert load_properties("\n".join(lines)) == entries


@given(st.text(st.characters() | st.sampled_from("\\=:#! \t\f\r\nu0")))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        entries = load_properties(text)
    except IllegalArgument:
        return
    for part in [*entries, *entries.values()]:
        assert part == "" or (part[0] > " " and part[-1] > " ")


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-0", 0), ("+7", 7), ("007", 7), ("-2147483648", -(1 << 31)), ("\u0663", 3)],
)
def test_parse_integer(text: str, value: int) -> None:
    assert parse_integer(text, INT_BITS) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "+",
        "abc",
        "1_000",
        " 1",
        "1 ",
        "--1",
        "+-1",
        "0x10",
        "2147483648",
        "1.0",
        "9" * 5000,
    ],
)
def test_parse_integer_refuses(text: str) -> None:
    with pytest.raises(IllegalArgument) as caught:
        parse_integer(text, INT_BITS)
    assert str(caught.value) == f'NumberFormatException: For input string: "{text}"'


def test_parse_hexadecimal() -> None:
    assert parse_integer("100000001", LONG_BITS, radix=16) == 0x100000001
    for text in ("0x10", "fffffffffffffffff", "g", "0b_1"):
        with pytest.raises(IllegalArgument):
            parse_integer(text, LONG_BITS, radix=16)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-10", -10),
        ("+10", 10),
        ("0x10", 16),
        ("0X1f", 31),
        ("#10", 16),
        ("-#10", -16),
        ("010", 8),
        ("0", 0),
        ("-2147483648", -(1 << 31)),
        ("08", None),
        ("0x", None),
        ("#", None),
        ("", None),
        ("-", None),
        ("+-1", None),
        ("0x-1", None),
        ("2147483648", None),
        ("0o7", None),
        ("abc", None),
        (" 1", None),
    ],
)
def test_decode_integer(text: str, value: int | None) -> None:
    assert decode_integer(text, INT_BITS) == value
