"""Incidents of ZooKeeper's history, each as a scenario, and as a member that has the fault again.

Numbers and names are those of quorum-protocol.md, section 10. Each test is run twice: as it is,
when all has to be well, and with what `broken` brings back, when it has to fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.simulation import broken
from tests.simulation.scenario import Scenario

from zkpy.persistence.errors import PersistenceError
from zkpy.persistence.store import FileTxnSnapLog
from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    ACK,
    PROPOSAL,
    Notification,
    Packet,
    encode_initial,
    encode_packet,
    frame,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.follower import Follower
from zkpy.quorum.leader import Leader
from zkpy.quorum.learner import Learner
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.states import LOOKING
from zkpy.quorum.vote import Vote
from zkpy.testing import disk as disk_faults
from zkpy.testing import requests
from zkpy.testing.cluster import Shape
from zkpy.testing.history import require
from zkpy.testing.host import Host
from zkpy.testing.network import End

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def holds(scenario: Callable[[], None], *faults: Break) -> None:
    """All is well as it is, and each of `faults` is noticed."""
    scenario()
    for fault in faults:
        with pytest.MonkeyPatch.context() as patch:
            fault(patch)
            try:
                scenario()
            except (AssertionError, PersistenceError):  # a Violation is an AssertionError
                continue
            raise AssertionError(f"{fault.__name__} is not noticed")


def lead_with_a_txn_of_its_own(s: Scenario) -> None:
    """C alone has logged a txn; all stop, and start again: C leads, A and B get it by DIFF."""
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/before")
    s.network.block("z3", "z1")
    s.network.block("z3", "z2")
    s.write_unseen(client, "/unseen")
    s.until(lambda: s.c.durable_zxid > s.history.last_zxid)
    for host in s.hosts.values():
        host.power_off()
    s.heal()


# ---------------------------------------------------------------------- the sync phase


def test_1_zookeeper_3911() -> None:
    """NEWLEADER is acknowledged once the txns of a DIFF are on disk: a crash of all loses none."""

    def scenario() -> None:
        s = Scenario()
        lead_with_a_txn_of_its_own(s)
        s.start()
        s.until(lambda: len(s.checker.leaders) == 2)
        assert s.leads(s.c)
        for host in s.hosts.values():
            host.power_off()
        s.start(s.a, s.b)
        s.settle(s.a, s.b)
        assert s.history.now("/unseen") is not None
        s.finish()

    holds(scenario, broken.new_leader_acked_before_the_log)


def test_2_zookeeper_4646() -> None:
    """No ACK of NEWLEADER before the sync, however long that takes."""

    def scenario() -> None:
        s = Scenario()
        lead_with_a_txn_of_its_own(s)
        s.slow_disk(s.a, 1000)
        s.slow_disk(s.b, 1000)
        s.start()
        took_s = s.until(lambda: len(s.checker.leaders) == 2)
        require(took_s >= 1.0, "NEWLEADER was acknowledged after %s s", took_s)
        s.finish()

    holds(scenario, broken.new_leader_acked_before_the_log)


def test_3_zookeeper_4643_4785() -> None:
    """At no point of a crash has a member joined an epoch without what that began with."""

    def scenario() -> None:
        for operations in range(40):
            s = Scenario()
            lead_with_a_txn_of_its_own(s)
            unseen = s.c.durable_zxid
            s.start(s.b, s.c)
            s.b.operations_left = operations
            s.until(lambda s=s: not s.b.up or s.serving(s.b, s.c))
            if s.b.up:
                return
            current_epoch, last_zxid = on_disk(s.b)
            require(
                current_epoch == 1 or last_zxid >= unseen,
                "epoch %s with %#x, after %s operations",
                current_epoch,
                last_zxid,
                operations,
            )
        raise AssertionError("it takes less to catch up")

    holds(scenario, broken.epoch_before_the_log)


def on_disk(host: Host) -> tuple[int, int]:
    """currentEpoch and last zxid that a start would find."""
    store = FileTxnSnapLog(host.disk, host.cluster.settings_of(host.config))
    store.open()
    last_zxid = store.restore().last_zxid
    store.close()
    path = f"{store.snap_directory}/currentEpoch"
    return int(host.disk.read(path)), last_zxid


def test_4_zookeeper_4685() -> None:
    """Followers of 3.8 acknowledge what they get by DIFF txn by txn, maybe before NEWLEADER."""

    def scenario() -> None:
        s = Scenario()
        lead_with_a_txn_of_its_own(s)
        with pytest.MonkeyPatch.context() as patch:
            original = Learner._join_epoch

            def join_epoch(self: Learner) -> None:
                for zxid, _ in self.pending:
                    self._send(encode_packet(ACK, zxid))
                original(self)

            patch.setattr(Learner, "_join_epoch", join_epoch)
            s.start()
            s.until(lambda: s.a.member.zab is not None and s.b.member.zab is not None)
            roles = [s.a.member.zab, s.b.member.zab]
            s.until(lambda: s.serving(s.a, s.b))
            require(roles == [s.a.member.zab, s.b.member.zab], "they had to try again")
        s.finish()

    holds(scenario, broken.new_leader_ack_of_another_zxid_is_the_last)


def test_5_zookeeper_4394() -> None:
    """A txn proposed before NEWLEADER, committed behind it: logged, acknowledged and applied."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/before")
        s.a.kill()
        s.slow_disk(s.b, 1000)
        s.write_unseen(client, "/unseen")
        s.run(0.1)
        with pytest.MonkeyPatch.context() as patch:
            proposals_before_new_leader(patch)
            s.start(s.a)
            s.until(lambda: s.a.has_role, limit_s=0.5)
        role = s.a.member.zab
        s.until(lambda: s.history.now("/unseen") is not None)
        s.settle()
        assert s.a.member.zab is role
        s.finish()

    holds(scenario, broken.proposals_before_new_leader_forgotten)


