"""LearnerHandler: the leader's view of one learner, from its first packet to broadcast.

Reads packets and keeps what the leader has to remember of this learner; what follows from a packet
is decided in leader.py, by the table there. Source: LearnerHandler, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import DecodeError, ProtocolError
from zkpy.protocol.packets import ACK, PING, REQUEST, REVALIDATE, PacketReader, encode_packet
from zkpy.quorum.states import SYNC_NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkpy.protocol.packets import Packet
    from zkpy.quorum.leader import Leader
    from zkpy.quorum.link import Link

log = logging.getLogger(__name__)

# How far a learner has come.
HELLO: Final = "hello"  # its FOLLOWERINFO or OBSERVERINFO is awaited
EPOCH: Final = "epoch"  # the new epoch is not decided yet
ACK_EPOCH: Final = "ack epoch"  # its ACKEPOCH is awaited
EPOCH_ACKED: Final = "epoch acked"  # a quorum has not acknowledged the epoch yet
SYNC: Final = "synchronization"  # catching up: its ACK of NEWLEADER is awaited
NEW_LEADER_ACKED: Final = "new leader acked"  # the leader does not serve yet
BROADCAST: Final = "broadcast"

# A snapshot goes out in pieces of about this size: each holds the loop for a millisecond or two.
SNAPSHOT_PIECE_BYTES: Final = 256 * 1024
# A learner that does not read: it has fallen behind for good, and will catch up by a new start.
MAX_QUEUED_BYTES: Final = 1024 * 1024 * 1024


class LearnerHandler:
    """One learner's connection; LinkOwner of its link.

    `acked`: every txn up to this zxid is on its disk. `synced_zxid`: what its catch-up ended with.
    `deadline_tick`: until that tick of the leader it counts as following.
    `pings_sent` and `pings_answered` count those it has to answer, which is after UPTODATE.
    """

    __slots__ = (
        "_behind",
        "_slices",
        "acked",
        "check_ms",
        "check_zxid",
        "config_version",
        "current_epoch",
        "deadline_tick",
        "is_observer",
        "last_activity_ms",
        "leader",
        "link",
        "peer_zxid",
        "phase",
        "pings_answered",
        "pings_sent",
        "reader",
        "sid",
        "sync_mode",
        "synced_zxid",
    )

    def __init__(self, leader: Leader, link: Link, now_ms: int) -> None:
        self.leader = leader
        self.link = link
        self.reader = PacketReader(leader.settings.max_record_bytes)
        self.phase = HELLO
        self.sid = -1
        self.is_observer = False
        self.config_version = 0
        self.current_epoch = -1
        self.peer_zxid = 0
        self.acked = 0
        self.synced_zxid = 0
        self.sync_mode = SYNC_NONE
        self.deadline_tick = 0
        self.last_activity_ms = now_ms
        self.check_zxid = 0
        self.check_ms = now_ms
        self.pings_sent = 0
        self.pings_answered = 0
        # While a snapshot is being sent: its rest, and the packets that come behind it.
        self._slices: Iterator[bytes] | None = None
        self._behind = bytearray()

    def __repr__(self) -> str:
        return f"learner sid: {self.sid} at {self.link}"

    # ------------------------------------------------------------------ in

    def received(self, link: Link, data: bytes, now_ms: int) -> None:
        """Take a chunk of the learner's stream."""
        leader = self.leader
        try:
            packets = self.reader.feed(data)
            if not packets:
                return
            self.last_activity_ms = now_ms
            if self.phase != HELLO:
                self.deadline_tick = leader.tick_count + leader.settings.sync_limit_ticks
            if self.phase != BROADCAST:
                packets = self._before_broadcast(packets, now_ms)
            acked = self.acked
            inbox = leader.inbox
            for packet in packets:
                type = packet[0]
                if type == ACK:
                    # It logs in order, so the last one says it all.
                    if packet[1] > acked:
                        acked = packet[1]
                elif type in (REQUEST, REVALIDATE):
                    inbox.append((self, *packet))
                elif type == PING:
                    self.pings_answered += 1
                    inbox.append((self, *packet))
                    leader.ping_answered()
                else:
                    log.warning("unexpected packet of type %d from %s", type, self)
            if acked > self.acked:
                leader.acked(self, acked)
        except (ProtocolError, DecodeError) as error:
            leader.drop(self, f"malformed packet: {error}")

    def _before_broadcast(self, packets: list[Packet], now_ms: int) -> list[Packet]:
        """Act on packets as long as the learner is not there; return those behind."""
        for index, packet in enumerate(packets):
            if self.link.closed:
                break
            if self.phase == BROADCAST:
                return packets[index:]
            self.leader.handle(self, packet, now_ms)
        return []

    def lost(self, link: Link, reason: str) -> None:
        """The connection is gone."""
        self.leader.drop(self, reason)

    # ------------------------------------------------------------------ out

    def send(self, data: bytes) -> None:
        """Queue encoded packets, behind the snapshot if one is on its way."""
        link = self.link
        if self._slices is None:
            if len(link.out) + link.unsent > MAX_QUEUED_BYTES:
                self.leader.drop(self, "it does not read what is sent to it")
            else:
                link.send(data)
        elif len(self._behind) + len(data) > MAX_QUEUED_BYTES:
            self.leader.drop(self, "too much is queued behind its snapshot")
        else:
            self._behind += data

    def packet(self, type: int, zxid: int, data: bytes | None = None) -> None:
        """Queue one packet."""
        self.send(encode_packet(type, zxid, data))

    def start_snapshot(self, slices: Iterator[bytes]) -> None:
        """Send `slices` by calls of `pump`; later packets wait behind them."""
        self._slices = slices

    @property
    def in_snapshot(self) -> bool:
        """Whether a snapshot is being sent."""
        return self._slices is not None

    def pump(self, now_ms: int) -> None:
        """The network has taken what was queued: give it the next piece of the snapshot."""
        slices = self._slices
        link = self.link
        if slices is None or link.closed or len(link.out) + link.unsent > SNAPSHOT_PIECE_BYTES:
            return
        self.last_activity_ms = now_ms
        size = 0
        for data in slices:
            link.send(data)
            size += len(data)
            if size >= SNAPSHOT_PIECE_BYTES:
                return
        # This turn's packets belong behind the snapshot as well.
        self.leader.flush_streams()
        self._slices = None
        link.send(bytes(self._behind))
        self._behind.clear()
        self.leader.snapshot_sent(self)
