"""Persistent watches of a simulated client: each change is told once, before anything shows it."""

from __future__ import annotations

from bisect import bisect_right

from zkpy.protocol.zoodefs import EventType
from zkpy.testing.history import require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zkpy.testing.history import History


class PersistentWatches:
    """Those of one session, on its present connection.

    What changes while there is none is not told, and not to be: the client looks for itself.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        # (path, recursive) -> how many of the history's events have been looked at for it.
        self.watches: dict[tuple[str, bool], int] = {}
        # What was told: (zxid, type, path).
        self._told: set[tuple[int, int, str]] = set()

    def add(self, path: str, recursive: bool, zxid: int) -> None:
        """Registered in the state at `zxid`; once more changes nothing."""
        self.watches.setdefault((path, recursive), self._events_until(zxid))

    def set_again(self, zxid: int) -> None:
        """Registered at another server, in the state at `zxid`."""
        self._told.clear()
        for key in self.watches:
            self.watches[key] = self._events_until(zxid)

    def _events_until(self, zxid: int) -> int:
        return bisect_right(self._history.events, zxid, key=lambda event: event[0])

    def told(self, type: int, path: str, zxid: int) -> bool:
        """An event has come; whether one of these watches explains it."""
        if not any(_covers(*watch, type, path) for watch in self.watches):
            return False
        event = (zxid, type, path)
        require(event in self._history.events_of(zxid), "event %s never happened", event)
        self._told.add(event)
        return True

    def check(self, zxid: int) -> None:
        """Something shows the state at `zxid`: all up to it must have been told."""
        events = self._history.events
        for watch, index in self.watches.items():
            while index < len(events) and events[index][0] <= zxid:
                event = events[index]
                require(
                    event in self._told or not _covers(*watch, event[1], event[2]),
                    "%#x is shown, but the persistent watch on %s was not told of %s",
                    zxid,
                    watch,
                    event,
                )
                index += 1
            self.watches[watch] = index


def _covers(watched: str, recursive: bool, type: int, path: str) -> bool:
    if not recursive:
        return path == watched
    if type == EventType.NODE_CHILDREN_CHANGED:
        return False
    return path == watched or watched == "/" or path.startswith(watched + "/")
