"""An event loop of virtual time, whose connections lead to a Machine: no sockets, no sleep.

Where asyncio would wait, the clock jumps to the next timer and the server lives through the same
time. A wait for nothing fails the test.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from tests.server.machine import START_MS, Client, Machine

from zkpy.client.hosts import Address

LATENCY_S = 0.001


class JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: lets time jump."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float], None] = lambda seconds: None

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout != 0:
            assert timeout is not None, "everybody waits for ever"
            self.jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """All hosts lead to one machine, but for `others` and those that refuse, keep silent, raise."""

    def __init__(self, machine: Machine) -> None:
        self.selector = JumpingSelector()
        self.selector.jump = self.jump
        self.machine = machine
        super().__init__(self.selector)
        self.now = 0.0
        self.others: dict[str, Machine] = {}
        self.refusing: set[str] = set()
        self.silent: set[str] = set()
        self.greetings: dict[str, bytes] = {}
        self.raising: dict[str, Exception] = {}
        self.transports: list[VirtualTransport] = []
        self.dialled: list[Address] = []
        self.contexts: list[Any] = []
        self.writes = 0

    def time(self) -> float:
        return self.now

    def jump(self, seconds: float) -> None:
        self.now += seconds
        self.keep_up()

    def keep_up(self) -> None:
        """The server's clock follows."""
        for machine in (self.machine, *self.others.values()):
            behind = int(self.now * 1000) - (machine.server.now_ms - START_MS)
            if behind > 0:
                machine.advance(behind)
            else:
                machine.flush()
        for transport in list(self.transports):
            transport.carry()

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, *, ssl: Any = None, **_: Any
    ) -> Any:
        self.dialled.append((host, port))
        self.contexts.append(ssl)
        await asyncio.sleep(LATENCY_S)
        if host in self.silent:
            await asyncio.sleep(1e6)
        if host in self.raising:
            raise self.raising[host]
        if host in self.refusing:
            raise ConnectionRefusedError(111, f"Connect call failed ('{host}', {port})")
        protocol = factory()
        transport = VirtualTransport(self, host, protocol)
        self.transports.append(transport)
        protocol.connection_made(transport)
        if host in self.greetings:
            # All that happens before create_connection returns.
            protocol.data_received(self.greetings[host])
            transport.abort()
            protocol.connection_lost(None)
            await asyncio.sleep(LATENCY_S)
        return transport, protocol

    def cut(self, host: str | None = None, error: Exception | None = None) -> None:
        """Connections break, those to `host` or all."""
        for transport in list(self.transports):
            if host in (None, transport.host):
                transport.client.inbox.clear()
                transport.client.drop()
                transport.ended(error or ConnectionResetError(104, "Connection reset by peer"))

    def stop_server(self, host: str) -> None:
        self.refusing.add(host)
        self.cut(host)


class VirtualTransport(asyncio.Transport):
    """The client's end of a connection."""

    def __init__(self, loop: VirtualLoop, host: str, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.loop = loop
        self.host = host
        self.protocol = protocol
        self.client: Client = loop.others.get(host, loop.machine).plain()
        self.over = False

    def write(self, data: Any) -> None:
        assert not self.over
        self.loop.writes += 1
        self.loop.call_later(LATENCY_S, self.arrive, bytes(data))

    def arrive(self, data: bytes) -> None:
        self.client.feed(data)
        self.loop.keep_up()

    def carry(self) -> None:
        """What the server has sent arrives, and its hanging up."""
        if self.over:
            return
        data = bytes(self.client.inbox)
        self.client.inbox.clear()
        if data:
            self.loop.call_soon(self.hand_over, data)
        if self.client.closed:
            self.ended(None)

    def hand_over(self, data: bytes) -> None:
        if not self.over:
            self.protocol.data_received(data)

    def ended(self, error: Exception | None) -> None:
        if not self.over:
            self.loop.transports.remove(self)
            self.loop.call_soon(self.tell_end, error)

    def tell_end(self, error: Exception | None) -> None:
        self.over = True
        self.protocol.connection_lost(error)

    def abort(self) -> None:
        if not self.over:
            self.over = True
            if self in self.loop.transports:
                self.loop.transports.remove(self)
            self.client.drop()

    def is_closing(self) -> bool:
        return self.over

    close = abort


def run(test: Callable[[VirtualLoop], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a coroutine in a loop of its own; at its end nothing of the client may be left."""
    loop = VirtualLoop(Machine(**settings))

    async def whole() -> None:
        await test(loop)
        await asyncio.sleep(0.1)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"
        assert not loop.transports, "connections left open"

    failures: list[Any] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(whole())
    assert not failures
