"""Elections: one machine and its rules, whole ensembles in virtual time, and known failures.

Incidents are named as in the ZooKeeper issue tracker.
"""

from __future__ import annotations

import itertools
import logging
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quorum.electing import Network, Node, ReferenceElection, ensemble, members_of

from zkpy.protocol.packets import Notification
from zkpy.quorum.election import (
    ANSWER_INTERVAL_MS,
    FINALIZE_WAIT_MS,
    MAX_ASKERS,
    MAX_REDIAL_MS,
    NEVER,
    NOBODY,
    FastLeaderElection,
)
from zkpy.quorum.members import Members
from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING, OBSERVING
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

NOW = 1_000_000
THREE = members_of([1, 2, 3], [4])


class Voter:
    """One election, spoken to by hand; `state` and `vote` as the member has them."""

    def __init__(
        self,
        sid: int = 2,
        members: Members = THREE,
        *,
        zxid: int = 0x10,
        epoch: int = 1,
        reconfig_enabled: bool = False,
        last_proposed: Members | None = None,
        look: bool = True,
    ) -> None:
        self.sid = sid
        self.zxid = zxid
        self.epoch = epoch
        self.gone: set[int] = set()
        self.view = View(sid, members, last_proposed, reconfig_enabled)
        self.election = FastLeaderElection(sid, self.view, unreachable=self.gone.__contains__)
        self.now_ms = NOW
        self.state = LOOKING
        self.vote = Vote(sid, zxid, 0, epoch)
        if look:
            self.look()
            self.sent()

    def look(self) -> None:
        self.state = LOOKING
        self.election.look(self.now_ms, self.zxid, self.epoch)

    def hears(
        self,
        sid: int,
        leader: int,
        *,
        state: int = LOOKING,
        zxid: int = 0x10,
        round: int = 1,
        epoch: int = 1,
        config: str | None = None,
        version: int = 2,
    ) -> None:
        config = self.view.committed_text if config is None else config
        n = Notification(state, leader, zxid, round, epoch, version, config)
        self.hears_bytes(sid, n.encode())

    def hears_bytes(self, sid: int, payload: bytes) -> None:
        self.election.received(sid, payload, self.now_ms, self.state, self.vote)

    def sent(self) -> list[tuple[int, Notification]]:
        messages = self.election.take_messages()
        return [(sid, Notification.decode(payload)) for sid, payload in messages]

    def said(self) -> list[tuple[int, int, int, int]]:
        """(to, state, leader, round) of what was sent."""
        return [(sid, n.state, n.leader, n.election_epoch) for sid, n in self.sent()]

    def wait(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.election.tick(self.now_ms)

    def result(self) -> tuple[int, int] | None:
        """(state, leader) once elected."""
        self.election.take_messages()
        elected = self.election.elected
        return None if elected is None else (self.election.elected_state, elected.leader)

    def take_role(self) -> None:
        """What a member does with the result."""
        elected = self.election.elected
        assert elected is not None
        self.state, self.vote = self.election.elected_state, elected
        self.sent()


# ---------------------------------------------------------------------- what is said


def test_first_vote() -> None:
    voter = Voter(look=False)
    voter.look()
    n = Notification(LOOKING, 2, 0x10, 1, 1, 2, THREE.text())
    assert voter.sent() == [(1, n), (3, n)], "voters only (ZOOKEEPER-1807), and not ourselves"


def test_first_vote_of_an_observer() -> None:
    voter = Voter(4, look=False)
    voter.look()
    n = Notification(LOOKING, NOBODY, NOBODY, 1, NOBODY, 2, THREE.text())
    assert voter.sent() == [(1, n), (2, n), (3, n)]


def test_first_vote_of_who_is_only_proposed() -> None:
    proposed = members_of([1, 2, 3, 5], [], 0x100)
    voter = Voter(5, last_proposed=proposed, reconfig_enabled=True, look=False)
    voter.look()
    assert voter.said() == [(sid, LOOKING, NOBODY, 1) for sid in (1, 2, 3)]
    # It votes all the same, for whom the others propose.
    voter.hears(3, 3)
    assert voter.said() == [(sid, LOOKING, 3, 1) for sid in (1, 2, 3)]


def test_vote_is_repeated_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    voter = Voter()
    times = []
    with caplog.at_level(logging.INFO):
        while voter.now_ms - NOW < 300_000:
            voter.wait(voter.election.next_timer_ms() - voter.now_ms)
            if voter.sent():
                times.append(voter.now_ms - NOW)
    waits = [later - earlier for earlier, later in zip([0, *times], times, strict=False)]
    assert waits[:9] == [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200]
    assert set(waits[9:]) == {60000}
    assert caplog.records[0].getMessage() == "Notification time out: 400 ms"


def test_unreachable_members_are_tried_more_often() -> None:
    """Elections end early here, so somebody who was missed must not have to wait a minute."""
    voter = Voter(1)
    voter.gone.add(3)
    dialled = []
    while voter.now_ms - NOW < 100_000:
        voter.wait(voter.election.next_timer_ms() - voter.now_ms)
        if 3 in [sid for sid, _ in voter.sent()]:
            dialled.append(voter.now_ms)
    gaps = [later - earlier for earlier, later in itertools.pairwise(dialled)]
    assert max(gaps) <= MAX_REDIAL_MS


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        voter = Voter(1, zxid=0x2A)
        voter.hears(2, 3, state=FOLLOWING, round=0x1F, epoch=2, zxid=0x200000001)
        voter.hears(3, 77)
    assert [record.getMessage() for record in caplog.records] == [
        "New election. My id = 1, proposed zxid=0x2a",
        "Notification: my state:LOOKING; n.sid:2, n.state:FOLLOWING, n.leader:3, n.round:0x1f, "
        "n.peerEpoch:0x2, n.zxid:0x200000001, message format version:0x2, n.config version:0x0",
        "Notification: my state:LOOKING; n.sid:3, n.state:LOOKING, n.leader:77, n.round:0x1, "
        "n.peerEpoch:0x1, n.zxid:0x10, message format version:0x2, n.config version:0x0",
        "Ignoring notification for non-cluster member sid 77 from sid 3",
    ]


# ---------------------------------------------------------------------- counting votes


def test_better_vote_is_taken_over_and_told() -> None:
    voter = Voter(1)
    voter.gone.add(2)
    voter.hears(3, 3)
    assert voter.result() == (FOLLOWING, 3)
    assert voter.election.elected is not None
    assert voter.election.elected.rank() == (1, 0x10, 3)


def test_worse_vote_is_answered_with_ours() -> None:
    """It may have missed ours, while it was following somebody."""
    voter = Voter(2)
    voter.hears(1, 1)
    assert voter.said() == [(1, LOOKING, 2, 1)]
    voter.hears(1, 2)
    assert voter.said() == [], "it has it now"


def test_two_of_three_wait_for_the_third_to_be_heard_or_known_to_be_gone() -> None:
    voter = Voter(2)
    voter.hears(1, 2)
    assert voter.result() is None
    assert voter.election.next_timer_ms() == NOW + FINALIZE_WAIT_MS
    voter.wait(FINALIZE_WAIT_MS - 1)
    assert voter.result() is None
    voter.wait(1)
    assert voter.result() == (LEADING, 2)
    assert voter.election.next_timer_ms() == NEVER


def test_an_unreachable_third_is_not_waited_for() -> None:
    voter = Voter(2)
    voter.gone.add(3)
    voter.hears(1, 2)
    assert voter.result() == (LEADING, 2)


def test_a_third_found_unreachable_ends_the_wait() -> None:
    voter = Voter(2)
    voter.hears(1, 2)
    assert voter.result() is None
    voter.gone.add(3)
    assert voter.result() == (LEADING, 2)


def test_a_better_vote_ends_the_wait() -> None:
    voter = Voter(2)
    voter.hears(1, 2)
    voter.wait(FINALIZE_WAIT_MS - 1)
    voter.hears(3, 3)
    assert voter.result() == (FOLLOWING, 3)


def test_a_better_vote_without_quorum_is_told_first() -> None:
    voter = Voter(2, members_of([1, 2, 3, 4, 5]))
    for sid in (1, 4):
        voter.hears(sid, 2)
    voter.sent()
    voter.hears(3, 3)
    assert voter.said() == [(sid, LOOKING, 3, 1) for sid in (1, 3, 4, 5)]
    voter.wait(2 * FINALIZE_WAIT_MS)
    assert voter.result() is None


def test_all_votes_heard_end_it_at_once() -> None:
    """Whoever has voted in this round has nothing better than our proposal."""
    voter = Voter(3, members_of([1, 2, 3, 4, 5]))
    voter.hears(1, 1)
    voter.hears(2, 3)
    voter.hears(4, 3, zxid=0x10)
    assert voter.result() is None, "5 is silent"
    voter.hears(5, 2)
    assert voter.result() == (LEADING, 3)


def test_a_leader_that_has_not_spoken_itself_is_not_followed_at_once() -> None:
    """Votes sent again on new connections may be for somebody who is dead by now."""
    voter = Voter(1)
    voter.gone.add(3)
    voter.hears(2, 3)
    assert voter.result() is None
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() == (FOLLOWING, 3), "as the reference does"


def test_a_leader_that_went_away_is_not_followed_at_once() -> None:
    voter = Voter(1, members_of([1, 2, 3, 4, 5]))
    voter.hears(5, 5)
    voter.hears(2, 5)
    voter.gone |= {3, 4, 5}
    assert voter.result() is None


def test_changed_minds_cost_the_quorum() -> None:
    voter = Voter(2, members_of([1, 2, 3, 4, 5]))
    voter.hears(1, 2)
    voter.hears(3, 2)
    assert voter.election.next_timer_ms() == NOW + FINALIZE_WAIT_MS
    voter.hears(3, 3, zxid=0x9)
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() is None


def test_one_voter_elects_itself() -> None:
    voter = Voter(1, members_of([1], [4]))
    assert voter.result() == (LEADING, 1)


def test_higher_round_forgets_the_votes_of_the_last() -> None:
    voter = Voter(2)
    voter.hears(1, 2)
    voter.hears(3, 1, zxid=0x5, round=7)
    assert voter.election.logical_clock == 7
    assert voter.said() == [(1, LOOKING, 2, 7), (3, LOOKING, 2, 7)], "ours is better than that"
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() is None
    voter.hears(3, 3, zxid=0x11, round=8)
    assert voter.said() == [(1, LOOKING, 3, 8), (3, LOOKING, 3, 8)]


def test_lower_round_is_answered_and_does_not_count() -> None:
    voter = Voter(2)
    voter.look()
    voter.sent()
    voter.gone.add(3)
    voter.hears(1, 3, zxid=0x99, round=1)
    assert voter.said() == [(1, LOOKING, 2, 2)]
    assert voter.result() is None


def test_observing_senders_are_ignored() -> None:
    voter = Voter(2)
    voter.gone.add(3)
    voter.hears(1, 2, state=OBSERVING)
    assert voter.said() == []
    assert voter.result() is None


def test_weight_zero_is_never_elected() -> None:
    members = members_of([1, 2, 3], [], 0, "group.1=1:2:3", "weight.3=0")
    voter = Voter(2, members)
    voter.hears(3, 3, zxid=0x99)
    assert voter.said() == []
    voter.hears(1, 2)
    assert voter.result() == (LEADING, 2)


def test_groups_elect_by_weight() -> None:
    groups = ("group.1=1:2:3", "group.2=4:5:6", "group.3=7:8:9")
    voter = Voter(9, members_of(range(1, 10), [], 0, *groups))
    voter.gone |= {1, 2, 3, 4}
    for sid in (5, 6):
        voter.hears(sid, 9)
        assert voter.result() is None
    voter.hears(7, 9)
    assert voter.result() is None, "8 has not spoken"
    voter.hears(8, 9)
    assert voter.result() == (LEADING, 9)


def test_majority_of_servers_is_no_quorum_of_groups() -> None:
    groups = ("group.1=1:2:3", "group.2=4:5", "weight.1=5")
    voter = Voter(5, members_of(range(1, 6), [], 0, *groups))
    for sid in (2, 3, 4):
        voter.hears(sid, 5)
    voter.gone.add(1)
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() is None


def test_both_configurations_have_to_agree() -> None:
    proposed = members_of([3, 4, 5], [], 0x100)
    voter = Voter(3, last_proposed=proposed, reconfig_enabled=True)
    voter.gone |= {1, 5}
    voter.hears(2, 3)
    assert voter.result() is None, "a quorum of the old one"
    voter.hears(4, 3)
    assert voter.result() == (LEADING, 3)


# ---------------------------------------------------------------------- servers without database


def test_without_database_we_do_not_judge_others() -> None:
    voter = Voter(2, zxid=-1)
    voter.gone.add(3)
    voter.hears(1, 1)
    voter.hears(1, 2)
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() is None
    voter.hears(1, 3, state=FOLLOWING)
    voter.hears(3, 3, state=LEADING)
    assert voter.result() == (FOLLOWING, 3)


def test_without_database_its_vote_does_not_count_nor_is_it_waited_for() -> None:
    voter = Voter(2)
    voter.hears(3, 3, zxid=-1)
    assert voter.said() == []
    voter.hears(1, 2)
    assert voter.result() == (LEADING, 2)


def test_an_abstention_can_end() -> None:
    voter = Voter(2)
    voter.hears(3, NOBODY, zxid=NOBODY, epoch=NOBODY)
    voter.hears(3, 3)
    assert voter.said()[0] == (1, LOOKING, 3, 1)


# ---------------------------------------------------------------------- joining a leader


@pytest.mark.parametrize("round", [1, 4], ids=["same round", "another round"])
def test_joining_an_established_leader(round: int) -> None:
    voter = Voter(1)
    voter.hears(2, 3, state=FOLLOWING, round=round)
    assert voter.result() is None
    voter.hears(3, 3, state=LEADING, round=round)
    assert voter.result() == (FOLLOWING, 3)
    assert voter.election.logical_clock == round


def test_a_leader_alone_is_not_enough() -> None:
    voter = Voter(1)
    voter.hears(3, 3, state=LEADING, round=4)
    voter.wait(FINALIZE_WAIT_MS)
    assert voter.result() is None


def test_dead_leader_of_others_is_not_joined() -> None:
    """checkLeader: followers that have not noticed its death are not believed."""
    voter = Voter(1, members_of([1, 2, 3, 4, 5]))
    for sid in (2, 3, 4):
        voter.hears(sid, 5, state=FOLLOWING, round=4)
        voter.hears(sid, 5, state=FOLLOWING, round=1)
    assert voter.result() is None
    voter.hears(5, 5, state=LEADING, round=1)
    assert voter.result() == (FOLLOWING, 5)


def test_leader_that_follows_another_is_not_joined() -> None:
    voter = Voter(1, members_of([1, 2, 3, 4, 5]))
    for sid in (2, 3, 4):
        voter.hears(sid, 5, state=FOLLOWING, round=4)
    voter.hears(5, 2, state=FOLLOWING, round=5)
    assert voter.result() is None


def test_rolling_restarts_left_different_zxids_and_rounds() -> None:
    """ZOOKEEPER-1732, 1805: the same leader and epoch is agreement enough."""
    voter = Voter(1)
    voter.hears(2, 3, state=FOLLOWING, round=9, zxid=0x77, epoch=4)
    voter.hears(3, 3, state=LEADING, round=2, zxid=0x500, epoch=4)
    assert voter.result() == (FOLLOWING, 3)


def test_different_epochs_of_one_leader_are_no_agreement() -> None:
    voter = Voter(1)
    voter.hears(2, 3, state=FOLLOWING, round=9, epoch=3)
    voter.hears(3, 3, state=LEADING, round=9, epoch=4)
    assert voter.result() is None


def test_servers_that_do_not_say_their_epoch() -> None:
    """ZOOKEEPER-1808, 1818: format 0 beside format 2."""
    voter = Voter(1)
    old = Notification(FOLLOWING, 3, 0x10, 9, 0, 0).encode()[:28]
    voter.hears_bytes(2, old)
    voter.hears(3, 3, state=LEADING, round=9, epoch=4)
    assert voter.result() == (FOLLOWING, 3)


def test_vote_of_an_old_server_counts() -> None:
    voter = Voter(2, zxid=0x100000005)
    voter.gone.add(3)
    voter.hears_bytes(1, Notification(LOOKING, 2, 0x100000005, 1, 0, 0).encode()[:28])
    assert voter.result() == (LEADING, 2)


def test_others_found_us() -> None:
    """Their votes were lost on the way; in our round they may count, in another they are old."""
    voter = Voter(3, members_of([1, 2, 3, 4, 5]))
    for sid in (1, 2, 4):
        voter.hears(sid, 3, state=FOLLOWING, round=7)
    assert voter.result() is None
    voter.hears(1, 3, state=FOLLOWING, round=1)
    voter.hears(2, 3, state=FOLLOWING, round=1)
    assert voter.result() == (LEADING, 3)


def test_observer_joins() -> None:
    voter = Voter(4)
    voter.hears(2, 3, state=FOLLOWING, round=1)
    voter.hears(3, 3, state=LEADING, round=1)
    assert voter.result() == (OBSERVING, 3)


# ---------------------------------------------------------------------- answering others


def led_by(leader: int, sid: int, state: int) -> Voter:
    """Voter `sid` in an ensemble that has found `leader`, in round 1."""
    voter = Voter(sid)
    for other in {1, 2, 3} - {sid}:
        voter.hears(other, leader)
    assert voter.election.elected is not None
    voter.take_role()
    assert (voter.state, voter.vote.leader) == (state, leader)
    return voter


def test_who_looks_is_told_of_the_leader() -> None:
    voter = led_by(3, 2, FOLLOWING)
    voter.vote = voter.vote.with_peer_epoch(2)
    voter.hears(1, 1, round=9)
    ((sid, n),) = voter.sent()
    assert (sid, n.state, n.leader, n.election_epoch, n.peer_epoch) == (1, FOLLOWING, 3, 1, 2)
    assert n.config == THREE.text()
    for state in (FOLLOWING, LEADING, OBSERVING):
        voter.hears(1, 1, state=state)
    assert voter.said() == []


def test_result_is_told_to_those_who_may_still_look() -> None:
    voter = Voter(2)
    voter.hears(4, NOBODY, zxid=NOBODY, epoch=NOBODY)
    assert voter.said() == [(4, LOOKING, 2, 1)]
    voter.hears(3, 3)
    voter.sent()
    voter.hears(1, 3)
    assert voter.said() == [(sid, FOLLOWING, 3, 1) for sid in (1, 3, 4)]


def test_who_is_not_there_is_told_when_it_asks() -> None:
    voter = Voter(2)
    voter.gone.add(1)
    voter.hears(3, 3)
    assert voter.said() == [(3, FOLLOWING, 3, 1)]


def test_who_asked_is_told_the_epoch_when_it_is_known() -> None:
    """Votes for one leader count together only if they agree in its epoch."""
    voter = led_by(3, 3, LEADING)
    voter.hears(2, 2, round=2)
    voter.sent()
    voter.vote = voter.vote.with_peer_epoch(5)
    voter.election.established(voter.vote, voter.state)
    assert [(sid, n.state, n.leader, n.peer_epoch) for sid, n in voter.sent()] == [
        (2, LEADING, 3, 5)
    ]
    # From now on the answer is complete.
    voter.hears(1, 1, round=2)
    assert len(voter.sent()) == 1
    voter.election.established(voter.vote, voter.state)
    assert voter.sent() == []


def test_strangers_are_answered_with_the_current_round() -> None:
    voter = led_by(3, 2, FOLLOWING)
    voter.election.logical_clock = 6
    for stranger in (4, 99):
        voter.hears(stranger, NOBODY, zxid=NOBODY, epoch=NOBODY)
        assert voter.said() == [(stranger, FOLLOWING, 3, 6)]
        for state in (FOLLOWING, LEADING, OBSERVING):
            voter.hears(stranger, 99, state=state)
        assert voter.said() == [], "they did not ask"


def test_strangers_do_not_vote() -> None:
    voter = Voter(2)
    voter.gone.add(3)
    for stranger in (4, 99):
        voter.hears(stranger, 2)
        voter.hears(stranger, 3, state=LEADING)
        assert voter.said() == [(stranger, LOOKING, 2, 1)]
    assert voter.result() is None


def test_observers_do_not_answer_each_other() -> None:
    """ZOOKEEPER-1807. As strangers they would get an answer; they do not even ask."""
    members = members_of([1, 2, 3], [4, 5])
    voter = Voter(4, members, look=False)
    voter.look()
    assert 5 not in [sid for sid, _ in voter.sent()]


def test_who_looks_and_asks_without_end_is_answered_now_and_then() -> None:
    voter = Voter(2)
    answers = 0
    for _ in range(100):
        voter.hears(4, NOBODY)
        answers += len(voter.sent())
        voter.now_ms += 10
    assert answers == 1000 // ANSWER_INTERVAL_MS


@pytest.mark.parametrize("state", [LOOKING, OBSERVING])
def test_observers_do_not_answer_voters(state: int) -> None:
    """Those would answer that, and so on without end."""
    voter = Voter(4)
    if state == OBSERVING:
        voter.hears(2, 3, state=FOLLOWING)
        voter.hears(3, 3, state=LEADING)
        voter.take_role()
    else:
        voter.hears(1, 3, round=4)
        voter.sent()
    for round in (1, 4):
        voter.hears(1, 1, round=round)
    assert voter.said() == []


def test_strangers_in_thousands() -> None:
    voter = Voter(2)
    for sid in range(1000, 1000 + 2 * MAX_ASKERS):
        voter.hears(sid, 2)
    voter.sent()
    voter.gone.add(3)
    voter.hears(1, 2)
    told = [sid for sid, n in voter.sent() if n.state == LEADING]
    assert len(told) == MAX_ASKERS + 1


def test_between_two_elections() -> None:
    """The log of the last role is still being written: we look, but do not vote yet."""
    voter = led_by(3, 2, FOLLOWING)
    voter.election.stop()
    voter.state, voter.vote = LOOKING, Vote(2, 0x10, 1, 1)
    voter.hears(1, 1, round=2)
    assert voter.said() == []
    voter.hears(4, NOBODY)
    assert voter.said() == [(4, LOOKING, 2, 1)]
    voter.wait(10_000)
    assert voter.said() == []
    voter.look()
    assert voter.said() == [(1, LOOKING, 2, 2), (3, LOOKING, 2, 2)]


# ---------------------------------------------------------------------- elected in vain


def test_leader_is_abandoned() -> None:
    voter = led_by(3, 3, LEADING)
    assert not voter.election.abandoned()
    voter.hears(1, 1, round=2)
    assert not voter.election.abandoned(), "2 is enough"
    voter.hears(2, 2, round=2)
    assert voter.election.abandoned()
    assert not voter.election.abandoned({1}), "who follows us has come back"
    voter.hears(2, 3, state=FOLLOWING, round=2)
    assert not voter.election.abandoned()


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"leader": 1}, False),  # its vote before it heard of us
        ({"leader": 3}, False),
        ({"leader": 1, "zxid": 0x11}, True),  # it heard of somebody better
        ({"leader": 1, "zxid": 0x11, "round": 0}, False),  # long ago
        ({"leader": 1, "state": FOLLOWING}, True),
        ({"leader": 1, "state": FOLLOWING, "round": 0}, False),
        ({"leader": 3, "round": 2}, True),  # it gave up on us
        ({"leader": 3, "round": 2, "state": FOLLOWING}, False),
    ],
)
def test_what_counts_as_turning_away(change: dict[str, int], gone: bool) -> None:
    voter = led_by(3, 3, LEADING)
    for sid in (1, 2):
        voter.hears(sid, **change)
    assert voter.election.abandoned() is gone


