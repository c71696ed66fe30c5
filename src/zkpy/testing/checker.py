"""Checker: compares what members do and what clients are told with what an ensemble has promised.

Members, after each turn: one leader per epoch, committed prefixes agree, a commit has a quorum of
disks, equal digests at equal zxids. Clients, at each reply: writes are linearizable, `sync` shows
everything anybody has seen, reads show the state of their zxid, a session never goes back, watches
fire once and before what they tell of. Everything hangs on zxids, so each check is cheap and exact.
"""

from __future__ import annotations

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.node import NODE_STAT
from zkpy.protocol import txns as t
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import AddWatchMode, EventType, OpCode
from zkpy.testing.history import History, NodeState, parent_of, require
from zkpy.testing.persistent import PersistentWatches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from zkpy.datatree.tree import DataTree
    from zkpy.testing.requests import Request

# Kinds of watches that a client holds.
DATA: Final = 0
EXIST: Final = 1
CHILD: Final = 2

# Which kinds an event of a type uses up.
USED_UP: Final[dict[int, tuple[int, ...]]] = {
    EventType.NODE_CREATED: (DATA, EXIST),
    EventType.NODE_DELETED: (DATA, EXIST, CHILD),
    EventType.NODE_DATA_CHANGED: (DATA, EXIST),
    EventType.NODE_CHILDREN_CHANGED: (CHILD,),
}
# The same for what setWatches tells a client that it has missed.
MISSED: Final[dict[int, tuple[int, ...]]] = {
    EventType.NODE_CREATED: (EXIST,),
    EventType.NODE_DELETED: (DATA, CHILD),
    EventType.NODE_DATA_CHANGED: (DATA,),
    EventType.NODE_CHILDREN_CHANGED: (CHILD,),
}

RECURSIVE: Final = AddWatchMode.PERSISTENT_RECURSIVE
NO_NODE: Final = -101
BAD_VERSION: Final = -103
NO_CHILDREN_FOR_EPHEMERALS: Final = -108
NODE_EXISTS: Final = -110
NOT_EMPTY: Final = -111
SESSION_EXPIRED: Final = -112
NOT_READ_ONLY: Final = -119
EPHEMERAL_ON_LOCAL_SESSION: Final = -120

READS: Final = frozenset((OpCode.GET_DATA, OpCode.EXISTS, OpCode.GET_CHILDREN2))
# Errors that are decided by the node named, or by its parent.
STATE_ERRORS: Final = frozenset(
    (NO_NODE, BAD_VERSION, NO_CHILDREN_FOR_EPHEMERALS, NODE_EXISTS, NOT_EMPTY)
)


class SessionView:
    """What a client knows of its session."""

    __slots__ = (
        "heard_us",
        "is_untold",
        "last_zxid",
        "persistent",
        "position",
        "session_id",
        "timeout_ms",
        "watches",
    )

    def __init__(self, session_id: int, timeout_ms: int, now_us: int, history: History) -> None:
        self.session_id = session_id
        self.timeout_ms = timeout_ms
        self.heard_us = now_us
        # Its server was frozen for so long that it has no leader to tell of the session.
        self.is_untold = False
        # Of the newest state it was shown: its zxid, and how many txns it has.
        self.last_zxid = 0
        self.position = 0
        # (kind, path) -> zxid of the state the client knows of.
        self.watches: dict[tuple[int, str], int] = {}
        self.persistent = PersistentWatches(history)

    def heard(self, now_us: int) -> None:
        """Its server has spoken to it, and so will tell the leader of it, if there is a leader."""
        if not self.is_untold:
            self.heard_us = now_us


