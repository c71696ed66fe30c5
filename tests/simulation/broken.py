"""Members that are broken on purpose: a simulation that does not notice them is worth nothing.

Each takes a pytest.MonkeyPatch; the incident it brings back is named where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pytest

from zkpy.datatree.tree import DataTree
from zkpy.persistence.epochs import EpochFiles, Epochs
from zkpy.persistence.errors import DiskWriteError, EpochError, PersistenceError
from zkpy.persistence.snapshot import FileSnap
from zkpy.persistence.store import FileTxnSnapLog
from zkpy.persistence.txnlog import FileTxnLog
from zkpy.protocol import packets as packets_module
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.packets import (
    ACK,
    COMMITANDACTIVATE,
    DIFF,
    INFORMANDACTIVATE,
    NEWLEADER,
    REVALIDATE,
    Notification,
    decode_revalidation,
    encode_packet,
    encode_revalidated,
)
from zkpy.quorum import election as election_module
from zkpy.quorum import leader as leader_module
from zkpy.quorum import leader_elect as leader_elect_module
from zkpy.quorum.catch_up import Plan
from zkpy.quorum.cnx_manager import QuorumCnxManager
from zkpy.quorum.committed_log import CommittedLog
from zkpy.quorum.election import FastLeaderElection, supporters
from zkpy.quorum.follower import Follower
from zkpy.quorum.leader import Leader
from zkpy.quorum.leader_elect import HANDLERS
from zkpy.quorum.learner import STEPS, Learner
from zkpy.quorum.learner_handler import BROADCAST as BROADCAST_PHASE
from zkpy.quorum.learner_handler import SYNC as SYNC_PHASE
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote
from zkpy.server import database as database_module
from zkpy.server.database import ZKDatabase
from zkpy.server.leader_server import LeaderZooKeeperServer
from zkpy.server.learner_server import LearnerZooKeeperServer
from zkpy.server.member import Member
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer
from zkpy.server.replies import Replies

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
    key = next(key for key, method in STEPS.items() if method is Learner._on_new_leader)
    original = STEPS[key]

    def on_new_leader(self: Any, zxid: int, data: bytes | None) -> None:
        self.database.write_current_epoch(self.new_epoch)
        original(self, zxid, data)

    patch.setitem(STEPS, key, on_new_leader)


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
        self._syncs.pending += 1
        self._syncs._proven.append((token, self.last_zxid))
        self._syncs.release(self.committed_zxid)

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
    key = next(key for key, method in HANDLERS.items() if method is Leader._on_ack_epoch)
    original = HANDLERS[key]

    def on_ack_epoch(self: Any, handler: Any, packet: Any, now_ms: int) -> None:
        summary, self._summary = self._summary, (1 << 40, 1 << 62)
        try:
            original(self, handler, packet, now_ms)
        finally:
            self._summary = summary

    patch.setitem(HANDLERS, key, on_ack_epoch)


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
        self._syncs.append(self.replies.await_sync(cnxn, xid, body))
        self.replies.sync_completed(self._syncs.popleft())

    patch.setattr(LearnerZooKeeperServer, "sync_requested", sync_requested)


BROKEN = (
    acks_before_the_disk, new_leader_acked_before_the_log, epoch_before_the_log,
    trunc_only_in_memory, memory_kept_after_a_broken_snap, log_forgotten_between_roles,
    commits_alone, commits_with_one_other, counts_itself_before_its_disk, sync_without_a_quorum,
    accepted_epoch_only_in_memory, current_epoch_only_in_memory, follower_ahead_is_followed,
    votes_for_the_shorter_log, sessions_of_everybody, dead_sessions_revalidated, touches_lost,
    syncs_answered_at_once,
)  # fmt: skip


# ---------------------------------------------------------------------- for single scenarios


def new_leader_ack_of_another_zxid_is_the_last(patch: Patch) -> None:
    """ZOOKEEPER-4685: an ACK of a txn is taken for a bad ACK of NEWLEADER, and that is it."""
    original = HANDLERS[SYNC_PHASE, ACK]

    def on_ack(self: Any, handler: Any, packet: Any, now_ms: int) -> None:
        if packet[1] != self.new_epoch << 32:
            handler.phase = BROADCAST_PHASE
        else:
            original(self, handler, packet, now_ms)

    patch.setitem(HANDLERS, (SYNC_PHASE, ACK), on_ack)


def proposals_before_new_leader_forgotten(patch: Patch) -> None:
    """ZOOKEEPER-4394: a COMMIT behind NEWLEADER finds no proposal."""
    key = next(key for key, method in STEPS.items() if method is Learner._on_new_leader)
    original = STEPS[key]

    def on_new_leader(self: Any, zxid: int, data: bytes | None) -> None:
        original(self, zxid, data)
        self._uncommitted.clear()

    patch.setitem(STEPS, key, on_new_leader)


def diff_not_in_the_committed_log(patch: Patch) -> None:
    """ZOOKEEPER-4925: what came by DIFF is not passed on by DIFF, and a hole is not noticed."""
    original = ZKDatabase.apply

    def apply(self: Any, zxid: int, txn: bytes, *args: Any) -> Any:
        proposals = list(self.committed_log.proposals)
        result = original(self, zxid, txn, *args)
        self.committed_log.proposals.clear()
        self.committed_log.proposals.extend(proposals)
        return result

    def add(self: Any, zxid: int, txn: bytes) -> None:
        self.proposals.append((zxid, txn))

    patch.setattr(ZKDatabase, "apply", apply)
    patch.setattr(CommittedLog, "add", add)


def log_kept_at_a_snap(patch: Patch) -> None:
    """ZOOKEEPER-2846: the log from before a SNAP stays, and has a hole."""

    def replace(self: Any, tree: Any) -> None:
        self.log.close()
        self.save(tree)
        self.log.last_zxid = self.log.durable_zxid = tree.last_processed_zxid

    def readable(records: Any, until: int, *_: Any) -> Iterator[tuple[int, bytes]]:
        return takewhile(lambda proposal: proposal[0] <= until, records)

    patch.setattr(FileTxnSnapLog, "replace", replace)
    patch.setattr(database_module, "_readable", readable)


def failed_syncs_ignored(patch: Patch) -> None:
    """ZOOKEEPER-4882: what could not be written counts as written."""
    original = FileTxnLog.commit

    def commit(self: Any) -> float:
        try:
            return original(self)
        except DiskWriteError:
            self._failed = False
            self.durable_zxid = self.last_zxid
            return 0.0

    patch.setattr(FileTxnLog, "commit", commit)


def forwarding_begins_late(patch: Patch) -> None:
    """ZOOKEEPER-3104: what is proposed while a snapshot is sent is not sent behind it."""
    original = LearnerHandler.send

    def send(self: Any, data: bytes) -> None:
        if self._slices is None or data[:4] == NEWLEADER.to_bytes(4, "big"):
            original(self, data)

    patch.setattr(LearnerHandler, "send", send)


def newer_snapshots_survive_a_trunc(patch: Patch) -> None:
    """ZOOKEEPER-1549: a snapshot with what a TRUNC takes back is used at the next start."""
    patch.setattr(FileSnap, "remove_newer", lambda self, kept: None)


def trunc_left_out(patch: Patch) -> None:
    """ZOOKEEPER-1154: an extra txn of an old epoch is overlooked; DIFF instead of TRUNC."""

    def plan(database: Any, peer_zxid: int, **_: Any) -> Plan:
        proposals = [p for p in database.committed_log.proposals if p[0] > peer_zxid]
        return Plan(DIFF, database.last_zxid, proposals, database.last_zxid)

    patch.setattr(leader_elect_module, "plan_catch_up", plan)


def epochs_not_repaired(patch: Patch) -> None:
    """ZOOKEEPER-1653: a start is refused between a snapshot and its epoch."""

    def load(self: Any, last_zxid: int) -> Epochs:
        current = self._read_or_create("currentEpoch", 0)
        accepted = self._read_or_create("acceptedEpoch", 0)
        if last_zxid >> 32 > current:
            raise EpochError(f"current epoch {current} is older than {last_zxid:#x}")
        return Epochs(accepted, current)

    patch.setattr(EpochFiles, "load", load)


def leader_taken_at_its_followers_word(patch: Patch) -> None:
    """checkLeader: votes for a leader are enough, whether it lives or not."""

    def is_joinable(self: Any, votes: Any, vote: Any) -> bool:
        verifier = self.view.committed_verifier
        return bool(verifier.contains_quorum(supporters(votes, vote)))

    patch.setattr(FastLeaderElection, "_is_joinable", is_joinable)


def votes_of_followers_must_agree_in_all(patch: Patch) -> None:
    """ZOOKEEPER-1732: votes for an established leader are compared with zxid and round."""

    def all_equal(votes: Any, vote: Any) -> frozenset[int]:
        wanted = (vote.leader, vote.zxid, vote.election_epoch, vote.peer_epoch)
        return frozenset(
            sid
            for sid, other in votes.items()
            if (other.leader, other.zxid, other.election_epoch, other.peer_epoch) == wanted
        )

    patch.setattr(election_module, "supporters", all_equal)


def bad_notifications_raise(patch: Patch) -> None:
    """ZOOKEEPER-3769: what cannot be decoded ends the election."""
    original = Notification.decode.__func__  # type: ignore[attr-defined]

    def decode(cls: Any, payload: bytes) -> Any:
        try:
            return original(cls, payload)
        except DecodeError as error:
            raise AssertionError("malformed") from error

    patch.setattr(Notification, "decode", classmethod(decode))


def dials_one_after_the_other(patch: Patch) -> None:
    """ZOOKEEPER-3756: who cannot be reached keeps us from dialling the others."""
    original = QuorumCnxManager._dial

    def dial(self: Any, peer: Any, addresses: Any) -> None:
        busy = [other for other in self._peers.values() if other is not peer and other.dials]
        if not busy:
            original(self, peer, addresses)

    patch.setattr(QuorumCnxManager, "_dial", dial)


def observers_take_part(patch: Patch) -> None:
    """ZOOKEEPER-1807: elections are everybody's business."""

    def voters(self: Any) -> frozenset[int]:
        return frozenset(self.committed.servers)

    patch.setattr(View, "voters", voters)


