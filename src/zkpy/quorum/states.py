"""What a member is doing, in numbers as they are on the wire and words as operators see them.

Source: QuorumPeer.ServerState, ZabState and SyncMode, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

# ServerState; the numbers are those in a Notification.
LOOKING: Final = 0
FOLLOWING: Final = 1
LEADING: Final = 2
OBSERVING: Final = 3
STATE_NAMES: Final = ("LOOKING", "FOLLOWING", "LEADING", "OBSERVING")

# ZabState: how far a role has come.
ELECTION: Final = "election"
DISCOVERY: Final = "discovery"
SYNCHRONIZATION: Final = "synchronization"
BROADCAST: Final = "broadcast"

# SyncMode: how a learner catches up.
SYNC_NONE: Final = "none"
SYNC_DIFF: Final = "diff"
SYNC_TRUNC: Final = "trunc"
SYNC_SNAP: Final = "snap"
