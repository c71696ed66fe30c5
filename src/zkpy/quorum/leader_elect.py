"""LeaderElect: a leader before it leads, and what it does for each learner until that one follows.

    lead -> a quorum reports its epochs -> LEADERINFO -> a quorum acknowledges the new epoch
         -> each learner catches up -> a quorum acknowledges NEWLEADER

Owns the term's epoch, the learners' connections and the streams to them. What happens from the
quorum's acknowledgement on is Leader's, which this is the base of.
Source: Leader, LearnerHandler, ZooKeeper 3.9; phases 1 and 2 of Zab.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    ACK,
    ACKEPOCH,
    COMMIT,
    DIFF,
    FOLLOWERINFO,
    LEADERINFO,
    NEWLEADER,
    OBSERVERINFO,
    PACKET_NAMES,
    PROPOSAL,
    SNAP,
    LearnerInfo,
    Packet,
    encode_packet,
)
from zkpy.protocol.zxid import EPOCH_MAX, epoch_of
from zkpy.quorum import learner_handler as phases
from zkpy.quorum.catch_up import Plan, plan_catch_up
from zkpy.quorum.effects import ClosePeerPort, Effect, OpenPeerPort
from zkpy.quorum.states import BROADCAST, DISCOVERY, SYNC_SNAP, SYNCHRONIZATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

    from zkpy.quorum.database import Database
    from zkpy.quorum.leader_settings import LeaderSettings
    from zkpy.quorum.learner_handler import LearnerHandler
    from zkpy.quorum.members import Members
    from zkpy.quorum.view import View

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 0x10000
COUNTER_MASK: Final = 0xFFFFFFFF
_INT: Final = struct.Struct(">i")
pack_commit = struct.Struct(">iqii").pack

# A packet for the server: the learner, then type, zxid, data and authinfo.
Inbound = tuple["LearnerHandler", int, int, "bytes | None", Any]


class LeaderElect:
    """Discovery and synchronization, of the ensemble and of each learner that comes later.

    `phase` is DISCOVERY, SYNCHRONIZATION, then BROADCAST; `failed` is why the term is over.
    `reconfigured`: committed configurations, (members, designated leader, zxid), to be activated.
    `least_epoch`: the new epoch is not below that. `histories`: (currentEpoch, last zxid) of
    voters, as far as they are known.
    `counters`: where what happens is counted, by the names of the reference's metrics.
    """

    def __init__(
        self,
        my_id: int,
        view: View,
        database: Database,
        settings: LeaderSettings,
        effects: list[Effect],
        now_ms: int,
        least_epoch: int,
        histories: Mapping[int, tuple[int, int]],
        counters: dict[str, int] | None = None,
    ) -> None:
        self.my_id = my_id
        self.view = view
        self.database = database
        self.settings = settings
        self._effects = effects
        self._counters = {} if counters is None else counters
        self.phase = DISCOVERY
        self.failed: str | None = None
        # Each phase before broadcast may take initLimit; `_now_ms` is that of the last call.
        self._phase_ms = self._now_ms = now_ms
        self._epoch = max(database.accepted_epoch + 1, least_epoch)
        self.new_epoch: int | None = None
        # What the next term has to begin with, for a voter that could not follow in this one.
        self.needed_epoch = 0
        self._histories = histories
        self._epoch_reports: set[int] = set()
        self._epoch_acks: set[int] = set()
        self._epoch_acked = False
        self._summary = (database.current_epoch, database.last_zxid)
        self._new_leader_acks: set[int] = set()
        # Learners
        self.handlers: list[LearnerHandler] = []
        self._followers: list[LearnerHandler] = []  # to which proposals and commits are forwarded
        self._observers: list[LearnerHandler] = []
        # Followers to which a snapshot is being sent: only what is committed is queued behind it.
        self._in_snapshot: list[LearnerHandler] = []
        self._stream = bytearray()  # this turn's packets for all followers
        self._observer_stream = bytearray()
        self.inbox: list[Inbound] = []
        # What a learner that comes late has to be sent
        self.outstanding: deque[tuple[int, bytes]] = deque()
        self.last_zxid = database.last_zxid
        self.committed_zxid = database.last_zxid
        self.reconfigured: list[tuple[Members, int, int]] = []

    def _count(self, name: str, times: int) -> None:
        self._counters[name] = self._counters.get(name, 0) + times

    # ------------------------------------------------------------------ start and end

    def lead(self, now_ms: int) -> None:
        """Open the peer port and begin."""
        assert self._epoch <= EPOCH_MAX, "checked by who begins a role"
        self._phase_ms = self._now_ms = now_ms
        server = self.view.server(self.my_id)
        assert server is not None, "who is not in the configuration does not lead"
        self._effects.append(OpenPeerPort(server.quorum_addresses))
        self._report_epoch(self.my_id, self.database.accepted_epoch)

    def fail(self, reason: str) -> None:
        """This term is over; Member does the rest."""
        if self.failed is None:
            self.failed = reason
            log.info("Shutting down: %s", reason)

    def close(self) -> None:
        """Hang up on the learners: to see the end of the stream is all they are told."""
        self.flush_streams()
        for handler in self.handlers:
            handler.link.close()
        self.handlers.clear()
        self._followers.clear()
        self._observers.clear()
        self._in_snapshot.clear()
        self._effects.append(ClosePeerPort())

    def drop(self, handler: LearnerHandler, reason: str) -> None:
        """End the connection to one learner."""
        if handler not in self.handlers:
            return
        self.flush_streams()
        handler.link.close()
        self.handlers.remove(handler)
        if handler in self._followers:
            self._followers.remove(handler)
        if handler in self._observers:
            self._observers.remove(handler)
        if handler in self._in_snapshot:
            self._in_snapshot.remove(handler)
        level = logging.INFO if handler.phase == phases.HELLO and not reason else logging.WARNING
        log.log(
            level, "******* GOODBYE %s ******** (sid %d): %s", handler.link, handler.sid, reason
        )

    def handler_of(self, sid: int) -> LearnerHandler | None:
        """The connection of a learner that has told its id."""
        for handler in self.handlers:
            if handler.sid == sid and handler.phase != phases.HELLO:
                return handler
        return None

    def flush_streams(self) -> None:
        """Hand this turn's packets to every learner that is forwarded to."""
        if self._stream:
            data = bytes(self._stream)
            self._stream.clear()
            for handler in list(self._followers):  # sending may end with a drop
                handler.send(data)
        if self._observer_stream:
            data = bytes(self._observer_stream)
            self._observer_stream.clear()
            for handler in list(self._observers):
                handler.send(data)

    # ------------------------------------------------------------------ discovery

    def handle(self, handler: LearnerHandler, packet: Packet, now_ms: int) -> None:
        """Act on a packet of a learner that is not in broadcast yet."""
        self._now_ms = now_ms
        method = HANDLERS.get((handler.phase, packet[0]))
        if method is None:
            if handler.phase in _PATIENT:
                self.inbox.append((handler, *packet))
                return
            name = PACKET_NAMES.get(packet[0], str(packet[0]))
            self.drop(handler, f"unexpected {name} packet in phase {handler.phase}")
            return
        method(self, handler, packet, now_ms)

    def _on_info(self, handler: LearnerHandler, packet: Packet, now_ms: int) -> None:
        type, zxid, data, _ = packet
        info = LearnerInfo.decode(data)
        if info.server_id < 0 or info.server_id == self.my_id:
            self.drop(handler, f"impossible server id {info.server_id}")
            return
        if info.protocol_version < PROTOCOL_VERSION:
            self.drop(handler, f"protocol version {info.protocol_version:#x} is too old")
            return
        if info.config_version > self.view.committed.version:
            self.drop(
                handler,
                f"Follower is ahead of the leader (has a later activated configuration, "
                f"{info.config_version:x})",
            )
            return
        accepted_epoch = epoch_of(zxid)
        if accepted_epoch >= EPOCH_MAX and accepted_epoch != self.new_epoch:
            # Ours would have to be above it. (The reference goes on with a negative one.)
            self.drop(handler, f"impossible epoch {accepted_epoch:#x}")
            return
        if self.new_epoch is not None and accepted_epoch > self.new_epoch:
            if self._may_follow_later(info.server_id):
                self.needed_epoch = accepted_epoch + 1
                self.fail(f"server {info.server_id} has accepted epoch {accepted_epoch:x} already")
                return
            log.warning(
                "server %d has accepted epoch %x: it cannot follow in ours, %x",
                info.server_id,
                accepted_epoch,
                self.new_epoch,
            )
        old = self.handler_of(info.server_id)
        handler.sid = info.server_id
        handler.is_observer = type == OBSERVERINFO
        handler.config_version = info.config_version
        handler.phase = phases.EPOCH
        if old is not None:
            self.drop(old, f"replaced by a newer connection of the same id, from {handler.link}")
        server = self.view.server(handler.sid)
        log.info(
            "Follower sid: %d : info : %s",
            handler.sid,
            server.spec() if server is not None else "not in the configuration",
        )
        self._report_epoch(handler.sid, accepted_epoch)
        if self.new_epoch is not None and handler.phase == phases.EPOCH:
            self._send_leader_info(handler)

    def _may_follow_later(self, sid: int) -> bool:
        """Whether a voter whose accepted epoch is above ours could follow in a later term.

        It could if it gave its promise to a leader whom no quorum followed. (The reference goes on
        without it, for as long as it leads.) But if it has more than we do, that is no history of
        this ensemble: the others have been wiped, and what was acknowledged since would be lost to
        it in an election. Then it stays out, as with the reference.
        """
        assert self.new_epoch is not None
        history = self._histories.get(sid)
        if sid not in self.view.verifiers()[0].voters or history is None:
            return False
        return history <= (self.new_epoch, self.last_zxid)

    def _report_epoch(self, sid: int, accepted_epoch: int) -> None:
        """Source: Leader.getEpochToPropose."""
        if self.new_epoch is not None:
            return
        self._epoch = max(self._epoch, accepted_epoch + 1)
        verifier = self.view.verifiers()[0]
        if sid in verifier.voters:
            self._epoch_reports.add(sid)
        reports = self._epoch_reports
        if self.my_id not in reports or not verifier.contains_quorum(reports):
            return
        self.database.write_accepted_epoch(self._epoch)
        self.new_epoch = self._epoch
        self._phase_ms = self._now_ms
        view = self.view
        if (
            view.reconfig_enabled
            and view.committed.version == 0
            and view.last_proposed.version == 0
        ):
            # Nobody has ever established this configuration: this leader does, with NEWLEADER.
            view.set_last_proposed(view.committed.with_version(self.new_epoch << 32))
        for handler in self.handlers:
            if handler.phase == phases.EPOCH:
                self._send_leader_info(handler)
        self._ack_epoch(self.my_id, self._summary)

    def _send_leader_info(self, handler: LearnerHandler) -> None:
        assert self.new_epoch is not None
        handler.phase = phases.ACK_EPOCH
        handler.packet(LEADERINFO, self.new_epoch << 32, _INT.pack(PROTOCOL_VERSION))

    def _on_ack_epoch(self, handler: LearnerHandler, packet: Packet, now_ms: int) -> None:
        _, zxid, data, _ = packet
        if data is None or len(data) < 4:
            raise ProtocolError("ACKEPOCH without an epoch")
        (handler.current_epoch,) = _INT.unpack_from(data)
        handler.peer_zxid = zxid
        handler.phase = phases.EPOCH_ACKED
        if handler.current_epoch != -1 and not self._epoch_acked:
            if (handler.current_epoch, zxid) > self._summary:
                self.drop(
                    handler,
                    f"Follower is ahead of the leader, leader summary: {self._summary[0]:x} "
                    f"(current epoch), {self._summary[1]:#x} (last zxid); follower: "
                    f"{handler.current_epoch:x}, {zxid:#x}",
                )
                return
        if self._epoch_acked:
            self._catch_up(handler)
        else:
            self._ack_epoch(handler.sid, (handler.current_epoch, zxid))

    def _ack_epoch(self, sid: int, summary: tuple[int, int]) -> None:
        """Source: Leader.waitForEpochAck. A second answer to the same epoch (-1) counts not."""
        verifier = self.view.verifiers()[0]
        counts = sid == self.my_id or -1 not in summary
        if counts and sid in verifier.voters:
            self._epoch_acks.add(sid)
        acks = self._epoch_acks
        if self._epoch_acked or self.my_id not in acks or not verifier.contains_quorum(acks):
            return
        assert self.new_epoch is not None
        self._epoch_acked = True
        self.database.write_current_epoch(self.new_epoch)
        self.phase = SYNCHRONIZATION
        self._phase_ms = self._now_ms
        for handler in list(self.handlers):
            if handler.phase == phases.EPOCH_ACKED:
                self._catch_up(handler)
        self._ack_new_leader(self.my_id)

    # ------------------------------------------------------------------ synchronization

    def _catch_up(self, handler: LearnerHandler) -> None:
        """Queue what the learner lacks, then everything newer, then NEWLEADER. One step, so that
        nothing is proposed or committed in between. Source: LearnerHandler.syncFollower."""
        settings = self.settings
        database = self.database
        assert self.new_epoch is not None
        plan = self._plan_from_our_start(handler.peer_zxid) or plan_catch_up(
            database,
            handler.peer_zxid,
            snapshot_size_factor=settings.snapshot_size_factor,
            force_snapshot=settings.force_snapshot,
            sid=handler.sid,
        )
        if handler.is_observer and self._too_many_syncs(plan.kind):
            self.drop(handler, "too many observers are catching up already")
            return
        self.flush_streams()
        handler.phase = phases.SYNC
        handler.sync_mode = plan.mode
        self._count("snap_count" if plan.kind == SNAP else "diff_count", 1)
        if plan.kind == SNAP:
            handler.synced_zxid = database.last_zxid
            handler.packet(SNAP, handler.synced_zxid)
            handler.start_snapshot(database.snapshot_slices())
            proposals: Iterable[tuple[int, bytes]] = [
                proposal
                for proposal in database.committed_log.proposals
                if proposal[0] > handler.synced_zxid
            ]
        else:
            handler.packet(plan.kind, plan.zxid)
            handler.synced_zxid = plan.last_zxid
            proposals = plan.proposals
        out = bytearray()
        for zxid, txn in proposals:
            out += encode_packet(PROPOSAL, zxid, txn)
            out += pack_commit(COMMIT, zxid, -1, -1)
            handler.synced_zxid = zxid
        handler.send(bytes(out))
        if handler.is_observer:
            self._observers.append(handler)
        elif plan.kind == SNAP:
            self._in_snapshot.append(handler)
        if plan.kind == SNAP:
            handler.pump(self._now_ms)
        else:
            self._queue_new_leader(handler)

    def snapshot_sent(self, handler: LearnerHandler) -> None:
        """The snapshot, and what was committed while it was sent, are queued for a learner."""
        if handler in self._in_snapshot:
            self._in_snapshot.remove(handler)
        self._queue_new_leader(handler)

    def _queue_new_leader(self, handler: LearnerHandler) -> None:
        """NEWLEADER, behind what is committed and ahead of what is not yet, and what comes later.

        The reference sends it behind all that is proposed; then 3.8 fails at the COMMIT of what
        was, and afterwards logs it twice (ZOOKEEPER-4394).
        The configuration in it becomes the learner's with UPTODATE: until we are established that
        is what a quorum of it agrees to by its ACKs, and from then on what is committed. (The
        reference sends one that is only proposed. The learner then looks for a quorum of servers
        that may know nothing of it, and tells others to do the same.)
        """
        assert self.new_epoch is not None
        # Whoever acknowledges it has on disk what was committed before it, without a word on each.
        handler.synced_zxid = max(handler.synced_zxid, self.committed_zxid)
        established = self.phase == BROADCAST and not self.reconfigured
        members = self.view.committed if established else self.view.last_proposed
        handler.packet(NEWLEADER, self.new_epoch << 32, members.text().encode())
        if not handler.is_observer:
            self._start_forwarding(handler)

    def _plan_from_our_start(self, peer_zxid: int) -> Plan | None:
        """For a learner that has just what we began our term with: all that this epoch brought.

        The committed log alone does not tell, if it was empty then, as after a start from a
        snapshot; the reference sends its snapshot in that case.
        """
        proposals = self.database.committed_log.proposals
        assert self.new_epoch is not None
        if self.settings.force_snapshot or peer_zxid != self._summary[1]:
            return None
        if proposals and proposals[0][0] != (self.new_epoch << 32) + 1:
            return None
        last_zxid = proposals[-1][0] if proposals else peer_zxid
        return Plan(DIFF, last_zxid, list(proposals), peer_zxid)

    def _too_many_syncs(self, kind: int) -> bool:
        limit = self.settings.max_snap_syncs if kind == SNAP else self.settings.max_diff_syncs
        busy = [
            handler
            for handler in self.handlers
            if handler.is_observer
            and handler.phase == phases.SYNC
            and (handler.sync_mode == SYNC_SNAP) == (kind == SNAP)
        ]
        return len(busy) >= limit

    def _start_forwarding(self, handler: LearnerHandler) -> None:
        """From here on the follower gets whatever is proposed and committed."""
        for zxid, txn in self.outstanding:
            if zxid > handler.synced_zxid:
                handler.packet(PROPOSAL, zxid, txn)
        self._followers.append(handler)

    def _on_new_leader_ack(self, handler: LearnerHandler, packet: Packet, now_ms: int) -> None:
        assert self.new_epoch is not None
        zxid = packet[1]
        if zxid != self.new_epoch << 32:
            if zxid > self.last_zxid:
                raise ProtocolError(f"ACK of {zxid:#x}, which was never proposed")
            if zxid & COUNTER_MASK:
                # A 3.8 learner acknowledges what it was sent to catch up one by one, and that may
                # come first (ZOOKEEPER-4685).
                handler.acked = max(handler.acked, zxid)
            else:
                log.error(
                    "NEWLEADER ACK from sid: %d is from a different epoch - current 0x%x receive "
                    "0x%x",
                    handler.sid,
                    self.new_epoch << 32,
                    zxid,
                )
            return
        handler.acked = max(handler.acked, handler.synced_zxid, zxid)
        handler.check_zxid, handler.check_ms = handler.acked, now_ms
        handler.phase = phases.NEW_LEADER_ACKED
        if self.phase == BROADCAST:
            self._up_to_date(handler)
        else:
            self._ack_new_leader(handler.sid)

    def _ack_new_leader(self, sid: int) -> None:
        """Source: Leader.waitForNewLeaderAck."""
        self._new_leader_acks.add(sid)
        if self.my_id in self._new_leader_acks and self.view.has_quorum(self._new_leader_acks):
            self._start_broadcast()

    def _start_broadcast(self) -> None:
        """A quorum has acknowledged NEWLEADER."""
        raise NotImplementedError

    def _up_to_date(self, handler: LearnerHandler) -> None:
        """We are established, and the learner has acknowledged NEWLEADER."""
        raise NotImplementedError

    # ------------------------------------------------------------------ time

    def _limit_phase(self, now_ms: int) -> None:
        """Before broadcast: give up where a phase has taken longer than initLimit."""
        init_limit_ms = self.settings.tick_time_ms * self.settings.init_limit_ticks
        if now_ms - self._phase_ms <= init_limit_ms:
            return
        if self.new_epoch is None:
            self.fail("Timeout while waiting for epoch from quorum")
        elif not self._epoch_acked:
            self.fail("Timeout while waiting for epoch to be acked by quorum")
        else:
            self._wait_is_over(now_ms, init_limit_ms)

    def _wait_is_over(self, now_ms: int, init_limit_ms: int) -> None:
        # The wait for NEWLEADER's acknowledgements began when the epoch was acknowledged, and
        # lasts as long as a follower is still being sent a snapshot, or may still be storing it.
        if any(
            not h.is_observer
            and h.phase == phases.SYNC
            and h.sync_mode == SYNC_SNAP
            and now_ms - h.last_activity_ms < init_limit_ms
            for h in self.handlers
        ):
            return
        sids = ", ".join(str(sid) for sid in sorted(self._new_leader_acks))
        self.fail(f"Waiting for a quorum of followers, only synced with sids: [ [{sids}] ]")

    def deserted(self, sids: Set[int]) -> None:
        """Voters look for a leader again: with leader.maxTimeToWaitForEpoch, after that, so do we.

        Source: Leader.reportLookingSid.
        """
        limit_ms = self.settings.max_wait_for_epoch_ms
        if sids and self.new_epoch is None and 0 <= limit_ms <= self._now_ms - self._phase_ms:
            self.fail(f"no epoch after {limit_ms} ms, and servers look again: {sorted(sids)}")


# Packets of learners in these phases are the server's business, or come early.
_PATIENT: Final = frozenset({phases.NEW_LEADER_ACKED})

# What a packet means in each phase before broadcast; a pair missing here is the learner's error.
HANDLERS: Final = {
    (phases.HELLO, FOLLOWERINFO): LeaderElect._on_info,
    (phases.HELLO, OBSERVERINFO): LeaderElect._on_info,
    (phases.ACK_EPOCH, ACKEPOCH): LeaderElect._on_ack_epoch,
    (phases.SYNC, ACK): LeaderElect._on_new_leader_ack,
}
