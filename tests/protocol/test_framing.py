"""Frames out of a stream that is cut anywhere."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.framing import FrameSplitter, frame


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_gives_the_same_frames(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = FrameSplitter(20)
    found = []
    for start, end in pairwise(edges):
        found += list(splitter.feed(stream[start:end]))
    assert found == payloads
    assert splitter.pending == b""


@pytest.mark.parametrize("length", [-1, -(1 << 31), 21, 0x7FFFFFFF])
def test_bad_lengths(length: int) -> None:
    splitter = FrameSplitter(20)
    feed = splitter.feed(frame(b"good") + struct.pack(">i", length))
    assert next(feed) == b"good"
    with pytest.raises(ProtocolError):
        next(feed)


def test_the_limit_itself_is_allowed() -> None:
    assert list(FrameSplitter(20).feed(frame(bytes(20)))) == [bytes(20)]


def test_an_unfinished_consumer_loses_nothing() -> None:
    splitter = FrameSplitter(20)
    for payload in splitter.feed(frame(b"a") + frame(b"b")):
        assert payload == b"a"
        break
    assert list(splitter.feed(frame(b"c"))) == [b"b", b"c"]
