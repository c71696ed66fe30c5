"""DataTree against a dict of paths, after any sequence of transactions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.datatree.tree_compare import check_against_model, check_inner_consistency
from tests.datatree.tree_model import CONTAINER, ModelTree
from tests.datatree.txn_source import ACL_LISTS, CREATES, DATA, PATHS, TxnSource, create_record

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol import records as r
from zkpy.protocol import txns as t
from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import OpCode

paths = st.sampled_from(PATHS)
sessions = st.integers(1, 4)
acl_lists = st.sampled_from(ACL_LISTS)
data_values = st.sampled_from(DATA) | st.binary(max_size=5)
INT_MAX = (1 << 31) - 1


class TreeMachine(RuleBasedStateMachine):
    """Any transaction in any state, as replay over a fuzzy snapshot may bring them."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = DataTree(extended_types=True)
        self.model = ModelTree()
        self.zxid = 0

    def apply(self, session: int, type: int, record: Record, back: int = 0) -> None:
        self.zxid += 1
        # Not always the newest: replay runs over nodes that are ahead of it.
        header = t.TxnHeader(session, 1, max(self.zxid - back, 1), 7000 - self.zxid, type)
        encoded = t.encode_txn(header, record, None)
        result = apply_txn(self.tree, *t.decode_txn(encoded)[:2])
        assert result.err == self.model.apply(header, record)

    @rule(
        type=st.sampled_from(CREATES), path=paths, data=data_values, acls=acl_lists,
        ephemeral=st.booleans(), session=sessions, back=st.integers(0, 5),
        cversion=st.just(-1) | st.integers(0, 9) | st.sampled_from([INT_MAX, -INT_MAX - 1]),
    )  # fmt: skip
    def create(
        self, type: int, path: str, data: bytes | None, acls: Acls, ephemeral: bool, session: int,
        back: int, cversion: int,
    ) -> None:  # fmt: skip
        record = create_record(type, path, data, acls, ephemeral, cversion)
        self.apply(session, type, record, back)

    @precondition(lambda self: len(self.model.nodes) > 6)
    @rule(path=paths, back=st.integers(0, 5), by_container_manager=st.booleans())
    def delete(self, path: str, back: int, by_container_manager: bool) -> None:
        type = OpCode.DELETE_CONTAINER if by_container_manager else OpCode.DELETE
        self.apply(1, type, t.DeleteTxn(path), back)

    @rule(path=st.sampled_from(["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"]))
    def delete_reserved(self, path: str) -> None:
        self.apply(1, OpCode.DELETE, t.DeleteTxn(path))

    @rule(path=paths | st.sampled_from(["/", "/zookeeper"]), data=data_values,
          version=st.integers(-3, 9), back=st.integers(0, 5))  # fmt: skip
    def set_data(self, path: str, data: bytes | None, version: int, back: int) -> None:
        self.apply(1, OpCode.SET_DATA, t.SetDataTxn(path, data, version), back)

    @rule(data=data_values)
    def reconfig(self, data: bytes | None) -> None:
        self.apply(1, OpCode.RECONFIG, t.SetDataTxn("/zookeeper/config", data, -1))

    @rule(path=paths | st.just("/"), acls=acl_lists | st.none(), version=st.integers(0, 9))
    def set_acl(self, path: str, acls: Acls | None, version: int) -> None:
        self.apply(1, OpCode.SET_ACL, t.SetACLTxn(path, acls, version))

    @rule(session=sessions, timeout=st.integers(0, 60000))
    def create_session(self, session: int, timeout: int) -> None:
        self.apply(session, OpCode.CREATE_SESSION, t.CreateSessionTxn(timeout))

    @rule(session=sessions, listed=st.none() | st.lists(paths, max_size=3))
    def close_session(self, session: int, listed: list[str | None] | None) -> None:
        self.apply(session, OpCode.CLOSE_SESSION, t.CloseSessionTxn(listed))

    @rule(code=st.integers(-127, -1))
    def fail(self, code: int) -> None:
        self.apply(1, OpCode.ERROR, t.ErrorTxn(code))

    @rule(session=sessions, path=paths, other=paths, fails=st.booleans())
    def multi(self, session: int, path: str, other: str, fails: bool) -> None:
        subs = [
            t.SubTxn(OpCode.CHECK, t.CheckVersionTxn("/", 1).encode()),
            t.SubTxn(OpCode.CREATE, t.CreateTxn(path, b"m", OPEN_ACL_UNSAFE, True, -1).encode()),
            t.SubTxn(OpCode.SET_DATA, t.SetDataTxn(path, b"multi", 1).encode()),
            t.SubTxn(OpCode.DELETE, t.DeleteTxn(other).encode()),
        ]
        if fails:
            subs[2:3] = [t.SubTxn(OpCode.ERROR, t.ErrorTxn(-101).encode())]
        self.apply(session, OpCode.MULTI, t.MultiTxn(subs))

    @rule()
    def kill_dead_sessions(self) -> None:
        zxid = self.tree.last_processed_zxid
        removed = self.tree.kill_dead_sessions()
        dead = {s: p for s, p in self.model.ephemerals().items() if s not in self.model.sessions}
        paths = {path for owned in dead.values() for path in owned}
        # One that stands below another is gone with it; only this machine makes such trees.
        assert set(removed) | {p for p in paths if p.rpartition("/")[0] in paths} == paths
        for session in dead:
            self.model.close_session(session, [], zxid)
        assert self.tree.last_processed_zxid == zxid

    @invariant()
    def the_tree_is_sound(self) -> None:
        check_inner_consistency(self.tree)

    @invariant()
    def the_tree_is_the_model(self) -> None:
        check_against_model(self.tree, self.model)
        assert self.tree.last_processed_zxid <= self.zxid


