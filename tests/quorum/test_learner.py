"""Learner: discovery, catching up; the order of durable effects; past incidents."""

from __future__ import annotations

import json
import logging
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quorum.fake_database import (
    RECONFIG,
    Crash,
    DiskFailed,
    FakeDatabase,
    make_snapshot,
    make_txn,
)
from tests.quorum.learner_host import (
    MEMBERS,
    LearnerHost,
    commit,
    commit_and_activate,
    committed,
    diff,
    established,
    leader_info,
    new_leader,
    ping,
    prepared,
    proposal,
    snap,
    trunc,
    up_to_date,
)

from zkpy.protocol.packets import (
    ACK,
    ACKEPOCH,
    COMMIT,
    COMMITANDACTIVATE,
    FOLLOWERINFO,
    LEADERINFO,
    NEWLEADER,
    OBSERVERINFO,
    PING,
    PROPOSAL,
    LearnerInfo,
    Packet,
    PacketReader,
    encode_packet,
)
from zkpy.protocol.zxid import make_zxid
from zkpy.quorum.catch_up import plan_catch_up
from zkpy.quorum.follower import Follower
from zkpy.quorum.link import Link
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.observer import Observer
from zkpy.quorum.reconfig import activate
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

WIRE = Path(__file__).parent.parent / "golden" / "wire"
E1, E2, E3 = (make_zxid(epoch, 0) for epoch in (1, 2, 3))


# ---------------------------------------------------------------------- discovery


def test_the_epoch_is_promised_on_disk_before_it_is_said() -> None:
    host = LearnerHost(prepared([E1 + 1], 1))
    host.connect()
    host.disk.fail_at = "acceptedEpoch"
    with pytest.raises(DiskFailed):
        host.feed(leader_info(2))
    assert [type for type, _ in host.take_sent()] == [FOLLOWERINFO]


def test_a_new_epoch_is_acknowledged_with_what_we_have() -> None:
    host = LearnerHost(prepared([E1 + 1, E1 + 2], 1))
    host.connect()
    host.feed(leader_info(5))
    assert host.disk.effects == [("acceptedEpoch", 5)]
    assert host.sent[-1] == (ACKEPOCH, E1 + 2, b"\x00\x00\x00\x01", None)
    assert (host.learner.new_epoch, host.learner.phase) == (5, "synchronization")


def test_an_epoch_accepted_before_does_not_count_twice() -> None:
    host = LearnerHost(prepared([E1 + 1], 1))
    host.connect()
    host.feed(leader_info(1))
    assert host.disk.effects == []
    assert host.sent[-1] == (ACKEPOCH, E1 + 1, b"\xff\xff\xff\xff", None)


def test_a_leader_of_the_past_is_left() -> None:
    host = LearnerHost(prepared([], 3))
    host.connect()
    host.feed(leader_info(2))
    assert host.learner.failed == (
        "leader 3 at /h3:2888: Leaders epoch, 2 is less than accepted epoch, 3"
    )
    assert host.learner.link is not None
    assert host.learner.link.closed
    assert host.disk.effects == []


# ---------------------------------------------------------------------- order of effects


@pytest.mark.parametrize("chunk", [0, 1, 7, 20])
def test_diff_is_durable_before_the_epoch_and_the_epoch_before_the_ack(chunk: int) -> None:
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 2) + committed(E1 + 1, E1 + 2) + new_leader(2), chunk)
    assert host.disk.effects == [("acceptedEpoch", 2), ("append", E1 + 1), ("append", E1 + 2)]
    assert host.acks() == []
    assert host.learner.sync_mode == "diff"
    host.sync_log()
    assert host.disk.effects[3:] == [
        ("durable", E1 + 2),
        ("apply", E1 + 1),
        ("apply", E1 + 2),
        ("currentEpoch", 2),
    ]
    assert host.acks() == [E2], "what came by DIFF is not acknowledged one by one"
    assert host.learner.sync_mode == "none"
    host.feed(up_to_date(), chunk)
    assert host.acks() == [E2]
    assert host.learner.phase == "broadcast"
    assert host.delivered == []
    host.sync_log()
    assert host.acks() == []


