"""Connecting, resuming, frames and headers, against Apache ZooKeeper and zkpy alike.

Sections 1 to 3 and vectors B.1 to B.3 of the client protocol reference.
"""

from __future__ import annotations

import contextlib
import struct
import time

import pytest
from tests.support import wire
from tests.support.oracle import ApacheServer, Server
from tests.support.rawclient import Closed, RawClient, open_session, zxid_now
from tests.support.wire import (
    ADD_WATCH,
    AUTH,
    BAD_VERSION,
    CHECK_WATCHES,
    CLOSE_SESSION,
    CREATE,
    CREATE2,
    CREATE_CONTAINER,
    CREATE_TTL,
    DELETE,
    EXISTS,
    GET_ACL,
    GET_ALL_CHILDREN_NUMBER,
    GET_CHILDREN,
    GET_CHILDREN2,
    GET_DATA,
    GET_EPHEMERALS,
    MARSHALLING,
    MULTI,
    MULTI_READ,
    NO_NODE,
    NODE_EXISTS,
    OPEN_ACL,
    PING,
    RECONFIG,
    RECONFIG_DISABLED,
    REMOVE_WATCHES,
    SASL,
    SESSION_EXPIRED,
    SET_ACL,
    SET_DATA,
    SET_WATCHES,
    SET_WATCHES2,
    SYNC,
    UNIMPLEMENTED,
    WHO_AM_I,
)  # fmt: skip

pytestmark = pytest.mark.interop

# tickTime 500: sessions of 1 to 10 seconds.
SERVER_CONFIG = {"maxSessionTimeout": 10_000}


# B.1, B.2 and section 2: the handshake


def password_of(session_id: int) -> bytes:
    state = ((session_id ^ 0xB3415C00) ^ 0x5DEECE66D) & (2**48 - 1)
    out = b""
    for _ in range(4):
        state = (state * 0x5DEECE66D + 0xB) & (2**48 - 1)
        out += struct.pack("<I", (state >> 16) & 0xFFFFFFFF)
    return out


@pytest.mark.parametrize(
    ("session_id", "password"),
    [
        (0x0000000000000001, "054cc74a37327db215e702e20c73f005"),
        (0x0100000000000000, "f22acd4a97e69d6d20a49bb638eadb38"),
        (0x010000134B500000, "02f2298e6708b7d9b0e96fdd88e87c78"),
        (0x010000134B500001, "1513248e0754961ea52cd7085c719145"),
        (0x7FFFFFFFFFFFFFFF, "20f62cb5648dc2d771471c8a2486a9ee"),
    ],
)
def test_password_vectors(session_id: int, password: str) -> None:
    """B.2: the yardstick itself, before it judges servers."""
    assert password_of(session_id).hex() == password


@pytest.mark.parametrize("read_only", [False, True, None])
def test_new_session(server: Server, read_only: bool | None) -> None:
    """B.1: 37 bytes with the readOnly byte, 36 without; the server's flag is false."""
    with RawClient(server.address) as client:
        client.send_connect(timeout_ms=4000, read_only=read_only)
        payload = client.recv_frame()
        assert len(payload) == (36 if read_only is None else 37)
        version, timeout_ms, session_id, length = struct.unpack_from(">iiqi", payload)
        assert (version, timeout_ms, length) == (0, 4000, 16)
        assert payload[20:36] == password_of(session_id)
        assert payload[36:] == (b"" if read_only is None else b"\x00")
        # Standalone: server id 1 in the top byte, and a fresh process counts from 0.
        assert session_id >> 56 == 1
        assert client.call(PING).xid == -2


@pytest.mark.parametrize("password", [None, b"", b"x" * 16, b"short", b"long" * 10])
def test_password_of_a_new_session_is_ignored(server: Server, password: bytes | None) -> None:
    with RawClient(server.address) as client:
        assert client.connect(password=password).session_id != 0


def test_session_ids_count_up(server: Server) -> None:
    with open_session(server.address) as one, open_session(server.address) as two:
        assert one.session is not None
        assert two.session is not None
        assert two.session.session_id == one.session.session_id + 1


