"""Fuzzy snapshots and the log over them give the live tree; digests tell where they do not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datatree.tree_compare import check_inner_consistency, content
from tests.datatree.txn_source import TxnSource
from tests.persistence.data_dir import (
    DIRECTORY,
    apply_bytes,
    create,
    disk_with,
    golden_files,
    log_file,
    set_data,
    store_on,
    with_digest,
)

from zkpy.datatree import serialize
from zkpy.datatree.node import NODE_STAT
from zkpy.datatree.serialize import serialize_tree
from zkpy.datatree.tree import DataTree
from zkpy.persistence.replay import DigestCheck
from zkpy.persistence.snapshot import SnapshotDigest
from zkpy.persistence.store import LoadedDatabase
from zkpy.protocol.txns import DeleteTxn, TxnDigest, TxnHeader, encode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.testing.disk import SimulatedDisk


class Consecutive(TxnSource):
    """Zxids without holes: these are logged."""

    def next(self) -> Any:
        before = self.zxid
        header, record = super().next()
        self.zxid = header.zxid = before + 1
        return header, record


def nodes_without_usage(tree: DataTree) -> dict[str, Any]:
    found: dict[str, Any] = dict(content(tree))
    for path in found:
        if path.endswith("/zookeeper_stats"):
            found[path] = found[path][1:]  # usage is counted anew at a load
    return found


def check_same(loaded: LoadedDatabase, tree: DataTree) -> None:
    assert nodes_without_usage(loaded.tree) == nodes_without_usage(tree)
    assert loaded.tree.sessions == tree.sessions
    assert loaded.tree.digest == tree.digest
    assert loaded.last_zxid == tree.last_processed_zxid
    assert loaded.digest_mismatches == 0
    check_inner_consistency(loaded.tree)


@given(st.integers(0, 1 << 32).map(Random), st.integers(0, 20), st.integers(0, 20))
def test_txns_between_the_slices_of_a_snapshot(rng: Random, before: int, after: int) -> None:
    disk = SimulatedDisk()
    store = store_on(disk)
    tree = store.restore().tree
    source = Consecutive(rng, tree)

    def step() -> None:
        header, record = source.next()
        store.log.append(header.zxid, with_digest(tree, header, record))
        if rng.random() < 0.1:
            store.log.roll()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialize, "SLICE_NODES", 1)
        for _ in range(before):
            step()
        writer = store.snap.writer(tree)
        for data in serialize_tree(tree):
            writer.feed(data)
            for _ in range(rng.choice([0, 0, 1, 3])):
                step()
        store.snap.finish(writer, tree)
        writer.commit()
        start = writer.zxid
        for _ in range(after):
            step()
    store.close()
    loaded = store_on(disk).restore()
    assert loaded.snapshot_zxid == start
    check_same(loaded, tree)


def test_a_digest_that_differs_is_counted_and_no_reason_to_stop() -> None:
    files = golden_files("standalone-395")
    disk = disk_with({})
    tree = store_on(disk_with({"snapshot.1e": files["snapshot.1e"]})).restore().tree
    tree.nodes["/"].data = b"other"
    store_on(disk).save(tree)
    disk.put(f"{DIRECTORY}/log.1f", files["log.1f"])
    loaded = store_on_again(disk)
    assert loaded.last_zxid == 0x21
    assert loaded.digest_mismatches == 3
    disk.remove(f"{DIRECTORY}/log.1f")
    assert store_on_again(disk).digest_mismatches == 1


def store_on_again(disk: SimulatedDisk) -> LoadedDatabase:
    disk.restart()
    return store_on(disk).restore()


# ---------------------------------------------------------------------- when digests are compared


def check_of(section: SnapshotDigest | None, snapshot_zxid: int) -> tuple[DigestCheck, DataTree]:
    tree = DataTree()
    tree.digest = 7
    return DigestCheck(tree, snapshot_zxid, section), tree


def test_no_section_or_an_old_one_compares_each_txn() -> None:
    for section in (None, SnapshotDigest(0, 2, 0), SnapshotDigest(4, 2, 99)):
        check, _ = check_of(section, 5)
        check.applied(6, TxnDigest(2, 7))
        check.applied(7, TxnDigest(2, 8))
        check.applied(8, None)
        check.applied(9, TxnDigest(1, 8))
        check.finish()
        assert check.mismatches == 1


def test_a_section_of_the_snapshots_zxid_is_compared_at_once() -> None:
    check, _ = check_of(SnapshotDigest(5, 2, 7), 5)
    check.finish()
    assert check.mismatches == 0
    check, _ = check_of(SnapshotDigest(5, 2, 8), 5)
    check.finish()
    assert check.mismatches == 1
    check, _ = check_of(SnapshotDigest(5, 3, 8), 5)
    check.finish()
    assert check.mismatches == 0


def test_a_section_may_lag_the_nodes_by_one_txn() -> None:
    check, _ = check_of(SnapshotDigest(5, 2, 8), 5)
    check.applied(6, TxnDigest(2, 7))
    check.finish()
    assert check.mismatches == 0


def test_a_fuzzy_snapshot_is_compared_from_its_section_on() -> None:
    check, tree = check_of(SnapshotDigest(8, 2, 7), 5)
    tree.digest = 1
    check.applied(6, TxnDigest(2, 50))
    check.applied(7, TxnDigest(2, 51))
    assert check.mismatches == 0
    tree.digest = 7
    check.applied(8, TxnDigest(2, 52))
    check.applied(9, TxnDigest(2, 7))
    check.applied(10, TxnDigest(2, 8))
    check.finish()
    assert check.mismatches == 1


def test_a_section_that_is_never_reached_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check, _ = check_of(SnapshotDigest(8, 2, 7), 5)
    check.applied(6, TxnDigest(2, 50))
    check.finish()
    assert check.mismatches == 0
    assert "content reaches zxid 0x8" in caplog.text


# ---------------------------------------------------------------------- known traps


def replayed(snapshot_of: DataTree, name_zxid: int, *txns: bytes) -> DataTree:
    """Load a snapshot that says `name_zxid` but shows `snapshot_of`, and replay `txns`."""
    disk = disk_with({})
    store = store_on(disk)
    snapshot_zxid = snapshot_of.last_processed_zxid
    snapshot_of.last_processed_zxid = name_zxid
    writer = store.snap.writer(snapshot_of)
    snapshot_of.last_processed_zxid = snapshot_zxid
    for data in serialize_tree(snapshot_of):
        writer.feed(data)
    writer.finish()
    writer.commit()
    if txns:
        disk.put(f"{DIRECTORY}/log.{name_zxid + 1:x}", log_file(*txns))
    return store.restore().tree


def delete(zxid: int, path: str) -> bytes:
    header = TxnHeader(1, zxid, zxid, 1_700_000_000_000, OpCode.DELETE)
    return encode_txn(header, DeleteTxn(path), None)


def tree_after(*txns: bytes) -> DataTree:
    tree = DataTree(extended_types=True)
    for txn in txns:
        apply_bytes(tree, txn)
    return tree


def test_a_sequential_name_is_not_given_twice() -> None:
    # ZOOKEEPER-1046: created and deleted while the snapshot ran.
    txns = [create(1, "/p"), create(2, "/p/s-0", cversion=1), delete(3, "/p/s-0")]
    live = tree_after(*txns)
    for shown in range(1, 4):
        tree = replayed(tree_after(*txns[:shown]), 1, *txns[1:])
        assert content(tree) == content(live)
        assert NODE_STAT.unpack(tree.nodes["/p"].stat)[6] == 1


def test_pzxid_of_a_parent_whose_child_is_gone_already() -> None:
    # ZOOKEEPER-3125, -3145
    txns = [create(1, "/p"), create(2, "/p/c"), delete(3, "/p/c")]
    live = tree_after(*txns)
    tree = replayed(live, 2, *txns[2:])
    assert NODE_STAT.unpack(tree.nodes["/p"].stat)[2] == 3
    assert content(tree) == content(live)


def test_a_child_of_a_parent_that_a_later_txn_deleted() -> None:
    # ZOOKEEPER-1573
    txns = [create(1, "/p"), create(2, "/p/c"), delete(3, "/p/c"), delete(4, "/p"), set_data(5)]
    live = tree_after(*txns)
    assert content(replayed(live, 1, *txns[1:])) == content(live)


def test_values_do_not_go_back() -> None:
    txns = [create(zxid, f"/n{zxid}", cversion=zxid) for zxid in range(1, 6)]
    live = tree_after(*txns)
    tree = replayed(live, 2, *txns[2:])
    assert content(tree) == content(live)