def test_follower_notices_that_its_leader_is_for_somebody_else() -> None:
    voter = Voter(1)
    voter.gone.add(3)
    voter.hears(2, 2)
    assert voter.result() == (FOLLOWING, 2)
    voter.take_role()
    voter.hears(3, 3)
    assert not voter.election.abandoned(), "that is the other's affair"
    voter.hears(2, 2)
    assert not voter.election.abandoned(), "it is not done yet"
    voter.hears(2, 3)
    assert voter.election.abandoned()
    voter.election.stop()
    assert not voter.election.abandoned()


# ---------------------------------------------------------------------- configurations


NEWER = members_of([2, 3, 5], [], 0x200)


def test_newer_configuration_is_heard_of() -> None:
    voter = Voter(2, members_of([1, 2, 3], [], 0x100), reconfig_enabled=True)
    voter.hears(3, 3, config=NEWER.text())
    assert voter.said() == [], "nothing counts until it is activated"
    assert voter.election.take_newer_config() == NEWER
    assert voter.election.take_newer_config() is None
    # From a stranger, too: whoever was added does not know us either.
    voter.hears(5, 5, config=NEWER.text())
    assert voter.election.take_newer_config() == NEWER


def test_same_members_in_a_newer_version_do_not_disturb() -> None:
    voter = Voter(2, members_of([1, 2, 3], [], 0x100), reconfig_enabled=True)
    same = voter.view.committed.with_version(0x200)
    voter.gone.add(3)
    voter.hears(1, 2, config=same.text())
    assert voter.election.take_newer_config() == same
    assert voter.result() == (LEADING, 2)


