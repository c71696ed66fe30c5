"""Simulation: an ensemble, its clients and its misfortunes, all from one seed.

    start -> clients at work, faults -> everything healed -> caught up in time -> final checks

`run()` raises what went wrong; the same seed makes it happen again.
"""

from __future__ import annotations

from random import Random

from zkpy.testing.cluster import Cluster, Shape
from zkpy.testing.faults import Nemesis
from zkpy.testing.history import require
from zkpy.testing.requests import SIZES, RequestSource
from zkpy.testing.scheduler import SECOND
from zkpy.testing.workload import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from zkpy.testing.host import Host

# After everything is healed: to elect, to catch up, to serve. And for the last writes.
ENDLESS: Final = 1 << 30
CONVERGENCE_S: Final = 15
LAST_WRITES_S: Final = 15
# For sessions nobody speaks for to expire.
EXPIRY_S: Final = 40
OVERRIDES: Final[dict[str, tuple[object, ...]]] = {
    "snap_count": (4, 20, 20, 100, 100_000),
    "snapshot_size_factor": (0.33, 0.33, -1.0, 1.0),
    "leader_serves": (True, True, True, False),
    "sync_enabled": (True, True, False),
    "observer_election_delay_ms": (0, 200),
    "force_snapshot_sync": (False, False, False, False, False, True),
    "local_sessions_enabled": (False, False, False, False, True),
    "local_sessions_upgrading_enabled": (True, True, False),
}


def random_shape(rng: Random, servers: int) -> Shape:
    """Mostly voters only; at times observers, or groups with weights."""
    choice = rng.random()
    if choice < 0.25 and servers >= 4:
        observers = rng.randint(1, servers - 3)
        return Shape(servers - observers, observers)
    if choice < 0.35 and servers >= 5:
        sids = list(range(1, servers + 1))
        rng.shuffle(sids)
        groups = [sids[:2], sids[2:4], sids[4:]] if rng.random() < 0.5 else [sids[:3], sids[3:]]
        weights = {sid: rng.choice((1, 1, 1, 2)) for sid in sids}
        return Shape(servers, 0, groups, weights)
    return Shape(servers)


class Simulation:
    """One seed. `servers` in all; `tracer` is told what happens."""

    # How long clients wait between requests, at most, and how much they put into nodes.
    think_us = 400_000
    sizes: tuple[int, ...] = SIZES

    def __init__(
        self,
        seed: int,
        servers: int = 5,
        *,
        tracer: Callable[[str], None] | None = None,
        shape: Shape | None = None,
        overrides: dict[str, object] | None = None,
    ) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        values: dict[str, object] = {name: rng.choice(some) for name, some in OVERRIDES.items()}
        self.cluster = Cluster(
            rng,
            shape or random_shape(rng, servers),
            overrides={**values, **(overrides or {})},
            preallocate_bytes=rng.choice((0, 100, 4096)),
            committed_log_count=rng.choice((3, 10, 50, 500)),
            tracer=tracer,
        )
        self.cluster.network.bytes_per_second = rng.choice((10_000_000, 10_000_000, 100_000))
        if self.cluster.network.bytes_per_second > 1_000_000:
            self.sizes = rng.choice((SIZES, SIZES, (1, 30, 3000), (8, 30_000)))
        self.cluster.checker.expiry_slack_ms = self.cluster.checker_slack_ms
        self.cluster.on_death = self._died
        if rng.random() < 0.3:
            for host in self.cluster.hosts.values():
                host.clock_rate = rng.uniform(0.95, 1.05)
        self.think_us = rng.choice((100_000, 400_000, 400_000))
        self.nemesis = Nemesis(self.cluster)
        self.clients: list[Client] = []

    def add_clients(self, count: int, requests_each: int = ENDLESS) -> None:
        """Clients that begin at once."""
        for _ in range(count):
            client = Client(
                self.cluster,
                len(self.clients) + 1,
                RequestSource(self.rng, sizes=self.sizes),
                left=requests_each,
                timeout_ms=self.rng.choice((4000, 5000, 8000)),
                addresses=self.cluster.addresses(),
                think_us=self.think_us,
            )
            self.clients.append(client)
            client.start()

    def _died(self, host: Host) -> None:
        """A process has ended by itself: somebody starts it again."""
        self.nemesis.restart_later(host)

    def run(self, faults: int = 8) -> Simulation:
        """From the start to the final checks."""
        rng = self.rng
        cluster = self.cluster
        cluster.start()
        self.add_clients(rng.randint(2, 5))
        self.nemesis.plan(faults)
        scheduler = cluster.scheduler
        scheduler.run_while(lambda: not self.nemesis.over, 600 * SECOND)
        self.heal()
        self.converge()
        self.finish()
        return self

    def heal(self) -> None:
        """From here on nothing breaks any more."""
        self.cluster.trace("----", "heal")
        self.nemesis.heal()

    def converge(self) -> None:
        """Everybody has to be served within a bounded time, and to finish."""
        cluster = self.cluster
        require(
            cluster.scheduler.run_while(lambda: not cluster.all_serve(), CONVERGENCE_S * SECOND),
            "no leader, or not everybody caught up, %s s after all was healed: %s",
            CONVERGENCE_S,
            self.describe(),
        )
        for client in self.clients:
            client.left = min(client.left, 10)
        require(
            cluster.scheduler.run_while(
                lambda: not all(client.idle for client in self.clients), LAST_WRITES_S * SECOND
            ),
            "clients wait for replies %s s after all was healed: %s",
            LAST_WRITES_S,
            self.describe(),
        )

    def finish(self) -> None:
        """Clients leave, each in its way; then nothing of them is left, and all are the same."""
        cluster = self.cluster
        for client in self.clients:
            client.finish(self.rng.choice(("close", "vanish")))
        history = cluster.checker.history
        require(
            cluster.scheduler.run_while(lambda: bool(history.sessions), EXPIRY_S * SECOND),
            "sessions %s do not expire",
            [hex(session) for session in history.sessions],
        )
        require(
            cluster.scheduler.run_while(lambda: not cluster.at_rest(), CONVERGENCE_S * SECOND),
            "members are not at rest: %s",
            self.describe(),
        )
        require(not history.ephemerals or not any(history.ephemerals.values()), "ephemerals left")
        for host in cluster.hosts.values():
            cluster.checker.same_as_history(host.name, host.member.server.tree)
            mismatches = host.member.database.digest_mismatches
            require(mismatches == 0, "%s counts %s digest mismatches", host, mismatches)

    def describe(self) -> str:
        """Who is what, for messages."""
        parts = []
        for host in self.cluster.hosts.values():
            if not host.up:
                parts.append(f"{host} down")
                continue
            role = host.member.role
            zxid = host.member.server.tree.last_processed_zxid
            parts.append(f"{host} {role.peer_state()} {zxid:#x}")
        for client in self.clients:
            parts.append(
                f"{client} {'up' if client.established else 'down'} left {client.left} "
                f"waits for {list(client.sent)[:2]}"
            )
        return "; ".join(parts)

    def summary(self) -> str:
        """What has happened, in numbers."""
        checker = self.cluster.checker
        counts = {
            "committed": len(checker.history.order),
            "replies": checker.replies,
            "writes": checker.writes,
            "syncs": checker.syncs,
            "events": checker.events,
            **self.cluster.counts,
        }
        return ", ".join(f"{name} {count}" for name, count in counts.items())


def simulate(seed: int, tracer: Callable[[str], None] | None = None) -> Simulation:
    """Run one seed of five servers to its end."""
    return Simulation(seed, tracer=tracer).run()
