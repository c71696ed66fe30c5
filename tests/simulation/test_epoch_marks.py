"""Epochs in which nothing is written: their mark, counter 0, is a zxid of snapshots only."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.simulation.scenario import Scenario


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_snapshot_of_the_mark_is_what_a_learner_has() -> None:
    """It went back to the zxid from before its role, and logged what the snapshot has again."""
    s = Scenario(overrides={"snapshot_size_factor": -1.0, "snap_count": 8})
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/a")
    s.b.kill()
    s.create(client, *(f"/{number}" for number in range(30)))
    client.finish("vanish")
    s.run(1)
    # C has all of it in a snapshot from now on, A in its committed log.
    s.c.kill()
    s.start(s.c)
    s.settle(s.a, s.c)
    assert s.leads(s.c)
    s.start(s.b)
    s.settle()
    assert s.cluster.counts["SNAP"] == 1
    assert s.b.member.database.last_zxid == 2 << 32
    s.c.kill()
    s.until(lambda: s.serving(s.a, s.b))
    s.settle(s.a, s.b)
    s.finish()
