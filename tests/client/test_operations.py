"""Each operation against a server: what it returns, raises and refuses to send; the chroot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.client.bench import Bench
from tests.server.machine import Machine

from zkpy.client import MultiFailed, Stat, Transaction
from zkpy.client.ops import Check, Create, Delete, GetChildren, GetData, SetData
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE
from zkpy.protocol.errors import (
    BadVersion,
    InvalidACL,
    MarshallingError,
    NoAuth,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    ReconfigDisabled,
    RuntimeInconsistency,
    Unimplemented,
)
from zkpy.protocol.zoodefs import CreateMode, Perms


@pytest.fixture(params=["", "/app/x"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A client at the root, and one with a chroot that sees the same."""
    machine = Machine(extended_types_enabled=True)
    root = Bench(machine=machine)
    if request.param:
        root.do(root.zk.create("/app"))
        root.do(root.zk.create("/app/x"))
    return Bench(machine=machine, chroot=request.param)


def test_create_and_read(bench: Bench) -> None:
    zk = bench.zk
    assert bench.do(zk.create("/a", b"data")) == "/a"
    data, stat = bench.do(zk.get_data("/a"))
    assert data == b"data"
    assert isinstance(stat, Stat)
    assert (stat.version, stat.dataLength, stat.ephemeralOwner) == (0, 4, 0)
    assert bench.do(zk.exists("/a")) == stat
    assert bench.do(zk.exists("/b")) is None
    assert bench.do(zk.get_children("/a")) == []
    assert "a" in bench.do(zk.get_children("/"))
    names, root = bench.do(zk.get_children2("/"))
    assert "a" in names
    assert root.numChildren == len(names)


def test_no_data_is_not_empty_data(bench: Bench) -> None:
    bench.do(bench.zk.create("/none", None))
    bench.do(bench.zk.create("/empty"))
    assert bench.do(bench.zk.get_data("/none"))[0] is None
    assert bench.do(bench.zk.get_data("/empty"))[0] == b""


def test_create2(bench: Bench) -> None:
    path, stat = bench.do(bench.zk.create2("/a", b"data"))
    assert path == "/a"
    assert stat == bench.do(bench.zk.exists("/a"))


def test_sequential(bench: Bench) -> None:
    mode = CreateMode.PERSISTENT_SEQUENTIAL
    first = bench.do(bench.zk.create("/s-", mode=mode))
    second = bench.do(bench.zk.create("/s-", mode=mode))
    assert int(second[-10:]) == int(first[-10:]) + 1
    assert first.startswith("/s-")
    bench.do(bench.zk.create("/dir"))
    assert bench.do(bench.zk.create("/dir/", mode=mode)) == "/dir/0000000000"
    assert bench.do(bench.zk.create("/", mode=mode))[:2] == "/0"


def test_ephemeral(bench: Bench) -> None:
    bench.do(bench.zk.create("/e", mode=CreateMode.EPHEMERAL))
    assert bench.do(bench.zk.exists("/e")).ephemeralOwner == bench.core.session_id
    with pytest.raises(NoChildrenForEphemerals, match="/e/child"):
        bench.do(bench.zk.create("/e/child"))
    path = bench.do(bench.zk.create("/f", mode=CreateMode.EPHEMERAL_SEQUENTIAL))
    assert sorted(bench.do(bench.zk.get_ephemerals())) == sorted(["/e", path])
    assert bench.do(bench.zk.get_ephemerals("/f")) == [path]
    assert bench.do(bench.zk.get_ephemerals("/nothing")) == []


def test_container_and_ttl(bench: Bench) -> None:
    zk = bench.zk
    assert bench.do(zk.create("/c", mode=CreateMode.CONTAINER)) == "/c"
    bench.do(zk.create("/c/1"))
    bench.do(zk.delete("/c/1"))
    ttl = CreateMode.PERSISTENT_WITH_TTL
    assert bench.do(zk.create("/t", mode=ttl, ttl_ms=5000)) == "/t"
    path, stat = bench.do(
        zk.create2("/t-", b"x", mode=CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, ttl_ms=50)
    )
    assert path.startswith("/t-0")
    assert stat.dataLength == 1
    bench.machine.advance(200_000)
    bench.core.last_heard_ms = bench.now_ms
    other = Bench(machine=bench.machine, chroot=bench.zk.chroot)
    for each in ("/c", "/t", path):
        assert other.do(other.zk.exists(each)) is None


