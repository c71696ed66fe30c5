"""A ServerLoop: a server's sockets are served at once, and asyncio misses nothing."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.server.aio.in_process import config_of
from tests.support import wire
from tests.support.rawclient import make, open_session

from zkpy.server.aio.event_loop import ServerLoop
from zkpy.server.aio.main import Server
from zkpy.testing.disk import SimulatedDisk


class Busy:
    """A descriptor that is always ready, and a count of the turns this makes."""

    def __init__(self, loop: ServerLoop) -> None:
        self.loop = loop
        self.turns = 0
        self.action = lambda: None
        self.epoll = select.epoll()
        self.fd = os.eventfd(1)
        self.epoll.register(self.fd, select.EPOLLIN)
        self.epoll.register(loop.turns.fileno(), select.EPOLLIN)
        loop.turns.attach(self.epoll, self.turn)

    def turn(self, events: list[tuple[int, int]]) -> None:
        for fd, _ in events:
            if fd == self.loop.turns.fileno():
                self.loop.turns.due = True
        self.turns += 1
        self.action()

    def close(self) -> None:
        self.loop.turns.detach()
        self.epoll.close()
        os.close(self.fd)


pytestmark = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="no epoll here")


@pytest.fixture
def loop() -> Iterator[ServerLoop]:
    loop = ServerLoop()
    yield loop
    loop.close()


@pytest.fixture
def busy(loop: ServerLoop) -> Iterator[Busy]:
    busy = Busy(loop)
    yield busy
    busy.close()


def test_timers_fire_on_time_among_turns(loop: ServerLoop, busy: Busy) -> None:
    begin = loop.time()
    loop.run_until_complete(asyncio.sleep(0.05))
    assert 0.05 <= loop.time() - begin < 0.5
    assert busy.turns > 50


def test_asyncio_is_passed_by_while_it_has_nothing_to_do(
    loop: ServerLoop, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    run_once = loop._run_once  # type: ignore[attr-defined]

    def counted() -> None:
        nonlocal rounds
        rounds += 1
        run_once()

    monkeypatch.setattr(loop, "_run_once", counted)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert rounds < 10 < busy.turns


def test_what_a_turn_schedules_comes_right_after_it(loop: ServerLoop, busy: Busy) -> None:
    future: asyncio.Future[int] = loop.create_future()

    def action() -> None:
        if busy.turns == 3:
            loop.call_soon(lambda: future.set_result(busy.turns))

    busy.action = action
    assert loop.run_until_complete(future) == 3


def test_a_timer_set_in_a_turn_is_not_forgotten(loop: ServerLoop, busy: Busy) -> None:
    future: asyncio.Future[None] = loop.create_future()

    def action() -> None:
        if busy.turns == 3:
            loop.call_later(0.01, future.set_result, None)
            os.eventfd_read(busy.fd)  # and nothing is ready any more

    busy.action = action
    begin = loop.time()
    loop.run_until_complete(asyncio.wait_for(future, 10))
    assert loop.time() - begin < 5


def test_threads_sockets_and_signals_get_through(loop: ServerLoop, busy: Busy) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    seen: list[str] = []

    async def all_of_them() -> None:
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append("signal"))
        threading.Timer(0.01, loop.call_soon_threadsafe, (lambda: seen.append("thread"),)).start()
        threading.Timer(0.02, theirs.send, (b"socket",)).start()
        threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        seen.append((await loop.sock_recv(ours, 100)).decode())
        while "signal" not in seen:
            await asyncio.sleep(0.005)
        ended.set()

    loop.run_until_complete(asyncio.wait_for(all_of_them(), 10))
    loop.remove_signal_handler(signal.SIGUSR1)
    ours.close()
    theirs.close()
    assert sorted(seen) == ["signal", "socket", "thread"]


def test_without_a_server_it_is_a_plain_loop(loop: ServerLoop) -> None:
    busy = Busy(loop)
    busy.close()
    begin = loop.time()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert 0.01 <= loop.time() - begin < 0.5
    assert busy.turns == 0


def test_a_server_that_closes_in_a_turn_gives_the_loop_back(loop: ServerLoop) -> None:
    busy = Busy(loop)
    busy.action = busy.close
    loop.run_until_complete(asyncio.sleep(0.01))
    assert busy.turns == 1
    assert not loop.turns.attached


def test_stop_is_heard_in_a_turn(loop: ServerLoop, busy: Busy) -> None:
    busy.action = lambda: loop.stop() if busy.turns == 3 else None
    loop.call_later(10, loop.stop)
    loop.run_forever()
    assert busy.turns == 3


@pytest.mark.patches
def test_a_core_too_broken_to_stop_is_the_programs_business(loop: ServerLoop) -> None:
    """As on any loop: its exception handler is told, and the loop goes on."""
    server, other = Server(config_of(), SimulatedDisk()), Server(config_of(), SimulatedDisk())
    told: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

    def broken(*_arguments: object) -> None:
        raise AssertionError("this cannot be")

    def use() -> None:
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(bytes(50))
            while not told:
                time.sleep(0.005)

    async def serve() -> None:
        await server.start()
        await other.start()
        server.zookeeper.received = server.zookeeper.close = broken  # type: ignore[method-assign]
        await asyncio.wait_for(asyncio.to_thread(use), 10)
        await asyncio.to_thread(lambda: open_session(("127.0.0.1", other.port)).close())
        await other.stop()

    loop.run_until_complete(serve())
    assert [str(error) for error in told] == ["this cannot be"]
    assert not loop.turns.attached


def test_two_servers_share_a_loop(loop: ServerLoop) -> None:
    servers = [Server(config_of(), SimulatedDisk()) for _ in range(2)]

    def use(port: int) -> bytes:
        client = open_session(("127.0.0.1", port))
        make(client, path := f"/{client.session.session_id}")
        client.value(wire.SET_DATA, wire.set_data(path, b"data"))
        data: bytes = client.value(wire.GET_DATA, wire.path_watch(path))[0]
        client.close()
        return data

    async def serve() -> None:
        for server in servers:
            await server.start()
        assert loop.turns.attached
        for server in servers:
            assert await asyncio.to_thread(use, server.port) == b"data"
        # The one that has the loop goes first; the other serves on.
        await servers[0].stop()
        assert not loop.turns.attached
        assert await asyncio.to_thread(use, servers[1].port) == b"data"
        await servers[1].stop()

    loop.run_until_complete(serve())
