"""zkpy-cli with a server in the same process: the real shell and client, no sockets, no ports.

The event loop's connections lead to a `Machine` (tests/server/machine.py). Nothing sleeps: what the
client sends is answered in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.server.machine import Client, Machine

from zkpy.cli.shell.console import Console
from zkpy.cli.shell.main import make_shell
from zkpy.cli.shell.oneshot import one_shot
from zkpy.cli.shell.options import parse_command_line
from zkpy.cli.shell.shell import Shell
from zkpy.cli.shell.table import CliError

Connector = Callable[[str, int], Machine]


class Recorder(Console):
    """Keeps what would be printed; `both` has the two streams in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {1: "", 2: ""}
        self.both = ""

    def write(self, descriptor: int, text: str) -> None:
        self.streams[descriptor] += text
        self.both += text

    def take(self) -> str:
        """What was printed since the last call."""
        text, self.both = self.both, ""
        self.streams = {1: "", 2: ""}
        return text


class MemoryTransport(asyncio.Transport):
    """The client's end of a connection to a Machine."""

    def __init__(self, loop: MemoryLoop, client: Client, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.loop = loop
        self.client = client
        self.protocol = protocol
        self.gone = False

    def write(self, data: Any) -> None:
        self.client.feed(bytes(data))
        self.loop.attend()

    def deliver(self) -> None:
        """Hand over what the server has sent; then whether it hung up."""
        if self.gone:
            return
        data = bytes(self.client.inbox)
        self.client.inbox.clear()
        if data:
            self.protocol.data_received(data)
        elif self.client.closed:
            self.gone = True
            self.protocol.connection_lost(None)

    def lose(self) -> None:
        """The connection breaks; the session lives on."""
        if not self.gone:
            self.gone = True
            self.client.drop()
            self.protocol.connection_lost(ConnectionResetError("reset"))

    def abort(self) -> None:
        if not self.gone:
            self.gone = True
            self.client.drop()

    close = abort


class MemoryLoop(asyncio.SelectorEventLoop):
    """`servers` maps ports to machines; other ports refuse."""

    def __init__(self, servers: dict[int, Machine]) -> None:
        super().__init__()
        self.servers = servers
        self.transports: list[MemoryTransport] = []

    async def create_connection(
        self, factory: Any, host: Any = None, port: Any = None, **_: Any
    ) -> Any:  # type: ignore[override]
        if host == "no.such.host.invalid":
            raise OSError("Name or service not known")
        if port not in self.servers:
            raise ConnectionRefusedError(111, f"Connect call failed ('{host}', {port})")
        protocol = factory()
        transport = MemoryTransport(self, self.servers[port].plain(), protocol)
        self.transports.append(transport)
        protocol.connection_made(transport)
        return transport, protocol

    def attend(self) -> None:
        """Everything durable; then everybody gets what the server has sent."""
        for machine in self.servers.values():
            machine.flush()
        self.transports = [transport for transport in self.transports if not transport.gone]
        for transport in self.transports:
            self.call_soon(transport.deliver)


class Result(NamedTuple):
    out: str
    err: str
    status: int


class Terminal:
    """Runs zkpy-cli against machines, all on port 2181 unless said."""

    def __init__(self, machine: Machine | None = None, **settings: Any) -> None:
        self.machine = machine or Machine(**settings)
        self.servers = {2181: self.machine}
        self.loop = MemoryLoop(self.servers)
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.runner.close()

    def one_shot(self, arguments: Sequence[str]) -> Result:
        """`zkpy-cli arguments...`"""
        console = Recorder()
        try:
            options = parse_command_line(list(arguments))
            if not options.quiet:
                console.out(f"Connecting to {options.hosts}")
            status = self.runner.run(one_shot(make_shell(options, console), options))
        except CliError as error:
            console.err(str(error))
            status = error.status
        return Result(console.streams[1], console.streams[2], status)

    def session(self, *arguments: str) -> Dialog:
        """`zkpy-cli arguments...` without a command: lines can be given to it."""
        return Dialog(self, self.session_in_loop(*arguments))

    def session_in_loop(self, *arguments: str) -> Shell:
        """The same, for a coroutine: not connected yet."""
        return make_shell(parse_command_line(list(arguments)), Recorder())


class Dialog:
    """An interactive session; what a line prints is what `type` returns."""

    def __init__(self, terminal: Terminal, shell: Shell) -> None:
        self.terminal = terminal
        self.shell = shell
        assert isinstance(shell.console, Recorder)
        self.console = shell.console
        self.terminal.runner.run(shell.connect(shell.hosts))
        self.settle()

    def settle(self) -> None:
        """Let everything happen that can without time passing."""
        self.terminal.loop.attend()

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.terminal.runner.run(turns())

    def type(self, line: str) -> str:
        """Run a line; stdout and stderr as they came, events included."""
        self.console.take()
        self.terminal.runner.run(self.shell.execute(line))
        self.settle()
        return self.console.take()
