"""The order of votes, and which of them support the same leader."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING
from zkpy.quorum.vote import Vote

NOBODY = -(1 << 63)
numbers = st.one_of(st.integers(0, 3), st.sampled_from([NOBODY, -1, (1 << 63) - 1, 1 << 32]))
votes = st.builds(Vote, numbers, numbers, st.integers(0, 3), numbers)


def beats(new: Vote, old: Vote, weight: int) -> bool:
    """As the reference writes it, case by case."""
    if weight == 0:
        return False
    if new.peer_epoch > old.peer_epoch:
        return True
    if new.peer_epoch == old.peer_epoch:
        if new.zxid > old.zxid:
            return True
        if new.zxid == old.zxid:
            return new.leader > old.leader
    return False


@given(votes, votes, st.integers(0, 2))
def test_order(one: Vote, two: Vote, weight: int) -> None:
    assert one.beats(two, weight) == beats(one, two, weight)
    assert not (one.beats(two, 1) and two.beats(one, 1))


@given(votes, votes, votes)
def test_order_is_total(one: Vote, two: Vote, three: Vote) -> None:
    assert not one.beats(one, 1)
    if one.beats(two, 1) and two.beats(three, 1):
        assert one.beats(three, 1)
    same = one.rank() == two.rank()
    assert same == (not one.beats(two, 1) and not two.beats(one, 1))


def test_epoch_before_zxid_before_id() -> None:
    ascending = [Vote(*v) for v in [(9, 9, 0, 1), (1, 5, 9, 2), (2, 5, 0, 2), (1, 6, 0, 2)]]
    for one, two in itertools.combinations(ascending, 2):
        assert two.beats(one, 1)
    # What an observer proposes loses against everything.
    assert Vote(0, 0, 0, 0).beats(Vote(NOBODY, NOBODY, 7, NOBODY), 1)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        # While looking: leader, zxid, round and epoch.
        (Vote(3, 7, 1, 2), Vote(3, 7, 1, 2), True),
        (Vote(3, 7, 1, 2), Vote(2, 7, 1, 2), False),
        (Vote(3, 7, 1, 2), Vote(3, 8, 1, 2), False),
        (Vote(3, 7, 1, 2), Vote(3, 7, 2, 2), False),
        (Vote(3, 7, 1, 2), Vote(3, 7, 1, 1), False),
        (Vote(3, 7, 1, 2), Vote(3, 7, 1, 2, FOLLOWING, 2), True),
        (Vote(3, 7, 1, 2), Vote(3, 8, 1, 2, LEADING, 2), False),
        # With a leader: leader and epoch (ZOOKEEPER-1732, 1805).
        (Vote(3, 7, 1, 2, FOLLOWING, 2), Vote(3, 9, 5, 2, LEADING, 2), True),
        (Vote(3, 7, 1, 2, FOLLOWING, 2), Vote(3, 7, 1, 3, LEADING, 2), False),
        (Vote(3, 7, 1, 2, FOLLOWING, 2), Vote(1, 7, 1, 2, LEADING, 2), False),
        # One of them does not say its epoch.
        (Vote(3, 7, 1, 2, FOLLOWING, 0), Vote(3, 7, 1, 3, LEADING, 2), True),
        (Vote(3, 7, 1, 2, FOLLOWING, 0), Vote(3, 7, 1, 3, LEADING, 0), False),
        (Vote(3, 7, 1, 2, FOLLOWING, 0), Vote(2, 7, 1, 2, LEADING, 2), False),
    ],
)
def test_support(one: Vote, two: Vote, same: bool) -> None:
    assert one.counts_as(two) is same
    assert two.counts_as(one) is same


def test_epoch_of_the_leader_comes_later() -> None:
    vote = Vote(3, 0x100000005, 4, 1, FOLLOWING, 2).with_peer_epoch(2)
    assert (vote.leader, vote.zxid, vote.election_epoch, vote.peer_epoch) == (3, 0x100000005, 4, 2)
    assert (vote.state, vote.version) == (FOLLOWING, 2)
    assert repr(Vote(3, 16, 1, 2, LOOKING)) == (
        "Vote(leader=3, zxid=0x10, round=0x1, peerEpoch=0x2, LOOKING)"
    )
