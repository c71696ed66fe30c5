"""The client port: bytes to the server, replies to the socket. No decisions."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from zkpy.session.addresses import normalise_address

if TYPE_CHECKING:
    from zkpy.server.aio.runner import Runner
    from zkpy.server.cnxn import ServerCnxn

# How long a client may take to notice that it has been hung up on. Closing at once, with bytes of
# it still unread, would reset the connection and take our last words with it.
LINGER_SECONDS: Final = 2.0


class ClientPort(asyncio.BufferedProtocol):
    """One client's connection.

    All share one buffer to receive into: what is in it is taken before the next is read. (A
    buffer of its own for each read costs more than all the rest of serving it.)
    """

    __slots__ = ("_closing", "cnxn", "paused", "runner", "transport")

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.cnxn: ServerCnxn | None = None
        self.paused = False
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        runner = self.runner
        peer = transport.get_extra_info("peername") or ("", 0)
        runner.read_clock()
        self.cnxn = cnxn = runner.server.accept(normalise_address(peer[0]), peer[1])
        if cnxn is None:
            transport.close()
            return
        cnxn.transport = self
        if runner.keep_alive:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.runner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        cnxn = self.cnxn
        if cnxn is None or cnxn.closed:
            return  # hung up on; what it still sends is read and dropped
        runner = self.runner
        runner.read_clock()
        runner.server.received(cnxn, bytes(runner.buffer[:nbytes]))
        if cnxn.held and not self.paused:
            self.paused = True
            self.transport.pause_reading()
        if not runner.woken:
            runner.wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        cnxn = self.cnxn
        self.cnxn = None
        if cnxn is not None:
            cnxn.transport = None
            self.runner.read_clock()
            self.runner.server.close(cnxn)

    def pause_writing(self) -> None:
        # A client that reads no replies gets no requests read.
        if self.cnxn is not None:
            self.cnxn.write_blocked = True
            self.runner.server.hold(self.cnxn)

    def resume_writing(self) -> None:
        if self.cnxn is not None:
            self.cnxn.write_blocked = False
            self.runner.server.mark_dirty(self.cnxn)
            self.runner.wake()

    # ------------------------------------------------------------------ called by the runner

    def reading(self, wanted: bool) -> None:
        """Take bytes from the socket, or let TCP slow the client down."""
        if wanted == self.paused and not self.transport.is_closing():
            self.paused = not wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def hang_up(self) -> None:
        """Send what is queued, then an end of file; close when the client has seen it."""
        if self._closing is not None or self.transport.is_closing():
            return
        self.reading(True)
        loop = self.runner.loop
        self._closing = loop.call_later(LINGER_SECONDS, self.transport.abort)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
