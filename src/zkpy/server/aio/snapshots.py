"""Snapshots of a serving tree: serialized in slices on the loop, written by another thread.

Owns when a snapshot is due and how long the loop may be held for one.
Source: SyncRequestProcessor.shouldSnapshot, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from zkpy.datatree.serialize import serialize_tree
from zkpy.persistence.errors import DiskWriteError, PersistenceError
from zkpy.server.aio.threads import in_thread

if TYPE_CHECKING:
    from zkpy.datatree.tree import DataTree
    from zkpy.persistence.snapshot import FileSnap, SnapshotWriter
    from zkpy.server.settings import Config
    from zkpy.server.stats import ServerStats

log = logging.getLogger(__name__)

# The loop is held this long at a time, then serves for at least as long: requests see a delay of
# well under a millisecond, and a million nodes take a few seconds.
SLICE_SECONDS: Final = 0.0005
PAUSE_SECONDS: Final = 0.001
WRITE_BYTES: Final = 512 * 1024
THREAD: Final = "Snapshot Thread"


def _below(limit: int) -> int:
    """A random integer from 0 to `limit` - 1: members should not snapshot together."""
    return int.from_bytes(os.urandom(6), "big") % max(1, limit)


class Snapshots:
    """Decides when to take a snapshot, and takes it; one at a time.

    `failed(error)` is called on the loop when one cannot be written: as with the log, the process
    is to end then. `last_zxid` and `last_wall_ms`: of the last one taken by this process, or -1.
    """

    def __init__(
        self,
        snap: FileSnap,
        tree: DataTree,
        config: Config,
        stats: ServerStats,
        loop: asyncio.AbstractEventLoop,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._snap = snap
        self.tree = self._tree = tree
        self._stats = stats
        self._loop = loop
        self._failed = failed
        self._count = config.snap_count
        self._size = config.snap_size_limit_kib * 1024
        self._writer: SnapshotWriter | None = None
        self._slices: Iterator[bytes] = iter(())
        self._started = 0.0
        self._thread: asyncio.Future[None] | None = None
        self._thread_done: threading.Event | None = None
        self.running: asyncio.Future[None] | None = None
        self.last_zxid = -1
        self.last_wall_ms = -1
        self._reset()

    def _reset(self) -> None:
        self._txns = 0
        self._bytes = 0
        half = self._count // 2
        self._count_limit = half + _below(half)
        half = self._size // 2
        self._size_limit = half + _below(half) if self._size > 0 else 0

    def appended(self, txns: int, size: int) -> bool:
        """Count what was logged; whether the log is to be rolled, with a snapshot started."""
        self._txns += txns
        self._bytes += size
        if self._txns <= self._count_limit and not 0 < self._size_limit < self._bytes:
            return False
        self._reset()
        if self.running is not None:
            log.warning("Too busy to snap, skipping")
        else:
            self.start()
        return True

    def start(self) -> asyncio.Future[None]:
        """Begin a snapshot of the tree as it is from now on."""
        assert self.running is None, "one at a time"
        self.running = self._loop.create_future()
        self._started = time.monotonic()
        self._writer = self._snap.writer(self._tree)
        self._slices = serialize_tree(self._tree)
        log.info("Snapshotting: 0x%x to %s", self._tree.last_processed_zxid, self._writer.path)
        self._loop.call_soon(self._slice)
        return self.running

    def _slice(self) -> None:
        writer = self._writer
        if writer is None:
            return  # stopped
        try:
            end = time.monotonic() + SLICE_SECONDS
            for data in self._slices:
                writer.feed(data)
                if writer.pending_bytes >= WRITE_BYTES:
                    self._in_thread(writer.write, self._wrote)
                    return
                if time.monotonic() >= end:
                    self._loop.call_later(PAUSE_SECONDS, self._slice)
                    return
            self._snap.finish(writer, self._tree)
        except Exception as error:  # noqa: BLE001 - whatever it is, we stop rather than be wrong
            self._give_up(error)
            return
        self._in_thread(writer.commit, self._committed)

    def _in_thread(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        def done(future: asyncio.Future[None]) -> None:
            self._thread = None
            error = future.exception()
            if self._writer is None:
                return  # stopped meanwhile
            if error is None:
                then()
            elif isinstance(error, PersistenceError):
                self._give_up(error)
            else:
                self._give_up(DiskWriteError(self._writer.path, f"{THREAD} died: {error!r}"))

        self._thread_done = threading.Event()

        def work_and_tell(done: threading.Event = self._thread_done) -> None:
            try:
                work()
            finally:
                done.set()

        self._thread = in_thread(self._loop, THREAD, work_and_tell)
        self._thread.add_done_callback(done)

    def _wrote(self) -> None:
        self._loop.call_later(PAUSE_SECONDS, self._slice)

    def _committed(self) -> None:
        assert self._writer is not None, "looked at before"
        duration_ms = int((time.monotonic() - self._started) * 1000)
        self._stats.record("snapshottime", duration_ms)
        self.last_zxid = self._writer.zxid
        self.last_wall_ms = int(time.time() * 1000)
        log.info("Snapshot taken in %d ms", duration_ms)
        self._end()

    def _give_up(self, error: BaseException) -> None:
        self.abort()
        self._failed(error)

    def abort(self) -> None:
        """Give up an unfinished snapshot: the log has everything."""
        writer = self._writer
        self._end()
        if writer is not None:
            writer.abort()

    def _end(self) -> None:
        self._writer = None
        self._slices = iter(())
        if self.running is not None and not self.running.done():
            self.running.set_result(None)
        self.running = None

    def join(self) -> None:
        """Return when no thread writes any more; the loop is held until then."""
        if self._thread_done is not None:
            self._thread_done.wait()

    async def ended(self) -> None:
        """Return when no thread writes any more."""
        if self._thread is not None:
            await asyncio.wait({self._thread})
