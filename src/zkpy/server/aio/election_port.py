"""The election port: where other members connect to elect a leader.

Owns how often a port that is taken is tried again.
Source: QuorumCnxManager.Listener, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from zkpy.persistence.errors import PersistenceError
from zkpy.quorum.cnx_manager import address_text
from zkpy.server.aio.quorum_port import PeerListener, PeerPort, listen_at

if TYPE_CHECKING:
    from zkpy.quorum.link import Link
    from zkpy.server.aio.member import MemberRunner
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)

UNABLE_TO_BIND_QUORUM_PORT: Final = 14
RETRY_SECONDS: Final = 1.0


def election_link(link: Link, config: Config) -> None:
    """The socket of a new connection to another member's election is set as configured."""
    port = link.transport
    assert isinstance(port, PeerPort)
    port.give_up_after(config.quorum_cnxn_timeout_ms)


class UnableToBind(PersistenceError):
    """The election port could not be had; a member without it is none."""

    exit_code = UNABLE_TO_BIND_QUORUM_PORT


class ElectionPort:
    """Listens for other members; `close` ends it."""

    def __init__(self, runner: MemberRunner) -> None:
        self._runner = runner
        self._listeners: list[PeerListener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._rebinding: asyncio.Task[None] | None = None

    async def bind(self, addresses: list[tuple[str, int]]) -> None:
        """Return once one of `addresses` is listened on; the others are tried on.

        Each is tried again every second, its name looked up anew. Raises UnableToBind if none can
        be had in `electionPortBindRetry` attempts (0: as many as it takes).
        """
        runner = self._runner
        reasons: list[str] = []
        self._tasks = [
            runner.new_task(self._listen(address, reasons))
            for address in runner.listen_addresses(addresses)
        ]
        pending = set(self._tasks)
        while pending and not self._listeners:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        error = runner.stopped.exception() if runner.failed else None
        if error is not None:
            raise error
        if not self._listeners:
            attempts = runner.member.config.election_port_bind_retry
            raise UnableToBind(
                f"As I'm leaving the listener thread after {attempts} attempts, I won't be "
                f"able to participate in leader election any longer: {', '.join(reasons)}"
            )

    async def _listen(self, address: tuple[str, int], reasons: list[str]) -> None:
        runner = self._runner
        config = runner.member.config
        attempt = 0
        while True:
            attempt += 1
            try:
                listener = await listen_at(runner, address, self._accepted, config.tcp_keep_alive)
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                break
            log.error("Exception while listening to address %s: %s", address_text(address), reason)
            if 0 < config.election_port_bind_retry <= attempt or runner.poller is None:
                reasons.append(reason)
                return
            await asyncio.sleep(RETRY_SECONDS)
        self._listeners.append(listener)
        log.info(
            "%d is accepting connections now, my election bind port: %s",
            runner.member.my_id,
            address_text(address),
        )

    def _accepted(self, link: Link) -> None:
        election_link(link, self._runner.member.config)
        self._runner.member.election_accepted(link)

    def rebind(self, addresses: list[tuple[str, int]]) -> None:
        """Listen elsewhere from now on."""
        self.close()
        self._rebinding = self._runner.new_task(self.bind(addresses))

    def close(self) -> None:
        """Listen no more."""
        if self._rebinding is not None:
            # First: it would take the end of the others for a port that cannot be had.
            self._rebinding.cancel()
            self._rebinding = None
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
