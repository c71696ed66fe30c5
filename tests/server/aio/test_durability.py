"""Nothing is acknowledged before it is on disk, and nothing any more once the disk has failed."""

from __future__ import annotations

import errno
import logging
from typing import Any

import pytest
from tests.server.aio.in_process import GatedDisk, InProcess, eventually
from tests.support import wire
from tests.support.rawclient import Closed, RawClient, make

from zkpy.persistence.errors import DiskWriteError
from zkpy.persistence.snapshot import SnapshotWriter
from zkpy.persistence.txnlog import FileTxnLog
from zkpy.testing.disk import CREATE, SYNC, WRITE, SimulatedDisk

GET = wire.path_watch("/node")


def test_a_write_is_answered_and_seen_only_when_it_is_on_disk() -> None:
    disk = GatedDisk()
    with InProcess(disk) as server:
        writer, reader = server.session(), server.session()
        writer.value(wire.CREATE, wire.create("/node", b"old"))
        assert reader.value(wire.GET_DATA, wire.path_watch("/node", True))[0] == b"old"
        disk.close_gate()
        writer.send(wire.SET_DATA, wire.set_data("/node", b"new"))
        writer.send(wire.GET_DATA, GET)  # its own write comes first
        eventually(lambda: disk.waiting)
        for _ in range(3):
            assert reader.value(wire.GET_DATA, GET)[0] == b"old"
        assert not reader.events
        with pytest.raises(TimeoutError):
            writer.recv(0.1)
        disk.open_gate()
        assert writer.recv().value(wire.SET_DATA).version == 1
        assert writer.recv().value(wire.GET_DATA)[0] == b"new"
        assert reader.recv_event().type == wire.NODE_DATA_CHANGED
        assert reader.value(wire.GET_DATA, GET)[0] == b"new"


def test_a_session_is_there_only_when_it_is_on_disk() -> None:
    disk = GatedDisk()
    with InProcess(disk) as server:
        make(server.session(), "/node")
        disk.close_gate()
        client = RawClient(server.address)
        client.send_connect()
        client.send(wire.GET_DATA, GET)
        eventually(lambda: disk.waiting)
        with pytest.raises(TimeoutError):
            client.recv_frame(0.1)
        disk.open_gate()
        assert client.recv_connect().session_id != 0
        assert client.recv().value(wire.GET_DATA)[0] == b""


def test_writes_that_wait_share_a_sync() -> None:
    disk = GatedDisk()
    with InProcess(disk) as server:
        clients = [server.session() for _ in range(10)]
        disk.close_gate()
        clients[0].send(wire.CREATE, wire.create("/node0"))
        eventually(lambda: disk.waiting)
        for number, client in enumerate(clients[1:], 1):
            client.send(wire.CREATE, wire.create(f"/node{number}"))
        eventually(lambda: server.call(lambda: len(server.server.zookeeper.in_flight)) == 10)
        syncs = disk.sync_count
        disk.open_gate()
        for number, client in enumerate(clients):
            assert client.recv().value(wire.CREATE) == f"/node{number}"
        assert disk.sync_count - syncs <= 3  # the first, the others, zeros ahead


@pytest.mark.parametrize("kind", [SYNC, WRITE])
def test_a_failing_log_ends_the_server_and_acknowledges_nothing(kind: str) -> None:
    disk = SimulatedDisk()
    with InProcess(disk) as server:
        writer, reader = server.session(), server.session()
        make(writer, "/node")
        disk.fail(kind, "log.", errno=errno.ENOSPC)
        writer.send(wire.SET_DATA, wire.set_data("/node", b"new"))
        writer.expect_close()
        reader.expect_close()
        error = server.failure()
        assert isinstance(error, DiskWriteError)
        assert error.exit_code == 10
        assert "/data/version-2/log.1" in str(error)
        assert "No space left on device" in str(error)
        if kind == WRITE:
            assert error.offset
    # A start after it finds all that was acknowledged.
    disk.restart()
    with InProcess(disk) as again:
        stat = again.session().value(wire.EXISTS, GET)
        assert stat.version in (0, 1)


