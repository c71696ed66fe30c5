"""Leader: scripted learners, and any order of proposals, disks and acknowledgements."""

from __future__ import annotations

import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.quorum.fake_database import make_txn
from tests.quorum.leader_host import INIT_LIMIT, SYNC_LIMIT, LeaderHost, Learner, members

from zkpy.protocol import packets as p
from zkpy.protocol.packets import LearnerInfo, encode_packet
from zkpy.quorum import learner_handler
from zkpy.quorum.effects import ClosePeerPort
from zkpy.quorum.members import Members
from zkpy.quorum.states import BROADCAST
from zkpy.quorum.verifier import verifier_of

# ---------------------------------------------------------------------- broadcast


def test_what_is_logged_is_what_is_sent() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    host.propose(3)
    sent = [(zxid, data) for type, zxid, data, _ in follower.packets if type == p.PROPOSAL]
    assert sent == host.logged


def test_observers_are_informed_of_what_committed_and_of_nothing_else() -> None:
    host = LeaderHost(observers=(4,))
    (follower,) = host.established(2)
    observer = host.learner(4)
    observer.join(type=p.OBSERVERINFO)
    observer.take()
    first, second = host.propose(2)
    host.leader.durable(second)
    assert observer.take() == []
    follower.ack(first)
    host.collect()
    assert [(type, data) for type, _, data, _ in observer.packets] == [
        (p.INFORM, host.logged[0][1])
    ]


def test_our_own_disk_counts_once_it_is_there() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    (zxid,) = host.propose()
    follower.ack(zxid)
    assert host.leader.committed_zxid < zxid
    host.leader.durable(zxid)
    assert host.leader.committed_zxid == zxid
    assert follower.take() == [("PROPOSAL", zxid), ("COMMIT", zxid)]


def test_an_ack_of_what_was_never_proposed_ends_the_connection() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    follower.ack(host.leader.last_zxid + 1)
    assert follower.link.closed
    assert host.leader.failed is None


def test_zookeeper_1277_the_counter_ends_the_term() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    last = (1 << 32) + 0xFFFFFFFE
    host.leader.last_zxid = last - 1
    host.leader.propose(last, make_txn(last))
    assert host.leader.failed is None
    host.view.reconfig_enabled = True
    host.leader.propose_reconfig(last + 1, members(2, version=last + 1))
    host.leader.propose(last + 1, make_txn(last + 1))
    assert host.leader.failed is not None and "rolled over" in host.leader.failed
    assert host.view.last_proposed.version != last + 1, "it was never proposed"
    host.collect()
    assert [zxid for zxid, _ in host.logged] == [last]
    assert follower.take() == [("PROPOSAL", last)]


def test_a_single_voter_leads_alone() -> None:
    host = LeaderHost(voters=1)
    assert host.leader.phase == BROADCAST
    (zxid,) = host.propose()
    host.leader.durable(zxid)
    assert host.leader.committed_zxid == zxid


def test_the_end_hangs_up_on_all() -> None:
    host = LeaderHost()
    followers = host.established(2, 3)
    host.propose()
    host.leader.close()
    assert all(follower.link.closed for follower in followers)
    assert isinstance(host.effects[-1], ClosePeerPort)


# ---------------------------------------------------------------------- time


def test_pings_twice_per_tick_also_to_those_that_catch_up() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    late = host.learner(3)
    late.register()
    late.ack_epoch()
    late.take()
    host.tick()
    assert follower.take() == late.take() == [("PING", 1 << 32)]


def test_a_leader_without_a_quorum_of_followers_gives_up() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    for _ in range(2 * SYNC_LIMIT):
        follower.send(p.PING, 0, b"")
        host.tick()
    assert host.leader.failed is None
    follower.handler.lost(follower.link, "gone")
    host.tick()
    host.tick()
    assert host.leader.failed == "Not sufficient followers synced, only synced with sids: [ [1] ]"


def test_a_silent_learner_is_dropped() -> None:
    host = LeaderHost()
    talking, silent = host.established(2, 3)
    for _ in range(2 * SYNC_LIMIT + 1):
        talking.send(p.PING, 0, b"")
        host.tick()
    assert silent.link.closed and not talking.link.closed
    assert host.leader.failed is None


