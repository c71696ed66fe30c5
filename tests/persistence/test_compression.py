"""Compressed streams: snappy against its format and captured files; bounds to hostile input."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.persistence.data_dir import golden

from zkpy.persistence.compression import (
    CHUNK_BYTES,
    COMPRESSORS,
    DECOMPRESSORS,
    SNAPPY_HEADER,
    decode_block,
    gunzip,
    unsnappy,
)
from zkpy.protocol.errors import DecodeError


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("suffix", [".gz", ".snappy"])
@given(st.lists(st.binary(max_size=300) | st.just(bytes(50_000))), st.integers(1, 5000))
def test_round_trip_in_any_pieces(suffix: str, parts: list[bytes], size: int) -> None:
    compressor = COMPRESSORS[suffix]()
    packed = b"".join(map(compressor.compress, parts)) + compressor.flush()
    assert b"".join(DECOMPRESSORS[suffix](pieces(packed, size))) == b"".join(parts)
    if suffix == ".gz":
        assert gzip.decompress(packed) == b"".join(parts)


@pytest.mark.parametrize("suffix", [".gz", ".snappy"])
def test_the_captured_files_cut_anywhere(suffix: str) -> None:
    packed = golden(f"standalone-395-{suffix[1:]}/version-2/snapshot.1e{suffix}")
    whole = b"".join(DECOMPRESSORS[suffix](iter([packed])))
    assert whole[:4] == b"ZKSN"
    for size in range(len(packed)):
        try:
            out = b"".join(DECOMPRESSORS[suffix](iter([packed[:size]])))
        except DecodeError:
            continue
        # A snappy stream may end behind a block: only the seals tell that more is missing.
        assert suffix == ".snappy"
        assert whole.startswith(out)


@pytest.mark.parametrize("suffix", [".gz", ".snappy"])
@given(st.integers(0, 300), st.integers(1, 255))
def test_the_captured_files_with_a_flip(suffix: str, offset: int, flip: int) -> None:
    packed = bytearray(golden(f"standalone-395-{suffix[1:]}/version-2/snapshot.1e{suffix}"))
    packed[offset] ^= flip
    try:
        b"".join(DECOMPRESSORS[suffix](iter([bytes(packed)])))
    except DecodeError:
        pass


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("00", b""),
        ("05" "10" + b"hello".hex(), b"hello"),
        ("03" "f002" + b"abc".hex(), b"abc"),
        ("03" "f40200" + b"abc".hex(), b"abc"),
        ("03" "fc02000000" + b"abc".hex(), b"abc"),
        # Copies: one byte of offset, two, four; one that repeats what it writes.
        ("08" "0c" + b"abcd".hex() + "0104", b"abcdabcd"),
        ("06" "0c" + b"abcd".hex() + "060400", b"abcdab"),
        ("06" "0c" + b"abcd".hex() + "0704000000", b"abcdab"),
        ("0a" "04" + b"ab".hex() + "1102", b"ab" * 5),
        ("0a" "00" + b"a".hex() + "220100", b"a" * 10),
    ],
)  # fmt: skip
def test_blocks(block: str, expected: bytes) -> None:
    assert decode_block(bytes.fromhex(block)) == expected


@pytest.mark.parametrize(
    "block",
    [
        "",
        "ffffffffff01",  # length without end
        "ffffff7f" "00",  # 256 MiB announced
        "05" "10" + b"hell".hex(),
        "04" "10" + b"hello".hex(),
        "06" "10" + b"hello".hex(),
        "08" "0c" + b"abcd".hex() + "0105",  # before the beginning
        "08" "0c" + b"abcd".hex() + "0100",  # from nowhere
        "08" "0c" + b"abcd".hex() + "01",
        "08" "0c" + b"abcd".hex() + "0604",
        "08" "0c" + b"abcd".hex() + "07040000",
    ],
)  # fmt: skip
def test_bad_blocks(block: str) -> None:
    with pytest.raises(DecodeError):
        decode_block(bytes.fromhex(block))


@given(st.binary(max_size=60))
def test_any_block_is_decoded_or_refused(block: bytes) -> None:
    try:
        assert len(decode_block(block)) < 1 << 24
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        SNAPPY_HEADER[:10],
        b"x" * 16,
        SNAPPY_HEADER + b"\0\0",
        SNAPPY_HEADER + b"\0\0\0\0",
        SNAPPY_HEADER + b"\x7f\xff\xff\xff",
        SNAPPY_HEADER + b"\xff\xff\xff\xff",
        SNAPPY_HEADER + b"\0\0\0\x05ab",
    ],
)
def test_bad_streams(stream: bytes) -> None:
    with pytest.raises(DecodeError):
        list(unsnappy(iter([stream])))


def test_a_gzip_bomb_comes_in_bounded_pieces() -> None:
    packed = gzip.compress(bytes(40 << 20))
    assert len(packed) < 50_000
    sizes = [len(piece) for piece in gunzip(iter([packed]))]
    assert sum(sizes) == 40 << 20
    assert max(sizes) <= CHUNK_BYTES


def test_gzip_without_its_end() -> None:
    packed = gzip.compress(b"hello")
    for size in range(len(packed)):
        with pytest.raises(DecodeError):
            list(gunzip(iter([packed[:size]])))
    damaged = packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:]
    with pytest.raises(DecodeError, match="gzip"):
        list(gunzip(iter([damaged])))
    assert zlib.decompress(packed, 31) == b"hello"
