"""What clients of learners may rely on, whatever the order in which packets move.

Per session: replies in the order of requests, time that never runs backwards, one's own writes in
one's reads, after a sync whatever was committed before it; and all trees alike in the end.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tests.datatree.tree_compare import check_inner_consistency, content
from tests.server.learner_machine import Ensemble, LearnerMachine
from tests.server.machine import Client
from tests.support import wire
from tests.support.rawclient import Reply, Session

from zkpy.datatree.node import NODE_STAT
from zkpy.protocol.zoodefs import OpCode

NODES = ("/n0", "/n1", "/n2")
ASKS = (wire.SET_DATA, wire.SET_DATA, wire.GET_DATA, wire.GET_DATA, wire.SYNC, wire.PING)
STEPS = [
    (step, where, count)
    for step in ("take", "commit", "deliver")
    for where in (0, 1)
    for count in (1, 3, 100)
]


class Asked:
    """A request on its way. `committed`: of a sync, each node's mzxid at the leader before it."""

    def __init__(self, op: int, xid: int, path: str, committed: dict[str, int]) -> None:
        self.op = op
        self.xid = xid
        self.path = path
        self.committed = committed


class Sessions:
    """One session and its connections; checks each reply as it comes.

    `seen`: for each node the mzxid below which it may never be shown again.
    """

    def __init__(self, network: Network, learner: LearnerMachine) -> None:
        self.network = network
        self.session: Session | None = None
        self.seen = dict.fromkeys(NODES, 0)
        self.last_zxid = 0
        self.asked: deque[Asked] = deque()
        self.client: Client = learner.plain()
        self.client.connect(flush=False)
        self.established = False

    def move(self, learner: LearnerMachine) -> None:
        """Connect again, there or where it was; what was asked may or may not have happened."""
        if self.session is None or not self.established:
            return
        if self.client.machine is learner:
            self.client.drop()
        self.client = learner.plain()
        self.asked.clear()
        self.established = False
        self.client.resume(self.session, last_zxid_seen=self.last_zxid, flush=False)

    def ask(self, op: int, path: str, number: int) -> None:
        if not self.established or self.client.closed:
            return
        body = {
            wire.SET_DATA: wire.set_data(path, b"%d" % number),
            wire.GET_DATA: wire.path_watch(path),
            wire.SYNC: wire.string(path),
            wire.PING: b"",
        }[op]
        committed = self.network.committed()
        self.asked.append(Asked(op, self.client.send(op, body), path, committed))

    def collect(self) -> None:
        """Take what has arrived, and check it."""
        client = self.client
        if not self.established:
            session = client.take_session()
            if session is None:
                return
            assert session.session_id, "nobody ended it"
            self.session = session
            self.established = True
        for reply in client.replies():
            asked = self.asked.popleft()
            assert reply.xid == asked.xid, "in the order of requests"
            assert reply.err == 0
            assert reply.zxid >= self.last_zxid, "time does not run backwards"
            self.last_zxid = reply.zxid
            self.check(asked, reply)

    def check(self, asked: Asked, reply: Reply) -> None:
        if asked.op == wire.SET_DATA:
            assert self.network.history[reply.zxid] == asked.path, "its own txn"
            self.seen[asked.path] = reply.zxid
        elif asked.op == wire.GET_DATA:
            _, stat = reply.value(wire.GET_DATA)
            assert stat.mzxid >= self.seen[asked.path], "an older state than it has seen"
            assert stat.mzxid <= reply.zxid
            self.seen[asked.path] = stat.mzxid
        elif asked.op == wire.SYNC:
            for path, mzxid in asked.committed.items():
                self.seen[path] = max(self.seen[path], mzxid)


class Network(RuleBasedStateMachine):
    """Two learners, their clients, and a leader."""

    def __init__(self) -> None:
        super().__init__()
        self.ensemble = Ensemble(2)
        setup = self.ensemble.leader.connect()
        for path in NODES:
            setup.create(path, b"0")
        self.ensemble.run()
        self.sessions = [Sessions(self, self.ensemble.learners[i % 2]) for i in range(4)]
        self.ensemble.run()
        # Which node a txn has set.
        self.history: dict[int, str] = {}
        self.number = 0
        self.settle()

    def committed(self) -> dict[str, int]:
        nodes = self.ensemble.leader.tree.nodes
        return {path: NODE_STAT.unpack(nodes[path].stat)[1] for path in NODES}

    def settle(self) -> None:
        for learner in self.ensemble.learners:
            learner.settle()
        for session in self.sessions:
            session.collect()

    @rule(
        asks=st.lists(
            st.tuples(st.sampled_from(ASKS), st.integers(0, 3), st.sampled_from(NODES)),
            min_size=1,
            max_size=6,
        )
    )
    def ask(self, asks: list[tuple[int, int, str]]) -> None:
        for op, who, path in asks:
            self.number += 1
            self.sessions[who].ask(op, path, self.number)
        self.settle()

    @rule(who=st.integers(0, 3), where=st.integers(0, 1))
    def move(self, who: int, where: int) -> None:
        self.sessions[who].move(self.ensemble.learners[where])
        self.settle()

    @rule(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=8))
    def flow(self, steps: list[tuple[str, int, int]]) -> None:
        """Packets move, some of them."""
        for step, where, count in steps:
            if step == "take":
                self.take(where, count)
            elif step == "commit":
                self.commit(count)
            else:
                self.deliver(where, count)

    def take(self, where: int, count: int) -> None:
        learner = self.ensemble.learners[where]
        self.ensemble.take(learner, min(count, len(learner.uplink)))

    def commit(self, count: int) -> None:
        zab = self.ensemble.zab
        zxid = min(zab.committed_zxid + count, zab.last_zxid)
        for request in self.ensemble.leader.server.in_flight:
            if request.type == OpCode.SET_DATA:
                self.history[request.zxid] = request.changes[0].path
        self.ensemble.commit(zxid)

    def deliver(self, where: int, count: int) -> None:
        learner = self.ensemble.learners[where]
        learner.deliver(min(count, len(learner.stream)))
        self.settle()

    def teardown(self) -> None:
        """Everything arrives: nobody waits any more, and all have the same state."""
        for _ in range(5):
            self.settle()
            for where in (0, 1):
                self.take(where, 1000)
            self.commit(1000)
            for where in (0, 1):
                self.deliver(where, 1000)
        leader = self.ensemble.leader.tree
        for learner in self.ensemble.learners:
            tree = learner.tree
            assert content(tree) == content(leader)
            assert tree.digest == leader.digest
            check_inner_consistency(tree)
            assert not learner.server.stats.counters.get("digest_mismatches_count")
            assert not learner.server.in_flight
            assert not learner.uplink
        for session in self.sessions:
            assert session.client.closed or not session.asked


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