def test_a_learner_that_answers_but_does_not_acknowledge_is_dropped() -> None:
    host = LeaderHost()
    good, stuck = host.established(2, 3)
    for _ in range(2 * SYNC_LIMIT + 3):
        (zxid,) = host.propose()
        host.leader.durable(zxid)
        good.ack(zxid)
        stuck.send(p.PING, 0, b"")
        host.tick()
    assert stuck.link.closed and not good.link.closed


@pytest.mark.patches
@pytest.mark.parametrize("in_snapshot", [False, True])
def test_who_reads_nothing_is_dropped_and_nobody_else_misses_anything(
    in_snapshot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_handler, "MAX_QUEUED_BYTES", 1000)
    host = LeaderHost(5)
    followers = host.established(2, 4)
    stuck = host.learner(3)
    stuck.register()
    if in_snapshot:
        host.leader.settings.force_snapshot = True
        host.database.snapshot_slices = lambda: iter([bytes(1_000_000)] * 2)
        stuck.reader.raw = True
    stuck.ack_epoch()
    host.leader.settings.force_snapshot = False
    late = host.learner(5)
    late.join()
    stuck.link.unsent = 1 << 20
    late.take()
    proposed: list[int] = []
    while not stuck.link.closed:
        proposed += host.propose(5)
        host.leader.durable(proposed[-1])
        for follower in followers:
            follower.ack(proposed[-1])
        host.collect()
        assert len(proposed) < 100
    packets = late.take()
    for name in ("PROPOSAL", "COMMIT"):
        assert [zxid for told, zxid in packets if told == name] == proposed


