"""ZKDatabase: what a leader sends becomes what the disk holds, whenever the power goes.

A member's history is written as a list of zxids; each txn sets /'s data to its zxid, so that a
state is told by it, and by the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datatree.test_serialize import without_usage
from tests.datatree.tree_compare import content
from tests.datatree.txn_source import TxnSource
from tests.persistence.data_dir import (
    DATA_DIR,
    DIRECTORY,
    disk_with,
    golden_files,
    header,
    set_data,
    with_digest,
)

from zkpy.datatree import serialize
from zkpy.datatree.apply import apply_bytes
from zkpy.datatree.serialize import serialize_stream, serialize_tree
from zkpy.datatree.tree import DataTree
from zkpy.persistence.errors import CorruptFile, DiskWriteError, PersistenceError
from zkpy.persistence.purge import purge
from zkpy.persistence.snapshot import FileSnap
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import Record
from zkpy.protocol.packets import DIFF, SNAP, TRUNC
from zkpy.protocol.txns import (
    CreateSessionTxn,
    CreateTxn,
    ErrorTxn,
    SetACLTxn,
    SetDataTxn,
    TxnDigest,
    decode_txn,
    encode_txn,
)
from zkpy.protocol.zoodefs import OpCode, Perms
from zkpy.protocol.zxid import epoch_of, make_zxid
from zkpy.quorum.catch_up import Plan, plan_catch_up
from zkpy.quorum.committed_log import CommittedLog
from zkpy.quorum.members import parse_config_text
from zkpy.server.database import ZKDatabase, newest_change
from zkpy.server.settings import make_config
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

E1, E2, E3 = (make_zxid(epoch, 0) for epoch in (1, 2, 3))
TEN = [E1 + counter for counter in range(1, 11)]


class PowerCut(BaseException):
    """The process ends here."""


def database_on(disk: SimulatedDisk, window: int = 500, **settings: object) -> ZKDatabase:
    """A member's database, loaded."""
    values = {"preallocate_bytes": 0, "extended_types_enabled": True, **settings}
    store = FileTxnSnapLog(disk, Settings(DATA_DIR, **values))  # type: ignore[arg-type]
    store.open()
    database = ZKDatabase(store, disk, make_config(data_dir=DATA_DIR))
    database.committed_log = CommittedLog(window)
    database.load()
    return database


def promise(database: ZKDatabase, zxid: int) -> None:
    """What a member has written before a leader sends it anything."""
    if epoch_of(zxid) > database.accepted_epoch:
        database.write_accepted_epoch(epoch_of(zxid))


def write(database: ZKDatabase, zxids: list[int]) -> None:
    """Log and apply txns as a follower does, on disk when it returns."""
    for zxid in zxids:
        promise(database, zxid)
        txn = set_data(zxid, b"%x" % zxid)
        database.store.log.append(zxid, txn)
        database.apply(zxid, txn)
    database.store.log.commit()


def state_after(zxids: list[int]) -> DataTree:
    tree = DataTree(extended_types=True)
    for zxid in zxids:
        apply_bytes(tree, set_data(zxid, b"%x" % zxid))
    return tree


def leader_with(zxids: list[int], window: int = 500) -> ZKDatabase:
    leader = database_on(SimulatedDisk(), window)
    write(leader, zxids)
    return leader


def receive_snapshot(database: ZKDatabase, stream: Iterator[bytes], zxid: int) -> bytes:
    """Take a stream in; returns what followed it."""
    promise(database, zxid)
    receiver = database.snapshot_receiver()
    rest = None
    for data in stream:
        assert rest is None
        rest = receiver.feed(data)
    assert rest is not None
    database.install_snapshot(receiver, zxid)
    return rest


def files_on(disk: SimulatedDisk) -> list[str]:
    return [n for n in disk.list_dir(DIRECTORY) if n.startswith(("log.", "snapshot."))]


def restarted(disk: SimulatedDisk, window: int = 500) -> ZKDatabase:
    disk.restart()
    return database_on(disk, window)


def plan_for(leader: ZKDatabase, peer_zxid: int, factor: float = 0.0) -> Plan:
    return plan_catch_up(leader, peer_zxid, snapshot_size_factor=factor, force_snapshot=False)


def zxids_of(plan: Plan) -> list[int]:
    return [zxid for zxid, _ in plan.proposals]


# ---------------------------------------------------------------------- start


def test_a_new_member_has_nothing() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    assert (database.last_zxid, database.accepted_epoch, database.current_epoch) == (0, 0, 0)
    assert (database.committed_log.min_zxid, database.snapshot_size() > 0) == (None, True)
    assert files_on(disk) == ["snapshot.0"]


def test_a_wiped_disk_is_told_apart_from_a_new_member() -> None:
    database = database_on(SimulatedDisk(), db_autocreate=False)
    assert (database.last_zxid, database.accepted_epoch, database.current_epoch) == (-1, 0, 0)
    assert database.snapshot_size() == 0


