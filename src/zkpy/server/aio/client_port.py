"""The client port: bytes from sockets to the server, replies back. No decisions.

All client sockets hang on one epoll instance: a turn with a hundred ready clients ends with one
flush. (An asyncio transport per client costs 10 us per request, more than serving it.) A
`ServerLoop` waits with that instance itself; for any other event loop it is one descriptor among
its own. Where there is no epoll the loop watches each socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from zkpy.server.aio.event_loop import MAX_EVENTS, ServerLoop, TurnSelector
from zkpy.session.addresses import normalise_address

if TYPE_CHECKING:
    from zkpy.server.aio.event_loop import Events
    from zkpy.server.aio.runner import Runner
    from zkpy.server.cnxn import ServerCnxn

log = logging.getLogger(__name__)

# How long a client may take to notice that it has been hung up on. Closing at once, with bytes of
# it still unread, would reset the connection and take our last words with it.
LINGER_SECONDS: Final = 2.0
# One for all: what is in it is taken before the next is read.
RECEIVE_BYTES: Final = 128 * 1024
# Per turn of the loop; the others wait in the kernel, and timers and the log get their turn.
MAX_ACCEPTS: Final = 64
# After the process has run out of descriptors.
ACCEPT_PAUSE_SECONDS: Final = 1.0

READ: Final = 1  # EPOLLIN
WRITE: Final = 4  # EPOLLOUT


class Port(Protocol):
    """Whoever has a descriptor here."""

    def ready(self, events: int) -> None:
        """`events` of it, bits of epoll, are due."""

    def close(self) -> None:
        """Close the descriptor; it is forgotten first."""


class Poller:
    """Which sockets are ready; calls `ready(events)` of each, then `runner.flush()` once."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.loop = runner.loop
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._ports: dict[int, Port] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._turns: TurnSelector | None = None
        if self._epoll is None:
            return
        if isinstance(self.loop, ServerLoop) and not self.loop.turns.attached:
            self._turns = self.loop.turns
            self._turns.attach(self._epoll, self._turn)
            self.watch(AsyncioPort(self._turns), self._turns.fileno(), READ)
        else:
            self.loop.add_reader(self._epoll.fileno(), self._poll)

    def close(self) -> None:
        """Close every socket; a doorbell is closed by who knows that nobody rings it any more."""
        # First: whatever is wrong with a port, there will be no more turns.
        if self._turns is not None:
            self._turns.detach()
        elif self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
        for port in list(self._ports.values()):
            if not isinstance(port, Doorbell):
                port.close()
        self._ports.clear()
        if self._epoll is not None:
            self._epoll.close()

    def clients(self) -> list[ClientPort]:
        """The connections that are open."""
        return [port for port in self._ports.values() if isinstance(port, ClientPort)]

    def watch(self, port: Port, fd: int, events: int) -> None:
        """Report `events` (READ, WRITE, both or none) of `fd` to `port` from now on."""
        known = fd in self._ports
        self._ports[fd] = port
        if self._epoll is not None:
            if known:
                self._epoll.modify(fd, events)
            else:
                self._epoll.register(fd, events)
            return
        self.loop.remove_reader(fd)
        self.loop.remove_writer(fd)
        if events & READ:
            self.loop.add_reader(fd, self._one, port, READ)
        if events & WRITE:
            self.loop.add_writer(fd, self._one, port, WRITE)

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed."""
        if self._ports.pop(fd, None) is None:
            return
        if self._epoll is not None:
            self._epoll.unregister(fd)
        else:
            self.loop.remove_reader(fd)
            self.loop.remove_writer(fd)

    def catch_up(self) -> None:
        """Take what has arrived, without waiting for the loop to notice."""
        for _ in range(1 + len(self._ports) // MAX_EVENTS):
            self._poll()

    def _poll(self) -> None:
        if self._epoll is not None and not self._epoll.closed:
            self._turn(self._epoll.poll(0, MAX_EVENTS))

    def _turn(self, ready: Events) -> None:
        runner = self.runner
        runner.read_clock()
        get = self._ports.get
        try:
            for fd, events in ready:
                port = get(fd)  # None: closed by another event of this turn
                if port is not None:
                    port.ready(events)
            runner.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is, we stop rather than be wrong
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        try:
            self.runner.fail(error)
        except Exception as another:  # noqa: BLE001 - this turn may be one of the loop's own
            self.loop.call_exception_handler(
                {"message": f"cannot even stop after {error!r}", "exception": another}
            )

    def _one(self, port: Port, events: int) -> None:
        runner = self.runner
        runner.read_clock()
        try:
            port.ready(events)
            runner.wake()
        except Exception as error:  # noqa: BLE001 - whatever it is, we stop rather than be wrong
            self._fail(error)


class AsyncioPort:
    """asyncio's own descriptors, among those of a server on a ServerLoop."""

    __slots__ = ("_turns",)

    def __init__(self, turns: TurnSelector) -> None:
        self._turns = turns

    def ready(self, events: int) -> None:
        """Back to asyncio when this turn is over."""
        self._turns.due = True

    def close(self) -> None:
        """They stay as they are."""


