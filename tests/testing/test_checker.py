"""The checker: each promise, kept and broken, without any server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol import records as r
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.zoodefs import AddWatchMode, EventType, OpCode
from zkpy.testing import requests
from zkpy.testing.checker import CHILD, DATA, EXIST, Checker, SessionView
from zkpy.testing.history import Violation
from zkpy.testing.requests import Request

E1, E2 = 1 << 32, 2 << 32
SESSION = 0x100000000000001
OTHER = 0x200000000000001
TIMEOUT_MS = 4000


class Ensemble:
    """Txns as a leader would make them, and a tree that applies them."""

    def __init__(self) -> None:
        self.checker = Checker()
        self.checker.established(3, 1, 0)
        self.tree = DataTree()
        self.zxid = E1
        self.cxid = 0
        self.now_us = 0

    def txn(self, type: int, record: t.Record, session: int = SESSION, cxid: int = -1) -> int:
        """Propose, commit and apply; the zxid."""
        if cxid < 0:
            self.cxid += 1
            cxid = self.cxid
        self.zxid += 1
        header = t.TxnHeader(session, cxid, self.zxid, 5, type)
        txn = t.encode_txn(header, record, None)
        self.checker.proposed([(self.zxid, txn)])
        self.checker.committed(3, self.zxid, lambda zxid: True, self.now_us)
        apply_txn(self.tree, *t.decode_txn(txn)[:2])
        return self.zxid

    def session(self, session: int = SESSION) -> SessionView:
        self.txn(OpCode.CREATE_SESSION, t.CreateSessionTxn(TIMEOUT_MS), session, 0)
        return self.checker.connected(None, session, TIMEOUT_MS, self.now_us)

    def create(self, path: str, data: bytes = b"", *, ephemeral: bool = False) -> int:
        return self.txn(OpCode.CREATE, t.CreateTxn(path, data, OPEN_ACL_UNSAFE, ephemeral, -1))

    def reply(
        self, view: SessionView, request: Request, zxid: int, err: int = 0, body: bytes = b""
    ) -> None:
        self.checker.replied(view, request, zxid, err, body, self.now_us)


@pytest.fixture
def ensemble() -> Ensemble:
    return Ensemble()


def stat_body(czxid: int, mzxid: int, version: int) -> bytes:
    return r.StatResponse(r.Stat(czxid, mzxid, 0, 0, version, 0, 0, 0, 0, 0, 0)).encode()


def data_body(data: bytes, czxid: int, mzxid: int, version: int) -> bytes:
    stat = r.Stat(czxid, mzxid, 0, 0, version, 0, 0, 0, 0, 0, 0)
    return r.GetDataResponse(data, stat).encode()


# ---------------------------------------------------------------------- members


def test_one_leader_per_epoch(ensemble: Ensemble) -> None:
    with pytest.raises(Violation, match="led by 3 and by 2"):
        ensemble.checker.established(2, 1, 0)


def test_epochs_rise(ensemble: Ensemble) -> None:
    ensemble.checker.established(2, 5, E1)
    with pytest.raises(Violation, match="established after"):
        ensemble.checker.established(1, 4, E1)


def test_a_leader_has_all_that_was_committed(ensemble: Ensemble) -> None:
    ensemble.session()
    with pytest.raises(Violation, match="but 0x100000001 was committed"):
        ensemble.checker.established(2, 2, E1)


def test_a_leaders_history_is_committed_with_it(ensemble: Ensemble) -> None:
    ensemble.session()
    txn = t.encode_txn(
        t.TxnHeader(SESSION, 7, E1 + 2, 5, OpCode.CREATE),
        t.CreateTxn("/a", b"", OPEN_ACL_UNSAFE, False, -1),
        None,
    )
    ensemble.checker.proposed([(E1 + 2, txn)])
    assert ensemble.checker.history.now("/a") is None
    ensemble.checker.established(2, 2, E1 + 2)
    assert ensemble.checker.history.now("/a") is not None


def test_what_was_passed_over_does_not_come_back(ensemble: Ensemble) -> None:
    ensemble.session()
    record = t.CreateTxn("/a", b"", OPEN_ACL_UNSAFE, False, -1)
    txn = t.encode_txn(t.TxnHeader(SESSION, 7, E1 + 2, 5, OpCode.CREATE), record, None)
    ensemble.checker.proposed([(E1 + 2, txn)])
    ensemble.checker.established(2, 2, E1 + 1)
    with pytest.raises(Violation, match="brought back"):
        ensemble.checker.established(1, 3, E1 + 2)


def test_one_txn_per_zxid(ensemble: Ensemble) -> None:
    header = t.TxnHeader(SESSION, 1, E1 + 1, 5, OpCode.ERROR)
    ensemble.checker.proposed([(E1 + 1, t.encode_txn(header, t.ErrorTxn(-101), None))])
    with pytest.raises(Violation, match="two txns with zxid 0x100000001"):
        ensemble.checker.proposed([(E1 + 1, t.encode_txn(header, t.ErrorTxn(-110), None))])


def test_a_commit_needs_a_quorum_of_disks(ensemble: Ensemble) -> None:
    header = t.TxnHeader(SESSION, 1, E1 + 1, 5, OpCode.ERROR)
    ensemble.checker.proposed([(E1 + 1, t.encode_txn(header, t.ErrorTxn(-101), None))])
    with pytest.raises(Violation, match="quorum of disks"):
        ensemble.checker.committed(3, E1 + 1, lambda zxid: False, 0)


def test_a_deposed_leader_commits_nothing(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.checker.established(2, 2, E1 + 1)
    header = t.TxnHeader(SESSION, 1, E1 + 2, 5, OpCode.ERROR)
    ensemble.checker.proposed([(E1 + 2, t.encode_txn(header, t.ErrorTxn(-101), None))])
    with pytest.raises(Violation, match="in epoch 0x2"):
        ensemble.checker.committed(3, E1 + 2, lambda zxid: True, 0)


def test_no_holes(ensemble: Ensemble) -> None:
    ensemble.session()
    with pytest.raises(Violation, match="a hole"):
        ensemble.checker.history.commit(E1 + 3)


def test_a_request_becomes_one_txn(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.txn(OpCode.ERROR, t.ErrorTxn(-101), SESSION, 5)
    with pytest.raises(Violation, match="became two txns"):
        ensemble.txn(OpCode.ERROR, t.ErrorTxn(-101), SESSION, 5)


def test_requests_of_a_session_keep_their_order(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.txn(OpCode.ERROR, t.ErrorTxn(-101), SESSION, 5)
    # Late, and refused for that.
    ensemble.txn(OpCode.ERROR, t.ErrorTxn(-118), SESSION, 3)
    with pytest.raises(Violation, match="after its request 5"):
        ensemble.txn(OpCode.ERROR, t.ErrorTxn(-101), SESSION, 4)


def test_equal_digests_at_equal_zxids(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.create("/a")
    ensemble.checker.shows("z1", ensemble.tree)
    ensemble.checker.shows("z2", ensemble.tree)
    ensemble.tree.digest += 1
    with pytest.raises(Violation, match="z3 has digest"):
        ensemble.checker.shows("z3", ensemble.tree)


def test_equal_sessions_at_equal_zxids(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.checker.shows("z1", ensemble.tree)
    ensemble.tree.sessions[OTHER] = TIMEOUT_MS
    with pytest.raises(Violation, match="other sessions"):
        ensemble.checker.shows("z2", ensemble.tree)


def test_members_show_what_is_committed(ensemble: Ensemble) -> None:
    ensemble.tree.last_processed_zxid = E1 + 1
    with pytest.raises(Violation, match="only 0x0 is committed"):
        ensemble.checker.shows("z1", ensemble.tree)


def test_the_end(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.create("/a", b"1")
    ensemble.create("/a/b", ephemeral=True)
    ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"2", 1))
    ensemble.checker.same_as_history("z1", ensemble.tree)
    ensemble.tree.nodes["/a"].data = b"3"
    with pytest.raises(Violation):
        ensemble.checker.same_as_history("z1", ensemble.tree)


# ---------------------------------------------------------------------- the state


def test_ephemerals_need_a_live_session(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.create("/e", ephemeral=True)
    ensemble.txn(OpCode.CLOSE_SESSION, t.CloseSessionTxn(["/e"]))
    assert ensemble.checker.history.now("/e") is None
    with pytest.raises(Violation, match="which is dead"):
        ensemble.create("/f", ephemeral=True)


@pytest.mark.parametrize(
    ("type", "record", "reason"),
    [
        (OpCode.CREATE, t.CreateTxn("/a", b"", OPEN_ACL_UNSAFE, False, -1), "though it exists"),
        (OpCode.CREATE, t.CreateTxn("/x/y", b"", OPEN_ACL_UNSAFE, False, -1), "no parent"),
        (OpCode.SET_DATA, t.SetDataTxn("/x", b"", 1), "no such node"),
        (OpCode.SET_DATA, t.SetDataTxn("/a", b"", 5), "makes version 5"),
        (OpCode.DELETE, t.DeleteTxn("/x"), "no such node"),
        (OpCode.DELETE, t.DeleteTxn("/a"), "with children"),
    ],
)
def test_impossible_txns(ensemble: Ensemble, type: int, record: t.Record, reason: str) -> None:
    ensemble.session()
    ensemble.create("/a")
    ensemble.create("/a/b")
    with pytest.raises(Violation, match=reason):
        ensemble.txn(type, record)


def test_multis(ensemble: Ensemble) -> None:
    ensemble.session()
    create = t.CreateTxn("/a", b"", OPEN_ACL_UNSAFE, False, -1).encode()
    ensemble.txn(OpCode.MULTI, t.MultiTxn([t.SubTxn(OpCode.CREATE, create)]))
    assert ensemble.checker.history.now("/a") is not None
    failed = [t.SubTxn(OpCode.ERROR, t.ErrorTxn(0).encode())]
    ensemble.txn(OpCode.MULTI, t.MultiTxn([*failed, t.SubTxn(OpCode.ERROR, create)]))
    assert ensemble.checker.history.now("/b") is None


# ---------------------------------------------------------------------- clients


def test_sessions_are_committed_before_they_are_given_out(ensemble: Ensemble) -> None:
    with pytest.raises(Violation, match="before it was committed"):
        ensemble.checker.connected(None, SESSION, TIMEOUT_MS, 0)


def test_a_session_is_refused_only_if_closed(ensemble: Ensemble) -> None:
    view = ensemble.session()
    with pytest.raises(Violation, match="nobody closed it"):
        ensemble.checker.refused(view)
    ensemble.txn(OpCode.CLOSE_SESSION, t.CloseSessionTxn([]))
    ensemble.checker.refused(view)


def test_expiry_is_not_early(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.now_us = 1000 * TIMEOUT_MS // 2
    with pytest.raises(Violation, match="expired after 2000 ms of its 4000"):
        ensemble.txn(OpCode.CLOSE_SESSION, t.CloseSessionTxn([]), SESSION, 0)


def test_what_a_server_says_on_waking_does_not_prolong_a_session(ensemble: Ensemble) -> None:
    """Frozen for long, it has nobody to tell; what another server hears counts again."""
    half_us = 1000 * TIMEOUT_MS // 2
    view = ensemble.session()
    ensemble.checker.thawed([SESSION, 4711])
    assert ensemble.checker.connected(view, SESSION, TIMEOUT_MS, half_us) is view
    assert view.heard_us == 0
    ensemble.checker.served(SESSION, False)
    view.heard(half_us)
    ensemble.now_us = 1000 * TIMEOUT_MS
    with pytest.raises(Violation, match="expired after 2000 ms of its 4000"):
        ensemble.txn(OpCode.CLOSE_SESSION, t.CloseSessionTxn([]), SESSION, 0)


def test_expiry_in_time(ensemble: Ensemble) -> None:
    ensemble.session()
    ensemble.now_us = 1000 * TIMEOUT_MS
    ensemble.txn(OpCode.CLOSE_SESSION, t.CloseSessionTxn([]), SESSION, 0)


def test_writes(ensemble: Ensemble) -> None:
    view = ensemble.session()
    request = requests.create("/a", b"x", 0)
    request.xid = 1
    ensemble.checker.sent(request)
    zxid = ensemble.create("/a", b"x")
    ensemble.reply(view, request, zxid, 0, r.CreateResponse("/a").encode())
    assert ensemble.checker.writes == 1


def test_a_write_of_another(ensemble: Ensemble) -> None:
    view = ensemble.session()
    request = requests.create("/a", b"x", 0)
    request.xid = 2
    zxid = ensemble.create("/a", b"x")
    with pytest.raises(Violation, match="which is a request of"):
        ensemble.reply(view, request, zxid, 0, r.CreateResponse("/a").encode())


def test_a_write_acknowledged_with_a_zxid_from_before_it_was_sent(ensemble: Ensemble) -> None:
    view = ensemble.session()
    zxid = ensemble.create("/a", b"x")
    ensemble.checker.pinged(view, zxid, 0)
    request = requests.create("/a", b"x", 0)
    request.xid = 1
    ensemble.checker.sent(request)
    with pytest.raises(Violation, match="had been seen before it was sent"):
        ensemble.reply(view, request, zxid, 0, r.CreateResponse("/a").encode())


def test_a_write_that_is_not_committed(ensemble: Ensemble) -> None:
    view = ensemble.session()
    with pytest.raises(Violation, match="not committed"):
        ensemble.reply(view, requests.create("/a", b"x", 0), E1 + 2)


def test_a_condition_that_did_not_hold(ensemble: Ensemble) -> None:
    view = ensemble.session()
    ensemble.create("/a")
    zxid = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"y", 1))
    request = requests.set_data("/a", b"y", 7)
    request.xid = 2
    with pytest.raises(Violation, match="against another version"):
        ensemble.reply(view, request, zxid, 0, stat_body(E1 + 2, zxid, 1))


@pytest.mark.parametrize(
    ("request_of", "code", "right"),
    [
        (lambda: requests.create("/a", b"", 0), -110, True),
        (lambda: requests.create("/b", b"", 0), -110, False),
        (lambda: requests.create("/x/y", b"", 0), -101, True),
        (lambda: requests.create("/a/y", b"", 0), -101, False),
        (lambda: requests.create("/e/y", b"", 0), -108, True),
        (lambda: requests.create("/a/y", b"", 0), -108, False),
        (lambda: requests.set_data("/x", b""), -101, True),
        (lambda: requests.set_data("/a", b""), -101, False),
        (lambda: requests.set_data("/a", b"", 3), -103, True),
        (lambda: requests.set_data("/a", b"", 0), -103, False),
        (lambda: requests.delete("/a"), -111, True),
        (lambda: requests.delete("/e"), -111, False),
        (lambda: requests.delete("/a"), -4, False),
    ],
)
def test_errors(
    ensemble: Ensemble, request_of: Callable[[], Request], code: int, right: bool
) -> None:
    view = ensemble.session()
    ensemble.create("/a")
    ensemble.create("/a/b")
    ensemble.create("/e", ephemeral=True)
    zxid = ensemble.txn(OpCode.ERROR, t.ErrorTxn(code))
    request = request_of()
    request.xid = 4
    if right:
        ensemble.reply(view, request, zxid, code)
    else:
        with pytest.raises(Violation, match="fails with"):
            ensemble.reply(view, request, zxid, code)


def test_reads_show_the_state_of_their_zxid(ensemble: Ensemble) -> None:
    view = ensemble.session()
    first = ensemble.create("/a", b"1")
    second = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"2", 1))
    read = requests.read(OpCode.GET_DATA, "/a")
    ensemble.reply(view, read, first, 0, data_body(b"1", first, first, 0))
    with pytest.raises(Violation, match="version, mzxid, czxid"):
        ensemble.reply(view, read, second, 0, data_body(b"1", first, first, 0))
    with pytest.raises(Violation, match="wrong data"):
        ensemble.reply(view, read, second, 0, data_body(b"1", first, second, 1))
    with pytest.raises(Violation, match="no node, but it is there"):
        ensemble.reply(view, read, second, -101)
    ensemble.reply(view, read, second, 0, data_body(b"2", first, second, 1))


def test_children(ensemble: Ensemble) -> None:
    view = ensemble.session()
    ensemble.create("/a")
    zxid = ensemble.create("/a/b")
    stat = r.Stat(E1 + 2, E1 + 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    read = requests.read(OpCode.GET_CHILDREN2, "/a")
    ensemble.reply(view, read, zxid, 0, r.GetChildren2Response(["b"], stat).encode())
    with pytest.raises(Violation, match="wrong children"):
        ensemble.reply(view, read, zxid, 0, r.GetChildren2Response([], stat).encode())


def test_a_session_does_not_go_back(ensemble: Ensemble) -> None:
    view = ensemble.session()
    zxid = ensemble.create("/a")
    ensemble.checker.pinged(view, zxid, 0)
    with pytest.raises(Violation, match="is shown"):
        ensemble.checker.pinged(view, zxid - 1, 0)


def test_the_beginning_of_an_epoch_is_the_state_before_it(ensemble: Ensemble) -> None:
    view = ensemble.session()
    zxid = ensemble.create("/a")
    ensemble.checker.established(2, 2, zxid)
    ensemble.checker.pinged(view, E2, 0)
    ensemble.checker.pinged(view, zxid, 0)


def test_nothing_is_shown_before_it_is_committed(ensemble: Ensemble) -> None:
    view = ensemble.session()
    with pytest.raises(Violation, match="before it is committed"):
        ensemble.checker.pinged(view, E1 + 2, 0)


def test_sync_shows_what_anybody_has_seen(ensemble: Ensemble) -> None:
    view = ensemble.session()
    other = ensemble.session(OTHER)
    zxid = ensemble.create("/a")
    early = requests.sync()
    ensemble.checker.sent(early)
    ensemble.checker.pinged(other, zxid, 0)
    ensemble.reply(view, early, zxid - 1)
    late = requests.sync()
    ensemble.checker.sent(late)
    with pytest.raises(Violation, match="sync shows"):
        ensemble.reply(view, late, zxid - 1)
    ensemble.reply(view, late, zxid)


# ---------------------------------------------------------------------- watches


def watching(ensemble: Ensemble) -> tuple[SessionView, int]:
    """A client that watches data and children of /a, and the existence of /x."""
    view = ensemble.session()
    zxid = ensemble.create("/a")
    stat = r.Stat(zxid, zxid, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    read = requests.read(OpCode.GET_DATA, "/a", True)
    ensemble.reply(view, read, zxid, 0, r.GetDataResponse(b"", stat).encode())
    read = requests.read(OpCode.GET_CHILDREN2, "/a", True)
    ensemble.reply(view, read, zxid, 0, r.GetChildren2Response([], stat).encode())
    ensemble.reply(view, requests.read(OpCode.EXISTS, "/x", True), zxid, -101)
    assert set(view.watches) == {(DATA, "/a"), (CHILD, "/a"), (EXIST, "/x")}
    return view, zxid


def test_a_watch_fires_once(ensemble: Ensemble) -> None:
    view, _ = watching(ensemble)
    zxid = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"2", 1))
    ensemble.checker.event(view, EventType.NODE_DATA_CHANGED, "/a", zxid, 0)
    ensemble.checker.pinged(view, zxid, 0)
    with pytest.raises(Violation, match="there is no watch"):
        ensemble.checker.event(view, EventType.NODE_DATA_CHANGED, "/a", zxid, 0)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/a", lambda e: e.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"2", 1))),
        ("/a", lambda e: e.txn(OpCode.DELETE, t.DeleteTxn("/a"))),
        ("/a", lambda e: e.create("/a/b")),
        ("/x", lambda e: e.create("/x")),
    ],
)
def test_a_watch_fires_before_anything_shows_why(
    ensemble: Ensemble, path: str, change: Callable[[Ensemble], int]
) -> None:
    view, zxid = watching(ensemble)
    ensemble.checker.pinged(view, zxid, 0)
    zxid = change(ensemble)
    with pytest.raises(Violation, match=f"a watch on {path}"):
        ensemble.checker.pinged(view, zxid, 0)


def test_one_event_for_all_watches_on_a_deleted_node(ensemble: Ensemble) -> None:
    view, _ = watching(ensemble)
    zxid = ensemble.txn(OpCode.DELETE, t.DeleteTxn("/a"))
    ensemble.checker.event(view, EventType.NODE_DELETED, "/a", zxid, 0)
    ensemble.checker.pinged(view, zxid, 0)


def test_set_watches_tells_of_each_list(ensemble: Ensemble) -> None:
    view, before = watching(ensemble)
    ensemble.txn(OpCode.DELETE, t.DeleteTxn("/a"))
    zxid = ensemble.create("/x")
    for _ in range(2):
        ensemble.checker.event(view, EventType.NODE_DELETED, "/a", -1, 0)
    ensemble.checker.event(view, EventType.NODE_CREATED, "/x", -1, 0)
    ensemble.checker.watches_set(view, before, zxid, 0)
    assert not view.watches


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"2", 1)),
        lambda e: e.txn(OpCode.DELETE, t.DeleteTxn("/a")),
        lambda e: e.create("/a/b"),
        lambda e: e.create("/x"),
    ],
)
def test_set_watches_must_tell(ensemble: Ensemble, change: Callable[[Ensemble], int]) -> None:
    view, before = watching(ensemble)
    zxid = change(ensemble)
    with pytest.raises(Violation, match="kept quiet"):
        ensemble.checker.watches_set(view, before, zxid, 0)


def test_set_watches_need_not_tell_what_is_undone(ensemble: Ensemble) -> None:
    view, before = watching(ensemble)
    ensemble.create("/x")
    zxid = ensemble.txn(OpCode.DELETE, t.DeleteTxn("/x"))
    ensemble.checker.watches_set(view, before, zxid, 0)
    ensemble.checker.pinged(view, zxid, 0)
    assert len(view.watches) == 3


# ---------------------------------------------------------------------- persistent watches


def persistently(ensemble: Ensemble, mode: int) -> SessionView:
    view = ensemble.session()
    zxid = ensemble.create("/a")
    ensemble.reply(view, requests.add_watch("/a", mode), zxid)
    return view


def test_a_persistent_watch_tells_of_all(ensemble: Ensemble) -> None:
    view = persistently(ensemble, AddWatchMode.PERSISTENT)
    for version in (1, 2):
        zxid = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"", version))
        ensemble.checker.event(view, EventType.NODE_DATA_CHANGED, "/a", zxid, 0)
    child = ensemble.create("/a/b")
    ensemble.checker.event(view, EventType.NODE_CHILDREN_CHANGED, "/a", child, 0)
    below = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a/b", b"", 1))
    ensemble.checker.pinged(view, below, 0)


def test_a_recursive_watch_tells_of_all_below(ensemble: Ensemble) -> None:
    view = persistently(ensemble, AddWatchMode.PERSISTENT_RECURSIVE)
    zxid = ensemble.create("/a/b")
    with pytest.raises(Violation, match="there is no watch"):
        ensemble.checker.event(view, EventType.NODE_CHILDREN_CHANGED, "/a", zxid, 0)
    ensemble.checker.event(view, EventType.NODE_CREATED, "/a/b", zxid, 0)
    zxid = ensemble.create("/ab")  # not below
    ensemble.checker.pinged(view, zxid, 0)
    zxid = ensemble.txn(OpCode.DELETE, t.DeleteTxn("/a/b"))
    with pytest.raises(Violation, match="was not told of"):
        ensemble.checker.pinged(view, zxid, 0)


def test_what_never_happened(ensemble: Ensemble) -> None:
    view = persistently(ensemble, AddWatchMode.PERSISTENT)
    with pytest.raises(Violation, match="never happened"):
        ensemble.checker.event(view, EventType.NODE_DATA_CHANGED, "/a", ensemble.zxid, 0)


def test_what_changes_while_there_is_no_connection_is_not_told(ensemble: Ensemble) -> None:
    view = persistently(ensemble, AddWatchMode.PERSISTENT)
    zxid = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"", 1))
    ensemble.checker.watches_set(view, zxid - 1, zxid, 0)
    ensemble.checker.pinged(view, zxid, 0)
    zxid = ensemble.txn(OpCode.SET_DATA, t.SetDataTxn("/a", b"", 2))
    with pytest.raises(Violation, match="was not told of"):
        ensemble.checker.pinged(view, zxid, 0)