def test_what_was_replayed_can_be_sent_to_learners() -> None:
    disk = SimulatedDisk()
    write(database_on(disk), TEN)
    database = restarted(disk, window=4)
    assert [zxid for zxid, _ in database.committed_log.proposals] == TEN[-4:]
    assert database.last_zxid == TEN[-1]
    # It had not come to write the epoch; it has it all the same.
    assert (database.accepted_epoch, database.current_epoch) == (1, 1)


def test_a_log_without_a_snapshot_is_trusted_once() -> None:
    """ZOOKEEPER-3781."""
    disk = SimulatedDisk()
    write(database_on(disk), [1, 2, 3])
    disk.remove(f"{DIRECTORY}/snapshot.0")
    disk.restart()
    with pytest.raises(PersistenceError):
        database_on(disk)
    disk.restart()
    assert database_on(disk, trust_empty_snapshot=True).last_zxid == 3
    again = restarted(disk)
    assert (again.last_zxid, content(again.tree)) == (3, content(state_after([1, 2, 3])))


@pytest.mark.parametrize("server", [1, 3, 4])
def test_a_directory_of_a_real_member(server: int) -> None:
    disk = disk_with(golden_files(f"ensemble-395-reconfig/server{server}"))
    database = database_on(disk)
    assert database.accepted_epoch >= database.current_epoch >= epoch_of(database.last_zxid) > 0
    assert database.digest_mismatches == 0
    assert database.committed_log.max_zxid in (None, database.last_zxid)


# ---------------------------------------------------------------------- epochs


def test_epochs_survive() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    database.write_accepted_epoch(3)
    assert (database.accepted_epoch, database.current_epoch) == (3, 0)
    database.write_current_epoch(3)
    disk.crash(Random(1))
    database = database_on(disk)
    assert (database.accepted_epoch, database.current_epoch) == (3, 3)


def test_no_epoch_without_a_promise() -> None:
    database = database_on(SimulatedDisk())
    with pytest.raises(AssertionError, match="a promise comes first"):
        database.write_current_epoch(1)


@pytest.mark.parametrize("kind", [faults.WRITE, faults.SYNC, faults.RENAME, faults.SYNC_DIR])
def test_memory_is_never_ahead_of_the_epoch_files(kind: str) -> None:
    """ZOOKEEPER-2307."""
    disk = SimulatedDisk()
    database = database_on(disk)
    database.write_accepted_epoch(1)
    disk.fail(kind)
    with pytest.raises(DiskWriteError):
        database.write_accepted_epoch(2)
    with pytest.raises(DiskWriteError):
        database.write_current_epoch(1)
    assert (database.accepted_epoch, database.current_epoch) == (1, 0)


# ---------------------------------------------------------------------- txns


def test_apply_says_what_came_of_it() -> None:
    database = database_on(SimulatedDisk())
    result = database.apply(1, set_data(1, b"data"))
    assert (result.err, result.path, result.zxid) == (0, "/", 1)
    assert result.node is database.tree.nodes["/"]
    assert database.committed_log.max_zxid == database.last_zxid == 1
    failed = encode_txn(header(2, OpCode.ERROR), ErrorTxn(-101), None)
    assert database.apply(2, failed).err == -101
    database.tree.last_processed_zxid = 3
    database.committed(3, set_data(3))
    assert database.committed_log.max_zxid == 3


def test_a_txn_that_is_not_what_was_committed() -> None:
    database = database_on(SimulatedDisk())
    for txn in (set_data(2), b"", set_data(1)[:40]):
        with pytest.raises(DecodeError):
            database.apply(1, txn)
    assert database.last_zxid == 0
    assert database.committed_log.max_zxid is None


def digest_txns(count: int, start: int = 0) -> list[tuple[int, bytes]]:
    """Txns with the digests of their proposer, and others between."""
    tree = DataTree(extended_types=True)
    txns = []
    for zxid in range(start + 1, start + count + 1):
        record: Record = SetDataTxn("/", b"%d" % zxid, zxid)
        kind = OpCode.SET_DATA
        if zxid % 4 == 0:
            record, kind = CreateSessionTxn(1000), OpCode.CREATE_SESSION
        txns.append((zxid, with_digest(tree, header(zxid, kind), record)))
    return txns


def test_digests_are_compared(caplog: pytest.LogCaptureFixture) -> None:
    database = database_on(SimulatedDisk())
    txns = digest_txns(8)
    for zxid, txn in txns[:4]:
        database.apply(zxid, txn)
    assert database.digest_mismatches == 0
    wrong = encode_txn(header(5, OpCode.SET_DATA), SetDataTxn("/", b"other", 5), TxnDigest(2, 77))
    database.apply(5, wrong)
    assert database.digest_mismatches == 1
    expected = f"Value is Zxid: 0x5, expected 77, have {database.tree.digest}"
    assert expected in caplog.messages[-1]
    # Not a line for each.
    database.apply(6, encode_txn(header(6, OpCode.ERROR), ErrorTxn(1), TxnDigest(2, 77)))
    assert database.digest_mismatches == 2
    assert len(caplog.messages) == 1
    # Another version is another sum.
    database.apply(7, encode_txn(header(7, OpCode.ERROR), ErrorTxn(1), TxnDigest(3, 1)))
    assert database.digest_mismatches == 2