@pytest.mark.parametrize(
    ("requested", "negotiated"),
    [(-1, 1000), (0, 1000), (999, 1000), (1000, 1000), (5001, 5001), (2**31 - 1, 10_000)],
)
def test_timeout_negotiation(server: Server, requested: int, negotiated: int) -> None:
    with RawClient(server.address) as client:
        assert client.connect(timeout_ms=requested).timeout_ms == negotiated


def test_resume(server: Server) -> None:
    """Same id and password, a newly negotiated timeout; the old connection closes silently."""
    with open_session(server.address) as old, RawClient(server.address) as new:
        assert old.session is not None
        session = new.connect(old.session.session_id, old.session.password, 3210)
        assert session == old.session._replace(timeout_ms=3210)
        old.expect_close()
        assert new.call(PING).err == 0


INVALID = bytes.fromhex("00000000 00000000 0000000000000000 00000010" + "00" * 16)


@pytest.mark.parametrize("read_only", [False, None])
@pytest.mark.parametrize("case", ["unknown", "wrong password", "short password", "closed"])
def test_invalid_session(server: Server, case: str, read_only: bool | None) -> None:
    """All indistinguishable: zeros, then close."""
    with open_session(server.address) as owner, RawClient(server.address) as client:
        assert owner.session is not None
        session_id, password = owner.session.session_id, owner.session.password
        if case == "unknown":
            session_id = 0x1234567
            password = password_of(session_id)
        elif case == "wrong password":
            password = b"\x01" * 16
        elif case == "short password":
            password = password[:15]
        else:
            owner.end_session()
        client.send_connect(session_id, password, read_only=read_only)
        assert client.recv_frame() == INVALID + (b"" if read_only is None else b"\x00")
        client.expect_close()


def test_expired_session(server: Server) -> None:
    with open_session(server.address, 1000) as client:
        assert client.session is not None
        started = time.monotonic()
        client.expect_close(5.0)
        # Between the timeout and one tick more, and what a busy machine adds.
        assert 0.9 < time.monotonic() - started < 4.0
        with RawClient(server.address) as again:
            session = again.connect(client.session.session_id, client.session.password)
            assert (session.session_id, session.timeout_ms) == (0, 0)
            again.expect_close()


def test_client_ahead_of_the_server(server: Server, client: RawClient) -> None:
    """A zxid from the future closes silently; the current one is fine."""
    zxid = zxid_now(client)
    with RawClient(server.address) as ahead:
        ahead.send_connect(last_zxid_seen=zxid + 100)
        ahead.expect_close()
    with RawClient(server.address) as equal:
        assert equal.connect(last_zxid_seen=zxid).session_id != 0


HANDSHAKE = (
    wire.int32(0) + wire.int64(0) + wire.int32(5000) + wire.int64(0) + wire.buffer(bytes(16))
)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        wire.int32(0xFFFFF + 1),
        b"nope",
        wire.buffer(HANDSHAKE[:-1]),
        wire.buffer(HANDSHAKE[:20]),
        wire.buffer(b"\x00"),
    ],
    ids=["zero", "negative", "too long", "unknown word", "cut password", "cut id", "one byte"],
)
def test_bad_first_frame(server: Server, raw: bytes) -> None:
    with RawClient(server.address) as client:
        client.send_raw(raw)
        client.expect_close()


def test_bytes_behind_the_handshake_record_are_ignored(server: Server) -> None:
    with RawClient(server.address) as client:
        client.send_frame(HANDSHAKE + b"\x00" + b"more")
        assert client.recv_connect().session_id != 0


def test_requests_may_be_pipelined_behind_the_handshake(server: Server) -> None:
    with RawClient(server.address) as client:
        client.send_connect()
        client.send(PING)
        client.send(EXISTS, wire.path_watch("/"))
        assert client.recv_connect().session_id != 0
        assert client.recv().xid == -2
        assert client.recv().err == 0


def test_byte_by_byte(server: Server) -> None:
    """TCP may cut anywhere."""
    with RawClient(server.address) as client:
        for byte in wire.buffer(HANDSHAKE) + wire.buffer(struct.pack(">ii", 7, PING)):
            client.send_raw(bytes([byte]))
            time.sleep(0.001)
        assert client.recv_connect().session_id != 0
        assert client.recv().xid == -2