def test_a_follower_without_news_joins_at_once() -> None:
    host = LearnerHost(prepared([E1 + 1], 1))
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 1) + new_leader(2))
    assert host.disk.effects == [("acceptedEpoch", 2), ("currentEpoch", 2)]
    assert host.acks() == [E2]


@pytest.mark.parametrize("chunk", [0, 1, 11])
def test_snap_is_a_durable_snapshot_before_the_epoch(chunk: int) -> None:
    host = LearnerHost()
    host.connect()
    stream = make_snapshot([E1 + 1, E1 + 2])
    host.feed(leader_info(2) + snap(E1 + 2, stream) + committed(E1 + 3), chunk)
    assert host.disk.effects == [("acceptedEpoch", 2), ("install", E1 + 2), ("apply", E1 + 3)]
    assert host.learner.database_dirty
    host.feed(new_leader(2), chunk)
    assert host.disk.effects[3:] == [("snapshot", E1 + 3), ("currentEpoch", 2)]
    assert not host.learner.database_dirty
    assert host.acks() == [E2]
    host.feed(up_to_date() + proposal(E2 + 1), chunk)
    host.sync_log()
    assert host.acks() == [E2, E2 + 1]
    assert host.disk.restored() == [E1 + 1, E1 + 2, E1 + 3, E2 + 1]


def test_a_fuzzy_snapshot_may_have_what_follows_it() -> None:
    """The txns up to the zxid of SNAP may be sent once more, those behind it may be in it."""
    host = LearnerHost()
    host.connect()
    stream = make_snapshot([E1 + 1, E1 + 2, E1 + 3])
    host.feed(
        leader_info(2)
        + snap(E1 + 2, stream)
        + committed(E1 + 1, E1 + 2, E1 + 3, E1 + 4)
        + new_leader(2)
    )
    assert host.learner.failed is None
    assert host.database.state == [E1 + 1, E1 + 2, E1 + 3, E1 + 4]
    assert host.learner.last_zxid == E1 + 4


def test_the_config_node_is_ours_after_the_sync_header() -> None:
    """Not that of the snapshot: ZOOKEEPER-2819, 3829."""
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + snap(E1 + 1, make_snapshot([E1 + 1])))
    assert host.database.config is MEMBERS


def test_what_was_proposed_before_uptodate_is_logged_and_acked_behind_the_second_ack() -> None:
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + proposal(E2 + 1) + new_leader(2) + proposal(E2 + 2))
    assert host.acks() == [E2]
    assert not host.disk.unsynced
    host.feed(commit(E2 + 1) + up_to_date())
    assert host.acks() == [E2]
    assert host.disk.unsynced == [(E2 + 1, make_txn(E2 + 1)), (E2 + 2, make_txn(E2 + 2))]
    assert host.delivered == [(COMMIT, E2 + 1, make_txn(E2 + 1))]
    assert list(host.learner.pending) == [(E2 + 2, make_txn(E2 + 2))]
    host.sync_log()
    assert host.acks() == [E2 + 1, E2 + 2]


def test_what_comes_while_the_disk_works_waits_its_turn() -> None:
    """Also an UPTODATE, from a leader that does not wait for our ACK."""
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + committed(E1 + 1) + new_leader(2) + up_to_date())
    host.feed(proposal(E2 + 1) + ping(E2 + 1))
    assert host.learner.phase == "synchronization"
    assert host.take_sent() == [(FOLLOWERINFO, 0), (ACKEPOCH, 0)]
    host.sync_log()
    assert host.take_sent() == [(ACK, E2), (ACK, E2), (PING, E2 + 1)]
    host.sync_log()
    assert host.acks() == [E2 + 1]


def test_ping_before_uptodate_gets_no_answer() -> None:
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + ping(0) + new_leader(2) + ping(0))
    assert host.take_sent() == [(FOLLOWERINFO, 0), (ACKEPOCH, 0), (ACK, E2)]
    host.feed(up_to_date() + ping(E2))
    assert host.take_sent() == [(ACK, E2), (PING, E2)]


