"""Reads: answered from the tree as it is applied, without log or quorum.

A handler takes the request's body as it lies in the received chunk, buf[pos:end], and appends the
reply to the connection's output. Errors are header-only.
Source: FinalRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zkpy.datatree.node import DataNode
from zkpy.datatree.tree import MAX_CACHED_REPLIES, DataTree
from zkpy.datatree.watches import (
    ALL_MODES,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    STANDARD,
    WatchManager,
    event_frame,
)
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls, encode_acls
from zkpy.protocol.errors import (
    BadArguments,
    DecodeError,
    KeeperError,
    MarshallingError,
    NoAuth,
    NoNode,
    NoWatcher,
)
from zkpy.protocol.jute import encode_text
from zkpy.protocol.records import (
    AddWatchRequest,
    SetWatches,
    SetWatches2,
    WatchesRequest,
)
from zkpy.protocol.zoodefs import AddWatchMode, EventType, OpCode, Perms, WatcherType
from zkpy.server.decode import decode_multi, decode_multi_read, decode_path_watch, decode_ustring

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.session.auth import Id, ProviderRegistry

_INT: Final = struct.Struct(">i")
_MULTI_HEADER: Final = struct.Struct(">i?i")
# Frame length, then ReplyHeader.
REPLY: Final = struct.Struct(">iiqi")
MAX_CACHED_BODY: Final = 2048
# Where a watch on a null path is kept: the reference takes it, and no node is called so.
NULL_PATH: Final = "null"
# Of a node's packed stat: where the zxid of the last change is, and the event it causes.
_MZXID: Final = (8, EventType.NODE_DATA_CHANGED)
_PZXID: Final = (16, EventType.NODE_CHILDREN_CHANGED)
MULTI_END: Final = _MULTI_HEADER.pack(-1, True, -1)

Ids = tuple["Id", ...]
ReadHandler = Callable[["ServerCnxn", int, bytes, int, int, Ids], None]
BodyMaker = Callable[["ServerCnxn", bytes, int, int, Ids], bytes]

_WATCH_MODES: Final[dict[int, tuple[int, int]]] = {
    # WatcherType -> modes in the data registry, modes in the child registry.
    WatcherType.CHILDREN: (0, STANDARD),
    WatcherType.DATA: (STANDARD, 0),
    WatcherType.ANY: (ALL_MODES, ALL_MODES),
    WatcherType.PERSISTENT: (PERSISTENT, PERSISTENT),
    WatcherType.PERSISTENT_RECURSIVE: (PERSISTENT_RECURSIVE, 0),
}


class ReadProcessor:
    """Serves reads and the operations on a connection's own watches."""

    def __init__(self, tree: DataTree, auth: ProviderRegistry) -> None:
        self.tree = tree
        self.auth = auth
        self._cache = tree.response_cache
        self._bodies: dict[int, BodyMaker] = {
            OpCode.EXISTS: self._exists,
            OpCode.GET_CHILDREN: self._get_children,
            OpCode.GET_CHILDREN2: self._get_children2,
            OpCode.GET_ACL: self._get_acl,
            OpCode.GET_ALL_CHILDREN_NUMBER: self._get_all_children_number,
            OpCode.GET_EPHEMERALS: self._get_ephemerals,
            OpCode.WHO_AM_I: self._who_am_i,
            OpCode.SYNC: self._sync,
            OpCode.MULTI_READ: self._multi_read,
            OpCode.ADD_WATCH: self._add_watch,
            OpCode.REMOVE_WATCHES: self._remove_watches,
            OpCode.CHECK_WATCHES: self._check_watches,
            OpCode.SET_WATCHES: self._set_watches,
            OpCode.SET_WATCHES2: self._set_watches2,
        }
        self.handlers: dict[int, ReadHandler] = {
            OpCode.GET_DATA: self.get_data,
            OpCode.PING: self.ping,
        }
        for op in self._bodies:
            self.handlers[op] = self._handler_of(op)

    # ------------------------------------------------------------------ replies

    def reply(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """Queue a successful reply."""
        cnxn.out += REPLY.pack(16 + len(body), xid, self.tree.last_processed_zxid, 0)
        cnxn.out += body

    def refuse(self, cnxn: ServerCnxn, xid: int, code: int) -> None:
        """Queue a header-only error reply."""
        cnxn.out += REPLY.pack(16, xid, self.tree.last_processed_zxid, code)

    def _handler_of(self, op: int) -> ReadHandler:
        make = self._bodies[op]

        def handle(cnxn: ServerCnxn, xid: int, buf: bytes, pos: int, end: int, ids: Ids) -> None:
            try:
                body = make(cnxn, buf, pos, end, ids)
            except KeeperError as error:
                self.refuse(cnxn, xid, error.code)
            except DecodeError:
                self.refuse(cnxn, xid, MarshallingError.code)
            else:
                self.reply(cnxn, xid, body)

        return handle

    # ------------------------------------------------------------------ the hot one

    def get_data(
        self, cnxn: ServerCnxn, xid: int, buf: bytes, pos: int, end: int, ids: Ids
    ) -> None:
        """getData. Bodies that anyone may read are kept encoded until their node changes."""
        start = pos + 4
        flag = end - 1
        # A well-formed body is length, path, flag: its length says so at once.
        if start < end and int.from_bytes(buf[pos:start], "big") == flag - start:
            path = buf[start:flag].decode("utf-8", "replace")
            body = self._cache.get(path)
            if body is not None:
                if buf[flag]:
                    self.tree.data_watches.add(path, cnxn, STANDARD)
                cnxn.out += REPLY.pack(16 + len(body), xid, self.tree.last_processed_zxid, 0)
                cnxn.out += body
                return
        try:
            body = self._get_data(cnxn, buf, pos, end, ids)
        except KeeperError as error:
            self.refuse(cnxn, xid, error.code)
        except DecodeError:
            self.refuse(cnxn, xid, MarshallingError.code)
        else:
            self.reply(cnxn, xid, body)

    def _get_data(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        path, watch = decode_path_watch(buf, pos, end)
        node, acls = self._readable(path, ids)
        data = node.data
        stat = self.tree.wire_stat(node)
        if data is None:
            body = b"\xff\xff\xff\xff" + stat
        else:
            body = _INT.pack(len(data)) + data + stat
        assert path is not None
        if watch:
            self.tree.data_watches.add(path, cnxn, STANDARD)
        if acls is OPEN_ACL_UNSAFE and len(body) <= MAX_CACHED_BODY and len(path) > 1:
            cache = self._cache
            if len(cache) >= MAX_CACHED_REPLIES:
                cache.clear()
            cache[path] = body
        return body

    def ping(self, cnxn: ServerCnxn, xid: int, buf: bytes, pos: int, end: int, ids: Ids) -> None:
        """The reply's xid is -2 whatever the request's."""
        cnxn.out += REPLY.pack(16, -2, self.tree.last_processed_zxid, 0)

    # ------------------------------------------------------------------ the others

    def _readable(
        self, path: str | None, ids: Ids, perms: int = Perms.READ
    ) -> tuple[DataNode, Acls]:
        if path is None:
            raise MarshallingError
        node = self.tree.nodes.get(path)
        if node is None:
            raise NoNode(path)
        acls = self.tree.acl_cache.by_id.get(node.acl)
        if acls is None:
            # An id that a fuzzy snapshot left without an entry, and no log repaired.
            raise NoAuth(path)
        if acls is not OPEN_ACL_UNSAFE and not self.auth.check_acls(acls, perms, ids):
            raise NoAuth(path)
        return node, acls

    def _exists(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        path, watch = decode_path_watch(buf, pos, end)
        if path is None:
            raise MarshallingError
        if "\0" in path:
            raise BadArguments(path)
        node = self.tree.nodes.get(path)
        if node is not None:
            self._readable(path, ids)
        if watch:
            # Also where there is no node: that is what exists is for.
            self.tree.data_watches.add(path, cnxn, STANDARD)
        if node is None:
            raise NoNode(path)
        return self.tree.wire_stat(node)

    def _children(
        self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids
    ) -> tuple[bytes, DataNode]:
        path, watch = decode_path_watch(buf, pos, end)
        node, _ = self._readable(path, ids)
        assert path is not None
        if watch:
            self.tree.child_watches.add(path, cnxn, STANDARD)
        return _encode_names(self.tree.child_names(path, node)), node

    def _get_children(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        return self._children(cnxn, buf, pos, end, ids)[0]

    def _get_children2(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        names, node = self._children(cnxn, buf, pos, end, ids)
        return names + self.tree.wire_stat(node)

    def _get_acl(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        path, _ = decode_ustring(buf, pos, end)
        node, acls = self._readable(path, ids, Perms.READ | Perms.ADMIN)
        acls = self.auth.mask_acls(acls, self.auth.check_acls(acls, Perms.ADMIN, ids))
        return encode_acls(acls) + self.tree.wire_stat(node)

    def _get_all_children_number(
        self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids
    ) -> bytes:
        path, _ = decode_ustring(buf, pos, end)
        self._readable(path, ids)
        if path == "/" or not path:
            # "" and "/" are one node, which is not its own descendant.
            return _INT.pack(len(self.tree.nodes) - 2)
        return _INT.pack(self.tree.count_below(path))

    def _get_ephemerals(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        prefix, _ = decode_ustring(buf, pos, end)
        paths = list(self.tree.ephemerals.get(cnxn.session_id, ()))
        if prefix and prefix.strip() and prefix != "/":
            paths = [path for path in paths if path.startswith(prefix)]
        return _encode_names(paths)

    def _who_am_i(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        names = self.auth.user_names(ids)
        out = [_INT.pack(len(names))]
        for scheme, user in names:
            for text in (encode_text(scheme), encode_text(user)):
                out += (_INT.pack(len(text)), text)
        return b"".join(out)

    def _sync(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        # Alone there is nobody to catch up with; the path is echoed, whatever it is.
        path, _ = decode_ustring(buf, pos, end)
        if path is None:
            return b"\xff\xff\xff\xff"
        text = encode_text(path)
        return _INT.pack(len(text)) + text

    def _multi_read(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        body = buf[pos:end]
        try:
            ops = decode_multi_read(body)
        except DecodeError:
            decode_multi(body)  # well-formed writes are refused with the same code
            raise MarshallingError from None
        out: list[bytes] = []
        for type, path in ops:
            try:
                node, _ = self._readable(path, ids)
            except KeeperError as error:
                out += (_MULTI_HEADER.pack(-1, False, error.code), _INT.pack(error.code))
                continue
            out.append(_MULTI_HEADER.pack(type, False, 0))
            if type == OpCode.GET_DATA:
                data = node.data
                out.append(b"\xff\xff\xff\xff" if data is None else _INT.pack(len(data)) + data)
                out.append(self.tree.wire_stat(node))
            else:
                out.append(_encode_names(self.tree.child_names(path, node)))
        out.append(MULTI_END)
        return b"".join(out)

    # ------------------------------------------------------------------ watches

    def _add_watch(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        request, _ = AddWatchRequest.decode(buf[pos:end])
        path = NULL_PATH if request.path is None else request.path
        if request.mode == AddWatchMode.PERSISTENT:
            self.tree.data_watches.add(path, cnxn, PERSISTENT)
            self.tree.child_watches.add(path, cnxn, PERSISTENT)
        elif request.mode == AddWatchMode.PERSISTENT_RECURSIVE:
            self.tree.data_watches.add(path, cnxn, PERSISTENT_RECURSIVE)
        else:
            raise MarshallingError
        return b"\0\0\0\0"

    def _watches_request(self, buf: bytes, pos: int, end: int) -> tuple[str, int, int, int]:
        request, _ = WatchesRequest.decode(buf[pos:end])
        modes = _WATCH_MODES.get(request.type)
        if modes is None:
            raise MarshallingError
        return NULL_PATH if request.path is None else request.path, request.type, *modes

    def _remove_watches(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        path, _, data_modes, child_modes = self._watches_request(buf, pos, end)
        removed = self.tree.data_watches.remove(path, cnxn, data_modes)
        if not self.tree.child_watches.remove(path, cnxn, child_modes) and not removed:
            raise NoWatcher(path)
        return b""

    def _check_watches(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        path, type, data_modes, child_modes = self._watches_request(buf, pos, end)
        found = self.tree.data_watches.has(path, cnxn, data_modes)
        if not found and type != WatcherType.PERSISTENT:
            found = self.tree.child_watches.has(path, cnxn, child_modes)
        if not found:
            raise NoWatcher(path)
        return b""

    def _set_watches(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        asked, _ = SetWatches.decode(buf[pos:end])
        lists = (asked.dataWatches, asked.existWatches, asked.childWatches)
        self._watch_again(cnxn, asked.relativeZxid, lists, ([], []))
        return b""

    def _set_watches2(self, cnxn: ServerCnxn, buf: bytes, pos: int, end: int, ids: Ids) -> bytes:
        asked, _ = SetWatches2.decode(buf[pos:end])
        lists = (asked.dataWatches, asked.existWatches, asked.childWatches)
        persistent = (asked.persistentWatches, asked.persistentRecursiveWatches)
        self._watch_again(cnxn, asked.relativeZxid, lists, persistent)
        return b""

    def _watch_again(
        self,
        cnxn: ServerCnxn,
        zxid: int,
        lists: tuple[list[str | None] | None, ...],
        persistent: tuple[list[str | None] | None, ...],
    ) -> None:
        """Register what a reconnected client watched, and tell it what it missed since `zxid`."""
        if any(paths is None or None in paths for paths in lists) or None in persistent:
            raise MarshallingError
        data, exist, child = ([p for p in paths or () if p is not None] for paths in lists)
        again, recursive = (
            [NULL_PATH if p is None else p for p in paths or ()] for paths in persistent
        )
        tree = self.tree
        self._tell_or_watch(cnxn, data, tree.data_watches, _MZXID, zxid)
        for path in exist:
            if path in tree.nodes:
                self._missed(cnxn, EventType.NODE_CREATED, path)
            else:
                tree.data_watches.add(path, cnxn, STANDARD)
        self._tell_or_watch(cnxn, child, tree.child_watches, _PZXID, zxid)
        for path in again:
            tree.child_watches.add(path, cnxn, PERSISTENT)
            tree.data_watches.add(path, cnxn, PERSISTENT)
        for path in recursive:
            tree.data_watches.add(path, cnxn, PERSISTENT_RECURSIVE)

    def _tell_or_watch(
        self,
        cnxn: ServerCnxn,
        paths: list[str],
        watches: WatchManager,
        changed: tuple[int, int],
        zxid: int,
    ) -> None:
        """Tell of nodes that are gone or have changed since `zxid`; watch the others again.

        `changed`: where a stat has the zxid of the last change that counts, and its event.
        """
        at, event_type = changed
        for path in paths:
            node = self.tree.nodes.get(path)
            if node is None:
                self._missed(cnxn, EventType.NODE_DELETED, path)
            elif int.from_bytes(node.stat[at : at + 8], "big", signed=True) > zxid:
                self._missed(cnxn, event_type, path)
            else:
                watches.add(path, cnxn, STANDARD)

    def _missed(self, cnxn: ServerCnxn, event_type: int, path: str) -> None:
        cnxn.notify(event_frame(event_type, path, -1), None)


def _encode_names(names: list[str]) -> bytes:
    out = [_INT.pack(len(names))]
    for name in names:
        text = encode_text(name)
        out.append(_INT.pack(len(text)))
        out.append(text)
    return b"".join(out)
