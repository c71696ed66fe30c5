"""Leader: scripted learners, and any order of proposals, disks and acknowledgements."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.quorum.fake_database import FakeDatabase, make_txn

from zkpy.protocol import packets as p
from zkpy.protocol.packets import LearnerInfo, PacketReader, encode_packet
from zkpy.quorum import learner_handler
from zkpy.quorum.effects import ClosePeerPort, Effect, OpenPeerPort
from zkpy.quorum.leader import Leader, LeaderSettings
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.states import BROADCAST, DISCOVERY, SYNCHRONIZATION
from zkpy.quorum.verifier import verifier_of
from zkpy.quorum.view import View

TICK_MS = 1000
E1 = 1 << 32
INIT_LIMIT, SYNC_LIMIT = 10, 5


def members(voters: int, observers: tuple[int, ...] = (), version: int = 0) -> Members:
    lines = [f"server.{sid}=h{sid}:2888:3888:participant;2181" for sid in range(1, voters + 1)]
    lines += [f"server.{sid}=h{sid}:2888:3888:observer;2181" for sid in observers]
    return parse_config_text("\n".join([*lines, f"version={version:x}"]))


class Learner:
    """The other end of a link: what the test says, and the packets that came."""

    def __init__(self, host: LeaderHost, sid: int) -> None:
        self.host = host
        self.sid = sid
        self.link = Link(host.outbox, f"10.0.0.{sid}:40000")
        self.handler = host.leader.accept(self.link, host.now_ms)
        self.reader = PacketReader()
        self.packets: list[p.Packet] = []
        self.raw = b""
        self.acked = 0

    def send(self, type: int, zxid: int, data: bytes | None = None) -> None:
        self.feed(encode_packet(type, zxid, data))

    def feed(self, data: bytes) -> None:
        if not self.link.closed:
            self.handler.received(self.link, data, self.host.now_ms)
        self.host.collect()

    def take(self) -> list[tuple[str, int]]:
        """Name and zxid of what came since the last call."""
        self.host.collect()
        taken = [(p.PACKET_NAMES[packet[0]], packet[1]) for packet in self.packets]
        self.packets.clear()
        return taken

    def register(self, accepted_epoch: int = 0, type: int = p.FOLLOWERINFO) -> None:
        self.send(type, accepted_epoch << 32, LearnerInfo(self.sid, 0x10000, 0).encode())

    def ack_epoch(self, zxid: int = 0, current_epoch: int = 0) -> None:
        self.send(p.ACKEPOCH, zxid, struct.pack(">i", current_epoch))

    def ack_new_leader(self) -> None:
        assert self.host.leader.new_epoch is not None
        self.send(p.ACK, self.host.leader.new_epoch << 32)

    def join(self, zxid: int = 0, type: int = p.FOLLOWERINFO) -> None:
        self.register(type=type)
        self.ack_epoch(zxid)
        self.ack_new_leader()

    def ack(self, zxid: int) -> None:
        self.acked = zxid
        self.send(p.ACK, zxid)


class LeaderHost:
    """A Leader, its database and its log, without a member around them."""

    def __init__(self, voters: int = 3, my_id: int = 1, **options: Any) -> None:
        observers = options.pop("observers", ())
        reconfig = options.pop("reconfig_enabled", False)
        least_epoch = options.pop("least_epoch", 0)
        self.now_ms = 0
        self.database: Any = options.pop("database", None) or FakeDatabase()
        self.view = View(my_id, members(voters, observers), None, reconfig)
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        self.learners: dict[int, Learner] = {}
        settings = LeaderSettings(
            tick_time_ms=TICK_MS,
            init_limit_ticks=INIT_LIMIT,
            sync_limit_ticks=SYNC_LIMIT,
            max_record_bytes=1 << 20,
            **options,
        )
        self.leader = Leader(
            my_id,
            self.view,
            self.database,
            settings,
            self.outbox,
            self.effects,
            self.now_ms,
            least_epoch,
        )
        self.logged: list[tuple[int, bytes]] = []
        self.leader.lead(self.now_ms)

    def learner(self, sid: int) -> Learner:
        learner = self.learners[sid] = Learner(self, sid)
        return learner

    def established(self, *sids: int) -> list[Learner]:
        learners = [self.learner(sid) for sid in sids]
        for learner in learners:
            learner.register()
        for learner in learners:
            learner.ack_epoch()
        for learner in learners:
            learner.ack_new_leader()
            learner.take()
        assert self.leader.phase == BROADCAST
        return learners

    def collect(self) -> None:
        """The end of a turn: the log gets its txns, the links' bytes arrive."""
        self.logged += self.leader.take_appended()
        while self.outbox:
            links, self.outbox[:] = self.outbox[:], []
            for link in links:
                link.dirty = False
                data, link.out = bytes(link.out), bytearray()
                for learner in self.learners.values():
                    if learner.link is link:
                        learner.packets += learner.reader.feed(data)
                        learner.raw += data

    def propose(self, count: int = 1) -> list[int]:
        zxids = []
        for _ in range(count):
            zxid = self.leader.last_zxid + 1
            self.leader.propose(zxid, make_txn(zxid, b"%d" % zxid))
            zxids.append(zxid)
        self.collect()
        return zxids

    def tick(self, ms: int = TICK_MS // 2) -> None:
        self.now_ms += ms
        self.leader.tick(self.now_ms)
        self.collect()


# ---------------------------------------------------------------------- discovery, synchronization


def test_from_the_election_to_broadcast() -> None:
    host = LeaderHost()
    disk = host.database.disk
    assert isinstance(host.effects[0], OpenPeerPort)
    assert host.effects[0].addresses == [("h1", 2888)]
    follower = host.learner(2)
    follower.register()
    assert follower.take() == [("LEADERINFO", 1 << 32)]
    assert disk.effects[-1] == ("acceptedEpoch", 1), "promised before it is told"
    assert host.leader.phase == DISCOVERY
    follower.ack_epoch()
    assert disk.effects[-1] == ("currentEpoch", 1)
    assert host.leader.phase == SYNCHRONIZATION
    assert follower.take() == [("DIFF", 0), ("NEWLEADER", 1 << 32)]
    follower.ack_new_leader()
    assert follower.take() == [("UPTODATE", -1)]
    assert host.leader.phase == BROADCAST
    assert host.database.last_zxid == 1 << 32


def test_leader_info_has_the_protocol_version_and_new_leader_the_configuration() -> None:
    host = LeaderHost()
    follower = host.learner(2)
    follower.register()
    host.collect()
    assert follower.packets[0][2] == b"\x00\x01\x00\x00"
    follower.packets.clear()
    follower.ack_epoch()
    assert follower.packets[-1][2] == host.view.committed_text.encode()


def test_the_epoch_is_above_all_that_a_quorum_has_accepted() -> None:
    host = LeaderHost(voters=5)
    first, second = host.learner(2), host.learner(3)
    first.register(accepted_epoch=7)
    assert first.take() == []
    second.register(accepted_epoch=3)
    assert first.take() == second.take() == [("LEADERINFO", 8 << 32)]


def test_a_voter_that_has_accepted_a_later_epoch_needs_another_term() -> None:
    host = LeaderHost()
    host.established(2)
    host.learner(3).register(accepted_epoch=7)
    assert host.leader.failed is not None and host.leader.needed_epoch == 8
    again = LeaderHost(least_epoch=8)
    again.established(2)
    assert again.leader.new_epoch == 8


def test_who_has_no_vote_ends_no_term_with_its_epoch() -> None:
    host = LeaderHost(observers=(4,))
    host.established(2)
    host.learner(4).register(accepted_epoch=7, type=p.OBSERVERINFO)
    host.learner(9).register(accepted_epoch=7)
    assert host.leader.failed is None
    assert host.learners[9].take() == [("LEADERINFO", 1 << 32)]


def test_observers_and_strangers_make_no_quorum() -> None:
    host = LeaderHost(observers=(4,))
    observer, stranger = host.learner(4), host.learner(9)
    observer.register(type=p.OBSERVERINFO)
    stranger.register()
    assert host.leader.new_epoch is None
    host.learner(2).register()
    assert observer.take() == stranger.take() == [("LEADERINFO", 1 << 32)]
    for learner in (observer, stranger):
        learner.ack_epoch()
        assert learner.take() == [], "not before a voter"
    host.learners[2].ack_epoch()
    assert observer.take()[0] == ("DIFF", 0)
    observer.ack_new_leader()
    stranger.ack_new_leader()
    assert host.leader.phase == SYNCHRONIZATION
    host.learners[2].ack_new_leader()
    assert observer.take() == stranger.take()[-1:] == [("UPTODATE", -1)]


def test_a_second_answer_to_the_same_epoch_does_not_count_but_is_caught_up() -> None:
    host = LeaderHost(voters=5)
    for sid in (2, 3):
        host.learner(sid).register()
    host.learners[2].ack_epoch(current_epoch=-1)
    host.learners[3].ack_epoch()
    assert host.leader.phase == DISCOVERY
    host.learner(4).register()
    host.learners[4].ack_epoch()
    assert host.leader.phase == SYNCHRONIZATION
    assert ("DIFF", 0) in host.learners[2].take()


def test_a_follower_that_is_ahead_is_not_led() -> None:
    host = LeaderHost()
    ahead = host.learner(2)
    ahead.register()
    ahead.ack_epoch(zxid=5, current_epoch=0)
    assert ahead.link.closed
    host.learner(3).join()
    assert host.leader.phase == BROADCAST


def test_a_later_configuration_is_not_led() -> None:
    host = LeaderHost()
    ahead = host.learner(2)
    ahead.send(p.FOLLOWERINFO, 0, LearnerInfo(2, 0x10000, 99).encode())
    assert ahead.link.closed


def test_a_reconfigurable_ensemble_gets_its_first_version_from_new_leader() -> None:
    host = LeaderHost(reconfig_enabled=True)
    host.learner(2).join()
    config = next(packet[2] for packet in host.learners[2].packets if packet[0] == p.NEWLEADER)
    assert config is not None and config.endswith(b"version=100000000")
    ((proposed, designated, zxid),) = host.leader.reconfigured
    assert (proposed.version, designated, zxid) == (1 << 32, 1, 1 << 32)


@pytest.mark.parametrize("stage", ["nobody", "registered", "epoch acked"])
def test_each_phase_ends_after_init_limit(stage: str) -> None:
    host = LeaderHost()
    if stage != "nobody":
        host.learner(2).register()
    if stage == "epoch acked":
        host.learners[2].ack_epoch()
    for _ in range(2 * INIT_LIMIT):
        host.tick()
        assert host.leader.failed is None
    host.tick(TICK_MS)
    assert host.leader.failed is not None


@pytest.mark.parametrize(("limit_ms", "gives_up"), [(-1, False), (900, True)])
def test_who_looks_again_ends_a_wait_for_the_epoch(limit_ms: int, gives_up: bool) -> None:
    """leader.maxTimeToWaitForEpoch: off by default."""
    host = LeaderHost(max_wait_for_epoch_ms=limit_ms)
    host.leader.deserted({2})
    assert host.leader.failed is None, "not at once"
    for _ in range(2):
        host.tick()
        host.leader.deserted(set())
    assert host.leader.failed is None, "nobody looks"
    host.leader.deserted({2})
    assert (host.leader.failed is not None) == gives_up


def test_zookeeper_4685_proposal_acks_may_come_before_that_of_new_leader() -> None:
    database = FakeDatabase()
    database.disk.accepted_epoch = database.disk.current_epoch = 1
    database.disk.log = [(zxid, make_txn(zxid)) for zxid in range(E1 + 1, E1 + 7)]
    database.reload()
    host = LeaderHost(database=database)
    follower = host.learner(2)
    follower.register()
    follower.ack_epoch(E1 + 4, current_epoch=1)
    follower.send(p.ACK, E1 + 5)
    follower.send(p.ACK, E1 + 6)
    assert host.leader.phase == SYNCHRONIZATION
    follower.ack_new_leader()
    assert host.leader.phase == BROADCAST


def test_an_early_ack_of_what_was_never_proposed_ends_the_connection() -> None:
    """It would stand for the acknowledgements of all that is to come."""
    host = LeaderHost()
    follower = host.learner(2)
    follower.register()
    follower.ack_epoch()
    follower.send(p.ACK, 9 << 32 | 5)
    assert follower.link.closed


@pytest.mark.parametrize("cut", range(1, 20))
def test_acks_behind_that_of_new_leader_may_come_in_any_pieces(cut: int) -> None:
    host = LeaderHost()
    (other,) = host.established(2)
    zxids = host.propose(3)
    follower = host.learner(3)
    follower.register()
    follower.ack_epoch()
    acks = b"".join(encode_packet(p.ACK, zxid) for zxid in (1 << 32, *zxids))
    follower.feed(acks[: 40 + cut])
    follower.feed(acks[40 + cut :])
    assert not follower.link.closed
    assert follower.handler.acked == zxids[-1]
    host.leader.durable(zxids[-1])
    assert host.leader.committed_zxid == zxids[-1]
    assert not other.link.closed


def test_a_snapshot_may_take_longer_than_init_limit_and_then_be_stored() -> None:
    host = LeaderHost(force_snapshot=True)
    host.database.snapshot_slices = lambda: iter([bytes(300_000)] * 3 * INIT_LIMIT)
    follower = host.learner(2)
    follower.register()
    follower.reader.raw = True
    follower.ack_epoch()
    while follower.handler.in_snapshot:
        host.tick()
        host.collect()
    assert host.now_ms > TICK_MS * INIT_LIMIT
    for _ in range(2 * INIT_LIMIT - 2):
        host.tick()
        assert host.leader.failed is None
    follower.ack_new_leader()
    assert host.leader.phase == BROADCAST


def test_who_waits_for_new_leader_waits_for_no_observer() -> None:
    host = LeaderHost(force_snapshot=True, observers=(4,))
    host.database.snapshot_slices = lambda: iter([bytes(300_000)] * 9 * INIT_LIMIT)
    host.learner(2).register()
    observer = host.learner(4)
    observer.register(type=p.OBSERVERINFO)
    host.learners[2].ack_epoch()
    observer.reader.raw = True
    observer.ack_epoch()
    host.leader.drop(host.learners[2].handler, "gone")
    for _ in range(2 * INIT_LIMIT + 2):
        host.tick()
        host.collect()
    assert observer.handler.in_snapshot
    assert host.leader.failed is not None


def test_a_learner_that_comes_late_gets_what_is_committed_then_what_is_proposed() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    first, second = host.propose(2)
    follower.ack(first)
    host.leader.durable(second)
    assert host.leader.committed_zxid == first
    late = host.learner(3)
    late.register()
    late.ack_epoch(zxid=0)
    new_leader = ("NEWLEADER", 1 << 32)
    assert late.take() == [
        ("LEADERINFO", 1 << 32), ("DIFF", first), ("PROPOSAL", first), ("COMMIT", first),
        new_leader, ("PROPOSAL", second),
    ]  # fmt: skip
    (third,) = host.propose()
    follower.ack(third)
    host.leader.durable(third)
    late.ack_new_leader()
    # All that is committed comes before UPTODATE.
    assert late.take() == [
        ("PROPOSAL", third), ("COMMIT", second), ("COMMIT", third), ("UPTODATE", -1),
    ]  # fmt: skip


def test_what_follows_a_snapshot_waits_behind_it() -> None:
    host = LeaderHost(force_snapshot=True)
    pieces = [bytes([65 + number]) * 200_000 for number in range(8)]
    host.database.snapshot_slices = lambda: iter(pieces)
    follower = host.learner(2)
    follower.register()
    follower.raw = b""
    host.outbox.clear()
    follower.handler.received(
        follower.link, encode_packet(p.ACKEPOCH, 0, struct.pack(">i", 0)), host.now_ms
    )
    link = follower.link
    stream = bytearray()
    for _ in range(20):
        stream += link.out
        link.out = bytearray()
        link.owner.pump(host.now_ms)  # type: ignore[union-attr]
    snapshot = encode_packet(p.SNAP, 0) + b"".join(pieces)
    assert stream.startswith(snapshot)
    rest = PacketReader().feed(bytes(stream[len(snapshot) :]))
    assert [packet[0] for packet in rest] == [p.NEWLEADER]


def test_a_snapshot_is_not_pushed_into_a_network_that_takes_nothing() -> None:
    host = LeaderHost(force_snapshot=True)
    host.database.snapshot_slices = lambda: iter([bytes(100_000)] * 1000)
    follower = host.learner(2)
    follower.register()
    data = encode_packet(p.ACKEPOCH, 0, struct.pack(">i", 0))
    follower.handler.received(follower.link, data, host.now_ms)
    for _ in range(20):
        host.leader.tick(host.now_ms)
        follower.handler.pump(host.now_ms)
    assert len(follower.link.out) < 1_000_000


def test_what_commits_while_a_snapshot_is_sent_comes_before_new_leader() -> None:
    """Then the learner's snapshot is exact; and nobody waits for acknowledgements of it."""
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.settings.force_snapshot = True
    pieces = [bytes([65 + number]) * 200_000 for number in range(8)]
    host.database.snapshot_slices = lambda: iter(pieces)
    late = host.learner(3)
    late.register()
    late.raw = b""
    data = encode_packet(p.ACKEPOCH, 0, struct.pack(">i", 0))
    late.handler.received(late.link, data, host.now_ms)
    zxid, pending = host.propose(2)
    host.leader.durable(pending)
    follower.ack(zxid)
    assert host.leader.committed_zxid == zxid
    late.reader.raw = True  # the raw stream is not cut into packets here
    for _ in range(20):
        host.collect()
        late.handler.pump(host.now_ms)
    snapshot = encode_packet(p.SNAP, 1 << 32) + b"".join(pieces)
    assert late.raw.startswith(snapshot)
    rest = PacketReader().feed(late.raw[len(snapshot) :])
    assert [(packet[0], packet[1]) for packet in rest] == [
        (p.PROPOSAL, zxid), (p.COMMIT, zxid), (p.NEWLEADER, 1 << 32), (p.PROPOSAL, pending),
    ]  # fmt: skip
    late.ack_new_leader()
    follower.ack(pending)
    late.ack(pending)
    for _ in range(4 * SYNC_LIMIT):
        for learner in (follower, late):
            learner.send(p.PING, 0, b"")
        host.tick()
    assert not late.link.closed


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


# ---------------------------------------------------------------------- sync


def test_sync_asks_a_quorum_that_answers_after_it_came() -> None:
    host = LeaderHost(voters=5)
    first, second, third = host.established(2, 3, 4)
    host.tick()
    for follower in (first, second, third):
        follower.take()
    host.leader.sync("a client")
    host.collect()
    assert first.take() == second.take() == third.take() == [("PING", 1 << 32)]
    for follower in (first, second):
        follower.send(p.PING, 1 << 32, b"")  # of the tick before
    assert host.leader.take_synced() == []
    first.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == []
    second.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == ["a client"]


def test_sync_waits_for_what_was_proposed_before() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    (zxid,) = host.propose()
    follower.take()
    host.leader.sync(follower.handler)
    host.collect()
    follower.send(p.PING, 0, b"")
    assert follower.take() == [("PING", zxid)]
    host.leader.durable(zxid)
    follower.ack(zxid)
    assert follower.take() == [("COMMIT", zxid), ("SYNC", 0)]


def test_syncs_of_one_turn_share_a_round_and_later_ones_wait_for_the_next() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync(1)
    host.leader.sync(2)
    host.collect()
    host.leader.sync(3)
    host.collect()
    assert follower.take() == [("PING", 1 << 32)]
    follower.send(p.PING, 0, b"")
    assert host.leader.take_synced() == [1, 2]
    assert follower.take() == [("PING", 1 << 32)]
    follower.send(p.PING, 0, b"")
    assert host.leader.take_synced() == [3]


def test_a_sync_goes_ahead_of_the_commits_of_what_came_after_it() -> None:
    # Apache's CommitProcessor answers its clients in the order they asked, and stops for good at
    # a COMMIT that comes before the SYNC of an earlier request.
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync(follower.handler)
    one, two = host.propose(2)
    host.leader.sync(follower.handler)
    follower.take()
    host.leader.durable(two)
    follower.ack(two)
    taken = [packet for packet in follower.take() if packet[0] != "PING"]
    assert taken == [("SYNC", 0), ("COMMIT", one), ("COMMIT", two)]
    follower.send(p.PING, 0, b"")
    follower.send(p.PING, 0, b"")
    assert follower.take() == [("PING", two), ("SYNC", 0)]


def test_a_round_that_lost_its_followers_counts_those_that_come_back() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    host.leader.sync("a client")
    host.collect()
    follower.handler.lost(follower.link, "gone, and the PING with it")
    again = host.learner(2)
    again.join()
    host.tick()
    assert again.take()[-1] == ("PING", 1 << 32)
    again.send(p.PING, 1 << 32, b"")
    assert host.leader.take_synced() == ["a client"]


def test_a_leader_that_nobody_follows_any_more_completes_no_sync() -> None:
    host = LeaderHost()
    (follower,) = host.established(2)
    follower.handler.lost(follower.link, "gone")
    host.leader.sync("a client")
    for _ in range(3):
        host.tick()
    assert host.leader.take_synced() == []
    assert host.leader.failed is not None


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
