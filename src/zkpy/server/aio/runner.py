"""Performs what the core asks for, once per loop turn: log, then sockets.

    ready sockets (any number) -> core -> flush: one hand-over to the log thread,
                                                 one socket write per client
    log thread -> doorbell -> core -> the same flush

Owns the order of effects: a reply to a write exists only after `durable` has been called, so
nothing is acknowledged that is not on disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zkpy.server.aio.client_port import Doorbell
from zkpy.server.aio.log_writer import THREAD, LogWriter
from zkpy.server.aio.threads import post
from zkpy.server.replies import MAX_UNREAD_BYTES
from zkpy.server.zkserver import ZooKeeperServer

if TYPE_CHECKING:
    from zkpy.persistence.txnlog import FileTxnLog
    from zkpy.server.aio.client_port import ClientPort, Poller
    from zkpy.server.aio.snapshots import Snapshots
    from zkpy.server.cnxn import ServerCnxn

log = logging.getLogger(__name__)

MAX_TIMER_SECONDS: Final = 3600.0
COUNTER_MASK: Final = 0xFFFFFFFF


class Runner:
    """One server on one event loop.

    `stopped` is a future: its exception, if any, is why the server cannot go on.
    `poller` has the sockets, once there are some.
    """

    def __init__(
        self,
        server: ZooKeeperServer,
        txn_log: FileTxnLog,
        snapshots: Snapshots,
        stopped: asyncio.Future[None],
    ) -> None:
        self.server = server
        self.loop = loop = stopped.get_loop()
        self.woken = False
        self.keep_alive = server.config.client_tcp_keep_alive
        self.stopped = stopped
        self.poller: Poller | None = None
        self._durable_zxid = server.zab.committed_zxid
        # What the log thread has to tell: (zxid, ms of the sync). Appended there, taken here.
        self._synced: deque[tuple[int, float]] = deque()
        self._doorbell: Doorbell | None = None
        self._log = txn_log
        self._snapshots = snapshots
        self._sync_warning_ms = server.config.fsync_warning_threshold_ms
        self._timer: asyncio.TimerHandle | None = None
        self._log_ended: asyncio.Future[None] = loop.create_future()
        self.log_writer = LogWriter(
            txn_log,
            server.config,
            self._durable_in_thread,
            self._failed_in_thread,
            self._ended_in_thread,
        )

    @property
    def failed(self) -> bool:
        """Whether `fail` has been called."""
        return self.stopped.done() and self.stopped.exception() is not None

    def start(self, poller: Poller) -> None:
        """Start the log thread and the timer; clients come by way of `poller`."""
        self.poller = poller
        if hasattr(os, "eventfd"):
            self._doorbell = Doorbell(poller, self._take_synced)
        self.log_writer.start()
        self._set_timer()

    async def close(self) -> None:
        """Make durable what has been proposed, answer it, and end the log thread.

        Then hang up on everybody. After a failure nothing is written or answered any more.
        """
        if self._timer is not None:
            self._timer.cancel()
        if not self.failed:
            self.flush()
        self.log_writer.stop()
        await self._log_ended
        self._take_synced()
        doorbell, self._doorbell = self._doorbell, None
        if doorbell is not None:
            doorbell.close()
        server = self.server
        for cnxn in list(server.cnxns):
            server.close(cnxn)
        if not self.failed:
            self.flush()

    def read_clock(self) -> None:
        """Tell the core the time."""
        server = self.server
        server.now_ms = int(time.monotonic() * 1000)
        server.wall_ms = int(time.time() * 1000)

    def wake(self) -> None:
        """Flush once this loop turn is over."""
        if not self.woken:
            self.woken = True
            self.loop.call_soon(self._guarded, self.flush)

    def flush(self) -> None:
        """Perform what the core has asked for since the last flush."""
        self.woken = False
        appended = self._take_appended()
        if appended:
            self._append(appended)
        self._flush_clients()

    def _take_appended(self) -> list[tuple[int, bytes]]:
        return self.server.zab.take_appended()

    def _tell_durable(self, zxid: int) -> None:
        self.server.durable(zxid)

    def _append(self, appended: list[tuple[int, bytes]]) -> None:
        """Hand txns to the log thread."""
        append = self._log.append
        size = 0
        for zxid, txn in appended:
            append(zxid, txn)
            size += len(txn)
        self.log_writer.wake(len(appended))
        if self._snapshots.appended(len(appended), size):
            self._log.roll()

    def _flush_clients(self) -> None:
        """Send what is queued for clients; hang up on those that are done with."""
        server = self.server
        total = last = most = 0
        least = MAX_UNREAD_BYTES
        for cnxn in server.take_dirty():
            cnxn.dirty = False
            port: ClientPort | None = cnxn.transport  # type: ignore[assignment]
            if port is None:
                continue
            out = cnxn.out
            if out:
                if cnxn.state:  # four letter words are no responses
                    last = len(out)
                    total += last
                    if last > most:
                        most = last
                    if last < least:
                        least = last
                cnxn.out = bytearray()
                port.send(out)
            if cnxn.closed:
                port.hang_up()
            elif cnxn.held or port.paused:
                self._attend(cnxn, port)
        if total:
            server.stats.responses(total, last, least, most)

    def _attend(self, cnxn: ServerCnxn, port: ClientPort) -> None:
        """A connection that is held: let it go on, keep it waiting, or give it up."""
        if len(port.unsent) > MAX_UNREAD_BYTES:
            log.warning("closing %s: it does not read what is sent to it", cnxn)
            port.close()
            return
        if cnxn.held:
            self.server.resume(cnxn)
            if cnxn.dirty:
                self.wake()
        port.reading(not cnxn.held)

    # ------------------------------------------------------------------ the log thread

    def _durable_in_thread(self, zxid: int, sync_ms: float) -> None:
        self._synced.append((zxid, sync_ms))
        doorbell = self._doorbell
        if doorbell is not None:
            doorbell.ring()
        else:
            post(self.loop, self._on_durable)

    def _failed_in_thread(self, error: BaseException) -> None:
        post(self.loop, self.fail, error)

    def _ended_in_thread(self) -> None:
        post(self.loop, self._log_ended.set_result, None)

    def _on_durable(self) -> None:
        self.read_clock()
        self._guarded(self._take_synced)
        self._guarded(self.flush)

    def _take_synced(self) -> None:
        """Commit what the log thread has made durable. The flush comes at the end of the turn."""
        while self._synced:
            zxid, sync_ms = self._synced.popleft()
            last_zxid = self._durable_zxid
            if zxid in (last_zxid, -1) or self.stopped.done():
                continue  # a wake-up to stop brings nothing new, or nothing at all (-1)
            self._durable_zxid = zxid
            # An epoch begins with counter 1.
            in_epoch = 0 <= zxid ^ last_zxid <= COUNTER_MASK
            self._count(zxid - last_zxid if in_epoch else zxid & COUNTER_MASK, sync_ms)
            self._tell_durable(zxid)

    def _count(self, txns: int, sync_ms: float) -> None:
        stats = self.server.stats
        stats.record("sync_processor_batch_size", txns)
        if not self._log.force_sync:
            return
        stats.record("fsynctime", int(sync_ms))
        if sync_ms > self._sync_warning_ms:
            stats.count("fsync_threshold_exceed_cnt")
            log.warning(
                "fsync-ing the write ahead log in %s took %dms which will adversely effect "
                "operation latency. See the ZooKeeper troubleshooting guide",
                THREAD,
                sync_ms,
            )

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is, we stop rather than be wrong
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Something of ours is broken: stop, rather than be wrong."""
        if self.stopped.done():
            return
        self.stopped.set_exception(error)
        self.server.stats.count("unrecoverable_error_count")
        # At once: what is queued for clients may be wrong, and what they send is not served.
        self.close_sockets()

    def close_sockets(self) -> None:
        """Close the listeners and all connections."""
        poller, self.poller = self.poller, None
        if poller is not None:
            poller.close()

    # ------------------------------------------------------------------ time

    def _set_timer(self) -> None:
        now_ms = time.monotonic() * 1000
        delay = (self.server.next_timer_ms() - now_ms) / 1000 + 0.0005
        delay = min(max(delay, 0.001), MAX_TIMER_SECONDS)
        self._timer = self.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._guarded(self._tick)

    def _tick(self) -> None:
        # A process that was stopped wakes up to late timers, and sometimes to no sockets (epoll
        # reports EINTR then): no session is to expire whose client has spoken meanwhile.
        if self.poller is not None:
            self.poller.catch_up()
        self.read_clock()
        self.server.tick()
        self.flush()
        self._set_timer()
