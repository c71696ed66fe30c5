"""Incidents of ZooKeeper's history, each as a scenario, and as a member that has the fault again.

Epochs and elections. Numbers and names are those of quorum-protocol.md, section 10. Each test
is run twice: as it is, when all has to be well, and with what `broken` brings back, when it has to
fail.
"""

from __future__ import annotations

from tests.simulation import broken
from tests.simulation.incidents import (
    holds,
    leave_a_tail,
)
from tests.simulation.scenario import Scenario

from zkpy.protocol.packets import (
    Notification,
    encode_initial,
    frame,
)
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import LOOKING
from zkpy.quorum.vote import Vote
from zkpy.testing import requests
from zkpy.testing.cluster import Shape
from zkpy.testing.history import require
from zkpy.testing.host import Host
from zkpy.testing.network import End


def test_16_zookeeper_1653_2307_4269() -> None:
    """Whenever a crash comes while catching up by SNAP, the next start goes through."""

    def scenario() -> None:
        for operations in range(80):
            s = Scenario(committed_log_count=2, overrides={"snapshot_size_factor": -1.0})
            s.lead(s.c)
            client = s.client(s.c)
            s.a.kill()
            s.b.kill()
            s.run(4)
            s.start(s.a)
            s.settle(s.a, s.c)
            s.create(client, *(f"/{i}" for i in range(5)))
            s.start(s.b)
            s.b.operations_left = operations
            s.until(lambda s=s: not s.b.up or s.b.has_role)
            done = s.b.up
            s.start(s.b)
            s.settle()
            s.finish()
            if done:
                assert operations > 5
                return
        raise AssertionError("it takes less to catch up")

    holds(scenario, broken.epochs_not_repaired)


def test_17_zookeeper_2845() -> None:
    """A leader that loses its quorum, and follows without a new start: its tail is taken back."""

    def scenario() -> None:
        s = Scenario()
        leave_a_tail(s)
        s.heal()
        s.settle()
        life = s.c.life
        client = s.client(s.c)
        s.create(client, "/again")
        assert s.c.life == life
        assert s.history.now("/unseen") is None
        s.c.kill()
        s.finish()

    holds(scenario, broken.log_forgotten_between_roles)


def test_18_zookeeper_1732_1805_1818() -> None:
    """Rolling restarts: whoever comes back joins the leader there is, and soon."""

    def scenario() -> None:
        s = Scenario(5)
        s.start()
        s.settle()
        for host in s.hosts.values():
            # As it would be had each been elected, or found its leader, in another round.
            vote = host.member.current_vote
            host.member.current_vote = Vote(
                vote.leader, vote.zxid + host.sid, vote.election_epoch + host.sid, vote.peer_epoch
            )
            for peer in host.member.cnx_manager._peers.values():
                peer.last_sent = None  # no word from the time when they agreed
        client = s.client(s.hosts[5])
        for number, sid in enumerate((1, 2, 3, 4, 5, 1, 4, 2, 3, 1)):
            host = s.hosts[sid]
            host.kill()
            s.run(0.3)
            s.start(host)
            took_s = s.until(lambda host=host: host.has_role)
            require(took_s < 1.0, "%s took %s s to join", host, took_s)
            s.until(lambda: client.established)
            s.create(client, f"/{number}")
        s.finish()

    holds(scenario, broken.votes_of_followers_must_agree_in_all)


def test_19_check_leader() -> None:
    """Votes for a leader that died unnoticed convince nobody."""

    def scenario() -> None:
        s = Scenario(5)
        s.start()
        s.settle()
        leader = s.cluster.leader()
        assert leader is not None
        host = s.a
        host.kill()
        leader.power_off()
        s.start(host)
        s.until(lambda: len(s.checker.leaders) == 2 or host.member.state != LOOKING)
        require(host.member.current_vote.leader != leader.sid, "it follows the dead")
        s.finish()

    holds(scenario, broken.leader_taken_at_its_followers_word)


