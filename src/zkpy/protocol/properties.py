"""Java properties syntax, and Java's ways to read a number: zoo.cfg, dynamic files, config nodes.

Owns text -> dict of str. It must not know a single key.
"""

from __future__ import annotations

from zkpy.protocol.config_error import IllegalArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLANKS = " \t\f"
ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
HEX_DIGITS = "0123456789abcdefABCDEF"
INT_BITS = 32
LONG_BITS = 64


def load_properties(text: str) -> dict[str, str]:
    """Parse `text`; a key given twice keeps its first place and its last value.

    Keys and values are trimmed, as the configuration parser of the reference does after loading.
    Raises IllegalArgument for a broken Unicode escape, the only thing the syntax can refuse.
    Source: java.util.Properties.load; QuorumPeerConfig.parseProperties.
    """
    entries: dict[str, str] = {}
    for line in logical_lines(text):
        key_end, value_start = split_key(line)
        entries[trim(unescape(line[:key_end]))] = trim(unescape(line[value_start:]))
    return entries


def trim(text: str) -> str:
    """Java's String.trim: every character up to and including the blank goes, at both ends."""
    start, end = 0, len(text)
    while start < end and text[start] <= " ":
        start += 1
    while end > start and text[end - 1] <= " ":
        end -= 1
    return text[start:end]


def logical_lines(text: str) -> Iterator[str]:
    """Lines with comments and blank ones left out and continuations joined."""
    pending = ""
    continued = False
    # Not splitlines(): it would also split at form feeds and Unicode separators.
    for natural in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = natural.lstrip(BLANKS)
        if not pending and (line[:1] in ("#", "!") or (not line and not continued)):
            continued = False
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        continued = backslashes % 2 == 1
        if continued:
            pending += line[:-1]
            continue
        if pending or line:
            yield pending + line
        pending = ""
    if pending:
        yield pending


def split_key(line: str) -> tuple[int, int]:
    """Return (end of the key, start of the value) in a logical line."""
    index, size = 0, len(line)
    while index < size and line[index] not in "=: \t\f":
        index += 2 if line[index] == "\\" else 1
    key_end = value_start = min(index, size)
    separator_seen = False
    while value_start < size:
        char = line[value_start]
        if char in "=:" and not separator_seen:
            separator_seen = True
        elif char not in BLANKS:
            break
        value_start += 1
    return key_end, value_start


def unescape(text: str) -> str:
    if "\\" not in text:
        return text
    parts: list[str] = []
    index, size = 0, len(text)
    unicode_seen = False
    while index < size:
        char = text[index]
        index += 1
        if char != "\\":
            parts.append(char)
            continue
        escaped = text[index : index + 1]
        index += 1
        if escaped != "u":
            parts.append(ESCAPES.get(escaped, escaped))
            continue
        digits = text[index : index + 4]
        index += 4
        if len(digits) < 4 or digits.strip(HEX_DIGITS):
            raise IllegalArgument("Malformed \\uxxxx encoding.")
        parts.append(chr(int(digits, 16)))
        unicode_seen = True
    joined = "".join(parts)
    if unicode_seen:  # a pair of escapes may be one character beyond the 16-bit range
        joined = joined.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined


def parse_integer(text: str, bits: int, *, key: str | None = None, radix: int = 10) -> int:
    """Java's Integer.parseInt (`bits` 32) and Long.parseLong (64); IllegalArgument otherwise."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    try:
        # int() alone would also take blanks, underscores and prefixes, which Java refuses.
        if not digits.isalnum() or (radix != 10 and digits.strip(HEX_DIGITS)):
            raise ValueError
        value = int(text, radix)
    except ValueError:
        value = 1 << bits
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise IllegalArgument(f'NumberFormatException: For input string: "{text}"', key=key)
    return value


def decode_integer(text: str, bits: int) -> int | None:
    """Java's Integer.decode and Long.decode; None where they raise.

    Decimal, `0x` or `#` hexadecimal, and octal after a leading 0, each with an optional sign.
    """
    negative = text[:1] == "-"
    digits = text[1:] if text[:1] in ("+", "-") else text
    radix = 10
    if digits[:2] in ("0x", "0X"):
        digits, radix = digits[2:], 16
    elif digits[:1] == "#":
        digits, radix = digits[1:], 16
    elif digits[:1] == "0" and len(digits) > 1:
        digits, radix = digits[1:], 8
    if digits[:1] in ("+", "-"):
        return None
    try:
        return parse_integer("-" + digits if negative else digits, bits, radix=radix)
    except IllegalArgument:
        return None
