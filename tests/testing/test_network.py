"""The simulated network: streams in order, whatever happens to them."""

from __future__ import annotations

from random import Random

import pytest

from zkpy.testing.network import END_OF_STREAM, REFUSED, RESET, TIMED_OUT, End, Network
from zkpy.testing.scheduler import SECOND, Scheduler

PORT = ("b", 1)


class Peer:
    """One side of a connection: remembers what it is told."""

    def __init__(self) -> None:
        self.end: End | None = None
        self.data = bytearray()
        self.chunks = 0
        self.reason: str | None = None

    def take(self, end: End) -> None:
        self.end = end
        end.socket = self

    def failed(self, reason: str) -> None:
        self.reason = reason

    def received(self, end: End, data: bytes) -> None:
        assert end is self.end
        self.data += data
        self.chunks += 1

    def lost(self, end: End, reason: str) -> None:
        assert end is self.end
        self.reason = reason

    def send(self, data: bytes) -> None:
        assert self.end is not None
        self.end.send(data)


class World:
    def __init__(self, seed: int = 1) -> None:
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, Random(seed))
        self.a = Peer()
        self.b = Peer()

    def run(self, seconds: float = 1.0) -> None:
        self.scheduler.run_until(self.scheduler.now_us + int(seconds * SECOND))

    def dial(self) -> None:
        self.network.connect("a", PORT, 1000, self.a.take, self.a.failed)

    def connected(self) -> World:
        assert self.network.listen(PORT, self.b.take)
        self.dial()
        self.run(0.1)
        assert self.a.end is not None and self.b.end is not None
        return self


@pytest.mark.seeds(5)
def test_a_stream_arrives_in_order_and_complete(seed: int) -> None:
    world = World(seed).connected()
    world.network.fragmentation = 0.3
    sent = bytearray()
    for _ in range(200):
        data = world.network.rng.randbytes(world.network.rng.randint(1, 50))
        sent += data
        world.a.send(data)
        if world.network.rng.random() < 0.3:
            world.run(0.0005)
    world.a.end.close()  # type: ignore[union-attr]
    world.run()
    assert world.b.data == sent
    assert world.b.chunks > 20
    assert world.b.reason == END_OF_STREAM
    assert world.a.reason is None


def test_streams_overtake_each_other() -> None:
    world = World()
    peers = []
    order: list[int] = []
    for number in range(20):
        world.network.listen(("b", number), Peer().take)
        peer = Peer()
        peers.append(peer)
        world.network.connect(
            "a", ("b", number), 1000, lambda end, n=number: order.append(n), peer.failed
        )
    world.run()
    assert sorted(order) == list(range(20)) != order


def test_words_before_the_caller_knows_that_it_is_connected() -> None:
    world = World()

    def greet(end: End) -> None:
        world.b.take(end)
        end.send(b"hello")

    world.network.listen(PORT, greet)
    world.dial()
    world.run()
    assert world.a.data == b"hello"


def test_bandwidth() -> None:
    world = World().connected()
    world.network.bytes_per_second = 1000
    world.a.send(bytes(500))
    assert world.a.end is not None
    assert world.a.end.in_flight_bytes == 500
    world.run(0.4)
    assert not world.b.data
    world.run(0.2)
    assert len(world.b.data) == 500
    assert world.a.end.in_flight_us == 0


def test_nobody_listens() -> None:
    world = World()
    world.dial()
    world.run()
    assert world.a.reason == REFUSED


def test_a_listener_is_one() -> None:
    world = World()
    assert world.network.listen(PORT, world.b.take)
    assert not world.network.listen(PORT, world.b.take)
    assert world.network.is_listening(PORT)
    world.network.listen_no_more(PORT)
    world.dial()
    world.run()
    assert world.a.reason == REFUSED


def test_no_power_no_answer() -> None:
    world = World()
    world.network.listen(PORT, world.b.take)
    world.network.switch_off("b")
    world.dial()
    world.run(0.9)
    assert world.a.reason is None
    world.run(0.2)
    assert world.a.reason == TIMED_OUT


def test_a_killed_process_ends_its_streams() -> None:
    world = World().connected()
    world.b.send(b"last words")
    world.network.kill("b")
    world.run()
    assert world.a.data == b"last words"
    assert world.a.reason == END_OF_STREAM
    assert world.b.reason is None
    assert not world.network.is_listening(PORT)


def test_power_loss_is_noticed_when_somebody_speaks_to_the_host() -> None:
    world = World().connected()
    world.network.switch_off("b")
    world.run(5)
    world.a.send(b"anybody there?")
    world.run(5)
    assert world.a.reason is None
    world.network.switch_on("b")
    world.run()
    assert world.a.reason == RESET
    assert not world.b.data


def test_power_loss_nobody_noticed() -> None:
    world = World().connected()
    world.network.switch_off("b")
    world.network.switch_on("b")
    world.run(5)
    assert world.a.reason is None
    world.a.send(b"still there?")
    world.run()
    assert world.a.reason == RESET


def test_what_is_sent_into_a_partition_arrives_when_it_is_healed() -> None:
    world = World().connected()
    world.network.block("a", "b")
    world.a.send(b"one")
    world.a.send(b"two")
    world.b.send(b"the other way")
    world.run(5)
    assert not world.b.data
    assert world.a.data == b"the other way"
    world.network.unblock("a", "b")
    world.a.send(b"three")
    world.run()
    assert world.b.data == b"onetwothree"


def test_partitions_overlap() -> None:
    world = World().connected()
    world.network.block("a", "b")
    world.network.block("a", "b")
    world.network.unblock("a", "b")
    assert world.network.is_blocked("a", "b")
    world.network.unblock("a", "b")
    assert not world.network.is_blocked("a", "b")
    world.network.unblock("a", "b")
    world.network.block("a", "b")
    world.network.heal()
    assert not world.network.is_blocked("a", "b")


def test_the_end_of_a_stream_waits_for_the_partition_too() -> None:
    world = World().connected()
    world.network.block("b", "a")
    world.network.kill("b")
    world.run(5)
    assert world.a.reason is None
    world.network.heal()
    world.run()
    assert world.a.reason == END_OF_STREAM


def test_nobody_connects_through_a_partition() -> None:
    for pair in (("a", "b"), ("b", "a")):
        world = World()
        world.network.listen(PORT, world.b.take)
        world.network.block(*pair)
        world.dial()
        world.run(2)
        assert world.a.reason == TIMED_OUT
        # Who could hear the first packet has a connection, and learns that it came to nothing.
        world.network.heal()
        world.run()
        assert (world.b.end is None) == (pair == ("a", "b"))
        assert world.b.end is None or world.b.reason == END_OF_STREAM


def test_a_cut_connection() -> None:
    world = World().connected()
    (end,) = world.network.connections()
    world.a.send(b"lost")
    world.network.reset(end)
    world.run()
    assert world.a.reason == world.b.reason == RESET
    assert not world.b.data
    assert world.network.connections() == []


def test_slow_links() -> None:
    world = World().connected()
    world.network.slow["a", "b"] = 1000
    took = []
    for _ in range(20):
        begin_us = world.scheduler.now_us
        size = len(world.b.data)
        world.a.send(b"x")
        world.scheduler.run_while(lambda size=size: len(world.b.data) == size, 5 * SECOND)
        took.append(world.scheduler.now_us - begin_us)
    assert max(took) > SECOND // 2
