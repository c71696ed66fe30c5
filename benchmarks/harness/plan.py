"""The measurements: which server does what when.

Both servers run side by side for the loads, and take turns row by row, repeat by repeat (A B A B),
so that what else happens on the machine meets both; the one that waits is idle. What needs a
million znodes runs with one server at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import rows as r
from benchmarks.harness.client import Address, ServerError, Session, server_version
from benchmarks.harness.ensemble import Ensemble
from benchmarks.harness.loadgen import LoadFailed, LoadGenerator, Result
from benchmarks.harness.servers import Server, StartFailed

SETTLE_S = 0.5  # between two runs: what the last one left to do is not for the next one to pay
IDLE_S = 2.0  # before resident memory counts as idle
QUIET_S = 3.0  # without a change of a snapshot: none is being written
SNAPSHOT_LIMIT_S = 300.0
ZNODES = 1_000_000
FILLED = ("--root", "/bench/filled", "--parents", "100", "--nodes", str(ZNODES), "--no-prepare")
FIRST_READ = "/bench/filled/d099/n0999999"
REJOIN_ZNODES = 100_000
REJOIN_READ = "/bench/filled/d099/n0099999"
REPLAYED = 30_000  # txns after the last snapshot, for a restart to replay; too few for the next one
SETS_PER_S = 5000  # towards the next snapshot; a rate that leaves the gets undisturbed
WARM_UP_LOADS = (  # each part of the servers that a row needs, so that a JVM has compiled it
    "load --mix get --connections 32",
    "load --mix set --connections 32 --bytes 1024",
    "load --mix get=9,set=1 --connections 16 --window 16",
    "load --mix create --connections 8 --window 64 --count 50000 --cleanup",
    "load --mix multi --connections 8 --window 8",
    "watch --connections 200",
    "load --mix get --connections 8 --window 64",
    "load --mix set --connections 8 --window 64",
)


Measured = Server | Ensemble
Maker = Callable[[str], Measured]


@dataclass
class Measurement:
    """One figure in the row's unit, and what came with it."""

    value: float
    details: Result = field(default_factory=dict)

    @property
    def cpu_us(self) -> float | None:
        """Server CPU time per operation, where it was measured."""
        cpu_us: float | None = self.details.get("server_cpu_us_per_op")
        return cpu_us


@dataclass
class Results:
    """Everything measured: row name -> server name -> repeats, or why there are none."""

    measured: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, server: str, measurement: Measurement) -> None:
        self.measured.setdefault(row, {}).setdefault(server, []).append(measurement)
        say(f"{row:14} {server:8} {measurement.value:12,.3f}")

    def fail(self, row: str, server: str, error: Exception) -> None:
        self.failures.setdefault(row, {})[server] = str(error)
        say(f"{row:14} {server:8} FAILED: {str(error).splitlines()[0]}")


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    seconds: float
    repeats: int
    warm_up_s: float


def say(text: str) -> None:
    """Progress, where it does not mix with the table."""
    print(text, file=sys.stderr, flush=True)


