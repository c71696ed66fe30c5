"""A learner's server: what it forwards, when it answers, and whose replies it gives."""

from __future__ import annotations

import struct

import pytest
from tests.datatree.tree_compare import content
from tests.server.learner_machine import Ensemble, LearnerMachine, UpRequest
from tests.server.machine import Client
from tests.support import wire
from tests.support.rawclient import digest_id

from zkpy.datatree.digest import tree_digest
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.packets import COMMIT, COMMITANDACTIVATE, SYNC
from zkpy.protocol.txns import SetDataTxn, TxnHeader, encode_digest, encode_header
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.metrics import gauges

WRITES = {
    OpCode.CREATE: wire.create("/w1"),
    OpCode.CREATE2: wire.create("/w2"),
    OpCode.CREATE_CONTAINER: wire.create("/w3", flags=4),
    OpCode.DELETE: wire.path_version("/gone"),
    OpCode.SET_DATA: wire.set_data("/a", b"1"),
    OpCode.SET_ACL: wire.set_acl("/a", [(31, "world", "anyone")]),
    OpCode.MULTI: wire.multi([(OpCode.SET_DATA, wire.set_data("/a", b"2"))]),
    OpCode.RECONFIG: wire.reconfig(None, None, None),
}


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble(2)


@pytest.fixture
def machine(ensemble: Ensemble) -> LearnerMachine:
    return ensemble.learners[0]


@pytest.fixture
def client(machine: LearnerMachine) -> Client:
    return machine.connect()


def xids(client: Client) -> list[int]:
    return [reply.xid for reply in client.replies()]


def check_trees(ensemble: Ensemble) -> None:
    """After `run`: everybody has what the leader has."""
    leader = ensemble.leader.tree
    for learner in ensemble.learners:
        tree = learner.tree
        assert content(tree) == content(leader)
        assert tree.sessions == leader.sessions
        assert tree.last_processed_zxid == leader.last_processed_zxid
        assert tree.digest == leader.digest == tree_digest(tree.nodes)
        assert learner.server.stats.counters.get("digest_mismatches_count", 0) == 0
        assert not learner.server.in_flight


# ---------------------------------------------------------------------- writes


def test_every_write_is_forwarded_as_it_came(machine: LearnerMachine, client: Client) -> None:
    client.call(wire.AUTH, wire.auth("digest", b"u:p"))
    client.create("/a")
    client.create("/gone")
    for op, body in WRITES.items():
        xid = client.send(op, body)
        (up,) = machine.uplink
        assert isinstance(up, UpRequest)
        assert (up.session_id, up.cxid, up.op) == (client.session_id, xid, op)
        assert up.payload == body
        assert up.ids == (("ip", "127.0.0.1"), ("digest", digest_id("u:p")))
        machine.flush()
        assert xids(client) == [xid]


