"""The children of a node, as full paths in order of creation (the node map's own strings).

A dict serves as ordered set. Once a parent is wide, its children move to `WideChildren`, whose
buckets stay small, so that a snapshot can list them slice by slice: copying a million keys at once
would hold the event loop for tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

WIDE: Final = 16384
BUCKET: Final = 4096
# Bounds the directory to some MB even if someone makes hashes collide.
MAX_DEPTH: Final = 20


class _Bucket:
    __slots__ = ("depth", "paths")

    def __init__(self, depth: int, paths: dict[str, None]) -> None:
        self.depth = depth
        self.paths = paths


class WideChildren:
    """Extendible hashing: a directory of buckets; a full bucket is replaced by two new ones.

    A replaced bucket is never changed again: an iterator that still holds it lists what was there.
    """

    __slots__ = ("_count", "_depth", "_directory")

    def __init__(self, paths: dict[str, None]) -> None:
        self._depth = 0
        self._count = 0
        self._directory = [_Bucket(0, {})]
        for path in paths:
            self[path] = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, path: str) -> bool:
        return path in self._directory[hash(path) & ((1 << self._depth) - 1)].paths

    def __setitem__(self, path: str, value: None) -> None:
        bucket = self._directory[hash(path) & ((1 << self._depth) - 1)]
        if path in bucket.paths:
            return
        bucket.paths[path] = None
        self._count += 1
        if len(bucket.paths) > BUCKET:
            self._split(bucket)

    def pop(self, path: str, default: None = None) -> None:
        """Remove `path` if it is there."""
        paths = self._directory[hash(path) & ((1 << self._depth) - 1)].paths
        if path in paths:
            del paths[path]
            self._count -= 1

    def __iter__(self) -> Iterator[str]:
        for paths in self.slices():
            yield from paths

    def slices(self) -> Iterator[list[str]]:
        """Lists of paths; what is added or removed meanwhile may or may not be listed."""
        seen: set[int] = set()
        for bucket in tuple(self._directory):
            if id(bucket) not in seen:
                seen.add(id(bucket))
                yield list(bucket.paths)

    def _split(self, bucket: _Bucket) -> None:
        if bucket.depth >= MAX_DEPTH:
            return  # hashes that do not differ in so many bits: let the bucket grow
        if bucket.depth == self._depth:
            self._directory += self._directory
            self._depth += 1
        bit = 1 << bucket.depth
        halves = (_Bucket(bucket.depth + 1, {}), _Bucket(bucket.depth + 1, {}))
        for path in bucket.paths:
            halves[1 if hash(path) & bit else 0].paths[path] = None
        for index, held in enumerate(self._directory):
            if held is bucket:
                self._directory[index] = halves[1 if index & bit else 0]


Children: TypeAlias = "dict[str, None] | WideChildren"


def slices_of(children: Children | None) -> Iterator[list[str]]:
    """List `children` in slices of bounded length."""
    if children is None:
        return
    if isinstance(children, WideChildren):
        yield from children.slices()
    else:
        yield list(children)
