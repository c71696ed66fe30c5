"""FakeDatabase: what ZAB needs of a database, in memory, on a disk that survives it.

Each effect, on disk or in memory, is noted in order in `FakeDisk.effects`. `crash_after` counts
effects: the one after that raises Crash, before it happens.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import SetDataTxn, TxnHeader, decode_txn, encode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.committed_log import CommittedLog
from zkpy.quorum.members import Members

SIGNATURE = b"\x00\x00\x00\x0aBenWasHere"
SET_DATA, RECONFIG = int(OpCode.SET_DATA), int(OpCode.RECONFIG)

Proposal = tuple[int, bytes]


class Crash(BaseException):
    """The process ended here."""


class DiskFailed(Exception):
    """A write failed."""


def make_txn(zxid: int, data: bytes | None = b"", type: int = SET_DATA) -> bytes:
    """An encoded txn that sets /x, or of `type` with the same record."""
    header = TxnHeader(0x1000, zxid & 0xFFFF, zxid, 0, type)
    return encode_txn(header, SetDataTxn("/x", data, 0), None)


def make_snapshot(zxids: list[int]) -> bytes:
    """A stream as it follows SNAP, with the signature: here the zxids that led to the state."""
    return b"".join(struct.pack(">q", zxid) for zxid in zxids) + SIGNATURE


class FakeDisk:
    """Log, snapshots and epoch files. A snapshot is the list of the zxids that led to it."""

    def __init__(self) -> None:
        self.snapshots: dict[int, list[int]] = {0: []}
        self.log: list[Proposal] = []  # durable
        self.unsynced: list[Proposal] = []
        self.accepted_epoch = 0
        self.current_epoch = 0
        self.effects: list[tuple[str, int]] = []
        self.crash_after: int | None = None
        self.fail_at: str | None = None

    def effect(self, what: str, value: int) -> None:
        if self.fail_at == what:
            raise DiskFailed(what)
        if self.crash_after is not None:
            if self.crash_after <= 0:
                raise Crash
            self.crash_after -= 1
        self.effects.append((what, value))

    def restored(self) -> list[int]:
        """The zxids of the state that a start would come to."""
        newest = max(self.snapshots)
        state = list(self.snapshots[newest])
        known = set(state)
        last = max(newest, state[-1] if state else 0)
        for zxid, _ in self.log:
            if zxid > newest and zxid not in known:
                assert zxid > last, "a log whose zxids do not rise"
                state.append(zxid)
                last = zxid
        return state

    @property
    def last_zxid(self) -> int:
        """The zxid that a start would come to."""
        state = self.restored()
        return max(max(self.snapshots), state[-1] if state else 0)

    # What the log thread does.

    def append(self, proposals: list[Proposal]) -> None:
        for proposal in proposals:
            self.effect("append", proposal[0])
            self.unsynced.append(proposal)

    def commit(self) -> int | None:
        """Make durable what was appended; its last zxid, None if there is nothing."""
        if not self.unsynced:
            return None
        zxid = self.unsynced[-1][0]
        self.effect("durable", zxid)
        self.log += self.unsynced
        self.unsynced = []
        return zxid

    def crash(self, rng: Random) -> None:
        """Some of what was not synced got to the disk, from its beginning."""
        self.log += self.unsynced[: rng.randint(0, len(self.unsynced))]
        self.unsynced = []
        self.crash_after = None


class FakeReceiver:
    def __init__(self) -> None:
        self.buffer = b""
        self.zxids: list[int] | None = None

    def feed(self, data: bytes) -> bytes | None:
        assert self.zxids is None, "the stream is complete"
        self.buffer += data
        content, found, rest = self.buffer.partition(SIGNATURE)
        if b"garbage" in content:
            raise DecodeError("Missing signature")
        if not found:
            return None
        # A captured stream is of any length, and says nothing here.
        whole = len(content) % 8 == 0
        self.zxids = [zxid for (zxid,) in struct.iter_unpack(">q", content)] if whole else []
        return rest


class FakeDatabase:
    """The state in memory is the zxids that were applied; see quorum.database.Database."""

    def __init__(self, disk: FakeDisk | None = None) -> None:
        self.disk = disk or FakeDisk()
        self.committed_log = CommittedLog(500)
        self.config: Members | None = None
        self.state: list[int] = []
        self.last_zxid = 0
        self.accepted_epoch = self.current_epoch = 0
        self.reload()

    def has_snapshot_at(self, zxid: int) -> bool:
        return zxid in self.disk.snapshots

    def reload(self) -> None:
        disk = self.disk
        assert not disk.unsynced, "the log thread is at rest"
        self.state = disk.restored()
        self.last_zxid = disk.last_zxid
        self.committed_log.clear()
        for zxid, txn in disk.log:
            self.committed_log.add(zxid, txn)
        # Between the fsync of what an epoch began with and currentEpoch there may be a crash.
        epoch = self.last_zxid >> 32
        assert epoch <= disk.accepted_epoch
        self.accepted_epoch = disk.accepted_epoch
        self.current_epoch = max(disk.current_epoch, epoch)

    def write_accepted_epoch(self, epoch: int) -> None:
        self.disk.effect("acceptedEpoch", epoch)
        self.disk.accepted_epoch = self.accepted_epoch = epoch

    def write_current_epoch(self, epoch: int) -> None:
        assert epoch <= self.disk.accepted_epoch
        self.disk.effect("currentEpoch", epoch)
        self.disk.current_epoch = self.current_epoch = epoch

    def apply(self, zxid: int, txn: bytes) -> None:
        decode_txn(txn)
        self.disk.effect("apply", zxid)
        self.committed_log.add(zxid, txn)
        if zxid not in self.state:  # as it is if a fuzzy snapshot had it
            self.state.append(zxid)
        self.last_zxid = zxid

    def snapshot_receiver(self) -> FakeReceiver:
        return FakeReceiver()

    def install_snapshot(self, receiver: FakeReceiver, zxid: int) -> None:
        self.disk.effect("install", zxid)
        assert receiver.zxids is not None
        self.state = list(receiver.zxids)
        self.last_zxid = zxid
        self.committed_log.clear()

    def save_snapshot(self) -> None:
        self.disk.effect("snapshot", self.last_zxid)
        # As the real one does with what came by SNAP: nothing else is left.
        self.disk.snapshots = {self.last_zxid: list(self.state)}
        self.disk.log.clear()

    def truncate(self, zxid: int) -> bool:
        disk = self.disk
        assert not disk.unsynced, "the log thread is at rest"
        disk.effect("truncate", zxid)
        usable = [content for content in disk.snapshots if content <= zxid]
        if not usable or (zxid not in usable and zxid not in [z for z, _ in disk.log]):
            return False
        disk.snapshots = {content: disk.snapshots[content] for content in usable}
        disk.log = [(z, txn) for z, txn in disk.log if z <= zxid]
        self.state = disk.restored()
        self.last_zxid = zxid
        return True

    def set_config(self, members: Members) -> None:
        self.config = members

    def snapshot_slices(self) -> Iterator[bytes]:
        yield make_snapshot(self.state)

    def log_records(self, zxid: int, budget_bytes: int) -> Iterator[Proposal] | None:
        return None

    def snapshot_size(self) -> int:
        return 0
