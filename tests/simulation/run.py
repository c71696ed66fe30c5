"""Runs seeds until one fails: `scripts/simulate`."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable

from tests.simulation.standalone import simulate

SIMULATIONS: dict[str, Callable[[int], object]] = {"standalone": simulate}
PROGRESS_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many; without, until one fails")
    parser.add_argument("--first", type=lambda text: int(text, 0), help="the first; random without")
    parser.add_argument("--only", choices=SIMULATIONS, help="one kind of simulation")
    options = parser.parse_args(arguments)
    first = int.from_bytes(os.urandom(5), "big") if options.first is None else options.first
    seeds = itertools.count(first) if options.seeds is None else range(first, first + options.seeds)
    names = [options.only] if options.only else list(SIMULATIONS)
    logging.disable(logging.CRITICAL)  # disks fail all the time here
    done = 0
    shown_s = time.monotonic()
    for seed in seeds:
        for name in names:
            try:
                SIMULATIONS[name](seed)
            except Exception:
                traceback.print_exc()
                test = f"tests/simulation/test_{name}.py"
                print(f"seed {seed} fails: ZKPY_SEED={seed} scripts/test {test}", flush=True)
                return 1
        done += 1
        if time.monotonic() - shown_s > PROGRESS_S:
            shown_s = time.monotonic()
            print(f"{done} seeds from {first} on, none failed", flush=True)
    print(f"{done} seeds from {first} on, none failed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
