"""Quotas: limits and usage as text in nodes below /zookeeper/quota.

Nothing here raises on odd text: a client can write anything into those nodes, and an applied
transaction must never fail. Source: StatsTrack, Quotas, DataTree.updateQuotaStat, ZooKeeper 3.9.
"""

from __future__ import annotations

import re
from typing import Final

QUOTA_ROOT: Final = "/zookeeper/quota"
LIMITS_NODE: Final = "zookeeper_limits"
STATS_NODE: Final = "zookeeper_stats"

_NUMBER = re.compile(r"[+-]?[0-9]{1,19}\Z")


def limits_path(path: str) -> str:
    """Where the limits of `path` are kept."""
    return f"{QUOTA_ROOT}{path}/{LIMITS_NODE}"


def stats_path(path: str) -> str:
    """Where the usage of `path` is kept."""
    return f"{QUOTA_ROOT}{path}/{STATS_NODE}"


def tracked_path(node: str, leaf: str) -> str | None:
    """The path whose limits or stats node is `node`, or None; the root cannot have a quota."""
    end = len(node) - len(leaf) - 1
    if node.startswith(QUOTA_ROOT + "/") and node.endswith("/" + leaf) and end > len(QUOTA_ROOT):
        return node[len(QUOTA_ROOT) : end]
    return None


class StatsTrack:
    """Counts and bytes, soft and hard; -1 is unlimited or unknown.

    `is_usage`: the text says both numbers, so that changes can be added to them. They may be below
    zero: a quota that was away for a while has missed some.
    """

    __slots__ = ("byte_hard_limit", "bytes", "count", "count_hard_limit", "is_usage")

    def __init__(self, data: bytes | None = None) -> None:
        values: dict[str, int] = {}
        for part in re.split("[,;]+", str(data or b"", "utf-8", "replace")):
            key, _, value = part.partition("=")
            value = value.partition("=")[0]
            if _NUMBER.match(value):
                values[key] = int(value)
        self.is_usage = "count" in values and "bytes" in values
        self.count = values.get("count", -1)
        self.bytes = values.get("bytes", -1)
        self.count_hard_limit = values.get("countHardLimit", -1)
        self.byte_hard_limit = values.get("byteHardLimit", -1)

    def encode(self) -> bytes:
        """The text of a limits or stats node."""
        text = f"count={self.count},bytes={self.bytes}"
        if self.count_hard_limit != -1 or self.byte_hard_limit != -1:
            text += "="
            if self.byte_hard_limit != -1:
                text += f";byteHardLimit={self.byte_hard_limit}"
            if self.count_hard_limit != -1:
                text += f";countHardLimit={self.count_hard_limit}"
        return text.encode()


class QuotaTracker:
    """Which paths have a quota, and the deepest of them above a path."""

    __slots__ = ("paths",)

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def deepest(self, path: str) -> str | None:
        """The tracked path that is `path` or its nearest ancestor."""
        while path:
            if path in self.paths:
                return path
            path = path[: path.rfind("/")]
        return None
