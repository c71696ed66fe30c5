"""Scenario: an ensemble in which a test says what happens, one thing after the other.

No random faults; the network and the disks are quick unless told otherwise. All checks of the
simulation are on, and `finish` adds the final ones. `ZKPY_TRACE=1 pytest -s` shows what happens.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from random import Random

from zkpy.protocol.zoodefs import OpCode
from zkpy.testing import requests
from zkpy.testing.cluster import Cluster, Shape
from zkpy.testing.history import Violation
from zkpy.testing.host import Host
from zkpy.testing.requests import Request, RequestSource
from zkpy.testing.scheduler import MS, SECOND
from zkpy.testing.workload import Client

LIMIT_S = 30.0


class Scenario:
    """Servers A, B, C are `a`, `b`, `c`: sids 1, 2, 3."""

    def __init__(
        self,
        servers: int = 3,
        *,
        seed: int = 1,
        shape: Shape | None = None,
        committed_log_count: int = 500,
        overrides: dict[str, object] | None = None,
    ) -> None:
        tracing = bool(os.environ.get("ZKPY_TRACE"))
        self.cluster = cluster = Cluster(
            Random(seed),
            shape or Shape(servers),
            overrides=overrides,
            committed_log_count=committed_log_count,
            tracer=print if tracing else None,
        )
        cluster.network.fragmentation = 0.0
        cluster.checker.expiry_slack_ms = cluster.checker_slack_ms
        self.scheduler = cluster.scheduler
        self.network = cluster.network
        self.checker = cluster.checker
        self.history = cluster.checker.history
        self.hosts = cluster.hosts
        self.clients: list[Client] = []
        if tracing:
            show_log_lines(cluster)

    @property
    def a(self) -> Host:
        return self.hosts[1]

    @property
    def b(self) -> Host:
        return self.hosts[2]

    @property
    def c(self) -> Host:
        return self.hosts[3]

    # ------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.scheduler.run_until(self.scheduler.now_us + int(seconds * SECOND))

    def until(self, condition: Callable[[], object], limit_s: float = LIMIT_S) -> float:
        """Let time pass until `condition()`; the seconds it took. Raises Violation if too long."""
        begin_us = self.scheduler.now_us
        if not self.scheduler.run_while(lambda: not condition(), int(limit_s * SECOND)):
            raise Violation(f"not within {limit_s} s: {self.states()}")
        return (self.scheduler.now_us - begin_us) / SECOND

    def states(self) -> str:
        """Who is what."""
        return "; ".join(
            f"{host} {host.member.role.peer_state()} {host.member.database.last_zxid:#x}"
            if host.up
            else f"{host} down"
            for host in self.hosts.values()
        )

    # ------------------------------------------------------------------ members

    def start(self, *hosts: Host) -> None:
        """Start these, or all that do not run."""
        for host in hosts or tuple(self.hosts.values()):
            if not host.up:
                host.start()

    def serving(self, *hosts: Host) -> bool:
        """Whether these have their roles, the same leader among or above them."""
        return all(host.up and host.has_role for host in hosts or self.hosts.values())

    def settle(self, *hosts: Host) -> None:
        """Wait until these serve, and have applied all that is committed."""
        some = hosts or tuple(self.hosts.values())
        self.until(
            lambda: (
                self.serving(*some)
                and self.cluster.leader() is not None
                and all(self.position(host) == len(self.history.order) for host in some)
            )
        )

    def position(self, host: Host) -> int:
        return self.history.position(host.member.database.last_zxid)

    def leads(self, host: Host) -> bool:
        """Whether `host` is the one that has established the newest epoch, and still is up."""
        leaders = self.checker.leaders
        return self.cluster.leader() is host and leaders[max(leaders)] == host.sid

    def lead(self, host: Host) -> None:
        """Start all, `host` first and with all the others so that it leads."""
        others = [other for other in self.hosts.values() if other is not host]
        self.start(host, min(others, key=lambda other: other.sid))
        self.until(lambda: self.cluster.leader() is not None)
        self.start()
        self.settle()
        if self.cluster.leader() is not host:
            raise Violation(f"{self.cluster.leader()} leads")

    def separate(self, few: Iterable[Host], many: Iterable[Host]) -> None:
        """Let nothing pass between them."""
        for one in few:
            for other in many:
                self.network.block(one.name, other.name)
                self.network.block(other.name, one.name)

    def heal(self) -> None:
        self.network.heal()

    def slow_disk(self, host: Host, ms: int) -> None:
        """Let each sync of the log take so long, or as usual (0)."""
        host.sync_us = (ms * MS, ms * MS + 1) if ms else (100, 3000)

    # ------------------------------------------------------------------ clients

    def client(self, *hosts: Host, timeout_ms: int = 8000, read_only: bool = False) -> Client:
        """A client of these members, connected."""
        client = Client(
            self.cluster,
            len(self.clients) + 1,
            RequestSource(self.cluster.rng),
            left=0,
            timeout_ms=timeout_ms,
            addresses=[self.cluster.client_address(host.sid) for host in hosts],
            read_only=read_only,
        )
        self.clients.append(client)
        client.start()
        self.until(lambda: client.established)
        return client

    def call(self, client: Client, *batch: Request) -> None:
        """Send, and wait for the replies."""
        self.until(lambda: client.established)
        done = client.done
        client.send(list(batch))
        self.until(lambda: client.done == done + len(batch))

    def create(self, client: Client, *paths: str, data: bytes = b"x") -> None:
        self.call(client, *(requests.create(path, data, 0) for path in paths))

    def write_unseen(self, client: Client, path: str, *, op: int = OpCode.CREATE) -> None:
        """Send a create, and wait for nothing."""
        client.send([requests.create(path, b"unseen", 0, op)])

    # ------------------------------------------------------------------ the end

    def finish(self) -> None:
        """Heal everything, and check what has to hold in the end."""
        self.heal()
        for host in self.hosts.values():
            host.sync_us = (100, 3000)
            host.go_on()
        self.start()
        self.settle()
        for host in self.hosts.values():
            self.checker.same_as_history(host.name, host.member.database.tree)


def show_log_lines(cluster: Cluster) -> None:
    """Let the trace have the members' log lines, too."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cluster.trace(cluster.running or "?", "%s", record.getMessage())

    logging.disable(logging.NOTSET)
    root = logging.getLogger("zkpy")
    root.handlers[:] = [Lines()]
    root.setLevel(logging.INFO)