def test_20_zookeeper_3769() -> None:
    """Malformed notifications end nothing but, perhaps, their connection."""

    def scenario() -> None:
        s = Scenario()
        s.start(s.a)
        cut_off = Notification(0, 3, 0, 1, 0, 2, "x" * 100).encode()[:60]
        for payload in (b"", b"short", bytes(28), bytes(40), bytes(44), bytes(100), cut_off):
            NotificationSource(s, s.a).send(payload)
        s.run(0.5)
        s.start()
        s.settle()
        s.finish()

    holds(scenario, broken.bad_notifications_raise)


class NotificationSource:
    """Somebody with the id of C on A's election port."""

    def __init__(self, s: Scenario, host: Host) -> None:
        self.end: End | None = None
        address = host.member.view.election_addresses(host.sid)[0]
        s.network.connect("z9", address, 1000, self.connected, lambda reason: None)
        s.until(lambda: self.end is not None)
        assert self.end is not None
        self.end.send(encode_initial(3, [("z3", 3888)], False))

    def connected(self, end: End) -> None:
        self.end = end
        end.socket = self

    def send(self, payload: bytes) -> None:
        assert self.end is not None
        self.end.send(frame(payload))

    def received(self, end: End, data: bytes) -> None:
        pass

    def lost(self, end: End, reason: str) -> None:
        pass


def test_23_zookeeper_3756() -> None:
    """Members without power, dialled in vain for seconds, hold up no election of the others."""

    def scenario() -> None:
        s = Scenario(5, overrides={"cnx_timeout_ms": 5000})
        for sid in (1, 2):
            s.network.switch_off(f"z{sid}")
        hosts = [s.hosts[sid] for sid in (3, 4, 5)]
        s.start(*hosts)
        took_s = s.until(lambda: s.serving(*hosts))
        require(took_s < 1.5, "the election took %s s", took_s)

    holds(scenario, broken.dials_one_after_the_other)


def test_24_zookeeper_1807() -> None:
    """Observers leave each other alone."""

    def scenario() -> None:
        s = Scenario(shape=Shape(3, 2))
        s.start()
        s.settle()
        for end in s.network.connections():
            pair = {end.address[0], end.peer_address[0]}
            require(pair != {"z4", "z5"}, "observers have a connection: %s", end)
        s.finish()

    holds(scenario, broken.observers_take_part)


def test_25_silent_dialler() -> None:
    """Who connects to the election port and says nothing, or half of something, is in nobody's way.

    (That it could be was due to a blocking read; there is nothing to break here.)
    """
    s = Scenario()
    s.start(s.a)
    for words in (b"", encode_initial(3, [("z3", 3888)], False)[:10]):
        source = NotificationSource.__new__(NotificationSource)
        source.end = None
        s.network.connect("z9", ("z1", 3888), 1000, source.connected, lambda reason: None)
        s.until(lambda source=source: source.end is not None)
        assert source.end is not None
        source.end.send(words)
    s.start()
    assert s.until(s.serving) < 1.5
    s.finish()


def test_21_zookeeper_2164() -> None:
    """Members that have themselves at 0.0.0.0 tell others so, who use the configured address."""

    def scenario() -> None:
        s = Scenario()
        for sid, host in s.hosts.items():
            text = Shape(3).text().replace(f"server.{sid}=z{sid}:", f"server.{sid}=0.0.0.0:")
            host.config = s.cluster.config(sid, parse_config_text(text))
        # The smaller ids last: they are the ones that have to be dialled back.
        for host in (s.c, s.b, s.a):
            s.start(host)
            s.run(0.5)
        s.settle()
        s.finish()

    holds(scenario, broken.wildcards_believed)


def test_32_zookeeper_3575_3240() -> None:
    """The leader's host loses power in the midst of a lot of data: its followers find out."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.a)
        s.c.power_off()
        client.send([requests.create(f"/{i}", bytes(10_000), 0) for i in range(20)])
        took_s = s.until(lambda: len(s.checker.leaders) == 2 and s.serving(s.a, s.b))
        require(took_s < 4, "it took %s s", took_s)
        s.finish()

    holds(scenario, broken.silence_of_the_leader_borne)
