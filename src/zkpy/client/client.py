"""ZooKeeper: the asyncio API. Owns sockets, timers and futures; decisions are made in core.py.

    async with ZooKeeper("server1:2181,server2:2181") as zk:
        await zk.create("/config", b"on")
        data, stat = await zk.get_data("/config", watch=print)

Every call ends with its result, a KeeperError (ConnectionLoss and SessionExpired are such) or the
caller's cancellation. A ValueError means that nothing was sent. All of a client belongs to one
event loop. Watchers are called in the loop, in the order of the events, and each before the caller
who awaits an answer that shows the change goes on; what they raise is logged.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from logging import getLogger
from random import Random, SystemRandom
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from zkpy.client.core import NEVER, REPLY_LIMIT_BYTES, ClientCnxn
from zkpy.client.effects import Delivery, Dial, Effect, Notice, Probe, Request
from zkpy.client.errors import ConnectionLoss, EventsLost
from zkpy.client.events import (
    CONNECTED_STATES,
    FINAL_STATES,
    EventType,
    KeeperState,
    States,
    WatchedEvent,
    Watcher,
)
from zkpy.client.hosts import Address, HostProvider, format_address, parse_hosts
from zkpy.client.operations import Operations
from zkpy.client.paths import validate_path
from zkpy.protocol.errors import AuthFailed, NoWatcher, SessionExpired
from zkpy.protocol.records import AuthPacket
from zkpy.protocol.zoodefs import AddWatchMode, OpCode, WatcherType

if TYPE_CHECKING:
    from ssl import SSLContext

log = getLogger(__name__)

DEFAULT_SESSION_TIMEOUT_MS: Final = 30_000
# How long a server may take to say whether it can write.
PROBE_TIMEOUT_S: Final = 1.0

StateListener: TypeAlias = Callable[[str], object]


class ZooKeeper(Operations):
    """A session with an ensemble. Use it as a context manager, or `connect` and `close` it."""

    def __init__(
        self,
        hosts: str,
        session_timeout_ms: int = DEFAULT_SESSION_TIMEOUT_MS,
        watcher: Watcher | None = None,
        *,
        chroot: str = "",
        auth: Iterable[tuple[str, bytes]] = (),
        read_only: bool = False,
        ssl: SSLContext | None = None,
        session: tuple[int, bytes] | None = None,
        reply_limit: int = REPLY_LIMIT_BYTES,
        rng: Random | None = None,
    ) -> None:
        """Nothing happens yet. Raises ValueError on bad `hosts` or `chroot`.

        hosts: "host:port,host:port/chroot"; port 2181 and no chroot unless given.
        session_timeout_ms: asked for; the server has limits (`session_timeout_ms` says the result).
        watcher: the default watcher, who hears of the connection, and of nodes where `watch=True`.
        chroot: instead of the one in `hosts`; all paths are below it, and so are those in events.
        auth: (scheme, credentials) for each connection, as by `add_auth`.
        read_only: be content with a server that has lost its quorum, and look for a better one.
        ssl: for TLS.
        session: (session_id, session_password) of an earlier client, to go on with its session.
        reply_limit: bytes; a server that answers with more is given up.
        """
        servers, chroot_in_hosts = parse_hosts(hosts)
        if chroot:
            validate_path(chroot)
        self.hosts = hosts
        self.chroot = "" if chroot == "/" else chroot or chroot_in_hosts
        self.watcher = watcher
        self._ssl = ssl
        rng = rng or SystemRandom()
        self._core = ClientCnxn(
            HostProvider(servers, rng),
            session_timeout_ms,
            rng,
            chroot=self.chroot,
            auth=list(auth),
            read_only=read_only,
            session=session,
            reply_limit=reply_limit,
        )
        self._state: str = States.NOT_CONNECTED
        self._listeners: list[StateListener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._probes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = NEVER
        self._flush_scheduled = False

    # The session

    @property
    def state(self) -> str:
        """One of `States`, as far as listeners have been told."""
        return self._state

    @property
    def connected(self) -> bool:
        """Whether there is a session with a server, be it read-only."""
        return self._state in CONNECTED_STATES

    @property
    def session_id(self) -> int:
        """0 before there was a connection."""
        return self._core.session_id

    @property
    def session_password(self) -> bytes:
        """With `session_id` it lets another client take the session over; 16 bytes."""
        return self._core.password

    @property
    def session_timeout_ms(self) -> int:
        """What the server granted."""
        return self._core.timeout_ms

    @property
    def last_zxid(self) -> int:
        """The latest zxid of an answer."""
        return self._core.last_zxid

    @property
    def server(self) -> str | None:
        """host:port this client is connected to."""
        address = self._core.address
        return format_address(address) if self._core.is_connected and address else None

    @property
    def last_failure(self) -> str:
        """Which server could not be reached last, or was lost, and why; "" if none."""
        return self._core.last_failure

    def add_listener(self, listener: StateListener) -> None:
        """Call `listener(state)` on each change of the state."""
        self._listeners.append(listener)

    def remove_listener(self, listener: StateListener) -> None:
        """Undo `add_listener`. Raises ValueError if it was not added."""
        self._listeners.remove(listener)

    def start(self) -> None:
        """Begin to connect, in the running event loop; no waiting."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        if not self._core.ended:
            self._core.start(self._now_ms())
            self._attend()

    async def connect(self, timeout: float | None = None) -> Self:
        """Start, and wait for a session.

        timeout: seconds, as long as the session's timeout unless given.
        Raises ConnectionLoss when the time is up (the client goes on trying until it is closed),
        SessionExpired, AuthFailed.
        """
        self.start()
        if timeout is None:
            timeout = self._core.requested_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout):
                await self.wait_for(*CONNECTED_STATES)
        except TimeoutError:
            raise ConnectionLoss(None, self.last_failure or "no answer") from None
        return self

    async def wait_for(self, *states: str) -> str:
        """Wait until the state is one of these; returns it.

        Raises SessionExpired or AuthFailed when that can no longer be.
        """
        self.start()
        assert self._loop is not None
        reached: asyncio.Future[str] = self._loop.create_future()

        def look(state: str) -> None:
            if (state in states or state in FINAL_STATES) and not reached.done():
                reached.set_result(state)

        self.add_listener(look)
        try:
            look(self._state)
            state = await reached
        finally:
            self.remove_listener(look)
        if state not in states:
            raise AuthFailed() if state == States.AUTH_FAILED else SessionExpired()
        return state

    async def close(self) -> None:
        """End the session, with its ephemeral nodes; what was asked before is answered first.

        Without a connection the servers are tried once more; if none answers, the session is left
        to expire. Never raises anything but CancelledError, which ends the client at once.
        """
        if self._loop is None:
            self._core.abandon()
            self._state = self._core.state
            return
        try:
            self._core.close(self._now_ms())
            self._attend()
            if self._state not in FINAL_STATES:
                await self.wait_for(*FINAL_STATES)
        finally:
            self._core.abandon()
            self._attend()

    async def __aenter__(self) -> Self:
        try:
            return await self.connect()
        except BaseException:
            self._core.abandon()
            self._attend()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def add_auth(self, scheme: str, auth: bytes) -> None:
        """Identify as well as, say, ("digest", b"user:password"): now and on each reconnect.

        Raises AuthFailed if the server refuses, which ends this client.
        """
        body = AuthPacket(0, scheme, auth).encode()
        request = Request(OpCode.AUTH, body)
        future = self._future(request)
        self._core.add_auth(scheme, auth, request, self._now_ms())
        self._schedule_flush()
        await self._outcome(request, future)

    @asynccontextmanager
    async def watch(
        self, path: str, mode: int = AddWatchMode.PERSISTENT_RECURSIVE
    ) -> AsyncIterator[EventStream]:
        """`async with zk.watch(path) as events: async for event in events: ...`

        Watches as `add_watch` does, from the first line of the block to its end.
        """
        events = EventStream()
        recursive = mode == AddWatchMode.PERSISTENT_RECURSIVE
        await self.add_watch(path, events, mode)
        try:
            yield events
        finally:
            if self._state not in FINAL_STATES:
                kind = WatcherType.PERSISTENT_RECURSIVE if recursive else WatcherType.PERSISTENT
                try:
                    await self.remove_watches(path, events, kind, local=True)
                except (NoWatcher, SessionExpired, AuthFailed):
                    pass  # somebody else removed it, or all came to its end meanwhile

    # Requests

    async def _submit(self, request: Request) -> Any:
        future = self._future(request)
        self._core.submit(request, self._now_ms())
        self._schedule_flush()
        return await self._outcome(request, future)

    def _future(self, request: Request) -> asyncio.Future[Any]:
        if self._loop is None:
            self.start()
        assert self._loop is not None
        future = self._loop.create_future()
        request.owner = future
        return future

    async def _outcome(self, request: Request, future: asyncio.Future[Any]) -> Any:
        try:
            return await future
        except asyncio.CancelledError:
            request.cancelled = True
            raise

    # What the core wants done

    def _now_ms(self) -> int:
        assert self._loop is not None
        return int(self._loop.time() * 1000)

    def _schedule_flush(self) -> None:
        """Write at the end of this turn, once for all that is asked in it."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._attend()

    def _attend(self) -> None:
        """Carry out what the core has decided, until it wants nothing more."""
        core = self._core
        while True:
            if core.output and self._connection is not None:
                self._connection.write(core.take_output())
            if core.deliveries:
                for delivery in core.take_deliveries():
                    self._deliver(delivery)
            elif core.effects:
                for effect in core.take_effects():
                    self._perform(effect)
            else:
                break
        deadline_ms = core.deadline()
        if deadline_ms < self._timer_ms:
            self._set_timer(deadline_ms)

    def _deliver(self, delivery: Delivery) -> None:
        if isinstance(delivery, Request):
            future = delivery.owner
            if future is None or future.done():
                return
            if delivery.error is None:
                future.set_result(delivery.result)
            else:
                future.set_exception(delivery.error)
        elif isinstance(delivery, Notice):
            watchers = dict.fromkeys(delivery.watchers)
            if delivery.event.path is None and self.watcher is not None:
                watchers.setdefault(self._default_watcher)
            for watcher in watchers:
                self._tell(watcher, delivery.event)
        else:
            self._state = delivery.state
            session = self._core.session_id
            log.info("session %#x: %s %s", session, delivery.state, self.server or "")
            for listener in list(self._listeners):
                self._tell(listener, delivery.state)

    @staticmethod
    def _tell(whom: Callable[[Any], object], what: Any) -> None:
        try:
            whom(what)
        except Exception:
            log.exception("%r failed on %s", whom, what)

    def _perform(self, effect: Effect) -> None:
        assert self._loop is not None
        if isinstance(effect, Dial):
            self._connection = connection = _Connection(self)
            self._dialing = self._loop.create_task(self._dial(connection, effect.address))
        elif isinstance(effect, Probe):
            probe = self._loop.create_task(self._probe(effect.address))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.hang_up()
        dialing, self._dialing = self._dialing, None
        if dialing is not None:
            dialing.cancel()
        if self._core.ended:
            for probe in self._probes:
                probe.cancel()
            if self._timer is not None:
                self._timer.cancel()

    def _set_timer(self, deadline_ms: int) -> None:
        """Deadlines mostly move away; then the timer comes early, and is set anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = deadline_ms
        assert self._loop is not None
        # A millisecond more, as the core's clock rounds down.
        self._timer = self._loop.call_at((deadline_ms + 1) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_ms = None, NEVER
        self._core.tick(self._now_ms())
        self._attend()

    async def _dial(self, connection: _Connection, address: Address) -> None:
        assert self._loop is not None
        host, port = address
        try:
            await self._loop.create_connection(lambda: connection, host, port, ssl=self._ssl)
        except (OSError, UnicodeError) as error:
            self._on_lost(connection, error)
        except BaseException:
            connection.hang_up()
            raise

    async def _probe(self, address: Address) -> None:
        host, port = address
        answer = b""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port, ssl=self._ssl)
                try:
                    writer.write(b"isro")
                    answer = await reader.read(16)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return
        self._core.probed(address, answer.strip(), self._now_ms())
        self._attend()

    def _on_made(self, connection: _Connection) -> None:
        # At once, not when _dial goes on: who speaks or hangs up at once must not be missed.
        if connection is self._connection:
            self._core.connected(self._now_ms())
            self._attend()
        else:
            connection.hang_up()

    def _on_data(self, connection: _Connection, data: bytes) -> None:
        if connection is self._connection:
            self._core.received(data, self._now_ms())
            self._attend()

    def _on_lost(self, connection: _Connection, error: Exception | None) -> None:
        if connection is self._connection:
            self._connection = self._dialing = None
            reason = "" if error is None else _describe(error)
            self._core.lost(reason, self._now_ms())
            self._attend()


