"""Captured peer connections played again, with zkpy in the place of one of the two sides.

`LearnerReplay`: the captured leader speaks, zkpy's learner answers. `LeaderReplay`: the captured
learners speak, zkpy's leader answers; what clients made the captured leader propose is proposed
again, byte for byte. Both have a real database on a simulated disk.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import zabwire
from tests.support.zabwire import Capture, Cursor, captures, encode_auth

from zkpy.datatree.serialize import SIGNATURE
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol.packets import (
    ACK,
    ACKEPOCH,
    COMMIT,
    COMMITANDACTIVATE,
    FOLLOWERINFO,
    INFORM,
    INFORMANDACTIVATE,
    NEWLEADER,
    PING,
    PROPOSAL,
    REQUEST,
    REVALIDATE,
    SNAP,
    SYNC,
    LearnerInfo,
    Packet,
    PacketReader,
    decode_touches,
)
from zkpy.protocol.txns import ErrorTxn, SetDataTxn, TxnHeader, decode_txn, encode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.effects import Dial, Effect
from zkpy.quorum.follower import Follower
from zkpy.quorum.leader import Leader
from zkpy.quorum.leader_settings import LeaderSettings
from zkpy.quorum.learner import Learner
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.observer import Observer
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote
from zkpy.server.database import ZKDatabase
from zkpy.server.settings import make_config
from zkpy.testing.disk import SimulatedDisk

LIMIT = 1 << 20
# Of one side's packets: what a client or a clock caused.
NOT_OF_LEARNERS = frozenset({REQUEST, REVALIDATE, PING})
NOT_OF_LEADERS = frozenset({SYNC, REVALIDATE, PING})


def behind_sasl(stream: bytes) -> bytes:
    """The protocol itself, once the exchange of a scenario with SASL is read."""
    cursor = Cursor(stream)
    packets = cursor.auth_packets()
    assert encode_auth(packets) + cursor.rest == stream
    return cursor.rest


def packets_of(stream: bytes) -> tuple[list[Packet], bytes]:
    """All packets of a stream, and the snapshot behind a SNAP."""
    reader = PacketReader(LIMIT)
    packets = reader.feed(behind_sasl(stream))
    snapshot, rest = b"", reader.take_rest()
    if packets and packets[-1][0] == SNAP:
        size = rest.index(SIGNATURE) + len(SIGNATURE)
        snapshot = rest[:size]
        packets += reader.feed(rest[size:])
        rest = reader.take_rest()
    assert rest == b"", "a stream ends with a packet"
    return packets, snapshot


def without(packets: list[Packet], types: frozenset[int]) -> list[Packet]:
    return [packet for packet in packets if packet[0] not in types]


def open_database(files: Path | None = None) -> tuple[SimulatedDisk, ZKDatabase]:
    """A database on a disk of its own: empty, or with copies of `files`."""
    disk = SimulatedDisk()
    disk.make_dirs("/data/version-2")
    for file in sorted(files.iterdir()) if files else ():
        disk.put(f"/data/version-2/{file.name}", file.read_bytes())
    store = FileTxnSnapLog(disk, Settings("/data", preallocate_bytes=16384))
    store.open()
    database = ZKDatabase(store, disk, make_config(data_dir="/data"))
    database.load()
    return disk, database


def error_txn(zxid: int) -> bytes:
    """A txn that changes nothing."""
    return encode_txn(TxnHeader(0x1000, 0, zxid, 0, int(OpCode.ERROR)), ErrorTxn(-101), None)


def config_of(accepted: bytes) -> Members:
    """The configuration that a captured leader had when the connection began."""
    text = next(data for type, _, data, _ in packets_of(accepted)[0] if type == NEWLEADER)
    assert text is not None
    return parse_config_text(text.decode(), multi_address=True)


class LearnerReplay:
    """zkpy's learner, told what the captured one was told; its log is durable at once."""

    def __init__(self, found: Capture, files: Path | None = None) -> None:
        self.found = found
        theirs, _ = packets_of(found.dialled)
        (type, zxid, data, _), (_, last_zxid, epoch, _) = theirs[0], theirs[1]
        self.info = LearnerInfo.decode(data)
        self.touches = [data for type, _, data, _ in theirs if type == PING]
        self.theirs = theirs
        proposed = config_of(found.accepted)
        reconfig_enabled = proposed.version > 0
        committed = proposed.with_version(self.info.config_version)
        self.view = View(self.info.server_id, committed, None, reconfig_enabled)
        self.disk, self.database = open_database(files)
        if files is None:
            self._prepare(zxid >> 32, last_zxid, int.from_bytes(epoch or b"", signed=True))
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        self.learner: Learner = (Follower if type == FOLLOWERINFO else Observer)(
            self.info.server_id,
            self.view,
            self.database,
            tick_time_ms=1000,
            init_limit_ticks=10,
            sync_limit_ticks=5,
            connect_limit_ticks=0,
            max_record_bytes=LIMIT,
            outbox=self.outbox,
            effects=self.effects,
            now_ms=0,
        )
        self.sent = b""

    def _prepare(self, accepted: int, last_zxid: int, current: int) -> None:
        """The epochs and the zxid of the captured learner, though not its tree."""
        database = self.database
        database.write_accepted_epoch(accepted)
        database.write_current_epoch(accepted if current == -1 else current)
        database.last_zxid = last_zxid

    def run(self) -> list[Packet]:
        """All that zkpy's learner says."""
        self.connect()
        skipped = len(self.found.accepted) - len(behind_sasl(self.found.accepted))
        for piece in self.found.segments("s2c"):
            skip = min(skipped, len(piece))
            skipped -= skip
            self.feed(piece[skip:])
        return packets_of(self.sent)[0]

    def connect(self) -> None:
        leader = next(
            sid
            for sid, server in self.view.committed.servers.items()
            if server.quorum_addresses[0][1] == int(self.found.server.rpartition(":")[2])
        )
        self.learner.follow(Vote(leader, 0, 1, 0), 0)
        dial = self.effects[0]
        assert isinstance(dial, Dial)
        self.learner.dialled(dial, Link(self.outbox, self.found.server), 0)
        self.turn()

    def feed(self, data: bytes) -> None:
        link = self.learner.link
        assert link is not None
        self.learner.received(link, data, 0)
        self.turn()

    def turn(self) -> None:
        """What shell, log thread, server and Member do, until nothing is left to do."""
        learner = self.learner
        while True:
            appended = learner.take_appended()
            for zxid, txn in appended:
                self.database.store.log.append(zxid, txn)
            if appended:
                self.database.store.log.commit()
                learner.durable(appended[-1][0])
            for members, _, _ in learner.reconfigured:
                self.view.set_committed(members)
            learner.reconfigured.clear()
            for type, zxid, data in learner.take_delivered():
                if type in (COMMIT, COMMITANDACTIVATE):
                    assert data is not None
                    self.database.apply(zxid, data)
                elif type == PING:
                    touches = self.touches.pop(0) if self.touches else b""
                    learner.pong(zxid, decode_touches(touches))
            if not appended:
                break
        link = learner.link
        assert link is not None
        self.sent += bytes(link.out)
        link.out.clear()