TestTreeMachine = TreeMachine.TestCase


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_what_a_live_server_applies(rng: Random, count: int) -> None:
    tree, model = DataTree(extended_types=True), ModelTree()
    source = TxnSource(rng, tree)
    for _ in range(count):
        header, record = source.next()
        result = apply_txn(tree, header, record)
        assert result.err == 0
        assert all(sub.err == 0 for sub in result.subs or ()) or result.subs[-1].err == -101  # type: ignore[index]
        model.apply(header, record)
        assert tree.last_processed_zxid == header.zxid
    check_inner_consistency(tree)
    check_against_model(tree, model)


# ---------------------------------------------------------------------- single cases


def apply(tree: DataTree, zxid: int, type: int, record: Record, session: int = 1) -> int:
    return apply_txn(tree, t.TxnHeader(session, 1, zxid, 1000 + zxid, type), record).err


def create(tree: DataTree, zxid: int, path: str, cversion: int = -1, session: int = 0) -> int:
    record = t.CreateTxn(path, b"x", OPEN_ACL_UNSAFE, session != 0, cversion)
    return apply(tree, zxid, OpCode.CREATE, record, session)


def stat_of(tree: DataTree, path: str) -> r.Stat:
    return r.Stat.decode(tree.wire_stat(tree.nodes[path]))[0]


@pytest.mark.parametrize(
    ("path", "cversion", "aversion", "children"),
    [("/", -1, 0, 1), ("/zookeeper", -2, 0, 2), ("/zookeeper/quota", 0, 0, 0),
     ("/zookeeper/config", 0, -1, 0)],
)  # fmt: skip
def test_built_in_nodes(path: str, cversion: int, aversion: int, children: int) -> None:
    tree = DataTree()
    assert tree.digest == 0x51C6D660
    assert tree.node_count() == 5
    expected = r.Stat(0, 0, 0, 0, 0, cversion, aversion, 0, 0, children, 0)
    assert stat_of(tree, path) == expected
    assert tree.nodes[path].data == b""


def test_captured_digest_of_the_first_create() -> None:
    tree = DataTree()
    header = t.TxnHeader(0x01000011029B0000, 1, 3, 0x1A2034440EF, OpCode.CREATE)
    apply_txn(tree, header, t.CreateTxn("/a", b"hello", OPEN_ACL_UNSAFE, False, 1))
    assert tree.digest == 0x1211C280D


def test_the_creation_counter_stops_at_its_end() -> None:
    tree = DataTree()
    assert create(tree, 1, "/a", INT_MAX) == 0
    assert create(tree, 2, "/b", -INT_MAX - 1) == 0
    assert stat_of(tree, "/").pzxid == 1
    assert create(tree, 3, "/c") == 0
    # 2 * (2^31 - 1) - 4 children, in 32 bits.
    assert stat_of(tree, "/").cversion == -6


def test_a_txn_of_the_past_does_not_turn_a_parent_back() -> None:
    tree = DataTree()
    create(tree, 8, "/a", 8)
    create(tree, 5, "/b", 5)
    apply(tree, 6, OpCode.DELETE, t.DeleteTxn("/gone"))
    assert stat_of(tree, "/").pzxid == 8
    assert stat_of(tree, "/").cversion == 2 * 8 - 3


def test_deleting_what_is_gone_still_counts_at_the_parent() -> None:
    tree = DataTree()
    assert apply(tree, 7, OpCode.DELETE, t.DeleteTxn("/gone")) == -101
    assert stat_of(tree, "/").pzxid == 7


def test_a_replayed_delete_takes_along_what_was_created_later() -> None:
    # The snapshot was written after all of these, the replay begins before them.
    tree = DataTree()
    create(tree, 1, "/p")
    create(tree, 2, "/p/c")
    create(tree, 3, "/p/c/d", session=9)
    assert apply(tree, 1, OpCode.DELETE, t.DeleteTxn("/p")) == 0
    assert [path for path in tree.nodes if path.startswith("/p")] == []
    check_inner_consistency(tree)
    assert create(tree, 1, "/p") == 0
    assert create(tree, 2, "/p/c") == 0
    assert tree.child_names("/p", tree.nodes["/p"]) == ["c"]
    assert tree.ephemerals_count == 0


@pytest.mark.parametrize("path", ["", None])
def test_a_close_without_a_path_leaves_the_root(path: str | None) -> None:
    tree = DataTree()
    apply(tree, 1, OpCode.CLOSE_SESSION, t.CloseSessionTxn([path]))
    assert apply(tree, 2, OpCode.DELETE, t.DeleteTxn(path)) == -101
    check_inner_consistency(tree)


