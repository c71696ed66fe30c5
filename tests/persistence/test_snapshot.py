"""FileSnap: which files are taken for snapshots, what makes one invalid, what a writer leaves."""

from __future__ import annotations

from zlib import adler32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.persistence.data_dir import (
    DIRECTORY,
    apply_bytes,
    create,
    disk_with,
    golden,
    golden_files,
)

from zkpy.datatree.serialize import serialize_tree
from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import CorruptFile, DiskWriteError
from zkpy.persistence.files import snapshot_zxid
from zkpy.persistence.snapshot import FileSnap, SnapshotDigest, SnapshotWriter
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

SNAPSHOT_1E = golden("standalone-395/version-2/snapshot.1e")
SNAPSHOT_0 = golden("standalone-395/version-2/snapshot.0")


def new_tree() -> DataTree:
    return DataTree(extended_types=True)


def tree_with(*paths: str) -> DataTree:
    tree = new_tree()
    for number, path in enumerate(paths, 1):
        apply_bytes(tree, create(number, path))
    return tree


def newest(files: dict[str, bytes]) -> tuple[int, str] | None:
    loaded = FileSnap(disk_with(files), DIRECTORY).load_newest(new_tree)
    return None if loaded is None else (loaded.zxid, loaded.name)


# ---------------------------------------------------------------------- names and fallback


@pytest.mark.parametrize(
    ("name", "zxid"),
    [
        ("snapshot.0", 0),
        ("snapshot.1e", 0x1E),
        ("snapshot.1e.gz", 0x1E),
        ("snapshot.100000000.snappy", 1 << 32),
        ("snapshot.1E", None),
        ("snapshot.01", None),
        ("snapshot.0x1", None),
        ("snapshot.1_0", None),
        ("snapshot.-1", None),
        ("snapshot.", None),
        ("snapshot", None),
        ("snapshot.5.tmp", None),
        ("snapshot.5.gz.bak", None),
        ("snapshot.ffffffffffffffff", None),
        ("zkpy-tmp.snapshot.5", None),
        ("log.5", None),
    ],
)
def test_names(name: str, zxid: int | None) -> None:
    assert snapshot_zxid(name) == zxid


def test_the_newest_that_loads_is_taken() -> None:
    damaged = SNAPSHOT_1E[:200] + b"!" + SNAPSHOT_1E[201:]
    assert newest({}) is None
    assert newest({"snapshot.1e": SNAPSHOT_1E, "snapshot.0": SNAPSHOT_0}) == (0x1E, "snapshot.1e")
    assert newest({"snapshot.1e": damaged, "snapshot.0": SNAPSHOT_0}) == (0, "snapshot.0")
    # By zxid, not by name; and what does not look complete is not tried.
    assert newest({"snapshot.9": SNAPSHOT_0, "snapshot.1e": SNAPSHOT_1E}) == (0x1E, "snapshot.1e")
    assert newest({"snapshot.9": SNAPSHOT_0, "snapshot.1e": SNAPSHOT_1E[:-1]}) == (9, "snapshot.9")
    assert newest({"snapshot.1e": b"", "snapshot.1f.gz": b"", "snapshot.20.snappy": b"x"}) is None
    with pytest.raises(CorruptFile, match="Not able to find valid snapshots"):
        newest({"snapshot.1e": damaged, "snapshot.5": damaged})


def test_an_attempt_that_fails_leaves_nothing_in_the_next_tree() -> None:
    # All of it is read before the last seal turns out wrong.
    damaged = SNAPSHOT_1E[:-6] + b"\xff" + SNAPSHOT_1E[-5:]
    files = {"snapshot.1f": damaged, "snapshot.0": SNAPSHOT_0}
    loaded = FileSnap(disk_with(files), DIRECTORY).load_newest(new_tree)
    assert loaded is not None
    assert loaded.tree.sessions == {}
    assert set(loaded.tree.nodes) == set(DataTree().nodes)
    assert loaded.tree.ephemerals == {}


def test_no_more_than_a_hundred_are_tried() -> None:
    damaged = SNAPSHOT_0[:50] + b"!" + SNAPSHOT_0[51:]
    files = {f"snapshot.{zxid:x}": damaged for zxid in range(1, 101)}
    with pytest.raises(CorruptFile, match="tried 100"):
        newest({**files, "snapshot.0": SNAPSHOT_0})
    files.popitem()
    assert newest({**files, "snapshot.0": SNAPSHOT_0}) == (0, "snapshot.0")


