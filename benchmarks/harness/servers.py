"""Servers as processes: started on a port and a folder of their own, measured, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.client import Address, Session, first_session

START_LIMIT_S = 120.0  # a million znodes are read at start
STOP_LIMIT_S = 30.0
HOST = "127.0.0.1"

# The same for both. No admin server: it would take a fixed port, and Jetty's threads and memory.
CONFIG = """\
tickTime=2000
dataDir={data}
clientPort={port}
clientPortAddress={host}
maxClientCnxns=0
4lw.commands.whitelist=*
admin.enableServer=false
"""


class StartFailed(Exception):
    """A server did not come up; the message ends with what it logged."""


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server: `command` plus the path of its configuration."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self.data = folder / "data"
        self.log_path = folder / "server.log"
        self.address: Address = (HOST, 0)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    @property
    def target(self) -> str:
        """Where the load generator connects to."""
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def pids(self) -> str:
        """Whose CPU time it measures."""
        return str(self.pid)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def choose_port(self) -> None:
        """Another one for each start."""
        self.address = (HOST, free_port())

    def configuration(self) -> str:
        """The text of zoo.cfg."""
        return CONFIG.format(data=self.data, host=HOST, port=self.address[1])

    def launch(self) -> float:
        """Make the process; returns the time (monotonic) before that."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.choose_port()
        config = self.folder / "zoo.cfg"
        config.write_text(self.configuration())
        with self.log_path.open("ab") as log:
            begin = time.monotonic()
            self.process = subprocess.Popen(
                [*self.command, str(config)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt at the terminal is for the harness
            )
        return begin

    def start(self, read: str | None = None) -> float:
        """Start, and wait for the first session, and for the first reply to a read of `read`.

        Returns the seconds from before the process was made. Data of an earlier start is kept.
        Raises StartFailed.
        """
        begin = self.launch()
        session = self._first_session(begin + START_LIMIT_S)
        if read is not None and (error := session.get_data(read)):
            raise StartFailed(f"{self.name} came up without {read}: error {error}")
        elapsed = time.monotonic() - begin
        session.close()
        return elapsed

    def _first_session(self, deadline: float) -> Session:
        # In slices, to notice a process that has ended.
        while time.monotonic() < deadline and self.running:
            session = first_session(self.address, min(deadline, time.monotonic() + 1))
            if session is not None:
                return session
        ended = "did not come up" if self.running else f"ended with {self.process!r}"
        self.stop()
        raise StartFailed(f"{self.name} {ended}:\n{self.log_tail()}")

    def stop(self) -> None:
        """Terminate and wait; a server that does not follow is killed."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def rss_bytes(self) -> int:
        """Resident memory right now."""
        return self._status_kib("VmRSS") * 1024

    def peak_rss_bytes(self) -> int:
        """The most resident memory since the start."""
        return self._status_kib("VmHWM") * 1024

    def _status_kib(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise AssertionError(f"/proc has no {field}")

    def snapshots_changed_at(self) -> dict[str, float]:
        """File name -> time (since 1970) of the last change, of all that is or becomes a snapshot.

        The later of mtime and ctime, so that a rename at the end counts as writing.
        """
        found: dict[str, float] = {}
        folder = self.data / "version-2"
        for name in os.listdir(folder) if folder.is_dir() else ():
            if "snapshot" in name:
                try:
                    status = os.stat(folder / name)
                except FileNotFoundError:
                    continue  # a temporary file, renamed since it was listed
                found[name] = max(status.st_mtime, status.st_ctime)
        return found

    def log_tail(self) -> str:
        """The end of what the server printed."""
        try:
            return self.log_path.read_text(errors="replace")[-3000:]
        except FileNotFoundError:
            return ""


def zkpy_command(python: str) -> list[str]:
    """zkpy as that Python finds it in its environment (PYTHONPATH)."""
    return [python, "-m", "zkpy.cli.server", "start-foreground"]


def apache_command(java: str, java_flags: Sequence[str], classpath: str) -> list[str]:
    """Apache's server, with the JVM's default settings unless `java_flags` differ."""
    main_class = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    return [
        *(java, *java_flags, "-cp", classpath),
        "-Dzookeeper.admin.enableServer=false",
        main_class,
    ]


def find_classpath(project: Path, given: str | None) -> str | None:
    """A class path: the one given, or the newest that scripts/get-oracle has fetched.

    A folder stands for the jars in it, or in its lib (an unpacked distribution of Apache's).
    """
    if given:
        folder = Path(given).absolute()  # the server runs in a folder of its own
        if not folder.is_dir():
            return given
        return f"{folder}/lib/*" if (folder / "lib").is_dir() else f"{folder}/*"
    cache = Path(os.environ.get("ZKPY_ORACLE_DIR") or project / ".oracle")
    for version in ("3.9.5", "3.8.0"):
        if (cache / version / "complete").exists():
            return f"{cache / version}/*"
    return None
