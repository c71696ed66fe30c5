"""ContainerManager: proposes the removal of empty containers and expired TTL nodes.

Runs on the standalone server and the leader; the pipeline checks each proposal again.
Source: ContainerManager, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections import deque

from zkpy.datatree.node import NODE_STAT, ttl_of
from zkpy.datatree.tree import DataTree


class ContainerManager:
    """Which nodes to remove, and when to look next (monotonic ms)."""

    def __init__(
        self,
        tree: DataTree,
        *,
        check_interval_ms: int,
        max_per_minute: int,
        max_never_used_interval_ms: int,
        now_ms: int,
    ) -> None:
        self.tree = tree
        self.check_interval_ms = check_interval_ms
        self.max_never_used_interval_ms = max_never_used_interval_ms
        self.min_interval_ms = max(1, 60000 // max(1, max_per_minute))
        self.next_check_ms = now_ms + check_interval_ms
        self.next_removal_ms = 0
        self.candidates: deque[str] = deque()

    def next_due_ms(self) -> int:
        """When `due` may have something to say."""
        return self.next_removal_ms if self.candidates else self.next_check_ms

    def due(self, now_ms: int, wall_ms: int) -> list[str]:
        """The paths whose removal is to be proposed now: spread out, so that clients still get on.

        A check that is due while candidates of the last one wait is skipped.
        """
        if now_ms >= self.next_check_ms:
            while self.next_check_ms <= now_ms:
                self.next_check_ms += self.check_interval_ms
            if not self.candidates:
                self.candidates.extend(self._candidates(wall_ms))
                self.next_removal_ms = now_ms
        paths = []
        while self.candidates and now_ms >= self.next_removal_ms:
            paths.append(self.candidates.popleft())
            self.next_removal_ms += self.min_interval_ms
        return paths

    def _candidates(self, wall_ms: int) -> list[str]:
        tree = self.tree
        paths = []
        for path in tree.containers:
            node = tree.nodes[path]
            if node.children:
                continue
            _, _, _, _, mtime, _, cversion, _, _ = NODE_STAT.unpack(node.stat)
            never_used_ms = self.max_never_used_interval_ms
            # One that never had a child may just be waiting for its first.
            if cversion > 0 or (never_used_ms and wall_ms - mtime > never_used_ms):
                paths.append(path)
        for path in tree.ttls:
            node = tree.nodes[path]
            if node.children:
                continue
            _, _, _, _, mtime, _, _, _, owner = NODE_STAT.unpack(node.stat)
            if wall_ms - mtime > ttl_of(owner, tree.emulate_353):
                paths.append(path)
        return paths