def proposals_before_new_leader(patch: Patch) -> None:
    """Let a leader send what is not committed ahead of NEWLEADER, as Apache's does."""
    queue, forward = Leader._queue_new_leader, Leader._start_forwarding

    def start_forwarding(self: Leader, handler: LearnerHandler) -> None:
        if handler not in self._followers:
            forward(self, handler)

    def queue_new_leader(self: Leader, handler: LearnerHandler) -> None:
        start_forwarding(self, handler)
        queue(self, handler)

    patch.setattr(Leader, "_start_forwarding", start_forwarding)
    patch.setattr(Leader, "_queue_new_leader", queue_new_leader)


def test_6_zookeeper_4925() -> None:
    """What a server got by DIFF it passes on when it leads; a hole is passed on by nobody."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/1")
        s.settle()
        s.a.kill()
        s.b.kill()
        s.run(1)
        s.start(s.a)
        s.settle(s.a, s.c)
        s.create(client, "/2", "/3")
        s.settle(s.a, s.c)
        s.start(s.b)  # gets /2 and /3 by DIFF
        s.settle(s.b)
        s.a.kill()
        s.create(client, "/4")
        s.settle(s.b, s.c)
        s.c.kill()
        drop_newest(s.a, s.history.order[-3] - 1)
        s.start(s.a)
        s.settle(s.a, s.b)
        assert s.leads(s.b)
        s.finish()

    holds(scenario, broken.diff_not_in_the_committed_log)


def drop_newest(host: Host, zxid: int) -> None:
    """Let a host that is down have a shorter log, as if it had been down for longer."""
    store = FileTxnSnapLog(host.disk, host.cluster.settings_of(host.config))
    store.open()
    store.restore()
    assert store.truncate(zxid) is not None
    store.close()
    host.durable_zxid = zxid


def test_7_zookeeper_3642() -> None:
    """A SNAP that was interrupted is forgotten: memory must not be ahead of the disk."""

    def scenario() -> None:
        def cut_off(_: Host) -> None:
            s.c.power_off()
            raise ProtocolError("nothing comes behind the snapshot")

        s = Scenario(committed_log_count=2, overrides={"snapshot_size_factor": -1.0})
        s.lead(s.c)
        client = s.client(s.c, s.b)
        s.a.kill()
        s.create(client, *(f"/{i}" for i in range(10)))
        s.cluster.on_snap = cut_off
        s.start(s.a)
        s.until(lambda: not s.c.up)
        s.cluster.on_snap = lambda host: None
        s.settle(s.a, s.b)
        client = s.client(s.b)
        s.create(client, "/later")
        s.a.power_off()
        s.run(1)
        s.start(s.a)
        s.settle(s.a, s.b)
        s.finish()

    holds(scenario, broken.memory_kept_after_a_broken_snap)


def test_8_zookeeper_5094() -> None:
    """What a TRUNC took back does not return with the next start."""

    def scenario() -> None:
        s = Scenario()
        leave_a_tail(s)
        s.heal()
        s.settle()
        s.c.power_off()
        s.start(s.c)
        s.settle()
        assert s.history.now("/unseen") is None
        s.finish()

    holds(scenario, broken.trunc_only_in_memory)


def leave_a_tail(s: Scenario, *, others_go_on: bool = False) -> None:
    """C leads, logs a txn that nobody else gets, and is alone; A and B elect another leader.

    `others_go_on`: and they write something.
    """
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/before")
    s.settle()
    s.separate([s.c], [s.a, s.b])
    s.write_unseen(client, "/unseen")
    s.until(lambda: s.c.durable_zxid > s.history.last_zxid)
    s.until(lambda: len(s.checker.leaders) == 2)
    s.settle(s.a, s.b)
    if others_go_on:
        s.create(s.client(s.b), "/after")


def test_9_zookeeper_4882() -> None:
    """A disk that fails once: nothing is acknowledged that is not there."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/before")
        s.cluster.on_death = lambda host: s.scheduler.after(1_000_000, host.start)
        s.b.disk_broken = True
        s.b.disk.fail(disk_faults.SYNC, "/log.", times=1)
        s.create(client, "/1")
        s.run(2)
        s.create(client, "/2")
        s.settle()
        s.b.power_off()
        s.start(s.b)
        s.settle()
        s.finish()

    holds(scenario, broken.failed_syncs_ignored)


