"""The numbers of the protocol: opcodes, permissions, event types, states, create modes, xids.

Plain `int` constants grouped in classes that are never instantiated: an enum member would cost a
conversion at every comparison with what came off the wire.
Source: ZooDefs, Watcher.Event, CreateMode, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final


class OpCode:
    """Request and transaction types."""

    NOTIFICATION: Final = 0
    CREATE: Final = 1
    DELETE: Final = 2
    EXISTS: Final = 3
    GET_DATA: Final = 4
    SET_DATA: Final = 5
    GET_ACL: Final = 6
    SET_ACL: Final = 7
    GET_CHILDREN: Final = 8
    SYNC: Final = 9
    PING: Final = 11
    GET_CHILDREN2: Final = 12
    CHECK: Final = 13
    MULTI: Final = 14
    CREATE2: Final = 15
    RECONFIG: Final = 16
    CHECK_WATCHES: Final = 17
    REMOVE_WATCHES: Final = 18
    CREATE_CONTAINER: Final = 19
    DELETE_CONTAINER: Final = 20
    CREATE_TTL: Final = 21
    MULTI_READ: Final = 22
    AUTH: Final = 100
    SET_WATCHES: Final = 101
    SASL: Final = 102
    GET_EPHEMERALS: Final = 103
    GET_ALL_CHILDREN_NUMBER: Final = 104
    SET_WATCHES2: Final = 105
    ADD_WATCH: Final = 106
    WHO_AM_I: Final = 107
    CREATE_SESSION: Final = -10
    CLOSE_SESSION: Final = -11
    ERROR: Final = -1


class Perms:
    """ACL permission bits."""

    READ: Final = 1
    WRITE: Final = 2
    CREATE: Final = 4
    DELETE: Final = 8
    ADMIN: Final = 16
    ALL: Final = 31


class EventType:
    """What happened to a watched node."""

    NODE_CREATED: Final = 1
    NODE_DELETED: Final = 2
    NODE_DATA_CHANGED: Final = 3
    NODE_CHILDREN_CHANGED: Final = 4


class KeeperState:
    """The only state a server puts into a watch event."""

    SYNC_CONNECTED: Final = 3


class CreateMode:
    """The `flags` of a create request."""

    PERSISTENT: Final = 0
    EPHEMERAL: Final = 1
    PERSISTENT_SEQUENTIAL: Final = 2
    EPHEMERAL_SEQUENTIAL: Final = 3
    CONTAINER: Final = 4
    PERSISTENT_WITH_TTL: Final = 5
    PERSISTENT_SEQUENTIAL_WITH_TTL: Final = 6


class WatcherType:
    """What a removeWatches or checkWatches request speaks of."""

    CHILDREN: Final = 1
    DATA: Final = 2
    ANY: Final = 3
    PERSISTENT: Final = 4
    PERSISTENT_RECURSIVE: Final = 5


class AddWatchMode:
    """The `mode` of an addWatch request."""

    PERSISTENT: Final = 0
    PERSISTENT_RECURSIVE: Final = 1


class Xid:
    """Transaction ids of frames that are no ordinary request."""

    NOTIFICATION: Final = -1
    PING: Final = -2
    AUTH: Final = -4
    SET_WATCHES: Final = -8


SEQUENTIAL_MODES: Final = frozenset({2, 3, 6})
EPHEMERAL_MODES: Final = frozenset({1, 3})
TTL_MODES: Final = frozenset({5, 6})

DEFAULT_JUTE_MAXBUFFER: Final = 0xFFFFF
TTL_MAX_MS: Final = (1 << 40) - 1
