"""Length-prefixed frames for those who are not in a hurry: the client and tools.

The server splits frames inside `server/cnxn.py`, where it can stop in the middle of a chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from zkpy.protocol.errors import ProtocolError

_INT = struct.Struct(">i")


def frame(payload: bytes) -> bytes:
    """Prefix `payload` with its length."""
    return _INT.pack(len(payload)) + payload


class FrameSplitter:
    """Turns a byte stream into payloads; holds at most one unfinished frame."""

    __slots__ = ("limit", "pending")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pending = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each complete payload.

        Raises ProtocolError on a negative length or one beyond `limit` bytes.
        """
        buf = self.pending + data if self.pending else data
        offset = 0
        try:
            while len(buf) - offset >= 4:
                (length,) = _INT.unpack_from(buf, offset)
                if not 0 <= length <= self.limit:
                    raise ProtocolError(f"frame of {length} bytes, limit {self.limit}")
                end = offset + 4 + length
                if end > len(buf):
                    break
                start, offset = offset + 4, end
                yield buf[start:end]
        finally:
            self.pending = buf[offset:]
