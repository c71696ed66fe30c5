"""What a watcher is told, and the states of a client.

Source: WatchedEvent, Watcher.Event, ZooKeeper.States, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from zkpy.protocol import zoodefs


class EventType(zoodefs.EventType):
    """`NONE`: about the connection, not a node. Types from 5 on are made by the client itself."""

    NONE: Final = -1
    DATA_WATCH_REMOVED: Final = 5
    CHILD_WATCH_REMOVED: Final = 6
    PERSISTENT_WATCH_REMOVED: Final = 7


class KeeperState(zoodefs.KeeperState):
    """How the connection was when the event came."""

    DISCONNECTED: Final = 0
    AUTH_FAILED: Final = 4
    CONNECTED_READ_ONLY: Final = 5
    SASL_AUTHENTICATED: Final = 6
    CLOSED: Final = 7
    EXPIRED: Final = -112


class States:
    """States of a client; the last three are final."""

    NOT_CONNECTED: Final = "NOT_CONNECTED"
    CONNECTING: Final = "CONNECTING"
    CONNECTED: Final = "CONNECTED"
    CONNECTEDREADONLY: Final = "CONNECTEDREADONLY"
    EXPIRED: Final = "EXPIRED"
    AUTH_FAILED: Final = "AUTH_FAILED"
    CLOSED: Final = "CLOSED"


FINAL_STATES: Final = frozenset({States.EXPIRED, States.AUTH_FAILED, States.CLOSED})
CONNECTED_STATES: Final = frozenset({States.CONNECTED, States.CONNECTEDREADONLY})

TYPE_NAMES: Final = {
    -1: "None",
    1: "NodeCreated",
    2: "NodeDeleted",
    3: "NodeDataChanged",
    4: "NodeChildrenChanged",
    5: "DataWatchRemoved",
    6: "ChildWatchRemoved",
    7: "PersistentWatchRemoved",
}
STATE_NAMES: Final = {
    0: "Disconnected",
    3: "SyncConnected",
    4: "AuthFailed",
    5: "ConnectedReadOnly",
    6: "SaslAuthenticated",
    7: "Closed",
    -112: "Expired",
}


class WatchedEvent(NamedTuple):
    """One event. `str` of it is what zkCli prints.

    `zxid` is that of the txn; -1 where the server does not say (older than 3.9, or a change that
    was noticed at a reconnect) and in events of the client's own. `path` is None for `NONE`.
    """

    type: int
    state: int = KeeperState.SYNC_CONNECTED
    path: str | None = None
    zxid: int = -1

    @property
    def type_name(self) -> str:
        return TYPE_NAMES.get(self.type, str(self.type))

    @property
    def state_name(self) -> str:
        return STATE_NAMES.get(self.state, str(self.state))

    def __str__(self) -> str:
        path = "null" if self.path is None else self.path
        kind = f"state:{self.state_name} type:{self.type_name}"
        return f"WatchedEvent {kind} path:{path} zxid: {self.zxid}"


Watcher: TypeAlias = Callable[[WatchedEvent], object]