def test_set_data_and_versions(bench: Bench) -> None:
    zk = bench.zk
    bench.do(zk.create("/a"))
    assert bench.do(zk.set_data("/a", b"1")).version == 1
    assert bench.do(zk.set_data("/a", None, 1)).version == 2
    with pytest.raises(BadVersion, match="/a"):
        bench.do(zk.set_data("/a", b"", 1))
    with pytest.raises(BadVersion):
        bench.do(zk.delete("/a", 7))
    bench.do(zk.delete("/a", 2))
    with pytest.raises(NoNode):
        bench.do(zk.delete("/a"))


def test_errors_name_the_path_as_it_was_given(bench: Bench) -> None:
    bench.do(bench.zk.create("/a"))
    bench.do(bench.zk.create("/a/b"))
    for error, call in (
        (NodeExists, bench.zk.create("/a")),
        (NotEmpty, bench.zk.delete("/a")),
        (NoNode, bench.zk.get_data("/z")),
        (NoNode, bench.zk.create("/z/b")),
        (InvalidACL, bench.zk.create("/x", acl=[])),
    ):
        with pytest.raises(error) as caught:
            bench.do(call)
        assert caught.value.args[0] in ("/a", "/z", "/z/b", "/x")


def test_acl(bench: Bench) -> None:
    bench.do(bench.zk.create("/a", acl=READ_ACL_UNSAFE))
    with pytest.raises(NoAuth):
        bench.do(bench.zk.set_data("/a", b""))
    assert bench.do(bench.zk.get_acl("/a"))[0] == READ_ACL_UNSAFE
    bench.do(bench.zk.create("/b"))
    acl = [ACL(Perms.READ | Perms.ADMIN, "world", "anyone"), ACL(Perms.ALL, "ip", "10.0.0.1")]
    stat = bench.do(bench.zk.set_acl("/b", acl, 0))
    assert stat.aversion == 1
    assert bench.do(bench.zk.get_acl("/b")) == (tuple(acl), stat)


def test_what_else_there_is(bench: Bench) -> None:
    zk = bench.zk
    for path in ("/a", "/a/1", "/a/1/x", "/a/2"):
        bench.do(zk.create(path))
    assert bench.do(zk.get_all_children_number("/a")) == 3
    assert bench.do(zk.sync("/a")) == "/a"
    assert bench.do(zk.who_am_i()) == [("ip", "127.0.0.1")]
    assert bench.do(zk.get_config())[0] == b""
    with pytest.raises(ReconfigDisabled):
        bench.do(zk.reconfig(joining="server.4=a:1:2;3"))


def test_a_server_without_ttl_says_so() -> None:
    bench = Bench()
    with pytest.raises(Unimplemented):
        bench.do(bench.zk.create("/t", mode=CreateMode.PERSISTENT_WITH_TTL, ttl_ms=5))
    assert bench.is_connected


# Several at once


def test_multi(bench: Bench) -> None:
    ops = [
        Create("/m"),
        Create("/m/s-", b"", OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL),
        Create("/m/c", mode=CreateMode.CONTAINER),
        Create("/m/t", mode=CreateMode.PERSISTENT_WITH_TTL, ttl_ms=1000),
        SetData("/m", b"1"),
        Check("/m", 1),
        Delete("/m/c"),
    ]
    results = bench.do(bench.zk.multi(ops))
    assert results[:4] == ["/m", "/m/s-0000000000", "/m/c", "/m/t"]
    assert results[4].version == 1
    assert results[5:] == [None, None]
    assert bench.do(bench.zk.multi([])) == []


def test_a_multi_is_done_as_a_whole_or_not_at_all(bench: Bench) -> None:
    ops = [Create("/m"), Check("/m", 0), Delete("/none"), Create("/n")]
    with pytest.raises(NoNode) as caught:
        bench.do(bench.zk.multi(ops))
    error = caught.value
    assert isinstance(error, MultiFailed)
    assert error.args == ("/none",)
    assert error.index == 2
    assert [type(each) for each in error.results] == [
        type(None), type(None), NoNode, RuntimeInconsistency,
    ]  # fmt: skip
    assert bench.do(bench.zk.exists("/m")) is None


