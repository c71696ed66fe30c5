"""Follower in broadcast: what is logged, acknowledged and delivered, and what ends the role."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quorum.fake_database import RECONFIG, make_txn
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
    proposal,
    snap,
    up_to_date,
)

from zkpy.protocol.packets import (
    ACK,
    COMMIT,
    COMMITANDACTIVATE,
    INFORM,
    PING,
    PROPOSAL,
    REVALIDATE,
    SYNC,
    encode_packet,
)
from zkpy.protocol.zxid import make_zxid
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.view import View

E1, E2 = make_zxid(1, 0), make_zxid(2, 0)


def test_a_proposal_is_acknowledged_when_it_is_durable_and_delivered_when_it_commits() -> None:
    host = established()
    host.feed(proposal(E1 + 1) + proposal(E1 + 2))
    assert host.disk.unsynced == [(E1 + 1, make_txn(E1 + 1)), (E1 + 2, make_txn(E1 + 2))]
    assert host.take_sent() == []
    host.sync_log()
    assert host.take_sent() == [(ACK, E1 + 1), (ACK, E1 + 2)]
    assert host.delivered == []
    host.feed(commit(E1 + 1))
    assert host.delivered == [(COMMIT, E1 + 1, make_txn(E1 + 1))]
    assert list(host.learner.pending) == [(E1 + 2, make_txn(E1 + 2))]
    assert (host.learner.committed_zxid, host.learner.last_zxid) == (E1 + 1, E1 + 2)


def test_each_ack_is_20_bytes_of_its_own() -> None:
    host = established()
    host.feed(proposal(E1 + 1) + proposal(E1 + 2))
    zxid = host.disk.commit()
    assert zxid is not None
    host.learner.durable(zxid)
    assert host.learner.link is not None
    assert bytes(host.learner.link.out) == encode_packet(ACK, E1 + 1) + encode_packet(ACK, E1 + 2)


def test_only_what_is_durable_is_acknowledged() -> None:
    host = established()
    host.feed(b"".join(proposal(E1 + n) for n in range(1, 6)))
    host.learner.durable(E1 + 2)
    host.turn()
    assert host.acks() == [E1 + 1, E1 + 2]
    host.learner.durable(E1 + 2)
    host.turn()
    assert host.acks() == []
    host.learner.durable(E1 + 5)
    host.turn()
    assert host.acks() == [E1 + 3, E1 + 4, E1 + 5]


def test_a_commit_may_come_before_our_disk_is_ready() -> None:
    host = established()
    host.feed(proposal(E1 + 1) + commit(E1 + 1))
    assert host.delivered == [(COMMIT, E1 + 1, make_txn(E1 + 1))]
    assert host.acks() == []
    host.sync_log()
    assert host.acks() == [E1 + 1]


def test_a_late_report_does_not_acknowledge_what_was_not_taken() -> None:
    host = established()
    host.feed(proposal(E1 + 1))
    assert host.learner.link is not None
    host.learner.received(host.learner.link, proposal(E1 + 2), 0)
    host.learner.durable(E1 + 2)
    host.turn()
    assert host.acks() == [E1 + 1]
    host.learner.durable(E1 + 2)
    host.turn()
    assert host.acks() == [E1 + 2]


def test_what_is_the_servers_business_keeps_its_place_among_commits() -> None:
    host = established()
    answer = struct.pack(">q?", 5, True)
    host.feed(
        proposal(E1 + 1)
        + encode_packet(SYNC, 0)
        + commit(E1 + 1)
        + encode_packet(SYNC, 0)
        + encode_packet(REVALIDATE, -1, answer)
        + ping(E1 + 1)
    )
    assert host.delivered == [
        (SYNC, 0, None),
        (COMMIT, E1 + 1, make_txn(E1 + 1)),
        (SYNC, 0, None),
        (REVALIDATE, -1, answer),
        (PING, E1 + 1, None),
    ]
    assert host.take_sent() == [(PING, E1 + 1)]


def test_the_first_of_the_leaders_epoch_follows_the_last_of_another() -> None:
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + committed(E1 + 1, E1 + 2) + new_leader(2))
    host.sync_log()
    host.feed(up_to_date() + proposal(E2 + 1) + commit(E2 + 1))
    assert host.learner.failed is None
    host.sync_log()
    assert host.acks()[-1] == E2 + 1


@pytest.mark.parametrize(
    ("data", "reason", "exit_code"),
    [
        (proposal(E1 + 3), "proposal 0x100000003 follows 0x100000001: some are missing", None),
        (proposal(E2 + 1), "PROPOSAL 0x200000001 is not of epoch 1 or before", None),
        (
            encode_packet(PROPOSAL, E1 + 2, make_txn(E1 + 3)),
            "proposal 0x100000002 is a txn of zxid 0x100000003",
            None,
        ),
        (encode_packet(PROPOSAL, E1 + 2), "proposal 0x100000002 without a txn header", None),
        (
            proposal(E1 + 2) + proposal(E1 + 3) + commit(E1 + 3),
            "Committing zxid 0x100000003 but next pending txn 0x100000002",
            12,
        ),
        (commit(E1 + 2), "Committing 0x100000002 without seeing txn", None),
        (commit_and_activate(E1 + 2, 3), "Committing 0x100000002 without seeing txn", None),
        (snap(E1 + 2, b""), "SNAP in the middle of broadcast", None),
    ],
)
def test_what_ends_the_role(data: bytes, reason: str, exit_code: int | None) -> None:
    host = established(zxids=[E1 + 1])
    host.feed(data)
    assert host.learner.failed == f"leader 3 at /h3:2888: {reason}"
    assert host.learner.fatal_exit_code == exit_code
    assert host.learner.link is not None
    assert host.learner.link.closed
    host.sync_log()
    assert host.acks() == [], "nobody is told of what is on disk then"


@pytest.mark.parametrize(
    "data",
    [
        commit(E1 + 1),
        proposal(E1 + 1),
        encode_packet(INFORM, E1 + 2, make_txn(E1 + 2)),
        up_to_date(),
        encode_packet(99, 0),
    ],
)
def test_what_is_ignored(data: bytes) -> None:
    host = established(zxids=[E1 + 1])
    host.feed(data + committed(E1 + 2))
    assert host.learner.failed is None
    assert host.delivered == [(COMMIT, E1 + 2, make_txn(E1 + 2))]
    assert host.disk.unsynced == [(E1 + 2, make_txn(E1 + 2))]


def test_what_came_before_garbage_counts() -> None:
    host = established()
    host.feed(committed(E1 + 1) + proposal(E1 + 2) + proposal(E1 + 9))
    host.end()
    assert host.database.state == [E1 + 1, E1 + 2] == host.disk.restored()


def test_the_end_of_the_role_leaves_memory_equal_to_the_log() -> None:
    """What is logged and not committed is part of what the next election is told."""
    host = established()
    host.feed(committed(E1 + 1) + proposal(E1 + 2))
    host.sync_log()
    host.feed(proposal(E1 + 3))
    host.end()
    assert host.database.last_zxid == host.disk.last_zxid == E1 + 3


def test_a_reconfig_is_proposed_then_activated() -> None:
    view = View(1, MEMBERS, reconfig_enabled=True)
    host = LearnerHost(view=view)
    host.connect()
    host.feed(leader_info(1) + diff(0) + new_leader(1) + up_to_date())
    members = parse_config_text(MEMBERS.text().replace("version=0", f"version={E1 + 1:x}"))
    txn = make_txn(E1 + 1, members.text().encode(), RECONFIG)
    host.feed(proposal(E1 + 1, txn))
    assert view.last_proposed == members
    assert host.learner.reconfigured == []
    host.feed(commit_and_activate(E1 + 1, 2) + ping(E1 + 1))
    assert host.learner.reconfigured == [(members, 2, E1 + 1)]
    assert host.delivered[-2:] == [(COMMITANDACTIVATE, E1 + 1, txn), (PING, E1 + 1, None)]


def test_an_activation_without_a_leader() -> None:
    host = established()
    host.feed(proposal(E1 + 1) + encode_packet(COMMITANDACTIVATE, E1 + 1, b"x"))
    assert host.learner.failed is not None
    assert "without a designated leader" in host.learner.failed
    assert list(host.learner.pending) == [(E1 + 1, make_txn(E1 + 1))]


@given(st.data())
def test_any_interleaving_of_proposals_commits_and_syncs(data: st.DataObject) -> None:
    host = established()
    stream = bytearray()
    proposed = done = 0
    for _ in range(data.draw(st.integers(1, 30))):
        if proposed > done and data.draw(st.booleans()):
            done += 1
            stream += commit(E1 + done)
        else:
            proposed += 1
            stream += proposal(E1 + proposed)
    acked: list[int] = []
    while stream:
        size = data.draw(st.integers(1, 200))
        host.feed(bytes(stream[:size]))
        del stream[:size]
        if data.draw(st.booleans()):
            host.sync_log()
        acked += host.acks()
        assert acked == [zxid for zxid, _ in host.disk.log]
    assert host.database.state == [E1 + n for n in range(1, done + 1)]
    assert [zxid for zxid, _ in host.learner.pending] == [
        E1 + n for n in range(done + 1, proposed + 1)
    ]
    host.sync_log()
    assert acked + host.acks() == [E1 + n for n in range(1, proposed + 1)]
