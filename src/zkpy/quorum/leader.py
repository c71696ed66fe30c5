"""Leader: orders txns; commits each once a quorum has it on disk.

    elected (leader_elect.py) -> a quorum has acknowledged NEWLEADER -> UPTODATE, broadcast

Calls in; out come bytes on the learners' links, txns to log (`take_appended`), packets that are the
server's business (`inbox`) and `committed_zxid`. It must not know what a txn says, apart from those
that change the configuration, of which it is told.
Source: Leader, LearnerHandler, ZooKeeper 3.9; phase 3 of Zab.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    COMMIT,
    COMMITANDACTIVATE,
    INFORM,
    INFORMANDACTIVATE,
    PING,
    PROPOSAL,
    UPTODATE,
    encode_packet,
)
from zkpy.quorum import learner_handler as phases
from zkpy.quorum.leader_elect import COUNTER_MASK, LeaderElect, pack_commit
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.members import OBSERVER
from zkpy.quorum.reconfig import designated_leader
from zkpy.quorum.states import BROADCAST
from zkpy.quorum.sync_requests import SyncRequests
from zkpy.quorum.verifier import QuorumMaj, verifier_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zkpy.quorum.database import Database
    from zkpy.quorum.effects import Effect
    from zkpy.quorum.leader_elect import Inbound
    from zkpy.quorum.leader_settings import LeaderSettings
    from zkpy.quorum.link import Link
    from zkpy.quorum.members import Members
    from zkpy.quorum.view import View

log = logging.getLogger(__name__)

_LONG: Final = struct.Struct(">q")


class Leader(LeaderElect):
    """One term of leadership, from the election to whatever ends it.

    While something is in `reconfigured` nothing else commits, until `reconfig_activated`.
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
        least_epoch: int,
        histories: Mapping[int, tuple[int, int]],
        counters: dict[str, int] | None = None,
    ) -> None:
        super().__init__(
            my_id, view, database, settings, effects, now_ms, least_epoch, histories, counters
        )
        self._outbox = outbox
        self.tick_count = 0
        self._half_ticks = 0
        self._next_tick_ms = now_ms + settings.tick_time_ms // 2
        self.durable_zxid = 0
        self._appended: list[tuple[int, bytes]] = []
        self._reconfigs: dict[int, Members] = {}
        self.allowed_to_commit = True
        self._syncs = SyncRequests(my_id, view, self.flush_streams)
        # Bytes of the last, the smallest and the largest proposal.
        self.proposal_sizes = [-1, -1, -1]

    def accept(self, link: Link, now_ms: int) -> LearnerHandler:
        """A learner has connected to the peer port."""
        handler = LearnerHandler(self, link, now_ms)
        link.owner = handler
        limits = self.settings.init_limit_ticks + self.settings.sync_limit_ticks
        handler.deadline_tick = self.tick_count + limits
        self.handlers.append(handler)
        return handler

    # ------------------------------------------------------------------ broadcast

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
        if self._syncs.pending:
            self._syncs.start_round(self._followers, self.last_zxid, self.committed_zxid)
        self.flush_streams()
        appended = self._appended
        if appended:
            self._appended = []
            self._count("proposal_count", len(appended))
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
        syncs = self._syncs
        waiting = len(outstanding)
        while outstanding and outstanding[0][0] <= until:
            zxid, txn = outstanding.popleft()
            if syncs.pending:
                syncs.release_before(zxid, self.committed_zxid)
            self.committed_zxid = zxid
            add(zxid, txn)
            if reconfigs and zxid in reconfigs:
                self._commit_reconfig(zxid, txn)
                break
            commit = pack_commit(COMMIT, zxid, -1, -1)
            stream += commit
            if self._in_snapshot:
                for handler in list(self._in_snapshot):
                    handler.send(encode_packet(PROPOSAL, zxid, txn) + commit)
            if inform:
                self._observer_stream += encode_packet(INFORM, zxid, txn)
        self._count("commit_count", waiting - len(outstanding))
        if syncs.pending:
            syncs.release(self.committed_zxid)

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
        self._syncs.add(token, self.last_zxid)

    def ping_answered(self) -> None:
        """A learner has answered a PING."""
        self._syncs.ping_answered(self.committed_zxid)

    @property
    def pending_syncs(self) -> int:
        """How many syncs are not answered yet."""
        return self._syncs.pending

    @property
    def has_synced(self) -> bool:
        """Whether `take_synced` has something."""
        return bool(self._syncs.synced)

    def take_synced(self) -> list[object]:
        """The tokens whose sync is complete, in the order they came."""
        return self._syncs.take_synced()

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
        if self.phase != BROADCAST:
            self._limit_phase(now_ms)
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
                    self._syncs.ping_sent(handler)

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


_PINGED: Final = frozenset({phases.SYNC, phases.NEW_LEADER_ACKED, phases.BROADCAST})
# It waits for us, not we for it.
_OURS_TO_MOVE: Final = frozenset({phases.EPOCH, phases.EPOCH_ACKED, phases.NEW_LEADER_ACKED})