def test_who_has_led_counts_its_digest_again() -> None:
    database = database_on(SimulatedDisk())
    txns = digest_txns(8)
    for zxid, txn in txns[:4]:
        database.apply(zxid, txn)
    database.tree.count_digest = False
    for zxid, txn in txns[4:]:
        database.apply(zxid, txn)
    assert database.tree.count_digest
    assert database.digest_mismatches == 0
    off = database_on(SimulatedDisk(), digest_enabled=False)
    for zxid, txn in txns:
        off.apply(zxid, txn)
    assert not off.tree.count_digest
    assert off.digest_mismatches == 0


def test_the_config_node_is_written_in_memory() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    database.wall_ms = 1234
    members = parse_config_text("server.1=h:1:2:participant;0.0.0.0:3\nversion=100000007")
    digest = database.tree.digest
    for _ in range(2):
        database.set_config(members)
        node = database.tree.nodes["/zookeeper/config"]
        assert node.data == members.text().encode()
        stat = database.tree.wire_stat(node)
        assert int.from_bytes(stat[8:16], "big") == 0x100000007
        assert int.from_bytes(stat[24:32], "big") == 1234
        assert stat[32:36] == b"\xff" * 4
    assert database.tree.digest == digest
    assert database.last_zxid == 0


# ---------------------------------------------------------------------- SNAP


def test_a_snapshot_from_a_real_leader() -> None:
    """What follows the stream is applied to it: the digests say that we have the same tree."""
    from tests.datatree.test_receiver import WIRE

    from zkpy.protocol.packets import PROPOSAL, PacketReader

    for scenario in ("380-snap", "395-snap"):
        disk = SimulatedDisk()
        database = database_on(disk)
        reader = PacketReader()
        packets = reader.feed((WIRE / scenario / "04-peer.s2c").read_bytes())
        rest = receive_snapshot(database, iter([reader.take_rest()]), packets[-1][1])
        database.save_snapshot()
        zxid = packets[-1][1]
        assert files_on(disk) == [f"snapshot.{zxid:x}"]
        for type, zxid, data, _ in PacketReader().feed(rest):
            if type == PROPOSAL:
                assert data is not None
                database.store.log.append(zxid, data)
                database.store.log.commit()
                assert database.apply(zxid, data).digest == database.tree.digest
        assert database.digest_mismatches == 0
        again = restarted(disk)
        assert again.last_zxid == zxid == database.last_zxid
        assert content(again.tree) == content(database.tree)


def test_nothing_of_the_past_is_left() -> None:
    """Neither to be replayed, nor to be sent on; and what comes next can be logged."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN)
    database.save_snapshot()
    write(database, [E2 + 1, E2 + 2])
    leader = leader_with([*TEN[:3], E3 + 1])
    assert receive_snapshot(database, leader.snapshot_slices(), E3 + 1) == b""
    assert database.last_zxid == E3 + 1
    assert database.committed_log.max_zxid is None
    # Until it is saved, the disk is as it was.
    assert len(files_on(disk)) > 2
    database.save_snapshot()
    assert files_on(disk) == [f"snapshot.{E3 + 1:x}"]
    write(database, [E3 + 2])
    again = restarted(disk)
    assert again.last_zxid == E3 + 2
    assert content(again.tree) == content(state_after([*TEN[:3], E3 + 1, E3 + 2]))
    for peer in (0, TEN[2], TEN[5], E2, E2 + 1, E3):
        assert plan_for(again, peer).kind == SNAP
    assert zxids_of(plan_for(again, E3 + 1)) == [E3 + 2]


def test_an_interrupted_snapshot_is_forgotten() -> None:
    """ZOOKEEPER-3642: what was only in memory is not what the next leader is told of."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN[:3])
    leader = leader_with(TEN)
    receive_snapshot(database, leader.snapshot_slices(), TEN[-1])
    database.apply(E1 + 11, set_data(E1 + 11))
    idle = []
    database.quiesce = lambda: idle.append(True)
    database.reload()
    assert idle == [True]
    assert database.last_zxid == TEN[2]
    assert [zxid for zxid, _ in database.committed_log.proposals] == TEN[:3]
    write(database, [TEN[3]])
    assert content(restarted(disk).tree) == content(state_after(TEN[:4]))


def test_txns_applied_between_the_snapshot_and_its_end() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN[:2])
    leader = leader_with(TEN[:5])
    receive_snapshot(database, leader.snapshot_slices(), TEN[4])
    for zxid in TEN[5:8]:
        database.apply(zxid, set_data(zxid, b"%x" % zxid))
    database.save_snapshot()
    assert files_on(disk) == [f"snapshot.{TEN[7]:x}"]
    write(database, TEN[8:])
    assert content(restarted(disk).tree) == content(state_after(TEN))


