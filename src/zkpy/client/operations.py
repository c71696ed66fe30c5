"""Operations: each request of the protocol as a coroutine, on whatever sends requests.

Owns: checking and translating paths, building requests, what comes back. Must not know how a
request gets to a server: `ZooKeeper` in client.py does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from zkpy.client import codec
from zkpy.client.codec import ClientInfo, Decoder, Stat
from zkpy.client.core import ClientCnxn
from zkpy.client.effects import Removal, Request
from zkpy.client.events import WatchedEvent, Watcher
from zkpy.client.ops import (
    Check,
    Create,
    Delete,
    Op,
    ReadOp,
    SetData,
    decode_multi,
    encode_create,
    encode_multi,
    raise_if_failed,
)
from zkpy.client.paths import prepend_chroot, strip_chroot, validate_path
from zkpy.client.watches import CHILD, DATA, EXIST, PERSISTENT, RECURSIVE, Registration
from zkpy.protocol import records as r
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.errors import NoNode
from zkpy.protocol.zoodefs import (
    SEQUENTIAL_MODES,
    TTL_MODES,
    AddWatchMode,
    CreateMode,
    OpCode,
    WatcherType,
)

CONFIG_NODE: Final = "/zookeeper/config"

# True is the default watcher.
Watch: TypeAlias = Watcher | bool | None


class Operations:
    """What can be asked of a server. Paths are below the chroot, also in errors and events.

    Raises, besides what each operation says: ValueError on a path that cannot be, before anything
    is sent; NoAuth; ConnectionLoss and SessionExpired.
    """

    chroot: str
    watcher: Watcher | None
    _core: ClientCnxn

    async def _submit(self, request: Request) -> Any:
        """Send it and wait for what becomes of it."""
        raise NotImplementedError

    async def who_am_i(self) -> list[ClientInfo]:
        """The identities of this connection."""
        identities: list[ClientInfo] = await self._call(
            OpCode.WHO_AM_I, b"", codec.identities, None
        )
        return identities

    # Writes

    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        acl: Iterable[ACL] = OPEN_ACL_UNSAFE,
        mode: int = CreateMode.PERSISTENT,
        *,
        ttl_ms: int = -1,
    ) -> str:
        """Create a node; returns its path, which for a sequential one ends with its number.

        mode: of `CreateMode`; ttl_ms: for the modes with TTL, when it is deleted if left alone.
        Raises NodeExists, NoNode (no parent), NoChildrenForEphemerals, InvalidACL, ...
        """
        op = Create(path, data, tuple(acl), mode, ttl_ms)
        if mode in TTL_MODES or mode == CreateMode.CONTAINER:
            container: tuple[str, Stat] = await self._create(op, codec.path_and_stat)
            return container[0]
        created: str = await self._create(op, codec.path, stat=False)
        return created

    async def create2(
        self,
        path: str,
        data: bytes | None = b"",
        acl: Iterable[ACL] = OPEN_ACL_UNSAFE,
        mode: int = CreateMode.PERSISTENT,
        *,
        ttl_ms: int = -1,
    ) -> tuple[str, Stat]:
        """`create`, which also returns the node's Stat."""
        op = Create(path, data, tuple(acl), mode, ttl_ms)
        created: tuple[str, Stat] = await self._create(op, codec.path_and_stat)
        return created

    async def _create(self, op: Create, decode: Decoder, stat: bool = True) -> Any:
        is_sequential = op.mode in SEQUENTIAL_MODES
        validate_path(op.path, is_sequential)
        path = prepend_chroot(self.chroot, op.path, is_sequential)
        opcode, body = encode_create(op, path, stat)
        created = await self._call(opcode, body, decode, op.path)
        if not self.chroot:
            return created
        if isinstance(created, str):
            return strip_chroot(self.chroot, created)
        return strip_chroot(self.chroot, created[0]), created[1]

    async def delete(self, path: str, version: int = -1) -> None:
        """Delete a node without children. Raises NoNode, NotEmpty, BadVersion."""
        body = codec.delete(self._server_path(path), version)
        await self._call(OpCode.DELETE, body, codec.nothing, path)

    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Stat:
        """Replace a node's data, if it is at `version` (-1: any). Raises NoNode, BadVersion."""
        body = codec.set_data(self._server_path(path), data, version)
        stat: Stat = await self._call(OpCode.SET_DATA, body, codec.stat, path)
        return stat

    async def set_acl(self, path: str, acl: Iterable[ACL], version: int = -1) -> Stat:
        """Replace a node's ACL; `version` is that of the ACL (Stat.aversion)."""
        body = r.SetACLRequest(self._server_path(path), tuple(acl), version).encode()
        stat: Stat = await self._call(OpCode.SET_ACL, body, codec.stat, path)
        return stat

    async def multi(self, ops: Sequence[Op]) -> list[Any]:
        """Do all of it or nothing; returns a result per operation (`zkpy.client.ops`).

        Raises MultiFailed, which also is the error of the operation that failed.
        """
        return raise_if_failed(await self._multi(OpCode.MULTI, ops))

    def transaction(self) -> Transaction:
        """A multi to be put together step by step."""
        return Transaction(self)

    async def multi_read(self, ops: Sequence[ReadOp]) -> list[Any]:
        """Read several nodes; a read that failed has its KeeperError as result."""
        return await self._multi(OpCode.MULTI_READ, ops)

    async def _multi(self, opcode: int, ops: Sequence[Op] | Sequence[ReadOp]) -> list[Any]:
        chroot = self.chroot
        body = encode_multi(ops, chroot)
        results: list[Any] = await self._call(
            opcode, body, lambda payload: decode_multi(payload, ops, chroot), None
        )
        return results

    async def reconfig(
        self,
        joining: str | None = None,
        leaving: str | None = None,
        new_members: str | None = None,
        from_config: int = -1,
    ) -> tuple[bytes | None, Stat]:
        """Change who is in the ensemble; returns the new configuration and its node's Stat.

        joining: "server.3=host:2888:3888;2181,..."; leaving: "1,2"; or new_members, the whole list.
        from_config: the version (zxid) it must have now; -1: any.
        Raises ReconfigDisabled, NewConfigNoQuorum, ReconfigInProgress, BadArguments, ...
        """
        body = r.ReconfigRequest(joining, leaving, new_members, from_config).encode()
        result: tuple[bytes | None, Stat] = await self._call(
            OpCode.RECONFIG, body, codec.data, None
        )
        return result

    # Reads

    async def exists(self, path: str, watch: Watch = None) -> Stat | None:
        """A node's Stat; None if there is no node. The watch is left in either case."""
        try:
            stat: Stat = await self._read(OpCode.EXISTS, path, watch, EXIST, codec.stat)
        except NoNode:
            return None
        return stat

    async def get_data(self, path: str, watch: Watch = None) -> tuple[bytes | None, Stat]:
        """A node's data and Stat. `watch`: told of the next change or deletion.

        Raises NoNode, in which case no watch is left.
        """
        result: tuple[bytes | None, Stat] = await self._read(
            OpCode.GET_DATA, path, watch, DATA, codec.data
        )
        return result

    async def get_children(self, path: str, watch: Watch = None) -> list[str]:
        """The names of a node's children, in no order.

        `watch`: told when one is created or deleted, or the node itself is deleted.
        """
        names: list[str] = await self._read(OpCode.GET_CHILDREN, path, watch, CHILD, codec.names)
        return names

    async def get_children2(self, path: str, watch: Watch = None) -> tuple[list[str], Stat]:
        """`get_children`, which also returns the node's Stat."""
        result: tuple[list[str], Stat] = await self._read(
            OpCode.GET_CHILDREN2, path, watch, CHILD, codec.names_and_stat
        )
        return result

    async def get_acl(self, path: str) -> tuple[Acls, Stat]:
        """A node's ACL and Stat."""
        body = codec.text(self._server_path(path))
        result: tuple[Acls, Stat] = await self._call(OpCode.GET_ACL, body, codec.acl_and_stat, path)
        return result

    async def get_all_children_number(self, path: str) -> int:
        """How many nodes there are below one."""
        body = codec.text(self._server_path(path))
        number: int = await self._call(OpCode.GET_ALL_CHILDREN_NUMBER, body, codec.number, path)
        return number

    async def get_ephemerals(self, prefix: str = "/") -> list[str]:
        """The ephemeral nodes of this session whose path begins with `prefix`."""
        body = codec.text(self.chroot + prefix)
        found: list[str] = await self._call(OpCode.GET_EPHEMERALS, body, codec.names, prefix)
        return [strip_chroot(self.chroot, path) for path in found]

    async def sync(self, path: str = "/") -> str:
        """Let the server catch up with the leader: what is read afterwards is not older."""
        body = codec.text(self._server_path(path))
        synced: str = await self._call(OpCode.SYNC, body, codec.path, path)
        return strip_chroot(self.chroot, synced)

    async def get_config(self, watch: Watch = None) -> tuple[bytes | None, Stat]:
        """The ensemble's configuration, whatever the chroot, and its node's Stat."""
        watcher = self._watcher_of(watch)
        registration = watcher and Registration(DATA, CONFIG_NODE, watcher)
        body = codec.path_watch(CONFIG_NODE, registration is not None)
        result: tuple[bytes | None, Stat] = await self._call(
            OpCode.GET_DATA, body, codec.data, CONFIG_NODE, registration
        )
        return result

    # Watches

    async def add_watch(
        self,
        path: str,
        watcher: Watcher | None = None,
        mode: int = AddWatchMode.PERSISTENT_RECURSIVE,
    ) -> None:
        """Watch a node, there or not, until `remove_watches`; None is the default watcher.

        mode: `AddWatchMode`. RECURSIVE hears of everything below as well, but not of
        NodeChildrenChanged, which would say the same twice.
        """
        watcher = self._watcher_of(watcher or True)
        assert watcher is not None
        server_path = self._server_path(path)
        kind = RECURSIVE if mode == AddWatchMode.PERSISTENT_RECURSIVE else PERSISTENT
        registration = Registration(kind, server_path, watcher)
        body = r.AddWatchRequest(server_path, mode).encode()
        await self._call(OpCode.ADD_WATCH, body, codec.nothing, path, registration)

    async def remove_watches(
        self,
        path: str,
        watcher: Watcher | None = None,
        type: int = WatcherType.ANY,
        *,
        local: bool = False,
    ) -> None:
        """Remove one watcher of a node, or all (None); each hears a ...WatchRemoved event.

        local: also where the server cannot be asked. Raises NoWatcher if there is none.
        """
        server_path = self._server_path(path)
        request = Request(OpCode.REMOVE_WATCHES, b"", codec.nothing, path)
        request.removal = Removal(server_path, type, watcher, local)
        if watcher is not None and self._core.has_other_watchers(server_path, type, watcher):
            # The server holds one watch for all of them, and must keep it.
            request.opcode = OpCode.CHECK_WATCHES
        request.body = r.WatchesRequest(server_path, type).encode()
        await self._submit(request)

    def _watcher_of(self, watch: Watch) -> Watcher | None:
        if watch is None or watch is False:
            return None
        if watch is True:
            # Bound methods compare equal, so that this is one watcher however often it is asked.
            return self._default_watcher
        return watch

    def _default_watcher(self, event: WatchedEvent) -> None:
        if self.watcher is not None:
            self.watcher(event)

    # Requests

    def _server_path(self, path: str) -> str:
        validate_path(path)
        return prepend_chroot(self.chroot, path) if self.chroot else path

    async def _read(self, opcode: int, path: str, watch: Watch, kind: str, decode: Decoder) -> Any:
        server_path = self._server_path(path)
        if not watch:
            return await self._call(opcode, codec.path_watch(server_path, False), decode, path)
        watcher = self._watcher_of(watch)
        assert watcher is not None
        registration = Registration(kind, server_path, watcher)
        body = codec.path_watch(server_path, True)
        return await self._call(opcode, body, decode, path, registration)

    async def _call(
        self,
        opcode: int,
        body: bytes,
        decode: Decoder,
        path: str | None,
        registration: Registration | None = None,
    ) -> Any:
        return await self._submit(Request(opcode, body, decode, path, registration))


