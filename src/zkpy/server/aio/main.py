"""Start and stop of a standalone server: directories, core, log thread, sockets.

`Server` can be embedded in any asyncio program; `process.py` makes a process of it.
Source: ZooKeeperServerMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import NoSnapshot, PersistenceError
from zkpy.persistence.store import FileTxnSnapLog
from zkpy.quorum.standalone import Standalone
from zkpy.server.aio.client_port import ClientListener, Poller
from zkpy.server.aio.environment import OsEnvironment
from zkpy.server.aio.purge import DatadirCleanupManager
from zkpy.server.aio.runner import Runner
from zkpy.server.aio.snapshots import Snapshots
from zkpy.server.aio.sockets import DEFAULT_BACKLOG, bound_socket
from zkpy.server.aio.wiring import registry_of, settings_of
from zkpy.server.zkserver import ZooKeeperServer

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk
    from zkpy.persistence.store import LoadedDatabase
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)

# Clients that are told of the end get a quarter of a second to take it, and what was sent before.
LINGER_TURNS: Final = 50
LINGER_TURN_SECONDS: Final = 0.005


class Server:
    """A standalone ZooKeeper server.

    server = Server(config)
    await server.start()      # serving on server.port; raises what keeps it from starting
    await server.wait()       # until stop(); raises what keeps it from going on
    await server.stop()

    Several may run on one loop. `disk` is where the data is, the operating system's by default.
    """

    def __init__(self, config: Config, disk: Disk | None = None) -> None:
        if not __debug__:
            raise RuntimeError("not with python -O: assertions guard the data")
        self.config = config
        self.port = 0
        self.environment = OsEnvironment(config)
        self._disk = disk or OsDisk()
        self._store: FileTxnSnapLog | None = None
        self._runner: Runner | None = None
        self._snapshots: Snapshots | None = None
        self._purge: DatadirCleanupManager | None = None
        self._listener: ClientListener | None = None
        self._stopped: asyncio.Future[None] | None = None

    @property
    def zookeeper(self) -> ZooKeeperServer:
        """The core, while it runs."""
        assert self._runner is not None, "not started"
        return self._runner.server

    async def start(self) -> None:
        """Load the data, then serve. The loop is held while a large database is loaded.

        Raises PersistenceError and OSError; then nothing is left behind.
        """
        assert self._store is None, "started before"
        config = self.config
        self._store = store = FileTxnSnapLog(self._disk, settings_of(config))
        sock: socket.socket | None = None
        try:
            store.open()
            if config.client_port is not None:
                # Before the data is loaded, which may take a while: whoever comes too early is
                # refused and tries elsewhere, and a port that is taken is found out at once.
                sock = bound_socket(config.client_port_address, config.client_port)
                self.port = self.environment.bound_client_port = sock.getsockname()[1]
                log.info("binding to port %s:%s", config.client_port_address, self.port)
            await self._run(store, sock)
        except BaseException:
            if sock is not None:
                sock.close()
            await self.stop()
            raise

    async def _run(self, store: FileTxnSnapLog, sock: socket.socket | None) -> None:
        loop = asyncio.get_running_loop()
        config = self.config
        started = time.monotonic()
        first_txn = _FirstTxn()
        loaded = store.restore(first_txn)
        if loaded.last_zxid < 0:
            raise NoSnapshot(
                f"{store.snap_directory} has no database and zookeeper.db.autocreate is false; if "
                f"it is meant to be empty, create the file {config.data_dir}/initialize"
            )
        loaded_ms = int((time.monotonic() - started) * 1000)
        log.info(
            "Snapshot loaded in %d ms, highest zxid is 0x%x, digest is %d",
            loaded_ms,
            loaded.last_zxid,
            loaded.tree.digest,
        )
        server = self._new_core(loaded)
        stats = server.stats
        stats.record("dbinittime", loaded_ms)
        replay_ms = first_txn.elapsed_ms()
        stats.record("startup_snap_load_time", loaded_ms - replay_ms)
        if loaded.txns_replayed:
            stats.record("startup_txns_loaded", loaded.txns_replayed)
            stats.record("startup_txns_load_time", replay_ms)
        if loaded.digest_mismatches:
            stats.count("digest_mismatches_count", loaded.digest_mismatches)
        stopped = self._stopped = loop.create_future()
        snapshots = Snapshots(store.snap, loaded.tree, config, stats, loop, self._failed)
        self._snapshots = snapshots
        self._runner = runner = Runner(server, store.log, snapshots, stopped)
        poller = Poller(runner)
        runner.start(poller)
        if sock is not None:
            backlog = config.client_port_listen_backlog
            sock.listen(backlog if backlog > 0 else DEFAULT_BACKLOG)
            self._listener = ClientListener(poller, sock)
        self._purge = DatadirCleanupManager(store, config, loop, self._disk)
        self._purge.start()
        if loaded.snapshot_zxid != loaded.last_zxid or loaded.snapshot_needed:
            # What was replayed once need not be again; in slices, while clients are served.
            snapshots.start()

    def _new_core(self, loaded: LoadedDatabase) -> ZooKeeperServer:
        config = self.config
        tree = loaded.tree
        for path in tree.kill_dead_sessions():
            log.warning("deleted %s: its session is not there any more", path)
        server = ZooKeeperServer(
            config,
            tree,
            Standalone(tree.last_processed_zxid),
            registry_of(config),
            now_ms=int(time.monotonic() * 1000),
            wall_ms=int(time.time() * 1000),
        )
        server.environment = self.environment
        log.info(
            "Created server with tickTime %d ms minSessionTimeout %d ms maxSessionTimeout %d ms "
            "clientPortListenBacklog %d dataLogdir %s snapdir %s",
            config.tick_time_ms,
            config.min_session_timeout_ms,
            config.max_session_timeout_ms,
            config.client_port_listen_backlog,
            self.environment.log_dir(),
            self.environment.data_dir(),
        )
        return server

    def _failed(self, error: BaseException) -> None:
        assert self._runner is not None, "snapshots are taken while it runs"
        self._runner.fail(error)

    async def wait(self) -> None:
        """Return when the server has been stopped; raise what keeps it from going on."""
        assert self._stopped is not None, "not started"
        await asyncio.shield(self._stopped)

    async def stop(self) -> None:
        """Stop serving; what was proposed is made durable, and answered.

        Returns once every socket, thread and lock is gone, for which the disk has to answer.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        snapshots, self._snapshots = self._snapshots, None
        if snapshots is not None:
            snapshots.abort()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.close()
            await self._linger(runner)
        if snapshots is not None:
            await snapshots.ended()
        purge, self._purge = self._purge, None
        if purge is not None:
            await purge.stop()
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except PersistenceError as error:
                log.warning("closing the log: %s", error)
        stopped = self._stopped
        if stopped is not None and not stopped.done():
            stopped.set_result(None)
        elif stopped is not None:
            stopped.exception()  # whoever waits has it; nobody else need hear of it

    async def _linger(self, runner: Runner) -> None:
        """Let the clients take the last replies: closing at once may make a reset of them."""
        for _ in range(LINGER_TURNS):
            if runner.poller is None or not runner.poller.clients():
                break
            await asyncio.sleep(LINGER_TURN_SECONDS)
        runner.close_sockets()


class _FirstTxn:
    """Notes when the snapshot was loaded and the log's turn began."""

    def __init__(self) -> None:
        self._time = 0.0

    def __call__(self, *_txn: object) -> None:
        if not self._time:
            self._time = time.monotonic()

    def elapsed_ms(self) -> int:
        """Since the first txn; 0 if there was none."""
        return int((time.monotonic() - self._time) * 1000) if self._time else 0
