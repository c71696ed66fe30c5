"""Sockets of simulated members: what joins an End of the network to the process behind it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zkpy.quorum.link import Link
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.testing.host import Host
    from zkpy.testing.network import End


class PeerSocket:
    """A connection to another member: an End of the network, a Link of the core."""

    __slots__ = ("end", "host", "life", "link")

    def __init__(self, host: Host, end: End, link: Link) -> None:
        self.host = host
        self.life = host.life
        self.end = end
        self.link = link
        link.transport = self
        end.socket = self

    def received(self, _end: End, data: bytes) -> None:
        self.host.event(self.life, self.host.peer_received, self.link, data)

    def lost(self, _end: End, reason: str) -> None:
        self.host.event(self.life, self.host.peer_lost, self.link, reason)


class ClientSocket:
    """A connection of a client; `cnxn` once the process has accepted it."""

    __slots__ = ("cnxn", "end", "host", "life")

    def __init__(self, host: Host, end: End) -> None:
        self.host = host
        self.life = host.life
        self.end = end
        self.cnxn: ServerCnxn | None = None
        end.socket = self

    def received(self, _end: End, data: bytes) -> None:
        self.host.event(self.life, self.host.client_received, self, data)

    def lost(self, _end: End, _reason: str) -> None:
        self.host.event(self.life, self.host.client_lost, self)
