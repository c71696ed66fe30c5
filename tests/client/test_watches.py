"""Watches: who is told what, once or always, and that nothing is lost with a connection."""

from __future__ import annotations

import pytest
from tests.client.bench import Bench, brief

from zkpy.client.core import ClientCnxn
from zkpy.client.errors import ConnectionLoss
from zkpy.client.events import EventType, WatchedEvent
from zkpy.client.watches import (
    CHILD,
    DATA,
    EXIST,
    PERSISTENT,
    RECURSIVE,
    SET_WATCHES_MAX_LENGTH,
    Registration,
    WatchManager,
)
from zkpy.protocol.errors import NoNode, NoWatcher
from zkpy.protocol.framing import frame
from zkpy.protocol.records import ReplyHeader, SetWatches, SetWatches2, WatcherEvent
from zkpy.protocol.zoodefs import AddWatchMode, OpCode, WatcherType


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    for path in ("/a", "/a/b"):
        bench.do(bench.zk.create(path, b"0"))
    bench.log.clear()
    return bench


def second(bench: Bench) -> Bench:
    """Another client of the same server."""
    return Bench(machine=bench.machine)


def test_a_data_watch_fires_once(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("w")))
    bench.do(bench.zk.set_data("/a", b"1"))
    bench.do(bench.zk.set_data("/a", b"2"))
    assert bench.events() == ["NodeDataChanged /a"]


def test_a_watcher_is_told_before_the_answer_that_shows_it(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("w")))
    other = second(bench)
    other.do(other.zk.set_data("/a", b"1"))
    bench.log.clear()
    assert bench.do(bench.zk.get_data("/a"))[0] == b"1"
    (first, event), (last, _) = bench.log
    assert (first, brief(event), last) == ("w", "NodeDataChanged /a", "done")
    assert event.zxid == other.core.last_zxid


def test_ones_own_change_is_told_before_its_answer(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("w")))
    bench.log.clear()
    bench.do(bench.zk.set_data("/a", b"1"))
    assert [who for who, _ in bench.log] == ["w", "done"]


def test_exists_hears_of_the_creation(bench: Bench) -> None:
    assert bench.do(bench.zk.exists("/new", watch=bench.watcher("w"))) is None
    bench.do(bench.zk.create("/new"))
    bench.do(bench.zk.set_data("/new", b""))
    assert bench.events() == ["NodeCreated /new"]


def test_a_failed_read_leaves_no_watch(bench: Bench) -> None:
    for read in (bench.zk.get_data, bench.zk.get_children, bench.zk.get_children2):
        with pytest.raises(NoNode):
            bench.do(read("/new", watch=bench.watcher("w")))
    bench.do(bench.zk.create("/new"))
    assert bench.events() == []
    assert bench.core.watches.all() == []


def test_children(bench: Bench) -> None:
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("w")))
    bench.do(bench.zk.create("/a/c"))
    bench.do(bench.zk.get_children2("/a", watch=bench.watcher("w")))
    bench.do(bench.zk.delete("/a/c"))
    assert bench.events() == ["NodeChildrenChanged /a", "NodeChildrenChanged /a"]


def test_one_event_for_a_watcher_of_data_and_children(bench: Bench) -> None:
    watcher = bench.watcher("w")
    bench.do(bench.zk.get_data("/a/b", watch=watcher))
    bench.do(bench.zk.exists("/a/b", watch=watcher))
    bench.do(bench.zk.get_children("/a/b", watch=watcher))
    bench.do(bench.zk.delete("/a/b"))
    assert bench.events() == ["NodeDeleted /a/b"]
    assert bench.core.watches.all() == []


def test_several_watchers_in_the_order_they_came(bench: Bench) -> None:
    for name in "zebra":
        bench.do(bench.zk.get_data("/a", watch=bench.watcher(name)))
    bench.do(bench.zk.set_data("/a", b"1"))
    assert [who for who, what in bench.log if isinstance(what, WatchedEvent)] == list("zebra")


def test_true_is_the_default_watcher_and_counts_once(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=True))
    bench.do(bench.zk.get_data("/a", watch=True))
    bench.do(bench.zk.set_data("/a", b"1"))
    assert bench.events("default") == ["NodeDataChanged /a"]


