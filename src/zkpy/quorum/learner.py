"""Learner: what a follower and an observer have in common, up to the moment they serve.

    connected (learner_link.py) -> FOLLOWERINFO -> LEADERINFO, ACKEPOCH -> DIFF | TRUNC | SNAP
           -> proposals and commits -> NEWLEADER, ACK -> UPTODATE, ACK -> broadcast

Calls in; out come bytes on the link, txns to log (`take_appended`), what is the server's business
(`take_delivered`) and `failed`, once the role is over. It must not know what a txn says, apart from
those that change the configuration.

The order of what becomes durable is the point of this file: the txns (or the snapshot), then
currentEpoch, then the ACK of NEWLEADER. A server that says it has joined an epoch holds all the
txns that epoch began with (ZOOKEEPER-3911, 4643, 4646).
Source: Learner, ZooKeeper 3.9; phases 1 and 2 of Zab.
"""

from __future__ import annotations

import struct
from collections import deque
from logging import getLogger
from typing import Final

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    ACK,
    ACKEPOCH,
    COMMIT,
    COMMITANDACTIVATE,
    DIFF,
    INFORM,
    INFORMANDACTIVATE,
    LEADERINFO,
    NEWLEADER,
    PACKET_NAMES,
    PING,
    PROPOSAL,
    REVALIDATE,
    SNAP,
    SYNC,
    TRUNC,
    UPTODATE,
    PacketReader,
    encode_packet,
)
from zkpy.protocol.txn_check import check_txn
from zkpy.protocol.txns import HEADER_SIZE, SetDataTxn, decode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.protocol.zxid import EPOCH_MAX
from zkpy.quorum.learner_link import LearnerLink
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import (
    BROADCAST,
    SYNC_DIFF,
    SYNC_NONE,
    SYNC_SNAP,
    SYNC_TRUNC,
    SYNCHRONIZATION,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.protocol.packets import Packet
    from zkpy.quorum.database import Database, SnapshotReceiver
    from zkpy.quorum.effects import Effect
    from zkpy.quorum.link import Link
    from zkpy.quorum.members import Members
    from zkpy.quorum.view import View

log = getLogger(__name__)

# (zxid, encoded txn), and (packet type, zxid, what the packet or its proposal carried).
Proposal = tuple[int, bytes]
Delivered = tuple[int, int, "bytes | None"]

# What passes to the server as it is.
FOR_SERVER: Final = frozenset((PING, SYNC, REVALIDATE))

COUNTER_MASK: Final = 0xFFFFFFFF
RECONFIG: Final = OpCode.RECONFIG
# ExitCode of ZooKeeper's process.
UNMATCHED_TXN_COMMIT: Final = 12
QUORUM_PACKET_ERROR: Final = 13

# What is awaited of the leader, within discovery and synchronization.
_LEADER_INFO: Final = "LEADERINFO"
_SYNC_HEADER: Final = "DIFF, TRUNC or SNAP"
_SYNC_DATA: Final = "NEWLEADER"
_UP_TO_DATE: Final = "UPTODATE"

_INT: Final = struct.Struct(">i")
_LONG: Final = struct.Struct(">q")
# Of a TxnHeader: zxid and type.
txn_zxid_and_type: Final = struct.Struct(">12xq8xi").unpack_from


class FatalProtocolError(ProtocolError):
    """The leader and this member disagree on the past: the process has to end."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Learner(LearnerLink):
    """One attempt to follow one leader; over for good once `failed` is set.

    `phase` is ELECTION until `follow`, then DISCOVERY, SYNCHRONIZATION, BROADCAST.
    `new_epoch`: the leader's, once it is known.
    `sync_began_ms`: when that was (monotonic).
    `last_zxid`: of the newest txn the leader sent, or with which catching up began.
    `committed_zxid`: of the newest that it committed.
    `pending`: txns given to the log (`take_appended`) and not committed, oldest first.
    `reconfigured`: configurations to activate, in order: members, designated leader, zxid.
    `database_dirty`: the state in memory may be ahead of the disk; who ends the role then reloads.
    `fatal_exit_code`: set with `failed` if not only the role but the process has to end.

    Whoever ends the role logs what `take_appended` has left, gives the server what
    `take_delivered` has left, waits for the log, and applies `pending`: state and log are equal
    then, and the next election is told a zxid that is on disk.
    """

    def __init__(
        self,
        my_id: int,
        view: View,
        database: Database,
        *,
        tick_time_ms: int,
        init_limit_ticks: int,
        sync_limit_ticks: int,
        connect_limit_ticks: int,
        max_record_bytes: int,
        outbox: list[Link],
        effects: list[Effect],
        now_ms: int,
        retry_delay_ms: int = 100,
    ) -> None:
        super().__init__(
            my_id,
            view,
            database,
            tick_time_ms=tick_time_ms,
            init_limit_ticks=init_limit_ticks,
            sync_limit_ticks=sync_limit_ticks,
            connect_limit_ticks=connect_limit_ticks,
            effects=effects,
            now_ms=now_ms,
            retry_delay_ms=retry_delay_ms,
        )
        self._outbox = outbox
        self._reader = PacketReader(max_record_bytes)
        self.sync_mode = SYNC_NONE
        self.sync_began_ms = now_ms
        self.new_epoch: int | None = None
        self.last_zxid = self.committed_zxid = database.last_zxid
        self.pending: deque[Proposal] = deque()
        self.reconfigured: list[tuple[Members, int | None, int]] = []
        self.database_dirty = False

        # Catching up
        self._awaited = _LEADER_INFO
        self._receiver: SnapshotReceiver | None = None
        self._snapshot_zxid = 0
        self._snapshot_due = False  # the state came by SNAP: a snapshot makes it durable
        self._to_log = False  # commits are kept to be logged, else applied at once
        self._uncommitted: deque[Proposal] = deque()
        self._committed: list[tuple[int, int, bytes]] = []
        self._new_leader_config: Members | None = None
        # What came while the log writes what we caught up with.
        self._held: list[Packet] = []
        # Out
        self._appended: list[Proposal] = []
        self._delivered: list[Delivered] = []

    # ------------------------------------------------------------------ packets in

    def received(self, link: Link, data: bytes, now_ms: int) -> None:
        """A chunk of the leader's stream."""
        if link is not self.link or self.failed is not None:
            return
        self._now_ms = self._heard_ms = now_ms
        try:
            self._read(data)
        except FatalProtocolError as fatal:
            self._fail(str(fatal), fatal.exit_code)
        except ProtocolError as error:
            self._fail(str(error))

    def _read(self, data: bytes) -> None:
        if self._receiver is not None:
            rest = self._receiver.feed(data)
            if rest is None:
                return
            receiver, self._receiver = self._receiver, None
            self._snapshot_received(receiver)
            data = rest
        packets = self._reader.feed(data)
        if self._awaited_zxid is not None:
            self._held += packets
        elif packets:
            self._handle(packets)

    def _handle(self, packets: list[Packet]) -> None:
        """Act on packets, in whatever phase; what comes while the disk is at work is held."""
        if self.phase == BROADCAST:
            self._broadcast(packets)
            return
        for index, packet in enumerate(packets):
            if self.phase == BROADCAST:
                self._broadcast(packets[index:])
                return
            if self._awaited_zxid is not None:
                self._held = packets[index:]
                return
            self._step(packet)

    def _step(self, packet: Packet) -> None:
        type, zxid, data, _ = packet
        method = STEPS.get((self._awaited, type))
        if method is not None:
            method(self, zxid, data)
        elif self._awaited in (_SYNC_DATA, _UP_TO_DATE) and type in _NOT_YET:
            # The leader pings as soon as it can: no answer before UPTODATE, as the reference.
            if self.debug:
                log.debug("ignoring %s before UPTODATE", PACKET_NAMES[type])
        else:
            name = PACKET_NAMES.get(type, f"packet of type {type}")
            raise ProtocolError(f"{name} where {self._awaited} was expected")

    # ------------------------------------------------------------------ discovery

    def _on_leader_info(self, zxid: int, data: bytes | None) -> None:
        """Promise the leader's epoch to it, on disk, before saying so."""
        if data is None or len(data) < _INT.size:
            raise ProtocolError("LEADERINFO without a protocol version")
        database = self.database
        epoch, accepted = zxid >> 32, database.accepted_epoch
        if epoch > EPOCH_MAX:
            raise ProtocolError(f"impossible epoch {epoch:#x}")
        if epoch < accepted:
            raise ProtocolError(
                f"Leaders epoch, {epoch:x} is less than accepted epoch, {accepted:x}"
            )
        # -1: this epoch was accepted before; the leader must not count us twice for it.
        current = -1
        if epoch > accepted:
            database.write_accepted_epoch(epoch)
            current = database.current_epoch
        self.new_epoch = epoch
        self._send(encode_packet(ACKEPOCH, database.last_zxid, _INT.pack(current)))
        self.phase = SYNCHRONIZATION
        self.sync_began_ms = self._now_ms
        self._awaited = _SYNC_HEADER

    # ------------------------------------------------------------------ synchronization

    def _on_diff(self, zxid: int, data: bytes | None) -> None:
        log.info("Getting a diff from the leader %#x", zxid)
        self._catch_up_by(SYNC_DIFF)
        self._to_log = True
        self._start_sync()

    def _on_trunc(self, zxid: int, data: bytes | None) -> None:
        """Forget what the leader never had, on disk and in memory.

        What follows is logged like a DIFF. The reference applies it in memory and relies on a
        snapshot that it does not sync: an interruption leaves memory ahead of the disk
        (ZOOKEEPER-5094).
        """
        log.warning("Truncating log to get in sync with the leader %#x", zxid)
        self._catch_up_by(SYNC_TRUNC)
        self._to_log = True
        self._check_epoch(TRUNC, zxid)
        database = self.database
        self.database_dirty = True
        # Our newest txns are of an epoch in which the leader has none: that began with what the
        # leader has now, and our log may begin there, with a snapshot from its leader.
        mark = database.last_zxid >> 32 << 32
        done, reached = database.truncate(zxid), zxid
        if not done and zxid < mark and database.has_snapshot_at(mark):
            done, reached = database.truncate(mark), mark
        # To go on from any other zxid would leave a hole, or what the leader never had.
        if not done or database.last_zxid != reached:
            raise FatalProtocolError(f"Not able to truncate the log {zxid:#x}", QUORUM_PACKET_ERROR)
        self.database_dirty = False
        self._start_sync()

    def _on_snap(self, zxid: int, data: bytes | None) -> None:
        log.info("Getting a snapshot from leader %#x", zxid)
        self._catch_up_by(SYNC_SNAP)
        self._check_epoch(SNAP, zxid)
        self._snapshot_zxid = zxid
        self._receiver = self.database.snapshot_receiver()
        # SNAP is the last packet the reader gives: what it has behind it is the snapshot.
        self._read(self._reader.take_rest())

    def _snapshot_received(self, receiver: SnapshotReceiver) -> None:
        # Memory is the leader's from here on, the disk still ours, until a snapshot is written: if
        # the role ends before, memory is read from disk again (ZOOKEEPER-3642).
        self.database_dirty = True
        self.database.install_snapshot(receiver, self._snapshot_zxid)
        self._snapshot_due = True
        self._start_sync()

    def _check_epoch(self, type: int, zxid: int) -> None:
        assert self.new_epoch is not None
        if not 0 <= zxid >> 32 <= self.new_epoch:
            raise ProtocolError(
                f"{PACKET_NAMES[type]} {zxid:#x} is not of epoch {self.new_epoch:x} or before"
            )

    def _catch_up_by(self, sync_mode: str) -> None:
        self.sync_mode = sync_mode
        # Here, as it is over within the same call when there is little to catch up with.
        log.info("Peer state changed: %s - %s - %s", self.participle, self.phase, sync_mode)

    def _start_sync(self) -> None:
        """The state is the leader's up to a zxid: what comes now has to continue from there."""
        self.database.set_config(self.view.committed)
        self.last_zxid = self.committed_zxid = self.database.last_zxid
        self._awaited = _SYNC_DATA

    def _on_proposal(self, zxid: int, data: bytes | None) -> None:
        """Keep a txn until it is committed.

        A proposal may come twice, or be in a snapshot that was made while txns were applied.
        """
        if zxid <= self.last_zxid:
            return
        txn = self.check_proposal(zxid, data)
        self._uncommitted.append((zxid, txn))
        self.last_zxid = zxid

    def check_proposal(self, zxid: int, data: bytes | None) -> bytes:
        """The txn of a proposal that continues those before it; a reconfig is noted in the view.

        Raises ProtocolError for a gap: a hole in the log loses what is in it (ZOOKEEPER-4925).
        """
        last_zxid = self.last_zxid
        if zxid != last_zxid + 1 and (zxid & COUNTER_MASK != 1 or zxid >> 32 <= last_zxid >> 32):
            raise ProtocolError(f"proposal {zxid:#x} follows {last_zxid:#x}: some are missing")
        self._check_epoch(PROPOSAL, zxid)
        if data is None or len(data) < HEADER_SIZE:
            raise ProtocolError(f"proposal {zxid:#x} without a txn header")
        txn_zxid, txn_type = txn_zxid_and_type(data)
        if txn_zxid != zxid:
            raise ProtocolError(f"proposal {zxid:#x} is a txn of zxid {txn_zxid:#x}")
        check_txn(data)  # nothing is logged that could not be read again
        if txn_type == RECONFIG and self.view.reconfig_enabled:
            self.view.set_last_proposed(members_of(data))
        return data

    def _on_commit(self, zxid: int, data: bytes | None) -> None:
        self._commit(COMMIT, zxid)

    def _commit(self, type: int, zxid: int) -> None:
        """The oldest proposal is committed: keep it for the log, or apply it to a snapshot."""
        if zxid <= self.committed_zxid:
            return
        if not self._uncommitted:
            raise ProtocolError(f"COMMIT of {zxid:#x}, which was never proposed")
        head, txn = self._uncommitted[0]
        if head != zxid:
            raise ProtocolError(f"COMMIT of {zxid:#x}, but the next proposal is {head:#x}")
        self._uncommitted.popleft()
        self.committed_zxid = zxid
        if self._to_log:
            self._committed.append((type, zxid, txn))
        else:
            self.database.apply(zxid, txn)

    def _on_commit_and_activate(self, zxid: int, data: bytes | None) -> None:
        if zxid > self.committed_zxid and self._uncommitted:
            self.activate(zxid, self._uncommitted[0][1], data)
        self._commit(COMMITANDACTIVATE, zxid)

    def activate(self, zxid: int, txn: bytes, data: bytes | None) -> None:
        """Note the configuration of a reconfig txn that is committed; `data` names the leader."""
        if data is None or len(data) < _LONG.size:
            raise ProtocolError(f"activation of {zxid:#x} without a designated leader")
        if self.view.reconfig_enabled:
            self.reconfigured.append((members_of(txn), _LONG.unpack_from(data)[0], zxid))

    def _on_inform(self, zxid: int, data: bytes | None) -> None:
        self._on_proposal(zxid, data)
        self._commit(COMMIT, zxid)

    def _on_inform_and_activate(self, zxid: int, data: bytes | None) -> None:
        self._on_proposal(zxid, None if data is None else data[_LONG.size :])
        self._on_commit_and_activate(zxid, data)

    def _on_new_leader(self, zxid: int, data: bytes | None) -> None:
        """All that the new epoch begins with is here: make it durable, then say so."""
        log.info("Learner received NEWLEADER message")
        assert self.new_epoch is not None
        if zxid != self.new_epoch << 32:
            raise ProtocolError(f"NEWLEADER {zxid:#x} in epoch {self.new_epoch:x}")
        if data is not None and len(data) > 1:
            self._new_leader_config = parse_members_text(data)
            self.view.set_last_proposed(self._new_leader_config, by_new_leader=True)
        if self._snapshot_due:
            self.database.save_snapshot()
            self._snapshot_due = self.database_dirty = False
            self._to_log = True
        committed = [(zxid, txn) for _, zxid, txn in self._committed]
        self._committed.clear()
        if committed and self._logs():
            self._appended += committed
            self.pending.extend(committed)
            self._awaited_zxid = committed[-1][0]
        else:
            for zxid, txn in committed:
                self.database.apply(zxid, txn)
            self._join_epoch()

    def _logs(self) -> bool:
        """Whether this member keeps a log."""
        return True

    def _join_epoch(self) -> None:
        """The txns are durable. The epoch comes after them, and the ACK after the epoch."""
        assert self.new_epoch is not None
        self._awaited_zxid = None
        pending = self.pending
        while pending:
            self.database.apply(*pending.popleft())
        self.database.write_current_epoch(self.new_epoch)
        self._silence_limit_ms = self._sync_limit_ms
        # The disk may have been slow: that was not the leader's silence.
        self._heard_ms = None
        self.sync_mode = SYNC_NONE
        self._send(encode_packet(ACK, self.new_epoch << 32))
        self._awaited = _UP_TO_DATE

    def _on_up_to_date(self, zxid: int, data: bytes | None) -> None:
        """The leader is established: serve."""
        log.info("Learner received UPTODATE message")
        assert self.new_epoch is not None
        config = self._new_leader_config
        # One that is newer than all that is committed is only proposed: Apache's leader sends it
        # to whoever comes while it waits for its quorum. Its commit activates it.
        established_zxid = max(self.new_epoch << 32, self.committed_zxid)
        if config is not None and self.view.reconfig_enabled and config.version <= established_zxid:
            self.reconfigured.append((config, None, self.new_epoch << 32))
        self._send(encode_packet(ACK, self.new_epoch << 32))
        self.phase = BROADCAST
        committed, self._committed = self._committed, []
        uncommitted, self._uncommitted = self._uncommitted, deque()
        self._start_broadcast(committed, uncommitted)

    # ------------------------------------------------------------------ broadcast

    def _start_broadcast(
        self, committed: list[tuple[int, int, bytes]], uncommitted: deque[Proposal]
    ) -> None:
        """Take over what came between NEWLEADER and UPTODATE, neither logged nor applied yet."""
        raise NotImplementedError

    def _broadcast(self, packets: list[Packet]) -> None:
        """Act on packets after UPTODATE. Raises ProtocolError."""
        raise NotImplementedError

    def take_appended(self) -> list[Proposal]:
        """What is to be logged, in zxid order; each is taken once."""
        appended = self._appended
        if appended:
            self._appended = []
        return appended

    def take_delivered(self) -> list[Delivered]:
        """What the server has to do, in order: (packet type, zxid, data).

        (COMMIT, zxid, txn) also for an INFORM; (COMMITANDACTIVATE, zxid, txn) for a reconfig;
        (SYNC | PING | REVALIDATE, zxid, data) as they came.
        """
        delivered = self._delivered
        if delivered:
            self._delivered = []
        return delivered

    def durable(self, zxid: int) -> None:
        """All txns up to `zxid` that were taken to be logged are on disk."""
        awaited = self._awaited_zxid
        # A late report of an earlier role must not stand for what was not even taken yet.
        if awaited is None or self.failed is not None or self._appended or zxid < awaited:
            return
        try:
            self._join_epoch()
            held, self._held = self._held, []
            if held:
                self._handle(held)
        except FatalProtocolError as fatal:
            self._fail(str(fatal), fatal.exit_code)
        except ProtocolError as error:
            self._fail(str(error))


def parse_members_text(data: bytes) -> Members:
    """A configuration from a peer. Raises ProtocolError."""
    try:
        return parse_config_text(data.decode(), multi_address=True)
    except (UnicodeDecodeError, ConfigException, IllegalArgument) as error:
        raise ProtocolError(f"configuration that cannot be read: {error}") from None


def members_of(txn: bytes) -> Members:
    """The configuration that a reconfig txn brings. Raises ProtocolError."""
    record = decode_txn(txn)[1]
    if not isinstance(record, SetDataTxn) or record.data is None:
        raise ProtocolError("reconfig txn without a configuration")
    return parse_members_text(record.data)


# What may come early or late for what is awaited, and is no sign of a broken stream.
_NOT_YET: Final = frozenset(PACKET_NAMES) - {
    DIFF,
    TRUNC,
    SNAP,
    LEADERINFO,
    NEWLEADER,
    UPTODATE,
}

# Keyed by what is awaited, and by the packet; a pair missing here is the leader's error.
STEPS: Final[dict[tuple[str, int], Callable[[Learner, int, bytes | None], None]]] = {
    (_LEADER_INFO, LEADERINFO): Learner._on_leader_info,
    (_SYNC_HEADER, DIFF): Learner._on_diff,
    (_SYNC_HEADER, TRUNC): Learner._on_trunc,
    (_SYNC_HEADER, SNAP): Learner._on_snap,
    (_SYNC_DATA, NEWLEADER): Learner._on_new_leader,
    (_UP_TO_DATE, UPTODATE): Learner._on_up_to_date,
}
for _awaited in (_SYNC_DATA, _UP_TO_DATE):
    STEPS[_awaited, PROPOSAL] = Learner._on_proposal
    STEPS[_awaited, COMMIT] = Learner._on_commit
    STEPS[_awaited, COMMITANDACTIVATE] = Learner._on_commit_and_activate
    STEPS[_awaited, INFORM] = Learner._on_inform
    STEPS[_awaited, INFORMANDACTIVATE] = Learner._on_inform_and_activate
