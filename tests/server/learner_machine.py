"""Learners' servers around a leader's, without ZAB, sockets or clock: the test moves packets.

    learner --uplink: requests--> leader (a standalone server makes the txns) --stream--> learners

Each learner has its own stream, of which the test delivers as much as it likes when it likes.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tests.server.machine import START_MS, WALL_MS, Client, Machine

from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol.errors import DecodeError, MarshallingError, SessionExpired, SessionMoved
from zkpy.protocol.packets import COMMIT, PING, REVALIDATE, SYNC, encode_revalidated
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.standalone import Standalone
from zkpy.server.cnxn import ServerCnxn
from zkpy.server.database import ZKDatabase
from zkpy.server.learner_server import LearnerZooKeeperServer
from zkpy.server.request import Request
from zkpy.server.settings import Config, make_config
from zkpy.session.auth import (
    AuthenticationProvider,
    DigestAuthenticationProvider,
    Id,
    IPAuthenticationProvider,
    ProviderRegistry,
)
from zkpy.testing.disk import SimulatedDisk

Item = tuple[int, int, "bytes | None"]


class Tap:
    """A Standalone that remembers what was proposed, for the learners."""

    def __init__(self, last_zxid: int) -> None:
        self._zab = Standalone(last_zxid)
        self.take_appended = self._zab.take_appended
        self.durable = self._zab.durable
        self.proposed: deque[tuple[int, bytes]] = deque()

    @property
    def last_zxid(self) -> int:
        return self._zab.last_zxid

    @property
    def committed_zxid(self) -> int:
        return self._zab.committed_zxid

    def propose(self, zxid: int, txn: bytes) -> None:
        self._zab.propose(zxid, txn)
        self.proposed.append((zxid, txn))


class UpRequest:
    """A REQUEST as it is on its way to the leader."""

    def __init__(
        self, session_id: int, cxid: int, op: int, payload: bytes, ids: tuple[Id, ...] | None
    ) -> None:
        self.session_id = session_id
        self.cxid = cxid
        self.op = op
        self.payload = payload
        self.ids = ids


class FakeLearner:
    """What a learner's server sees of Follower and Observer."""

    def __init__(self) -> None:
        self.new_epoch: int | None = 0
        self.last_zxid = self.committed_zxid = 0
        # UpRequest, or a revalidation: (session id, timeout in ms).
        self.uplink: deque[UpRequest | tuple[int, int]] = deque()
        self.pongs: list[tuple[int, list[tuple[int, int]]]] = []

    def request(
        self, session_id: int, cxid: int, op: int, payload: bytes, ids: tuple[Id, ...] | None
    ) -> None:
        self.uplink.append(UpRequest(session_id, cxid, op, payload, ids))

    def revalidate(self, session_id: int, timeout_ms: int) -> None:
        self.uplink.append((session_id, timeout_ms))

    def pong(self, zxid: int, touches: list[tuple[int, int]]) -> None:
        self.pongs.append((zxid, touches))

    def take_appended(self) -> list[tuple[int, bytes]]:
        return []

    def durable(self, zxid: int) -> None:
        raise AssertionError("there is no log here")


def new_database(config: Config) -> ZKDatabase:
    """An empty database on a disk of its own."""
    disk = SimulatedDisk()
    store = FileTxnSnapLog(disk, Settings(config.data_dir))
    store.open()
    database = ZKDatabase(store, disk, config)
    database.load()
    return database


class LearnerMachine(Machine):
    """One learner; its clients are those of Machine."""

    def __init__(self, ensemble: Ensemble, my_id: int, **settings: Any) -> None:
        settings.setdefault("four_letter_words", frozenset("*"))
        self.ensemble = ensemble
        self.config = make_config(data_dir="/data", my_id=my_id, **settings)
        self.database = new_database(self.config)
        self.tree = self.database.tree
        self.learner = FakeLearner()
        self.stream: deque[Item] = deque()
        self.clients: dict[ServerCnxn, Client] = {}
        providers: list[AuthenticationProvider] = [
            IPAuthenticationProvider(),
            DigestAuthenticationProvider(),
        ]
        self.server: LearnerZooKeeperServer = LearnerZooKeeperServer(
            self.config,
            self.database,
            self.learner,
            ProviderRegistry(providers),
            now_ms=START_MS,
            wall_ms=WALL_MS,
        )

    @property
    def uplink(self) -> deque[UpRequest | tuple[int, int]]:
        return self.learner.uplink

    def requests(self) -> list[tuple[int, int]]:
        """(session id, op) of the REQUESTs on their way."""
        return [(up.session_id, up.op) for up in self.uplink if isinstance(up, UpRequest)]

    def deliver(self, count: int | None = None) -> None:
        """Hand `count` packets of the leader's stream, or all, to the server."""
        if count is None:
            count = len(self.stream)
        self.server.deliver([self.stream.popleft() for _ in range(count)])
        self.settle()

    def flush(self) -> None:
        """Until nobody here waits for anything."""
        self.settle()
        self.ensemble.run()


