"""Power cuts at any moment: every acknowledged zxid is there after the restart, in one history.

A random server life on a simulated disk: appends, commits, zeros ahead, rolls, snapshots in slices,
purges, truncations; then a crash before a random operation, and the next life on what is left.
"""

from __future__ import annotations

from random import Random

import pytest
from tests.datatree.tree_compare import content
from tests.persistence.data_dir import apply_bytes, create, set_data, store_on

from zkpy.datatree.serialize import serialize_tree
from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import CorruptFile, DiskWriteError
from zkpy.persistence.purge import purge
from zkpy.persistence.store import FileTxnSnapLog, LoadedDatabase
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

CHANGING = (
    faults.CREATE,
    faults.WRITE,
    faults.SYNC,
    faults.RENAME,
    faults.REMOVE,
    faults.SYNC_DIR,
    faults.TRUNCATE,
)


class PowerCut(Exception):
    pass


class Life:
    """A server from start to crash, over and over. `acked`: zxid -> txn that must never change."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.disk = SimulatedDisk(rng)
        self.acked: dict[int, bytes] = {}
        self.appended: dict[int, bytes] = {}
        self.left = 0
        # Sometimes tiny steps, so that zeros end often.
        self.preallocate_bytes = rng.choice([0, 100, 4096, 16384])

    def _before(self, kind: str, path: str) -> None:
        if kind in CHANGING:
            self.left -= 1
            if self.left < 0:
                raise PowerCut

    def start(self) -> tuple[FileTxnSnapLog, LoadedDatabase]:
        store = store_on(self.disk, preallocate_bytes=self.preallocate_bytes)
        loaded = store.restore()
        self.check(loaded)
        return store, loaded

    def check(self, loaded: LoadedDatabase) -> None:
        last_acked = max(self.acked, default=0)
        assert last_acked <= loaded.last_zxid <= max(self.appended, default=0)
        # What was found is the history from now on: it was written, if not acknowledged.
        history = {zxid: txn for zxid, txn in self.appended.items() if zxid <= loaded.last_zxid}
        for zxid, txn in self.acked.items():
            assert history[zxid] == txn
        expected = DataTree()
        for zxid in sorted(history):
            apply_bytes(expected, history[zxid])
        assert content(loaded.tree) == content(expected)
        self.acked = dict(history)
        self.appended = dict(history)

    def live(self, operations: int) -> None:
        """Run until the power is cut."""
        self.left = operations
        self.disk.before = self._before
        try:
            store, loaded = self.start()
            tree = loaded.tree
            while True:
                self.act(store, tree)
        except PowerCut:
            pass
        self.disk.before = None

    def act(self, store: FileTxnSnapLog, tree: DataTree) -> None:
        choice = self.rng.random()
        if choice < 0.55:
            self.append(store, tree)
        elif choice < 0.8:
            self.commit(store)
        elif choice < 0.87:
            store.log.prepare_ahead()
        elif choice < 0.92:
            store.log.roll()
        elif choice < 0.97:
            self.snapshot(store, tree)
        else:
            purge(self.disk, store.snap_directory, store.log_directory, 3)

    def append(self, store: FileTxnSnapLog, tree: DataTree) -> None:
        zxid = store.log.last_zxid + 1
        data = bytes([zxid & 0xFF]) * self.rng.choice([1, 30, 700, 5000])
        if zxid % 3:
            # Its real cversion: "one more than it has" would not bear a second replay.
            txn = create(zxid, f"/n{zxid}", data, zxid - zxid // 3)
        else:
            txn = set_data(zxid, data)
        self.appended[zxid] = txn
        store.log.append(zxid, txn)
        apply_bytes(tree, txn)

    def commit(self, store: FileTxnSnapLog) -> None:
        store.log.commit()
        for zxid in range(1, store.log.durable_zxid + 1):
            self.acked[zxid] = self.appended[zxid]

    def snapshot(self, store: FileTxnSnapLog, tree: DataTree) -> None:
        # Only what is durable is applied, and so shown.
        self.commit(store)
        writer = store.snap.writer(tree)
        for data in serialize_tree(tree):
            writer.feed(data)
            if self.rng.random() < 0.3:
                writer.write()
            if self.rng.random() < 0.3:
                self.append(store, tree)
                self.commit(store)
        store.snap.finish(writer, tree)
        writer.commit()


@pytest.mark.seeds(60)
def test_power_cuts(seed: int) -> None:
    rng = Random(seed)
    life = Life(rng)
    for _ in range(8):
        life.live(rng.choice([3, 10, 40, 120]))
        life.disk.crash(rng)
    life.start()


@pytest.mark.seeds(40)
def test_power_cuts_that_lose_sectors(seed: int) -> None:
    """A record larger than a sector may lose its middle: refused, but only if unacknowledged."""
    rng = Random(seed)
    life = Life(rng)
    for _ in range(8):
        life.live(rng.choice([3, 10, 40, 120]))
        life.disk.crash(rng, torn_in_sectors=True)
        store = store_on(life.disk, preallocate_bytes=life.preallocate_bytes)
        try:
            store.restore()
        except CorruptFile as error:
            # What is before the damage is all that was promised.
            assert "CRC check failed" in str(error)
            assert error.offset is not None
            file = life.disk.open(error.path)
            file.truncate(error.offset)
            file.fdatasync()
        life.disk.restart()
    life.start()


@pytest.mark.parametrize("kind", CHANGING)
@pytest.mark.seeds(6)
def test_failing_disks_stop_the_server_and_lose_nothing(kind: str, seed: int) -> None:
    rng = Random(seed)
    life = Life(rng)
    for _ in range(6):
        life.disk.fail(kind, after=rng.choice([3, 10, 30]))
        life.left = 150
        life.disk.before = life._before
        try:
            store, loaded = life.start()
            while True:
                life.act(store, loaded.tree)
        except (DiskWriteError, PowerCut):
            pass
        life.disk.before = None
        if rng.random() < 0.5:
            life.disk.crash(rng)
        else:
            life.disk.restart()
    life.start()


@pytest.mark.seeds(20)
def test_full_disks(seed: int) -> None:
    rng = Random(seed)
    life = Life(rng)
    for _ in range(6):
        life.disk.capacity_bytes = life.disk.used_bytes() + rng.choice([0, 10, 500, 5000, 50_000])
        try:
            store, loaded = life.start()
            for _ in range(400):
                life.act(store, loaded.tree)
        except DiskWriteError as error:
            assert "No space left on device" in str(error)
        life.disk.capacity_bytes = None
        if rng.random() < 0.5:
            life.disk.crash(rng)
        else:
            life.disk.restart()
        store, loaded = life.start()
        assert store.log.last_zxid == loaded.last_zxid
        store.close()