def test_a_proposal_may_come_twice() -> None:
    """Once to catch up and once more by broadcast."""
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + committed(E1 + 1) + proposal(E1 + 1) + proposal(E2 + 1))
    host.feed(proposal(E2 + 1) + new_leader(2))
    host.sync_log()
    host.feed(up_to_date() + proposal(E2 + 1) + proposal(E2 + 2) + commit(E2 + 1))
    host.sync_log()
    assert host.acks() == [E2, E2, E2 + 1, E2 + 2]
    assert host.database.state == [E1 + 1, E2 + 1]
    assert host.disk.restored() == [E1 + 1, E2 + 1, E2 + 2]


# ---------------------------------------------------------------------- what a leader must not do


SYNCING = leader_info(2) + diff(0) + committed(E1 + 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SYNCING + proposal(E1 + 3), "proposal 0x100000003 follows 0x100000001: some are missing"),
        (SYNCING + proposal(E2 + 2), "proposal 0x200000002 follows 0x100000001: some are missing"),
        (SYNCING + proposal(E3 + 1), "PROPOSAL 0x300000001 is not of epoch 2 or before"),
        (SYNCING + commit(E1 + 2), "COMMIT of 0x100000002, which was never proposed"),
        (
            SYNCING + proposal(E1 + 2) + proposal(E1 + 3) + commit(E1 + 3),
            "COMMIT of 0x100000003, but the next proposal is 0x100000002",
        ),
        (
            SYNCING + encode_packet(PROPOSAL, E1 + 2, make_txn(E1 + 7)),
            "proposal 0x100000002 is a txn of zxid 0x100000007",
        ),
        (
            SYNCING + encode_packet(PROPOSAL, E1 + 2, b"short"),
            "proposal 0x100000002 without a txn header",
        ),
        (
            SYNCING + encode_packet(PROPOSAL, E1 + 2, make_txn(E1 + 2, type=99)),
            "Unsupported Txn with type=99",
        ),
        (SYNCING + up_to_date(), "UPTODATE where NEWLEADER was expected"),
        (SYNCING + new_leader(1), "NEWLEADER 0x100000000 in epoch 2"),
        (SYNCING + encode_packet(77, 0), "packet of type 77 where NEWLEADER was expected"),
        (
            SYNCING + encode_packet(NEWLEADER, E2, b"server.1=nonsense"),
            "configuration that cannot be read: nonsense does not have the form",
        ),
        (
            leader_info(2) + diff(0) + new_leader(2) + new_leader(2),
            "NEWLEADER where UPTODATE was expected",
        ),
        (new_leader(2), "NEWLEADER where LEADERINFO was expected"),
        (encode_packet(LEADERINFO, E2), "LEADERINFO without a protocol version"),
        (leader_info(0x7FFFFFFF), "impossible epoch 0x7fffffff"),
        (leader_info(2) + up_to_date(), "UPTODATE where DIFF, TRUNC or SNAP was expected"),
        (leader_info(2) + trunc(-1), "TRUNC -0x1 is not of epoch 2 or before"),
        (leader_info(2) + snap(E3, b""), "SNAP 0x300000000 is not of epoch 2 or before"),
        (leader_info(2) + snap(E1, b"garbage" + make_snapshot([])), "Missing signature"),
        (b"GET / HTTP/1.1\r\nHost: h3\r\n", "no packet begins"),
        (struct.pack(">iqi", LEADERINFO, E2, 1 << 30) + bytes(4), "with 1073741824 bytes, limit"),
    ],
)
@pytest.mark.parametrize("chunk", [0, 3])
def test_garbage_ends_the_role_and_nothing_else(
    data: bytes, reason: str, chunk: int, caplog: pytest.LogCaptureFixture
) -> None:
    host = LearnerHost()
    host.connect()
    with caplog.at_level(logging.INFO):
        host.feed(data, chunk)
    failed = host.learner.failed
    assert failed is not None
    assert failed.startswith("leader 3 at /h3:2888: ")
    assert reason in failed
    assert host.learner.fatal_exit_code is None
    assert host.learner.link is not None
    assert host.learner.link.closed
    assert "Exception when following the leader: leader 3 at /h3:2888" in caplog.text
    assert (
        "Disconnected from leader (with address: /h3:2888). Was connected for 0ms." in caplog.text
    )
    assert ("currentEpoch", 2) not in host.disk.effects or ACK in dict(host.take_sent())
    host.feed(up_to_date())
    assert host.learner.failed == failed


