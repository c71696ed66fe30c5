"""What all tests share: hypothesis profiles, and seeds for tests that simulate.

A test with an argument `seed` runs once per seed, `@pytest.mark.seeds(n)` says for how many.
`ZKPY_SEED=4711` replays exactly one, in any such test; it may be hexadecimal.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from zkpy.server import zkserver

DEFAULT_SEEDS = 5
COMPILED = not str(zkserver.__file__).endswith(".py")
if os.environ.get("ZKPY_COMPILED") and not COMPILED:
    pytest.exit(f"zkpy is to be compiled here, and {zkserver.__file__} is not", 3)

# A test's time on a busy machine says nothing about the code: pytest-timeout catches what hangs.
settings.register_profile("base", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: a red build is due to the change, and reproducible.
settings.register_profile(
    "ci", settings.get_profile("base"), derandomize=True, max_examples=50, print_blob=True
)
settings.register_profile("dev", settings.get_profile("base"), max_examples=50)
# For a search by hand: HYPOTHESIS_PROFILE=thorough scripts/test tests/...
settings.register_profile("thorough", settings.get_profile("base"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def seeds_for(count: int) -> list[int]:
    """The seed of `ZKPY_SEED` alone, or else `count` fixed ones."""
    replayed = os.environ.get("ZKPY_SEED")
    return [int(replayed, 0)] if replayed else list(range(1, count + 1))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "seeds(n): run a test with an argument `seed` for n seeds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if COMPILED:
        skip = pytest.mark.skip(reason="replaces parts of zkpy, and compiled modules keep theirs")
        for item in items:
            if item.get_closest_marker("patches"):
                item.add_marker(skip)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    # A test that names its own seeds, such as one kept from a past failure, keeps them.
    if any("seed" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")):
        return
    marker = metafunc.definition.get_closest_marker("seeds")
    metafunc.parametrize("seed", seeds_for(marker.args[0] if marker else DEFAULT_SEEDS))
