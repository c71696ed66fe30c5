"""zkpy's server as a process: exit codes, what it says, signals, kill -9, a full disk.

Exit codes and headlines are those of section 1.8 of the operations reference.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support import wire
from tests.support.oracle import PROJECT, ZkpyServer, free_port
from tests.support.rawclient import (
    Closed,
    RawClient,
    Reply,
    four_letter_word,
    make,
    open_session,
)

pytestmark = pytest.mark.interop

INVALID = "Invalid config, exiting abnormally"
UNEXPECTED = "Unexpected exception, exiting abnormally"
NO_DATADIR = "Unable to access datadir, exiting abnormally"
GOLDEN_LOG = PROJECT / "tests" / "golden" / "disk" / "standalone-395" / "version-2"
WAIT_S = 20.0


class Result:
    """How a process that did not serve ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.stdout = process.stdout
        lines = process.stdout.splitlines()
        self.log = [line for line in lines if re.match(r"\d{4}-\d\d-\d\d ", line)]
        self.stderr = process.stderr.splitlines()


def zkpy(
    *arguments: str,
    python: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run the command, which must end by itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ZOO")}
    return Result(
        subprocess.run(
            [sys.executable, *python, "-m", "zkpy.cli.server", *arguments],
            env={**clean, "PYTHONPATH": str(PROJECT / "src"), **(env or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    )


def start(folder: Path, lines: Mapping[str, object], **options: Any) -> Result:
    """Start with a configuration that keeps it from serving."""
    settings: dict[str, object] = {
        "dataDir": folder / "data",
        "clientPort": free_port(),
        "clientPortAddress": "127.0.0.1",
        "admin.enableServer": "false",
        **lines,
    }
    config = folder / "zoo.cfg"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return zkpy("start-foreground", str(config), **options)


# ---------------------------------------------------------------------- that does not start


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ({"tickTime": 0}, "tickTime is not set"),
        ({"tickTime": "abc"}, 'NumberFormatException: For input string: "abc" (tickTime)'),
        ({"dataDir": ""}, "dataDir is not set"),
        ({"clientPort": 70000}, "port out of range:70000 (clientPort)"),
        (
            {"clientPortAddress": "no.such.host.invalid"},
            "no.such.host.invalid: Name or service not known",
        ),
    ],
)
def test_a_bad_configuration(tmp_path: Path, lines: dict[str, object], reason: str) -> None:
    result = start(tmp_path, lines)
    assert result.code == 2
    line = f"{INVALID}: Error processing {tmp_path}/zoo.cfg: {reason}"
    assert result.stderr == [f"Using config: {tmp_path}/zoo.cfg", line]
    assert result.log[-2].endswith(f"- {line}")
    assert " - ERROR [" in result.log[-2]
    assert result.log[-1].endswith("- Exiting with code 2")
    assert not (tmp_path / "data").exists()


def test_a_missing_configuration(tmp_path: Path) -> None:
    result = zkpy("start-foreground", str(tmp_path / "zoo.cfg"))
    assert result.code == 2
    path = tmp_path / "zoo.cfg"
    assert result.stderr[-1] == f"{INVALID}: Error processing {path}: {path} file is missing"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = start(tmp_path, {"clientPort": port})
    assert result.code == 1
    assert result.stderr[-1] == f"{UNEXPECTED}: Address already in use (127.0.0.1:{port})"
    assert result.log[-1].endswith("- Exiting with code 1")


def test_a_missing_directory_that_must_not_be_made(tmp_path: Path) -> None:
    result = start(tmp_path, {"datadir.autocreate": "false"})
    assert result.code == 3
    assert result.stderr[-1].startswith(f"{NO_DATADIR}: Missing data directory {tmp_path}/data/")
    assert not (tmp_path / "data").exists()


def test_the_same_asked_for_by_the_environment(tmp_path: Path) -> None:
    result = start(tmp_path, {}, env={"ZOO_DATADIR_AUTOCREATE_DISABLE": "1"})
    assert result.code == 3
    assert f"{NO_DATADIR}: Missing data directory" in result.stderr[-1]


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    result = start(tmp_path, {})
    assert result.code == 3
    assert result.stderr[-1].startswith(
        f"{NO_DATADIR}: Unable to create data directory {tmp_path}/data/version-2"
    )


def test_a_directory_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "data" / "version-2").mkdir(parents=True)
    data = tmp_path / "data"
    if os.geteuid() != 0:
        (data / "version-2").chmod(0o500)
        result = start(tmp_path, {})
    elif subprocess.run(["mount", "--bind", data, data], capture_output=True).returncode == 0:
        # Permissions do not bind root, but a file system that is read-only does.
        subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
        try:
            result = start(tmp_path, {})
        finally:
            subprocess.run(["umount", data], check=True)
    else:
        pytest.skip("root without the right to mount")
    assert result.code == 3
    assert result.stderr[-1] == (
        f"{NO_DATADIR}: Cannot write to data directory {tmp_path}/data/version-2"
    )


def test_logs_and_snapshots_in_the_wrong_places(tmp_path: Path) -> None:
    (tmp_path / "data" / "version-2").mkdir(parents=True)
    (tmp_path / "data" / "version-2" / "log.1").write_bytes(b"")
    result = start(tmp_path, {"dataLogDir": tmp_path / "logs"})
    assert result.code == 3
    assert f"{NO_DATADIR}: Snapshot directory has log files." in result.stderr[-1]


def test_two_servers_on_one_directory(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path / "server") as server:
        result = start(tmp_path, {"dataDir": server.data_dir})
        assert result.code == 3
        assert server.process is not None
        assert result.stderr[-1] == (
            f"{NO_DATADIR}: Data directory {server.data_dir}/version-2 is in use by another server "
            f"(process {server.process.pid}); two servers on one directory would destroy its data"
        )
        make(open_session(server.address), "/unharmed")


def test_a_damaged_log(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path / "server") as server:
        client = open_session(server.address)
        make(client, *(f"/node{number}" for number in range(10)))
    (log,) = (server.data_dir / "version-2").glob("log.*")
    content = bytearray(log.read_bytes())
    content[200] ^= 1
    log.write_bytes(content)
    result = start(tmp_path, {"dataDir": server.data_dir})
    assert result.code == 1
    assert re.fullmatch(
        rf"{UNEXPECTED}: {re.escape(str(log))} at offset \d+: CRC check failed", result.stderr[-1]
    )


def test_a_log_without_a_snapshot(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path / "server") as server:
        make(open_session(server.address), "/node")
    for snapshot in (server.data_dir / "version-2").glob("snapshot.*"):
        snapshot.unlink()
    result = start(tmp_path, {"dataDir": server.data_dir})
    assert result.code == 1
    assert result.stderr[-1].startswith(
        f"{UNEXPECTED}: No snapshot found, but there are log entries. Something is broken!"
    )


def test_ttl_nodes_without_extended_types(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path / "server", {"extendedTypesEnabled": "true"}) as server:
        client = open_session(server.address)
        client.value(wire.CREATE_TTL, wire.create_ttl("/ttl", b"", ttl_ms=1_000_000))
    result = start(tmp_path, {"dataDir": server.data_dir})
    assert result.code == 1
    assert "has TTL nodes (/ttl), but extendedTypesEnabled is false" in result.stderr[-1]
    assert "Set zookeeper.extendedTypesEnabled=true" in result.stderr[-1]


def test_optimised_python_is_refused() -> None:
    result = zkpy("version", python=("-O",))
    assert result.code == 2
    assert result.stderr == ["zkpy-server does not run with -O: its assertions guard data"]


# ---------------------------------------------------------------------- the command line


def test_words_of_the_command_line(tmp_path: Path) -> None:
    assert zkpy("version").stdout.startswith("Apache ZooKeeper, version 3.")
    for words in ((), ("frobnicate",), ("start-foreground", "a", "b")):
        result = zkpy(*words)
        assert result.code == 2
        assert result.stderr[0].startswith("Usage: zkpy-server [--config <conf-dir>]")
    result = zkpy("--help")
    assert result.code == 0
    assert "--config <dir>" in result.stdout
    result = zkpy("1", "2", "3", "4", "5")
    assert result.code == 2
    assert result.stderr[-1].startswith("Usage: ZooKeeperServerMain configfile | port datadir")
    result = zkpy("print-cmd", "here.cfg", "-Dzookeeper.snapCount=7", cwd=tmp_path)
    assert result.code == 0
    assert result.stdout.endswith(
        f"-m zkpy.cli.server start-foreground {tmp_path}/conf/here.cfg -Dzookeeper.snapCount=7\n"
    )


def test_a_port_and_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    class PlainServer(ZkpyServer):
        def command(self) -> list[str]:
            module = [sys.executable, "-m", "zkpy.cli.server"]
            return [*module, str(self.port), str(self.data_dir), "1000", "5"]

    with PlainServer(tmp_path, properties={"zookeeper.4lw.commands.whitelist": "conf"}) as server:
        conf = four_letter_word(server.address, "conf")
        assert "tickTime=1000\n" in conf
        assert "maxClientCnxns=5\n" in conf


def test_what_is_configured_and_not_served_is_said_once(tmp_path: Path) -> None:
    config = {
        "secureClientPort": free_port(),
        "admin.enableServer": "true",
        "metricsProvider.className": (
            "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider"
        ),
        "audit.enable": "true",
        "forceSync": "no",
        "tickTme": 7,
    }
    with ZkpyServer(tmp_path, config) as server:
        text = server.log_path.read_text()
    for words in (
        "secureClientPort=",
        "admin.serverPort=8080",
        "metricsProvider.httpPort=7000",
        "audit.enable=true",
        "forceSync=no",
        "unknown configuration key 'tickTme' (did you mean 'tickTime'?)",
    ):
        (line,) = [line for line in text.splitlines() if words in line]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[myid:\] - WARN  \[main:", line)


def test_lines_an_operator_looks_for(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path, {"autopurge.purgeInterval": 24}) as server:
        make(open_session(server.address), "/node")
        server.restart()
        assert server.stop() == 0
        text = server.log_path.read_text()
    for words in (
        "Reading configuration from: ",
        "Either no config or no quorum defined in config, running in standalone mode",
        f"binding to port 127.0.0.1:{server.port}",
        "Created server with tickTime 500 ms minSessionTimeout 1000 ms maxSessionTimeout 60000 ms ",
        "Snapshot loaded in ",
        "autopurge.snapRetainCount set to 3",
        "Purge task started.",
        "Purge task completed.",
        "Snapshotting: 0x2 to ",
        "SIGTERM: shutting down",
        "Exiting with code 0",
    ):
        assert words in text


# ---------------------------------------------------------------------- that is stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop_with_many_clients(tmp_path: Path, number: signal.Signals) -> None:
    with ZkpyServer(tmp_path, {"snapCount": 200}) as server:
        clients = [open_session(server.address) for _ in range(300)]
        busy = open_session(server.address)
        for count in range(150):
            busy.send(wire.CREATE, wire.create(f"/node{count}", bytes(1000)))
        assert server.process is not None
        start_s = time.monotonic()
        server.process.send_signal(number)
        server.process.send_signal(number)  # an impatient operator
        assert server.process.wait(WAIT_S) == 0
        assert time.monotonic() - start_s < 2
        for client in clients:
            client.expect_close()
            client.close()
        acknowledged = replies_of(busy)
        server.kill()
        server.start()
        names = open_session(server.address).value(wire.GET_CHILDREN, wire.path_watch("/"))
        assert len(names) - 1 >= sum(reply.err == 0 for reply in acknowledged)


def replies_of(client: RawClient) -> list[Reply]:
    """What still arrives before the server closes."""
    found = []
    try:
        while True:
            found.append(client.recv(2.0))
    except (Closed, TimeoutError):
        return found


def test_a_stop_while_it_loads_and_while_it_takes_a_snapshot(tmp_path: Path) -> None:
    server = ZkpyServer(tmp_path, {"snapCount": 1_000_000, "jute.maxbuffer": 4_000_000})
    with server:
        client = open_session(server.address)
        for first in range(0, 30_000, 1000):
            paths = [f"/{number}" for number in range(first, first + 1000)]
            multi = wire.multi((wire.CREATE, wire.create(path, bytes(300))) for path in paths)
            assert client.call(wire.MULTI, multi).err == 0
        server.kill()
        for delay_s in (0.0, 0.03, 0.1, 0.2, 0.4):
            server._write_config()
            with server.log_path.open("wb") as log:
                process = subprocess.Popen(
                    server.command(), env=server.environment(), stdout=log, stderr=log
                )
            try:
                # Its signals are handled by then.
                deadline = time.monotonic() + WAIT_S
                while "Starting server" not in server.log_path.read_text():
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                time.sleep(delay_s)
                start_s = time.monotonic()
                process.terminate()
                assert process.wait(WAIT_S) == 0
                assert time.monotonic() - start_s < 2
            finally:
                process.kill()
                process.wait()
        server.start()
        assert not list((server.data_dir / "version-2").glob("zkpy-tmp.log*"))
        names = open_session(server.address).value(wire.GET_CHILDREN, wire.path_watch("/"))
        assert len(names) == 30_001


def test_a_stopped_process_does_not_expire_who_has_spoken(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path, {"tickTime": 250, "minSessionTimeout": 500}) as server:
        client = open_session(server.address, timeout_ms=500)
        make(client, "/mine", flags=wire.EPHEMERAL)
        silent = open_session(server.address, timeout_ms=500)
        make(silent, "/its", flags=wire.EPHEMERAL)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        client.send(wire.PING)
        time.sleep(1.5)
        server.process.send_signal(signal.SIGCONT)
        assert client.recv().xid == -2
        assert client.value(wire.EXISTS, wire.path_watch("/mine")).num_children == 0
        silent.expect_close()
        assert client.call(wire.EXISTS, wire.path_watch("/its")).err == wire.NO_NODE
        client.value(wire.CREATE, wire.create("/after"))


# ---------------------------------------------------------------------- that is killed


class Load(threading.Thread):
    """One client that writes as fast as it can until the server is gone.

    `acknowledged`: path -> data. `versions`: of a node it sets over and over, the last sent and the
    last acknowledged. `pairs`: nodes made two at a time by a multi.
    """

    def __init__(self, address: tuple[str, int], name: str, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.client = open_session(address, timeout_ms=30_000)
        self.random = random.Random(seed)
        self.acknowledged: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.version_sent = 0
        self.version_acknowledged = 0
        self.error: BaseException | None = None
        make(self.client, f"/{name}", f"/{name}/version")
        self.value_of_ephemeral()

    def value_of_ephemeral(self) -> None:
        self.ephemeral = f"/{self.name}/ephemeral"
        make(self.client, self.ephemeral, flags=wire.EPHEMERAL)

    def run(self) -> None:
        number = 0
        try:
            while True:
                batch: list[tuple[int, str, bytes]] = []
                for _ in range(self.random.randint(1, 20)):
                    number += 1
                    batch.append(self.write(number))
                for op, path, data in batch:
                    self.answered(self.client.recv_reply(), op, path, data)
        except (Closed, OSError):
            pass
        except BaseException as error:
            self.error = error

    def write(self, number: int) -> tuple[int, str, bytes]:
        path = f"/{self.name}/{number}"
        data = self.random.randbytes(self.random.choice((0, 10, 100, 3000)))
        op = self.random.choice((wire.CREATE, wire.CREATE, wire.SET_DATA, wire.MULTI, wire.DELETE))
        if op == wire.CREATE:
            self.client.send(op, wire.create(path, data))
        elif op == wire.SET_DATA:
            self.version_sent += 1
            data = b"%d" % self.version_sent
            self.client.send(op, wire.set_data(f"/{self.name}/version", data))
        elif op == wire.MULTI:
            pair = [(wire.CREATE, wire.create(path + part, data)) for part in ("-a", "-b")]
            self.client.send(op, wire.multi(pair))
        else:
            known = [known for known in self.acknowledged if known not in self.deleted]
            path = self.random.choice(known) if known else f"/{self.name}/missing"
            self.deleted.add(path)
            self.client.send(op, wire.path_version(path))
        return op, path, data

    def answered(self, reply: Reply, op: int, path: str, data: bytes) -> None:
        if op == wire.DELETE:
            assert reply.err in (0, wire.NO_NODE)
            if not reply.err:
                del self.acknowledged[path]
            return
        assert reply.err == 0, (reply, op, path)
        if op == wire.CREATE:
            self.acknowledged[path] = data
        elif op == wire.SET_DATA:
            self.version_acknowledged += 1
        else:
            self.acknowledged[path + "-a"] = self.acknowledged[path + "-b"] = data

    def check(self, client: RawClient) -> None:
        """Everything acknowledged is there, and what was not is there whole or not at all."""
        assert self.error is None, self.error
        for path, data in self.acknowledged.items():
            reply = client.call(wire.GET_DATA, wire.path_watch(path))
            if reply.err == wire.NO_NODE and path in self.deleted:
                continue  # the delete had no reply any more
            assert reply.value(wire.GET_DATA)[0] == data, path
        names = set(client.value(wire.GET_CHILDREN, wire.path_watch(f"/{self.name}")))
        for name in names:
            if name.endswith("-a") and f"/{self.name}/{name}" not in self.deleted:
                twin = name[:-1] + "b"
                assert twin in names or f"/{self.name}/{twin}" in self.deleted
        data, stat = client.value(wire.GET_DATA, wire.path_watch(f"/{self.name}/version"))
        assert self.version_acknowledged <= stat.version <= self.version_sent
        assert data == (b"%d" % stat.version if stat.version else b"")
        self.check_session(client)

    def check_session(self, client: RawClient) -> None:
        old = self.client.session
        assert old is not None
        stat = client.value(wire.EXISTS, wire.path_watch(self.ephemeral))
        assert stat.ephemeral_owner == old.session_id
        with RawClient(client.address) as resumed:
            session = resumed.connect(old.session_id, old.password, timeout_ms=30_000)
            assert session.session_id == old.session_id
            resumed.end_session()
        assert client.call(wire.EXISTS, wire.path_watch(self.ephemeral)).err == wire.NO_NODE


@pytest.mark.seeds(3)
def test_killed_under_load_nothing_acknowledged_is_lost(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    # Small limits, so that it is killed amid snapshots and new logs, too.
    config = {"snapCount": 300, "txnLogSizeLimitInKb": 200, "maxSessionTimeout": 60_000}
    with ZkpyServer(tmp_path, config) as server:
        everything: list[Load] = []
        for round_ in range(2):
            loads = [
                Load(server.address, f"r{round_}c{number}", rng.randrange(1 << 30))
                for number in range(4)
            ]
            for load in loads:
                load.start()
            time.sleep(rng.uniform(0.1, 0.5))
            server.kill()
            for load in loads:
                load.join(WAIT_S)
                assert not load.is_alive()
            server.start()
            with open_session(server.address) as client:
                for load in loads:
                    load.check(client)
                for load in everything:
                    for path in load.acknowledged.keys() - load.deleted:
                        assert client.call(wire.EXISTS, wire.path_watch(path)).err == 0
                client.end_session()
            everything += loads
        assert sum(len(load.acknowledged) for load in everything) > 100


# ---------------------------------------------------------------------- whose disk is full


def fill(server: ZkpyServer, data: bytes) -> tuple[list[str], int]:
    """Write until the server ends; the paths acknowledged, and the exit code."""
    client = open_session(server.address)
    acknowledged = []
    assert server.process is not None
    try:
        for number in range(10_000):
            path = f"/full{number}"
            client.value(wire.CREATE, wire.create(path, data))
            acknowledged.append(path)
    except Closed:
        pass
    start_s = time.monotonic()
    code = server.process.wait(WAIT_S)
    assert time.monotonic() - start_s < 2
    server.kill()
    return acknowledged, code


def check_after(server: ZkpyServer, acknowledged: list[str]) -> None:
    server.start()
    client = open_session(server.address)
    names = client.value(wire.GET_CHILDREN, wire.path_watch("/"))
    assert {path[1:] for path in acknowledged} <= set(names)
    assert len(names) - 1 <= len(acknowledged) + 1, "at most one that was not acknowledged"
    make(client, "/there-is-room-again")


def test_a_log_that_cannot_grow(tmp_path: Path) -> None:
    with ZkpyServer(tmp_path) as server:
        make(open_session(server.address), "/before")
        assert server.process is not None
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        acknowledged, code = fill(server, bytes(3000))
        assert code == 10
        text = server.log_tail()
        assert re.search(
            r"ERROR \[main:\S+\] - Severe unrecoverable error: "
            rf"{server.data_dir}/version-2/log\.1 at offset \d+: File too large\n",
            text,
        )
        assert "Exiting with code 10\n" in text
        assert 50 < len(acknowledged) < 70
        check_after(server, [*acknowledged, "/before"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs the right to mount a small file system")
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    server = ZkpyServer(tmp_path / "server")
    server.data_dir = small_disk
    with server:
        acknowledged, code = fill(server, bytes(10_000))
        assert code == 10
        assert re.search(r"log\.1 at offset \d+: No space left on device\n", server.log_tail())
        subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
        check_after(server, acknowledged)
        server.kill()


def test_a_disk_with_no_room_for_a_snapshot(tmp_path: Path, small_disk: Path) -> None:
    server = ZkpyServer(tmp_path / "server", {"snapCount": 40, "preAllocSize": 0})
    server.data_dir = small_disk
    server.config = {**server.config, "dataLogDir": tmp_path / "logs"}
    with server:
        acknowledged, code = fill(server, bytes(10_000))
        assert code == 10
        assert re.search(
            r"zkpy-tmp\.snapshot\.\w+( at offset \d+)?: No space left on device\n",
            server.log_tail(),
        )
        assert not list((small_disk / "version-2").glob("zkpy-tmp.*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
        check_after(server, acknowledged)
        server.kill()


def test_the_first_session_is_there_quickly(tmp_path: Path) -> None:
    """Budget of a start: 150 ms on an idle machine; here only a gross mistake counts."""
    server = ZkpyServer(tmp_path)
    server.port = free_port()
    server._write_config()
    best = 1000.0
    for _ in range(3):
        start_s = time.monotonic()
        process = subprocess.Popen(
            server.command(), env=server.environment(), stderr=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    client = open_session(server.address)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() - start_s < WAIT_S
                    time.sleep(0.002)
            best = min(best, time.monotonic() - start_s)
            status = Path(f"/proc/{process.pid}/status")
            if status.exists():
                (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())
                assert int(resident) < 32 * 1024
            client.close()
        finally:
            process.kill()
            process.wait()
    assert best < 1.5


def test_a_request_of_a_client_that_vanishes(tmp_path: Path) -> None:
    """A reset right after a write: it is made, and the server lives on."""
    with ZkpyServer(tmp_path) as server:
        for number in range(20):
            client = open_session(server.address)
            client.send(wire.CREATE, wire.create(f"/{number}"))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        make(open_session(server.address), "/alive")


# ---------------------------------------------------------------------- with something broken in it


class BrokenServer(ZkpyServer):
    """Runs `patch` before the command line."""

    patch = ""

    def command(self) -> list[str]:
        code = f"{self.patch}\nfrom zkpy.cli.server import main\nraise SystemExit(main())"
        return [sys.executable, "-c", code, "start-foreground", str(self.config_path)]


def test_a_disk_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    class Hanging(BrokenServer):
        patch = (
            "import os, time; from zkpy.persistence import disk; sync = disk.OsFile.fdatasync\n"
            "def hang(file): time.sleep(60 if os.path.exists('hang') else 0); return sync(file)\n"
            "disk.OsFile.fdatasync = hang"
        )

    with Hanging(tmp_path) as server:
        client, other = open_session(server.address), open_session(server.address)
        make(client, "/before")
        (tmp_path / "hang").write_text("")
        client.send(wire.CREATE, wire.create("/during"))
        client.expect_silence(0.2)
        assert other.call(wire.EXISTS, wire.path_watch("/during")).err == wire.NO_NODE
        assert other.value(wire.EXISTS, wire.path_watch("/before")).version == 0
        assert server.process is not None
        start_s = time.monotonic()
        server.process.terminate()
        assert server.process.wait(WAIT_S) == 0
        assert time.monotonic() - start_s < 2.5
        client.expect_close()
        assert "the disk does not answer: leaving without it" in server.log_tail()


def test_an_error_nobody_caught_ends_the_process(tmp_path: Path) -> None:
    class Bug(BrokenServer):
        patch = (
            "import asyncio, os; from zkpy.server.aio import main; start = main.Server.start\n"
            "def look():\n"
            "    assert not os.path.exists('bug'), 'the bug is there'\n"
            "    asyncio.get_running_loop().call_later(0.01, look)\n"
            "async def started(server): await start(server); look()\n"
            "main.Server.start = started"
        )

    with Bug(tmp_path) as server:
        client = open_session(server.address)
        make(client, "/node")
        (tmp_path / "bug").write_text("")
        client.expect_close()
        assert server.process is not None
        assert server.process.wait(WAIT_S) == 1
        assert f"{UNEXPECTED}: AssertionError('the bug is there')\n" in server.log_tail()
        assert "Exiting with code 1\n" in server.log_tail()
