"""CommittedLog: a window that never has a hole."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.zxid import make_zxid
from zkpy.quorum.committed_log import CommittedLog


def log_of(*zxids: int, limit: int = 5) -> CommittedLog:
    committed_log = CommittedLog(limit)
    for zxid in zxids:
        committed_log.add(zxid, b"%x" % zxid)
    return committed_log


def zxids_of(committed_log: CommittedLog) -> list[int]:
    return [zxid for zxid, _ in committed_log.proposals]


def test_the_last_ones_are_kept() -> None:
    committed_log = log_of()
    assert (committed_log.min_zxid, committed_log.max_zxid) == (None, None)
    committed_log = log_of(*range(1, 9))
    assert list(committed_log.proposals) == [(z, b"%x" % z) for z in (4, 5, 6, 7, 8)]
    assert (committed_log.min_zxid, committed_log.max_zxid) == (4, 8)
    committed_log.clear()
    assert committed_log.max_zxid is None


def test_one_that_is_there_is_left_alone() -> None:
    committed_log = log_of(1, 2, 3)
    committed_log.add(2, b"other")
    assert list(committed_log.proposals) == [(1, b"1"), (2, b"2"), (3, b"3")]


def test_a_hole_begins_a_new_log() -> None:
    """ZOOKEEPER-4925: what is missing in one server's log must not be lost by others, too."""
    e1, e2, e3 = (make_zxid(epoch, 0) for epoch in (1, 2, 3))
    assert zxids_of(log_of(e1 + 1, e1 + 3)) == [e1 + 3]
    assert zxids_of(log_of(e1 + 7, e2 + 1, e2 + 2)) == [e1 + 7, e2 + 1, e2 + 2]
    assert zxids_of(log_of(e1 + 7, e3 + 1)) == [e1 + 7, e3 + 1]
    assert zxids_of(log_of(e1 + 7, e2 + 2)) == [e2 + 2]


def test_another_log_is_taken_over() -> None:
    committed_log = log_of(1, 2, 3)
    proposals = committed_log.proposals
    committed_log.replace(log_of(7, 8))
    assert list(proposals) == [(7, b"7"), (8, b"8")]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4))))
def test_whatever_comes_there_is_no_hole(numbers: list[tuple[int, int]]) -> None:
    committed_log = log_of(*(make_zxid(*number) for number in numbers), limit=4)
    zxids = zxids_of(committed_log)
    assert len(zxids) <= 4
    for one, other in pairwise(zxids):
        assert other == one + 1 or (other > one and other & 0xFFFFFFFF == 1)
