"""Nemesis: breaks hosts, disks, clocks and networks of a simulated ensemble, and mends them."""

from __future__ import annotations

from zkpy.testing import disk as disk_faults
from zkpy.testing.host import LEAST_SYNC_US, MOST_SYNC_US
from zkpy.testing.scheduler import MS, SECOND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from zkpy.testing.cluster import Cluster
    from zkpy.testing.host import Host

DISK_FAULTS: Final = (
    disk_faults.CREATE,
    disk_faults.WRITE,
    disk_faults.SYNC,
    disk_faults.RENAME,
    disk_faults.SYNC_DIR,
)
LONGEST_US: Final = 6 * SECOND
LONGEST_PAUSE_US: Final = 4 * SECOND


class Nemesis:
    """`plan` spreads faults over time; `over` once the last one has come."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rng = cluster.rng
        self.over = False
        self.healed = False
        self.menu: list[tuple[int, Callable[[], None]]] = [
            (4, self.kill),
            (3, self.power_off),
            (3, self.power_off_soon),
            (1, self.kill_all),
            (4, self.partition),
            (3, self.isolate_leader),
            (3, self.one_way),
            (3, self.cut_connections),
            (2, self.slow_links),
            (2, self.slow_disk),
            (3, self.stop_process),
            (1, self.wall_clock_jumps),
            (2, self.disk_error),
            (1, self.disk_full),
        ]

    # ------------------------------------------------------------------ when

    def plan(self, faults: int) -> None:
        """Let so many faults happen, with pauses of random length between them."""
        self._left = faults
        self._next()

    def _next(self) -> None:
        if not self._left:
            self.over = True
            return
        pause_us = self.rng.choice((LONGEST_PAUSE_US, LONGEST_PAUSE_US, LONGEST_PAUSE_US // 8))
        self.cluster.scheduler.after(self.rng.randrange(pause_us), self._strike)

    def _strike(self) -> None:
        if self.healed:
            return
        self._left -= 1
        weights = [weight for weight, _ in self.menu]
        fault = self.rng.choices(self.menu, weights)[0][1]
        self.cluster.count(fault.__name__)
        fault()
        self._next()

    def _later(
        self, call: Callable[..., None], *args: object, longest_us: int = LONGEST_US
    ) -> None:
        self.cluster.scheduler.after(self.rng.randrange(longest_us), call, *args)

    def trace(self, text: str, *values: object) -> None:
        self.cluster.trace("****", text, *values)

    def heal(self) -> None:
        """Mend everything, at once."""
        self.healed = True
        self.cluster.network.heal()
        for host in self.cluster.hosts.values():
            host.operations_left = None
            host.disk.mend()
            host.disk.capacity_bytes = None
            host.sync_us = (LEAST_SYNC_US, MOST_SYNC_US)
            if host.stopped:
                host.go_on()
            if not host.up:
                self._restart(host)

    # ------------------------------------------------------------------ whom

    def _host(self) -> Host:
        """The leader more often than others."""
        leader = self.cluster.leader()
        if leader is not None and self.rng.random() < 0.35:
            return leader
        return self.rng.choice(list(self.cluster.hosts.values()))

    def restart_later(self, host: Host) -> None:
        """Start a process again in a while."""
        longest_us = self.rng.choice((SECOND // 10, SECOND, LONGEST_US))
        self._later(self._restart, host, longest_us=longest_us)

    def _restart(self, host: Host) -> None:
        if host.up:
            return
        if not self.healed and self.rng.random() < 0.25:
            # Most of what has to be durable in the right order is written while catching up.
            host.operations_left = self.rng.randrange(60)
        host.start()

    # ------------------------------------------------------------------ processes and power

    def kill(self) -> None:
        host = self._host()
        self.trace("kill %s", host)
        host.kill()
        self.restart_later(host)

    def power_off(self) -> None:
        host = self._host()
        self.trace("power off %s", host)
        host.power_off()
        self.restart_later(host)

    def power_off_soon(self) -> None:
        """In the midst of whatever the disk does then."""
        host = self._host()
        if host.up:
            host.operations_left = self.rng.choice((0, 1, 2, 3, 5, 10, 40))
            self.trace("power off %s in %s operations", host, host.operations_left)

    def kill_all(self) -> None:
        self.trace("all lose power or are killed")
        power = self.rng.random() < 0.5
        for host in self.cluster.hosts.values():
            if power:
                host.power_off()
            else:
                host.kill()
            self.restart_later(host)

    def stop_process(self) -> None:
        """SIGSTOP, SIGCONT."""
        host = self._host()
        if host.up and not host.stopped:
            self.trace("stop %s", host)
            host.stop_running()
            self._later(self._go_on, host, host.life)

    def _go_on(self, host: Host, life: int) -> None:
        if host.life == life and host.stopped:
            self.trace("%s goes on", host)
            host.go_on()

    # ------------------------------------------------------------------ the network

    def partition(self) -> None:
        names = [host.name for host in self.cluster.hosts.values()]
        self.rng.shuffle(names)
        size = self.rng.randint(1, len(names) // 2)
        self._separate(names[:size], names[size:])

    def isolate_leader(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            others = [h.name for h in self.cluster.hosts.values() if h is not leader]
            self._separate([leader.name], others)

    def _separate(self, few: list[str], many: list[str]) -> None:
        self.trace("partition %s | %s", few, many)
        pairs = [(a, b) for a in few for b in many]
        pairs += [(b, a) for a, b in pairs]
        self._block(pairs)

    def one_way(self) -> None:
        host = self._host()
        others = [h.name for h in self.cluster.hosts.values() if h is not host]
        others = self.rng.sample(others, self.rng.randint(1, len(others)))
        pairs = [(host.name, other) for other in others]
        if self.rng.random() < 0.5:
            pairs = [(b, a) for a, b in pairs]
        self.trace("nothing passes %s", ", ".join(f"{a}->{b}" for a, b in pairs))
        self._block(pairs)

    def _block(self, pairs: list[tuple[str, str]]) -> None:
        for source, target in pairs:
            self.cluster.network.block(source, target)
        self._later(self._unblock, pairs)

    def _unblock(self, pairs: list[tuple[str, str]]) -> None:
        if self.healed:
            return
        self.trace("passes again: %s", ", ".join(f"{a}->{b}" for a, b in pairs))
        for source, target in pairs:
            self.cluster.network.unblock(source, target)

    def cut_connections(self) -> None:
        network = self.cluster.network
        connections = network.connections()
        if connections:
            for end in self.rng.sample(connections, self.rng.randint(1, min(4, len(connections)))):
                self.trace("cut %s", end)
                network.reset(end)

    def slow_links(self) -> None:
        host = self._host()
        ms = self.rng.choice((20, 200, 1500))
        self.trace("links of %s take up to %s ms", host, ms)
        slow = self.cluster.network.slow
        for other in self.cluster.hosts.values():
            slow[host.name, other.name] = slow[other.name, host.name] = ms
        self._later(self._links_recover, host)

    def _links_recover(self, host: Host) -> None:
        slow = self.cluster.network.slow
        for pair in [pair for pair in slow if host.name in pair]:
            del slow[pair]

    # ------------------------------------------------------------------ disks and clocks

    def slow_disk(self) -> None:
        host = self._host()
        ms = self.rng.choice((50, 300, 2500))
        self.trace("the disk of %s takes %s ms", host, ms)
        host.sync_us = (ms * MS // 2, ms * MS)
        self._later(self._disk_recovers, host)

    def _disk_recovers(self, host: Host) -> None:
        host.sync_us = (LEAST_SYNC_US, MOST_SYNC_US)

    def disk_error(self) -> None:
        host = self._host()
        if host.up:
            kind = self.rng.choice(DISK_FAULTS)
            self.trace("the disk of %s fails at %s", host, kind)
            host.disk_broken = True
            host.disk.fail(kind, after=self.rng.choice((0, 0, 1, 5)))

    def disk_full(self) -> None:
        host = self._host()
        host.disk_broken = True
        host.disk.capacity_bytes = host.disk.used_bytes() + self.rng.choice((0, 10, 300, 3000))
        self.trace("the disk of %s has %s bytes", host, host.disk.capacity_bytes)
        self._later(self._disk_has_room, host)

    def _disk_has_room(self, host: Host) -> None:
        host.disk.capacity_bytes = None

    def wall_clock_jumps(self) -> None:
        host = self._host()
        jump_ms = self.rng.choice((-3_600_000, -5000, -10, 10, 5000, 86_400_000))
        self.trace("the wall clock of %s jumps by %s ms", host, jump_ms)
        host.wall_offset_ms += jump_ms
