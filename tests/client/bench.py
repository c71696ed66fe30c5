"""A ClientCnxn with servers, without sockets and clock, and the operations run over it.

`Bench` does what the client's shell does, when the test says so. The servers are one `Machine`
behind several addresses, which is what an ensemble looks like from outside; an address can refuse,
or be silent. Everything the client has to tell is in `log`, in order.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from random import Random
from typing import Any

from tests.server.machine import START_MS, Client, Machine

from zkpy.client.core import NEVER, ClientCnxn
from zkpy.client.effects import Dial, HangUp, Notice, Probe, Request
from zkpy.client.events import States, WatchedEvent, Watcher
from zkpy.client.hosts import Address, HostProvider
from zkpy.client.operations import Operations
from zkpy.protocol.errors import KeeperError

UP, REFUSING, SILENT = "up", "refusing", "silent"


class Waiting:
    """Suspends a call until its request is answered."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def __await__(self) -> Generator[Request, None, Any]:
        yield self.request
        if self.request.error is not None:
            raise self.request.error
        return self.request.result


class Call:
    """An operation under way, or what came of it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.request: Request | None = None
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def step(self) -> None:
        try:
            self.request = self.coroutine.send(None)
        except StopIteration as stop:
            self.done, self.result = True, stop.value
        except (KeeperError, ValueError) as error:
            self.done, self.error = True, error

    def value(self) -> Any:
        assert self.done, "not answered"
        if self.error is not None:
            raise self.error
        return self.result


class Operator(Operations):
    """The operations of the bench's client."""

    def __init__(self, bench: Bench, chroot: str) -> None:
        self.bench = bench
        self.chroot = chroot
        self.watcher: Watcher | None = bench.watcher("default")
        self._core = bench.core

    async def _submit(self, request: Request) -> Any:
        self.bench.core.submit(request, self.bench.now_ms)
        return await Waiting(request)


