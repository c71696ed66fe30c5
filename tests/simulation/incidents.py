"""What the scenarios of incidents share; see test_incidents_*.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.simulation.scenario import Scenario

from zkpy.persistence.errors import PersistenceError
from zkpy.persistence.store import FileTxnSnapLog
from zkpy.testing.host import Host

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]


def holds(scenario: Callable[[], None], *faults: Break) -> None:
    """All is well as it is, and each of `faults` is noticed."""
    scenario()
    for fault in faults:
        with pytest.MonkeyPatch.context() as patch:
            fault(patch)
            try:
                scenario()
            except (AssertionError, PersistenceError):  # a Violation is an AssertionError
                continue
            raise AssertionError(f"{fault.__name__} is not noticed")


def lead_with_a_txn_of_its_own(s: Scenario) -> None:
    """C alone has logged a txn; all stop, and start again: C leads, A and B get it by DIFF."""
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/before")
    s.network.block("z3", "z1")
    s.network.block("z3", "z2")
    s.write_unseen(client, "/unseen")
    s.until(lambda: s.c.durable_zxid > s.history.last_zxid)
    for host in s.hosts.values():
        host.power_off()
    s.heal()


def leave_a_tail(s: Scenario, *, others_go_on: bool = False) -> None:
    """C leads, logs a txn that nobody else gets, and is alone; A and B elect another leader.

    `others_go_on`: and they write something.
    """
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/before")
    s.settle()
    s.separate([s.c], [s.a, s.b])
    s.write_unseen(client, "/unseen")
    s.until(lambda: s.c.durable_zxid > s.history.last_zxid)
    s.until(lambda: len(s.checker.leaders) == 2)
    s.settle(s.a, s.b)
    if others_go_on:
        s.create(s.client(s.b), "/after")


def drop_newest(host: Host, zxid: int) -> None:
    """Let a host that is down have a shorter log, as if it had been down for longer."""
    store = FileTxnSnapLog(host.disk, host.cluster.settings_of(host.config))
    store.open()
    store.restore()
    assert store.truncate(zxid) is not None
    store.close()
    _, host.durable_zxid = on_disk(host)


def on_disk(host: Host) -> tuple[int, int]:
    """currentEpoch and last zxid that a start would find."""
    store = FileTxnSnapLog(host.disk, host.cluster.settings_of(host.config))
    store.open()
    last_zxid = store.restore().last_zxid
    store.close()
    path = f"{store.snap_directory}/currentEpoch"
    return int(host.disk.read(path)), last_zxid
