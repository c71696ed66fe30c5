"""ClientCnxn: its connections, its session and the fate of each request, against a server."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from tests.client.bench import REFUSING, SILENT, Bench, in_order
from tests.server.machine import Machine

from zkpy.client.core import ClientCnxn
from zkpy.client.effects import Dial, Request
from zkpy.client.errors import ConnectionLoss
from zkpy.client.events import States
from zkpy.protocol.errors import AuthFailed, NoNode, SessionExpired
from zkpy.protocol.framing import frame
from zkpy.protocol.zoodefs import CreateMode, OpCode

WRITER = {"read_only": False}


def requests_in(sent: bytes) -> list[tuple[int, int]]:
    """(xid, opcode) of the frames a client sent after its ConnectRequest."""
    found, offset, first = [], 0, True
    while offset < len(sent):
        (length,) = struct.unpack_from(">i", sent, offset)
        if not first:
            found.append(struct.unpack_from(">ii", sent, offset + 4))
        first = False
        offset += 4 + length
    return found


# Connecting


def test_a_session() -> None:
    bench = Bench()
    assert in_order(bench.log) == ["CONNECTING", "CONNECTED", "default: SyncConnected"]
    assert bench.core.session_id != 0
    assert len(bench.core.password) == 16
    assert bench.core.timeout_ms == 10_000


def test_the_server_has_the_last_word_on_the_timeout() -> None:
    bench = Bench(timeout_ms=1)
    assert bench.core.timeout_ms == 6000
    assert bench.core.requested_timeout_ms == 1


def test_servers_are_shuffled() -> None:
    firsts = {Bench(servers=5, seed=seed).dialled[0][1] for seed in range(40)}
    assert len(firsts) == 5


def test_each_server_is_tried_before_one_twice() -> None:
    bench = Bench(servers=3, start=False)
    bench.close_door(None)
    bench.core.start(0)
    bench.settle()
    assert len({address for _, address in bench.dialled}) == len(bench.dialled) == 3
    # Then all of them rest a while.
    bench.pass_time(400)
    assert len(bench.dialled) == 3
    bench.pass_time(1200)
    assert len(bench.dialled) >= 6
    assert [address for _, address in bench.dialled[:3]] == [a for _, a in bench.dialled[3:6]]


def test_who_never_was_connected_is_not_told_of_a_loss() -> None:
    bench = Bench(start=False)
    bench.close_door(None)
    bench.core.start(0)
    bench.pass_time(5000)
    assert bench.events() == []
    assert bench.states() == ["CONNECTING"]
    bench.open_doors()
    bench.pass_time(2000)
    assert bench.events() == ["SyncConnected"]


def test_a_silent_server_is_given_its_share_of_the_timeout() -> None:
    bench = Bench(servers=2, start=False)
    bench.close_door(None, SILENT)
    bench.core.start(0)
    bench.settle()
    bench.pass_time(6000)
    assert [ms for ms, _ in bench.dialled] == [0, 5000]
    assert bench.core.last_failure.endswith("not connected within 5000 ms")


def test_who_is_no_zookeeper_server() -> None:
    bench = Bench(start=False)
    bench.close_door(None, SILENT)
    bench.core.start(0)
    bench.settle()
    bench.core.connected(0)
    bench.core.received(b"HTTP/1.1 400 Bad Request\r\n", 0)
    assert "not a ZooKeeper server" in bench.core.last_failure
    assert not bench.is_connected


def test_a_server_that_closes_at_once() -> None:
    bench = Bench(start=False)
    bench.close_door(None, SILENT)
    bench.core.start(0)
    bench.settle()
    bench.core.connected(0)
    bench.core.lost("", 0)
    assert bench.core.last_failure == "server:1: closed without an answer"


def test_another_server_after_a_loss_with_the_same_session() -> None:
    bench = Bench(servers=3)
    session_id, first = bench.core.session_id, bench.at
    bench.close_door(first)
    bench.settle()
    assert bench.events("default") == ["SyncConnected", "Disconnected"]
    bench.pass_time(250)
    assert bench.is_connected
    assert bench.at != first
    assert bench.core.session_id == session_id
    assert bench.events("default") == ["SyncConnected"]
    assert bench.states() == ["CONNECTING", "CONNECTED", "CONNECTING", "CONNECTED"]


def test_reconnecting_is_spread() -> None:
    times = set()
    for seed in range(20):
        bench = Bench(seed=seed)
        bench.cut()
        bench.settle()
        bench.pass_time(300)
        times.add(bench.dialled[1][0])
        assert 0 <= bench.dialled[1][0] <= 201
    assert len(times) > 10


def test_the_zxid_seen_is_told() -> None:
    bench = Bench()
    bench.do(bench.zk.create("/a"))
    seen = bench.core.last_zxid
    assert seen > 0
    bench.cut()
    bench.sent.clear()
    bench.pass_time(300)
    assert struct.unpack_from(">iiqi", bench.sent)[2] == seen


def test_a_session_can_be_taken_over() -> None:
    machine = Machine()
    first = Bench(machine=machine)
    first.do(first.zk.create("/e", mode=CreateMode.EPHEMERAL))
    session = (first.core.session_id, first.core.password)
    first.core.abandon()
    first.settle()
    second = Bench(machine=machine, session=session)
    assert second.core.session_id == session[0]
    assert second.do(second.zk.get_ephemerals()) == ["/e"]


# Time


def test_pings_at_a_third_of_the_timeout() -> None:
    bench = Bench()
    start = bench.now_ms
    bench.sent.clear()
    bench.pass_time(20_000)
    pings = [request for request in requests_in(b"\0\0\0\0" + bench.sent) if request[1] == 11]
    assert len(pings) == 6
    assert set(pings) == {(-2, OpCode.PING)}
    assert bench.is_connected
    assert bench.core.last_heard_ms > start


def test_who_talks_need_not_ping() -> None:
    bench = Bench()
    bench.sent.clear()
    for _ in range(10):
        bench.do(bench.zk.exists("/"))
        bench.pass_time(2000)
    assert all(opcode != OpCode.PING for _, opcode in requests_in(b"\0\0\0\0" + bench.sent))


def test_a_server_that_says_nothing_is_left_after_two_thirds() -> None:
    bench = Bench(servers=2)
    first = bench.at
    call = bench.begin(bench.zk.create("/a"))
    bench.link = None  # what is sent goes nowhere
    bench.core.tick(6666)
    bench.core.tick(6665)
    assert bench.is_connected or not call.done
    bench.core.tick(6667)
    bench.settle()
    assert isinstance(call.error, ConnectionLoss)
    assert "no answer for" in call.error.reason
    assert bench.dialled[-1][1] == first or len(bench.dialled) == 1


def test_the_deadline_is_when_something_happens() -> None:
    """Called exactly then, and never before, nothing is missed."""
    bench = Bench()
    for _ in range(20):
        deadline = bench.core.deadline()
        bench.core.tick(deadline - 1)
        assert not bench.core.output
        bench.machine.advance(max(deadline - bench.now_ms, 1))
        bench.core.tick(deadline)
        assert bench.core.output
        bench.settle()


# The fate of requests


def test_answers_come_in_the_order_of_requests() -> None:
    bench = Bench()
    calls = [bench.begin(bench.zk.create(f"/n{number}")) for number in range(5)]
    calls.append(bench.begin(bench.zk.get_children("/")))
    bench.log.clear()
    bench.settle()
    assert [call for _, call in bench.log] == calls
    assert sorted(calls[-1].value()) == ["n0", "n1", "n2", "n3", "n4", "zookeeper"]


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_frames_may_come_in_pieces(chunk: int) -> None:
    bench = Bench(start=False)
    bench.chunk = chunk
    bench.core.start(0)
    bench.settle()
    bench.do(bench.zk.create("/a", b"x" * 100))
    assert bench.do(bench.zk.get_data("/a"))[0] == b"x" * 100


def test_what_was_sent_fails_with_the_connection() -> None:
    bench = Bench()
    call = bench.begin(bench.zk.create("/a"))
    data = bench.core.take_output()
    assert bench.link is not None
    bench.link.feed(data)
    bench.machine.flush()
    bench.cut()
    bench.settle()
    with pytest.raises(ConnectionLoss, match="/a: server:1: Connection reset by peer"):
        call.value()
    # It had been done nevertheless.
    bench.pass_time(300)
    assert bench.do(bench.zk.exists("/a")) is not None


def test_what_was_not_sent_waits_for_the_next_connection() -> None:
    bench = Bench()
    bench.cut()
    call = bench.begin(bench.zk.create("/a"))
    bench.settle()
    assert not call.done
    bench.pass_time(300)
    assert call.value() == "/a"


def test_what_was_not_sent_fails_when_all_servers_were_tried() -> None:
    bench = Bench(servers=3, start=False)
    bench.close_door(None)
    bench.core.start(0)
    call = bench.begin(bench.zk.create("/a"))
    for _ in range(2):
        assert not call.done
        bench.turn()
    bench.settle()
    with pytest.raises(ConnectionLoss, match="Connection refused"):
        call.value()
    assert len(bench.dialled) == 3


def test_one_server_of_three_is_enough() -> None:
    for up in range(3):
        bench = Bench(servers=3, start=False)
        bench.close_door(None)
        bench.doors[bench.addresses[up]] = "up"
        bench.core.start(0)
        call = bench.begin(bench.zk.create("/a"))
        bench.pass_time(10)
        assert call.value() == "/a"


def test_a_cancelled_request_is_not_sent_any_more() -> None:
    bench = Bench()
    bench.cut()
    call = bench.begin(bench.zk.create("/a"))
    assert call.request is not None
    call.request.cancelled = True
    bench.pass_time(300)
    assert bench.do(bench.zk.exists("/a")) is None


def test_a_cancelled_request_registers_no_watcher() -> None:
    bench = Bench()
    call = bench.begin(bench.zk.exists("/a", watch=bench.watcher("w")))
    assert call.request is not None
    call.request.cancelled = True
    bench.settle()
    bench.do(bench.zk.create("/a"))
    assert bench.events("w") == []


def test_an_answer_to_nothing_ends_the_connection() -> None:
    bench = Bench()
    bench.core.received(frame(struct.pack(">iqi", 7, 1, 0)), bench.now_ms)
    assert bench.core.state == States.CONNECTING
    assert "reply 7 to nothing" in bench.core.last_failure


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack(">iqi", 9, 1, 0),  # another's xid
        struct.pack(">iqi", 1, 1, 0),  # no record
        struct.pack(">iqii", 1, 1, 0, 1 << 20),  # a record that ends early
        b"\0" * 7,
        struct.pack(">iqi", -4, 1, 0),  # an auth reply that nobody asked for
        struct.pack(">iqi", -1, 1, 0),  # an event without event
    ],
)
def test_nonsense_ends_the_connection_and_what_waits_for_it(payload: bytes) -> None:
    bench = Bench()
    call = bench.begin(bench.zk.get_data("/"))
    bench.core.take_output()
    bench.core.received(frame(payload), bench.now_ms)
    bench.settle()
    assert isinstance(call.error, ConnectionLoss)
    bench.pass_time(500)
    assert bench.do(bench.zk.get_data("/"))[0] == b""


def test_an_unknown_code() -> None:
    bench = Bench()
    call = bench.begin(bench.zk.get_data("/x"))
    bench.core.take_output()
    bench.core.received(frame(struct.pack(">iqi", 1, 1, -999)), bench.now_ms)
    bench.settle()
    assert getattr(call.error, "code", None) == -999
    assert bench.is_connected


def test_xids_begin_again() -> None:
    bench = Bench()
    bench.core.last_xid = (1 << 31) - 2
    for _ in range(3):
        assert bench.do(bench.zk.exists("/")) is not None
    assert bench.core.last_xid == 2


# The end


def test_an_expired_session() -> None:
    bench = Bench()
    bench.do(bench.zk.create("/e", mode=CreateMode.EPHEMERAL))
    bench.do(bench.zk.exists("/", watch=bench.watcher("w")))
    bench.close_door(None)
    bench.settle()
    bench.machine.advance(30_000)
    waiting = bench.begin(bench.zk.exists("/"))
    bench.events()
    bench.open_doors()
    bench.core.retry_ms = bench.now_ms
    bench.pass_time(1)
    assert bench.events("w") == ["Expired"]
    assert bench.states()[-1] == "EXPIRED"
    assert isinstance(waiting.error, SessionExpired)
    with pytest.raises(SessionExpired):
        bench.do(bench.zk.exists("/"))
    assert bench.idle
    assert bench.link is None


def test_only_a_server_can_say_that_a_session_has_expired() -> None:
    bench = Bench()
    bench.close_door(None)
    bench.settle()
    for _ in range(100):
        bench.core.tick(bench.core.deadline())
        bench.settle()
    assert bench.core.state == States.CONNECTING


def test_close_ends_the_session_at_the_server() -> None:
    bench, other = Bench(), None
    bench.do(bench.zk.create("/e", mode=CreateMode.EPHEMERAL))
    last = bench.begin(bench.zk.create("/last"))
    bench.core.close(bench.now_ms)
    bench.settle()
    assert last.value() == "/last"
    assert bench.states()[-1] == "CLOSED"
    assert bench.events()[-1] == "Closed"
    assert bench.link is None
    assert bench.idle
    other = Bench(machine=bench.machine)
    assert other.do(other.zk.exists("/e")) is None
    with pytest.raises(SessionExpired):
        bench.do(bench.zk.exists("/"))


def test_close_before_there_was_a_connection() -> None:
    bench = Bench(start=False)
    bench.close_door(None, SILENT)
    bench.core.start(0)
    call = bench.begin(bench.zk.exists("/"))
    bench.core.close(1)
    bench.settle()
    assert bench.core.state == States.CLOSED
    assert isinstance(call.error, SessionExpired)
    assert bench.idle


def test_close_without_a_connection_tries_once_more() -> None:
    bench = Bench(servers=2)
    bench.do(bench.zk.create("/e", mode=CreateMode.EPHEMERAL))
    bench.close_door(bench.at)
    bench.settle()
    bench.core.close(bench.now_ms)
    bench.pass_time(300)
    assert bench.core.state == States.CLOSED
    other = Bench(machine=bench.machine)
    assert other.do(other.zk.exists("/e")) is None


def test_close_without_any_server_comes_to_an_end() -> None:
    bench = Bench(servers=2)
    bench.close_door(None, REFUSING)
    bench.settle()
    bench.core.close(bench.now_ms)
    bench.pass_time(2000)
    assert bench.core.state == States.CLOSED
    assert bench.idle


def test_close_when_the_connection_goes_meanwhile() -> None:
    bench = Bench()
    bench.core.close(bench.now_ms)
    bench.core.take_output()
    bench.cut()
    bench.settle()
    assert bench.core.state == States.CLOSED
    assert bench.idle


# Identity


def test_auth_is_sent_again_and_first() -> None:
    bench = Bench(auth=[("digest", b"a:b")])
    assert ("digest", "a") in bench.do(bench.zk.who_am_i())
    add_auth(bench, "digest", b"c:d")
    bench.do(bench.zk.exists("/w", watch=True))
    bench.cut()
    waiting = bench.begin(bench.zk.who_am_i())
    bench.sent.clear()
    bench.pass_time(300)
    assert {user for scheme, user in waiting.value() if scheme == "digest"} == {"a", "c"}
    assert [xid for xid, _ in requests_in(bytes(bench.sent))][:4] == [-4, -4, -8, 2 + 1]


def add_auth(bench: Bench, scheme: str, auth: bytes) -> Request:
    from zkpy.protocol.records import AuthPacket

    request = Request(OpCode.AUTH, AuthPacket(0, scheme, auth).encode())
    bench.core.add_auth(scheme, auth, request, bench.now_ms)
    bench.settle()
    return request


def test_auth_before_the_connection_is_answered_then() -> None:
    bench = Bench()
    bench.cut()
    request = add_auth(bench, "digest", b"a:b")
    assert request.xid == 0
    bench.pass_time(300)
    assert request.error is None
    assert ("digest", "a") in bench.do(bench.zk.who_am_i())
    assert bench.sent.count(b"digest") == 1
    bench.cut()
    bench.pass_time(300)
    assert ("digest", "a") in bench.do(bench.zk.who_am_i())


def test_refused_credentials_end_the_client() -> None:
    bench = Bench()
    other = bench.begin(bench.zk.exists("/"))
    request = add_auth(bench, "nonsense", b"a:b")
    assert isinstance(request.error, AuthFailed)
    assert other.done
    assert bench.states()[-1] == "AUTH_FAILED"
    assert bench.events()[-1] == "AuthFailed"
    with pytest.raises(AuthFailed):
        bench.do(bench.zk.exists("/"))
    assert bench.idle


def test_nothing_is_heard_behind_the_end() -> None:
    bench = Bench()
    bench.core.add_auth("digest", b"", Request(OpCode.AUTH, b""), bench.now_ms)
    bench.core.take_output()
    refusal = frame(struct.pack(">iqi", -4, 0, AuthFailed.code))
    bench.core.received(refusal + refusal, bench.now_ms)
    bench.settle()
    assert bench.states() == ["CONNECTING", "CONNECTED", "AUTH_FAILED"]


def test_refused_credentials_of_the_constructor() -> None:
    bench = Bench(auth=[("nonsense", b"")])
    assert bench.core.state == States.AUTH_FAILED


def test_auth_may_be_answered_before_what_was_asked_earlier() -> None:
    """As ZooKeeper's servers do, which handle it on receipt."""
    bench = Bench()
    call = bench.begin(bench.zk.get_data("/none"))
    request = Request(OpCode.AUTH, b"")
    bench.core.add_auth("digest", b"a:b", request, bench.now_ms)
    bench.core.take_output()
    auth_reply = frame(struct.pack(">iqi", -4, 0, 0))
    other_reply = frame(struct.pack(">iqi", 1, 5, NoNode.code))
    bench.core.received(auth_reply + other_reply, bench.now_ms)
    bench.settle()
    assert isinstance(call.error, NoNode)
    assert bench.is_connected


