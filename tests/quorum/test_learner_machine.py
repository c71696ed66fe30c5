"""A learner under any order of elections, packets, log syncs, cut connections and crashes.

The leaders are a model that never drops what is committed. Whatever happens, the learner's disk
has no hole, its epoch is not ahead of its txns, and it says nothing that its disk does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.quorum.fake_database import Crash, FakeDatabase, make_snapshot, make_txn
from tests.quorum.learner_host import (
    LearnerHost,
    commit,
    committed,
    diff,
    leader_info,
    new_leader,
    proposal,
    snap,
    trunc,
    up_to_date,
)

from zkpy.protocol.packets import ACK, ACKEPOCH, INFORM, encode_packet
from zkpy.quorum.follower import Follower
from zkpy.quorum.observer import Observer

COUNTER = 0xFFFFFFFF


class LearnerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.database = FakeDatabase()
        self.disk = self.database.disk
        self.host: LearnerHost | None = None
        # The leader: its epoch, what it has committed, what it has only proposed.
        self.epoch = 1
        self.history: list[int] = []
        self.outstanding: list[int] = []
        self.counter = 0
        # Of each txn, the one before it; of each epoch, what it began with.
        self.before: dict[int, int] = {}
        self.initial: dict[int, list[int]] = {1: []}
        # What it has still to say to the learner, and what the learner must have to join.
        self.stream = b""
        self.must_have: list[int] = []
        self.joined = False
        self.acked = 0

    # ------------------------------------------------------------------ the leader

    @rule(kept=st.integers(0, 3), skipped=st.integers(0, 1))
    def elect(self, kept: int, skipped: int) -> None:
        """Another leader: it has all that is committed, and some of the rest."""
        self.leave()
        self.history += self.outstanding[:kept]
        self.outstanding.clear()
        self.epoch = max(self.epoch, self.disk.accepted_epoch) + 1 + skipped
        self.counter = 0
        self.initial[self.epoch] = list(self.history)

    @rule(count=st.integers(1, 3))
    def propose(self, count: int) -> None:
        for _ in range(count):
            self.counter += 1
            zxid = self.epoch << 32 | self.counter
            self.before[zxid] = (self.history + self.outstanding or [0])[-1]
            self.outstanding.append(zxid)
            if self.host is not None and not self.observes:
                self.stream += proposal(zxid)

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        self.propose(count)
        for _ in range(count):
            self.commit()

    @precondition(lambda self: self.outstanding)
    @rule()
    def commit(self) -> None:
        zxid = self.outstanding.pop(0)
        self.history.append(zxid)
        if self.host is None:
            return
        if self.observes:
            self.stream += encode_packet(INFORM, zxid, make_txn(zxid))
        else:
            self.stream += commit(zxid)

    @property
    def observes(self) -> bool:
        return self.host is not None and isinstance(self.host.learner, Observer)

    # ------------------------------------------------------------------ the learner

    @precondition(lambda self: self.host is None)
    @rule(
        observer=st.booleans(),
        snapshot=st.booleans(),
        fuzzy=st.integers(0, 2),
        then=st.integers(0, 4),
        crash_after=st.none() | st.integers(0, 12),
    )
    def connect(
        self, observer: bool, snapshot: bool, fuzzy: int, then: int, crash_after: int | None
    ) -> None:
        """And perhaps at once what comes next, with or without a crash on the way."""
        self.disk.crash_after = crash_after
        self.guarded(lambda: self.catch_up(observer, snapshot, fuzzy))
        for _ in range(then // 2):
            if self.host is not None and self.stream:
                self.deliver(1 << 20)
            if self.host is not None and then % 2:
                self.sync_log()

    def catch_up(self, observer: bool, snapshot: bool, fuzzy: int) -> None:
        host = self.host = LearnerHost(self.database, Observer if observer else Follower)
        self.joined = False
        self.acked = 0
        host.connect()
        host.feed(leader_info(self.epoch))
        assert host.learner.failed is None
        self.check_sent()
        state = self.database.state
        common = 0
        while common < min(len(state), len(self.history)):
            if state[common] != self.history[common]:
                break
            common += 1
        if snapshot:
            self.send_snapshot(observer, fuzzy)
        else:
            if common == len(state):
                out = diff((self.history or [0])[-1])
            else:
                out = trunc((state[:common] or [0])[-1])
            out += committed(*self.history[common:])
            self.stream = out
        if not observer:
            for zxid in self.outstanding:
                self.stream += proposal(zxid)
        self.stream += new_leader(self.epoch)
        self.must_have = list(self.history)

    def send_snapshot(self, observer: bool, fuzzy: int) -> None:
        """What commits while it is made may be in it, and comes behind it all the same."""
        zxid = (self.history or [0])[-1]
        late, self.outstanding = self.outstanding[:fuzzy], self.outstanding[fuzzy:]
        self.stream = snap(zxid, make_snapshot(self.history + late))
        # The end of what is in it anyway may be sent once more.
        self.stream += committed(*self.history[-1:])
        if observer:
            self.stream += b"".join(encode_packet(INFORM, z, make_txn(z)) for z in late)
        else:
            self.stream += b"".join(map(proposal, late)) + b"".join(map(commit, late))
        self.history += late

    @precondition(lambda self: self.host is not None and self.stream)
    @rule(size=st.one_of(st.integers(1, 400), st.just(1 << 20)))
    def deliver(self, size: int) -> None:
        data, self.stream = self.stream[:size], self.stream[size:]
        host = self.host
        assert host is not None
        self.guarded(lambda: host.feed(data))

    @precondition(lambda self: self.host is not None)
    @rule()
    def sync_log(self) -> None:
        assert self.host is not None
        self.guarded(self.host.sync_log)

    @precondition(lambda self: self.host is not None)
    @rule()
    def leave(self) -> None:
        """The connection ends, and the role with it."""
        if self.host is not None:
            self.guarded(self.host.end)
            self.host = None
            self.stream = b""

    @precondition(lambda self: self.host is not None)
    @rule(after=st.integers(0, 12))
    def crash_soon(self, after: int) -> None:
        self.disk.crash_after = after

    @rule(seed=st.integers(0, 99))
    def crash(self, seed: int) -> None:
        self.disk.crash(Random(seed))
        self.database = FakeDatabase(self.disk)
        self.host = None
        self.stream = b""

    def guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Crash:
            if self.host is not None:
                self.check_sent()
            self.crash(len(self.disk.effects))
            return
        if self.host is not None:
            assert self.host.learner.failed in (None, "the test says so")
            self.check_sent()

    # ------------------------------------------------------------------ what must hold

    def check_sent(self) -> None:
        assert self.host is not None
        restored = self.disk.restored()
        sent, self.host.sent = self.host.sent, []
        for type, zxid, data, _ in sent:
            if type == ACKEPOCH:
                assert data is not None
                assert zxid <= self.disk.last_zxid, "more was told than is on disk"
                assert self.disk.accepted_epoch == self.epoch
            elif type == ACK and zxid & COUNTER == 0:
                assert zxid == self.epoch << 32
                assert self.disk.current_epoch == self.epoch
                assert restored[: len(self.must_have)] == self.must_have
                if not self.joined:
                    self.joined = True
                    self.stream += up_to_date()
            elif type == ACK:
                assert not self.observes
                assert zxid in restored, "acknowledged and not durable"
                assert zxid > self.acked
                self.acked = zxid

    def check_chain(self, state: list[int]) -> None:
        for i, zxid in enumerate(state):
            assert self.before[zxid] == (state[i - 1] if i else 0), "a hole"

    @invariant()
    def the_disk_is_a_history(self) -> None:
        disk = self.disk
        restored = disk.restored()
        self.check_chain(restored)
        assert disk.current_epoch <= disk.accepted_epoch
        assert disk.last_zxid >> 32 <= disk.accepted_epoch
        # What a start would go by: see FakeDatabase.reload.
        epoch = max(disk.current_epoch, disk.last_zxid >> 32)
        if epoch:
            began_with = self.initial[epoch]
            assert restored[: len(began_with)] == began_with, "the epoch is ahead of the txns"

    @invariant()
    def memory_is_a_history(self) -> None:
        state = self.database.state
        self.check_chain(state)
        if self.host is None or not self.host.learner.database_dirty:
            on_its_way = [zxid for zxid, _ in self.disk.unsynced]
            assert set(state) <= {*self.disk.restored(), *on_its_way}
        if self.host is None:
            assert state == self.disk.restored()

    def teardown(self) -> None:
        """Once nothing goes wrong any more, the learner has what the leader has."""
        self.disk.crash_after = None
        self.leave()
        self.connect(False, False, 0, 0, None)
        host = self.host
        assert host is not None
        while self.outstanding:
            self.commit()
        for _ in range(3):
            if self.stream:
                self.deliver(1 << 20)
            self.sync_log()
        assert host.learner.phase == "broadcast"
        assert host.learner.new_epoch == self.epoch
        assert self.disk.restored() == self.database.state == self.history


TestLearnerMachine = LearnerMachine.TestCase
TestLearnerMachine.settings = settings(stateful_step_count=40)