def test_results_of_a_failed_multi() -> None:
    subs = [
        t.SubTxn(OpCode.CREATE, t.CreateTxn("/m", b"", OPEN_ACL_UNSAFE, False, 1).encode()),
        t.SubTxn(OpCode.ERROR, t.ErrorTxn(-101).encode()),
        t.SubTxn(OpCode.ERROR, t.ErrorTxn(-2).encode()),
    ]
    tree = DataTree()
    header = t.TxnHeader(1, 1, 5, 1, OpCode.MULTI)
    result = apply_txn(tree, header, t.MultiTxn(subs))
    assert [sub.err for sub in result.subs or ()] == [0, -101, -2]
    # The reference's race: the part before the failing one is marked, its body left as it was.
    subs[0] = t.SubTxn(OpCode.ERROR, subs[0].data)
    result = apply_txn(tree, header, t.MultiTxn(subs))
    assert [sub.err for sub in result.subs or ()] == [0, -101, -2]
    assert "/m" not in tree.nodes
    assert tree.last_processed_zxid == 5


def test_parts_of_a_multi_keep_the_stat_of_their_moment() -> None:
    subs = [
        t.SubTxn(OpCode.CREATE2, t.CreateTxn("/m", b"", OPEN_ACL_UNSAFE, False, 1).encode()),
        t.SubTxn(OpCode.SET_DATA, t.SetDataTxn("/m", b"new", 1).encode()),
        t.SubTxn(OpCode.DELETE, t.DeleteTxn("/m").encode()),
    ]
    result = apply_txn(DataTree(), t.TxnHeader(1, 1, 5, 1, OpCode.MULTI), t.MultiTxn(subs))
    assert result.subs is not None
    first, second, third = result.subs
    assert r.Stat.decode(first.stat)[0].version == 0
    assert r.Stat.decode(second.stat)[0].version == 1
    assert r.Stat.decode(second.stat)[0].dataLength == 3
    assert third.stat == b""
    assert (first.path, third.path) == ("/m", "/m")


def test_a_ttl_node_without_extended_types_is_an_ephemeral_of_nobody() -> None:
    tree = DataTree()
    record = t.CreateTTLTxn("/t", b"", OPEN_ACL_UNSAFE, 1, 5000)
    apply(tree, 1, OpCode.CREATE_TTL, record)
    assert tree.ephemerals == {5000 - (1 << 56): {"/t": None}}
    assert tree.kill_dead_sessions() == ["/t"]
    assert tree.ephemerals == {}


def test_containers_are_containers_with_any_settings() -> None:
    tree = DataTree()
    apply(tree, 1, OpCode.CREATE_CONTAINER, t.CreateContainerTxn("/c", b"", OPEN_ACL_UNSAFE, 1))
    assert list(tree.containers) == ["/c"]
    assert stat_of(tree, "/c").ephemeralOwner == 0
    assert r.Stat.decode(tree.wire_stat(tree.nodes["/c"]))[0].czxid == 1
    assert CONTAINER == -(1 << 63)


def test_a_session_that_lost_its_nodes_is_listed_until_it_closes() -> None:
    tree = DataTree()
    create(tree, 1, "/e", session=5)
    apply(tree, 2, OpCode.DELETE, t.DeleteTxn("/e"))
    assert tree.ephemerals == {5: {}}
    apply(tree, 3, OpCode.CLOSE_SESSION, t.CloseSessionTxn([]), 5)
    assert tree.ephemerals == {}


def test_without_counting_the_digest_stays_as_it_was() -> None:
    tree = DataTree()
    tree.count_digest = False
    create(tree, 1, "/a")
    apply(tree, 2, OpCode.SET_DATA, t.SetDataTxn("/a", b"y", 1))
    apply(tree, 3, OpCode.SET_ACL, t.SetACLTxn("/a", OPEN_ACL_UNSAFE, 1))
    apply(tree, 4, OpCode.DELETE, t.DeleteTxn("/a"))
    assert tree.digest == 0x51C6D660


def test_cached_replies_go_when_their_node_or_its_children_change() -> None:
    def change(type: int, record: Record) -> set[str]:
        tree = DataTree()
        create(tree, 1, "/a")
        create(tree, 2, "/a/b")
        tree.response_cache = dict.fromkeys(["/a", "/a/b", "/other"], b"")
        apply(tree, 3, type, record)
        return {"/a", "/a/b"} - tree.response_cache.keys()

    new = t.CreateTxn("/a/c", b"", OPEN_ACL_UNSAFE, False, -1)
    assert change(OpCode.CREATE, new) == {"/a"}
    assert change(OpCode.DELETE, t.DeleteTxn("/a/b")) == {"/a", "/a/b"}
    assert change(OpCode.SET_DATA, t.SetDataTxn("/a/b", b"", 1)) == {"/a/b"}
    assert change(OpCode.SET_ACL, t.SetACLTxn("/a/b", OPEN_ACL_UNSAFE, 1)) == {"/a/b"}
