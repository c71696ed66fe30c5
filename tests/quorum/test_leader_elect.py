"""LeaderElect: epochs, and learners until they follow, packet by packet."""

from __future__ import annotations

import struct

import pytest
from tests.quorum.fake_database import FakeDatabase, make_txn
from tests.quorum.leader_host import E1, INIT_LIMIT, SYNC_LIMIT, TICK_MS, LeaderHost

from zkpy.protocol import packets as p
from zkpy.protocol.packets import LearnerInfo, PacketReader, encode_packet
from zkpy.quorum.effects import OpenPeerPort
from zkpy.quorum.states import BROADCAST, DISCOVERY, SYNCHRONIZATION


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
    host.histories[3] = (1, 1 << 32)
    host.learner(3).register(accepted_epoch=7)
    assert host.leader.failed is not None and host.leader.needed_epoch == 8
    again = LeaderHost(least_epoch=8)
    again.established(2)
    assert again.leader.new_epoch == 8


@pytest.mark.parametrize("history", [None, (1, (1 << 32) + 1), (2, 1), (7, 7 << 32)])
def test_a_voter_with_a_history_of_its_own_ends_no_term(
    history: tuple[int, int] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It would win the election, and undo what has been acknowledged in this epoch."""
    host = LeaderHost()
    host.established(2)
    if history is not None:
        host.histories[3] = history
    host.learner(3).register(accepted_epoch=7)
    assert host.leader.failed is None
    assert host.learners[3].take() == [("LEADERINFO", 1 << 32)]
    assert "server 3 has accepted epoch 7: it cannot follow in ours, 1" in caplog.text


def test_an_epoch_without_a_next_one_is_not_believed() -> None:
    host = LeaderHost()
    host.learner(3).register(accepted_epoch=0x7FFFFFFF)
    assert host.learners[3].link.closed
    host.established(2)
    assert host.leader.new_epoch == 1
    host.learner(3).register(accepted_epoch=0x7FFFFFFF)
    assert host.learners[3].link.closed
    assert host.leader.failed is None


def test_there_is_a_last_epoch() -> None:
    host = LeaderHost()
    host.learner(2).register(accepted_epoch=0x7FFFFFFD)
    assert host.leader.new_epoch == 0x7FFFFFFE
    # Who has accepted it as well belongs to us, but can be led by nobody else.
    host.learner(3).register(accepted_epoch=0x7FFFFFFE)
    assert not host.learners[3].link.closed
    host = LeaderHost()
    host.learner(3).register(accepted_epoch=0x7FFFFFFE)
    assert host.learners[3].link.closed


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
