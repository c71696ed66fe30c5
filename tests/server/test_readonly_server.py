"""Servers without a leader: one that only answers four letter words, and one that serves reads."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.server.machine import START_MS, WALL_MS, Client, Machine
from tests.support import wire

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.tree import DataTree
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.idle_server import IdleZooKeeperServer
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer
from zkpy.server.role import Role
from zkpy.server.settings import make_config
from zkpy.session.auth import IPAuthenticationProvider, ProviderRegistry

GLOBAL_SESSION = 0x1_0000_0000
NOT_READ_ONLY = -119


class RoleLess(Machine):
    """A member without a leader; its tree has a node and a session of the last role."""

    def __init__(self, kind: type[IdleZooKeeperServer], **settings: Any) -> None:
        settings.setdefault("four_letter_words", frozenset("*"))
        super().__init__(**settings)
        self.config = make_config(data_dir="/data", my_id=3, **settings)
        self.tree = DataTree()
        self.tree.create_node("/a", b"old", (), 0, -1, 7, 0)
        self.tree.create_node("/e", b"", (), GLOBAL_SESSION, -1, 8, 0)
        self.tree.sessions[GLOBAL_SESSION] = 10_000
        self.tree.last_processed_zxid = 8
        registry = ProviderRegistry([IPAuthenticationProvider()])
        self.server = kind(self.config, self.tree, registry, now_ms=START_MS, wall_ms=WALL_MS)

    def flush(self) -> None:
        self.settle()
        assert self.server.zab.take_appended() == []


@pytest.fixture
def machine() -> RoleLess:
    return RoleLess(ReadOnlyZooKeeperServer, local_sessions_enabled=True)


@pytest.fixture
def client(machine: RoleLess) -> Client:
    client = machine.plain()
    client.connect(read_only=True)
    return client


# ---------------------------------------------------------------------- idle


def test_an_idle_server_answers_words_and_hangs_up_on_clients() -> None:
    machine = RoleLess(IdleZooKeeperServer, read_only_mode_enabled=True)
    text = "This ZooKeeper instance is not currently serving requests\n"
    assert machine.four_letter_word("srvr") == text
    assert machine.four_letter_word("mntr") == text
    assert machine.four_letter_word("ruok") == "imok"
    assert machine.four_letter_word("isro") == "null"
    for read_only in (None, False, True):
        client = machine.plain()
        client.connect(read_only=read_only)
        assert client.closed
        assert client.session is None
    counters = machine.server.stats.counters
    assert counters["cnxn_closed_without_zk_server_running"] == 3


def test_an_idle_server_closes_silent_connections() -> None:
    machine = RoleLess(IdleZooKeeperServer)
    client = machine.plain()
    machine.advance(30_000)
    assert client.closed
    assert machine.server.next_timer_ms() > machine.server.now_ms


def test_an_idle_servers_tree_goes_on_counting_its_digest() -> None:
    """The next role applies txns to it before it has a server of its own."""
    machine = RoleLess(IdleZooKeeperServer)
    machine.tree.set_data("/a", b"new", 1, 9, 0)
    assert machine.tree.digest == tree_digest(machine.tree.nodes)


def test_a_server_without_a_role_makes_no_txns(machine: RoleLess) -> None:
    with pytest.raises(AssertionError):
        machine.server.submit(0, OpCode.CREATE_SESSION, b"", None)
    with pytest.raises(AssertionError):
        machine.server.zab.propose(9, b"")
    machine.server.durable(8)


# ---------------------------------------------------------------------- read-only: sessions


def test_a_client_that_takes_read_only_gets_a_local_session(
    machine: RoleLess, client: Client
) -> None:
    assert client.session is not None
    assert client.session.read_only is True
    assert client.session_id >> 56 == 3
    assert client.session_id not in machine.tree.sessions


@pytest.mark.parametrize("read_only", [None, False])
def test_a_client_that_wants_to_write_is_turned_away(
    machine: RoleLess, read_only: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = machine.plain()
    client.connect(read_only=read_only)
    assert client.closed
    assert not client.inbox
    assert "Refusing session request for not-read-only client " in caplog.text


def test_without_local_sessions_the_request_is_refused_as_no_read() -> None:
    """A reply header where a ConnectResponse should be; and nothing more is read."""
    machine = RoleLess(ReadOnlyZooKeeperServer)
    client = machine.plain()
    client.connect(read_only=True, flush=False)
    (reply,) = client.replies()
    assert (reply.xid, reply.zxid, reply.err, reply.body) == (0, 8, NOT_READ_ONLY, b"")
    client.send(wire.PING)
    assert client.replies() == []
    assert not client.closed
    machine.advance(30_000)
    assert client.closed, "not for ever"


def test_a_global_session_is_turned_away(machine: RoleLess) -> None:
    client = machine.plain()
    client.connect(session_id=GLOBAL_SESSION, read_only=True)
    assert client.closed
    assert client.session is None


def test_a_local_session_can_be_resumed_here(machine: RoleLess, client: Client) -> None:
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session, read_only=True)
    assert again.session is not None
    assert again.session.session_id == client.session_id
    assert client.closed
    stranger = machine.plain()
    unknown = client.session._replace(session_id=77)
    stranger.resume(unknown, read_only=True)
    assert stranger.session is None or stranger.session.session_id == 0
    assert stranger.closed


def test_a_client_that_is_ahead_is_turned_away(
    machine: RoleLess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = machine.plain()
    client.connect(last_zxid_seen=9, read_only=True)
    assert client.closed
    assert "Refusing session(0x0) request for client " in caplog.text
    assert " as it has seen zxid 0x9 our last zxid is 0x" in caplog.text


def test_local_sessions_expire(machine: RoleLess, client: Client) -> None:
    silent = machine.plain()
    silent.connect(read_only=True)
    for _ in range(4):
        machine.advance(5_000)
        client.call(wire.PING)
    assert silent.closed
    assert not client.closed
    assert machine.server.stats.stale_sessions_expired == 1


def test_closing_a_local_session(machine: RoleLess, client: Client) -> None:
    reply = client.call(wire.CLOSE_SESSION)
    assert (reply.err, reply.zxid, reply.body) == (0, 8, b"")
    assert client.closed
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session, read_only=True)
    assert again.closed


# ---------------------------------------------------------------------- read-only: requests

REFUSED = {
    OpCode.SYNC: wire.string("/"),
    OpCode.CREATE: wire.create("/w"),
    OpCode.CREATE2: wire.create("/w"),
    OpCode.CREATE_TTL: wire.create_ttl("/w", ttl_ms=1000),
    OpCode.CREATE_CONTAINER: wire.create("/w", flags=4),
    OpCode.DELETE: wire.path_version("/a"),
    OpCode.SET_DATA: wire.set_data("/a"),
    OpCode.SET_ACL: wire.set_acl("/a", [(31, "world", "anyone")]),
    OpCode.RECONFIG: wire.reconfig(None, None, None),
    OpCode.MULTI: wire.multi([(OpCode.DELETE, wire.path_version("/a"))]),
}


@pytest.mark.parametrize("op", REFUSED)
def test_writes_are_refused(machine: RoleLess, client: Client, op: int) -> None:
    before = dict(machine.tree.nodes)
    reply = client.call(op, REFUSED[op])
    assert (reply.err, reply.zxid, reply.body) == (NOT_READ_ONLY, 8, b"")
    assert machine.tree.nodes == before
    assert machine.tree.last_processed_zxid == 8


def test_reads_and_watches_are_served(machine: RoleLess, client: Client) -> None:
    assert client.value(wire.GET_DATA, wire.path_watch("/a", True))[0] == b"old"
    assert client.value(wire.GET_CHILDREN, wire.path_watch("/")) == ["zookeeper", "a", "e"]
    assert client.code(wire.EXISTS, wire.path_watch("/none", True)) == wire.NO_NODE
    assert client.value(wire.GET_EPHEMERALS, wire.string("/")) == []
    assert client.code(wire.SET_WATCHES, wire.set_watches(8, ["/a"], [], [])) == 0
    assert client.call(wire.PING).zxid == 8
    assert client.code(wire.AUTH, wire.auth("ip", b"")) == 0


def test_the_words_say_that_it_is_read_only(machine: RoleLess, client: Client) -> None:
    class ReadOnly(Role):
        def read_only(self) -> bool:
            return machine.server.read_only

        def mode(self) -> str:
            return "read-only"

    machine.server.role = ReadOnly()
    assert machine.four_letter_word("isro") == "ro"
    lines = machine.four_letter_word("srvr").split("\n")
    assert lines[1] == "READ-ONLY mode; serving only read-only clients"
    assert "Mode: read-only" in lines