class Plan:
    """Runs the chosen rows and fills `results`."""

    def __init__(self, program: Path, rows: Sequence[r.Row], settings: Settings) -> None:
        self.program = program
        self.rows = rows
        self.settings = settings
        self.results = Results()

    def chosen(self, *kinds: str) -> list[r.Row]:
        return [row for row in self.rows if row.kind in kinds]

    @contextmanager
    def failing_as(self, rows: Iterable[r.Row], server: str) -> Iterator[None]:
        """What goes wrong inside is the result of these rows, and no reason to stop."""
        try:
            yield
        except (LoadFailed, StartFailed, ServerError, OSError) as error:
            say(f"{server}: {error}")
            for row in rows:
                self.results.fail(row.name, server, error)

    # ------------------------------------------------------------------ servers of our own

    def run(self, make_servers: Sequence[Maker]) -> Results:
        """All rows; each maker gives a stopped server in a new folder of the name given."""
        self.measure_starts(make_servers)
        if self.chosen(r.LOAD):
            self.measure_loads([make("loads") for make in make_servers])
        if self.chosen(*r.MISHAPS):
            for make in make_servers:
                ensemble = make("mishaps")
                assert isinstance(ensemble, Ensemble)
                try:
                    self.measure_mishaps(ensemble)
                finally:
                    ensemble.stop()
        if self.chosen(*r.BIG):
            for make in make_servers:
                server = make("znodes")
                assert isinstance(server, Server)
                try:
                    self.measure_big(server)
                finally:
                    server.stop()
        return self.results

    def start(self, server: Measured, read: str | None = None) -> float:
        """Start it; returns the seconds, see Server.start."""
        elapsed_s = server.start(read)
        self.results.versions.setdefault(server.name, server_version(server.address))
        return elapsed_s

    def measure_starts(self, make_servers: Sequence[Maker]) -> None:
        """Empty folder to first session, and the memory of a server that has done nothing else."""
        rows = self.chosen(r.START, r.IDLE_MEMORY)
        if rows:
            self.warm_files(make_servers)
        for repeat in range(self.settings.repeats if rows else 0):
            for make in make_servers:
                server = make(f"start{repeat}")
                try:
                    with self.failing_as(rows, server.name):
                        elapsed_s = self.start(server)
                        for row in self.chosen(r.START):
                            self.results.add(row.name, server.name, Measurement(elapsed_s))
                        for row in self.chosen(r.IDLE_MEMORY):
                            time.sleep(IDLE_S)
                            megabytes = Measurement(server.rss_bytes() / 1e6)
                            self.results.add(row.name, server.name, megabytes)
                finally:
                    server.stop()

    def warm_files(self, make_servers: Sequence[Maker]) -> None:
        """Start each once, so that its files are in memory."""
        for make in make_servers:
            server = make("first")
            try:
                with self.failing_as((), server.name):
                    self.start(server)
            finally:
                server.stop()

    def measure_loads(self, servers: Sequence[Measured]) -> None:
        rows = self.chosen(r.LOAD)
        try:
            for server in servers:
                with self.failing_as(rows, server.name):
                    self.start(server)
                    self.warm_up(server)
            for row in rows:
                for _ in range(self.settings.repeats):
                    for server in servers:
                        if row.name not in self.results.failures or (
                            server.name not in self.results.failures[row.name]
                        ):
                            self.measure_load(row, server)
            for row in self.chosen(r.LOADED_MEMORY):
                time.sleep(IDLE_S)
                for server in servers:
                    if server.running:
                        peak = {"peak_bytes": server.peak_rss_bytes()}
                        megabytes = Measurement(server.rss_bytes() / 1e6, peak)
                        self.results.add(row.name, server.name, megabytes)
        finally:
            for server in servers:
                server.stop()

    def measure_load(self, row: r.Row, server: Measured) -> None:
        with self.failing_as([row], server.name):
            if not server.running:
                say(f"{server.name} has ended; started again. It said:\n{server.log_tail()}")
                self.start(server)
                self.warm_up(server)
            time.sleep(SETTLE_S)
            arguments = [*row.loadgen, "--seconds", str(self.settings.seconds)]
            target = target_of(row, server)
            result = LoadGenerator(self.program, target, arguments, server.pids).finish()
            measurement = Measurement(result["operations_per_s"], result)
            self.results.add(row.name, server.name, measurement)

    def warm_up(self, server: Measured) -> None:
        if self.settings.warm_up_s <= 0:
            return
        say(f"warming up {server.name}")
        for load in WARM_UP_LOADS:
            arguments = [*load.split(), "--warmup", "0", "--seconds", str(self.settings.warm_up_s)]
            LoadGenerator(self.program, server.target, arguments).finish()

    # ------------------------------------------------------- members that die and come back

    def measure_mishaps(self, ensemble: Ensemble) -> None:
        with self.failing_as(self.chosen(*r.MISHAPS), ensemble.name):
            self.start(ensemble)
            for row in self.chosen(r.FAILOVER):
                for _ in range(self.settings.repeats):
                    time.sleep(SETTLE_S)
                    self.results.add(row.name, ensemble.name, Measurement(ensemble.kill_leader()))
            for row in self.chosen(r.REJOIN):
                fill = "load --mix create --connections 8 --window 64 --create-root /bench/filled"
                fill += f" --create-parents 100 --count {REJOIN_ZNODES} --seconds 300"
                LoadGenerator(self.program, ensemble.target, fill.split()).finish()
                for _ in range(self.settings.repeats):
                    time.sleep(SETTLE_S)
                    elapsed_s = ensemble.restart_follower(REJOIN_READ)
                    self.results.add(row.name, ensemble.name, Measurement(elapsed_s))

    # ------------------------------------------------------------------- a million znodes

    def measure_big(self, server: Server) -> None:
        rows = self.chosen(*r.BIG)
        with self.failing_as(rows, server.name):
            self.start(server)
            time.sleep(IDLE_S)
            before = server.rss_bytes()
            say(f"filling {server.name} with {ZNODES:,} znodes")
            fill = "load --mix create --connections 8 --window 64 --create-root /bench/filled"
            arguments = [*fill.split(), "--create-parents", "100"]
            arguments += ["--count", str(ZNODES), "--seconds", "500"]
            filled = LoadGenerator(self.program, server.target, arguments, server.pids).finish()
            if filled["operations"] < ZNODES:
                raise LoadFailed(f"only {filled['operations']} znodes created in 500 s")
            wait_for_quiet(server)
            each = (server.rss_bytes() - before) / ZNODES
            details = {"fill": filled, "peak_bytes": server.peak_rss_bytes()}
            for row in self.chosen(r.ZNODE_MEMORY):
                self.results.add(row.name, server.name, Measurement(each, details))
            self.measure_restarts(server)
            for row in self.chosen(r.SNAPSHOT):
                self.measure_snapshots(row, server)

    def measure_restarts(self, server: Server) -> None:
        for row in self.chosen(r.RESTART):
            with self.failing_as([row], server.name):
                for _ in range(self.settings.repeats):
                    sets = ["load", "--mix", "set", "--connections", "8", "--window", "64", *FILLED]
                    sets += ["--count", str(REPLAYED), "--seconds", "300"]
                    LoadGenerator(self.program, server.target, sets).finish()
                    wait_for_quiet(server)
                    server.stop()
                    elapsed_s = self.start(server, FIRST_READ)
                    wait_for_quiet(server)
                    details = {"rss_bytes": server.rss_bytes()}
                    self.results.add(row.name, server.name, Measurement(elapsed_s, details))

    def measure_snapshots(self, row: r.Row, server: Server) -> None:
        with self.failing_as([row], server.name):
            if not server.running:
                self.start(server, FIRST_READ)
            for repeat in range(self.settings.repeats):
                wait_for_quiet(server)
                trace = server.folder / f"trace{repeat}"
                self.results.add(row.name, server.name, self.gets_while_snapshot(server, trace))

    def gets_while_snapshot(self, server: Server, trace: Path) -> Measurement:
        """Gets at a fixed rate throughout; sets until they have caused a snapshot, then none."""
        limit = ["--seconds", str(SNAPSHOT_LIMIT_S)]
        paced = ["load", "--mix", "get", "--connections", "16", "--rate", "2000"]
        gets_arguments = [*paced, *FILLED, "--warmup", "1", *limit, "--trace", str(trace)]
        sets = ["load", "--mix", "set", "--connections", "8", "--rate", str(SETS_PER_S)]
        gets = LoadGenerator(self.program, server.target, gets_arguments)
        writer = LoadGenerator(self.program, server.target, [*sets, *FILLED, *limit])
        try:
            begin = wait_for_snapshot(server)
            writer.end_early()
            end = wait_for_quiet(server)
            result = gets.end_early()
        finally:
            writer.abandon()
            gets.abandon()
        latencies_ms = latencies_between(trace, begin, end)
        if len(latencies_ms) < 100:
            raise LoadFailed(f"a snapshot of {end - begin:.3f} s: too short for a p99 of gets")
        details = {
            "snapshot_s": end - begin,
            "gets": len(latencies_ms),
            "p50_ms": percentile(latencies_ms, 0.5),
            "max_ms": latencies_ms[-1],
            "whole_run": result,
        }
        return Measurement(percentile(latencies_ms, 0.99), details)

    # --------------------------------------------------------------- a server somewhere else

    def run_against(self, name: str, address: Address, pid: str | None) -> Results:
        """The rows that a client can see, against a server that is running already.

        Everything is done below one znode, which is deleted at the end.
        """
        root = f"/zkpy-benchmark-{int(time.time())}"
        target = f"{address[0]}:{address[1]}"
        self.results.versions[name] = server_version(address)
        try:
            for row in self.chosen(r.LOAD):
                arguments = [*row.loadgen, "--seconds", str(self.settings.seconds)]
                if row.loadgen[0] != "sessions":
                    arguments += ["--root", root, "--create-root", root + "/created"]
                for _ in range(self.settings.repeats):
                    with self.failing_as([row], name):
                        result = LoadGenerator(self.program, target, arguments, pid).finish()
                        measurement = Measurement(result["operations_per_s"], result)
                        self.results.add(row.name, name, measurement)
        finally:
            session = Session(address)
            session.delete_tree(root)
            session.close()
        return self.results


