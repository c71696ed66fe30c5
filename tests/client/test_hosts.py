"""Connect strings, and the order of servers."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.client import ConnectionLoss, KeeperError
from zkpy.client.errors import error_of, multi_failed
from zkpy.client.hosts import HostProvider, format_address, parse_hosts
from zkpy.client.paths import prepend_chroot, strip_chroot
from zkpy.protocol.errors import NoNode, RuntimeInconsistency


@pytest.mark.parametrize(
    ("text", "servers", "chroot"),
    [
        ("localhost", [("localhost", 2181)], ""),
        ("a:1,b:2,c", [("a", 1), ("b", 2), ("c", 2181)], ""),
        (" a:1 , b:2 ", [("a", 1), ("b", 2)], ""),
        ("a:1,", [("a", 1)], ""),
        ("a:1,b/app/x", [("a", 1), ("b", 2181)], "/app/x"),
        ("a/", [("a", 2181)], ""),
        ("[::1]:5,[fe80::1]", [("::1", 5), ("fe80::1", 2181)], ""),
        ("::1", [("::1", 2181)], ""),
    ],
)
def test_hosts(text: str, servers: list[tuple[str, int]], chroot: str) -> None:
    assert parse_hosts(text) == (servers, chroot)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "may not be empty"),
        (",", "may not be empty"),
        ("/app", "may not be empty"),
        ("a:x", "not a port: 'x'"),
        ("a:0", "not a port"),
        ("a:65536", "not a port"),
        ("a:-1", "not a port"),
        ("a:٣", "not a port"),
        (":2181", "no host"),
        ("[::1", "not an address"),
        ("[::1]x", "not an address"),
        ("a/b/", "Path must not end with / character"),
        ("a//b", "empty node name"),
    ],
)
def test_bad_hosts(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_hosts(text)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=9, unique=True), st.integers())
def test_round_and_round(ports: list[int], seed: int) -> None:
    servers = [("host", port) for port in ports]
    hosts = HostProvider(servers, Random(seed))
    first = [hosts.next() for _ in servers]
    assert sorted(first) == sorted(servers)
    assert [hosts.next() for _ in servers] == first
    assert len(hosts) == len(servers)


def test_addresses_as_text() -> None:
    assert format_address(("a", 1)) == "a:1"
    assert format_address(("::1", 1)) == "[::1]:1"


@given(st.sampled_from(["", "/a", "/a/b"]), st.sampled_from(["/", "/a", "/a/b", "/ab", "/b"]))
def test_chroot(chroot: str, path: str) -> None:
    assert strip_chroot(chroot, prepend_chroot(chroot, path)) == path


def test_connection_loss_says_why() -> None:
    error = ConnectionLoss("/a", "server:1: Connection refused")
    assert str(error) == "/a: server:1: Connection refused"
    assert str(ConnectionLoss("/a")) == "/a"
    assert (ConnectionLoss.code, str(ConnectionLoss())) == (-4, "")


def test_unknown_codes_are_errors_too() -> None:
    error = error_of(-4242, "/a")
    assert isinstance(error, KeeperError)
    assert error.code == -4242


def test_a_failed_multi_is_its_first_real_error() -> None:
    failed = multi_failed([None, NoNode("/a"), RuntimeInconsistency("/b")])
    assert isinstance(failed, NoNode)
    assert (failed.index, failed.args, failed.code) == (1, ("/a",), -101)
    failed = multi_failed([RuntimeInconsistency("/a"), NoNode("/b")])
    assert failed.index == 1
    assert multi_failed([RuntimeInconsistency("/a")]).index == 0
    assert type(failed) is type(multi_failed([NoNode("/x")]))