class Doorbell:
    """Lets another thread call for the loop: `ring` there, and `rung` is called in the next turn.

    An eventfd beside the client sockets: half the system calls of `call_soon_threadsafe`, and what
    it brings is flushed with what the clients sent meanwhile.
    """

    __slots__ = ("_fd", "_poller", "_rung")

    def __init__(self, poller: Poller, rung: Callable[[], None]) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = poller
        self._rung = rung
        poller.watch(self, self._fd, READ)

    def ring(self) -> None:
        """Call for the loop; from any thread, until `close`."""
        os.eventfd_write(self._fd, 1)

    def ready(self, events: int) -> None:
        """Somebody rang."""
        os.eventfd_read(self._fd)
        self._rung()

    def close(self) -> None:
        """Once no thread can ring any more: its number may soon be another file's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._poller.forget(fd)
            os.close(fd)


class ClientListener:
    """A listening socket."""

    __slots__ = ("_poller", "_sock", "port")

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.port: int = sock.getsockname()[1]
        self._poller = poller
        self._sock = sock
        poller.watch(self, sock.fileno(), READ)

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() >= 0:
            self._poller.forget(self._sock.fileno())
            self._sock.close()

    def ready(self, events: int) -> None:
        """Take the clients that wait."""
        for _ in range(MAX_ACCEPTS):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptors left: those who are connected are served on.
                log.error("cannot accept a connection: %s", error.strerror)
                self._poller.watch(self, self._sock.fileno(), 0)
                self._poller.loop.call_later(ACCEPT_PAUSE_SECONDS, self._again)
                return
            ClientPort(self._poller, sock, peer)

    def _again(self) -> None:
        if self._sock.fileno() >= 0:
            self._poller.watch(self, self._sock.fileno(), READ)


class ClientPort:
    """One client's connection."""

    __slots__ = ("_closing", "_events", "_fd", "_poller", "_sock", "cnxn", "unsent")

    def __init__(self, poller: Poller, sock: socket.socket, peer: tuple[str, int]) -> None:
        self._poller = poller
        self._sock = sock
        self._fd = sock.fileno()
        self._events = READ
        self._closing: asyncio.TimerHandle | None = None
        self.unsent = bytearray()
        runner = poller.runner
        self.cnxn: ServerCnxn | None = None
        cnxn = runner.server.accept(normalise_address(peer[0]), peer[1])
        if cnxn is None:
            sock.close()
            return
        self.cnxn = cnxn
        cnxn.transport = self
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if runner.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        poller.watch(self, self._fd, READ)

    def ready(self, events: int) -> None:
        """The socket has bytes, or room for some, or is gone."""
        if events & WRITE:
            self._send_rest()
            if events == WRITE:
                return
        if not events & READ and not self._events & READ:
            if events & ~WRITE:
                self.close()  # error or hang-up while nothing was being read
            return
        poller = self._poller
        try:
            size = self._sock.recv_into(poller.buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        cnxn = self.cnxn
        if not size:
            self.close()
        elif cnxn is not None and not cnxn.closed:
            poller.runner.server.received(cnxn, bytes(poller.buffer[:size]))
            if cnxn.held and self._events & READ:
                self._watch(self._events & ~READ)
        # else: hung up on; what it still sends is read and dropped

    def close(self) -> None:
        """Close the socket now; the server forgets the connection."""
        if self._fd < 0:
            return
        self._poller.forget(self._fd)
        self._fd = -1
        self._sock.close()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        cnxn, self.cnxn = self.cnxn, None
        if cnxn is not None:
            cnxn.transport = None
            self._poller.runner.server.close(cnxn)

    # ------------------------------------------------------------------ called by the runner

    @property
    def paused(self) -> bool:
        """Whether nothing is read from the socket."""
        return not self._events & READ

    def send(self, data: bytearray) -> None:
        """Send, and keep what the socket does not take; `data` belongs to this port now."""
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            del data[:sent]
            self.unsent = data
            # A client that reads no replies gets no requests read.
            if self.cnxn is not None:
                self.cnxn.write_blocked = True
                self._poller.runner.server.hold(self.cnxn)
            self._watch(WRITE)

    def reading(self, wanted: bool) -> None:
        """Take bytes from the socket, or let TCP slow the client down."""
        events = self._events | READ if wanted else self._events & ~READ
        if events != self._events and self._fd >= 0:
            self._watch(events)

    def hang_up(self) -> None:
        """Send what is queued, then an end of file; close when the client has seen it."""
        if self._closing is not None or self._fd < 0:
            return
        self._closing = self._poller.loop.call_later(LINGER_SECONDS, self.close)
        self.reading(True)
        if not self.unsent:
            self._end()

    # ------------------------------------------------------------------ inner workings

    def _watch(self, events: int) -> None:
        self._events = events
        self._poller.watch(self, self._fd, events)

    def _send_rest(self) -> None:
        try:
            sent = self._sock.send(self.unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        del self.unsent[:sent]
        if self.unsent:
            return
        self._watch(self._events & ~WRITE)
        cnxn = self.cnxn
        if self._closing is not None:
            self._end()
        elif cnxn is not None:
            cnxn.write_blocked = False
            self._poller.runner.server.mark_dirty(cnxn)

    def _end(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
