"""Incidents of ZooKeeper's history, each as a scenario, and as a member that has the fault again.

Catching up. Numbers and names are those of quorum-protocol.md, section 10. Each test
is run twice: as it is, when all has to be well, and with what `broken` brings back, when it has to
fail.
"""

from __future__ import annotations

import pytest
from tests.simulation import broken
from tests.simulation.incidents import (
    Patch,
    drop_newest,
    holds,
    lead_with_a_txn_of_its_own,
    leave_a_tail,
    on_disk,
)
from tests.simulation.scenario import Scenario

from zkpy.datatree.serialize import serialize_tree
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE
from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    ACK,
    encode_packet,
)
from zkpy.protocol.zoodefs import Perms
from zkpy.quorum.leader import Leader
from zkpy.quorum.learner import Learner
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.testing import disk as disk_faults
from zkpy.testing import requests
from zkpy.testing.history import require
from zkpy.testing.host import Host


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
        s.run(0.1)  # B has nothing to write
        s.a.kill()
        s.slow_disk(s.b, 1000)
        s.write_unseen(client, "/unseen")
        s.run(0.1)
        assert s.history.now("/unseen") is None
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


def test_12_zookeeper_3526() -> None:
    """A server that serves reads without a leader: what it tells a leader later is not changed."""

    def scenario() -> None:
        s = Scenario(
            overrides={
                "read_only_mode_enabled": True,
                "local_sessions_enabled": True,
                "local_sessions_upgrading_enabled": True,
            }
        )
        s.lead(s.c)
        s.create(s.client(s.c), "/before")
        s.settle()
        s.b.kill()
        s.c.kill()
        s.until(lambda: s.a.member.server.read_only)
        client = s.client(s.a, read_only=True)
        client.send([requests.create("/refused", b"", 0)])
        s.run(1)
        s.start()
        s.settle()
        assert s.history.now("/refused") is None
        s.finish()

    holds(scenario, broken.read_only_sessions_use_zxids)


def test_36_zookeeper_3306_4846() -> None:
    """A snapshot, made while txns were applied, lacks the ACL of a node that came later in it."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, *(f"/{i}" for i in range(300)))
        s.settle()
        tree, store = s.a.member.database.tree, s.a.store
        writer = store.snap.writer(tree)
        slices = serialize_tree(tree)
        for _ in range(3):
            writer.feed(next(slices))
        acl = (*OPEN_ACL_UNSAFE, ACL(Perms.READ, "ip", "10.9.8.7"))
        s.call(client, *(requests.set_acl(f"/{i}", acl) for i in range(300)))
        s.settle()
        for data in slices:
            writer.feed(data)
        store.snap.finish(writer, tree)
        writer.commit()
        s.a.power_off()
        s.start(s.a)
        s.settle()
        s.finish()

    holds(scenario, broken.acls_not_repaired)
