"""Directories written by Apache ZooKeeper load to what they held, and are written back the same."""

from __future__ import annotations

import pytest
from tests.datatree.tree_compare import check_inner_consistency, content
from tests.persistence.data_dir import (
    DIRECTORY,
    disk_with,
    golden,
    golden_files,
    log_file,
    store_on,
)

from zkpy.datatree.node import NODE_STAT
from zkpy.datatree.tree import CONFIG_NODE, DataTree
from zkpy.persistence.logreader import FileReader
from zkpy.persistence.store import LoadedDatabase
from zkpy.protocol.acl import ACL
from zkpy.protocol.txns import decode_txn, encode_txn

STANDALONE = ["standalone-380", "standalone-395", "standalone-395-gz", "standalone-395-snappy"]
# zxid, snapshot it starts from, number of nodes (the root once)
DIRECTORIES = {
    "standalone-380": (0x21, 0x1E, 18),
    "standalone-395": (0x21, 0x1E, 18),
    "standalone-395-gz": (0x1E, 0x1E, 17),
    "standalone-395-snappy": (0x1E, 0x1E, 17),
    "odd/snapshot-digest-off": (0, 0, 4),
    "odd/legacy-records": (6, 0, 5),
    "ensemble-395-reconfig/server1": (0x10000000C, 0x10000000C, 7),
    "ensemble-395-reconfig/server3": (0x10000000C, 0, 7),
    "ensemble-395-reconfig/server4": (0x10000000C, 0x100000000, 7),
    "trunc-395/before": (0x100000005, 0, 8),
    "trunc-395/after": (0x100000005, 0x100000004, 7),
}
PATHS_AT_1E = {
    "", "/a", "/a/c", "/a/s-0000000001", "/e", "/cont", "/ttl", "/m2", "/ü€", "/last", "/live-eph",
    "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits", "/zookeeper/quota/a/zookeeper_stats",
}  # fmt: skip


def load(files: dict[str, bytes]) -> LoadedDatabase:
    store = store_on(disk_with(files))
    loaded = store.restore()
    store.close()
    return loaded


def without_later_snapshots(files: dict[str, bytes]) -> dict[str, bytes]:
    names = [name for name in files if name.startswith("snapshot.")]
    oldest = min(names, key=lambda name: int(name.split(".")[1], 16))
    return {name: data for name, data in files.items() if name not in names or name == oldest}


def nodes_of(tree: DataTree) -> dict[str, object]:
    return {path: value for path, value in content(tree).items() if path != "/"}


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_a_directory_loads_with_its_digests(folder: str) -> None:
    zxid, snapshot_zxid, nodes = DIRECTORIES[folder]
    loaded = load(golden_files(folder))
    assert (loaded.last_zxid, loaded.snapshot_zxid) == (zxid, snapshot_zxid)
    assert len(nodes_of(loaded.tree)) == nodes
    assert loaded.digest_mismatches == 0
    check_inner_consistency(loaded.tree)


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_the_oldest_snapshot_and_the_log_give_the_same(folder: str) -> None:
    files = golden_files(folder)
    loaded = load(files)
    replayed = load(without_later_snapshots(files))
    assert replayed.digest_mismatches == 0
    nodes = [nodes_of(each.tree) for each in (loaded, replayed)]
    for each in nodes:
        del each[CONFIG_NODE]  # members overwrite it in memory, and snapshots show that
    assert nodes[0] == nodes[1]
    assert replayed.tree.sessions == loaded.tree.sessions
    assert replayed.last_zxid == loaded.last_zxid


