"""SimulatedDisk: what a crash keeps and what it may lose, and the failures on demand."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from zkpy.persistence.errors import DirectoryInUse, DiskReadError, DiskWriteError
from zkpy.testing import disk as kinds
from zkpy.testing.disk import SECTOR_BYTES, SimulatedDisk


def after_crashes(
    prepare: Callable[[SimulatedDisk], object],
    path: str = "/d/file",
    *,
    torn_in_sectors: bool = False,
) -> set[bytes | None]:
    """What may be in a file after a crash; None if it may be gone."""
    found: set[bytes | None] = set()
    for seed in range(200):
        disk = SimulatedDisk()
        disk.make_dirs("/d")
        prepare(disk)
        disk.crash(Random(seed), torn_in_sectors=torn_in_sectors)
        found.add(disk.read(path) if disk.exists(path) else None)
    return found


def durable(disk: SimulatedDisk, data: bytes) -> None:
    file = disk.create("/d/file")
    file.write(data, 0)
    file.fdatasync()
    file.close()
    disk.fsync_dir("/d")


def test_what_is_synced_stays() -> None:
    assert after_crashes(lambda disk: durable(disk, b"abc")) == {b"abc"}


def test_what_is_not_synced_may_be_lost_or_torn() -> None:
    def prepare(disk: SimulatedDisk) -> None:
        durable(disk, b"----")
        file = disk.open("/d/file")
        file.write(b"ab", 0)
        file.write(b"cd", 2)
        assert disk.read("/d/file") == b"abcd"

    found = after_crashes(prepare)
    assert {b"----", b"abcd", b"ab--", b"--cd", b"a---", b"--c-"} <= found
    assert b"a-cd" in found
    assert None not in found
    assert b"-b--" not in found


def test_a_write_may_lose_sectors_from_its_middle() -> None:
    def prepare(disk: SimulatedDisk) -> None:
        durable(disk, b"-" * 4 * SECTOR_BYTES)
        disk.open("/d/file").write(b"x" * 3 * SECTOR_BYTES, SECTOR_BYTES // 2)

    found = after_crashes(prepare, torn_in_sectors=True)
    half = SECTOR_BYTES // 2
    parts = b"-" * half, b"x" * half
    hole = parts[0] + parts[1] + b"-" * SECTOR_BYTES + b"x" * SECTOR_BYTES + parts[1] + parts[0]
    assert hole in found


def test_directory_entries_need_a_sync_of_their_own() -> None:
    def create(disk: SimulatedDisk) -> None:
        file = disk.create("/d/file")
        file.write(b"abc", 0)
        file.fdatasync()

    assert after_crashes(create) == {b"abc", None}

    def rename(disk: SimulatedDisk) -> None:
        durable(disk, b"old")
        file = disk.create("/d/new")
        file.write(b"new", 0)
        file.fdatasync()
        disk.rename("/d/new", "/d/file")

    assert after_crashes(rename) == {b"old", b"new"}

    def remove(disk: SimulatedDisk) -> None:
        durable(disk, b"old")
        disk.remove("/d/file")

    assert after_crashes(remove) == {b"old", None}

    def remove_for_good(disk: SimulatedDisk) -> None:
        remove(disk)
        disk.fsync_dir("/d")

    assert after_crashes(remove_for_good) == {None}


def test_truncation_needs_a_sync() -> None:
    def cut(disk: SimulatedDisk) -> None:
        durable(disk, b"abc")
        disk.open("/d/file").truncate(1)

    def create_again(disk: SimulatedDisk) -> None:
        durable(disk, b"abc")
        disk.create("/d/file")

    assert after_crashes(cut) == {b"abc", b"a"}
    assert after_crashes(create_again) == {b"abc", b""}


def test_a_sync_after_one_that_failed_is_a_lie() -> None:
    def prepare(disk: SimulatedDisk) -> None:
        durable(disk, b"----")
        file = disk.open("/d/file")
        file.write(b"ab", 0)
        disk.fail(kinds.SYNC, times=1)
        with pytest.raises(DiskWriteError):
            file.fdatasync()
        file.write(b"d", 3)
        file.fdatasync()
        assert disk.read("/d/file") == b"ab-d"

    assert after_crashes(prepare) == {b"---d"}


def test_settle_shows_what_a_failed_sync_dropped() -> None:
    disk = SimulatedDisk()
    disk.make_dirs("/d")
    durable(disk, b"----")
    file = disk.open("/d/file")
    file.write(b"ab", 0)
    disk.fail(kinds.SYNC, times=1)
    with pytest.raises(DiskWriteError):
        file.fdatasync()
    file.write(b"d", 3)
    assert disk.read("/d/file") == b"ab-d"
    disk.settle("/d/file")
    assert disk.read("/d/file") == b"---d"


def test_the_end_of_the_process_loses_nothing_but_the_locks() -> None:
    disk = SimulatedDisk()
    disk.make_dirs("/d")
    file = disk.create("/d/file")
    file.write(b"abc", 0)
    disk.lock("/d/lock")
    with pytest.raises(DirectoryInUse):
        disk.lock("/d/lock")
    disk.restart()
    assert disk.read("/d/file") == b"abc"
    disk.lock("/d/lock").release()
    disk.lock("/d/lock")
    with pytest.raises(AssertionError, match="survive"):
        file.write(b"x", 0)


def test_failures_on_demand() -> None:
    disk = SimulatedDisk(Random(1))
    disk.make_dirs("/d")
    file = disk.create("/d/file")
    disk.fail(kinds.WRITE, "file", after=1, times=1, errno=errno.ENOSPC)
    file.write(b"a", 0)
    with pytest.raises(DiskWriteError, match="/d/file at offset 1: No space left") as error:
        file.write(b"bcd", 1)
    assert error.value.errno == errno.ENOSPC
    assert disk.read("/d/file").startswith(b"a")
    file.write(b"bcd", 1)
    disk.fail(kinds.READ, "file")
    with pytest.raises(DiskReadError):
        disk.read("/d/file")
    assert disk.list_dir("/d") == ["file"]
    disk.restart()
    assert disk.read("/d/file") == b"abcd"


def test_a_full_disk_takes_what_fits() -> None:
    disk = SimulatedDisk()
    disk.make_dirs("/d")
    disk.put("/d/other", bytes(90))
    disk.capacity_bytes = 100
    file = disk.create("/d/file")
    file.write(b"12345678", 0)
    with pytest.raises(DiskWriteError, match="No space left"):
        file.write(b"abcdef", 6)
    assert disk.read("/d/file") == b"123456abcd"
    file.write(b"overwritten"[:10], 0)
    disk.remove("/d/other")
    file.write(b"x", 50)
    assert disk.size("/d/file") == 51


def test_names_that_are_not_there() -> None:
    disk = SimulatedDisk()
    for read in (disk.list_dir, disk.size, disk.read, lambda path: list(disk.read_chunks(path, 1))):
        with pytest.raises(DiskReadError, match="No such file"):
            read("/d/file")
    for write in (disk.create, disk.open, disk.remove, lambda path: disk.rename(path, "/d/x")):
        with pytest.raises(DiskWriteError, match="No such file"):
            write("/d/file")
