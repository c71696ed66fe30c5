"""The purge task: at once, then at a fixed rate, in a thread, and no error of it is fatal."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from tests.server.aio.in_process import InProcess, config_of
from tests.support.rawclient import make

from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.server.aio import purge
from zkpy.server.aio.purge import DatadirCleanupManager
from zkpy.testing.disk import REMOVE, SimulatedDisk

DIRECTORY = "/data/version-2"


def old_data() -> SimulatedDisk:
    """Five starts with a log and a snapshot each, the newest at zxid 0xf."""
    disk = SimulatedDisk()
    for start in range(5):
        with InProcess(disk) as server:
            make(server.session(), f"/node{start}", f"/more{start}")
    return disk


def run_for(disk: SimulatedDisk, seconds: float, interval_hours: int) -> None:
    async def run() -> None:
        store = FileTxnSnapLog(disk, Settings("/data"))
        config = config_of(autopurge_purge_interval_hours=interval_hours)
        manager = DatadirCleanupManager(store, config, asyncio.get_running_loop(), disk)
        manager.start()
        await asyncio.sleep(seconds)
        await manager.stop()

    asyncio.run(run())


def test_purges_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = old_data()
    before = disk.list_dir(DIRECTORY)
    caplog.clear()
    run_for(disk, 0.0, 1)
    after = disk.list_dir(DIRECTORY)
    removed = set(before) - set(after)
    assert {"snapshot.0", "snapshot.3"} <= removed
    assert sum(name.startswith("snapshot.") for name in after) == 3
    assert caplog.messages[:3] == [
        "autopurge.snapRetainCount set to 3",
        "autopurge.purgeInterval set to 1",
        "Purge task started.",
    ]
    assert caplog.messages[-1] == "Purge task completed."
    assert caplog.records[-1].threadName == "PurgeTask"
    # What is left still makes a database.
    with InProcess(disk) as server:
        assert server.call(lambda: server.server.zookeeper.tree.last_processed_zxid) == 15


def test_zero_hours_is_never(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = old_data()
    before = disk.list_dir(DIRECTORY)
    caplog.clear()
    run_for(disk, 0.0, 0)
    assert disk.list_dir(DIRECTORY) == before
    assert caplog.messages == [
        "autopurge.snapRetainCount set to 3",
        "autopurge.purgeInterval set to 0",
        "Purge task is not scheduled.",
    ]


def test_again_at_a_fixed_rate_and_not_twice_at_a_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(purge, "HOUR_SECONDS", 0.02)
    threads: list[int] = []
    slow = threading.Event()

    class SlowDisk(SimulatedDisk):
        def list_dir(self, path: str) -> list[str]:
            threads.append(threading.get_ident())
            slow.wait(0.03 if len(threads) < 4 else 0)
            return super().list_dir(path)

    disk = SlowDisk()
    disk.make_dirs(DIRECTORY)
    run_for(disk, 0.5, 1)
    started = caplog.messages.count("Purge task started.")
    assert 3 <= started <= 25
    assert caplog.messages.count("Purge task completed.") == started
    order = [text for text in caplog.messages if text.startswith("Purge task")]
    assert order == ["Purge task started.", "Purge task completed."] * started
    assert threading.get_ident() not in threads


def test_an_error_is_told_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    disk = old_data()
    disk.fail(REMOVE, "snapshot.")
    run_for(disk, 0.0, 1)
    assert "Error occurred while purging: /data/version-2/snapshot.0: Input/output error" in (
        caplog.text
    )


def test_a_purge_that_has_just_been_asked_for_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is about to cut the log must not meet it."""
    begun = threading.Event()
    original = purge.log.info

    def info(text: str, *args: object) -> None:
        if text == "Purge task started.":
            begun.wait(0.1)  # it is a while until the thread touches a file
        original(text, *args)

    monkeypatch.setattr(purge.log, "info", info)
    caplog.set_level(logging.INFO)
    disk = old_data()
    caplog.clear()

    async def run() -> None:
        store = FileTxnSnapLog(disk, Settings("/data"))
        config = config_of(autopurge_purge_interval_hours=1)
        manager = DatadirCleanupManager(store, config, asyncio.get_running_loop(), disk)
        manager.join()  # none was asked for
        manager.start()
        manager.join()
        assert caplog.messages[-1] == "Purge task completed."
        await manager.stop()

    asyncio.run(run())