@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", leader_info(2), SYNCING]))
def test_any_bytes_end_the_role_or_wait_for_more(data: bytes, before: bytes) -> None:
    host = LearnerHost()
    host.connect()
    host.feed(before + data)
    assert host.learner.fatal_exit_code in (None, 13), "TRUNC may come by chance"


@given(st.lists(st.integers(1, 60), max_size=30), st.booleans())
def test_any_chunking_gives_the_same_answers(sizes: list[int], snapshot: bool) -> None:
    header = snap(E1 + 1, make_snapshot([E1 + 1])) if snapshot else diff(0) + committed(E1 + 1)
    stream = leader_info(2) + header + committed(E1 + 2) + proposal(E2 + 1) + new_leader(2)
    stream += commit(E2 + 1) + up_to_date() + proposal(E2 + 2) + commit(E2 + 2) + ping(E2 + 2)
    host = LearnerHost()
    host.connect()
    start = 0
    for size in [*sizes, len(stream)]:
        host.feed(stream[start : start + size])
        start += size
    host.sync_log()
    host.sync_log()
    sent = host.take_sent()
    assert [zxid for type, zxid in sent if type == ACK] == [E2, E2, E2 + 1, E2 + 2]
    assert (PING, E2 + 2) in sent
    assert host.database.state == [E1 + 1, E1 + 2, E2 + 1, E2 + 2] == host.disk.restored()


# ---------------------------------------------------------------------- incidents


@pytest.mark.parametrize("effects", range(8))
def test_zookeeper_3911_4643_a_crash_at_any_effect(effects: int) -> None:
    """Incidents 1 and 3: whoever claims an epoch has what the epoch began with."""
    host = LearnerHost(prepared([E1 + 1], 1))
    host.disk.crash_after = effects
    with pytest.raises(Crash) if effects < 7 else nullcontext():
        host.connect()
        host.feed(leader_info(3) + diff(E2 + 1) + committed(E1 + 2, E2 + 1) + new_leader(3))
        host.sync_log()
    disk = host.disk
    if disk.current_epoch == 3 or ACK in dict(host.take_sent()):
        assert disk.restored() == [E1 + 1, E1 + 2, E2 + 1]
        assert disk.current_epoch == 3
    else:
        assert disk.current_epoch == 1


def test_zookeeper_4646_slow_log_no_ack() -> None:
    """Incident 2: however late the fsync is, the ACK of NEWLEADER comes later."""
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 2) + committed(E1 + 1, E1 + 2) + new_leader(2))
    for now_ms in range(0, 20_000, 500):
        host.now_ms = now_ms
        host.feed(ping(0))
        host.learner.tick(now_ms)
        # Reports of something older are no licence.
        host.learner.durable(E1 + 1)
    assert host.acks() == []
    assert host.disk.current_epoch == 0
    host.sync_log()
    assert host.acks() == [E2]


def test_a_late_report_of_the_log_does_not_stand_for_what_was_not_taken_yet() -> None:
    host = LearnerHost()
    host.connect()
    data = leader_info(2) + diff(0) + committed(E1 + 1) + new_leader(2)
    assert host.learner.link is not None
    host.learner.received(host.learner.link, data, 0)
    host.learner.durable(E1 + 1)  # of an earlier role
    host.turn()
    assert host.acks() == []
    host.sync_log()
    assert host.acks() == [E2]


def test_zookeeper_4685_no_ack_of_a_proposal_before_that_of_newleader() -> None:
    """Incident 4, from the side that caused it."""
    host = LearnerHost()
    host.connect()
    host.feed(
        leader_info(2)
        + diff(0)
        + committed(E1 + 1)
        + proposal(E2 + 1)
        + new_leader(2)
        + up_to_date()
    )
    host.sync_log()
    host.sync_log()
    assert host.acks() == [E2, E2, E2 + 1]


def test_zookeeper_4394_commit_after_newleader_of_a_proposal_before_it() -> None:
    """Incident 5."""
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + committed(E1 + 1) + proposal(E1 + 2) + new_leader(2))
    host.sync_log()
    assert host.acks() == [E2]
    assert host.disk.restored() == [E1 + 1]
    host.feed(commit(E1 + 2) + up_to_date())
    assert host.learner.failed is None
    assert host.delivered == [(COMMIT, E1 + 2, make_txn(E1 + 2))]
    host.sync_log()
    assert host.acks() == [E2, E1 + 2]
    assert host.disk.restored() == [E1 + 1, E1 + 2]