def test_10_zookeeper_3104() -> None:
    """Writes while a snapshot is sent: who got it has all of them."""

    def scenario() -> None:
        s = Scenario(committed_log_count=2, overrides={"snapshot_size_factor": -1.0})
        s.lead(s.c)
        client = s.client(s.c)
        s.a.kill()
        s.create(client, *(f"/{i}" for i in range(40)), data=bytes(20_000))
        s.network.bytes_per_second = 500_000
        s.start(s.a)
        leader = s.c.member.zab
        assert isinstance(leader, Leader)
        s.until(lambda: any(handler.in_snapshot for handler in leader.handlers))
        for number in range(10):
            s.create(client, f"/during{number}")
        require(not s.a.has_role, "the snapshot came too soon")
        s.settle()
        s.finish()

    holds(scenario, broken.forwarding_begins_late)


def test_11_zookeeper_2418_2846() -> None:
    """A log that has a hole, as a SNAP once closed it, is not used for catching up."""

    def scenario() -> None:
        s = Scenario(committed_log_count=2, overrides={"snapshot_size_factor": -1.0})
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/before")
        s.settle()
        s.b.kill()
        begin = s.history.last_zxid
        s.create(client, *(f"/{i}" for i in range(10)))
        s.a.kill()
        drop_newest(s.a, begin)
        s.run(4)
        s.start(s.a)  # gets a SNAP
        s.settle(s.a, s.c)
        s.create(client, "/after")
        s.settle(s.a, s.c)
        s.c.kill()
        s.a.kill()
        vars(s.a.config)["snapshot_size_factor"] = 0.0
        s.start(s.a, s.b)
        s.settle(s.a, s.b)
        assert s.leads(s.a)
        s.finish()

    holds(scenario, broken.log_kept_at_a_snap)


def test_14_zookeeper_1549() -> None:
    """A snapshot with txns that were never committed is not used once they are taken back."""

    def scenario() -> None:
        s = Scenario()
        leave_a_tail(s)
        s.until(lambda: not s.c.has_role and s.c.member.database.last_zxid >= s.c.durable_zxid)
        s.c.store.save(s.c.member.database.tree)
        s.heal()
        s.settle()
        s.create(s.client(s.b), "/later")
        s.settle()
        s.c.kill()
        s.start(s.c)
        s.settle()
        assert s.history.now("/unseen") is None
        s.finish()

    holds(scenario, broken.newer_snapshots_survive_a_trunc)


