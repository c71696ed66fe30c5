"""Runs seeds until one fails: `scripts/simulate`."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.reconfiguring import ReconfigSimulation
from tests.simulation.scenario import show_log_lines
from tests.simulation.standalone import simulate as simulate_standalone

from zkpy.testing.simulation import Simulation, simulate


def simulate_reconfig(seed: int) -> None:
    """An ensemble whose members change all the time."""
    ReconfigSimulation(seed).run()


SIMULATIONS: dict[str, Callable[[int], object]] = {
    "standalone": simulate_standalone,
    "ensemble": simulate,
    "reconfig": simulate_reconfig,
}
# Of which kinds `--trace` can show what happens.
TRACEABLE: dict[str, Callable[..., Simulation]] = {
    "ensemble": Simulation,
    "reconfig": ReconfigSimulation,
}
PROGRESS_S = 10.0
SEEDS_PER_TASK = 5


def failure_of(name: str, seed: int) -> str | None:
    """Run one seed; the traceback if it fails."""
    logging.disable(logging.CRITICAL)  # disks and networks fail all the time here
    try:
        SIMULATIONS[name](seed)
    except Exception:
        return traceback.format_exc()
    return None


def failures(names: list[str], seeds: list[int]) -> list[tuple[str, int, str]]:
    """What goes wrong in some seeds."""
    found = []
    for seed in seeds:
        for name in names:
            failure = failure_of(name, seed)
            if failure is not None:
                found.append((name, seed, failure))
    return found


def trace(name: str, seed: int) -> int:
    """Run one seed of an ensemble, and print what happens, log lines of the members included."""
    simulation = TRACEABLE[name](seed, tracer=print)
    show_log_lines(simulation.cluster)
    try:
        simulation.run()
    except Exception:
        traceback.print_exc()
        return 1
    print(simulation.summary())
    return 0


def batches(seeds: Iterator[int]) -> Iterator[list[int]]:
    while batch := list(itertools.islice(seeds, SEEDS_PER_TASK)):
        yield batch


def search(
    names: list[str], seeds: Iterator[int], jobs: int
) -> Iterator[list[tuple[str, int, str]]]:
    """Failures, a batch of seeds at a time, in order."""
    if jobs == 1:
        for batch in batches(seeds):
            yield failures(names, batch)
        return
    with ProcessPoolExecutor(jobs) as pool:
        running = []
        for batch in batches(seeds):
            running.append(pool.submit(failures, names, batch))
            if len(running) > 2 * jobs:
                yield running.pop(0).result()
        for task in running:
            yield task.result()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many; without, until one fails")
    parser.add_argument("--first", type=lambda text: int(text, 0), help="the first; random without")
    parser.add_argument("--only", choices=SIMULATIONS, help="one kind of simulation")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 1 without")
    parser.add_argument("--keep-going", action="store_true", help="do not end at a failure")
    parser.add_argument(
        "--trace", type=lambda text: int(text, 0), metavar="SEED", help="show one ensemble's seed"
    )
    options = parser.parse_args(arguments)
    if options.trace is not None:
        return trace(options.only or "ensemble", options.trace)
    first = int.from_bytes(os.urandom(5), "big") if options.first is None else options.first
    seeds = itertools.count(first) if options.seeds is None else range(first, first + options.seeds)
    names = [options.only] if options.only else list(SIMULATIONS)
    done = failed = 0
    shown_s = time.monotonic()
    for found in search(names, iter(seeds), options.jobs):
        for name, seed, failure in found:
            failed += 1
            print(failure)
            test = f"tests/simulation/test_{name}.py"
            print(f"seed {seed} fails: ZKPY_SEED={seed} scripts/test {test}", flush=True)
            if name in TRACEABLE:
                command = f"scripts/simulate --only {name} --trace {seed}"
                print(f"what happens in it: {command}", flush=True)
            if not options.keep_going:
                return 1
        done += SEEDS_PER_TASK
        if options.seeds is not None:
            done = min(done, options.seeds)
        if time.monotonic() - shown_s > PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{done} seeds from {first} on, {failed or 'none'} failed", flush=True)
    print(f"{done} seeds from {first} on, {failed or 'none'} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
