"""What closing a session takes along while other writes are on their way."""

from __future__ import annotations

from tests.server.machine import Client, Machine
from tests.support import wire

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol.txns import CloseSessionTxn, decode_txn
from zkpy.protocol.zoodefs import OpCode


def test_a_node_that_somebody_made_anew_stays(machine: Machine, client: Client) -> None:
    other = machine.connect()
    client.create("/gone", flags=wire.EPHEMERAL)
    client.create("/mine", flags=wire.EPHEMERAL)
    # All of this is on its way when the session is closed.
    client.send(wire.DELETE, wire.path_version("/gone"))
    other.send(wire.CREATE, wire.create("/gone"))
    client.send(wire.CREATE, wire.create("/gone/child", flags=wire.EPHEMERAL))
    client.send(wire.CLOSE_SESSION)
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0, 0, 0]
    assert [reply.err for reply in other.replies()] == [0]
    assert client.session_id not in machine.tree.sessions
    assert set(machine.tree.nodes["/gone"].children or ()) == set()
    assert "/mine" not in machine.tree.nodes
    assert not machine.tree.ephemerals


def test_a_record_too_large_to_be_read_back_goes_without_its_paths() -> None:
    machine = Machine(jute_max_buffer_bytes=2000)
    client = machine.connect()
    paths = [f"/{'e' * 90}{number:02}" for number in range(30)]
    for path in paths:
        client.create(path, flags=wire.EPHEMERAL)
    client.send(wire.CLOSE_SESSION)
    machine.flush()
    _, txn = machine.log[-1]
    header, record, digest = decode_txn(txn)
    assert header.type == OpCode.CLOSE_SESSION
    assert isinstance(record, CloseSessionTxn)
    assert record.paths is None
    assert digest is not None
    assert len(txn) < 100
    # Whoever replays it finds the ephemerals by their session.
    replayed = DataTree()
    for _, logged in machine.log:
        header, record, digest = decode_txn(logged)
        apply_txn(replayed, header, record)
    assert digest is not None
    assert digest.tree_digest == replayed.digest
    assert not set(paths) & set(replayed.nodes)
