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
from zkpy.server.aio.quorum_port import PeerListener, PeerPort, listen_on

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
        self._task: asyncio.Task[None] | None = None

    async def bind(self, addresses: list[tuple[str, int]]) -> None:
        """Listen on `addresses`, names looked up anew each time; try again while none can be had.

        One is enough to begin with; the others are tried again meanwhile. Raises UnableToBind
        after `electionPortBindRetry` attempts (0: never).
        """
        wanted = await self._listen(self._runner.listen_addresses(addresses))
        attempt = 1
        while not self._listeners:
            _, reason = wanted[-1]
            if self._given_up(attempt):
                raise UnableToBind(
                    f"As I'm leaving the listener thread after {attempt} attempts, I won't be "
                    f"able to participate in leader election any longer: {reason}"
                )
            await asyncio.sleep(RETRY_SECONDS)
            wanted = await self._listen([address for address, _ in wanted])
            attempt += 1
        if wanted:
            rest = [address for address, _ in wanted]
            self._task = self._runner.loop.create_task(self._bind_rest(rest, attempt))

    async def _bind_rest(self, wanted: list[tuple[str, int]], attempt: int) -> None:
        while wanted and not self._given_up(attempt):
            await asyncio.sleep(RETRY_SECONDS)
            wanted = [address for address, _ in await self._listen(wanted)]
            attempt += 1

    def _given_up(self, attempt: int) -> bool:
        return 0 < self._runner.member.config.election_port_bind_retry <= attempt

    async def _listen(self, addresses: list[tuple[str, int]]) -> list[tuple[tuple[str, int], str]]:
        """One attempt at each; those that cannot be had, and why."""
        member = self._runner.member
        found, failed = await listen_on(
            self._runner, addresses, self._accepted, member.config.tcp_keep_alive
        )
        self._listeners += found
        for address, reason in failed:
            log.error("Exception while listening to address %s: %s", address_text(address), reason)
        missing = [address for address, _ in failed]
        for address in addresses:
            if address not in missing:
                log.info(
                    "%d is accepting connections now, my election bind port: %s",
                    member.my_id,
                    address_text(address),
                )
        return failed

    def _accepted(self, link: Link) -> None:
        election_link(link, self._runner.member.config)
        self._runner.member.election_accepted(link)

    def rebind(self, addresses: list[tuple[str, int]]) -> None:
        """Listen elsewhere from now on."""
        self.close()
        self._task = self._runner.loop.create_task(self._rebind(addresses))

    async def _rebind(self, addresses: list[tuple[str, int]]) -> None:
        try:
            await self.bind(addresses)
        except UnableToBind as error:
            self._runner.fail(error)

    def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