class Bench:
    """A client, started. `log` has ("state", s), (watcher's name, event) and ("done", call)."""

    def __init__(
        self,
        servers: int = 1,
        seed: int = 1,
        machine: Machine | None = None,
        start: bool = True,
        timeout_ms: int = 10_000,
        **options: Any,
    ) -> None:
        self.machine = machine or Machine()
        self.addresses: list[Address] = [("server", number) for number in range(1, servers + 1)]
        self.doors = dict.fromkeys(self.addresses, UP)
        rng = Random(seed)
        hosts = HostProvider(self.addresses, rng)
        self.core = ClientCnxn(hosts, timeout_ms, rng, **options)
        self.link: Client | None = None
        self.at: Address | None = None
        self.dialled: list[tuple[int, Address]] = []
        self.probed: list[tuple[int, Address]] = []
        self.sent = bytearray()
        self.log: list[tuple[str, Any]] = []
        self.watchers: dict[str, Watcher] = {}
        self.calls: dict[int, Call] = {}
        self.chunk = 1 << 30  # how many bytes arrive at once
        self.zk = Operator(self, options.get("chroot", ""))
        if start:
            self.core.start(self.now_ms)
            self.settle()

    @property
    def now_ms(self) -> int:
        return self.machine.server.now_ms - START_MS

    def watcher(self, name: str) -> Watcher:
        """A watcher that writes into the log; one per name."""

        def told(event: WatchedEvent) -> None:
            self.log.append((name, event))

        return self.watchers.setdefault(name, told)

    # What the shell does

    def settle(self) -> None:
        """Carry things on until both sides are at rest."""
        for _ in range(10_000):
            if not self.turn():
                return
        raise AssertionError("the client never comes to rest")

    def turn(self) -> bool:
        """One round; False if there was nothing to do."""
        core, busy = self.core, False
        if core.output and self.link is not None:
            data = core.take_output()
            self.sent += data
            self.link.feed(data)
            busy = True
        for delivery in core.take_deliveries():
            self.deliver(delivery)
            busy = True
        for effect in core.take_effects():
            self.perform(effect)
            busy = True
        return self.carry() or busy

    def carry(self) -> bool:
        """What the server has sent arrives."""
        self.machine.flush()
        link = self.link
        if link is None:
            return False
        data = bytes(link.inbox)
        link.inbox.clear()
        for start in range(0, len(data), self.chunk):
            if self.link is link:
                self.core.received(data[start : start + self.chunk], self.now_ms)
        if link.closed and self.link is link:
            self.link = None
            self.core.lost("", self.now_ms)
        return bool(data) or link.closed

    def deliver(self, delivery: object) -> None:
        if isinstance(delivery, Request):
            call = self.calls.pop(id(delivery), None)
            if call is not None:
                call.step()
                self.note(call)
        elif isinstance(delivery, Notice):
            for watcher in delivery.watchers:
                watcher(delivery.event)
            if delivery.event.path is None and self.zk.watcher is not None:
                self.zk.watcher(delivery.event)
        else:
            self.log.append(("state", getattr(delivery, "state")))  # noqa: B009

    def note(self, call: Call) -> None:
        if call.done:
            self.log.append(("done", call))
        else:
            assert call.request is not None
            self.calls[id(call.request)] = call

    def perform(self, effect: object) -> None:
        if isinstance(effect, Dial):
            self.dialled.append((self.now_ms, effect.address))
            door = self.doors[effect.address]
            if door == UP:
                self.link = self.machine.plain()
                self.at = effect.address
                self.core.connected(self.now_ms)
            elif door == REFUSING:
                self.core.lost("Connection refused", self.now_ms)
        elif isinstance(effect, Probe):
            self.probed.append((self.now_ms, effect.address))
            if self.doors[effect.address] == UP:
                answer = self.machine.four_letter_word("isro").encode()
                self.core.probed(effect.address, answer.strip(), self.now_ms)
        else:
            assert isinstance(effect, HangUp)
            link, self.link, self.at = self.link, None, None
            if link is not None and not link.closed:
                link.drop()

    def pass_time(self, duration_ms: int) -> None:
        """Let time pass for both sides."""
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            step = min(self.core.deadline(), end_ms, self.now_ms + 1000) - self.now_ms
            self.machine.advance(max(step, 1))
            self.carry()
            self.core.tick(self.now_ms)
            self.settle()

    # What happens

    def cut(self) -> None:
        """The connection breaks; what is on its way is lost."""
        link, self.link = self.link, None
        if link is not None:
            link.inbox.clear()
            link.drop()
            self.core.lost("Connection reset by peer", self.now_ms)

    def close_door(self, address: Address | None, state: str = REFUSING) -> None:
        """That server (None: all) is gone, with its connections."""
        for each in self.addresses if address is None else [address]:
            self.doors[each] = state
            if each == self.at:
                self.cut()

    def open_doors(self) -> None:
        self.doors = dict.fromkeys(self.addresses, UP)

    def expire(self) -> None:
        """Keep the client away until the server has given up its session."""
        self.close_door(None)
        self.settle()
        self.machine.advance(self.core.timeout_ms * 3)
        self.open_doors()
        self.pass_time(5_000)

    # Operations

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Call:
        """Submit a request; nothing arrives anywhere yet."""
        call = Call(coroutine)
        call.step()
        self.note(call)
        return call

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Submit a request and return what comes of it, or raise that."""
        call = self.begin(coroutine)
        self.settle()
        return call.value()

    def events(self, name: str | None = None) -> list[str]:
        """What the watchers of that name, or all, were told since the last look, as text."""
        found = [(who, what) for who, what in self.log if isinstance(what, WatchedEvent)]
        self.log = [entry for entry in self.log if not isinstance(entry[1], WatchedEvent)]
        return [brief(what) for who, what in found if name in (None, who)]

    def states(self) -> list[str]:
        """The states since the last look."""
        found = [what for who, what in self.log if who == "state"]
        self.log = [entry for entry in self.log if entry[0] != "state"]
        return found

    @property
    def is_connected(self) -> bool:
        return self.core.state in (States.CONNECTED, States.CONNECTEDREADONLY)

    @property
    def idle(self) -> bool:
        return self.core.deadline() == NEVER


def brief(event: WatchedEvent) -> str:
    return event.state_name if event.path is None else f"{event.type_name} {event.path}"


def in_order(log: Sequence[tuple[str, Any]]) -> list[str]:
    """The log as text: "done" for answers, names of states, events."""
    return [
        what if who == "state" else "done" if who == "done" else f"{who}: {brief(what)}"
        for who, what in log
    ]
