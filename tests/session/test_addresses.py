"""Address parsing and matching against the standard library's `ipaddress`."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zkpy.session.addresses import normalise_address, parse_address, parse_network
from zkpy.session.auth import IPAuthenticationProvider

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6) | st.integers(0, 0xFFFFFFFF).map(ipaddress.IPv6Address)
# Text that is nearly an address.
NEAR = st.text("0123456789abcdefABCDEFg:.%/+-_ \u0661", max_size=24)


def stdlib_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """What an ACL may name, by the standard library: no zones, no embedded IPv4."""
    if "%" in text or (":" in text and "." in text):
        return None
    if ":" not in text:
        # The library refuses leading zeros, which may mean octal; the reference reads decimal.
        parts = text.split(".")
        if all(part.isascii() and part.isdigit() for part in parts):
            text = ".".join(str(int(part)) for part in parts)
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


@given(NEAR)
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:7:8::")
@example("1::2::3")
@example(":::")
@example("::")
@example(":1:2:3:4:5:6:7")
@example("1.2.3.4")
@example("001.02.3.4")
@example("1.2.3.256")
@example("1.2.3")
@example("1.2.3.4.5")
@example("1_0.2.3.4")
@example("\u0661.2.3.4")
@example("1." + "0" * 400 + ".3.4")
@example("::ffff:1.2.3.4")
@example("fe80::1%eth0")
@example("localhost")
@example("")
def test_what_is_an_address(text: str) -> None:
    expected = stdlib_address(text)
    parsed = parse_address(text)
    if expected is None:
        assert parsed is None
    else:
        assert parsed == (int(expected), expected.max_prefixlen)


def test_long_numbers_are_cheap() -> None:
    # Longer than what int() is willing to read.
    assert parse_address("1." + "9" * 100_000 + ".3.4") is None
    assert parse_address("1." + "0" * 100_000 + "2.3.4") == (0x01020304, 32)
    assert parse_network("1.2.3.4/" + "1" * 100_000) is None


@given(V4 | V6, st.integers(0, 140), st.booleans())
def test_matches_the_networks_of_the_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int, exploded: bool
) -> None:
    text = address.exploded if exploded else str(address)
    provider = IPAuthenticationProvider()
    if ":" in text and "." in text:
        text = address.exploded
    acl_id = f"{text}/{bits}"
    if bits > address.max_prefixlen:
        assert parse_network(acl_id) is None
        assert not provider.is_valid(acl_id)
        return
    assert provider.is_valid(acl_id)
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    for other in {
        address,
        network[0],
        network[-1],
        type(address)(int(address) ^ 1),
        type(address)(int(address) ^ (1 << (address.max_prefixlen - 1))),
        type(address)((int(network[-1]) + 1) % (1 << address.max_prefixlen)),
    }:
        id = normalise_address(str(other))
        if ":" in id or address.version == 4:
            assert provider.matches(id, acl_id) is (other in network)
            assert provider.matches(id, acl_id) is (other in network), "from the memo"


def test_families_do_not_mix() -> None:
    provider = IPAuthenticationProvider()
    assert provider.matches("1.2.3.4", "0.0.0.0/0")
    assert not provider.matches("0:0:0:0:0:0:0:1", "0.0.0.0/0")
    assert provider.matches("0:0:0:0:0:0:0:1", "::/0")
    assert not provider.matches("1.2.3.4", "::/0")


def test_a_zone_matches_nothing() -> None:
    assert not IPAuthenticationProvider().matches("fe80:0:0:0:0:0:0:1%eth0", "fe80::/10")


def test_ids_that_are_no_addresses_match_nothing() -> None:
    provider = IPAuthenticationProvider()
    assert not provider.matches("unix", "unix")
    assert not provider.matches("1.2.3.4", "1.2.3.4/x")


def test_the_memo_stays_bounded() -> None:
    provider = IPAuthenticationProvider()
    for number in range(5000):
        provider.matches(f"10.0.{number >> 8}.{number & 255}", f"10.0.0.0/{number}")
    assert len(provider._networks) <= 1024
    assert len(provider._addresses) <= 1024


@pytest.mark.parametrize(
    "acl_id",
    ["1.2.3.4", "1.2.3.4/0", "1.2.3.4/32", "1.2.3.4/08", "::1", "::1/128", "fe80::/10", "::/0"],
)
def test_valid_networks(acl_id: str) -> None:
    assert IPAuthenticationProvider().is_valid(acl_id)


@pytest.mark.parametrize(
    "acl_id",
    [
        "", "/", "/24", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/8/8", "1.2.3.4/x",
        "1.2.3.4/ 8", "::1/129", "::1/", "localhost", "localhost/8", "::ffff:1.2.3.4",
        "fe80::1%eth0", "12345::", "1.2.3", "1.2.3.", "1..2.3",
    ],
)  # fmt: skip
def test_invalid_networks(acl_id: str) -> None:
    assert not IPAuthenticationProvider().is_valid(acl_id)


@given(V4)
def test_ipv4_stays(address: ipaddress.IPv4Address) -> None:
    assert normalise_address(str(address)) == str(address)
    assert normalise_address(f"::ffff:{address}") == str(address)


@given(V6)
def test_ipv6_is_written_out(address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is not None:
        assert normalise_address(str(address)) == str(address.ipv4_mapped)
        return
    expected = ":".join(f"{int(group, 16):x}" for group in address.exploded.split(":"))
    for text in (str(address), address.exploded, str(address).upper()):
        assert normalise_address(text) == expected
    assert normalise_address(f"{address}%eth0") == f"{expected}%eth0"
    assert parse_address(normalise_address(str(address))) == (int(address), 128)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("::1", "0:0:0:0:0:0:0:1"),
        ("::", "0:0:0:0:0:0:0:0"),
        ("fe80::1%2", "fe80:0:0:0:0:0:0:1%2"),
        ("::1.2.3.4", "0:0:0:0:0:0:102:304"),
        ("::ffff:102:304", "1.2.3.4"),
        ("2001:DB8::a", "2001:db8:0:0:0:0:0:a"),
    ],
)
def test_java_text(host: str, text: str) -> None:
    assert normalise_address(host) == text


@given(NEAR)
@example("::1.2.3")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("/run/zk:sock")
def test_normalising_takes_anything(host: str) -> None:
    text = normalise_address(host)
    if parse_address(text) is None and "%" not in text:
        assert text == host
