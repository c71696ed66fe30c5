"""The simulation itself: shapes, faults that are mended, and what it says when all is lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest

from zkpy.quorum.members import parse_config_text
from zkpy.testing.cluster import Cluster, Shape
from zkpy.testing.faults import Nemesis
from zkpy.testing.history import Violation
from zkpy.testing.scheduler import SECOND
from zkpy.testing.simulation import Simulation, random_shape


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_shapes() -> None:
    rng = Random(1)
    shapes = [random_shape(rng, 5) for _ in range(100)]
    assert any(shape.observers for shape in shapes)
    assert any(shape.groups for shape in shapes)
    for shape in shapes:
        members = parse_config_text(shape.text())
        assert len(members.servers) == 5
        assert len(members.participants) >= 3
        assert members.hierarchical == bool(shape.groups)


def started(servers: int = 3) -> Cluster:
    cluster = Cluster(Random(1), Shape(servers))
    cluster.start()
    assert cluster.scheduler.run_while(lambda: not cluster.all_serve(), 5 * SECOND)
    return cluster


@pytest.mark.parametrize("fault", range(14))
def test_each_fault_is_mended(fault: int) -> None:
    cluster = started()
    nemesis = Nemesis(cluster)
    cluster.on_death = nemesis.restart_later
    name = nemesis.menu[fault][1].__name__
    for _ in range(3):
        nemesis.menu[fault][1]()
        cluster.scheduler.run_until(cluster.scheduler.now_us + SECOND)
    nemesis.heal()
    assert cluster.scheduler.run_while(lambda: not cluster.all_serve(), 10 * SECOND), name
    assert not nemesis.cluster.network.slow


def test_without_a_quorum_the_simulation_fails() -> None:
    simulation = Simulation(1, servers=3, shape=Shape(3))
    simulation.nemesis.heal = lambda: None  # type: ignore[method-assign]
    hosts = list(simulation.cluster.hosts.values())
    simulation.cluster.start()
    simulation.add_clients(1)
    simulation.cluster.scheduler.run_until(SECOND)
    for host in hosts[1:]:
        host.power_off()
    with pytest.raises(Violation, match="no leader, or not everybody caught up"):
        simulation.converge()


def test_a_client_that_is_not_answered_makes_the_simulation_fail() -> None:
    simulation = Simulation(1, servers=3, shape=Shape(3))
    simulation.cluster.start()
    simulation.add_clients(2)
    simulation.cluster.scheduler.run_until(SECOND)
    for host in simulation.cluster.hosts.values():
        simulation.cluster.network.block(host.name, "c1")
    with pytest.raises(Violation, match="clients wait for replies"):
        simulation.converge()


def test_a_stopped_process_does_nothing_and_forgets_nothing() -> None:
    cluster = started()
    leader = cluster.leader()
    assert leader is not None
    follower = next(host for host in cluster.hosts.values() if host is not leader)
    follower.stop_running()
    heard_ms = follower.member.now_ms
    cluster.scheduler.run_until(cluster.scheduler.now_us + SECOND)
    assert follower.member.now_ms == heard_ms
    follower.go_on()
    assert follower.member.now_ms > heard_ms
    cluster.scheduler.run_until(cluster.scheduler.now_us + SECOND)
    assert cluster.all_serve()


def test_wall_clocks_jump_and_monotonic_ones_do_not() -> None:
    cluster = started()
    host = cluster.hosts[1]
    now_ms, wall_ms = host.now_ms, host.wall_ms
    host.wall_offset_ms = -5000
    assert host.now_ms == now_ms
    assert host.wall_ms == wall_ms - 5000


def test_traces() -> None:
    lines: list[str] = []
    cluster = Cluster(Random(1), Shape(3), tracer=lines.append)
    cluster.start()
    cluster.scheduler.run_until(SECOND)
    assert sum("starts with 0x0" in line for line in lines) == 3
    assert any("leads epoch 0x1" in line for line in lines)
