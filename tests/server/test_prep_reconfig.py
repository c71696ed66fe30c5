"""Reconfig as a client sees it: order of the checks, the txn, the reply, the watch."""

from __future__ import annotations

from typing import Any

import pytest
from tests.server.machine import WALL_MS, Client, Machine
from tests.server.test_prep import assert_same, replay
from tests.support import wire
from tests.support.rawclient import digest_id

from zkpy.datatree.tree import CONFIG_NODE, DataTree
from zkpy.protocol.records import ReconfigRequest
from zkpy.protocol.txns import decode_txn
from zkpy.protocol.zoodefs import EventType, OpCode
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.reconfig import activate, new_members
from zkpy.quorum.verifier import verifier_of
from zkpy.quorum.view import View

VERSION = 1
CONFIG = "server.1=h1:1:2:participant;0.0.0.0:3\nserver.2=h2:1:2:participant;0.0.0.0:3"
JOINING = "server.4=h4:1:2:observer;3"
NO_AUTH, BAD_VERSION, BAD_ARGUMENTS, IN_PROGRESS, NO_QUORUM = -102, -103, -8, -14, -13


class FakeEnsemble:
    """A leader with `synced` followers."""

    def __init__(self, machine: Machine) -> None:
        members = parse_config_text(f"{CONFIG}\nversion={VERSION:x}")
        self.view = View(1, members, None, True)
        self.synced = {1, 2}
        self.proposed: list[tuple[int, Members]] = []
        self.machine = machine

    def new_members(self, request: ReconfigRequest, zxid: int) -> Members:
        return new_members(
            request,
            self.view,
            zxid,
            standalone_enabled=True,
            is_quorum_synced=lambda new: verifier_of(new).contains_quorum(self.synced),
        )

    def propose_reconfig(self, zxid: int, members: Members) -> None:
        assert zxid == self.machine.zab.last_zxid + 1
        self.view.set_last_proposed(members)
        self.proposed.append((zxid, members))


def leading(**settings: Any) -> tuple[Machine, FakeEnsemble]:
    settings = {
        "reconfig_enabled": True,
        "super_digest": digest_id("super:admin"),
        "extended_types_enabled": True,
        **settings,
    }
    machine = Machine(**settings)
    ensemble = machine.server.prep.ensemble = FakeEnsemble(machine)
    machine.tree.set_config(ensemble.view.committed_text.encode(), VERSION, WALL_MS)
    return machine, ensemble


def super_client(machine: Machine) -> Client:
    client = machine.connect()
    assert client.code(wire.AUTH, wire.auth("digest", b"super:admin")) == 0
    return client


def test_reply_txn_and_watch() -> None:
    machine, ensemble = leading()
    client, other = super_client(machine), machine.connect()
    other.value(wire.GET_DATA, wire.path_watch(CONFIG_NODE, True))
    machine.server.wall_ms += 5
    data, stat = client.value(wire.RECONFIG, wire.reconfig(JOINING, None, None, VERSION))
    zxid, members = ensemble.proposed[0]
    expected = f"{CONFIG}\nserver.4=h4:1:2:observer;0.0.0.0:3\nversion={zxid:x}"
    assert data == expected.encode()
    assert members == parse_config_text(expected)
    assert stat[:4] == (0, zxid, 0, WALL_MS + 5)
    assert (stat.version, stat.cversion, stat.aversion) == (-1, 0, -1)
    header, txn, digest = decode_txn(machine.log[-1][1])
    assert (header.type, header.zxid) == (OpCode.RECONFIG, zxid)
    assert (txn.path, txn.data, txn.version) == (CONFIG_NODE, data, -1)  # type: ignore[attr-defined]
    assert digest is not None
    other.replies()
    assert [(event.type, event.path) for event in other.events] == [
        (EventType.NODE_DATA_CHANGED, CONFIG_NODE)
    ]
    assert other.value(wire.GET_DATA, wire.path_watch(CONFIG_NODE, True)) == (data, stat)
    # The activation finds the node written, if in another order of lines: no second event.
    activate(ensemble.view, members, 1, current_leader=1)
    text = "\n".join(reversed(ensemble.view.committed_text.split("\n")))
    machine.tree.set_config(text.encode(), zxid, WALL_MS + 99)
    assert other.value(wire.GET_DATA, wire.path_watch(CONFIG_NODE)) == (data, stat)
    assert len(other.events) == 1


def test_checks_in_order() -> None:
    machine, ensemble = leading()
    client = machine.connect()

    def code(*asked: Any) -> int:
        return client.code(wire.RECONFIG, wire.reconfig(*asked))

    # Who may not, hears first what else is wrong.
    for allowed in (False, True):
        assert code(JOINING, None, None, 8) == BAD_VERSION
        assert code("x", None, None) == BAD_ARGUMENTS
        assert code(None, "2", None) == BAD_ARGUMENTS
        assert code("3=h3:1:2;3,4=h4:1:2;3", None, None) == NO_QUORUM
        if not allowed:
            assert code(JOINING, None, None) == NO_AUTH
            client.code(wire.AUTH, wire.auth("digest", b"super:admin"))
    assert ensemble.proposed == []
    assert client.code(wire.RECONFIG, b"\0\0") == -5
    assert code(JOINING, None, None) == 0
    assert ensemble.proposed
    # Not active yet, whatever is asked.
    assert code("x", None, None, 8) == IN_PROGRESS


def test_two_in_one_batch() -> None:
    machine, _ = leading(skip_acl=True)
    client = machine.connect()
    for joining in (JOINING, "server.5=h5:1:2:observer;3"):
        client.send(wire.RECONFIG, wire.reconfig(joining, None, None))
    client.send(wire.SET_DATA, wire.set_data("/", b"x"))
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0, IN_PROGRESS, 0]
    assert_same(machine.tree, replay(machine.log))


def test_acl_and_data_that_are_on_their_way_count() -> None:
    machine, ensemble = leading()
    admin, client = super_client(machine), machine.connect()
    everybody = wire.set_acl(CONFIG_NODE, [(wire.READ | wire.WRITE, "world", "anyone")])
    admin.send(wire.SET_ACL, everybody)
    client.send(wire.RECONFIG, wire.reconfig(JOINING, None, None))
    # With the version that the config node always has, and with another.
    client.send(wire.SET_DATA, wire.set_data(CONFIG_NODE, b"odd", -1))
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0, 0]
    assert len(ensemble.proposed) == 1
    assert_same(machine.tree, replay(machine.log))


@pytest.mark.parametrize(("enabled", "code"), [(False, -123), (True, -6)])
def test_without_an_ensemble(enabled: bool, code: int) -> None:
    machine, _ = leading(reconfig_enabled=enabled)
    machine.server.prep.ensemble = None
    assert super_client(machine).code(wire.RECONFIG, wire.reconfig("x", None, None)) == code


def test_an_upgraded_tree_gets_its_config_node() -> None:
    tree = DataTree()
    del tree.nodes[CONFIG_NODE]
    before = tree.digest
    tree.set_config(b"server.1=a:1:2\nversion=1", 1, 5)
    node = tree.nodes[CONFIG_NODE]
    assert node.data == b"server.1=a:1:2\nversion=1"
    assert tree.acls_of(node) == ((1, "world", "anyone"),)
    assert tree.digest == before
