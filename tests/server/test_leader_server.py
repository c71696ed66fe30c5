"""LeaderZooKeeperServer: requests, sessions and syncs of learners, beside the leader's own clients.

The learners are scripted; Leader and log are real, time and sockets are not.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from tests.quorum.leader_host import LeaderHost, Learner
from tests.server.machine import START_MS, WALL_MS, Client, Machine
from tests.support import wire

from zkpy.datatree.tree import DataTree
from zkpy.protocol import packets as p
from zkpy.protocol.errors import SessionExpired, SessionMoved
from zkpy.protocol.packets import encode_packet, encode_request, encode_revalidation, encode_touches
from zkpy.protocol.txns import ErrorTxn, decode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.committed_log import CommittedLog
from zkpy.server.leader_server import LeaderZooKeeperServer
from zkpy.server.settings import make_config
from zkpy.session.auth import (
    DigestAuthenticationProvider,
    IPAuthenticationProvider,
    ProviderRegistry,
)
from zkpy.session.password import password_of

SESSION = 0x0200_0000_0000_0001
TIMEOUT_MS = 6000


class TreeDatabase:
    """The little of a database that a leader asks for, around a tree."""

    def __init__(self) -> None:
        self.tree = DataTree()
        self.committed_log = CommittedLog(500)
        self.accepted_epoch = self.current_epoch = 0

    @property
    def last_zxid(self) -> int:
        return self.tree.last_processed_zxid

    @last_zxid.setter
    def last_zxid(self, zxid: int) -> None:
        self.tree.last_processed_zxid = zxid

    def write_accepted_epoch(self, epoch: int) -> None:
        self.accepted_epoch = epoch

    def write_current_epoch(self, epoch: int) -> None:
        self.current_epoch = epoch


class LeaderMachine(Machine):
    """A leader's server and two followers that acknowledge when `flush` is called."""

    def __init__(self, **settings: Any) -> None:
        database = TreeDatabase()
        self.host = LeaderHost(voters=3, database=database)
        self.two, self.three = self.host.established(2, 3)
        self.tree = database.tree
        self.config = make_config(data_dir="/data", my_id=1, **settings)
        self.leader = self.host.leader
        self.clients = {}
        self.server: LeaderZooKeeperServer = LeaderZooKeeperServer(
            self.config,
            self.tree,
            self.leader,
            ProviderRegistry([IPAuthenticationProvider(), DigestAuthenticationProvider()]),
            now_ms=START_MS,
            wall_ms=WALL_MS,
        )

    def settle(self) -> None:
        for _ in range(5):
            self.server.commit_until(self.leader.committed_zxid)
            self.server.take_inbox()
            self.server.complete_syncs()
            self.host.collect()
        super().settle()

    def flush(self) -> None:
        for _ in range(4):
            self.settle()
            zxid = self.leader.last_zxid
            self.leader.durable(zxid)
            if zxid > self.two.handler.acked:
                self.two.ack(zxid)
        self.settle()

    def answer_pings(self) -> None:
        for learner in (self.two, self.three):
            pings = [packet for packet in learner.packets if packet[0] == p.PING]
            learner.packets = [packet for packet in learner.packets if packet[0] != p.PING]
            for _ in pings:
                learner.send(p.PING, 0, b"")
        self.settle()

    def request(
        self, learner: Learner, op: int, body: bytes, xid: int = 1, session: int = SESSION
    ) -> Any:
        """Forward a request; the record of the txn that came of it."""
        before = len(self.host.logged)
        data = encode_request(session, xid, op, body)
        learner.feed(encode_packet(p.REQUEST, -1, data, (("ip", "10.0.0.9"),)))
        self.settle()
        if len(self.host.logged) == before:
            return None
        header, record, _ = decode_txn(self.host.logged[-1][1])
        assert (header.client_id, header.cxid) == (session, xid)
        return record

    def create_session(self, learner: Learner, session: int = SESSION) -> None:
        self.request(learner, OpCode.CREATE_SESSION, struct.pack(">i", TIMEOUT_MS), 0, session)
        self.flush()


@pytest.fixture
def machine() -> LeaderMachine:
    return LeaderMachine()


def code_of(record: object) -> int:
    assert isinstance(record, ErrorTxn), record
    return record.err