def test_a_newer_connection_of_the_same_id_replaces_the_older() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    again = host.learner(2)
    again.register(accepted_epoch=1)
    assert follower.link.closed
    again.ack_epoch(current_epoch=-1)
    again.ack_new_leader()
    assert again.take()[-1] == ("UPTODATE", -1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 40,
        encode_packet(p.PING, 0),
        encode_packet(p.FOLLOWERINFO, 0, b"12345"),
        encode_packet(p.FOLLOWERINFO, 0, LearnerInfo(-3, 0x10000, 0).encode()),
        encode_packet(p.FOLLOWERINFO, 0, LearnerInfo(1, 0x10000, 0).encode()),
        encode_packet(p.FOLLOWERINFO, 0, LearnerInfo(2, 1, 0).encode()),
        struct.pack(">iqii", p.FOLLOWERINFO, 0, 0x7FFFFFF0, 0),
    ],
)
def test_garbage_ends_that_connection(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    stranger = host.learner(3)
    stranger.feed(data)
    assert stranger.link.closed
    assert "/10.0.0.3:40000" in caplog.text
    (zxid,) = host.propose()
    follower.ack(zxid)
    host.leader.durable(zxid)
    assert host.leader.committed_zxid == zxid


def test_a_connection_that_says_nothing_is_dropped() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    silent = host.learner(3)
    for _ in range(2 * INIT_LIMIT + 1):
        follower.send(p.PING, 0, b"")
        host.tick()
    assert silent.link.closed


# ---------------------------------------------------------------------- reconfiguration


def reconfig(host: LeaderHost, new: Members) -> int:
    zxid = host.leader.last_zxid + 1
    host.leader.propose_reconfig(zxid, new.with_version(zxid))
    host.propose()
    return zxid


def established_reconfigurable(*sids: int, voters: int = 3) -> tuple[LeaderHost, list[Learner]]:
    host = LeaderHost(voters=voters, reconfig_enabled=True)
    learners = [host.learner(sid) for sid in sids]
    for step in (Learner.register, Learner.ack_epoch, Learner.ack_new_leader):
        for learner in learners:
            step(learner)
    host.view.set_committed(host.leader.reconfigured[0][0])
    host.leader.reconfig_activated()
    for learner in learners:
        learner.take()
    return host, learners


def test_a_reconfig_needs_both_quorums_and_so_does_what_comes_behind_it() -> None:
    host, (second, third) = established_reconfigurable(2, 3)
    fourth, fifth = host.learner(4), host.learner(5)
    for joiner in (fourth, fifth):
        joiner.join()
        joiner.take()
    zxid = reconfig(host, members(5))
    (behind,) = host.propose()
    host.leader.durable(behind)
    second.ack(behind)
    assert host.leader.committed_zxid < zxid, "no quorum of five"
    fourth.ack(behind)
    assert host.leader.committed_zxid == zxid
    ((new, designated, at),) = host.leader.reconfigured
    assert (len(new.participants), designated, at) == (5, 1, zxid)
    assert ("COMMITANDACTIVATE", zxid) in second.take()
    host.view.set_committed(new)
    host.leader.reconfig_activated()
    assert host.leader.committed_zxid == behind
    assert not third.link.closed and not fifth.link.closed


def test_who_removes_the_leader_names_a_successor_and_commits_nothing_more() -> None:
    host, (second, third) = established_reconfigurable(2, 3)
    servers = {sid: s for sid, s in members(3).servers.items() if sid != 1}
    zxid = reconfig(host, Members(servers))
    (behind,) = host.propose()
    host.leader.durable(behind)
    second.ack(zxid)
    third.ack(behind)
    ((_, designated, _),) = host.leader.reconfigured
    assert designated in (2, 3)
    third.take()
    second.ack(behind)
    assert host.leader.committed_zxid == zxid
    host.leader.close()
    assert ("COMMIT", behind) not in third.take()


# ---------------------------------------------------------------------- any order


class LeaderMachine(RuleBasedStateMachine):
    """Any order of proposals, disks, acknowledgements and comings: each commit has a quorum."""

    @initialize(voters=st.sampled_from([3, 4, 5]))
    def establish(self, voters: int) -> None:
        self.host = LeaderHost(voters=voters)
        quorum = voters // 2
        self.host.established(*range(2, 2 + quorum))
        self.durable = 1 << 32
        self.committed: list[int] = []
        self.told: dict[int, int] = {}

    @rule(count=st.integers(1, 3))
    def propose(self, count: int) -> None:
        self.host.propose(count)

    @rule(data=st.data())
    def our_disk(self, data: st.DataObject) -> None:
        last = self.host.leader.last_zxid
        self.durable = data.draw(st.integers(self.durable, last))
        self.host.leader.durable(self.durable)

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        learners = [learner for learner in self.host.learners.values() if self.follows(learner)]
        if learners:
            learner = data.draw(st.sampled_from(learners))
            acked = max(learner.acked, 1 << 32)
            last = self.host.leader.last_zxid
            zxid = data.draw(st.integers(acked, last))
            if zxid > acked:
                learner.ack(zxid)

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        sid = data.draw(st.integers(2, len(self.host.view.voters())))
        has = max(self.host.learners[sid].acked, 0) if sid in self.host.learners else 0
        learner = self.host.learner(sid)
        learner.acked = has
        learner.register(accepted_epoch=1)
        learner.ack_epoch(zxid=has, current_epoch=-1)
        learner.ack_new_leader()
        learner.acked = max(has, learner.handler.acked)

    def follows(self, learner: Learner) -> bool:
        return not learner.link.closed

    @invariant()
    def commits_have_a_quorum(self) -> None:
        if not hasattr(self, "host"):
            return
        host = self.host
        host.collect()
        zxid = host.leader.committed_zxid
        if zxid & 0xFFFFFFFF:
            holders = {sid for sid, learner in host.learners.items() if learner.acked >= zxid}
            if self.durable >= zxid:
                holders.add(1)
            assert verifier_of(host.view.committed).contains_quorum(holders)

    @invariant()
    def a_learner_is_told_each_txn_once_in_order_and_its_commit_behind_it(self) -> None:
        if not hasattr(self, "host"):
            return
        for learner in self.host.learners.values():
            proposed = [zxid for type, zxid, *_ in learner.packets if type == p.PROPOSAL]
            committed = [zxid for type, zxid, *_ in learner.packets if type == p.COMMIT]
            assert proposed == sorted(set(proposed))
            assert committed == sorted(set(committed))
            seen: set[int] = set()
            for type, zxid, *_ in learner.packets:
                if type == p.PROPOSAL:
                    seen.add(zxid)
                elif type == p.COMMIT:
                    assert zxid in seen


TestLeaderMachine = LeaderMachine.TestCase
TestLeaderMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
