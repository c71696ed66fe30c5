"""DatadirCleanupManager: removes old snapshots and logs every few hours, in a thread.

Source: DatadirCleanupManager, ZooKeeper 3.9; its lines in the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Final

from zkpy.persistence.disk import OsDisk
from zkpy.server.aio.threads import in_thread

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk
    from zkpy.persistence.store import FileTxnSnapLog
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)

HOUR_SECONDS: Final = 3600.0


class DatadirCleanupManager:
    """Purges at once and then at a fixed rate, if the configuration says so.

    A purge that fails is logged and tried again next time: files that stay harm nobody yet.
    """

    def __init__(
        self,
        store: FileTxnSnapLog,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        disk: Disk | None = None,
    ) -> None:
        self._store = store
        self._disk = disk or OsDisk()
        self._loop = loop
        self._retain = config.autopurge_snap_retain_count
        self._interval_seconds = config.autopurge_purge_interval_hours * HOUR_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Future[None] | None = None
        # Set once the last purge is over: nobody else may change files meanwhile.
        self._ended = threading.Event()
        self._ended.set()

    def start(self) -> None:
        """Purge now, and every few hours from now on."""
        hours = int(self._interval_seconds // HOUR_SECONDS)
        log.info("autopurge.snapRetainCount set to %d", self._retain)
        log.info("autopurge.purgeInterval set to %d", hours)
        if hours <= 0:
            log.info("Purge task is not scheduled.")
            return
        self._due(self._loop.time())

    def _due(self, time: float) -> None:
        self._timer = self._loop.call_at(
            time + self._interval_seconds, self._due, time + self._interval_seconds
        )
        if self._running is None:
            ended = threading.Event()
            self._running = in_thread(self._loop, "PurgeTask", lambda: self._purge(ended))
            self._running.add_done_callback(self._done)
            self._ended = ended

    def _purge(self, ended: threading.Event) -> None:
        try:
            from zkpy.persistence.purge import purge  # off by default, and then not loaded

            log.info("Purge task started.")
            purge(self._disk, self._store.snap_directory, self._store.log_directory, self._retain)
            log.info("Purge task completed.")
        finally:
            ended.set()

    def _done(self, future: asyncio.Future[None]) -> None:
        self._running = None
        error = future.exception()
        if error is not None:
            log.error("Error occurred while purging: %s", error)

    def join(self) -> None:
        """Return when no purge is under way; the loop is held until then."""
        self._ended.wait()

    async def stop(self) -> None:
        """Start no purge any more; returns when none is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            await asyncio.wait({self._running})