class Transaction:
    """Operations for one `multi`: all are done by `commit`, or none.

    As a context manager it commits at the end of the block, unless that raised; then `results` has
    what `commit` returned.
    """

    def __init__(self, client: Operations) -> None:
        self.client = client
        self.ops: list[Op] = []
        self.results: list[Any] = []

    def create(
        self,
        path: str,
        data: bytes | None = b"",
        acl: Iterable[ACL] = OPEN_ACL_UNSAFE,
        mode: int = CreateMode.PERSISTENT,
        *,
        ttl_ms: int = -1,
    ) -> None:
        self.ops.append(Create(path, data, tuple(acl), mode, ttl_ms))

    def delete(self, path: str, version: int = -1) -> None:
        """As `Operations.delete`."""
        self.ops.append(Delete(path, version))

    def set_data(self, path: str, data: bytes | None, version: int = -1) -> None:
        """As `Operations.set_data`."""
        self.ops.append(SetData(path, data, version))

    def check(self, path: str, version: int = -1) -> None:
        """Let all fail unless the node has this data version; -1: unless it is there."""
        self.ops.append(Check(path, version))

    async def commit(self) -> list[Any]:
        """A result per operation. Raises MultiFailed."""
        self.results = await self.client.multi(self.ops)
        return self.results

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.commit()