# Read-only servers


def read_only_response(session_id: int = 0x1234) -> bytes:
    passwd = bytes(range(16))
    return frame(struct.pack(">iiqi", 0, 10_000, session_id, 16) + passwd + b"\1")


def half_connected(**options: object) -> tuple[Bench, ClientCnxn]:
    """A client whose servers are played by the test."""
    bench = Bench(servers=2, start=False, **options)  # type: ignore[arg-type]
    bench.close_door(None, SILENT)
    bench.core.start(0)
    bench.settle()
    bench.core.connected(0)
    bench.core.take_output()
    return bench, bench.core


def test_a_read_only_server_will_do_if_asked_for() -> None:
    bench, core = half_connected(read_only=True)
    core.received(read_only_response(), 0)
    bench.settle()
    assert bench.states() == ["CONNECTING", "CONNECTEDREADONLY"]
    assert bench.events() == ["ConnectedReadOnly"]


def test_a_read_only_server_will_not_do_otherwise() -> None:
    bench, core = half_connected()
    core.received(read_only_response(), 0)
    bench.settle()
    assert bench.core.state == States.CONNECTING
    assert core.last_failure.endswith(": a read-only server")


def test_a_read_only_server_without_local_sessions_says_so_in_its_own_way() -> None:
    bench, core = half_connected(read_only=True)
    core.received(frame(struct.pack(">iqi", 0, 5, -119)), 0)
    bench.settle()
    assert core.last_failure.endswith(": a read-only server without local sessions")


