"""Network: byte streams between named hosts, with everything that can happen to them.

As TCP has it: a stream arrives in order and complete, or ends. Different streams overtake each
other. What is sent into a partition arrives once that is healed, if the stream lives that long. A
process that is killed ends its streams; a host without power says nothing, and its streams are
reset when it is back and hears of them again.
"""

from __future__ import annotations

from collections import deque

from zkpy.testing.scheduler import SECOND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random
    from typing import Final, Protocol

    from zkpy.testing.scheduler import Scheduler

    class Socket(Protocol):
        """Whoever uses an End."""

        def received(self, end: End, data: bytes) -> None:
            """A chunk of the stream."""

        def lost(self, end: End, reason: str) -> None:
            """It has ended, not by us."""


Address = tuple[str, int]

LEAST_DELAY_US: Final = 40
MOST_DELAY_US: Final = 1500
FIRST_EPHEMERAL_PORT: Final = 40_000
# How long after a partition the retransmissions come.
RETRANSMISSION_US: Final = 200_000
REFUSED: Final = "Connection refused"
TIMED_OUT: Final = "Connection timed out"
RESET: Final = "Connection reset by peer"
END_OF_STREAM: Final = "end of stream"


class End:
    """One side of a connection, owned by `socket`. `address` and `peer_address`: who, where."""

    __slots__ = (
        "_network",
        "_queue",
        "address",
        "closed",
        "forgotten",
        "host",
        "peer",
        "peer_address",
        "socket",
    )

    def __init__(self, network: Network, address: Address, peer_address: Address) -> None:
        self._network = network
        self.address = address
        self.peer_address = peer_address
        self.host = address[0]
        self.peer: End = self
        self.socket: Socket | None = None
        # Nothing is sent or received here any more.
        self.closed = False
        # Its host lost power; told to the other side if that speaks to it again.
        self.forgotten = False
        # On the way to the other side: (time of arrival, data; None for the end), in order.
        self._queue: deque[tuple[int, bytes | None]] = deque()

    def __repr__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}->{self.peer_address[0]}:{self.peer_address[1]}"

    @property
    def in_flight_bytes(self) -> int:
        """What was sent and has not arrived."""
        return sum(len(data) for _, data in self._queue if data is not None)

    @property
    def in_flight_us(self) -> int:
        """When the last of it arrives, from now on."""
        now_us = self._network.scheduler.now_us
        return max(0, self._queue[-1][0] - now_us) if self._queue else 0

    def send(self, data: bytes) -> None:
        """Send `data`; dropped if this side is closed."""
        if self.closed or not data:
            return
        network = self._network
        rng = network.rng
        if len(data) > 1 and rng.random() < network.fragmentation:
            cut = rng.randrange(1, len(data))
            self._put(data[:cut])
            data = data[cut:]
        self._put(data)

    def close(self) -> None:
        """End the stream behind what was sent; `lost` is not called here."""
        if self.closed:
            return
        self.closed = True
        self._put(None)

    def _put(self, data: bytes | None) -> None:
        network = self._network
        scheduler = network.scheduler
        queue = self._queue
        arrival_us = scheduler.now_us + network.delay_us(self.host, self.peer.host)
        if queue and queue[-1][0] > arrival_us:
            arrival_us = queue[-1][0]
        if data is not None:
            arrival_us += len(data) * SECOND // network.bytes_per_second
        queue.append((arrival_us, data))
        scheduler.after(arrival_us - scheduler.now_us, self.arrive)

    def arrive(self) -> None:
        """Hand over what is due; into a partition nothing is: it is sent again when that heals."""
        queue = self._queue
        network = self._network
        now_us = network.scheduler.now_us
        peer = self.peer
        if not queue or queue[0][0] > now_us or network.is_blocked(self.host, peer.host):
            return
        if peer.host in network.dark or not (peer.socket or peer.closed):
            return
        chunks: list[bytes] = []
        ended = False
        while queue and queue[0][0] <= now_us and not ended:
            data = queue.popleft()[1]
            if data is None:
                ended = True
            else:
                chunks.append(data)
        if peer.closed:
            if peer.forgotten and not ended:
                network.reset_later(self)
        else:
            if chunks:
                assert peer.socket is not None
                peer.socket.received(peer, b"".join(chunks))
            if ended and not peer.closed:
                peer.end(END_OF_STREAM)
        if ended:
            queue.clear()
        if self.closed and peer.closed and not queue and not peer.forgotten:
            network.forget(self)

    @property
    def is_late(self) -> bool:
        """Whether something could not arrive when it should have."""
        return bool(self._queue) and self._queue[0][0] < self._network.scheduler.now_us

    def resume(self) -> None:
        """A partition has been healed."""
        network = self._network
        if self.is_late:
            delay_us = network.rng.randrange(RETRANSMISSION_US)
            arrival_us = network.scheduler.now_us + delay_us
            # What is sent meanwhile waits behind it.
            late = [(max(arrival_us, due_us), data) for due_us, data in self._queue]
            self._queue.clear()
            self._queue.extend(late)
            network.scheduler.after(delay_us, self.arrive)

    def end(self, reason: str) -> None:
        """The stream is over, and whoever uses it is told."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        if self.socket is not None:
            self.socket.lost(self, reason)

    def drop(self) -> None:
        """Nothing more leaves or arrives, and nobody is told."""
        self.closed = True
        self._queue.clear()


class Network:
    """All connections of a simulation.

    `fragmentation`: how often a chunk arrives in two parts. `slow`: ms that a direction takes more,
    at most. `bytes_per_second`: of each stream.
    """

    def __init__(self, scheduler: Scheduler, rng: Random) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.fragmentation = 0.02
        self.bytes_per_second = 10_000_000
        self.slow: dict[tuple[str, str], int] = {}
        self.dark: set[str] = set()  # hosts without power
        self._blocked: dict[tuple[str, str], int] = {}
        self._listeners: dict[Address, Callable[[End], None]] = {}
        self._ends: dict[End, None] = {}
        self._port = FIRST_EPHEMERAL_PORT

    # ------------------------------------------------------------------ hosts

    def listen(self, address: Address, accept: Callable[[End], None]) -> bool:
        """Call `accept` for each connection; it sets `socket`. False: the address is taken."""
        if address in self._listeners:
            return False
        self._listeners[address] = accept
        return True

    def listen_no_more(self, address: Address) -> None:
        self._listeners.pop(address, None)

    def is_listening(self, address: Address) -> bool:
        return address in self._listeners

    def connect(
        self,
        host: str,
        address: Address,
        timeout_ms: int,
        connected: Callable[[End], None],
        failed: Callable[[str], None],
    ) -> None:
        """Open a connection from `host`; one of the two is called. `connected` sets `socket`."""
        self._port += 1
        _Attempt(self, (host, self._port), address, timeout_ms, connected, failed)

    def kill(self, host: str) -> None:
        """The process on `host` is gone: its listeners close, its streams end."""
        self._close_listeners(host)
        for end in self._ends_of(host):
            if not end.closed:
                end.close()

    def switch_off(self, host: str) -> None:
        """No power: nobody hears of it."""
        self._close_listeners(host)
        self.dark.add(host)
        for end in self._ends_of(host):
            end.drop()
            end.forgotten = True

    def switch_on(self, host: str) -> None:
        """Power is back: who has spoken to it meanwhile is reset."""
        self.dark.discard(host)
        for end in self._ends_of(host):
            if end.forgotten and end.peer.is_late:
                self.reset_later(end.peer)

    def _close_listeners(self, host: str) -> None:
        for address in [address for address in self._listeners if address[0] == host]:
            del self._listeners[address]

    def _ends_of(self, host: str) -> list[End]:
        return [end for end in self._ends if end.host == host]

    # ------------------------------------------------------------------ faults

    def block(self, source: str, target: str) -> None:
        """Let nothing pass from `source` to `target`; counted, so that partitions may overlap."""
        pair = (source, target)
        self._blocked[pair] = self._blocked.get(pair, 0) + 1

    def unblock(self, source: str, target: str) -> None:
        """Take one `block` back."""
        pair = (source, target)
        left = self._blocked.get(pair, 0) - 1
        if left > 0:
            self._blocked[pair] = left
        elif left == 0:
            del self._blocked[pair]
            for end in list(self._ends):
                if end.host == source and end.peer.host == target:
                    end.resume()

    def is_blocked(self, source: str, target: str) -> bool:
        return bool(self._blocked) and (source, target) in self._blocked

    def reset(self, end: End) -> None:
        """Cut a connection: both sides learn of it at once, what was on its way is lost."""
        peer = end.peer
        end.end(RESET)
        peer.end(RESET)
        self.forget(end)

    def reset_later(self, end: End) -> None:
        """`end` gets a reset, if a packet can reach it."""
        self.scheduler.after(self.delay_us(end.peer.host, end.host), self._reset_arrives, end)

    def _reset_arrives(self, end: End) -> None:
        if not self.is_blocked(end.peer.host, end.host):
            end.end(RESET)
            self.forget(end)

    def connections(self) -> list[End]:
        """One end of each connection that is open on both sides."""
        return [
            end
            for end in self._ends
            if not end.closed and not end.peer.closed and end.address < end.peer_address
        ]

    def heal(self) -> None:
        """No partition and no slow link any more."""
        self.slow.clear()
        for source, target in list(self._blocked):
            self._blocked[source, target] = 1
            self.unblock(source, target)

    # ------------------------------------------------------------------ inner workings

    def delay_us(self, source: str, target: str) -> int:
        """How long a packet takes now."""
        rng = self.rng
        delay_us = LEAST_DELAY_US + int(MOST_DELAY_US * rng.random() ** 4)
        if self.slow:
            delay_us += int(1000 * self.slow.get((source, target), 0) * rng.random())
        return delay_us

    def open(self, source: Address, target: Address) -> tuple[End, End]:
        near = End(self, source, target)
        far = End(self, target, source)
        near.peer, far.peer = far, near
        self._ends[near] = None
        self._ends[far] = None
        return near, far

    def forget(self, end: End) -> None:
        """Both sides are closed."""
        self._ends.pop(end, None)
        self._ends.pop(end.peer, None)

    def listener(self, address: Address) -> Callable[[End], None] | None:
        return self._listeners.get(address)


class _Attempt:
    """A connection being opened: a packet there, a packet back."""

    def __init__(
        self,
        network: Network,
        source: Address,
        target: Address,
        timeout_ms: int,
        connected: Callable[[End], None],
        failed: Callable[[str], None],
    ) -> None:
        self.network = network
        self.source = source
        self.target = target
        self.connected = connected
        self.failed = failed
        self.over = False
        self.near: End | None = None
        scheduler = network.scheduler
        scheduler.after(1000 * timeout_ms, self.timed_out)
        scheduler.after(network.delay_us(source[0], target[0]), self.there)

    def there(self) -> None:
        network = self.network
        source, target = self.source[0], self.target[0]
        if self.over or network.is_blocked(source, target) or target in network.dark:
            return
        back_us = network.delay_us(target, source)
        accept = network.listener(self.target)
        if accept is None:
            network.scheduler.after(back_us, self.refused)
            return
        self.near, far = network.open(self.source, self.target)
        accept(far)
        network.scheduler.after(back_us, self.back)

    def refused(self) -> None:
        if not self.over and not self.network.is_blocked(self.target[0], self.source[0]):
            self.over = True
            self.failed(REFUSED)

    def back(self) -> None:
        near = self.near
        assert near is not None
        if self.over or self.network.is_blocked(self.target[0], self.source[0]):
            return
        self.over = True
        if near.closed:
            self.failed(RESET)
        else:
            self.connected(near)
            near.peer.arrive()

    def timed_out(self) -> None:
        if self.over:
            return
        self.over = True
        if self.near is not None:
            self.near.close()
        self.failed(TIMED_OUT)