@pytest.mark.parametrize("version", [0x50, 0x100])
def test_older_configuration_is_not(version: int) -> None:
    voter = Voter(2, members_of([1, 2, 3], [], 0x100), reconfig_enabled=True)
    voter.gone.add(3)
    voter.hears(1, 2, config=members_of([1, 2], [], version).text())
    assert voter.election.take_newer_config() is None
    assert voter.result() == (LEADING, 2)


def test_without_reconfig_the_static_list_stays() -> None:
    """ZOOKEEPER-3829; and no election starts anew on each notification."""
    voter = Voter(2)
    voter.gone.add(3)
    voter.hears(1, 2, config=NEWER.text())
    assert voter.election.take_newer_config() is None
    assert voter.result() == (LEADING, 2)


def test_with_a_leader_configurations_come_from_it() -> None:
    voter = led_by(3, 2, FOLLOWING)
    voter.view.reconfig_enabled = True
    voter.hears(1, 1, config=NEWER.text())
    assert voter.election.take_newer_config() is None
    assert voter.said() == [(1, FOLLOWING, 3, 1)]


@pytest.mark.parametrize("text", ["server.1=nonsense", "nonsense", "\x00", "version=zz", "=", ""])
def test_unreadable_configuration_is_left_out(text: str) -> None:
    voter = Voter(2, reconfig_enabled=True)
    voter.gone.add(3)
    voter.hears(1, 2, config=text)
    assert voter.election.take_newer_config() is None
    assert voter.result() == (LEADING, 2)


