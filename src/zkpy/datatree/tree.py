"""The replicated state: nodes, sessions, ephemerals, and the watches that changes fire.

The methods that change it are the rules by which a transaction is applied, the same on a live
server and in replay: they never compare versions, and raise only what replay ignores.
Source: DataTree, ZooKeeper 3.9; persistence rules of fuzzy snapshots.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.datatree.acls import OPEN_UNSAFE_ACL_ID, ReferenceCountedACLCache
from zkpy.datatree.children import WIDE, WideChildren
from zkpy.datatree.digest import digest_change, node_digest, tree_digest
from zkpy.datatree.node import (
    CONTAINER,
    EMPTY_STAT,
    EPHEMERAL,
    NODE_STAT,
    PERSISTENT,
    TTL,
    DataNode,
    owner_kind,
    wrap32,
)
from zkpy.datatree.quota import (
    LIMITS_NODE,
    QUOTA_ROOT,
    STATS_NODE,
    QuotaTracker,
    StatsTrack,
    stats_path,
    tracked_path,
)
from zkpy.datatree.watches import WatchManager
from zkpy.protocol.acl import READ_ACL_UNSAFE, Acls
from zkpy.protocol.errors import NodeExists, NoNode
from zkpy.protocol.records import STAT
from zkpy.protocol.txns import MASK64
from zkpy.protocol.zoodefs import EventType

CONFIG_NODE: Final = "/zookeeper/config"
RESERVED_PATHS: Final = frozenset({"/", "/zookeeper", QUOTA_ROOT, CONFIG_NODE})

# Encoded replies kept for nodes that are read again and again. Beyond it all are dropped: simpler
# than tracking which was used last, and a miss costs under a microsecond.
MAX_CACHED_REPLIES: Final = 4096

_NEVER_A_PARENT: Final = bytes(16)
_LENGTH: Final = struct.Struct(">i4x")  # dataLength, and numChildren 0

_pack_node = NODE_STAT.pack
_unpack_node = NODE_STAT.unpack


class DataTree:
    """Nodes by path; the root is held as "" (parent of "/a") and as "/", one object.

    `extended_types`: TTL owners are recognised (zookeeper.extendedTypesEnabled).
    `count_digest`: keep `digest` up to date at each change; a leader's tree is told the digest
    instead, because its proposals carry it.
    """

    def __init__(self, *, extended_types: bool = False, emulate_353: bool = False) -> None:
        self.extended_types = extended_types
        self.emulate_353 = emulate_353
        self.nodes: dict[str, DataNode] = {}
        self.acl_cache = ReferenceCountedACLCache()
        self.sessions: dict[int, int] = {}
        self.ephemerals: dict[int, dict[str, None]] = {}
        self.containers: dict[str, None] = {}
        self.ttls: dict[str, None] = {}
        self.quota = QuotaTracker()
        self.data_watches = WatchManager()
        self.child_watches = WatchManager()
        self.response_cache: dict[str, bytes] = {}
        self.last_processed_zxid = 0
        self.data_size = 0
        self.ephemerals_count = 0
        self.count_digest = True
        self.digest = 0
        self._add_built_in_nodes()

    def _add_built_in_nodes(self) -> None:
        root = DataNode(b"", OPEN_UNSAFE_ACL_ID, EMPTY_STAT)
        self.nodes[""] = self.nodes["/"] = root
        self.add_loaded_node("/zookeeper", DataNode(b"", OPEN_UNSAFE_ACL_ID, EMPTY_STAT))
        self._add_config_node()
        self.add_loaded_node(QUOTA_ROOT, DataNode(b"", OPEN_UNSAFE_ACL_ID, EMPTY_STAT))
        self.digest = tree_digest(self.nodes)

    def _add_config_node(self) -> None:
        acl = self.acl_cache.add(READ_ACL_UNSAFE)
        stat = _pack_node(0, 0, 0, 0, 0, 0, 0, -1, 0)
        self.add_loaded_node(CONFIG_NODE, DataNode(b"", acl, stat))

    # ------------------------------------------------------------------ reading

    def acls_of(self, node: DataNode) -> Acls:
        """The ACL list of `node`; empty if a fuzzy snapshot left its id without an entry."""
        return self.acl_cache.by_id.get(node.acl, ())

    def wire_stat(self, node: DataNode) -> bytes:
        """The 68 bytes of Stat that clients see."""
        stat = node.stat
        if node.children is None and stat.endswith(_NEVER_A_PARENT):
            # cversion, aversion and owner are 0: the same fields in another order.
            data = node.data
            length = _LENGTH.pack(len(data) if data else 0)
            return stat[:16] + stat[24:60] + length + stat[16:24]
        czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, owner = _unpack_node(stat)
        children = node.children
        data = node.data
        count = len(children) if children else 0
        cversion = 2 * cversion - count
        if not -0x80000000 <= cversion <= 0x7FFFFFFF:
            cversion = wrap32(cversion)
        if owner and owner_kind(owner, self.extended_types, self.emulate_353) != EPHEMERAL:
            owner = 0
        return STAT.pack(
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            owner,
            len(data) if data else 0,
            count,
            pzxid,
        )

    def child_names(self, path: str, node: DataNode) -> list[str]:
        """Names of the children, without their parent's path."""
        children = node.children
        if not children:
            return []
        start = len(path) + 1 if len(path) > 1 else 1
        return [child[start:] for child in children]

    def kind_of(self, owner: int) -> int:
        """PERSISTENT, EPHEMERAL, CONTAINER or TTL, by the settings of this server."""
        return owner_kind(owner, self.extended_types, self.emulate_353)

    def node_count(self) -> int:
        """Nodes as the reference counts them: the root twice."""
        return len(self.nodes)

    # ------------------------------------------------------------------ changing

    def create_node(
        self,
        path: str,
        data: bytes | None,
        acls: Acls,
        owner: int,
        parent_cversion: int,
        zxid: int,
        time: int,
        prepared: tuple[bytes | None, bytes | None] | None = None,
    ) -> DataNode:
        """Add a node. `parent_cversion` -1 means one more than the parent has.

        `prepared` are the stats that its parent and it will have, from who made the txn; otherwise
        they are computed.

        Raises NoNode without a parent; NodeExists after giving the node that is there `acls` and
        raising its parent's cversion, as replay over a fuzzy snapshot needs.
        """
        nodes = self.nodes
        parent_path = path[: path.rfind("/")]
        parent = nodes.get(parent_path)
        if parent is None:
            raise NoNode(path)
        existing = nodes.get(path)
        if existing is not None:
            self._raise_cversion(parent_path, parent, parent_cversion, zxid)
            acl = self.acl_cache.add(acls)
            self.acl_cache.release(existing.acl)
            existing.acl = acl
            self.response_cache.pop(path, None)
            raise NodeExists(path)
        if prepared is None:
            self._raise_cversion(parent_path, parent, parent_cversion, zxid)
            stat = _pack_node(zxid, zxid, zxid, time, time, 0, 0, 0, owner)
        else:
            parent_stat, node_stat = prepared
            assert parent_stat and node_stat, "neither is being deleted"
            stat = node_stat
            parent.stat = parent_stat
            if parent_path in self.response_cache:
                del self.response_cache[parent_path]
        node = nodes[path] = DataNode(data, self.acl_cache.add(acls), stat)
        children = parent.children
        if children is None:
            parent.children = {path: None}
        else:
            children[path] = None
            if len(children) == WIDE and isinstance(children, dict):
                parent.children = WideChildren(children)
        self.data_size += len(path) + len(data) if data else len(path)
        if owner:
            self.index_owner(path, owner)
        if self.count_digest:
            self.digest = (self.digest + node_digest(path, data, stat)) & MASK64
        if self.quota.paths:
            self._update_quota(path, 1, len(data) if data else 0)
        if path.startswith(QUOTA_ROOT):
            self._quota_node_created(path)
        if self.data_watches.by_path:
            self.data_watches.trigger(path, EventType.NODE_CREATED, zxid, acls)
        if self.child_watches.by_path:
            self._trigger_parent(parent_path, parent, zxid)
        return node

    def delete_node(self, path: str, zxid: int) -> None:
        """Remove a node and note it at its parent, which happens even if the node is gone.

        Raises NoNode if the node or its parent is missing.
        """
        nodes = self.nodes
        parent_path = path[: path.rfind("/")]
        parent = nodes.get(parent_path)
        if parent is None or not path or path in RESERVED_PATHS:
            raise NoNode(path)
        node = nodes.get(path)
        if node is not None and node.children:
            # Only in replay over a fuzzy snapshot: these are created later in the log, below a
            # node of the same name that is created before them.
            for below in reversed(self._below(path)):
                self._delete_if_there(below, zxid)
        self._forget_child(parent_path, parent, path, zxid)
        node = nodes.pop(path, None)
        if node is None:
            raise NoNode(path)
        acls = self.acls_of(node)
        self.acl_cache.release(node.acl)
        self.response_cache.pop(path, None)
        data = node.data
        self.data_size -= len(path) + len(data) if data else len(path)
        owner = _unpack_node(node.stat)[8]
        if owner:
            self._unindex_owner(path, owner)
        if self.count_digest:
            self.digest = (self.digest - node_digest(path, data, node.stat)) & MASK64
        if path.startswith(QUOTA_ROOT):
            limited = tracked_path(path, LIMITS_NODE)
            if limited is not None:
                self.quota.paths.discard(limited)
        if self.quota.paths:
            self._update_quota(path, -1, -len(data) if data else 0)
        told = None
        if self.data_watches.by_path:
            told = self.data_watches.trigger(path, EventType.NODE_DELETED, zxid, acls)
        if self.child_watches.by_path:
            self.child_watches.trigger(path, EventType.NODE_DELETED, zxid, acls, told)
            self._trigger_parent(parent_path, parent, zxid)

    def set_data(
        self,
        path: str,
        data: bytes | None,
        version: int,
        zxid: int,
        time: int,
        prepared: bytes | None = None,
    ) -> DataNode:
        """Give a node new data and `version`. Raises NoNode.

        `prepared` is the stat it will have, from who made the txn; otherwise it is computed.
        """
        node = self.nodes.get(path)
        if node is None:
            raise NoNode(path)
        old = node.data
        stat = node.stat
        if prepared is None:
            czxid, _, pzxid, ctime, _, _, cversion, aversion, owner = _unpack_node(stat)
            prepared = _pack_node(
                czxid, zxid, pzxid, ctime, time, version, cversion, aversion, owner
            )
        node.stat = prepared
        node.data = data
        if path in self.response_cache:
            del self.response_cache[path]
        if self.count_digest:
            key = path if len(path) > 1 else ""
            self.digest = (self.digest + digest_change(key, old, stat, data, prepared)) & MASK64
        change = (len(data) if data else 0) - (len(old) if old else 0)
        self.data_size += change
        if self.quota.paths:
            self._update_quota(path, 0, change)
        if self.data_watches.by_path:
            acls = self.acls_of(node)
            self.data_watches.trigger(path, EventType.NODE_DATA_CHANGED, zxid, acls)
        return node

    def set_config(self, data: bytes, version: int, time_ms: int) -> None:
        """Write the configuration of that `version`, a zxid, to its node, without a txn.

        Nothing happens, and no watch fires, if the node has it, from its txn or from a snapshot, in
        whatever order of lines: that of the member which proposed it is the same on all.
        Source: ZKDatabase.initConfigInZKDatabase.
        """
        node = self.nodes.get(CONFIG_NODE)
        if node is None:
            self._add_config_node()  # a snapshot of a server older than 3.5
        elif _unpack_node(node.stat)[1] == version:
            if sorted((node.data or b"").split(b"\n")) == sorted(data.split(b"\n")):
                return
        self.set_data(CONFIG_NODE, data, -1, version, time_ms)

    def set_acl(self, path: str, acls: Acls, version: int) -> DataNode:
        """Give a node a new ACL list and `version` (the aversion). Raises NoNode."""
        node = self.nodes.get(path)
        if node is None:
            raise NoNode(path)
        acl = self.acl_cache.add(acls)
        self.acl_cache.release(node.acl)
        node.acl = acl
        fields = _unpack_node(node.stat)
        self._replace_stat(path, node, _pack_node(*fields[:7], version, fields[8]))
        self.response_cache.pop(path, None)
        return node

    def close_session(self, session_id: int, paths: list[str | None] | None, zxid: int) -> None:
        """Forget a session; delete the listed paths, then what is still indexed as its own."""
        self.sessions.pop(session_id, None)
        for path in paths or ():
            self._delete_if_there(path or "", zxid)
        for path in list(self.ephemerals.get(session_id, ())):
            self._delete_if_there(path, zxid)
        self.ephemerals.pop(session_id, None)

    def kill_dead_sessions(self) -> list[str]:
        """Delete ephemerals whose session is unknown, when a server starts to lead or alone."""
        removed: list[str] = []
        for session_id in [s for s in self.ephemerals if s not in self.sessions]:
            removed += self.ephemerals[session_id]
            self.close_session(session_id, None, self.last_processed_zxid)
        return removed

    # ------------------------------------------------------------------ loading

    def add_loaded_node(self, path: str, node: DataNode) -> None:
        """Put in a node of a snapshot, stat and all. Raises NoNode without a parent."""
        parent = self.nodes.get(path[: path.rfind("/")])
        if parent is None:
            raise NoNode(path)
        self.nodes[path] = node
        children = parent.children
        if children is None:
            parent.children = {path: None}
        else:
            children[path] = None
            if len(children) == WIDE and isinstance(children, dict):
                parent.children = WideChildren(children)
        owner = _unpack_node(node.stat)[8]
        if owner:
            self.index_owner(path, owner)
        self.data_size += len(path) + len(node.data) if node.data else len(path)

    def finish_loading(self) -> None:
        """What a snapshot does not say: quota paths and usage, unused ACL entries."""
        self.acl_cache.purge_unused()
        for path in self._below(QUOTA_ROOT):
            limited = tracked_path(path, LIMITS_NODE)
            if limited is not None:
                self.quota.paths.add(limited)
        for limited in self.quota.paths:
            self._recount(limited)

    # ------------------------------------------------------------------ inner workings

    def _raise_cversion(self, path: str, node: DataNode, cversion: int, zxid: int) -> None:
        """Note the creation of a child. Only upwards: replay may run over a newer node."""
        stat = node.stat
        czxid, mzxid, _, ctime, mtime, version, old, aversion, owner = _unpack_node(stat)
        if cversion == -1:
            cversion = wrap32(old + 1)
        if path in self.response_cache:
            del self.response_cache[path]
        if cversion <= old:
            return
        new = _pack_node(czxid, mzxid, zxid, ctime, mtime, version, cversion, aversion, owner)
        node.stat = new
        if self.count_digest:
            data = node.data
            self.digest = (self.digest + digest_change(path, data, stat, data, new)) & MASK64

    def _forget_child(self, path: str, node: DataNode, child: str, zxid: int) -> None:
        children = node.children
        if children is not None:
            children.pop(child, None)
            if not children:
                node.children = None
        fields = _unpack_node(node.stat)
        if zxid > fields[2]:
            self._replace_stat(path, node, _pack_node(*fields[:2], zxid, *fields[3:]))
        self.response_cache.pop(path, None)

    def _replace_stat(self, path: str, node: DataNode, stat: bytes) -> None:
        if self.count_digest:
            key = path if len(path) > 1 else ""
            data = node.data
            change = digest_change(key, data, node.stat, data, stat)
            self.digest = (self.digest + change) & MASK64
        node.stat = stat

    def _trigger_parent(self, path: str, parent: DataNode, zxid: int) -> None:
        event = EventType.NODE_CHILDREN_CHANGED
        self.child_watches.trigger(path or "/", event, zxid, self.acls_of(parent))

    def _delete_if_there(self, path: str, zxid: int) -> None:
        try:
            self.delete_node(path, zxid)
        except NoNode:
            pass  # replay over a snapshot that already lacks it

    def index_owner(self, path: str, owner: int) -> None:
        """Note `path` among the ephemerals, containers or TTL nodes."""
        kind = owner_kind(owner, self.extended_types, self.emulate_353)
        if kind == EPHEMERAL:
            self.ephemerals.setdefault(owner, {})[path] = None
            self.ephemerals_count += 1
        elif kind == CONTAINER:
            self.containers[path] = None
        elif kind == TTL:
            self.ttls[path] = None

    def _unindex_owner(self, path: str, owner: int) -> None:
        kind = owner_kind(owner, self.extended_types, self.emulate_353)
        if kind == EPHEMERAL:
            # The session stays listed with no path left, as dump counts it, until it closes.
            self.ephemerals.get(owner, {}).pop(path, None)
            self.ephemerals_count -= 1
        elif kind == CONTAINER:
            self.containers.pop(path, None)
        elif kind == TTL:
            self.ttls.pop(path, None)

    # ------------------------------------------------------------------ quota

    def _below(self, path: str) -> list[str]:
        """All paths below `path`, parents first; no recursion, trees can be deep."""
        found: list[str] = []
        node = self.nodes.get(path)
        todo = [node] if node is not None else []
        while todo:
            for child in todo.pop().children or ():
                found.append(child)
                todo.append(self.nodes[child])
        return found

    def count_below(self, path: str) -> int:
        """How many descendants `path` has."""
        return len(self._below(path))

    def _update_quota(self, path: str, count: int, size: int) -> None:
        tracked = self.quota.deepest(path)
        if tracked is None:
            return
        stats_node = self.nodes.get(stats_path(tracked))
        if stats_node is None:
            return
        stats = StatsTrack(stats_node.data)
        if not stats.is_usage:
            self._recount(tracked)
            return
        stats.count += count
        stats.bytes += size
        self._write_stats(tracked, stats_node, stats)

    def _recount(self, tracked: str) -> None:
        """Count the usage of `tracked` anew: loading, or its stats node has no usable text."""
        stats_node = self.nodes.get(stats_path(tracked))
        node = self.nodes.get(tracked)
        if stats_node is None:
            return
        stats = StatsTrack()
        stats.count = stats.bytes = 0
        paths = [tracked, *self._below(tracked)] if node is not None else []
        for path in paths:
            data = self.nodes[path].data
            stats.count += 1
            stats.bytes += len(data) if data else 0
        self._write_stats(tracked, stats_node, stats)

    def _write_stats(self, tracked: str, node: DataNode, stats: StatsTrack) -> None:
        # In place, on every server alike: no transaction, no version, no watch.
        old = node.data
        node.data = stats.encode()
        self.data_size += len(node.data) - (len(old) if old else 0)
        self.response_cache.pop(stats_path(tracked), None)

    def _quota_node_created(self, path: str) -> None:
        limited = tracked_path(path, LIMITS_NODE)
        if limited is not None:
            self.quota.paths.add(limited)
        counted = tracked_path(path, STATS_NODE)
        if counted is not None:
            self._recount(counted)


__all__ = ["CONFIG_NODE", "PERSISTENT", "RESERVED_PATHS", "DataTree"]
