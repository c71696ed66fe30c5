"""The shell's session: `zkpy.client` with the errors and habits of the command line.

One watcher hears of everything, the shell's. A KeeperError becomes an OperationError, which knows
the path that the user typed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from zkpy.cli.shell.table import CliError, OperationError
from zkpy.cli.shell.texts import code_text
from zkpy.client.client import ZooKeeper
from zkpy.client.codec import ClientInfo, Stat
from zkpy.client.core import REPLY_LIMIT_BYTES
from zkpy.client.errors import ConnectionLoss
from zkpy.client.events import CONNECTED_STATES, FINAL_STATES, WatchedEvent
from zkpy.client.ops import Delete, Op
from zkpy.protocol.acl import ACL, Acls
from zkpy.protocol.errors import AuthFailed, KeeperError

if TYPE_CHECKING:
    from ssl import SSLContext

T = TypeVar("T")

CONFIG_NODE: Final = "/zookeeper/config"
# How long the first prompt waits for the connection, so that it can say CONNECTED.
FIRST_WAIT_S: Final = 1.0
BATCHES_IN_FLIGHT: Final = 10
# Reasons of a lost connection that the reference's words would not let anybody guess.
_TOLD: Final = ("not a ZooKeeper server", "without local sessions", "not connected within")


class Session:
    """One session. Raises CliError on bad `hosts`; nothing happens before `start`."""

    def __init__(
        self,
        hosts: str,
        watcher: Callable[[WatchedEvent], None],
        *,
        timeout_ms: int = 30_000,
        read_only: bool = False,
        wait: bool = False,
        ssl: SSLContext | None = None,
        reply_limit: int | None = None,
    ) -> None:
        self.wait = wait
        limit = reply_limit or REPLY_LIMIT_BYTES
        try:
            self.zk = ZooKeeper(
                hosts, timeout_ms, watcher, read_only=read_only, ssl=ssl, reply_limit=limit
            )
        except ValueError as error:
            raise CliError(str(error)) from None

    @property
    def state(self) -> str:
        """One of zkpy.client.events.States."""
        return self.zk.state

    @property
    def is_alive(self) -> bool:
        """Whether it is not over; it may have no connection."""
        return self.zk.state not in FINAL_STATES

    async def start(self) -> None:
        """Begin to connect. Where `wait` was asked for, raises CliError without a connection."""
        self.zk.start()
        if not self.wait:
            return
        try:
            await self.zk.connect()
        except KeeperError as error:
            self.zk.watcher = None
            await self.zk.close()
            reason = operation_error(error, None).reason
            raise CliError(code_text(error.code) + reason) from None

    async def connected(self, timeout_s: float = FIRST_WAIT_S) -> bool:
        """Wait a while for a connection."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.zk.wait_for(*CONNECTED_STATES)
        except (TimeoutError, KeeperError):
            return False
        return True

    async def close(self, *, silent: bool = False) -> None:
        """End the session; `silent`: without its event."""
        if silent:
            self.zk.watcher = None
        await self.zk.close()

    async def _ask(self, path: str | None, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except KeeperError as error:
            raise operation_error(error, path) from None
        except ValueError as error:  # what cannot be sent: a path, or text that is no Unicode
            raise CliError(str(error)) from None

    # Operations

    async def create(
        self, path: str, data: bytes | None, acls: Iterable[ACL], mode: int, ttl_ms: int
    ) -> str:
        return await self._ask(path, self.zk.create(path, data, acls, mode, ttl_ms=ttl_ms))

    async def delete(self, path: str, version: int) -> None:
        await self._ask(path, self.zk.delete(path, version))

    async def delete_batches(self, paths: Iterable[str], size: int) -> bool:
        """Delete `paths` in this order, `size` at a time, all of them or none; False at a failure.

        What comes behind a failed batch may have been sent already, and fails as well.
        """
        batches: list[list[Op]] = [[]]
        for path in paths:
            if len(batches[-1]) == size:
                batches.append([])
            batches[-1].append(Delete(path))
        return await self.multi_batches(batches) is None

    async def multi_batches(self, batches: Iterable[Sequence[Op]]) -> KeeperError | None:
        """Do one multi after the other; returns the first error, after which none is begun."""
        running: deque[asyncio.Task[list[object]]] = deque()
        failed: KeeperError | None = None
        for batch in batches:
            if len(running) == BATCHES_IN_FLIGHT:
                failed = failed or await _error_of(running.popleft())
            if failed:
                break
            running.append(asyncio.ensure_future(self.zk.multi(batch)))
        for task in running:
            failed = failed or await _error_of(task)
            if failed:
                await asyncio.wait(running)
                for other in running:
                    other.exception()
        return failed

    async def set_data(self, path: str, data: bytes | None, version: int) -> Stat:
        return await self._ask(path, self.zk.set_data(path, data, version))

    async def get_data(self, path: str, watch: bool = False) -> tuple[bytes | None, Stat]:
        return await self._ask(path, self.zk.get_data(path, watch))

    async def exists(self, path: str, watch: bool = False) -> Stat | None:
        return await self._ask(path, self.zk.exists(path, watch))

    async def get_children(self, path: str, watch: bool = False) -> tuple[list[str], Stat]:
        return await self._ask(path, self.zk.get_children2(path, watch))

    async def get_acl(self, path: str) -> tuple[Acls, Stat]:
        return await self._ask(path, self.zk.get_acl(path))

    async def set_acl(self, path: str, acls: Iterable[ACL], version: int) -> Stat:
        return await self._ask(path, self.zk.set_acl(path, acls, version))

    async def add_auth(self, scheme: str, auth: bytes | None) -> None:
        """A refusal ends the session, and is told by its event."""
        try:
            # No credentials at all is not what a program would send, but `addauth SCHEME` does.
            await self.zk.add_auth(scheme, auth)  # type: ignore[arg-type]
        except AuthFailed:
            pass
        except KeeperError as error:
            raise operation_error(error, None) from None

    async def who_am_i(self) -> list[ClientInfo]:
        return await self._ask(None, self.zk.who_am_i())

    async def add_watch(self, path: str, mode: int) -> None:
        await self._ask(path, self.zk.add_watch(path, None, mode))

    @asynccontextmanager
    async def follow(self, path: str) -> AsyncIterator[AsyncIterator[WatchedEvent]]:
        """Events of `path` and what is below, for the length of the block."""
        try:
            async with self.zk.watch(path) as events:
                yield events
        except KeeperError as error:
            raise operation_error(error, path) from None

    async def remove_watches(self, path: str, kind: int, local: bool) -> None:
        await self._ask(path, self.zk.remove_watches(path, None, kind, local=local))

    async def sync(self, path: str) -> None:
        await self._ask(path, self.zk.sync(path))

    async def get_ephemerals(self, prefix: str) -> list[str]:
        return await self._ask(prefix, self.zk.get_ephemerals(prefix))

    async def get_all_children_number(self, path: str) -> int:
        return await self._ask(path, self.zk.get_all_children_number(path))

    async def get_config(self, watch: bool) -> tuple[bytes | None, Stat]:
        return await self._ask(CONFIG_NODE, self.zk.get_config(watch))

    async def reconfig(
        self, joining: str | None, leaving: str | None, members: str | None, version: int
    ) -> tuple[bytes | None, Stat]:
        # The reference names an empty path in errors.
        return await self._ask("", self.zk.reconfig(joining, leaving, members, version))


async def _error_of(task: asyncio.Task[list[object]]) -> KeeperError | None:
    try:
        await task
    except KeeperError as error:
        return error
    return None


def operation_error(error: KeeperError, path: str | None) -> OperationError:
    """What the shell says of `error`."""
    reason = error.reason if isinstance(error, ConnectionLoss) else ""
    told = any(text in reason for text in _TOLD)
    return OperationError(error.code, path, f" ({reason})" if told else "")
