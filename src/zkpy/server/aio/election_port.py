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
from zkpy.server.aio.quorum_port import PeerListener, PeerPort, listeners

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
        self._rebinding: asyncio.Task[None] | None = None

    async def bind(self, addresses: list[tuple[str, int]]) -> None:
        """Listen on `addresses`, names looked up anew each time; try again while a port is taken.

        Raises UnableToBind after `electionPortBindRetry` attempts (0: never).
        """
        runner = self._runner
        member = runner.member
        retries = member.config.election_port_bind_retry
        attempt = 0
        while True:
            attempt += 1
            try:
                self._listeners = listeners(
                    runner,
                    runner.listen_addresses(addresses),
                    self._accepted,
                    member.config.tcp_keep_alive,
                )
            except OSError as error:
                log.error("Exception while listening to address: %s", error.strerror)
                if 0 < retries <= attempt:
                    raise UnableToBind(
                        f"As I'm leaving the listener thread after {attempt} attempts, I won't be "
                        f"able to participate in leader election any longer: {error.strerror}"
                    ) from None
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        for address in runner.listen_addresses(addresses):
            log.info(
                "%d is accepting connections now, my election bind port: %s",
                member.my_id,
                address_text(address),
            )

    def _accepted(self, link: Link) -> None:
        election_link(link, self._runner.member.config)
        self._runner.member.election_accepted(link)

    def rebind(self, addresses: list[tuple[str, int]]) -> None:
        """Listen elsewhere from now on."""
        self.close()
        self._rebinding = self._runner.loop.create_task(self._rebind(addresses))

    async def _rebind(self, addresses: list[tuple[str, int]]) -> None:
        try:
            await self.bind(addresses)
        except UnableToBind as error:
            self._runner.fail(error)

    def close(self) -> None:
        """Listen no more."""
        if self._rebinding is not None:
            self._rebinding.cancel()
            self._rebinding = None
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
