"""What a member asks of its shell, besides bytes to send and txns to append.

Performed in order, once per loop turn.
"""

from __future__ import annotations

from typing import Final

ELECTION: Final = "election"
LEADER: Final = "leader"


class Dial:
    """Connect to `address`; the answer is `Member.dialled` or `Member.dial_failed`.

    `purpose` is ELECTION (the election port of `sid`) or LEADER (the peer port of the leader).
    Names are resolved by the shell, each time anew.
    """

    __slots__ = ("address", "purpose", "sid", "timeout_ms")

    def __init__(self, purpose: str, sid: int, address: tuple[str, int], timeout_ms: int) -> None:
        self.purpose = purpose
        self.sid = sid
        self.address = address
        self.timeout_ms = timeout_ms

    def __repr__(self) -> str:
        return f"Dial({self.purpose}, {self.sid}, {self.address[0]}:{self.address[1]})"


class OpenPeerPort:
    """Listen for learners on `addresses`; the answer is `peer_port_open` or `peer_port_failed`."""

    __slots__ = ("addresses",)

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self.addresses = addresses


class ClosePeerPort:
    """Accept no more learners."""

    __slots__ = ()


class RebindElectionPort:
    """A reconfig changed our election addresses: listen there from now on."""

    __slots__ = ("addresses",)

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self.addresses = addresses


class RebindClientPort:
    """A reconfig changed our client address: listen there from now on."""

    __slots__ = ("address",)

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address


class Stop:
    """The process has to end: `reason` for the log, `exit_code` as ZooKeeper's ExitCode."""

    __slots__ = ("exit_code", "reason")

    def __init__(self, exit_code: int, reason: str) -> None:
        self.exit_code = exit_code
        self.reason = reason


Effect = Dial | OpenPeerPort | ClosePeerPort | RebindElectionPort | RebindClientPort | Stop
