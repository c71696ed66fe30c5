"""SyncRequestProcessor: the thread that makes txns durable, a batch at a time.

The loop appends, wakes it, and is told how far the disk is. Source: SyncRequestProcessor,
ZooKeeper 3.9.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from zkpy.persistence.errors import DiskWriteError, PersistenceError

if TYPE_CHECKING:
    from zkpy.persistence.txnlog import FileTxnLog
    from zkpy.server.settings import Config

THREAD: Final = "SyncThread:0"
_STOP: Final = 0
_QUIESCE: Final = -1
QUIESCE_POLL_SECONDS: Final = 0.5


class LogWriter:
    """Commits the log whenever it is woken; reports each commit, or the error that ended it.

    `durable(zxid, sync_ms)`, `failed(error)` and, at last, `ended()` are called in the log thread.
    What is appended while a sync runs goes into the next one: one write and one sync for all that
    waits. `flushDelay` lets a batch wait for more: until so many ms have passed since the last
    one, `maxBatchSize` txns wait, or none has come for `maxWriteQueuePollTime` ms.
    """

    def __init__(
        self,
        txn_log: FileTxnLog,
        config: Config,
        durable: Callable[[int, float], None],
        failed: Callable[[BaseException], None],
        ended: Callable[[], None],
    ) -> None:
        self._log = txn_log
        self._durable = durable
        self._failed = failed
        self._ended = ended
        self._flush_delay = config.flush_delay_ms / 1000
        self._poll_time = max(0, config.max_write_queue_poll_time_ms) / 1000
        self._max_batch_size = config.max_batch_size
        self._last_commit = time.monotonic()
        self._quiesced_early = False  # while more txns were waited for
        self._wakes: SimpleQueue[int] = SimpleQueue()
        self._quiet = threading.Event()
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self, txns: int) -> None:
        """So many have been appended, at least one."""
        self._wakes.put(txns)

    def stop(self) -> None:
        """Commit what is left, then end the thread, which says so with `ended`."""
        self._wakes.put(_STOP)

    def quiesce(self) -> None:
        """Return once all that was appended is committed and the thread waits for a wake-up.

        Until the next `wake` the log belongs to the caller. Returns as well when the thread is
        gone, be it by an error.
        """
        self._quiet.clear()
        self._wakes.put(_QUIESCE)
        while not self._quiet.wait(QUIESCE_POLL_SECONDS):
            if not self._thread.is_alive():
                return

    def _run(self) -> None:
        wakes = self._wakes
        log = self._log
        go_on = True
        try:
            while go_on:
                quiesce = False
                if self._flush_delay > 0:
                    go_on = self._gather()
                else:
                    wake = wakes.get()
                    go_on, quiesce = wake != _STOP, wake == _QUIESCE
                while not wakes.empty():
                    wake = wakes.get()
                    go_on, quiesce = wake != _STOP and go_on, quiesce or wake == _QUIESCE
                sync_ms = log.commit()
                self._durable(log.durable_zxid, sync_ms)
                if quiesce or self._quiesced_early:
                    self._quiesced_early = False
                    self._quiet.set()
                elif go_on and wakes.empty():
                    # Nobody waits: the zeros ahead cost no request anything.
                    log.prepare_ahead()
            log.close()
        except PersistenceError as error:
            self._failed(error)
        except BaseException as error:  # noqa: BLE001 - nothing may be acknowledged any more
            died = DiskWriteError(log.directory, f"{THREAD} died: {error!r}")
            died.__cause__ = error
            self._failed(died)
        finally:
            self._ended()

    def _gather(self) -> bool:
        """Wait for txns, then for more as long as those may wait; False when told to stop."""
        txns = total = self._wakes.get()
        while txns > 0 and not 0 < self._max_batch_size <= total:
            left = self._last_commit + self._flush_delay - time.monotonic()
            if left <= 0:
                break
            try:
                txns = self._wakes.get(timeout=min(left, self._poll_time))
            except Empty:
                break
            total += txns
        self._last_commit = time.monotonic()
        self._quiesced_early = txns == _QUIESCE
        return txns != _STOP
