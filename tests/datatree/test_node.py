"""The kinds of ephemeralOwner, and the layout of a stat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.datatree.node import (
    CONTAINER,
    CONTAINER_OWNER,
    EMPTY_STAT,
    EPHEMERAL,
    NODE_STAT,
    PERSISTENT,
    TTL,
    owner_kind,
    ttl_of,
    ttl_owner,
    wrap32,
)

TTL_1S = -(1 << 56) + 1000  # 0xff000000000003e8


@pytest.mark.parametrize(
    ("owner", "plain", "extended", "emulated"),
    [
        (0, PERSISTENT, PERSISTENT, PERSISTENT),
        (CONTAINER_OWNER, CONTAINER, CONTAINER, CONTAINER),
        (TTL_1S, EPHEMERAL, TTL, TTL),
        (-1, EPHEMERAL, TTL, TTL),
        (0x0100_0013_4B50_0000, EPHEMERAL, EPHEMERAL, EPHEMERAL),
        (0x7FFF_FFFF_FFFF_FFFF, EPHEMERAL, EPHEMERAL, EPHEMERAL),
        # Server id 0xfe, the last one that extended types allow.
        (-(2 << 56), EPHEMERAL, EPHEMERAL, TTL),
        (CONTAINER_OWNER + 1000, EPHEMERAL, EPHEMERAL, TTL),
    ],
)
def test_kinds(owner: int, plain: int, extended: int, emulated: int) -> None:
    assert owner_kind(owner, False) == plain
    assert owner_kind(owner, False, True) == plain
    assert owner_kind(owner, True) == extended
    assert owner_kind(owner, True, True) == emulated


@given(st.integers(1, (1 << 40) - 1))
def test_ttl_owners(ttl_ms: int) -> None:
    owner = ttl_owner(ttl_ms)
    assert owner.to_bytes(8, "big", signed=True)[:3] == b"\xff\0\0"
    assert ttl_of(owner) == ttl_ms
    assert owner_kind(owner, True) == TTL
    assert ttl_of(CONTAINER_OWNER + ttl_ms, True) == ttl_ms


@given(st.integers(-(1 << 40), 1 << 40))
def test_wrapping(value: int) -> None:
    wrapped = wrap32(value)
    assert -(1 << 31) <= wrapped < 1 << 31
    assert (wrapped - value) % (1 << 32) == 0


def test_stat_size() -> None:
    assert NODE_STAT.size == len(EMPTY_STAT) == 60
