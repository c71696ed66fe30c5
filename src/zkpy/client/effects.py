"""What goes between the session's core and its shell: requests, what to tell, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from zkpy.client.codec import Decoder, nothing
from zkpy.client.events import WatchedEvent, Watcher
from zkpy.client.hosts import Address
from zkpy.client.watches import Registration
from zkpy.protocol.errors import KeeperError


class Dial(NamedTuple):
    """Open a connection, then call `connected`; `lost` if that fails."""

    address: Address


class HangUp(NamedTuple):
    """Close the connection, or stop opening it."""


class Probe(NamedTuple):
    """Ask that server "isro" on a connection of its own, then call `probed`."""

    address: Address


Effect: TypeAlias = Dial | HangUp | Probe


class Request:
    """One request and what became of it: `error`, or `result` if that is None.

    `owner` is the shell's; `path` goes into errors. A request `cancelled` before it is sent will
    not be; later, its answer is not looked at and registers no watcher.
    """

    __slots__ = (
        "body",
        "cancelled",
        "decode",
        "error",
        "opcode",
        "owner",
        "path",
        "registration",
        "removal",
        "result",
        "xid",
    )

    def __init__(
        self,
        opcode: int,
        body: bytes,
        decode: Decoder = nothing,
        path: str | None = None,
        registration: Registration | None = None,
    ) -> None:
        self.opcode = opcode
        self.body = body
        self.decode = decode
        self.path = path
        self.registration = registration
        self.removal: Removal | None = None
        self.owner: Any = None
        self.xid = 0
        self.cancelled = False
        self.result: Any = None
        self.error: KeeperError | None = None


class Removal(NamedTuple):
    """Which watchers to forget when the request is answered; `local`: whatever the answer."""

    path: str
    type: int
    watcher: Watcher | None
    local: bool


class Notice(NamedTuple):
    """An event and who is to hear of it, besides those who hear of everything."""

    event: WatchedEvent
    watchers: Sequence[Watcher]


class StateChange(NamedTuple):
    """The session has come to `state`, one of States."""

    state: str


Delivery: TypeAlias = Request | Notice | StateChange
