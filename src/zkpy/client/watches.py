"""WatchManager: which watchers wait for what, by the server's paths.

The server forgets watches with the connection and knows nothing of who wants them; this does.
Source: ZKWatchManager, SendThread.primeConnection, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from zkpy.client.events import EventType, Watcher
from zkpy.protocol.errors import NoNode
from zkpy.protocol.records import SetWatches, SetWatches2
from zkpy.protocol.zoodefs import OpCode, WatcherType

# A dict in place of a set: watchers are called in the order they came in.
Registry: TypeAlias = "dict[str, dict[Watcher, None]]"
Batch: TypeAlias = "dict[str, list[str | None]]"

DATA: Final = "data"
EXIST: Final = "exist"
CHILD: Final = "child"
PERSISTENT: Final = "persistent"
RECURSIVE: Final = "recursive"

# What a removal of that type reaches. Data and exists watches are one thing to the server.
REACH: Final = {
    WatcherType.CHILDREN: (CHILD,),
    WatcherType.DATA: (DATA, EXIST),
    WatcherType.PERSISTENT: (PERSISTENT,),
    WatcherType.PERSISTENT_RECURSIVE: (RECURSIVE,),
    WatcherType.ANY: (CHILD, DATA, EXIST, PERSISTENT, RECURSIVE),
}
REMOVED: Final = {
    CHILD: EventType.CHILD_WATCH_REMOVED,
    DATA: EventType.DATA_WATCH_REMOVED,
    EXIST: EventType.DATA_WATCH_REMOVED,
    PERSISTENT: EventType.PERSISTENT_WATCH_REMOVED,
    RECURSIVE: EventType.PERSISTENT_WATCH_REMOVED,
}

# Paths per SetWatches request, so that it stays below any server's jute.maxbuffer.
SET_WATCHES_MAX_LENGTH: Final = 128 * 1024


class Registration(NamedTuple):
    """What a request will have registered if it succeeds. `kind`: DATA, EXIST, CHILD, ..."""

    kind: str
    path: str
    watcher: Watcher


class WatchManager:
    """Watchers by kind and path. A watcher is registered once per kind and path."""

    __slots__ = ("kinds",)

    def __init__(self) -> None:
        self.kinds: dict[str, Registry] = {
            DATA: {},
            EXIST: {},
            CHILD: {},
            PERSISTENT: {},
            RECURSIVE: {},
        }

    def register(self, registration: Registration, err: int) -> None:
        """The reply to a request with that registration came, with `err`."""
        kind, path, watcher = registration
        if kind == EXIST and err == 0:
            # The node is there: as from getData, or a reconnect would report its creation.
            kind = DATA
        elif err != 0 and not (kind == EXIST and err == NoNode.code):
            return
        self.kinds[kind].setdefault(path, {})[watcher] = None

    def triggered(self, type_: int, path: str) -> list[Watcher]:
        """Who is to hear of an event; watches that fire once are gone with that."""
        found: dict[Watcher, None] = {}
        kinds = self.kinds
        if type_ in (EventType.NODE_CREATED, EventType.NODE_DATA_CHANGED, EventType.NODE_DELETED):
            found.update(kinds[DATA].pop(path, {}))
            found.update(kinds[EXIST].pop(path, {}))
        if type_ in (EventType.NODE_CHILDREN_CHANGED, EventType.NODE_DELETED):
            found.update(kinds[CHILD].pop(path, {}))
        if kinds[PERSISTENT]:
            found.update(kinds[PERSISTENT].get(path, {}))
        if kinds[RECURSIVE] and type_ != EventType.NODE_CHILDREN_CHANGED:
            for ancestor in _upwards(path):
                found.update(kinds[RECURSIVE].get(ancestor, {}))
        return list(found)

    def all(self) -> list[Watcher]:
        """Everybody, once: they all hear of the connection."""
        found: dict[Watcher, None] = {}
        for registry in self.kinds.values():
            for watchers in registry.values():
                found.update(watchers)
        return list(found)

    def count(self, path: str, type_: int, watcher: Watcher | None) -> int:
        """How many registrations a removal would reach; of all watchers if it is None."""
        entries = [self.kinds[kind].get(path, {}) for kind in REACH[type_]]
        if watcher is None:
            return sum(map(len, entries))
        return sum(watcher in watchers for watchers in entries)

    def remove(
        self, path: str, type_: int, watcher: Watcher | None
    ) -> list[tuple[int, list[Watcher]]]:
        """Forget one watcher, or all if None; returns (event type to tell, whom)."""
        removed: dict[int, dict[Watcher, None]] = {}
        for kind in REACH[type_]:
            registry = self.kinds[kind]
            watchers = registry.get(path)
            if not watchers or (watcher is not None and watcher not in watchers):
                continue
            gone = list(watchers) if watcher is None else [watcher]
            for each in gone:
                del watchers[each]
                removed.setdefault(REMOVED[kind], {})[each] = None
            if not watchers:
                del registry[path]
        return [(event, list(watchers)) for event, watchers in removed.items()]

    def set_watches(self, relative_zxid: int) -> Iterator[tuple[int, bytes]]:
        """The requests (opcode, body) that tell a new connection of all watches."""
        kinds = self.kinds
        names = [DATA, EXIST, CHILD]
        if kinds[PERSISTENT] or kinds[RECURSIVE]:
            names += [PERSISTENT, RECURSIVE]  # which servers before 3.6 do not know
        batch: Batch = {name: [] for name in names}
        size = 0
        for name in names:
            for path in kinds[name]:
                if size > SET_WATCHES_MAX_LENGTH:
                    yield _encode(relative_zxid, batch)
                    batch = {name: [] for name in names}
                    size = 0
                batch[name].append(path)
                size += len(path)
        if size:
            yield _encode(relative_zxid, batch)


def _encode(relative_zxid: int, batch: Batch) -> tuple[int, bytes]:
    vectors = list(batch.values())
    if len(vectors) == 3:
        return OpCode.SET_WATCHES, SetWatches(relative_zxid, *vectors).encode()
    return OpCode.SET_WATCHES2, SetWatches2(relative_zxid, *vectors).encode()


def _upwards(path: str) -> Iterator[str]:
    """`path`, its parent, ..., "/"."""
    while len(path) > 1:
        yield path
        path = path[: path.rfind("/")]
    yield "/"
