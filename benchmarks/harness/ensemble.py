"""Three members of an ensemble, measured as if they were one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.client import (
    ATTEMPT_LIMIT_S,
    Address,
    ServerError,
    Session,
    first_session,
    four_letter_word,
)
from benchmarks.harness.servers import CONFIG, HOST, START_LIMIT_S, Server, StartFailed, free_port

MEMBERS = 3
ENSEMBLE_CONFIG = CONFIG + "initLimit=10\nsyncLimit=5\n"
# Written before a leader is killed, so that a JVM has compiled what follows.
WRITES_BEFORE = 500
WRITTEN = "/failover"


class Member(Server):
    """One of them: its ports stay the same when it starts again."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        super().__init__(name, command, folder, environment)
        self.address: Address = (HOST, free_port())
        self.server_line = f"{HOST}:{free_port()}:{free_port()}"
        self.server_lines = ""
        self.sid = 0

    def choose_port(self) -> None:
        """It was chosen for good."""

    def configuration(self) -> str:
        (self.data / "myid").write_text(f"{self.sid}\n")
        host, port = self.address
        return ENSEMBLE_CONFIG.format(data=self.data, host=host, port=port) + self.server_lines

    def mode(self) -> str:
        """leader or follower; "" while it does not serve."""
        for line in four_letter_word(self.address, "srvr").splitlines():
            if line.startswith("Mode: "):
                return line.split()[1]
        return ""


class Ensemble:
    """Members 1 to 3; `make` gives one, stopped, in a new folder of the name given."""

    def __init__(self, make: Callable[[str], Member], name: str) -> None:
        self.members = [make(f"{name}-{sid}") for sid in range(1, MEMBERS + 1)]
        for sid, member in enumerate(self.members, 1):
            member.sid = sid
            member.server_lines = "".join(
                f"server.{other}={one.server_line}\n" for other, one in enumerate(self.members, 1)
            )
        self.name = self.members[0].name
        self.folder = self.members[0].folder

    @property
    def address(self) -> Address:
        """Of one that serves."""
        return self.members[0].address

    @property
    def target(self) -> str:
        """All members, for the load generator."""
        return ",".join(member.target for member in self.members)

    @property
    def pids(self) -> str:
        """Of all members, for the load generator."""
        return ",".join(member.pids for member in self.members)

    @property
    def running(self) -> bool:
        return all(member.running for member in self.members)

    def start(self, read: str | None = None) -> float:
        """Start all of them, and wait for the first session; as Server.start.

        Returns only when all three serve, which is not part of the seconds. Raises StartFailed.
        """
        assert read is None
        begin = time.monotonic()
        for member in self.members:
            if not member.running:
                member.launch()
        session = None
        while session is None:
            for member in self.members:
                session = session or first_session(member.address, time.monotonic() + 0.001)
            if time.monotonic() > begin + START_LIMIT_S or not self.running:
                raise StartFailed(f"{self.name}: no ensemble:\n{self.log_tail()}")
        elapsed = time.monotonic() - begin
        session.close()
        self.wait_until_all_serve()
        return elapsed

    def wait_until_all_serve(self) -> None:
        """Raises StartFailed."""
        deadline = time.monotonic() + START_LIMIT_S
        while not all(member.mode() for member in self.members):
            if time.monotonic() > deadline or not self.running:
                raise StartFailed(f"{self.name}: not all serve:\n{self.log_tail()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Terminate and wait."""
        for member in self.members:
            member.stop()

    def rss_bytes(self) -> int:
        """Resident memory of all three right now."""
        return sum(member.rss_bytes() for member in self.members)

    def peak_rss_bytes(self) -> int:
        """The most resident memory of each since the start."""
        return sum(member.peak_rss_bytes() for member in self.members)

    def log_tail(self) -> str:
        """The end of what each printed."""
        return "\n".join(f"member {one.sid}: {one.log_tail()[-1500:]}" for one in self.members)

    def in_mode(self, mode: str) -> Member:
        """A member that says it is leader, or follower. Raises ServerError."""
        for member in self.members:
            if member.mode() == mode:
                return member
        raise ServerError(f"{self.name} has no {mode}")

    def kill_leader(self) -> float:
        """kill -9; returns the seconds until a write through a survivor is acknowledged.

        The killed one is started again, and has joined when this returns.
        """
        leader = self.in_mode("leader")
        survivors = [member for member in self.members if member is not leader]
        session = Session(survivors[0].address)
        session.create(WRITTEN)
        for _ in range(WRITES_BEFORE):
            session.set_data(WRITTEN, b"before")
        begin = time.monotonic()
        leader.kill()
        elapsed = self._first_write(survivors, begin)
        session.socket.close()
        leader.launch()
        self.wait_until_all_serve()
        return elapsed

    def _first_write(self, survivors: Sequence[Member], begin: float) -> float:
        while time.monotonic() < begin + START_LIMIT_S:
            for member in survivors:
                try:
                    session = Session(member.address, ATTEMPT_LIMIT_S)
                    session.set_data(WRITTEN, b"after")
                except (OSError, ServerError):
                    time.sleep(0.001)
                    continue
                elapsed = time.monotonic() - begin
                session.close()
                return elapsed
        raise ServerError(f"no write after the leader was killed:\n{self.log_tail()}")

    def restart_follower(self, read: str) -> float:
        """Stop one and start it; returns the seconds from then to its reply to a read."""
        follower = self.in_mode("follower")
        follower.stop()
        return follower.start(read)