class Peer:
    """One learner's connection to zkpy's leader; `found` None: one made up to be a quorum."""

    def __init__(self, leader: Leader, outbox: list[Link], found: Capture | None) -> None:
        self.found = found
        self.link = Link(outbox, found.id if found else "made up")
        self.handler: LearnerHandler = leader.accept(self.link, 0)
        self.sent = b""
        self.answered = 0

    def take(self) -> None:
        self.sent += bytes(self.link.out)
        self.link.out.clear()


class LeaderReplay:
    """zkpy's leader, told what the captured one was told by all its learners."""

    def __init__(self, scenario: str) -> None:
        found = [one for one in captures(scenario) if one.kind == "peer"]
        self.found = found
        first, _ = packets_of(found[0].dialled)
        self.my_id = (int(found[0].server.rpartition(":")[2]) - 24001) // 10
        members = config_of(found[0].accepted)
        self.view = View(self.my_id, members, None, members.version > 0)
        _, self.database = open_database()
        accepted, last_zxid = first[0][1] >> 32, first[1][1]
        current = int.from_bytes(first[1][2] or b"", signed=True)
        # The captured leader may have been established long ago, or by those that are captured.
        self.made_up = current == -1 or scenario.endswith("snap")
        if accepted and not self.made_up:
            self.database.write_accepted_epoch(accepted)
            self.database.write_current_epoch(current)
            self.database.committed_log.add(last_zxid, error_txn(last_zxid))
            self.database.last_zxid = last_zxid
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        settings = LeaderSettings(
            tick_time_ms=1000,
            init_limit_ticks=10,
            sync_limit_ticks=5,
            max_record_bytes=LIMIT,
        )
        self.leader = Leader(
            self.my_id, self.view, self.database, settings, self.outbox, self.effects, 0, 0, {}
        )
        self.headers = [[p[0] for p in packets_of(one.accepted)[0]] for one in found]
        self.peers: dict[str, Peer] = {}
        self.helper: Peer | None = None
        self.applied = self.database.last_zxid
        self.proposals: dict[int, bytes] = {}
        self.leader.lead(0)

    def run(self) -> dict[str, list[Packet]]:
        """What zkpy's leader says on each connection, by its name."""
        if self.made_up:
            self._establish()
        events = [
            (time, number, direction, kind, offset, length)
            for number, found in enumerate(self.found)
            for time, direction, kind, offset, length in found.events
        ]
        told = [len(found.dialled) - len(behind_sasl(found.dialled)) for found in self.found]
        said = [0] * len(self.found)
        starts = {number: self._proposal_offsets(found) for number, found in enumerate(self.found)}
        for _, number, direction, kind, offset, length in sorted(events, key=lambda e: e[0]):
            found = self.found[number]
            end = offset + length
            if direction == "s2c":
                while starts[number] and starts[number][0][0] < end:
                    self._propose(*starts[number].pop(0)[1:])
                said[number] = end
            elif kind == "DATA":
                if found.name not in self.peers:
                    self.peers[found.name] = Peer(self.leader, self.outbox, found)
                peer = self.peers[found.name]
                start = max(offset, told[number])
                # Ours knows more often that a DIFF will do: a SNAP is played where there was one.
                self.leader.settings.force_snapshot = SNAP in self.headers[number]
                if start < end and not peer.link.closed:
                    peer.handler.received(peer.link, found.dialled[start:end], 0)
            elif not self.peers[found.name].link.closed:
                self.peers[found.name].link.closed = True
                self.peers[found.name].handler.lost(self.peers[found.name].link, "end of stream")
            self.turn()
        return {name: packets_of(peer.sent)[0] for name, peer in self.peers.items()}

    @staticmethod
    def _proposal_offsets(found: Capture) -> list[tuple[int, int, bytes]]:
        """(offset, zxid, txn) of what the captured leader proposed on this connection."""
        packets, snapshot = packets_of(found.accepted)
        offset = len(found.accepted) - len(behind_sasl(found.accepted))
        offsets = []
        for packet in packets:
            type, zxid, data, _ = packet
            if type in (PROPOSAL, INFORM):
                offsets.append((offset, zxid, data or b""))
            elif type == INFORMANDACTIVATE:
                offsets.append((offset, zxid, (data or b"")[8:]))
            offset += len(zabwire.packet(*packet)) + (len(snapshot) if type == SNAP else 0)
        return offsets

    def _establish(self) -> None:
        """A learner that is not captured makes a quorum; then the history that is not, either."""
        captured = {
            LearnerInfo.decode(packets_of(found.dialled)[0][0][2]).server_id for found in self.found
        }
        (sid, *_) = [
            sid
            for sid in self.view.committed.participants
            if sid != self.my_id and sid not in captured
        ]
        self.helper = Peer(self.leader, self.outbox, None)
        info = zabwire.learner_info(sid)
        hello = zabwire.packet(FOLLOWERINFO, 0, info)
        hello += zabwire.packet(ACKEPOCH, 0, zabwire.int32(0))
        hello += zabwire.packet(ACK, 1 << 32)
        self.helper.handler.received(self.helper.link, hello, 0)
        self.turn()
        first, _ = packets_of(self.found[0].accepted)
        header, zxid, _, _ = first[1]
        assert header != SNAP or zxid & 0xFFFFFFFF
        known = {
            txn_zxid: txn
            for found in self.found
            for _, txn_zxid, txn in self._proposal_offsets(found)
        }
        for past in range((1 << 32) + 1, zxid + 1):
            self._propose(past, known.get(past, error_txn(past)))
            self.turn()

    def _propose(self, zxid: int, txn: bytes) -> None:
        leader = self.leader
        if zxid <= leader.last_zxid:
            return
        header, record, _ = decode_txn(txn)
        if header.type == OpCode.RECONFIG:
            assert isinstance(record, SetDataTxn)
            assert record.data is not None
            leader.propose_reconfig(zxid, parse_config_text(record.data.decode()))
        self.proposals[zxid] = txn
        leader.propose(zxid, txn)
        self.turn()

    def turn(self) -> None:
        """What shell, log thread, server and Member do, until nothing is left to do."""
        leader = self.leader
        while True:
            for zxid, _ in leader.take_appended():
                leader.durable(zxid)
            leader.take_inbox()
            while self.applied < leader.committed_zxid:
                self.applied = max(
                    self.applied + 1, leader.new_epoch << 32 if leader.new_epoch else 0
                )
                if self.applied in self.proposals:
                    self.database.apply(self.applied, self.proposals[self.applied])
            for members, _, _ in leader.reconfigured:
                self.view.set_committed(members)
            if leader.reconfigured:
                leader.reconfig_activated()
            leader.flush_streams()
            for peer in self.peers.values():
                peer.take()
            if not self._helper_acks():
                break

    def _helper_acks(self) -> bool:
        helper = self.helper
        if helper is None or helper.link.closed:
            return False
        helper.take()
        proposals = [p for p in packets_of(helper.sent)[0] if p[0] == PROPOSAL]
        fresh = proposals[helper.answered :]
        helper.answered += len(fresh)
        for _, zxid, _, _ in fresh:
            helper.handler.received(helper.link, zabwire.packet(ACK, zxid), 0)
        return bool(fresh)
