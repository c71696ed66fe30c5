"""Requests of simulated clients: made from a seed, encoded, and their replies taken apart."""

from __future__ import annotations

import struct

from zkpy.protocol import records as r
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.zoodefs import AddWatchMode, CreateMode, OpCode, Perms, Xid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from random import Random
    from typing import Any, Final

NAMES: Final = "abc"
_HEAD: Final = struct.Struct(">iii")
_REPLY_DECODERS: Final[dict[int, Any]] = {
    OpCode.GET_DATA: r.GetDataResponse,
    OpCode.EXISTS: r.StatResponse,
    OpCode.SET_DATA: r.StatResponse,
    OpCode.GET_CHILDREN2: r.GetChildren2Response,
    OpCode.CREATE: r.CreateResponse,
    OpCode.CREATE2: r.Create2Response,
}
RECURSIVE: Final = AddWatchMode.PERSISTENT_RECURSIVE
# Bytes of data in a node.
SIZES: Final = (1, 8, 8, 30)
# All of them let everybody do everything.
ACLS: Final[tuple[Acls, ...]] = (
    OPEN_ACL_UNSAFE,
    (*OPEN_ACL_UNSAFE, ACL(Perms.READ, "ip", "10.1.0.0/16")),
    (*OPEN_ACL_UNSAFE, ACL(Perms.READ, "ip", "10.2.0.0/16")),
    (*OPEN_ACL_UNSAFE, ACL(Perms.ADMIN, "ip", "10.3.0.1")),
)


class Request:
    """One request; `frontier`: txns of the newest state anybody had seen before it was sent."""

    __slots__ = ("body", "data", "frontier", "op", "path", "version", "watch", "xid")

    def __init__(
        self,
        op: int,
        path: str,
        body: bytes,
        *,
        data: bytes | None = None,
        version: int = -1,
        watch: bool = False,
    ) -> None:
        self.op = op
        self.path = path
        self.body = body
        self.data = data
        self.version = version
        self.watch = watch
        self.xid = 0
        self.frontier = 0

    def __repr__(self) -> str:
        return f"request {self.xid} (op {self.op} on {self.path}, version {self.version})"

    def frame(self) -> bytes:
        """The bytes to send."""
        return _HEAD.pack(8 + len(self.body), self.xid, self.op) + self.body

    def _decoded(self, body: bytes) -> Any:
        return _REPLY_DECODERS[self.op].decode(body)[0]

    def stat(self, body: bytes) -> r.Stat:
        """The stat in a reply."""
        stat = self._decoded(body).stat
        assert isinstance(stat, r.Stat)
        return stat

    def value(self, body: bytes) -> object:
        """Data or children in a reply."""
        decoded = self._decoded(body)
        return decoded.data if self.op == OpCode.GET_DATA else decoded.children

    def created_path(self, body: bytes) -> str:
        path = self._decoded(body).path
        assert isinstance(path, str)
        return path

    def is_refused(self, err: int, body: bytes, code: int) -> bool:
        """Whether it, or a part of it, was refused with `code`."""
        if self.op != OpCode.MULTI or err:
            return err == code
        offset = 0
        while self.multi_failed(body):
            header, offset = r.MultiHeader.decode(body, offset)
            if header.done or header.err == code:
                return not header.done
            offset += 4
        return False

    @staticmethod
    def multi_failed(body: bytes) -> bool:
        """Whether the first result in the reply to a multi is an error."""
        header, _ = r.MultiHeader.decode(body)
        return header.type == OpCode.ERROR


def create(
    path: str, data: bytes, flags: int, op: int = OpCode.CREATE, acl: Acls = OPEN_ACL_UNSAFE
) -> Request:
    body = r.CreateRequest(path, data, acl, flags).encode()
    sequential = flags in (CreateMode.PERSISTENT_SEQUENTIAL, CreateMode.EPHEMERAL_SEQUENTIAL)
    return Request(op, path + "0" if sequential else path, body, data=data)


def set_data(path: str, data: bytes, version: int = -1) -> Request:
    body = r.SetDataRequest(path, data, version).encode()
    return Request(OpCode.SET_DATA, path, body, data=data, version=version)


def set_acl(path: str, acl: Acls) -> Request:
    return Request(OpCode.SET_ACL, path, r.SetACLRequest(path, acl, -1).encode())


def delete(path: str, version: int = -1) -> Request:
    return Request(OpCode.DELETE, path, r.DeleteRequest(path, version).encode(), version=version)


