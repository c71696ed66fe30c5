"""A whole member, and peers that are bytes: whatever they say, `received` raises nothing.

One role is played after captured streams, then comes what no server says.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.quorum.replaying import behind_sasl, config_of, open_database, packets_of
from tests.server.machine import START_MS, WALL_MS
from tests.support import zabwire
from tests.support.zabwire import capture

from zkpy.protocol.packets import PACKET_NAMES
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.effects import ELECTION, LEADER, Dial
from zkpy.quorum.link import Link
from zkpy.quorum.states import BROADCAST, FOLLOWING, LEADING, LOOKING
from zkpy.server.member import Member
from zkpy.server.settings import make_config
from zkpy.session.auth import DigestAuthenticationProvider, ProviderRegistry

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EPOCH = 1 << 32
CODES = sorted({int(code) for name, code in vars(OpCode).items() if name.isupper()})
BODIES = st.binary(max_size=60) | st.sampled_from(
    [
        zabwire.buffer(b"/x") + zabwire.buffer(b"1") + zabwire.int32(-1),
        zabwire.buffer(b"/x"),
        zabwire.int32(30000),
        b"",
    ]
)
REQUESTS = st.builds(
    lambda session, cxid, op, body, ids: zabwire.packet(
        zabwire.REQUEST,
        -1,
        zabwire.int64(session) + zabwire.int32(cxid) + zabwire.int32(op) + body,
        ids,
    ),
    st.sampled_from([0, 1, 1 << 56, -1]),
    st.integers(-5, 5),
    st.sampled_from(CODES) | st.integers(-20, 200),
    BODIES,
    st.none() | st.just((("ip", "10.0.0.1"),)) | st.just((("", ""),)),
)
PACKETS = st.builds(
    zabwire.packet,
    st.sampled_from(sorted(PACKET_NAMES)),
    st.sampled_from([-1, 0, EPOCH, EPOCH + 1, EPOCH + 9]),
    st.none() | st.binary(max_size=60),
)


class Host:
    """One member; its log is durable at once, its peers are links that the test writes to."""

    def __init__(self, my_id: int) -> None:
        found = capture("395-fresh", "06-peer")
        members = config_of(found.accepted)
        config = make_config(
            data_dir="/data",
            my_id=my_id,
            members=members,
            quorum_mode=True,
            tick_time_ms=1000,
            init_limit_ticks=10,
            sync_limit_ticks=5,
        )
        _, database = open_database()
        self.member = Member(
            config,
            database,
            ProviderRegistry([DigestAuthenticationProvider(super_digest="")], skip_acl=False),
            now_ms=START_MS,
            wall_ms=WALL_MS,
            rng=Random(1),
        )
        self.dials: list[Dial] = []
        self.member.start()
        self.turn()

    def turn(self) -> None:
        """The end of a loop turn, until nothing is left to do."""
        member = self.member
        for _ in range(100):
            appended = member.take_appended()
            for zxid, txn in appended:
                member.database.store.log.append(zxid, txn)
            if appended:
                member.database.store.log.commit()
                member.durable(appended[-1][0])
            for link in member.outbox:
                link.dirty = False
            member.outbox.clear()
            for cnxn in member.server.take_dirty():
                cnxn.dirty = False
            self.dials += [effect for effect in member.take_effects() if isinstance(effect, Dial)]
            if not appended:
                return
        raise AssertionError("the member never comes to rest")

    def advance(self, duration_ms: int) -> None:
        for _ in range(0, duration_ms, 100):
            self.member.now_ms += 100
            self.member.wall_ms += 100
            self.member.tick()
            self.turn()

    def feed(self, link: Link, data: bytes) -> None:
        self.member.received(link, data)
        self.turn()

    def vote(self, sid: int, state: int, leader: int) -> None:
        """Member `sid` says so."""
        member = self.member
        vote = zabwire.buffer(zabwire.notification(state, leader, 0, 1, 0))
        if sid > member.my_id:
            link = member.new_link(f"10.0.0.{sid}:4000")
            member.election_accepted(link)
            self.feed(link, zabwire.initial_message(sid, f"h{sid}:3888") + vote)
            return
        dial = next(d for d in self.dials if d.purpose == ELECTION and d.sid == sid)
        link = member.new_link(f"10.0.0.{sid}:3888")
        member.dialled(dial, link)
        self.feed(link, vote)

    def learner(self) -> Link:
        link = self.member.new_link("10.0.0.9:5000")
        self.member.learner_accepted(link)
        self.turn()
        return link


def leading() -> tuple[Host, Link]:
    """Server 3, that leads, and the link of server 2, that follows."""
    host = Host(3)
    host.vote(2, LOOKING, 3)
    host.vote(1, LOOKING, 3)
    host.advance(300)
    assert host.member.state == LEADING
    good = host.learner()
    host.feed(good, behind_sasl(capture("395-fresh", "07-peer").dialled)[:104])
    assert host.member.zab is not None
    assert host.member.zab.phase == BROADCAST
    return host, good


def following() -> tuple[Host, Link]:
    """Server 1, that follows server 3."""
    host = Host(1)
    host.vote(2, LOOKING, 3)
    host.vote(3, LOOKING, 3)
    host.advance(300)
    assert host.member.state == FOLLOWING
    dial = next(d for d in host.dials if d.purpose == LEADER)
    link = host.member.new_link("10.0.0.3:2888")
    host.member.dialled(dial, link)
    host.turn()
    return host, link


def test_roles_after_captured_streams() -> None:
    found = capture("395-fresh", "06-peer")
    host, good = leading()
    assert not good.closed
    host, link = following()
    host.feed(link, found.accepted)
    assert host.member.state == FOLLOWING
    assert host.member.database.last_zxid == EPOCH + 8
    assert host.member.database.digest_mismatches == 0


@FEW
@given(st.lists(REQUESTS | PACKETS, min_size=1, max_size=6))
def test_leader_and_what_no_learner_asks(junk: list[bytes]) -> None:
    host, good = leading()
    bad = host.learner()
    host.feed(bad, behind_sasl(capture("395-fresh", "06-peer").dialled)[:104])
    for piece in junk:
        if not bad.closed:
            host.feed(bad, piece)
    assert host.member.state == LEADING
    # The good learner acknowledges everything, and that commits.
    zab = host.member.zab
    assert zab is not None
    zxid = zab.last_zxid
    host.feed(good, b"".join(zabwire.packet(3, z) for z in range(EPOCH + 1, zxid + 1)))
    assert zab.committed_zxid == zxid
    assert not good.closed
    assert host.member.database.last_zxid == zxid


@pytest.mark.parametrize("body", [b"", bytes(3), b"\x01" + bytes(5)])
def test_leader_and_a_session_without_timeout(body: bytes) -> None:
    host, good = leading()
    bad = host.learner()
    host.feed(bad, behind_sasl(capture("395-fresh", "06-peer").dialled)[:104])
    request = zabwire.int64(1 << 56) + zabwire.int32(0) + zabwire.int32(-10) + body
    host.feed(bad, zabwire.packet(zabwire.REQUEST, -1, request))
    assert bad.closed
    assert not good.closed
    assert host.member.state == LEADING


@FEW
@given(st.data())
def test_follower_of_a_damaged_stream(draw: st.DataObject) -> None:
    """It follows, or looks for a leader again with all that its log has in its tree."""
    stream = bytearray(capture("395-fresh", "06-peer").accepted)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(stream) - 1))
        stream[at] = draw.draw(st.integers(0, 255))
    host, link = following()
    host.feed(link, bytes(stream))
    host.advance(200)
    member = host.member
    assert member.state in (FOLLOWING, LOOKING)
    assert link.closed == (member.state == LOOKING)
    if member.state == LOOKING:
        assert member.database.last_zxid >= member.database.store.log.last_zxid


@FEW
@given(st.integers(0, 100), st.lists(PACKETS | st.binary(min_size=1, max_size=60), max_size=4))
def test_follower_of_a_leader_that_goes_mad(count: int, junk: list[bytes]) -> None:
    packets, _ = packets_of(capture("395-fresh", "06-peer").accepted)
    host, link = following()
    host.feed(link, b"".join(zabwire.packet(*packet) for packet in packets[:count]))
    for piece in junk:
        if not link.closed:
            host.feed(link, piece)
    host.advance(200)
    assert link.closed == (host.member.state == LOOKING)


@FEW
@given(st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=4), st.booleans())
def test_election_messages_that_are_none(junk: list[bytes], framed: bool) -> None:
    """The election goes on, and a leader is found."""
    host = Host(2)
    link = host.member.new_link("10.0.0.7:4000")
    host.member.election_accepted(link)
    host.feed(link, zabwire.initial_message(7, "h7:3888"))
    for piece in junk:
        if not link.closed:
            host.feed(link, zabwire.buffer(piece) if framed else piece)
    assert not (framed and link.closed)
    host.vote(3, LOOKING, 3)
    host.vote(1, LOOKING, 3)
    host.advance(300)
    assert host.member.state == FOLLOWING


@pytest.mark.parametrize("length", range(60))
def test_notifications_of_every_length(length: int) -> None:
    """ZOOKEEPER-3769: the connection is kept, the message not."""
    host = Host(2)
    link = host.member.new_link("10.0.0.3:4000")
    host.member.election_accepted(link)
    whole = zabwire.notification(LOOKING, 3, 0, 1, 0, b"no configuration")
    host.feed(link, zabwire.initial_message(3, "h3:3888"))
    if length:
        host.feed(link, zabwire.buffer(whole[:length]))
    assert not link.closed
    host.feed(link, zabwire.buffer(whole))
    host.vote(1, LOOKING, 3)
    host.advance(300)
    assert host.member.state == FOLLOWING