# ---------------------------------------------------------------------- sections and damage


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("zxid_section", [True, False])
def test_each_form_of_the_tail_is_read_whatever_the_settings(
    digest: bool, zxid_section: bool
) -> None:
    disk = disk_with({})
    tree = tree_with("/a", "/b")
    FileSnap(
        disk, DIRECTORY, digest_enabled=digest, serialize_last_processed_zxid=zxid_section
    ).save(tree)
    tree_bytes = 16 + sum(map(len, serialize_tree(tree)))
    tail = disk.size(f"{DIRECTORY}/snapshot.2") - tree_bytes - 13
    assert tail == 33 * digest + 21 * zxid_section
    loaded = FileSnap(disk, DIRECTORY).load_newest(new_tree)
    assert loaded is not None
    assert loaded.digest == (SnapshotDigest(2, 2, tree.digest) if digest else None)
    assert loaded.last_processed_zxid == (2 if zxid_section else None)
    assert loaded.tree.digest == tree.digest


def test_a_digest_of_the_first_version_is_passed_over() -> None:
    body = SNAPSHOT_0[:0x1A8] + bytes(8) + b"\0\0\0\1" + b"\0\0\0\4beef"
    body += adler32(body).to_bytes(8, "big") + b"\0\0\0\1/"
    loaded = FileSnap(disk_with({"snapshot.0": body}), DIRECTORY).load_newest(new_tree)
    assert loaded is not None
    assert loaded.digest == SnapshotDigest(0, 1, 0)


@pytest.mark.parametrize("name", ["snapshot.0", "snapshot.1e"])
def test_cut_at_each_byte_it_is_invalid_or_complete(name: str) -> None:
    whole = golden(f"standalone-395/version-2/{name}")
    ends = {len(whole) - 54: None, len(whole) - 21: None}  # the older forms
    for size in range(len(whole)):
        disk = disk_with({name: whole[:size]})
        snap = FileSnap(disk, DIRECTORY)
        try:
            snap.load(0, name, new_tree())
        except CorruptFile as error:
            assert error.path == f"{DIRECTORY}/{name}"
            assert error.offset is not None
            assert error.offset <= size
            assert size not in ends
            # Of all these only a few look complete before they are read.
            if size < len(whole) - 60:
                looks_complete = bool(snap.find_valid())
                assert not looks_complete or whole[:size].endswith(b"\0\0\0\1/")
        else:
            assert size in ends


def test_each_byte_flipped_it_is_invalid() -> None:
    for offset in range(len(SNAPSHOT_1E)):
        damaged = bytearray(SNAPSHOT_1E)
        damaged[offset] ^= 0x41
        snap = FileSnap(disk_with({"snapshot.1e": bytes(damaged)}), DIRECTORY)
        with pytest.raises(CorruptFile):
            snap.load(0x1E, "snapshot.1e", new_tree())


def test_bytes_behind_the_last_seal_are_damage() -> None:
    for extra in (1, 8, 13, 21, 40):
        snap = FileSnap(disk_with({"snapshot.0": SNAPSHOT_0 + bytes(extra)}), DIRECTORY)
        with pytest.raises(CorruptFile):
            snap.load(0, "snapshot.0", new_tree())


def test_a_compressed_file_with_a_bad_trailer_is_damage() -> None:
    packed = golden("standalone-395-gz/version-2/snapshot.1e.gz")
    packed = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    snap = FileSnap(disk_with({"snapshot.1e.gz": packed}), DIRECTORY)
    with pytest.raises(CorruptFile, match="gzip"):
        snap.load(0x1E, "snapshot.1e.gz", new_tree())


@given(st.binary(max_size=200), st.integers(0, 470))
def test_any_bytes_are_a_snapshot_or_damage(junk: bytes, offset: int) -> None:
    data = SNAPSHOT_0[:offset] + junk + b"\0\0\0\1/"
    snap = FileSnap(disk_with({"snapshot.0": data}), DIRECTORY)
    try:
        snap.load(0, "snapshot.0", new_tree())
    except CorruptFile:
        return
    # Ends behind an earlier seal: an older form.
    assert SNAPSHOT_0.startswith(data)


# ---------------------------------------------------------------------- writing


