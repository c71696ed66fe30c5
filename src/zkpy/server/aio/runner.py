"""Performs what the core asks for, once per loop turn: log, then sockets.

    ready sockets (any number) -> core -> flush: one hand-over to the log thread,
                                                 one socket write per client
    log thread -> _on_durable -> core -> flush

Owns the order of effects: a reply to a write exists only after `durable` has been called, so
nothing is acknowledged that is not on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from zkpy.server.aio.log_writer import LogWriter
from zkpy.server.zkserver import MAX_UNREAD_BYTES, ZooKeeperServer

if TYPE_CHECKING:
    from zkpy.persistence.txnlog import FileTxnLog
    from zkpy.server.aio.client_port import ClientPort
    from zkpy.server.aio.snapshots import Snapshots
    from zkpy.server.cnxn import ServerCnxn

log = logging.getLogger(__name__)

MAX_TIMER_SECONDS: Final = 3600.0


class Runner:
    """One server on one event loop.

    `stopped` is a future: its exception, if any, is why the server cannot go on.
    """

    def __init__(
        self,
        server: ZooKeeperServer,
        txn_log: FileTxnLog,
        snapshots: Snapshots,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.server = server
        self.loop = loop
        self.woken = False
        self.keep_alive = server.config.client_tcp_keep_alive
        self.stopped: asyncio.Future[None] = loop.create_future()
        self._log = txn_log
        self._snapshots = snapshots
        self._sync_warning_ms = server.config.fsync_warning_threshold_ms
        self._timer: asyncio.TimerHandle | None = None
        self.log_writer = LogWriter(txn_log, self._durable_in_thread, self._failed_in_thread)

    def start(self) -> None:
        """Start the log thread and the timer."""
        self.log_writer.start()
        self._set_timer()

    def close(self) -> None:
        """Make durable what has been proposed, answer it, and end the log thread."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        self.log_writer.stop()
        if self._log.durable_zxid > self.server.tree.last_processed_zxid:
            self.server.durable(self._log.durable_zxid)
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
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Perform what the core has asked for since the last flush."""
        self.woken = False
        server = self.server
        appended = server.zab.take_appended()
        if appended:
            append = self._log.append
            size = 0
            for zxid, txn in appended:
                append(zxid, txn)
                size += len(txn)
            self.log_writer.wake()
            if self._snapshots.appended(len(appended), size):
                self._log.roll()
        for cnxn in server.take_dirty():
            cnxn.dirty = False
            port: ClientPort | None = cnxn.transport  # type: ignore[assignment]
            if port is None:
                continue
            if cnxn.out:
                if cnxn.state:  # four letter words are no responses
                    server.stats.response_size(len(cnxn.out))
                port.send(cnxn.out)
                cnxn.out = bytearray()
            if cnxn.closed:
                port.hang_up()
            elif cnxn.held or port.paused:
                self._attend(cnxn, port)

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
        self.loop.call_soon_threadsafe(self._on_durable, zxid, sync_ms)

    def _failed_in_thread(self, error: BaseException) -> None:
        self.loop.call_soon_threadsafe(self.fail, error)

    def _on_durable(self, zxid: int, sync_ms: float) -> None:
        if sync_ms > self._sync_warning_ms:
            log.warning(
                "fsync-ing the write ahead log in SyncThread:0 took %dms which will adversely "
                "effect operation latency. See the ZooKeeper troubleshooting guide",
                sync_ms,
            )
        self.read_clock()
        if zxid > self.server.zab.committed_zxid:  # a wake-up to stop brings nothing new
            self.server.durable(zxid)
        self.flush()

    def fail(self, error: BaseException) -> None:
        """Something of ours is broken: stop, rather than be wrong."""
        if not self.stopped.done():
            self.stopped.set_exception(error)

    # ------------------------------------------------------------------ time

    def _set_timer(self) -> None:
        now_ms = time.monotonic() * 1000
        delay = (self.server.next_timer_ms() - now_ms) / 1000 + 0.0005
        delay = min(max(delay, 0.001), MAX_TIMER_SECONDS)
        self._timer = self.loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self.read_clock()
        self.server.tick()
        self.flush()
        self._set_timer()