def replies_not_followed_by_what_waits(patch: Patch) -> None:
    """ZOOKEEPER-4537: a wake-up is lost, and requests behind a write wait for ever."""
    patch.setattr(Replies, "answer_deferred", lambda self, cnxn: None)


def uncommitted_logged_again(patch: Patch) -> None:
    """ZOOKEEPER-4712: what a role has not committed is logged once more when it ends."""
    original = Member._leave

    def leave(self: Any, reason: str) -> None:
        outstanding = list(getattr(self.zab, "outstanding", ()))
        original(self, reason)
        self._left_over += outstanding

    patch.setattr(Member, "_leave", leave)


def unreadable_proposals_passed_over(patch: Patch) -> None:
    """ZOOKEEPER-2355: a follower skips what it could not read, and follows on."""
    original = Learner._fail

    def fail(self: Any, reason: str, exit_code: int | None = None) -> None:
        if reason != "unreadable":
            original(self, reason, exit_code)

    patch.setattr(Learner, "_fail", fail)
    patch.setattr(Follower, "_odd_commit", lambda self, zxid: None)
    patch.setattr(Learner, "check_proposal", lambda self, zxid, data: data)


def counter_runs_over(patch: Patch) -> None:
    """ZOOKEEPER-1277: the counter of a zxid runs over into its epoch."""
    patch.setattr(leader_module, "COUNTER_MASK", 1 << 62)


