"""The shell: executes lines, keeps the history, owns the session, prints events.

It must not know whether a person or a script is at the other end; that is `terminal`'s and
`main`'s.
Source: ZooKeeperMain, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import zkpy.cli.shell.commands  # noqa: F401 - fills the table
from zkpy.cli.shell.context import Context
from zkpy.cli.shell.parser import split_words
from zkpy.cli.shell.table import COMMANDS, NOT_FOUND, CliError, OperationError, usage_block
from zkpy.cli.shell.texts import error_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.cli.shell.console import Console
    from zkpy.cli.shell.session import Session
    from zkpy.client.events import WatchedEvent

    OpenSession = Callable[[str, Callable[[WatchedEvent], None]], Session]

# The client's names of states that the reference's prompt has no words for.
_PROMPT_STATES: Final = {"NOT_CONNECTED": "CONNECTING", "EXPIRED": "CLOSED"}


class Shell:
    """One run of zkpy-cli, over one session at a time.

    `open_session(hosts, watcher)` makes a session that is not connected yet; it raises CliError on
    bad hosts.
    """

    def __init__(
        self,
        console: Console,
        open_session: OpenSession,
        hosts: str,
        *,
        json: bool = False,
        legacy_events: bool = False,
    ) -> None:
        self.console = console
        self.open_session = open_session
        self.hosts = hosts
        self.json = json
        self.legacy_events = legacy_events
        self.session: Session | None = None
        self.print_watches = True
        self.print_connection = True
        self.history: dict[int, str] = {}
        self.count = 0
        self.status = 0  # of the last command
        self.finished = False

    # The session

    @property
    def is_alive(self) -> bool:
        """Whether there is a session, connected or not."""
        return self.session is not None and self.session.is_alive

    async def connect(self, hosts: str) -> None:
        """Leave the old session for one with `hosts`; returns when connected or all refuse."""
        session = self.open_session(hosts, self.on_event)
        await self.close()
        self.hosts = hosts
        self.session = session
        await session.start()

    async def close(self) -> None:
        """End the session, if there is one."""
        if self.session is not None and self.session.is_alive:
            await self.session.close()

    def on_event(self, event: WatchedEvent) -> None:
        """Print an event, of a node or of the connection."""
        if not self.print_watches or (event.path is None and not self.print_connection):
            return
        if self.json:
            self._context(True).out_json(event_json(event))
            return
        text = str(event)
        if self.legacy_events:
            text = text.rpartition(" zxid: ")[0]
        self.console.out(f"\nWATCHER::\n\n{text}")

    # Lines

    @property
    def prompt(self) -> str:
        """`[zk: HOSTS(STATE) N] `"""
        state = self.session.state if self.session is not None else "CLOSED"
        return f"[zk: {self.hosts}({_PROMPT_STATES.get(state, state)}) {self.count}] "

    async def execute(self, line: str) -> None:
        """Run a line as it was typed; a blank one is nothing."""
        words = split_words(line)
        if not words:
            return
        self.history[self.count] = line
        try:
            self.status = await self.run(words)
        finally:
            self.count += 1

    async def run(self, words: list[str]) -> int:
        """Run a command; returns its exit status. What is wrong with it has been said then."""
        try:
            return await self._run(words)
        except CliError as error:
            self.console.err(str(error))
            return error.status
        except OperationError as error:
            self.console.err(error_text(error.code, error.path) + error.reason)
            return 1

    async def _run(self, words: list[str]) -> int:
        name, *rest = words
        command = COMMANDS.get(name)
        if command is None:
            self.console.err(usage_block())
            raise CliError(f"Command not found: {name}", NOT_FOUND)
        json = self.json
        if "--json" in rest and "--" not in rest[: rest.index("--json")]:
            rest.remove("--json")
            json = True
        if not self.is_alive and not command.offline:
            # On stdout in the reference, and no error there.
            self.console.write(2 if json else 1, "Not connected\n")
            return 1
        status = await command.run(self._context(json), command.parse(rest))
        return 0 if status is None else status

    def _context(self, json: bool) -> Context:
        return Context(self, self.console, json)


def event_json(event: WatchedEvent) -> dict[str, object]:
    """An event for scripts."""
    return {
        "event": event.type_name,
        "state": event.state_name,
        "path": event.path,
        "zxid": event.zxid,
    }
