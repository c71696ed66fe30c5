"""A zxid is an epoch (high 32 bits) and a counter (low 32 bits), one signed 64-bit integer."""

from __future__ import annotations

from typing import Final

COUNTER_MAX: Final = 0xFFFFFFFF
# The last epoch, but for one that nobody enters: as long as it fits, so does any epoch plus one.
EPOCH_MAX: Final = 0x7FFFFFFE


def make_zxid(epoch: int, counter: int) -> int:
    """Join an epoch and a counter."""
    return (epoch << 32) | (counter & COUNTER_MAX)


def epoch_of(zxid: int) -> int:
    """The epoch (arithmetic shift, as in the reference)."""
    return zxid >> 32


def counter_of(zxid: int) -> int:
    """The counter within the epoch."""
    return zxid & COUNTER_MAX
