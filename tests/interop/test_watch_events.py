"""Watches and the order of events and replies, against Apache ZooKeeper and zkpy alike.

Sections 3.5, 7 and 15 of the client protocol reference.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tests.support import wire
from tests.support.oracle import Server
from tests.support.rawclient import RawClient, digest_id, make, open_session, zxid_now
from tests.support.wire import (
    ADD_WATCH,
    ALL,
    AUTH,
    BAD_VERSION,
    CHECK_WATCHES,
    CLOSE_SESSION,
    CREATE,
    DELETE,
    EXISTS,
    GET_CHILDREN,
    GET_CHILDREN2,
    GET_DATA,
    GET_EPHEMERALS,
    MULTI,
    MULTI_END,
    NO_NODE,
    NO_WATCHER,
    NODE_CHILDREN_CHANGED,
    NODE_CREATED,
    NODE_DATA_CHANGED,
    NODE_DELETED,
    OPEN_ACL,
    PING,
    REMOVE_WATCHES,
    SET_ACL,
    SET_DATA,
    SET_WATCHES,
    SET_WATCHES2,
    SYNC,
    WHO_AM_I,
    Acl,
    Event,
)  # fmt: skip

pytestmark = pytest.mark.interop


# Sections 7 and 15: watches and order


def test_event_frame(client: RawClient, other: RawClient, base: str) -> None:
    """B.3: NodeDataChanged, with the zxid of its txn."""
    client.value(GET_DATA, wire.path_watch(base, True))
    zxid = other.call(SET_DATA, wire.set_data(base, b"x")).zxid
    expected = struct.pack(">iqi", -1, zxid, 0) + wire.int32(3) + wire.int32(3) + wire.string(base)
    assert client.recv_frame() == expected


def test_own_event_before_own_reply(client: RawClient, base: str) -> None:
    """15.1.3, also when the write and a read are pipelined behind the registration."""
    get = client.send(GET_DATA, wire.path_watch(base, True))
    put = client.send(SET_DATA, wire.set_data(base, b"x"))
    again = client.send(GET_DATA, wire.path_watch(base))
    assert [client.recv().xid for _ in range(4)] == [get, -1, put, again]


def test_event_before_the_reply_that_shows_the_change(
    client: RawClient, other: RawClient, base: str
) -> None:
    for number in range(20):
        data = str(number).encode()
        client.value(GET_DATA, wire.path_watch(base, True))
        other.send(SET_DATA, wire.set_data(base, data))
        while client.value(GET_DATA, wire.path_watch(base))[0] != data:
            assert len(client.events) == number
        assert len(client.events) == number + 1
        other.recv()


def test_fifo_replies(client: RawClient, base: str) -> None:
    """15.1.1: reads, writes, pings and errors come back in the order they were sent."""
    operations: list[tuple[int, bytes]] = [
        (CREATE, wire.create(f"{base}/a")),
        (EXISTS, wire.path_watch(f"{base}/a")),
        (PING, b""),
        (SET_DATA, wire.set_data(f"{base}/a", b"1")),
        (GET_DATA, wire.path_watch(f"{base}/a")),
        (DELETE, b""),
        (SYNC, wire.string("/")),
        (DELETE, wire.path_version(f"{base}/a")),
        (EXISTS, wire.path_watch(f"{base}/a")),
        (WHO_AM_I, b""),
        (SET_WATCHES, wire.set_watches(0, [], [], [])),
        (MULTI, MULTI_END),
        (GET_EPHEMERALS, wire.string("/")),
    ]
    xids = [client.send(op, body) for op, body in operations * 10]
    assert [client.recv().xid for _ in xids] == xids


def test_read_your_writes_in_a_pipeline(client: RawClient, base: str) -> None:
    for number in range(50):
        client.send(SET_DATA, wire.set_data(base, str(number).encode()))
        client.send(GET_DATA, wire.path_watch(base))
    for number in range(50):
        assert client.recv().err == 0
        assert client.recv().value(GET_DATA)[0] == str(number).encode()


def test_auth_takes_effect_at_receipt(client: RawClient, base: str) -> None:
    """3.5.5: a request behind the auth packet in the pipeline already has the new id."""
    acl: list[Acl] = [(ALL, "digest", digest_id("bob:pw"))]
    client.value(CREATE, wire.create(f"{base}/a", b"secret", acl=acl))
    client.send(AUTH, wire.auth("digest", b"bob:pw"))
    client.send(GET_DATA, wire.path_watch(f"{base}/a"))
    assert client.recv().xid == -4
    assert client.recv().value(GET_DATA)[0] == b"secret"


def event(type_: int, path: str, zxid: int) -> Event:
    return Event(type_, 3, path, zxid)


WATCHES: list[tuple[str, int, Any, list[int]]] = [
    # registered by, opcode, second field, types seen: created, changed, children, deleted
    ("getData", GET_DATA, True, [NODE_DATA_CHANGED]),
    ("exists", EXISTS, True, [NODE_DATA_CHANGED]),
    ("getChildren", GET_CHILDREN, True, [NODE_CHILDREN_CHANGED]),
    ("getChildren2", GET_CHILDREN2, True, [NODE_CHILDREN_CHANGED]),
    (
        "persistent",
        ADD_WATCH,
        0,
        [NODE_DATA_CHANGED, NODE_CHILDREN_CHANGED, NODE_CHILDREN_CHANGED, NODE_DELETED],
    ),
]


@pytest.mark.parametrize(("how", "op", "field", "types"), WATCHES, ids=[w[0] for w in WATCHES])
def test_watch_kinds(
    client: RawClient, other: RawClient, base: str, how: str, op: int, field: Any, types: list[int]
) -> None:
    path = f"{base}/w"
    make(client, path)
    body = wire.path_type(path, field) if op == ADD_WATCH else wire.path_watch(path, field)
    client.value(op, body)
    other.value(SET_DATA, wire.set_data(path))
    make(other, f"{path}/c")
    other.value(SET_DATA, wire.set_data(f"{path}/c"))
    other.value(DELETE, wire.path_version(f"{path}/c"))
    other.value(DELETE, wire.path_version(path))
    client.call(PING)
    assert [(seen.type, seen.path) for seen in client.events] == [(type_, path) for type_ in types]


def test_recursive_watch(client: RawClient, other: RawClient, base: str) -> None:
    client.value(ADD_WATCH, wire.path_type(base, 1))
    zxids = [
        other.call(CREATE, wire.create(f"{base}/a")).zxid,
        other.call(CREATE, wire.create(f"{base}/a/b")).zxid,
        other.call(SET_DATA, wire.set_data(f"{base}/a/b")).zxid,
        other.call(DELETE, wire.path_version(f"{base}/a/b")).zxid,
        other.call(SET_DATA, wire.set_data(base)).zxid,
    ]
    client.call(PING)
    assert client.events == [
        event(NODE_CREATED, f"{base}/a", zxids[0]),
        event(NODE_CREATED, f"{base}/a/b", zxids[1]),
        event(NODE_DATA_CHANGED, f"{base}/a/b", zxids[2]),
        event(NODE_DELETED, f"{base}/a/b", zxids[3]),
        event(NODE_DATA_CHANGED, base, zxids[4]),
    ]


def test_add_watch_answer(client: RawClient, base: str) -> None:
    """B.3: an ErrorResponse of 0; the path may be missing or odd."""
    for path in (base, "/nope", "odd", "/a//b/"):
        reply = client.call(ADD_WATCH, wire.path_type(path, 0))
        assert (reply.err, reply.body) == (0, bytes(4))


def test_watch_on_a_missing_node(client: RawClient, other: RawClient, base: str) -> None:
    """15.1.11 and 12: exists arms, getData and getChildren do not."""
    assert client.call(EXISTS, wire.path_watch(f"{base}/e", True)).err == NO_NODE
    assert client.call(GET_DATA, wire.path_watch(f"{base}/d", True)).err == NO_NODE
    assert client.call(GET_CHILDREN, wire.path_watch(f"{base}/c", True)).err == NO_NODE
    make(other, f"{base}/c", f"{base}/d", f"{base}/e")
    client.call(PING)
    assert [(seen.type, seen.path) for seen in client.events] == [(NODE_CREATED, f"{base}/e")]


def test_delete_fires_once_for_data_and_child_watch(
    client: RawClient, other: RawClient, base: str
) -> None:
    """15.1.13; and the child watch of the parent comes after it."""
    make(client, f"{base}/x")
    client.value(GET_DATA, wire.path_watch(f"{base}/x", True))
    client.value(GET_CHILDREN, wire.path_watch(f"{base}/x", True))
    client.value(GET_CHILDREN, wire.path_watch(base, True))
    zxid = other.call(DELETE, wire.path_version(f"{base}/x")).zxid
    client.call(PING)
    assert client.events == [
        event(NODE_DELETED, f"{base}/x", zxid),
        event(NODE_CHILDREN_CHANGED, base, zxid),
    ]


def test_create_fires_node_then_parent(client: RawClient, other: RawClient, base: str) -> None:
    client.call(EXISTS, wire.path_watch(f"{base}/x", True))
    client.value(GET_CHILDREN, wire.path_watch(base, True))
    client.value(GET_CHILDREN, wire.path_watch("/", True))
    zxid = other.call(CREATE, wire.create(f"{base}/x")).zxid
    top = f"/top-of-{base[1:]}"
    top_zxid = other.call(CREATE, wire.create(top)).zxid
    client.call(PING)
    assert client.events == [
        event(NODE_CREATED, f"{base}/x", zxid),
        event(NODE_CHILDREN_CHANGED, base, zxid),
        event(NODE_CHILDREN_CHANGED, "/", top_zxid),
    ]


def test_multi_events(client: RawClient, other: RawClient, base: str) -> None:
    """4.10: per sub-operation, in order, all with the one zxid, before the reply."""
    client.value(ADD_WATCH, wire.path_type(base, 0))
    client.value(ADD_WATCH, wire.path_type(base, 1))
    operations = [
        (CREATE, wire.create(f"{base}/a")),
        (SET_DATA, wire.set_data(base)),
        (SET_DATA, wire.set_data(f"{base}/a")),
        (DELETE, wire.path_version(f"{base}/a")),
    ]
    zxid = client.call(MULTI, wire.multi(operations)).zxid
    assert client.events == [
        event(NODE_CREATED, f"{base}/a", zxid),
        event(NODE_CHILDREN_CHANGED, base, zxid),
        event(NODE_DATA_CHANGED, base, zxid),
        event(NODE_DATA_CHANGED, f"{base}/a", zxid),
        event(NODE_DELETED, f"{base}/a", zxid),
        event(NODE_CHILDREN_CHANGED, base, zxid),
    ]


def test_no_event_for_set_acl_and_failures(client: RawClient, base: str) -> None:
    client.value(ADD_WATCH, wire.path_type(base, 0))
    client.value(SET_ACL, wire.set_acl(base, OPEN_ACL))
    assert client.call(SET_DATA, wire.set_data(base, b"", 9)).err == BAD_VERSION
    assert client.call(DELETE, wire.path_version(base, 9)).err == BAD_VERSION
    client.call(PING)
    assert client.events == []


def test_setting_the_same_data_fires(client: RawClient, base: str) -> None:
    """15.1.16"""
    client.value(SET_DATA, wire.set_data(base, b"same"))
    client.value(GET_DATA, wire.path_watch(base, True))
    assert client.value(SET_DATA, wire.set_data(base, b"same")).version == 2
    assert [seen.type for seen in client.events] == [NODE_DATA_CHANGED]


def test_events_are_filtered_by_acl(client: RawClient, other: RawClient, base: str) -> None:
    """7.5: without READ nothing is sent, but a standard watch is used up."""
    path = f"{base}/secret"
    other.call(AUTH, wire.auth("digest", b"bob:pw"))
    assert client.call(EXISTS, wire.path_watch(path, True)).err == NO_NODE
    client.value(ADD_WATCH, wire.path_type(base, 1))
    acl: list[Acl] = [(ALL, "digest", digest_id("bob:pw"))]
    other.value(CREATE, wire.create(path, acl=acl))
    other.value(SET_DATA, wire.set_data(path))
    client.call(PING)
    assert client.events == []
    client.call(AUTH, wire.auth("digest", b"bob:pw"))
    client.value(REMOVE_WATCHES, wire.path_type(base, 5))
    other.value(SET_DATA, wire.set_data(path))
    client.call(PING)
    assert client.events == [], "the exists watch was consumed by the hidden creation"


def test_remove_and_check_watches(client: RawClient, base: str) -> None:
    """7.6: each type removes its own modes only."""

    def has(type_: int) -> bool:
        reply = client.call(CHECK_WATCHES, wire.path_type(base, type_))
        assert reply.err in (0, NO_WATCHER)
        assert reply.body == b""
        return reply.err == 0

    client.value(GET_DATA, wire.path_watch(base, True))
    assert [has(type_) for type_ in (1, 2, 3, 4, 5)] == [False, True, True, False, False]
    client.value(GET_CHILDREN, wire.path_watch(base, True))
    client.value(ADD_WATCH, wire.path_type(base, 0))
    client.value(ADD_WATCH, wire.path_type(base, 1))
    assert [has(type_) for type_ in (1, 2, 3, 4, 5)] == [True, True, True, True, True]
    for type_ in (2, 1, 5):
        reply = client.call(REMOVE_WATCHES, wire.path_type(base, type_))
        assert (reply.err, reply.body) == (0, b"")
        assert client.call(REMOVE_WATCHES, wire.path_type(base, type_)).err == NO_WATCHER
    assert [has(type_) for type_ in (1, 2, 3, 4, 5)] == [False, False, True, True, False]
    client.value(SET_DATA, wire.set_data(base))
    assert [seen.type for seen in client.events] == [NODE_DATA_CHANGED]
    client.value(REMOVE_WATCHES, wire.path_type(base, 3))
    client.value(SET_DATA, wire.set_data(base))
    assert len(client.events) == 1


def test_set_watches(client: RawClient, other: RawClient, base: str) -> None:
    """7.7: catch-up events with zxid -1, in the order of the lists, before the reply."""
    make(other, f"{base}/old", f"{base}/new", f"{base}/kids")
    zxid = zxid_now(other)
    other.value(SET_DATA, wire.set_data(f"{base}/new"))
    make(other, f"{base}/kids/k")
    lists = (
        [f"{base}/old", f"{base}/new", f"{base}/gone"],
        [f"{base}/new", f"{base}/later"],
        [f"{base}/old", f"{base}/kids", f"{base}/gone"],
    )
    client.send(SET_WATCHES, wire.set_watches(zxid, *lists))
    reply = client.recv_reply()
    assert (reply.xid, reply.err, reply.body) == (-8, 0, b"")
    assert client.events == [
        event(NODE_DATA_CHANGED, f"{base}/new", -1),
        event(NODE_DELETED, f"{base}/gone", -1),
        event(NODE_CREATED, f"{base}/new", -1),
        event(NODE_CHILDREN_CHANGED, f"{base}/kids", -1),
        event(NODE_DELETED, f"{base}/gone", -1),
    ]
    client.events.clear()
    make(other, f"{base}/later", f"{base}/old/x")
    other.value(SET_DATA, wire.set_data(f"{base}/old"))
    client.call(PING)
    assert [(seen.type, seen.path) for seen in client.events] == [
        (NODE_CREATED, f"{base}/later"),
        (NODE_CHILDREN_CHANGED, f"{base}/old"),
        (NODE_DATA_CHANGED, f"{base}/old"),
    ]


def test_set_watches2(client: RawClient, other: RawClient, base: str) -> None:
    lists: list[list[str]] = [[], [], [], [base], [f"{base}/r"]]
    reply = client.call(SET_WATCHES2, wire.set_watches(0, *lists), xid=12)
    assert (reply.err, reply.body, client.events) == (0, b"", [])
    make(other, f"{base}/r")
    make(other, f"{base}/r/x")
    client.call(PING)
    assert [(seen.type, seen.path) for seen in client.events] == [
        (NODE_CREATED, f"{base}/r"),
        (NODE_CHILDREN_CHANGED, base),
        (NODE_CREATED, f"{base}/r/x"),
    ]


def test_watches_do_not_survive_the_connection(
    server: Server, client: RawClient, other: RawClient, base: str
) -> None:
    """15.1.24"""
    client.value(GET_DATA, wire.path_watch(base, True))
    client.value(ADD_WATCH, wire.path_type(base, 1))
    assert client.session is not None
    with RawClient(server.address) as again:
        again.connect(client.session.session_id, client.session.password)
        other.value(SET_DATA, wire.set_data(base))
        again.call(PING)
        assert again.events == []
        again.end_session()
    client.close()


def test_closing_session_sees_its_own_ephemerals_go(
    client: RawClient, other: RawClient, base: str
) -> None:
    make(client, f"{base}/e", flags=wire.EPHEMERAL)
    client.value(ADD_WATCH, wire.path_type(f"{base}/e", 0))
    other.value(GET_CHILDREN, wire.path_watch(base, True))
    zxid = client.call(CLOSE_SESSION).zxid
    assert client.events == [event(NODE_DELETED, f"{base}/e", zxid)]
    client.expect_close()
    other.call(PING)
    assert other.events == [event(NODE_CHILDREN_CHANGED, base, zxid)]
    client.close()


def test_expiry_deletes_ephemerals(server: Server, client: RawClient, base: str) -> None:
    with open_session(server.address, 1000) as dying:
        make(dying, f"{base}/e", flags=wire.EPHEMERAL)
        client.call(EXISTS, wire.path_watch(f"{base}/e", True))
        assert client.recv_event(6.0)[:3] == (NODE_DELETED, 3, f"{base}/e")
