"""What clients did to versioned nodes, and whether one ensemble can have answered so.

Owns: the record of operations and the checks on it: no acknowledged write lost, every key
linearizable, sessions that never go back. A node's version counts its writes and each reply shows
it, so the order of the writes is known and need not be searched for. Knows no sockets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

WRITE, READ, SYNC_READ = "write", "read", "sync and read"


class Operation(NamedTuple):
    """One request, invoked and answered at times of one clock; `answered` None: outcome unknown.

    `version` is None unless it succeeded. A refused write (its condition failed) is `refused`.
    """

    client: str
    kind: str
    key: str
    value: bytes
    invoked: int
    answered: int | None
    version: int | None = None
    mzxid: int | None = None
    refused: bool = False

    def __str__(self) -> str:
        return (
            f"{self.client} {self.kind} {self.key} = {self.value[:40]!r} version {self.version} "
            f"mzxid {self.mzxid or 0:#x} at {self.invoked}..{self.answered}"
        )


Final = Mapping[str, tuple[bytes, int]]  # key -> data and version of the node in the end


def problems(
    history: Iterable[Operation], final: Final | None = None, *, strict_reads: bool = True
) -> list[str]:
    """What is wrong, in words; nothing if it is right.

    `strict_reads`: a read behind a sync shows all that was acknowledged before it was asked for.
    That does not hold under an Apache leader which has been replaced and does not know it yet.
    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    found: list[str] = []
    for key, operations in sorted(by_key.items()):
        found += _values(operations)
        found += _real_time(operations, strict_reads)
        found += _sessions(operations)
        if final is not None:
            found += _final(key, operations, final.get(key))
    return found


def _known(operations: Iterable[Operation]) -> list[Operation]:
    return [one for one in operations if one.version is not None]


def _values(operations: list[Operation]) -> list[str]:
    """One value per version and one version per value, written before it was seen; mzxids rise."""
    found: list[str] = []
    writes = {one.value: one for one in operations if one.kind == WRITE}
    seen: dict[int, Operation] = {}
    for one in _known(operations):
        assert one.version is not None
        assert one.answered is not None
        first = seen.setdefault(one.version, one)
        if (first.value, first.mzxid) != (one.value, one.mzxid):
            found.append(f"two writes with one version: {first}; {one}")
        if first is not one and first.kind == one.kind == WRITE:
            found.append(f"two writes acknowledged with one version: {first}; {one}")
        write = writes.get(one.value)
        if write is None:
            if one.version != 0:
                found.append(f"a value that nobody wrote: {one}")
        elif write.refused:
            found.append(f"a refused write took effect: {one}")
        elif write.invoked > one.answered:
            found.append(f"seen before it was written: {one}; {write}")
        elif write.version not in (None, one.version):
            found.append(f"one write with two versions: {write}; {one}")
    ordered = [seen[version] for version in sorted(seen)]
    for before, after in pairwise(ordered):
        if (before.mzxid or 0) >= (after.mzxid or 0):
            found.append(f"a later version with an earlier zxid: {before}; {after}")
    return found


def _real_time(operations: list[Operation], strict_reads: bool) -> list[str]:
    """Whoever is invoked after an answer comes after it in the order of versions."""
    found: list[str] = []
    answered = sorted(_known(operations), key=lambda one: one.answered or 0)
    times = [one.answered or 0 for one in answered]
    newest: list[Operation] = []  # of the first n answers, the one with the highest version
    for one in answered:
        if not newest or (one.version or 0) > (newest[-1].version or 0):
            newest.append(one)
        else:
            newest.append(newest[-1])
    for one in answered:
        if one.kind == READ or (one.kind == SYNC_READ and not strict_reads):
            continue
        count = bisect_left(times, one.invoked)
        if not count:
            continue
        before = newest[count - 1]
        least = (before.version or 0) + (one.kind == WRITE)
        if (one.version or 0) < least:
            found.append(f"stale, or lost: {before}; then {one}")
    return found


def _sessions(operations: list[Operation]) -> list[str]:
    """No client sees an older version than it has seen."""
    found: list[str] = []
    last: dict[str, Operation] = {}
    for one in sorted(_known(operations), key=lambda one: one.answered or 0):
        before = last.get(one.client)
        if before is not None and (before.version or 0) > (one.version or 0):
            found.append(f"a client went back: {before}; then {one}")
        last[one.client] = one
    return found


def _final(key: str, operations: list[Operation], final: tuple[bytes, int] | None) -> list[str]:
    """The node in the end holds the last of its writes, and as many as took effect."""
    newest = max((one.version or 0 for one in _known(operations)), default=0)
    if final is None:
        return [f"{key} is lost, which had version {newest}"] if newest else []
    value, version = final
    found: list[str] = []
    if version < newest:
        found.append(f"{key} ends with version {version}, {newest} was acknowledged or read")
    for one in _known(operations):
        if (one.version == version) != (one.value == value):
            found.append(f"{key} ends with {value[:40]!r}, version {version}; not {one}")
    acknowledged = sum(one.kind == WRITE and one.version is not None for one in operations)
    unknown = sum(one.kind == WRITE and one.answered is None for one in operations)
    if not acknowledged <= version <= acknowledged + unknown:
        found.append(
            f"{key} ends with version {version} after {acknowledged} acknowledged writes "
            f"and {unknown} without an answer"
        )
    return found
