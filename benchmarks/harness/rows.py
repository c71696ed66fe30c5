"""What is measured: the rows of the table, their loads, and what zkpy must reach.

Ratios are zkpy's operations per second over Apache's, so more is better; a row without a ratio has
a most that zkpy may need, in the row's own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

# What a row needs to be measured: see plan.py.
LOAD, START, IDLE_MEMORY, LOADED_MEMORY = "load", "start", "idle memory", "loaded memory"
ZNODE_MEMORY, RESTART, SNAPSHOT = "znode memory", "restart", "snapshot"
BIG = (ZNODE_MEMORY, RESTART, SNAPSHOT)
FAILOVER, REJOIN = "failover", "rejoin"
MISHAPS = (FAILOVER, REJOIN)

PER_S, SECONDS, MEGABYTES, BYTES, MILLISECONDS = "/s", "s", "MB", "B", "ms"


@dataclass(frozen=True)
class Row:
    """One line of the table. `must` is a ratio when the unit is PER_S, else a most."""

    name: str
    title: str
    kind: str
    must: float
    unit: str = PER_S
    must_cpu_us: float | None = None  # the most CPU time zkpy may take for one operation
    loadgen: tuple[str, ...] = ()
    through: str = ""  # of an ensemble: only this one, such as "follower"


def _load(
    name: str, title: str, must: float, arguments: str, must_cpu_us: float | None = None
) -> Row:
    return Row(name, title, LOAD, must, PER_S, must_cpu_us, tuple(arguments.split()))


ROWS = (
    _load("get-1", "get, 1 connection W=1", 1.8, "load --mix get"),
    _load("get-32", "get, 32 connections W=1", 1.4, "load --mix get --connections 32"),
    _load(
        "get-8x64", "get, 8 connections W=64", 4, "load --mix get --connections 8 --window 64", 3
    ),
    _load("set-1", "set, 1 connection W=1", 1.5, "load --mix set"),
    _load("set-32", "set, 32 connections W=1", 1.2, "load --mix set --connections 32"),
    _load(
        "set-1k-32",
        "set of 1 KiB, 32 connections W=1",
        1.2,
        "load --mix set --connections 32 --bytes 1024",
    ),
    _load(
        "set-8x64", "set, 8 connections W=64", 1.5, "load --mix set --connections 8 --window 64", 11
    ),
    # So many, then deleted again: else the memory after the loads would be that of what they made.
    _load(
        "create-8x64",
        "create, 8 connections W=64",
        1.8,
        "load --mix create --connections 8 --window 64 --count 50000 --cleanup",
        15,
    ),
    _load(
        "mix-16x16",
        "90 % get 10 % set, 16 connections W=16",
        3,
        "load --mix get=9,set=1 --connections 16 --window 16",
    ),
    _load(
        "multi-8x8",
        "multi of 10 sets, 8 connections W=8",
        1.5,
        "load --mix multi --batch 10 --connections 8 --window 8",
    ),
    _load(
        "watch-1000",
        "one node, 1,000 watchers: events/s, re-armed",
        1.5,
        "watch --connections 1000",
    ),
    _load(
        "sessions-5000",
        "sessions opened per second, to 5,000",
        1.3,
        "sessions --count 5000 --parallel 32",
    ),
    Row("start", "start to first session", START, 0.15, SECONDS),
    Row("memory-idle", "resident memory, idle", IDLE_MEMORY, 32, MEGABYTES),
    Row("memory-loaded", "resident memory, after these loads", LOADED_MEMORY, 80, MEGABYTES),
    Row("znode-memory", "1,000,000 znodes of 100 B: memory each", ZNODE_MEMORY, 600, BYTES),
    Row("restart", "the same: restart to first read", RESTART, 6, SECONDS),
    Row(
        "snapshot",
        "the same: p99 of gets at 2,000/s while a snapshot is written",
        SNAPSHOT,
        5,
        MILLISECONDS,
    ),
)


def _of_ensemble(name: str, must: float, title: str = "", through: str = "") -> Row:
    """The row of that name, with what the ensemble has to reach; no bound on the CPU time."""
    (row,) = [row for row in ROWS if row.name == name]
    return replace(row, title=title or row.title, must=must, must_cpu_us=None, through=through)


# Three members on this machine, with clients spread over all of them.
ENSEMBLE_ROWS = (
    _of_ensemble("get-32", 1.5),
    _of_ensemble("get-8x64", 3),
    _of_ensemble("set-1", 1.5),
    _of_ensemble("set-32", 2),
    _of_ensemble("set-1k-32", 2),
    _of_ensemble("set-8x64", 1.5),
    _of_ensemble("create-8x64", 2),
    _of_ensemble("mix-16x16", 2),
    _of_ensemble("multi-8x8", 2),
    replace(
        _of_ensemble("set-32", 2, "set through one follower, 32 connections W=1", "follower"),
        name="set-follower-32",
    ),
    _of_ensemble("watch-1000", 2),
    _of_ensemble("sessions-5000", 2),
    _of_ensemble("start", 0.6, "start of all three to first session"),
    _of_ensemble("memory-idle", 95, "resident memory of all three, idle"),
    _of_ensemble("memory-loaded", 200, "resident memory of all three, after these loads"),
    Row("failover", "leader killed (-9) to next write through a survivor", FAILOVER, 0.3, SECONDS),
    Row("rejoin", "100,000 znodes: restart of a follower to first read", REJOIN, 2, SECONDS),
)


def choose(patterns: str | None, rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows whose name matches one of the comma-separated shell patterns; None for all.

    Raises ValueError for a pattern that matches nothing.
    """
    if patterns is None:
        return list(rows)
    wanted = patterns.split(",")
    for pattern in wanted:
        if not any(fnmatchcase(row.name, pattern) for row in rows):
            names = ", ".join(row.name for row in rows)
            raise ValueError(f"no row is called {pattern}; there are: {names}")
    return [row for row in rows if any(fnmatchcase(row.name, pattern) for pattern in wanted)]
