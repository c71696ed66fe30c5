"""What will be: the tree plus every change that is on its way to it.

Validation and the digest of a proposal are about this state, so that pipelined writes see each
other. Knows nothing of requests but the list of their changes.
Source: ZooKeeperServer.outstandingChanges, PrepRequestProcessor.getRecordForPath, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.datatree.digest import node_digest
from zkpy.datatree.node import DataNode
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import Acls
from zkpy.protocol.errors import BadArguments, NoNode
from zkpy.protocol.paths import is_valid_path
from zkpy.protocol.txns import MASK64

# Digests of the nodes that changed last; each is 100 bytes or so.
MAX_NODE_DIGESTS: Final = 8192


class ChangeRecord:
    """A node as it will be once the writes on their way are applied; `stat` None: deleted.

    The root's `path` is "".
    """

    __slots__ = ("acls", "children", "data", "path", "stat")

    def __init__(
        self, path: str, data: bytes | None, acls: Acls, stat: bytes | None, children: int
    ) -> None:
        self.path = path
        self.data = data
        self.acls = acls
        self.stat = stat
        self.children = children


class OutstandingChanges:
    """The newest change of each node that has one, and the digest of the tree with all of them."""

    __slots__ = ("_acls_by_id", "_digests", "_node_digests", "_nodes", "_undo", "digest", "records")

    def __init__(self, tree: DataTree, *, digests: bool) -> None:
        self.records: dict[str, ChangeRecord] = {}
        self.digest = tree.digest
        self._digests = digests
        self._nodes = tree.nodes
        self._acls_by_id = tree.acl_cache.by_id
        # Of the nodes changed lately, as they will be: the next change subtracts them.
        self._node_digests: dict[str, int] = {}
        # While a multi is prepared: (path, what was outstanding there) for each of its changes.
        self._undo: list[tuple[str, ChangeRecord | None]] | None = None

    def record(self, path: str) -> ChangeRecord:
        """A copy of the node as it will be, to change at will. Raises NoNode."""
        pending = self.records.get(path)
        if pending is not None:
            stat = pending.stat
            if stat is None:
                raise NoNode(path)
            return ChangeRecord(path, pending.data, pending.acls, stat, pending.children)
        node = self._nodes.get(path)
        if node is None:
            raise NoNode(path)
        children = node.children
        acls = self._acls_by_id.get(node.acl, ())
        count = len(children) if children is not None else 0
        return ChangeRecord(path, node.data, acls, node.stat, count)

    def valid_record(self, path: str | None) -> ChangeRecord:
        """As `record`, for a path from outside. Raises BadArguments before NoNode."""
        if not path:
            raise BadArguments(path)
        try:
            return self.record(path if path != "/" else "")
        except NoNode:
            # Only now: a node that exists has a valid path.
            if not is_valid_path(path):
                raise BadArguments(path) from None
            raise

    def exists(self, path: str) -> bool:
        """Whether the node will be there."""
        pending = self.records.get(path)
        if pending is not None:
            return pending.stat is not None
        return path in self._nodes

    def digest_of(self, record: ChangeRecord) -> int:
        """The node's digest, of the state that `record` has been copied from."""
        if not self._digests:
            return 0
        digest = self._node_digests.get(record.path)
        if digest is None:
            assert record.stat is not None, "a deleted node has no digest"
            digest = node_digest(record.path, record.data, record.stat)
            if len(self._node_digests) >= MAX_NODE_DIGESTS:
                self._node_digests.clear()
        return digest

    def put(self, changes: list[ChangeRecord], record: ChangeRecord, old: int) -> None:
        """Let `record` be, in place of what had the digest `old` (0: there was nothing)."""
        path = record.path
        if self._digests:
            new = 0
            if record.stat is None:
                self._node_digests.pop(path, None)
            else:
                new = self._node_digests[path] = node_digest(path, record.data, record.stat)
            self.digest = (self.digest + new - old) & MASK64
        records = self.records
        if self._undo is not None:
            self._undo.append((path, records.get(path)))
        records[path] = record
        changes.append(record)

    def put_data(
        self,
        changes: list[ChangeRecord],
        node: DataNode,
        path: str,
        acls: Acls,
        data: bytes | None,
        stat: bytes,
    ) -> None:
        """As `put`, for new data and stat of `node`, on which nothing is on its way."""
        if self._digests:
            digests = self._node_digests
            old = digests.get(path)
            if old is None:
                old = node_digest(path, node.data, node.stat)
                if len(digests) >= MAX_NODE_DIGESTS:
                    digests.clear()
            new = digests[path] = node_digest(path, data, stat)
            self.digest = (self.digest + new - old) & MASK64
        if self._undo is not None:
            self._undo.append((path, None))
        children = node.children
        count = len(children) if children is not None else 0
        record = self.records[path] = ChangeRecord(path, data, acls, stat, count)
        changes.append(record)

    def begin(self) -> None:
        """What follows can be taken back, until `end`."""
        self._undo = []

    def end(self) -> None:
        """What came since `begin` stays."""
        self._undo = None

    def take_back(self, digest: int) -> None:
        """Restore what was before `begin`, when the digest was `digest`."""
        undo, self._undo = self._undo, None
        for path, previous in reversed(undo or ()):
            self._node_digests.pop(path, None)
            if previous is None:
                del self.records[path]
            else:
                self.records[path] = previous
        self.digest = digest

    def applied(self, changes: list[ChangeRecord]) -> None:
        """Forget `changes`, which the tree has now, unless newer ones are on their way."""
        records = self.records
        for change in changes:
            path = change.path
            if records.get(path) is change:
                del records[path]