def test_persistent(bench: Bench) -> None:
    bench.do(bench.zk.add_watch("/p", bench.watcher("w"), AddWatchMode.PERSISTENT))
    bench.do(bench.zk.create("/p"))
    bench.do(bench.zk.create("/p/c"))
    bench.do(bench.zk.set_data("/p/c", b"1"))
    bench.do(bench.zk.set_data("/p", b"1"))
    bench.do(bench.zk.delete("/p/c"))
    bench.do(bench.zk.delete("/p"))
    assert bench.events() == [
        "NodeCreated /p",
        "NodeChildrenChanged /p",
        "NodeDataChanged /p",
        "NodeChildrenChanged /p",
        "NodeDeleted /p",
    ]


def test_recursive(bench: Bench) -> None:
    bench.do(bench.zk.add_watch("/", bench.watcher("w")))
    bench.do(bench.zk.create("/p"))
    bench.do(bench.zk.create("/p/c"))
    bench.do(bench.zk.set_data("/p/c", b"1"))
    bench.do(bench.zk.delete("/p/c"))
    assert bench.events() == [
        "NodeCreated /p", "NodeCreated /p/c", "NodeDataChanged /p/c", "NodeDeleted /p/c",
    ]  # fmt: skip


def test_who_watches_the_children_hears_nothing_else_for_a_recursive_neighbour(
    bench: Bench,
) -> None:
    bench.do(bench.zk.add_watch("/a", bench.watcher("tree")))
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("children")))
    bench.do(bench.zk.create("/a/c"))
    assert bench.events("tree") == ["NodeCreated /a/c"]
    bench.do(bench.zk.delete("/a/c"))
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("children")))
    bench.log.clear()
    bench.do(bench.zk.create("/a/c"))
    assert bench.events("children") == ["NodeChildrenChanged /a"]


# Lost connections


def test_watches_survive_a_lost_connection(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("data")))
    bench.do(bench.zk.exists("/new", watch=bench.watcher("exists")))
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("child")))
    bench.do(bench.zk.add_watch("/a", bench.watcher("persistent"), AddWatchMode.PERSISTENT))
    bench.do(bench.zk.add_watch("/a", bench.watcher("recursive")))
    bench.cut()
    bench.pass_time(300)
    bench.log.clear()
    bench.do(bench.zk.set_data("/a", b"1"))
    bench.do(bench.zk.create("/a/c"))
    bench.do(bench.zk.create("/new"))
    log = [(who, brief(what)) for who, what in bench.log if isinstance(what, WatchedEvent)]
    assert log == [
        ("data", "NodeDataChanged /a"),
        ("persistent", "NodeDataChanged /a"),
        ("recursive", "NodeDataChanged /a"),
        ("recursive", "NodeCreated /a/c"),
        ("child", "NodeChildrenChanged /a"),
        ("persistent", "NodeChildrenChanged /a"),
        ("exists", "NodeCreated /new"),
    ]


def test_what_happened_meanwhile_is_told_before_any_answer(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("data")))
    bench.do(bench.zk.get_data("/a/b", watch=bench.watcher("gone")))
    bench.do(bench.zk.exists("/new", watch=bench.watcher("exists")))
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("child")))
    bench.do(bench.zk.get_data("/", watch=bench.watcher("still")))
    bench.cut()
    waiting = bench.begin(bench.zk.get_data("/a"))
    other = second(bench)
    other.do(other.zk.set_data("/a", b"1"))
    other.do(other.zk.delete("/a/b"))
    other.do(other.zk.create("/new"))
    bench.log.clear()
    bench.pass_time(300)
    log = [
        (who, brief(what)) if isinstance(what, WatchedEvent) else (who, "")
        for who, what in bench.log
        if not (isinstance(what, WatchedEvent) and what.path is None) and who != "state"
    ]
    assert log == [
        ("data", "NodeDataChanged /a"),
        ("gone", "NodeDeleted /a/b"),
        ("exists", "NodeCreated /new"),
        ("child", "NodeChildrenChanged /a"),
        ("done", ""),
    ]
    assert waiting.value()[0] == b"1"


