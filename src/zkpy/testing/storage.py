"""What a simulated host does with its disk beside the loop: the log thread, and snapshots."""

from __future__ import annotations

from collections import deque

from zkpy.datatree.serialize import serialize_tree
from zkpy.persistence.purge import purge
from zkpy.server.database import ZKDatabase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from zkpy.datatree.tree import DataTree
    from zkpy.persistence.snapshot import SnapshotWriter
    from zkpy.testing.host import Host

SLICE_US: Final = 1500


class SimulatedDatabase(ZKDatabase):
    """Tells the host what is on its disk, so that commits can be checked."""

    host: Host

    def truncate(self, zxid: int) -> bool:
        try:
            done = super().truncate(zxid)
        except BaseException:
            # It may have removed something before it failed.
            self.host.durable_zxid = min(self.host.durable_zxid, zxid)
            raise
        if done:
            self.host.durable_zxid = zxid
            self.host.cluster.count("TRUNC")
        return done

    def install_snapshot(self, receiver: Any, zxid: int) -> None:
        super().install_snapshot(receiver, zxid)
        self.host.cluster.count("SNAP")
        self.host.cluster.on_snap(self.host)

    def save_snapshot(self) -> None:
        host = self.host
        try:
            super().save_snapshot()
        except BaseException:
            host.durable_zxid = min(host.durable_zxid, self.last_zxid)
            raise
        # If the tree came from a leader, the log has gone, with txns that nobody had committed.
        host.durable_zxid = max(self.last_zxid, min(host.durable_zxid, self.store.log.last_zxid))

    def load(self) -> Any:
        loaded = super().load()
        self.host.durable_zxid = loaded.last_zxid
        return loaded


class Snapshots:
    """Takes a snapshot of one tree now and then, a slice at a time."""

    def __init__(self, host: Host, tree: DataTree) -> None:
        self.host = host
        self.tree = tree
        self.writer: SnapshotWriter | None = None
        self.slices: Iterator[bytes] = iter(())
        self._reset()

    def _reset(self) -> None:
        half = self.host.config.snap_count // 2
        self._left = half + self.host.rng.randrange(max(1, half))

    def appended(self, txns: int) -> bool:
        """Count what was logged; whether the log is to be rolled."""
        self._left -= txns
        if self._left >= 0:
            return False
        self._reset()
        if self.writer is None:
            self.writer = self.host.store.snap.writer(self.tree)
            self.slices = serialize_tree(self.tree)
            self._later()
        return True

    def _later(self) -> None:
        self.host.later(self.host.rng.randrange(SLICE_US), self._slice, self.writer)

    def _slice(self, writer: SnapshotWriter) -> None:
        host = self.host
        if writer is not self.writer:
            return
        for _ in range(host.rng.randint(1, 4)):
            data = next(self.slices, None)
            if data is None:
                host.store.snap.finish(writer, self.tree)
                writer.commit()
                self.writer = None
                host.cluster.count("snapshot")
                purge(host.disk, host.store.snap_directory, host.store.log_directory, 3)
                return
            writer.feed(data)
        self._later()

    def abort(self) -> None:
        """Give up what is under way."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.abort()


class LogThread:
    """Commits what is appended to the log, a batch at a time, and tells the member.

    The disk takes `Host.sync_us`; a crash may come between the moment a batch is durable and the
    one in which the loop hears of it.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.log = host.store.log
        self._busy = False
        self._more = False
        # What is durable, and the member has not been told yet; what it was told last.
        self._synced: deque[int] = deque()
        self._reported_zxid = self.log.last_zxid

    def wake(self) -> None:
        """Something has been appended."""
        if self._busy:
            self._more = True
            return
        self._busy = True
        rng = self.host.rng
        duration_us = rng.randrange(*self.host.sync_us)
        first_us = rng.randrange(duration_us)
        self.host.later(first_us, self._commit, duration_us - first_us)

    def _commit(self, rest_us: int) -> None:
        self._more = False
        self.log.commit()
        self.host.is_durable(self.log.durable_zxid)
        self._synced.append(self.log.durable_zxid)
        self.host.later(rest_us, self._committed)

    def _committed(self) -> None:
        self._busy = False
        while self._synced:
            zxid = self._synced.popleft()
            if zxid != self._reported_zxid:
                self._reported_zxid = zxid
                self.host.member.durable(zxid)
        if self._more:
            self.wake()

    def quiesce(self) -> None:
        """The core is about to cut log or snapshots."""
        self.host.snapshots.abort()
        self.log.commit()
        self._more = False
        self.host.is_durable(self.log.durable_zxid)
        # As in server/aio/member.py: what is not reported yet was of the time before.
        self._synced.clear()
        self._reported_zxid = -1
