"""Whether a txn of another server can be decoded, found out without decoding it.

Apart from txns.py because it is on the way of each proposal, and so compiled where zkpy is; records
are not.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import HEADER_SIZE, OPEN_ACL, OPEN_ACL_SIZE, decode_record
from zkpy.protocol.zoodefs import OpCode

_INT: Final = struct.Struct(">i")
_INT2: Final = struct.Struct(">ii")
_TYPE_AT: Final = struct.Struct(">28xi")
_SET_DATA: Final = int(OpCode.SET_DATA)
_CREATES: Final = (int(OpCode.CREATE), int(OpCode.CREATE2))
_MULTI: Final = int(OpCode.MULTI)


def check_txn(buf: bytes) -> None:
    """Raise DecodeError if `buf` cannot be decoded and applied; cheaper than to decode it.

    For whoever logs what another server has made: what is in the log must be readable.
    """
    try:
        (type,) = _TYPE_AT.unpack_from(buf)
        if type == _MULTI:
            _check_multi(buf)
        elif not _is_plain(type, buf, HEADER_SIZE, len(buf)):
            decode_record(type, buf, HEADER_SIZE)
    except struct.error:
        raise DecodeError(f"txn of {len(buf)} bytes ends too early") from None


def _is_plain(type: int, buf: bytes, offset: int, end: int) -> bool:
    """Whether a setData, or a create with the open ACL, is all there. Raises struct.error."""
    if type != _SET_DATA and type not in _CREATES:
        return False
    (length,) = _INT.unpack_from(buf, offset)
    data_at = offset + 4 + length
    if length < 0 or data_at > end:
        return False
    (size,) = _INT.unpack_from(buf, data_at)
    stop = data_at + 4 + size
    if size < 0:
        return False
    if type == _SET_DATA:
        return bool(stop + 4 <= end)
    return stop + OPEN_ACL_SIZE + 5 <= end and buf.startswith(OPEN_ACL, stop)


def _check_multi(buf: bytes) -> None:
    (count,) = _INT.unpack_from(buf, HEADER_SIZE)
    offset = HEADER_SIZE + 4
    odd: list[tuple[int, bytes]] = []
    failed = False
    for _ in range(count):
        type, size = _INT2.unpack_from(buf, offset)
        offset += 8
        if type == _SET_DATA and 12 <= size <= len(buf) - offset:
            # What most parts are; whatever is odd about one is for the careful code below.
            end = offset + size
            (length,) = _INT.unpack_from(buf, offset)
            data_at = offset + 4 + length
            if length >= 0 and data_at + 8 <= end:
                (data_length,) = _INT.unpack_from(buf, data_at)
                if 0 <= data_length <= end - data_at - 8:
                    offset = end
                    continue
        end = offset + max(size, 0)
        if end > len(buf) or size < -1:
            raise DecodeError(f"length {size} at {offset - 4} of {len(buf)} bytes")
        if type == OpCode.ERROR:
            failed = True
        elif not _is_plain(type, buf, offset, end):
            odd.append((type, buf[offset:end]))
        offset = end
    # Of one that failed the parts are not applied, and may be anything.
    if not failed:
        for type, data in odd:
            if type == _MULTI:
                raise DecodeError("a multi in a multi")
            decode_record(type, data)
