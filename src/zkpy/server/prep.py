"""PrepRequestProcessor: validates a write against what will be, and makes its transaction.

Each write gets the next zxid here, also one that is refused. Records are mostly not built: a txn
repeats the bytes of its request but for a few numbers.
Source: PrepRequestProcessor, ZooKeeper 3.9; order of checks as clients observe it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zkpy.datatree.node import CONTAINER_OWNER, EPHEMERAL, NODE_STAT, ttl_owner, wrap32
from zkpy.datatree.quota import StatsTrack, limits_path, stats_path
from zkpy.datatree.tree import CONFIG_NODE, RESERVED_PATHS, DataTree
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
    DEFAULT_JUTE_MAXBUFFER,
    EPHEMERAL_MODES,
    SEQUENTIAL_MODES,
    TTL_MAX_MS,
    TTL_MODES,
    OpCode,
    Perms,
)
from zkpy.server.changes import ChangeRecord, OutstandingChanges
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
    from zkpy.server.interfaces import Ensemble
    from zkpy.session.auth import Id, ProviderRegistry


log = logging.getLogger(__name__)

_INT: Final = struct.Struct(">i")
_INT2: Final = struct.Struct(">ii")
_BOOL_INT: Final = struct.Struct(">?i")
_pack_node = NODE_STAT.pack
_unpack_node = NODE_STAT.unpack
_RUNTIME_INCONSISTENCY: Final = -2

_PLAIN_CREATES: Final = frozenset({OpCode.CREATE, OpCode.CREATE2})

Maker = Callable[[Request, bytes, int, int], bytes]


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
        max_record_bytes: int = DEFAULT_JUTE_MAXBUFFER,
    ) -> None:
        self.tree = tree
        self.auth = auth
        self.extended_types = extended_types
        self.enforce_quota = enforce_quota
        self.digests = digests
        self.close_session_paths = close_session_paths
        self.reconfig_enabled = reconfig_enabled
        self.max_record_bytes = max_record_bytes
        # Set by a leader; without, there are no members to change.
        self.ensemble: Ensemble | None = None
        self.last_zxid = tree.last_processed_zxid
        # Refusals for quota, by top-level name.
        self.quota_exceeded: dict[str, int] = {}
        self.outstanding = OutstandingChanges(tree, digests=digests)
        self.applied = self.outstanding.applied
        self._nodes = tree.nodes
        self._acls_by_id = tree.acl_cache.by_id
        self._makers: dict[int, Maker] = {
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
        # What `prepare` takes; anything else is no write.
        self.operations = frozenset(self._makers)

    def prepare(self, request: Request, buf: bytes, pos: int, end: int, wall_ms: int) -> bytes:
        """Make the transaction of `request`, whose body is buf[pos:end]; return its bytes.

        `request` then has what applying needs: its `changes`, and where they do not say it all,
        its `txn` or `parts`.
        Raises DecodeError if the body is malformed, in which case no zxid is used up.
        """
        request.zxid = zxid = self.last_zxid + 1
        request.time = wall_ms
        type = request.op
        outstanding = self.outstanding
        try:
            txn = self._makers[type](request, buf, pos, end)
        except KeeperError as error:
            request.type = type = OpCode.ERROR
            txn = self._generic(request, ErrorTxn(error.code))
        else:
            if self.digests:
                txn += encode_digest(DIGEST_VERSION, outstanding.digest)
        self.last_zxid = zxid
        request.digest = outstanding.digest
        return encode_header(request.session_id, request.xid, zxid, wall_ms, type) + txn

    def refuse(self, request: Request, code: int, wall_ms: int) -> bytes:
        """As `prepare`, for a request that is refused with `code` whatever it asks."""
        request.zxid = self.last_zxid = self.last_zxid + 1
        request.time = wall_ms
        request.type = OpCode.ERROR
        request.digest = self.outstanding.digest
        return encode_header(
            request.session_id, request.xid, request.zxid, wall_ms, OpCode.ERROR
        ) + self._generic(request, ErrorTxn(code))

    def _generic(self, request: Request, txn: Record) -> bytes:
        """A txn that is applied from its record."""
        request.txn = txn
        return txn.encode()

    def _check_acls(self, acls: Acls, perms: int, ids: tuple[Id, ...]) -> None:
        if acls is not OPEN_ACL_UNSAFE and not self.auth.check_acls(acls, perms, ids):
            raise NoAuth

    # ------------------------------------------------------------------ create

    def _make_create(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        op = request.op
        path, data, acls, flags, ttl, stop = decode_create(buf, pos, end, op == OpCode.CREATE_TTL)
        cversion = self._create(request, op, path, data, acls, flags, ttl)
        child = request.changes[-1]
        if acls is OPEN_ACL_UNSAFE and flags <= 1 and op in _PLAIN_CREATES:
            # Path, data and ACL are those of the request.
            return buf[pos:stop] + _BOOL_INT.pack(flags == 1, cversion)
        txn = self._create_txn(op, child, flags, cversion, ttl)
        if op not in _PLAIN_CREATES:
            return self._generic(request, txn)
        return txn.encode()

    def _create_txn(
        self, op: int, child: ChangeRecord, flags: int, cversion: int, ttl: int
    ) -> Record:
        path, data, acls = child.path, child.data, child.acls
        if op == OpCode.CREATE_CONTAINER:
            return CreateContainerTxn(path, data, acls, cversion)
        if op == OpCode.CREATE_TTL:
            return CreateTTLTxn(path, data, acls, cversion, ttl)
        return CreateTxn(path, data, acls, flags in EPHEMERAL_MODES, cversion)

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
    ) -> int:
        """Validate and note a create; return the cversion that the parent will have."""
        if flags or op == OpCode.CREATE_TTL:
            self._check_mode(op, flags, ttl)
        if path is None:
            raise MarshallingError
        slash = path.rfind("/")
        if slash < 0 or "\0" in path:
            raise BadArguments(path)
        if acls is not OPEN_ACL_UNSAFE:
            acls = self.auth.fix_acls(acls, request.ids)
        parent = self.outstanding.record(path[:slash])
        self._check_acls(parent.acls, Perms.CREATE, request.ids)
        old = self.outstanding.digest_of(parent)
        assert parent.stat is not None
        czxid, mzxid, _, ctime, mtime, version, cversion, aversion, owner = _unpack_node(
            parent.stat
        )
        if flags in SEQUENTIAL_MODES:
            path += f"{cversion:010d}"
        if not is_valid_path(path):
            raise BadArguments(path)
        if self.outstanding.exists(path):
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
        self.outstanding.put(request.changes, parent, old)
        ephemeral = flags in EPHEMERAL_MODES and op != OpCode.CREATE_CONTAINER
        child_owner = self._owner_of(request, op, ephemeral, ttl)
        time = request.time
        stat = _pack_node(zxid, zxid, zxid, time, time, 0, 0, 0, child_owner)
        self.outstanding.put(request.changes, ChangeRecord(path, data, acls, stat, 0), 0)
        return child_cversion

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

    def _make_delete(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        path, version = decode_path_version(buf, pos, end)
        return self._generic(request, self._delete(request, path, version))

    def _delete(self, request: Request, path: str | None, version: int) -> Record:
        path = self._deletable(path)
        parent = self.outstanding.record(path[: path.rfind("/")])
        self._check_acls(parent.acls, Perms.DELETE, request.ids)
        record = self.outstanding.record(path)
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
        outstanding = self.outstanding
        assert parent.stat is not None
        old = outstanding.digest_of(parent)
        fields = _unpack_node(parent.stat)
        if request.zxid > fields[2]:
            parent.stat = _pack_node(*fields[:2], request.zxid, *fields[3:])
        parent.children -= 1
        outstanding.put(request.changes, parent, old)
        old = outstanding.digest_of(record)
        outstanding.put(request.changes, ChangeRecord(record.path, None, (), None, 0), old)

    def _make_delete_container(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        path, _ = decode_path_version(buf[pos:end] + b"\xff\xff\xff\xff", 0, end - pos + 4)
        path = self._deletable(path)
        record = self.outstanding.record(path)
        assert record.stat is not None
        if record.children:
            raise NotEmpty(path)
        owner = _unpack_node(record.stat)[8]
        if owner and self.tree.kind_of(owner) == EPHEMERAL:
            raise BadVersion(path)
        self._remove(request, self.outstanding.record(path[: path.rfind("/")]), record)
        return self._generic(request, DeleteTxn(path))

    # ------------------------------------------------------------------ setData, setACL, check

    def _make_set_data(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        path, data, version, stop = decode_set_data(buf, pos, end)
        version = self._set_data(request, path, data, version)
        # The record is that of the request, with the version that will be.
        return buf[pos:stop] + _INT.pack(version)

    def _set_data(
        self, request: Request, path: str | None, data: bytes | None, version: int
    ) -> int:
        """Validate and note a setData; return the version that the data will have."""
        outstanding = self.outstanding
        node = self._nodes.get(path) if path and path != "/" else None
        record: ChangeRecord | None = None
        if node is None or path in outstanding.records:
            record = outstanding.valid_record(path)
            acls, old_data = record.acls, record.data
            stat = record.stat
            assert stat is not None
        else:
            # A node on which nothing is on its way: the common case.
            acls, old_data = self._acls_by_id.get(node.acl, ()), node.data
            stat = node.stat
        assert path is not None
        if acls is not OPEN_ACL_UNSAFE:
            self._check_acls(acls, Perms.WRITE, request.ids)
        if self.enforce_quota:
            size = (len(data) if data else 0) - (len(old_data) if old_data else 0)
            self._check_quota(path, 0, size)
        czxid, _, pzxid, ctime, _, current, cversion, aversion, owner = _unpack_node(stat)
        if version != -1 and version != current:
            raise BadVersion(path)
        version = current + 1 if current != 0x7FFFFFFF else -0x80000000
        stat = _pack_node(
            czxid, request.zxid, pzxid, ctime, request.time, version, cversion, aversion, owner
        )
        if record is None:
            assert node is not None
            outstanding.put_data(request.changes, node, path, acls, data, stat)
        else:
            old = outstanding.digest_of(record)
            record.data, record.stat = data, stat
            outstanding.put(request.changes, record, old)
        return version

    def _make_set_acl(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        asked, _ = SetACLRequest.decode(buf[pos:end])
        path = asked.path
        if path is None or not is_valid_path(path):
            raise BadArguments(path)
        acls = self.auth.fix_acls(asked.acl, request.ids)
        record = self.outstanding.valid_record(path)
        self._check_acls(record.acls, Perms.ADMIN, request.ids)
        assert record.stat is not None
        fields = _unpack_node(record.stat)
        if asked.version != -1 and asked.version != fields[7]:
            raise BadVersion(path)
        old = self.outstanding.digest_of(record)
        aversion = wrap32(fields[7] + 1)
        record.acls = acls
        record.stat = _pack_node(*fields[:7], aversion, fields[8])
        self.outstanding.put(request.changes, record, old)
        return self._generic(request, SetACLTxn(path, acls, aversion))

    def _check(self, request: Request, path: str | None, version: int) -> Record:
        record = self.outstanding.valid_record(path)
        self._check_acls(record.acls, Perms.READ, request.ids)
        assert record.stat is not None
        current = _unpack_node(record.stat)[5]
        if version != -1 and version != current:
            raise BadVersion(path)
        return CheckVersionTxn(record.path or "/", wrap32(current + 1))

    def _make_reconfig(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        asked, _ = ReconfigRequest.decode(buf[pos:end])
        if not self.reconfig_enabled:
            log.error("Reconfig operation requested but reconfig feature is disabled.")
            raise ReconfigDisabled
        if self.ensemble is None:
            raise Unimplemented  # standalone: there is no ensemble to change
        if self.auth.skip_acl:
            log.warning("skipACL is set, reconfig operation will skip ACL checks!")
        members = self.ensemble.new_members(asked, request.zxid)
        record = self.outstanding.record(CONFIG_NODE)
        # Last: who may not do it is told first what else is wrong with it.
        self._check_acls(record.acls, Perms.WRITE, request.ids)
        self.ensemble.propose_reconfig(request.zxid, members)
        assert record.stat is not None
        czxid, _, pzxid, ctime, _, _, cversion, aversion, owner = _unpack_node(record.stat)
        old = self.outstanding.digest_of(record)
        record.data = members.text().encode()
        record.stat = _pack_node(
            czxid, request.zxid, pzxid, ctime, request.time, -1, cversion, aversion, owner
        )
        self.outstanding.put(request.changes, record, old)
        return self._generic(request, SetDataTxn(CONFIG_NODE, record.data, -1))

    # ------------------------------------------------------------------ multi

    def _make_multi(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        body = buf[pos:end]
        try:
            ops = decode_multi(body)
        except NullAcl:
            raise
        except DecodeError:
            raise MarshallingError from None
        outstanding = self.outstanding
        digest = outstanding.digest
        changes = request.changes
        parts: list[ChangeRecord | SubTxn] = []
        out = [_INT.pack(len(ops))]
        outstanding.begin()
        for op in ops:
            type, path, data, _, number, _, start, stop = op
            try:
                if type == OpCode.SET_DATA:
                    version = self._set_data(request, path, data, number)
                    parts.append(changes[-1])
                    out += (_INT2.pack(type, stop - start + 4), body[start:stop])
                    out.append(_INT.pack(version))
                else:
                    txn = self._multi_op(request, op)
                    encoded = txn.encode()
                    parts.append(SubTxn(type, encoded, txn))
                    out += (_INT2.pack(type, len(encoded)), encoded)
            except KeeperError as error:
                outstanding.take_back(digest)
                changes.clear()
                if isinstance(error, MarshallingError):
                    raise  # as if all of it could not be decoded; so the reference
                return self._failed_multi(request, body, ops, parts, error.code)
        outstanding.end()
        request.parts = parts
        return b"".join(out)

    def _multi_op(self, request: Request, op: Op) -> Record:
        type, path, data, acls, number, ttl, _, _ = op
        if type == OpCode.DELETE:
            return self._delete(request, path, number)
        if type == OpCode.CHECK:
            return self._check(request, path, number)
        cversion = self._create(request, type, path, data, acls, number, ttl)
        return self._create_txn(type, request.changes[-1], number, cversion, ttl)

    def _failed_multi(
        self,
        request: Request,
        body: bytes,
        ops: list[Op],
        parts: list[ChangeRecord | SubTxn],
        code: int,
    ) -> bytes:
        """The txn of a multi whose part behind `parts` was refused with `code`."""
        subs: list[SubTxn] = []
        for op, part in zip(ops, parts, strict=False):
            if isinstance(part, SubTxn):
                subs.append(part)
            else:
                assert part.stat is not None
                version = part.stat[40:44]
                subs.append(SubTxn(OpCode.SET_DATA, body[op[6] : op[7]] + version))
        for _ in range(len(ops) - len(parts)):
            subs.append(SubTxn(OpCode.ERROR, _INT.pack(code)))
            code = _RUNTIME_INCONSISTENCY
        return self._generic(request, MultiTxn(subs))

    # ------------------------------------------------------------------ sessions

    def _make_create_session(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        timeout_ms = int.from_bytes(buf[pos:end], "big", signed=True)
        return self._generic(request, CreateSessionTxn(timeout_ms))

    def _make_close_session(self, request: Request, buf: bytes, pos: int, end: int) -> bytes:
        session_id = request.session_id
        outstanding = self.outstanding
        paths = dict(self.tree.ephemerals.get(session_id, {}))
        for record in outstanding.records.values():
            if record.stat and _unpack_node(record.stat)[8] == session_id and session_id:
                paths[record.path] = None
            else:
                # Deleted, and perhaps made anew by somebody else.
                paths.pop(record.path, None)
        for path in paths:
            parent = outstanding.record(path[: path.rfind("/")])
            self._remove(request, parent, outstanding.record(path))
        txn = CloseSessionTxn(list(paths) if self.close_session_paths else None)
        encoded = self._generic(request, txn)
        if len(encoded) <= self.max_record_bytes:
            return encoded
        # The reference could not read such a record back, and would not start.
        return self._generic(request, CloseSessionTxn(None))
