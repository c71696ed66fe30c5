"""FileTxnSnapLog: the directories' checks, the decisions at a start, going back to a zxid."""

from __future__ import annotations

import pytest
from tests.datatree.tree_compare import content
from tests.persistence.data_dir import (
    DATA_DIR,
    DIRECTORY,
    apply_bytes,
    create,
    disk_with,
    golden_files,
    log_file,
    set_data,
    store_on,
)

from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import (
    CorruptFile,
    DatadirError,
    DirectoryInUse,
    NoSnapshot,
    PersistenceError,
    TTLNodesDisabled,
)
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

SNAPSHOT_0 = golden_files("standalone-395")["snapshot.0"]
LOG_DIR = "/log/version-2"


def refused(error: type[PersistenceError], disk: SimulatedDisk, **settings: object) -> str:
    """The stderr line of a start that is refused."""
    with pytest.raises(error) as caught:
        store_on(disk, **settings).restore()
    return caught.value.stderr_line


def names(disk: SimulatedDisk, directory: str = DIRECTORY) -> list[str]:
    return [name for name in disk.list_dir(directory) if name != "zkpy.lock"]


# ---------------------------------------------------------------------- directories


def test_directories_are_created() -> None:
    disk = SimulatedDisk()
    store = store_on(disk, data_dir="/deep/data/", data_log_dir="/deep/log/")
    assert store.restore().last_zxid == 0
    store.log.append(1, set_data(1))
    store.close()
    assert names(disk, "/deep/data/version-2") == ["snapshot.0"]
    assert names(disk, "/deep/log/version-2") == ["log.1"]


def test_directories_are_not_created_against_the_settings() -> None:
    assert refused(DatadirError, SimulatedDisk(), datadir_autocreate=False) == (
        "Unable to access datadir, exiting abnormally: Missing data directory /data/version-2, "
        "automatic data directory creation is disabled (zookeeper.datadir.autocreate is false). "
        "Please create this directory manually."
    )
    disk = disk_with({}, LOG_DIR)
    line = refused(DatadirError, disk, data_log_dir="/log", datadir_autocreate=False)
    assert "Missing snap directory /data/version-2" in line


def test_directories_that_cannot_be_written() -> None:
    disk = disk_with({})
    disk.make_read_only(DIRECTORY)
    line = refused(DatadirError, disk)
    assert line.endswith("exiting abnormally: Cannot write to data directory /data/version-2")
    line = refused(DatadirError, disk, data_log_dir="/log")
    assert line.endswith("Cannot write to snap directory /data/version-2")
    disk = SimulatedDisk()
    disk.fail(faults.CREATE)
    line = refused(DatadirError, disk)
    assert "Unable to create data directory /data/version-2: Input/output error" in line


def test_files_in_the_wrong_directory() -> None:
    disk = disk_with({"snapshot.0": SNAPSHOT_0}, LOG_DIR)
    line = refused(DatadirError, disk, data_log_dir="/log")
    assert (
        "Log directory has snapshot files. Check if dataLogDir and dataDir configuration is "
        "correct." in line
    )
    assert disk.locks == set()
    line = refused(DatadirError, disk_with({"log.1": b""}), data_log_dir="/log")
    assert "Snapshot directory has log files. Check if" in line
    with pytest.raises(DatadirError) as error:
        store_on(disk_with({"log.1": b""}), data_log_dir="/log")
    assert error.value.exit_code == 3


def test_moved_to_a_log_directory_of_their_own_logs_are_found() -> None:
    files = golden_files("standalone-395")
    disk = disk_with({name: data for name, data in files.items() if name.startswith("snap")})
    for name in ("log.1", "log.1f"):
        disk.put(f"{LOG_DIR}/{name}", files[name])
    store = store_on(disk, data_log_dir="/log")
    assert store.restore().last_zxid == 0x21


