"""Local sessions on a learner: no txn makes or ends one; an ephemeral needs a global one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.learner_machine import Ensemble, LearnerMachine, UpRequest
from tests.server.machine import Client
from tests.support import wire

from zkpy.protocol.zoodefs import OpCode
from zkpy.server.local_sessions import first_ephemeral

ON_LOCAL = -120
EPHEMERAL = 1
EPHEMERAL_SEQUENTIAL = 3


def ensemble(**settings: Any) -> tuple[Ensemble, LearnerMachine, Client]:
    ensemble = Ensemble(2, local_sessions_enabled=True, **settings)
    machine = ensemble.learners[0]
    return ensemble, machine, machine.connect()


def test_which_writes_create_ephemerals() -> None:
    plain, ephemeral = wire.create("/a"), wire.create("/a", flags=EPHEMERAL)
    sequential = wire.create("/a", flags=EPHEMERAL_SEQUENTIAL)
    assert first_ephemeral(OpCode.CREATE, ephemeral) == 0
    assert first_ephemeral(OpCode.CREATE2, sequential) == 0
    assert first_ephemeral(OpCode.CREATE, plain) is None
    assert first_ephemeral(OpCode.SET_DATA, wire.set_data("/a")) is None
    # The reference looks at create, create2 and multi only.
    assert first_ephemeral(OpCode.CREATE_CONTAINER, ephemeral) is None
    assert first_ephemeral(OpCode.CREATE_TTL, ephemeral + bytes(8)) is None
    multi = [(OpCode.CREATE, plain), (OpCode.CHECK, wire.path_version("/a"))]
    assert first_ephemeral(OpCode.MULTI, wire.multi(multi)) is None
    multi.append((OpCode.CREATE2, ephemeral))
    assert first_ephemeral(OpCode.MULTI, wire.multi(multi)) == 2
    for op in (OpCode.CREATE, OpCode.MULTI):
        assert first_ephemeral(op, ephemeral[:-2]) is None
        assert first_ephemeral(op, b"") is None


def test_a_local_session_is_there_without_the_leader() -> None:
    _, machine, client = ensemble()
    assert client.session is not None
    assert not machine.uplink
    assert client.session_id not in machine.tree.sessions
    assert machine.four_letter_word("cons").count("lop=SESS") == 1


def test_it_writes_like_any_other() -> None:
    both, machine, client = ensemble()
    client.create("/a", b"1")
    client.send(wire.SET_DATA, wire.set_data("/a", b"2"))
    client.send(wire.GET_DATA, wire.path_watch("/a"))
    (up,) = machine.uplink
    assert isinstance(up, UpRequest)
    assert (up.session_id, up.op) == (client.session_id, OpCode.SET_DATA)
    both.run()
    replies = client.replies()
    assert replies[1].value(wire.GET_DATA)[0] == b"2"


def test_closing_it_is_answered_at_its_turn_and_needs_no_txn() -> None:
    both, machine, client = ensemble()
    client.send(wire.CREATE, wire.create("/a"))
    xid = client.send(wire.CLOSE_SESSION)
    client.send(wire.PING)
    assert machine.requests() == [(client.session_id, OpCode.CREATE)]
    assert client.replies() == []
    both.run()
    replies = client.replies()
    assert [(reply.xid, reply.err) for reply in replies] == [(1, 0), (xid, 0)]
    assert replies[1].zxid == both.zab.committed_zxid
    assert client.closed
    other = machine.connect()
    reply = other.call(wire.CLOSE_SESSION)
    assert (reply.err, reply.body) == (0, b"")
    assert other.closed
    assert client.session_id not in machine.tree.sessions


def test_it_expires_here() -> None:
    both, machine, client = ensemble()
    client.send(wire.CREATE, wire.create("/a"))
    machine.advance(30_000)
    assert client.closed
    both.run()
    assert not machine.server.in_flight
    assert machine.server.stats.stale_sessions_expired == 1


def test_it_is_resumed_here_and_nowhere_else() -> None:
    both, machine, client = ensemble()
    assert client.session is not None
    elsewhere = both.learners[1].plain()
    elsewhere.resume(client.session)
    assert elsewhere.session is not None
    assert elsewhere.session.session_id == 0
    here = machine.plain()
    here.resume(client.session, timeout_ms=9000)
    assert here.session is not None
    assert (here.session.session_id, here.session.timeout_ms) == (client.session_id, 9000)
    assert client.closed
    assert not machine.uplink


def test_an_ephemeral_is_refused_where_sessions_are_not_upgraded() -> None:
    both, machine, client = ensemble()
    body = wire.create("/e", flags=EPHEMERAL)
    for op in (wire.CREATE, wire.CREATE2):
        reply = client.call(op, body)
        assert (reply.err, reply.body) == (ON_LOCAL, b"")
    client.send(wire.CREATE, wire.create("/a"))
    parts = [
        (wire.CREATE, wire.create("/b")),
        (wire.CREATE, body),
        (wire.DELETE, wire.path_version("/b")),
    ]
    client.send(wire.MULTI, wire.multi(parts))
    client.send(wire.CREATE, body)
    assert machine.requests() == [(client.session_id, OpCode.CREATE)]
    both.run()
    created, multi, refused = client.replies()
    assert (created.err, multi.err, refused.err) == (0, 0, ON_LOCAL)
    assert [part.err for part in multi.value(wire.MULTI)] == [0, ON_LOCAL, -2]
    assert multi.zxid == refused.zxid == created.zxid
    assert set(both.leader.tree.nodes) == {
        "", "/", "/a", "/zookeeper", "/zookeeper/config", "/zookeeper/quota",
    }  # fmt: skip


def test_an_upgrade_comes_before_the_write_that_needs_it() -> None:
    both, machine, client = ensemble(local_sessions_upgrading_enabled=True)
    client.send(wire.CREATE, wire.create("/e", flags=EPHEMERAL))
    client.send(wire.CREATE2, wire.create("/f", flags=EPHEMERAL))  # is not upgraded twice
    upgrade, create, create2 = machine.uplink
    assert isinstance(upgrade, UpRequest)
    assert isinstance(create, UpRequest)
    assert isinstance(create2, UpRequest)
    assert (upgrade.session_id, upgrade.cxid, upgrade.op) == (
        client.session_id,
        0,
        OpCode.CREATE_SESSION,
    )
    assert (upgrade.payload, upgrade.ids) == (wire.int32(10_000), None)
    assert (create.op, create2.op) == (OpCode.CREATE, OpCode.CREATE2)
    # Until it is committed nobody may take the session for dead.
    client.send(wire.PING)
    both.ping()
    machine.deliver()
    assert machine.learner.pongs.pop()[1] == [(client.session_id, 10_000)]
    both.run()
    assert [(reply.xid, reply.err) for reply in client.replies()] == [(1, 0), (2, 0), (-2, 0)]
    for learner in both.learners:
        assert learner.tree.sessions == {client.session_id: 10_000}
        assert set(learner.tree.ephemerals[client.session_id]) == {"/e", "/f"}
    # From now on it is as global as any.
    assert client.session is not None
    moved = both.learners[1].plain()
    moved.resume(client.session)
    assert moved.session is not None
    assert moved.session.session_id == client.session_id
    xid = moved.send(wire.CLOSE_SESSION)
    both.run()
    assert [reply.xid for reply in moved.replies()] == [xid]
    assert "/e" not in machine.tree.nodes


def test_large_refused_writes_give_their_share_of_memory_back() -> None:
    _, _, client = ensemble(large_request_threshold_bytes=1000, large_request_max_bytes=2000)
    for _ in range(3):
        body = wire.create("/e", bytes(1500), flags=EPHEMERAL)
        assert client.code(wire.CREATE, body) == ON_LOCAL
    assert client.create("/a", bytes(1500)) == "/a"


def test_a_dropped_upgrade_is_committed_all_the_same() -> None:
    both, machine, client = ensemble(local_sessions_upgrading_enabled=True)
    client.send(wire.CREATE, wire.create("/e", flags=EPHEMERAL))
    client.drop()
    both.run()
    assert machine.tree.sessions == {client.session_id: 10_000}
    assert "/e" in machine.tree.nodes
    assert not machine.server.in_flight


@pytest.mark.parametrize("upgrading", [False, True])
def test_plain_writes_do_not_upgrade(upgrading: bool) -> None:
    both, machine, client = ensemble(local_sessions_upgrading_enabled=upgrading)
    client.create("/a")
    client.value(wire.CREATE_CONTAINER, wire.create("/c", flags=4))
    client.value(wire.MULTI, wire.multi([(wire.DELETE, wire.path_version("/a"))]))
    assert both.leader.tree.sessions == {}
    assert not machine.uplink
