"""Bad input on the peer and the election port: nothing raises, that link closes, others go on.

A closed link leaves one log line that names the address and the reason.
"""

from __future__ import annotations

import logging
import struct

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tests.protocol.values import LONGS
from tests.quorum.replaying import (
    LIMIT,
    LeaderReplay,
    LearnerReplay,
    Peer,
    behind_sasl,
    error_txn,
    packets_of,
)
from tests.support import zabwire
from tests.support.zabwire import Capture, capture, captures

from zkpy.protocol.packets import MAX_NOTIFICATION_BYTES, PACKET_NAMES
from zkpy.protocol.txns import SetDataTxn, TxnHeader, encode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.cnx_manager import QuorumCnxManager
from zkpy.quorum.effects import Dial, Effect
from zkpy.quorum.link import Link
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import BROADCAST
from zkpy.quorum.view import View

PEERS = [found for found in captures() if found.kind == "peer" and found.scenario != "395-trunc"]
ADDRESS = "10.0.0.9:51234"
EPOCH = 1 << 32

TYPES = st.sampled_from(sorted(PACKET_NAMES)) | st.integers(-3, 40)
ZXIDS = st.sampled_from([-1, 0, 1, EPOCH, EPOCH + 1, EPOCH + 2, EPOCH + 9, 2 * EPOCH]) | LONGS
TXNS = st.sampled_from([error_txn(EPOCH + n) for n in (1, 2, 9)])
PACKETS = st.builds(
    zabwire.packet,
    TYPES,
    ZXIDS,
    st.none() | st.binary(max_size=60) | TXNS,
    st.none() | st.just((("ip", "10.0.0.1"),)),
)
HEADERS = st.builds(struct.Struct(">iqi").pack, TYPES, ZXIDS, st.integers(-9, 1 << 31 - 1))
JUNK = st.binary(min_size=1, max_size=60) | PACKETS | HEADERS
KNOWN_JUNK = [
    b"GET / HTTP/1.1\r\nHost: zoo1\r\n\r\n",
    bytes.fromhex("16030100a5010000a10303") + bytes(60),
    b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(20),
    b"ruok",
    b"\xff" * 64,
    struct.pack(">iqii", 2, EPOCH + 1, LIMIT + 1, 0),
    struct.pack(">iqii", 1, -1, -1, 1 << 30),
    zabwire.AUTH_MAGIC + zabwire.int32(0) + zabwire.buffer(b""),
]
FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Lines(logging.Handler):
    """Log lines of warnings and worse."""

    def __init__(self, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> Lines:
        logger = logging.getLogger("zkpy")
        logger.addHandler(self)
        self.level_before = logger.level
        logger.setLevel(self.level)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("zkpy")
        logger.removeHandler(self)
        logger.setLevel(self.level_before)

    def naming(self, address: str) -> list[str]:
        return [line for line in self.lines if address in line]


# ---------------------------------------------------------------------- learner


def fed_until(replay: LearnerReplay, size: int) -> None:
    """The captured leader's stream up to byte `size`."""
    replay.connect()
    replay.feed(behind_sasl(replay.found.accepted)[:size])


def check_learner(replay: LearnerReplay, lines: Lines) -> None:
    learner = replay.learner
    link = learner.link
    assert link is not None
    assert link.closed == (learner.failed is not None)
    if learner.failed is not None:
        assert any(replay.found.server in line and learner.failed in line for line in lines.lines)


@FEW
@given(st.sampled_from(PEERS), st.data())
def test_learner_of_a_leader_that_goes_mad(found: Capture, draw: st.DataObject) -> None:
    """Anything at any point of a good stream, and then more."""
    stream = behind_sasl(found.accepted)
    replay = LearnerReplay(found)
    with Lines() as lines:
        fed_until(replay, draw.draw(st.integers(0, len(stream))))
        for junk in draw.draw(st.lists(JUNK, min_size=1, max_size=4)):
            replay.feed(junk)
        check_learner(replay, lines)


@FEW
@given(st.sampled_from(PEERS), st.data())
def test_learner_of_a_damaged_stream(found: Capture, draw: st.DataObject) -> None:
    """A good stream of which some bytes are others, or missing."""
    stream = bytearray(behind_sasl(found.accepted))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(stream) - 1))
        if draw.draw(st.booleans()):
            stream[at] = draw.draw(st.integers(0, 255))
        else:
            del stream[at : at + draw.draw(st.integers(1, 40))]
            stream = stream or bytearray(1)
    replay = LearnerReplay(found)
    with Lines() as lines:
        replay.connect()
        replay.feed(bytes(stream))
        check_learner(replay, lines)


