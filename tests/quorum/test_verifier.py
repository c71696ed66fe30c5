"""Quorums by majority and by weighted groups, against a second way to count them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quorum.electing import members_of

from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.verifier import QuorumHierarchical, QuorumMaj, verifier_of


@pytest.mark.parametrize(
    ("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_majority(voters: int, needed: int) -> None:
    verifier = verifier_of(members_of(range(1, voters + 1), [90, 91]))
    assert isinstance(verifier, QuorumMaj)
    assert verifier.voters == set(range(1, voters + 1))
    assert verifier.contains_quorum(set(range(1, needed + 1)))
    assert not verifier.contains_quorum(set(range(1, needed)))
    # Observers and strangers add nothing.
    assert not verifier.contains_quorum({*range(1, needed), 90, 91, 1234})
    assert verifier.weight(90) == 1


def test_no_voters_have_no_quorum() -> None:
    assert not verifier_of(Members({})).contains_quorum(set())


NINE = members_of(
    range(1, 10), [], 0, "group.1=1:2:3", "group.2=4:5:6", "group.3=7:8:9", "weight.9=0"
)


@pytest.mark.parametrize(
    ("sids", "quorum"),
    [
        ({1, 2, 4, 5}, True),
        ({1, 2, 4}, False),  # one group only
        ({1, 4, 7}, False),  # a third of each
        ({1, 2, 7, 8}, True),
        ({1, 2, 7}, False),  # 7 is half of group 3, whose 9 has no weight
        ({1, 2, 7, 9}, False),
        ({1, 2, 3, 4, 7, 9}, False),
        (set(range(1, 10)), True),
        (set(), False),
    ],
)
def test_groups(sids: set[int], quorum: bool) -> None:
    verifier = verifier_of(NINE)
    assert isinstance(verifier, QuorumHierarchical)
    assert verifier.contains_quorum(sids) is quorum


def test_a_group_without_weight_is_none() -> None:
    members = members_of(
        range(1, 6), [], 0, "group.1=1:2:3", "group.2=4:5", "weight.4=0", "weight.5=0"
    )
    verifier = verifier_of(members)
    assert verifier.contains_quorum({1, 2}), "one group counts, so half of the groups is none"
    assert not verifier.contains_quorum({4, 5, 1})
    assert (verifier.weight(1), verifier.weight(4), verifier.weight(77)) == (1, 0, 0)


def test_an_observer_in_a_group_is_counted_against_it() -> None:
    """As the reference has it: its weight is part of the group's, and never comes."""
    members = members_of([1, 2], [3], 0, "group.1=1:2:3", "weight.3=5")
    assert not verifier_of(members).contains_quorum({1, 2, 3})


@st.composite
def configurations(draw: st.DrawFn) -> Members:
    sids = draw(st.lists(st.integers(0, 30), min_size=1, max_size=9, unique=True))
    groups: dict[int, list[int]] = {}
    lines = []
    for sid in sids:
        groups.setdefault(draw(st.integers(1, 4)), []).append(sid)
        lines.append(f"server.{sid}=h{sid}:1:2:participant")
        if draw(st.booleans()):
            lines.append(f"weight.{sid}={draw(st.integers(0, 5))}")
    lines += [f"group.{gid}=" + ":".join(map(str, members)) for gid, members in groups.items()]
    return parse_config_text("\n".join(lines))


@given(configurations(), st.sets(st.integers(0, 30)))
def test_groups_agree_with_a_second_count(members: Members, sids: set[int]) -> None:
    won = total = 0
    for group in members.groups.values():
        whole = sum(members.weights[sid] for sid in group)
        part = sum(members.weights[sid] for sid in group if sid in sids)
        total += whole > 0
        # Weights are whole numbers, so half of an odd weight rounded down is never reached by
        # less than more than half of it.
        won += Fraction(part) > Fraction(whole, 2)
    assert verifier_of(members).contains_quorum(sids) is (Fraction(won) > Fraction(total, 2))


@given(configurations(), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_two_quorums_meet(members: Members, one: set[int], two: set[int]) -> None:
    verifier = verifier_of(members)
    if verifier.contains_quorum(one) and verifier.contains_quorum(two):
        assert one & two
    if verifier.contains_quorum(one):
        assert verifier.contains_quorum(one | two)