def test_nothing_is_answered_or_seen_before_its_commit_is_here(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.send(wire.CREATE, wire.create("/a"))
    ensemble.take(machine)
    ensemble.commit()
    machine.settle()
    assert "/a" in ensemble.leader.tree.nodes
    assert "/a" not in machine.tree.nodes
    assert client.replies() == []
    machine.deliver()
    (reply,) = client.replies()
    assert (reply.xid, reply.err) == (1, 0)
    assert reply.zxid == ensemble.zab.committed_zxid
    assert reply.value(wire.CREATE) == "/a"


def test_replies_are_those_of_the_leaders_own_clients(ensemble: Ensemble, client: Client) -> None:
    """Each write's record is made of the applied txn here, of noted changes there."""
    other = ensemble.leader.connect()
    other.create("/leader")
    client.create("/learner")
    for op, body in (
        (wire.CREATE, "create"),
        (wire.CREATE2, "create2"),
        (wire.CREATE_CONTAINER, "container"),
    ):
        flags = 4 if op == wire.CREATE_CONTAINER else 0
        replies = [
            each.call(op, wire.create(f"/{where}/{body}", flags=flags))
            for each, where in ((client, "learner"), (other, "leader"))
        ]
        sizes = [len(reply.body) for reply in replies]
        assert sizes[0] == sizes[1] + len("learner") - len("leader")
    for where, each in (("learner", client), ("leader", other)):
        parts = [
            (wire.CREATE, wire.create(f"/{where}/m")),
            (wire.SET_DATA, wire.set_data(f"/{where}/m", b"x")),
            (wire.CREATE2, wire.create(f"/{where}/n")),
            (wire.DELETE, wire.path_version(f"/{where}/m")),
        ]
        results = each.value(wire.MULTI, wire.multi(parts))
        assert [result.type for result in results] == [1, 5, 15, 2]
        failed = each.call(wire.MULTI, wire.multi([*parts[:1], parts[0]]))
        assert failed.err == 0
        assert [part.err for part in failed.value(wire.MULTI)] == [0, wire.NODE_EXISTS]
    assert client.code(wire.DELETE, wire.path_version("/none")) == wire.NO_NODE
    assert client.value(wire.SET_DATA, wire.set_data("/learner", b"data")).version == 1
    acl = [(31, "world", "anyone")]
    assert client.value(wire.SET_ACL, wire.set_acl("/learner", acl)).aversion == 1
    assert client.code(wire.SET_DATA, b"\xff") == wire.MARSHALLING
    check_trees(ensemble)


def test_the_reply_to_a_reconfig_has_the_configuration(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    xid = client.send(wire.RECONFIG, wire.reconfig(None, None, None))
    machine.uplink.clear()
    zxid = ensemble.zab.last_zxid + 1
    text = b"server.1=a:1:2:participant\nversion=100000000"
    txn = encode_header(client.session_id, xid, zxid, 7, OpCode.RECONFIG)
    txn += SetDataTxn("/zookeeper/config", text, -1).encode()
    machine.stream.append((COMMITANDACTIVATE, zxid, txn))
    machine.deliver()
    (reply,) = client.replies()
    assert (reply.xid, reply.err, reply.zxid) == (xid, 0, zxid)
    data, stat = reply.value(wire.GET_DATA)
    assert (data, stat.version, stat.mzxid, stat.mtime) == (text, -1, zxid, 7)


# ---------------------------------------------------------------------- order


def test_reads_wait_behind_the_writes_of_their_session_only(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    other = machine.connect()
    client.send(wire.CREATE, wire.create("/a", b"1"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    client.send(wire.SET_DATA, wire.set_data("/a", b"2"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    client.send(wire.PING)
    client.send(wire.WHO_AM_I)
    assert other.code(wire.EXISTS, wire.path_watch("/none")) == wire.NO_NODE
    replies = client.replies()
    assert [reply.xid for reply in replies] == [1, 2, 3, 4, -2, 5]
    assert replies[1].value(wire.GET_DATA)[0] == b"1"
    assert replies[3].value(wire.GET_DATA)[0] == b"2"


def test_replies_come_as_far_as_commits_do(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    for name in "abc":
        client.send(wire.CREATE, wire.create(f"/{name}"))
        client.send(wire.EXISTS, wire.path_watch(f"/{name}"))
    ensemble.take(machine)
    ensemble.commit()
    machine.deliver(1)
    assert xids(client) == [1, 2]
    machine.deliver(1)
    assert xids(client) == [3, 4]
    machine.deliver(1)
    assert xids(client) == [5, 6]


def test_commits_of_others_are_nobodys_reply(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    remote = ensemble.learners[1].connect()
    client.send(wire.CREATE, wire.create("/mine"))
    remote.send(wire.CREATE, wire.create("/theirs"))  # the same xid
    ensemble.take(ensemble.learners[1])
    ensemble.commit()
    machine.deliver()
    assert client.replies() == []
    assert "/theirs" in machine.tree.nodes
    ensemble.run()
    assert xids(client) == [1]
    assert xids(remote) == [1]


def test_an_event_precedes_the_reply_that_shows_the_change(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    watcher, remote = machine.connect(), ensemble.learners[1].connect()
    client.create("/a", b"old")
    for each in (client, watcher):
        each.value(wire.GET_DATA, wire.path_watch("/a", True))
    remote.send(wire.SET_DATA, wire.set_data("/a", b"new"))
    ensemble.take(ensemble.learners[1])
    watcher.send(wire.CREATE, wire.create("/b"))
    watcher.send(wire.GET_DATA, wire.path_watch("/a"))
    ensemble.run()
    (event,) = client.replies()
    assert event.is_event
    replies = watcher.replies()
    assert [reply.is_event for reply in replies] == [True, False, False]
    assert replies[2].value(wire.GET_DATA)[0] == b"new"


def test_closing_a_session_is_answered_and_ends_it_everywhere(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.create("/e", flags=1)
    client.send(wire.DELETE, wire.path_version("/none"))
    xid = client.send(wire.CLOSE_SESSION)
    client.send(wire.PING)  # behind the end: nobody listens
    ensemble.run()
    replies = client.replies()
    assert [(reply.xid, reply.err) for reply in replies] == [(2, wire.NO_NODE), (xid, 0)]
    assert client.closed
    assert "/e" not in machine.tree.nodes
    assert not ensemble.learners[1].tree.sessions
    check_trees(ensemble)


def test_a_session_that_expired_at_the_leader_loses_its_connection(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.create("/e", flags=1)
    leader = ensemble.leader.server
    client.send(wire.SET_DATA, wire.set_data("/e"))
    leader.now_ms += 60_000
    leader.tick()  # before the leader has read the request, which is refused then
    ensemble.run()
    assert client.closed
    assert client.replies() == []
    assert "/e" not in machine.tree.nodes
    check_trees(ensemble)


# ---------------------------------------------------------------------- lost connections


def test_a_write_whose_connection_is_gone_answers_nobody(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """A library that starts xids anew must not take the old write's result for its own."""
    client.send(wire.CREATE, wire.create("/old"), xid=1)
    client.send(wire.SET_DATA, wire.set_data("/old", b"1"), xid=2)
    client.drop()
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session, flush=False)
    machine.settle()
    # The leader has not answered yet; the old writes commit behind the revalidation.
    ensemble.take(machine)
    machine.deliver()
    assert again.take_session() is not None
    again.send(wire.CREATE, wire.create("/none/new"), xid=1)
    again.send(wire.EXISTS, wire.path_watch("/old"), xid=2)
    ensemble.commit()
    machine.deliver()
    assert "/old" in machine.tree.nodes
    assert again.replies() == []
    ensemble.run()
    assert [(r.xid, r.err) for r in again.replies()] == [(1, wire.NO_NODE), (2, 0)]
    check_trees(ensemble)


def test_a_write_made_elsewhere_is_not_taken_for_one_made_here(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """kazoo numbers its requests from 1 on each connection."""
    there = ensemble.learners[1]
    client.create("/a", b"0")
    client.send(wire.SET_DATA, wire.set_data("/a", b"old"), xid=1)
    client.send(wire.SET_DATA, wire.set_data("/a", b"late"), xid=2)
    ensemble.take(machine, 1)  # proposed, before the client is there
    again = there.plain()
    assert client.session is not None
    again.resume(client.session, flush=False)
    ensemble.take(there)
    there.deliver()
    assert again.take_session() is not None
    again.send(wire.SET_DATA, wire.set_data("/a", b"new"), xid=1)
    ensemble.commit()
    there.deliver()
    assert there.tree.nodes["/a"].data == b"old"
    assert again.replies() == [], "the commit of the old write is nobody's reply here"
    ensemble.take(there)
    ensemble.commit()
    there.deliver()
    (reply,) = again.replies()
    assert (reply.xid, reply.err, reply.value(wire.SET_DATA).version) == (1, 0, 2)
    ensemble.run()  # what the leader read of the old connection after that has been refused
    assert client.closed
    check_trees(ensemble)


def test_where_the_leader_does_not_say_it_the_proposals_do(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """As above with Apache's leader, whose answer has no zxid: its proposals came before it."""
    there = ensemble.learners[1]
    client.create("/a", b"0")
    client.send(wire.SET_DATA, wire.set_data("/a", b"old"), xid=1)
    ensemble.take(machine)
    again = there.plain()
    assert client.session is not None
    again.resume(client.session, flush=False)
    ensemble.take(there)
    type, _, data = there.stream.pop()
    there.stream.append((type, -1, data))
    there.learner.last_zxid = ensemble.zab.last_zxid
    there.deliver()
    assert again.take_session() is not None
    again.send(wire.SET_DATA, wire.set_data("/a", b"new"), xid=1)
    ensemble.commit()
    there.deliver()
    assert again.replies() == []
    ensemble.run()
    assert xids(again) == [1]


def test_a_request_that_the_leader_passes_over_ends_the_connection(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """Better a lost connection, which clients know to handle, than a reply that never comes."""
    client.send(wire.CREATE, wire.create("/a"))
    machine.uplink.clear()
    client.send(wire.CREATE, wire.create("/b"))
    ensemble.run()
    assert client.closed
    assert client.replies() == []
    assert "/b" in machine.tree.nodes
    assert not machine.server.in_flight
    (line,) = [machine.four_letter_word("srvr").split("\n")[5]]
    assert line == "Outstanding: 0"


def test_syncs_of_lost_connections_are_answered_to_nobody(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    other = machine.connect()
    client.send(wire.SYNC, wire.string("/"))
    xid = other.send(wire.SYNC, wire.string("/"))
    client.drop()
    ensemble.take(machine)
    machine.deliver(1)
    assert other.replies() == []
    machine.deliver(1)
    assert xids(other) == [xid]


# ---------------------------------------------------------------------- sessions


def test_a_session_is_there_when_it_is_committed(
    ensemble: Ensemble, machine: LearnerMachine
) -> None:
    client = machine.plain()
    client.connect(flush=False)
    client.send(wire.PING)  # clients pipeline
    (up,) = machine.uplink
    assert isinstance(up, UpRequest)
    assert (up.op, up.cxid, up.ids) == (OpCode.CREATE_SESSION, 0, None)
    assert up.payload == wire.int32(10_000)
    assert up.session_id >> 56 == machine.config.my_id
    ensemble.take(machine)
    assert client.frames() == []
    ensemble.run()
    response, ping = client.frames()
    assert struct.unpack_from(">q", response, 8)[0] == up.session_id
    assert struct.unpack_from(">i", ping)[0] == -2
    for learner in ensemble.learners:
        assert learner.tree.sessions == {up.session_id: 10_000}


def test_a_session_moves_to_another_learner(ensemble: Ensemble, client: Client) -> None:
    client.create("/e", flags=1)
    other = ensemble.learners[1].plain()
    assert client.session is not None
    other.resume(client.session, timeout_ms=12_000)
    assert other.session is not None
    assert (other.session.session_id, other.session.timeout_ms) == (client.session_id, 12_000)
    assert other.value(wire.GET_EPHEMERALS, wire.string("/")) == ["/e"]
    # Where it was, nobody was told. Reads go on, as in the reference.
    assert client.code(wire.EXISTS, wire.path_watch("/e")) == 0
    client.send(wire.SET_DATA, wire.set_data("/e", b"moved"))
    client.send(wire.EXISTS, wire.path_watch("/e"))
    ensemble.run()
    assert client.replies() == []
    assert client.closed
    assert not other.closed
    assert other.value(wire.GET_DATA, wire.path_watch("/e"))[0] == b""
    check_trees(ensemble)


def test_a_multi_whose_part_moved_ends_the_connection(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """Apache's leader checks the session for each part of a multi."""
    xid = client.send(wire.MULTI, wire.multi([(wire.DELETE, wire.path_version("/a"))]))
    machine.uplink.clear()
    zxid = ensemble.zab.last_zxid + 1
    error = wire.int32(-1) + wire.buffer(wire.int32(-118))
    txn = encode_header(client.session_id, xid, zxid, 0, OpCode.MULTI) + wire.int32(1) + error
    machine.stream.append((COMMIT, zxid, txn))
    machine.deliver()
    assert client.closed
    assert client.replies() == []


def test_a_session_resumed_here_takes_the_place_of_the_old_connection(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    assert client.session is not None
    again = machine.plain()
    again.resume(client.session, flush=False)
    machine.settle()
    assert list(machine.uplink) == [(client.session_id, 10_000)]
    assert not client.closed, "the leader has not said that the session lives"
    ensemble.run()
    assert client.closed
    assert again.take_session() is not None
    assert again.code(wire.EXISTS, wire.path_watch("/")) == 0


def test_a_session_that_has_ended_is_refused(ensemble: Ensemble, client: Client) -> None:
    client.send(wire.CLOSE_SESSION)
    ensemble.run()
    assert client.session is not None
    again = ensemble.learners[1].plain()
    again.resume(client.session)
    assert again.session is not None
    assert (again.session.session_id, again.session.timeout_ms) == (0, 0)
    assert again.session.password == bytes(16)
    assert again.closed


def test_a_wrong_password_is_refused_without_asking_the_leader(
    machine: LearnerMachine, client: Client
) -> None:
    assert client.session is not None
    thief = machine.plain()
    thief.resume(client.session, password=b"x" * 16, flush=False)
    machine.settle()
    assert thief.closed
    assert not machine.uplink
    assert not client.closed


def test_only_the_newest_of_several_attempts_gets_the_session(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    assert client.session is not None
    attempts = [machine.plain() for _ in range(3)]
    for attempt in attempts:
        attempt.resume(client.session, flush=False)
    attempts[2].drop()
    last = machine.plain()
    last.resume(client.session, flush=False)
    ensemble.run()
    assert [attempt.closed for attempt in attempts] == [True, True, True]
    assert last.take_session() is not None


def test_touched_sessions_are_told_once_with_each_ping(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    ensemble.ping()
    machine.deliver()
    zxid, touches = machine.learner.pongs.pop()
    assert zxid == ensemble.zab.last_zxid
    assert touches == [(client.session_id, 10_000)]
    ensemble.ping()
    machine.deliver()
    assert machine.learner.pongs.pop() == (zxid, [])
    client.call(wire.PING)
    ensemble.ping()
    machine.deliver()
    assert machine.learner.pongs.pop() == (zxid, [(client.session_id, 10_000)])


def test_no_global_session_expires_on_a_learner(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    machine.advance(100_000)
    assert not client.closed
    assert client.code(wire.EXISTS, wire.path_watch("/")) == 0


def test_a_client_that_saw_the_epoch_begin_is_taken(
    ensemble: Ensemble, machine: LearnerMachine
) -> None:
    """The leader's own clients see epoch << 32, of which there is no txn."""
    machine.learner.new_epoch = 3
    seen = machine.plain()
    seen.connect(last_zxid_seen=3 << 32)
    assert seen.session is not None
    ahead = machine.plain()
    ahead.connect(last_zxid_seen=(3 << 32) + 1)
    assert ahead.closed
    assert ahead.session is None


# ---------------------------------------------------------------------- sync


def test_a_sync_waits_for_the_leader_and_everything_waits_behind_it(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    remote = ensemble.learners[1].connect()
    remote.send(wire.CREATE, wire.create("/a"))
    ensemble.take(ensemble.learners[1])  # proposed, and not committed
    sync = client.send(wire.SYNC, wire.string("/some/path"))
    exists = client.send(wire.EXISTS, wire.path_watch("/a"))
    (up,) = machine.uplink
    assert isinstance(up, UpRequest)
    assert (up.op, up.cxid, up.payload) == (wire.SYNC, sync, wire.string("/some/path"))
    ensemble.take(machine)
    machine.deliver()
    assert client.replies() == []
    ensemble.commit()
    machine.deliver(1)  # the commit: SYNC is behind it
    assert client.replies() == []
    machine.deliver()
    replies = client.replies()
    assert [reply.xid for reply in replies] == [sync, exists]
    assert replies[0].value(wire.SYNC) == "/some/path"
    assert replies[1].err == 0
    assert replies[0].zxid == ensemble.zab.committed_zxid


def test_a_sync_behind_a_write_keeps_its_place(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.send(wire.CREATE, wire.create("/a"))
    client.send(wire.SYNC, wire.string(None))
    client.send(wire.SET_DATA, wire.set_data("/a", b"1"))
    client.send(wire.SYNC, b"")
    client.send(wire.PING)
    ensemble.run()
    replies = client.replies()
    assert [reply.xid for reply in replies] == [1, 2, 3, 4, -2]
    assert [reply.err for reply in replies] == [0, 0, 0, wire.MARSHALLING, 0]


def test_a_sync_that_nobody_asked_for_is_ignored(machine: LearnerMachine) -> None:
    machine.stream.append((SYNC, 0, None))
    machine.deliver()


# ---------------------------------------------------------------------- limits, monitoring


def test_requests_out_of_the_ordinary(ensemble: Ensemble, client: Client) -> None:
    for op in (wire.DELETE_CONTAINER, wire.CHECK, OpCode.CREATE_SESSION, 4711):
        odd = ensemble.learners[0].connect()
        reply = odd.call(op, wire.path_version("/zookeeper"))
        assert reply.err == wire.UNIMPLEMENTED
        assert odd.closed
    assert not ensemble.learners[0].uplink


def test_large_requests_have_a_share_of_memory_until_they_are_committed() -> None:
    ensemble = Ensemble(1, large_request_threshold_bytes=1000, large_request_max_bytes=3000)
    machine = ensemble.learners[0]
    first, second, third = (machine.connect() for _ in range(3))
    first.send(wire.CREATE, wire.create("/a", bytes(1500)))
    second.send(wire.CREATE, wire.create("/b", bytes(1500)))
    machine.settle()
    assert second.closed
    assert machine.server.stats.large_requests_rejected == 1
    ensemble.run()
    assert third.create("/c", bytes(1500)) == "/c"
    # Also when the connection is gone before the commit comes.
    first.send(wire.SET_DATA, wire.set_data("/a", bytes(1500)))
    first.drop()
    ensemble.run()
    assert third.create("/d", bytes(1500)) == "/d"


def test_the_request_throttle_counts_what_waits_for_the_leader() -> None:
    ensemble = Ensemble(1, request_throttle_max_requests=2)
    machine = ensemble.learners[0]
    first, second = machine.connect(), machine.connect()
    first.send(wire.CREATE, wire.create("/a"))
    first.send(wire.CREATE, wire.create("/b"))
    second.send(wire.CREATE, wire.create("/c"))
    machine.settle()
    assert len(machine.uplink) == 2
    assert second.cnxn.held
    ensemble.take(machine)
    ensemble.commit()
    machine.deliver()
    assert len(machine.uplink) == 1
    ensemble.run()
    assert xids(second) == [1]


def test_four_letter_words_are_answered(ensemble: Ensemble, machine: LearnerMachine) -> None:
    client = machine.connect()
    client.create("/a")
    client.send(wire.CREATE, wire.create("/b"))
    assert "Outstanding: 1\n" in machine.four_letter_word("srvr")
    ensemble.run()
    mntr = machine.four_letter_word("mntr")
    assert "zk_learner_commit_received_count\t3\n" in mntr
    assert "zk_global_sessions\t1\n" in mntr
    assert "zk_cnt_updatelatency\t2\n" in mntr
    assert "zk_cnt_propagation_latency\t3\n" in mntr
    assert f"sid=0x{client.session_id:x},lop=CREA" in machine.four_letter_word("cons")
    assert gauges(machine.server)["outstanding_requests"] == 0


def test_a_tree_that_differs_from_the_leaders_is_told(
    ensemble: Ensemble,
    machine: LearnerMachine,
    client: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.create("/a")
    machine.tree.digest += 1
    for _ in range(3):
        client.value(wire.SET_DATA, wire.set_data("/a"))
    assert machine.server.stats.counters["digest_mismatches_count"] == 3
    (record,) = [r for r in caplog.records if "Digests" in r.message]
    zxid = ensemble.zab.committed_zxid - 2
    assert f"Digests are not matching. Value is Zxid: 0x{zxid:x}" in record.message


def test_a_snapshot_from_the_midst_of_writes_is_no_difference(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    """It holds changes of txns that come only now; behind them the digests have to agree."""
    client.create("/a")
    zxid = ensemble.zab.committed_zxid
    machine.tree.create_node("/b", b"future", (), 0, -1, zxid + 2, 0)
    machine.database._fuzzy_until_zxid = -1  # as after `install_snapshot`
    client.value(wire.SET_DATA, wire.set_data("/a"))
    counters = machine.server.stats.counters
    assert "digest_mismatches_count" not in counters
    ensemble.leader.tree.digest = machine.tree.digest
    client.value(wire.SET_DATA, wire.set_data("/a"))
    client.value(wire.SET_DATA, wire.set_data("/a"))
    assert counters["digest_mismatches_count"] > 0


def test_a_txn_that_cannot_be_read_is_not_applied(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.create("/a")
    zxid = ensemble.zab.last_zxid + 1
    header = TxnHeader(client.session_id, 9, zxid, 0, OpCode.SET_DATA).encode()
    before = content(machine.tree)
    for txn in (
        header,
        header + b"\0\0\1\0",
        encode_header(1, 1, zxid, 0, 4711),
        header[:12] + wire.int64(zxid + 1) + header[20:] + SetDataTxn("/a", b"", 1).encode(),
    ):
        with pytest.raises(DecodeError):
            machine.server.deliver([(COMMIT, zxid, txn)])
    assert content(machine.tree) == before
    assert machine.tree.last_processed_zxid == zxid - 1


def test_txns_are_noted_for_those_who_catch_up_from_us(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.create("/a")
    zxids = [zxid for zxid, _ in machine.database.committed_log.proposals]
    assert zxids == list(range(1, ensemble.zab.committed_zxid + 1))


def test_a_txn_without_a_digest_is_taken(
    ensemble: Ensemble, machine: LearnerMachine, client: Client
) -> None:
    client.create("/a")
    zxid = ensemble.zab.last_zxid + 1
    txn = encode_header(1, 1, zxid, 0, OpCode.SET_DATA) + SetDataTxn("/a", b"x", 1).encode()
    machine.server.deliver([(COMMIT, zxid, txn)])
    old = encode_header(1, 2, zxid + 1, 0, OpCode.SET_DATA)
    old += SetDataTxn("/a", b"y", 2).encode() + encode_digest(1, 4711)
    machine.server.deliver([(COMMIT, zxid + 1, old)])
    assert machine.tree.nodes["/a"].data == b"y"
    assert "digest_mismatches_count" not in machine.server.stats.counters
