"""Server embedded in a program: start, stop, again, several at once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.server.aio.in_process import GatedDisk, InProcess, config_of, eventually
from tests.support import wire
from tests.support.oracle import PROJECT
from tests.support.rawclient import Closed, RawClient, four_letter_word, make, open_session

from zkpy.persistence.errors import DirectoryInUse, NoSnapshot
from zkpy.server.aio.main import Server
from zkpy.testing.disk import SimulatedDisk


def open_descriptors() -> int:
    gc.collect()  # what tests before this one have dropped is not to be counted the first time
    return len(os.listdir("/proc/self/fd"))


def create_and_close(address: tuple[str, int], path: str) -> None:
    with open_session(address) as client:
        make(client, path)
        client.end_session()


def children(address: tuple[str, int]) -> list[str]:
    with open_session(address) as client:
        names: list[str] = client.value(wire.GET_CHILDREN, wire.path_watch("/"))
        client.end_session()
        return sorted(names)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def own_threads() -> set[str]:
    """Names of the threads; not those of the executor, which grow in number as it likes."""
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if not name.startswith("asyncio_")}


def test_nothing_is_left_of_a_server_that_was_stopped(tmp_path: Path) -> None:
    async def several_lives() -> list[str]:
        names: list[str] = []
        for life in range(3):
            server = Server(config_of(data_dir=str(tmp_path), autopurge_purge_interval_hours=1))
            await server.start()
            address = ("127.0.0.1", server.port)
            idle = await asyncio.to_thread(open_session, address)
            await asyncio.to_thread(create_and_close, address, f"/life{life}")
            names = await asyncio.to_thread(children, address)
            await server.stop()
            idle.close()
            assert len(asyncio.all_tasks()) == 1
        return names

    async def twice() -> list[str]:
        # The first round loads modules and starts the executor's threads.
        await several_lives()
        before = open_descriptors(), own_threads()
        names = await several_lives_again()
        after = open_descriptors(), own_threads()
        assert after == before
        return names

    async def several_lives_again() -> list[str]:
        server = Server(config_of(data_dir=str(tmp_path)))
        for life in range(3, 6):
            await server.start()  # the same object again
            await asyncio.to_thread(create_and_close, ("127.0.0.1", server.port), f"/life{life}")
            names = await asyncio.to_thread(children, ("127.0.0.1", server.port))
            await server.stop()
            await server.wait()
        return names

    names = asyncio.run(twice())
    assert names == [f"life{life}" for life in range(6)] + ["zookeeper"]
    assert not [name for name in os.listdir(tmp_path / "version-2") if "tmp" in name]


def test_a_life_without_a_write_ends_cleanly(tmp_path: Path) -> None:
    async def run() -> None:
        server = Server(config_of(data_dir=str(tmp_path)))
        await server.start()
        await asyncio.to_thread(create_and_close, ("127.0.0.1", server.port), "/x")
        await server.stop()
        # On data from before, which the log thread has not written.
        await server.start()
        await server.stop()
        await server.wait()

    asyncio.run(run())


def test_two_servers_on_one_loop(tmp_path: Path) -> None:
    async def run() -> None:
        servers = [Server(config_of(data_dir=str(tmp_path / name))) for name in "ab"]
        for server in servers:
            await server.start()
        addresses = [("127.0.0.1", server.port) for server in servers]
        for name, address in zip("ab", addresses, strict=True):
            await asyncio.to_thread(create_and_close, address, f"/only-{name}")
        assert await asyncio.to_thread(children, addresses[0]) == ["only-a", "zookeeper"]
        await servers[0].stop()
        assert await asyncio.to_thread(children, addresses[1]) == ["only-b", "zookeeper"]
        await servers[1].stop()

    asyncio.run(run())


def test_one_directory_serves_one_server(tmp_path: Path) -> None:
    async def run() -> None:
        first = Server(config_of(data_dir=str(tmp_path)))
        await first.start()
        with pytest.raises(DirectoryInUse, match=r"version-2 is in use by another server"):
            await Server(config_of(data_dir=str(tmp_path))).start()
        await first.stop()
        second = Server(config_of(data_dir=str(tmp_path)))
        await second.start()
        await second.stop()

    asyncio.run(run())


def test_a_port_that_is_taken_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = Server(config_of(data_dir=str(tmp_path), client_port=port))
        with pytest.raises(OSError, match=rf"Address already in use \(127\.0\.0\.1:{port}\)"):
            asyncio.run(server.start())
    asyncio.run(started_and_stopped(Server(config_of(data_dir=str(tmp_path)))))


async def started_and_stopped(server: Server) -> None:
    await server.start()
    await server.stop()


def test_without_a_client_port_nobody_listens() -> None:
    with InProcess(client_port=None) as server:
        assert server.server.port == 0
        assert server.server.environment.client_port() == -1


@pytest.mark.parametrize(
    ("configured", "reachable", "not_reachable"),
    [
        ("127.0.0.1", "127.0.0.1", "::1"),
        ("::1", "::1", "127.0.0.1"),
        ("localhost", "127.0.0.1", "::1"),
        ("0.0.0.0", "::1", None),
        ("", "127.0.0.1", None),
    ],
)
def test_addresses(configured: str, reachable: str, not_reachable: str | None) -> None:
    if not socket.has_dualstack_ipv6() or not can_bind_ipv6():
        pytest.skip("no IPv6 here")
    with InProcess(client_port_address=configured) as server:
        port = server.server.port
        assert four_letter_word((reachable, port), "ruok") == "imok"
        if not_reachable is not None:
            with pytest.raises(ConnectionRefusedError):
                RawClient((not_reachable, port))


def can_bind_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_snapshot_at_the_start_unless_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = SimulatedDisk()
    with InProcess(disk) as server:
        assert disk.list_dir("/data/version-2").count("snapshot.0") == 1
        create_and_close(server.address, "/node")
    with InProcess(disk) as server:
        eventually(lambda: "snapshot.3" in disk.list_dir("/data/version-2"))
        mntr = four_letter_word(server.address, "mntr")
        eventually(lambda: "zk_cnt_snapshottime\t1" in four_letter_word(server.address, "mntr"))
    assert "zk_sum_startup_txns_loaded\t3\n" in mntr
    assert "zk_cnt_startup_snap_load_time\t1\n" in mntr
    assert "zk_cnt_dbinittime\t1\n" in mntr
    assert "Snapshotting: 0x3 to /data/version-2/snapshot.3" in caplog.text
    assert "Snapshot taken in" in caplog.text
    assert "highest zxid is 0x3, digest is" in caplog.text
    caplog.clear()
    with InProcess(disk) as server:
        assert children(server.address) == ["node", "zookeeper"]
    assert "Snapshotting" not in caplog.text


def test_an_empty_directory_where_none_is_expected_is_refused() -> None:
    disk = SimulatedDisk()
    with pytest.raises(NoSnapshot, match="create the file /data/initialize"):
        InProcess(disk, db_autocreate=False).__enter__()
    disk.put("/data/initialize", b"")
    with InProcess(disk, db_autocreate=False) as server:
        assert children(server.address) == ["zookeeper"]


def test_stopping_answers_what_was_proposed() -> None:
    disk = GatedDisk()
    server = InProcess(disk)
    with server:
        client = server.session()
        disk.close_gate()
        client.send(wire.CREATE, wire.create("/node"))
        eventually(lambda: disk.waiting)
        stopping = asyncio.run_coroutine_threadsafe(server.server.stop(), server.loop)
        with pytest.raises(TimeoutError):
            client.recv(0.1)
        disk.open_gate()
        assert client.recv().value(wire.CREATE) == "/node"
        client.expect_close()
        client.close()
        stopping.result(10)
    with InProcess(disk) as again:
        assert children(again.address) == ["node", "zookeeper"]


def test_stopping_tells_every_client(tmp_path: Path) -> None:
    with InProcess() as server:
        clients = [server.session() for _ in range(100)]
        server.run(server.server.stop())
        for client in clients:
            client.expect_close()
            client.close()
        with pytest.raises((ConnectionRefusedError, Closed)):
            RawClient(server.address)


def test_stopping_gives_up_a_snapshot_and_leaves_no_part_of_it() -> None:
    disk = GatedDisk(part="snapshot.")
    with InProcess(disk, snap_count=2) as server:
        client = server.session()
        disk.close_gate()
        for number in range(5):
            make(client, f"/node{number}")
        eventually(lambda: disk.waiting)
        stopping = asyncio.run_coroutine_threadsafe(server.server.stop(), server.loop)
        client.expect_close()
        client.close()
        assert not stopping.done(), "its thread still uses the directory"
        disk.open_gate()
        stopping.result(10)
    assert not [name for name in disk.list_dir("/data/version-2") if "tmp" in name]
    with InProcess(disk) as again:
        assert len(children(again.address)) == 6


def test_optimised_python_is_refused() -> None:
    code = (
        "from zkpy.server.aio.main import Server; from zkpy.server.settings import make_config\n"
        "Server(make_config(data_dir='/nowhere'))"
    )
    result = subprocess.run(
        [sys.executable, "-O", "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "not with python -O" in result.stderr
