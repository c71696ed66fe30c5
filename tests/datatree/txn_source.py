"""Valid transactions for a tree as it stands, as the server that orders writes would make them."""

from __future__ import annotations

from random import Random

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.node import NODE_STAT, DataNode, wrap32
from zkpy.datatree.serialize import SnapshotInput, deserialize_tree, serialize_tree
from zkpy.datatree.tree import RESERVED_PATHS, DataTree
from zkpy.protocol import txns as t
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, Acls
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import OpCode

NAMES = ("a", "b", "c")
PATHS = [
    *(f"/{one}" for one in NAMES),
    *(f"/{one}/{two}" for one in NAMES for two in NAMES),
    *(f"/a/{two}/{three}" for two in NAMES for three in NAMES),
    *(f"/zookeeper/quota{path}" for path in ("/a", "/a/b")),
    *(f"/zookeeper/quota{p}/zookeeper_{n}" for p in ("/a", "/a/b") for n in ("limits", "stats")),
]
ACL_LISTS: list[Acls] = [
    OPEN_ACL_UNSAFE,
    READ_ACL_UNSAFE,
    (ACL(31, "digest", "bob:hash"),),
    (ACL(1, "ip", "10.0.0.0/8"), ACL(31, "digest", "bob:hash")),
]
DATA = [None, b"", b"x", b"hello", b"count=4,bytes=7", b"count=x", b"\xff=,;"]
CREATES = (OpCode.CREATE, OpCode.CREATE2, OpCode.CREATE_CONTAINER, OpCode.CREATE_TTL)


def is_ephemeral(node: DataNode) -> bool:
    return bool(NODE_STAT.unpack(node.stat)[8] > 0)


def create_record(
    type: int, path: str, data: bytes | None, acls: Acls, ephemeral: bool, cversion: int
) -> Record:
    """The txn record of a create of any kind."""
    if type == OpCode.CREATE_CONTAINER:
        return t.CreateContainerTxn(path, data, acls, cversion)
    if type == OpCode.CREATE_TTL:
        return t.CreateTTLTxn(path, data, acls, cversion, 5000)
    return t.CreateTxn(path, data, acls, ephemeral, cversion)


def copy_of(tree: DataTree) -> DataTree:
    """Another tree with the same content."""
    copy = DataTree(extended_types=tree.extended_types, emulate_353=tree.emulate_353)
    copy.count_digest = tree.count_digest
    deserialize_tree(SnapshotInput(serialize_tree(tree)), copy, 1 << 20)
    return copy


class TxnSource:
    """Draws one valid txn after the other from `rng`; the caller applies them to `tree`."""

    def __init__(self, rng: Random, tree: DataTree) -> None:
        self.rng = rng
        self.tree = tree
        self.zxid = tree.last_processed_zxid
        self.next_session = 100

    def next(self) -> tuple[t.TxnHeader, Record]:
        self.zxid += self.rng.choice([1, 1, 1, 2])
        sessions = list(self.tree.sessions)
        choice = self.rng.random()
        if not sessions or choice < 0.05:
            self.next_session += 1
            return self.header(self.next_session, OpCode.CREATE_SESSION), t.CreateSessionTxn(9000)
        session = self.rng.choice(sessions)
        if choice < 0.1:
            owned: list[str | None] = list(self.tree.ephemerals.get(session, ()))
            return self.header(session, OpCode.CLOSE_SESSION), t.CloseSessionTxn(owned)
        if choice < 0.2:
            return self.header(session, OpCode.MULTI), self.multi(session)
        type, record = self.change(self.tree, session)
        return self.header(session, type), record

    def header(self, session: int, type: int) -> t.TxnHeader:
        return t.TxnHeader(session, self.zxid & 0xFFFF, self.zxid, 1000 + 3 * self.zxid, type)

    def multi(self, session: int) -> t.MultiTxn:
        scratch = copy_of(self.tree)
        subs = []
        for _ in range(self.rng.randint(1, 4)):
            type, record = self.change(scratch, session)
            apply_txn(scratch, self.header(session, type), record)
            subs.append(t.SubTxn(type, record.encode()))
        if self.rng.random() < 0.15:
            subs.append(t.SubTxn(OpCode.ERROR, t.ErrorTxn(-101).encode()))
        return t.MultiTxn(subs)

    def change(self, tree: DataTree, session: int) -> tuple[int, Record]:
        """A create, delete, setData or setACL that succeeds on `tree`."""
        nodes = tree.nodes
        creatable = [
            path
            for path in PATHS
            if path not in nodes
            and (above := nodes.get(path.rpartition("/")[0])) is not None
            and not is_ephemeral(above)
        ]
        removable = [
            path
            for path, node in nodes.items()
            if path and path not in RESERVED_PATHS and not node.children
        ]
        kind = self.rng.random()
        if creatable and (kind < 0.4 or not removable):
            return self.create(tree, self.rng.choice(creatable))
        if kind < 0.65 and removable:
            return OpCode.DELETE, t.DeleteTxn(self.rng.choice(removable))
        path = self.rng.choice([path for path in nodes if path])
        fields = NODE_STAT.unpack(nodes[path].stat)
        if kind < 0.9:
            data = self.rng.choice(DATA)
            return OpCode.SET_DATA, t.SetDataTxn(path, data, wrap32(fields[5] + 1))
        acls = self.rng.choice(ACL_LISTS)
        return OpCode.SET_ACL, t.SetACLTxn(path, acls, wrap32(fields[7] + 1))

    def create(self, tree: DataTree, path: str) -> tuple[int, Record]:
        above = tree.nodes[path.rpartition("/")[0]]
        cversion = wrap32(NODE_STAT.unpack(above.stat)[6] + 1)
        type = self.rng.choice(CREATES)
        data, acls = self.rng.choice(DATA), self.rng.choice(ACL_LISTS)
        ephemeral = self.rng.random() < 0.4 and not path.startswith("/zookeeper")
        return type, create_record(type, path, data, acls, ephemeral, cversion)
