"""The order that clients rely on: of replies within a session, of writes, reads and events."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.machine import Client, Machine
from tests.support import wire
from tests.support.rawclient import digest_id


def xids(client: Client) -> list[int]:
    return [reply.xid for reply in client.replies()]


def test_nothing_is_answered_before_it_is_durable(machine: Machine, client: Client) -> None:
    client.send(wire.CREATE, wire.create("/a"))
    machine.settle()
    assert client.replies() == []
    assert "/a" not in machine.tree.nodes
    machine.durable()
    assert xids(client) == [1]


def test_replies_come_in_the_order_of_requests(machine: Machine, client: Client) -> None:
    """Whatever waits, fails or needs no disk: behind a write everything waits for it."""
    client.send(wire.CREATE, wire.create("/a"))
    client.send(wire.PING)
    client.send(wire.AUTH, wire.auth("digest", b"u:p"))
    client.send(wire.CREATE, wire.create("/missing/child"))  # an error with a txn
    client.send(wire.SET_DATA, b"\xff")  # an error without one
    client.send(wire.GET_DATA, wire.path_watch("/none"))  # a read that fails
    client.send(wire.SASL, wire.buffer(b"token"))
    client.send(wire.SET_WATCHES, wire.set_watches(0, [], [], []))
    client.send(wire.DELETE, wire.path_version("/a"))
    client.send(wire.WHO_AM_I)
    machine.settle()
    assert client.replies() == []
    machine.flush()
    replies = client.replies()
    assert [reply.xid for reply in replies] == [1, -2, -4, 2, 3, 4, 5, -8, 6, 7]
    assert [reply.err for reply in replies] == [
        0, 0, 0, wire.NO_NODE, wire.MARSHALLING, wire.NO_NODE, 0, 0, 0, 0,
    ]  # fmt: skip


def test_replies_come_as_far_as_the_disk_is(machine: Machine, client: Client) -> None:
    """Group commit: each call of `durable` answers what it covers, and the reads behind it."""
    zxid = machine.zab.last_zxid
    for name in "abc":
        client.send(wire.CREATE, wire.create(f"/{name}"))
        client.send(wire.EXISTS, wire.path_watch(f"/{name}"))
    machine.settle()
    machine.durable(zxid + 1)
    assert xids(client) == [1, 2]
    machine.durable(zxid + 3)
    assert xids(client) == [3, 4, 5, 6]


def test_a_read_sees_the_write_before_it(machine: Machine, client: Client) -> None:
    client.send(wire.CREATE, wire.create("/a", b"1"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    client.send(wire.SET_DATA, wire.set_data("/a", b"2"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    client.send(wire.SYNC, wire.string("/a"))
    client.send(wire.GET_CHILDREN, wire.path_watch("/"))
    client.send(wire.DELETE, wire.path_version("/a"))
    client.send(wire.EXISTS, wire.path_watch("/a"))
    machine.flush()
    replies = client.replies()
    assert replies[1].value(wire.GET_DATA)[0] == b"1"
    assert replies[3].value(wire.GET_DATA)[0] == b"2"
    assert "a" in replies[5].value(wire.GET_CHILDREN)
    assert replies[7].err == wire.NO_NODE
    zxids = [reply.zxid for reply in replies]
    assert zxids == sorted(zxids)


def test_others_neither_wait_nor_see_it_early(machine: Machine, client: Client) -> None:
    other = machine.connect()
    client.send(wire.CREATE, wire.create("/a"))
    client.send(wire.PING)
    other.send(wire.EXISTS, wire.path_watch("/a"))
    other.send(wire.PING)
    other.send(wire.GET_CHILDREN, wire.path_watch("/"))
    machine.settle()
    replies = other.replies()
    assert [reply.err for reply in replies] == [wire.NO_NODE, 0, 0]
    assert replies[2].value(wire.GET_CHILDREN) == ["zookeeper"]
    assert client.replies() == []
    machine.flush()
    assert other.code(wire.EXISTS, wire.path_watch("/a")) == 0


def test_no_reply_shows_a_zxid_that_is_not_durable(machine: Machine, client: Client) -> None:
    other = machine.connect()
    durable = machine.zab.committed_zxid
    client.send(wire.CREATE, wire.create("/a"))
    for op, body in [(wire.PING, b""), (wire.GET_DATA, b""), (wire.SYNC, wire.string("/"))]:
        other.send(op, body)
    assert {reply.zxid for reply in other.replies()} == {durable}


def test_an_event_precedes_every_reply_that_shows_the_change(machine: Machine) -> None:
    writer, watcher = machine.connect(), machine.connect()
    writer.create("/a", b"old")
    watcher.value(wire.GET_DATA, wire.path_watch("/a", True))
    writer.value(wire.GET_DATA, wire.path_watch("/a", True))
    writer.send(wire.SET_DATA, wire.set_data("/a", b"new"))
    watcher.send(wire.CREATE, wire.create("/b"))  # so that its read waits for the same batch
    watcher.send(wire.GET_DATA, wire.path_watch("/a"))
    machine.flush()
    for client in (writer, watcher):
        replies = client.replies()
        assert replies[0].is_event
        assert not any(reply.is_event for reply in replies[1:])
    assert replies[2].value(wire.GET_DATA)[0] == b"new"
    (event,) = watcher.events
    assert (event.type, event.path, event.zxid) == (
        wire.NODE_DATA_CHANGED,
        "/a",
        replies[1].zxid - 1,
    )


def test_the_reply_to_a_watch_precedes_its_event(machine: Machine, client: Client) -> None:
    other = machine.connect()
    other.create("/a")
    other.send(wire.SET_DATA, wire.set_data("/a"))
    client.send(wire.CREATE, wire.create("/b"))
    client.send(wire.GET_DATA, wire.path_watch("/a", True))
    machine.flush()
    # The change was before the read in zxid order: the watch waits for the next one.
    assert [reply.is_event for reply in client.replies()] == [False, False]
    other.replies()
    other.value(wire.SET_DATA, wire.set_data("/a"))
    assert [reply.is_event for reply in client.replies()] == [True]


def test_catching_up_precedes_its_reply(machine: Machine, client: Client) -> None:
    client.create("/a")
    client.send(wire.SET_WATCHES, wire.set_watches(0, ["/a", "/gone"], ["/a"], ["/gone"]))
    replies = client.replies()
    assert [reply.is_event for reply in replies] == [True, True, True, True, False]
    assert {reply.zxid for reply in replies[:4]} == {-1}


def test_ids_count_from_where_they_were_given(machine: Machine, client: Client) -> None:
    """A request carries the ids of its receipt, though it is executed later."""
    acl = [(wire.ALL, "digest", digest_id("u:p"))]
    client.create("/a", acl=acl)
    client.send(wire.CREATE, wire.create("/b"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    client.send(wire.AUTH, wire.auth("digest", b"u:p"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0, wire.NO_AUTH, 0, 0]


def test_a_close_is_answered_last(machine: Machine, client: Client) -> None:
    client.create("/e", flags=wire.EPHEMERAL)
    client.value(wire.EXISTS, wire.path_watch("/e", True))
    client.send(wire.CREATE, wire.create("/a"))
    client.send(wire.PING)
    client.send(wire.CLOSE_SESSION)
    client.send(wire.CREATE, wire.create("/never"))
    machine.flush()
    replies = client.replies()
    assert [reply.xid for reply in replies] == [3, -2, -1, 4]
    assert client.closed
    assert "/never" not in machine.tree.nodes and "/e" not in machine.tree.nodes


def test_an_error_that_closes_waits_for_its_turn(machine: Machine, client: Client) -> None:
    client.send(wire.CREATE, wire.create("/a"))
    client.send(99)
    client.send(wire.CREATE, wire.create("/never"))
    machine.settle()
    assert not client.closed
    machine.flush()
    assert [(reply.xid, reply.err) for reply in client.replies()] == [(1, 0), (2, -6)]
    assert client.closed
    assert "/never" not in machine.tree.nodes


def test_a_connection_that_breaks_with_writes_in_flight(machine: Machine, client: Client) -> None:
    other = machine.connect()
    assert other.code(wire.EXISTS, wire.path_watch("/a", True)) == wire.NO_NODE
    client.send(wire.CREATE, wire.create("/a"))
    client.drop()
    machine.flush()
    # Nobody is answered, but what was proposed happens.
    assert [reply.is_event for reply in other.replies()] == [True]
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session)
    assert again.code(wire.EXISTS, wire.path_watch("/a")) == 0


OPS = {
    "create": (wire.CREATE, wire.create("/n", flags=wire.SEQUENTIAL)),
    "fail": (wire.DELETE, wire.path_version("/none")),
    "set": (wire.SET_DATA, wire.set_data("/", b"x")),
    "multi": (wire.MULTI, wire.multi([(wire.SET_DATA, wire.set_data("/"))])),
    "bad": (wire.CREATE, b"\0"),
    "ping": (wire.PING, b""),
    "get": (wire.GET_DATA, wire.path_watch("/")),
    "none": (wire.EXISTS, wire.path_watch("/none")),
    "auth": (wire.AUTH, wire.auth("digest", b"u:p")),
    "sync": (wire.SYNC, wire.string("/")),
    "watches": (wire.SET_WATCHES, wire.set_watches(1 << 40, [], ["/none"], [])),
}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 2), st.sampled_from(sorted(OPS))),
            st.tuples(st.just(3), st.integers(0, 3)),
        ),
        max_size=60,
    ),
    st.integers(0, 1 << 32),
)
def test_any_order(steps: list[tuple[int, str | int]], seed: int) -> None:
    """Three sessions, any requests, the disk at any pace, chunks of any size."""
    machine = Machine()
    clients = [machine.connect() for _ in range(3)]
    sent: list[list[int]] = [[], [], []]
    got: list[list[int]] = [[], [], []]
    last_zxid = [0, 0, 0]
    dice = random.Random(seed)

    def collect() -> None:
        for number, client in enumerate(clients):
            for reply in client.replies():
                got[number].append(reply.xid)
                assert reply.zxid <= machine.zab.committed_zxid
                if reply.xid > 0:
                    assert reply.zxid >= last_zxid[number]
                    last_zxid[number] = reply.zxid

    for who, what in steps:
        if isinstance(what, int):
            ahead = machine.zab.last_zxid - machine.zab.committed_zxid
            machine.durable(machine.zab.committed_zxid + min(what, ahead))
        else:
            op, body = OPS[what]
            client = clients[who]
            xid = client.next_xid(op)
            sent[who].append(-2 if op == wire.PING else xid)
            data = client.frame(op, body, xid)
            while data:
                size = dice.randint(1, len(data))
                client.feed(data[:size])
                data = data[size:]
            if not any(type(entry) is not tuple for entry in client.cnxn.pending):
                # No write of its own in flight: nothing may keep it waiting.
                collect()
                assert got[who] == sent[who]
        collect()
        for number in range(3):
            assert got[number] == sent[number][: len(got[number])]
    machine.flush()
    collect()
    assert got == sent


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11, 13, 64, 1000])
def test_chunks_of_any_size(machine: Machine, size: int) -> None:
    client = machine.plain()
    stream = wire.buffer(
        wire.int32(0) + wire.int64(0) + wire.int32(10_000) + wire.int64(0) + wire.buffer(bytes(16))
    )
    for number in range(20):
        stream += client.frame(wire.CREATE, wire.create(f"/{number}", b"x" * number), number)
        stream += client.frame(wire.GET_DATA, wire.path_watch(f"/{number}"), 100 + number)
    for start in range(0, len(stream), size):
        client.feed(stream[start : start + size])
        if start % 7 == 0:
            machine.flush()
    machine.flush()
    frames = client.frames()
    assert len(frames) == 41