def test_txns_in_memory_that_the_log_never_had() -> None:
    """Before a snapshot that is to bridge them: what is left on disk does not lead to it."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN[:5])
    for zxid in TEN[5:8]:
        database.apply(zxid, set_data(zxid, b"%x" % zxid))
    database.save_snapshot()
    assert files_on(disk) == [f"snapshot.{TEN[7]:x}"]
    write(database, TEN[8:])
    again = restarted(disk)
    assert content(again.tree) == content(state_after(TEN))
    assert plan_for(again, TEN[3]).kind == SNAP
    assert zxids_of(plan_for(again, TEN[7])) == TEN[8:]


def test_a_snapshot_that_the_log_leads_to_leaves_it_alone() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN)
    database.save_snapshot()
    database.last_zxid = E2
    database.save_snapshot()
    names = ["log.100000001", "snapshot.0", "snapshot.10000000a", "snapshot.200000000"]
    assert files_on(disk) == names
    assert database.snapshot_size() == disk.size(f"{DIRECTORY}/{names[-1]}")


def replayed_states(disk: SimulatedDisk) -> tuple[int, object]:
    database = database_on(disk)
    return database.last_zxid, content(database.tree)


def crash_everywhere(
    build: Callable[[], tuple[SimulatedDisk, Callable[[], object]]],
    check: Callable[[SimulatedDisk, bool], None],
) -> int:
    """Run what `build` prepares with a power cut before each operation on the disk in turn.

    `check` is given the disk after it, and whether all was done.
    """
    operations = 0
    while True:
        for seed in range(4):
            disk, run = build()
            left = operations

            def cut(kind: str, path: str) -> None:
                nonlocal left
                if kind == faults.READ:
                    return
                left -= 1
                if left < 0:
                    raise PowerCut

            disk.before = cut
            done = True
            try:
                run()
            except PowerCut:
                done = False
            disk.before = None
            if seed == 3:
                disk.restart()  # the process only
            else:
                disk.crash(Random(seed), torn_in_sectors=seed == 2)
            check(disk, done)
        if done:
            return operations
        operations += 1


OLD = {
    "shorter": (TEN[:3], []),
    "a tail of its epoch": ([*TEN, E1 + 11, E1 + 12], []),
    "a tail of another epoch": ([*TEN, E2 + 1, E2 + 2], []),
    "old snapshots": (TEN, [E1 + 2, E1 + 5]),
    "a snapshot with the tail": ([*TEN, E2 + 1, E2 + 2], [E1 + 5, E2 + 1]),
}


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("zxid", [E1 + 6, E2, E3, E3 + 7])
def test_power_cuts_while_a_snapshot_is_saved(old: str, zxid: int) -> None:
    """A state that the member had, or the leader's; never a mixture, never neither."""
    zxids, snapshots = OLD[old]
    # Of the leader, up to the snapshot; the tail of an old epoch is not among them.
    theirs = [z for z in TEN if z <= zxid] + ([zxid] if zxid & 0xFF == 7 else [])
    leader_tree = state_after(theirs)
    leader_tree.last_processed_zxid = zxid
    allowed = {zxid: content(leader_tree)}
    for count, own in enumerate(zxids, 1):
        allowed.setdefault(own, content(state_after(zxids[:count])))

    def build() -> tuple[SimulatedDisk, Callable[[], object]]:
        disk = SimulatedDisk()
        database = database_on(disk)
        for own in zxids:
            write(database, [own])
            if own in snapshots:
                database.save_snapshot()
            if own & 1:
                database.store.log.roll()
        database.write_accepted_epoch(3)
        receive_snapshot(database, serialize_stream(leader_tree), zxid)
        return disk, database.save_snapshot

    def check(disk: SimulatedDisk, done: bool) -> None:
        last, found = replayed_states(disk)
        # Records behind the snapshot are of its history; they go as well.
        if last in (zxids[-1], zxid) or last > zxid:
            assert found == allowed[last]
        else:
            raise AssertionError(f"{last:#x} of neither")
        if done:
            assert last == zxid
            assert files_on(disk) == [f"snapshot.{zxid:x}"]

    assert crash_everywhere(build, check) > 4


