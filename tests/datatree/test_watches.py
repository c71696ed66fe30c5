"""WatchManager against a list of registrations, and the events of each kind of change."""

from __future__ import annotations

import struct

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.datatree.watches import (
    ALL_MODES,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    STANDARD,
    Watcher,
    WatchManager,
    event_frame,
)
from zkpy.protocol import records as r
from zkpy.protocol import txns as t
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, Acls
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import EventType, OpCode

CREATED, DELETED = EventType.NODE_CREATED, EventType.NODE_DELETED
DATA, CHILDREN = EventType.NODE_DATA_CHANGED, EventType.NODE_CHILDREN_CHANGED
TYPES = [CREATED, DELETED, DATA, CHILDREN]


class Connection:
    """A watcher that keeps what it is told, decoded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[tuple[int, str, int]] = []
        self.acls: list[Acls | None] = []

    def notify(self, frame: bytes, acls: Acls | None) -> None:
        (size,) = struct.unpack_from(">i", frame)
        assert size == len(frame) - 4
        header, offset = r.ReplyHeader.decode(frame, 4)
        assert (header.xid, header.err) == (-1, 0)
        event, end = r.WatcherEvent.decode(frame, offset)
        assert (event.state, end) == (3, len(frame))
        self.events.append((event.type, event.path or "", header.zxid))
        self.acls.append(acls)

    def __repr__(self) -> str:
        return self.name


PATHS = ["/", "/a", "/ab", "/a/b", "/a/bc", "/a/b/c"]
MODES = [STANDARD, PERSISTENT, PERSISTENT_RECURSIVE]
paths = st.sampled_from(PATHS)
modes = st.sampled_from(MODES)
numbers = st.integers(0, 3)


def is_ancestor(path: str, of: str) -> bool:
    """Whether `path` is truly above `of`."""
    return path != of and (path == "/" or of.startswith(path + "/"))


class WatchMachine(RuleBasedStateMachine):
    """Registrations are triples; what fires is found by looking at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = WatchManager()
        self.connections = [Connection(f"c{number}") for number in range(4)]
        self.expected: dict[int, list[tuple[int, str, int]]] = {n: [] for n in range(4)}
        self.model: set[tuple[str, int, int]] = set()
        self.zxid = 0

    def index(self, watcher: Watcher) -> int:
        return next(n for n, known in enumerate(self.connections) if known is watcher)

    @rule(path=paths, number=numbers, mode=modes)
    def add(self, path: str, number: int, mode: int) -> None:
        self.manager.add(path, self.connections[number], mode)
        self.model.add((path, number, mode))

    @rule(path=paths, number=numbers, removed=modes | st.just(ALL_MODES))
    def remove(self, path: str, number: int, removed: int) -> None:
        found = {(path, number, mode) for mode in MODES if mode & removed} & self.model
        had = self.manager.has(path, self.connections[number], removed)
        assert had is bool(found)
        assert self.manager.remove(path, self.connections[number], removed) is bool(found)
        self.model -= found

    @rule(number=numbers)
    def close(self, number: int) -> None:
        self.manager.remove_watcher(self.connections[number])
        self.model = {entry for entry in self.model if entry[1] != number}

    @rule(path=paths, type=st.sampled_from(TYPES), suppressed=st.none() | st.sets(numbers))
    def trigger(self, path: str, type: int, suppressed: set[int] | None) -> None:
        self.zxid += 1
        suppress = None
        if suppressed is not None:
            suppress = {self.connections[number]: None for number in suppressed}
        meant = self.manager.trigger(path, type, self.zxid, OPEN_ACL_UNSAFE, suppress)  # type: ignore[arg-type]
        expected = {
            number
            for watched, number, mode in self.model
            if watched == path or (mode == PERSISTENT_RECURSIVE and is_ancestor(watched, path))
        }
        assert {self.index(watcher) for watcher in meant or ()} == expected
        assert meant is None or len(meant) > 0
        for number in expected - (suppressed or set()):
            self.expected[number].append((type, path, self.zxid))
        self.model = {
            entry for entry in self.model if entry[0] != path or entry[2] != STANDARD
        }  # fmt: skip

    @invariant()
    def everyone_heard_what_was_meant_for_them_once_and_in_order(self) -> None:
        for number, connection in enumerate(self.connections):
            assert connection.events == self.expected[number]

    @invariant()
    def the_indexes_agree(self) -> None:
        held = {
            (path, self.index(watcher), mode)
            for path, watchers in self.manager.by_path.items()
            for watcher, held_modes in watchers.items()
            for mode in MODES
            if held_modes & mode
        }
        assert held == self.model
        assert all(watchers for watchers in self.manager.by_path.values())
        pairs = {(path, number) for path, number, _ in self.model}
        assert self.manager.size == len(pairs)
        listed = {(p, self.index(w)) for w, ps in self.manager.by_watcher.items() for p in ps}
        assert listed == pairs
        recursive = [entry for entry in self.model if entry[2] == PERSISTENT_RECURSIVE]
        assert self.manager._recursive == len(recursive)


