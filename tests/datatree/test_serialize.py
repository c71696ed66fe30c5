"""The tree to bytes and back: whole, cut anywhere, damaged, and while it changes."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from random import Random
from zlib import adler32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datatree.tree_compare import check_against_model, check_inner_consistency, content
from tests.datatree.tree_model import ModelTree
from tests.datatree.txn_source import TxnSource

from zkpy.datatree import children as children_module
from zkpy.datatree import serialize as module
from zkpy.datatree import tree as tree_module
from zkpy.datatree.apply import apply_txn
from zkpy.datatree.digest import tree_digest
from zkpy.datatree.serialize import (
    SnapshotInput,
    deserialize_tree,
    encode_node,
    serialize_tree,
)
from zkpy.datatree.tree import DataTree
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, READ_ACL_UNSAFE
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.zoodefs import OpCode

LIMIT = 1 << 20
rngs = st.randoms(use_true_random=False)


def grown(rng: Random, count: int) -> DataTree:
    """A tree after `count` transactions."""
    tree = DataTree(extended_types=True)
    source = TxnSource(rng, tree)
    for _ in range(count):
        apply_txn(tree, *source.next())
    return tree


def chunks_of(data: bytes, rng: Random) -> Iterator[bytes]:
    """`data` in chunks of any size."""
    pos = 0
    while pos < len(data):
        size = rng.choice([1, 2, 3, 7, 50, 400])
        yield data[pos : pos + size]
        pos += size


def load(chunks: Iterator[bytes], limit: int = LIMIT) -> DataTree:
    tree = DataTree(extended_types=True)
    deserialize_tree(SnapshotInput(chunks), tree, limit)
    assert tree.digest == tree_digest(tree.nodes)
    return tree


def without_usage(tree: DataTree) -> dict[str, object]:
    """The content, but for what quotas count: that is counted anew at each load."""
    found: dict[str, object] = dict(content(tree))
    for path in found:
        if path.endswith("/zookeeper_stats"):
            found[path] = content(tree)[path][1:]
    return found


def check_same(one: DataTree, other: DataTree) -> None:
    assert without_usage(one) == without_usage(other)
    assert one.sessions == other.sessions
    owned = [
        {session: set(paths) for session, paths in tree.ephemerals.items() if paths}
        for tree in (one, other)
    ]
    assert owned[0] == owned[1]
    assert set(one.containers) == set(other.containers)
    assert set(one.ttls) == set(other.ttls)
    assert one.quota.paths == other.quota.paths
    assert one.ephemerals_count == other.ephemerals_count
    assert one.digest == other.digest
    for tree in (one, other):
        check_inner_consistency(tree)
        expected = sum(len(path) + len(node.data or b"") for path, node in tree.nodes.items())
        assert tree.data_size == expected - 1 - len(tree.nodes["/"].data or b"")


@given(rngs, st.integers(0, 30))
def test_round_trip_in_any_chunks(rng: Random, count: int) -> None:
    tree = grown(rng, count)
    data = b"".join(serialize_tree(tree))
    source = SnapshotInput(chunks_of(data + b"behind", rng))
    loaded = DataTree(extended_types=True)
    deserialize_tree(source, loaded, LIMIT)
    check_same(tree, loaded)
    assert source.offset() == len(data)
    assert source.checksum() == adler32(data)
    assert source.take(6) == b"behind"
    assert source.at_end()


# Numbers for seeds: generators that hypothesis controls take less varied ways.
@given(st.integers(0, 1 << 32).map(Random), st.integers(0, 30), st.data())
def test_replay_over_a_fuzzy_snapshot(rng: Random, before: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_NODES", data.draw(st.integers(1, 3)))
        if data.draw(st.booleans()):
            patch.setattr(tree_module, "WIDE", 2)
            patch.setattr(children_module, "BUCKET", 2)
        tree, model = DataTree(extended_types=True), ModelTree()
        source = TxnSource(rng, tree)
        log = []

        def step() -> None:
            header, record = source.next()
            log.append(t.encode_txn(header, record, None))
            apply_txn(tree, header, record)
            model.apply(header, record)

        for _ in range(before):
            step()
        log.clear()
        start = tree.last_processed_zxid
        chunks = []
        for chunk in serialize_tree(tree):
            chunks.append(chunk)
            for _ in range(rng.randint(0, 3)):
                step()
        loaded = load(iter([chunk for chunk in chunks if chunk]))
        loaded.last_processed_zxid = start
        for encoded in log:
            apply_txn(loaded, *t.decode_txn(encoded)[:2])
        assert loaded.last_processed_zxid == tree.last_processed_zxid
        check_against_model(tree, model)
        check_same(tree, loaded)


def test_a_captured_empty_snapshot() -> None:
    # Sessions to terminator of the snapshot that a fresh standalone server writes.
    assert b"".join(serialize_tree(DataTree())).hex() == (
        "00000000"
        "000000010000000000000001000000010000000100000005776f726c6400000006616e796f6e65"
        "0000000000000000ffffffffffffffff" + "00" * 60
        + "0000000a" + b"/zookeeper".hex() + "00000000ffffffffffffffff" + "00" * 60
        + "00000011" + b"/zookeeper/config".hex() + "000000000000000000000001"
        + "00" * 40 + "ffffffff" + "00" * 16
        + "00000010" + b"/zookeeper/quota".hex() + "00000000ffffffffffffffff" + "00" * 60
        + "000000012f"
    )  # fmt: skip


def test_slices_are_bounded() -> None:
    tree = DataTree()
    for number in range(20_000):
        tree.create_node(f"/n{number}", b"12345678", OPEN_ACL_UNSAFE, 0, -1, number + 1, 1)
    for number in range(3000):
        tree.sessions[number + 1] = 1
    sizes = [len(chunk) for chunk in serialize_tree(tree)]
    assert max(sizes) < 13_000
    assert sum(sizes) > 20_000 * 80


def test_built_in_nodes_that_an_old_snapshot_lacks_are_added() -> None:
    root = encode_node("", DataTree().nodes[""])
    data = bytes(8) + root + module.TERMINATOR
    loaded = load(iter([data]))
    check_same(loaded, DataTree())
    assert loaded.acls_of(loaded.nodes["/zookeeper/config"]) == READ_ACL_UNSAFE
    with pytest.raises(DecodeError, match="root"):
        load(iter([bytes(8) + module.TERMINATOR]))


def test_a_node_before_its_parent_is_refused() -> None:
    tree = DataTree()
    orphan = encode_node("/a/b", tree.nodes[""])
    data = bytes(8) + encode_node("", tree.nodes[""]) + orphan + module.TERMINATOR
    with pytest.raises(DecodeError, match="before its parent"):
        load(iter([data]))


def test_an_acl_number_without_entry_is_repaired_by_the_log() -> None:
    tree = DataTree()
    header = t.TxnHeader(1, 1, 1, 1, OpCode.CREATE)
    first = t.CreateTxn("/a", b"", OPEN_ACL_UNSAFE, False, 1)
    second = t.CreateTxn("/b", b"", READ_ACL_UNSAFE * 2, False, 2)
    chunks = serialize_tree(tree)
    # The ACL map is written before the nodes: both lists come too late for it.
    written = [next(chunks) for _ in range(4)]
    apply_txn(tree, header, first)
    apply_txn(tree, header, second)
    loaded = load(iter([*written, *chunks]))
    assert loaded.acls_of(loaded.nodes["/a"]) == ()
    apply_txn(loaded, header, t.CreateTxn("/c", b"", OPEN_ACL_UNSAFE * 3, False, 3))
    assert loaded.acls_of(loaded.nodes["/a"]) == ()
    apply_txn(loaded, header, first)
    apply_txn(loaded, header, second)
    assert loaded.acls_of(loaded.nodes["/a"]) == OPEN_ACL_UNSAFE
    assert loaded.acls_of(loaded.nodes["/b"]) == READ_ACL_UNSAFE * 2
    assert loaded.acls_of(loaded.nodes["/c"]) == OPEN_ACL_UNSAFE * 3
    check_inner_consistency(loaded)


# ---------------------------------------------------------------------- hostile bytes


@given(rngs, st.integers(0, 10), st.data())
def test_damage_is_an_error_or_a_tree(rng: Random, count: int, data: st.DataObject) -> None:
    good = b"".join(serialize_tree(grown(rng, count)))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    try:
        tree = load(chunks_of(bytes(bad), rng), 4096)
    except DecodeError:
        return
    assert tree.nodes["/"] is tree.nodes[""]
    b"".join(serialize_tree(tree))


@pytest.mark.seeds(3)
def test_each_truncation_is_noticed(seed: int) -> None:
    data = b"".join(serialize_tree(grown(Random(seed), 10)))
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            load(iter([data[: size // 2], data[size // 2 : size]]))


@given(st.binary(max_size=200), rngs)
def test_any_bytes(data: bytes, rng: Random) -> None:
    try:
        load(chunks_of(data, rng))
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "start",
    [
        struct.pack(">i", 0x7FFFFFFF),
        struct.pack(">ii", 0, 0x7FFFFFFF),
        struct.pack(">iiqi", 0, 1, 5, 0x7FFFFFFF),
        struct.pack(">iiqiii", 0, 1, 5, 1, 31, 0x7FFFFFFF),
        struct.pack(">iii", 0, 0, 0x7FFFFFFF),
        struct.pack(">iiii", 0, 0, 0, 0x7FFFFFFF),
        struct.pack(">iii", 0, 0, -1),
        struct.pack(">iiii", 0, 0, 0, -2),
    ],
)
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x01"])
def test_hostile_lengths_do_not_read_everything(start: bytes, fill: bytes) -> None:
    size = 1000
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield start
        while taken < 300:
            taken += 1
            yield fill * size

    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            load(chunks(), 5000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if start != struct.pack(">i", 0x7FFFFFFF):
        assert taken < 20 or taken == 300
    assert peak < 60 * 300 * size


def test_a_buffer_of_the_input() -> None:
    def source(data: bytes) -> SnapshotInput:
        return SnapshotInput(iter([data[:3], data[3:]]))

    assert source(b"\xff\xff\xff\xff").take_buffer(10) is None
    assert source(b"\0\0\0\x02ab").take_buffer(10) == b"ab"
    assert source(b"\0\0\0\x00").take_buffer(10) == b""
    for bad in (b"\xff\xff\xff\xfe", b"\0\0\0\x0b" + bytes(11), b"\0\0\0\x02a"):
        with pytest.raises(DecodeError):
            source(bad).take_buffer(10)