def test_zookeeper_4925_what_was_got_by_diff_is_passed_on_by_diff() -> None:
    """Incident 6: no hole in the committed log of a server that caught up, and leads later."""
    first = LearnerHost(prepared([E1 + 1], 1))
    first.connect()
    first.feed(leader_info(2) + diff(E1 + 3) + committed(E1 + 2, E1 + 3) + new_leader(2))
    first.sync_log()
    first.feed(up_to_date() + committed(E2 + 1))
    first.sync_log()
    assert [zxid for zxid, _ in first.database.committed_log.proposals] == first.database.state
    plan = plan_catch_up(first.database, E1 + 1, snapshot_size_factor=-1, force_snapshot=False)
    assert plan.mode == "diff"
    sent = b"".join(encode_packet(PROPOSAL, *p) + commit(p[0]) for p in plan.proposals)
    second = LearnerHost(prepared([E1 + 1], 1))
    second.connect()
    second.feed(leader_info(3) + diff(plan.zxid) + sent + new_leader(3))
    second.sync_log()
    assert second.acks() == [E3]
    assert second.disk.restored() == first.disk.restored() == [E1 + 1, E1 + 2, E1 + 3, E2 + 1]


@pytest.mark.parametrize("missing", range(3))
def test_zookeeper_4925_a_diff_with_a_hole_is_refused(missing: int) -> None:
    """Incident 6: also a hole before the first proposal."""
    zxids = [E1 + 2, E1 + 3, E1 + 4, E1 + 5]
    del zxids[missing]
    host = LearnerHost(prepared([E1 + 1], 1))
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 5) + committed(*zxids) + new_leader(2))
    assert host.learner.failed is not None
    assert "some are missing" in host.learner.failed
    host.end()
    assert host.disk.restored() == [E1 + 1]
    assert host.disk.current_epoch == 1


@pytest.mark.parametrize("whole", [False, True])
def test_zookeeper_3642_an_interrupted_snap_leaves_nothing_in_memory(whole: bool) -> None:
    """Incident 7."""
    host = LearnerHost(prepared([E1 + 1], 1))
    host.connect()
    stream = make_snapshot([E1 + 1, E1 + 2, E1 + 3])
    data = leader_info(2) + snap(E1 + 3, stream) + committed(E1 + 4)
    host.feed(data if whole else data[: -len(committed(E1 + 4)) - 5])
    assert host.learner.database_dirty == whole
    assert host.learner.link is not None
    host.learner.lost(host.learner.link, "end of stream")
    host.end()
    assert host.database.state == [E1 + 1]
    # The next leader sends what is missing from there, not from the snapshot on.
    again = LearnerHost(host.database)
    again.connect()
    again.feed(leader_info(3))
    assert again.take_sent()[-1] == (ACKEPOCH, E1 + 1)
    again.feed(diff(0) + committed(E1 + 2, E1 + 3, E1 + 4, E2 + 1) + new_leader(3))
    again.sync_log()
    assert again.disk.restored() == [E1 + 1, E1 + 2, E1 + 3, E1 + 4, E2 + 1]


def test_zookeeper_5094_an_interrupted_trunc() -> None:
    """Incident 8: TRUNC, then a txn, then no NEWLEADER. What is advertised is on disk."""
    host = LearnerHost(prepared([E1 + 1, E1 + 2], 1))
    host.connect()
    host.feed(leader_info(2) + trunc(E1 + 1) + committed(E2 + 1))
    assert host.learner.sync_mode == "trunc"
    assert not host.learner.database_dirty
    assert host.learner.link is not None
    host.learner.lost(host.learner.link, "end of stream")
    host.end()
    again = LearnerHost(host.database)
    again.connect()
    again.feed(leader_info(3))
    assert again.take_sent()[-1] == (ACKEPOCH, host.disk.last_zxid) == (ACKEPOCH, E1 + 1)
    again.feed(diff(0) + committed(E2 + 1, E2 + 2) + new_leader(3))
    again.sync_log()
    again.feed(up_to_date() + committed(E3 + 1))
    again.sync_log()
    assert again.disk.restored() == [E1 + 1, E2 + 1, E2 + 2, E3 + 1]


