"""Compressed snapshots: gzip by zlib, and the Java snappy library's stream by hand.

Imported only where a file name or a setting asks for it. Snappy is decoded in full but written as
literals: legal, as long as the data itself, and good for servers that were told to write it.
Source: SnapStream, ZooKeeper 3.9; snappy's format_description.txt; SnappyOutputStream.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Compressor(Protocol):
        """Turns pieces of a stream into pieces of a compressed one, perhaps later."""

        def compress(self, data: bytes) -> bytes:
            """Take `data`; return what is ready."""

        def flush(self) -> bytes:
            """Return what is left; ends the stream."""


CHUNK_BYTES: Final = 1 << 20
GZIP_WINDOW: Final = 31  # zlib's way to say: gzip header, largest window
GZIP_MAGIC: Final = b"\x1f\x8b"
SNAPPY_MAGIC: Final = b"\x82SNAPPY\0"
SNAPPY_HEADER: Final = SNAPPY_MAGIC + b"\0\0\0\x01\0\0\0\x01"
# As Java writes them; a reader of ours takes larger ones up to a bound.
SNAPPY_BLOCK_BYTES: Final = 32 * 1024
SNAPPY_MAX_BLOCK_BYTES: Final = 1 << 24

_INT = struct.Struct(">i")


def gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress one gzip member, in pieces of bounded size. Raises DecodeError."""
    gzip = zlib.decompressobj(GZIP_WINDOW)
    try:
        for chunk in chunks:
            data = chunk
            while data and not gzip.eof:
                out = gzip.decompress(data, CHUNK_BYTES)
                data = gzip.unconsumed_tail
                if out:
                    yield out
        while not gzip.eof:
            # Nothing left to read, but output may still be held back by the size limit.
            out = gzip.decompress(gzip.unconsumed_tail, CHUNK_BYTES)
            if not out:
                raise DecodeError("gzip data ends early")
            yield out
    except zlib.error as error:
        raise DecodeError(f"gzip: {error}") from None


def gzip_compressor() -> Compressor:
    """A compressor for one gzip member."""
    return zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, GZIP_WINDOW)


class SnappyCompressor:
    """The stream format of the Java library, with blocks of a single literal each."""

    def __init__(self) -> None:
        self._held = b""
        self._started = False

    def compress(self, data: bytes) -> bytes:
        out = [] if self._started else [SNAPPY_HEADER]
        self._started = True
        held = self._held + data
        whole = len(held) - len(held) % SNAPPY_BLOCK_BYTES
        for start in range(0, whole, SNAPPY_BLOCK_BYTES):
            out.append(_literal_block(held[start : start + SNAPPY_BLOCK_BYTES]))
        self._held = held[whole:]
        return b"".join(out)

    def flush(self) -> bytes:
        head = self.compress(b"")
        return head + _literal_block(self._held) if self._held else head


def _literal_block(data: bytes) -> bytes:
    length = len(data)
    varint = bytearray()
    rest = length
    while rest > 0x7F:
        varint.append(rest & 0x7F | 0x80)
        rest >>= 7
    varint.append(rest)
    # Tag 61 << 2: a literal whose length - 1 is in the two bytes that follow.
    block = bytes(varint) + b"\xf4" + (length - 1).to_bytes(2, "little") + data
    return _INT.pack(len(block)) + block


def unsnappy(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress the Java library's stream, block by block. Raises DecodeError."""
    buf = b""
    needed = len(SNAPPY_HEADER)
    in_header = True
    for chunk in chunks:
        buf += chunk
        pos = 0
        while len(buf) - pos >= needed:
            if in_header:
                if buf[: len(SNAPPY_MAGIC)] != SNAPPY_MAGIC:
                    raise DecodeError("snappy stream without its magic")
                in_header = False
                pos, needed = needed, 4
            elif needed == 4:
                needed += _INT.unpack_from(buf, pos)[0]
                if not 4 < needed <= SNAPPY_MAX_BLOCK_BYTES:
                    raise DecodeError(f"snappy block of {needed - 4} bytes")
            else:
                yield decode_block(buf[pos + 4 : pos + needed])
                pos, needed = pos + needed, 4
        buf = buf[pos:]
    if buf or in_header:
        raise DecodeError("snappy stream ends in a block")


def decode_block(block: bytes) -> bytes:
    """Decode a raw snappy block. Raises DecodeError on anything that is not one."""
    try:
        size, pos = _varint(block)
        if size > SNAPPY_MAX_BLOCK_BYTES:
            raise DecodeError(f"snappy block of {size} bytes decoded")
        out = bytearray()
        while pos < len(block):
            pos = _literal(block, pos, out) if block[pos] & 3 == 0 else _copy(block, pos, out)
            if len(out) > size:
                raise DecodeError("snappy block is longer than it says")
    except IndexError:
        raise DecodeError("snappy block ends in an element") from None
    if len(out) != size:
        raise DecodeError(f"snappy block of {size} bytes has {len(out)}")
    return bytes(out)


def _varint(block: bytes) -> tuple[int, int]:
    value = 0
    for pos in range(5):
        value |= (block[pos] & 0x7F) << 7 * pos
        if block[pos] < 0x80:
            return value, pos + 1
    raise DecodeError("snappy block without a length")


def _literal(block: bytes, pos: int, out: bytearray) -> int:
    length = block[pos] >> 2
    pos += 1
    if length >= 60:
        width = length - 59
        length = int.from_bytes(block[pos : pos + width], "little")
        pos += width
    end = pos + length + 1
    if end > len(block):
        raise DecodeError("snappy literal ends early")
    out += block[pos:end]
    return end


def _copy(block: bytes, pos: int, out: bytearray) -> int:
    tag = block[pos]
    kind = tag & 3
    if kind == 1:
        length = (tag >> 2 & 7) + 4
        offset = tag >> 5 << 8 | block[pos + 1]
        pos += 2
    elif kind == 2:
        length = (tag >> 2) + 1
        offset = block[pos + 1] | block[pos + 2] << 8
        pos += 3
    else:
        length = (tag >> 2) + 1
        offset = int.from_bytes(block[pos + 1 : pos + 5], "little")
        pos += 5
        if pos > len(block):
            raise DecodeError("snappy copy ends early")
    start = len(out) - offset
    if offset == 0 or start < 0:
        raise DecodeError(f"snappy copy from {offset} bytes back at {len(out)}")
    # A copy may reach into what it writes: that repeats the last `offset` bytes.
    piece = out[start : start + length]
    while len(piece) < length:
        piece += piece[: length - len(piece)]
    out += piece
    return pos


COMPRESSORS: Final[dict[str, Callable[[], Compressor]]] = {
    ".gz": gzip_compressor,
    ".snappy": SnappyCompressor,
}
DECOMPRESSORS: Final[dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    ".gz": gunzip,
    ".snappy": unsnappy,
}