TestWatchMachine = WatchMachine.TestCase


def test_captured_event() -> None:
    assert event_frame(DATA, "/w", 0xA0).hex() == (
        "0000001effffffff00000000000000a00000000000000003000000030000000" + "22f77"
    )


# ---------------------------------------------------------------------- which change fires what


class Watched:
    """A tree in which one connection per kind of watch watches one path."""

    KINDS = ("data", "child", "persistent", "recursive")

    def __init__(self, path: str, *existing: str) -> None:
        self.tree = DataTree()
        self.zxid = 0
        for created in existing:
            self.apply(OpCode.CREATE, t.CreateTxn(created, b"", READ_ACL_UNSAFE, False, -1))
        self.connections = {kind: Connection(kind) for kind in self.KINDS}
        data, child = self.tree.data_watches, self.tree.child_watches
        data.add(path, self.connections["data"], STANDARD)
        child.add(path, self.connections["child"], STANDARD)
        data.add(path, self.connections["persistent"], PERSISTENT)
        child.add(path, self.connections["persistent"], PERSISTENT)
        data.add(path, self.connections["recursive"], PERSISTENT_RECURSIVE)

    def apply(self, type: int, record: Record, session: int = 1) -> None:
        self.zxid += 1
        apply_txn(self.tree, t.TxnHeader(session, 1, self.zxid, 1, type), record)

    def heard(self) -> dict[str, list[tuple[int, str]]]:
        """By kind of watch, what came since the last call."""
        found = {}
        for kind, connection in self.connections.items():
            if connection.events:
                found[kind] = [event[:2] for event in connection.events]
            connection.events.clear()
        return found


def create(path: str, acls: Acls = OPEN_ACL_UNSAFE, ephemeral: bool = False) -> t.CreateTxn:
    return t.CreateTxn(path, b"", acls, ephemeral, -1)


def test_create_fires() -> None:
    watched = Watched("/p")
    watched.apply(OpCode.CREATE, create("/p"))
    here = [(CREATED, "/p")]
    assert watched.heard() == {"data": here, "persistent": here, "recursive": here}
    watched.apply(OpCode.CREATE, create("/p/c"))
    assert watched.heard() == {
        "child": [(CHILDREN, "/p")],
        "persistent": [(CHILDREN, "/p")],
        "recursive": [(CREATED, "/p/c")],
    }
    watched.apply(OpCode.CREATE, create("/p/c/d"))
    assert watched.heard() == {"recursive": [(CREATED, "/p/c/d")]}


def test_delete_fires_one_event_per_connection() -> None:
    watched = Watched("/p", "/p")
    both = Connection("both")
    watched.tree.data_watches.add("/p", both, STANDARD)
    watched.tree.child_watches.add("/p", both, STANDARD)
    watched.apply(OpCode.DELETE, t.DeleteTxn("/p"))
    here = [(DELETED, "/p")]
    assert watched.heard() == dict.fromkeys(Watched.KINDS, here)
    assert [event[:2] for event in both.events] == here
    assert watched.tree.child_watches.size == 1, "the one that persists"


def test_delete_fires_at_the_parent() -> None:
    watched = Watched("/p", "/p", "/p/c")
    watched.apply(OpCode.DELETE, t.DeleteTxn("/p/c"))
    assert watched.heard() == {
        "child": [(CHILDREN, "/p")],
        "persistent": [(CHILDREN, "/p")],
        "recursive": [(DELETED, "/p/c")],
    }


def test_a_recursive_watch_above_keeps_a_child_watch_from_a_second_event() -> None:
    tree = Watched("/p", "/p", "/p/c")
    connection = Connection("x")
    tree.tree.data_watches.add("/", connection, PERSISTENT_RECURSIVE)
    tree.tree.child_watches.add("/p/c", connection, STANDARD)
    tree.apply(OpCode.DELETE, t.DeleteTxn("/p/c"))
    assert connection.events == [(DELETED, "/p/c", 3)]
    assert not tree.tree.child_watches.has("/p/c", connection, ALL_MODES)


