"""Streams between members of Apache ensembles: every byte is understood, and written alike."""

from __future__ import annotations

import pytest
from tests.quorum.replaying import LIMIT, behind_sasl, packets_of
from tests.support.zabwire import AUTH_MAGIC, SUCCESS, Capture, Cursor, captures

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.serialize import TreeReceiver, serialize_stream
from zkpy.datatree.tree import DataTree
from zkpy.protocol.packets import (
    ACKEPOCH,
    COMMITANDACTIVATE,
    FOLLOWERINFO,
    INFORM,
    INFORMANDACTIVATE,
    LEADERINFO,
    MAX_NOTIFICATION_BYTES,
    NEWLEADER,
    OBSERVERINFO,
    PACKET_NAMES,
    PING,
    PROPOSAL,
    REQUEST,
    REVALIDATE,
    SNAP,
    LearnerInfo,
    Notification,
    Packet,
    PacketReader,
    decode_initial,
    decode_request,
    decode_revalidated,
    decode_revalidation,
    decode_touches,
    encode_initial,
    encode_packet,
    encode_request,
    encode_revalidated,
    encode_revalidation,
    encode_touches,
    frame,
)
from zkpy.protocol.txns import decode_txn, encode_txn
from zkpy.quorum.members import parse_config_text

ELECTIONS = [found for found in captures() if found.kind == "election"]
PEERS = [found for found in captures() if found.kind == "peer"]

each_election = pytest.mark.parametrize("found", ELECTIONS, ids=lambda found: found.id)
each_peer = pytest.mark.parametrize("found", PEERS, ids=lambda found: found.id)


def test_everything_is_here() -> None:
    scenarios = {found.scenario for found in captures()}
    assert len(scenarios) == 13
    assert (len(ELECTIONS), len(PEERS)) == (64, 26)
    seen = {
        packet[0]
        for found in PEERS
        for stream in (found.dialled, found.accepted)
        for packet in packets_of(stream)[0]
    }
    assert seen == set(PACKET_NAMES)


# ---------------------------------------------------------------------- election


@each_election
def test_election_connection(found: Capture) -> None:
    dialled, sent_back = found.dialled, found.accepted
    said = decode_initial(dialled)
    assert said is not None
    sid, addresses, size = said
    version_2 = found.scenario == "395-multiaddr"
    assert encode_initial(sid, addresses, version_2) == dialled[:size]
    ports = sorted(port for _, port in addresses)
    assert ports == ([24002 + 10 * sid, 24004 + 10 * sid] if version_2 else [24002 + 10 * sid])
    for stream in (behind_sasl(dialled[size:]), behind_sasl(sent_back)):
        cursor = Cursor(stream)
        while not cursor.at_end:
            length = cursor.integer(4)
            assert 44 < length <= MAX_NOTIFICATION_BYTES
            payload = cursor.take(length)
            told = Notification.decode(payload)
            assert told.version == 2
            assert told.config is not None
            assert frame(told.encode()) == frame(payload)
            members = parse_config_text(told.config, multi_address=version_2)
            assert members.text() == told.config
            if told.state != 3:
                assert told.leader in (*members.participants, -(1 << 63))


@each_election
def test_first_bytes_are_recognised_at_their_last(found: Capture) -> None:
    said = decode_initial(found.dialled)
    assert said is not None
    assert decode_initial(found.dialled[: said[2]]) == said
    assert decode_initial(found.dialled[: said[2] - 1]) is None


def test_sasl_exchanges() -> None:
    for found in captures("395-sasl"):
        start = 0
        if found.kind == "election":
            said = decode_initial(found.dialled)
            assert said is not None
            start = said[2]
        asked = Cursor(found.dialled, start).auth_packets()
        answered = Cursor(found.accepted).auth_packets()
        assert [status for status, _ in asked] == [0, 0]
        assert [status for status, _ in answered] == [0, SUCCESS]
        assert asked[0][1] == b""
        assert answered[1][1].startswith(b"rspauth=")
        # Neither protocol's first bytes can be taken for it.
        assert not found.dialled.startswith(AUTH_MAGIC) or found.kind == "peer"


# ---------------------------------------------------------------------- peer port


@each_peer
@pytest.mark.parametrize("direction", ["c2s", "s2c"])
def test_peer_stream(found: Capture, direction: str) -> None:
    stream = found.dialled if direction == "c2s" else found.accepted
    packets, snapshot = packets_of(stream)
    out = b""
    for packet in packets:
        out += encode_packet(*packet)
        if packet[0] == SNAP:
            out += snapshot
    assert out == behind_sasl(stream)


