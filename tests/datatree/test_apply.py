"""Txns as bytes, applied at once; and what no server proposes, but a damaged log may hold."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datatree.tree_compare import check_inner_consistency, content
from tests.datatree.txn_source import TxnSource

from zkpy.datatree.apply import TxnResult, apply_bytes, apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, encode_acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import (
    MultiTxn,
    SetDataTxn,
    SubTxn,
    TxnDigest,
    TxnHeader,
    decode_txn,
    encode_txn,
)
from zkpy.protocol.zoodefs import OpCode


@pytest.mark.parametrize("inner", [OpCode.MULTI, 4, 77, -12])
def test_a_part_of_a_multi_that_is_no_txn(inner: int) -> None:
    header = TxnHeader(1, 1, 1, 1, OpCode.MULTI)
    txn = MultiTxn([SubTxn(inner, b"\0\0\0\0")])
    tree = DataTree()
    with pytest.raises(DecodeError, match=f"type={inner} "):
        apply_txn(tree, header, txn)
    assert tree.last_processed_zxid == 0


rngs = st.integers(0, 1 << 32).map(Random)


def outcome(result: TxnResult) -> tuple[object, ...]:
    subs = None if result.subs is None else [outcome(sub) for sub in result.subs]
    node = result.node
    return result.type, result.err, result.path, node and (node.data, node.stat), result.stat, subs


@given(rngs, st.integers(1, 40))
def test_bytes_are_applied_as_what_they_decode_to(rng: Random, count: int) -> None:
    """Whatever is in the txns, and in replay, where they meet nodes they do not expect."""
    one, other = DataTree(extended_types=True), DataTree(extended_types=True)
    source = TxnSource(rng, one)
    log = []
    for _ in range(count):
        header, record = source.next()
        digest = rng.choice([None, TxnDigest(2, rng.getrandbits(64)), TxnDigest(1, 5)])
        log.append(encode_txn(header, record, digest))
        apply_txn(one, header, record)
    for txn in log:
        apply_bytes(other, txn)
    assert content(one) == content(other)
    again = rng.sample(log, rng.randint(0, len(log)))
    for txn in again:
        header, record, digest = decode_txn(txn)
        result = apply_bytes(other, txn)
        assert outcome(result) == outcome(apply_txn(one, header, record))
        assert (result.client_id, result.cxid, result.zxid, result.time, result.type) == (
            header.client_id,
            header.cxid,
            header.zxid,
            header.time,
            header.type,
        )
        expected = digest.tree_digest if digest is not None and digest.version == 2 else None
        assert result.digest == expected
    assert content(one) == content(other)
    assert (one.sessions, one.digest) == (other.sessions, other.digest)
    assert one.last_processed_zxid == other.last_processed_zxid
    check_inner_consistency(other)


@given(rngs, st.data())
def test_damaged_bytes_are_what_the_decoder_says(rng: Random, data: st.DataObject) -> None:
    one, other = DataTree(extended_types=True), DataTree(extended_types=True)
    source = TxnSource(rng, one)
    for _ in range(data.draw(st.integers(1, 10))):
        header, record = source.next()
        txn = bytearray(encode_txn(header, record, TxnDigest(2, 7)))
        if data.draw(st.booleans()):
            txn[data.draw(st.integers(0, len(txn) - 1))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            del txn[data.draw(st.integers(0, len(txn))) :]
        before = content(other)
        try:
            header, record, _ = decode_txn(bytes(txn))
            expected = outcome(apply_txn(one, header, record))
        except DecodeError:
            with pytest.raises(DecodeError):
                apply_bytes(other, bytes(txn))
            assert content(other) == before or header.type == OpCode.MULTI
        else:
            assert outcome(apply_bytes(other, bytes(txn))) == expected
        assert content(one) == content(other)
        source.zxid = max(source.zxid, one.last_processed_zxid)


def test_the_forms_of_create_that_old_servers_wrote() -> None:
    """Without the parent's cversion; with null data; with lengths that are none."""
    tree = DataTree()
    head = TxnHeader(1, 1, 5, 9, OpCode.CREATE).encode()
    body = b"\0\0\0\x02/a" + b"\xff\xff\xff\xff" + encode_acls(OPEN_ACL_UNSAFE) + b"\0"
    result = apply_bytes(tree, head + body)
    assert (result.err, result.path, tree.nodes["/a"].data) == (0, "/a", None)
    assert apply_bytes(tree, head + body + b"\0\0\0\x07").err == -110
    with pytest.raises(DecodeError):
        apply_bytes(tree, head + b"\xff\xff\xff\xfe" + body)
    with pytest.raises(DecodeError):
        apply_bytes(tree, head[:20])


PATHS = ["/a", "/b", "/b/c", "/missing", "/", "", "/zookeeper/config", "/ü"]


@given(
    st.lists(
        st.tuples(st.sampled_from(PATHS), st.none() | st.binary(max_size=5), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
    st.none() | st.integers(0, 400),
    st.booleans(),
)
def test_a_multi_of_sets_is_applied_as_what_it_decodes_to(
    sets: list[tuple[str, bytes | None, int]],
    damage: list[tuple[int, int]],
    size: int | None,
    is_signed: bool,
) -> None:
    one, other = DataTree(), DataTree()
    for tree in (one, other):
        for path in ("/a", "/b", "/b/c", "/ü"):
            tree.create_node(path, b"old", OPEN_ACL_UNSAFE, 0, -1, 1, 1)
    subs = [SubTxn(OpCode.SET_DATA, SetDataTxn(*fields).encode()) for fields in sets]
    header = TxnHeader(7, 8, 9, 10, OpCode.MULTI)
    digest = TxnDigest(2, 4711) if is_signed else None
    txn = bytearray(encode_txn(header, MultiTxn(subs), digest))
    for position, value in damage:
        txn[position % len(txn)] = value
    if size is not None:
        del txn[size:]
    try:
        header, record, digest = decode_txn(bytes(txn))
        expected = outcome(apply_txn(one, header, record))
    except DecodeError:
        with pytest.raises(DecodeError):
            apply_bytes(other, bytes(txn))
    else:
        applied = apply_bytes(other, bytes(txn))
        assert outcome(applied) == expected
        assert (applied.zxid, applied.client_id, applied.cxid) == (
            header.zxid,
            header.client_id,
            header.cxid,
        )
        assert (applied.digest is None) == (digest is None or digest.version != 2)
        assert content(one) == content(other)
    assert one.last_processed_zxid == other.last_processed_zxid
