"""Hostile bytes: they cost their sender the connection at most, and nobody else anything."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.machine import Client, Machine
from tests.server.test_prep import assert_same, replay
from tests.support import wire

SETTINGS: dict[str, Any] = {"extended_types_enabled": True, "jute_max_buffer_bytes": 4096}

texts = st.one_of(
    st.sampled_from(
        [
            b"/", b"/a", b"/a/b", b"", b"a", b"//", b"/a/", b"/a/../b", b"/\x00", b"/\xff\xfe",
            b"/\xed\xa0\x80", b"/\xf0\x9f\x98\x80", b"/\xc0\xaf",
            b"/zookeeper", b"/zookeeper/quota", b"/zookeeper/config",
            b"/zookeeper/quota/a/zookeeper_limits", b"/zookeeper/quota/zookeeper_stats",
            b"world", b"anyone", b"digest", b"ip", b"auth", b"super", b"u:p", b"10.0.0.0/99",
        ]
    ),
    st.binary(max_size=12),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
)  # fmt: skip
lengths = st.one_of(
    st.sampled_from([-1, -2, -0x80000000, 0, 1, 4, 0x7FFFFFFF, 0x7FFFFFFB, 0x1000000]),
    st.integers(-0x80000000, 0x7FFFFFFF),
)
int32s = st.one_of(st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 6, 7, 31]), lengths)

strings = texts.map(lambda text: struct.pack(">i", len(text)) + text)
pieces = st.one_of(
    strings,
    strings,
    st.binary(max_size=16),
    int32s.map(wire.int32),
    st.sampled_from([b"\0", b"\1", b"\xff\xff\xff\xff", wire.acl_list(wire.OPEN_ACL)]),
    st.integers(-(1 << 63), (1 << 63) - 1).map(wire.int64),
    # A vector that promises more than it holds.
    st.builds(lambda count, parts: wire.int32(count) + b"".join(parts), lengths, st.lists(strings)),
    st.sampled_from([1, 2, 5, 8, 13, 14, 15, 19, 21, -1, 99]).map(wire.multi_header),
    st.just(wire.MULTI_END),
)
junk_bodies = st.lists(pieces, max_size=8).map(b"".join)

GOOD: list[tuple[int, bytes]] = [
    (wire.CREATE, wire.create("/a", b"x")),
    (wire.CREATE, wire.create("/a/s", b"x", wire.EPHEMERAL_SEQUENTIAL)),
    (wire.CREATE2, wire.create("/b", None)),
    (wire.CREATE_TTL, wire.create_ttl("/t")),
    (wire.CREATE_CONTAINER, wire.create("/c", b"", wire.CONTAINER)),
    (wire.DELETE, wire.path_version("/a")),
    (wire.SET_DATA, wire.set_data("/a", b"y" * 100)),
    (wire.SET_ACL, wire.set_acl("/a", wire.OPEN_ACL)),
    (wire.GET_DATA, wire.path_watch("/a", True)),
    (wire.EXISTS, wire.path_watch("/b", True)),
    (wire.GET_CHILDREN2, wire.path_watch("/", True)),
    (wire.GET_ACL, wire.string("/a")),
    (wire.SYNC, wire.string("/")),
    (wire.MULTI, wire.multi([
        (wire.CREATE, wire.create("/m")),
        (wire.SET_DATA, wire.set_data("/m", b"1")),
        (wire.DELETE, wire.path_version("/m")),
    ])),
    (wire.MULTI_READ, wire.multi([(wire.GET_DATA, wire.path_watch("/a"))])),
    (wire.AUTH, wire.auth("digest", b"u:p")),
    (wire.SET_WATCHES2, wire.set_watches(0, ["/a"], ["/b"], ["/"], ["/a"], ["/b"])),
    (wire.ADD_WATCH, wire.path_type("/a", 1)),
    (wire.REMOVE_WATCHES, wire.path_type("/a", 3)),
    (wire.GET_EPHEMERALS, wire.string("/")),
    (wire.RECONFIG, wire.reconfig("a", "b", None)),
    (wire.SASL, wire.buffer(b"token")),
    (wire.PING, b""),
]  # fmt: skip
OPS = sorted({op for op, _ in GOOD} | set(range(-12, 30)) | {99, 100, 108, 0x7FFFFFFF})


def mangle(body: bytes, cut: int, at: int, value: int) -> bytes:
    """A request that was right once: cut off, or with four bytes changed."""
    body = body[: max(0, len(body) - cut)]
    at = min(at, len(body))
    return body[:at] + struct.pack(">i", value) + body[at + 4 :] if at < len(body) else body


requests = st.one_of(
    st.sampled_from(GOOD),
    st.tuples(st.sampled_from(OPS), junk_bodies),
    st.builds(
        lambda good, cut, at, value: (good[0], mangle(good[1], cut, at, value)),
        st.sampled_from(GOOD),
        st.integers(0, 12),
        st.integers(0, 80),
        lengths,
    ),
)


def check(machine: Machine, bystander: Client) -> None:
    """The server is as before for everybody else, and its log can be replayed."""
    bystander.replies()
    assert not bystander.closed
    assert bystander.code(wire.EXISTS, wire.path_watch("/")) == 0
    machine.flush()
    assert_same(machine.tree, replay(machine.log))


@given(st.lists(st.tuples(requests, st.integers(1, 200)), max_size=30))
def test_requests(sent: list[tuple[tuple[int, bytes], int]]) -> None:
    """Requests, good and bad, in chunks of any size: each is answered once, in its turn."""
    machine = Machine(**SETTINGS)
    bystander, client = machine.connect(), machine.connect()
    expected: list[int] = []
    for number, ((op, body), chunk) in enumerate(sent):
        data = client.frame(op, body, number)
        if client.cnxn.closed or client.cnxn.finishing:
            break
        for start in range(0, len(data), chunk):
            client.feed(data[start : start + chunk])
        expected.append(-2 if op == wire.PING else number)
        if chunk % 5 == 0:
            machine.flush()
        assert len(client.cnxn.rest) <= 4096 + 4
    machine.flush()
    got = [reply.xid for reply in client.replies() if not reply.is_event]
    if client.closed and got != expected:
        expected.pop()  # what closes a connection need not be answered
    assert got == expected
    check(machine, bystander)


@pytest.mark.parametrize(("op", "body"), GOOD)
def test_a_request_cut_off_anywhere(op: int, body: bytes) -> None:
    machine = Machine(**SETTINGS)
    bystander, client = machine.connect(), machine.connect()
    for length in range(len(body)):
        if client.cnxn.closed or client.cnxn.finishing:
            client = machine.connect()
        client.feed(client.frame(op, body[:length], length))
        machine.flush()
        replies = [reply.xid for reply in client.replies() if not reply.is_event]
        assert replies == ([-2] if op == wire.PING else [length]) or client.closed
    check(machine, bystander)


@given(st.lists(st.binary(max_size=60), max_size=10), st.booleans())
def test_any_bytes(chunks: list[bytes], established: bool) -> None:
    machine = Machine(**SETTINGS)
    bystander = machine.connect()
    client = machine.connect() if established else machine.plain()
    for chunk in chunks:
        client.feed(chunk)
        machine.settle()
        assert len(client.cnxn.rest) <= 4096 + 60
    check(machine, bystander)


@given(lengths, st.binary(max_size=30), st.booleans())
def test_any_length(length: int, behind: bytes, established: bool) -> None:
    machine = Machine(**SETTINGS)
    bystander = machine.connect()
    client = machine.connect() if established else machine.plain()
    client.feed(wire.int32(length) + behind)
    machine.flush()
    if not (8 if established else 0) <= length <= 4096:
        assert client.closed
        assert not client.inbox
    check(machine, bystander)


@given(
    st.builds(
        lambda *fields: b"".join(fields),
        int32s.map(wire.int32),
        st.sampled_from([0, 0, -1, 1 << 40]).map(wire.int64),
        int32s.map(wire.int32),
        st.one_of(st.just(0), st.integers(-(1 << 63), (1 << 63) - 1)).map(wire.int64),
        st.one_of(st.binary(max_size=20).map(wire.buffer), lengths.map(wire.int32)),
        st.binary(max_size=3),
    ),
    st.integers(0, 12),
    st.integers(1, 50),
)
def test_any_connect_request(payload: bytes, cut: int, chunk: int) -> None:
    machine = Machine(**SETTINGS)
    bystander = machine.connect()
    client = machine.plain()
    data = wire.buffer(payload[: max(0, len(payload) - cut)])
    for start in range(0, len(data), chunk):
        client.feed(data[start : start + chunk])
    machine.flush()
    frames = client.frames()
    assert len(frames) <= 1
    if frames:
        assert len(frames[0]) in (36, 37)
    else:
        assert client.closed
    check(machine, bystander)


@given(st.integers(1, 14), st.integers(0, 0x7FFFFFFF), st.binary(max_size=40))
def test_vectors_that_promise_too_much(number: int, count: int, behind: bytes) -> None:
    """Memory goes by what has arrived, never by a count that somebody claims."""
    machine = Machine()
    client = machine.connect()
    acl = wire.int32(count) + behind
    ops = [
        (wire.CREATE, wire.string("/a") + wire.buffer(b"") + acl),
        (wire.SET_ACL, wire.string("/") + acl),
        (wire.SET_WATCHES, wire.int64(0) + acl),
        (wire.SET_WATCHES2, wire.set_watches(0, [], []) + acl),
        (wire.MULTI, wire.multi_header(wire.CREATE) + wire.string("/a") + wire.buffer(b"") + acl),
    ]
    op, body = ops[number % len(ops)]
    client.send(op, body)
    machine.flush()
    replies = client.replies()
    assert len(replies) == 1


@pytest.mark.parametrize("op", [wire.MULTI, wire.MULTI_READ])
def test_a_frame_full_of_parts(op: int) -> None:
    """As many parts as fit into a frame: answered or refused, in a moment."""
    machine = Machine()
    client = machine.connect()
    client.create("/a")
    part = (
        (wire.CHECK, wire.path_version("/a"))
        if op == wire.MULTI
        else (wire.GET_DATA, wire.path_watch("/a"))
    )
    size = len(wire.multi_header(0) + part[1])
    count = (machine.config.jute_max_buffer_bytes - 8 - len(wire.MULTI_END)) // size
    assert len(client.value(op, wire.multi([part] * count))) == count


def test_a_deep_path_is_no_recursion(machine: Machine, client: Client) -> None:
    path = ""
    for _ in range(1500):
        path += "/d"
        client.send(wire.CREATE, wire.create(path))
        if path.count("/") % 100 == 0:
            machine.flush()
    machine.flush()
    assert {reply.err for reply in client.replies()} == {0}
    other = machine.connect()
    other.value(wire.ADD_WATCH, wire.path_type("/d", 1))
    assert client.value(wire.GET_ALL_CHILDREN_NUMBER, wire.string("/d")) == 1499
    assert client.code(wire.SET_DATA, wire.set_data(path)) == 0
    assert len([reply for reply in other.replies() if reply.is_event]) == 1


def test_a_client_that_drips_pays_alone(machine: Machine) -> None:
    """A frame that never ends is kept, at most once its size, until its session is given up."""
    client = machine.connect(timeout_ms=6000)
    client.feed(wire.int32(1_000_000))
    for _ in range(100):
        client.feed(bytes(100))
    machine.settle()
    assert len(client.cnxn.rest) == 10_004
    machine.advance(20_000)
    assert client.closed
    assert len(client.cnxn.rest) == 0