def test_a_leaders_snapshot_is_not_replaced_by_an_older_one() -> None:
    """Were it damaged, the older one, and a log that does not lead from it, would hide the loss.

    Such directories are left by the reference, and by a power cut right after the snapshot.
    """
    older = golden_files("standalone-395")["snapshot.0"]
    for leaders, log in (
        (E1 + 5, [E1 + 1, E1 + 2, E1 + 6]),
        (E2, [E1 + 1, E1 + 2, E2 + 1]),
        (E2 + 3, [E1 + 1, E1 + 2, E2 + 4]),
        (E2 + 3, [E1 + 1, E1 + 2]),
    ):
        disk = SimulatedDisk()
        database = database_on(disk)
        write(database, log[:2])
        promise(database, leaders)
        database.tree.last_processed_zxid = leaders
        database.store.save(database.tree)
        database.store.log.last_zxid = leaders
        write(database, log[2:])
        path = f"{DIRECTORY}/snapshot.{leaders:x}"
        good = disk.read(path)
        assert restarted(disk).last_zxid == max(leaders, log[-1])
        for bad in (good[:-20], good[:100] + b"x" + good[101:], older[:-1]):
            disk.put(path, bad)
            with pytest.raises(CorruptFile, match=r"txns would be lost|missing"):
                restarted(disk)
    # What was replayed up to the very zxid of the snapshot can stand in for it.
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN)
    disk.put(f"{DIRECTORY}/snapshot.{TEN[6]:x}", older[:-1])
    assert restarted(disk).last_zxid == TEN[-1]


# ---------------------------------------------------------------------- fuzzy snapshots


@given(st.integers(0, 1 << 32).map(Random), st.integers(0, 20))
def test_writes_while_the_snapshot_is_sent(rng: Random, before: int) -> None:
    """ZOOKEEPER-3104: at equal zxid the learner's tree is the leader's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialize, "SLICE_NODES", rng.randint(1, 3))
        leader = DataTree(extended_types=True)
        source = TxnSource(rng, leader)
        behind: list[tuple[int, bytes]] = []

        def step() -> None:
            change, record = source.next()
            behind.append((change.zxid, with_digest(leader, change, record)))

        for _ in range(before):
            step()
        behind.clear()
        zxid = leader.last_processed_zxid
        slices = []
        for data in serialize_stream(leader):
            slices.append(data)
            if rng.random() < 0.5:
                step()
        disk = SimulatedDisk()
        database = database_on(disk)
        receive_snapshot(database, iter(slices), zxid)
        # NEWLEADER comes behind what was committed while the snapshot was sent, or should.
        early = rng.choice([len(behind), rng.randint(0, len(behind))])
        exact = early == len(behind)
        for txn in behind[:early]:
            database.apply(*txn)
        database.save_snapshot()
        for _ in range(5):
            step()
        for later in behind[early:]:
            database.store.log.append(*later)
            database.apply(*later)
        database.store.log.commit()
        assert without_usage(database.tree) == without_usage(leader)
        assert database.tree.digest == leader.digest
        assert database.digest_mismatches == 0 or not exact
        gaps = any(b[0] != a[0] + 1 for a, b in pairwise(behind))
        if not gaps and (not behind or behind[0][0] == zxid + 1):
            again = restarted(disk)
            assert without_usage(again.tree) == without_usage(leader)
            assert again.digest_mismatches == 0 or not exact


def test_a_mismatch_behind_a_fuzzy_snapshot_is_found() -> None:
    """Once all that the snapshot may show has come, differences are what they are."""
    leader = DataTree(extended_types=True)
    txns = digest_txns(12)
    for _, txn in txns[:8]:
        apply_bytes(leader, txn)
    assert newest_change(leader) == 7  # 8 is a session
    database = database_on(SimulatedDisk())
    receive_snapshot(database, serialize_stream(leader), 3)
    database.save_snapshot()
    for zxid, txn in txns[3:7]:
        database.apply(zxid, txn)
    assert database.digest_mismatches == 0
    wrong = TxnDigest(2, 1)
    database.apply(8, encode_txn(header(8, OpCode.SET_DATA), SetDataTxn("/", b"", 1), wrong))
    assert database.digest_mismatches == 1


@pytest.mark.parametrize("wrong_at", [None, 6])
def test_a_snapshot_ahead_of_its_log_says_how_far(wrong_at: int | None) -> None:
    """Seed 20000108 of the reconfigurations: a setACL leaves no zxid in the nodes to tell by.

    Power failed after the snapshot, and before what it shows was in the log.
    """
    tree = DataTree()
    acl = (ACL(Perms.READ, "ip", "10.0.0.0/8"),)
    records: list[tuple[int, Record]] = [
        (OpCode.CREATE, CreateTxn("/a", b"x", OPEN_ACL_UNSAFE, False, 1)),
        (OpCode.SET_DATA, SetDataTxn("/a", b"y", 1)),
        (OpCode.SET_DATA, SetDataTxn("/a", b"z", 2)),
        (OpCode.SET_ACL, SetACLTxn("/a", acl, 1)),
        (OpCode.SET_DATA, SetDataTxn("/a", b"z", 3)),
        (OpCode.SET_DATA, SetDataTxn("/a", b"z", 4)),
    ]
    txns = [
        with_digest(tree, header(n, type), record) for n, (type, record) in enumerate(records, 1)
    ]
    disk = SimulatedDisk()
    database = database_on(disk)
    for zxid, txn in enumerate(txns[:4], 1):
        database.apply(zxid, txn)
    writer = database.store.snap.writer(database.tree)
    for data in serialize_tree(database.tree):
        writer.feed(data)
    database.store.snap.finish(writer, database.tree)
    writer.commit()
    # As if it had been begun before the last two, which are not in the log.
    disk.rename(f"{DIRECTORY}/snapshot.4", f"{DIRECTORY}/snapshot.2")
    again = restarted(disk)
    again.last_zxid = 2
    for zxid, txn in enumerate(txns[2:], 3):
        if zxid == wrong_at:
            change, record, _ = decode_txn(txn)
            txn = encode_txn(change, record, TxnDigest(2, 1))
        again.apply(zxid, txn)
    assert again.digest_mismatches == (0 if wrong_at is None else 1)


# ---------------------------------------------------------------------- TRUNC


def test_back_to_a_zxid() -> None:
    """ZOOKEEPER-5094, 1549: in memory, on disk, in snapshots, in what learners are sent."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN[:8])
    database.save_snapshot()
    write(database, TEN[8:])
    database.save_snapshot()
    idle = []
    database.quiesce = lambda: idle.append(True)
    assert database.truncate(TEN[8])
    assert idle
    assert database.last_zxid == TEN[8]
    assert [zxid for zxid, _ in database.committed_log.proposals] == [TEN[8]]
    assert files_on(disk) == ["log.100000001", "snapshot.0", "snapshot.100000008"]
    assert content(database.tree) == content(state_after(TEN[:9]))
    write(database, [E2 + 1])
    assert content(restarted(disk).tree) == content(state_after([*TEN[:9], E2 + 1]))