def test_only_with_persistent_watches_the_newer_request_is_sent(bench: Bench) -> None:
    """Servers before 3.6 would close the connection on it."""
    watches = WatchManager()
    watches.register(Registration(DATA, "/a", print), 0)
    watches.register(Registration(EXIST, "/b", print), NoNode.code)
    watches.register(Registration(EXIST, "/c", print), 0)
    ((opcode, body),) = watches.set_watches(7)
    assert opcode == OpCode.SET_WATCHES
    assert SetWatches.decode(body)[0] == SetWatches(7, ["/a", "/c"], ["/b"], [])
    watches.register(Registration(RECURSIVE, "/r", print), 0)
    watches.register(Registration(PERSISTENT, "/p", print), 0)
    watches.register(Registration(CHILD, "/k", print), 0)
    ((opcode, body),) = watches.set_watches(8)
    assert opcode == OpCode.SET_WATCHES2
    expected = SetWatches2(8, ["/a", "/c"], ["/b"], ["/k"], ["/p"], ["/r"])
    assert SetWatches2.decode(body)[0] == expected


def test_many_watches_go_in_several_requests() -> None:
    watches = WatchManager()
    paths = [f"/{'x' * 1000}{number}" for number in range(300)]
    for path in paths:
        watches.register(Registration(DATA, path, print), 0)
        watches.register(Registration(CHILD, path, print), 0)
    bodies = [body for _, body in watches.set_watches(0)]
    assert len(bodies) > 2
    assert max(map(len, bodies)) < SET_WATCHES_MAX_LENGTH * 1.1
    decoded = [SetWatches.decode(body)[0] for body in bodies]
    assert [path for each in decoded for path in each.dataWatches or ()] == paths
    assert [path for each in decoded for path in each.childWatches or ()] == paths
    assert list(WatchManager().set_watches(0)) == []


def test_everybody_hears_of_the_connection(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("w")))
    bench.do(bench.zk.add_watch("/a", bench.watcher("p")))
    bench.cut()
    bench.pass_time(300)
    assert bench.events("w") == ["Disconnected", "SyncConnected"]
    bench.cut()
    bench.pass_time(300)
    assert bench.events("p") == ["Disconnected", "SyncConnected"]


# Removal


def test_remove_all_of_a_type(bench: Bench) -> None:
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("one")))
    bench.do(bench.zk.exists("/a", watch=bench.watcher("two")))
    bench.do(bench.zk.get_children("/a", watch=bench.watcher("child")))
    bench.do(bench.zk.remove_watches("/a", type=WatcherType.DATA))
    assert [(who, brief(what)) for who, what in bench.log if who != "done"] == [
        ("one", "DataWatchRemoved /a"),
        ("two", "DataWatchRemoved /a"),
    ]
    bench.log.clear()
    bench.do(bench.zk.set_data("/a", b"1"))
    bench.do(bench.zk.create("/a/c"))
    assert bench.events() == ["NodeChildrenChanged /a"]


def test_remove_one_and_leave_the_others(bench: Bench) -> None:
    one, two = bench.watcher("one"), bench.watcher("two")
    bench.do(bench.zk.get_data("/a", watch=one))
    bench.do(bench.zk.get_data("/a", watch=two))
    bench.do(bench.zk.remove_watches("/a", one))
    assert bench.events() == ["DataWatchRemoved /a"]
    bench.do(bench.zk.set_data("/a", b"1"))
    assert bench.events("two") == ["NodeDataChanged /a"]


def test_remove_the_last_one_from_the_server_too(bench: Bench) -> None:
    one = bench.watcher("one")
    bench.do(bench.zk.add_watch("/a", one))
    bench.do(bench.zk.remove_watches("/a", one))
    assert bench.events() == ["PersistentWatchRemoved /a"]
    with pytest.raises(NoWatcher):
        bench.do(bench.zk.remove_watches("/a", one))
    other = second(bench)
    other.do(other.zk.set_data("/a", b"1"))
    assert bench.link is not None
    assert bench.link.inbox == b""


