"""The checks on what clients were told find each kind of wrong answer, and no right one."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
from tests.support.history import READ, SYNC_READ, WRITE, Operation, problems


def write(client: str, value: str, begin: int, end: int | None, version: int | None) -> Operation:
    mzxid = None if version is None else 100 + version
    return Operation(client, WRITE, "/k", value.encode(), begin, end, version, mzxid)


def read(
    client: str, value: str, begin: int, end: int, version: int, kind: str = SYNC_READ
) -> Operation:
    return Operation(client, kind, "/k", value.encode(), begin, end, version, 100 + version)


def refused(client: str, value: str, begin: int, end: int) -> Operation:
    return Operation(client, WRITE, "/k", value.encode(), begin, end, refused=True)


GOOD = [
    write("a", "1", 0, 10, 1),
    write("b", "2", 5, 15, 2),
    read("a", "1", 9, 14, 1),
    read("c", "initial", 11, 12, 0, READ),
    write("a", "lost", 20, None, None),
    refused("c", "no", 21, 22),
    write("b", "3", 23, 30, 3),
    read("c", "lost", 31, 40, 4),
    read("a", "3", 41, 42, 3, READ),
]


def test_a_right_history() -> None:
    assert problems(GOOD, {"/k": (b"lost", 4)}) == []
    assert problems(GOOD[:-2], {"/k": (b"3", 3)}) == []
    assert problems([]) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (write("d", "4", 50, 51, 3), "two writes"),
        (read("d", "other", 50, 51, 4), "two writes with one version"),
        (read("d", "2", 50, 51, 5), "one write with two versions"),
        (read("d", "nobody's", 50, 51, 5), "nobody wrote"),
        (read("d", "no", 50, 51, 5), "refused write took effect"),
        (read("d", "1", 50, 51, 1), "stale"),
        (write("d", "late", 50, 51, 2), "stale, or lost"),
        (read("b", "2", 60, 61, 2, READ), "went back"),
        (read("e", "3", 1, 2, 3, READ), "before it was written"),
        (read("d", "4", 50, 51, 5)._replace(mzxid=7), "earlier zxid"),
    ],
)
def test_a_wrong_answer(wrong: Operation, text: str) -> None:
    found = problems([*GOOD, wrong])
    assert any(text in problem for problem in found), found


def test_reads_may_be_stale_where_sync_is_no_promise() -> None:
    stale = read("d", "1", 50, 51, 1)
    assert problems([*GOOD, stale], strict_reads=False) == []
    assert problems([*GOOD, stale._replace(kind=READ)]) == []


@pytest.mark.parametrize(
    ("final", "text"),
    [
        ({}, "is lost"),
        ({"/k": (b"3", 3)}, "ends with version 3, 4 was"),
        ({"/k": (b"3", 4)}, "not b write"),
        ({"/k": (b"lost", 5)}, "not c sync and read"),
        ({"/k": (b"new", 6)}, "after 3 acknowledged writes and 1 without"),
    ],
)
def test_a_wrong_end(final: dict[str, tuple[bytes, int]], text: str) -> None:
    found = problems(GOOD, final)
    assert any(text in problem for problem in found), found


@pytest.mark.parametrize("seed", range(20))
def test_what_one_register_does_is_right(seed: int) -> None:
    rng, clock, names = Random(seed), count(), count(1)
    history: list[Operation] = []
    version, value = 0, "initial"
    waiting: list[Operation] = []
    for _ in range(300):
        client = f"c{len(waiting)}-{next(names)}"
        if len(waiting) < 5 and rng.random() < 0.6:
            kind = rng.choice((WRITE, READ, SYNC_READ))
            begin = next(clock)
            if kind == WRITE:
                value = f"{client}-value"
                version += 1
            waiting.append(
                Operation(client, kind, "/k", value.encode(), begin, None, version, version)
            )
        elif waiting:
            done = waiting.pop(rng.randrange(len(waiting)))
            if done.kind == WRITE and rng.random() < 0.2:
                done = done._replace(version=None, mzxid=None)
            else:
                done = done._replace(answered=next(clock))
            history.append(done)
    for lost in waiting:
        if lost.kind == WRITE:
            history.append(lost._replace(version=None, mzxid=None))
    assert problems(history, {"/k": (value.encode(), version)}) == []