class Checker:
    """`history` grows with the commits of established leaders."""

    def __init__(self) -> None:
        self.history = History()
        # Txns that the newest state has which any client has been shown.
        self.frontier = 0
        self.leaders: dict[int, int] = {}
        self.states: dict[int, tuple[int, int, str]] = {}
        self.replies = 0
        self.writes = 0
        self.events = 0
        self.syncs = 0
        self.sessions: dict[int, SessionView] = {}
        # How much earlier than after its timeout a session may expire, as touches take their time.
        self.expiry_slack_ms = 0
        # Sessions need not be committed: they may be one member's own.
        self.local_sessions = False

    # ------------------------------------------------------------------ members

    def proposed(self, proposals: Iterable[tuple[int, bytes]]) -> None:
        """A member is about to log these."""
        propose = self.history.propose
        for zxid, txn in proposals:
            propose(zxid, txn)

    def established(self, sid: int, epoch: int, last_zxid: int) -> None:
        """`sid` leads `epoch`: a quorum has its history, which ended with `last_zxid`."""
        known = self.leaders.get(epoch)
        require(known is None, "epoch %#x is led by %s and by %s", epoch, known, sid)
        newest = max(self.leaders, default=-1)
        require(epoch > newest, "epoch %#x is established after %#x", epoch, newest)
        self.leaders[epoch] = sid
        self._commit_history(sid, last_zxid)

    def _commit_history(self, sid: int, last_zxid: int) -> None:
        history = self.history
        end = history.last_zxid
        require(
            last_zxid >= end,
            "leader %s begins with %#x, but %#x was committed",
            sid,
            last_zxid,
            end,
        )
        if last_zxid & 0xFFFFFFFF == 0:
            return
        first = end + 1 if last_zxid >> 32 == end >> 32 else (last_zxid >> 32 << 32) + 1
        newest = sorted(self.leaders)[-2:-1]
        for zxid in range(first, last_zxid + 1):
            require(
                not newest or zxid >> 32 >= newest[0],
                "%#x is brought back by leader %s, though epoch %s was established without it",
                zxid,
                sid,
                newest,
            )
            history.commit(zxid)

    def committed(self, sid: int, zxid: int, on_quorum: Callable[[int], bool], now_us: int) -> None:
        """Leader `sid` has committed everything up to `zxid`."""
        history = self.history
        if zxid <= history.last_zxid:
            require(history.contains(zxid), "leader %s commits %#x, which was lost", sid, zxid)
            return
        epoch = zxid >> 32
        require(
            epoch == max(self.leaders),
            "leader %s commits %#x in epoch %#x",
            sid,
            zxid,
            max(self.leaders),
        )
        if zxid & 0xFFFFFFFF == 0:
            return
        first = max(history.last_zxid, epoch << 32) + 1
        require(on_quorum(zxid), "%#x is committed without being on a quorum of disks", zxid)
        for committed in range(first, zxid + 1):
            history.commit(committed)
            self._expired(committed, now_us)

    def _expired(self, zxid: int, now_us: int) -> None:
        """An expiry must not be early."""
        header = self.history.headers[zxid]
        if header.type != OpCode.CLOSE_SESSION or header.cxid:
            return
        view = self.sessions.get(header.client_id)
        if view is None:
            return
        silent_ms = (now_us - view.heard_us) // 1000
        require(
            silent_ms >= view.timeout_ms - self.expiry_slack_ms,
            "session %#x expired after %s ms of its %s",
            header.client_id,
            silent_ms,
            view.timeout_ms,
        )

    def shows(self, who: str, tree: DataTree) -> None:
        """A member serves this tree."""
        zxid = tree.last_processed_zxid
        require(
            zxid <= self.history.last_zxid or zxid & 0xFFFFFFFF == 0,
            "%s applied %#x, only %#x is committed",
            who,
            zxid,
            self.history.last_zxid,
        )
        require(self.history.contains(zxid), "%s is at %#x, which was never committed", who, zxid)
        sessions = hash(tuple(sorted(tree.sessions.items())))
        position = self.history.position(zxid)
        known = self.states.get(position)
        if known is None:
            self.states[position] = (tree.digest, sessions, who)
            return
        require(
            known[0] == tree.digest,
            "at %#x, %s has digest %#x, %s has %#x",
            zxid,
            who,
            tree.digest,
            known[2],
            known[0],
        )
        require(known[1] == sessions, "at %#x, %s and %s have other sessions", zxid, who, known[2])

    def same_as_history(self, who: str, tree: DataTree) -> None:
        """In the end a member has exactly what was committed."""
        history = self.history
        live = history.live_nodes()
        paths = set(tree.nodes) - {""}  # the root, under another name
        require(paths == live.keys(), "%s: nodes differ: %s", who, sorted(paths ^ live.keys()))
        require(tree_digest(tree.nodes) == tree.digest, "%s: its digest is wrong", who)
        for path, state in live.items():
            node = tree.nodes[path]
            if path.startswith("/zookeeper"):
                continue
            require(node.data == state.data, "%s: data of %s differs", who, path)
            require(tree.acls_of(node) == (state.acl or ()), "%s: ACL of %s differs", who, path)
            stat = NODE_STAT.unpack(node.stat)
            require(
                (stat[0], stat[1], stat[5], stat[8])
                == (state.czxid, state.mzxid, state.version, state.owner),
                "%s: stat of %s differs: %s",
                who,
                path,
                stat,
            )
        require(
            dict(tree.sessions) == history.sessions,
            "%s: sessions differ: %s, not %s",
            who,
            sorted(map(hex, tree.sessions)),
            sorted(map(hex, history.sessions)),
        )
        for owner, owned in tree.ephemerals.items():
            if owner > 0:
                expected = history.ephemerals.get(owner, set())
                require(set(owned) == expected, "%s: ephemerals of %#x differ", who, owner)

    # ------------------------------------------------------------------ clients

    def sent(self, request: Request) -> None:
        """A client is about to send this."""
        request.frontier = self.frontier

    def connected(
        self, old: SessionView | None, session_id: int, timeout_ms: int, now_us: int
    ) -> SessionView:
        """A client was given its session."""
        if old is not None:
            require(old.session_id == session_id, "another session than asked for")
            old.heard(now_us)
            return old
        require(
            session_id in self.history.created_sessions or self.local_sessions,
            "session %#x was given out before it was committed",
            session_id,
        )
        view = self.sessions[session_id] = SessionView(session_id, timeout_ms, now_us, self.history)
        return view

    def refused(self, old: SessionView | None) -> None:
        """A client was told that its session is gone."""
        require(old is not None, "a new session was refused")
        assert old is not None
        require(
            old.session_id in self.history.closing_sessions or self._is_local(old),
            "session %#x was refused, and nobody closed it",
            old.session_id,
        )

    def thawed(self, session_ids: Iterable[int]) -> None:
        """The server of these was frozen, and its role is over without its knowing.

        It may still answer what was sent to it, but no leader will hear of it: who leads now has
        not for as long as it was frozen, and expires the sessions in its time.
        """
        for session_id in session_ids:
            self.served(session_id, True)

    def served(self, session_id: int, is_untold: bool) -> None:
        """A server has heard a session; `is_untold`: one that `thawed` is about, in that role."""
        view = self.sessions.get(session_id)
        if view is not None:
            view.is_untold = is_untold

    def closed(self, view: SessionView) -> None:
        """A client has closed its session."""
        require(
            view.session_id in self.history.closed_sessions or self._is_local(view),
            "the end of session %#x is acknowledged, but not committed",
            view.session_id,
        )

    def _is_local(self, view: SessionView) -> bool:
        return self.local_sessions and view.session_id not in self.history.created_sessions

    def _moves_on(self, view: SessionView, zxid: int, now_us: int) -> None:
        view.heard(now_us)
        position = self.history.position(zxid)
        require(
            position >= view.position,
            "session %#x was at %#x and is shown %#x",
            view.session_id,
            view.last_zxid,
            zxid,
        )
        require(
            zxid <= max(self.history.last_zxid, max(self.leaders, default=0) << 32),
            "%#x is shown before it is committed",
            zxid,
        )
        require(self.history.contains(zxid), "%#x is shown, and was never committed", zxid)
        view.last_zxid = zxid
        view.position = position
        self.frontier = max(self.frontier, position)

    def event(self, view: SessionView, type: int, path: str, zxid: int, now_us: int) -> None:
        """A watch has fired."""
        self.events += 1
        view.heard(now_us)
        if zxid == -1:
            # Of setWatches, which goes through its lists one by one.
            kinds = [kind for kind in MISSED[type] if (kind, path) in view.watches][:1]
        else:
            kinds = list(USED_UP[type])
        found = [kind for kind in kinds if view.watches.pop((kind, path), None) is not None]
        if zxid != -1 and view.persistent.told(type, path, zxid):
            return
        require(found, "an event of type %s for %s, on which there is no watch", type, path)

    def pinged(self, view: SessionView, zxid: int, now_us: int) -> None:
        """A ping was answered."""
        self._moves_on(view, zxid, now_us)
        self._missed(view, zxid)

    def watches_set(self, view: SessionView, relative_zxid: int, zxid: int, now_us: int) -> None:
        """The answer to setWatches: whatever changed meanwhile has fired."""
        self._moves_on(view, zxid, now_us)
        history = self.history
        for (kind, path), _ in view.watches.items():
            state = history.at(path, zxid)
            missed = state is not None if kind == EXIST else state is None
            if kind == DATA and state is not None:
                missed = state.mzxid > relative_zxid
            if kind == CHILD and state is not None:
                event = history.first_event(path, True, relative_zxid)
                missed = event is not None and event[0] <= zxid and event[0] > state.czxid
            require(not missed, "setWatches kept quiet about %s (kind %s)", path, kind)
        for key in view.watches:
            view.watches[key] = zxid
        view.persistent.set_again(zxid)

    def _missed(self, view: SessionView, zxid: int) -> None:
        """No reply may show what a watch has to tell of first."""
        history = self.history
        view.persistent.check(zxid)
        for (kind, path), known_zxid in view.watches.items():
            event = history.first_event(path, kind == CHILD, known_zxid)
            require(
                event is None or event[0] > zxid,
                "a reply shows %#x, but a watch on %s (kind %s) has not fired at %#x",
                zxid,
                path,
                kind,
                event[0] if event else 0,
            )

    def replied(
        self, view: SessionView, request: Request, zxid: int, err: int, body: bytes, now_us: int
    ) -> None:
        """A reply, in the order of requests."""
        self.replies += 1
        op = request.op
        if op in READS:
            self._moves_on(view, zxid, now_us)
            self._missed(view, zxid)
            self._read(view, request, zxid, err, body)
        elif op == OpCode.ADD_WATCH:
            require(err == 0, "%s fails with %s", request, err)
            self._moves_on(view, zxid, now_us)
            self._missed(view, zxid)
            view.persistent.add(request.path, request.version == RECURSIVE, zxid)
        elif op == OpCode.SYNC:
            self.syncs += 1
            require(
                self.history.position(zxid) >= request.frontier,
                "sync shows %#x, but txn no. %s had been seen before it was sent",
                zxid,
                request.frontier,
            )
            self._moves_on(view, zxid, now_us)
            self._missed(view, zxid)
        else:
            self._wrote(view, request, zxid, err, body, now_us)

    def _read(self, view: SessionView, request: Request, zxid: int, err: int, body: bytes) -> None:
        path = request.path
        state = self.history.at(path, zxid)
        op = request.op
        if err:
            require(err == NO_NODE, "read of %s fails with %s", path, err)
            require(state is None, "%s at %#x: no node, but it is there", path, zxid)
            if request.watch and op == OpCode.EXISTS:
                view.watches.setdefault((EXIST, path), zxid)
            return
        require(state is not None, "%s at %#x is not there, but shown", path, zxid)
        assert state is not None
        stat = request.stat(body)
        require(
            (stat.version, stat.mzxid, stat.czxid) == (state.version, state.mzxid, state.czxid)
            or path.startswith("/zookeeper"),
            "%s at %#x: version, mzxid, czxid are %s",
            path,
            zxid,
            (stat.version, stat.mzxid, stat.czxid),
        )
        if op == OpCode.GET_DATA:
            require(request.value(body) == state.data, "%s at %#x: wrong data", path, zxid)
        if op == OpCode.GET_CHILDREN2:
            children = request.value(body)
            assert isinstance(children, list)
            expected = self.history.children_at(path, zxid)
            require(set(children) == expected, "%s at %#x: wrong children", path, zxid)
        if request.watch:
            view.watches.setdefault((CHILD if op == OpCode.GET_CHILDREN2 else DATA, path), zxid)

    def _wrote(
        self, view: SessionView, request: Request, zxid: int, err: int, body: bytes, now_us: int
    ) -> None:
        if self._is_local(view) and request.is_refused(err, body, EPHEMERAL_ON_LOCAL_SESSION):
            self._moves_on(view, zxid, now_us)  # there is no txn of it
            self._missed(view, zxid)
            return
        if err == NOT_READ_ONLY:
            self._moves_on(view, zxid, now_us)
            return
        if err == SESSION_EXPIRED:
            require(view.session_id in self.history.closing_sessions, "expired, but not closed")
            return
        self.writes += 1
        require(
            self.history.position(zxid) > request.frontier,
            "write %#x is acknowledged, but txn no. %s had been seen before it was sent",
            zxid,
            request.frontier,
        )
        header = self.history.headers.get(zxid)
        require(header is not None, "write %#x is acknowledged, but not committed", zxid)
        assert header is not None
        require(
            (header.client_id, header.cxid) == (view.session_id, request.xid),
            "the reply to %s shows %#x, which is a request of %#x",
            request,
            zxid,
            header.client_id,
        )
        self._moves_on(view, zxid, now_us)
        self._missed(view, zxid)
        record = self.history.records[zxid]
        if isinstance(record, t.MultiTxn):
            failed = any(sub.type == OpCode.ERROR for sub in record.txns or ())
            require(request.multi_failed(body) == failed, "multi %#x: wrong result", zxid)
            return
        require(isinstance(record, t.ErrorTxn) == bool(err), "%s: wrong result", request)
        if isinstance(record, t.ErrorTxn):
            require(record.err == err, "%s: error %s, not %s", request, err, record.err)
            self._explained(request, zxid, err)
        else:
            self._succeeded(request, zxid, record, body)

    def _succeeded(self, request: Request, zxid: int, record: Record, body: bytes) -> None:
        before = self.history.at(request.path, zxid - 1)
        if isinstance(record, t.CreateTxn):
            require(record.data == request.data, "%s: other data", request)
            require(request.created_path(body) == record.path, "%s: other path", request)
        elif isinstance(record, t.SetDataTxn):
            require(record.data == request.data, "%s: other data", request)
            require(request.stat(body).mzxid == zxid, "%s: wrong stat", request)
        if request.version != -1:
            require(
                before is not None and before.version == request.version,
                "%s succeeded against another version",
                request,
            )

    def _explained(self, request: Request, zxid: int, err: int) -> None:
        """An error is right in the state right before its zxid."""
        path = request.path
        before = self.history.at(path, zxid - 1)
        parent: NodeState | None = self.history.at(parent_of(path), zxid - 1)
        creates = request.op in (OpCode.CREATE, OpCode.CREATE2)
        if err == NO_NODE:
            right = (parent if creates else before) is None
        elif err == BAD_VERSION:
            right = before is not None and before.version != request.version
        elif err == NODE_EXISTS:
            right = before is not None and creates
        elif err == NO_CHILDREN_FOR_EPHEMERALS:
            right = parent is not None and parent.owner > 0
        elif err == NOT_EMPTY:
            right = bool(self.history.children_at(path, zxid - 1))
        else:
            right = False
        require(right, "%s at %#x fails with %s", request, zxid, err)
