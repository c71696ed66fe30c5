"""Observer: follows without a vote; is told of what has committed, and acknowledges nothing.

Source: Observer, ObserverZooKeeperServer, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    COMMIT,
    COMMITANDACTIVATE,
    INFORM,
    INFORMANDACTIVATE,
    OBSERVERINFO,
    PACKET_NAMES,
    REVALIDATE,
    SNAP,
    decode_revalidated,
)
from zkpy.protocol.txn_check import check_txn
from zkpy.protocol.txns import HEADER_SIZE
from zkpy.quorum.learner import FOR_SERVER, RECONFIG, Learner, txn_zxid_and_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from zkpy.protocol.packets import Packet
    from zkpy.quorum.learner import Proposal

log = getLogger(__name__)

_DESIGNATED_LEADER_SIZE = 8


class Observer(Learner):
    """A learner without a vote. Its log, if `sync_enabled`, has committed txns only.

    The txns it catches up with are durable before it joins the epoch, as a follower's are: one day
    it may be made a voter. (The reference's are not.)
    """

    info_type = OBSERVERINFO
    name = "Observer"
    participle = "observing"

    # Set before anything has been received.
    sync_enabled = True

    def _logs(self) -> bool:
        return self.sync_enabled

    def _start_broadcast(
        self, committed: list[tuple[int, int, bytes]], uncommitted: deque[Proposal]
    ) -> None:
        if self.sync_enabled:
            self._appended += [(zxid, txn) for _, zxid, txn in committed]
        self._delivered += committed
        if uncommitted:
            # An old leader sends proposals to observers, too; an INFORM will come for them.
            log.warning("%d proposals that are not committed are dropped", len(uncommitted))
            self.last_zxid = self.committed_zxid

    def _broadcast(self, packets: list[Packet]) -> None:
        appended = self._appended
        delivered = self._delivered
        log_it = self.sync_enabled
        for type, zxid, data, _ in packets:
            if type == INFORM:
                if (
                    zxid == self.last_zxid + 1
                    and data is not None
                    and len(data) >= HEADER_SIZE
                    and (head := txn_zxid_and_type(data))[0] == zxid
                    and head[1] != RECONFIG
                ):
                    check_txn(data)
                    txn = data
                elif zxid <= self.last_zxid:
                    continue  # sent once to catch up and once more by broadcast
                else:
                    txn = self.check_proposal(zxid, data)
                self.last_zxid = self.committed_zxid = zxid
                if log_it:
                    appended.append((zxid, txn))
                delivered.append((COMMIT, zxid, txn))
            elif type in FOR_SERVER:
                if type == REVALIDATE:
                    decode_revalidated(data)  # malformed: found while the role can still end well
                delivered.append((type, zxid, data))
            elif type == INFORMANDACTIVATE:
                if zxid > self.last_zxid:
                    self._activated(zxid, data)
            elif type == SNAP:
                raise ProtocolError("SNAP in the middle of broadcast")
            else:
                name = PACKET_NAMES.get(type, str(type))
                log.warning("Ignoring %s from %s", name, self.link)

    def _activated(self, zxid: int, data: bytes | None) -> None:
        txn = self.check_proposal(zxid, None if data is None else data[_DESIGNATED_LEADER_SIZE:])
        self.activate(zxid, txn, data)
        self.last_zxid = self.committed_zxid = zxid
        if self.sync_enabled:
            self._appended.append((zxid, txn))
        self._delivered.append((COMMITANDACTIVATE, zxid, txn))
