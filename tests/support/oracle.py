"""Servers as processes: Apache ZooKeeper (the oracle) and zkpy, behind one interface.

Owns: finding what scripts/get-oracle put into the cache folder, starting a server on a free port,
waiting until it serves, stopping and killing it. Its data and logs stay in its own folder.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from .rawclient import Closed, four_letter_word

PROJECT = Path(__file__).resolve().parents[2]
ORACLE = Path(os.environ.get("ZKPY_ORACLE_DIR", PROJECT / ".oracle"))
APACHE_VERSIONS = ("3.9.5", "3.8.0")
# The code under test; another copy, such as a build, may be put in its place.
SOURCE = Path(os.environ.get("ZKPY_SOURCE_DIR", PROJECT / "src"))
START_TIMEOUT_S = 30.0

# What every server gets unless a test says otherwise: short ticks so that expiry tests are quick,
# all commands allowed, small log files. The admin server would take a fixed port.
DEFAULT_CONFIG: Mapping[str, object] = {
    "tickTime": 500,
    "maxSessionTimeout": 60_000,
    "maxClientCnxns": 0,
    "4lw.commands.whitelist": "*",
    "admin.enableServer": "false",
    "preAllocSize": 64,
}

# Start-up counts here, peak speed does not.
JVM_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")


def apache_missing(version: str = APACHE_VERSIONS[0]) -> str | None:
    """Why Apache ZooKeeper of that version cannot be run here; None if it can."""
    if shutil.which("java") is None:
        return "no Java runtime"
    if not (ORACLE / version / "complete").exists():
        return f"no Apache ZooKeeper {version} in {ORACLE.name}: run scripts/get-oracle"
    return None


def java_missing(folder: str) -> str | None:
    """Why what needs these jars ("curator", "tests") cannot be compiled and run; None if it can."""
    if shutil.which("javac") is None:
        return "no Java compiler"
    if not (ORACLE / folder / "complete").exists():
        return f"no {folder} in {ORACLE.name}: run scripts/get-oracle"
    return None


def compile_java(source: Path, folder: str, classes: Path) -> Path:
    """Compile `source` against these jars into `classes`, and return that; skips without them."""
    reason = java_missing(folder)
    if reason is not None:
        pytest.skip(reason)
    command = ["javac", "-cp", classpath(folder), "-d", str(classes), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return classes


def c_client_missing() -> str | None:
    """Why programs of Apache's C client cannot be compiled and run here; None if they can."""
    if shutil.which("cc") is None:
        return "no C compiler"
    if not (ORACLE / "c-client" / "complete").exists():
        return f"no C client in {ORACLE.name}: run scripts/get-oracle"
    return None


def zkpy_missing() -> str | None:
    """Why zkpy's server cannot be run here; None if it can."""
    if not (SOURCE / "zkpy" / "cli" / "server.py").exists():
        return "zkpy server not built"
    return None


def classpath(folder: str) -> str:
    """All jars of one folder of the cache."""
    return str(ORACLE / folder / "*")


def free_port() -> int:
    """A port nobody listens on, below the range the kernel takes for outgoing connections.

    A port of that range may be lost while a server restarts, even to a client which dials it and
    thereby connects to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server:
    """One standalone server in `folder`; the data survives kill(), stop() and start()."""

    name = "?"

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object] | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        """`config` goes to the file, `properties` become -D definitions (jute.maxbuffer, ...)."""
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_path = folder / "server.log"
        self.config_path = folder / "zoo.cfg"
        self.config = {**DEFAULT_CONFIG, **(config or {})}
        self.properties = dict(properties or {})
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def hosts(self) -> str:
        """The connect string for clients."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> Server:
        """Start and wait until it serves. A port lost to somebody else is replaced by another."""
        assert self.process is None, "already running"
        for attempt in range(5):
            if self.port == 0 or attempt:
                self.port = free_port()
            self._write_config()
            with self.log_path.open("ab") as log:
                log_start = log.tell()
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment(),
                    cwd=self.folder,
                )
            if self._wait_until_serving():
                return self
            self.kill()
            text = self.log_path.read_bytes()[log_start:].decode(errors="replace")
            if not re.search("address already in use", text, re.IGNORECASE):
                break
        raise AssertionError(f"{self.name} does not serve:\n{text[-4000:]}")

    def _wait_until_serving(self) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                return False
            try:
                if "Mode:" in four_letter_word(self.address, "srvr", 2.0):
                    return True
            except (OSError, Closed):
                pass
            time.sleep(0.02)
        return False

    def _write_config(self) -> None:
        lines = [
            f"dataDir={self.data_dir}",
            f"clientPort={self.port}",
            "clientPortAddress=127.0.0.1",
            *(f"{key}={value}" for key, value in self.config.items()),
        ]
        self.config_path.write_text("\n".join(lines) + "\n")

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9, like a power cut as far as the process is concerned."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None, "not running"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.kill()

    def restart(self) -> None:
        """kill -9 and start again on the same port and data."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Kill and start again with an empty data directory."""
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self.start()

    def log_tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


class ApacheServer(Server):
    """Apache ZooKeeper from the cache folder."""

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, object] | None = None,
        properties: Mapping[str, object] | None = None,
        version: str = APACHE_VERSIONS[0],
    ) -> None:
        super().__init__(folder, config, properties)
        self.version = version
        self.name = f"Apache ZooKeeper {version}"

    def command(self) -> list[str]:
        return [
            "java",
            *JVM_FLAGS,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            *(f"-D{key}={value}" for key, value in self.properties.items()),
            "-cp",
            classpath(self.version),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(self.config_path),
        ]


class ZkpyServer(Server):
    """zkpy from this source tree, in a process of its own."""

    name = "zkpy"

    def command(self) -> list[str]:
        module = ["-m", "zkpy.cli.server", "start-foreground", str(self.config_path)]
        return [sys.executable, *module]

    def environment(self) -> dict[str, str]:
        flags = " ".join(f"-D{key}={value}" for key, value in self.properties.items())
        return {**os.environ, "PYTHONPATH": str(SOURCE), "SERVER_JVMFLAGS": flags}


KINDS: Mapping[str, type[Server]] = {"apache": ApacheServer, "zkpy": ZkpyServer}


def missing(kind: str) -> str | None:
    """Why a server of that kind ("apache" or "zkpy") cannot be run here; None if it can."""
    return zkpy_missing() if kind == "zkpy" else apache_missing()