def test_names_of_any_script() -> None:
    """ZOOKEEPER-4787: UTF-8, whatever the platform."""
    text = "server.2=bücher.example:1:2:participant\nserver.3=zoo三:1:2:participant\nversion=300"
    voter = Voter(2, members_of([1, 2, 3], [], 0x100), reconfig_enabled=True)
    voter.hears(3, 3, config=text)
    newer = voter.election.take_newer_config()
    assert newer is not None
    assert newer.servers[3].addresses[0][0] == "zoo三"


# ---------------------------------------------------------------------- bad input


GOOD = Notification(LOOKING, 2, 0x10, 1, 1, 2, "x" * 20).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        GOOD[:27],
        GOOD[:39],
        GOOD[:41],
        GOOD[:43],
        GOOD[:-1],
        GOOD[:40] + b"\xff\xff\xff\xff" + GOOD[44:],
        GOOD[:40] + b"\x7f\xff\xff\xff" + GOOD[44:],
        b"\x00\x00\x00\x04" + GOOD[4:],
        b"\xff\xff\xff\xff" + GOOD[4:],
    ],
)
def test_malformed_notification_is_ignored(payload: bytes) -> None:
    """ZOOKEEPER-3769: and the election goes on."""
    voter = Voter(2)
    voter.gone.add(3)
    voter.hears_bytes(1, payload)
    assert voter.said() == []
    assert voter.result() is None
    voter.hears_bytes(1, GOOD)
    assert voter.result() == (LEADING, 2)


