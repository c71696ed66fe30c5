"""Primitives, the interpreter of field tables, and what hostile bytes can do to them."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zkpy.protocol import jute
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Buffer, Int, Record, UString, Vector


class SamplePair(Record):
    name: UString
    count: Int


class Sample(Record):
    pairs: Vector[SamplePair] | None
    names: Vector[UString] | None
    data: Buffer


INTS = st.integers(-(1 << 31), (1 << 31) - 1)
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("name", "value", "encoded"),
    [
        ("Int", -2, "fffffffe"),
        ("Long", 258, "0000000000000102"),
        ("Bool", True, "01"),
        ("Bool", False, "00"),
        ("UString", None, "ffffffff"),
        ("UString", "", "00000000"),
        ("UString", "é", "00000002c3a9"),
        ("Buffer", None, "ffffffff"),
        ("Buffer", b"", "00000000"),
        ("Buffer", b"\x00\xff", "0000000200ff"),
    ],
)
def test_primitives(name: str, value: Any, encoded: str) -> None:
    reader, writer = jute.PRIMITIVES[name]
    out: list[bytes] = []
    writer(out, value)
    assert b"".join(out).hex() == encoded
    data = b"before" + bytes.fromhex(encoded) + b"behind"
    assert reader(data, 6) == (value, 6 + len(encoded) // 2)


@pytest.mark.parametrize("name", sorted(jute.PRIMITIVES))
@given(data=st.binary(max_size=40), offset=st.integers(0, 50))
def test_primitives_take_any_bytes(name: str, data: bytes, offset: int) -> None:
    reader, _ = jute.PRIMITIVES[name]
    try:
        _, end = reader(data, offset)
    except DecodeError:
        return
    assert offset <= end <= len(data)


@given(st.binary(min_size=1, max_size=1))
def test_any_byte_but_zero_is_true(data: bytes) -> None:
    assert jute.read_bool(data, 0) == (data != b"\0", 1)


@pytest.mark.parametrize("length", [-2, -(1 << 31), 5, 0x7FFFFFFF])
def test_impossible_lengths(length: int) -> None:
    data = struct.pack(">i", length) + b"1234"
    for reader in (jute.read_buffer, jute.read_ustring):
        with pytest.raises(DecodeError):
            reader(data, 0)


@given(st.binary(max_size=30))
@example(b"\xed\xa0\x80")
def test_malformed_utf8_is_replaced(data: bytes) -> None:
    text, end = jute.read_ustring(struct.pack(">i", len(data)) + data, 0)
    assert text == data.decode("utf-8", "replace")
    assert end == 4 + len(data)


@given(st.text(st.characters(), max_size=20))
@example("\ud800")
def test_any_text_can_be_encoded(text: str) -> None:
    assert jute.encode_text(text).decode("utf-8", "surrogatepass") == text


def test_a_count_below_minus_one_is_an_empty_vector() -> None:
    data = struct.pack(">iii", -2, -(1 << 31), -1)
    assert Sample.decode(data) == (Sample([], [], None), 12)
    assert Sample(None, [], b"").encode() == struct.pack(">iii", -1, 0, 0)


def test_bytes_behind_a_record_are_left_alone() -> None:
    data = SamplePair("a", 1).encode()
    assert SamplePair.decode(b"xy" + data + b"z", 2) == (SamplePair("a", 1), 2 + len(data))


@pytest.mark.parametrize("record", [Sample, SamplePair])
@given(data=st.binary(max_size=60))
def test_records_take_any_bytes(record: type[Record], data: bytes) -> None:
    try:
        value, end = record.decode(data)
    except DecodeError:
        return
    assert end <= len(data)
    assert record.decode(value.encode())[0] == value


@pytest.mark.parametrize("count", [1 << 20, 0x7FFFFFFF])
@pytest.mark.parametrize("rest", [b"", b"\xff" * 64, b"\0" * 4096])
def test_a_hostile_count_costs_no_memory(count: int, rest: bytes) -> None:
    data = struct.pack(">i", count) + rest
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            Sample.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000 + 100 * len(data)


def test_construction() -> None:
    assert SamplePair("a", count=2) == SamplePair(name="a", count=2)
    assert SamplePair("a", 2) != SamplePair("a", 3)
    assert SamplePair("a", 2) != Sample(None, None, None)
    assert repr(SamplePair("a", 2)) == "SamplePair(name='a', count=2)"
    anything: Any = SamplePair
    for values, named in [(("a", 1, 2), {}), (("a",), {"count": 1, "size": 2})]:
        with pytest.raises(TypeError):
            anything(*values, **named)
    with pytest.raises(KeyError):
        anything("a")
    with pytest.raises(TypeError):
        hash(SamplePair("a", 1))
