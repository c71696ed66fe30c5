"""Start and stop of a standalone server: directories, core, log thread, sockets.

`Server` can be embedded in any asyncio program; `run` is the process of its own.
Source: ZooKeeperServerMain, QuorumPeerMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import DiskWriteError, PersistenceError
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol.config_error import UNEXPECTED
from zkpy.quorum.standalone import Standalone
from zkpy.server.aio.client_port import ClientListener, Poller
from zkpy.server.aio.environment import OsEnvironment
from zkpy.server.aio.runner import Runner
from zkpy.server.aio.snapshots import Snapshots
from zkpy.server.zkserver import ZooKeeperServer
from zkpy.session.auth import (
    AuthenticationProvider,
    DigestAuthenticationProvider,
    EnsembleAuthenticationProvider,
    IPAuthenticationProvider,
    ProviderRegistry,
)

if TYPE_CHECKING:
    from zkpy.persistence.store import LoadedDatabase
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)

# The reference asks for 50, which a burst of reconnecting clients overruns.
DEFAULT_BACKLOG: Final = 1024
ANY_ADDRESSES: Final = frozenset({"", "0.0.0.0", "::"})
# Nodes live long and hold no cycles: young objects are looked at often, old ones never, since a
# full collection over a million nodes would hold the loop for a second.
GC_THRESHOLDS: Final = (10_000, 5, 1_000_000)
STOP_SECONDS: Final = 1.5


class Server:
    """A standalone ZooKeeper server.

    server = Server(config)
    await server.start()      # serving on server.port
    await server.wait()       # until stop(), or until it cannot go on: then raises
    await server.stop()
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.port = 0
        self.environment = OsEnvironment(config)
        self._store: FileTxnSnapLog | None = None
        self._runner: Runner | None = None
        self._snapshots: Snapshots | None = None
        self._poller: Poller | None = None
        self._listeners: list[ClientListener] = []

    @property
    def zookeeper(self) -> ZooKeeperServer:
        """The core, once started."""
        assert self._runner is not None, "not started"
        return self._runner.server

    async def start(self) -> None:
        """Load the data, then serve. Raises PersistenceError and OSError; then nothing is left."""
        loop = asyncio.get_running_loop()
        config = self.config
        self._store = store = FileTxnSnapLog(OsDisk(), settings_of(config))
        try:
            store.open()
            loaded = store.restore()
            server = self._new_core(loaded)
            self._snapshots = snapshots = Snapshots(
                store.snap, loaded.tree, config, loop, self._failed
            )
            self._runner = runner = Runner(server, store.log, snapshots, loop)
            self._poller = Poller(runner)
            runner.start()
            if config.client_port is not None:
                self._listen(self._poller, config.client_port_address, config.client_port)
        except BaseException:
            await self.stop()
            raise
        if loaded.txns_replayed or loaded.snapshot_needed:
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
        gc.freeze()
        return server

    def _listen(self, poller: Poller, host: str, port: int) -> None:
        backlog = self.config.client_port_listen_backlog
        sock = listening_socket(host, port, backlog if backlog > 0 else DEFAULT_BACKLOG)
        listener = ClientListener(poller, sock)
        self._listeners.append(listener)
        self.port = self.environment.bound_client_port = listener.port
        log.info("binding to port %s:%s", host or "0.0.0.0", self.port)

    def _failed(self, error: BaseException) -> None:
        if self._runner is not None:
            self._runner.fail(error)

    async def wait(self) -> None:
        """Return when `stop` is called; raise what keeps the server from going on."""
        assert self._runner is not None, "not started"
        await asyncio.shield(self._runner.stopped)

    async def stop(self) -> None:
        """Stop serving; what was proposed is made durable, and answered."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._snapshots is not None:
            self._snapshots.stop()
        if self._runner is not None:
            await self._close_clients(self._runner)
            self._runner = None
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        if self._store is not None:
            store, self._store = self._store, None
            store.close()

    async def _close_clients(self, runner: Runner) -> None:
        runner.close()
        if self._poller is not None:
            for port in self._poller.clients():
                port.close()
        await asyncio.sleep(0)
        if not runner.stopped.done():
            runner.stopped.set_result(None)
        elif not runner.stopped.cancelled():
            runner.stopped.exception()  # whoever waits has it; nobody else need hear of it


def settings_of(config: Config) -> Settings:
    """The part of the configuration that is about files."""
    return Settings(
        data_dir=config.data_dir,
        data_log_dir=config.data_log_dir,
        preallocate_bytes=max(0, config.pre_alloc_size_kib) * 1024,
        force_sync=config.force_sync,
        txn_log_size_limit_bytes=config.txn_log_size_limit_kib * 1024,
        max_record_bytes=config.jute_max_buffer_bytes + config.jute_max_buffer_extra_size_bytes,
        compression_method=config.snapshot_compression_method,
        digest_enabled=config.digest_enabled,
        serialize_last_processed_zxid=config.serialize_last_processed_zxid_enabled,
        trust_empty_snapshot=config.snapshot_trust_empty,
        datadir_autocreate=config.datadir_autocreate,
        db_autocreate=config.db_autocreate,
        extended_types_enabled=config.extended_types_enabled,
        emulate_353_ttl_nodes=config.emulate_353_ttl_nodes,
    )


def registry_of(config: Config) -> ProviderRegistry:
    """The authentication providers that are configured."""
    providers: list[AuthenticationProvider] = [IPAuthenticationProvider()]
    if config.digest_auth_enabled:
        providers.append(
            DigestAuthenticationProvider(
                algorithm=config.digest_alg, super_digest=config.super_digest
            )
        )
    if "ensemble" in config.auth_providers.values():
        names = config.ensemble_auth_name
        providers.append(EnsembleAuthenticationProvider(names.split(",") if names else None))
    if config.skip_acl:
        log.warning('zookeeper.skipACL=="yes", ACL checks will be skipped')
    return ProviderRegistry(providers, skip_acl=config.skip_acl)


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A bound, listening TCP socket; any address means IPv4 and IPv6. Raises OSError."""
    if host in ANY_ADDRESSES and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


async def _serve(config: Config) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(config)
    await server.start()
    gc.set_threshold(*GC_THRESHOLDS)
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(server.wait())
    try:
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        stopping.cancel()
        failing.cancel()
        await server.stop()
    log.info("shut down")


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code, with the reason logged if not 0.

    The second value says it in one line for stderr.
    """
    for level, text in config.messages:
        log.log(level, "%s", text)
    try:
        asyncio.run(_serve(config))
    except PersistenceError as error:
        log.error("%s", error.stderr_line)
        return error.exit_code
    except OSError as error:
        log.error("%s: %s", UNEXPECTED, error.strerror or error)
        return 1
    return 0


__all__ = ["DiskWriteError", "Server", "listening_socket", "registry_of", "run", "settings_of"]
