"""Going through a subtree, many nodes at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from zkpy.cli.shell.formats import sorted_names
from zkpy.cli.shell.table import OperationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zkpy.cli.shell.session import Session
    from zkpy.client.codec import Stat

NO_NODE: Final = -101
NO_AUTH: Final = -102
# Requests on their way at once: enough to hide the way to the server and back.
CHUNK: Final = 100


class Found(NamedTuple):
    """A node; `names` and `stat` are None where it may not be read. `is_last` of its siblings."""

    path: str
    depth: int
    is_last: bool
    names: list[str] | None
    stat: Stat | None


class _Level:
    """The children of one node, of which the next ones have been looked at."""

    __slots__ = ("at", "names", "prefix", "seen")

    def __init__(self, path: str, names: list[str]) -> None:
        self.prefix = "" if path == "/" else path
        self.names = names
        self.at = 0
        self.seen: list[tuple[list[str] | None, Stat | None] | None] = []


async def walk(zk: Session, root: str, max_depth: int | None = None) -> AsyncIterator[Found]:
    """`root` and what is below, each node before its children, siblings sorted.

    Nodes that go meanwhile are left out. It is no snapshot: others may write. Raises
    OperationError if `root` cannot be had, or for a reason that hits all: a lost connection.
    """
    names, stat = await zk.get_children(root)
    yield Found(root, 0, True, names, stat)
    levels = [_Level(root, sorted_names(names))] if max_depth != 0 else []
    while levels:
        level = levels[-1]
        if level.at == len(level.names):
            levels.pop()
            continue
        at = level.at % CHUNK
        if at == 0:
            chunk = level.names[level.at : level.at + CHUNK]
            looks = (look(zk, f"{level.prefix}/{name}") for name in chunk)
            level.seen = await asyncio.gather(*looks)
        path = f"{level.prefix}/{level.names[level.at]}"
        level.at += 1
        seen = level.seen[at]
        if seen is None:
            continue
        names_or_none, stat_or_none = seen
        is_last = level.at == len(level.names)
        yield Found(path, len(levels), is_last, names_or_none, stat_or_none)
        if names_or_none and (max_depth is None or len(levels) < max_depth):
            levels.append(_Level(path, sorted_names(names_or_none)))


async def listing(zk: Session, root: str) -> list[str]:
    """The paths of a subtree, breadth first. Raises OperationError, also if a node just went."""
    paths = [root]
    seen = 0  # of these the children have been asked for
    while seen < len(paths):
        chunk = paths[seen : seen + CHUNK]
        seen += len(chunk)
        children = await asyncio.gather(*(zk.get_children(path) for path in chunk))
        for path, (names, _) in zip(chunk, children, strict=True):
            prefix = "" if path == "/" else path
            paths += [f"{prefix}/{name}" for name in names]
    return paths


async def look(zk: Session, path: str) -> tuple[list[str] | None, Stat | None] | None:
    """A node's children and stat; (None, None) if it may not be read; None if it is gone."""
    try:
        return await zk.get_children(path)
    except OperationError as error:
        if error.code == NO_AUTH:
            return None, None
        if error.code == NO_NODE:
            return None
        raise
