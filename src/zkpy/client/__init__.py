"""The client: a pure session core and the asyncio API around it.

Only `client.py` does I/O. Must not know anything of the server but the protocol.
"""

from zkpy.client.client import EventStream, ZooKeeper
from zkpy.client.codec import ClientInfo, Stat
from zkpy.client.errors import ConnectionLoss, EventsLost, MultiFailed
from zkpy.client.events import EventType, KeeperState, States, WatchedEvent, Watcher
from zkpy.client.operations import Transaction
from zkpy.client.ops import Check, Create, Delete, GetChildren, GetData, SetData
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE
from zkpy.protocol.errors import (
    AuthFailed,
    BadArguments,
    BadVersion,
    EphemeralOnLocalSession,
    InvalidACL,
    KeeperError,
    MarshallingError,
    NewConfigNoQuorum,
    NoAuth,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    NotReadOnly,
    NoWatcher,
    QuotaExceeded,
    ReconfigDisabled,
    ReconfigInProgress,
    RuntimeInconsistency,
    SessionClosedRequireSaslAuth,
    SessionExpired,
    SessionMoved,
    ThrottledOp,
    Unimplemented,
    UnknownSession,
)
from zkpy.protocol.zoodefs import AddWatchMode, CreateMode, Perms, WatcherType

__all__ = [
    "ZooKeeper",
    "States",
    "EventStream",
    "EventType",
    "KeeperState",
    "WatchedEvent",
    "Watcher",
    "AddWatchMode",
    "WatcherType",
    "CreateMode",
    "Stat",
    "ClientInfo",
    "ACL",
    "Perms",
    "OPEN_ACL_UNSAFE",
    "READ_ACL_UNSAFE",
    "Transaction",
    "Create",
    "Delete",
    "SetData",
    "Check",
    "GetData",
    "GetChildren",
    "KeeperError",
    "ConnectionLoss",
    "MultiFailed",
    "EventsLost",
    "NoNode",
    "NodeExists",
    "NotEmpty",
    "BadVersion",
    "NoAuth",
    "InvalidACL",
    "NoChildrenForEphemerals",
    "BadArguments",
    "QuotaExceeded",
    "NoWatcher",
    "SessionExpired",
    "AuthFailed",
    "SessionMoved",
    "UnknownSession",
    "SessionClosedRequireSaslAuth",
    "NotReadOnly",
    "EphemeralOnLocalSession",
    "ReconfigDisabled",
    "ReconfigInProgress",
    "NewConfigNoQuorum",
    "ThrottledOp",
    "Unimplemented",
    "MarshallingError",
    "RuntimeInconsistency",
]
