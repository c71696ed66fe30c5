"""Members that are broken on purpose: a simulation that does not notice them is worth nothing.

Each takes a pytest.MonkeyPatch; the incident it brings back is named where there is one.
"""

from __future__ import annotations

from typing import Any

import pytest

from zkpy.persistence.epochs import Epochs
from zkpy.protocol.packets import (
    ACK,
    REVALIDATE,
    decode_revalidation,
    encode_packet,
    encode_revalidated,
)
from zkpy.quorum.follower import Follower
from zkpy.quorum.leader import Leader
from zkpy.quorum.learner import Learner
from zkpy.quorum.vote import Vote
from zkpy.server.database import ZKDatabase
from zkpy.server.leader_server import LeaderZooKeeperServer
from zkpy.server.learner_server import LearnerZooKeeperServer
from zkpy.server.member import Member

Patch = pytest.MonkeyPatch


def acks_before_the_disk(patch: Patch) -> None:
    """A follower acknowledges what it has only received."""
    original = Follower._broadcast

    def broadcast(self: Any, packets: Any) -> None:
        original(self, packets)
        if self._unacked:
            self._send(b"".join(encode_packet(ACK, zxid) for zxid in self._unacked))
            self._unacked.clear()

    patch.setattr(Follower, "_broadcast", broadcast)


def new_leader_acked_before_the_log(patch: Patch) -> None:
    """ZOOKEEPER-3911: a follower joins an epoch without what it began with on disk."""
    patch.setattr(Follower, "_logs", lambda self: False)


def epoch_before_the_log(patch: Patch) -> None:
    """ZOOKEEPER-4643: currentEpoch is written before the txns it began with."""
    original = Learner._on_new_leader

    def on_new_leader(self: Any, zxid: int, data: bytes | None) -> None:
        self.database.write_current_epoch(self.new_epoch)
        original(self, zxid, data)

    patch.setattr(Learner, "_on_new_leader", on_new_leader)


def trunc_only_in_memory(patch: Patch) -> None:
    """ZOOKEEPER-5094: what a TRUNC takes back stays on disk."""

    def truncate(self: Any, zxid: int) -> bool:
        self.tree.last_processed_zxid = zxid
        return True

    patch.setattr(ZKDatabase, "truncate", truncate)


def memory_kept_after_a_broken_snap(patch: Patch) -> None:
    """ZOOKEEPER-3642: what came by SNAP stays in memory though it never got to the disk."""
    never = property(lambda self: False, lambda self, value: None)
    patch.setattr(Learner, "database_dirty", never, raising=False)


def log_forgotten_between_roles(patch: Patch) -> None:
    """ZOOKEEPER-2845: the election is told less than the log holds."""
    original = Member._drained

    def drained(self: Any) -> None:
        if self._draining is not None:
            self._draining = []
        original(self)

    patch.setattr(Member, "_drained", drained)


def commits_alone(patch: Patch) -> None:
    """The leader's own disk is enough."""
    patch.setattr(Leader, "_quorum_zxid", lambda self: self.durable_zxid)


def commits_with_one_other(patch: Patch) -> None:
    """Two of five are taken for a quorum."""

    def quorum_zxid(self: Any) -> int:
        acked = sorted([handler.acked for handler in self._followers] + [self.durable_zxid])
        return int(acked[-2]) if len(acked) > 1 else 0

    patch.setattr(Leader, "_quorum_zxid", quorum_zxid)


def counts_itself_before_its_disk(patch: Patch) -> None:
    """The leader acknowledges its own proposals at once."""
    original = Leader._quorum_zxid

    def quorum_zxid(self: Any) -> int:
        durable, self.durable_zxid = self.durable_zxid, self.last_zxid
        try:
            return original(self)
        finally:
            self.durable_zxid = durable

    patch.setattr(Leader, "_quorum_zxid", quorum_zxid)


def sync_without_a_quorum(patch: Patch) -> None:
    """As Apache: whoever once was leader answers a sync."""

    def sync(self: Any, token: Any) -> None:
        self._proven_syncs.append((token, self.last_zxid))
        self._release_syncs()

    patch.setattr(Leader, "sync", sync)


def accepted_epoch_only_in_memory(patch: Patch) -> None:
    """A promise that does not survive a crash."""

    def write_accepted_epoch(self: Any, epoch: int) -> None:
        self._epochs = Epochs(epoch, self._epochs.current)

    patch.setattr(ZKDatabase, "write_accepted_epoch", write_accepted_epoch)


def current_epoch_only_in_memory(patch: Patch) -> None:
    """Whose history a member has is forgotten in a crash."""

    def write_current_epoch(self: Any, epoch: int) -> None:
        self._epochs = Epochs(self._epochs.accepted, epoch)

    patch.setattr(ZKDatabase, "write_current_epoch", write_current_epoch)


def follower_ahead_is_followed(patch: Patch) -> None:
    """A leader does not mind that a follower has more than it."""
    original = Leader._on_ack_epoch

    def on_ack_epoch(self: Any, handler: Any, packet: Any, now_ms: int) -> None:
        summary, self._summary = self._summary, (1 << 40, 1 << 62)
        try:
            original(self, handler, packet, now_ms)
        finally:
            self._summary = summary

    patch.setattr(Leader, "_on_ack_epoch", on_ack_epoch)


def votes_for_the_shorter_log(patch: Patch) -> None:
    """Votes are compared without their zxid."""

    def beats(self: Any, other: Any, weight: int = 1) -> bool:
        mine, theirs = (self.peer_epoch, self.leader), (other.peer_epoch, other.leader)
        return weight != 0 and mine > theirs

    patch.setattr(Vote, "beats", beats)


def sessions_of_everybody(patch: Patch) -> None:
    """A request is served wherever its session has moved, or whether it has ended."""
    patch.setattr(LeaderZooKeeperServer, "_check_session", lambda self, session, owner: 0)


def dead_sessions_revalidated(patch: Patch) -> None:
    """A client gets back a session that has expired."""

    def revalidate(self: Any, handler: Any, data: bytes) -> None:
        session_id, _ = decode_revalidation(data)
        handler.packet(REVALIDATE, self.leader.last_zxid, encode_revalidated(session_id, True))

    patch.setattr(LeaderZooKeeperServer, "_revalidate", revalidate)


def touches_lost(patch: Patch) -> None:
    """The leader does not hear that clients of followers are alive."""
    patch.setattr(LeaderZooKeeperServer, "_touches", lambda self, data: None)


def syncs_answered_at_once(patch: Patch) -> None:
    """A follower answers a sync from what it happens to have."""

    def sync_requested(self: Any, cnxn: Any, xid: int, body: bytes) -> None:
        self._syncs.append(self.await_sync(cnxn, xid, body))
        self.sync_completed(self._syncs.popleft())

    patch.setattr(LearnerZooKeeperServer, "sync_requested", sync_requested)


BROKEN = (
    acks_before_the_disk, new_leader_acked_before_the_log, epoch_before_the_log,
    trunc_only_in_memory, memory_kept_after_a_broken_snap, log_forgotten_between_roles,
    commits_alone, commits_with_one_other, counts_itself_before_its_disk, sync_without_a_quorum,
    accepted_epoch_only_in_memory, current_epoch_only_in_memory, follower_ahead_is_followed,
    votes_for_the_shorter_log, sessions_of_everybody, dead_sessions_revalidated, touches_lost,
    syncs_answered_at_once,
)  # fmt: skip
