"""Client records: round trips, hostile bytes, and captured frames."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.values import records_of

from zkpy.protocol import records as r
from zkpy.protocol.acl import ACL, encode_acls, read_acls, write_acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Record
from zkpy.protocol.operations import CONNECTION, OPERATIONS, READ, WRITE
from zkpy.protocol.zoodefs import OpCode

CLASSES = [
    cls
    for cls in vars(r).values()
    if isinstance(cls, type) and issubclass(cls, Record) and cls.__module__ == r.__name__
]
ids = [cls.__name__ for cls in CLASSES]


@pytest.mark.parametrize("cls", CLASSES, ids=ids)
@given(data=st.data(), before=st.binary(max_size=3), behind=st.binary(max_size=3))
def test_round_trip(cls: type[Record], data: st.DataObject, before: bytes, behind: bytes) -> None:
    record = data.draw(records_of(cls))
    encoded = record.encode()
    decoded, end = cls.decode(before + encoded + behind, len(before))
    assert decoded == record
    assert end == len(before) + len(encoded)


@pytest.mark.parametrize("cls", CLASSES, ids=ids)
@given(data=st.data())
def test_each_truncation_is_noticed(cls: type[Record], data: st.DataObject) -> None:
    encoded = data.draw(records_of(cls)).encode()
    for size in range(len(encoded)):
        with pytest.raises(DecodeError):
            cls.decode(encoded[:size])


@pytest.mark.parametrize("cls", CLASSES, ids=ids)
@given(data=st.binary(max_size=120))
def test_any_bytes(cls: type[Record], data: bytes) -> None:
    try:
        record, end = cls.decode(data)
    except DecodeError:
        return
    assert end <= len(data)
    assert cls.decode(record.encode())[0] == record


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (r.RequestHeader(1, 2), 8),
        (r.ReplyHeader(1, 2, 3), 16),
        (r.MultiHeader(1, True, -1), 9),
        (r.Stat(*range(11)), 68),
        (r.ConnectRequest(0, 0, 0, 0, bytes(16)), 44),
        (r.ConnectResponse(0, 0, 0, bytes(16)), 36),
        (r.WatcherEvent(1, 3, "/a"), 14),
        (r.ClientInfo("ip", ""), 10),
    ],
)
def test_sizes(record: Record, size: int) -> None:
    assert len(record.encode()) == size


def test_captured_handshake() -> None:
    request = bytes.fromhex(
        "00000000 0000000000000000 00002710 0000000000000000 00000010"
        "00000000000000000000000000000000 01"
    )
    assert r.ConnectRequest.decode(request) == (r.ConnectRequest(0, 0, 10000, 0, bytes(16)), 44)
    response = bytes.fromhex(
        "00000000 00002710 010000134b500000 00000010 02f2298e6708b7d9b0e96fdd88e87c78 00"
    )
    assert r.ConnectResponse.decode(response) == (
        r.ConnectResponse(0, 10000, 0x010000134B500000, response[20:36]),
        36,
    )


def test_captured_event() -> None:
    event = bytes.fromhex("00000003 00000003 00000002 2f77")
    assert r.WatcherEvent.decode(event)[0] == r.WatcherEvent(3, 3, "/w")


def test_the_packed_stat_is_the_record() -> None:
    stat = r.Stat(*range(11))
    assert r.STAT.pack(*range(11)) == stat.encode()
    assert r.REPLY_HEADER.pack(1, 2, 3) == r.ReplyHeader(1, 2, 3).encode()


# ---------------------------------------------------------------------- ACL vectors


@given(records_of(r.SetACLRequest))
def test_acls_from_the_memo_are_the_same_bytes(request: r.SetACLRequest) -> None:
    out: list[bytes] = []
    write_acls(out, request.acl)
    assert encode_acls(request.acl) == b"".join(out)
    assert encode_acls(request.acl) == b"".join(out), "the second time"


def test_acl_entries_that_look_alike_are_kept_apart() -> None:
    # 1 == True and "" != None: equal keys in a memo must mean equal bytes.
    assert encode_acls((ACL(1, "a", ""),)) != encode_acls((ACL(1, "a", None),))
    assert encode_acls((ACL(1, "", "a"),)) != encode_acls((ACL(1, None, "a"),))
    assert encode_acls(()) != encode_acls(None)


@given(st.binary(max_size=80))
def test_acls_of_any_bytes(data: bytes) -> None:
    try:
        acls, end = read_acls(data, 0)
    except DecodeError:
        return
    assert end <= len(data)
    assert read_acls(encode_acls(acls), 0)[0] == acls


@pytest.mark.parametrize("count", [3, 1 << 20, 0x7FFFFFFF])
def test_a_hostile_acl_count_is_refused_at_once(count: int) -> None:
    with pytest.raises(DecodeError, match="entries"):
        read_acls(struct.pack(">i", count) + bytes(35), 0)


@pytest.mark.parametrize("count", [-2, -(1 << 31)])
def test_a_negative_acl_count(count: int) -> None:
    assert read_acls(struct.pack(">i", count), 0) == ((), 4)
    assert read_acls(b"\xff\xff\xff\xff", 0) == (None, 4)


# ---------------------------------------------------------------------- the table of operations


def test_every_opcode_of_clients_has_an_operation() -> None:
    codes = {value for name, value in vars(OpCode).items() if name.isupper()}
    # These occur only inside the server, inside a multi, or have a codec of their own.
    internal = {
        OpCode.NOTIFICATION, OpCode.CHECK, OpCode.MULTI, OpCode.MULTI_READ,
        OpCode.DELETE_CONTAINER, OpCode.CREATE_SESSION, OpCode.ERROR,
    }  # fmt: skip
    assert OPERATIONS.keys() == codes - internal
    for request, reply, kind in OPERATIONS.values():
        assert request is None or issubclass(request, Record)
        assert reply is None or issubclass(reply, Record)
        assert kind in (READ, WRITE, CONNECTION)