@pytest.mark.parametrize("raw", [b"ruok", wire.int32(0xFFFFF + 1), wire.int32(-1), wire.int32(0)])
def test_bad_length_after_the_handshake(server: Server, raw: bytes) -> None:
    """1.5: after the handshake a word is a length."""
    with open_session(server.address) as client:
        client.send_raw(raw)
        client.expect_close()


def test_truncated_header(server: Server) -> None:
    with open_session(server.address) as client:
        client.send_frame(b"\x00\x00\x00\x01\x00\x00\x00")
        client.expect_close()


# B.3 and section 3: headers


@pytest.mark.parametrize("xid", [-2, 5, 0, -1, -8])
def test_ping(client: RawClient, xid: int) -> None:
    client.send(PING, xid=xid)
    payload = client.recv_frame()
    zxid = zxid_now(client)
    assert payload == struct.pack(">iqi", -2, zxid, 0)


@pytest.mark.parametrize("xid", [1, 1, 0, -1, -4, -8, -100, 2**31 - 1, -(2**31)])
def test_xid_is_echoed(client: RawClient, xid: int) -> None:
    client.send(EXISTS, wire.path_watch("/"), xid)
    assert struct.unpack_from(">i", client.recv_frame()) == (xid,)


@pytest.mark.parametrize("op", [0, 10, 13, 23, 99, 108, -1, -2, -12, 1000, 2**31 - 1])
def test_unknown_opcode(server: Server, op: int) -> None:
    """-6 with zxid -1, then close; `check` (13) counts as unknown outside multi."""
    with open_session(server.address) as client:
        client.send(op, wire.path_version("/"), xid=77)
        assert client.recv_frame() == struct.pack(">iqi", 77, -1, UNIMPLEMENTED)
        client.expect_close()


def test_close_session(server: Server) -> None:
    with open_session(server.address) as client:
        zxid = zxid_now(client)
        client.send(CLOSE_SESSION, xid=9)
        client.send(PING)  # dropped without reply
        assert client.recv_frame() == struct.pack(">iqi", 9, zxid + 1, 0)
        if isinstance(server, ApacheServer):
            # Its threads race: the ping may get in before the close, and then is refused.
            with contextlib.suppress(Closed):
                xid, _, err = struct.unpack(">iqi", client.recv_frame())
                assert (xid, err) == (-2, SESSION_EXPIRED)
        client.expect_close()


def test_bytes_behind_a_request_are_ignored(client: RawClient) -> None:
    assert client.call(EXISTS, wire.path_watch("/") + b"behind").err == 0
    assert client.call(PING, b"behind").err == 0


TRUNCATED = [
    (CREATE, wire.create("/cut")),
    (CREATE2, wire.create("/cut")),
    (CREATE_CONTAINER, wire.create("/cut", flags=4)),
    (CREATE_TTL, wire.create_ttl("/cut")),
    (DELETE, wire.path_version("/cut")),
    (EXISTS, wire.path_watch("/cut")),
    (GET_DATA, wire.path_watch("/cut")),
    (SET_DATA, wire.set_data("/cut")),
    (GET_ACL, wire.string("/cut")),
    (SET_ACL, wire.set_acl("/cut", OPEN_ACL)),
    (GET_CHILDREN, wire.path_watch("/cut")),
    (GET_CHILDREN2, wire.path_watch("/cut")),
    (SYNC, wire.string("/cut")),
    (MULTI, wire.multi([(CREATE, wire.create("/cut"))])),
    (MULTI_READ, wire.multi([(GET_DATA, wire.path_watch("/"))])),
    (RECONFIG, wire.reconfig(None, None, None)),
    (ADD_WATCH, wire.path_type("/cut", 0)),
    (REMOVE_WATCHES, wire.path_type("/cut", 3)),
    (CHECK_WATCHES, wire.path_type("/cut", 3)),
    (SET_WATCHES, wire.set_watches(0, [], [], [])),
    (SET_WATCHES2, wire.set_watches(0, [], [], [], [], [])),
    (GET_EPHEMERALS, wire.string("/")),
    (GET_ALL_CHILDREN_NUMBER, wire.string("/")),
]