def test_a_multi_that_the_server_cannot_read(bench: Bench) -> None:
    with pytest.raises(MarshallingError):
        bench.do(bench.zk.multi([Create("/m", mode=9)]))


def test_transaction(bench: Bench) -> None:
    async def block() -> list[Any]:
        async with Transaction(bench.zk) as transaction:
            transaction.create("/a", b"1")
            transaction.check("/a", 0)
            transaction.set_data("/a", b"2", 0)
            transaction.create("/b", mode=CreateMode.CONTAINER)
            transaction.delete("/b")
        return transaction.results

    results = bench.do(block())
    assert results[0] == "/a"
    assert results[2].version == 1
    assert bench.do(bench.zk.get_data("/a"))[0] == b"2"


def test_a_transaction_is_not_sent_if_its_block_fails(bench: Bench) -> None:
    async def block() -> None:
        async with Transaction(bench.zk) as transaction:
            transaction.create("/a")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bench.do(block())
    assert bench.do(bench.zk.exists("/a")) is None


def test_multi_read(bench: Bench) -> None:
    bench.do(bench.zk.create("/a", b"1"))
    bench.do(bench.zk.create("/a/b"))
    ops = [GetData("/a"), GetData("/none"), GetChildren("/a"), GetChildren("/none")]
    results = bench.do(bench.zk.multi_read(ops))
    assert results[0] == bench.do(bench.zk.get_data("/a"))
    assert results[2] == ["b"]
    assert [type(results[1]), type(results[3])] == [NoNode, NoNode]
    assert results[1].args == ("/none",)


# What is not sent


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (None, "Path cannot be null"),
        ("", "Path length must be > 0"),
        ("a", "Path must start with / character"),
        ("/a/", "Path must not end with / character"),
        ("/a//b", 'Invalid path string "/a//b" caused by empty node name specified @3'),
        ("/a/../b", 'Invalid path string "/a/../b" caused by relative paths not allowed @4'),
        ("/a/./b", 'Invalid path string "/a/./b" caused by relative paths not allowed @3'),
        ("/a/.", 'Invalid path string "/a/." caused by relative paths not allowed @3'),
        ("/a/..", 'Invalid path string "/a/.." caused by relative paths not allowed @4'),
        ("/a\0", 'Invalid path string "/a\0" caused by null character not allowed @2'),
        ("/a\x01b", 'Invalid path string "/a\x01b" caused by invalid character @2'),
        ("/a\U0001f600", 'Invalid path string "/a\U0001f600" caused by invalid character @2'),
    ],
)
def test_bad_paths_are_refused_with_zookeepers_words(path: Any, text: str) -> None:
    bench = Bench()
    bench.sent.clear()
    zk = bench.zk
    calls: list[Callable[[Any], Any]] = [
        zk.create, zk.create2, zk.delete, zk.exists, zk.get_data, zk.get_children,
        zk.get_children2, zk.get_acl, zk.sync, zk.add_watch, zk.remove_watches,
        zk.get_all_children_number,
        lambda path: zk.set_data(path, b""),
        lambda path: zk.set_acl(path, OPEN_ACL_UNSAFE),
        lambda path: zk.multi([Delete(path)]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match=r".") as caught:
            bench.do(call(path))
        assert str(caught.value) == text
    assert bench.sent == b""


def test_what_lies_outside_the_chroot_is_out_of_reach() -> None:
    bench = Bench(chroot="/app/x")
    root = Bench(machine=bench.machine)
    root.do(root.zk.create("/app"))
    root.do(root.zk.create("/app/x"))
    root.do(root.zk.create("/app/xy", mode=CreateMode.EPHEMERAL))
    bench.do(bench.zk.create("/y", mode=CreateMode.EPHEMERAL))
    assert root.do(root.zk.exists("/app/x/y")) is not None
    assert bench.do(bench.zk.get_ephemerals()) == ["/y"]
    assert bench.do(bench.zk.get_children("/")) == ["y"]
