"""Link: one connection to another member, as the state machines see it.

Bytes that came in are handed to whoever owns the link; bytes to send gather in `out` and leave once
per loop turn. Who moves them is not known here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class LinkOwner(Protocol):
        """Whoever speaks the protocol of a link."""

        def received(self, link: Link, data: bytes, now_ms: int) -> None:
            """A chunk of the stream, of any length."""

        def lost(self, link: Link, reason: str) -> None:
            """The other side or the network ended it; not called after `Link.close`."""


class Link:
    """One connection to another member.

    `outbox` is shared: the links that have bytes to send, or are to be closed, each once. The shell
    takes them at the end of a turn, clears `dirty`, sends `out`, and closes those that are `closed`
    (after sending what is in `out`, without waiting for an answer).
    `transport` is whatever the shell needs to find its socket again.
    """

    __slots__ = ("address", "closed", "dirty", "out", "outbox", "owner", "transport", "unsent")

    def __init__(self, outbox: list[Link], address: str) -> None:
        self.outbox = outbox
        # The other side's "host:port", for log lines.
        self.address = address
        self.owner: LinkOwner | None = None
        self.out = bytearray()
        # Bytes that were taken from `out` and still wait for the network to take them.
        self.unsent = 0
        self.closed = False
        self.dirty = False
        self.transport: object = None

    def __repr__(self) -> str:
        return f"/{self.address}"

    def send(self, data: bytes) -> None:
        """Queue `data`; dropped if the link is closed."""
        if self.closed:
            return
        self.out += data
        if not self.dirty:
            self.dirty = True
            self.outbox.append(self)

    def close(self) -> None:
        """End it from this side; `lost` will not be called."""
        if self.closed:
            return
        self.closed = True
        if not self.dirty:
            self.dirty = True
            self.outbox.append(self)
