"""Leader: orders txns; commits each once a quorum has it on disk.

    lead -> a quorum reports its epochs -> LEADERINFO -> a quorum acknowledges the new epoch
         -> each learner catches up -> a quorum acknowledges NEWLEADER -> UPTODATE, broadcast

Calls in; out come bytes on the learners' links, txns to log (`take_appended`), packets that are the
server's business (`inbox`) and `committed_zxid`. It must not know what a txn says, apart from those
that change the configuration, of which it is told.
Source: Leader, LearnerHandler, ZooKeeper 3.9; phases 1 to 3 of Zab.
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
    COMMITANDACTIVATE,
    DIFF,
    FOLLOWERINFO,
    INFORM,
    INFORMANDACTIVATE,
    LEADERINFO,
    NEWLEADER,
    OBSERVERINFO,
    PACKET_NAMES,
    PING,
    PROPOSAL,
    SNAP,
    SYNC,
    TRUNC,
    UPTODATE,
    LearnerInfo,
    Packet,
    encode_packet,
)
from zkpy.protocol.zxid import epoch_of
from zkpy.quorum import learner_handler as phases
from zkpy.quorum.catch_up import Plan, plan_catch_up
from zkpy.quorum.effects import ClosePeerPort, Effect, OpenPeerPort
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.members import OBSERVER
from zkpy.quorum.reconfig import designated_leader
from zkpy.quorum.states import BROADCAST, DISCOVERY, SYNC_SNAP, SYNCHRONIZATION
from zkpy.quorum.verifier import QuorumMaj, verifier_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from zkpy.quorum.database import Database
    from zkpy.quorum.link import Link
    from zkpy.quorum.members import Members
    from zkpy.quorum.view import View

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 0x10000
COUNTER_MASK: Final = 0xFFFFFFFF
# Another leader cannot be told from silence sooner than that; see `LeaderSettings`.
_INT: Final = struct.Struct(">i")
_LONG: Final = struct.Struct(">q")
_pack_commit = struct.Struct(">iqii").pack

# A packet for the server: the learner, then type, zxid, data and authinfo.
Inbound = tuple[LearnerHandler, int, int, "bytes | None", Any]


class LeaderSettings:
    """The numbers of zoo.cfg that a leader goes by; limits in ticks, times in ms."""

    __slots__ = (
        "force_snapshot",
        "init_limit_ticks",
        "max_diff_syncs",
        "max_record_bytes",
        "max_snap_syncs",
        "max_wait_for_epoch_ms",
        "snapshot_size_factor",
        "sync_limit_ticks",
        "tick_time_ms",
    )

    def __init__(
        self,
        *,
        tick_time_ms: int,
        init_limit_ticks: int,
        sync_limit_ticks: int,
        max_record_bytes: int,
        snapshot_size_factor: float = 0.33,
        force_snapshot: bool = False,
        max_snap_syncs: int = 10,
        max_diff_syncs: int = 100,
        max_wait_for_epoch_ms: int = -1,
    ) -> None:
        self.tick_time_ms = tick_time_ms
        self.init_limit_ticks = init_limit_ticks
        self.sync_limit_ticks = sync_limit_ticks
        self.max_record_bytes = max_record_bytes
        self.snapshot_size_factor = snapshot_size_factor
        self.force_snapshot = force_snapshot
        self.max_snap_syncs = max_snap_syncs
        self.max_diff_syncs = max_diff_syncs
        self.max_wait_for_epoch_ms = max_wait_for_epoch_ms


class SyncRound:
    """A round of PINGs: once a quorum has answered, we were the leader when it began.

    `tokens` wait for it, each with the zxid that was proposed last when it came.
    """

    __slots__ = ("marks", "tokens")

    def __init__(self, tokens: list[tuple[object, int]]) -> None:
        self.tokens = tokens
        self.marks: dict[LearnerHandler, int] = {}


class Leader:
    """One term of leadership, from the election to whatever ends it.

    `phase` is DISCOVERY, SYNCHRONIZATION, then BROADCAST; `failed` is why the term is over.
    `reconfigured`: committed configurations, (members, designated leader, zxid), to be activated;
    nothing else commits until `reconfig_activated`.
    `least_epoch`: the new epoch is not below that.
    """

    def __init__(
        self,
        my_id: int,
        view: View,
        database: Database,
        settings: LeaderSettings,
        outbox: list[Link],
        effects: list[Effect],
        now_ms: int,
        least_epoch: int = 0,
    ) -> None:
        self.my_id = my_id
        self.view = view
        self.database = database
        self.settings = settings
        self._outbox = outbox
        self._effects = effects
        self.phase = DISCOVERY
        self.failed: str | None = None
        # Each phase before broadcast may take initLimit; `_now_ms` is that of the last call.
        self._phase_ms = self._now_ms = now_ms
        self.tick_count = 0
        self._half_ticks = 0
        self._next_tick_ms = now_ms + settings.tick_time_ms // 2
        # Discovery
        self._epoch = max(database.accepted_epoch + 1, least_epoch)
        self.new_epoch: int | None = None
        # What the next term has to begin with, for a voter that could not follow in this one.
        self.needed_epoch = 0
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
        # Broadcast
        self.outstanding: deque[tuple[int, bytes]] = deque()
        self.last_zxid = database.last_zxid
        self.committed_zxid = database.last_zxid
        self.durable_zxid = 0
        self._appended: list[tuple[int, bytes]] = []
        self.inbox: list[Inbound] = []
        self._reconfigs: dict[int, Members] = {}
        self.reconfigured: list[tuple[Members, int, int]] = []
        self.allowed_to_commit = True
        # sync
        self._waiting_syncs: list[tuple[object, int]] = []
        self._round: SyncRound | None = None
        self._proven_syncs: deque[tuple[object, int]] = deque()
        self._synced: list[object] = []
        # Bytes of the last, the smallest and the largest proposal.
        self.proposal_sizes = [-1, -1, -1]

    # ------------------------------------------------------------------ start and end

    def lead(self, now_ms: int) -> None:
        """Open the peer port and begin."""
        self._phase_ms = self._now_ms = now_ms
        server = self.view.server(self.my_id)
        assert server is not None, "who is not in the configuration does not lead"
        self._effects.append(OpenPeerPort(server.quorum_addresses))
        self._report_epoch(self.my_id, self.database.accepted_epoch)

    def accept(self, link: Link, now_ms: int) -> LearnerHandler:
        """A learner has connected to the peer port."""
        handler = LearnerHandler(self, link, now_ms)
        link.owner = handler
        limits = self.settings.init_limit_ticks + self.settings.sync_limit_ticks
        handler.deadline_tick = self.tick_count + limits
        self.handlers.append(handler)
        return handler

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
        if self.new_epoch is not None and accepted_epoch > self.new_epoch:
            if info.server_id in self.view.verifiers()[0].voters:
                # It was promised to a leader that nobody else followed, and can be ours only in a
                # later epoch. (The reference goes on without it, for as long as it leads.)
                self.needed_epoch = accepted_epoch + 1
                self.fail(f"server {info.server_id} has accepted epoch {accepted_epoch:x} already")
                return
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
            out += _pack_commit(COMMIT, zxid, -1, -1)
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
        assert self.new_epoch is not None
        zxid = self.new_epoch << 32
        log.info(
            "Have quorum of supporters, sids: [[%s]]; starting up and setting last processed "
            "zxid: 0x%x",
            ", ".join(str(sid) for sid in sorted(self._new_leader_acks)),
            zxid,
        )
        self.last_zxid = self.committed_zxid = self.durable_zxid = zxid
        self.database.last_zxid = zxid
        self.phase = BROADCAST
        proposed = self.view.last_proposed
        if proposed.version > self.view.committed.version:
            designated = self._designated_leader(proposed, zxid)
            self.reconfigured.append((proposed, designated, zxid))
        for handler in list(self.handlers):
            if handler.phase == phases.NEW_LEADER_ACKED:
                self._up_to_date(handler)

    def _up_to_date(self, handler: LearnerHandler) -> None:
        """The learner may serve: all that is committed is on its way before this."""
        self.flush_streams()
        handler.phase = phases.BROADCAST
        handler.packet(UPTODATE, -1)
        if self.outstanding:
            self._try_to_commit()

    # ------------------------------------------------------------------ broadcast

    def propose(self, zxid: int, txn: bytes) -> None:
        """Start an encoded txn towards a quorum.

        When the counter is used up the term ends instead: only an election resets it, and the
        request is lost with the connection of its client.
        """
        if zxid & COUNTER_MASK == COUNTER_MASK or self.failed is not None:
            self.fail(
                "zxid lower 32 bits have rolled over, forcing re-election, "
                "and therefore new epoch start"
            )
            return
        assert zxid == self.last_zxid + 1, "prep hands out zxids in order"
        self.last_zxid = zxid
        proposal = (zxid, txn)
        self.outstanding.append(proposal)
        # Both start now: the followers' disks work while ours does.
        self._appended.append(proposal)
        self._stream += encode_packet(PROPOSAL, zxid, txn)
        size = len(txn)
        sizes = self.proposal_sizes
        sizes[0] = size
        if size > sizes[2]:
            sizes[2] = size
        if size < sizes[1] or sizes[1] < 0:
            sizes[1] = size

    def propose_reconfig(self, zxid: int, members: Members) -> None:
        """The next proposal, `zxid`, is a reconfig: from it on both quorums have to agree."""
        if zxid & COUNTER_MASK == COUNTER_MASK:
            return  # it will not be proposed: the counter is used up
        self.view.set_last_proposed(members)
        self._reconfigs[zxid] = members

    def take_appended(self) -> list[tuple[int, bytes]]:
        """What is to be logged, in zxid order. The end of a turn: the learners get theirs, too."""
        if self._waiting_syncs and self._round is None:
            self._start_round()
        self.flush_streams()
        appended = self._appended
        if appended:
            self._appended = []
        return appended

    def durable(self, zxid: int) -> None:
        """Our own disk has all txns up to `zxid`: our acknowledgement."""
        assert self.durable_zxid <= zxid <= self.last_zxid, "only what was proposed, in order"
        self.durable_zxid = zxid
        self._try_to_commit()

    def acked(self, handler: LearnerHandler, zxid: int) -> None:
        """A learner's disk has all txns up to `zxid`. Raises ProtocolError if that cannot be."""
        if zxid > self.last_zxid:
            raise ProtocolError(f"ACK of {zxid:#x}, which was never proposed")
        handler.acked = zxid
        self._try_to_commit()

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

    def _try_to_commit(self) -> None:
        """Commit whatever has its quorum, oldest first."""
        outstanding = self.outstanding
        if not outstanding or not self.allowed_to_commit or self.reconfigured:
            return
        until = self._quorum_zxid()
        if outstanding[0][0] > until:
            return
        stream = self._stream
        add = self.database.committed_log.add
        reconfigs = self._reconfigs
        inform = bool(self._observers)
        while outstanding and outstanding[0][0] <= until:
            zxid, txn = outstanding.popleft()
            if self._round is not None or self._waiting_syncs or self._proven_syncs:
                self._release_syncs_before(zxid)
            self.committed_zxid = zxid
            add(zxid, txn)
            if reconfigs and zxid in reconfigs:
                self._commit_reconfig(zxid, txn)
                break
            commit = _pack_commit(COMMIT, zxid, -1, -1)
            stream += commit
            if self._in_snapshot:
                for handler in list(self._in_snapshot):
                    handler.send(encode_packet(PROPOSAL, zxid, txn) + commit)
            if inform:
                self._observer_stream += encode_packet(INFORM, zxid, txn)
        self._release_syncs()

    def _quorum_zxid(self) -> int:
        """The newest zxid up to which a quorum has everything on disk."""
        acked = {handler.sid: handler.acked for handler in self._followers}
        acked[self.my_id] = self.durable_zxid
        verifiers = self.view.verifiers()
        if len(verifiers) == 1 and isinstance(verifiers[0], QuorumMaj):
            voters = verifiers[0].voters
            zxids = sorted(acked.get(sid, 0) for sid in voters)
            return zxids[(len(zxids) - 1) // 2] if zxids else 0
        for zxid in sorted(set(acked.values()), reverse=True):
            if self.view.has_quorum({sid for sid, z in acked.items() if z >= zxid}):
                return zxid
        return 0

    # ------------------------------------------------------------------ reconfiguration

    def _designated_leader(self, members: Members, zxid: int) -> int:
        """Who leads under `members`: this server if it may, else who is furthest."""
        outstanding = [zxid for zxid, _ in self.outstanding]
        return designated_leader(
            self.my_id,
            self.view.committed,
            members,
            self._holders(zxid),
            [self._holders(later) for later in outstanding],
        )

    def _holders(self, zxid: int) -> set[int]:
        """The learners that have acknowledged `zxid`."""
        if self.phase != BROADCAST or zxid & COUNTER_MASK == 0:
            return set(self._new_leader_acks)
        return {handler.sid for handler in self._followers if handler.acked >= zxid}

    def _commit_reconfig(self, zxid: int, txn: bytes) -> None:
        members = self._reconfigs.pop(zxid)
        designated = self._designated_leader(members, zxid)
        data = _LONG.pack(designated)
        commit = encode_packet(COMMITANDACTIVATE, zxid, data)
        self._stream += commit
        for handler in list(self._in_snapshot):
            handler.send(encode_packet(PROPOSAL, zxid, txn) + commit)
        self._observer_stream += encode_packet(INFORMANDACTIVATE, zxid, data + txn)
        if designated != self.my_id:
            # The others go to the designated leader at once, so we must decide nothing any more.
            log.info("Committing a reconfiguration that removes the leader; no more commits")
            self.allowed_to_commit = False
        self.reconfigured.append((members, designated, zxid))

    def reconfig_activated(self) -> None:
        """What was in `reconfigured` is in effect: go on with the proposals behind it."""
        self.reconfigured.clear()
        self._try_to_commit()

    def connected_quorum_of(self, members: Members) -> bool:
        """Whether a quorum of `members` is connected and caught up.

        Not counted is who was made an observer and has not noticed yet: should it come back as
        one, it would acknowledge nothing, and what waits for it would wait for ever.
        Source: PrepRequestProcessor, isQuorumSynced.
        """
        verifier = verifier_of(members)
        sids = {
            handler.sid
            for handler in self._followers
            if handler.phase == phases.BROADCAST and self.view.role_of(handler.sid) != OBSERVER
        }
        sids.add(self.my_id)
        return verifier.contains_quorum(sids & set(verifier.voters))

    # ------------------------------------------------------------------ sync

    def sync(self, token: object) -> None:
        """Somebody wants to know that what is committed now is all there is.

        A quorum is asked whether it still follows us; then, once everything proposed until now is
        committed, `token` comes out of `take_synced`; where it is a LearnerHandler, SYNC is sent
        to it instead. (The reference asks nobody, so that its sync is not linearizable.)
        """
        self._waiting_syncs.append((token, self.last_zxid))

    def _start_round(self) -> None:
        round = SyncRound(self._waiting_syncs)
        self._waiting_syncs = []
        self._round = round
        ping = encode_packet(PING, self.last_zxid)
        self.flush_streams()
        for handler in list(self._followers):
            if handler.phase == phases.BROADCAST:
                handler.send(ping)
                handler.pings_sent += 1
                round.marks[handler] = handler.pings_sent
        self.ping_answered()

    def ping_answered(self) -> None:
        """Look whether the present round is complete."""
        round = self._round
        if round is None:
            return
        following = {h.sid for h, mark in round.marks.items() if h.pings_answered >= mark}
        following.add(self.my_id)
        if not self.view.has_quorum(following):
            return
        self._round = None
        self._proven_syncs.extend(round.tokens)
        self._release_syncs()

    @property
    def pending_syncs(self) -> int:
        """How many syncs are not answered yet."""
        asking = 0 if self._round is None else len(self._round.tokens)
        return len(self._waiting_syncs) + asking + len(self._proven_syncs)

    def _release_syncs(self) -> None:
        proven = self._proven_syncs
        while proven and proven[0][1] <= self.committed_zxid:
            token, _ = proven.popleft()
            if not isinstance(token, LearnerHandler):
                self._synced.append(token)
            elif not token.link.closed:
                self.flush_streams()
                token.packet(SYNC, 0)

    def _release_syncs_before(self, zxid: int) -> None:
        """Answer the syncs that came before `zxid` was proposed, now that a quorum has it.

        That quorum has followed us since they came. And the answers must not wait for the round:
        Apache's CommitProcessor expects a SYNC ahead of the COMMITs of what its clients asked for
        later, and without it answers none of them, ever.
        """
        proven = self._proven_syncs
        for waiting in ([] if self._round is None else self._round.tokens, self._waiting_syncs):
            count = 0
            while count < len(waiting) and waiting[count][1] < zxid:
                count += 1
            proven.extend(waiting[:count])
            del waiting[:count]
        self._release_syncs()

    @property
    def has_synced(self) -> bool:
        """Whether `take_synced` has something."""
        return bool(self._synced)

    def take_synced(self) -> list[object]:
        """The tokens whose sync is complete, in the order they came."""
        synced = self._synced
        if synced:
            self._synced = []
        return synced

    def take_inbox(self) -> list[Inbound]:
        """The packets that are the server's business, in the order they came."""
        inbox = self.inbox
        if inbox:
            self.inbox = []
        return inbox

    # ------------------------------------------------------------------ time

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        return self._next_tick_ms

    def tick(self, now_ms: int) -> None:
        """Twice per tickTime: who still follows, PINGs, and time limits."""
        settings = self.settings
        if now_ms < self._next_tick_ms or self.failed is not None:
            return
        self._now_ms = now_ms
        self._next_tick_ms = now_ms + settings.tick_time_ms // 2
        init_limit_ms = settings.tick_time_ms * settings.init_limit_ticks
        if self.phase != BROADCAST and now_ms - self._phase_ms > init_limit_ms:
            if self.new_epoch is not None and not self._epoch_acked:
                self.fail("Timeout while waiting for epoch to be acked by quorum")
            elif self.new_epoch is None:
                self.fail("Timeout while waiting for epoch from quorum")
            else:
                self._wait_is_over(now_ms, init_limit_ms)
        self._half_ticks += 1
        if self._half_ticks % 2 == 0:
            self.tick_count += 1
            if self.phase == BROADCAST and not self._still_followed():
                return
        for handler in list(self.handlers):
            self._attend(handler, now_ms)
        self.flush_streams()
        ping = encode_packet(PING, self.last_zxid)
        for handler in list(self.handlers):
            if handler.phase in _PINGED:
                handler.send(ping)
                if handler.phase == phases.BROADCAST:
                    handler.pings_sent += 1
                    if self._round is not None:
                        # Whoever joined since the round began may be who it lacks.
                        self._round.marks.setdefault(handler, handler.pings_sent)

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

    def _still_followed(self) -> bool:
        following = {h.sid for h in self.handlers if self._is_synced(h)}
        following.add(self.my_id)
        if self.view.has_quorum(following):
            return True
        sids = ", ".join(str(sid) for sid in sorted(following))
        self.fail(f"Not sufficient followers synced, only synced with sids: [ [{sids}] ]")
        return False

    def _is_synced(self, handler: LearnerHandler) -> bool:
        return handler.phase != phases.HELLO and self.tick_count <= handler.deadline_tick

    def _attend(self, handler: LearnerHandler, now_ms: int) -> None:
        """Drop a learner that is silent, or does not acknowledge what it was sent."""
        settings = self.settings
        sync_limit_ms = settings.tick_time_ms * settings.sync_limit_ticks
        if handler.phase in _OURS_TO_MOVE:
            return
        in_time = handler.phase == phases.BROADCAST
        limit_ms = sync_limit_ms if in_time else settings.tick_time_ms * settings.init_limit_ticks
        if now_ms - handler.last_activity_ms > limit_ms:
            self.drop(handler, f"nothing heard from it for {now_ms - handler.last_activity_ms} ms")
            return
        handler.pump(now_ms)
        if not in_time or handler.is_observer:
            return
        if handler.acked >= handler.check_zxid:
            handler.check_zxid, handler.check_ms = self.last_zxid, now_ms
        elif now_ms - handler.check_ms > sync_limit_ms:
            self.drop(handler, f"no acknowledgement of {handler.check_zxid:#x} in {limit_ms} ms")

    def deserted(self, sids: Set[int]) -> None:
        """Voters look for a leader again: with leader.maxTimeToWaitForEpoch, after that, so do we.

        Source: Leader.reportLookingSid.
        """
        limit_ms = self.settings.max_wait_for_epoch_ms
        if sids and self.new_epoch is None and 0 <= limit_ms <= self._now_ms - self._phase_ms:
            self.fail(f"no epoch after {limit_ms} ms, and servers look again: {sorted(sids)}")


# Packets of learners in these phases are the server's business, or come early.
_PATIENT: Final = frozenset({phases.NEW_LEADER_ACKED})
_PINGED: Final = frozenset({phases.SYNC, phases.NEW_LEADER_ACKED, phases.BROADCAST})
# It waits for us, not we for it.
_OURS_TO_MOVE: Final = frozenset({phases.EPOCH, phases.EPOCH_ACKED, phases.NEW_LEADER_ACKED})

# What a packet means in each phase before broadcast; a pair missing here is the learner's error.
HANDLERS: Final = {
    (phases.HELLO, FOLLOWERINFO): Leader._on_info,
    (phases.HELLO, OBSERVERINFO): Leader._on_info,
    (phases.ACK_EPOCH, ACKEPOCH): Leader._on_ack_epoch,
    (phases.SYNC, ACK): Leader._on_new_leader_ack,
}

CATCH_UP_PACKETS: Final = (DIFF, TRUNC, SNAP)