def test_a_better_server_is_looked_for_ever_more_rarely() -> None:
    bench, core = half_connected(read_only=True)
    core.received(read_only_response(), 0)
    bench.settle()
    while bench.probed == [] or bench.probed[-1][0] < 5000:
        bench.machine.advance(max(core.deadline() - bench.now_ms, 1))
        core.last_heard_ms = bench.now_ms
        core.tick(bench.now_ms)
        bench.settle()
    times = [0, *(ms for ms, _ in bench.probed)]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == [100, 200, 400, 800, 1600, 3200]
    assert {address for _, address in bench.probed} == set(bench.addresses) - {core.address}


def test_a_better_server_is_taken_with_a_session_of_its_own() -> None:
    """The read-only server's session is known to nobody else."""
    bench, core = half_connected(read_only=True)
    core.received(read_only_response(), 0)
    bench.settle()
    bench.states()
    bench.open_doors()
    bench.pass_time(150)
    assert bench.states() == ["CONNECTING", "CONNECTED"]
    assert core.session_id not in (0, 0x1234)
    assert bench.at == bench.probed[-1][1]
    assert [ms for ms, _ in bench.dialled][-1] == bench.probed[-1][0]


def test_what_a_server_says_that_cannot_write_changes_nothing() -> None:
    bench, core = half_connected(read_only=True)
    core.received(read_only_response(), 0)
    bench.settle()
    core.probed(bench.addresses[0], b"ro", 1)
    assert core.state == States.CONNECTEDREADONLY
    assert not [effect for effect in core.take_effects() if isinstance(effect, Dial)]
