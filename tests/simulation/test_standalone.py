"""A few dozen seeds of the standalone simulation; `make simulate` looks for more."""

from __future__ import annotations

import pytest
from tests.simulation.standalone import StandaloneSimulation, simulate

from zkpy.persistence.store import FileTxnSnapLog, Settings


@pytest.mark.seeds(40)
def test_nothing_acknowledged_is_lost(seed: int) -> None:
    simulation = simulate(seed)
    assert simulation.lives == 7


def test_a_seed_replays() -> None:
    """The same txns, replies and crashes, or a failure could not be looked into."""
    first, second = simulate(7), simulate(7)
    assert first.history.txns == second.history.txns
    assert first.replies == second.replies > 0
    assert first.disk.list_dir("/data/version-2") == second.disk.list_dir("/data/version-2")


@pytest.mark.parametrize("seed", [329])
def test_seeds_that_failed(seed: int) -> None:
    """329: an ephemeral deleted, made anew by another, and its first session closed, in one go."""
    simulate(seed)


# What the simulation is to find, it finds.


def fails(simulation_of: type[StandaloneSimulation], seeds: int = 20) -> bool:
    for seed in range(1, seeds + 1):
        try:
            simulation_of(seed).run()
        except Exception:
            return True
    return False


def test_it_notices_a_log_that_is_not_synced() -> None:
    class Unsynced(StandaloneSimulation):
        def start(self) -> None:
            self.settings: Settings = self.settings._replace(force_sync=False)
            super().start()

    assert fails(Unsynced)


def test_it_notices_who_acknowledges_too_early() -> None:
    class Early(StandaloneSimulation):
        def flush(self) -> None:
            if self.rng.random() < 0.05:
                self.synced.append(self.store.log.last_zxid)
            super().flush()

    assert fails(Early)


def test_it_notices_a_log_that_is_not_settled_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileTxnSnapLog, "_settle", lambda _store: None)
    assert fails(StandaloneSimulation, 60)