@pytest.mark.parametrize("data_log_dir", ["", "/log"])
def test_one_server_at_a_time(data_log_dir: str) -> None:
    disk = SimulatedDisk()
    store = store_on(disk, data_log_dir=data_log_dir)
    line = refused(DirectoryInUse, disk, data_log_dir=data_log_dir)
    assert line.endswith(f"{data_log_dir or DATA_DIR}/version-2 is in use by another server")
    line = refused(DirectoryInUse, disk, data_log_dir="/other")
    assert "/data/version-2 is in use by another server" in line
    if data_log_dir:
        assert "/log/version-2" in refused(DirectoryInUse, disk, data_dir="/d", data_log_dir="/log")
    store.close()
    store_on(disk, data_log_dir=data_log_dir).close()
    assert disk.locks == set()


def test_leftovers_of_a_crash_are_removed() -> None:
    disk = disk_with({"zkpy-tmp.log.5": b"x", "zkpy-tmp.snapshot.5": b"y", "snapshot.5.tmp": b"z"})
    store_on(disk)
    assert names(disk) == ["snapshot.5.tmp"]


# ---------------------------------------------------------------------- decisions


def test_logs_without_a_snapshot_are_refused() -> None:
    log = {"log.1": log_file(set_data(1), set_data(2))}
    line = refused(NoSnapshot, disk_with(log))
    assert line.startswith(
        "Unexpected exception, exiting abnormally: No snapshot found, but there are log entries. "
        "Something is broken!"
    )
    assert "up to zxid 0x2" in line
    # A torn snapshot is none.
    refused(NoSnapshot, disk_with({**log, "snapshot.1": SNAPSHOT_0[:-1]}))
    # Logs without a record say nothing.
    assert store_on(disk_with({"log.1": log["log.1"][:16]})).restore().last_zxid == 0


def test_logs_without_a_snapshot_on_the_operators_word() -> None:
    disk = disk_with({"log.1": log_file(set_data(1), set_data(2))})
    loaded = store_on(disk, trust_empty_snapshot=True).restore()
    assert (loaded.last_zxid, loaded.snapshot_zxid, loaded.txns_replayed) == (2, -1, 2)
    assert loaded.snapshot_needed
    assert names(disk) == ["log.1"]
    disk = disk_with({"log.3": log_file(set_data(3))})
    assert "missing: 0x1 to 0x2" in refused(CorruptFile, disk, trust_empty_snapshot=True)


@pytest.mark.parametrize("parent", ["/data", "/log"])
@pytest.mark.parametrize("autocreate", [True, False])
@pytest.mark.parametrize("marked", [True, False])
def test_an_empty_directory(parent: str, autocreate: bool, marked: bool) -> None:
    disk = SimulatedDisk()
    if marked:
        disk.put(f"{parent}/initialize", b"")
    store = store_on(disk, data_log_dir="/log", db_autocreate=autocreate)
    loaded = store.restore()
    assert not disk.exists(f"{parent}/initialize")
    if autocreate or marked:
        assert (loaded.last_zxid, loaded.snapshot_zxid) == (0, 0)
        assert disk.read(f"{DIRECTORY}/snapshot.0") == SNAPSHOT_0
    else:
        # Neither votes nor is voted for: a wiped disk must not elect an empty database.
        assert (loaded.last_zxid, loaded.snapshot_zxid) == (-1, -1)
        assert names(disk) == []
    assert loaded.tree.last_processed_zxid == loaded.last_zxid
    assert not loaded.snapshot_needed


def test_the_marker_is_used_up_even_beside_a_database() -> None:
    disk = disk_with({"snapshot.0": SNAPSHOT_0})
    disk.put(f"{DATA_DIR}/initialize", b"")
    assert store_on(disk).restore().last_zxid == 0
    assert not disk.exists(f"{DATA_DIR}/initialize")


