"""QuorumPacket, notifications and first bytes: round trips, any chunking, and hostile bytes."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.protocol.values import INTS, LONGS, TEXTS
from tests.support import zabwire

from zkpy.protocol import packets as p
from zkpy.protocol.errors import DecodeError, ProtocolError
from zkpy.protocol.packets import (
    ACK,
    COMMIT,
    PACKET_NAMES,
    PING,
    PROPOSAL,
    REQUEST,
    SNAP,
    LearnerInfo,
    Notification,
    Packet,
    PacketReader,
    decode_initial,
    encode_initial,
    encode_packet,
)

LIMIT = 64
TYPES = st.sampled_from(sorted(PACKET_NAMES))
DATA = st.none() | st.binary(max_size=LIMIT)
IDS = st.tuples(TEXTS, TEXTS)
AUTHINFO = st.none() | st.lists(IDS, max_size=3).map(tuple)
PACKETS = st.tuples(TYPES, LONGS, DATA, AUTHINFO)
PLAIN = st.tuples(TYPES.filter(lambda type: type != SNAP), LONGS, DATA, AUTHINFO)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def encoded(packets: list[Packet]) -> bytes:
    return b"".join(encode_packet(*packet) for packet in packets)


# ---------------------------------------------------------------------- QuorumPacket


def test_types_have_the_numbers_of_the_wire() -> None:
    assert sorted(PACKET_NAMES) == list(range(1, 20))
    for number, name in PACKET_NAMES.items():
        assert getattr(p, name) == number
        assert getattr(zabwire, name) == number


@given(PACKETS)
def test_packets_are_those_of_the_plain_encoder(packet: Packet) -> None:
    data = encode_packet(*packet)
    assert data == zabwire.packet(*packet)
    assert zabwire.Cursor(data).packet() == packet
    assert PacketReader(1000).feed(data) == [packet]


def test_a_bare_packet_has_20_bytes() -> None:
    assert encode_packet(COMMIT, 0x100000002).hex() == "000000040000000100000002ffffffffffffffff"


def test_an_empty_buffer_is_not_null() -> None:
    empty = encode_packet(PING, 7, b"")
    assert empty != encode_packet(PING, 7)
    assert PacketReader().feed(empty) == [(PING, 7, b"", None)]


def test_no_ids_are_not_null() -> None:
    none = encode_packet(REQUEST, -1, None, ())
    assert none != encode_packet(REQUEST, -1)
    assert PacketReader().feed(none) == [(REQUEST, -1, None, ())]


@given(st.lists(PLAIN, max_size=6), CUTS)
def test_any_chunking_gives_the_same_packets(packets: list[Packet], cuts: list[int]) -> None:
    stream = encoded(packets)
    reader = PacketReader(LIMIT * 4)
    found: list[Packet] = []
    fed = 0
    for piece in pieces(stream, cuts):
        fed += len(piece)
        found += reader.feed(piece)
        # No packet waits for bytes of the next one.
        assert found == packets[: len(found)]
        assert len(encoded(packets[: len(found) + 1])) > fed or found == packets
    assert found == packets
    assert reader.take_rest() == b""


@given(st.lists(PLAIN, max_size=3), DATA, st.binary(max_size=100), CUTS)
def test_what_follows_a_snap_is_raw(
    packets: list[Packet], data: bytes | None, raw: bytes, cuts: list[int]
) -> None:
    snap: Packet = (SNAP, 5, data, None)
    stream = encoded([*packets, snap]) + raw
    reader = PacketReader(LIMIT * 4)
    found: list[Packet] = []
    for piece in pieces(stream, cuts):
        found += reader.feed(piece)
        assert reader.raw == (found[-1:] == [snap])
    assert found == [*packets, snap]
    assert reader.take_rest() == raw
    # Behind the snapshot there are packets again.
    assert not reader.raw
    assert reader.feed(encoded(packets)) == packets


def test_the_rest_can_be_taken_at_any_time() -> None:
    reader = PacketReader()
    ack = encode_packet(ACK, 1)
    assert reader.feed(ack + b"\0half a header") == [(ACK, 1, None, None)]
    assert reader.take_rest() == b"\0half a header"
    assert reader.feed(ack) == [(ACK, 1, None, None)]


@pytest.mark.parametrize("length", [-2, -(1 << 31), LIMIT + 1, 0x7FFFFFFF])
def test_impossible_length_of_data(length: int) -> None:
    header = struct.pack(">iqii", PROPOSAL, 1, length, -1)
    with pytest.raises(ProtocolError, match=f"{length} bytes, limit 64"):
        PacketReader(LIMIT).feed(header)


@pytest.mark.parametrize("count", [-2, -(1 << 31), LIMIT, 0x7FFFFFFF])
def test_impossible_count_of_ids(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"{count} ids"):
        PacketReader(LIMIT).feed(struct.pack(">iqii", REQUEST, 1, -1, count))


@pytest.mark.parametrize("length", [-1, -2, LIMIT + 1, 0x7FFFFFFF])
def test_impossible_length_of_an_id(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"id of {length} bytes"):
        PacketReader(LIMIT).feed(struct.pack(">iqiii", REQUEST, 1, -1, 1, length))


@pytest.mark.parametrize(
    "junk",
    [b"ruok", b"G", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\xff" * 20, zabwire.AUTH_MAGIC],
)
@pytest.mark.parametrize("before", [b"", encode_packet(ACK, 1), encode_packet(ACK, 1, b"x")])
def test_another_protocol_is_seen_at_its_first_byte(junk: bytes, before: bytes) -> None:
    # Else we would wait for the rest of a packet, and the other side for our answer.
    with pytest.raises(ProtocolError, match=f"no packet begins with {junk[:8].hex()}"):
        PacketReader().feed(before + junk)
    reader = PacketReader()
    reader.feed(before)
    with pytest.raises(ProtocolError, match=f"no packet begins with {junk[:8].hex()}"):
        reader.feed(junk)


@pytest.mark.parametrize("type", [0, 20, 255])
def test_types_to_come_are_left_to_those_who_know_what_to_expect(type: int) -> None:
    assert PacketReader().feed(encode_packet(type, 1)) == [(type, 1, None, None)]


@pytest.mark.parametrize("type", [256, 65536, -1])
def test_impossible_type(type: int) -> None:
    with pytest.raises(ProtocolError, match="no packet begins with"):
        PacketReader().feed(encode_packet(type, 1))


def test_ids_are_bounded_together() -> None:
    one = ("a" * 30, "b" * 30)
    assert PacketReader(LIMIT + 8).feed(encode_packet(REQUEST, 1, None, (one,)))
    with pytest.raises(ProtocolError, match="id of 30 bytes"):
        PacketReader(LIMIT + 8).feed(encode_packet(REQUEST, 1, None, (one, one)))


def test_the_limit_itself_is_allowed() -> None:
    packet = (PROPOSAL, 1, bytes(LIMIT), None)
    assert PacketReader(LIMIT).feed(encode_packet(*packet)) == [packet]


def test_announced_bytes_are_not_allocated() -> None:
    reader = PacketReader(1 << 30)
    tracemalloc.start()
    try:
        assert reader.feed(struct.pack(">iqi", PROPOSAL, 1, 1 << 30) + bytes(100)) == []
        with pytest.raises(ProtocolError):
            PacketReader(1 << 20).feed(struct.pack(">iqii", REQUEST, 1, -1, 0x7FFFFFFF))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_long_packet_in_many_chunks_is_joined_once() -> None:
    # Joined with each chunk it would take 20000 copies of 0.5 MB on average.
    stream = encode_packet(PROPOSAL, 1, bytes(1 << 20))
    reader = PacketReader(1 << 20)
    for start in range(0, len(stream) - 50, 50):
        assert reader.feed(stream[start : start + 50]) == []
        assert len(reader._chunks[0]) <= 70
    assert reader.feed(stream[start + 50 :]) == [(PROPOSAL, 1, bytes(1 << 20), None)]


@given(st.lists(st.binary(max_size=60), max_size=10))
@example([b"GET / HTTP/1.1\r\nHost: zoo1\r\n\r\n"])
@example([bytes.fromhex("16030100a5010000a10303") + bytes(40)])
def test_garbage_raises_nothing_but_protocol_errors(chunks: list[bytes]) -> None:
    reader = PacketReader(LIMIT)
    held = 0
    for chunk in chunks:
        try:
            packets = reader.feed(chunk)
        except ProtocolError:
            break
        held = 0 if packets else held + len(chunk)
        assert reader.raw or held < 20 + 2 * LIMIT + 60


@given(st.lists(PLAIN, min_size=1, max_size=4), st.data())
def test_damaged_packets_raise_nothing_but_protocol_errors(
    packets: list[Packet], draw: st.DataObject
) -> None:
    stream = bytearray(encoded(packets))
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(stream) - 1))
        stream[at] = draw.draw(st.integers(0, 255))
    reader = PacketReader(LIMIT)
    try:
        found = reader.feed(bytes(stream))
    except ProtocolError:
        return
    assert all(data is None or len(data) <= LIMIT for _, _, data, _ in found)


def test_ids_that_are_not_utf8_do_not_end_the_connection() -> None:
    good = encode_packet(REQUEST, -1, b"", (("ip", "xx"),))
    assert PacketReader().feed(good.replace(b"xx", b"\xff\xfe")) == [
        (REQUEST, -1, b"", (("ip", "��"),))
    ]


# ---------------------------------------------------------------------- what packets carry


@given(LONGS, INTS, LONGS)
def test_learner_info(server_id: int, version: int, config_version: int) -> None:
    info = LearnerInfo(server_id, version, config_version)
    data = zabwire.learner_info(server_id, version, config_version)
    assert info.encode() == data
    assert LearnerInfo.decode(data) == info


def test_learner_info_of_older_learners() -> None:
    data = zabwire.learner_info(3, 0x10000, 0x100000005)
    short = LearnerInfo.decode(data[:12])
    assert (short.server_id, short.protocol_version, short.config_version) == (3, 0x10000, 0)
    shorter = LearnerInfo.decode(data[:8])
    assert (shorter.server_id, shorter.protocol_version, shorter.config_version) == (3, 1, 0)
    assert LearnerInfo.decode(None).server_id == -1


@given(st.binary(max_size=40).filter(lambda data: len(data) not in (8, 12, 20)))
def test_learner_info_of_another_length(data: bytes) -> None:
    with pytest.raises(DecodeError):
        LearnerInfo.decode(data)


@given(LONGS, INTS, INTS, st.binary(max_size=40))
def test_request(session_id: int, cxid: int, op: int, payload: bytes) -> None:
    data = p.encode_request(session_id, cxid, op, payload)
    head = zabwire.int64(session_id) + zabwire.int32(cxid) + zabwire.int32(op)
    assert data == head + payload
    assert p.decode_request(data) == (session_id, cxid, op, payload)


@given(st.lists(st.tuples(LONGS, INTS), max_size=5))
def test_touches(touches: list[tuple[int, int]]) -> None:
    data = p.encode_touches(touches)
    assert data == b"".join(zabwire.int64(s) + zabwire.int32(t) for s, t in touches)
    assert p.decode_touches(data) == touches


@given(LONGS, INTS)
def test_revalidation(session_id: int, timeout_ms: int) -> None:
    data = p.encode_revalidation(session_id, timeout_ms)
    assert data == zabwire.int64(session_id) + zabwire.int32(timeout_ms)
    assert p.decode_revalidation(data) == (session_id, timeout_ms)


@given(LONGS, st.booleans())
def test_revalidated(session_id: int, valid: bool) -> None:
    data = p.encode_revalidated(session_id, valid)
    assert data == zabwire.int64(session_id) + bytes([valid])
    assert p.decode_revalidated(data) == (session_id, valid)
    assert p.decode_revalidated(data[:8] + b"\x07") == (session_id, True)


def test_short_data() -> None:
    for decode, size in (
        (p.decode_request, 15),
        (p.decode_revalidation, 11),
        (p.decode_revalidated, 8),
        (p.decode_touches, 11),
    ):
        for length in range(1 if decode is p.decode_touches else 0, size + 1):
            with pytest.raises(DecodeError, match=f"of {length} bytes"):
                decode(bytes(length))
    for decode in (p.decode_request, p.decode_revalidation, p.decode_revalidated):
        with pytest.raises(DecodeError, match="of -1 bytes"):
            decode(None)
    assert p.decode_touches(None) == []


# ---------------------------------------------------------------------- first bytes

HOSTS = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.sampled_from(
    ["10.0.0.1", "::1", "fe80::1%eth0", "zoö1"]
)
ADDRESSES = st.lists(st.tuples(HOSTS, st.integers(0, 65535)), min_size=1, max_size=4)


def test_first_bytes_of_a_real_server() -> None:
    data = bytes.fromhex("ffffffffffff000000000000000000010000000f3132372e302e302e313a3234303132")
    assert encode_initial(1, [("127.0.0.1", 24012)], multi_address=False) == data
    assert decode_initial(data) == (1, [("127.0.0.1", 24012)], len(data))


@given(LONGS, ADDRESSES, st.booleans(), st.binary(max_size=20))
def test_initial_message(
    sid: int, addresses: list[tuple[str, int]], multi_address: bool, behind: bytes
) -> None:
    data = encode_initial(sid, addresses, multi_address)
    sent = addresses if multi_address else addresses[:1]
    assert decode_initial(data + behind) == (sid, sent, len(data))
    for length in range(len(data)):
        assert decode_initial(data[:length]) is None


def test_members_before_3_6_get_one_address_in_the_first_version() -> None:
    # ZOOKEEPER-3720: they do not understand the second version at all.
    addresses = [("zoo1", 3888), ("10.0.0.1", 3889)]
    assert encode_initial(1, addresses, False) == zabwire.initial_message(1, "zoo1:3888")
    both = zabwire.initial_message(1, "zoo1:3888|10.0.0.1:3889", -65535)
    assert encode_initial(1, addresses, True) == both
    one = zabwire.initial_message(1, "zoo1:3888", -65535)
    assert encode_initial(1, addresses[:1], True) == one


def test_several_addresses_are_accepted_in_either_version() -> None:
    data = zabwire.initial_message(1, "zoo1:3888|[::1]:3889")
    assert decode_initial(data) == (1, [("zoo1", 3888), ("::1", 3889)], len(data))


@given(st.integers(0, (1 << 63) - 1), st.binary(max_size=30))
def test_members_before_3_5_say_only_their_id(sid: int, behind: bytes) -> None:
    assert decode_initial(zabwire.int64(sid) + behind) == (sid, [], 8)


@pytest.mark.parametrize("version", [-1, -65537, -65534, -(1 << 63)])
def test_unknown_version(version: int) -> None:
    # As soon as it is seen: nobody waits for what follows.
    with pytest.raises(ProtocolError, match=f"unrecognized protocol version {version}"):
        decode_initial(zabwire.int64(version))


@pytest.mark.parametrize("length", [0, -1, 2049, 0x7FFFFFFF])
def test_unreasonable_length(length: int) -> None:
    head = zabwire.int64(-65536) + zabwire.int64(1) + zabwire.int32(length)
    with pytest.raises(ProtocolError, match=f"Unreasonable buffer length: {length}"):
        decode_initial(head)


def test_longest_address_list() -> None:
    many = "|".join(["zoo1.example.org:03888"] * 88)
    many += "|" + "z" * (2048 - len(many) - 4) + ":12"
    data = zabwire.initial_message(1, many, -65535)
    found = decode_initial(data)
    assert found is not None
    assert len(found[1]) == 89
    assert found[2] == 20 + 2048


@pytest.mark.parametrize(
    ("host", "rest"),
    [("0.0.0.0", []), ("[::]", []), ("[0:0:0:0:0:0:0:0]", []), ("zoo1", [("zoo1", 3888)])],
)
def test_wildcards_are_dropped(host: str, rest: list[tuple[str, int]]) -> None:
    # ZOOKEEPER-2164: with none left the receiver takes the configured address.
    data = zabwire.initial_message(2, f"{host}:3888")
    assert decode_initial(data) == (2, rest, len(data))
    data = zabwire.initial_message(2, f"zoo2:3888|{host}:3888", -65535)
    assert decode_initial(data) == (2, [("zoo2", 3888), *rest], len(data))


@pytest.mark.parametrize(
    "address",
    [
        "zoo1",
        ":3888",
        "zoo1:",
        "zoo1:-1",
        "zoo1:+1",
        "zoo1:65536",
        "zoo1:999999999999",
        "zoo1:²",
        "zoo1:3888|",
        "zoo1:3888:2888",
        "::1:3888",
        "[]:3888",
        "[::1]3888",
        "zoo\n1:3888",
        "z" * 256 + ":3888",
    ],
)
def test_bad_address(address: str) -> None:
    with pytest.raises(ProtocolError, match="Bad"):
        decode_initial(zabwire.initial_message(1, address))


def test_address_that_is_no_text() -> None:
    data = zabwire.initial_message(1, "xx:3888").replace(b"xx", b"\xff\xfe")
    with pytest.raises(ProtocolError, match="UTF-8"):
        decode_initial(data)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"\xff" * 6 + b"\0\0" + b))
@example(b"GET / HTTP/1.1\r\n\r\n")
@example(b"ruok")
def test_garbage_first_bytes(data: bytes) -> None:
    try:
        found = decode_initial(data)
    except ProtocolError:
        return
    assert found is None or 8 <= found[2] <= len(data)


# ---------------------------------------------------------------------- notifications

CONFIGS = st.none() | TEXTS.filter(bool)


@given(INTS, LONGS, LONGS, LONGS, LONGS, CONFIGS)
def test_notification(
    state: int, leader: int, zxid: int, round: int, epoch: int, config: str | None
) -> None:
    told = Notification(state, leader, zxid, round, epoch, 2, config)
    payload = told.encode()
    text = (config or "").encode()
    assert payload == zabwire.notification(state, leader, zxid, round, epoch, text)
    assert len(payload) == 44 + len(text)
    assert Notification.decode(payload) == told


def vote_of(found: Notification) -> tuple[int, ...]:
    return (found.state, found.leader, found.zxid, found.election_epoch)


WHOLE = zabwire.notification(1, 3, 0x500000007, 9, 6, b"server.1=a:1:2")


def test_28_bytes_have_the_epoch_of_the_zxid() -> None:
    found = Notification.decode(WHOLE[:28])
    assert vote_of(found) == (1, 3, 0x500000007, 9)
    assert (found.peer_epoch, found.version, found.config) == (5, 0, None)
    # Arithmetically: an observer's vote is of a negative zxid.
    below = zabwire.notification(0, 3, -(1 << 63), 9, 6)
    assert Notification.decode(below[:28]).peer_epoch == -(1 << 31)


def test_40_bytes_have_no_version_whatever_they_end_with() -> None:
    for end in (0, 1, 2, -1, 99):
        found = Notification.decode(WHOLE[:36] + zabwire.int32(end))
        assert vote_of(found) == (1, 3, 0x500000007, 9)
        assert (found.peer_epoch, found.version, found.config) == (6, 0, None)


@pytest.mark.parametrize("version", [0, 1, -1])
@pytest.mark.parametrize("behind", [1, 4, 100])
def test_a_version_without_configuration(version: int, behind: int) -> None:
    found = Notification.decode(WHOLE[:36] + zabwire.int32(version) + b"\xff" * behind)
    assert (found.peer_epoch, found.version, found.config) == (6, version, None)


@pytest.mark.parametrize("version", [2, 3, 0x7FFFFFFF])
def test_later_versions_are_read_like_the_second(version: int) -> None:
    payload = WHOLE[:36] + zabwire.int32(version) + WHOLE[40:] + b"what is to come"
    found = Notification.decode(payload)
    assert (found.version, found.config) == (version, "server.1=a:1:2")


def test_truncated_notifications_are_refused() -> None:
    # ZOOKEEPER-3769: every length but those that older members send.
    for length in range(len(WHOLE)):
        if length not in (28, 40):
            with pytest.raises(DecodeError):
                Notification.decode(WHOLE[:length])
    with pytest.raises(DecodeError, match="Got a short response: 27"):
        Notification.decode(WHOLE[:27])


@pytest.mark.parametrize("length", [-1, -(1 << 31), 15, 58, 59, 0x7FFFFFFF])
def test_impossible_length_of_the_configuration(length: int) -> None:
    payload = WHOLE[:40] + zabwire.int32(length) + WHOLE[44:]
    with pytest.raises(DecodeError, match=f"configuration of {length} bytes"):
        Notification.decode(payload)


def test_an_empty_configuration_is_none() -> None:
    assert Notification.decode(zabwire.notification(1, 3, 5, 9, 6)).config is None


def test_a_configuration_is_utf8_and_damage_in_it_is_left_to_its_parser() -> None:
    # ZOOKEEPER-4787: whatever the platform's character set.
    named = zabwire.notification(1, 3, 5, 9, 6, "server.1=zoö:1:2".encode())
    assert Notification.decode(named).config == "server.1=zoö:1:2"
    damaged = zabwire.notification(1, 3, 5, 9, 6, b"server.1=\xff:1:2")
    assert Notification.decode(damaged).config == "server.1=\ufffd:1:2"


def test_an_unknown_state_is_left_to_the_election() -> None:
    assert Notification.decode(zabwire.notification(77, 3, 5, 9, 6)).state == 77


def test_the_first_versions_encode_without_configuration() -> None:
    assert Notification(1, 3, 5, 9, 6, 1, "lost").encode() == (
        zabwire.notification(1, 3, 5, 9, 6)[:36] + zabwire.int32(1)
    )


@given(st.binary(max_size=100))
def test_garbage_notification(payload: bytes) -> None:
    try:
        found = Notification.decode(payload)
    except DecodeError:
        return
    assert len(payload) >= 28
    assert found.encode()[:28] == payload[:28]


def test_frame_and_its_bound() -> None:
    assert p.frame(WHOLE) == zabwire.int32(len(WHOLE)) + WHOLE
    assert p.MAX_NOTIFICATION_BYTES == 512 * 1024


def test_values_print_themselves() -> None:
    assert repr(LearnerInfo(1, 0x10000, 5)) == "LearnerInfo(1, 0x10000, 0x5)"
    assert "round=0x9" in repr(Notification.decode(WHOLE))
    assert LearnerInfo(1) != 1
    assert hash(LearnerInfo(1)) == hash(LearnerInfo(1))
    assert Notification.decode(WHOLE) != WHOLE
