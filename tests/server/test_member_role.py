"""What monitoring shows of a member: the lines of Apache's servers of each role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.server.learner_machine import Ensemble
from tests.server.machine import START_MS, WALL_MS, Machine
from tests.server.test_leader_server import LeaderMachine
from tests.server.test_member_bad_input import leading
from tests.support import wire

from zkpy.datatree.tree import DataTree
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import (
    BROADCAST,
    DISCOVERY,
    ELECTION,
    FOLLOWING,
    LEADING,
    LOOKING,
    OBSERVING,
    SYNC_DIFF,
    SYNC_NONE,
    SYNCHRONIZATION,
)
from zkpy.quorum.view import View
from zkpy.server.idle_server import IdleZooKeeperServer
from zkpy.server.member import Member
from zkpy.server.member_role import MemberRole
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer
from zkpy.server.settings import make_config
from zkpy.session.auth import IPAuthenticationProvider, ProviderRegistry

CONFIG_TEXT = (
    "server.1=127.0.0.1:2881:3881:participant\n"
    "server.2=127.0.0.1:2882:3882:participant\n"
    "server.3=127.0.0.1:2883:3883:participant\n"
    "server.4=127.0.0.1:2884:3884:observer\n"
    "version=0"
)


def role_of(machine: Machine, state: int, zab: Any = None, my_id: int = 1) -> MemberRole:
    """The role of a member whose server is that of `machine`."""
    members = parse_config_text(CONFIG_TEXT)
    member = SimpleNamespace(
        my_id=my_id,
        zab=zab,
        state=state,
        server=machine.server,
        view=View(my_id, members, members, False),
        config=make_config(data_dir="/data", my_id=my_id, init_limit_ticks=10, sync_limit_ticks=5),
        now_ms=machine.server.now_ms + 500,
    )
    role = MemberRole(cast("Member", member))
    machine.server.role = role
    return role


def words() -> dict[str, Any]:
    return {"four_letter_words": frozenset("*")}


def learner_zab(phase: str = BROADCAST, mode: str = SYNC_NONE) -> Any:
    return SimpleNamespace(phase=phase, sync_mode=mode)


@pytest.mark.parametrize(
    ("state", "mode"),
    [(FOLLOWING, "follower"), (OBSERVING, "observer"), (LOOKING, "leaderelection")],
)
def test_modes(machine: Machine, state: int, mode: str) -> None:
    assert role_of(machine, state).mode() == mode


def test_peer_states(machine: Machine) -> None:
    def text(state: int, zab: Any) -> str:
        return role_of(machine, state, zab).peer_state()

    assert text(LOOKING, None) == "looking"
    assert text(FOLLOWING, learner_zab(ELECTION)) == "following"
    assert text(FOLLOWING, learner_zab(DISCOVERY)) == "following - discovery"
    syncing = learner_zab(SYNCHRONIZATION, SYNC_DIFF)
    assert text(FOLLOWING, syncing) == "following - synchronization - diff"
    assert text(OBSERVING, learner_zab()) == "observing - broadcast"
    leader = LeaderMachine()
    assert role_of(leader, LEADING, leader.leader).peer_state() == "leading - broadcast"


def test_conf_has_the_limits_the_ports_and_the_members(machine: Machine) -> None:
    role_of(machine, FOLLOWING, learner_zab(), my_id=2)
    lines = machine.four_letter_word("conf").split("\n")
    assert lines[11:] == [
        "serverId=2",
        "initLimit=10",
        "syncLimit=5",
        "electionAlg=3",
        "electionPort=3882",
        "quorumPort=2882",
        "peerType=0",
        "membership: ",
        *CONFIG_TEXT.split("\n"),
    ]


def test_conf_of_who_is_an_observer_and_of_who_is_in_no_configuration(machine: Machine) -> None:
    text = role_of(machine, OBSERVING, my_id=4).config_text()
    assert "electionPort=3884\nquorumPort=2884\npeerType=1\n" in text
    text = role_of(machine, FOLLOWING, my_id=9).config_text()
    assert "electionPort=\nquorumPort=\npeerType=0\n" in text


def test_what_a_leader_measures() -> None:
    machine = LeaderMachine(**words())
    machine.create_session(machine.two)
    role_of(machine, LEADING, machine.leader)
    client = machine.connect()
    client.create("/a")
    client.send(wire.SYNC, wire.string("/"))
    machine.server.now_ms += 500
    mntr = dict(line.split("\t") for line in machine.four_letter_word("mntr").splitlines())
    assert mntr["zk_server_state"] == "leader"
    assert mntr["zk_peer_state"] == "leading - broadcast"
    assert mntr["zk_quorum_size"] == "3"
    assert mntr["zk_learners"] == mntr["zk_followers"] == "2"
    assert mntr["zk_synced_followers"] == "2"
    assert mntr["zk_synced_non_voting_followers"] == "0"
    assert mntr["zk_synced_observers"] == "0"
    assert mntr["zk_pending_syncs"] == "1"
    assert mntr["zk_leader_uptime"] == "500"
    assert mntr["zk_global_sessions"] == "2"
    assert mntr["zk_local_sessions"] == "0"
    last, least, most = (int(mntr[f"zk_{key}_proposal_size"]) for key in ("last", "min", "max"))
    assert 0 < least <= last <= most
    srvr = machine.four_letter_word("srvr")
    assert srvr.endswith(f"Proposal sizes last/min/max: {last}/{least}/{most}\n")
    assert "Server stats reset." in machine.four_letter_word("srst")
    assert "Proposal sizes last/min/max: -1/-1/-1\n" in machine.four_letter_word("srvr")


def test_who_is_behind_is_not_counted_as_synced() -> None:
    machine = LeaderMachine()
    leader = machine.leader
    role = role_of(machine, LEADING, leader)
    machine.two.handler.deadline_tick = leader.tick_count - 1
    machine.three.handler.sid = 9
    gauges = role.gauges()
    assert (gauges["learners"], gauges["synced_followers"]) == (2, 0)
    assert gauges["synced_non_voting_followers"] == 1
    machine.three.handler.is_observer = True
    gauges = role.gauges()
    assert (gauges["synced_observers"], gauges["synced_non_voting_followers"]) == (1, 0)
    assert gauges["followers"] == 1


def test_what_a_follower_measures() -> None:
    ensemble = Ensemble(1)
    machine = ensemble.learners[0]
    role = role_of(machine, FOLLOWING, learner_zab())
    assert role.gauges() == {"quorum_size": 3, "local_sessions": 0, "synced_observers": 0}
    assert role.proposal_sizes() is None
    role.reset_proposal_sizes()
    assert "learners" not in machine.four_letter_word("mntr")
    assert role_of(machine, OBSERVING, learner_zab()).gauges() == {
        "quorum_size": 3,
        "local_sessions": 0,
    }


def test_a_followers_dump_names_all_global_sessions() -> None:
    ensemble = Ensemble(2)
    machine, other = ensemble.learners
    clients = [other.connect(), machine.connect(timeout_ms=30_000)]
    role_of(machine, FOLLOWING, learner_zab())
    first, second = (client.session_id for client in clients)
    assert first > second, "sorted by id"
    assert machine.four_letter_word("dump").startswith(
        f"SessionTracker dump:\nGlobal Sessions(2):\n"
        f"0x{second:x}\t30000ms\n0x{first:x}\t10000ms\nephemeral nodes dump:\n"
    )


def test_dumps_where_sessions_are_local() -> None:
    ensemble = Ensemble(1, local_sessions_enabled=True)
    machine = ensemble.learners[0]
    client = machine.connect()
    role = role_of(machine, FOLLOWING, learner_zab())
    lines = machine.four_letter_word("dump").split("\n")
    assert lines[1] == "Local Session Sets (1)/(1):"
    assert lines[2].startswith("1 expire at ")
    assert lines[3:5] == [f"\t0x{client.session_id:x}", "Global Sessions(0):"]
    assert role.gauges()["local_sessions"] == 1


def test_dumps_of_a_leader() -> None:
    machine = LeaderMachine(**words())
    machine.create_session(machine.two)
    role = role_of(machine, LEADING, machine.leader)
    assert role.sessions_text() is None
    assert "Session Sets (1)/(1):\n" in machine.four_letter_word("dump")
    local = LeaderMachine(local_sessions_enabled=True, **words())
    local.create_session(local.two)
    local.connect()
    role_of(local, LEADING, local.leader)
    dump = local.four_letter_word("dump")
    assert "SessionTracker dump:\nLocal Session Sets (1)/(1):\n" in dump
    assert "\nGlobal Session Sets (1)/(1):\n" in dump


def test_a_read_only_member(machine: Machine) -> None:
    machine.config = make_config(data_dir="/data", my_id=1, local_sessions_enabled=True, **words())
    machine.server = ReadOnlyZooKeeperServer(
        machine.config,
        DataTree(),
        ProviderRegistry([IPAuthenticationProvider()]),
        now_ms=START_MS,
        wall_ms=WALL_MS,
    )
    role_of(machine, LOOKING)
    srvr = machine.four_letter_word("srvr").split("\n")
    assert srvr[1] == "READ-ONLY mode; serving only read-only clients"
    assert "Mode: read-only" in srvr
    assert machine.four_letter_word("isro") == "ro"
    assert machine.four_letter_word("conf").endswith("peerType=0\n")
    assert "Global Sessions(0):" in machine.four_letter_word("dump")


def test_an_idle_member(machine: Machine) -> None:
    machine.server = IdleZooKeeperServer(
        machine.config,
        DataTree(),
        ProviderRegistry([IPAuthenticationProvider()]),
        now_ms=START_MS,
        wall_ms=WALL_MS,
    )
    role = role_of(machine, LOOKING)
    assert not role.read_only()
    assert "not currently serving" in machine.four_letter_word("srvr")
    assert role.server_id() == 1


def test_what_is_counted_outlives_a_role() -> None:
    host, _ = leading()
    member = host.member
    assert member.state == LEADING
    stats = member.server.stats
    assert stats.counters["looking_count"] == 1
    assert stats.summaries["election_time"].count == 1
    stats.count("digest_mismatches_count")
    host.advance(60_000)  # nobody follows any more
    assert member.state == LOOKING
    assert member.server.stats is not stats
    assert member.server.stats.counters == {
        "looking_count": 2,
        "digest_mismatches_count": 1,
        "diff_count": 1,
    }
