"""Quota texts of every kind, and the accounting that must survive them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.datatree.tree_compare import check_inner_consistency

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.quota import QuotaTracker, StatsTrack, limits_path, stats_path, tracked_path
from zkpy.datatree.tree import DataTree
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import OpCode

NUMBERS = st.integers(-1, (1 << 63) - 1)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_text_round_trip(count: int, size: int, count_hard: int, byte_hard: int) -> None:
    track = StatsTrack()
    track.count, track.bytes = count, size
    track.count_hard_limit, track.byte_hard_limit = count_hard, byte_hard
    again = StatsTrack(track.encode())
    assert (again.count, again.bytes) == (count, size)
    assert (again.count_hard_limit, again.byte_hard_limit) == (count_hard, byte_hard)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"count=1,bytes=2", (1, 2, -1, -1)),
        (b"count=1,bytes=2=;byteHardLimit=4;countHardLimit=3", (1, 2, 3, 4)),
        (b"countHardLimit=3", (-1, -1, 3, -1)),
        (b",;count=1;;,bytes=2,", (1, 2, -1, -1)),
        (b"count=+7,bytes=-5", (7, -5, -1, -1)),
        (b"", (-1, -1, -1, -1)),
        (None, (-1, -1, -1, -1)),
        (b"count=,bytes=x", (-1, -1, -1, -1)),
        (b"count=1 ,bytes= 2", (-1, -1, -1, -1)),
        ("count=\u0661".encode(), (-1, -1, -1, -1)),
        (b"count=1_0", (-1, -1, -1, -1)),
        (b"count=" + b"9" * 5000, (-1, -1, -1, -1)),
        (b"\xff\xfe\x00", (-1, -1, -1, -1)),
    ],
)
def test_texts(text: bytes | None, values: tuple[int, int, int, int]) -> None:
    track = StatsTrack(text)
    found = (track.count, track.bytes, track.count_hard_limit, track.byte_hard_limit)
    assert found == values


@given(st.binary(max_size=60) | st.text("count=,;bytes-+0123456789HardLimit", max_size=60).map(
    str.encode))  # fmt: skip
def test_any_text(text: bytes) -> None:
    track = StatsTrack(text)
    assert StatsTrack(track.encode()).count == track.count


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/zookeeper/quota/a/zookeeper_limits", "/a"),
        ("/zookeeper/quota/a/b/zookeeper_limits", "/a/b"),
        ("/zookeeper/quota/zookeeper_limits", None),
        ("/zookeeper/quota/a/zookeeper_stats", None),
        ("/zookeeper/quota/a/xzookeeper_limits", None),
        ("/zookeeper/quotas/a/zookeeper_limits", None),
        ("/zookeeper/quota/zookeeper_limits/zookeeper_limits", "/zookeeper_limits"),
        ("/a/zookeeper_limits", None),
        ("", None),
    ],
)
def test_whose_limits(node: str, path: str | None) -> None:
    assert tracked_path(node, "zookeeper_limits") == path
    if path is not None:
        assert limits_path(path) == node
        assert tracked_path(stats_path(path), "zookeeper_stats") == path


def test_the_deepest_quota_counts() -> None:
    tracker = QuotaTracker()
    tracker.paths |= {"/a", "/a/b/c"}
    assert tracker.deepest("/a/b") == "/a"
    assert tracker.deepest("/a/b/c") == "/a/b/c"
    assert tracker.deepest("/a/b/c/d") == "/a/b/c"
    assert tracker.deepest("/ab") is None
    assert tracker.deepest("/") is None


class QuotaTree:
    """A tree with a quota on /q."""

    def __init__(self, path: str = "/q") -> None:
        self.tree = DataTree()
        self.zxid = 0
        self.create("/q", b"12345")
        self.create("/q/old", b"123")
        above = "/zookeeper/quota"
        for name in path[1:].split("/"):
            above += "/" + name
            self.create(above, None)
        self.create(limits_path(path), b"count=5,bytes=100")
        self.create(stats_path(path), b"what the client thinks")

    def apply(self, type: int, record: Record, session: int = 1) -> int:
        self.zxid += 1
        return apply_txn(self.tree, t.TxnHeader(session, 1, self.zxid, 1, type), record).err

    def create(self, path: str, data: bytes | None, ephemeral: bool = False) -> None:
        record = t.CreateTxn(path, data, OPEN_ACL_UNSAFE, ephemeral, -1)
        assert self.apply(OpCode.CREATE, record) == 0

    def set_data(self, path: str, data: bytes | None) -> None:
        assert self.apply(OpCode.SET_DATA, t.SetDataTxn(path, data, 1)) == 0

    def delete(self, path: str) -> None:
        assert self.apply(OpCode.DELETE, t.DeleteTxn(path)) == 0

    def usage(self, path: str = "/q") -> bytes | None:
        return self.tree.nodes[stats_path(path)].data


def test_accounting() -> None:
    quota = QuotaTree()
    assert quota.usage() == b"count=2,bytes=8"
    quota.create("/q/new", b"1234")
    assert quota.usage() == b"count=3,bytes=12"
    quota.set_data("/q/new", None)
    assert quota.usage() == b"count=3,bytes=8"
    quota.create("/q/e", b"1", ephemeral=True)
    assert quota.usage() == b"count=4,bytes=9"
    quota.apply(OpCode.CLOSE_SESSION, t.CloseSessionTxn(["/q/e"]))
    quota.delete("/q/new")
    quota.delete("/q/old")
    quota.delete("/q")
    assert quota.usage() == b"count=0,bytes=0"
    quota.create("/q", b"1")
    assert quota.usage() == b"count=1,bytes=1"
    quota.create("/qq", b"1")
    assert quota.usage() == b"count=1,bytes=1"
    quota.delete(limits_path("/q"))
    quota.create("/q/untracked", b"1")
    assert quota.usage() == b"count=1,bytes=1"
    check_inner_consistency(quota.tree)


def test_accounting_leaves_the_stat_alone() -> None:
    quota = QuotaTree()
    before = quota.tree.nodes[stats_path("/q")].stat
    quota.tree.response_cache[stats_path("/q")] = b"stale"
    quota.create("/q/new", b"1234")
    assert quota.tree.nodes[stats_path("/q")].stat == before
    assert quota.tree.response_cache == {}


@given(st.none() | st.binary(max_size=30))
@example(b"")
@example(b"count=,bytes=")
@example(b"count=-3,bytes=1")
@example(b"count=x;bytes=1")
def test_unusable_usage_is_counted_anew(text: bytes | None) -> None:
    usable = StatsTrack(text).is_usage  # below zero too: what a quota missed while it was away
    quota = QuotaTree()
    quota.set_data(stats_path("/q"), text)
    quota.set_data(limits_path("/q"), text)
    quota.create("/q/new", b"1234")
    if not usable:
        assert quota.usage() == b"count=3,bytes=12"
    quota.delete("/q/new")
    check_inner_consistency(quota.tree)


def test_a_quota_on_the_root_or_on_quotas_does_no_harm() -> None:
    for path in ("/zookeeper", "/zookeeper/quota", "/zookeeper/quota/q"):
        quota = QuotaTree(path)
        quota.create("/q/new", b"1")
        quota.set_data(stats_path(path), b"count=1,bytes=1")
        quota.delete(stats_path(path))
        quota.delete(limits_path(path))
        check_inner_consistency(quota.tree)
    quota = QuotaTree()
    quota.create("/zookeeper/quota/zookeeper_limits", b"count=0")
    quota.create("/zookeeper/quota/zookeeper_stats", b"count=0,bytes=0")
    quota.create("/other", b"1")
    assert quota.tree.nodes["/zookeeper/quota/zookeeper_stats"].data == b"count=0,bytes=0"


def test_a_quota_on_a_node_that_is_not_there() -> None:
    quota = QuotaTree("/q/later")
    assert quota.usage("/q/later") == b"count=0,bytes=0"
    quota.create("/q/later", b"12")
    assert quota.usage("/q/later") == b"count=1,bytes=2"
