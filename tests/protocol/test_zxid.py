"""Zxids: both halves, and their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.zxid import COUNTER_MAX, counter_of, epoch_of, make_zxid

EPOCHS = st.integers(-(1 << 31), (1 << 31) - 1)
COUNTERS = st.integers(0, COUNTER_MAX)


@given(EPOCHS, COUNTERS)
def test_halves(epoch: int, counter: int) -> None:
    zxid = make_zxid(epoch, counter)
    assert (epoch_of(zxid), counter_of(zxid)) == (epoch, counter)
    assert -(1 << 63) <= zxid < 1 << 63


@given(st.tuples(EPOCHS, COUNTERS), st.tuples(EPOCHS, COUNTERS))
def test_order_is_epoch_then_counter(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (make_zxid(*one) < make_zxid(*other)) is (one < other)