def test_back_to_the_beginning_of_an_epoch() -> None:
    """Its leader had that zxid before its first txn; no record has it."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, [*TEN, E2 + 1, E2 + 2])
    assert database.truncate(E2)
    assert database.last_zxid == E2
    write(database, [E3 + 1])
    again = restarted(disk)
    assert (again.last_zxid, content(again.tree)) == (E3 + 1, content(state_after([*TEN, E3 + 1])))


@pytest.mark.parametrize("zxid", [E1 - 5, E2, E2 + 2, E2 + 5, E3, E3 + 1, E1 + 11])
def test_where_it_cannot_go_back_to_nothing_changes(zxid: int) -> None:
    """ZOOKEEPER-1154, and a target that we lack: the reference keeps the next record."""
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, [*TEN, E2 + 1])
    if zxid == E2:
        database.save_snapshot()
        disk.remove(f"{DIRECTORY}/snapshot.0")
    names, tree = files_on(disk), database.tree
    assert not database.truncate(zxid)
    assert database.tree is tree
    assert (files_on(disk), database.last_zxid) == (names, E2 + 1)
    assert database.committed_log.max_zxid == E2 + 1
    assert restarted(disk).last_zxid == E2 + 1


def test_a_log_with_a_hole_is_none_to_go_back_in(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    write(database, TEN[:3])
    database.store.log.last_zxid = TEN[4]
    write(database, TEN[5:])
    assert not database.truncate(TEN[8])
    assert "is impossible" in caplog.text


@pytest.mark.parametrize("snapshots", [[], [E1 + 4], [E1 + 4, E1 + 9]])
def test_power_cuts_while_it_goes_back(snapshots: list[int]) -> None:
    """Whatever is left is a beginning of what there was, and has what was to stay."""
    states = {z: content(state_after(TEN[: n + 1])) for n, z in enumerate(TEN)}

    def build() -> tuple[SimulatedDisk, Callable[[], object]]:
        disk = SimulatedDisk()
        database = database_on(disk)
        for zxid in TEN:
            write(database, [zxid])
            if zxid in snapshots:
                database.save_snapshot()
            if zxid & 1:
                database.store.log.roll()
        return disk, lambda: database.truncate(E1 + 6)

    def check(disk: SimulatedDisk, done: bool) -> None:
        last, found = replayed_states(disk)
        assert last >= E1 + 6
        assert found == states[last]
        if done:
            assert last == E1 + 6

    assert crash_everywhere(build, check) > 2


# ---------------------------------------------------------------------- learners that lag behind


def test_from_the_log_on_disk() -> None:
    leader = leader_with(TEN, window=3)
    for peer in (0, TEN[0], TEN[5]):
        plan = plan_for(leader, peer)
        assert (plan.kind, zxids_of(plan)) == (DIFF, [z for z in TEN if z > peer])
        assert all(txn == set_data(z, b"%x" % z) for z, txn in plan.proposals)
    # More would have to be read than a snapshot takes.
    for zxid in range(TEN[-1] + 1, TEN[-1] + 100):
        write(leader, [zxid])
    assert plan_for(leader, TEN[0], 0.33).kind == SNAP
    assert plan_for(leader, TEN[0], 1e6).kind == DIFF
    assert plan_for(leader, TEN[0], -1).kind == SNAP


def test_what_is_only_proposed_is_not_sent() -> None:
    """It is in the log, too."""
    leader = leader_with(TEN, window=3)
    for zxid in range(E1 + 11, E1 + 15):
        leader.store.log.append(zxid, set_data(zxid))
    leader.store.log.commit()
    assert zxids_of(plan_for(leader, TEN[0])) == TEN[1:]
    # Also where nothing is in memory.
    leader.committed_log.clear()
    assert zxids_of(plan_for(leader, TEN[0])) == TEN[1:]


def test_what_is_being_written_is_not_read() -> None:
    leader = leader_with(TEN, window=3)
    log_path = f"{DIRECTORY}/log.100000001"
    file = leader._disk.open(log_path)
    file.write(b"\0\0\0\0\x12\x34\x56\x78\0\0\0\x50half a record", leader._disk.size(log_path))
    assert zxids_of(plan_for(leader, TEN[0])) == TEN[1:]


@pytest.mark.parametrize("peer", [E1 + 4, E1 + 6])
def test_a_hole_in_the_log_is_not_handed_on(peer: int) -> None:
    """ZOOKEEPER-2846: as the reference leaves it when a leader sends a snapshot."""
    disk = SimulatedDisk()
    leader = database_on(disk)
    write(leader, TEN[:5])
    leader.tree.last_processed_zxid = TEN[6]
    leader.store.save(leader.tree)
    leader.store.log.last_zxid = TEN[6]
    write(leader, TEN[7:])
    leader = restarted(disk, window=1)
    assert plan_for(leader, peer).kind == SNAP
    assert zxids_of(plan_for(leader, TEN[6])) == TEN[7:]
    assert zxids_of(plan_for(leader, TEN[7])) == TEN[8:]


def test_a_hole_between_epochs_is_not_handed_on() -> None:
    """Zxids do not show it: the uncommitted end of one epoch, and the next one's first txn."""
    disk = SimulatedDisk()
    leader = database_on(disk)
    write(leader, TEN[:5])  # the leader of epoch 2 never had the last of them
    leader.tree.last_processed_zxid = E2
    leader.store.save(leader.tree)
    leader.store.log.last_zxid = E2
    write(leader, [E2 + 1, E2 + 2, E2 + 3])
    leader = restarted(disk, window=1)
    for peer in (TEN[2], TEN[4]):
        assert plan_for(leader, peer).kind == SNAP
    assert zxids_of(plan_for(leader, E2)) == [E2 + 1, E2 + 2, E2 + 3]
    assert zxids_of(plan_for(leader, E2 + 1)) == [E2 + 2, E2 + 3]


