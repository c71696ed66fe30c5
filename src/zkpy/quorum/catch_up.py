"""How a learner catches up: DIFF, TRUNC or SNAP, and what is sent behind it.

A decision over zxids and nothing else; sending is the learner handler's.
Source: LearnerHandler.syncFollower, queueCommittedProposals, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger
from typing import Final

from zkpy.protocol.packets import DIFF, SNAP, TRUNC
from zkpy.protocol.zxid import counter_of
from zkpy.quorum.states import SYNC_DIFF, SYNC_SNAP, SYNC_TRUNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from zkpy.quorum.committed_log import Proposal
    from zkpy.quorum.database import Database

log = getLogger(__name__)

MODES: Final = {DIFF: SYNC_DIFF, TRUNC: SYNC_TRUNC, SNAP: SYNC_SNAP}


class Plan:
    """`kind` (DIFF, TRUNC or SNAP) and `zxid` of the first packet, then `proposals`, all committed.

    `last_zxid`: what the learner has after that. For SNAP it is that of the tree at present, of
    which the snapshot is to be taken in the same turn.
    """

    __slots__ = ("kind", "last_zxid", "proposals", "zxid")

    def __init__(self, kind: int, zxid: int, proposals: list[Proposal], last_zxid: int) -> None:
        self.kind = kind
        self.zxid = zxid
        self.proposals = proposals
        self.last_zxid = last_zxid

    @property
    def mode(self) -> str:
        """The SyncMode of `kind`."""
        return MODES[self.kind]

    def __repr__(self) -> str:
        name = self.mode.upper()
        return f"Plan({name} {self.zxid:#x}, {len(self.proposals)} to {self.last_zxid:#x})"


def plan_catch_up(
    database: Database,
    peer_zxid: int,
    *,
    snapshot_size_factor: float,
    force_snapshot: bool,
    sid: int = -1,
) -> Plan:
    """How the learner that has got as far as `peer_zxid` gets to where `database` is.

    Nothing may be committed between this and the start of forwarding to the learner. Log files
    are used if those needed have at most `snapshot_size_factor` times the bytes of a snapshot;
    below 0 they are not used, 0 is no limit. `sid` is for log lines.
    """
    committed = database.committed_log
    applied = database.last_zxid
    # What is committed may not be applied yet, and a txn of an epoch is above the epoch's mark.
    last = max(applied, committed.max_zxid or 0)
    max_zxid = applied if committed.max_zxid is None else committed.max_zxid
    min_zxid = max_zxid if committed.min_zxid is None else committed.min_zxid
    log.info(
        "Synchronizing with Learner sid: %d maxCommittedLog=%#x minCommittedLog=%#x "
        "lastProcessedZxid=%#x peerLastZxid=%#x",
        sid,
        max_zxid,
        min_zxid,
        applied,
        peer_zxid,
    )
    plan: Plan | None = None
    if force_snapshot:
        log.warning("Forcing snapshot sync - should not see this in production")
    elif last == peer_zxid:
        log.info("Sending DIFF zxid=%#x for peer sid: %d", peer_zxid, sid)
        plan = Plan(DIFF, peer_zxid, [], peer_zxid)
    elif peer_zxid > max_zxid and counter_of(peer_zxid) != 0:
        log.info("Sending TRUNC zxid=%#x for peer sid: %d", max_zxid, sid)
        plan = Plan(TRUNC, max_zxid, [], max_zxid)
    elif min_zxid <= peer_zxid <= max_zxid:
        log.info("Using committedLog for peer sid: %d", sid)
        plan = _replay(committed.proposals, peer_zxid, max_zxid, sid)
    elif peer_zxid < min_zxid and snapshot_size_factor >= 0:
        plan = _replay_log(database, peer_zxid, min_zxid, max_zxid, snapshot_size_factor, sid)
    else:
        log.warning("Unhandled scenario for peer sid: %d fall back to use snapshot", sid)
    if plan is not None:
        return plan
    log.info(
        "Sending snapshot last zxid of peer is %#x, zxid of leader is %#x, send zxid of db as %#x",
        peer_zxid,
        last,
        applied,
    )
    return Plan(SNAP, applied, [], applied)


def _replay(
    proposals: Iterable[Proposal],
    peer_zxid: int,
    last_committed: int,
    sid: int,
) -> Plan | None:
    """What the learner lacks of `proposals`, ascending, that begin at its zxid or before.

    None if it has what never was in this history.
    """
    known = counter_of(peer_zxid) == 0  # it has joined an epoch, and logged nothing in it
    queued: list[Proposal] = []
    for proposal in proposals:
        zxid = proposal[0]
        if zxid == peer_zxid:
            known = True
        elif zxid > peer_zxid:
            if not known:
                # Without a hole in ours, this is of a later epoch, and TRUNC goes not across
                # epochs: what it should be cut to may not be in the learner's log.
                log.warning("Cannot send TRUNC to peer sid: %d peer zxid is %#x", sid, peer_zxid)
                return None
            queued.append(proposal)
    log.info("Sending DIFF zxid=%#x for peer sid: %d", last_committed, sid)
    return Plan(DIFF, last_committed, queued, queued[-1][0] if queued else peer_zxid)


def _replay_log(
    database: Database, peer_zxid: int, min_zxid: int, max_zxid: int, factor: float, sid: int
) -> Plan | None:
    """The same from the log on disk and, where that ends, from `committed_log`."""
    limit = int(database.snapshot_size() * factor)
    records = database.log_records(peer_zxid, limit if limit > 0 else -1)
    if records is None:
        return None
    log.info("Use txnlog and committedLog for peer sid: %d", sid)
    queued: list[Proposal] = []
    last = peer_zxid
    for proposal in records:
        zxid = proposal[0]
        if zxid > min_zxid:
            break  # it may be proposed only
        if zxid > last:
            queued.append(proposal)
            last = zxid
    if last < min_zxid:
        # ZOOKEEPER-2418: with a gap to the committed log nothing of this can be used.
        log.warning("The log ends at %#x, before %#x: snapshot for sid: %d", last, min_zxid, sid)
        return None
    queued += [proposal for proposal in database.committed_log.proposals if proposal[0] > last]
    log.info("Sending DIFF zxid=%#x for peer sid: %d", max_zxid, sid)
    return Plan(DIFF, max_zxid, queued, queued[-1][0])
