"""History: what an ensemble has committed, in order, and the state after each txn.

The state is worked out from the txns, independently of the servers' tree: per path the list of what
it was when. So a read with its zxid, an error, or a watch event can be judged long afterwards.
"""

from __future__ import annotations

from bisect import bisect_right

from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import EventType, OpCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# What came late, after its session had moved to another member, or had ended.
REFUSED: Final = (-118, -112)
COUNTER_MASK: Final = 0xFFFFFFFF


class Violation(AssertionError):
    """A server or the ensemble did what it must not do."""


def require(condition: object, message: str, *values: object) -> None:
    """Raise Violation unless `condition`; `message` is formatted with % only then."""
    if not condition:
        raise Violation(message % values)


class NodeState:
    """A node at some time. A value: replaced at each change."""

    __slots__ = ("acl", "czxid", "data", "mzxid", "owner", "version")

    def __init__(
        self,
        data: bytes | None,
        version: int,
        owner: int,
        czxid: int,
        mzxid: int,
        acl: Acls | None = OPEN_ACL_UNSAFE,
    ) -> None:
        self.data = data
        self.version = version
        self.owner = owner
        self.czxid = czxid
        self.mzxid = mzxid
        self.acl = acl


class PathHistory:
    """What became of one path: parallel lists, rising by zxid."""

    __slots__ = ("child_events", "children", "children_zxids", "data_events", "states", "zxids")

    def __init__(self) -> None:
        self.zxids: list[int] = []
        self.states: list[NodeState | None] = []
        self.children_zxids: list[int] = []
        self.children: list[frozenset[str]] = []
        # (zxid, type of event) for a watch on its data or existence, and on its children.
        self.data_events: list[tuple[int, int]] = []
        self.child_events: list[tuple[int, int]] = []


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _zxid_of(event: tuple[int, int, str]) -> int:
    return event[0]


