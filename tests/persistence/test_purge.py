"""Purging: what goes, what stays, and that each snapshot left can be replayed to the end."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.persistence.data_dir import (
    DIRECTORY,
    apply_bytes,
    create,
    disk_with,
    golden_files,
    store_on,
)

from zkpy.persistence.purge import purge, purgeable
from zkpy.testing.disk import SimulatedDisk

SNAPSHOT_0 = golden_files("standalone-395")["snapshot.0"]


def snapshots(*zxids: int) -> list[tuple[int, str]]:
    return [(zxid, f"snapshot.{zxid:x}") for zxid in sorted(zxids, reverse=True)]


@pytest.mark.parametrize(
    ("all_zxids", "valid", "logs", "gone"),
    [
        ([], [], [1, 5], []),
        ([7], [], [1, 5], []),  # no valid snapshot: nothing
        ([5, 6], [5, 6], [1, 2, 6], ["log.1"]),  # fewer than retained: from the oldest
        ([10, 20, 30, 40], [10, 20, 30, 40], [1, 11, 21, 31], ["snapshot.a", "log.1"]),
        # The log that begins before the oldest kept snapshot may hold what follows it.
        ([10, 20, 30, 40], [10, 20, 30, 40], [1, 25], ["snapshot.a"]),
        # One that begins with its very zxid makes those before superfluous.
        ([10, 20, 30, 40], [10, 20, 30, 40], [1, 5, 20, 25], ["snapshot.a", "log.1", "log.5"]),
        # Torn ones below go, those above stay.
        ([5, 20, 30, 35, 40], [20, 30, 40], [1], ["snapshot.5"]),
    ],
)
def test_what_may_go(
    all_zxids: list[int], valid: list[int], logs: list[int], gone: list[str]
) -> None:
    old_snapshots, old_logs = purgeable(snapshots(*all_zxids), snapshots(*valid), logs, 3)
    assert old_snapshots + old_logs == gone


def test_fewer_than_three_are_not_allowed(caplog: pytest.LogCaptureFixture) -> None:
    disk = disk_with({f"snapshot.{zxid}": SNAPSHOT_0 for zxid in (1, 2, 3, 4)})
    assert purge(disk, DIRECTORY, DIRECTORY, 1) == [f"{DIRECTORY}/snapshot.1"]
    assert "too small" in caplog.text


def test_other_files_stay() -> None:
    disk = disk_with(
        {
            **{f"snapshot.{zxid}": SNAPSHOT_0 for zxid in range(10, 20)},
            **dict.fromkeys(["log.1", "log.2", "snapshot.5.tmp", "log.1.bak", "currentEpoch"], b""),
        }
    )
    purge(disk, DIRECTORY, DIRECTORY, 3)
    assert disk.list_dir(DIRECTORY) == [
        "currentEpoch",
        "log.1.bak",
        "log.2",
        "snapshot.17",
        "snapshot.18",
        "snapshot.19",
        "snapshot.5.tmp",
    ]


def test_in_two_directories() -> None:
    disk = disk_with({f"snapshot.{zxid}": SNAPSHOT_0 for zxid in range(1, 6)})
    for zxid in range(1, 5):
        disk.put(f"/log/version-2/log.{zxid}", b"")
    removed = purge(disk, DIRECTORY, "/log/version-2", 3)
    assert removed == [
        f"{DIRECTORY}/snapshot.1",
        f"{DIRECTORY}/snapshot.2",
        "/log/version-2/log.1",
        "/log/version-2/log.2",
    ]


def written(rng: Random, last: int) -> SimulatedDisk:
    disk = SimulatedDisk()
    store = store_on(disk)
    tree = store.restore().tree
    for zxid in range(1, last + 1):
        txn = create(zxid, f"/n{zxid}")
        store.log.append(zxid, txn)
        # The snapshot is named by what is applied, which may lag what is logged.
        if rng.random() < 0.15:
            store.log.roll()
        if rng.random() < 0.15:
            store.save(tree)
        apply_bytes(tree, txn)
    store.close()
    return disk


@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 60))
def test_every_snapshot_left_can_be_replayed_to_the_end(rng: Random, last: int) -> None:
    disk = written(rng, last)
    purge(disk, DIRECTORY, DIRECTORY, 3)
    while True:
        disk.restart()
        loaded = store_on(disk).restore()
        assert loaded.last_zxid == last
        left = [name for name in disk.list_dir(DIRECTORY) if name.startswith("snapshot.")]
        if len(left) == 1:
            break
        disk.remove(f"{DIRECTORY}/snapshot.{loaded.snapshot_zxid:x}")


@given(st.integers(0, 1 << 32).map(Random), st.integers(20, 60), st.integers(0, 12))
def test_a_crash_while_purging_loses_nothing(rng: Random, last: int, stop_at: int) -> None:
    disk = written(rng, last)
    left = [stop_at]

    class Stopped(Exception):
        pass

    def before(kind: str, path: str) -> None:
        if kind in ("remove", "sync_dir"):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped

    disk.before = before
    try:
        purge(disk, DIRECTORY, DIRECTORY, 3)
    except Stopped:
        pass
    disk.before = None
    disk.crash(rng)
    assert store_on(disk).restore().last_zxid == last
