"""Observer: INFORM in, nothing acknowledged but NEWLEADER and UPTODATE."""

from __future__ import annotations

import struct

import pytest
from tests.quorum.fake_database import RECONFIG, make_snapshot, make_txn
from tests.quorum.learner_host import (
    MEMBERS,
    LearnerHost,
    commit,
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
    INFORMANDACTIVATE,
    PING,
    REVALIDATE,
    SYNC,
    encode_packet,
)
from zkpy.protocol.zxid import make_zxid
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.observer import Observer
from zkpy.quorum.view import View

E1, E2 = make_zxid(1, 0), make_zxid(2, 0)


def inform(zxid: int) -> bytes:
    return encode_packet(INFORM, zxid, make_txn(zxid))


def inform_and_activate(zxid: int, leader: int, txn: bytes) -> bytes:
    return encode_packet(INFORMANDACTIVATE, zxid, struct.pack(">q", leader) + txn)


def test_an_inform_is_logged_and_delivered_and_not_acknowledged() -> None:
    host = established(Observer)
    host.feed(inform(E1 + 1) + inform(E1 + 2) + ping(E1 + 2))
    assert host.disk.unsynced == [(E1 + 1, make_txn(E1 + 1)), (E1 + 2, make_txn(E1 + 2))]
    assert host.delivered == [
        (COMMIT, E1 + 1, make_txn(E1 + 1)),
        (COMMIT, E1 + 2, make_txn(E1 + 2)),
        (PING, E1 + 2, None),
    ]
    host.sync_log()
    assert host.take_sent() == [(PING, E1 + 2)]
    assert (host.learner.committed_zxid, host.learner.last_zxid) == (E1 + 2, E1 + 2)
    host.end()
    assert host.database.state == host.disk.restored() == [E1 + 1, E1 + 2]


def test_what_it_caught_up_with_is_durable_before_it_joins_the_epoch() -> None:
    """It may be made a voter: then its epoch must not be ahead of its log."""
    host = LearnerHost(kind=Observer, my_id=4)
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 2) + committed(E1 + 1) + inform(E1 + 2) + new_leader(2))
    assert host.acks() == []
    host.sync_log()
    assert host.acks() == [E2]
    assert host.disk.effects[-4:] == [
        ("durable", E1 + 2),
        ("apply", E1 + 1),
        ("apply", E1 + 2),
        ("currentEpoch", 2),
    ]


def test_without_a_log_it_joins_from_memory() -> None:
    host = LearnerHost(kind=Observer, my_id=4, sync_enabled=False)
    host.connect()
    host.feed(leader_info(2) + diff(E1 + 1) + committed(E1 + 1) + new_leader(2))
    assert host.acks() == [E2]
    host.feed(inform(E2 + 1) + up_to_date() + inform(E2 + 2))
    assert host.acks() == [E2]
    assert host.database.state == [E1 + 1, E2 + 1, E2 + 2]
    assert not host.disk.unsynced
    assert host.disk.log == []


def test_a_snapshot_is_saved_even_without_a_log() -> None:
    host = LearnerHost(kind=Observer, my_id=4, sync_enabled=False)
    host.connect()
    host.feed(leader_info(2) + snap(E1 + 1, make_snapshot([E1 + 1])) + new_leader(2))
    assert host.disk.restored() == [E1 + 1]


def test_informs_between_newleader_and_uptodate() -> None:
    host = LearnerHost(kind=Observer, my_id=4)
    host.connect()
    host.feed(leader_info(1) + diff(0) + new_leader(1) + inform(E1 + 1) + up_to_date())
    assert host.delivered == [(COMMIT, E1 + 1, make_txn(E1 + 1))]
    host.sync_log()
    assert host.disk.restored() == [E1 + 1]
    assert host.acks() == [E1, E1]


def test_proposals_of_an_old_leader_that_do_not_commit_are_dropped() -> None:
    """They come again, as INFORM."""
    host = LearnerHost(kind=Observer, my_id=4)
    host.connect()
    host.feed(leader_info(1) + diff(0) + new_leader(1) + proposal(E1 + 1) + up_to_date())
    assert not host.disk.unsynced
    host.feed(inform(E1 + 1))
    assert host.delivered == [(COMMIT, E1 + 1, make_txn(E1 + 1))]
    assert host.disk.unsynced == [(E1 + 1, make_txn(E1 + 1))]


@pytest.mark.parametrize(
    "data", [proposal(E1 + 2), commit(E1 + 2), inform(E1 + 1), up_to_date(), encode_packet(99, 0)]
)
def test_what_is_ignored(data: bytes) -> None:
    host = established(Observer, [E1 + 1])
    host.feed(data)
    assert host.learner.failed is None
    assert host.delivered == []
    assert not host.disk.unsynced
    host.feed(inform(E1 + 2))
    assert host.delivered == [(COMMIT, E1 + 2, make_txn(E1 + 2))]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (inform(E1 + 3), "proposal 0x100000003 follows 0x100000001: some are missing"),
        (encode_packet(INFORM, E1 + 2, b""), "proposal 0x100000002 without a txn header"),
        (encode_packet(INFORM, E1 + 2), "proposal 0x100000002 without a txn header"),
        (encode_packet(INFORMANDACTIVATE, E1 + 2), "proposal 0x100000002 without a txn header"),
        (snap(E1 + 1, b""), "SNAP in the middle of broadcast"),
    ],
)
def test_what_ends_the_role(data: bytes, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    host = established(Observer, [E1 + 1])
    host.feed(data)
    assert host.learner.failed == f"leader 3 at /h3:2888: {reason}"
    assert not host.disk.unsynced
    assert "Exception when observing the leader" in caplog.text


def test_sync_and_revalidate_are_the_servers() -> None:
    host = established(Observer)
    host.feed(encode_packet(SYNC, 0) + encode_packet(REVALIDATE, -1, bytes(9)))
    assert host.delivered == [(SYNC, 0, None), (REVALIDATE, -1, bytes(9))]


@pytest.mark.parametrize("sync_enabled", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_inform_and_activate(early: bool, sync_enabled: bool) -> None:
    view = View(4, MEMBERS, reconfig_enabled=True)
    host = LearnerHost(kind=Observer, my_id=4, view=view, sync_enabled=sync_enabled)
    host.connect()
    members = parse_config_text(MEMBERS.text().replace("version=0", f"version={E1 + 1:x}"))
    txn = make_txn(E1 + 1, members.text().encode(), RECONFIG)
    parts = [new_leader(1) + up_to_date(), inform_and_activate(E1 + 1, 3, txn)]
    host.feed(leader_info(1) + diff(0) + b"".join(reversed(parts) if early else parts))
    host.sync_log()
    host.feed(ping(E1 + 1) + parts[1])
    assert host.learner.failed is None
    assert host.learner.reconfigured == [(members, 3, E1 + 1)]
    assert host.database.state == [E1 + 1]
    assert [zxid for zxid, _ in host.disk.log] == ([E1 + 1] if sync_enabled else [])
    expected = [] if early else [(COMMITANDACTIVATE, E1 + 1, txn)]
    assert host.delivered == [*expected, (PING, E1 + 1, None)]
    assert host.take_sent()[-1] == (PING, E1 + 1)


def test_it_is_never_asked_for_acks() -> None:
    host = established(Observer)
    host.feed(b"".join(inform(E1 + n) for n in range(1, 50)))
    host.sync_log()
    host.learner.durable(E1 + 49)
    host.turn()
    assert ACK not in dict(host.take_sent())
