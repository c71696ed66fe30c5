"""The data tree as a dict of paths, from the tables of the protocol, as slow as it likes.

Children, usage and stats are computed from scratch whenever they are asked for.
"""

from __future__ import annotations

import re

from zkpy.protocol import records as r
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, Acls
from zkpy.protocol.zoodefs import OpCode

NO_NODE, NODE_EXISTS = -101, -110
CONTAINER = -(1 << 63)
QUOTA = "/zookeeper/quota"
RESERVED = {"/", "/zookeeper", QUOTA, "/zookeeper/config"}


class ModelNode:
    def __init__(self, data: bytes | None, acls: Acls, owner: int, zxid: int, time: int) -> None:
        self.data = data
        self.acls = acls
        self.owner = owner
        self.czxid = self.mzxid = self.pzxid = zxid
        self.ctime = self.mtime = time
        self.version = self.creations = self.aversion = 0

    @property
    def size(self) -> int:
        return len(self.data or b"")


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def wrap(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


class ModelTree:
    """Applies txns; remembers nothing that could be computed."""

    def __init__(self) -> None:
        self.sessions: dict[int, int] = {}
        self.tracked: set[str] = set()
        self.nodes = {
            path: ModelNode(b"", OPEN_ACL_UNSAFE, 0, 0, 0) for path in ("/", "/zookeeper", QUOTA)
        }
        config = self.nodes["/zookeeper/config"] = ModelNode(b"", READ_ACL_UNSAFE, 0, 0, 0)
        config.aversion = -1

    # ------------------------------------------------------------------ looking

    def children(self, path: str) -> set[str]:
        return {child for child in self.nodes if child != "/" and parent(child) == path}

    def below(self, path: str) -> set[str]:
        prefix = path.rstrip("/") + "/"
        return {found for found in self.nodes if found.startswith(prefix) and found != path}

    def stat(self, path: str) -> r.Stat:
        """What a client sees."""
        node = self.nodes[path]
        count = len(self.children(path))
        is_ttl = node.owner < 0 and (node.owner >> 56) & 0xFF == 0xFF
        return r.Stat(
            czxid=node.czxid,
            mzxid=node.mzxid,
            ctime=node.ctime,
            mtime=node.mtime,
            version=node.version,
            cversion=wrap(2 * node.creations - count),
            aversion=node.aversion,
            ephemeralOwner=0 if is_ttl or node.owner == CONTAINER else node.owner,
            dataLength=node.size,
            numChildren=count,
            pzxid=node.pzxid,
        )

    def ephemerals(self) -> dict[int, set[str]]:
        owned: dict[int, set[str]] = {}
        for path, node in self.nodes.items():
            if node.owner > 0:
                owned.setdefault(node.owner, set()).add(path)
        return owned

    def containers(self) -> set[str]:
        return {path for path, node in self.nodes.items() if node.owner == CONTAINER}

    def ttls(self) -> set[str]:
        return {p for p, n in self.nodes.items() if n.owner < 0 and n.owner != CONTAINER}

    def data_size(self) -> int:
        return sum(len(path) + node.size for path, node in self.nodes.items()) - 1

    # ------------------------------------------------------------------ changing

    def apply(self, header: t.TxnHeader, txn: object) -> int:
        """Apply a txn; its error, 0 for success (or for a multi, which has one per part)."""
        zxid, time = header.zxid, header.time
        match txn:
            case t.CreateTxn():
                owner = header.client_id if txn.ephemeral else 0
                return self.create(txn, owner, zxid, time)
            case t.CreateContainerTxn():
                return self.create(txn, CONTAINER, zxid, time)
            case t.CreateTTLTxn():
                return self.create(txn, txn.ttl - (1 << 56), zxid, time)
            case t.DeleteTxn():
                return self.delete(txn.path or "", zxid)
            case t.SetDataTxn():
                return self.set_data(txn, zxid, time)
            case t.SetACLTxn():
                node = self.nodes.get(txn.path or "")
                if node is None:
                    return NO_NODE
                node.acls, node.aversion = txn.acl or (), txn.version
                return 0
            case t.CreateSessionTxn():
                self.sessions[header.client_id] = txn.timeout_ms
                return 0
            case t.CloseSessionTxn():
                self.close_session(header.client_id, [p or "" for p in txn.paths or ()], zxid)
                return 0
            case t.ErrorTxn():
                return txn.err
            case t.MultiTxn():
                subs = txn.txns or []
                if all(sub.type != OpCode.ERROR for sub in subs):
                    for sub in subs:
                        self.apply(header, t.decode_record(sub.type, sub.data or b"")[0])
                return 0
        return 0

    def create(
        self,
        txn: t.CreateTxn | t.CreateContainerTxn | t.CreateTTLTxn,
        owner: int,
        zxid: int,
        time: int,
    ) -> int:
        path = txn.path or ""
        above = self.nodes.get(parent(path))
        if above is None:
            return NO_NODE
        creations = txn.parent_cversion
        if creations == -1:
            creations = wrap(above.creations + 1)
        if creations > above.creations:
            above.creations, above.pzxid = creations, zxid
        if path in self.nodes:
            self.nodes[path].acls = txn.acl or ()
            return NODE_EXISTS
        node = self.nodes[path] = ModelNode(txn.data, txn.acl or (), owner, zxid, time)
        self.count(path, 1, node.size)
        if path.startswith(QUOTA + "/"):
            quota_of, _, leaf = path.removeprefix(QUOTA).rpartition("/")
            if quota_of and leaf == "zookeeper_limits":
                self.tracked.add(quota_of)
            if quota_of and leaf == "zookeeper_stats":
                self.recount(quota_of)
        return 0

    def delete(self, path: str, zxid: int) -> int:
        above = self.nodes.get(parent(path))
        if above is None or path in RESERVED:
            return NO_NODE
        above.pzxid = max(above.pzxid, zxid)
        if path not in self.nodes:
            return NO_NODE
        # Only in replay is there anything below.
        for found in sorted(self.below(path), reverse=True):
            self.remove(found)
        self.remove(path)
        return 0

    def remove(self, path: str) -> None:
        size = self.nodes.pop(path).size
        if path.startswith(QUOTA + "/") and path.endswith("/zookeeper_limits"):
            self.tracked.discard(path.removeprefix(QUOTA).rpartition("/")[0])
        self.count(path, -1, -size)

    def set_data(self, txn: t.SetDataTxn, zxid: int, time: int) -> int:
        node = self.nodes.get(txn.path or "")
        if node is None:
            return NO_NODE
        change = len(txn.data or b"") - node.size
        node.data, node.version, node.mzxid, node.mtime = txn.data, txn.version, zxid, time
        self.count(txn.path or "", 0, change)
        return 0

    def close_session(self, session: int, paths: list[str], zxid: int) -> None:
        self.sessions.pop(session, None)
        for path in paths:
            self.delete(path, zxid)
        for path in sorted(self.ephemerals().get(session, ())):
            self.delete(path, zxid)

    # ------------------------------------------------------------------ quota

    def count(self, path: str, count: int, size: int) -> None:
        candidates = [p for p in self.tracked if path == p or path.startswith(p + "/")]
        if not candidates:
            return
        deepest = max(candidates, key=len)
        stats = self.nodes.get(f"{QUOTA}{deepest}/zookeeper_stats")
        if stats is None:
            return
        found = re.fullmatch(rb"count=(-?\d+),bytes=(-?\d+)", stats.data or b"")
        if found is None:
            self.recount(deepest)
        else:
            stats.data = b"count=%d,bytes=%d" % (int(found[1]) + count, int(found[2]) + size)

    def recount(self, path: str) -> None:
        counted = self.below(path) | ({path} & self.nodes.keys())
        size = sum(self.nodes[p].size for p in counted)
        stats = self.nodes.get(f"{QUOTA}{path}/zookeeper_stats")
        if stats is not None:
            stats.data = b"count=%d,bytes=%d" % (len(counted), size)

    def recount_all(self) -> None:
        for path in self.tracked:
            self.recount(path)