def read_only_sessions_use_zxids(patch: Patch) -> None:
    """ZOOKEEPER-3526: who serves reads without a leader counts zxids."""
    original = ReadOnlyZooKeeperServer.create_session

    def create_session(self: Any, cnxn: Any) -> None:
        self.tree.last_processed_zxid += 1
        original(self, cnxn)

    patch.setattr(ReadOnlyZooKeeperServer, "create_session", create_session)


def acls_not_repaired(patch: Patch) -> None:
    """ZOOKEEPER-3306: a snapshot with a node whose ACL it lacks is refused."""
    original = DataTree.finish_loading

    def finish_loading(self: Any) -> None:
        for path, node in self.nodes.items():
            if node.acl not in self.acl_cache.by_id:
                raise PersistenceError(f"ACL {node.acl} of {path} is missing")
        original(self)

    patch.setattr(DataTree, "finish_loading", finish_loading)


def wildcards_believed(patch: Patch) -> None:
    """ZOOKEEPER-2164: whoever says it is at 0.0.0.0 is dialled there from then on."""
    dial_back, dial = QuorumCnxManager._dial_back, QuorumCnxManager._dial
    told: dict[tuple[int, int], Any] = {}

    def remember(self: Any, sid: int, addresses: Any, now_ms: int) -> None:
        told[self.my_id, sid] = addresses
        dial_back(self, sid, addresses, now_ms)

    def dial_there(self: Any, peer: Any, addresses: Any) -> None:
        dial(self, peer, told.get((self.my_id, peer.sid), addresses))

    patch.setattr(packets_module, "_WILDCARDS", frozenset())
    patch.setattr(QuorumCnxManager, "_dial_back", remember)
    patch.setattr(QuorumCnxManager, "_dial", dial_there)


def silence_of_the_leader_borne(patch: Patch) -> None:
    """ZOOKEEPER-3240: a follower waits for ever for a leader that says nothing."""
    patch.setattr(Learner, "tick", lambda self, now_ms: None)
    patch.setattr(Learner, "next_timer_ms", lambda self: None)


def config_taken_from_the_snapshot(patch: Patch) -> None:
    """ZOOKEEPER-3829: what a SNAP has in /zookeeper/config is left there."""
    patch.setattr(ZKDatabase, "set_config", lambda self, members: None)


def any_configuration_is_newer(patch: Patch) -> None:
    """ZOOKEEPER-1783: who looks for a leader takes over whatever other members it hears of."""

    def is_newer(self: Any, text: str, sid: int) -> bool:
        members = self._parse(text)
        if members is None or members.same_members(self.view.committed):
            return False
        self._newer = members.with_version(self.view.committed.version + 1)
        return True

    patch.setattr(FastLeaderElection, "_is_newer", is_newer)


def activation_while_catching_up_forgotten(patch: Patch) -> None:
    """ZOOKEEPER-2172: the activation of a configuration is lost on who is catching up."""
    for key in [key for key in STEPS if key[1] == COMMITANDACTIVATE]:
        patch.setitem(STEPS, key, Learner._on_commit)
    for key in [key for key in STEPS if key[1] == INFORMANDACTIVATE]:
        patch.setitem(STEPS, key, lambda self, zxid, data: self._on_inform(zxid, data[8:]))
