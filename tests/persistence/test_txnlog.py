"""FileTxnLog: what is on the disk after which call, and what is refused."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from tests.persistence.data_dir import DIRECTORY, disk_with, log_file, set_data

from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import CorruptFile, DiskWriteError, TruncateError
from zkpy.persistence.logreader import FileReader
from zkpy.persistence.txnlog import FileTxnLog, ZxidOutOfOrder
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk


def new_log(disk: SimulatedDisk, preallocate_bytes: int = 0, **options: bool | int) -> FileTxnLog:
    return FileTxnLog(disk, DIRECTORY, preallocate_bytes=preallocate_bytes, **options)  # type: ignore[arg-type]


def append(log: FileTxnLog, *zxids: int, data: bytes = b"x") -> None:
    for zxid in zxids:
        log.append(zxid, set_data(zxid, data))


def logs(disk: SimulatedDisk) -> list[str]:
    return [name for name in disk.list_dir(DIRECTORY) if name.startswith("log.")]


def zxids(log: FileTxnLog, from_zxid: int = 0) -> list[int]:
    return [header.zxid for header, _, _, _ in log.read(from_zxid)]


def test_nothing_is_written_before_commit() -> None:
    disk = disk_with({})
    log = new_log(disk)
    append(log, 1, 2, 3)
    assert disk.list_dir(DIRECTORY) == []
    assert log.durable_zxid == -1
    assert log.commit() == disk.sync_ms
    assert disk.read(f"{DIRECTORY}/log.1") == log_file(*map(set_data, (1, 2, 3)))
    assert (log.last_zxid, log.durable_zxid) == (3, 3)


def test_a_commit_is_one_write_and_one_sync() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 20)
    append(log, 1)
    log.commit()
    operations: list[str] = []
    disk.before = lambda kind, path: operations.append(kind)
    append(log, *range(2, 50))
    log.commit()
    assert operations == [faults.WRITE, faults.SYNC]
    log.commit()
    assert operations == [faults.WRITE, faults.SYNC]


def test_a_file_gets_its_name_when_it_is_durable() -> None:
    disk = disk_with({})
    operations: list[tuple[str, str]] = []
    disk.before = lambda kind, path: operations.append((kind, path.rpartition("/")[2]))
    log = new_log(disk)
    append(log, 0xAB)
    log.commit()
    temporary = "zkpy-tmp.log.ab"
    assert operations == [
        (faults.CREATE, temporary),
        (faults.WRITE, temporary),
        (faults.SYNC, temporary),
        (faults.RENAME, "log.ab"),
        (faults.SYNC_DIR, "version-2"),
    ]


def test_without_force_sync_nothing_is_synced() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 20, force_sync=False)
    append(log, 1)
    assert log.commit() == 0.0
    append(log, *range(2, 3000))
    log.commit()
    log.prepare_ahead()
    assert disk.sync_count == 0
    assert zxids(log) == list(range(1, 3000))


@pytest.mark.parametrize("zxid", [4, 5, 0])
def test_a_zxid_not_above_the_last_is_refused(zxid: int) -> None:
    disk = disk_with({})
    log = new_log(disk)
    append(log, 5)
    with pytest.raises(ZxidOutOfOrder, match="<= 0x5"):
        append(log, zxid)
    log.commit()
    assert zxids(log) == [5]


def test_roll_begins_a_file_at_the_next_append() -> None:
    disk = disk_with({})
    log = new_log(disk)
    log.roll()
    append(log, 1, 2)
    log.roll()
    log.roll()
    append(log, 3)
    log.commit()
    assert logs(disk) == ["log.1", "log.3"]
    log.roll()
    log.commit()
    append(log, 4)
    log.commit()
    assert logs(disk) == ["log.1", "log.3", "log.4"]
    assert zxids(log) == [1, 2, 3, 4]


def test_a_file_beyond_the_size_limit_is_the_last_ones_end() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 20, size_limit_bytes=1000)
    for zxid in range(1, 61):
        append(log, zxid)
        log.commit()
    starts = [zxid for zxid in range(1, 61) if f"log.{zxid:x}" in logs(disk)]
    record = len(set_data(1)) + 13
    per_file = (1000 - 16) // record + 1
    assert starts == list(range(1, 61, per_file))
    assert zxids(log) == list(range(1, 61))


def test_close_commits_what_is_left() -> None:
    disk = disk_with({})
    log = new_log(disk)
    append(log, 1)
    log.close()
    append(log, 2)
    log.close()
    assert logs(disk) == ["log.1", "log.2"]
    assert zxids(log) == [1, 2]


# ---------------------------------------------------------------------- zeros ahead


def test_a_new_file_has_zeros_ahead_and_more_come_in_growing_steps() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 26)
    append(log, 1)
    log.commit()
    path = f"{DIRECTORY}/log.1"
    sizes = [disk.size(path)]
    zxid = 1
    while len(sizes) < 6:
        zxid += 1
        append(log, zxid, data=bytes(3000))
        log.commit()
        log.prepare_ahead()
        if disk.size(path) != sizes[-1]:
            sizes.append(disk.size(path))
    steps = [after - before for before, after in zip([0, *sizes], sizes, strict=False)]
    kib = 1024
    assert steps == [64 * kib, 128 * kib, 256 * kib, 512 * kib, 1024 * kib, 1024 * kib]
    assert zxids(log) == list(range(1, zxid + 1))


@pytest.mark.parametrize("preallocate_bytes", [0, 1, 100, 4096, 5000, 16384, 1 << 20])
@pytest.mark.parametrize("ahead", [True, False])
def test_no_zeros_over_records(preallocate_bytes: int, ahead: bool) -> None:
    disk = disk_with({})
    log = new_log(disk, preallocate_bytes)
    for zxid in range(1, 200):
        append(log, zxid, data=bytes(7 * zxid))
        log.commit()
        if ahead:
            log.prepare_ahead()
    log.close()
    expected = log_file(*(set_data(zxid, bytes(7 * zxid)) for zxid in range(1, 200)))
    written = disk.read(f"{DIRECTORY}/log.1")
    assert written[: len(expected)] == expected
    rest = written[len(expected) :]
    assert not any(rest)
    # Never more zeros at once than preAllocSize, and two steps may lie ahead.
    assert len(rest) <= 2 * preallocate_bytes + 4096
    if preallocate_bytes == 0:
        assert rest == b""


def test_a_record_larger_than_the_zeros_takes_new_ones_with_it() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 26)
    append(log, 1)
    log.commit()
    append(log, 2, data=bytes(300_000))
    log.commit()
    assert disk.size(f"{DIRECTORY}/log.1") > 300_000 + 64 * 1024
    assert zxids(log) == [1, 2]


def test_zeros_that_find_no_room_are_done_without() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 26)
    append(log, 1)
    log.commit()
    disk.capacity_bytes = disk.used_bytes()
    for zxid in range(2, 500):
        append(log, zxid)
        log.commit()
        log.prepare_ahead()
    assert zxids(log) == list(range(1, 500))
    with pytest.raises(DiskWriteError) as error:
        for zxid in range(500, 5000):
            append(log, zxid)
            log.commit()
    assert error.value.errno == errno.ENOSPC


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "kind", [faults.CREATE, faults.WRITE, faults.SYNC, faults.RENAME, faults.SYNC_DIR]
)
def test_after_a_failure_nothing_is_written_any_more(kind: str) -> None:
    disk = disk_with({})
    log = new_log(disk)
    append(log, 1)
    disk.fail(kind, times=1)
    with pytest.raises(DiskWriteError, match=DIRECTORY) as error:
        log.commit()
    assert error.value.exit_code == 10
    assert error.value.path
    operations: list[str] = []
    disk.before = lambda kind, path: operations.append(kind)
    append(log, 2)
    for again in (log.commit, log.commit):
        with pytest.raises(DiskWriteError, match="earlier write or sync"):
            again()
    log.close()
    assert operations == []


def test_a_failed_write_says_where() -> None:
    disk = disk_with({})
    log = new_log(disk)
    append(log, 1)
    log.commit()
    disk.fail(faults.WRITE, errno=errno.ENOSPC)
    append(log, 2)
    with pytest.raises(DiskWriteError) as error:
        log.commit()
    size = len(log_file(set_data(1)))
    assert str(error.value) == f"{DIRECTORY}/log.1 at offset {size}: No space left on device"


def test_a_failed_sync_ahead_is_as_fatal() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 20)
    append(log, *range(1, 700))
    log.commit()
    disk.fail(faults.SYNC)
    append(log, 700)
    with pytest.raises(DiskWriteError):
        log.commit()
    with pytest.raises(DiskWriteError):
        log.commit()


# ---------------------------------------------------------------------- cutting


def test_truncate_keeps_exactly_what_is_not_above() -> None:
    # Where the reference keeps one record more if the zxid itself was not logged.
    for zxid, expected in [
        (0, []),
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2]),
        (5, [1, 2, 5]),
        (7, [1, 2, 5, 6]),
        (8, [1, 2, 5, 6, 8]),
        (9, [1, 2, 5, 6, 8, 9]),
        (99, [1, 2, 5, 6, 8, 9]),
    ]:
        disk = disk_with(
            {
                "log.1": log_file(*map(set_data, (1, 2, 5, 6)), padding=300),
                "log.8": log_file(*map(set_data, (8, 9)), padding=300),
            }
        )
        log = new_log(disk)
        log.last_zxid = 9
        log.truncate(zxid)
        found = []
        for name in logs(disk):
            reader = FileReader(disk, f"{DIRECTORY}/{name}", 1 << 20, True)
            found += [zxid for zxid, _ in reader.records()]
        assert found == expected
        # Behind the last record nothing is left, as in the reference.
        if expected and zxid < 99:
            assert disk.read(f"{DIRECTORY}/{logs(disk)[-1]}").endswith(b"B")
        append(log, 100)
        log.close()
        assert "log.64" in logs(disk)


def test_truncate_without_log() -> None:
    with pytest.raises(TruncateError, match="Unable to truncate Txn log") as error:
        new_log(disk_with({})).truncate(5)
    assert error.value.exit_code == 13


def test_truncate_while_writing() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 20)
    append(log, 1, 2, 3)
    log.commit()
    append(log, 4)
    log.truncate(2)
    assert (log.last_zxid, log.durable_zxid) == (2, 2)
    append(log, 3, data=b"other")
    log.commit()
    assert logs(disk) == ["log.1", "log.3"]
    assert zxids(log) == [1, 2, 3]


@pytest.mark.parametrize("stop_at", range(8))
def test_a_truncation_that_is_cut_short_leaves_a_prefix(stop_at: int) -> None:
    disk = disk_with(
        {
            "log.1": log_file(*map(set_data, (1, 2, 3))),
            "log.4": log_file(*map(set_data, (4, 5))),
            "log.6": log_file(set_data(6)),
        }
    )
    log = new_log(disk)
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
        log.truncate(2)
    except Stopped:
        pass
    disk.before = None
    found = zxids(new_log(disk))
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 2


# ---------------------------------------------------------------------- reading


def test_read_decodes_and_says_where_it_cannot() -> None:
    disk = disk_with({"log.1": log_file(set_data(1), set_data(2)[:30] + b"\0\x63" + bytes(9))})
    log = new_log(disk)
    with pytest.raises(CorruptFile, match="Unsupported Txn with type=99") as error:
        zxids(log)
    assert error.value.offset == 16 + 13 + len(set_data(1))


def test_last_logged_zxid_and_sizes() -> None:
    disk = disk_with({})
    log = new_log(disk)
    assert log.last_logged_zxid() == -1
    append(log, 1, 2)
    log.commit()
    log.roll()
    append(log, 3)
    log.commit()
    assert log.last_logged_zxid() == 3
    first, second = (disk.size(f"{DIRECTORY}/{name}") for name in logs(disk))
    assert log.size_from(3) == first + second  # the file before may reach beyond it
    assert log.size_from(4) == second


def test_what_is_being_written_can_be_read_up_to_what_is_durable() -> None:
    disk = disk_with({})
    log = new_log(disk, 1 << 16)
    append(log, 1, 2, 3)
    log.commit()
    append(log, 4)
    assert [h.zxid for h, *_ in log.read(2, until=log.durable_zxid)] == [2, 3]


# ---------------------------------------------------------------------- two threads, a real disk


def test_one_thread_appends_while_another_commits(tmp_path: Path) -> None:
    log = FileTxnLog(OsDisk(), str(tmp_path), preallocate_bytes=1 << 16, force_sync=False)
    count = 20_000
    done = threading.Event()

    def commit() -> None:
        while not done.is_set():
            log.commit()
            log.prepare_ahead()

    thread = threading.Thread(target=commit)
    thread.start()
    txns = [set_data(zxid) for zxid in range(1, count + 1)]
    for zxid in range(1, count + 1):
        log.append(zxid, txns[zxid - 1])
        if zxid % 5000 == 0:
            log.roll()
    done.set()
    thread.join()
    log.close()
    assert [txn for _, _, _, txn in log.read(1, after=0)] == txns
    assert log.durable_zxid == count
    starts = [int(path.name[4:], 16) for path in tmp_path.glob("log.*")]
    assert sorted(starts) == [1, 5001, 10001, 15001]
