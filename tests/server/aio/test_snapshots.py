"""When a snapshot is due, and that taking one never holds the loop for long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.server.aio.in_process import config_of

from zkpy.datatree.tree import DataTree
from zkpy.persistence.snapshot import FileSnap
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.server.aio import snapshots
from zkpy.server.aio.snapshots import Snapshots
from zkpy.server.stats import ServerStats
from zkpy.testing.disk import CREATE, SimulatedDisk

DIRECTORY = "/data/version-2"


class Taking:
    """Snapshots of `tree` on a simulated disk; to be made inside a loop."""

    def __init__(self, tree: DataTree | None = None, **settings: Any) -> None:
        self.disk = SimulatedDisk()
        self.disk.make_dirs(DIRECTORY)
        self.tree = tree or DataTree()
        self.errors: list[BaseException] = []
        self.stats = ServerStats(0)
        self.snapshots = Snapshots(
            FileSnap(self.disk, DIRECTORY),
            self.tree,
            config_of(**settings),
            self.stats,
            asyncio.get_running_loop(),
            self.errors.append,
        )


def triggers(monkeypatch: pytest.MonkeyPatch, dice: int, size: int, **settings: Any) -> list[int]:
    """After which of 100 txns of `size` bytes a snapshot begins; the dice show `dice`."""
    monkeypatch.setattr(snapshots, "_below", lambda limit: min(dice, max(limit - 1, 0)))

    async def run() -> list[int]:
        taking = Taking(**settings)
        found = []
        for txn in range(1, 101):
            if taking.snapshots.appended(1, size):
                found.append(txn)
                assert taking.snapshots.running is not None
                await taking.snapshots.running
        return found

    return asyncio.run(run())


def test_by_count_between_half_and_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triggers(monkeypatch, 0, 10, snap_count=40) == [21, 42, 63, 84]
    assert triggers(monkeypatch, 99, 10, snap_count=40) == [40, 80]


def test_by_size_between_half_and_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triggers(monkeypatch, 0, 1024, snap_size_limit_kib=40) == [21, 42, 63, 84]
    assert triggers(monkeypatch, 99_999, 1024, snap_size_limit_kib=40) == [40, 80]


def test_no_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (-1, 0):
        assert triggers(monkeypatch, 0, 1 << 40, snap_size_limit_kib=limit) == []


def test_the_dice_are_fair() -> None:
    seen = {snapshots._below(10) for _ in range(1000)}
    assert seen == set(range(10))
    assert snapshots._below(0) == 0


def test_one_at_a_time(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        taking = Taking(snap_count=2)
        first = taking.snapshots.start()
        rolled = [taking.snapshots.appended(1, 10) for _ in range(3)]
        assert any(rolled), "the log is rolled all the same"
        assert taking.snapshots.running is first
        await first
        assert taking.disk.list_dir(DIRECTORY) == ["snapshot.0"]

    asyncio.run(run())
    assert "Too busy to snap, skipping" in caplog.text


def test_an_error_is_reported_once_and_no_file_is_left() -> None:
    async def run() -> None:
        taking = Taking()
        taking.disk.fail(CREATE, "snapshot.")
        await taking.snapshots.start()
        assert len(taking.errors) == 1
        assert taking.disk.list_dir(DIRECTORY) == []
        assert taking.snapshots.last_zxid == -1
        assert not taking.stats.summaries

    asyncio.run(run())


@pytest.mark.patches
def test_a_bug_in_the_tree_is_reported() -> None:
    async def run() -> None:
        taking = Taking()
        taking.tree.acl_cache = None  # type: ignore[assignment]
        await taking.snapshots.start()
        assert len(taking.errors) == 1

    asyncio.run(run())


def test_what_is_given_up_leaves_no_file() -> None:
    async def run() -> None:
        taking = Taking()
        for node in range(3000):
            taking.tree.create_node(f"/{node}", bytes(400), OPEN_ACL_UNSAFE, 0, -1, 1, 1)
        taking.snapshots.start()
        await asyncio.sleep(0.005)
        taking.snapshots.abort()
        await taking.snapshots.ended()
        assert taking.disk.list_dir(DIRECTORY) == []
        assert not taking.errors
        await taking.snapshots.start()
        assert len(taking.disk.list_dir(DIRECTORY)) == 1

    asyncio.run(run())


def test_the_loop_is_never_held_for_long() -> None:
    """A probe that wants to run every ms, while 200 000 nodes are written."""
    tree = DataTree()
    tree.count_digest = False
    for node in range(200_000):
        if node % 20_000 == 0:
            tree.create_node(f"/wide{node}", None, OPEN_ACL_UNSAFE, 0, -1, 1, 1)
            parent = f"/wide{node}"
        tree.create_node(f"{parent}/{node}", bytes(50), OPEN_ACL_UNSAFE, 0, -1, 1, 1)

    async def run() -> list[float]:
        taking = Taking(tree)
        lags = []
        running = taking.snapshots.start()
        while not running.done():
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append((time.perf_counter() - start) * 1000 - 1)
        assert not taking.errors
        assert len(taking.disk.read(f"{DIRECTORY}/snapshot.0")) > 200_000 * 130
        return lags

    lags = sorted(asyncio.run(run()))
    # Other processes hold us up, too: a slice that is too long would do so again and again.
    assert len(lags) > 100
    # Half of them at least is ours.
    assert lags[len(lags) // 2] < 5.0, lags[-20:]