def test_trunc_and_what_follows_it_are_durable_before_the_epoch() -> None:
    host = LearnerHost(prepared([E1 + 1, E1 + 2], 1))
    host.connect()
    host.feed(leader_info(2) + trunc(E1 + 1) + committed(E2 + 1) + new_leader(2))
    host.sync_log()
    assert host.disk.effects == [
        ("acceptedEpoch", 2),
        ("truncate", E1 + 1),
        ("append", E2 + 1),
        ("durable", E2 + 1),
        ("apply", E2 + 1),
        ("currentEpoch", 2),
    ]
    assert host.acks() == [E2]


def test_zookeeper_4882_a_failed_write_is_not_survived_by_memory() -> None:
    """Incident 9: the txn is applied, as the others committed it, and missing in our log."""
    host = established(zxids=[E1 + 1])
    host.feed(proposal(E1 + 2) + commit(E1 + 2))
    assert host.database.state == [E1 + 1, E1 + 2]
    host.disk.fail_at = "durable"
    with pytest.raises(DiskFailed):
        host.sync_log()
    assert host.acks() == []
    # The process ends. What its successor tells is what the disk has.
    host.disk.unsynced.clear()
    host.disk.fail_at = None
    again = LearnerHost(FakeDatabase(host.disk))
    again.connect()
    again.feed(leader_info(2))
    assert again.take_sent()[-1] == (ACKEPOCH, E1 + 1)
    again.feed(diff(0) + committed(E1 + 2) + new_leader(2))
    again.sync_log()
    assert again.disk.restored() == [E1 + 1, E1 + 2]


@pytest.mark.parametrize("target", [E1 + 2, E1])
def test_incident_13_trunc_to_what_we_do_not_have(target: int) -> None:
    """Nothing is made up: not a zxid that the log does not lead to, nor a way on from there."""
    host = LearnerHost(prepared([E1 + 1, E2 + 1], 2))
    host.connect()
    host.feed(leader_info(3) + trunc(target) + committed(E1 + 3) + new_leader(3))
    assert host.learner.fatal_exit_code == 13
    assert host.learner.failed == f"leader 3 at /h3:2888: Not able to truncate the log {target:#x}"
    assert host.acks() == []
    assert host.disk.current_epoch == 2


def test_incident_13_the_mark_of_an_epoch_is_gone_back_to_only_by_its_snapshot() -> None:
    """A log may say how an epoch began, but not that what was before it is all there."""
    host = LearnerHost(prepared([E1 + 1, E2 + 1], 2))
    tried: list[int] = []

    def truncate(zxid: int) -> bool:
        tried.append(zxid)
        return zxid == E2

    host.database.truncate = truncate  # type: ignore[method-assign]
    host.connect()
    host.feed(leader_info(3) + trunc(E1 + 2) + new_leader(3))
    assert tried == [E1 + 2]
    assert host.learner.fatal_exit_code == 13


def test_incident_13_nothing_above_the_target_survives() -> None:
    host = LearnerHost(prepared([E1 + 1, E1 + 2, E1 + 3], 1))
    host.connect()
    host.feed(leader_info(2) + trunc(E1 + 1) + new_leader(2))
    assert host.acks() == [E2]
    assert host.disk.restored() == host.database.state == [E1 + 1]


@pytest.mark.parametrize("before", [b"", committed(E1 + 1)])
def test_zookeeper_2355_a_missed_proposal_is_no_small_matter(before: bytes) -> None:
    """Incident 28: the closeSession that we did not read comes with the next catching up."""
    host = established()
    missed = E1 + (2 if before else 1)
    host.feed(before + proposal(missed + 1))
    assert host.learner.failed is not None
    assert "some are missing" in host.learner.failed
    host.end()
    again = LearnerHost(host.database)
    again.connect()
    again.feed(leader_info(2))
    assert again.take_sent()[-1] == (ACKEPOCH, missed - 1 if before else 0)


RECONFIGURED = parse_config_text(MEMBERS.text().replace("version=0", f"version={E1 + 1:x}"))
PROMOTED = parse_config_text(
    MEMBERS.text().replace("observer", "participant").replace("version=0", f"version={E1 + 1:x}")
)