def test_removing_one_spares_another_that_is_on_its_way(bench: Bench) -> None:
    one, two = bench.watcher("one"), bench.watcher("two")
    bench.do(bench.zk.get_data("/a", watch=one))
    bench.begin(bench.zk.get_data("/a", watch=two))
    bench.do(bench.zk.remove_watches("/a", one))
    bench.log.clear()
    bench.do(bench.zk.set_data("/a", b"1"))
    assert bench.events() == ["NodeDataChanged /a"]


def test_remove_what_is_not_there(bench: Bench) -> None:
    with pytest.raises(NoWatcher, match="/a"):
        bench.do(bench.zk.remove_watches("/a"))
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("w")))
    with pytest.raises(NoWatcher):
        bench.do(bench.zk.remove_watches("/a", type=WatcherType.CHILDREN))
    with pytest.raises(NoWatcher):
        bench.do(bench.zk.remove_watches("/a", bench.watcher("another")))


def test_remove_without_a_server(bench: Bench) -> None:
    bench.do(bench.zk.add_watch("/a", bench.watcher("w")))
    bench.close_door(None)
    bench.log.clear()
    call = bench.begin(bench.zk.remove_watches("/a"))
    bench.pass_time(300)
    with pytest.raises(ConnectionLoss):
        call.value()
    bench.events()
    bench.do(bench.zk.remove_watches("/a", local=True))
    assert bench.events() == ["PersistentWatchRemoved /a"]
    with pytest.raises(NoWatcher):
        bench.do(bench.zk.remove_watches("/a", local=True))
    bench.open_doors()
    bench.pass_time(2000)
    bench.do(bench.zk.set_data("/a", b"1"))
    assert bench.events("w") == []


# Chroot


def test_paths_in_events_are_below_the_chroot() -> None:
    bench = Bench(chroot="/app")
    other = second(bench)
    for path in ("/app", "/app/a", "/appendix"):
        other.do(other.zk.create(path))
    bench.do(bench.zk.add_watch("/", bench.watcher("tree")))
    bench.do(bench.zk.get_data("/a", watch=bench.watcher("data")))
    bench.log.clear()
    for path in ("/app", "/app/a", "/appendix"):
        other.do(other.zk.set_data(path, b"1"))
    bench.settle()
    log = [(who, brief(what)) for who, what in bench.log]
    assert log == [
        ("tree", "NodeDataChanged /"),
        ("data", "NodeDataChanged /a"),
        ("tree", "NodeDataChanged /a"),
    ]
    bench.cut()
    bench.pass_time(300)
    bench.log.clear()
    other.do(other.zk.set_data("/app/a", b"2"))
    bench.settle()
    assert bench.events() == ["NodeDataChanged /a"]
    bench.do(bench.zk.remove_watches("/"))
    assert bench.events() == ["PersistentWatchRemoved /"]


def test_the_configuration_is_outside_of_every_chroot() -> None:
    bench = Bench(chroot="/app")
    watcher = bench.watcher("w")
    assert bench.do(bench.zk.get_config(watch=watcher))[0] == b""
    assert list(bench.core.watches.kinds[DATA]) == ["/zookeeper/config"]
    notice(bench.core, EventType.NODE_DATA_CHANGED, "/zookeeper/config")
    bench.settle()
    assert bench.events() == ["SyncConnected", "NodeDataChanged /zookeeper/config"]


def notice(core: ClientCnxn, type_: int, path: str) -> None:
    """A watch event, as if from the server."""
    payload = ReplyHeader(-1, 5, 0).encode() + WatcherEvent(type_, 3, path).encode()
    core.received(frame(payload), core.last_heard_ms)


def test_an_event_nobody_waits_for_is_no_harm(bench: Bench) -> None:
    notice(bench.core, EventType.NODE_DATA_CHANGED, "/a")
    notice(bench.core, 99, "/a")
    bench.settle()
    assert bench.events() == []
    assert bench.is_connected


def test_event_text_is_that_of_zkcli() -> None:
    event = WatchedEvent(EventType.NODE_DELETED, 3, "/master", 9)
    assert str(event) == "WatchedEvent state:SyncConnected type:NodeDeleted path:/master zxid: 9"
    event = WatchedEvent(EventType.NONE, -112)
    assert str(event) == "WatchedEvent state:Expired type:None path:null zxid: -1"