def test_a_learners_request_becomes_a_txn_for_all(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    assert machine.tree.sessions == {SESSION: TIMEOUT_MS}
    record = machine.request(machine.two, OpCode.CREATE, wire.create("/a", b"x"))
    assert record.path == "/a"
    assert "/a" not in machine.tree.nodes, "not before a quorum has it"
    machine.flush()
    assert machine.tree.nodes["/a"].data == b"x"
    client = machine.connect()
    assert client.value(wire.GET_DATA, wire.path_watch("/a"))[0] == b"x"


def test_a_request_that_is_refused_is_a_txn_too(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    record = machine.request(machine.two, OpCode.DELETE, wire.path_version("/none"))
    assert code_of(record) == wire.NO_NODE


@pytest.mark.parametrize("op", [0, 4, 13, 77, -12, OpCode.SYNC + 1000])
def test_an_operation_that_is_no_write_is_refused_in_its_turn(
    machine: LeaderMachine, op: int
) -> None:
    machine.create_session(machine.two)
    assert code_of(machine.request(machine.two, op, b"")) == wire.UNIMPLEMENTED
    assert not machine.two.link.closed


def test_a_body_that_cannot_be_read_is_refused_in_its_turn(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    assert code_of(machine.request(machine.two, OpCode.CREATE, b"\0\0\0\x50")) == wire.MARSHALLING


@pytest.mark.parametrize("type", [p.REQUEST, p.REVALIDATE, p.PING])
def test_a_packet_that_cannot_be_read_ends_that_connection(
    machine: LeaderMachine, type: int
) -> None:
    machine.two.feed(encode_packet(type, 0, b"abc"))
    machine.settle()
    assert machine.two.link.closed
    assert not machine.three.link.closed


def test_unknown_sessions_are_refused(machine: LeaderMachine) -> None:
    record = machine.request(machine.two, OpCode.CREATE, wire.create("/a"))
    assert code_of(record) == SessionExpired.code


def test_who_speaks_for_a_session_that_moved_is_refused(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    machine.three.feed(encode_packet(p.REVALIDATE, -1, encode_revalidation(SESSION, TIMEOUT_MS)))
    machine.settle()
    (answer,) = [packet for packet in machine.three.packets if packet[0] == p.REVALIDATE]
    assert p.decode_revalidated(answer[2]) == (SESSION, True)
    assert answer[1] == machine.leader.last_zxid, "up to here it may be of the old connection"
    late = machine.request(machine.two, OpCode.CREATE, wire.create("/late"))
    assert code_of(late) == SessionMoved.code
    assert machine.request(machine.three, OpCode.CREATE, wire.create("/now")).path == "/now"


def test_a_session_that_ended_is_not_valid(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    machine.request(machine.two, OpCode.CLOSE_SESSION, b"", 5)
    record = machine.request(machine.two, OpCode.CREATE, wire.create("/a"), 6)
    assert code_of(record) == SessionExpired.code, "its end is on the way"
    machine.flush()
    assert machine.tree.sessions == {}
    for session in (SESSION, 4711):
        machine.three.feed(encode_packet(p.REVALIDATE, -1, encode_revalidation(session, 1000)))
    machine.settle()
    assert p.REVALIDATE not in [packet[0] for packet in machine.three.packets], "do we lead?"
    machine.answer_pings()
    answers = [packet[2] for packet in machine.three.packets if packet[0] == p.REVALIDATE]
    assert [p.decode_revalidated(data)[1] for data in answers] == [False, False]


def test_a_deposed_leader_tells_nobody_that_a_session_has_expired(machine: LeaderMachine) -> None:
    """Seed 30000014: it was frozen, and the session made under its successor."""
    client = machine.plain()
    client.connect(session_id=SESSION, password=password_of(SESSION))
    machine.two.feed(encode_packet(p.REVALIDATE, -1, encode_revalidation(SESSION, 1000)))
    machine.settle()
    assert not client.frames() and not client.closed
    machine.answer_pings()
    session = client.take_session()
    assert session is not None and session.session_id == 0
    assert client.closed


def test_sessions_live_as_long_as_some_learner_hears_of_them(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    server = machine.server
    for _ in range(6):
        server.now_ms += TIMEOUT_MS // 2
        touches = encode_touches([(SESSION, TIMEOUT_MS), (999, 5)])
        machine.two.feed(encode_packet(p.PING, 0, touches))
        machine.settle()
        server.tick()
        machine.flush()
    assert SESSION in machine.tree.sessions
    server.now_ms += 3 * TIMEOUT_MS
    server.tick()
    machine.flush()
    assert SESSION not in machine.tree.sessions


def test_a_new_leader_gives_every_session_its_full_time(machine: LeaderMachine) -> None:
    machine.create_session(machine.two)
    successor = LeaderZooKeeperServer(
        machine.config,
        machine.tree,
        machine.leader,
        ProviderRegistry([]),
        now_ms=START_MS + 10**6,
        wall_ms=WALL_MS,
    )
    successor.now_ms += TIMEOUT_MS - 1
    assert successor.tracker.expired(successor.now_ms) == []


def test_our_client_whose_session_moved_to_a_learner_is_hung_up_on(
    machine: LeaderMachine,
) -> None:
    client = machine.connect()
    machine.three.feed(
        encode_packet(p.REVALIDATE, -1, encode_revalidation(client.session_id, TIMEOUT_MS))
    )
    machine.settle()
    assert client.closed


def test_our_late_request_for_a_session_that_moved_is_not_answered(
    machine: LeaderMachine,
) -> None:
    client = machine.connect()
    machine.server.owners[client.session_id] = machine.two.handler
    client.send(wire.CREATE, wire.create("/late"))
    machine.flush()
    assert client.closed and not client.replies()
    assert "/late" not in machine.tree.nodes


def test_a_session_comes_back_to_us_from_a_learner(machine: LeaderMachine) -> None:
    client = machine.connect()
    session = client.session
    assert session is not None
    machine.server.owners[client.session_id] = machine.two.handler
    client.drop()
    again = machine.plain()
    again.resume(session)
    assert again.create("/mine") == "/mine"


def test_a_sync_of_ours_waits_for_a_quorum(machine: LeaderMachine) -> None:
    client = machine.connect()
    client.send(wire.SYNC, wire.string("/"))
    client.send(wire.EXISTS, wire.path_watch("/"))
    machine.settle()
    assert client.replies() == []
    machine.answer_pings()
    assert [reply.err for reply in client.replies()] == [0, 0]


def test_a_sync_of_a_learners_client_is_answered_behind_what_is_committed(
    machine: LeaderMachine,
) -> None:
    machine.create_session(machine.two)
    machine.request(machine.two, OpCode.CREATE, wire.create("/a"))
    machine.three.packets.clear()
    assert machine.request(machine.three, OpCode.SYNC, wire.string("/")) is None
    machine.answer_pings()
    assert p.SYNC not in [packet[0] for packet in machine.three.packets]
    machine.flush()
    types = [packet[0] for packet in machine.three.packets]
    assert types.index(p.COMMIT) < types.index(p.SYNC)


def test_the_counter_of_the_epoch_runs_out(machine: LeaderMachine) -> None:
    client = machine.connect()
    last = (1 << 32) + 0xFFFFFFFE
    machine.leader.last_zxid = machine.server.prep.last_zxid = last
    client.send(wire.CREATE, wire.create("/lost"))
    machine.settle()
    assert machine.leader.failed is not None
    assert client.replies() == []


# ---------------------------------------------------------------------- local sessions


@pytest.fixture
def local() -> LeaderMachine:
    return LeaderMachine(local_sessions_enabled=True, local_sessions_upgrading_enabled=True)


def upgraded(machine: LeaderMachine, client: Client) -> bool:
    return client.session_id in machine.tree.sessions


def test_a_local_session_costs_no_txn_until_it_makes_an_ephemeral(local: LeaderMachine) -> None:
    before = len(local.host.logged)
    client = local.connect()
    assert len(local.host.logged) == before
    assert client.create("/plain") == "/plain"
    assert not upgraded(local, client)
    assert client.create("/mine", flags=1) == "/mine"
    assert upgraded(local, client)


def test_a_local_session_of_ours_is_nobody_elses(local: LeaderMachine) -> None:
    client = local.connect()
    local.three.feed(
        encode_packet(p.REVALIDATE, -1, encode_revalidation(client.session_id, TIMEOUT_MS))
    )
    local.settle()
    local.answer_pings()
    (answer,) = [packet for packet in local.three.packets if packet[0] == p.REVALIDATE]
    assert p.decode_revalidated(answer[2]) == (client.session_id, False)
    assert not client.closed


def test_sessions_that_are_local_elsewhere_may_write(local: LeaderMachine) -> None:
    assert local.request(local.two, OpCode.CREATE, wire.create("/a")).path == "/a"
    record = local.request(
        local.two, OpCode.CREATE, wire.create("/b"), session=0x0100_0000_0000_0009
    )
    assert code_of(record) == SessionExpired.code, "ours, and not known here"


def test_sessions_that_are_local_elsewhere_own_no_ephemerals(local: LeaderMachine) -> None:
    """Apache's learners forward what they know to be refused, and tell the client why."""
    body = wire.create("/e", flags=1)
    record = local.request(local.two, OpCode.CREATE, body)
    assert code_of(record) == SessionExpired.code
    record = local.request(local.two, OpCode.MULTI, wire.multi([(OpCode.CREATE2, body)]))
    assert code_of(record) == SessionExpired.code
    local.create_session(local.two)
    assert local.request(local.two, OpCode.CREATE, body).path == "/e"


def test_a_late_request_of_a_session_that_ended_is_not_taken_for_a_local_ones(
    local: LeaderMachine,
) -> None:
    """Seed 10000008: sent through one member, while the session was closed through another."""
    local.create_session(local.two)
    local.request(local.three, OpCode.CLOSE_SESSION, b"", 5)
    local.flush()
    record = local.request(local.two, OpCode.CREATE, wire.create("/late"), 4)
    assert code_of(record) == SessionExpired.code


def test_local_sessions_expire_without_a_txn(local: LeaderMachine) -> None:
    client = local.connect()
    before = len(local.host.logged)
    local.server.now_ms += 10**6
    local.server.tick()
    local.settle()
    assert client.closed
    assert len(local.host.logged) == before
