"""ServerCnxn: what a server knows of one client connection.

Bytes come in as chunks and go out through `out`; who moves them is not known here.
Source: NIOServerCnxn, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.zoodefs import Perms

if TYPE_CHECKING:
    from zkpy.server.request import Request
    from zkpy.server.zkserver import ZooKeeperServer
    from zkpy.session.auth import Id

# A read, or a ready reply, that waits behind a write of its session: xid, opcode, body, auth ids.
Deferred = tuple[int, int, bytes, "tuple[Id, ...]"]

# How far a connection has come.
NEW: Final = 0  # nothing but a ConnectRequest or a four letter word is acceptable
CONNECTING: Final = 1  # its session is being created; nothing is read
ESTABLISHED: Final = 2


class CnxnStats:
    """What `cons` tells of a connection. Times in ms; latencies from receipt to reply."""

    __slots__ = (
        "established_ms",
        "last_cxid",
        "last_latency",
        "last_op",
        "last_response_ms",
        "last_zxid",
        "latency_count",
        "max_latency",
        "min_latency",
        "received",
        "sent",
        "total_latency",
    )

    def __init__(self, established_ms: int) -> None:
        self.established_ms = established_ms
        self.last_op: int | None
        self.reset()
        self.last_op = 0  # none yet
        self.last_cxid = 0
        self.last_zxid = 0

    def reset(self) -> None:
        """Start over, as `crst` asks."""
        self.received = 0
        self.sent = 0
        self.last_op = None
        self.last_cxid = -1
        self.last_zxid = -1
        self.last_response_ms = 0
        self.last_latency = 0
        self.latency_count = 0
        self.total_latency = 0
        self.min_latency = 0x7FFFFFFFFFFFFFFF
        self.max_latency = 0

    def replied(self, count: int, xid: int, op: int, zxid: int, now_ms: int) -> None:
        """`count` reads of one chunk were answered at once; xid and op are the last one's."""
        self.sent += count
        self.latency_count += count
        self.min_latency = 0
        self.last_latency = 0
        self._last(xid, op, zxid, now_ms)

    def replied_write(self, latency: int, xid: int, op: int | None, zxid: int, now_ms: int) -> None:
        """A write was answered, `latency` ms after it came; op None if it failed."""
        self.sent += 1
        self.latency_count += 1
        self.total_latency += latency
        if latency < self.min_latency:
            self.min_latency = latency
        if latency > self.max_latency:
            self.max_latency = latency
        self.last_latency = latency
        if xid >= 0:
            self.last_cxid = xid
        self.last_op = op
        self.last_zxid = zxid
        self.last_response_ms = now_ms

    def _last(self, xid: int, op: int | None, zxid: int, now_ms: int) -> None:
        if xid >= 0:
            self.last_cxid = xid
        self.last_op = op
        self.last_zxid = zxid
        self.last_response_ms = now_ms


class ServerCnxn:
    """One client connection, from accept to close.

    `ids` is replaced, never changed: a request keeps those it was received with.
    `pending` begins with a write in flight, or is empty: replies go out in the order of requests.
    Only when there was no room for all that waited behind one does it begin with a read.
    `pending_bytes` is what arrived since it was last found empty.
    `since_zxid`: txns up to it are of earlier connections of its session, though xids be equal.
    `held` means: no further frame is taken from `rest` until the server says so.
    """

    __slots__ = (
        "address",
        "closed",
        "dirty",
        "established_wall_ms",
        "finishing",
        "held",
        "ids",
        "need",
        "out",
        "pending",
        "pending_bytes",
        "port",
        "read_only_flag",
        "rest",
        "secure",
        "server",
        "session_id",
        "since_zxid",
        "state",
        "stats",
        "timeout_ms",
        "transport",
        "write_blocked",
    )

    def __init__(self, server: ZooKeeperServer, address: str, port: int, secure: bool) -> None:
        self.server = server
        self.address = address
        self.port = port
        self.secure = secure
        self.ids: tuple[Id, ...] = (("ip", address),)
        self.state = NEW
        self.session_id = 0
        self.since_zxid = 0
        self.timeout_ms = 0
        # None until the ConnectRequest; then whether it had the readOnly byte.
        self.read_only_flag: bool | None = None
        self.rest = bytearray()
        self.need = 0
        self.out = bytearray()
        self.pending: deque[Request | Deferred] = deque()
        self.pending_bytes = 0
        self.held = False
        self.write_blocked = False
        self.finishing = False  # nothing more is read; closes once `pending` is answered
        self.closed = False
        self.dirty = False
        self.stats = CnxnStats(server.now_ms)
        self.established_wall_ms = server.wall_ms
        # Whatever the shell needs to find its socket again.
        self.transport: object = None

    def __repr__(self) -> str:
        return f"/{self.address}:{self.port} session 0x{self.session_id & (1 << 64) - 1:x}"

    def notify(self, frame: bytes, acls: Acls | None) -> None:
        """Queue a watch event, unless `acls` do not let this client read the node."""
        if self.closed:
            return
        if acls is not None and acls is not OPEN_ACL_UNSAFE:
            # The ids of now, not of the time of the watch (CVE-2024-23944).
            if acls and not self.server.auth.check_acls(acls, Perms.READ, self.ids):
                return
        self.out += frame
        self.stats.sent += 1
        if not self.dirty:
            self.dirty = True
            self.server.dirty.append(self)
