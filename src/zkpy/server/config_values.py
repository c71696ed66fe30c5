"""How the text of a key becomes a value, and what a bad text does: fail, or keep the default.

Source: QuorumPeerConfig.parseBoolean, Integer.getInteger, Long.getLong and Boolean.parseBoolean as
the reference calls them.
"""

from __future__ import annotations

from zkpy.protocol.config_error import ConfigException
from zkpy.protocol.properties import INT_BITS, LONG_BITS, decode_integer, parse_integer


def strict_value(kind: str, key: str, text: str) -> object:
    """Read a parser key. Raises ConfigException for a number or boolean that is none."""
    if kind == "int":
        return parse_integer(text, INT_BITS, key=key)
    if kind == "long":
        return parse_integer(text, LONG_BITS, key=key)
    if kind == "bool":
        lower = text.lower()
        if lower not in ("true", "false"):
            raise ConfigException(
                f"Invalid option {text} for {key}. Choose 'true' or 'false.'", key=key
            )
        return lower == "true"
    return text


def lenient_value(kind: str, text: str, default: object) -> object:
    """Read a property: nonsense is the default, or false for a boolean."""
    if kind == "int" or kind == "long":
        number = decode_integer(text, INT_BITS if kind == "int" else LONG_BITS)
        return default if number is None else number
    if kind == "bool":
        return text.lower() == "true"
    if kind == "double":
        return float_or(text, default)
    return special_value(kind, text)


def special_value(kind: str, text: str) -> object:
    if kind == "not_no":
        return text != "no"
    if kind == "only_yes":
        return text == "yes"
    if kind == "not_false":
        return text != "false"
    return text


def float_or(text: str, default: object) -> object:
    try:
        return float(text)
    except ValueError:
        return default