def read(op: int, path: str, watch: bool = False) -> Request:
    return Request(op, path, r.PathWatchRequest(path, watch).encode(), watch=watch)


def sync(path: str = "/") -> Request:
    return Request(OpCode.SYNC, path, r.PathRequest(path).encode())


def close_session() -> Request:
    return Request(OpCode.CLOSE_SESSION, "", b"")


def multi(parts: list[Request]) -> Request:
    body = b"".join(r.MultiHeader(p.op, False, -1).encode() + p.body for p in parts)
    return Request(OpCode.MULTI, "", body + r.MultiHeader(-1, True, -1).encode())


def check(path: str, version: int) -> Request:
    return Request(OpCode.CHECK, path, r.CheckVersionRequest(path, version).encode())


def add_watch(path: str, mode: int) -> Request:
    """The mode is kept as the request's version."""
    return Request(OpCode.ADD_WATCH, path, r.AddWatchRequest(path, mode).encode(), version=mode)


def set_watches(
    relative_zxid: int,
    data: list[str],
    exist: list[str],
    child: list[str],
    persistent: list[str],
    recursive: list[str],
) -> Request:
    """What a client watches, on a new connection; `relative_zxid` is kept as the version."""
    lists: list[list[str | None]] = [list(some) for some in (data, exist, child)]
    op = OpCode.SET_WATCHES
    if persistent or recursive:
        op = OpCode.SET_WATCHES2
        lists += [list(persistent), list(recursive)]
        body = r.SetWatches2(relative_zxid, *lists).encode()
    else:
        body = r.SetWatches(relative_zxid, *lists).encode()
    request = Request(op, "", body, version=relative_zxid)
    request.xid = Xid.SET_WATCHES
    return request


def connect_frame(
    last_zxid: int, timeout_ms: int, session_id: int, password: bytes, read_only: bool = False
) -> bytes:
    """A ConnectRequest, ready to send."""
    payload = r.ConnectRequest(0, last_zxid, timeout_ms, session_id, password).encode()
    payload += b"\1" if read_only else b"\0"
    return struct.pack(">i", len(payload)) + payload


PING_FRAME: Final = _HEAD.pack(8, Xid.PING, OpCode.PING)


class RequestSource:
    """Random requests on few nodes, so that clients meet."""

    def __init__(self, rng: Random, depth: int = 2, sizes: tuple[int, ...] = SIZES) -> None:
        self.rng = rng
        self.depth = depth
        self.sizes = sizes

    def path(self) -> str:
        rng = self.rng
        return "".join("/" + rng.choice(NAMES) for _ in range(rng.randint(1, self.depth)))

    def request(self) -> Request:
        rng = self.rng
        path = self.path()
        choice = rng.random()
        if choice < 0.22:
            return self._create(path)
        if choice < 0.45:
            return set_data(path, self._data(), rng.choice((-1, -1, 0, 1, 2)))
        if choice < 0.55:
            return delete(path, rng.choice((-1, -1, -1, 0)))
        if choice < 0.62:
            return multi([self._part() for _ in range(rng.randint(1, 4))])
        if choice < 0.65:
            return set_acl(path, rng.choice(ACLS))
        if choice < 0.72:
            return sync()
        if choice < 0.73:
            return add_watch(path, rng.choice((AddWatchMode.PERSISTENT, RECURSIVE)))
        watch = rng.random() < 0.4
        return read(
            rng.choice((OpCode.GET_DATA, OpCode.GET_DATA, OpCode.EXISTS, OpCode.GET_CHILDREN2)),
            path,
            watch,
        )

    def _data(self) -> bytes:
        rng = self.rng
        return rng.randbytes(rng.choice(self.sizes))

    def _create(self, path: str) -> Request:
        rng = self.rng
        flags = rng.choice((0, 0, 0, 1, 1, 2, 3))
        acl = rng.choice((OPEN_ACL_UNSAFE, OPEN_ACL_UNSAFE, *ACLS))
        return create(path, self._data(), flags, rng.choice((OpCode.CREATE, OpCode.CREATE2)), acl)

    def _part(self) -> Request:
        rng = self.rng
        path = self.path()
        kind = rng.randrange(4)
        if kind == 0:
            return self._create(path)
        if kind == 1:
            return set_data(path, self._data())
        if kind == 2:
            return delete(path)
        return check(path, rng.choice((-1, 0, 1)))