@each_peer
@pytest.mark.parametrize("direction", ["c2s", "s2c"])
@pytest.mark.parametrize("size", [0, 1, 7, 20, 61])
def test_peer_stream_in_pieces(found: Capture, direction: str, size: int) -> None:
    stream = found.dialled if direction == "c2s" else found.accepted
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)] if size else []
    pieces = pieces or found.segments(direction)
    assert b"".join(pieces) == stream
    skipped = len(stream) - len(behind_sasl(stream))
    reader = PacketReader(LIMIT)
    receiver = None
    packets: list[Packet] = []
    for piece in pieces:
        skip = min(skipped, len(piece))
        skipped -= skip
        piece = piece[skip:]
        while True:
            if receiver is not None:
                behind = receiver.feed(piece)
                if behind is None:
                    break
                receiver, piece = None, behind
            packets += reader.feed(piece)
            if not reader.raw:
                break
            piece = reader.take_rest()
            receiver = TreeReceiver(DataTree(), LIMIT)
    assert receiver is None
    assert reader.take_rest() == b""
    assert packets == packets_of(stream)[0]


@each_peer
def test_what_packets_carry(found: Capture) -> None:
    for direction, stream in (("c2s", found.dialled), ("s2c", found.accepted)):
        for type, zxid, data, authinfo in packets_of(stream)[0]:
            check = CHECKS.get((direction, type))
            if check is None:
                assert data is None, PACKET_NAMES[type]
            else:
                assert data is not None
                check(zxid, data)
            assert authinfo is None or type == REQUEST


def check_learner_info(zxid: int, data: bytes) -> None:
    info = LearnerInfo.decode(data)
    assert info.encode() == data
    assert 1 <= info.server_id <= 4
    assert info.protocol_version == 0x10000
    assert zxid & 0xFFFFFFFF == 0


def check_epoch(zxid: int, data: bytes) -> None:
    assert len(data) == 4


def check_txn(zxid: int, data: bytes) -> None:
    header, record, digest = decode_txn(data)
    assert header.zxid == zxid
    assert digest is not None
    assert encode_txn(header, record, digest) == data


def check_request(zxid: int, data: bytes) -> None:
    assert zxid == -1
    session_id, cxid, op, payload = decode_request(data)
    assert session_id >> 56 in (1, 2, 3, 4)
    assert encode_request(session_id, cxid, op, payload) == data


def check_touches(zxid: int, data: bytes) -> None:
    touches = decode_touches(data)
    assert encode_touches(touches) == data
    assert all(0 < timeout_ms <= 40000 for _, timeout_ms in touches)


def check_revalidation(zxid: int, data: bytes) -> None:
    assert zxid == -1
    assert encode_revalidation(*decode_revalidation(data)) == data


def check_revalidated(zxid: int, data: bytes) -> None:
    assert zxid == -1
    assert encode_revalidated(*decode_revalidated(data)) == data


def check_config(zxid: int, data: bytes) -> None:
    text = data.decode()
    multi_address = "|" in text
    assert parse_config_text(text, multi_address=multi_address).text() == text


def check_activation(zxid: int, data: bytes) -> None:
    assert len(data) == 8


def check_inform_and_activate(zxid: int, data: bytes) -> None:
    check_txn(zxid, data[8:])


CHECKS = {
    ("c2s", FOLLOWERINFO): check_learner_info,
    ("c2s", OBSERVERINFO): check_learner_info,
    ("c2s", ACKEPOCH): check_epoch,
    ("c2s", REQUEST): check_request,
    ("c2s", PING): check_touches,
    ("c2s", REVALIDATE): check_revalidation,
    ("s2c", LEADERINFO): check_epoch,
    ("s2c", NEWLEADER): check_config,
    ("s2c", PROPOSAL): check_txn,
    ("s2c", INFORM): check_txn,
    ("s2c", REVALIDATE): check_revalidated,
    ("s2c", COMMITANDACTIVATE): check_activation,
    ("s2c", INFORMANDACTIVATE): check_inform_and_activate,
}


@pytest.mark.parametrize("scenario", ["380-fresh", "380-snap", "395-fresh", "395-snap"])
def test_snapshot_stream(scenario: str) -> None:
    """It is taken to its last byte, and the tree in it has what the ensemble wrote."""
    streams = [packets_of(found.accepted)[1] for found in PEERS if found.scenario == scenario]
    (snapshot,) = filter(None, streams)
    receiver = TreeReceiver(DataTree(), LIMIT)
    assert receiver.feed(snapshot[:-1]) is None
    assert receiver.feed(snapshot[-1:] + b"next") == b"next"
    tree = receiver.finished_tree()
    assert tree.nodes["/zookeeper/config"].data
    # Ours is read the same, whatever the order of children.
    again = TreeReceiver(DataTree(), LIMIT)
    assert again.feed(b"".join(serialize_stream(tree))) == b""
    copy = again.finished_tree()
    assert sorted(copy.nodes) == sorted(tree.nodes)
    assert tree_digest(copy.nodes) == tree_digest(tree.nodes)
    assert copy.sessions == tree.sessions
