"""Records as tables: annotations say the layout, a small interpreter encodes and decodes it.

The interpreter is short and slow. Records on the request path (`txns.py`, `server/`) have
hand-written code for the same bytes; the tests hold that code against this interpreter.
Layout: big-endian integers; ustring, buffer and vector begin with an int length, -1 meaning null.
Source: BinaryInputArchive, BinaryOutputArchive, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeAlias, dataclass_transform

from zkpy.protocol.errors import DecodeError

Int: TypeAlias = int
Long: TypeAlias = int
Bool: TypeAlias = bool
UString: TypeAlias = "str | None"
Buffer: TypeAlias = "bytes | None"
Vector: TypeAlias = list

Reader: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
Writer: TypeAlias = Callable[[list[bytes], Any], None]

_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")
NULL = b"\xff\xff\xff\xff"


def read_int(buf: bytes, offset: int) -> tuple[int, int]:
    """Read a signed 32-bit integer."""
    try:
        return _INT.unpack_from(buf, offset)[0], offset + 4
    except struct.error:
        raise DecodeError(f"int at {offset} of {len(buf)} bytes") from None


def read_long(buf: bytes, offset: int) -> tuple[int, int]:
    """Read a signed 64-bit integer."""
    try:
        return _LONG.unpack_from(buf, offset)[0], offset + 8
    except struct.error:
        raise DecodeError(f"long at {offset} of {len(buf)} bytes") from None


def read_bool(buf: bytes, offset: int) -> tuple[bool, int]:
    """Read one byte; anything but zero is true."""
    if offset >= len(buf):
        raise DecodeError(f"boolean at {offset} of {len(buf)} bytes")
    return buf[offset] != 0, offset + 1


def read_buffer(buf: bytes, offset: int) -> tuple[bytes | None, int]:
    """Read length and bytes; -1 is null, less is an error, more than there is is an error."""
    length, offset = read_int(buf, offset)
    end = offset + length
    if length < 0:
        if length == -1:
            return None, offset
        raise DecodeError(f"length {length} at {offset - 4}")
    if end > len(buf):
        raise DecodeError(f"length {length} at {offset - 4} of {len(buf)} bytes")
    return buf[offset:end], end


def read_ustring(buf: bytes, offset: int) -> tuple[str | None, int]:
    """Read a UTF-8 string; malformed bytes become U+FFFD, as in the reference."""
    data, offset = read_buffer(buf, offset)
    return (None if data is None else data.decode("utf-8", "replace")), offset


def write_int(out: list[bytes], value: int) -> None:
    out.append(_INT.pack(value))


def write_long(out: list[bytes], value: int) -> None:
    out.append(_LONG.pack(value))


def write_bool(out: list[bytes], value: bool) -> None:
    out.append(b"\x01" if value else b"\x00")


def write_buffer(out: list[bytes], value: bytes | None) -> None:
    if value is None:
        out.append(NULL)
    else:
        out.append(_INT.pack(len(value)))
        out.append(value)


def encode_text(text: str) -> bytes:
    """UTF-8; lone surrogates, which a Java peer can hold, pass through."""
    try:
        return text.encode()  # without an error handler: twenty times faster
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def write_ustring(out: list[bytes], value: str | None) -> None:
    write_buffer(out, None if value is None else encode_text(value))


PRIMITIVES: dict[str, tuple[Reader, Writer]] = {
    "Int": (read_int, write_int),
    "Long": (read_long, write_long),
    "Bool": (read_bool, write_bool),
    "UString": (read_ustring, write_ustring),
    "Buffer": (read_buffer, write_buffer),
}


def _vector_of(reader: Reader, writer: Writer) -> tuple[Reader, Writer]:
    def read(buf: bytes, offset: int) -> tuple[list[Any] | None, int]:
        count, offset = read_int(buf, offset)
        if count == -1:
            return None, offset
        items = []
        # A count below -1 is an empty vector; a hostile count ends at the end of the bytes.
        for _ in range(count):
            item, offset = reader(buf, offset)
            items.append(item)
        return items, offset

    def write(out: list[bytes], value: list[Any] | None) -> None:
        if value is None:
            out.append(NULL)
            return
        out.append(_INT.pack(len(value)))
        for item in value:
            writer(out, item)

    return read, write


def _codec_of(annotation: str) -> tuple[Reader, Writer]:
    annotation = annotation.replace(" | None", "")
    if annotation in PRIMITIVES:
        return PRIMITIVES[annotation]
    if annotation.startswith("Vector["):
        return _vector_of(*_codec_of(annotation[7:-1]))
    inner = RECORDS[annotation]
    return inner.read, inner.write


@dataclass_transform(eq_default=True)
class Record:
    """Base of all records: the annotations of a subclass are its table, in wire order."""

    __slots__ = ()
    fields: ClassVar[tuple[str, ...]] = ()
    _codecs: ClassVar[tuple[tuple[str, Reader, Writer], ...] | None] = None

    def __init_subclass__(cls) -> None:
        names = [
            name
            for name, annotation in vars(cls).get("__annotations__", {}).items()
            if not str(annotation).startswith("ClassVar")
        ]
        cls.fields = cls.fields + tuple(names)
        cls._codecs = None
        RECORDS[cls.__name__] = cls

    def __init__(self, *values: Any, **named: Any) -> None:
        for name, value in zip(self.fields, values, strict=False):
            setattr(self, name, value)
        for name in self.fields[len(values) :]:
            setattr(self, name, named.pop(name))
        if named or len(values) > len(self.fields):
            raise TypeError(f"{type(self).__name__} has the fields {self.fields}")

    @classmethod
    def codecs(cls) -> tuple[tuple[str, Reader, Writer], ...]:
        """The table, compiled on first use: (field name, reader, writer) in wire order."""
        if cls._codecs is None:
            annotations: dict[str, str] = {}
            for base in reversed(cls.__mro__):
                annotations.update(vars(base).get("__annotations__", {}))
            cls._codecs = tuple((name, *_codec_of(str(annotations[name]))) for name in cls.fields)
        return cls._codecs

    @classmethod
    def read(cls, buf: bytes, offset: int) -> tuple[Self, int]:
        """Interpret the table. Raises DecodeError."""
        record = cls.__new__(cls)
        for name, reader, _ in cls.codecs():
            value, offset = reader(buf, offset)
            setattr(record, name, value)
        return record, offset

    @staticmethod
    def write(out: list[bytes], record: Record) -> None:
        """Append the bytes of `record`, piece by piece."""
        for name, _, writer in record.codecs():
            writer(out, getattr(record, name))

    @classmethod
    def decode(cls, buf: bytes, offset: int = 0) -> tuple[Self, int]:
        """Return (record, offset behind it); bytes behind it are not looked at.

        Raises DecodeError.
        """
        return cls.read(buf, offset)

    def encode(self) -> bytes:
        """Return the bytes of this record."""
        out: list[bytes] = []
        Record.write(out, self)
        return b"".join(out)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(
            getattr(self, name) == getattr(other, name) for name in self.fields
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name, '?')!r}" for name in self.fields)
        return f"{type(self).__name__}({values})"


RECORDS: dict[str, type[Record]] = {}
