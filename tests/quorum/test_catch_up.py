"""plan_catch_up: every row of the reference's table, and that a plan leads where it should."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.packets import DIFF, SNAP, TRUNC
from zkpy.protocol.zxid import counter_of, epoch_of, make_zxid
from zkpy.quorum.catch_up import Plan, plan_catch_up
from zkpy.quorum.committed_log import CommittedLog

if TYPE_CHECKING:
    from zkpy.quorum.database import Database

E1, E2, E3, E4 = (make_zxid(epoch, 0) for epoch in (1, 2, 3, 4))


class History:
    """A leader's database, of zxids only.

    `log`: what its log files hold from the snapshot `base` on; only the part up to `readable` can
    be read. `window`: how many of the last txns are in memory. `unapplied`: how many of these are
    committed, but not in the tree yet.
    """

    def __init__(
        self,
        log: list[int],
        *,
        window: int = 5,
        base: int = 0,
        last: int = 0,
        unapplied: int = 0,
        readable: int = 1 << 62,
    ) -> None:
        self.committed_log = CommittedLog(window or 1)
        for zxid in log if window else ():
            self.committed_log.add(zxid, b"%x" % zxid)
        self.log = log
        self.base = base
        applied = log[: len(log) - unapplied]
        self.last_zxid = max(last, *applied, base)
        self.readable = readable
        self.budgets: list[int] = []
        self.size = 1000

    def snapshot_size(self) -> int:
        return self.size

    def log_records(self, zxid: int, budget_bytes: int) -> Iterator[tuple[int, bytes]] | None:
        self.budgets.append(budget_bytes)
        if zxid < self.base or (zxid != self.base and zxid not in self.log):
            return None
        # Proposed, but not committed: it is in the log as well.
        found = [z for z in [*self.log, self.log[-1] + 1] if z >= zxid]
        return iter([(z, b"%x" % z) for z in found if z <= self.readable])


def plan_for(
    history: History, peer: int, *, factor: float = 0.33, force_snapshot: bool = False
) -> Plan:
    return plan_catch_up(
        cast("Database", history),
        peer,
        snapshot_size_factor=factor,
        force_snapshot=force_snapshot,
        sid=3,
    )


def summary(plan: Plan) -> tuple[int, int, list[int], int]:
    for zxid, txn in plan.proposals:
        assert txn == b"%x" % zxid
    return plan.kind, plan.zxid, [zxid for zxid, _ in plan.proposals], plan.last_zxid


def diff(zxid: int, proposals: list[int]) -> tuple[int, int, list[int], int]:
    return DIFF, zxid, proposals, proposals[-1]


TEN = [E1 + counter for counter in range(1, 11)]  # of which 6 to 10 are in memory


# ---------------------------------------------------------------------- the table, row by row


def test_row_1_a_snapshot_by_force() -> None:
    plan = plan_for(History(TEN), E1 + 10, force_snapshot=True)
    assert summary(plan) == (SNAP, E1 + 10, [], E1 + 10)


def test_row_2_nothing_is_missing() -> None:
    assert summary(plan_for(History(TEN), E1 + 10)) == (DIFF, E1 + 10, [], E1 + 10)
    leading = History(TEN, last=E2)
    assert summary(plan_for(leading, E2)) == (DIFF, E2, [], E2)
    empty = History([], base=0)
    assert summary(plan_for(empty, 0)) == (DIFF, 0, [], 0)


def test_row_2_is_about_what_is_committed() -> None:
    """What is committed is sent, even if it is not in the tree yet."""
    history = History(TEN, unapplied=2)
    assert history.last_zxid == E1 + 8
    assert summary(plan_for(history, E1 + 8)) == diff(E1 + 10, [E1 + 9, E1 + 10])
    assert summary(plan_for(history, E1 + 10)) == (DIFF, E1 + 10, [], E1 + 10)
    # A snapshot has what is in the tree, and says so.
    plan = plan_for(history, E1 + 8, force_snapshot=True)
    assert summary(plan) == (SNAP, E1 + 8, [], E1 + 8)


@pytest.mark.parametrize("peer", [E1 + 11, E1 + 12, E2 + 1, E3 + 5])
def test_row_3_the_learner_has_more(peer: int) -> None:
    assert summary(plan_for(History(TEN), peer)) == (TRUNC, E1 + 10, [], E1 + 10)
    loaded = History([], base=E1 + 10)
    assert summary(plan_for(loaded, peer)) == (TRUNC, E1 + 10, [], E1 + 10)


def test_row_3_also_while_leading() -> None:
    """The mark of the new epoch is no txn that a learner could go back to."""
    history = History(TEN, last=E4)
    assert summary(plan_for(history, E3 + 1)) == (TRUNC, E1 + 10, [], E1 + 10)


def test_row_4_from_memory() -> None:
    history = History(TEN)
    assert summary(plan_for(history, E1 + 6)) == diff(E1 + 10, [E1 + 7, E1 + 8, E1 + 9, E1 + 10])
    assert summary(plan_for(history, E1 + 9)) == diff(E1 + 10, [E1 + 10])
    assert history.budgets == []


def test_row_4_while_leading_the_last_txn_is_enough() -> None:
    history = History(TEN, last=E2)
    assert summary(plan_for(history, E1 + 10)) == (DIFF, E1 + 10, [], E1 + 10)


def test_row_4_across_epochs() -> None:
    history = History([E1 + 1, E1 + 2, E2 + 1, E3 + 1, E3 + 2])
    assert summary(plan_for(history, E1 + 2)) == diff(E3 + 2, [E2 + 1, E3 + 1, E3 + 2])


def test_row_4_a_learner_that_joined_an_epoch_and_logged_nothing() -> None:
    history = History([E1 + 1, E1 + 2, E2 + 1, E3 + 1])
    assert summary(plan_for(history, E2)) == diff(E3 + 1, [E2 + 1, E3 + 1])
    assert summary(plan_for(history, E3)) == diff(E3 + 1, [E3 + 1])
    assert summary(plan_for(History([E1 + 1, E3 + 1]), E2)) == diff(E3 + 1, [E3 + 1])


def test_row_4_no_trunc_across_epochs() -> None:
    """ZOOKEEPER-1154: an old leader comes back with a txn of its epoch that nobody else has."""
    history = History([E1 + 1, E1 + 2, E2 + 1, E2 + 2])
    assert summary(plan_for(history, E1 + 3)) == (SNAP, E2 + 2, [], E2 + 2)


def test_row_5_from_the_log() -> None:
    history = History(TEN)
    expected = diff(E1 + 10, [E1 + counter for counter in range(3, 11)])
    assert summary(plan_for(history, E1 + 2)) == expected
    assert history.budgets == [330]


def test_row_5_from_the_log_alone() -> None:
    """After a start from a snapshot there is nothing in memory."""
    history = History(TEN, window=0)
    assert summary(plan_for(history, E1 + 8)) == diff(E1 + 10, [E1 + 9, E1 + 10])


def test_row_5_behind_the_snapshot_that_the_log_begins_with() -> None:
    history = History(TEN, base=E1)
    assert summary(plan_for(history, E1)) == diff(E1 + 10, TEN)


def test_row_5_the_log_does_not_reach_back() -> None:
    for peer in (E1 + 1, E1, 0, -1):
        history = History(TEN[2:], base=E1 + 2)
        assert summary(plan_for(history, peer)) == (SNAP, E1 + 10, [], E1 + 10)


@pytest.mark.parametrize("readable", [E1 + 2, E1 + 3, E1 + 5])
def test_row_5_a_gap_to_what_is_in_memory(readable: int) -> None:
    """ZOOKEEPER-2418: then nothing of the log is used."""
    history = History(TEN, readable=readable)
    assert summary(plan_for(history, E1 + 2)) == (SNAP, E1 + 10, [], E1 + 10)
    whole = History(TEN, readable=E1 + 6)
    assert plan_for(whole, E1 + 2).kind == DIFF


def test_row_5_how_much_of_the_log_is_worth_it() -> None:
    history = History(TEN)
    plan_for(history, E1 + 2, factor=1.0)
    plan_for(history, E1 + 2, factor=0.0)
    history.size = 0
    plan_for(history, E1 + 2)
    assert history.budgets == [1000, -1, -1]
    plan = plan_for(history, E1 + 2, factor=-1.0)
    assert summary(plan) == (SNAP, E1 + 10, [], E1 + 10)
    assert len(history.budgets) == 3


def test_row_6_an_epoch_we_know_nothing_of() -> None:
    assert summary(plan_for(History(TEN), E2)) == (SNAP, E1 + 10, [], E1 + 10)


def test_the_words_for_operators(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    history = History(TEN)
    assert plan_for(history, E1 + 9).mode == "diff"
    assert caplog.messages == [
        "Synchronizing with Learner sid: 3 maxCommittedLog=0x10000000a minCommittedLog=0x100000006 "
        "lastProcessedZxid=0x10000000a peerLastZxid=0x100000009",
        "Using committedLog for peer sid: 3",
        "Sending DIFF zxid=0x10000000a for peer sid: 3",
    ]
    caplog.clear()
    assert plan_for(history, E1 + 2).mode == "diff"
    assert "Use txnlog and committedLog for peer sid: 3" in caplog.messages
    caplog.clear()
    assert plan_for(history, E1 + 11).mode == "trunc"
    assert caplog.messages[1] == "Sending TRUNC zxid=0x10000000a for peer sid: 3"
    caplog.clear()
    assert plan_for(history, E2).mode == "snap"
    assert caplog.messages[-1] == (
        "Sending snapshot last zxid of peer is 0x200000000, zxid of leader is 0x10000000a, "
        "send zxid of db as 0x10000000a"
    )


# ---------------------------------------------------------------------- where a plan leads


def drawn_history(rng: Random) -> list[int]:
    """Txns of up to four epochs, some of them without any."""
    zxids = []
    for epoch in range(1, 5):
        count = rng.choice([0, 0, 1, 2, 5, 12])
        zxids += [make_zxid(epoch, counter + 1) for counter in range(count)]
    return zxids


def drawn_peer(rng: Random, history: list[int], epoch: int) -> tuple[list[int], int]:
    """A log that a learner can have when it meets a leader of `history`, and its last zxid.

    It has a beginning of the history. If there is more behind it, it is of an epoch whose leader
    had all of the history that is older, and it was proposed to too few.
    """
    have = rng.randint(0, len(history))
    log = history[:have]
    if rng.random() < 0.4:
        tail_epoch = rng.randint(1, epoch)
        log = [zxid for zxid in history if epoch_of(zxid) <= tail_epoch]
        last = log[-1] if log and epoch_of(log[-1]) == tail_epoch else make_zxid(tail_epoch, 0)
        log += range(last + 1, last + 1 + rng.randint(1, 3))
    elif rng.random() < 0.3 and (not log or epoch_of(log[-1]) < epoch):
        # It joined an epoch, in which there was nothing to log, before the next txn came.
        above = history[have] if have < len(history) else make_zxid(epoch, 1)
        first = epoch_of(log[-1]) + 1 if log else 1
        if counter_of(above) == 1 and first <= epoch_of(above):
            return log, make_zxid(rng.randint(first, epoch_of(above)), 0)
    return log, log[-1] if log else 0


def drawn_leader(rng: Random, history: list[int]) -> History:
    base = 0
    if history and rng.random() < 0.5:
        base = rng.choice(history)
    log = [zxid for zxid in history if zxid > base]
    leader = History(
        log,
        window=rng.choice([0, 1, 2, 5, 50]),
        base=base,
        unapplied=rng.choice([0, 0, 1]) if len(log) > 1 else 0,
        readable=rng.choice([1 << 62, rng.choice(history)]) if history else 1 << 62,
    )
    if not leader.committed_log.proposals:
        leader.last_zxid = max([base, *log])
    return leader


@given(st.integers(0, 1 << 32).map(Random))
def test_the_learner_ends_with_the_history_of_the_leader(rng: Random) -> None:
    history = drawn_history(rng)
    leader = drawn_leader(rng, history)
    log, peer = drawn_peer(rng, history, 5)
    plan = plan_for(leader, peer, factor=rng.choice([0.33, 0, -1]))
    sent = [zxid for zxid, _ in plan.proposals]
    if plan.kind == SNAP:
        assert plan.zxid == leader.last_zxid
        assert sent == []
        result = [zxid for zxid in history if zxid <= plan.zxid]
        # What is committed and not in the snapshot is sent behind it.
        sent = [z for z, _ in leader.committed_log.proposals if z > plan.zxid]
    else:
        if plan.kind == TRUNC:
            assert plan.zxid in log or plan.zxid == 0 or counter_of(plan.zxid) == 0
            peer = plan.zxid
        result = [zxid for zxid in log if zxid <= peer]
        for zxid in sent:
            assert zxid == peer + 1 or (counter_of(zxid) == 1 and epoch_of(zxid) > epoch_of(peer))
            peer = zxid
        assert plan.last_zxid == peer
    assert result + sent == history