def test_a_snapshot_that_does_not_load_falls_back_if_the_logs_reach_far_enough() -> None:
    files = golden_files("standalone-395")
    damaged = files["snapshot.1e"].replace(b"rootdata", b"rootdatb")
    files["snapshot.1e"] = damaged
    loaded = store_on(disk_with(files)).restore()
    assert (loaded.last_zxid, loaded.snapshot_zxid, loaded.txns_replayed) == (0x21, 0, 33)
    # Where the reference starts without the txns in between.
    del files["log.1"]
    assert "record 0x1f follows 0x0" in refused(CorruptFile, disk_with(files))
    del files["snapshot.0"]
    assert "Not able to find valid snapshots" in refused(CorruptFile, disk_with(files))


def test_ttl_nodes_need_extended_types() -> None:
    line = refused(
        TTLNodesDisabled, disk_with(golden_files("standalone-395")), extended_types_enabled=False
    )
    assert "/data/version-2 has TTL nodes (/ttl), but extendedTypesEnabled is false" in line
    # A session whose id looks like that is one if it is known.
    store = store_on(disk_with({}), extended_types_enabled=False)
    tree = store.restore().tree
    owner = -(1 << 56) + 5
    tree.sessions[owner] = 30000
    tree.create_node("/e", b"", (), owner, 1, 1, 1)
    tree.last_processed_zxid = 1
    store.save(tree)
    assert store.restore().tree.ephemerals == {owner: {"/e": None}}


def test_a_txn_that_cannot_be_applied_says_where() -> None:
    files = {"snapshot.0": SNAPSHOT_0}
    # A multi whose part ends early: found when it is applied.
    multi = set_data(1)[:28] + b"\0\0\0\x0e" + b"\0\0\0\1" + b"\0\0\0\1" + b"\0\0\0\2ab"
    line = refused(CorruptFile, disk_with({**files, "log.1": log_file(multi)}))
    assert "/data/version-2/log.1 at offset 16: " in line
    line = refused(CorruptFile, disk_with({**files, "log.1": log_file(set_data(1)[:40])}))
    assert "/data/version-2/log.1 at offset 16: " in line


def test_a_closed_session_without_paths() -> None:
    files = {**golden_files("standalone-395")}
    files["log.1"] = golden_files("torn")["closesession_digest_only.log.1"]
    del files["log.1f"], files["snapshot.1e"]
    loaded = store_on(disk_with(files)).restore()
    assert loaded.last_zxid == 0x1E
    assert "/a/eph" not in loaded.tree.nodes
    assert loaded.digest_mismatches == 0


def test_settings_may_change_between_starts() -> None:
    disk = SimulatedDisk()
    zxid = 0
    for round_, method in enumerate(["", "gz", "snappy", "", "snappy", "gz"]):
        for digests in (True, False):
            store = store_on(disk, compression_method=method, digest_enabled=digests)
            loaded = store.restore()
            assert loaded.last_zxid == zxid
            assert loaded.digest_mismatches == 0
            for _ in range(5):
                zxid += 1
                txn = create(zxid, f"/n{zxid}")
                store.log.append(zxid, txn)
                apply_bytes(loaded.tree, txn)
            store.log.commit()
            if round_ % 2:
                store.save(loaded.tree)
            store.close()
    assert len(store_on(disk).restore().tree.nodes) == 5 + zxid


def test_each_replayed_txn_can_be_seen() -> None:
    disk = disk_with({"snapshot.0": SNAPSHOT_0, "log.1": log_file(*map(set_data, (1, 2, 3)))})
    seen: list[tuple[int, bytes]] = []
    store_on(disk).restore(lambda header, record, digest, txn: seen.append((header.zxid, txn)))
    assert seen == [(zxid, set_data(zxid)) for zxid in (1, 2, 3)]


def test_the_log_goes_on_behind_what_was_restored() -> None:
    disk = disk_with(golden_files("standalone-395"))
    store = store_on(disk)
    store.restore()
    assert store.log.last_zxid == 0x21
    store.log.append(0x22, set_data(0x22))
    store.close()
    assert names(disk)[:3] == ["log.1", "log.1f", "log.22"]
    assert store_on(disk).restore().last_zxid == 0x22