def test_a_log_from_before_a_leaders_snapshot_is_not_handed_on() -> None:
    """The power fails when the snapshot is saved, and the log from before it is not yet removed."""
    theirs = [E1 + counter for counter in range(1, 21)]
    stream = list(leader_with(theirs).snapshot_slices())
    interrupted = 0

    def build() -> tuple[SimulatedDisk, Callable[[], object]]:
        disk = SimulatedDisk()
        member = database_on(disk)
        write(member, TEN[:5])
        receive_snapshot(member, iter(stream), theirs[-1])
        return disk, member.save_snapshot

    def check(disk: SimulatedDisk, done: bool) -> None:
        nonlocal interrupted
        member = database_on(disk)
        if member.last_zxid != theirs[-1]:
            return
        interrupted += member.store.log.last_logged_zxid() == TEN[4]
        write(member, [E2 + 1, E2 + 2])
        assert plan_for(member, TEN[3]).kind == SNAP
        assert zxids_of(plan_for(member, theirs[-1])) == [E2 + 1, E2 + 2]

    crash_everywhere(build, check)
    assert interrupted


@pytest.mark.parametrize("base", [0, TEN[4], E2])
@pytest.mark.parametrize("restart", [False, True])
def test_what_was_purged_is_not_left_out_of_what_is_handed_on(base: int, restart: bool) -> None:
    """Seed 5000042: the log began with a later epoch, and what came before that was purged."""
    disk = SimulatedDisk()
    leader = database_on(disk, window=1)
    if base:
        promise(leader, base)
        receive_snapshot(leader, serialize_stream(state_after(TEN[:5])), base)
        leader.save_snapshot()
    ours = [base + 1, base + 2] if base else TEN
    write(leader, ours)
    if restart:
        leader = restarted(disk, window=1)
    leader.store.log.roll()
    theirs = list(range(E3 + 1, E3 + 6))
    write(leader, theirs[:1])
    for zxid in theirs[1:]:
        leader.save_snapshot()
        write(leader, [zxid])
    assert zxids_of(plan_for(leader, base)) == [*ours, *theirs]
    purge(disk, DIRECTORY, DIRECTORY, 3)
    assert next(leader.store.log.read(0))[0].zxid == theirs[0]
    for peer in (base, E2):
        assert plan_for(leader, peer).kind == SNAP
    assert zxids_of(plan_for(leader, theirs[0])) == theirs[1:]


