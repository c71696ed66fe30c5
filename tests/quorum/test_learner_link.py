"""LearnerLink: dials and retries, silence, the end of a connection, what is sent to the leader."""

from __future__ import annotations

import struct

from tests.quorum.learner_host import (
    INIT_TICKS,
    SYNC_TICKS,
    TICK_MS,
    LearnerHost,
    committed,
    diff,
    established,
    leader_info,
    new_leader,
    ping,
    prepared,
)

from zkpy.protocol.packets import FOLLOWERINFO, OBSERVERINFO, PING, REQUEST, REVALIDATE, LearnerInfo
from zkpy.protocol.zxid import make_zxid
from zkpy.quorum.effects import LEADER
from zkpy.quorum.link import Link
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.observer import Observer
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

E1, E2 = make_zxid(1, 0), make_zxid(2, 0)
VOTE = Vote(3, 0, 1, 0)


# ---------------------------------------------------------------------- connecting


def test_dials_the_leader_and_registers() -> None:
    host = LearnerHost(prepared([E1 + 1], 1))
    host.learner.follow(VOTE, 5)
    (dial,) = host.dials()
    assert (dial.purpose, dial.sid, dial.address) == (LEADER, 3, ("h3", 2888))
    assert dial.timeout_ms == TICK_MS * INIT_TICKS
    assert host.learner.phase == "discovery"
    host.learner.dialled(dial, Link(host.outbox, "h3:2888"), 6)
    host.turn()
    type, zxid, data, authinfo = host.sent[0]
    assert (type, zxid, authinfo) == (FOLLOWERINFO, E1, None)
    assert LearnerInfo.decode(data) == LearnerInfo(1, 0x10000, 0)


def test_an_observer_registers_as_one() -> None:
    host = LearnerHost(kind=Observer, my_id=4)
    host.connect()
    assert host.take_sent() == [(OBSERVERINFO, 0)]


def test_a_refused_dial_is_retried_soon_then_later_then_not() -> None:
    host = LearnerHost()
    host.learner.follow(VOTE, 0)
    times = []
    while host.learner.failed is None:
        (dial,) = host.dials()
        times.append(host.now_ms)
        host.learner.dial_failed(dial, "refused", host.now_ms)
        due = host.learner.next_timer_ms()
        if due is not None:
            host.learner.tick(due - 1)
            assert not host.dials()
            host.now_ms = due
            host.learner.tick(due)
    assert times[:6] == [0, 10, 30, 70, 150, 250]
    assert 900 <= times[-1] <= 1000
    assert host.learner.failed == "cannot connect to leader 3 at h3:2888: refused"
    assert host.learner.next_timer_ms() is None


def test_an_unanswered_dial_ends_with_the_limit() -> None:
    host = LearnerHost(connect_limit_ticks=2)
    host.learner.follow(VOTE, 0)
    assert host.dials()[0].timeout_ms == 2 * TICK_MS
    assert host.learner.next_timer_ms() == 2 * TICK_MS
    host.learner.tick(2 * TICK_MS)
    assert host.learner.failed == "no connection to leader 3 in time"


TWO_ADDRESSES = parse_config_text(
    "server.1=h1:1:2\nserver.3=a:5:6|b:7:8\nversion=0", multi_address=True
)


def test_all_addresses_are_dialled_and_the_first_wins() -> None:
    host = LearnerHost(view=View(1, TWO_ADDRESSES))
    host.learner.follow(VOTE, 0)
    first, second = host.dials()
    host.learner.dial_failed(first, "refused", 1)
    # The other may still answer, or take minutes for it.
    assert host.learner.next_timer_ms() == 11
    host.learner.tick(11)
    (again,) = host.dials()
    assert again.address == first.address
    host.learner.dial_failed(again, "refused", 12)
    host.learner.dialled(second, Link(host.outbox, "b:7"), 13)
    assert host.learner.next_timer_ms() > 100
    late = Link(host.outbox, "a:5")
    host.learner.dialled(again, late, 14)
    assert late.closed
    assert host.learner.link is not None
    assert host.learner.link.address == "b:7"