# ---------------------------------------------------------------------- going back


def grown(snapshots_at: tuple[int, ...], rolls_at: tuple[int, ...], last: int) -> SimulatedDisk:
    disk = SimulatedDisk()
    store = store_on(disk)
    tree = store.restore().tree
    for zxid in range(1, last + 1):
        txn = create(zxid, f"/n{zxid}")
        store.log.append(zxid, txn)
        apply_bytes(tree, txn)
        if zxid in rolls_at:
            store.log.roll()
        if zxid in snapshots_at:
            store.log.commit()
            store.save(tree)
    store.close()
    return disk


def expected_tree(last: int) -> DataTree:
    tree = DataTree()
    for zxid in range(1, last + 1):
        apply_bytes(tree, create(zxid, f"/n{zxid}"))
    return tree


@pytest.mark.parametrize("zxid", range(21))
def test_truncate_to_any_zxid(zxid: int) -> None:
    disk = grown(snapshots_at=(5, 10, 15), rolls_at=(5, 8, 10, 15), last=20)
    store = store_on(disk)
    store.restore()
    loaded = store.truncate(zxid)
    assert loaded is not None
    assert loaded.last_zxid == zxid
    assert content(loaded.tree) == content(expected_tree(zxid))
    assert store.log.last_zxid == zxid
    txn = set_data(zxid + 1)
    store.log.append(zxid + 1, txn)
    store.close()
    again = store_on(disk).restore()
    assert again.last_zxid == zxid + 1
    assert len(again.tree.nodes) == 5 + zxid
    assert all(int(name.split(".")[1], 16) <= zxid + 1 for name in names(disk))


def test_truncate_where_the_history_does_not_reach() -> None:
    disk = grown(snapshots_at=(5, 10), rolls_at=(5, 10), last=12)
    disk.remove(f"{DIRECTORY}/snapshot.0")
    disk.remove(f"{DIRECTORY}/log.1")
    before = names(disk)
    store = store_on(disk)
    store.restore()
    for zxid in (3, 15):
        assert store.truncate(zxid) is None
        assert names(disk) == before
    assert store.restore().last_zxid == 12


def test_truncate_passes_over_snapshots_that_show_more_than_their_name_says() -> None:
    disk = grown(snapshots_at=(5,), rolls_at=(), last=20)
    # One named 10 that was finished at 14, as a fuzzy one.
    store = store_on(disk)
    snap = store.snap
    early, late = expected_tree(10), expected_tree(14)
    writer = snap.writer(early)
    from zkpy.datatree.serialize import serialize_tree

    for data in serialize_tree(late):
        writer.feed(data)
    snap.finish(writer, late)
    writer.commit()
    assert store.restore().snapshot_zxid == 10
    loaded = store.truncate(12)
    assert loaded is not None
    assert loaded.snapshot_zxid == 5
    assert len(loaded.tree.nodes) == 5 + 12
    assert "snapshot.a" not in names(disk)


@pytest.mark.parametrize("stop_at", range(14))
def test_a_truncation_cut_short_leaves_a_directory_that_loads(stop_at: int) -> None:
    disk = grown(snapshots_at=(5, 10, 15), rolls_at=(5, 8, 10, 15), last=20)
    store = store_on(disk)
    left = [stop_at]

    class Stopped(Exception):
        pass

    def before(kind: str, path: str) -> None:
        if kind != faults.READ:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped

    disk.before = before
    try:
        store.truncate(7)
    except Stopped:
        pass
    disk.before = None
    disk.restart()
    loaded = store_on(disk).restore()
    assert 7 <= loaded.last_zxid <= 20
    assert content(loaded.tree) == content(expected_tree(loaded.last_zxid))


def test_open_and_close_are_enough_for_any_settings() -> None:
    store = FileTxnSnapLog(SimulatedDisk(), Settings("/d"))
    store.close()
    assert store.snap_directory == store.log_directory == "/d/version-2"