@pytest.mark.parametrize("junk", KNOWN_JUNK, ids=range(len(KNOWN_JUNK)))
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 1000])
def test_learner_ends_its_role_at_junk(junk: bytes, count: int) -> None:
    """Before each packet of the handshake, within broadcast, and at the end of the stream."""
    replay = LearnerReplay(capture("395-fresh", "06-peer"))
    packets, _ = packets_of(replay.found.accepted)
    size = sum(len(zabwire.packet(*packet)) for packet in packets[:count])
    with Lines() as lines:
        fed_until(replay, size)
        assert replay.learner.failed is None
        replay.feed(junk)
        assert replay.learner.failed is not None
        check_learner(replay, lines)
        # What still comes is not looked at.
        replay.feed(b"more")


@pytest.mark.parametrize("name", ["06-peer", "11-peer"])
@pytest.mark.parametrize(
    ("junk", "reason"),
    [
        (zabwire.packet(zabwire.REVALIDATE, -1), "REVALIDATE of -1 bytes"),
        (zabwire.packet(zabwire.REVALIDATE, -1, b"12345678"), "REVALIDATE of 8 bytes"),
        (zabwire.packet(zabwire.SNAP, EPOCH), "SNAP in the middle of broadcast"),
    ],
)
def test_learner_in_broadcast(name: str, junk: bytes, reason: str) -> None:
    replay = LearnerReplay(capture("395-fresh", name))
    with Lines() as lines:
        replay.run()
        assert replay.learner.failed is None
        replay.feed(junk)
        assert reason in str(replay.learner.failed)
        check_learner(replay, lines)


@pytest.mark.parametrize(("name", "type"), [("06-peer", 2), ("11-peer", 8)])
@pytest.mark.parametrize("size", [0, 31, 33, 40])
def test_learner_logs_nothing_that_cannot_be_read(name: str, type: int, size: int) -> None:
    replay = LearnerReplay(capture("395-fresh", name))
    with Lines() as lines:
        replay.run()
        logged = replay.database.store.log.last_zxid
        txn = encode_txn(
            TxnHeader(1, 1, EPOCH + 9, 1, int(OpCode.SET_DATA)), SetDataTxn("/x", b"new", 1), None
        )
        replay.feed(zabwire.packet(type, EPOCH + 9, txn[:size]))
        assert replay.learner.failed is not None
        assert replay.database.store.log.last_zxid == logged == EPOCH + 8
        check_learner(replay, lines)


# ---------------------------------------------------------------------- leader


class Ensemble(LeaderReplay):
    """An established leader with one good follower, made up, and a link of somebody else."""

    def __init__(self) -> None:
        super().__init__("395-diff")
        self._establish()
        self.others: list[Peer] = []

    def connect(self) -> Peer:
        peer = Peer(self.leader, self.outbox, None)
        peer.link.address = ADDRESS
        self.others.append(peer)
        return peer

    def feed(self, peer: Peer, data: bytes) -> None:
        if not peer.link.closed:
            peer.handler.received(peer.link, data, 0)
            self.turn()

    def turn(self) -> None:
        super().turn()
        for peer in getattr(self, "others", ()):
            peer.take()

    def check(self) -> None:
        """The good follower and the leader go on."""
        leader = self.leader
        zxid = leader.last_zxid + 1
        self._propose(zxid, error_txn(zxid))
        assert leader.failed is None
        assert leader.phase == BROADCAST
        assert leader.committed_zxid == zxid
        assert self.helper is not None
        assert not self.helper.link.closed


def learner_stream(sid: int = 1, epoch: int = 1) -> bytes:
    """A good follower's words, up to the acknowledgement of NEWLEADER."""
    info = zabwire.packet(zabwire.FOLLOWERINFO, epoch << 32, zabwire.learner_info(sid))
    ack_epoch = zabwire.packet(zabwire.ACKEPOCH, EPOCH + 8, zabwire.int32(-1))
    return info + ack_epoch + zabwire.packet(zabwire.ACK, EPOCH)


PHASES = {"hello": 0, "ack epoch": 40, "synchronization": 64, "broadcast": 84}


def check_dropped(peer: Peer, lines: Lines) -> None:
    if peer.link.closed:
        assert peer.handler not in peer.handler.leader.handlers
        assert any(ADDRESS in line and "GOODBYE" in line for line in lines.lines)
        assert not any(line.endswith(": ") for line in lines.naming(ADDRESS))
    else:
        assert peer.handler in peer.handler.leader.handlers


@FEW
@given(st.sampled_from(sorted(PHASES.values())), st.lists(JUNK, min_size=1, max_size=4))
def test_leader_of_a_learner_that_goes_mad(size: int, junk: list[bytes]) -> None:
    ensemble = Ensemble()
    with Lines() as lines:
        peer = ensemble.connect()
        ensemble.feed(peer, learner_stream()[:size])
        for piece in junk:
            ensemble.feed(peer, piece)
        check_dropped(peer, lines)
    ensemble.check()


