"""Ensembles of real processes: each member zkpy or Apache ZooKeeper, on this machine.

Owns: folders, ports, configuration files and processes of the members; starting, stopping, killing
and freezing them; putting another implementation on the same data directory; who leads, and what
was logged. Must not know what a server's answers mean beyond "srvr", nor what is tested.
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
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"
# A JVM on a busy machine with two cores takes its time, and three start together.
SERVE_TIMEOUT_S = 60.0
POLL_S = 0.02
ASK_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 15.0
LOG_TAIL_BYTES = 6_000

# Short ticks, so that whoever is lost is missed soon; limits long enough for a slow machine: two
# seconds and a half without an answer in the ensemble, nine for joining it.
DEFAULT_CONFIG: Mapping[str, object] = {
    "tickTime": 300,
    "initLimit": 30,
    "syncLimit": 8,
    "maxSessionTimeout": 60_000,
    "maxClientCnxns": 0,
    "4lw.commands.whitelist": "*",
    "admin.enableServer": "false",
    "preAllocSize": 64,
}

# Start-up counts, and that three of them fit beside the tests.
JVM_FLAGS = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


# Stack traces of Apache's, and what it says about our own questions and about waiting clients.
UNTOLD = re.compile(r"^\tat |:java.class.path=|Processing srvr command|ZooKeeperServer not running")


class EnsembleError(AssertionError):
    """Something did not happen in time; the text ends with the logs of all members."""


class Kind:
    """An implementation of the server and how a process of it is started."""

    def __init__(
        self,
        name: str,
        command: Callable[[Path, Mapping[str, object]], list[str]],
        environment: Callable[[Mapping[str, object]], Mapping[str, str]] = lambda _: {},
    ) -> None:
        """`command` and `environment` get the -D properties; `command` also the config file."""
        self.name = name
        self.command = command
        self.environment = environment

    def __repr__(self) -> str:
        return self.name


def zkpy_kind(source: Path, python: str = sys.executable) -> Kind:
    """zkpy from the source tree `source`."""

    def command(config_path: Path, _properties: Mapping[str, object]) -> list[str]:
        return [python, "-m", "zkpy.cli.server", "start-foreground", str(config_path)]

    def environment(properties: Mapping[str, object]) -> Mapping[str, str]:
        flags = " ".join(f"-D{key}={value}" for key, value in properties.items())
        return {"PYTHONPATH": str(source), "SERVER_JVMFLAGS": flags}

    return Kind("zkpy", command, environment)


def apache_kind(
    name: str, classpath: str, java: str = "java", jvm_flags: Sequence[str] = JVM_FLAGS
) -> Kind:
    """Apache ZooKeeper from the jars of `classpath`, which logs through slf4j-simple."""

    def command(config_path: Path, properties: Mapping[str, object]) -> list[str]:
        return [
            java,
            *jvm_flags,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            *(f"-D{key}={value}" for key, value in properties.items()),
            "-cp",
            classpath,
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            str(config_path),
        ]

    return Kind(name, command)


class Network:
    """Where members live and how to reach them: here, all on the loopback interface."""

    def host(self, _sid: int) -> str:
        """The address at which the member listens."""
        return LOOPBACK

    def prefix(self, _sid: int) -> list[str]:
        """What goes in front of the member's command line."""
        return []

    def connect(self, address: Address, timeout_s: float) -> socket.socket:
        """A connection of a client. Raises OSError."""
        return socket.create_connection(address, timeout_s)


_ports_given: set[int] = set()
_ports_lock = threading.Lock()


def free_port() -> int:
    """A port that nobody listens on and this process has not given out before.

    Below the range the kernel takes for outgoing connections: one of those may be lost while a
    member is down, even to a client which dials it and thereby connects to itself.
    """
    with _ports_lock:
        while True:
            port = random.SystemRandom().randrange(15_000, 32_000)
            if port in _ports_given:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    continue
            _ports_given.add(port)
            return port


