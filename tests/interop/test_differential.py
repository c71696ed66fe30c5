"""The same random sequences for Apache ZooKeeper and zkpy: every reply, event and node must agree.

Three sessions send all operations of the protocol, right and wrong, alone and pipelined; see
tests/support/sequences.py for what is drawn and NEVER_SENT there for what is not, and why. Compared
are error codes, bodies, zxids, Stats, the order of frames per connection, watch counts and, at the
end, the whole tree.

    ZKPY_DIFF_SEQUENCES=1000 scripts/test tests/interop/test_differential.py    a long search
    ZKPY_SEED=4711 ...                                                          replays one sequence
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.support import oracle, wire
from tests.support.differential import CONFIG, PROPERTIES, Excuse, Pair, Seen
from tests.support.sequences import Generator, Step

from .conftest import StartServer

pytestmark = pytest.mark.interop

SEQUENCES = int(os.environ.get("ZKPY_DIFF_SEQUENCES", "15"))
LENGTH = int(os.environ.get("ZKPY_DIFF_LENGTH", "150"))
SHORTENING_RUNS = 60


def error_with_body(step: Step | None, expected: Seen, got: Seen) -> bool:
    """multiRead refused after decoding: the reference appends a body to the error."""
    if step is None or expected.kind != "reply" or got.kind != "reply":
        return False
    *header, body = expected.what
    return header[2] != 0 and body != "" and got.what == (*header, "")


def empty_path(step: Step | None, expected: Seen, got: Seen) -> bool:
    """getAllChildrenNumber of the root's alias "": the reference counts the root itself too."""
    if step is None or expected.kind != "reply" or got.kind != "reply":
        return False
    if not any(part.text == "GET_ALL_CHILDREN_NUMBER('')" for part in step.requests):
        return False
    *header, number = expected.what
    return isinstance(number, int) and got.what == (*header, number - 1)


# What zkpy does otherwise on purpose, with the reason.
DELIBERATE: list[tuple[Excuse, str]] = [
    (error_with_body, "errors are header-only: aiozk does not skip the bodies of error frames"),
    (empty_path, "no client sends an empty path"),
]
EXCUSES = [excuse for excuse, _ in DELIBERATE]


@pytest.fixture(scope="module")
def apache(start_server: StartServer) -> oracle.Server:
    return start_server("apache", CONFIG, PROPERTIES)


@pytest.fixture(scope="module")
def apache_pair(apache: oracle.Server, start_server: StartServer) -> Pair:
    return Pair(apache, start_server("apache", CONFIG, PROPERTIES), [])


@pytest.fixture(scope="module")
def zkpy_pair(apache: oracle.Server, start_server: StartServer) -> Iterator[Pair]:
    zkpy = start_server("zkpy", CONFIG, PROPERTIES)
    pair = Pair(apache, zkpy, EXCUSES)
    pair.reset()
    yield pair


def run(pair: Pair, seed: int, restarts: int = 0) -> None:
    steps = Generator(seed).sequence(LENGTH)
    for number in range(1, restarts + 1):
        steps.insert(number * LENGTH // (restarts + 1), Step(0, "restart"))
    difference = pair.compare(steps)
    if difference is None:
        return
    short = pair.shorten(steps, difference, SHORTENING_RUNS)
    again = pair.compare(short) or "not seen again: it depends on timing, or on what came before"
    lines = "\n".join(f"{number:4} {step}" for number, step in enumerate(short))
    pytest.fail(f"seed {seed}:\n{difference}\n\nshortened:\n{lines}\n{again}", pytrace=False)


@pytest.mark.seeds(3)
def test_the_reference_agrees_with_itself(apache_pair: Pair, seed: int) -> None:
    """Two of the same must not differ: otherwise the comparison has noise."""
    run(apache_pair, seed)


@pytest.mark.seeds(SEQUENCES)
def test_same_as_the_reference(zkpy_pair: Pair, seed: int) -> None:
    run(zkpy_pair, seed)


@pytest.mark.seeds(2)
def test_same_after_kill_and_restart(zkpy_pair: Pair, seed: int) -> None:
    """Versions, counters of sequential names, quotas, sessions, zxids: all of it was on disk."""
    run(zkpy_pair, seed + 1000, restarts=3)


def test_every_operation_is_drawn() -> None:
    """The generator covers the protocol, and every kind of outcome is likely to occur."""
    drawn = {
        request.op
        for seed in range(1, 6)
        for step in Generator(seed).sequence(300)
        for request in step.requests
    }
    left_out = {wire.CREATE_SESSION, wire.CLOSE_SESSION, wire.DELETE_CONTAINER, wire.ERROR}
    left_out |= {wire.SET_WATCHES, wire.SET_WATCHES2}  # a kind of step, as is closeSession
    assert set(wire.OP_NAMES) & set(range(-20, 200)) - left_out - drawn == set()
