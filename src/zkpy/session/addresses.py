"""IP addresses as text and as numbers: what the `ip` scheme compares and shows.

Neither `socket` (input and output) nor `ipaddress` (some ms of every start, and other rules: it
refuses leading zeros and takes embedded IPv4). Source: IPAuthenticationProvider, ZooKeeper 3.9;
java.net.Inet6Address.getHostAddress.
"""

from __future__ import annotations

from typing import Final

V4_BITS: Final = 32
V6_BITS: Final = 128
_MAPPED_V4: Final = 0xFFFF
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def parse_address(text: str) -> tuple[int, int] | None:
    """The (number, bits) of an address without zone or embedded IPv4, or None."""
    if ":" in text:
        groups = _v6_groups(text)
        return None if groups is None else (_join(groups, 16), V6_BITS)
    octets = text.split(".")
    if len(octets) != 4:
        return None
    values = [_number(octet, 0xFF) for octet in octets]
    return None if -1 in values else (_join(values, 8), V4_BITS)


def parse_network(text: str) -> tuple[int, int, int] | None:
    """The (number, bits of an address, bits that count) of `address` or `address/bits`, or None."""
    host, slash, prefix = text.partition("/")
    address = parse_address(host)
    if address is None:
        return None
    number, size = address
    counting = _number(prefix, size) if slash else size
    return None if counting < 0 else (number, size, counting)


def normalise_address(peername_host: str) -> str:
    """The text Java has for the host part of a peer name.

    IPv4 stays, also out of `::ffff:1.2.3.4`; IPv6 becomes eight groups without padding, and keeps
    a zone. What is no address is returned as it is.
    """
    if ":" not in peername_host:
        return peername_host
    if peername_host.startswith("::ffff:") and peername_host.count(".") == 3:
        v4 = peername_host[7:]
        if parse_address(v4) is not None:
            return v4  # as kernels write it: every IPv4 client of a socket for both families
    host, percent, zone = peername_host.partition("%")
    head, colon, tail = host.rpartition(":")
    if "." in tail:
        address = parse_address(tail)
        if address is None:
            return peername_host
        host = f"{head}{colon}{address[0] >> 16:x}:{address[0] & 0xFFFF:x}"
    groups = _v6_groups(host)
    if groups is None:
        return peername_host
    if _join(groups[:6], 16) == _MAPPED_V4:
        high, low = groups[6:]
        return f"{high >> 8}.{high & 0xFF}.{low >> 8}.{low & 0xFF}"
    return ":".join([f"{group:x}" for group in groups]) + percent + zone


def _v6_groups(text: str) -> list[int] | None:
    head, gap, tail = text.partition("::")
    left = head.split(":") if head else []
    right = tail.split(":") if tail else []
    missing = 8 - len(left) - len(right)
    if missing < 1 if gap else missing:
        return None
    groups = left + ["0"] * missing + right
    for group in groups:
        # int() alone would also take signs, blanks and underscores.
        if not 1 <= len(group) <= 4 or not _HEX.issuperset(group):
            return None
    return [int(group, 16) for group in groups]


def _number(text: str, maximum: int) -> int:
    """A decimal number up to `maximum`, or -1. Leading zeros are fine, as in the reference."""
    if not text.isascii() or not text.isdigit():
        return -1
    digits = text.lstrip("0")
    if len(digits) > 3:
        return -1
    value = int(digits or "0")
    return value if value <= maximum else -1


def _join(parts: list[int], width: int) -> int:
    value = 0
    for part in parts:
        value = value << width | part
    return value