@FEW
@given(st.data())
def test_leader_of_a_damaged_stream(draw: st.DataObject) -> None:
    found = capture("395-fresh", "06-peer")
    stream = bytearray(learner_stream() + found.dialled[84:])
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(stream) - 1))
        stream[at] = draw.draw(st.integers(0, 255))
    # With the id of the good follower it takes that one's place, as it may.
    assume(stream[16:24] != zabwire.int64(2))
    # A voter that has accepted a later epoch than the leader's ends the term, as it has to.
    assume(stream[4:8] <= zabwire.int32(1) or stream[4] >= 0x80)
    ensemble = Ensemble()
    with Lines() as lines:
        peer = ensemble.connect()
        ensemble.feed(peer, bytes(stream))
        check_dropped(peer, lines)
    ensemble.check()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("junk", KNOWN_JUNK, ids=range(len(KNOWN_JUNK)))
def test_leader_drops_who_sends_junk(phase: str, junk: bytes) -> None:
    ensemble = Ensemble()
    with Lines() as lines:
        peer = ensemble.connect()
        ensemble.feed(peer, learner_stream()[: PHASES[phase]])
        assert peer.handler.phase == phase
        ensemble.feed(peer, junk)
        assert peer.link.closed
        check_dropped(peer, lines)
    ensemble.check()


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (zabwire.packet(11, 0, zabwire.learner_info(1, 0x9999)), "protocol version 0x9999"),
        (zabwire.packet(11, 0, zabwire.learner_info(1)[:8]), "protocol version 0x1"),
        (zabwire.packet(11, 0), "impossible server id -1"),
        (zabwire.packet(11, 0, zabwire.learner_info(-5)), "impossible server id -5"),
        (zabwire.packet(11, 0, zabwire.learner_info(3)), "impossible server id 3"),
        (zabwire.packet(11, 0, b"1234567"), "LearnerInfo of 7 bytes"),
        (
            zabwire.packet(16, 0, zabwire.learner_info(1, config_version=77)),
            "later activated configuration",
        ),
        (zabwire.packet(3, EPOCH), "unexpected ACK"),
        (zabwire.packet(99, EPOCH), "unexpected 99"),
    ],
)
def test_leader_refuses_a_wrong_hello(hello: bytes, reason: str) -> None:
    ensemble = Ensemble()
    with Lines() as lines:
        peer = ensemble.connect()
        ensemble.feed(peer, hello)
        assert peer.link.closed
        (line,) = lines.naming(ADDRESS)
        assert reason in line
        assert peer.sent == b""
    ensemble.check()


def test_leader_gives_up_who_says_nothing() -> None:
    """Half-open connections: nothing is ever said, or it stops in the middle of a packet."""
    ensemble = Ensemble()
    with Lines() as lines:
        silent, half = ensemble.connect(), ensemble.connect()
        ensemble.feed(half, learner_stream()[:30])
        leader = ensemble.leader
        assert ensemble.helper is not None
        for now_ms in range(500, 11_001, 500):
            # The good one answers its PINGs.
            ensemble.helper.handler.received(
                ensemble.helper.link, zabwire.packet(5, leader.last_zxid, b""), now_ms
            )
            leader.tick(now_ms)
            assert silent.link.closed == half.link.closed == (now_ms > 10_000)
        assert len(lines.naming(ADDRESS)) == 2
    ensemble.check()


# ---------------------------------------------------------------------- election port

CONFIG = """server.1=h1:2888:3888:participant;0.0.0.0:2181
server.2=h2:2888:3888:participant;0.0.0.0:2181
server.3=h3:2888:3888:participant;0.0.0.0:2181
version=0"""


class CnxSettings:
    cnx_timeout_ms = 5000
    quorum_cnxn_timeout_ms = 4000
    multi_address_enabled = False


class ElectionPort:
    """The connection manager of server 2, with a good connection from server 3."""

    def __init__(self) -> None:
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        view = View(2, parse_config_text(CONFIG))
        self.manager = QuorumCnxManager(2, view, CnxSettings(), self.outbox, self.effects)
        self.good = self.accept("10.0.0.3:40000")
        self.manager.received(self.good, zabwire.initial_message(3, "h3:3888"), 0)
        assert not self.good.closed

    def accept(self, address: str = ADDRESS) -> Link:
        link = Link(self.outbox, address)
        self.manager.accepted(link, 0)
        return link

    def feed(self, link: Link, data: bytes) -> None:
        if not link.closed:
            self.manager.received(link, data, 0)

    def check(self, sid: int = 3) -> None:
        """Server 3's connection still carries messages in both directions."""
        self.manager.take_received()
        payload = zabwire.notification(0, 3, 5, 1, 0)
        self.manager.received(self.good, zabwire.buffer(payload), 0)
        assert self.manager.take_received() == [(3, payload)]
        self.good.out.clear()
        self.manager.send(3, payload, 0)
        assert bytes(self.good.out) == zabwire.buffer(payload)
        assert not self.good.closed


