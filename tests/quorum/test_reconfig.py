"""Reconfig: which members a request makes, and what their activation changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zkpy.protocol.errors import (
    BadArguments,
    BadVersion,
    KeeperError,
    NewConfigNoQuorum,
    ReconfigInProgress,
)
from zkpy.protocol.packets import Notification
from zkpy.protocol.records import ReconfigRequest
from zkpy.quorum.election import FastLeaderElection
from zkpy.quorum.members import OBSERVER, PARTICIPANT, Members, parse_config_text
from zkpy.quorum.reconfig import Activation, activate, designated_leader, new_members, role_in
from zkpy.quorum.states import FOLLOWING, LOOKING
from zkpy.quorum.verifier import verifier_of
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

GOLDEN = Path(__file__).parents[1] / "golden" / "config" / "reconfig-3.9.5.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
# Joining servers, or all members -> our error code where it is another than theirs, and why.
DIFFERENT = {
    # Blanks before a comma belong to the value there, and are no part of a port.
    "server.1=127.0.0.1:2888:3888 , server.2=h:1:2:observer , ": 0,
    # A host that does not resolve clashes with nothing there; we compare names.
    "server.7=nohost.invalid:1:2:observer;4": BadArguments.code,
    # A null pointer there.
    "server.1=127.0.0.1:2888:3888,group.1=1:2": BadArguments.code,
}

V1 = 0x100000000
V2 = 0x100000005


def members(version: int, *specs: str) -> Members:
    """`3`: a participant on host h3; `3o`: an observer; `3@x`: a participant on host x."""
    lines = []
    for spec in specs:
        sid, _, host = spec.rstrip("o").partition("@")
        role = OBSERVER if spec.endswith("o") else PARTICIPANT
        lines.append(f"server.{sid}={host or 'h' + sid}:2888:3888:{role};2181")
    return parse_config_text("\n".join([*lines, f"version={version:x}"]))


def view_of(my_id: int, committed: Members, last_proposed: Members | None = None) -> View:
    return View(my_id, committed, last_proposed, True)


def ask(
    view: View,
    joining: str | None = None,
    leaving: str | None = None,
    whole: str | None = None,
    version: int = -1,
    *,
    zxid: int = V2,
    synced: frozenset[int] = frozenset({1, 2, 3}),
    **options: Any,
) -> Members:
    return new_members(
        ReconfigRequest(joining, leaving, whole, version),
        view,
        zxid,
        standalone_enabled=options.pop("standalone_enabled", False),
        is_quorum_synced=lambda new: verifier_of(new).contains_quorum(synced),
        **options,
    )


# ---------------------------------------------------------------------- requests


def test_one_server_of_the_reference_through_a_hundred_requests() -> None:
    """A lone 3.9.5 server (standaloneEnabled=false), asked one after the other."""
    committed = parse_config_text("server.1=127.0.0.1:2888:3888\nversion=100000000")
    for zxid, row in enumerate(ROWS, V1 + 2):
        joining, whole = row.get("joining"), row.get("members")
        expected = DIFFERENT.get(joining or whole, row["err"])
        try:
            new = ask(
                view_of(1, committed),
                joining,
                row.get("leaving"),
                whole,
                row.get("version", -1),
                zxid=zxid,
                synced=frozenset({1}),
            )
        except KeeperError as error:
            assert error.code == expected, (row, error)
        else:
            assert expected == 0, row
        if row["err"] == 0:
            committed = parse_config_text(row["text"])
            if expected == 0:
                assert new == committed
                assert sorted(new.text().split("\n")) == sorted(row["text"].split("\n"))


def test_one_change_at_a_time() -> None:
    committed = members(V1, "1", "2", "3")
    view = view_of(1, committed)
    first = ask(view, leaving="3")
    assert view.set_last_proposed(first)
    for asked in ({}, {"version": V1}, {"version": V2}, {"joining": "x"}):
        with pytest.raises(ReconfigInProgress):
            ask(view, **asked)  # type: ignore[arg-type]
    activate(view, first, 1, current_leader=1)
    assert ask(view, version=V2, zxid=V2 + 1).version == V2 + 1
    with pytest.raises(BadVersion):
        ask(view, version=V1, zxid=V2 + 1)


def test_standalone_enabled_needs_two_voters() -> None:
    view = view_of(1, members(V1, "1", "2"))
    with pytest.raises(BadArguments, match="at least 2 followers"):
        ask(view, leaving="2", standalone_enabled=True)
    assert list(ask(view, leaving="2").participants) == [1]
    with pytest.raises(BadArguments, match=r"at least 1 follower$"):
        ask(view, leaving="1,2")
    with pytest.raises(BadArguments):
        ask(view, "2=h2:2888:3888:observer;2181", standalone_enabled=True)
    assert ask(view, "3=h3:1:2;3", standalone_enabled=True).version == V2


def test_the_new_voters_have_to_be_there() -> None:
    view = view_of(1, members(V1, "1", "2", "3"))
    joining = "server.4=h4:1:2;3,server.5=h5:1:2;3"
    with pytest.raises(NewConfigNoQuorum):
        ask(view, joining, synced=frozenset({1, 2}))
    assert ask(view, joining, synced=frozenset({1, 2, 5})).version == V2
    with pytest.raises(NewConfigNoQuorum):
        ask(view, leaving="1,2", synced=frozenset({1, 2}))


def test_several_addresses_only_if_enabled() -> None:
    view = view_of(1, members(V1, "1", "2", "3"))
    joining = "4=a:1:2|b:1:2;3"
    with pytest.raises(BadArguments):
        ask(view, joining)
    assert ask(view, joining, multi_address=True).servers[4].addresses == (
        ("a", 1, 2),
        ("b", 1, 2),
    )
    with pytest.raises(BadArguments, match=r"b:2 of server\.5 conflicts b:2 of server\.4"):
        ask(view, joining + ",5=c:7:8|b:3:2;3", multi_address=True)


# ---------------------------------------------------------------------- activation


def test_older_or_equal_versions_change_nothing() -> None:
    committed = members(V1, "1", "2", "3")
    view = view_of(1, committed)
    for version in (0, V1):
        result = activate(view, members(version, "1", "2"), 2, current_leader=1)
        assert view.committed is committed
        assert (result.node_due, result.activated, result.leaves_role) == (True, False, False)


def test_disabled_means_not_at_all() -> None:
    view = View(1, members(0, "1", "2", "3"), None, False)
    result = activate(view, members(V1, "1", "2"), 2, current_leader=1)
    assert view.committed.version == 0
    assert (result.node_due, result.activated, result.leaves_role) == (False, False, False)


def test_the_first_version_of_the_same_members() -> None:
    """ZOOKEEPER-1324: established once, and nobody leaves a role for it."""
    view = view_of(1, members(0, "1", "2", "3"))
    result = activate(view, members(V1, "1", "2", "3"), None, current_leader=3)
    assert view.committed.version == view.last_proposed.version == V1
    assert (result.activated, result.changed, result.leaves_role) == (True, False, False)


def test_a_later_proposal_stays_one() -> None:
    proposed = members(V2, "1", "2")
    view = view_of(1, members(0, "1", "2", "3"), proposed)
    activate(view, members(V1, "1", "2", "3"), None, current_leader=3)
    assert view.last_proposed is proposed


def change(
    my_id: int, before: Members, after: Members, designated: int | None, leader: int = 1
) -> Activation:
    return activate(view_of(my_id, before), after, designated, current_leader=leader)


THREE = members(V1, "1", "2", "3", "4o")


@pytest.mark.parametrize(
    ("my_id", "after", "role"),
    [
        (2, ("1", "2o", "3", "4o"), OBSERVER),
        (4, ("1", "2", "3", "4"), PARTICIPANT),
        (4, ("1", "2", "3"), PARTICIPANT),  # as a follower without a vote
    ],
)
def test_a_new_role_at_once(my_id: int, after: tuple[str, ...], role: str) -> None:
    result = change(my_id, THREE, members(V2, *after), 1)
    assert (result.role, result.role_changed, result.leader_changed) == (role, True, False)
    assert result.leaves_role
    assert result.designated_leader == 1, "no election"
    # Nobody said who leads: an election.
    result = change(my_id, THREE, members(V2, *after), None)
    assert result.role_changed
    assert result.designated_leader is None


@pytest.mark.parametrize("my_id", [1, 2, 3, 4])
def test_others_stay_as_they_are(my_id: int) -> None:
    for designated in (1, None):
        result = change(my_id, THREE, members(V2, "1", "2", "3", "4o", "5"), designated)
        assert result.changed
        assert not result.leaves_role


def test_who_is_removed_follows_on() -> None:
    result = change(3, THREE, members(V2, "1", "2", "4o"), 1)
    assert (result.role, result.leaves_role) == (PARTICIPANT, False)
    assert role_in(members(V2, "1"), 3) == PARTICIPANT


def test_the_designated_leader() -> None:
    after = members(V2, "2", "3")
    for my_id in (1, 2, 3):
        result = change(my_id, THREE, after, 2)
        assert (result.leader_changed, result.designated_leader) == (True, 2)
    # Without one: the leader has to vote, at the same address.
    assert change(2, THREE, after, None).leader_changed
    assert change(2, THREE, members(V2, "1@x", "2", "3"), None).leader_changed
    assert change(2, THREE, members(V2, "1o", "2", "3"), None).leader_changed
    assert change(2, THREE, members(V2, "1", "2", "3"), None, leader=4).leader_changed
    assert not change(2, THREE, members(V2, "1", "2@x", "3"), None).leader_changed


def test_addresses() -> None:
    before = parse_config_text("server.1=a:1:2;3\nserver.2=b:1:2\nversion=5")
    for line, client, quorum, election in (
        ("a:1:2;4", ("0.0.0.0", 4), False, False),
        ("a:1:2", None, False, False),
        ("a:9:2;3", None, True, False),
        ("a:1:9;3", None, False, True),
        ("x:1:2;x:3", ("x", 3), True, True),
    ):
        view = view_of(1, before)
        result = activate(
            view,
            parse_config_text(f"server.1={line}\nserver.2=b:7:8\nversion=6"),
            2,
            current_leader=2,
            client_address=("0.0.0.0", 3),
        )
        assert result.client_address == client
        assert result.quorum_addresses_changed == quorum
        assert result.election_addresses_changed == election
        assert not result.leaves_role
    # Who was removed stays where it is; who comes back is told where to be.
    without = parse_config_text("server.2=b:1:2\nversion=6")
    result = activate(view_of(1, before), without, 2, current_leader=2)
    assert not result.election_addresses_changed
    result = activate(view_of(1, without), before.with_version(7), 2, current_leader=2)
    assert result.election_addresses_changed
    assert result.client_address == ("0.0.0.0", 3)


def test_a_lone_leader_that_moves_leads_again() -> None:
    before, after = members(V1, "1", "2o"), members(V2, "1@x", "2o")
    assert designated_leader(1, before, after, {1}, []) == 1
    result = change(1, before, after, 1)
    assert result.leaves_role
    assert result.designated_leader == 1
    assert not change(2, before, after, 1).leaves_role


def test_a_new_leader_takes_back_what_only_we_have_seen() -> None:
    """Proposed by a leader that is gone, and truncated from our log: it must not come back."""
    committed, lost = members(V1, "1", "2", "3"), members(V2, "1", "2")
    view = view_of(1, committed)
    assert view.set_last_proposed(lost)
    assert not view.set_last_proposed(members(V1 + 1, "1", "3")), "of a sync: an old one"
    assert view.set_last_proposed(committed, by_new_leader=True)
    assert view.last_proposed is committed
    assert len(view.verifiers()) == 1
    assert not view.set_last_proposed(members(V1 - 1, "1"), by_new_leader=True)
    assert view.set_last_proposed(lost, by_new_leader=True)
    assert not view.set_last_proposed(lost, by_new_leader=True)


# ---------------------------------------------------------------------- who leads next


def test_the_leader_stays_if_it_votes_at_the_same_address() -> None:
    assert designated_leader(1, THREE, members(V2, "1", "2"), {1, 2}, []) == 1
    for after in (("2", "3"), ("1o", "2", "3"), ("1@x", "2", "3")):
        assert designated_leader(1, THREE, members(V2, *after), {1, 2, 3}, []) == 2


def test_the_successor_has_most_of_what_is_outstanding() -> None:
    after = members(V2, "2", "3", "4", "5")
    acked = {1, 2, 3, 4, 9}
    for later, expected in (
        ([{1}], 2),
        ([{1, 3, 4}, {1, 4}], 4),
        ([{1, 3, 4}, {1}, {1, 4}], 3),
        ([{1, 9}], 2),
        ([{3}, {4}], 3),
    ):
        assert designated_leader(1, THREE, after, acked, later) == expected


# ---------------------------------------------------------------------- electing meanwhile


def carried(elections: dict[int, FastLeaderElection]) -> int:
    """Carry notifications to and fro until nobody says anything more; how many there were."""
    count = 0
    while sent := [
        (sid, to, payload)
        for sid, election in elections.items()
        for to, payload in election.take_messages()
        if to in elections
    ]:
        count += len(sent)
        assert count < 100, "they talk without end"
        for sid, to, payload in sent:
            election = elections[to]
            vote = election.elected or election.proposal
            election.received(sid, payload, 0, election.elected_state, vote)
    return count


def test_a_joiner_that_has_more_than_the_voters_does_not_argue() -> None:
    """It logged what no voter did. Each answer to its vote must not be answered by that again."""
    committed = members(V1, "1", "2", "3")
    elections = {
        sid: FastLeaderElection(sid, view_of(sid, committed), unreachable=lambda sid: False)
        for sid in (3, 4)
    }
    elections[3].look(0, V1 + 1, 1)
    elections[4].look(0, V1 + 9, 1)
    carried(elections)
    assert elections[4].proposal.leader == 3


def test_who_cannot_lead_votes_in_any_round() -> None:
    """2 and 3 are in their first round; 4, who only the proposed list has as a voter, is not."""
    committed, proposed = members(V1, "2", "3"), members(V2, "3", "4")
    elections = {
        sid: FastLeaderElection(
            sid, view_of(sid, committed, proposed), unreachable=lambda sid: False
        )
        for sid in (2, 3, 4)
    }
    for _ in range(5):
        elections[4].look(0, V1 + 9, 1)
        elections[4].take_messages()
    elections[2].look(0, V1 + 1, 1)
    elections[3].look(0, V1 + 1, 1)
    carried(elections)
    for election in elections.values():
        election.tick(200)
        assert election.elected is not None
        assert election.elected.leader == 3


def test_who_was_removed_tells_of_it() -> None:
    """3 slept through the change and knows nobody else of the present members."""
    before, after = members(V1, "1", "2", "3"), members(V2, "3", "4", "5")
    asking = FastLeaderElection(3, view_of(3, before), unreachable=lambda sid: sid == 2)
    removed = FastLeaderElection(1, view_of(1, after), unreachable=lambda sid: False)
    following = Vote(4, V2, 1, 2, FOLLOWING, 2)
    asking.look(0, V1 + 1, 1)
    (payload,) = [payload for to, payload in asking.take_messages() if to == 1]
    removed.received(3, payload, 0, FOLLOWING, following)
    (answer,) = removed.take_messages()
    assert answer[0] == 3
    asking.received(1, answer[1], 0, LOOKING, asking.proposal)
    newer = asking.take_newer_config()
    assert newer == after
    # It knows now, and those who vote will answer it.
    asking.view.set_committed(newer)
    asking.look(0, V1 + 1, 1)
    assert 1 not in [to for to, _ in asking.take_messages()]
    payload = Notification(LOOKING, 3, V1 + 1, 2, 1, 2, after.text()).encode()
    removed.received(3, payload, 0, FOLLOWING, following)
    assert removed.take_messages() == []