def target_of(row: r.Row, server: Measured) -> str:
    """Where the load of that row goes."""
    if row.through:
        assert isinstance(server, Ensemble), f"{row.name} needs an ensemble"
        return server.in_mode(row.through).target
    return server.target


def wait_for_quiet(server: Server) -> float:
    """Wait until no snapshot is being written; returns when (since 1970) the last one was done."""
    deadline = time.monotonic() + SNAPSHOT_LIMIT_S
    start = time.time()
    while time.monotonic() < deadline:
        changes = server.snapshots_changed_at()
        newest = max(changes.values(), default=0.0)
        if time.time() - max(newest, start) > QUIET_S:
            return newest
        time.sleep(0.1)
    raise LoadFailed(f"{server.name} writes snapshots without an end")


def wait_for_snapshot(server: Server) -> float:
    """Wait for a snapshot to be begun; returns when (since 1970)."""
    deadline = time.monotonic() + SNAPSHOT_LIMIT_S
    before = server.snapshots_changed_at().keys()
    while time.monotonic() < deadline:
        changes = server.snapshots_changed_at()
        if new := changes.keys() - before:
            return min(changes[name] for name in new)
        if not server.running:
            raise LoadFailed(f"{server.name} has ended:\n{server.log_tail()}")
        time.sleep(0.01)
    raise LoadFailed(f"{server.name} began no snapshot in {SNAPSHOT_LIMIT_S:.0f} s of sets")


def latencies_between(trace: Path, begin: float, end: float) -> list[float]:
    """Sorted latencies in ms of the requests in `trace` sent from `begin` to `end` (since 1970)."""
    latencies_ms = []
    for line in trace.read_text().splitlines():
        sent_ns, latency_ns = map(int, line.split())
        if begin * 1e9 <= sent_ns <= end * 1e9:
            latencies_ms.append(latency_ns / 1e6)
    return sorted(latencies_ms)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of a sorted sequence that is not empty."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