def reconfig_txn(zxid: int) -> bytes:
    text = PROMOTED.text().replace(f"version={E1 + 1:x}", f"version={zxid:x}")
    return make_txn(zxid, text.encode(), RECONFIG)


def test_incident_33_the_configuration_of_newleader_is_activated_once_at_uptodate() -> None:
    view = View(1, MEMBERS, reconfig_enabled=True)
    host = LearnerHost(view=view)
    host.connect()
    host.feed(leader_info(2) + diff(0) + new_leader(2, RECONFIGURED))
    assert view.last_proposed == RECONFIGURED
    assert view.committed is MEMBERS
    assert host.learner.reconfigured == []
    host.feed(up_to_date())
    assert host.learner.reconfigured == [(RECONFIGURED, None, E2)]
    host.learner.reconfigured.clear()
    host.feed(up_to_date() + ping(E2))
    assert host.learner.reconfigured == []


def test_incident_33_the_configuration_of_a_joiner_does_not_win() -> None:
    """What NEWLEADER carries is older than what is established here."""
    newer = RECONFIGURED.with_version(E1 + 9)
    view = View(1, newer, reconfig_enabled=True)
    host = LearnerHost(view=view)
    host.connect()
    host.feed(leader_info(2) + diff(0) + new_leader(2, RECONFIGURED) + up_to_date())
    assert view.last_proposed is newer
    for members, designated, _ in host.learner.reconfigured:
        assert not activate(view, members, designated, current_leader=3).activated
    assert view.committed is newer


def test_no_configuration_is_taken_where_reconfig_is_disabled() -> None:
    view = View(1, MEMBERS)
    host = LearnerHost(view=view)
    host.connect()
    host.feed(leader_info(1) + diff(0) + proposal(E1 + 1, reconfig_txn(E1 + 1)))
    host.feed(commit_and_activate(E1 + 1, 3) + new_leader(1, RECONFIGURED))
    host.sync_log()
    host.feed(up_to_date())
    assert host.learner.failed is None
    assert host.learner.reconfigured == []
    assert view.last_proposed is MEMBERS
    assert host.database.state == [E1 + 1]


@pytest.mark.parametrize("behind_newleader", [False, True])
def test_zookeeper_2172_a_reconfig_commits_while_we_catch_up(behind_newleader: bool) -> None:
    """Incident 34: it makes a voter of us; no crash, and the role change is told."""
    view = View(4, MEMBERS, reconfig_enabled=True)
    host = LearnerHost(view=view, my_id=4, kind=Observer)
    host.connect()
    host.feed(leader_info(1) + diff(0) + proposal(E1 + 1, reconfig_txn(E1 + 1)))
    assert view.last_proposed == PROMOTED
    parts = [new_leader(1), commit_and_activate(E1 + 1, 3)]
    host.feed(b"".join(parts if behind_newleader else reversed(parts)))
    host.sync_log()
    host.feed(up_to_date())
    assert host.learner.failed is None
    assert host.learner.reconfigured == [(PROMOTED, 3, E1 + 1)]
    expected = [(COMMITANDACTIVATE, E1 + 1, reconfig_txn(E1 + 1))] if behind_newleader else []
    assert host.delivered == expected
    assert host.database.state == [E1 + 1]
    host.sync_log()
    assert host.disk.restored() == [E1 + 1]
    activation = activate(view, PROMOTED, 3, current_leader=3)
    assert activation.role_changed


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_txn(E1 + 1, None, RECONFIG), "reconfig txn without a configuration"),
        (make_txn(E1 + 1, b"server.1=x", RECONFIG), "configuration that cannot be read"),
        (make_txn(E1 + 1, b"\xff\xfe", RECONFIG), "configuration that cannot be read"),
    ],
)
def test_a_reconfig_that_cannot_be_read_is_not_logged(data: bytes, reason: str) -> None:
    host = LearnerHost(view=View(1, MEMBERS, reconfig_enabled=True))
    host.connect()
    host.feed(leader_info(1) + diff(0) + new_leader(1) + up_to_date() + proposal(E1 + 1, data))
    assert host.learner.failed is not None
    assert reason in host.learner.failed
    assert host.disk.unsynced == []


# ---------------------------------------------------------------------- golden


