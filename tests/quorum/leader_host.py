"""A Leader without a member around it, and learners that say what the test says."""

from __future__ import annotations

import struct
from typing import Any

from tests.quorum.fake_database import FakeDatabase, make_txn

from zkpy.protocol import packets as p
from zkpy.protocol.packets import LearnerInfo, PacketReader, encode_packet
from zkpy.quorum.effects import Effect
from zkpy.quorum.leader import Leader
from zkpy.quorum.leader_settings import LeaderSettings
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.states import BROADCAST
from zkpy.quorum.view import View

TICK_MS = 1000
E1 = 1 << 32
INIT_LIMIT, SYNC_LIMIT = 10, 5


def members(voters: int, observers: tuple[int, ...] = (), version: int = 0) -> Members:
    lines = [f"server.{sid}=h{sid}:2888:3888:participant;2181" for sid in range(1, voters + 1)]
    lines += [f"server.{sid}=h{sid}:2888:3888:observer;2181" for sid in observers]
    return parse_config_text("\n".join([*lines, f"version={version:x}"]))


class Learner:
    """The other end of a link: what the test says, and the packets that came."""

    def __init__(self, host: LeaderHost, sid: int) -> None:
        self.host = host
        self.sid = sid
        self.link = Link(host.outbox, f"10.0.0.{sid}:40000")
        self.handler = host.leader.accept(self.link, host.now_ms)
        self.reader = PacketReader()
        self.packets: list[p.Packet] = []
        self.raw = b""
        self.acked = 0

    def send(self, type: int, zxid: int, data: bytes | None = None) -> None:
        self.feed(encode_packet(type, zxid, data))

    def feed(self, data: bytes) -> None:
        if not self.link.closed:
            self.handler.received(self.link, data, self.host.now_ms)
        self.host.collect()

    def take(self) -> list[tuple[str, int]]:
        """Name and zxid of what came since the last call."""
        self.host.collect()
        taken = [(p.PACKET_NAMES[packet[0]], packet[1]) for packet in self.packets]
        self.packets.clear()
        return taken

    def register(self, accepted_epoch: int = 0, type: int = p.FOLLOWERINFO) -> None:
        self.send(type, accepted_epoch << 32, LearnerInfo(self.sid, 0x10000, 0).encode())

    def ack_epoch(self, zxid: int = 0, current_epoch: int = 0) -> None:
        self.send(p.ACKEPOCH, zxid, struct.pack(">i", current_epoch))

    def ack_new_leader(self) -> None:
        assert self.host.leader.new_epoch is not None
        self.send(p.ACK, self.host.leader.new_epoch << 32)

    def join(self, zxid: int = 0, type: int = p.FOLLOWERINFO) -> None:
        self.register(type=type)
        self.ack_epoch(zxid)
        self.ack_new_leader()

    def ack(self, zxid: int) -> None:
        self.acked = zxid
        self.send(p.ACK, zxid)


class LeaderHost:
    """A Leader, its database and its log, without a member around them."""

    def __init__(self, voters: int = 3, my_id: int = 1, **options: Any) -> None:
        observers = options.pop("observers", ())
        reconfig = options.pop("reconfig_enabled", False)
        least_epoch = options.pop("least_epoch", 0)
        self.histories: dict[int, tuple[int, int]] = {}
        self.now_ms = 0
        self.database: Any = options.pop("database", None) or FakeDatabase()
        self.view = View(my_id, members(voters, observers), None, reconfig)
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        self.learners: dict[int, Learner] = {}
        settings = LeaderSettings(
            tick_time_ms=TICK_MS,
            init_limit_ticks=INIT_LIMIT,
            sync_limit_ticks=SYNC_LIMIT,
            max_record_bytes=1 << 20,
            **options,
        )
        self.leader = Leader(
            my_id,
            self.view,
            self.database,
            settings,
            self.outbox,
            self.effects,
            self.now_ms,
            least_epoch,
            self.histories,
        )
        self.logged: list[tuple[int, bytes]] = []
        self.leader.lead(self.now_ms)

    def learner(self, sid: int) -> Learner:
        learner = self.learners[sid] = Learner(self, sid)
        return learner

    def established(self, *sids: int) -> list[Learner]:
        learners = [self.learner(sid) for sid in sids]
        for learner in learners:
            learner.register()
        for learner in learners:
            learner.ack_epoch()
        for learner in learners:
            learner.ack_new_leader()
            learner.take()
        assert self.leader.phase == BROADCAST
        return learners

    def collect(self) -> None:
        """The end of a turn: the log gets its txns, the links' bytes arrive."""
        self.logged += self.leader.take_appended()
        while self.outbox:
            links, self.outbox[:] = self.outbox[:], []
            for link in links:
                link.dirty = False
                data, link.out = bytes(link.out), bytearray()
                for learner in self.learners.values():
                    if learner.link is link:
                        learner.packets += learner.reader.feed(data)
                        learner.raw += data

    def propose(self, count: int = 1) -> list[int]:
        zxids = []
        for _ in range(count):
            zxid = self.leader.last_zxid + 1
            self.leader.propose(zxid, make_txn(zxid, b"%d" % zxid))
            zxids.append(zxid)
        self.collect()
        return zxids

    def tick(self, ms: int = TICK_MS // 2) -> None:
        self.now_ms += ms
        self.leader.tick(self.now_ms)
        self.collect()