numbers = st.one_of(
    st.integers(0, 4), st.sampled_from([NOBODY, -1, (1 << 63) - 1, 0x10, 0x11, 1 << 32])
)
notifications = st.builds(
    Notification,
    st.integers(-1, 5),
    numbers,
    numbers,
    numbers,
    numbers,
    st.sampled_from([-1, 0, 1, 2, 3]),
    st.sampled_from(["", THREE.text(), NEWER.text(), "server.1=nonsense"]),
)
payloads = st.one_of(st.binary(max_size=60), notifications.map(Notification.encode), st.just(GOOD))


@given(
    st.lists(st.tuples(st.integers(1, 5), payloads, st.integers(0, 300)), max_size=30),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)
def test_nothing_that_is_said_breaks_an_election(
    said: list[tuple[int, bytes, int]], sid: int, reconfig_enabled: bool
) -> None:
    """It ends with a quorum of votes or goes on; what we say stays well formed."""
    voter = Voter(sid, reconfig_enabled=reconfig_enabled)
    for sender, payload, wait_ms in said:
        if sender == sid:
            continue
        voter.hears_bytes(sender, payload)
        for _, n in voter.sent():
            assert 0 <= n.state <= 3
            assert n.config == THREE.text()
        voter.wait(wait_ms)
        elected = voter.election.elected
        if elected is not None:
            assert elected.leader in THREE.participants
            leading = voter.election.elected_state == LEADING
            assert leading == (elected.leader == sid)
            break


