"""QuorumCnxManager: the connections over which members elect a leader, one per pair of members.

Owns who dials whom, which of several connections to a member is kept, and the one message that
waits for each. It must not know what is in a message; how members vote is in `election.py`.

The server with the larger id owns the connection. The smaller one dials as well, says who it is,
hangs up, and is dialled back.
Source: QuorumCnxManager, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import INFO, WARNING, getLogger
from typing import Final

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import MAX_NOTIFICATION_BYTES, decode_initial, encode_initial, frame
from zkpy.quorum.effects import ELECTION, Dial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from zkpy.quorum.effects import Effect
    from zkpy.quorum.link import Link
    from zkpy.quorum.view import View

    class Settings(Protocol):
        """The part of the configuration that counts here."""

        # How long a dial may take, and the first bytes of who dialled us.
        cnx_timeout_ms: int
        quorum_cnxn_timeout_ms: int
        multi_address_enabled: bool


log = getLogger(__name__)

Address = tuple[str, int]

NEVER: Final = 1 << 62
# Messages nobody has taken yet; the oldest go first. Source: RECV_CAPACITY.
MAX_RECEIVED: Final = 100
# Connections whose other side has not said yet who it is.
MAX_HANDSHAKES: Final = 256
# A link with so much unsent gets nothing more: the newest message waits, and replaces older ones.
MAX_UNSENT_BYTES: Final = 64 * 1024
# How often such a link is looked at again.
BLOCKED_RETRY_MS: Final = 100
# A larger server that we have asked to dial us has so long to do it before we ask again: each
# request makes it drop the connection it may just have made.
DIAL_BACK_MS: Final = 100
# A server that refused us is not asked again at once, however often our vote changes.
REDIAL_MS: Final = 50
# Who looks for a leader and is told nothing over a link for so long, makes another: the other end
# may be gone without a word, or be somebody who only gave the id of a member.
SILENT_MS: Final = 5000
# The first bytes of servers before 3.5.
LEGACY_BYTES: Final = 8
# "Observer without an id", from the times before 3.4.
OBSERVER_ID: Final = (1 << 63) - 1
# Of those a server says it can be dialled at.
MAX_ADDRESSES: Final = 8


class Peer:
    """What there is with one other member."""

    __slots__ = (
        "asked_ms",
        "dials",
        "failed",
        "failed_ms",
        "last_sent",
        "link",
        "queued",
        "sid",
        "unanswered_ms",
    )

    def __init__(self, sid: int) -> None:
        self.sid = sid
        self.link: Link | None = None
        # Dials under way, one per address; the first that succeeds counts.
        self.dials: list[Dial] = []
        # The message that waits for a link, and the last one that was put on a link.
        self.queued: bytes | None = None
        self.last_sent: bytes | None = None
        # When we asked it, the larger one, to dial us; None once it did, or we failed to ask.
        self.asked_ms: int | None = None
        # The last dial failed, or the last link was lost.
        self.failed = False
        self.failed_ms = -REDIAL_MS
        # When the first message was sent after which none has come; None: the last word is its.
        self.unanswered_ms: int | None = None


class Channel:
    """The receiving side of a link. `sid` is None until its first bytes have said who it is.

    `number` counts the links in the order they were made.
    """

    __slots__ = ("buffer", "deadline_ms", "number", "sid")

    def __init__(self, sid: int | None, deadline_ms: int, number: int) -> None:
        self.sid = sid
        self.buffer = bytearray()
        self.deadline_ms = deadline_ms
        self.number = number


class QuorumCnxManager:
    """The election connections of one member; owner of their links."""

    def __init__(
        self,
        my_id: int,
        view: View,
        settings: Settings,
        outbox: list[Link],
        effects: list[Effect],
    ) -> None:
        self.my_id = my_id
        self.view = view
        self._settings = settings
        self._outbox = outbox
        self._effects = effects
        self._peers: dict[int, Peer] = {}
        self._channels: dict[Link, Channel] = {}
        self._received: list[tuple[int, bytes]] = []
        self._handshakes = 0
        self._links_made = 0
        # When links that took nothing more are looked at again.
        self._retry_ms = NEVER
        self._closed = False
        # Told to those we dial; of use even when a reconfig has removed us.
        self._own_addresses = view.election_addresses(my_id)

    # ------------------------------------------------------------------ messages

    def send(self, sid: int, payload: bytes, now_ms: int) -> None:
        """Send `payload` to `sid`, in the place of a message that still waits; dial if need be."""
        if sid == self.my_id:
            self._deliver(sid, payload)
            return
        peer = self._peers.get(sid)
        if peer is None:
            if not self.view.election_addresses(sid):
                log.warning("Invalid server id: %d", sid)
                return
            peer = self._peers[sid] = Peer(sid)
        peer.queued = payload
        if peer.unanswered_ms is None:
            peer.unanswered_ms = now_ms
        elif peer.link is not None and now_ms - peer.unanswered_ms >= SILENT_MS:
            log.warning("No word from id %d by way of %s: connecting anew", sid, peer.link)
            self._detach(peer)
        if peer.link is None:
            self._connect(peer, now_ms)
        elif not self._flush(peer):
            self._retry_ms = min(self._retry_ms, now_ms + BLOCKED_RETRY_MS)

    def forget(self) -> None:
        """What was said so far is not said again to those who connect from now on.

        It is out of date once the leader has its epoch and the members are others: a server of the
        reference would leave its election for it, then begin anew for the later configuration that
        comes behind it, and end up following without an election port. Whoever looks for a leader
        asks, and is answered.
        """
        for peer in self._peers.values():
            peer.last_sent = None
            if peer.link is None:
                peer.queued = None

    def begin_asking(self) -> None:
        """An election begins: that nobody answered what was said before means nothing."""
        for peer in self._peers.values():
            peer.unanswered_ms = None

    def take_received(self) -> list[tuple[int, bytes]]:
        """(sid, payload) in order of arrival; each is taken once."""
        received = self._received
        if received:
            self._received = []
        return received

    def unreachable(self, sid: int) -> bool:
        """Whether nothing can come from `sid` soon, as far as we know.

        That is: no link, the last dial failed or the last link was lost, and no dial is under way.
        """
        peer = self._peers.get(sid)
        if peer is None:
            return not self.view.election_addresses(sid)
        return peer.failed and peer.link is None and not peer.dials and peer.asked_ms is None

    def connected(self) -> list[int]:
        """Peers there is a link to."""
        return [sid for sid, peer in self._peers.items() if peer.link is not None]

    def _deliver(self, sid: int, payload: bytes) -> None:
        self._received.append((sid, payload))
        if len(self._received) > MAX_RECEIVED:
            del self._received[0]

    def _flush(self, peer: Peer) -> bool:
        """Put what waits on the link; False if that has too much to send already."""
        link, payload = peer.link, peer.queued
        if link is None or payload is None:
            return True
        if link.unsent + len(link.out) > MAX_UNSENT_BYTES:
            return False
        link.send(frame(payload))
        peer.last_sent, peer.queued = payload, None
        return True

    # ------------------------------------------------------------------ dialling

    def _connect(self, peer: Peer, now_ms: int) -> None:
        """Dial at the configured addresses, unless that is under way or was in vain just now."""
        if peer.link is not None or peer.dials:
            return
        if peer.failed and now_ms - peer.failed_ms < REDIAL_MS:
            return
        if peer.asked_ms is not None and now_ms - peer.asked_ms < DIAL_BACK_MS:
            return
        addresses = self.view.election_addresses(peer.sid)
        if addresses:
            self._dial(peer, addresses)
        else:
            log.warning("Invalid server id: %d", peer.sid)
            self._forget_stranger(peer)

    def _dial(self, peer: Peer, addresses: list[Address]) -> None:
        assert not peer.dials, "one attempt at a time"
        timeout_ms = self._settings.cnx_timeout_ms
        # All addresses at once: that one of them answers is enough, and which is not known.
        peer.dials = [Dial(ELECTION, peer.sid, address, timeout_ms) for address in addresses]
        self._effects += peer.dials

    def dialled(self, dial: Dial, link: Link, now_ms: int) -> None:
        """A connection that was asked for stands: say who we are; keep it if we own it."""
        peer = self._peers.get(dial.sid)
        if self._closed or peer is None or dial not in peer.dials:
            link.close()
            return
        peer.dials = []
        if dial.sid > self.my_id and peer.link is not None:
            # It has dialled us meanwhile. Our first bytes would make it start over.
            link.close()
            return
        link.send(
            encode_initial(
                self.my_id, self._addresses_of_mine(), self._settings.multi_address_enabled
            )
        )
        if dial.sid > self.my_id:
            log.info(
                "Have smaller server identifier, so dropping the connection: (myId:%d --> sid:%d)",
                self.my_id,
                dial.sid,
            )
            peer.asked_ms = now_ms
            link.close()
            return
        self._own(link, dial.sid, NEVER)
        self._attach(peer, link)

    def dial_failed(self, dial: Dial, reason: str, now_ms: int) -> None:
        """A connection that was asked for could not be made."""
        peer = self._peers.get(dial.sid)
        if peer is None or dial not in peer.dials:
            return
        log.warning(
            "Cannot open channel to %d at election address %s: %s",
            dial.sid,
            address_text(dial.address),
            reason,
        )
        peer.dials.remove(dial)
        if not peer.dials and peer.link is None:
            peer.failed = True
            peer.failed_ms = now_ms
            peer.asked_ms = None
            self._forget_stranger(peer)

    def _addresses_of_mine(self) -> list[Address]:
        server = self.view.server(self.my_id)
        if server is not None:
            self._own_addresses = server.election_addresses
        return self._own_addresses

    def _forget_stranger(self, peer: Peer) -> None:
        """Nothing is kept for a server of no configuration once it is gone."""
        if peer.link is None and not peer.dials and self.view.server(peer.sid) is None:
            self._peers.pop(peer.sid, None)

    # ------------------------------------------------------------------ being dialled

    def accepted(self, link: Link, now_ms: int) -> None:
        """Somebody connected to our election port; its first bytes will say who."""
        if self._closed:
            link.close()
            return
        log.info("Received connection request from %s", link)
        if self._handshakes >= MAX_HANDSHAKES:
            oldest = next(old for old, channel in self._channels.items() if channel.sid is None)
            self._drop(oldest, "too many connections whose other side says nothing")
        self._handshakes += 1
        self._own(link, None, now_ms + self._settings.quorum_cnxn_timeout_ms)

    def _greeted(self, link: Link, channel: Channel, now_ms: int) -> None:
        """Take the first bytes, if they are complete. Raises ProtocolError."""
        initial = decode_initial(bytes(channel.buffer))
        if initial is None:
            return
        sid, addresses, consumed = initial
        del channel.buffer[:consumed]
        if sid == self.my_id:
            raise ProtocolError(
                "We got a connection request from a server with our own ID. This should be either"
                " a configuration error, or a bug."
            )
        if sid == OBSERVER_ID or sid < 0:
            raise ProtocolError(f"a server without an id: {sid}")
        if consumed == LEGACY_BYTES and self.view.server(sid) is None:
            # Before 3.5 an id was all that was said, and nobody could join; so is much garbage.
            raise ProtocolError(f"not a member, nor does it say where it is: {sid}")
        if sid > self.my_id:
            self._handshakes -= 1
            channel.sid = sid
            channel.deadline_ms = NEVER
            peer = self._peers.get(sid) or Peer(sid)
            self._peers[sid] = peer
            if peer.link is not None and self._channels[peer.link].number > channel.number:
                # It has made a newer one, whose first bytes have overtaken these.
                self._channels.pop(link)
                link.close()
            else:
                self._attach(peer, link)
            return
        # We own the connection, so we make it: a new one, as the other side may have forgotten
        # the one there is.
        self._discard(link)
        link.close()
        self._dial_back(sid, addresses, now_ms)

    def _dial_back(self, sid: int, addresses: list[Address], now_ms: int) -> None:
        peer = self._peers.get(sid) or Peer(sid)
        self._peers[sid] = peer
        if peer.link is not None:
            self._detach(peer)
        usable = addresses[:MAX_ADDRESSES] or self.view.election_addresses(sid)
        if not usable:
            log.warning("Invalid server id: %d", sid)
            self._forget_stranger(peer)
        elif not peer.dials:
            self._dial(peer, usable)
        else:
            # Under way already, though perhaps to an address that is no longer right.
            tried = [dial.address for dial in peer.dials]
            timeout_ms = self._settings.cnx_timeout_ms
            more = [
                Dial(ELECTION, sid, address, timeout_ms)
                for address in usable
                if address not in tried
            ]
            peer.dials += more
            self._effects += more

    # ------------------------------------------------------------------ links

    def _own(self, link: Link, sid: int | None, deadline_ms: int) -> None:
        self._links_made += 1
        self._channels[link] = Channel(sid, deadline_ms, self._links_made)
        link.owner = self

    def _attach(self, peer: Peer, link: Link) -> None:
        """From now on `link` is the connection to `peer`; another there is, is closed."""
        if peer.link is not None:
            self._detach(peer)
        peer.link = link
        peer.failed = False
        peer.asked_ms = None
        peer.unanswered_ms = None
        if peer.queued is None:
            # It may have been lost with the last connection; to get it twice does no harm.
            peer.queued = peer.last_sent
        self._flush(peer)

    def _detach(self, peer: Peer) -> None:
        link, peer.link = peer.link, None
        if link is not None:
            self._channels.pop(link, None)
            link.close()

    def _discard(self, link: Link) -> Channel | None:
        channel = self._channels.pop(link, None)
        if channel is not None and channel.sid is None:
            self._handshakes -= 1
        return channel

    def received(self, link: Link, data: bytes, now_ms: int) -> None:
        """A chunk from a peer, or of the first bytes of whoever dialled us."""
        channel = self._channels.get(link)
        if channel is None:
            return
        channel.buffer += data
        try:
            if channel.sid is None:
                self._greeted(link, channel, now_ms)
            if channel.sid is not None and not link.closed:
                self._take_messages(channel.sid, channel.buffer)
        except ProtocolError as error:
            if channel.sid is None:
                log.warning("Initial message parsing error! From %s: %s", link, error)
                self._discard(link)
                link.close()
            else:
                self._drop(link, str(error), now_ms)

    def _take_messages(self, sid: int, buffer: bytearray) -> None:
        start, end = 0, len(buffer)
        while end - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big", signed=True)
            if not 0 < length <= MAX_NOTIFICATION_BYTES:
                raise ProtocolError(f"Received packet with invalid packet: {length}")
            if end - start - 4 < length:
                break
            start += 4 + length
            self._deliver(sid, bytes(buffer[start - length : start]))
        if start:
            del buffer[:start]
            self._peers[sid].unanswered_ms = None

    def lost(self, link: Link, reason: str) -> None:
        """The other side or the network ended it."""
        self._drop(link, reason)

    def _drop(self, link: Link, reason: str, now_ms: int | None = None) -> None:
        channel = self._discard(link)
        link.close()
        if channel is None:
            return
        sid = channel.sid
        if sid is None:
            # Somebody who only looks whether the port is open is no reason to worry.
            level = WARNING if channel.buffer else INFO
            log.log(level, "%s did not say who it is: %s", link, reason)
            return
        log.warning(
            "Connection broken for id %d, my id = %d: from %s: %s", sid, self.my_id, link, reason
        )
        log.warning(
            "Interrupting SendWorker thread from RecvWorker. sid: %d. myId: %d", sid, self.my_id
        )
        log.warning("Send worker leaving thread id %d my id = %d", sid, self.my_id)
        peer = self._peers[sid]
        peer.link = None
        peer.failed = True
        if now_ms is not None:
            peer.failed_ms = now_ms
        self._forget_stranger(peer)

    # ------------------------------------------------------------------ time, the end

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        if not self._handshakes:
            return self._retry_ms
        return min(self._retry_ms, *(channel.deadline_ms for channel in self._channels.values()))

    def tick(self, now_ms: int) -> None:
        """Give up those who do not say who they are; go on with links that were blocked."""
        if self._handshakes:
            for link, channel in list(self._channels.items()):
                if now_ms >= channel.deadline_ms:
                    self._drop(link, "timed out")
        if now_ms >= self._retry_ms:
            flushed = [self._flush(peer) for peer in self._peers.values()]
            self._retry_ms = NEVER if all(flushed) else now_ms + BLOCKED_RETRY_MS

    def restart(self) -> None:
        """Start afresh, with the addresses of a new configuration."""
        self.close()
        self._closed = False

    def close(self) -> None:
        """End every connection; none is accepted or made from now on."""
        for link in list(self._channels):
            link.close()
        self._channels.clear()
        self._peers.clear()
        self._received.clear()
        self._handshakes = 0
        self._closed = True


def address_text(address: Address) -> str:
    """As Java prints one: an IP address behind a slash, where a name's would be."""
    host, port = address
    if ":" in host:
        return f"/[{host}]:{port}"
    literal = host.replace(".", "").isdigit()
    return f"{'/' if literal else ''}{host}:{port}"
