"""SyncRequestProcessor: the thread that makes txns durable, a batch at a time.

The loop appends, wakes it, and is told how far the disk is. Source: SyncRequestProcessor,
ZooKeeper 3.9.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkpy.persistence.txnlog import FileTxnLog


class LogWriter:
    """Commits the log whenever it is woken; reports each commit, or the error that ended it.

    `durable(zxid, sync_ms)` and `failed(error)` are called in the log thread. What is appended
    while a sync runs goes into the next one: one write and one sync for all that waits.
    """

    def __init__(
        self,
        txn_log: FileTxnLog,
        durable: Callable[[int, float], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._log = txn_log
        self._durable = durable
        self._failed = failed
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="SyncThread:0", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Txns have been appended."""
        self._wakes.put(True)

    def stop(self) -> None:
        """Commit what is left, then end the thread; returns once it has ended."""
        if self._thread.is_alive():
            self._wakes.put(False)
            self._thread.join()

    def _run(self) -> None:
        wakes = self._wakes
        log = self._log
        go_on = True
        try:
            while go_on:
                go_on = wakes.get()
                while not wakes.empty():
                    go_on = wakes.get() and go_on
                sync_ms = log.commit()
                self._durable(log.durable_zxid, sync_ms)
                if go_on and wakes.empty():
                    # Nobody waits: the zeros ahead cost no request anything.
                    log.prepare_ahead()
            log.close()
        except BaseException as error:  # noqa: BLE001 - nothing may be acknowledged any more
            self._failed(error)