class Ensemble:
    """A leader and its learners.

    `owners`: which machine spoke for a session last, as the leader knows it.
    """

    def __init__(self, learners: int = 1, **settings: Any) -> None:
        self.leader = Machine(**settings)
        self.zab = Tap(self.leader.tree.last_processed_zxid)
        self.leader.zab = self.leader.server.zab = self.zab
        self.learners = [LearnerMachine(self, 2 + i, **settings) for i in range(learners)]
        self.owners: dict[int, Machine] = {}
        # Syncs that wait: the zxid that has to be committed first, and whose it is.
        self._syncs: deque[tuple[int, LearnerMachine]] = deque()

    # The leader

    def take(self, learner: LearnerMachine, count: int | None = None) -> None:
        """The leader reads `count` requests of a learner, or all."""
        for _ in range(len(learner.uplink) if count is None else count):
            up = learner.uplink.popleft()
            if isinstance(up, tuple):
                self._revalidate(learner, *up)
            elif up.op == OpCode.SYNC:
                self._syncs.append((self.zab.last_zxid, learner))
                self._answer_syncs()
            else:
                self._prepare(learner, up)

    def _revalidate(self, learner: LearnerMachine, session_id: int, timeout_ms: int) -> None:
        server = self.leader.server
        valid = server.tracker.touch(session_id, timeout_ms, server.now_ms)
        if valid:
            self.owners[session_id] = learner
        answer = encode_revalidated(session_id, valid)
        learner.stream.append((REVALIDATE, self.zab.last_zxid, answer))

    def _prepare(self, learner: LearnerMachine, up: UpRequest) -> None:
        server = self.leader.server
        session_id = up.session_id
        request = Request(None, session_id, up.cxid, up.op, up.ids or (), server.now_ms)
        code = 0
        if up.op == OpCode.CREATE_SESSION:
            timeout_ms = int.from_bytes(up.payload, "big")
            server.tracker.track(session_id, timeout_ms, server.now_ms)
            self.owners[session_id] = learner
        elif up.op == OpCode.CLOSE_SESSION:
            server.tracker.set_closing(session_id)
        elif server.tracker.is_closing(session_id):
            code = SessionExpired.code
        elif not server.tracker.is_tracked(session_id):
            code = 0 if server.config.local_sessions_enabled else SessionExpired.code
        elif self.owners.setdefault(session_id, learner) is not learner:
            code = SessionMoved.code
        payload = up.payload
        if not code:
            try:
                txn = server.prep.prepare(request, payload, 0, len(payload), server.wall_ms)
            except DecodeError:
                code = MarshallingError.code
        if code:
            txn = server.prep.refuse(request, code, server.wall_ms)
        server.in_flight.append(request)
        self.zab.propose(request.zxid, txn)

    def commit(self, zxid: int | None = None) -> None:
        """Commit what is proposed, or what is up to `zxid`: applied at the leader, told to all."""
        zxid = self.zab.last_zxid if zxid is None else zxid
        self.leader.durable(zxid)
        proposed = self.zab.proposed
        while proposed and proposed[0][0] <= zxid:
            number, txn = proposed.popleft()
            for learner in self.learners:
                learner.stream.append((COMMIT, number, txn))
            self._answer_syncs(number)

    def _answer_syncs(self, zxid: int | None = None) -> None:
        zxid = self.zab.committed_zxid if zxid is None else zxid
        while self._syncs and self._syncs[0][0] <= zxid:
            self._syncs.popleft()[1].stream.append((SYNC, 0, None))

    def ping(self) -> None:
        """Ping every learner."""
        for learner in self.learners:
            learner.stream.append((PING, self.zab.last_zxid, None))

    # All of them

    def run(self) -> None:
        """Until nothing is on its way."""
        while True:
            busy = False
            for learner in self.learners:
                learner.settle()
                if learner.uplink:
                    busy = True
                    self.take(learner)
            if self.zab.last_zxid > self.zab.committed_zxid:
                busy = True
                self.commit()
            for learner in self.learners:
                if learner.stream:
                    busy = True
                    learner.deliver()
            if not busy:
                return