@pytest.mark.parametrize(("op", "body"), TRUNCATED, ids=[wire.OP_NAMES[op] for op, _ in TRUNCATED])
def test_truncated_body(client: RawClient, op: int, body: bytes) -> None:
    """1.4: -5, header only, the connection stays open; 3.4: only a multi consumes a zxid."""
    for size in sorted({0, 2, len(body) // 2, len(body) - 1}):
        before = zxid_now(client)
        reply = client.call(op, body[:size])
        assert (reply.err, reply.body) == (MARSHALLING, b"")
        consumed = 1 if op == MULTI else 0
        assert reply.zxid == before + consumed
        assert zxid_now(client) == before + consumed
    assert client.call(PING).err == 0


@pytest.mark.parametrize("length", [-2, 2**31 - 1, 0x200000])
def test_bad_lengths_in_a_record(client: RawClient, length: int) -> None:
    reply = client.call(GET_DATA, wire.int32(length) + b"/x")
    assert (reply.err, reply.body) == (MARSHALLING, b"")
    reply = client.call(CREATE, wire.string("/x") + wire.int32(length))
    assert (reply.err, reply.body) == (MARSHALLING, b"")


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (AUTH, wire.int32(0) + wire.int32(5)),
        (AUTH, b""),
        (SASL, b""),
        (SASL, wire.buffer(None)),
        (SASL, wire.int32(9)),
    ],
)
def test_malformed_auth_closes(server: Server, op: int, body: bytes) -> None:
    with open_session(server.address) as client:
        client.send(op, body)
        client.expect_close()


def test_sasl_without_configuration(client: RawClient) -> None:
    """9.8: an empty answer, and the connection goes on."""
    reply = client.call(SASL, wire.buffer(b"token"))
    assert (reply.zxid, reply.err, reply.body) == (0, 0, wire.buffer(None))
    assert client.call(PING).err == 0


def test_zxid_of_replies(client: RawClient, base: str) -> None:
    """3.3, 3.4: successes and failures of writes consume one zxid each, reads none."""
    zxid = zxid_now(client)
    steps: list[tuple[int, bytes, int, int]] = [
        (CREATE, wire.create(f"{base}/a"), 0, 1),
        (CREATE, wire.create(f"{base}/a"), NODE_EXISTS, 1),
        (GET_DATA, wire.path_watch(f"{base}/a"), 0, 0),
        (SET_DATA, wire.set_data(f"{base}/a", b"1", 5), BAD_VERSION, 1),
        (SET_DATA, wire.set_data(f"{base}/a", b"1"), 0, 1),
        (EXISTS, wire.path_watch(f"{base}/b"), NO_NODE, 0),
        (SET_ACL, wire.set_acl(f"{base}/a", OPEN_ACL), 0, 1),
        (SYNC, wire.string(base), 0, 0),
        (MULTI, wire.multi([]), 0, 1),
        (MULTI, wire.multi([(DELETE, wire.path_version("/nope"))]), 0, 1),
        (MULTI_READ, wire.multi([(GET_DATA, wire.path_watch("/"))]), 0, 0),
        (ADD_WATCH, wire.path_type(base, 0), 0, 0),
        (RECONFIG, wire.reconfig(None, None, None), RECONFIG_DISABLED, 1),
        (DELETE, wire.path_version(f"{base}/a"), 0, 1),
        (DELETE, wire.path_version(f"{base}/a"), NO_NODE, 1),
        (CREATE, wire.create("/bad/"), NO_NODE, 1),
        (CREATE, wire.create(None), MARSHALLING, 1),
        (WHO_AM_I, b"", 0, 0),
        (GET_EPHEMERALS, wire.string("/"), 0, 0),
    ]
    for op, body, err, consumed in steps:
        reply = client.call(op, body)
        zxid += consumed
        assert (wire.OP_NAMES[op], reply.err, reply.zxid) == (wire.OP_NAMES[op], err, zxid)
