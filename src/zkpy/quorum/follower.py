"""Follower: logs what the leader proposes, acknowledges what is on disk, delivers what commits.

Source: Follower, FollowerZooKeeperServer, SendAckRequestProcessor, ZooKeeper 3.9; phase 3 of Zab.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from logging import getLogger
from typing import Final

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    ACK,
    COMMIT,
    COMMITANDACTIVATE,
    FOLLOWERINFO,
    PACKET_NAMES,
    PROPOSAL,
    REVALIDATE,
    SNAP,
    decode_revalidated,
)
from zkpy.protocol.txn_check import check_txn
from zkpy.protocol.txns import HEADER_SIZE
from zkpy.quorum.learner import (
    FOR_SERVER,
    RECONFIG,
    UNMATCHED_TXN_COMMIT,
    FatalProtocolError,
    Learner,
    txn_zxid_and_type,
)
from zkpy.quorum.states import BROADCAST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from zkpy.protocol.packets import Packet
    from zkpy.quorum.learner import Proposal

log = getLogger(__name__)

# ACK, zxid, no data, no authinfo.
_pack_ack: Final = struct.Struct(">iqq").pack


class Follower(Learner):
    """A learner whose acknowledgements count, if it has a vote."""

    info_type = FOLLOWERINFO
    name = "Follower"
    participle = "following"

    # Zxids that are being logged; each is acknowledged on its own, in order.
    _unacked: list[int]

    def _start_broadcast(
        self, committed: list[tuple[int, int, bytes]], uncommitted: deque[Proposal]
    ) -> None:
        appended = [(zxid, txn) for _, zxid, txn in committed]
        appended += uncommitted
        self._appended += appended
        self._unacked = [zxid for zxid, _ in appended]
        self._delivered += committed
        self.pending = uncommitted

    def _broadcast(self, packets: list[Packet]) -> None:
        # Most of a follower's packets pass here: what is rare is in methods of its own.
        pending = self.pending
        appended = self._appended
        unacked = self._unacked
        delivered = self._delivered
        for type, zxid, data, _ in packets:
            if type == PROPOSAL:
                if (
                    zxid == self.last_zxid + 1
                    and data is not None
                    and len(data) >= HEADER_SIZE
                    and (head := txn_zxid_and_type(data))[0] == zxid
                    and head[1] != RECONFIG
                ):
                    check_txn(data)
                    proposal = (zxid, data)
                elif zxid <= self.last_zxid:
                    continue  # sent once to catch up and once more by broadcast
                else:
                    proposal = (zxid, self.check_proposal(zxid, data))
                self.last_zxid = zxid
                pending.append(proposal)
                appended.append(proposal)
                unacked.append(zxid)
            elif type == COMMIT:
                if pending and pending[0][0] == zxid:
                    delivered.append((COMMIT, zxid, pending.popleft()[1]))
                    self.committed_zxid = zxid
                else:
                    self._odd_commit(zxid)
            elif type in FOR_SERVER:
                if type == REVALIDATE:
                    decode_revalidated(data)  # malformed: found while the role can still end well
                delivered.append((type, zxid, data))
            elif type == COMMITANDACTIVATE:
                if pending and pending[0][0] == zxid:
                    txn = pending[0][1]
                    self.activate(zxid, txn, data)
                    pending.popleft()
                    delivered.append((COMMITANDACTIVATE, zxid, txn))
                    self.committed_zxid = zxid
                else:
                    self._odd_commit(zxid)
            elif type == SNAP:
                raise ProtocolError("SNAP in the middle of broadcast")
            else:
                name = PACKET_NAMES.get(type, str(type))
                log.warning("Invalid packet type: %s received by Follower from %s", name, self.link)

    def _odd_commit(self, zxid: int) -> None:
        """Of something else than the oldest proposal. Raises ProtocolError, unless it is harmless.

        Source: FollowerZooKeeperServer.commit. Where nothing is pending the reference only warns;
        but a txn that we never saw is a hole.
        """
        if self.pending:
            raise FatalProtocolError(
                f"Committing zxid {zxid:#x} but next pending txn {self.pending[0][0]:#x}",
                UNMATCHED_TXN_COMMIT,
            )
        if zxid > self.committed_zxid:
            raise ProtocolError(f"Committing {zxid:#x} without seeing txn")
        log.warning("Committing %#x without seeing txn", zxid)

    def durable(self, zxid: int) -> None:
        """Acknowledge what is on disk."""
        if self._awaited_zxid is not None:
            super().durable(zxid)
            return
        if self.failed is not None or self.phase != BROADCAST:
            return
        if self._appended and zxid >= self._appended[0][0]:
            # A late report of an earlier role must not stand for what was not even taken yet.
            zxid = self._appended[0][0] - 1
        unacked = self._unacked
        count = bisect_right(unacked, zxid)
        if count:
            self._send(b"".join([_pack_ack(ACK, acked, -1) for acked in unacked[:count]]))
            del unacked[:count]