def ask(network: Network, address: Address, word: str, timeout_s: float = ASK_TIMEOUT_S) -> str:
    """The answer to a four letter word; "" when there is none. Raises OSError."""
    with network.connect(address, timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(word.encode())
        answer = bytearray()
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.decode(errors="replace")


class Member:
    """One member: a folder with configuration, data and log, and a process if it runs."""

    def __init__(
        self,
        sid: int,
        folder: Path,
        kind: Kind,
        network: Network,
        role: str = "participant",
    ) -> None:
        self.sid = sid
        self.folder = folder
        self.kind = kind
        self.network = network
        self.role = role
        self.host = network.host(sid)
        self.client_port = free_port()
        self.peer_port = free_port()
        self.election_port = free_port()
        self.data_dir = folder / "data"
        self.config_path = folder / "zoo.cfg"
        self.log_path = folder / "server.log"
        self.properties: dict[str, object] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False
        self.log_start = 0  # where what the present process logs begins

    def __repr__(self) -> str:
        return f"member {self.sid} ({self.kind})"

    @property
    def address(self) -> Address:
        """Of its client port."""
        return (self.host, self.client_port)

    @property
    def server_line(self) -> str:
        """What stands behind `server.N=`."""
        return f"{self.host}:{self.peer_port}:{self.election_port}:{self.role}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def write_config(self, config: Mapping[str, object], server_lines: Mapping[int, str]) -> None:
        """Write zoo.cfg and myid. A key with the value None is left out."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._write_id()
        settings: dict[str, object] = {
            "dataDir": self.data_dir,
            "clientPort": self.client_port,
            "clientPortAddress": self.host,
            **config,
            **{f"server.{sid}": line for sid, line in server_lines.items()},
        }
        if self.role == "observer":
            settings.setdefault("peerType", "observer")
        lines = [f"{key}={value}\n" for key, value in settings.items() if value is not None]
        self.config_path.write_text("".join(lines))

    def _write_id(self) -> None:
        (self.data_dir / "myid").write_text(f"{self.sid}\n")

    def start(self) -> None:
        """Make the process; whether it serves is for wait_until_serving to find out."""
        assert not self.running, f"{self} runs already"
        with self.log_path.open("ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                [
                    *self.network.prefix(self.sid),
                    *self.kind.command(self.config_path, self.properties),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.kind.environment(self.properties)},
                cwd=self.folder,
                start_new_session=True,  # an interrupt at the terminal is for the tests
            )

    def kill(self) -> None:
        """kill -9; harmless when it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.paused = False

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM; returns the exit status. Raises subprocess.TimeoutExpired."""
        assert self.process is not None, f"{self} does not run"
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        finally:
            self.kill()

    def pause(self) -> None:
        """SIGSTOP: it holds its connections, and says nothing."""
        assert self.process is not None, f"{self} does not run"
        self.process.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None, f"{self} does not run"
        self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def restart(self) -> None:
        """kill -9 and start again."""
        self.kill()
        self.start()

    def swap(self, kind: Kind) -> None:
        """Stop it and start another implementation on the same data directory and ports."""
        if self.running:
            self.stop()
        self.kind = kind
        self.start()

    def lose_data(self) -> None:
        """Remove all that it has stored; only its id is left."""
        assert not self.running, f"{self} runs"
        shutil.rmtree(self.data_dir)
        self.data_dir.mkdir()
        self._write_id()

    def ask(self, word: str, timeout_s: float = ASK_TIMEOUT_S) -> str:
        """The answer to a four letter word; "" when there is none, for whatever reason."""
        if self.process is None or self.paused:
            return ""
        try:
            return ask(self.network, self.address, word, timeout_s)
        except OSError:
            return ""

    def mode(self) -> str | None:
        """leader, follower, observer, read-only; None while it serves nobody."""
        found = re.search(r"^Mode: (\S+)", self.ask("srvr"), re.MULTILINE)
        return found[1] if found else None

    def zxid(self) -> int | None:
        """The last zxid it has applied, as srvr shows it."""
        found = re.search(r"^Zxid: 0x([0-9a-f]+)", self.ask("srvr"), re.MULTILINE)
        return int(found[1], 16) if found else None

    def monitor(self) -> dict[str, str]:
        """The lines of mntr, without the zk_ in front; empty while it does not serve."""
        lines = (line.partition("\t") for line in self.ask("mntr").splitlines())
        return {key.removeprefix("zk_"): value for key, tab, value in lines if tab}

    def log_text(self, *, all_starts: bool = False) -> str:
        """What it has logged since its last start, or ever."""
        try:
            logged = self.log_path.read_bytes()
        except FileNotFoundError:
            return ""
        return logged[0 if all_starts else self.log_start :].decode(errors="replace")

    def log_tail(self) -> str:
        """The end of it, without what is of no use and much."""
        lines = self.log_text(all_starts=True).splitlines()
        told = [line for line in lines if not UNTOLD.search(line)]
        return "\n".join(told)[-LOG_TAIL_BYTES:]


class Ensemble:
    """Members with sids from 1; a context manager that kills what is left of them."""

    def __init__(
        self,
        folder: Path,
        kinds: Iterable[Kind],
        config: Mapping[str, object] | None = None,
        *,
        observers: Iterable[int] = (),
        properties: Mapping[str, object] | None = None,
        network: Network | None = None,
    ) -> None:
        """`config` is laid over DEFAULT_CONFIG; None as a value leaves a key out."""
        self.network = network or Network()
        self.config: dict[str, object] = {**DEFAULT_CONFIG, **(config or {})}
        self.properties = dict(properties or {})
        self.folder = folder
        self.members: dict[int, Member] = {}
        roles = dict.fromkeys(observers, "observer")
        for sid, kind in enumerate(kinds, 1):
            self.add(sid, kind, roles.get(sid, "participant"))
        self.write_configs()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()

    def __getitem__(self, sid: int) -> Member:
        return self.members[sid]

    def add(self, sid: int, kind: Kind, role: str = "participant") -> Member:
        """One more member; its configuration is not yet written."""
        folder = self.folder / f"m{sid}"
        folder.mkdir(parents=True)
        member = self.members[sid] = Member(sid, folder, kind, self.network, role)
        member.properties = dict(self.properties)
        return member

    def write_configs(self) -> None:
        """Configurations of all members, with all members in them."""
        for member in self.members.values():
            member.write_config(self.config, self.server_lines())

    def server_lines(self) -> dict[int, str]:
        """sid -> what stands behind `server.N=`."""
        return {sid: member.server_line for sid, member in self.members.items()}

    @property
    def running(self) -> list[Member]:
        """Members whose process runs and is not frozen, by sid."""
        return [m for m in self.members.values() if m.running and not m.paused]

    @property
    def hosts(self) -> str:
        """The connect string with all members."""
        return ",".join(f"{m.host}:{m.client_port}" for m in self.members.values())

    def start(self, *sids: int) -> None:
        """Start these, or all, and wait until they serve."""
        members = [self.members[sid] for sid in sids or self.members]
        for member in members:
            member.start()
        self.wait_until_serving(members)

    def kill(self) -> None:
        """kill -9 for all."""
        for member in self.members.values():
            member.kill()

    def wait_until_serving(
        self, members: Iterable[Member] | None = None, timeout_s: float = SERVE_TIMEOUT_S
    ) -> None:
        """Wait until each of them (default: all that run) serves, and one member leads.

        Raises EnsembleError.
        """
        waiting = list(self.running if members is None else members)

        def serving() -> bool:
            return all(m.mode() is not None for m in waiting) and self.leader() is not None

        self.eventually(serving, f"serving of {waiting}", timeout_s)

    def leader(self) -> Member | None:
        """Who says that it leads; of several (one will find out soon) that with the newest zxid."""
        leaders = [m for m in self.running if m.mode() in ("leader", "standalone")]
        return max(leaders, key=lambda m: m.zxid() or 0, default=None)

    def wait_for_leader(
        self, among: Iterable[int] | None = None, timeout_s: float = SERVE_TIMEOUT_S
    ) -> Member:
        """The leader, which is one of `among` (sids); waits for it. Raises EnsembleError."""
        wanted = None if among is None else set(among)
        found: list[Member] = []

        def leads() -> bool:
            leader = self.leader()
            if leader is None or (wanted is not None and leader.sid not in wanted):
                return False
            found.append(leader)
            return True

        self.eventually(leads, f"a leader among {sorted(wanted or self.members)}", timeout_s)
        return found[0]

    def followers(self) -> list[Member]:
        """Those which say that they follow."""
        return [m for m in self.running if m.mode() == "follower"]

    def wait_until_equal(self, timeout_s: float = SERVE_TIMEOUT_S) -> int:
        """Wait until all that run have applied the same zxid, twice in a row; returns it."""
        seen: list[set[int | None]] = [set()]

        def equal() -> bool:
            zxids = {member.zxid() for member in self.running}
            same = len(zxids) == 1 and None not in zxids and zxids == seen[-1]
            seen.append(zxids)
            return same

        self.eventually(equal, "the same zxid on all members", timeout_s)
        (zxid,) = seen[-1]
        assert zxid is not None
        return zxid

    def eventually(
        self, condition: Callable[[], bool], what: str, timeout_s: float = SERVE_TIMEOUT_S
    ) -> None:
        """Wait for it. Raises EnsembleError with the logs when it does not come in time.

        Or when a process has ended that nobody ended: then it need not be waited for.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            for member in self.members.values():
                if member.process is not None and not member.running:
                    raise EnsembleError(f"{member} has ended{self.logs()}")
            if time.monotonic() > deadline:
                raise EnsembleError(f"not within {timeout_s:g} s: {what}{self.logs()}")
            time.sleep(POLL_S)

    def logs(self) -> str:
        """The end of what each member logged, for the text of a failure."""
        parts = []
        for member in self.members.values():
            state = "running" if member.running else "not running"
            parts.append(f"\n--- {member}, {state}, {member.log_path}\n{member.log_tail()}")
        return "".join(parts)
