"""A member of an ensemble as part of a program: start and stop, and the effects of its core.

    sockets of clients and peers, log thread, timers -> Member -> flush: log, peers, clients,
                                                                  then dials and listeners
Source: QuorumPeerMain, QuorumPeer, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from zkpy.persistence.errors import PersistenceError
from zkpy.quorum.effects import (
    ELECTION,
    ClosePeerPort,
    Dial,
    OpenPeerPort,
    RebindClientPort,
    RebindElectionPort,
    Stop,
)
from zkpy.server.aio.client_port import ClientListener, Poller
from zkpy.server.aio.election_port import ElectionPort, election_link
from zkpy.server.aio.main import Server
from zkpy.server.aio.purge import DatadirCleanupManager
from zkpy.server.aio.quorum_port import (
    PeerListener,
    PeerPort,
    address_text,
    bound_at,
    connect,
    listen_at,
)
from zkpy.server.aio.runner import Runner
from zkpy.server.aio.snapshots import Snapshots
from zkpy.server.aio.sockets import DEFAULT_BACKLOG
from zkpy.server.aio.wiring import registry_of
from zkpy.server.config_files import ConfigFiles
from zkpy.server.database import ZKDatabase
from zkpy.server.member import Member

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from zkpy.persistence.store import FileTxnSnapLog
    from zkpy.quorum.effects import Effect
    from zkpy.quorum.link import Link

log = logging.getLogger(__name__)

ANY_ADDRESS: Final = "0.0.0.0"
# Between two attempts at a client port that somebody else still has.
REBIND_SECONDS: Final = 1.0


class MemberStopped(PersistenceError):
    """The core has asked for the end of the process."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class MemberRunner(Runner):
    """One member on one event loop: a Runner whose server changes with the member's role."""

    def __init__(
        self,
        member: Member,
        store: FileTxnSnapLog,
        new_snapshots: Callable[[], Snapshots],
        stopped: asyncio.Future[None],
    ) -> None:
        self.member = member
        self._new_snapshots = new_snapshots
        super().__init__(member.server, store.log, new_snapshots(), stopped)
        self._durable_zxid = member.database.last_zxid
        self.peer_listeners: list[PeerListener] = []
        self.election_port: ElectionPort | None = None
        self.purge: DatadirCleanupManager | None = None
        self.rebind_client_port: Callable[[tuple[str, int]], None] = lambda address: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer_ms = 0
        member.database.quiesce = self._quiesce

    # ------------------------------------------------------------------ the core

    def member_changed(self) -> None:
        """Look, after a call into the member, whether another server serves the clients now."""
        self.server = self.member.server

    def read_clock(self) -> None:
        """Tell the core the time."""
        member = self.member
        member.now_ms = int(time.monotonic() * 1000)
        member.wall_ms = int(time.time() * 1000)
        server = self.server
        server.now_ms = member.now_ms
        server.wall_ms = member.wall_ms

    def call(self, call: Callable[[], object]) -> None:
        """Call into the member from outside a turn of the poller."""

        def guarded() -> None:
            self.read_clock()
            call()
            self.member_changed()
            self.flush()

        if not self.stopped.done():
            self._guarded(guarded)

    def _take_appended(self) -> list[tuple[int, bytes]]:
        appended = self.member.take_appended()
        self.member_changed()
        return appended

    def _tell_durable(self, zxid: int) -> None:
        self.member.durable(zxid)
        self.member_changed()

    def _quiesce(self) -> None:
        """The log and the snapshots are about to be cut: nobody else may be writing them."""
        self._snapshots.abort()
        self._snapshots.join()
        if self.purge is not None:
            self.purge.join()
        self.log_writer.quiesce()
        # What the thread has reported was of the time before: zxids may be used anew now.
        self._synced.clear()
        self._durable_zxid = -1

    # ------------------------------------------------------------------ effects

    def flush(self) -> None:
        """Perform what the core has asked for since the last flush."""
        self.woken = False
        appended = self._take_appended()
        # The peers first: their disks work while ours does.
        self._flush_links()
        if self._snapshots.tree is not self.member.database.tree:
            # What its thread has begun to name would come after what a leader sent, as the newest.
            self._snapshots.abort()
            self._snapshots.join()
            self._snapshots = self._new_snapshots()
        if appended:
            self._append(appended)
        self._flush_clients()
        for effect in self.member.take_effects():
            self._perform(effect)
        if self.member.outbox:
            self.wake()
        # Whoever serves has no timer that could not wait for the next tick; see `_set_timer`.
        if not self.server.serving and self.member.next_timer_ms() < self._timer_ms:
            self._reset_timer()

    def _flush_links(self) -> None:
        outbox = self.member.outbox
        while outbox:
            links, outbox[:] = outbox[:], []
            for link in links:
                link.dirty = False
                port = link.transport
                if port is None:
                    continue
                assert isinstance(port, PeerPort)
                if link.out:
                    out, link.out = link.out, bytearray()
                    port.send(out)
                if link.closed:
                    port.hang_up()
                elif not link.unsent and self.member.has_more(link):
                    # Not at once: others shall have their turn between two pieces.
                    self.loop.call_soon(self._guarded, partial(self._drained, link))

    def _drained(self, link: Link) -> None:
        if not link.closed and not link.out and not link.unsent:
            self.member.drained(link)
            if link.out:
                self.wake()

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Dial):
            self.new_task(self._dial(effect))
        elif isinstance(effect, OpenPeerPort):
            self._open_peer_port(effect)
        elif isinstance(effect, ClosePeerPort):
            self.close_peer_port()
        elif isinstance(effect, RebindElectionPort):
            if self.election_port is not None:
                self.election_port.rebind(effect.addresses)
        elif isinstance(effect, RebindClientPort):
            self.rebind_client_port(effect.address)
        elif isinstance(effect, Stop):
            self.fail(MemberStopped(effect.exit_code, effect.reason))

    def listen_addresses(self, addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Where to listen so that we are found at `addresses`, each once."""
        if self.member.config.quorum_listen_on_all_ips:
            addresses = [(ANY_ADDRESS, port) for _, port in addresses]
        return list(dict.fromkeys(addresses))

    def _open_peer_port(self, effect: OpenPeerPort) -> None:
        self.close_peer_port()
        self._opening = {
            self.new_task(self._listen_for_learners(address))
            for address in self.listen_addresses(effect.addresses)
        }

    async def _listen_for_learners(self, address: tuple[str, int]) -> None:
        """One of several addresses is enough: an interface or a name may be gone for a while."""
        member = self.member
        reason = ""
        try:
            self.peer_listeners.append(await listen_at(self, address, member.learner_accepted))
        except OSError as error:
            reason = error.strerror or str(error)
            log.error("Couldn't bind to %s: %s", address_text(address), reason)
        self._opening = {task for task in self._opening if task is not asyncio.current_task()}
        if not reason and len(self.peer_listeners) == 1:
            self.call(member.peer_port_open)
        elif not self.peer_listeners and not self._opening:
            self.call(lambda: member.peer_port_failed(reason))

    def close_peer_port(self) -> None:
        """Accept no more learners."""
        for task in self._opening:
            task.cancel()
        self._opening.clear()
        for listener in self.peer_listeners:
            listener.close()
        self.peer_listeners.clear()

    def new_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run beside the loop's turns until `close`; an exception of it ends the member."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    async def _dial(self, dial: Dial) -> None:
        member = self.member
        try:
            sock, address = await connect(dial)
        except OSError as error:
            reason = error.strerror or str(error)
            self.call(lambda: member.dial_failed(dial, reason))
            return
        if self.poller is None:
            sock.close()
            return
        if dial.purpose == ELECTION and member.config.tcp_keep_alive:
            import socket

            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link = member.new_link(address)
        PeerPort(self, sock, link)
        if dial.purpose == ELECTION:
            election_link(link, member.config)
        self.call(lambda: member.dialled(dial, link))

    # ------------------------------------------------------------------ time

    def _set_timer(self) -> None:
        self._timer_ms = self.member.next_timer_ms()
        delay = (self._timer_ms - time.monotonic() * 1000) / 1000 + 0.0005
        delay = min(max(delay, 0.001), self.member.config.tick_time_ms / 2000)
        self._timer = self.loop.call_later(delay, self._on_timer)

    def _reset_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_timer()

    def _tick(self) -> None:
        # As in Runner: what has arrived is heard before anybody is given up.
        if self.poller is not None:
            self.poller.catch_up()
        self.read_clock()
        self.member.tick()
        self.member_changed()
        self._timer_ms = 0
        self.flush()
        self._reset_timer()

    async def close(self) -> None:
        """As Runner; the peers see the end of their connections."""
        self.close_peer_port()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await super().close()


class MemberServer(Server):
    """A member of an ensemble; used as `Server` is."""

    _runner: MemberRunner | None
    _client_address: tuple[str, int] | None = None
    _rebinding: asyncio.Task[None] | None = None

    @property
    def member(self) -> Member:
        """The core, while it runs."""
        assert self._runner is not None, "not started"
        return self._runner.member

    async def _run(self, store: FileTxnSnapLog, sock: socket.socket | None) -> None:
        loop = asyncio.get_running_loop()
        config = self.config
        database = ZKDatabase(store, self._disk, config)
        database.load()
        files = None
        if config.reconfig_enabled and config.path:
            assert config.my_id is not None, "checked with the configuration"
            files = ConfigFiles(self._disk, config.path, config.my_id)
            if not config.dynamic_config_file:
                files.back_up()
        member = Member(
            config,
            database,
            registry_of(config),
            now_ms=int(time.monotonic() * 1000),
            wall_ms=int(time.time() * 1000),
            rng=Random(),
            environment=self.environment,
            config_files=files,
        )
        stopped = self._stopped = loop.create_future()

        def new_snapshots() -> Snapshots:
            tree = database.tree
            stats = member.server.stats
            self._snapshots = Snapshots(store.snap, tree, config, stats, loop, self._failed)
            return self._snapshots

        self._runner = runner = MemberRunner(member, store, new_snapshots, stopped)
        poller = Poller(runner)
        runner.start(poller)
        own = member.view.server(member.my_id)
        assert own is not None, "checked with the configuration"
        runner.election_port = ElectionPort(runner)
        await runner.election_port.bind(own.election_addresses)
        if sock is not None:
            self._listen(poller, sock)
            self._client_address = (config.client_port_address, self.port)
            runner.rebind_client_port = self._rebind_client_port
        self._purge = runner.purge = DatadirCleanupManager(store, config, loop, self._disk)
        self._purge.start()
        runner.call(member.start)

    def _listen(self, poller: Poller, sock: socket.socket) -> None:
        backlog = self.config.client_port_listen_backlog
        sock.listen(backlog if backlog > 0 else DEFAULT_BACKLOG)
        self._listener = ClientListener(poller, sock)

    def _rebind_client_port(self, address: tuple[str, int]) -> None:
        """A reconfig has moved our client port: somebody else may have the old one now."""
        runner = self._runner
        if runner is None or runner.poller is None:
            return
        if self._rebinding is not None:
            self._rebinding.cancel()
            self._rebinding = None
        if self._listener is not None:
            if address == self._client_address:
                return
            self._listener.close()
            self._listener = None
        self._rebinding = runner.new_task(self._bind_client_port(runner, address))

    async def _bind_client_port(self, runner: MemberRunner, address: tuple[str, int]) -> None:
        """Try until it is to be had. (The reference gives it up.)"""
        told = ""
        while True:
            try:
                sock = await bound_at(runner.loop, address)
                if runner.poller is None:
                    sock.close()
                    return
                try:
                    self._listen(runner.poller, sock)
                    break
                except OSError:
                    sock.close()
                    raise
            except OSError as error:
                reason = error.strerror or str(error)
            if reason != told:
                told = reason
                log.error("Error reconfiguring client port to %s:%s: %s", *address, reason)
            await asyncio.sleep(REBIND_SECONDS)
        log.info("binding to port %s:%s", *address)
        self._client_address = address
        self.port = self.environment.bound_client_port = address[1]

    async def stop(self) -> None:
        """As `Server.stop`."""
        runner = self._runner
        if runner is not None and runner.election_port is not None:
            runner.election_port.close()
        await super().stop()