def test_set_data_fires() -> None:
    watched = Watched("/p", "/p", "/p/c")
    watched.apply(OpCode.SET_DATA, t.SetDataTxn("/p", b"", 1))
    here = [(DATA, "/p")]
    assert watched.heard() == {"data": here, "persistent": here, "recursive": here}
    watched.apply(OpCode.SET_DATA, t.SetDataTxn("/p", b"", 2))
    assert watched.heard() == {"persistent": here, "recursive": here}
    watched.apply(OpCode.SET_DATA, t.SetDataTxn("/p/c", b"", 1))
    assert watched.heard() == {"recursive": [(DATA, "/p/c")]}


def test_set_data_of_the_root_and_reconfig_fire() -> None:
    watched = Watched("/")
    watched.apply(OpCode.SET_DATA, t.SetDataTxn("/", b"", 1))
    watched.apply(OpCode.RECONFIG, t.SetDataTxn("/zookeeper/config", b"", -1))
    assert watched.heard() == {
        "data": [(DATA, "/")],
        "persistent": [(DATA, "/")],
        "recursive": [(DATA, "/"), (DATA, "/zookeeper/config")],
    }


def test_top_level_children_belong_to_the_root() -> None:
    watched = Watched("/")
    watched.apply(OpCode.CREATE, create("/a"))
    assert watched.heard() == {
        "child": [(CHILDREN, "/")],
        "persistent": [(CHILDREN, "/")],
        "recursive": [(CREATED, "/a")],
    }


@pytest.mark.parametrize(
    ("type", "record"),
    [
        (OpCode.SET_ACL, t.SetACLTxn("/p", OPEN_ACL_UNSAFE, 1)),
        (OpCode.ERROR, t.ErrorTxn(-101)),
        (OpCode.CREATE_SESSION, t.CreateSessionTxn(1000)),
        (OpCode.CREATE, create("/p")),
        (OpCode.SET_DATA, t.SetDataTxn("/gone", b"", 1)),
    ],
)
def test_what_fires_nothing(type: int, record: Record) -> None:
    watched = Watched("/p", "/p")
    watched.apply(type, record)
    assert watched.heard() == {}


def test_closing_a_session_fires_for_each_of_its_nodes() -> None:
    watched = Watched("/")
    watched.apply(OpCode.CREATE, create("/e1", ephemeral=True), session=5)
    watched.apply(OpCode.CREATE, create("/e2", ephemeral=True), session=5)
    watched.heard()
    watched.apply(OpCode.CLOSE_SESSION, t.CloseSessionTxn(["/e2"]), session=5)
    assert watched.heard() == {
        "persistent": [(CHILDREN, "/")] * 2,
        "recursive": [(DELETED, "/e2"), (DELETED, "/e1")],
    }


def test_the_parts_of_a_multi_fire_in_order() -> None:
    watched = Watched("/")
    connection = Connection("both")
    watched.tree.data_watches.add("/", connection, PERSISTENT_RECURSIVE)
    watched.tree.child_watches.add("/", connection, PERSISTENT)
    subs = [
        t.SubTxn(OpCode.CREATE, create("/m").encode()),
        t.SubTxn(OpCode.SET_DATA, t.SetDataTxn("/m", b"", 1).encode()),
        t.SubTxn(OpCode.DELETE, t.DeleteTxn("/m").encode()),
    ]
    watched.apply(OpCode.MULTI, t.MultiTxn(subs))
    assert connection.events == [
        (CREATED, "/m", 1),
        (CHILDREN, "/", 1),
        (DATA, "/m", 1),
        (DELETED, "/m", 1),
        (CHILDREN, "/", 1),
    ]


def test_events_carry_the_acl_that_was_in_force() -> None:
    secret = (ACL(31, "digest", "bob:hash"),)
    watched = Watched("/p")
    recursive, persistent = watched.connections["recursive"], watched.connections["persistent"]
    watched.apply(OpCode.CREATE, create("/p", READ_ACL_UNSAFE))
    watched.apply(OpCode.CREATE, create("/p/c", secret))
    assert recursive.acls == [READ_ACL_UNSAFE, secret]
    assert persistent.acls == [READ_ACL_UNSAFE, READ_ACL_UNSAFE]
    watched.apply(OpCode.DELETE, t.DeleteTxn("/p/c"))
    assert recursive.acls[2:] == [secret]
    assert persistent.acls[2:] == [READ_ACL_UNSAFE]