def test_a_failing_snapshot_ends_the_server() -> None:
    disk = SimulatedDisk()
    with InProcess(disk, snap_count=2) as server:
        client = server.session()
        disk.fail(CREATE, "snapshot.", errno=errno.EIO)
        with pytest.raises(Closed):
            for number in range(100):
                make(client, f"/node{number}")
        error = server.failure()
        assert isinstance(error, DiskWriteError)
        assert "snapshot." in error.path
        assert error.reason == "Input/output error"


def test_a_dying_log_thread_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess() as server:
        client = server.session()

        def commit(_log: FileTxnLog) -> float:
            raise MemoryError

        monkeypatch.setattr(FileTxnLog, "commit", commit)
        client.send(wire.CREATE, wire.create("/node"))
        client.expect_close()
        error = server.failure()
        monkeypatch.undo()
    assert str(error) == "/data/version-2: SyncThread:0 died: MemoryError()"
    assert isinstance(error, DiskWriteError)
    assert error.exit_code == 10


def test_a_dying_snapshot_thread_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_writer: SnapshotWriter) -> None:
        raise MemoryError

    with InProcess() as server:
        monkeypatch.setattr(SnapshotWriter, "commit", write)
        snapshots = server.server._snapshots
        assert snapshots is not None
        server.call(snapshots.start)
        error = server.failure()
    assert str(error) == "/data/version-2/snapshot.0: Snapshot Thread died: MemoryError()"


@pytest.mark.parametrize("where", ["received", "durable", "tick"])
def test_a_bug_ends_the_server(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess() as server:
        client = server.session()
        core = server.server.zookeeper

        def broken(*_arguments: Any) -> None:
            raise AssertionError("it is wrong")

        monkeypatch.setattr(type(core), where, broken)
        if where == "tick":
            runner = server.server._runner
            assert runner is not None
            server.call(runner._on_timer)
        else:
            client.send(wire.CREATE, wire.create("/node"))
        client.expect_close()
        assert str(server.failure()) == "it is wrong"


def test_a_slow_sync_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()
    disk.sync_ms = 1234.5
    with InProcess(disk) as server:
        make(server.session(), "/node")
        stats = server.server.zookeeper.stats
        eventually(lambda: stats.summaries["fsynctime"].count == 2)
        assert stats.summaries["fsynctime"].max == 1234
        assert stats.summaries["sync_processor_batch_size"].total == 2
        assert stats.counters["fsync_threshold_exceed_cnt"] == 2
    assert "fsync-ing the write ahead log in SyncThread:0 took 1234ms" in caplog.text


def test_force_sync_no_syncs_nothing() -> None:
    disk = SimulatedDisk()
    with InProcess(disk, force_sync=False) as server:
        syncs = disk.sync_count
        make(server.session(), "/node")
        assert disk.sync_count == syncs
        assert "fsynctime" not in server.server.zookeeper.stats.summaries


def test_log_files_end_at_their_size_limit() -> None:
    disk = SimulatedDisk()
    with InProcess(disk, txn_log_size_limit_kib=2) as server:
        client = server.session()
        for number in range(30):
            client.value(wire.CREATE, wire.create(f"/node{number}", bytes(300)))
    logs = [name for name in disk.list_dir("/data/version-2") if name.startswith("log.")]
    assert len(logs) >= 4
    with InProcess(disk) as again:
        assert len(again.session().value(wire.GET_CHILDREN, wire.path_watch("/"))) == 31


def test_snapshots_are_taken_and_logs_rolled_by_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = SimulatedDisk()
    with InProcess(disk, snap_count=10) as server:
        client = server.session()
        for number in range(40):
            make(client, f"/node{number}")
        running = server.server._snapshots
        assert running is not None
        eventually(lambda: running.running is None)
        assert running.last_zxid > 20
    names = disk.list_dir("/data/version-2")
    assert sum(name.startswith("snapshot.") for name in names) >= 4
    assert sum(name.startswith("log.") for name in names) >= 4
    with InProcess(disk) as again:
        assert len(again.session().value(wire.GET_CHILDREN, wire.path_watch("/"))) == 41
