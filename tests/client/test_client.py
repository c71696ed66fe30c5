"""ZooKeeper, the asyncio API: futures, timers and connections, in virtual time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.client.virtual import VirtualLoop, run
from tests.server.machine import Machine
from tests.server.test_readonly_server import RoleLess

from zkpy.client import (
    AddWatchMode,
    ConnectionLoss,
    CreateMode,
    EventsLost,
    EventStream,
    States,
    WatchedEvent,
    ZooKeeper,
)
from zkpy.client.client import _describe
from zkpy.datatree.tree import DataTree
from zkpy.protocol.errors import AuthFailed, NoNode, NotReadOnly, NoWatcher, SessionExpired
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer
from zkpy.server.role import Role

README = Path(__file__).parents[2] / "README.md"

Test = Callable[[VirtualLoop], Coroutine[Any, Any, None]]


def in_loop(test: Test) -> Callable[[], None]:
    def wrapped() -> None:
        run(test)

    wrapped.__doc__ = test.__doc__
    return wrapped


def client(hosts: str = "one", **options: Any) -> ZooKeeper:
    options.setdefault("session_timeout_ms", 10_000)
    return ZooKeeper(hosts, rng=Random(5), **options)


# The session


@in_loop
async def test_a_session(loop: VirtualLoop) -> None:
    states: list[str] = []
    zk = client("one:2181/app")
    zk.add_listener(states.append)
    assert (zk.state, zk.connected, zk.server) == (States.NOT_CONNECTED, False, None)
    async with zk as same:
        assert same is zk
        assert (zk.state, zk.connected, zk.server) == (States.CONNECTED, True, "one:2181")
        assert zk.session_id
        assert len(zk.session_password) == 16
        assert zk.session_timeout_ms == 10_000
        assert zk.chroot == "/app"
    assert states == ["CONNECTING", "CONNECTED", "CLOSED"]
    with pytest.raises(SessionExpired):
        await zk.exists("/")
    await zk.close()


@in_loop
async def test_operations_start_the_client_and_wait_for_the_connection(loop: VirtualLoop) -> None:
    zk = client()
    assert await zk.create("/a") == "/a"
    await zk.close()


@in_loop
async def test_a_client_that_never_started_can_be_closed(loop: VirtualLoop) -> None:
    zk = client()
    await zk.close()
    assert zk.state == States.CLOSED
    with pytest.raises(SessionExpired):
        await zk.connect()


@in_loop
async def test_connect_gives_up_in_time(loop: VirtualLoop) -> None:
    loop.refusing.add("one")
    zk = client()
    with pytest.raises(ConnectionLoss, match="one:2181: Connection refused"):
        await zk.connect(timeout=3)
    assert 3 <= loop.now < 3.1
    # It goes on trying.
    loop.refusing.clear()
    await zk.connect()
    await zk.close()
    with pytest.raises(ConnectionLoss):
        loop.silent.add("two")
        async with client("two"):
            pass


@in_loop
async def test_connect_can_be_cancelled(loop: VirtualLoop) -> None:
    loop.silent.add("one")

    async def use() -> None:
        async with client():
            raise AssertionError("connected")

    task = asyncio.create_task(use())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_loop
async def test_reconnecting(loop: VirtualLoop) -> None:
    states: list[str] = []
    async with client("one,two,three") as zk:
        await zk.create("/e", mode=CreateMode.EPHEMERAL)
        session_id = zk.session_id
        zk.add_listener(states.append)
        zk.add_listener(lambda state: None)
        first = loop.dialled[-1][0]
        asked = asyncio.create_task(zk.exists("/e"))
        await asyncio.sleep(0)
        loop.stop_server(first)
        waiting = asyncio.create_task(zk.exists("/e"))
        with pytest.raises(ConnectionLoss, match="/e"):
            await asked
        assert await waiting is not None, "not sent before, so it could wait"
        assert zk.session_id == session_id
        assert zk.server is not None
        assert not zk.server.startswith(first + ":")
        assert states == ["CONNECTING", "CONNECTED"]
        assert "Connection reset by peer" in zk.last_failure


@in_loop
async def test_who_listens_can_stop_doing_so(loop: VirtualLoop) -> None:
    states: list[str] = []
    zk = client()
    zk.add_listener(states.append)
    await zk.connect()
    zk.remove_listener(states.append)
    await zk.close()
    assert states == ["CONNECTING", "CONNECTED"]


@in_loop
async def test_an_idle_session_is_kept(loop: VirtualLoop) -> None:
    async with client() as zk:
        before = loop.writes
        await asyncio.sleep(100)
        assert zk.state == States.CONNECTED
        assert 29 <= loop.writes - before <= 31
        assert len(loop.dialled) == 1


@in_loop
async def test_a_server_that_falls_silent_is_left(loop: VirtualLoop) -> None:
    async with client("one,two") as zk:
        loop.transports[0].client.reads = False
        loop.transports[0].client.feed = lambda data: None  # type: ignore[method-assign]
        start = loop.now
        with pytest.raises(ConnectionLoss, match="no answer for"):
            await zk.exists("/")
        assert 6 < loop.now - start < 7
        assert await zk.exists("/") is not None


@in_loop
async def test_an_expired_session(loop: VirtualLoop) -> None:
    events: list[WatchedEvent] = []
    zk = client(watcher=events.append)
    await zk.connect()
    loop.stop_server("one")
    await asyncio.sleep(25)
    waiting = asyncio.create_task(zk.exists("/"))
    loop.refusing.clear()
    with pytest.raises(SessionExpired):
        await waiting
    assert zk.state == States.EXPIRED
    assert [event.state_name for event in events] == ["SyncConnected", "Disconnected", "Expired"]
    with pytest.raises(SessionExpired):
        await zk.wait_for(States.CONNECTED)
    await zk.close()
    assert zk.state == States.EXPIRED


@in_loop
async def test_a_session_goes_from_one_client_to_another(loop: VirtualLoop) -> None:
    first = client()
    await first.create("/e", mode=CreateMode.EPHEMERAL)
    second = client(session=(first.session_id, first.session_password))
    await second.connect()
    assert await second.get_ephemerals() == ["/e"]
    first._core.abandon()
    first._attend()
    await second.close()


@in_loop
async def test_refused_credentials(loop: VirtualLoop) -> None:
    zk = client()
    await zk.add_auth("digest", b"a:b")
    assert ("digest", "a") in await zk.who_am_i()
    with pytest.raises(AuthFailed):
        await zk.add_auth("nonsense", b"")
    assert zk.state == States.AUTH_FAILED
    with pytest.raises(AuthFailed):
        await zk.exists("/")
    await zk.close()
    zk = client(auth=[("nonsense", b"")])
    with pytest.raises(AuthFailed):
        await zk.exists("/")


@in_loop
async def test_the_ssl_context_is_used(loop: VirtualLoop) -> None:
    context = ssl.create_default_context()
    async with client(ssl=context):
        assert loop.contexts == [context]


@in_loop
async def test_names_that_nobody_knows(loop: VirtualLoop) -> None:
    loop.raising["one"] = socket.gaierror(-2, "Name or service not known")
    loop.raising["two"] = UnicodeError("label too long")
    zk = client("one,two")
    with pytest.raises(ConnectionLoss, match=r"Name or service not known|label too long"):
        await zk.exists("/")
    await zk.close()


@in_loop
async def test_who_hangs_up_at_once_is_noticed_at_once(loop: VirtualLoop) -> None:
    loop.greetings = {"one": b"", "two": b"220 mail ESMTP\r\n"}
    for host, reason in (("one", "closed without an answer"), ("two", "not a ZooKeeper server")):
        zk = client(host)
        with pytest.raises(ConnectionLoss, match=reason):
            await zk.exists("/")
        assert loop.now < 1
        await zk.close()


# Requests


@in_loop
async def test_what_is_asked_in_one_turn_is_one_write(loop: VirtualLoop) -> None:
    async with client() as zk:
        before = loop.writes
        await asyncio.gather(*(zk.create(f"/n{number}") for number in range(100)))
        assert loop.writes == before + 1
        assert len(await zk.get_children("/")) == 101


@in_loop
async def test_close_lets_what_was_asked_before_be_answered(loop: VirtualLoop) -> None:
    zk = client()
    await zk.connect()
    asked = [asyncio.create_task(zk.create(f"/n{number}")) for number in range(3)]
    await asyncio.sleep(0)
    await zk.close()
    assert [await task for task in asked] == ["/n0", "/n1", "/n2"]


@in_loop
async def test_a_cancelled_call_leaves_the_others_alone(loop: VirtualLoop) -> None:
    async with client() as zk:
        told: list[WatchedEvent] = []
        first = asyncio.create_task(zk.exists("/a", watch=told.append))
        second = asyncio.create_task(zk.create("/a"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "/a"
        assert first.cancelled()
        assert told == []
        async with asyncio.timeout(5):
            await zk.exists("/a")


@in_loop
async def test_a_time_limit(loop: VirtualLoop) -> None:
    loop.silent.add("one")
    zk = client()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await zk.create("/a")
    loop.silent.clear()
    loop.cut()
    await zk.connect(20)
    assert await zk.exists("/a") is None, "cancelled before it was sent"
    await zk.close()


@in_loop
async def test_close_can_be_cancelled(loop: VirtualLoop) -> None:
    zk = client()
    await zk.connect()
    loop.silent.add("one")
    loop.cut()
    await asyncio.sleep(1)
    closing = asyncio.create_task(zk.close())
    await asyncio.sleep(1)
    assert not closing.done()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert zk.state == States.CLOSED


@in_loop
async def test_two_may_close(loop: VirtualLoop) -> None:
    zk = client()
    await zk.connect()
    await asyncio.gather(zk.close(), zk.close())
    assert zk.state == States.CLOSED


# Read-only servers


def read_only_server(**settings: Any) -> RoleLess:
    class ReadOnly(Role):
        def read_only(self) -> bool:
            return True

    machine = RoleLess(ReadOnlyZooKeeperServer, **settings)
    machine.server.role = ReadOnly()
    return machine


def not_behind() -> Machine:
    """A server that knows what the read-only one knows."""
    tree = DataTree()
    tree.last_processed_zxid = 9
    return Machine(tree)


@in_loop
async def test_a_read_only_server_until_a_better_one_is_found(loop: VirtualLoop) -> None:
    states: list[str] = []
    loop.others["one"] = read_only_server(local_sessions_enabled=True)
    loop.machine = not_behind()
    loop.refusing.add("two")
    zk = client("one,two", read_only=True)
    zk.add_listener(states.append)
    async with zk:
        assert zk.state == States.CONNECTEDREADONLY
        assert (await zk.get_data("/a"))[0] == b"old"
        with pytest.raises(NotReadOnly):
            await zk.set_data("/a", b"new")
        local = zk.session_id
        await asyncio.sleep(20)
        assert zk.state == States.CONNECTEDREADONLY
        loop.refusing.clear()
        await zk.wait_for(States.CONNECTED)
        assert zk.server == "two:2181"
        assert zk.session_id != local
        await zk.create("/new")
    assert states == ["CONNECTING", "CONNECTEDREADONLY", "CONNECTING", "CONNECTED", "CLOSED"]


@in_loop
async def test_a_read_only_server_is_passed_over(loop: VirtualLoop) -> None:
    loop.others["one"] = read_only_server(local_sessions_enabled=True)
    loop.others["two"] = read_only_server()
    for hosts, read_only in (("one,three", False), ("two,three", True), ("two,three", False)):
        async with client(hosts, read_only=read_only) as zk:
            assert zk.server == "three:2181"


@in_loop
async def test_a_server_that_does_not_answer_the_question(loop: VirtualLoop) -> None:
    loop.others["one"] = read_only_server(local_sessions_enabled=True)
    loop.machine = not_behind()
    loop.silent.add("two")
    async with client("one,two", read_only=True) as zk:
        await asyncio.sleep(10)
        assert zk.state == States.CONNECTEDREADONLY
        loop.silent.clear()
        await zk.wait_for(States.CONNECTED)


# Watchers


@in_loop
async def test_a_watcher_is_called_before_who_awaits_the_change_goes_on(loop: VirtualLoop) -> None:
    async with client() as zk, client() as other:
        await zk.create("/a", b"0")
        told: list[WatchedEvent] = []
        data, _ = await zk.get_data("/a", watch=told.append)
        writing = asyncio.create_task(other.set_data("/a", b"1"))
        while data == b"0":
            assert not told or writing
            data, _ = await zk.get_data("/a")
            assert bool(told) >= (data == b"1")
        await writing


@in_loop
async def test_the_default_watcher_can_be_exchanged(loop: VirtualLoop) -> None:
    one: list[WatchedEvent] = []
    two: list[WatchedEvent] = []
    async with client(watcher=one.append) as zk:
        await zk.exists("/a", watch=True)
        zk.watcher = two.append
        await zk.exists("/a", watch=True)
        await zk.create("/a")
        zk.watcher = None
    assert [str(event.path) for event in one] == ["None"]
    assert [event.type_name for event in two] == ["NodeCreated"]


@in_loop
async def test_a_watcher_that_fails_stops_nobody(loop: VirtualLoop) -> None:
    def fail(event: WatchedEvent) -> None:
        raise RuntimeError("watcher")

    told: list[WatchedEvent] = []
    async with client() as zk:
        await zk.exists("/a", watch=fail)
        await zk.exists("/a", watch=told.append)
        zk.add_listener(fail)  # type: ignore[arg-type]
        await zk.create("/a")
        assert len(told) == 1


@in_loop
async def test_a_watcher_may_ask_again(loop: VirtualLoop) -> None:
    async with client() as zk:
        await zk.create("/a", b"0")
        seen: list[bytes | None] = []
        tasks = []

        def look(event: WatchedEvent | None = None) -> None:
            tasks.append(asyncio.ensure_future(read()))

        async def read() -> None:
            seen.append((await zk.get_data("/a", watch=look))[0])

        await read()
        for number in (b"1", b"2", b"3"):
            await zk.set_data("/a", number)
            await tasks[-1]
        assert seen == [b"0", b"1", b"2", b"3"]
        zk.watcher = None
        while tasks:
            await tasks.pop()
        await zk.remove_watches("/a", local=True)


# Streams


@in_loop
async def test_a_stream_of_everything_below_a_node(loop: VirtualLoop) -> None:
    async with client() as zk:
        await zk.create("/a")
        async with zk.watch("/a") as events:
            await zk.create("/a/b")
            await zk.set_data("/a/b", b"1")
            loop.cut()
            await zk.wait_for(States.CONNECTING)
            await zk.delete("/a/b")
            found = [str(await anext(events)) for _ in range(3)]
        assert [text.split("type:")[1].split(" zxid")[0] for text in found] == [
            "NodeCreated path:/a/b",
            "NodeDataChanged path:/a/b",
            "NodeDeleted path:/a/b",
        ]
        with pytest.raises(NoWatcher):
            await zk.remove_watches("/a")


@in_loop
async def test_a_stream_of_one_node(loop: VirtualLoop) -> None:
    async with client() as zk:
        async with zk.watch("/a", AddWatchMode.PERSISTENT) as events:
            await zk.create("/a")
            await zk.create("/a/b")
            assert (await anext(events)).type_name == "NodeCreated"
            assert (await anext(events)).type_name == "NodeChildrenChanged"


@in_loop
async def test_leaving_a_stream_without_a_connection_does_not_wait(loop: VirtualLoop) -> None:
    async with client() as zk:
        async with zk.watch("/"):
            loop.silent.add("one")
            loop.cut()
            await zk.wait_for(States.CONNECTING)
            start = loop.now
        assert loop.now == start
        assert zk._core.watches.all() == []
        loop.silent.clear()


@in_loop
async def test_a_stream_ends_with_its_client(loop: VirtualLoop) -> None:
    zk = client()
    found = []

    async def read() -> None:
        async with zk.watch("/") as events:
            async for event in events:
                found.append(event.path)

    reading = asyncio.create_task(read())
    await asyncio.sleep(1)
    await zk.create("/a")
    await zk.create("/b")
    await zk.close()
    await reading
    assert found == ["/a", "/b"]


@in_loop
async def test_a_stream_ends_with_its_session(loop: VirtualLoop) -> None:
    zk = client()
    events = EventStream(session_events=True)
    await zk.add_watch("/", events)
    await zk.create("/a")
    assert (await anext(events)).path == "/a"
    loop.stop_server("one")
    await asyncio.sleep(25)
    loop.refusing.clear()
    assert (await anext(events)).state_name == "Disconnected"
    assert (await anext(events)).state_name == "Expired"
    for _ in range(2):
        with pytest.raises(SessionExpired):
            await anext(events)
    await zk.close()


@in_loop
async def test_a_stream_that_nobody_reads_has_a_bound(loop: VirtualLoop) -> None:
    async with client() as zk:
        events = EventStream(limit=3)
        await zk.add_watch("/", events)
        for number in range(5):
            await zk.create(f"/{number}")
        assert [(await anext(events)).path for _ in range(3)] == ["/0", "/1", "/2"]
        with pytest.raises(EventsLost, match="3 events"):
            await anext(events)


# The documentation


def test_the_program_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    section = README.read_text(encoding="utf-8").split("## The Python client")[1]
    program = section.split("```python\n")[1].split("```")[0]
    assert program.endswith("asyncio.run(main())\n")
    names: dict[str, Any] = {}
    exec(program.removesuffix("asyncio.run(main())\n"), names)
    for _ in range(2):
        run(lambda loop: names["main"]())
    printed = capsys.readouterr().out.splitlines()[:3]
    assert [line.split(" zxid")[0] for line in printed] == [
        "WatchedEvent state:SyncConnected type:NodeDataChanged path:/config",
        "NodeDeleted /config/next",
        "there is no /none",
    ]


# What errors look like


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('::1', 2)"), "Connection refused"),
        (OSError("Multiple exceptions: [Errno 111] x, [Errno 111] y"), "Connection refused"),
        (OSError(113, "Connect call failed ('10.0.0.1', 2)"), "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version (_ssl.c:9)"), "wrong version"),
        (OSError(), "OSError"),
    ],
)
def test_one_line_says_what_went_wrong(error: Exception, text: str) -> None:
    assert _describe(error) == text


@in_loop
async def test_errors_have_the_path(loop: VirtualLoop) -> None:
    async with client(chroot="/app") as zk:
        with pytest.raises(NoNode) as caught:
            await zk.get_data("/a")
        assert str(caught.value) == "/a"


@pytest.mark.parametrize("hosts", ["", "a:b", "a/b/"])
def test_bad_hosts_are_told_at_once(hosts: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ZooKeeper(hosts)
    with pytest.raises(ValueError, match=r"must start with"):
        ZooKeeper("a", chroot="b")