# ---------------------------------------------------------------------- whole ensembles


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(5))
def test_members_that_start_together_elect_within_milliseconds(count: int, seed: int) -> None:
    network = ensemble(count, seed, observers=[8, 9])
    took_ms = network.until(network.stable, 100)
    assert network.leaders() == [count]
    assert took_ms <= 25
    network.run(2000)
    assert network.stable()
    assert [len(node.elections) for node in network.nodes.values()] == [1] * (count + 2)


@pytest.mark.parametrize("seed", range(10))
def test_most_recent_log_wins(seed: int) -> None:
    rng = Random(seed)
    network = Network(seed)
    members = members_of(range(1, 6))
    for sid in range(1, 6):
        node = Node(network, sid, members, zxid=rng.randrange(4), epoch=rng.randrange(3))
        network.after(rng.uniform(0, 2), node.start)
    best = max(network.nodes.values(), key=lambda node: (node.epoch, node.zxid, node.sid))
    network.until(network.stable, 100)
    assert network.leaders() == [best.sid]


@pytest.mark.parametrize("seed", range(10))
def test_leader_killed(seed: int) -> None:
    """The survivors elect within milliseconds: that it is dead is known, not waited for."""
    network = ensemble(3, seed)
    network.until(network.stable, 100)
    network.run(500)
    network.kill(3)
    took_ms = network.until(lambda: network.leaders() == [2] and network.stable(), 300)
    assert took_ms < 60
    assert [node.elections[-1][0] < 20 for node in network.nodes.values()] == [True] * 3


