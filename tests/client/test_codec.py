"""The hand-written codecs against the records' tables, and against any bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.client import codec
from zkpy.client.ops import Check, Create, Delete, GetData, SetData, decode_multi, encode_multi
from zkpy.protocol import records as r
from zkpy.protocol.acl import ACL
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import CreateMode

HEADER = bytes(16)

texts = st.text(max_size=30)
paths = st.text("abc/é", max_size=20).map(lambda text: "/" + text)
datas = st.none() | st.binary(max_size=40)
ints = st.integers(-(2**31), 2**31 - 1)
longs = st.integers(-(2**63), 2**63 - 1)
acls = st.lists(st.builds(ACL, ints, texts, texts), max_size=3).map(tuple)
stats = st.builds(r.Stat, longs, longs, longs, longs, ints, ints, ints, longs, ints, ints, longs)


def values(stat: r.Stat) -> tuple[int, ...]:
    return tuple(getattr(stat, name) for name in codec.Stat._fields)


@given(texts, st.booleans())
def test_path_watch(path: str, watch: bool) -> None:
    assert codec.path_watch(path, watch) == r.PathWatchRequest(path, watch).encode()


@given(texts, datas, acls, ints, longs)
def test_create(path: str, data: bytes | None, acl: Any, flags: int, ttl: int) -> None:
    expected = r.CreateRequest(path, data, acl, flags).encode()
    assert codec.create(path, data, acl, flags) == expected
    expected = r.CreateTTLRequest(path, data, acl, flags, ttl).encode()
    assert codec.create_ttl(path, data, acl, flags, ttl) == expected


@given(texts, datas, ints)
def test_set_and_delete(path: str, data: bytes | None, version: int) -> None:
    assert codec.set_data(path, data, version) == r.SetDataRequest(path, data, version).encode()
    assert codec.delete(path, version) == r.DeleteRequest(path, version).encode()
    assert codec.text(path) == r.PathRequest(path).encode()
    assert codec.text(None) == r.PathRequest(None).encode()


@given(stats, datas, texts, st.lists(texts, max_size=5), acls)
def test_replies(
    stat: r.Stat, data: bytes | None, path: str, names: list[str], acl: tuple[ACL, ...]
) -> None:
    def decoded(decode: codec.Decoder, record: Record) -> Any:
        return decode(HEADER + record.encode())

    same = codec.Stat(*values(stat))
    vector: list[str | None] = [*names]
    assert decoded(codec.stat, r.StatResponse(stat)) == same
    assert decoded(codec.data, r.GetDataResponse(data, stat)) == (data, same)
    assert decoded(codec.path, r.CreateResponse(path)) == path
    assert decoded(codec.path_and_stat, r.Create2Response(path, stat)) == (path, same)
    assert decoded(codec.names, r.ChildrenResponse(vector)) == names
    assert decoded(codec.names_and_stat, r.GetChildren2Response(vector, stat)) == (names, same)
    assert decoded(codec.acl_and_stat, r.GetACLResponse(acl, stat)) == (acl, same)
    assert decoded(codec.number, r.GetAllChildrenNumberResponse(5)) == 5
    infos = r.WhoAmIResponse([r.ClientInfo(name, path) for name in names])
    assert decoded(codec.identities, infos) == [(name, path) for name in names]


def test_null_vectors_and_texts_read_as_empty() -> None:
    null = HEADER + b"\xff\xff\xff\xff"
    assert codec.names(null) == []
    assert codec.path(null) == ""
    assert codec.identities(null) == []


DECODERS: list[Callable[[bytes], Any]] = [
    codec.stat, codec.data, codec.path, codec.path_and_stat, codec.names, codec.names_and_stat,
    codec.acl_and_stat, codec.number, codec.identities,
    lambda payload: decode_multi(payload, [Create("/a"), GetData("/b")], ""),
]  # fmt: skip


@given(st.binary(max_size=100), st.sampled_from(DECODERS))
def test_any_bytes_give_a_value_or_an_error_of_the_wire(
    junk: bytes, decode: Callable[[bytes], Any]
) -> None:
    try:
        decode(HEADER + junk)
    except (DecodeError, struct.error):
        pass


def result(type_: int, body: bytes = b"") -> bytes:
    return r.MultiHeader(type_, False, 0).encode() + body


END = r.MultiHeader(-1, True, -1).encode()


@pytest.mark.parametrize(
    "results",
    [
        END,
        result(2) + END,
        result(2) * 3 + END,
        result(2) * 2,
        result(99) * 2 + END,
        result(1, struct.pack(">i", 1 << 20)) + END,
    ],
)
def test_a_multi_reply_of_another_length_or_type(results: bytes) -> None:
    with pytest.raises((DecodeError, struct.error)):
        decode_multi(HEADER + results, [Delete("/a"), Delete("/b")], "")


@given(paths, datas, acls, ints)
def test_multi_requests(path: str, data: bytes | None, acl: Any, version: int) -> None:
    path = "/a"
    ops = [
        Create(path, data, acl, CreateMode.EPHEMERAL),
        SetData(path, data, version),
        Delete(path, version),
        Check(path, version),
    ]
    expected = b""
    for type_, record in (
        (1, r.CreateRequest("/c/a", data, acl, 1)),
        (5, r.SetDataRequest("/c/a", data, version)),
        (2, r.DeleteRequest("/c/a", version)),
        (13, r.CheckVersionRequest("/c/a", version)),
    ):
        expected += r.MultiHeader(type_, False, -1).encode() + record.encode()
    assert encode_multi(ops, "/c") == expected + END