@given(
    st.sampled_from(
        [b"", zabwire.initial_message(1, "h1:3888"), zabwire.initial_message(9, "h:1")]
    ),
    st.lists(st.binary(min_size=1, max_size=60) | HEADERS, min_size=1, max_size=4),
    st.booleans(),
)
@example(b"", KNOWN_JUNK, False)
@example(zabwire.initial_message(9, "h9:3888"), KNOWN_JUNK, True)
def test_election_port_at_junk(hello: bytes, junk: list[bytes], glued: bool) -> None:
    port = ElectionPort()
    # A legacy greeting is any number that is not negative: 3 would take the place of the good one.
    if not hello and junk[0][:8] == zabwire.int64(3):
        return
    with Lines() as lines:
        link = port.accept()
        if glued:
            port.feed(link, hello + b"".join(junk))
        else:
            for piece in ([hello] if hello else []) + junk:
                port.feed(link, piece)
        if not link.closed:
            port.manager.tick(4000)
    sid_known = any(isinstance(effect, Dial) for effect in port.effects)
    if link.closed and not sid_known:
        assert lines.lines
    port.check()


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (zabwire.int64(-65534), "Got unrecognized protocol version -65534"),
        (zabwire.int64(-1), "Got unrecognized protocol version -1"),
        (zabwire.int64(-65536) + zabwire.int64(9) + zabwire.int32(0), "length: 0"),
        (zabwire.int64(-65535) + zabwire.int64(9) + zabwire.int32(2049), "length: 2049"),
        (zabwire.initial_message(9, "nonsense"), "Badly formed address"),
        (zabwire.initial_message(9, "h:99999"), "Bad port number"),
        (zabwire.initial_message(2, "h2:3888"), "own ID"),
        (zabwire.initial_message(-7, "h2:3888"), "without an id: -7"),
        (zabwire.int64((1 << 63) - 1), "without an id"),
        (b"\xff\xfeGET / HTTP/1.1\r\n\r\n", "Got unrecognized protocol version"),
    ],
)
def test_election_port_refuses_wrong_first_bytes(first: bytes, reason: str) -> None:
    port = ElectionPort()
    with Lines() as lines:
        link = port.accept()
        port.feed(link, first)
        assert link.closed
        (line,) = lines.naming(ADDRESS)
        assert reason in line
    port.check()


@pytest.mark.parametrize("said", [b"", b"\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"])
def test_election_port_and_who_stays_silent(said: bytes) -> None:
    """Incident 25: it holds up nobody, and is hung up on."""
    port = ElectionPort()
    with Lines(logging.INFO) as lines:
        link = port.accept()
        if said:
            port.feed(link, said)
        port.check()
        other = port.accept("10.0.0.4:40000")
        port.feed(other, zabwire.initial_message(4, "h4:3888"))
        assert not other.closed
        assert port.manager.next_timer_ms() == 4000
        port.manager.tick(3999)
        assert not link.closed
        port.manager.tick(4000)
        assert link.closed
        assert not other.closed
        assert f"/{ADDRESS} did not say who it is: timed out" in lines.lines
    port.check()


@pytest.mark.parametrize("length", [0, -1, -(1 << 31), MAX_NOTIFICATION_BYTES + 1, (1 << 31) - 1])
def test_election_port_and_impossible_messages(length: int) -> None:
    port = ElectionPort()
    with Lines() as lines:
        link = port.accept()
        port.feed(link, zabwire.initial_message(9, "h9:3888"))
        assert not link.closed
        port.feed(link, zabwire.int32(length))
        assert link.closed
        assert any("id 9" in line and str(length) in line for line in lines.lines)
        assert lines.naming(ADDRESS), lines.lines
    port.check()


def test_election_port_under_many_silent_connections() -> None:
    """What is held of each is bounded, and so is their number."""
    port = ElectionPort()
    links = [port.accept(f"10.1.{n // 256}.{n % 256}:1") for n in range(600)]
    for link in links:
        port.feed(link, b"\xff\xff\xff\xff\xff\xff\x00\x00")
    assert sum(not link.closed for link in links) <= 256
    assert not links[-1].closed
    port.check()
