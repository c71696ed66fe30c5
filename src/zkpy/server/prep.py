"""PrepRequestProcessor: validates a write against what will be, and makes its transaction.

"What will be" is the tree plus every change already on its way (`outstanding`), so that pipelined
writes see each other. Each write gets the next zxid here, also one that is refused.
Source: PrepRequestProcessor, ZooKeeper 3.9; order of checks as clients observe it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zkpy.datatree.digest import node_digest
from zkpy.datatree.node import CONTAINER_OWNER, EPHEMERAL, NODE_STAT, ttl_owner, wrap32
from zkpy.datatree.quota import StatsTrack, limits_path, stats_path
from zkpy.datatree.tree import RESERVED_PATHS, DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.errors import (
    BadArguments,
    BadVersion,
    DecodeError,
    KeeperError,
    MarshallingError,
    NoAuth,
    NoChildrenForEphemerals,
    NodeExists,
    NoNode,
    NotEmpty,
    QuotaExceeded,
    ReconfigDisabled,
    Unimplemented,
)
from zkpy.protocol.jute import Record
from zkpy.protocol.paths import is_valid_path
from zkpy.protocol.records import ReconfigRequest, SetACLRequest
from zkpy.protocol.txns import (
    DIGEST_VERSION,
    MASK64,
    CheckVersionTxn,
    CloseSessionTxn,
    CreateContainerTxn,
    CreateSessionTxn,
    CreateTTLTxn,
    CreateTxn,
    DeleteTxn,
    ErrorTxn,
    MultiTxn,
    SetACLTxn,
    SetDataTxn,
    SubTxn,
    encode_digest,
    encode_header,
)
from zkpy.protocol.zoodefs import (
    EPHEMERAL_MODES,
    SEQUENTIAL_MODES,
    TTL_MAX_MS,
    TTL_MODES,
    OpCode,
    Perms,
)
from zkpy.server.decode import (
    NullAcl,
    Op,
    decode_create,
    decode_multi,
    decode_path_version,
    decode_set_data,
)
from zkpy.server.request import Request

if TYPE_CHECKING:
    from zkpy.session.auth import Id, ProviderRegistry

_pack_node = NODE_STAT.pack
_unpack_node = NODE_STAT.unpack
_RUNTIME_INCONSISTENCY: Final = -2


class ChangeRecord:
    """A node as it will be once the writes on their way are applied; `stat` None: deleted.

    `digest` is the node's digest, or -1 while not computed.
    """

    __slots__ = ("acls", "children", "data", "digest", "path", "stat")

    def __init__(
        self, path: str, data: bytes | None, acls: Acls, stat: bytes | None, children: int
    ) -> None:
        self.path = path
        self.data = data
        self.acls = acls
        self.stat = stat
        self.children = children
        self.digest = -1


class PrepRequestProcessor:
    """Turns requests into transactions, in zxid order.

    `extended_types`: TTL nodes may be created. `enforce_quota`: hard limits refuse.
    `digests`: transactions carry the tree digest.
    """

    def __init__(
        self,
        tree: DataTree,
        auth: ProviderRegistry,
        *,
        extended_types: bool,
        enforce_quota: bool,
        digests: bool,
        close_session_paths: bool = True,
        reconfig_enabled: bool = False,
    ) -> None:
        self.tree = tree
        self.auth = auth
        self.extended_types = extended_types
        self.enforce_quota = enforce_quota
        self.digests = digests
        self.close_session_paths = close_session_paths
        self.reconfig_enabled = reconfig_enabled
        self.outstanding: dict[str, ChangeRecord] = {}
        # Refusals by hard quota, by the first component of the path.
        self.quota_exceeded: dict[str, int] = {}
        # While a multi is prepared: (path, what was outstanding there) for each of its changes.
        self._undo: list[tuple[str, ChangeRecord | None]] | None = None
        self.last_zxid = tree.last_processed_zxid
        self.digest = tree.digest
        self._nodes = tree.nodes
        self._acls_by_id = tree.acl_cache.by_id
        self._makers: dict[int, Callable[[Request, bytes, int, int], Record]] = {
            OpCode.CREATE: self._make_create,
            OpCode.CREATE2: self._make_create,
            OpCode.CREATE_CONTAINER: self._make_create,
            OpCode.CREATE_TTL: self._make_create,
            OpCode.DELETE: self._make_delete,
            OpCode.DELETE_CONTAINER: self._make_delete_container,
            OpCode.SET_DATA: self._make_set_data,
            OpCode.SET_ACL: self._make_set_acl,
            OpCode.RECONFIG: self._make_reconfig,
            OpCode.MULTI: self._make_multi,
            OpCode.CREATE_SESSION: self._make_create_session,
            OpCode.CLOSE_SESSION: self._make_close_session,
        }

    def prepare(self, request: Request, buf: bytes, pos: int, end: int, wall_ms: int) -> bytes:
        """Make the transaction of `request`, whose body is buf[pos:end]; return its bytes.

        Raises DecodeError if the body is malformed, in which case no zxid is used up.
        """
        request.zxid = zxid = self.last_zxid + 1
        request.time = wall_ms
        type = request.op
        digest: bytes | None = None
        try:
            txn = self._makers[type](request, buf, pos, end)
        except KeeperError as error:
            txn = ErrorTxn(error.code)
            type = OpCode.ERROR
        else:
            if self.digests:
                digest = encode_digest(DIGEST_VERSION, self.digest)
        self.last_zxid = zxid
        request.type = type
        request.txn = txn
        request.digest = self.digest
        header = encode_header(request.session_id, request.xid, zxid, wall_ms, type)
        if digest is None:
            return header + txn.encode()
        return header + txn.encode() + digest

    def applied(self, request: Request) -> None:
        """Forget the changes of `request`, which the tree has now."""
        outstanding = self.outstanding
        for change in request.changes:
            if outstanding.get(change.path) is change:
                del outstanding[change.path]

    # ------------------------------------------------------------------ what will be

    def _record(self, path: str) -> ChangeRecord:
        """A copy of the node as it will be, to change at will; the root is "". Raises NoNode."""
        pending = self.outstanding.get(path)
        if pending is not None:
            stat = pending.stat
            if stat is None:
                raise NoNode(path)
            record = ChangeRecord(path, pending.data, pending.acls, stat, pending.children)
            record.digest = pending.digest
            return record
        node = self._nodes.get(path)
        if node is None:
            raise NoNode(path)
        children = node.children
        acls = self._acls_by_id.get(node.acl, ())
        count = len(children) if children is not None else 0
        return ChangeRecord(path, node.data, acls, node.stat, count)

    def _valid_record(self, path: str | None) -> ChangeRecord:
        """As `_record`, for a path that has to be valid. Raises BadArguments or NoNode."""
        if not path:
            raise BadArguments(path)
        try:
            return self._record(path if path != "/" else "")
        except NoNode:
            # Only now: a node that exists has a valid path.
            if not is_valid_path(path):
                raise BadArguments(path) from None
            raise

    def _exists(self, path: str) -> bool:
        pending = self.outstanding.get(path)
        if pending is not None:
            return pending.stat is not None
        return path in self._nodes

    def _change(self, request: Request, record: ChangeRecord, old: int) -> None:
        """Put `record` in place of what was, whose digest was `old` (0 if nothing was)."""
        if self.digests:
            if record.stat is None:
                new = 0
            else:
                new = record.digest = node_digest(record.path, record.data, record.stat)
            self.digest = (self.digest + new - old) & MASK64
        if self._undo is not None:
            self._undo.append((record.path, self.outstanding.get(record.path)))
        self.outstanding[record.path] = record
        request.changes.append(record)

    def _digest_of(self, record: ChangeRecord) -> int:
        if not self.digests:
            return 0
        if record.digest < 0 and record.stat is not None:
            record.digest = node_digest(record.path, record.data, record.stat)
        return record.digest

    def _check_acls(self, acls: Acls, perms: int, ids: tuple[Id, ...]) -> None:
        if acls is not OPEN_ACL_UNSAFE and not self.auth.check_acls(acls, perms, ids):
            raise NoAuth

    # ------------------------------------------------------------------ create

    def _make_create(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        with_ttl = request.op == OpCode.CREATE_TTL
        path, data, acls, flags, ttl = decode_create(buf, pos, end, with_ttl)
        return self._create(request, request.op, path, data, acls, flags, ttl)

    def _check_mode(self, op: int, flags: int, ttl: int) -> None:
        if not 0 <= flags <= 6:
            raise BadArguments(f"flags {flags}")
        if flags in TTL_MODES:
            if not self.extended_types:
                raise Unimplemented
            if not 0 < ttl <= TTL_MAX_MS:
                raise BadArguments(f"ttl {ttl}")
        elif ttl >= 0 or op == OpCode.CREATE_TTL:
            # A TTL create without a TTL: the reference stops when it applies one.
            raise BadArguments(f"ttl {ttl} for flags {flags}")

    def _create(
        self,
        request: Request,
        op: int,
        path: str | None,
        data: bytes | None,
        acls: Acls | None,
        flags: int,
        ttl: int,
    ) -> Record:
        if flags or op == OpCode.CREATE_TTL:
            self._check_mode(op, flags, ttl)
        if path is None:
            raise MarshallingError
        slash = path.rfind("/")
        if slash < 0 or "\0" in path:
            raise BadArguments(path)
        if acls is not OPEN_ACL_UNSAFE:
            acls = self.auth.fix_acls(acls, request.ids)
        parent = self._record(path[:slash])
        self._check_acls(parent.acls, Perms.CREATE, request.ids)
        old = self._digest_of(parent)
        assert parent.stat is not None
        czxid, mzxid, _, ctime, mtime, version, cversion, aversion, owner = _unpack_node(
            parent.stat
        )
        if flags in SEQUENTIAL_MODES:
            path += f"{cversion:010d}"
        if not is_valid_path(path):
            raise BadArguments(path)
        if self._exists(path):
            raise NodeExists(path)
        if owner and self.tree.kind_of(owner) == EPHEMERAL:
            raise NoChildrenForEphemerals(path)
        if self.enforce_quota:
            self._check_quota(path, 1, len(data) if data else 0)
        zxid = request.zxid
        child_cversion = wrap32(cversion + 1)
        if child_cversion > cversion:
            # The counter never wraps: applying raises it, or leaves it at 2^31 - 1.
            parent.stat = _pack_node(
                czxid, mzxid, zxid, ctime, mtime, version, child_cversion, aversion, owner
            )
        parent.children += 1
        self._change(request, parent, old)
        ephemeral = flags in EPHEMERAL_MODES and op != OpCode.CREATE_CONTAINER
        child_owner = self._owner_of(request, op, ephemeral, ttl)
        time = request.time
        stat = _pack_node(zxid, zxid, zxid, time, time, 0, 0, 0, child_owner)
        self._change(request, ChangeRecord(path, data, acls, stat, 0), 0)
        if op == OpCode.CREATE_CONTAINER:
            return CreateContainerTxn(path, data, acls, child_cversion)
        if op == OpCode.CREATE_TTL:
            return CreateTTLTxn(path, data, acls, child_cversion, ttl)
        return CreateTxn(path, data, acls, ephemeral, child_cversion)

    def _owner_of(self, request: Request, op: int, ephemeral: bool, ttl: int) -> int:
        if op == OpCode.CREATE_CONTAINER:
            return CONTAINER_OWNER
        if op == OpCode.CREATE_TTL:
            return ttl_owner(ttl)
        return request.session_id if ephemeral else 0

    def _check_quota(self, path: str, count: int, size: int) -> None:
        """Refuse what would exceed a hard limit, measured against the applied usage."""
        nodes = self.tree.nodes
        tracked = self.tree.quota.deepest(path)
        if tracked is None:
            return
        limits_node = nodes.get(limits_path(tracked))
        stats_node = nodes.get(stats_path(tracked))
        if limits_node is None or stats_node is None:
            return
        limits = StatsTrack(limits_node.data)
        usage = StatsTrack(stats_node.data)
        too_many = count and 0 <= limits.count_hard_limit < usage.count + count
        if too_many or (size and 0 <= limits.byte_hard_limit < usage.bytes + size):
            namespace = path.split("/", 2)[1]
            self.quota_exceeded[namespace] = self.quota_exceeded.get(namespace, 0) + 1
            raise QuotaExceeded(path)

    # ------------------------------------------------------------------ delete

    def _make_delete(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        path, version = decode_path_version(buf, pos, end)
        return self._delete(request, path, version)

    def _delete(self, request: Request, path: str | None, version: int) -> Record:
        path = self._deletable(path)
        parent = self._record(path[: path.rfind("/")])
        self._check_acls(parent.acls, Perms.DELETE, request.ids)
        record = self._record(path)
        assert record.stat is not None
        if version != -1 and version != _unpack_node(record.stat)[5]:
            raise BadVersion(path)
        if record.children:
            raise NotEmpty(path)
        self._remove(request, parent, record)
        return DeleteTxn(path)

    def _deletable(self, path: str | None) -> str:
        if path is None:
            raise MarshallingError
        if "/" not in path or "\0" in path or path in RESERVED_PATHS:
            raise BadArguments(path)
        return path

    def _remove(self, request: Request, parent: ChangeRecord, record: ChangeRecord) -> None:
        assert parent.stat is not None
        old = self._digest_of(parent)
        fields = _unpack_node(parent.stat)
        if request.zxid > fields[2]:
            parent.stat = _pack_node(*fields[:2], request.zxid, *fields[3:])
        parent.children -= 1
        self._change(request, parent, old)
        old = self._digest_of(record)
        self._change(request, ChangeRecord(record.path, None, (), None, 0), old)

    def _make_delete_container(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        path, _ = decode_path_version(buf + b"\xff\xff\xff\xff", pos, end + 4)
        path = self._deletable(path)
        record = self._record(path)
        assert record.stat is not None
        if record.children:
            raise NotEmpty(path)
        owner = _unpack_node(record.stat)[8]
        if owner and self.tree.kind_of(owner) == EPHEMERAL:
            raise BadVersion(path)
        self._remove(request, self._record(path[: path.rfind("/")]), record)
        return DeleteTxn(path)

    # ------------------------------------------------------------------ setData, setACL

    def _make_set_data(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        path, data, version = decode_set_data(buf, pos, end)
        return self._set_data(request, path, data, version)

    def _set_data(
        self, request: Request, path: str | None, data: bytes | None, version: int
    ) -> Record:
        record = self._valid_record(path)
        if record.acls is not OPEN_ACL_UNSAFE:
            self._check_acls(record.acls, Perms.WRITE, request.ids)
        if self.enforce_quota:
            size = (len(data) if data else 0) - (len(record.data) if record.data else 0)
            self._check_quota(record.path, 0, size)
        stat = record.stat
        assert stat is not None
        czxid, _, pzxid, ctime, _, current, cversion, aversion, owner = _unpack_node(stat)
        if version != -1 and version != current:
            raise BadVersion(path)
        old = self._digest_of(record)
        version = current + 1 if current != 0x7FFFFFFF else -0x80000000
        record.data = data
        record.stat = _pack_node(
            czxid, request.zxid, pzxid, ctime, request.time, version, cversion, aversion, owner
        )
        self._change(request, record, old)
        return SetDataTxn(record.path or "/", data, version)

    def _make_set_acl(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        asked, _ = SetACLRequest.decode(buf[pos:end])
        path = asked.path
        if path is None or not is_valid_path(path):
            raise BadArguments(path)
        acls = self.auth.fix_acls(asked.acl, request.ids)
        record = self._record(path if len(path) > 1 else "")
        self._check_acls(record.acls, Perms.ADMIN, request.ids)
        stat = record.stat
        assert stat is not None
        fields = _unpack_node(stat)
        if asked.version != -1 and asked.version != fields[7]:
            raise BadVersion(path)
        old = self._digest_of(record)
        aversion = wrap32(fields[7] + 1)
        record.acls = acls
        record.stat = _pack_node(*fields[:7], aversion, fields[8])
        self._change(request, record, old)
        return SetACLTxn(path, acls, aversion)

    def _check(self, request: Request, path: str | None, version: int) -> Record:
        record = self._valid_record(path)
        self._check_acls(record.acls, Perms.READ, request.ids)
        assert record.stat is not None
        current = _unpack_node(record.stat)[5]
        if version != -1 and version != current:
            raise BadVersion(path)
        return CheckVersionTxn(record.path or "/", wrap32(current + 1))

    def _make_reconfig(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        ReconfigRequest.decode(buf[pos:end])
        if not self.reconfig_enabled:
            raise ReconfigDisabled
        raise Unimplemented  # standalone: there is no ensemble to change

    # ------------------------------------------------------------------ multi

    def _make_multi(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        try:
            ops = decode_multi(buf[pos:end])
        except NullAcl:
            raise
        except DecodeError:
            raise MarshallingError from None
        digest = self.digest
        subs: list[SubTxn] = []
        error = 0
        undo: list[tuple[str, ChangeRecord | None]] = []
        self._undo = undo
        for op in ops:
            if error:
                subs.append(self._failed(_RUNTIME_INCONSISTENCY))
                continue
            try:
                type, txn = self._multi_op(request, op)
            except KeeperError as refused:
                error = refused.code
                subs.append(self._failed(error))
            else:
                subs.append(SubTxn(type, txn.encode(), txn))
        self._undo = None
        if error:
            for path, previous in reversed(undo):
                if previous is None:
                    del self.outstanding[path]
                else:
                    self.outstanding[path] = previous
            request.changes.clear()
            self.digest = digest
        return MultiTxn(subs)

    def _failed(self, code: int) -> SubTxn:
        record = ErrorTxn(code)
        return SubTxn(OpCode.ERROR, record.encode(), record)

    def _multi_op(self, request: Request, op: Op) -> tuple[int, Record]:
        type, path, data, acls, number, ttl = op
        if type == OpCode.SET_DATA:
            return type, self._set_data(request, path, data, number)
        if type == OpCode.DELETE:
            return type, self._delete(request, path, number)
        if type == OpCode.CHECK:
            return type, self._check(request, path, number)
        return type, self._create(request, type, path, data, acls, number, ttl)

    # ------------------------------------------------------------------ sessions

    def _make_create_session(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        return CreateSessionTxn(int.from_bytes(buf[pos:end], "big", signed=True))

    def _make_close_session(self, request: Request, buf: bytes, pos: int, end: int) -> Record:
        session_id = request.session_id
        paths = dict(self.tree.ephemerals.get(session_id, {}))
        for record in self.outstanding.values():
            if record.stat is None:
                paths.pop(record.path, None)
            elif _unpack_node(record.stat)[8] == session_id and session_id:
                paths[record.path] = None
        for path in paths:
            self._remove(request, self._record(path[: path.rfind("/")]), self._record(path))
        return CloseSessionTxn(list(paths) if self.close_session_paths else None)
