"""LearnerHost: what stands around a learner: shell, log thread and server, step by step by hand.

And the words of a leader: functions that give the bytes of its packets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.quorum.fake_database import FakeDatabase, make_txn

from zkpy.protocol.packets import (
    ACK,
    COMMIT,
    COMMITANDACTIVATE,
    DIFF,
    LEADERINFO,
    NEWLEADER,
    PING,
    PROPOSAL,
    SNAP,
    TRUNC,
    UPTODATE,
    Packet,
    PacketReader,
    encode_packet,
)
from zkpy.quorum.effects import Dial, Effect
from zkpy.quorum.follower import Follower
from zkpy.quorum.learner import Delivered, Learner
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.observer import Observer
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

TICK_MS, INIT_TICKS, SYNC_TICKS = 1000, 10, 5
MEMBERS = parse_config_text(
    "server.1=h1:2888:3888:participant;2181\n"
    "server.2=h2:2888:3888:participant;2181\n"
    "server.3=h3:2888:3888:participant;2181\n"
    "server.4=h4:2888:3888:observer;2181\n"
    "version=0"
)


def leader_info(epoch: int) -> bytes:
    return encode_packet(LEADERINFO, epoch << 32, b"\x00\x01\x00\x00")


def diff(zxid: int) -> bytes:
    return encode_packet(DIFF, zxid)


def trunc(zxid: int) -> bytes:
    return encode_packet(TRUNC, zxid)


def snap(zxid: int, stream: bytes) -> bytes:
    return encode_packet(SNAP, zxid) + stream


def proposal(zxid: int, txn: bytes | None = None) -> bytes:
    return encode_packet(PROPOSAL, zxid, txn or make_txn(zxid))


def commit(zxid: int) -> bytes:
    return encode_packet(COMMIT, zxid)


def committed(*zxids: int) -> bytes:
    """Each proposed and committed, as a leader sends what a learner lacks."""
    return b"".join(proposal(zxid) + commit(zxid) for zxid in zxids)


def commit_and_activate(zxid: int, leader: int) -> bytes:
    return encode_packet(COMMITANDACTIVATE, zxid, struct.pack(">q", leader))


def new_leader(epoch: int, members: Members | None = None) -> bytes:
    text = b"" if members is None else members.text().encode()
    return encode_packet(NEWLEADER, epoch << 32, text)


def up_to_date() -> bytes:
    return encode_packet(UPTODATE, -1)


def ping(zxid: int) -> bytes:
    return encode_packet(PING, zxid)


class LearnerHost:
    """One role of member `my_id`, the leader being server 3."""

    def __init__(
        self,
        database: FakeDatabase | None = None,
        kind: type[Follower] | type[Observer] = Follower,
        *,
        my_id: int = 1,
        view: View | None = None,
        now_ms: int = 0,
        sync_enabled: bool = True,
        max_record_bytes: int = 1 << 20,
        connect_limit_ticks: int = 0,
    ) -> None:
        self.database = database or FakeDatabase()
        self.disk = self.database.disk
        self.view = view or View(my_id, MEMBERS)
        self.now_ms = now_ms
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        self.learner: Learner = kind(
            my_id,
            self.view,
            self.database,
            tick_time_ms=TICK_MS,
            init_limit_ticks=INIT_TICKS,
            sync_limit_ticks=SYNC_TICKS,
            connect_limit_ticks=connect_limit_ticks,
            max_record_bytes=max_record_bytes,
            outbox=self.outbox,
            effects=self.effects,
            now_ms=now_ms,
        )
        if isinstance(self.learner, Observer):
            self.learner.sync_enabled = sync_enabled
        self.reader = PacketReader(1 << 20)
        self.sent: list[Packet] = []
        self.delivered: list[Delivered] = []

    def dials(self) -> list[Dial]:
        """Those asked for since the last call."""
        dials = [effect for effect in self.effects if isinstance(effect, Dial)]
        self.effects.clear()
        return dials

    def connect(self, leader: int = 3) -> None:
        """Follow `leader`; its port accepts at once."""
        self.learner.follow(Vote(leader, 0, 1, 0), self.now_ms)
        (dial,) = self.dials()
        self.learner.dialled(dial, Link(self.outbox, f"{dial.address[0]}:2888"), self.now_ms)
        self.turn()

    def feed(self, data: bytes, chunk: int = 0) -> None:
        """Bytes from the leader, in chunks of that many; each is a turn of the loop."""
        link = self.learner.link
        assert link is not None
        for start in range(0, len(data), chunk or max(1, len(data))):
            piece = data[start : start + (chunk or len(data))]
            self.learner.received(link, piece, self.now_ms)
            self.turn()

    def turn(self) -> None:
        """The end of a turn of the loop, without the log thread."""
        self.disk.append(self.learner.take_appended())
        self.serve()
        link = self.learner.link
        if link is not None:
            self.sent += self.reader.feed(bytes(link.out))
            link.out.clear()

    def serve(self) -> None:
        items = self.learner.take_delivered()
        self.delivered += items
        for type, zxid, data in items:
            if type in (COMMIT, COMMITANDACTIVATE):
                assert data is not None
                self.database.apply(zxid, data)
            elif type == PING:
                self.learner.pong(zxid, [])

    def sync_log(self) -> None:
        """The log thread makes durable what it was given."""
        zxid = self.disk.commit()
        if zxid is not None:
            self.learner.durable(zxid)
            self.turn()

    def end(self) -> None:
        """The end of the role, as whoever owns a learner performs it."""
        learner = self.learner
        learner.shutdown("the test says so")
        self.turn()
        self.disk.commit()
        if learner.database_dirty:
            self.database.reload()
        for zxid, txn in learner.pending:
            self.database.apply(zxid, txn)

    def take_sent(self) -> list[tuple[int, int]]:
        """Types and zxids of what the learner said since the last call."""
        sent = [(type, zxid) for type, zxid, _, _ in self.sent]
        self.sent.clear()
        return sent

    def acks(self) -> list[int]:
        """Zxids it acknowledged since the last call."""
        return [zxid for type, zxid in self.take_sent() if type == ACK]


def prepared(zxids: Iterable[int], epoch: int) -> FakeDatabase:
    """A database with these txns in its log, of a server that is in `epoch`."""
    database = FakeDatabase()
    disk = database.disk
    disk.log = [(zxid, make_txn(zxid)) for zxid in zxids]
    disk.accepted_epoch = disk.current_epoch = epoch
    database.reload()
    return database


def established(
    kind: type[Follower] | type[Observer] = Follower, zxids: Iterable[int] = (), epoch: int = 1
) -> LearnerHost:
    """In broadcast, in `epoch`; `zxids` are what it has got by DIFF."""
    host = LearnerHost(kind=kind)
    host.connect()
    host.feed(leader_info(epoch) + diff(0) + committed(*zxids) + new_leader(epoch))
    host.sync_log()
    host.feed(up_to_date())
    assert host.learner.phase == "broadcast"
    host.take_sent()
    host.delivered.clear()
    host.disk.effects.clear()
    return host
