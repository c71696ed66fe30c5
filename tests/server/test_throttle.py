"""The throttles: sessions per time, requests in the pipeline, large requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.machine import Client, Machine
from tests.support import wire

from zkpy.server.settings import make_config
from zkpy.server.throttle import ConnectionThrottle

# ------------------------------------------------------------------ the bucket


def throttle(dice: Iterable[float] = (), **settings: Any) -> ConnectionThrottle:
    """A throttle that starts at 0 ms; `settings` without their common beginning."""
    named = {f"connection_throttle_{name}": value for name, value in settings.items()}
    rolls = iter(dice)
    return ConnectionThrottle(make_config(**named), lambda: next(rolls), 0)


def admitted(bucket: ConnectionThrottle, times: int, now_ms: int) -> int:
    return sum(bucket.admits(False, now_ms) for _ in range(times))


def test_a_full_bucket_is_spent_and_refilled() -> None:
    bucket = throttle(tokens=5, fill_time_ms=10, fill_count=2)
    assert admitted(bucket, 9, 0) == 5
    assert bucket.deficit == 5
    # A fill time has to pass, not just to begin; what has passed counts in full.
    assert admitted(bucket, 9, 10) == 0
    assert admitted(bucket, 9, 19) == 3
    assert admitted(bucket, 9, 1000) == 5


@pytest.mark.parametrize(
    ("renewed", "quorum", "cost"), [(True, True, 2), (False, True, 1), (False, False, 3)]
)
def test_weights(renewed: bool, quorum: bool, cost: int) -> None:
    config = make_config(
        connection_throttle_tokens=10,
        connection_throttle_weight_enabled=True,
        quorum_mode=quorum,
        local_sessions_enabled=True,
    )
    bucket = ConnectionThrottle(config, lambda: 0.0, 0)
    assert bucket.admits(renewed, 0)
    assert bucket.deficit == cost


def test_without_weights_each_costs_one() -> None:
    bucket = throttle(tokens=3)
    assert [bucket.admits(renewed, 0) for renewed in (True, False, True, False)] == [True] * 3 + [
        False
    ]


def test_a_weight_larger_than_what_is_left_refuses() -> None:
    bucket = throttle(tokens=4, weight_enabled=True)
    assert bucket.admits(False, 0)
    assert not bucket.admits(False, 0)
    assert bucket.deficit == 3


def test_drops_rise_while_empty_and_fall_while_full() -> None:
    bucket = throttle(
        [0.5] * 100,
        tokens=1,
        fill_time_ms=1_000_000,
        freeze_time_ms=10,
        drop_increase=0.3,
        drop_decrease=0.2,
        decrease_ratio=0.5,
    )
    assert bucket.admits(False, 0)
    for now_ms, drop in [
        (5, 0.0),
        (10, 0.0),
        (11, 0.3),
        (15, 0.3),
        (22, 0.6),
        (33, 0.9),
        (44, 1.0),
    ]:
        assert not bucket.admits(False, now_ms)
        assert bucket.drop == pytest.approx(drop)
    # Full again: nobody is let in at once, but a step later somebody may be.
    bucket.tokens = 1
    for now_ms, drop in [(55, 0.8), (66, 0.6)]:
        assert not bucket.admits(False, now_ms)
        assert bucket.drop == pytest.approx(drop)
    assert bucket.admits(False, 77)
    assert bucket.drop == pytest.approx(0.4)


def test_without_freeze_time_no_dice_are_thrown() -> None:
    assert admitted(throttle((), tokens=3), 5, 100) == 3


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 3),
)
def test_never_more_than_the_rate(
    steps: list[tuple[int, bool]], tokens: int, fill_time_ms: int, fill_count: int
) -> None:
    bucket = throttle(tokens=tokens, fill_time_ms=fill_time_ms, fill_count=fill_count)
    now_ms = served = 0
    for wait_ms, renewed in steps:
        now_ms += wait_ms
        served += bucket.admits(renewed, now_ms)
        assert 0 <= bucket.tokens <= tokens
        assert served <= tokens + now_ms * fill_count // fill_time_ms


def test_the_server_turns_sessions_away() -> None:
    machine = Machine(connection_throttle_tokens=2, connection_throttle_fill_time_ms=100)
    first, second = machine.connect(), machine.connect()
    assert first.session and second.session
    third = machine.plain()
    third.connect()
    assert third.closed and third.session is None
    stats = machine.server.stats
    assert stats.connection_rejected == 1
    assert stats.summaries["connection_token_deficit"].max == 2
    assert "zk_connection_drop_probability\t0.0\n" in machine.four_letter_word("mntr")
    machine.advance(101)
    assert machine.connect().session is not None
    # A resume is paid for, too.
    again = machine.plain()
    again.resume(first.session)
    assert again.closed


def test_random_drops_are_reproducible() -> None:
    def run() -> list[bool]:
        machine = Machine(
            connection_throttle_tokens=1,
            connection_throttle_freeze_time_ms=1,
            connection_throttle_drop_increase=0.5,
        )
        outcomes = []
        for _ in range(30):
            client = machine.plain()
            client.connect()
            outcomes.append(client.closed)
            machine.advance(3)
        return outcomes

    assert run() == run()


# ------------------------------------------------------------------ requests in the pipeline


def test_a_full_pipeline_stalls_everybody_and_nobody_forever() -> None:
    machine = Machine(request_throttle_max_requests=2)
    writer, reader, other = machine.connect(), machine.connect(), machine.connect()
    for number in range(5):
        writer.send(wire.CREATE, wire.create(f"/{number}"))
    assert len(machine.server.in_flight) == 2
    reader.send(wire.EXISTS, wire.path_watch("/0"))
    other.send(wire.CREATE, wire.create("/other"))
    machine.settle()
    assert reader.replies() == other.replies() == []
    assert reader.cnxn.held and other.cnxn.held
    # They have nothing in flight themselves: room made by others has to wake them.
    machine.flush()
    assert [reply.err for reply in reader.replies()] == [0]
    assert [reply.err for reply in other.replies()] == [0]
    assert [reply.xid for reply in writer.replies()] == [1, 2, 3, 4, 5]
    assert machine.server.stats.counters["request_throttle_wait_count"] >= 2


def test_the_limit_holds_within_one_chunk() -> None:
    machine = Machine(request_throttle_max_requests=3)
    client = machine.connect()
    frames = [client.frame(wire.CREATE, wire.create(f"/{n}"), n) for n in range(20)]
    client.feed(b"".join(frames))
    machine.settle()
    assert len(machine.server.in_flight) == 3
    machine.flush()
    assert [reply.xid for reply in client.replies()] == list(range(20))


def stalled(machine: Machine) -> tuple[Client, Client]:
    """A client whose write fills the pipeline, and one behind it."""
    writer, client = machine.connect(), machine.connect()
    writer.send(wire.CREATE, wire.create("/a"))
    return writer, client


def test_what_waited_too_long_is_not_executed() -> None:
    machine = Machine(request_throttle_max_requests=1, throttled_op_wait_time_ms=50)
    _, client = stalled(machine)
    client.feed(
        client.frame(wire.CREATE, wire.create("/b"), 1)
        + client.frame(wire.PING, b"", -2)
        + client.frame(wire.GET_DATA, wire.path_watch("/a"), 2)
    )
    machine.settle()
    machine.server.now_ms += 51
    machine.flush()
    assert [(reply.xid, reply.err) for reply in client.replies()] == [(1, -127), (-2, 0), (2, -127)]
    assert machine.server.stats.throttled_ops == 2
    assert "/b" not in machine.tree.nodes
    # What comes after is served.
    assert client.code(wire.CREATE, wire.create("/b")) == 0


def test_a_refusal_waits_behind_a_write() -> None:
    machine = Machine(request_throttle_max_requests=2, throttled_op_wait_time_ms=50)
    writer, client = machine.connect(), machine.connect()
    writer.send(wire.CREATE, wire.create("/a"))
    client.feed(
        client.frame(wire.CREATE, wire.create("/b"), 1)
        + client.frame(wire.PING, b"", -2)
        + client.frame(wire.SYNC, wire.string("/"), 2)
    )
    machine.settle()
    machine.server.now_ms += 51
    machine.durable(machine.zab.last_zxid - 1)
    assert client.replies() == []
    machine.flush()
    assert [(reply.xid, reply.err) for reply in client.replies()] == [(1, 0), (-2, 0), (2, -127)]


def test_a_short_wait_is_forgiven() -> None:
    machine = Machine(request_throttle_max_requests=1, throttled_op_wait_time_ms=50)
    _, client = stalled(machine)
    client.send(wire.CREATE, wire.create("/b"))
    machine.settle()
    machine.server.now_ms += 50
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0]


def test_a_close_is_never_throttled() -> None:
    machine = Machine(request_throttle_max_requests=1, throttled_op_wait_time_ms=50)
    _, client = stalled(machine)
    client.send(wire.CLOSE_SESSION)
    machine.settle()
    machine.server.now_ms += 1000
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0]
    assert client.closed


def test_a_slow_handshake_throttles_nothing() -> None:
    machine = Machine(throttled_op_wait_time_ms=50)
    client = machine.plain()
    client.connect(flush=False)
    client.send(wire.CREATE, wire.create("/a"))
    machine.server.now_ms += 1000
    machine.flush()
    frames = client.frames()
    assert len(frames) == 2
    assert "/a" in machine.tree.nodes


def test_a_stalled_client_may_leave() -> None:
    machine = Machine(request_throttle_max_requests=1)
    _, client = stalled(machine)
    client.send(wire.CREATE, wire.create("/b"))
    machine.settle()
    client.drop()
    machine.flush()
    assert "/b" not in machine.tree.nodes


def test_many_outstanding_requests_hold_a_connection() -> None:
    machine = Machine(global_outstanding_limit=10)
    client = machine.connect()
    for number in range(100):
        client.send(wire.CREATE, wire.create(f"/{number}"))
        client.send(wire.EXISTS, wire.path_watch(f"/{number}"))
    machine.settle()
    assert client.cnxn.held
    assert len(client.cnxn.pending) == 10
    assert client.not_taken > 0
    machine.flush()
    assert len(client.replies()) == 200
    assert not client.cnxn.held


def test_bytes_behind_a_write_are_bounded() -> None:
    machine = Machine()
    client = machine.connect()
    client.create("/a")
    body = wire.set_data("/a", bytes(1_000_000))
    for _ in range(40):
        client.send(wire.SET_DATA, body)
    machine.settle()
    assert len(client.cnxn.pending) == 17
    assert client.not_taken == 23 * (12 + len(body))
    machine.flush()
    assert [reply.err for reply in client.replies()] == [0] * 40


# ------------------------------------------------------------------ large requests


def test_large_requests_in_flight_are_bounded() -> None:
    machine = Machine(large_request_threshold_bytes=1000, large_request_max_bytes=5000)
    client, other = machine.connect(), machine.connect()
    client.create("/a")
    large, small = wire.set_data("/a", bytes(2000)), wire.set_data("/a", bytes(100))
    client.send(wire.SET_DATA, large)
    client.send(wire.SET_DATA, large)
    for _ in range(100):
        client.send(wire.SET_DATA, small)
    other.send(wire.SET_DATA, small)
    machine.settle()
    assert not other.closed
    other.send(wire.SET_DATA, large)
    machine.settle()
    machine.flush()
    assert other.closed
    assert [reply.err for reply in other.replies()] == [0]
    assert [reply.err for reply in client.replies()] == [0] * 102
    # All of it has left the pipeline.
    again = machine.connect()
    assert again.code(wire.SET_DATA, large) == 0
    assert machine.server.stats.large_requests_rejected == 1


def test_the_length_word_is_enough_to_refuse() -> None:
    machine = Machine(large_request_threshold_bytes=1000, large_request_max_bytes=5000)
    client = machine.connect()
    client.feed(wire.int32(6000))
    machine.settle()
    assert client.closed


def test_a_malformed_large_request_gives_its_room_back() -> None:
    machine = Machine(large_request_threshold_bytes=1000, large_request_max_bytes=5000)
    client = machine.connect()
    for _ in range(5):
        assert client.code(wire.SET_DATA, wire.int32(-7) + bytes(3000)) == wire.MARSHALLING
    client.create("/a", bytes(3000))