def test_while_one_address_is_slow_the_other_may_be_refused_for_long() -> None:
    host = LearnerHost(view=View(1, TWO_ADDRESSES))
    host.learner.follow(VOTE, 0)
    dial, slow = host.dials()
    now_ms = 0
    while True:
        host.learner.dial_failed(dial, "refused", now_ms)
        now_ms = host.learner.next_timer_ms()
        host.learner.tick(now_ms)
        dials = host.dials()
        if not dials:
            break
        (dial,) = dials
    assert host.learner.failed is not None, "the limit of the whole"
    assert now_ms == TICK_MS * INIT_TICKS
    host.learner.dial_failed(slow, "refused", now_ms + 1)


def test_a_leader_that_is_in_no_configuration() -> None:
    host = LearnerHost()
    host.learner.follow(Vote(9, 0, 1, 0), 0)
    assert host.learner.failed == "Couldn't find the leader with id = 9"
    assert not host.dials()


def test_dials_that_end_after_the_role_are_hung_up() -> None:
    host = LearnerHost()
    host.learner.follow(VOTE, 0)
    (dial,) = host.dials()
    host.learner.shutdown("reconfig")
    late = Link(host.outbox, "h3:2888")
    host.learner.dialled(dial, late, 1)
    assert late.closed
    assert host.learner.failed == "reconfig"


# ---------------------------------------------------------------------- time


def test_silence_before_newleader_may_last_init_limit() -> None:
    host = LearnerHost()
    host.connect()
    host.now_ms = 100
    host.feed(leader_info(2))
    due = 100 + INIT_TICKS * TICK_MS
    assert host.learner.next_timer_ms() == due
    host.learner.tick(due - 1)
    assert host.learner.failed is None
    host.learner.tick(due)
    assert host.learner.failed == "leader 3 at /h3:2888: nothing from the leader for 10000 ms"


def test_silence_after_newleader_may_last_sync_limit() -> None:
    host = established()
    host.now_ms = 500
    host.feed(ping(E1))
    assert host.learner.next_timer_ms() == 500 + SYNC_TICKS * TICK_MS
    host.learner.tick(500 + SYNC_TICKS * TICK_MS)
    assert host.learner.failed is not None


def test_a_slow_disk_of_ours_is_not_the_leaders_silence() -> None:
    host = LearnerHost()
    host.connect()
    host.feed(leader_info(2) + diff(0) + committed(E1 + 1) + new_leader(2))
    assert host.learner.next_timer_ms() is None
    host.now_ms = 1_000_000
    host.learner.tick(host.now_ms)
    host.sync_log()
    assert host.acks() == [E2]
    host.learner.tick(host.now_ms)
    assert host.learner.failed is None
    assert host.learner.next_timer_ms() == 1_000_000 + SYNC_TICKS * TICK_MS


def test_the_end_of_the_connection_is_the_end_of_the_role() -> None:
    host = established()
    assert host.learner.link is not None
    host.learner.lost(Link([], "other"), "another link")
    assert host.learner.failed is None
    host.learner.lost(host.learner.link, "end of stream")
    assert host.learner.failed == "leader 3 at /h3:2888: end of stream"
    assert host.learner.next_timer_ms() is None
    host.learner.tick(1 << 40)
    host.learner.lost(host.learner.link, "again")
    assert host.learner.failed == "leader 3 at /h3:2888: end of stream"


def test_what_the_server_sends_to_the_leader() -> None:
    host = established()
    host.learner.request(0x77, 5, 1, b"body", (("ip", "127.0.0.1"),))
    host.learner.request(0x77, 0, -11, b"", None)
    host.learner.revalidate(0x78, 6000)
    host.learner.pong(E1, [(0x77, 4000)])
    host.turn()
    assert host.sent == [
        (REQUEST, -1, struct.pack(">qii", 0x77, 5, 1) + b"body", (("ip", "127.0.0.1"),)),
        (REQUEST, -1, struct.pack(">qii", 0x77, 0, -11), None),
        (REVALIDATE, -1, struct.pack(">qi", 0x78, 6000), None),
        (PING, E1, struct.pack(">qi", 0x77, 4000), None),
    ]