def test_behind_the_newest_snapshot_within_an_epoch() -> None:
    """Counters show that nothing is missing, and a snapshot that all of it was committed."""
    disk = SimulatedDisk()
    leader = database_on(disk)
    write(leader, [*TEN, E2 + 1, E2 + 2, E2 + 3])
    leader.save_snapshot()
    leader = restarted(disk)
    assert leader.committed_log.max_zxid is None
    assert zxids_of(plan_for(leader, E2 + 1)) == [E2 + 2, E2 + 3]
    assert plan_for(leader, E1 + 9).kind == SNAP
    assert zxids_of(plan_for(leader, E2)) == [E2 + 1, E2 + 2, E2 + 3]
    assert plan_for(leader, E2 + 4).kind == TRUNC


def test_a_learner_that_joined_an_epoch_in_which_nothing_was_written() -> None:
    leader = leader_with([*TEN, E3 + 1, E3 + 2, E3 + 3], window=1)
    for peer in (E2, E3):
        assert zxids_of(plan_for(leader, peer)) == [E3 + 1, E3 + 2, E3 + 3]


def test_a_log_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    leader = leader_with(TEN, window=3)
    disk = leader._disk
    assert isinstance(disk, SimulatedDisk)
    disk.fail(faults.READ, "log.")
    assert plan_for(leader, TEN[0]).kind == SNAP
    assert "cannot be used for catching up" in caplog.text
    disk.restart()
    path = f"{DIRECTORY}/log.100000001"
    content = disk.read(path)
    middle = len(content) // 2
    disk.put(path, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert plan_for(leader, TEN[0]).kind == SNAP
    assert "only in part" in caplog.text


# ---------------------------------------------------------------------- all of it


class Ensemble:
    """A leader's database and a learner's; the learner catches up over and over."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.disk = SimulatedDisk()
        self.learner = database_on(self.disk)
        self.leader = leader_with([], rng.choice([1, 2, 5]))
        self.history: list[int] = []
        self.epoch = 1

    def grow(self) -> None:
        """The leader goes on, in its epoch or in the next."""
        rng = self.rng
        if rng.random() < 0.4:
            self.epoch += 1
            promise(self.leader, make_zxid(self.epoch, 0))
            self.leader.last_zxid = make_zxid(self.epoch, 0)
        zxids = []
        for _ in range(rng.choice([0, 1, 2, 6])):
            last = self.history[-1] if self.history else 0
            zxid = last + 1 if epoch_of(last) == self.epoch else make_zxid(self.epoch, 1)
            zxids.append(zxid)
            self.history.append(zxid)
        write(self.leader, zxids)
        if rng.random() < 0.3:
            self.leader.save_snapshot()
        if rng.random() < 0.3:
            disk = self.leader._disk
            assert isinstance(disk, SimulatedDisk)
            self.leader = restarted(disk, rng.choice([1, 2, 5]))

    def stray(self) -> None:
        """The learner logs what nobody else will ever have."""
        last = self.learner.last_zxid
        if last == self.leader.last_zxid and last & 0xFFFFFFFF:
            write(self.learner, [last + 1, last + 2][: self.rng.randint(1, 2)])
            if self.rng.random() < 0.3:
                self.learner.save_snapshot()
            # Whoever leads next, does so in another epoch.
            self.epoch += 1

    def catch_up(self) -> None:
        learner = self.learner
        promise(learner, make_zxid(self.epoch, 0))
        plan = plan_for(self.leader, learner.last_zxid, self.rng.choice([0, 0.33, 3]))
        if plan.kind == SNAP:
            receive_snapshot(learner, self.leader.snapshot_slices(), plan.zxid)
            learner.save_snapshot()
        elif plan.kind == TRUNC:
            assert learner.truncate(plan.zxid)
        for zxid, txn in plan.proposals:
            learner.store.log.append(zxid, txn)
            learner.apply(zxid, txn)
        learner.store.log.commit()
        if self.rng.random() < 0.2:
            learner.save_snapshot()

    def check(self) -> None:
        expected = content(state_after(self.history))
        assert content(self.leader.tree) == expected
        assert content(self.learner.tree) == expected
        assert self.learner.tree.digest == self.leader.tree.digest

    def restart(self) -> None:
        if self.rng.random() < 0.5:
            self.disk.restart()
        else:
            self.disk.crash(self.rng)
        self.learner = database_on(self.disk, self.rng.choice([1, 2, 5]))
        assert content(self.learner.tree) == content(state_after(self.history))


@pytest.mark.seeds(40)
def test_a_learner_that_comes_and_goes(seed: int) -> None:
    ensemble = Ensemble(Random(seed))
    for _ in range(30):
        ensemble.grow()
        ensemble.catch_up()
        ensemble.check()
        if ensemble.rng.random() < 0.3:
            ensemble.stray()
        elif ensemble.rng.random() < 0.5:
            ensemble.restart()


def test_errors_are_those_of_files() -> None:
    disk = SimulatedDisk()
    database = database_on(disk)
    receive_snapshot(database, database.snapshot_slices(), 5)
    disk.fail(faults.SYNC)
    with pytest.raises(PersistenceError):
        database.save_snapshot()
    assert FileSnap(disk, DIRECTORY).find_valid()[0][1] == "snapshot.0"