def fed_writer(disk: SimulatedDisk, tree: DataTree) -> tuple[FileSnap, SnapshotWriter]:
    snap = FileSnap(disk, DIRECTORY)
    writer = snap.writer(tree)
    for data in serialize_tree(tree):
        writer.feed(data)
    snap.finish(writer, tree)
    return snap, writer


def test_computing_writes_nothing_and_the_name_comes_last() -> None:
    disk = disk_with({})
    tree = tree_with("/a", "/b")
    operations: list[tuple[str, str]] = []
    disk.before = lambda kind, path: operations.append((kind, path.rpartition("/")[2]))
    snap, writer = fed_writer(disk, tree)
    assert operations == []
    writer.commit()
    temporary = "zkpy-tmp.snapshot.2"
    assert operations == [
        (faults.CREATE, temporary),
        (faults.WRITE, temporary),
        (faults.SYNC, temporary),
        (faults.RENAME, "snapshot.2"),
        (faults.SYNC_DIR, "version-2"),
    ]
    assert writer.size_bytes == disk.size(writer.path)
    assert writer.pending_bytes == 0
    assert snap.find_valid() == [(2, "snapshot.2")]


@pytest.mark.parametrize("method", ["", "gz", "snappy"])
def test_written_in_parts_it_is_the_same(method: str) -> None:
    tree = tree_with(*(f"/n{number:03}" for number in range(300)))
    contents = []
    for write_at in (1, 10_000, 1 << 30):
        disk = disk_with({})
        snap = FileSnap(disk, DIRECTORY, compression_method=method)
        writer = snap.writer(tree)
        for data in serialize_tree(tree):
            writer.feed(data)
            if writer.pending_bytes > write_at:
                writer.write()
                assert writer.pending_bytes == 0
        snap.finish(writer, tree)
        writer.commit()
        contents.append(b"".join(snap.chunks_of(writer.path)))
    assert contents[0] == contents[1] == contents[2]


def test_an_older_snapshot_of_the_same_zxid_is_replaced() -> None:
    disk = disk_with({"snapshot.0": b"half of one"})
    FileSnap(disk, DIRECTORY).save(new_tree())
    assert disk.read(f"{DIRECTORY}/snapshot.0") == SNAPSHOT_0


@pytest.mark.parametrize(
    "kind", [faults.CREATE, faults.WRITE, faults.SYNC, faults.RENAME, faults.SYNC_DIR]
)
def test_what_fails_leaves_no_half_file(kind: str) -> None:
    disk = disk_with({})
    disk.fail(kind)
    with pytest.raises(DiskWriteError):
        FileSnap(disk, DIRECTORY).save(tree_with("/a"))
    assert disk.list_dir(DIRECTORY) == (["snapshot.1"] if kind == faults.SYNC_DIR else [])


@pytest.mark.parametrize("written", [False, True])
def test_abort_leaves_nothing_and_ends_it(written: bool) -> None:
    disk = disk_with({})
    _, writer = fed_writer(disk, tree_with("/a"))
    if written:
        writer.write()
    writer.abort()
    writer.abort()
    assert disk.list_dir(DIRECTORY) == []
    # The other thread may still have work for it in its queue.
    writer.write()
    writer.commit()
    assert disk.list_dir(DIRECTORY) == []


def test_abort_after_commit_is_too_late() -> None:
    disk = disk_with({})
    _, writer = fed_writer(disk, tree_with("/a"))
    writer.commit()
    writer.abort()
    assert disk.list_dir(DIRECTORY) == ["snapshot.1"]


def test_abort_while_it_is_written_is_done_by_the_writing_thread() -> None:
    disk = disk_with({})
    _, writer = fed_writer(disk, tree_with("/a"))

    def abort(kind: str, path: str) -> None:
        if kind == faults.WRITE:
            writer.abort()

    disk.before = abort
    writer.write()
    assert disk.list_dir(DIRECTORY) == []


def test_remove_newer() -> None:
    files = {f"snapshot.{zxid}": SNAPSHOT_0 for zxid in (1, 2, 3)}
    disk = disk_with({**files, "snapshot.4": b"torn", **golden_files("odd/legacy-records")})
    snap = FileSnap(disk, DIRECTORY)
    loaded = snap.load_newest(new_tree, lambda zxid: zxid <= 2)
    assert loaded is not None
    assert loaded.name == "snapshot.2"
    snap.remove_newer(loaded)
    assert disk.list_dir(DIRECTORY) == ["log.1", "snapshot.0", "snapshot.1", "snapshot.2"]
