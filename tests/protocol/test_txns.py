"""Transactions: hand-written code against the interpreter, hostile bytes, captured logs."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from zlib import adler32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.protocol.values import INTS, LONGS, records_of

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Record
from zkpy.protocol.txn_check import check_txn
from zkpy.protocol.zoodefs import OpCode

LOGS = Path(__file__).parent.parent / "golden" / "disk"
CLASSES = [t.TxnHeader, t.SubTxn, *dict.fromkeys(t.TXN_RECORDS.values())]
TYPES = sorted(t.TXN_RECORDS)
headers = st.builds(t.TxnHeader, LONGS, INTS, LONGS, LONGS, st.sampled_from(TYPES))
digests = st.none() | st.builds(t.TxnDigest, st.just(2), st.integers(0, t.MASK64))


def interpreted(record: Record) -> bytes:
    """The bytes by the table alone."""
    out: list[bytes] = []
    Record.write(out, record)
    return b"".join(out)


def read_by_table(cls: type[Record], buf: bytes) -> tuple[Record, int]:
    """The record by the table alone."""
    read = Record.__dict__["read"].__func__
    record, end = read(cls, buf, 0)
    return record, end


def is_null_body(record: Record) -> bool:
    """A value that no server writes, and that the hand-written code does not keep as null."""
    if isinstance(record, t.MultiTxn):
        return record.txns is None or any(sub.data is None for sub in record.txns)
    if isinstance(record, t.CloseSessionTxn):
        # Two empty paths are as long as a digest, and no session has an ephemeral without a name.
        return record.paths is None or not all(record.paths)
    return getattr(record, "path", "") is None


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_encoding_by_hand_is_that_of_the_table(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(records_of(cls).filter(lambda record: not is_null_body(record)))
    assert record.encode() == interpreted(record)


@pytest.mark.parametrize("type", TYPES)
@given(data=st.data(), behind=st.binary(max_size=3))
def test_decoding_by_hand_is_that_of_the_table(
    type: int, data: st.DataObject, behind: bytes
) -> None:
    cls = t.TXN_RECORDS[type]
    record = data.draw(records_of(cls).filter(lambda record: not is_null_body(record)))
    encoded = record.encode()
    assert t.decode_record(type, b"xx" + encoded + behind, 2) == (record, 2 + len(encoded))
    assert read_by_table(cls, encoded + behind) == (record, len(encoded))


def outcome_by_hand(type: int, data: bytes) -> tuple[Record, int] | None:
    try:
        return t.decode_record(type, data)
    except DecodeError:
        return None


def outcome_by_table(type: int, data: bytes) -> tuple[Record, int] | None:
    try:
        return read_by_table(t.TXN_RECORDS[type], data)
    except DecodeError:
        return None


# What they make or change is nowhere without one.
NEED_A_PATH = (
    OpCode.CREATE,
    OpCode.CREATE2,
    OpCode.CREATE_CONTAINER,
    OpCode.CREATE_TTL,
    OpCode.RECONFIG,
    OpCode.SET_DATA,
)


def check_any_bytes(type: int, data: bytes) -> None:
    """Both decoders agree but for the forms that only the hand-written one knows."""
    by_hand = outcome_by_hand(type, data)
    by_table = outcome_by_table(type, data)
    if type == OpCode.CREATE and isinstance(by_hand, tuple) and by_table is None:
        # CreateTxnV0: a cversion was missing, and that was the end.
        assert by_hand[1] == len(data)
        assert outcome_by_table(type, data + b"\xff\xff\xff\xff") == (by_hand[0], len(data) + 4)
    elif type == OpCode.CLOSE_SESSION and by_hand is not None and by_hand[0].paths is None:  # type: ignore[attr-defined]
        assert by_hand[1] in (0, 4)
    elif by_table is not None and is_null_body(by_table[0]) and by_hand is None:
        assert type in NEED_A_PATH
    else:
        assert by_hand == by_table


@pytest.mark.parametrize("type", TYPES)
@given(data=st.binary(max_size=80))
@example(b"")
@example(struct.pack(">iq", 2, 5))
@example(b"\xff\xff\xff\xff" * 6)
@example(b"\0" * 13)
@example(b"\0" * 80)
def test_any_bytes(type: int, data: bytes) -> None:
    check_any_bytes(type, data)


@pytest.mark.parametrize("type", TYPES)
@given(data=st.data())
def test_damaged_bytes(type: int, data: st.DataObject) -> None:
    encoded = bytearray(interpreted(data.draw(records_of(t.TXN_RECORDS[type]))))
    for _ in range(data.draw(st.integers(0, 3))):
        if encoded:
            encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    check_any_bytes(type, bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


@given(headers, st.data(), digests)
def test_whole_txns(header: t.TxnHeader, data: st.DataObject, digest: t.TxnDigest | None) -> None:
    cls = t.TXN_RECORDS[header.type]
    record = data.draw(records_of(cls).filter(lambda record: not is_null_body(record)))
    encoded = t.encode_txn(header, record, digest)
    assert encoded[:32] == interpreted(header)
    decoded_header, decoded, found = t.decode_txn(encoded)
    assert decoded_header == header
    assert decoded == record
    assert (found is None) is (digest is None)
    if digest is not None and found is not None:
        assert (found.version, found.tree_digest) == (digest.version, digest.tree_digest)
    assert t.encode_txn(decoded_header, decoded, found) == encoded


@given(st.binary(max_size=120) | st.tuples(headers, st.binary(max_size=80)).map(
    lambda pair: pair[0].encode() + pair[1]))  # fmt: skip
def test_whole_txns_of_any_bytes(data: bytes) -> None:
    try:
        header, record, digest = t.decode_txn(data)
    except DecodeError:
        return
    assert type(record) is t.TXN_RECORDS[header.type]
    assert digest is None or len(digest.encode()) == t.DIGEST_SIZE


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("fill", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x01"])
def test_hostile_counts_cost_no_memory(type: int, fill: bytes) -> None:
    data = struct.pack(">i", 0x7FFFFFFF) + fill * 5000
    tracemalloc.start()
    try:
        outcome_by_hand(type, data)
        outcome_by_hand(type, b"\0\0\0\x02/a" + data)
        outcome_by_hand(type, b"\0\0\0\x02/a\xff\xff\xff\xff" + data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * len(data)


@pytest.mark.parametrize("type", [0, 3, 22, 99, -2, -12, 1 << 30])
def test_types_that_no_txn_has(type: int) -> None:
    with pytest.raises(DecodeError, match=f"type={type}"):
        t.decode_record(type, bytes(100))


def test_create_without_parent_cversion() -> None:
    record = t.CreateTxn("/a", b"x", OPEN_ACL_UNSAFE, True, 7)
    old_form = record.encode()[:-4]
    expected = t.CreateTxn("/a", b"x", OPEN_ACL_UNSAFE, True, -1)
    assert t.decode_record(OpCode.CREATE, old_form) == (expected, len(old_form))
    with pytest.raises(DecodeError):
        t.decode_record(OpCode.CREATE2, old_form)


@pytest.mark.parametrize("high_half", [0, 1, 2, 4_000_000])
def test_close_session_forms(high_half: int) -> None:
    header = t.TxnHeader(1, 2, 3, 4, OpCode.CLOSE_SESSION)
    digest = t.TxnDigest(2, high_half << 32 | 77)
    for record in (
        t.CloseSessionTxn(None),
        t.CloseSessionTxn([]),
        t.CloseSessionTxn(["/a"]),
        t.CloseSessionTxn(["/a", "/bcd"]),
    ):
        for tail in (digest, None):
            encoded = t.encode_txn(header, record, tail)
            decoded = t.decode_txn(encoded)
            assert decoded[1] == record
            assert (decoded[2] is None) is (tail is None)
            assert t.encode_txn(*decoded) == encoded


def records_of_log(path: Path) -> list[bytes]:
    """The txns of a log file, checksums verified."""
    buf = path.read_bytes()
    assert buf[:4] == b"ZKLG"
    offset, found = 16, []
    while offset + 12 <= len(buf):
        checksum, size = struct.unpack_from(">qi", buf, offset)
        if size == 0:
            break
        txn = buf[offset + 12 : offset + 12 + size]
        assert adler32(txn) == checksum
        assert buf[offset + 12 + size] == 0x42
        found.append(txn)
        offset += 13 + size
    return found


def test_captured_logs_decode_encode_and_give_their_digests() -> None:
    tree = DataTree(extended_types=True)
    compared = 0
    for name in ("log.1", "log.1f"):
        for encoded in records_of_log(LOGS / "standalone-395" / "version-2" / name):
            header, record, digest = t.decode_txn(encoded)
            assert t.encode_txn(header, record, digest) == encoded
            if isinstance(record, t.MultiTxn):
                for sub in record.txns or ():
                    part, end = t.decode_record(sub.type, sub.data or b"")
                    assert part.encode() == sub.data
                    assert end == len(sub.data or b"")
            apply_txn(tree, header, record)
            assert tree.last_processed_zxid == header.zxid
            if digest is not None:
                assert digest.version == t.DIGEST_VERSION
                assert digest.tree_digest == tree.digest, hex(header.zxid)
                compared += 1
    assert compared == 30


# ---------------------------------------------------------------------- check_txn


def can_be_applied(txn: bytes) -> bool:
    """By decoding all of it."""
    try:
        header, record, _ = t.decode_txn(txn)
        if isinstance(record, t.MultiTxn):
            apply_txn(DataTree(), header, record)
    except DecodeError:
        return False
    return True


def is_checked(txn: bytes) -> bool:
    try:
        check_txn(txn)
    except DecodeError:
        return False
    return True


PLAIN = [
    t.CreateTxn("/a", b"data", OPEN_ACL_UNSAFE, False, 1),
    t.CreateTxn("/a", None, OPEN_ACL_UNSAFE, True, 1),
    t.SetDataTxn("/a", b"data", 1),
    t.SetDataTxn("/a", None, 1),
    t.DeleteTxn("/a"),
    t.ErrorTxn(-101),
    t.CreateSessionTxn(30000),
    t.CloseSessionTxn(["/a"]),
]
TYPE_OF = {
    t.CreateTxn: OpCode.CREATE,
    t.SetDataTxn: OpCode.SET_DATA,
    t.DeleteTxn: OpCode.DELETE,
    t.ErrorTxn: OpCode.ERROR,
    t.CreateSessionTxn: OpCode.CREATE_SESSION,
    t.CloseSessionTxn: OpCode.CLOSE_SESSION,
}


def plain_txns() -> list[bytes]:
    single = [
        t.encode_txn(t.TxnHeader(1, 2, 3, 4, TYPE_OF[type(record)]), record, digest)
        for record in PLAIN
        for digest in (None, t.TxnDigest(2, 5))
    ]
    subs = [t.SubTxn(TYPE_OF[type(record)], record.encode()) for record in PLAIN]
    for parts in (subs[:5], subs[:3] + subs[5:6] + [t.SubTxn(99, None)], []):
        header = t.TxnHeader(1, 2, 3, 4, OpCode.MULTI)
        single.append(t.encode_txn(header, t.MultiTxn(parts), t.TxnDigest(2, 5)))
    return single


@pytest.mark.parametrize("txn", plain_txns())
def test_check_agrees_with_decoding_at_every_length(txn: bytes) -> None:
    assert is_checked(txn)
    for length in range(len(txn)):
        assert is_checked(txn[:length]) == can_be_applied(txn[:length]), length


@pytest.mark.parametrize(
    ("type", "record"),
    [
        (OpCode.CREATE, t.CreateTxn(None, b"", OPEN_ACL_UNSAFE, False, 1)),  # type: ignore[arg-type]
        (OpCode.CREATE_CONTAINER, t.CreateContainerTxn(None, b"", OPEN_ACL_UNSAFE, 1)),  # type: ignore[arg-type]
        (OpCode.CREATE_TTL, t.CreateTTLTxn(None, b"", OPEN_ACL_UNSAFE, 1, 5)),  # type: ignore[arg-type]
        (OpCode.SET_DATA, t.SetDataTxn(None, b"", 1)),  # type: ignore[arg-type]
        (OpCode.RECONFIG, t.SetDataTxn(None, b"", 1)),  # type: ignore[arg-type]
    ],
)
def test_a_node_without_a_path(type: int, record: Record) -> None:
    body = interpreted(record)
    assert body.startswith(b"\xff\xff\xff\xff")
    assert not is_checked(t.TxnHeader(1, 2, 3, 4, type).encode() + body)
    header = t.TxnHeader(1, 2, 3, 4, OpCode.MULTI)
    multi = t.encode_txn(header, t.MultiTxn([t.SubTxn(type, body)]), None)
    assert not is_checked(multi)
    assert not can_be_applied(multi)


@given(st.sampled_from(plain_txns()), st.integers(0, 1000), st.integers(0, 255))
def test_check_agrees_with_decoding_of_damage(txn: bytes, at: int, byte: int) -> None:
    damaged = bytearray(txn)
    damaged[at % len(txn)] = byte
    assert is_checked(bytes(damaged)) == can_be_applied(bytes(damaged))


@given(data=st.data())
def test_check_accepts_what_can_be_decoded(data: st.DataObject) -> None:
    header = data.draw(headers)
    record = data.draw(records_of(t.TXN_RECORDS[header.type]))
    txn = t.encode_txn(header, record, data.draw(digests))
    assert is_checked(txn) == can_be_applied(txn)