@pytest.mark.parametrize("seed", range(10))
def test_silent_member_costs_the_wait_and_no_more(seed: int) -> None:
    """Its kernel takes connections, it says nothing: it might still have the better vote."""
    network = Network(seed)
    members = members_of([1, 2, 3])
    for sid in (1, 2, 3):
        node = Node(network, sid, members)
        if sid < 3:
            network.after(0, node.start)
    took_ms = network.until(lambda: network.stable([1, 2]), 1000)
    assert FINALIZE_WAIT_MS <= took_ms < FINALIZE_WAIT_MS + 30
    assert network.leaders() == [2]


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_late_starter_joins_within_milliseconds(late: int, seed: int) -> None:
    network = Network(seed)
    members = members_of([1, 2, 3])
    for sid in (1, 2, 3):
        Node(network, sid, members)
    network.nodes[late].alive = False
    others = [sid for sid in (1, 2, 3) if sid != late]
    for sid in others:
        network.after(0, network.nodes[sid].start)
    assert network.until(lambda: network.stable(others), 100) < 25
    network.run(90_000)
    network.nodes[late].alive = True
    network.nodes[late].start()
    assert network.until(network.stable, 100) < 25
    assert network.leaders() == [max(others)]


@pytest.mark.parametrize("seed", range(5))
def test_a_member_that_was_alone_for_long_elects_as_soon_as_another_comes(seed: int) -> None:
    network = Network(seed)
    members = members_of([1, 2, 3])
    for sid in (1, 2, 3):
        Node(network, sid, members).alive = sid == 1
    network.nodes[1].start()
    network.run(600_000)
    assert network.nodes[1].state == LOOKING
    network.nodes[2].alive = True
    network.nodes[2].start()
    assert network.until(lambda: network.stable([1, 2]), 500) < 25