def peer_connections() -> list[tuple[str, str, int]]:
    """(scenario, name, sid of the leader) of each captured connection of a learner, but SASL's."""
    found = []
    for index in sorted(WIRE.glob("*/index.json")):
        if index.parent.name == "395-sasl":
            continue
        for connection in json.loads(index.read_text()):
            if connection["kind"] == "peer":
                leader = (int(connection["server"].rpartition(":")[2]) - 24000) // 10
                found.append((index.parent.name, connection["name"], leader))
    return found


def captured(scenario: str, name: str) -> tuple[list[Packet], bytes]:
    folder = WIRE / scenario
    said = PacketReader().feed((folder / f"{name}.c2s").read_bytes())
    return said, (folder / f"{name}.s2c").read_bytes()


@pytest.mark.parametrize("chunk", [0, 13])
@pytest.mark.parametrize(("scenario", "name", "leader"), peer_connections())
def test_answers_to_a_captured_leader_are_the_captured_ones(
    scenario: str, name: str, leader: int, chunk: int
) -> None:
    """Apart from what clients caused (requests, sessions touched), and, of 3.8, from ACKs of what
    came before NEWLEADER."""
    said, stream = captured(scenario, name)
    info = LearnerInfo.decode(said[0][2])
    ack_epoch = said[1]
    assert ack_epoch[0] == ACKEPOCH
    assert ack_epoch[2] is not None
    epoch = struct.unpack(">i", ack_epoch[2])[0]
    accepted = said[0][1] >> 32
    last = ack_epoch[1]
    base = last & ~0xFFFFFFFF
    database = prepared(range(base + 1, last + 1), epoch if epoch != -1 else accepted)
    database.disk.accepted_epoch = database.accepted_epoch = accepted
    # The members are those at the end of catching up: near enough for an address of the leader.
    sync_config = parse_config_text(config_at_newleader(stream), multi_address=True)
    view = View(
        info.server_id,
        sync_config.with_version(info.config_version),
        reconfig_enabled=sync_config.version > 0,
    )
    host = LearnerHost(
        database,
        Observer if said[0][0] == OBSERVERINFO else Follower,
        my_id=info.server_id,
        view=view,
    )
    host.learner.follow(Vote(leader, 0, 1, 0), 0)
    host.learner.dialled(host.dials()[0], Link(host.outbox, "leader"), 0)
    host.turn()
    for start in range(0, len(stream), chunk or len(stream)):
        host.feed(stream[start : start + (chunk or len(stream))])
        host.sync_log()
    host.sync_log()
    assert host.learner.failed is None
    assert host.learner.phase == "broadcast"
    check_answers(said, host.sent, chunk, is_380=scenario.startswith("380"))


def config_at_newleader(stream: bytes) -> str:
    """The configuration that NEWLEADER carries; a snapshot before it may hold another."""
    end = stream.find(struct.pack(">iqii", 12, -1, -1, -1))
    assert end > 0, "every captured learner came to UPTODATE"
    start = stream.rfind(struct.pack(">i", NEWLEADER), 0, end)
    length = struct.unpack_from(">i", stream, start + 12)[0]
    return stream[start + 16 : start + 16 + length].decode()


def check_answers(theirs: list[Packet], ours: list[Packet], chunk: int, is_380: bool) -> None:
    def of(packets: list[Packet], type: int) -> list[int]:
        return [zxid for packet_type, zxid, _, _ in packets if packet_type == type]

    # Up to the ACK of NEWLEADER byte for byte.
    until = next(i for i, packet in enumerate(ours) if packet[0] == ACK) + 1
    assert ours[:until] == theirs[:until]
    their_acks = of(theirs, ACK)
    if is_380:
        joined = their_acks[0]
        our_acks = of(ours, ACK)
        assert [zxid for zxid in their_acks if zxid in our_acks] == our_acks[: len(their_acks)]
        assert our_acks[:2] == [joined, joined]
    else:
        assert their_acks == of(ours, ACK)[: len(their_acks)]
        assert len(of(ours, ACK)) - len(their_acks) <= 1, "the capture may end before an answer"
    pings, our_pings = of(theirs, PING), of(ours, PING)
    assert pings == our_pings[: len(pings)]
    assert len(our_pings) - len(pings) <= 1
