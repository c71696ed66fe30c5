"""The server as a client sees it: sessions, errors, multi, containers, quotas, limits."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.machine import SOCKET_BUFFER_BYTES, WALL_MS, Client, Machine
from tests.support import wire
from tests.support.rawclient import digest_id

from zkpy.server.replies import MAX_OUT_BYTES
from zkpy.session.auth import EnsembleAuthenticationProvider, ProviderRegistry

# ------------------------------------------------------------------ handshake


def connect_request(**fields: int) -> bytes:
    return wire.buffer(
        wire.int32(fields.get("version", 0))
        + wire.int64(fields.get("zxid", 0))
        + wire.int32(fields.get("timeout", 10_000))
        + wire.int64(0)
        + wire.buffer(bytes(16))
    )


@pytest.mark.parametrize(("read_only", "size"), [(None, 36), (False, 37), (True, 37)])
def test_both_forms_of_the_handshake(machine: Machine, read_only: bool | None, size: int) -> None:
    client = machine.plain()
    client.connect(read_only=read_only, flush=False)
    machine.settle()
    assert not client.inbox, "the session is not durable yet"
    machine.flush()
    assert len(client.inbox) == 4 + size
    session = client.take_session()
    assert session is not None
    assert session.read_only is (None if read_only is None else False)
    assert (session.protocol_version, session.timeout_ms) == (0, 10_000)
    assert session.session_id == (1 << 56) | ((WALL_MS & (1 << 40) - 1) << 16)
    assert len(session.password) == 16


def test_what_a_handshake_does_not_mind(machine: Machine) -> None:
    first = machine.plain()
    first.feed(connect_request(version=77) + b"")
    machine.flush()
    assert first.take_session() is not None
    second = machine.plain()
    second.connect(password=None)
    third = machine.plain()
    third.connect(password=b"any length")
    assert second.session is not None and third.session is not None
    assert third.session_id == second.session_id + 1


@pytest.mark.parametrize(
    ("asked_ms", "granted_ms"),
    [(0, 4000), (-1, 4000), (4000, 4000), (4001, 4001), (40_001, 40_000), (0x7FFFFFFF, 40_000)],
)
def test_timeouts_are_negotiated(asked_ms: int, granted_ms: int) -> None:
    client = Machine(tick_time_ms=2000).connect(timeout_ms=asked_ms)
    assert client.session is not None
    assert client.session.timeout_ms == granted_ms


def test_a_client_from_the_future_goes_elsewhere(machine: Machine) -> None:
    machine.connect().create("/a")
    zxid = machine.tree.last_processed_zxid
    ahead = machine.plain()
    ahead.connect(last_zxid_seen=zxid + 1)
    assert ahead.closed and not ahead.inbox
    assert machine.connect(last_zxid_seen=zxid).session is not None


def test_requests_behind_the_handshake_wait_for_it(machine: Machine) -> None:
    client = machine.plain()
    client.feed(
        connect_request()
        + client.frame(wire.CREATE, wire.create("/a"), 1)
        + client.frame(wire.EXISTS, wire.path_watch("/a"), 2)
    )
    machine.settle()
    assert not client.inbox
    machine.durable()
    assert len(client.frames()) == 1
    machine.durable()
    assert [reply.xid for reply in client.replies()] == [1, 2]


@pytest.mark.parametrize("length", [0, 1, 43])
def test_a_connect_request_cut_short(machine: Machine, length: int) -> None:
    client = machine.plain()
    client.feed(wire.buffer(connect_request()[4 : 4 + length]))
    machine.settle()
    assert client.closed and not client.inbox


def test_a_connection_without_a_session_is_given_up(machine: Machine) -> None:
    silent, busy = machine.plain(), machine.connect(timeout_ms=60_000)
    half = machine.plain()
    half.feed(connect_request()[:20])
    machine.advance(9_999)
    assert not silent.closed
    machine.advance(10_001)
    assert silent.closed and half.closed and not busy.closed
    assert machine.server.stats.sessionless_connections_expired == 2


# ------------------------------------------------------------------ sessions


def test_resume(machine: Machine, client: Client) -> None:
    client.create("/e", flags=wire.EPHEMERAL)
    client.value(wire.GET_DATA, wire.path_watch("/e", True))
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session, timeout_ms=12_000)
    assert again.session == client.session._replace(timeout_ms=12_000)
    # The newest connection wins; the old one is closed without a word, its watches gone.
    assert client.closed and not client.inbox
    assert again.value(wire.SET_DATA, wire.set_data("/e")).ephemeral_owner == again.session_id
    assert again.events == []
    machine.advance(11_000)
    assert again.code(wire.EXISTS, wire.path_watch("/e")) == 0


@pytest.mark.parametrize("fault", ["password", "short", "null", "id"])
@pytest.mark.parametrize("read_only", [None, False])
def test_an_invalid_session(
    machine: Machine, client: Client, fault: str, read_only: bool | None
) -> None:
    assert client.session is not None
    session = client.session
    again = machine.plain()
    if fault == "id":
        again.connect(session.session_id + 7, session.password, read_only=read_only)
    else:
        passwords = {"password": bytes(16), "short": session.password[:15], "null": None}
        again.connect(session.session_id, passwords[fault], read_only=read_only)
    assert again.session is not None
    expected = (0, 0, 0, bytes(16), None if read_only is None else False)
    assert tuple(again.session) == expected
    assert again.closed
    # Whoever has the right password is not disturbed.
    assert client.code(wire.EXISTS, wire.path_watch("/")) == 0


def test_expiry(machine: Machine) -> None:
    client, other = machine.connect(timeout_ms=6000), machine.connect(timeout_ms=60_000)
    client.create("/e", flags=wire.EPHEMERAL)
    client.create("/stays")
    other.value(wire.EXISTS, wire.path_watch("/e", True))
    for _ in range(5):
        machine.advance(4000)
        client.call(wire.PING)
        other.call(wire.PING)
    assert not client.closed
    machine.advance(5999)
    assert not client.closed, "never early"
    machine.advance(3001)
    assert client.closed and not client.inbox, "without a word"
    other.replies()
    assert [(event.type, event.path) for event in other.events] == [(wire.NODE_DELETED, "/e")]
    assert other.code(wire.EXISTS, wire.path_watch("/stays")) == 0
    assert machine.server.stats.stale_sessions_expired == 1
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session)
    assert again.session is not None and again.session.session_id == 0
    assert again.closed


def test_a_session_outlives_its_connection(machine: Machine) -> None:
    client = machine.connect(timeout_ms=6000)
    client.create("/e", flags=wire.EPHEMERAL)
    client.drop()
    machine.advance(5000)
    assert "/e" in machine.tree.nodes
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session)
    assert again.session is not None and again.session.session_id == client.session_id
    again.drop()
    machine.advance(13_001)
    assert "/e" not in machine.tree.nodes


def test_requests_of_a_closing_session_are_dropped(machine: Machine, client: Client) -> None:
    machine.server.now_ms += 100_000
    machine.server.tick()
    client.send(wire.CREATE, wire.create("/late"))
    assert not client.closed
    machine.flush()
    assert client.closed and not client.inbox
    assert "/late" not in machine.tree.nodes


def test_sessions_survive_a_restart(machine: Machine) -> None:
    client = machine.connect(timeout_ms=6000)
    client.create("/e", flags=wire.EPHEMERAL)
    assert client.session is not None
    second = Machine(tree=machine.tree)
    again = second.plain()
    again.resume(client.session)
    assert again.session is not None and again.session.session_id == client.session_id
    assert second.connect().session_id != client.session_id
    again.drop()
    second.advance(20_000)
    assert "/e" not in second.tree.nodes


def test_close(machine: Machine, client: Client) -> None:
    other = machine.connect()
    client.create("/e", flags=wire.EPHEMERAL)
    other.value(wire.GET_CHILDREN, wire.path_watch("/", True))
    reply = client.call(wire.CLOSE_SESSION)
    assert (reply.err, reply.zxid, reply.body) == (0, machine.tree.last_processed_zxid, b"")
    assert client.closed
    other.replies()
    assert [event.type for event in other.events] == [wire.NODE_CHILDREN_CHANGED]
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session)
    assert again.session is not None and again.session.session_id == 0


# ------------------------------------------------------------------ errors


def codes_of(op: int, *cases: tuple[bytes, int]) -> list[tuple[int, bytes, int]]:
    return [(op, body, code) for body, code in cases]


NULL_ACL: list[wire.Acl] = [(31, "auth", None)]
ERRORS = [
    *codes_of(
        wire.CREATE,
        (wire.create("foo"), -8),
        (wire.create(""), -8),
        (wire.create("//a"), -8),
        (wire.create("/a/."), -8),
        (wire.create("/a\0b"), -8),
        (wire.create(None), -5),
        (wire.create("/"), -110),
        (wire.create("/a"), -110),
        (wire.create("/zz/"), -101),
        (wire.create("/a/"), -8),
        (wire.create("/zz/b"), -101),
        (wire.create("/b", acl=None), -114),
        (wire.create("/b", acl=[]), -114),
        (wire.create("/zz/b", acl=[]), -114),
        (wire.create("/b", acl=NULL_ACL), -114),
        (wire.create("/b", acl=[(31, "world", "someone")]), -114),
        (wire.create("/b", acl=[(31, "world", None)]), -5),
        (wire.create("/b", flags=7), -8),
        (wire.create("/b", flags=-1), -8),
        (wire.create("/b", flags=5), -6),
        (wire.create("/e/child"), -108),
        (wire.create("/b")[:-1], -5),
        (b"", -5),
        (wire.create("/\U0001f600"), -8),
        (wire.create("/\ue000"), -8),
        (wire.create(b"/\xff"), -8),
        (wire.create("/locked/b"), -102),
    ),
    *codes_of(wire.CREATE_TTL, (wire.create_ttl("/b"), -6), (wire.create_ttl("/b", flags=0), -8)),
    *codes_of(
        wire.DELETE,
        (wire.path_version("/"), -8),
        (wire.path_version("/zookeeper"), -8),
        (wire.path_version("/zookeeper/quota"), -8),
        (wire.path_version("/zookeeper/config"), -8),
        (wire.path_version("a"), -8),
        (wire.path_version(None), -5),
        (wire.path_version("/a/b/"), -101),
        (wire.path_version("/zz"), -101),
        (wire.path_version("/a", 3), -103),
        (wire.path_version("/a", 0), -111),
        (wire.path_version("/locked/x"), -102),
    ),
    *codes_of(
        wire.SET_DATA,
        (wire.set_data("/zookeeper/config"), -102),
        (wire.set_data("/zz"), -101),
        (wire.set_data("/zz/"), -8),
        (wire.set_data(None), -8),
        (wire.set_data(""), -8),
        (wire.set_data("/a", b"", 1), -103),
        (wire.set_data("/a")[:-2], -5),
    ),
    *codes_of(
        wire.SET_ACL,
        (wire.set_acl("/a", [], 0), -114),
        (wire.set_acl("/zz", []), -114),
        (wire.set_acl("/zz", wire.OPEN_ACL), -101),
        (wire.set_acl("//", []), -8),
        (wire.set_acl("/a", wire.OPEN_ACL, 1), -103),
        (wire.set_acl("/locked", wire.OPEN_ACL), -102),
    ),
    *codes_of(wire.RECONFIG, (wire.reconfig("", "", ""), -123), (b"", -5)),
    *codes_of(
        wire.EXISTS,
        (wire.path_watch("/zz"), -101),
        (wire.path_watch("/a\0"), -8),
        (wire.path_watch(None), -5),
        (wire.path_watch("/a")[:-1], -5),
        (wire.path_watch("/locked"), -102),
    ),
    *codes_of(
        wire.GET_DATA,
        (wire.path_watch("/a\0"), -101),
        (wire.path_watch("zz"), -101),
        (wire.path_watch(None), -5),
        (wire.path_watch("/locked"), -102),
        (wire.path_watch("/a")[:-1], -5),
    ),
    *codes_of(wire.GET_CHILDREN, (wire.path_watch("/zz"), -101), (wire.path_watch(None), -5)),
    *codes_of(wire.GET_CHILDREN2, (wire.path_watch("/zz"), -101), (b"", -5)),
    *codes_of(wire.GET_ACL, (wire.string("/zz"), -101), (wire.string("/locked"), -102)),
    *codes_of(wire.GET_ALL_CHILDREN_NUMBER, (wire.string("/zz"), -101), (wire.string(None), -5)),
    *codes_of(wire.ADD_WATCH, (wire.path_type("/a", 2), -5)),
    *codes_of(wire.REMOVE_WATCHES, (wire.path_type("/a", 3), -121), (wire.path_type("/a", 6), -5)),
    *codes_of(wire.CHECK_WATCHES, (wire.path_type("/a", 1), -121), (wire.path_type("/a", 0), -5)),
    *codes_of(wire.SET_WATCHES, (wire.set_watches(0, None, [], []), -5), (b"", -5)),
    *codes_of(
        wire.MULTI,
        (b"", -5),
        (wire.multi([(wire.SET_ACL, wire.set_acl("/a", wire.OPEN_ACL))]), -5),
        (wire.multi([(wire.CREATE, wire.create("/b", acl=None))]), -5),
        (wire.multi([(wire.CREATE, wire.create("/b", flags=5))]), -5),
        (wire.multi([(wire.CREATE, wire.create(None))]), -5),
        (wire.multi([(wire.GET_DATA, wire.path_watch("/a"))]), -5),
        (wire.multi([(wire.CHECK, wire.path_version("/a"))])[:-9], -5),
    ),
    *codes_of(
        wire.MULTI_READ,
        (wire.multi([(wire.DELETE, wire.path_version("/a"))]), -5),
        (wire.multi([(wire.EXISTS, wire.path_watch("/a"))]), -5),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def furnished() -> Client:
    """A client of a server with /a, /a/b, an ephemeral /e and a /locked node; errors only."""
    client = Machine().connect()
    client.create("/a")
    client.create("/a/b")
    client.create("/e", flags=wire.EPHEMERAL)
    client.create("/locked")
    client.create("/locked/x")
    client.value(wire.SET_ACL, wire.set_acl("/locked", [(31, "digest", "a:b")]))
    return client


@pytest.mark.parametrize(("op", "body", "code"), ERRORS)
def test_errors(furnished: Client, op: int, body: bytes, code: int) -> None:
    before = dict(furnished.machine.tree.nodes)
    reply = furnished.call(op, body)
    assert (reply.err, reply.body) == (code, b"")
    assert reply.zxid == furnished.machine.tree.last_processed_zxid
    assert furnished.machine.tree.nodes == before
    assert not furnished.closed


def test_what_is_right_although_it_looks_odd(client: Client) -> None:
    client.create("/a")
    assert client.create("/a/", flags=wire.SEQUENTIAL) == "/a/0000000000"
    assert client.create("/", flags=wire.SEQUENTIAL) == "/0000000001"
    assert client.code(wire.SET_DATA, wire.set_data("/", None)) == 0
    assert client.value(wire.GET_DATA, wire.path_watch("/"))[0] is None
    assert client.value(wire.SYNC, wire.string(None)) is None
    assert client.value(wire.SYNC, wire.string("no path")) == "no path"
    assert client.create("/a/...") == "/a/..."
    assert client.create("/a/b c*\\") == "/a/b c*\\"
    # Bytes behind a record are not looked at.
    assert client.code(wire.EXISTS, wire.path_watch("/a") + b"more") == 0
    assert client.code(wire.CREATE, wire.create("/more") + b"more") == 0
    assert client.code(wire.SET_DATA, wire.set_data("/more", b"x") + b"more") == 0
    assert client.value(wire.GET_DATA, wire.path_watch("/more"))[0] == b"x"


@pytest.mark.parametrize("op", [0, 10, 13, 20, 99, 108, -1, -10, -12, 0x7FFFFFFF, -0x80000000])
def test_opcodes_that_nobody_may_send(machine: Machine, client: Client, op: int) -> None:
    client.create("/a")
    client.send(op, wire.string("/a"), 77)
    machine.flush()
    (reply,) = client.replies()
    assert tuple(reply) == (77, -1, -6, b"")
    assert client.closed
    assert "/a" in machine.tree.nodes


def test_writes_use_up_a_zxid_even_if_refused(machine: Machine, client: Client) -> None:
    zxid = machine.tree.last_processed_zxid
    null_acl = wire.multi([(wire.CREATE, wire.create("/b", acl=None))])
    for op, body, used in [
        (wire.CREATE, wire.create("/zz/b"), 1),
        (wire.DELETE, b"", 0),
        (wire.MULTI, wire.multi([]), 1),
        (wire.MULTI, b"", 1),
        (wire.MULTI, null_acl, 0),
        (wire.GET_DATA, wire.path_watch("/"), 0),
        (wire.RECONFIG, wire.reconfig(None, None, None), 1),
    ]:
        zxid += used
        assert client.call(op, body).zxid == zxid


@pytest.mark.parametrize(
    ("scheme", "credential"),
    [("nope", b""), (None, b""), ("world", b"anyone"), ("super", b""), ("digest", None)],
)
def test_authentication_fails(
    machine: Machine, client: Client, scheme: str | None, credential: bytes | None
) -> None:
    client.send(wire.AUTH, wire.auth(scheme, credential), -4)
    client.send(wire.PING)
    (reply,) = client.replies()
    assert tuple(reply) == (-4, 0, -115, b"")
    assert client.closed
    assert machine.server.stats.auth_failed_count == 1


def test_authentication(machine: Machine, client: Client) -> None:
    assert tuple(client.call(wire.AUTH, wire.auth("digest", b"u:p"), 5)) == (5, 0, 0, b"")
    assert client.call(wire.AUTH, wire.auth("ip", b"")).err == 0
    assert client.cnxn.stats.sent == 3, "with the reply to the handshake"
    assert ("digest", "u") in client.value(wire.WHO_AM_I)
    client.create("/mine", acl=[(31, "auth", None)])
    other = machine.connect()
    assert other.code(wire.GET_DATA, wire.path_watch("/mine")) == -102
    acls, _ = client.value(wire.GET_ACL, wire.string("/mine"))
    assert acls == [(31, "digest", digest_id("u:p"))]


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (wire.AUTH, b""),
        (wire.AUTH, wire.int32(0) + wire.int32(-5)),
        (wire.SASL, b""),
        (wire.SASL, wire.int32(-5)),
        (wire.SASL, wire.buffer(None)),
    ],
)
def test_a_malformed_auth_packet_closes(
    machine: Machine, client: Client, op: int, body: bytes
) -> None:
    client.send(op, body)
    machine.settle()
    assert client.closed and not client.inbox


def test_nobody_collects_ids_without_end(machine: Machine, client: Client) -> None:
    for number in range(2000):
        client.send(wire.AUTH, wire.auth("digest", b"u:%d" % number))
    machine.flush()
    replies = client.replies()
    assert len(client.cnxn.ids) <= 1001
    assert replies[0].err == 0 and replies[-1].err == -115
    assert client.closed


def test_a_provider_that_sends_clients_away(
    machine: Machine, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    machine.server.auth = ProviderRegistry([EnsembleAuthenticationProvider(["mine"])])
    assert client.call(wire.AUTH, wire.auth("ensemble", b"mine")).err == 0
    client.send(wire.AUTH, wire.auth("ensemble", b"yours"))
    machine.settle()
    assert client.closed and not client.inbox
    assert "Unexpected ensemble name: ensemble name: 'yours' client ip: " in caplog.text


def test_enforced_authentication() -> None:
    machine = Machine(enforce_auth_enabled=True, enforce_auth_schemes=("digest",))
    for op in (wire.PING, wire.CREATE, wire.CLOSE_SESSION, wire.GET_DATA):
        client = machine.connect()
        client.send(op, b"", 7)
        machine.flush()
        (reply,) = client.replies()
        assert tuple(reply) == (7, 0, -124, b"")
        assert client.closed
    client = machine.connect()
    client.send(wire.AUTH, wire.auth("digest", b"u:p"))
    client.send(wire.CREATE, wire.create("/a"))
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0, 0]


# ------------------------------------------------------------------ multi


def test_a_multi(machine: Machine, client: Client) -> None:
    results = client.value(
        wire.MULTI,
        wire.multi(
            [
                (wire.CREATE, wire.create("/m", b"1")),
                (wire.CREATE2, wire.create("/m/n", b"", wire.SEQUENTIAL)),
                (wire.SET_DATA, wire.set_data("/m", b"22", 0)),
                (wire.CHECK, wire.path_version("/m", 1)),
                (wire.CREATE_CONTAINER, wire.create("/m/c", b"", wire.CONTAINER)),
                (wire.CREATE, wire.create("/m/d", b"", wire.CONTAINER)),
                (wire.DELETE, wire.path_version("/m/n0000000000", 0)),
                (wire.SET_DATA, wire.set_data("/m", b"", 1)),
            ]
        ),
    )
    assert [(result.type, result.err) for result in results] == [
        (1, 0), (15, 0), (5, 0), (13, 0), (15, 0), (15, 0), (2, 0), (5, 0),
    ]  # fmt: skip
    zxid = machine.tree.last_processed_zxid
    assert results[0].value == "/m"
    path, stat = results[1].value
    assert (path, stat.czxid, stat.mzxid, stat.version) == ("/m/n0000000000", zxid, zxid, 0)
    # Each stat is of its moment: later parts do not show.
    assert (results[2].value.version, results[2].value.num_children) == (1, 1)
    assert (results[7].value.version, results[7].value.num_children) == (2, 2)
    assert set(machine.tree.containers) == {"/m/c", "/m/d"}
    assert "/m/n0000000000" not in machine.tree.nodes


def test_a_multi_fails_as_a_whole(machine: Machine, client: Client) -> None:
    client.create("/m")
    other = machine.connect()
    other.value(wire.GET_CHILDREN, wire.path_watch("/m", True))
    reply = client.call(
        wire.MULTI,
        wire.multi(
            [
                (wire.CREATE, wire.create("/m/a")),
                (wire.DELETE, wire.path_version("/m/zz")),
                (wire.CREATE, wire.create("/m/b")),
                (wire.CHECK, wire.path_version("/m")),
            ]
        ),
    )
    # Word for word as the reference: the header knows no error.
    assert reply.err == 0
    assert reply.body == bytes.fromhex(
        "ffffffff 00 00000000 00000000   ffffffff 00 ffffff9b ffffff9b"
        "ffffffff 00 fffffffe fffffffe   ffffffff 00 fffffffe fffffffe   ffffffff 01 ffffffff"
    )
    assert "/m/a" not in machine.tree.nodes
    assert other.replies() == []


def test_an_empty_multi(client: Client) -> None:
    assert client.call(wire.MULTI, wire.MULTI_END).body == wire.MULTI_END


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ((wire.CREATE, wire.create("/zz/a")), -101),
        ((wire.CREATE, wire.create("/m")), -110),
        ((wire.CREATE, wire.create("/x", acl=[])), -114),
        ((wire.SET_DATA, wire.set_data("/m", b"", 4)), -103),
        ((wire.CHECK, wire.path_version("/m", 4)), -103),
        ((wire.CHECK, wire.path_version("/zz")), -101),
        ((wire.CHECK, wire.path_version("zz")), -8),
        ((wire.DELETE, wire.path_version("/")), -8),
        ((wire.DELETE, wire.path_version("/m")), -111),
        ((wire.CREATE_TTL, wire.create_ttl("/x")), -6),
        ((wire.CREATE_TTL, wire.create_ttl("/x", flags=9)), -8),
    ],
)
def test_errors_inside_a_multi(client: Client, op: tuple[int, bytes], code: int) -> None:
    client.create("/m")
    client.create("/m/child")
    results = client.value(wire.MULTI, wire.multi([op]))
    assert [(result.err, result.value) for result in results] == [(code, code)]


def test_events_of_a_multi_come_in_its_order(machine: Machine, client: Client) -> None:
    other = machine.connect()
    other.value(wire.ADD_WATCH, wire.path_type("/", 1))
    client.value(
        wire.MULTI,
        wire.multi(
            [
                (wire.CREATE, wire.create("/m")),
                (wire.SET_DATA, wire.set_data("/m")),
                (wire.CREATE, wire.create("/m/n")),
                (wire.DELETE, wire.path_version("/m/n")),
            ]
        ),
    )
    other.replies()
    zxid = machine.tree.last_processed_zxid
    assert [tuple(event) for event in other.events] == [
        (wire.NODE_CREATED, 3, "/m", zxid),
        (wire.NODE_DATA_CHANGED, 3, "/m", zxid),
        (wire.NODE_CREATED, 3, "/m/n", zxid),
        (wire.NODE_DELETED, 3, "/m/n", zxid),
    ]


def test_multi_read(client: Client) -> None:
    client.create("/a", b"x")
    results = client.value(
        wire.MULTI_READ,
        wire.multi(
            [
                (wire.GET_DATA, wire.path_watch("/a", True)),
                (wire.GET_CHILDREN, wire.path_watch("/zz")),
                (wire.GET_CHILDREN, wire.path_watch("/zookeeper")),
            ]
        ),
    )
    assert results[0].value[0] == b"x"
    assert (results[1].type, results[1].value) == (-1, -101)
    assert sorted(results[2].value) == ["config", "quota"]
    client.value(wire.SET_DATA, wire.set_data("/a"))
    assert client.events == []


# ------------------------------------------------------------------ containers, TTL, quotas


def test_containers_go_when_they_are_empty_again(machine: Machine) -> None:
    client = machine.connect(timeout_ms=60_000)
    for path in ("/new", "/used", "/full"):
        client.value(wire.CREATE_CONTAINER, wire.create(path, flags=wire.CONTAINER))
    client.create("/used/child")
    client.create("/full/child")
    client.value(wire.DELETE, wire.path_version("/used/child"))
    client.value(wire.EXISTS, wire.path_watch("/used", True))
    machine.advance(30_000)
    client.call(wire.PING)
    assert "/used" in machine.tree.nodes
    machine.advance(31_000)
    client.replies()
    assert [event.type for event in client.events] == [wire.NODE_DELETED]
    assert "/used" not in machine.tree.nodes
    assert {"/new", "/full"} <= set(machine.tree.nodes)
    stat = client.value(wire.EXISTS, wire.path_watch("/new"))
    assert stat.ephemeral_owner == 0


def test_containers_never_used() -> None:
    machine = Machine(
        container_max_never_used_interval_ms=50_000, container_check_interval_ms=20_000
    )
    client = machine.connect()
    client.value(wire.CREATE_CONTAINER, wire.create("/new", flags=wire.CONTAINER))
    machine.advance(45_000)
    assert "/new" in machine.tree.nodes
    machine.advance(25_000)
    assert "/new" not in machine.tree.nodes


def test_removals_are_spread(machine: Machine) -> None:
    machine = Machine(container_max_per_minute=60)
    client = machine.connect(timeout_ms=60_000)
    for number in range(5):
        client.value(wire.CREATE_CONTAINER, wire.create(f"/c{number}"))
        client.create(f"/c{number}/x")
        client.value(wire.DELETE, wire.path_version(f"/c{number}/x"))
    machine.advance(60_000)
    client.call(wire.PING)
    assert len(machine.tree.containers) == 4
    machine.advance(2_000)
    assert len(machine.tree.containers) == 2


def test_a_container_in_use_again_stays(machine: Machine) -> None:
    """The removal was proposed; a child that came before it is noticed."""
    client = machine.connect(timeout_ms=60_000)
    client.value(wire.CREATE_CONTAINER, wire.create("/c"))
    client.create("/c/x")
    client.value(wire.DELETE, wire.path_version("/c/x"))
    machine.server.now_ms += 59_000
    client.call(wire.PING)
    client.send(wire.CREATE, wire.create("/c/y"))
    machine.server.now_ms += 2_000
    machine.server.tick()
    machine.flush()
    assert "/c/y" in machine.tree.nodes


def test_ttl_nodes() -> None:
    machine = Machine(extended_types_enabled=True, container_check_interval_ms=1000)
    client = machine.connect(timeout_ms=60_000)
    path, stat = client.value(wire.CREATE_TTL, wire.create_ttl("/t", ttl_ms=5000))
    assert (path, stat.ephemeral_owner) == ("/t", 0)
    name, _ = client.value(wire.CREATE_TTL, wire.create_ttl("/s", flags=6, ttl_ms=(1 << 40) - 1))
    assert name == "/s0000000001"
    machine.advance(4000)
    client.value(wire.SET_DATA, wire.set_data("/t"))
    machine.advance(4000)
    assert "/t" in machine.tree.nodes, "setData starts the clock again"
    client.create("/t/child")
    machine.advance(4000)
    assert "/t" in machine.tree.nodes, "not while it has children"
    client.value(wire.DELETE, wire.path_version("/t/child"))
    machine.advance(2000)
    assert "/t" not in machine.tree.nodes
    for ttl_ms in (0, -1, 1 << 40):
        assert client.code(wire.CREATE_TTL, wire.create_ttl("/u", ttl_ms=ttl_ms)) == -8
    assert client.code(wire.CREATE, wire.create("/u", flags=wire.TTL)) == -8


def set_quota(client: Client, path: str, limits: bytes) -> None:
    parts = path.split("/")[1:]
    for depth in range(1, len(parts) + 1):
        client.call(wire.CREATE, wire.create("/zookeeper/quota/" + "/".join(parts[:depth])))
    client.create(f"/zookeeper/quota{path}/zookeeper_limits", limits)
    client.create(f"/zookeeper/quota{path}/zookeeper_stats", b"count=0,bytes=0")


def usage(client: Client, path: str) -> Any:
    body = wire.path_watch(f"/zookeeper/quota{path}/zookeeper_stats")
    return client.value(wire.GET_DATA, body)[0]


def test_hard_quotas_are_enforced() -> None:
    client = Machine(enforce_quota=True).connect()
    client.create("/app", b"12")
    set_quota(client, "/app", b"count=1,bytes=1=;byteHardLimit=10;countHardLimit=3")
    assert usage(client, "/app") == b"count=1,bytes=2"
    client.create("/app/a", b"12345678")
    assert client.code(wire.SET_DATA, wire.set_data("/app", b"123")) == wire.QUOTA_EXCEEDED
    # Before the version, and for nothing that does not grow.
    assert client.code(wire.SET_DATA, wire.set_data("/app", b"123", 9)) == wire.QUOTA_EXCEEDED
    assert client.code(wire.SET_DATA, wire.set_data("/app", b"1")) == 0
    assert client.code(wire.CREATE, wire.create("/app/b", b"12")) == wire.QUOTA_EXCEEDED
    assert client.code(wire.CREATE, wire.create("/app/b", b"1")) == 0
    assert client.code(wire.CREATE, wire.create("/app/c")) == wire.QUOTA_EXCEEDED
    assert client.code(wire.CREATE, wire.create("/other", bytes(100))) == 0
    multi = wire.multi([(wire.CREATE, wire.create("/app/c"))])
    assert client.value(wire.MULTI, multi)[0].err == wire.QUOTA_EXCEEDED
    assert client.code(wire.DELETE, wire.path_version("/app/b")) == 0
    assert usage(client, "/app") == b"count=2,bytes=9"


def test_quotas_only_count_unless_enforced(client: Client) -> None:
    client.create("/app")
    set_quota(client, "/app", b"count=1,bytes=1=;byteHardLimit=1;countHardLimit=1")
    client.create("/app/a", b"12345678")
    assert usage(client, "/app") == b"count=2,bytes=8"


def test_odd_quota_texts_do_no_harm(machine: Machine, client: Client) -> None:
    machine = Machine(enforce_quota=True)
    client = machine.connect()
    client.create("/app")
    set_quota(client, "/app", b"what=ever,count=x;;byteHardLimit=")
    client.value(wire.SET_DATA, wire.set_data("/zookeeper/quota/app/zookeeper_stats", None))
    client.create("/app/a", b"1")
    assert usage(client, "/app") == b"count=2,bytes=1"
    client.create("/zookeeper/quota/zookeeper_limits", b"countHardLimit=0")
    client.create("/zookeeper/quota/zookeeper_stats", b"")
    client.create("/app/b")


# ------------------------------------------------------------------ limits


def test_connections_per_address() -> None:
    machine = Machine(max_client_cnxns=2)
    first = machine.plain("10.0.0.1")
    assert machine.accept("10.0.0.1") is not None
    assert machine.accept("10.0.0.1") is None
    assert machine.accept("10.0.0.2") is not None
    first.drop()
    assert machine.accept("10.0.0.1") is not None
    assert machine.server.stats.connection_rejected == 1
    assert len(machine.server.cnxns_per_address) == 2
    for client in list(machine.clients.values()):
        client.drop()
    assert machine.server.cnxns_per_address == {}


def test_connections_in_all() -> None:
    machine = Machine(max_cnxns=2, max_client_cnxns=0)
    assert machine.accept("10.0.0.1") and machine.accept("10.0.0.2")
    assert machine.accept("10.0.0.3") is None


def test_jute_maxbuffer_is_exact() -> None:
    machine = Machine(jute_max_buffer_bytes=1000)
    client = machine.connect()
    client.create("/a")
    room = 1000 - 8 - len(wire.set_data("/a", b""))
    assert client.code(wire.SET_DATA, wire.set_data("/a", bytes(room))) == 0
    # A reply may be longer.
    assert len(client.value(wire.GET_DATA, wire.path_watch("/a"))[0]) == room
    client.send(wire.SET_DATA, wire.set_data("/a", bytes(room + 1)))
    machine.flush()
    assert client.closed and not client.inbox
    assert len(machine.tree.nodes["/a"].data or b"") == room


@pytest.mark.parametrize("length", [0, 7, -1, 1001, 0x7FFFFFFF])
def test_impossible_lengths_close_at_once(length: int) -> None:
    machine = Machine(jute_max_buffer_bytes=1000)
    client = machine.connect()
    client.send(wire.CREATE, wire.create("/a"))
    client.feed(wire.int32(length))
    machine.settle()
    assert not client.closed, "what came before is answered first"
    machine.flush()
    assert client.closed
    assert [reply.err for reply in client.replies()] == [0]


def test_a_client_that_does_not_read_is_held(machine: Machine, client: Client) -> None:
    client.create("/big", bytes(100_000))
    client.reads = False
    for _ in range(1000):
        client.send(wire.GET_DATA, wire.path_watch("/big"))
        machine.settle()
        assert len(client.cnxn.out) <= MAX_OUT_BYTES + 101_000
        assert len(client.cnxn.rest) <= 64
    assert client.cnxn.held
    taken = len(client.inbox)
    assert taken <= SOCKET_BUFFER_BYTES + MAX_OUT_BYTES + 200_000
    # Others are served meanwhile.
    assert machine.connect().code(wire.EXISTS, wire.path_watch("/big")) == 0
    client.read_again()
    machine.flush()
    assert len(client.replies()) == 1000
    assert not client.cnxn.held


def test_one_chunk_cannot_produce_replies_without_end(machine: Machine, client: Client) -> None:
    """A getData is 20 bytes, its reply may be a megabyte."""
    client.create("/big", bytes(100_000))
    client.reads = False
    frame = client.frame(wire.GET_DATA, wire.path_watch("/big"), 1)
    client.feed(frame * 1000)
    assert len(client.cnxn.out) <= MAX_OUT_BYTES + 101_000
    machine.settle()
    assert len(client.inbox) <= SOCKET_BUFFER_BYTES + 2 * MAX_OUT_BYTES + 202_000
    client.read_again()
    client.reads = True
    machine.flush()
    assert len(client.replies()) == 1000


@pytest.fixture
def big(machine: Machine, client: Client) -> bytes:
    """A read whose reply is a megabyte."""
    client.create("/big", bytes(1_000_000))
    return client.frame(wire.GET_DATA, wire.path_watch("/big"), 9)


def test_reads_behind_a_write_wait_for_room(machine: Machine, client: Client, big: bytes) -> None:
    client.reads = False
    client.send(wire.SET_DATA, wire.set_data("/"))
    client.feed(big * 90)
    client.send(99)  # closes, in its turn
    machine.durable()
    assert len(client.inbox) + len(client.cnxn.out) <= MAX_OUT_BYTES + 2_000_000
    machine.connect().value(wire.SET_DATA, wire.set_data("/"))
    assert not client.closed
    client.read_again()
    replies = client.replies()
    assert [reply.err for reply in replies] == [0] * 91 + [-6]
    assert client.closed


def test_reads_between_writes_cannot_wait(machine: Machine, client: Client, big: bytes) -> None:
    """They must not see the second write; so there is an end to how many there may be."""
    client.send(wire.SET_DATA, wire.set_data("/"))
    client.feed(big * 60)
    client.send(wire.SET_DATA, wire.set_data("/big", b"small"))
    machine.flush()
    replies = client.replies()
    assert len(replies) == 62
    assert {len(reply.body) for reply in replies[1:61]} == {1_000_072}

    client.send(wire.SET_DATA, wire.set_data("/big", bytes(1_000_000)))
    client.feed(big * 90)
    client.send(wire.SET_DATA, wire.set_data("/big", b"small"))
    machine.flush()
    assert client.closed and not client.inbox
    data, _ = machine.connect().value(wire.GET_DATA, wire.path_watch("/big"))
    assert data == b"small"


# ------------------------------------------------------------------ events


def test_events_are_for_those_who_may_read(machine: Machine, client: Client) -> None:
    other = machine.connect()
    client.call(wire.AUTH, wire.auth("digest", b"u:p"))
    client.create("/a")
    for watcher in (client, other):
        watcher.value(wire.ADD_WATCH, wire.path_type("/a", 1))
        watcher.value(wire.GET_DATA, wire.path_watch("/a", True))
    client.value(wire.SET_ACL, wire.set_acl("/a", [(31, "auth", None)]))
    client.value(wire.SET_DATA, wire.set_data("/a"))
    assert len(client.events) == 1
    assert other.replies() == []
    # Who has learned the password since is told of what happens from now on.
    other.call(wire.AUTH, wire.auth("digest", b"u:p"))
    client.value(wire.SET_DATA, wire.set_data("/a"))
    assert [reply.is_event for reply in other.replies()] == [True]


def test_watches_end_with_their_connection(machine: Machine, client: Client) -> None:
    client.value(wire.GET_CHILDREN, wire.path_watch("/", True))
    client.value(wire.ADD_WATCH, wire.path_type("/", 0))
    assert machine.tree.data_watches.size + machine.tree.child_watches.size == 2
    client.drop()
    assert machine.tree.data_watches.size + machine.tree.child_watches.size == 0
    machine.connect().create("/a")


def test_a_filtered_event_is_quiet(machine: Machine, client: Client) -> None:
    """No byte, not even an empty frame, for a client that may not read the node."""
    client.create("/a")
    other = machine.connect()
    other.value(wire.EXISTS, wire.path_watch("/a", True))
    client.value(wire.SET_ACL, wire.set_acl("/a", [(31, "digest", "a:b")]))
    client.call(wire.DELETE, wire.path_version("/a"))
    assert other.replies() == []
    assert machine.tree.data_watches.size == 0, "it is used up all the same"