class History:
    """All txns that were committed, and what they did.

    `order` are their zxids; `txns` by zxid. `proposed`: what any leader ever sent out, by zxid.
    """

    def __init__(self) -> None:
        self.order: list[int] = []
        # What the first txn has to follow; a test may have it follow anything.
        self.base = 0
        self.txns: dict[int, bytes] = {}
        self.headers: dict[int, t.TxnHeader] = {}
        self.records: dict[int, Record] = {}
        self.proposed: dict[int, bytes] = {}
        # (session, cxid) of each request that became a txn: none may twice.
        self.requests: dict[tuple[int, int], int] = {}
        # Of each session, the cxid of its newest txn: clients give them in order.
        self.last_cxids: dict[int, int] = {}
        self.sessions: dict[int, int] = {}
        self.created_sessions: dict[int, int] = {}  # session -> zxid
        self.closed_sessions: dict[int, int] = {}
        self.closing_sessions: set[int] = set()  # a closeSession was at least proposed
        self.ephemerals: dict[int, set[str]] = {}
        self.paths: dict[str, PathHistory] = {}
        # Of all paths, rising by zxid: zxid, type of event, path.
        self.events: list[tuple[int, int, str]] = []
        for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
            self._set(path, NodeState(b"", 0, 0, 0, 0), 0)
            if path != "/":
                self._add_child(path, 0)

    # ------------------------------------------------------------------ recording

    @property
    def last_zxid(self) -> int:
        return max(self.order[-1], self.base) if self.order else self.base

    def propose(self, zxid: int, txn: bytes) -> None:
        """Somebody logs this txn: whoever does must log the same."""
        known = self.proposed.get(zxid)
        if known is not None:
            require(known == txn, "two txns with zxid %#x", zxid)
            return
        self.proposed[zxid] = txn
        header = t.decode_txn(txn)[0]
        require(header.zxid == zxid, "txn %#x is logged as %#x", header.zxid, zxid)
        if header.type == OpCode.CLOSE_SESSION:
            self.closing_sessions.add(header.client_id)

    def commit(self, zxid: int) -> None:
        """The next txn to be committed."""
        last = self.last_zxid
        require(zxid > last, "%#x is committed after %#x", zxid, last)
        require(
            zxid == last + 1 or (zxid & COUNTER_MASK == 1 and zxid >> 32 > last >> 32),
            "%#x is committed after %#x: a hole",
            zxid,
            last,
        )
        txn = self.proposed.get(zxid)
        require(txn is not None, "%#x is committed, and nobody has logged it", zxid)
        assert txn is not None
        header, record, _ = t.decode_txn(txn)
        self.order.append(zxid)
        self.txns[zxid] = txn
        self.headers[zxid] = header
        self.records[zxid] = record
        if header.cxid:
            request = (header.client_id, header.cxid)
            require(
                request not in self.requests,
                "request %s of session %#x became two txns: %#x and %#x",
                header.cxid,
                header.client_id,
                self.requests.get(request, 0),
                zxid,
            )
            self.requests[request] = zxid
            if not (isinstance(record, t.ErrorTxn) and record.err in REFUSED):
                last_cxid = self.last_cxids.get(header.client_id, 0)
                require(
                    header.cxid > last_cxid,
                    "request %s of session %#x became %#x after its request %s",
                    header.cxid,
                    header.client_id,
                    zxid,
                    last_cxid,
                )
                self.last_cxids[header.client_id] = header.cxid
        self._apply(header, record)

    def _apply(self, header: t.TxnHeader, record: object) -> None:
        zxid = header.zxid
        session = header.client_id
        if isinstance(record, t.CreateTxn):
            owner = session if record.ephemeral else 0
            self._create(record.path or "", record.data, owner, zxid, record.acl)
        elif isinstance(record, t.SetDataTxn):
            self._set_data(record, zxid)
        elif isinstance(record, t.SetACLTxn):
            self._set_acl(record, zxid)
        elif isinstance(record, t.DeleteTxn):
            self._delete(record.path or "", zxid)
        elif isinstance(record, t.MultiTxn):
            subs = record.txns or []
            if all(sub.type != OpCode.ERROR for sub in subs):
                for sub in subs:
                    self._apply(header, t.decode_record(sub.type, sub.data or b"")[0])
        elif isinstance(record, t.CreateSessionTxn):
            self.sessions[session] = record.timeout_ms
            self.created_sessions.setdefault(session, zxid)
        elif isinstance(record, t.CloseSessionTxn):
            for path in sorted(self.ephemerals.pop(session, ())):
                self._delete(path, zxid)
            self.sessions.pop(session, None)
            self.closed_sessions.setdefault(session, zxid)
        elif isinstance(record, t.CreateContainerTxn | t.CreateTTLTxn):
            self._create(record.path or "", record.data, -1, zxid, record.acl)

    def _create(
        self, path: str, data: bytes | None, owner: int, zxid: int, acl: Acls | None
    ) -> None:
        require(self.now(path) is None, "%s is created by %#x though it exists", path, zxid)
        require(
            self.now(parent_of(path)) is not None, "%s is created by %#x: no parent", path, zxid
        )
        if owner > 0:
            require(
                owner in self.sessions,
                "%s is created by %#x for session %#x, which is dead",
                path,
                zxid,
                owner,
            )
            self.ephemerals.setdefault(owner, set()).add(path)
        self._set(path, NodeState(data, 0, owner, zxid, zxid, acl), zxid)
        self._add_child(path, zxid)
        self._fires(self.history_of(path).data_events, zxid, EventType.NODE_CREATED, path)

    def _set_data(self, record: t.SetDataTxn, zxid: int) -> None:
        path = record.path or ""
        old = self.now(path)
        require(old is not None, "data of %s is set by %#x: no such node", path, zxid)
        assert old is not None
        if path != "/zookeeper/config":
            expected = old.version + 1
            require(
                record.version == expected, "%#x makes version %s of %s", zxid, record.version, path
            )
        state = NodeState(record.data, record.version, old.owner, old.czxid, zxid, old.acl)
        self._set(path, state, zxid)
        self._fires(self.history_of(path).data_events, zxid, EventType.NODE_DATA_CHANGED, path)

    def _set_acl(self, record: t.SetACLTxn, zxid: int) -> None:
        path = record.path or ""
        old = self.now(path)
        require(old is not None, "the ACL of %s is set by %#x: no such node", path, zxid)
        assert old is not None
        state = NodeState(old.data, old.version, old.owner, old.czxid, old.mzxid, record.acl)
        self._set(path, state, zxid)

    def _delete(self, path: str, zxid: int) -> None:
        node = self.now(path)
        require(node is not None, "%s is deleted by %#x: no such node", path, zxid)
        assert node is not None
        require(not self.children_now(path), "%s is deleted by %#x with children", path, zxid)
        if node.owner > 0:
            self.ephemerals.get(node.owner, set()).discard(path)
        self._set(path, None, zxid)
        history = self.history_of(path)
        self._fires(history.data_events, zxid, EventType.NODE_DELETED, path)
        history.child_events.append((zxid, EventType.NODE_DELETED))
        parent = parent_of(path)
        name = path.rpartition("/")[2]
        self._set_children(parent, self.children_now(parent) - {name}, zxid)

    def _add_child(self, path: str, zxid: int) -> None:
        parent = parent_of(path)
        name = path.rpartition("/")[2]
        self._set_children(parent, self.children_now(parent) | {name}, zxid)

    def _set(self, path: str, state: NodeState | None, zxid: int) -> None:
        history = self.history_of(path)
        history.zxids.append(zxid)
        history.states.append(state)

    def _set_children(self, path: str, children: frozenset[str], zxid: int) -> None:
        history = self.history_of(path)
        history.children_zxids.append(zxid)
        history.children.append(children)
        self._fires(history.child_events, zxid, EventType.NODE_CHILDREN_CHANGED, path)

    def _fires(self, events: list[tuple[int, int]], zxid: int, type: int, path: str) -> None:
        events.append((zxid, type))
        self.events.append((zxid, type, path))

    # ------------------------------------------------------------------ looking

    def history_of(self, path: str) -> PathHistory:
        history = self.paths.get(path)
        if history is None:
            history = self.paths[path] = PathHistory()
        return history

    def now(self, path: str) -> NodeState | None:
        """A node in the present."""
        history = self.paths.get(path)
        return history.states[-1] if history is not None and history.states else None

    def children_now(self, path: str) -> frozenset[str]:
        history = self.paths.get(path)
        return history.children[-1] if history and history.children else frozenset()

    def at(self, path: str, zxid: int) -> NodeState | None:
        """A node after the txn `zxid`."""
        history = self.paths.get(path)
        if history is None:
            return None
        index = bisect_right(history.zxids, zxid)
        return history.states[index - 1] if index else None

    def children_at(self, path: str, zxid: int) -> frozenset[str]:
        history = self.paths.get(path)
        if history is None:
            return frozenset()
        index = bisect_right(history.children_zxids, zxid)
        return history.children[index - 1] if index else frozenset()

    def first_event(self, path: str, child: bool, after: int) -> tuple[int, int] | None:
        """(zxid, type) of the first event that a watch set at zxid `after` has to bring."""
        history = self.paths.get(path)
        if history is None:
            return None
        events = history.child_events if child else history.data_events
        index = bisect_right(events, (after, 1 << 30))
        return events[index] if index < len(events) else None

    def events_of(self, zxid: int) -> list[tuple[int, int, str]]:
        """What the txn `zxid` tells those who watch."""
        begin = bisect_right(self.events, zxid - 1, key=_zxid_of)
        return self.events[begin : bisect_right(self.events, zxid, key=_zxid_of)]

    def contains(self, zxid: int) -> bool:
        """Whether a member may show the state at `zxid`: a txn, or the beginning of an epoch."""
        return zxid in self.txns or zxid & COUNTER_MASK == 0 or zxid == self.base

    def position(self, zxid: int) -> int:
        """How many txns the state at `zxid` has: the beginning of an epoch brings none."""
        return bisect_right(self.order, zxid)

    def live_nodes(self) -> dict[str, NodeState]:
        """All nodes of the present."""
        found = {}
        for path, history in self.paths.items():
            if history.states and history.states[-1] is not None:
                found[path] = history.states[-1]
        return found