@pytest.mark.parametrize("seed", range(20))
def test_members_whose_processes_start_one_by_one(seed: int) -> None:
    """Who is not up yet refuses connections, and is not waited for; nobody is left alone."""
    rng = Random(seed)
    network = Network(seed)
    members = members_of([1, 2, 3], [4])

    def begin(node: Node) -> None:
        node.alive = True
        node.start()

    for sid in (1, 2, 3, 4):
        node = Node(network, sid, members)
        node.alive = False
        network.after(rng.uniform(0, 6), lambda node=node: begin(node))
    network.run(6)
    assert network.until(lambda: network.stable([1, 2, 3]), 1000) < 60
    # Nobody calls an observer that was too early.
    assert network.until(network.stable, 1000) < 250
    network.run(1000)
    assert network.stable()


def test_partition_and_healing() -> None:
    network = ensemble(5, 1)
    network.until(network.stable, 100)
    network.isolate(5)
    network.until(lambda: network.stable([1, 2, 3, 4]), 2000)
    network.run(20_000)
    assert network.nodes[5].state == LOOKING, "alone it cannot lead"
    network.cut.clear()
    network.until(network.stable, 8000)
    assert network.leaders() == [4]


FAULTS = 6


def life(seed: int, kinds: list[type[FastLeaderElection]], observers: list[int]) -> Network:
    """Members that start, die, come back and lose each other; at last all are well again."""
    rng = Random(seed)
    network = Network(seed)
    count = rng.choice([3, 3, 5])
    members = members_of(range(1, count + 1), observers)
    sids = [*range(1, count + 1), *observers]

    def boot(sid: int, zxid: int, epoch: int, delay_ms: float) -> None:
        node = Node(network, sid, members, zxid=zxid, epoch=epoch, kind=rng.choice(kinds))
        node.alive = False

        def begin() -> None:
            if network.nodes[sid] is node:
                node.alive = True
                node.start()

        network.after(delay_ms, begin)

    for sid in sids:
        boot(sid, rng.randrange(3), rng.randrange(2), rng.choice([0, 2, 50, 500]) * rng.random())
    for _ in range(rng.randrange(1, 30)):
        network.run(rng.choice([1, 5, 20, 200, 1000]) * rng.random())
        sid, fault = rng.choice(sids), rng.randrange(FAULTS)
        node = network.nodes[sid]
        if fault == 0 and node.alive:
            network.kill(sid)
        elif fault == 1 and not node.alive:
            boot(sid, node.zxid, node.epoch, rng.random() * 10)
        elif fault == 2:
            network.lose()
        elif fault == 3:
            network.isolate(sid)
        elif fault == 4:
            network.cut.clear()
        elif fault == 5:
            network.cut.add((sid, rng.choice(sids)))
    network.cut.clear()
    for sid in sids:
        node = network.nodes[sid]
        if not node.alive:
            boot(sid, node.zxid, node.epoch, 0)
    network.run(20)
    return network


KINDS: dict[str, list[type[FastLeaderElection]]] = {
    "ours": [FastLeaderElection],
    "as the reference": [ReferenceElection],
    "mixed": [FastLeaderElection, ReferenceElection],
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("seed", range(25))
def test_converges_after_any_faults(seed: int, kinds: list[type[FastLeaderElection]]) -> None:
    """Exactly one leader whom all follow, soon (a dial into a cut cable lasts 5 s), and it stays.

    Mixed ensembles as well, where some wait as the reference does.
    """
    network = life(seed, kinds, [8, 9] if seed % 3 == 0 else [])
    network.until(network.stable, 15_000)
    leaders = network.leaders()
    network.run(1000)
    assert network.stable()
    assert network.leaders() == leaders


def test_same_seed_same_election() -> None:
    def transcript(seed: int) -> list[list[tuple[int, int, bytes]]]:
        network = life(seed, KINDS["mixed"], [8])
        network.run(5000)
        return [node.sent for node in network.nodes.values()]

    assert transcript(3) == transcript(3)
    assert transcript(3) != transcript(4)


def test_behind_the_last_round_comes_another() -> None:
    """One notification can say any number. The reference overflows as well, and goes on."""
    last, first = (1 << 63) - 1, -(1 << 63)
    voter = Voter()
    voter.hears(3, 3, zxid=0x20, round=last)
    assert {round for _, _, _, round in voter.said()} == {last}
    voter.look()
    assert {round for _, _, _, round in voter.said()} == {first}
    # The others are still in the last one.
    voter.hears(3, 3, zxid=0x20, round=last)
    voter.hears(1, 3, zxid=0x20, round=last)
    voter.wait(1000)
    assert voter.result() == (FOLLOWING, 3)
