"""Any order of requests, losses, silences and time: no request is lost, no change goes untold.

Two clients of one server, one with bad luck. A model holds what the server must have, as far as the
answers tell.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.client.bench import Bench, Call, brief

from zkpy.client.errors import ConnectionLoss
from zkpy.client.events import FINAL_STATES, WatchedEvent
from zkpy.protocol.errors import KeeperError, NoNode, SessionExpired
from zkpy.protocol.framing import frame
from zkpy.protocol.zoodefs import AddWatchMode, CreateMode

PATHS = ["/a", "/b", "/a/c"]
paths = st.sampled_from(PATHS)


class ClientMachine(RuleBasedStateMachine):
    """Steps of the client, of the network and of somebody else who writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(servers=3, seed=7)
        self.other = Bench(machine=self.bench.machine)
        self.calls: list[Call] = []
        self.names = 0
        # path -> highest mzxid an answer has shown; watched since then and not told
        self.armed: dict[tuple[str, str], int] = {}
        self.created: dict[str, Call] = {}
        self.ended = False

    # What the client does

    def begin(self, coroutine: Any) -> Call | None:
        call = self.bench.begin(coroutine)
        if call.done:
            # Refused at once, which overtakes what was asked before the end began.
            assert self.bench.core.ended or self.bench.core.closing is not None
            assert isinstance(call.error, SessionExpired)
            assert self.bench.log.pop() == ("done", call)
            return None
        self.calls.append(call)
        return call

    @rule(path=paths, data=st.binary(max_size=3))
    def write(self, path: str, data: bytes) -> None:
        self.begin(self.bench.zk.set_data(path, data))

    @rule(path=paths)
    def create(self, path: str) -> None:
        self.begin(self.bench.zk.create(path))

    @rule()
    def create_once(self) -> None:
        """A name of its own, so that it can be told whether it was done."""
        self.names += 1
        path = f"/once{self.names}"
        call = self.begin(self.bench.zk.create(path, mode=CreateMode.PERSISTENT))
        if call is not None:
            self.created[path] = call

    @rule(path=paths)
    def delete(self, path: str) -> None:
        self.begin(self.bench.zk.delete(path))

    @rule(path=paths)
    def read(self, path: str) -> None:
        self.begin(self.tagged("read", path, self.bench.zk.get_data(path)))

    @rule(path=paths)
    def watch(self, path: str) -> None:
        watcher = self.bench.watcher(f"once {path}")
        self.begin(self.tagged("watch", path, self.bench.zk.get_data(path, watch=watcher)))

    @rule(path=paths)
    def watch_always(self, path: str) -> None:
        watcher = self.bench.watcher(f"always {path}")
        self.begin(self.bench.zk.add_watch(path, watcher, AddWatchMode.PERSISTENT))

    @rule(path=paths)
    def unwatch(self, path: str) -> None:
        watcher = self.bench.watcher("nobody")
        self.begin(self.bench.zk.remove_watches(path, watcher))

    async def tagged(self, kind: str, path: str, read: Any) -> tuple[str, str, int]:
        _, stat = await read
        return kind, path, stat.mzxid

    # What happens to it

    @rule(path=paths, data=st.binary(max_size=3))
    def another_writes(self, path: str, data: bytes) -> None:
        for operation in (self.other.zk.create(path), self.other.zk.set_data(path, data)):
            try:
                self.other.do(operation)
            except KeeperError:
                pass

    @rule(path=paths)
    def another_deletes(self, path: str) -> None:
        try:
            self.other.do(self.other.zk.delete(path))
        except KeeperError:
            pass

    @rule(chunk=st.sampled_from([1, 5, 1 << 30]))
    def arrive(self, chunk: int) -> None:
        self.bench.chunk = chunk
        self.bench.settle()

    @rule()
    def turn(self) -> None:
        self.bench.turn()

    @rule()
    def cut(self) -> None:
        self.bench.cut()

    @rule()
    def cut_before_the_answers(self) -> None:
        """The server has done it, and nobody knows."""
        bench = self.bench
        if bench.link is not None:
            bench.link.feed(bench.core.take_output())
            bench.machine.flush()
            bench.cut()

    @rule(index=st.integers(0, 2), door=st.sampled_from(["refusing", "silent"]))
    def a_server_goes(self, index: int, door: str) -> None:
        self.bench.close_door(self.bench.addresses[index], door)

    @rule()
    def servers_come_back(self) -> None:
        self.bench.open_doors()

    @rule(ms=st.integers(1, 4000))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    def pass_time(self, ms: int) -> None:
        self.bench.pass_time(ms)
        # The other one has a quiet life.
        self.other.core.last_heard_ms = self.other.now_ms
        self.other.core.tick(self.other.now_ms)
        self.other.settle()

    @precondition(lambda self: not self.bench.core.ended)
    @rule()
    def close(self) -> None:
        if self.names > 5:
            self.bench.core.close(self.bench.now_ms)

    # What must hold

    @invariant()
    def what_was_told_makes_sense(self) -> None:
        """Answers in order, each once; no answer shows what no event has told."""
        log, self.bench.log = self.bench.log, []
        for who, what in log:
            if who == "done":
                assert what is self.calls[0], "out of order"
                self.calls.pop(0)
                self.on_answer(what)
            elif isinstance(what, WatchedEvent):
                self.on_event(who, what)
            elif who == "state":
                assert not self.ended, "nothing comes after the end"
                self.ended = what in FINAL_STATES

    def on_answer(self, call: Call) -> None:
        if call.error is not None:
            assert isinstance(call.error, KeeperError)
            return
        if not isinstance(call.result, tuple) or len(call.result) != 3:
            return
        kind, path, mzxid = call.result
        known = self.armed.get(("once", path))
        if known is not None:
            assert mzxid <= known, f"{path} changed and nobody was told"
        if kind == "watch":
            self.armed[("once", path)] = mzxid

    def on_event(self, who: str, event: WatchedEvent) -> None:
        if event.path is None:
            return
        kind, _, path = who.partition(" ")
        assert path == event.path, brief(event)
        if kind == "once":
            assert self.armed.pop(("once", path), None) is not None, "told twice, or unasked"

    def teardown(self) -> None:
        """The servers are well again: all comes to its end, and what was answered is true."""
        self.bench.open_doors()
        self.bench.settle()
        self.pass_time(20_000)
        self.what_was_told_makes_sense()
        assert not self.calls, "a request was lost"
        assert self.bench.is_connected or self.bench.core.ended
        fresh = Bench(machine=self.bench.machine)
        for path, call in self.created.items():
            there = fresh.do(fresh.zk.exists(path)) is not None
            if call.error is None:
                assert there, "acknowledged, and not there"
            else:
                assert isinstance(call.error, ConnectionLoss | SessionExpired)
        if self.bench.is_connected:
            for path in PATHS:
                call = self.bench.begin(self.tagged("read", path, self.bench.zk.get_data(path)))
                self.calls.append(call)
                self.bench.settle()
                assert call.error is None or isinstance(call.error, NoNode)
            self.what_was_told_makes_sense()


TestClient = ClientMachine.TestCase


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans(), st.booleans())
def test_any_bytes_are_survived(pieces: list[bytes], framed: bool, handshaken: bool) -> None:
    """From a server gone mad or of another kind: what waits fails, the next server is tried."""
    bench = Bench(servers=2, start=handshaken)
    if not handshaken:
        bench.close_door(None, "silent")
        bench.core.start(0)
        bench.settle()
        bench.core.connected(0)
    call = bench.begin(bench.zk.get_data("/"))
    bench.core.take_output()
    for piece in pieces:
        if bench.core.address is not None:
            bench.core.received(frame(piece) if framed else piece, bench.now_ms)
    bench.cut()
    bench.core.lost("", bench.now_ms)
    bench.open_doors()
    bench.settle()
    bench.pass_time(20_000)
    assert call.done
    assert bench.is_connected or bench.core.ended
