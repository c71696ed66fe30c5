"""Sockets between members: the peer port's and the election port's. No decisions.

They hang on the poller of the clients' sockets: what peers and clients send in one turn ends with
one flush, one write per peer. Source: Leader.LearnerCnxAcceptor, Learner.connectToLeader,
ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from zkpy.server.aio.client_port import ACCEPT_PAUSE_SECONDS, READ, WRITE
from zkpy.server.aio.sockets import ANY_ADDRESSES, bound_socket
from zkpy.server.aio.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.quorum.effects import Dial
    from zkpy.quorum.link import Link
    from zkpy.server.aio.member import MemberRunner

log = logging.getLogger(__name__)

BACKLOG: Final = 1024
MAX_ACCEPTS: Final = 64
IPV6_PARTS: Final = 4  # of a socket address: host, port, flow, scope
# A peer that does not take what was sent: closed when its last words could not leave in this time.
LINGER_SECONDS: Final = 2.0


def address_text(peer: tuple[object, ...]) -> str:
    """`host:port` of a socket address."""
    return f"{str(peer[0]).removeprefix('::ffff:')}:{peer[1]}"


class PeerListener:
    """A socket that other members connect to; `accepted` is told of each link."""

    __slots__ = ("_accepted", "_keep_alive", "_runner", "_sock")

    def __init__(
        self,
        runner: MemberRunner,
        sock: socket.socket,
        accepted: Callable[[Link], None],
        keep_alive: bool = False,
    ) -> None:
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._runner = runner
        self._sock = sock
        self._accepted = accepted
        self._keep_alive = keep_alive
        assert runner.poller is not None
        self._watch(READ)

    def close(self) -> None:
        """Accept no more."""
        if self._sock.fileno() >= 0:
            if self._runner.poller is not None:
                self._runner.poller.forget(self._sock.fileno())
            self._sock.close()

    def ready(self, events: int) -> None:
        """Take those that wait."""
        for _ in range(MAX_ACCEPTS):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptors left: it would be reported as ready again and again.
                log.error("cannot accept a connection: %s", error.strerror)
                self._watch(0)
                self._runner.loop.call_later(ACCEPT_PAUSE_SECONDS, self._watch, READ)
                return
            member = self._runner.member
            link = member.new_link(address_text(peer))
            if self._keep_alive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            PeerPort(self._runner, sock, link)
            self._accepted(link)
            self._runner.member_changed()

    def _watch(self, events: int) -> None:
        if self._sock.fileno() >= 0 and self._runner.poller is not None:
            self._runner.poller.watch(self, self._sock.fileno(), events)


class PeerPort:
    """One connection between a leader and a learner."""

    __slots__ = ("_closing", "_events", "_fd", "_runner", "_sock", "_unsent", "link")

    def __init__(self, runner: MemberRunner, sock: socket.socket, link: Link) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._runner = runner
        self._sock = sock
        self._fd = sock.fileno()
        self._events = READ
        self._unsent = bytearray()
        self._closing: asyncio.TimerHandle | None = None
        self.link = link
        link.transport = self
        assert runner.poller is not None
        runner.poller.watch(self, self._fd, READ)

    def ready(self, events: int) -> None:
        """The socket has bytes, or room for some, or is gone."""
        if events & WRITE and self._unsent:
            self._send_rest()
            if events == WRITE:
                return
        runner = self._runner
        poller = runner.poller
        if poller is None or self._fd < 0:
            return
        try:
            size = self._sock.recv_into(poller.buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if not size:
            self._lost("the other side closed the connection")
        elif not self.link.closed:
            runner.member.received(self.link, bytes(poller.buffer[:size]))
            runner.member_changed()

    def send(self, data: bytearray) -> None:
        """Send, and keep what the socket does not take; `data` belongs to this port now."""
        if self._fd < 0:
            return
        if self._unsent:
            self._unsent += data
        else:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lost(error.strerror or str(error))
                return
            if sent < len(data):
                del data[:sent]
                self._unsent = data
                self._watch(READ | WRITE)
        self.link.unsent = len(self._unsent)

    def give_up_after(self, timeout_ms: int) -> None:
        """End the connection when what was sent finds no reader for so long, where that is known.

        For a connection on which silence means nothing: else the death of a host, or of the way
        to it, would be noticed only after a quarter of an hour of retransmissions.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def hang_up(self) -> None:
        """Close once what is queued has left."""
        if self._fd < 0 or self._closing is not None:
            return
        if not self._unsent:
            self.close()
            return
        self._closing = self._runner.loop.call_later(LINGER_SECONDS, self.close)

    def close(self) -> None:
        """Close the socket now."""
        if self._fd < 0:
            return
        if self._closing is not None:
            self._closing.cancel()
        if self._runner.poller is not None:
            self._runner.poller.forget(self._fd)
        self._fd = -1
        self.link.transport = None
        self._sock.close()

    def _lost(self, reason: str) -> None:
        self.close()
        self._runner.member.lost(self.link, reason)
        self._runner.member_changed()

    def _watch(self, events: int) -> None:
        self._events = events
        if self._runner.poller is not None:
            self._runner.poller.watch(self, self._fd, events)

    def _send_rest(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        del self._unsent[:sent]
        self.link.unsent = len(self._unsent)
        if self._unsent:
            return
        self._watch(READ)
        if self._closing is not None:
            self.close()
        else:
            self._runner.member.drained(self.link)


async def look_up_all(
    loop: asyncio.AbstractEventLoop, host: str, port: int
) -> list[tuple[int, tuple[object, ...]]]:
    """Families and addresses of a host name, asked for anew, or of an IP address.

    In a thread of its own: a name server that does not answer must hold up neither the loop nor
    the end of the process. Raises OSError.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return [(family, (host, port))]
    name: str | bytes = host.encode("ascii") if host.isascii() else host
    try:
        found = await in_thread(
            loop, "look-up", lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        )
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name: {error}") from None  # a peer may say anything
    return [(family, address) for family, _, _, _, address in found]


async def connect(dial: Dial) -> tuple[socket.socket, str]:
    """Connect to where `dial` says; the socket, and the address it led to. Raises OSError."""
    loop = asyncio.get_running_loop()
    host, port = dial.address
    try:
        async with asyncio.timeout(dial.timeout_ms / 1000):
            error: OSError | None = None
            for family, address in await look_up_all(loop, host, port):
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, address)
                except OSError as failed:
                    sock.close()
                    # asyncio puts a text of its own ("Connect call failed") before the reason.
                    error = OSError(failed.errno, os.strerror(failed.errno or 0))
                except BaseException:
                    sock.close()
                    raise
                else:
                    return sock, address_text(address)
            raise error or OSError(f"{host} has no address")
    except TimeoutError:
        raise OSError(f"no answer in {dial.timeout_ms} ms") from None


async def bound_at(loop: asyncio.AbstractEventLoop, address: tuple[str, int]) -> socket.socket:
    """As `bound_socket`, but the name is looked up beside the loop. Raises OSError."""
    host, port = address
    if host not in ANY_ADDRESSES:
        found = await look_up_all(loop, host, port)
        # IPv4 first, as Java has it.
        _, resolved = min(found, key=lambda one: one[0] != socket.AF_INET)
        host = str(resolved[0])
        if len(resolved) == IPV6_PARTS and resolved[-1]:
            host += f"%{resolved[-1]}"
    return bound_socket(host, port)


async def listen_at(
    runner: MemberRunner,
    address: tuple[str, int],
    accepted: Callable[[Link], None],
    keep_alive: bool = False,
) -> PeerListener:
    """Listen there from now on. Raises OSError."""
    sock = await bound_at(runner.loop, address)
    try:
        if runner.poller is None:
            raise OSError("shutting down")
        return PeerListener(runner, sock, accepted, keep_alive)
    except OSError:
        sock.close()
        raise
