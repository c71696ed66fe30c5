"""Session passwords against captured ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.session.password import password_of


@pytest.mark.parametrize(
    ("session_id", "password"),
    [
        (0x0000000000000001, "054cc74a37327db215e702e20c73f005"),
        (0x0100000000000000, "f22acd4a97e69d6d20a49bb638eadb38"),
        (0x010000134B500000, "02f2298e6708b7d9b0e96fdd88e87c78"),
        (0x010000134B500001, "1513248e0754961ea52cd7085c719145"),
        (0x7FFFFFFFFFFFFFFF, "20f62cb5648dc2d771471c8a2486a9ee"),
        (-1, "20f62cb5648dc2d771471c8a2486a9ee"),
    ],
)
def test_captured(session_id: int, password: str) -> None:
    assert password_of(session_id).hex() == password


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_sixteen_bytes_of_the_low_48_bits(session_id: int) -> None:
    assert len(password_of(session_id)) == 16
    assert password_of(session_id) == password_of(session_id & ((1 << 48) - 1))
