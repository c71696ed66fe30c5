"""What closing a session takes along while other writes are on their way."""

from __future__ import annotations

from tests.server.machine import Client, Machine
from tests.support import wire


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