class _Connection(asyncio.Protocol):
    """One TCP or TLS connection: bytes in, bytes out."""

    def __init__(self, client: ZooKeeper) -> None:
        self.client = client
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.client._on_made(self)

    def data_received(self, data: bytes) -> None:
        self.client._on_data(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.client._on_lost(self, error)

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        """Close without waiting for what is not yet sent."""
        if self.transport is not None:
            self.transport.abort()


def _describe(error: Exception) -> str:
    """One line, without the address, which asyncio puts into some of its texts."""
    text = str(error)
    if found := re.search(r"\[Errno (\d+)\]", text):
        # Of several addresses of a host that all failed, the first speaks for all.
        return os.strerror(int(found[1]))
    return re.sub(r"^\[[^\]]*\] | \(_ssl\.c:\d+\)$", "", text) or type(error).__name__


class EventStream:
    """A watcher that is read: pass it where a watcher is taken, then `async for event in it`.

    Yields what happens to nodes, with `session_events` also what happens to the connection, in one
    task only. Ends when the client is closed. `limit` events may wait to be read.
    Raises SessionExpired, AuthFailed; EventsLost after what still was kept.
    """

    def __init__(self, limit: int = 10_000, session_events: bool = False) -> None:
        self.limit = limit
        self.session_events = session_events
        self._events: deque[WatchedEvent] = deque()
        self._end: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    def __call__(self, event: WatchedEvent) -> None:
        if self._end is not None:
            return
        if event.type == EventType.NONE:
            self._end = _ENDS.get(event.state, lambda: None)()
            if self._end is None and not self.session_events:
                return
        if len(self._events) >= self.limit:
            self._end = EventsLost(f"{self.limit} events were not read in time")
        elif event.type != EventType.NONE or self.session_events:
            self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchedEvent:
        while not self._events:
            if self._end is not None:
                raise self._end
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._events.popleft()


_ENDS: Final[dict[int, Callable[[], Exception | None]]] = {
    KeeperState.CLOSED: StopAsyncIteration,
    KeeperState.EXPIRED: SessionExpired,
    KeeperState.AUTH_FAILED: AuthFailed,
}
