"""Observers, read-only members, weights, leaders without clients: zkpy's and Apache's together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support import wire
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    check_equal_trees,
    new_ensemble,
    session,
)
from tests.support.load import Load
from tests.support.rawclient import Closed, RawClient, four_letter_word

from zkpy.testing.ensemble import Ensemble, Member

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

NOT_SERVING = "This ZooKeeper instance is not currently serving requests"
NOT_READ_ONLY = -119
# What monitoring looks at, of mntr; the gauges of a JVM have no meaning here.
GAUGES = """
version server_state peer_state znode_count watch_count ephemerals_count learners
approximate_data_size num_alive_connections outstanding_requests synced_followers
synced_observers synced_non_voting_followers pending_syncs quorum_size leader_uptime
last_proposal_size max_proposal_size min_proposal_size global_sessions local_sessions
open_file_descriptor_count max_file_descriptor_count uptime
"""


def wait_for_end(ensemble: Ensemble, member: Member) -> None:
    """Wait until it has noticed that there is no quorum any more."""
    ensemble.eventually(lambda: member.mode() is None, f"{member} serves nobody", 20)


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY, ZKPY, ZKPY, ZKPY), id="zkpy"),
        pytest.param((OLD, NEW, NEW, ZKPY), id="zkpy-observes-apache"),
        pytest.param((ZKPY, ZKPY, ZKPY, NEW), id="apache-395-observes-zkpy"),
        pytest.param((ZKPY, ZKPY, ZKPY, OLD), id="apache-380-observes-zkpy"),
    ],
)
def test_an_observer(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds, observers=[4]) as ensemble:
        ensemble.start(1, 2, 3)
        observer = ensemble[4]
        ensemble.start(4)
        assert observer.mode() == "observer"
        load = Load([m.address for m in ensemble.members.values()], clients=8)
        with load.running():
            load.wait_for_writes(200)
            # It comes and goes without an election.
            leader = ensemble.wait_for_leader()
            observer.kill()
            load.wait_for_writes(200)
            ensemble.start(4)
            load.wait_for_writes(100)
            assert ensemble.wait_for_leader() is leader
            # It finds the next leader, and never is it.
            leader.kill()
            ensemble.wait_for_leader()
            ensemble.wait_until_serving()
            assert observer.mode() == "observer"
            load.wait_for_writes(100)
            ensemble.start(leader.sid)
        load.check()
        check_equal_trees(ensemble)
        # It does not count: with one of three voters, nobody serves.
        for follower in ensemble.followers():
            follower.kill()
        for member in ensemble.running:
            wait_for_end(ensemble, member)


@pytest.mark.parametrize("kind", [ZKPY, NEW])
def test_a_member_without_a_quorum_serves_readers(kind: str, tmp_path: Path) -> None:
    # As in Apache's, sessions of readers are local ones: there is nobody to tell of others.
    config = {"localSessionsEnabled": "true"}
    properties = {"readonlymode.enabled": "true"}
    with new_ensemble(tmp_path, [kind] * 3, config, properties=properties) as ensemble:
        ensemble.start()
        client = session(ensemble[1])
        client.value(wire.CREATE, wire.create("/x", b"1"))
        client.end_session()
        assert four_letter_word(ensemble[1].address, "isro") == "rw"
        ensemble[2].kill()
        ensemble[3].kill()
        member = ensemble[1]
        ensemble.eventually(lambda: member.mode() == "read-only", "read-only", 20)
        assert four_letter_word(member.address, "isro") == "ro"
        with RawClient(member.address) as writer, pytest.raises(Closed):
            writer.connect(read_only=False)
        with RawClient(member.address) as reader:
            assert reader.connect(read_only=True).read_only
            data, _ = reader.value(wire.GET_DATA, wire.path_watch("/x"))
            assert data == b"1"
            reply = reader.call(wire.SET_DATA, wire.set_data("/x", b"2"))
            assert reply.err == NOT_READ_ONLY
            # It ends when the others are back.
            ensemble[2].start()
            ensemble.eventually(lambda: member.mode() in ("leader", "follower"), "a quorum", 20)
            with pytest.raises((Closed, AssertionError)):
                reader.call(wire.GET_DATA, wire.path_watch("/x"))
        ensemble.start(3)
        with RawClient(member.address) as client:
            assert client.connect(read_only=True).read_only is False
            client.value(wire.SET_DATA, wire.set_data("/x", b"3"))
        check_equal_trees(ensemble)


@pytest.mark.parametrize("kinds", [(ZKPY, ZKPY, ZKPY), (NEW, ZKPY, OLD)])
def test_weights(kinds: Sequence[str], tmp_path: Path) -> None:
    config = {"group.1": "1:2:3", "weight.1": 1, "weight.2": 1, "weight.3": 0}
    with new_ensemble(tmp_path, kinds, config) as ensemble:
        ensemble.start()
        assert ensemble.wait_for_leader().sid != 3
        # The one without a weight does not matter, whatever its id.
        ensemble[3].kill()
        with session(ensemble[1]) as client:
            client.value(wire.CREATE, wire.create("/x"))
        ensemble.start(3)
        check_equal_trees(ensemble)
        ensemble[1].kill()
        wait_for_end(ensemble, ensemble[2])
        ensemble[1].start()
        ensemble.wait_until_serving()
        assert ensemble.wait_for_leader().sid != 3


def test_a_leader_without_clients(tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY] * 3, {"leaderServes": "no"}) as ensemble:
        for member in ensemble.members.values():
            member.start()

        def followers() -> list[Member]:
            return [m for m in ensemble.running if m.mode() == "follower"]

        ensemble.eventually(lambda: len(followers()) == 2, "two followers", 20)
        (leader,) = {1, 2, 3} - {member.sid for member in followers()}
        assert ensemble[leader].ask("srvr").strip() == NOT_SERVING
        assert ensemble[leader].ask("ruok") == "imok"
        with RawClient(ensemble[leader].address) as client, pytest.raises(Closed):
            client.connect()
        with session(followers()[0]) as client:
            client.value(wire.CREATE, wire.create("/x"))


def test_two_members_and_every_address(tmp_path: Path) -> None:
    config = {"quorumListenOnAllIPs": "true", "cnxTimeout": 1000, "electionPortBindRetry": 0}
    with new_ensemble(tmp_path, [ZKPY, NEW], config) as ensemble:
        ensemble.start()
        assert ensemble.wait_for_leader().sid == 2
        for sid in (1, 2):
            with session(ensemble[sid]) as client:
                client.value(wire.CREATE, wire.create(f"/x{sid}"))
        check_equal_trees(ensemble)


def test_what_members_say_about_themselves(tmp_path: Path) -> None:
    """srvr and mntr of each role have the lines that Apache's have."""
    lines: dict[str, dict[str, list[str]]] = {}
    for kind in (ZKPY, NEW):
        with new_ensemble(tmp_path / kind, [kind] * 3, observers=[3]) as ensemble:
            ensemble.start()
            with session(ensemble[1]) as client:
                client.value(wire.CREATE, wire.create("/x", b"", flags=wire.EPHEMERAL))
                for member in ensemble.members.values():
                    mode = member.mode()
                    assert mode is not None
                    for word in ("srvr", "mntr", "conf", "stat", "dump", "cons"):
                        text = four_letter_word(member.address, word)
                        heads = re.findall(r"^([A-Za-z_]+)[\t:=]", text, re.MULTILINE)
                        kept = [h for h in heads if not h.startswith(("zk_avg_", "zk_max_"))]
                        lines.setdefault(kind, {})[f"{mode} {word}"] = sorted(set(kept))
    for what, expected in lines[NEW].items():
        if what.endswith("mntr"):
            wanted = [head for head in expected if head.removeprefix("zk_") in GAUGES.split()]
            assert set(wanted) <= set(lines[ZKPY][what]), what
        else:
            assert lines[ZKPY][what] == expected, what