def test_15_zookeeper_1154_1156() -> None:
    """An old leader comes back with an extra txn of its epoch: it is cut off, then comes a DIFF."""

    def scenario() -> None:
        s = Scenario()
        leave_a_tail(s, others_go_on=True)
        s.heal()
        s.settle()
        s.finish()

    holds(scenario, broken.trunc_left_out)


# ---------------------------------------------------------------------- epochs and elections


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


# ---------------------------------------------------------------------- broadcast and sessions


def test_27_zookeeper_1277() -> None:
    """The counter of an epoch runs out: another epoch begins, and nothing acknowledged is lost."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        jump(s, 0xFFFFFFF0)
        client = s.client(s.a, s.b, s.c)
        for number in range(20):
            while s.history.now(f"/{number}") is None:
                s.until(lambda: client.established)
                s.write_unseen(client, f"/{number}")
                s.until(lambda: not client.sent)
        assert max(s.checker.leaders) == 2
        s.finish()

    holds(scenario, broken.counter_runs_over)


def jump(s: Scenario, counter: int) -> None:
    """Have all be at this counter of the first epoch, of which nothing has been written."""
    zxid = 1 << 32 | counter
    s.history.base = zxid
    for host in s.hosts.values():
        member = host.member
        zab: Any = member.zab
        zab.last_zxid = zab.committed_zxid = zab.durable_zxid = zxid
        member.database.last_zxid = zxid
        member.database.store.replace(member.database.tree)
        host.durable_zxid = zxid
        if host is s.c:
            member.server.prep.last_zxid = zxid
            for handler in zab.handlers:
                handler.acked = zxid


def test_28_zookeeper_2355() -> None:
    """A follower that cannot read a closeSession: that session's ephemerals survive nowhere."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.b)
        s.call(client, requests.create("/e", b"", 1))
        s.settle()
        role = s.a.member.zab
        with pytest.MonkeyPatch.context() as patch:
            original = Follower._broadcast

            def broadcast(self: Follower, packets: list[Packet]) -> None:
                for packet in packets:
                    if self is role and self.failed is None and is_close_session(packet):
                        packets.remove(packet)
                        original(self, packets)
                        raise ProtocolError("unreadable")
                original(self, packets)

            patch.setattr(Follower, "_broadcast", broadcast)
            s.call(client, requests.close_session())
            client.gone = True
            s.until(lambda: s.position(s.a) == len(s.history.order), limit_s=1)
        s.finish()

    holds(scenario, broken.unreadable_proposals_passed_over)


def is_close_session(packet: Packet) -> bool:
    type, _, data, _ = packet
    return (
        type == PROPOSAL
        and data is not None
        and int.from_bytes(data[28:32], "big", signed=True) == OpCode.CLOSE_SESSION
    )


def test_30_zookeeper_4537() -> None:
    """One client, one request after the other and some at once: none waits for ever."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        for host in s.hosts.values():
            client = s.client(host)
            path = f"/{host.sid}"
            s.create(client, path)
            for _ in range(20):
                s.call(client, requests.set_data(path, b"1"))
                s.call(
                    client,
                    requests.set_data(path, b"2"),
                    requests.read(OpCode.GET_DATA, path),
                    requests.sync(),
                    requests.read(OpCode.EXISTS, path),
                    requests.set_data(path, b"3"),
                )
        s.finish()

    holds(scenario, broken.replies_not_followed_by_what_waits)


def test_31_zookeeper_4712_4541() -> None:
    """A role ends while its txns are still being logged: each is logged once, in order."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/before")
        s.slow_disk(s.c, 700)
        s.separate([s.c], [s.a, s.b])
        for number in range(20):
            s.write_unseen(client, f"/{number}")
            s.run(0.1)
        s.until(lambda: not s.c.has_role)
        s.heal()
        s.settle()
        s.finish()

    holds(scenario, broken.uncommitted_logged_again)