@pytest.mark.parametrize("folder", STANDALONE)
def test_what_the_workload_left(folder: str) -> None:
    files = {name: data for name, data in golden_files(folder).items() if name != "log.1f"}
    tree = load(files).tree
    assert set(nodes_of(tree)) == PATHS_AT_1E
    assert sorted(tree.sessions.values()) == [25000, 30000]
    assert tree.nodes["/a"].data == b"quota counted"
    assert tree.nodes["/"].data == b"rootdata"
    assert tree.nodes["/e"].data == b""
    joe, world = tree.acls_of(tree.nodes["/a/c"])
    assert (joe.scheme, joe.perms) == ("digest", 31)
    assert world == ACL(1, "world", "anyone")
    assert set(tree.containers) == {"/cont"}
    assert set(tree.ttls) == {"/ttl"}
    (owner,) = tree.ephemerals
    assert tree.sessions[owner] == 25000
    # setData three times and one in the multi
    assert NODE_STAT.unpack(tree.nodes["/a"].stat)[5] == 4


@pytest.mark.parametrize("folder", DIRECTORIES)
def test_a_snapshot_written_back_loads_the_same(folder: str) -> None:
    loaded = load(golden_files(folder))
    for method in ("", "gz", "snappy"):
        disk = disk_with({})
        store = store_on(disk, compression_method=method)
        store.save(loaded.tree)
        again = store.restore()
        assert nodes_of(again.tree) == nodes_of(loaded.tree)
        assert again.tree.sessions == loaded.tree.sessions
        assert again.last_zxid == loaded.last_zxid
        assert (again.tree.digest, again.digest_mismatches) == (loaded.tree.digest, 0)


@pytest.mark.parametrize("name", ["standalone-395", "standalone-395-snappy"])
def test_the_snapshot_of_an_empty_tree_is_the_same_to_the_byte(name: str) -> None:
    method = name.partition("395")[2].strip("-")
    disk = disk_with({})
    store = store_on(disk, compression_method=method)
    assert store.restore().last_zxid == 0
    if method != "snappy":
        assert disk.read(f"{DIRECTORY}/snapshot.0") == golden(f"{name}/version-2/snapshot.0")
    plain = golden("standalone-395/version-2/snapshot.0")
    suffix = f".{method}" if method else ""
    assert b"".join(store.snap.chunks_of(f"{DIRECTORY}/snapshot.0{suffix}")) == plain


def test_without_the_zxid_section_it_is_that_of_380() -> None:
    disk = disk_with({})
    store_on(disk, serialize_last_processed_zxid=False).restore()
    expected = golden("standalone-380/version-2/snapshot.0")
    assert disk.read(f"{DIRECTORY}/snapshot.0") == expected


def test_without_digests_it_is_that_of_395_without() -> None:
    disk = disk_with({})
    store_on(disk, digest_enabled=False).restore()
    expected = golden("odd/snapshot-digest-off/snapshot.0")
    assert disk.read(f"{DIRECTORY}/snapshot.0") == expected


@pytest.mark.parametrize(
    "path",
    [
        "standalone-380/version-2/log.1",
        "standalone-395/version-2/log.1",
        "standalone-395/version-2/log.1f",
        "ensemble-395-reconfig/server1/version-2/log.100000001",
        "odd/legacy-records/log.1",
    ],
)
def test_logged_again_a_log_has_the_same_bytes(path: str) -> None:
    captured = golden(path)
    disk = disk_with({"log.1": captured})
    reader = FileReader(disk, f"{DIRECTORY}/log.1", 1 << 20, True)
    records = list(reader.records())
    assert log_file(*(txn for _, txn in records)) == captured[: reader.offset]

    empty = disk_with({})
    log = store_on(empty).log
    for zxid, txn in records:
        log.append(zxid, txn)
        if zxid % 3 == 0:
            log.commit()
    log.close()
    written = empty.read(f"{DIRECTORY}/log.{records[0][0]:x}")
    assert written[: reader.offset] == captured[: reader.offset]
    assert not any(written[reader.offset :])


def test_every_captured_txn_is_encoded_the_same() -> None:
    for folder in DIRECTORIES.keys() - {"odd/legacy-records"}:  # there are old forms
        for name, data in golden_files(folder).items():
            if not name.startswith("log."):
                continue
            disk = disk_with({name: data})
            for _, txn in FileReader(disk, f"{DIRECTORY}/{name}", 1 << 20, True).records():
                assert encode_txn(*decode_txn(txn)) == txn
