"""Requests and replies of the client protocol, as tables.

Source: zookeeper.jute, ZooKeeper 3.9; layouts in wire order.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from zkpy.protocol.acl import Acls as _Acls
from zkpy.protocol.jute import Bool, Buffer, Int, Long, Record, UString, Vector

Acls: TypeAlias = "_Acls | None"

REPLY_HEADER = struct.Struct(">iqi")
# The 68 bytes of Stat: czxid mzxid ctime mtime, version cversion aversion, ephemeralOwner,
# dataLength numChildren, pzxid.
STAT = struct.Struct(">qqqqiiiqiiq")


class Stat(Record):
    czxid: Long
    mzxid: Long
    ctime: Long
    mtime: Long
    version: Int
    cversion: Int
    aversion: Int
    ephemeralOwner: Long
    dataLength: Int
    numChildren: Int
    pzxid: Long


class ConnectRequest(Record):
    """Without the trailing `readOnly` byte, which old clients leave out."""

    protocolVersion: Int
    lastZxidSeen: Long
    timeOut: Int
    sessionId: Long
    passwd: Buffer


class ConnectResponse(Record):
    """Without the trailing `readOnly` byte, which mirrors the request's."""

    protocolVersion: Int
    timeOut: Int
    sessionId: Long
    passwd: Buffer


class RequestHeader(Record):
    xid: Int
    type: Int


class ReplyHeader(Record):
    xid: Int
    zxid: Long
    err: Int


class MultiHeader(Record):
    type: Int
    done: Bool
    err: Int


class WatcherEvent(Record):
    type: Int
    state: Int
    path: UString


class CreateRequest(Record):
    path: UString
    data: Buffer
    acl: Acls
    flags: Int


class CreateTTLRequest(Record):
    path: UString
    data: Buffer
    acl: Acls
    flags: Int
    ttl: Long


class DeleteRequest(Record):
    path: UString
    version: Int


class CheckVersionRequest(Record):
    path: UString
    version: Int


class PathWatchRequest(Record):
    """exists, getData, getChildren, getChildren2."""

    path: UString
    watch: Bool


class SetDataRequest(Record):
    path: UString
    data: Buffer
    version: Int


class SetACLRequest(Record):
    path: UString
    acl: Acls
    version: Int


class PathRequest(Record):
    """getACL, sync, getAllChildrenNumber, getEphemerals (a prefix), deleteContainer."""

    path: UString


class ReconfigRequest(Record):
    joiningServers: UString
    leavingServers: UString
    newMembers: UString
    curConfigId: Long


class AddWatchRequest(Record):
    path: UString
    mode: Int


class WatchesRequest(Record):
    """checkWatches and removeWatches."""

    path: UString
    type: Int


class SetWatches(Record):
    relativeZxid: Long
    dataWatches: Vector[UString] | None
    existWatches: Vector[UString] | None
    childWatches: Vector[UString] | None


class SetWatches2(Record):
    relativeZxid: Long
    dataWatches: Vector[UString] | None
    existWatches: Vector[UString] | None
    childWatches: Vector[UString] | None
    persistentWatches: Vector[UString] | None
    persistentRecursiveWatches: Vector[UString] | None


class AuthPacket(Record):
    type: Int
    scheme: UString
    auth: Buffer


class SASLToken(Record):
    """GetSASLRequest and SetSASLResponse."""

    token: Buffer


class CreateResponse(Record):
    path: UString


class Create2Response(Record):
    path: UString
    stat: Stat


class StatResponse(Record):
    """exists, setData, setACL."""

    stat: Stat


class GetDataResponse(Record):
    data: Buffer
    stat: Stat


class GetACLResponse(Record):
    acl: Acls
    stat: Stat


class ChildrenResponse(Record):
    """getChildren, getEphemerals."""

    children: Vector[UString] | None


class GetChildren2Response(Record):
    children: Vector[UString] | None
    stat: Stat


class GetAllChildrenNumberResponse(Record):
    totalNumber: Int


class ClientInfo(Record):
    authScheme: UString
    user: UString


class WhoAmIResponse(Record):
    clientInfo: Vector[ClientInfo] | None


class ErrorResponse(Record):
    err: Int
