"""Watches by path, and which of them an event fires. Order of registration is order of delivery.

A watcher is a connection; the manager knows it only as something that takes event frames.
Source: WatchManager, WatchesPathReport, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

from zkpy.protocol.acl import Acls
from zkpy.protocol.jute import encode_text
from zkpy.protocol.zoodefs import KeeperState

# Modes are bits: one connection may hold several on one path.
STANDARD: Final = 1
PERSISTENT: Final = 2
PERSISTENT_RECURSIVE: Final = 4
ALL_MODES: Final = 7

_EVENT = struct.Struct(">iiqiiii")


class Watcher(Protocol):
    """Takes events; drops those whose node `acls` do not let it read."""

    def notify(self, frame: bytes, acls: Acls | None) -> None:
        """Queue an encoded event frame; `acls` None means no check."""


def event_frame(event_type: int, path: str, zxid: int) -> bytes:
    """The whole notification frame: length, reply header (xid -1), WatcherEvent."""
    name = encode_text(path)
    size = len(name)
    state = KeeperState.SYNC_CONNECTED
    return _EVENT.pack(28 + size, -1, zxid, 0, event_type, state, size) + name


def _nobody_counts(event_type: int, watchers: int, size: int) -> None:
    pass


class WatchManager:
    """One registry: (path, watcher) -> modes."""

    __slots__ = ("_recursive", "by_path", "by_watcher", "on_fired", "size")

    def __init__(self) -> None:
        self.by_path: dict[str, dict[Watcher, int]] = {}
        # A watcher whose watches have all fired stays listed, with no path left: wchs counts it.
        self.by_watcher: dict[Watcher, dict[str, None]] = {}
        self._recursive = 0
        self.size = 0
        # Told of each event: its type, how many hear of it, bytes of its frame. For statistics.
        self.on_fired: Callable[[int, int, int], None] = _nobody_counts

    def add(self, path: str, watcher: Watcher, mode: int) -> None:
        """Register; doing so again changes nothing."""
        watchers = self.by_path.get(path)
        if watchers is None:
            watchers = self.by_path[path] = {}
        old = watchers.get(watcher, 0)
        watchers[watcher] = old | mode
        if mode & ~old & PERSISTENT_RECURSIVE:
            self._recursive += 1
        if not old:
            self.size += 1
            paths = self.by_watcher.get(watcher)
            if paths is None:
                self.by_watcher[watcher] = {path: None}
            else:
                paths[path] = None

    def has(self, path: str, watcher: Watcher, modes: int) -> bool:
        """Whether `watcher` holds any of `modes` on exactly `path`."""
        return bool(self.by_path.get(path, {}).get(watcher, 0) & modes)

    def remove(self, path: str, watcher: Watcher, modes: int) -> bool:
        """Drop `modes` of `watcher` on `path`; whether there were any."""
        watchers = self.by_path.get(path)
        old = watchers.get(watcher, 0) if watchers else 0
        if not watchers or not old & modes:
            return False
        if old & modes & PERSISTENT_RECURSIVE:
            self._recursive -= 1
        if old & ~modes:
            watchers[watcher] = old & ~modes
            return True
        del watchers[watcher]
        if not watchers:
            del self.by_path[path]
        self.size -= 1
        paths = self.by_watcher[watcher]
        del paths[path]
        if not paths:
            del self.by_watcher[watcher]
        return True

    def remove_watcher(self, watcher: Watcher) -> None:
        """Forget a connection that has closed."""
        for path in self.by_watcher.pop(watcher, ()):
            watchers = self.by_path[path]
            if watchers.pop(watcher) & PERSISTENT_RECURSIVE:
                self._recursive -= 1
            self.size -= 1
            if not watchers:
                del self.by_path[path]

    def trigger(
        self,
        path: str,
        event_type: int,
        zxid: int,
        acls: Acls,
        suppress: dict[Watcher, None] | None = None,
    ) -> dict[Watcher, None] | None:
        """Fire the watches of an event at `path`; return who was meant, told or not.

        Each connection hears of it once; those in `suppress` not at all, though their one-shot
        watches are used up. One-shot watches are removed.
        """
        watchers = self.by_path.get(path)
        if watchers is None and not self._recursive:
            return None
        meant: dict[Watcher, None] = dict.fromkeys(watchers) if watchers else {}
        if watchers:
            self._use_up(path, watchers)
        if self._recursive:
            self._add_recursive(path, meant)
        if not meant:
            return None
        frame = event_frame(event_type, path, zxid)
        for watcher in meant:
            if suppress is None or watcher not in suppress:
                watcher.notify(frame, acls)
        self.on_fired(event_type, len(meant), len(frame))
        return meant

    def _use_up(self, path: str, watchers: dict[Watcher, int]) -> None:
        kept = {}
        for watcher, modes in watchers.items():
            if modes == STANDARD:
                self.size -= 1
                del self.by_watcher[watcher][path]
            else:
                kept[watcher] = modes & ~STANDARD
        if kept:
            self.by_path[path] = kept
        else:
            del self.by_path[path]

    def _add_recursive(self, path: str, meant: dict[Watcher, None]) -> None:
        while len(path) > 1:
            path = path[: path.rfind("/")] or "/"
            for watcher, modes in self.by_path.get(path, {}).items():
                if modes & PERSISTENT_RECURSIVE:
                    meant[watcher] = None
