"""FastLeaderElection: members tell each other whom they would follow, until a quorum agrees.

Owns the votes and when they are enough; also answers those who look for a leader while we have one.
It must not know connections: messages go out through `take_messages`, to `QuorumCnxManager.send`.

An election here takes as long as it must. The reference waits 200 ms for a better vote once it has
a quorum; we wait only while somebody who might still have one is silent.
Source: FastLeaderElection, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger
from typing import Final

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.packets import Notification
from zkpy.quorum.members import OBSERVER, Members, parse_config_text
from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING, OBSERVING, STATE_NAMES
from zkpy.quorum.vote import Vote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

    from zkpy.quorum.view import View

log = getLogger(__name__)

NEVER: Final = 1 << 62
# Format of our notifications: with the configuration.
VERSION: Final = 2
# How long a better vote is waited for. Source: finalizeWait.
FINALIZE_WAIT_MS: Final = 200
# While there is no leader, members that could not be reached are tried so often. The reference
# tries them when it repeats its vote, in the end once a minute.
MAX_REDIAL_MS: Final = 2000
# While we look ourselves, others who do are not answered more often.
ANSWER_INTERVAL_MS: Final = 100
# Ids are free to invent: not more than a large ensemble has are kept.
MAX_ASKERS: Final = 256
# What an observer proposes, and whoever is no voter: nobody.
NOBODY: Final = -(1 << 63)
# The zxid of a server whose database is missing without having been declared new.
NO_DATABASE: Final = -1
FIRST_ROUND: Final = -(1 << 63)
LAST_ROUND: Final = (1 << 63) - 1


class FastLeaderElection:
    """The elections of one member, one after the other.

    `look` begins one; it is over when `elected` is set, which any other call may do. `unreachable`
    says of which members nothing is to be expected.
    """

    def __init__(
        self,
        my_id: int,
        view: View,
        *,
        unreachable: Callable[[int], bool],
        min_notification_interval_ms: int = 200,
        max_notification_interval_ms: int = 60_000,
    ) -> None:
        self.my_id = my_id
        self.view = view
        self._unreachable = unreachable
        self._min_interval_ms = min_notification_interval_ms
        self._max_interval_ms = max(min_notification_interval_ms, max_notification_interval_ms)
        # The round: counts elections, takes over larger numbers of others, dies with the process.
        self.logical_clock = 0
        # The result, and the state it puts us in; `elected` is None while we look.
        self.elected: Vote | None = None
        self.elected_state = LOOKING
        self.looking = False
        # What we have to offer, and whom we are for at present.
        self._initial = Vote(NOBODY, NOBODY, 0, NOBODY)
        self.proposal = self._initial
        # Votes of this round, and of servers that found a leader in whatever round.
        self._received: dict[int, Vote] = {}
        self._out_of_election: dict[int, Vote] = {}
        # Voters that look for a leader without being able to be one.
        self._abstaining: set[int] = set()
        # Who asked us while we had no answer, or one that will change with the leader's new epoch.
        # When it was answered last.
        self._askers: dict[int, int] = {}
        # Voters that are for another leader than the one we found.
        self._deserters: set[int] = set()
        # (currentEpoch, last zxid) of voters, as they told when they proposed themselves.
        self.histories: dict[int, tuple[int, int]] = {}
        self._is_established = False
        self._interval_ms = self._min_interval_ms
        self._resend_ms = NEVER
        self._redial_ms = NEVER
        self._finalize_ms = NEVER
        self._messages: list[tuple[int, bytes]] = []
        self._newer: Members | None = None
        self._parsed: tuple[str, Members] | None = None

    # ------------------------------------------------------------------ begin, time, results

    def look(self, now_ms: int, zxid: int, peer_epoch: int) -> None:
        """Begin an election. `zxid` is that of our last durable txn, `peer_epoch` currentEpoch."""
        view = self.view
        # A voter may have told us any number; past the last one rounds go on as with the reference.
        clock = self.logical_clock
        self.logical_clock = FIRST_ROUND if clock == LAST_ROUND else clock + 1
        if view.i_vote:
            self._initial = Vote(self.my_id, zxid, 0, peer_epoch)
        else:
            # Whoever cannot lead is for the best of those who can, even if it has more than they:
            # a configuration under way may need its vote. (In the reference only observers are.)
            self._initial = Vote(NOBODY, NOBODY, 0, NOBODY)
        self.elected = None
        self.elected_state = LOOKING
        self.looking = True
        self._newer = None
        self._received.clear()
        self._out_of_election.clear()
        self._abstaining.clear()
        self._deserters.clear()
        self._is_established = False
        self._messages.clear()
        self._interval_ms = self._min_interval_ms
        self._redial_ms = now_ms + self._interval_ms
        self._finalize_ms = NEVER
        log.info("New election. My id = %d, proposed zxid=0x%x", self.my_id, zxid)
        self._propose(self._initial, now_ms)
        self._evaluate(now_ms)

    def established(self, vote: Vote, state: int) -> None:
        """`vote`, now with the epoch of the leader, is what others are told from now on.

        Those who asked before have to hear of it, as votes count only if they agree in the epoch.
        """
        for sid in sorted(self._askers):
            self._send(sid, vote, vote.election_epoch, state)
        self._askers.clear()
        self._is_established = True

    def stop(self) -> None:
        """The role that came of it is over, or nothing is to come of it: forget the result.

        Until the next `look`, others are told that we have no leader, and what they say is lost.
        """
        self.looking = False
        self.elected = None
        self.elected_state = LOOKING
        self._is_established = False
        self._messages.clear()

    def tick(self, now_ms: int) -> None:
        """Time has passed: repeat our vote, or settle for the one that has a quorum."""
        if not self.looking:
            return
        self._evaluate(now_ms)
        if self._finalize_ms <= now_ms:
            self._decide()
            return
        if now_ms >= self._resend_ms:
            self._interval_ms = min(2 * self._interval_ms, self._max_interval_ms)
            log.info("Notification time out: %d ms", self._interval_ms)
            self._send_all(now_ms)
        elif now_ms >= self._redial_ms:
            for sid in sorted(self.view.voters()):
                if sid != self.my_id and self._unreachable(sid):
                    self._send(sid, self.proposal, self.logical_clock, LOOKING)
            self._redial_ms = now_ms + min(self._interval_ms, MAX_REDIAL_MS)

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        if not self.looking:
            return NEVER
        return min(self._resend_ms, self._redial_ms, self._finalize_ms)

    def take_messages(self) -> list[tuple[int, bytes]]:
        """(sid, payload) to be sent, in order; each is taken once.

        To be called at the end of each turn: if the votes are only waited with for somebody who
        has become unreachable meanwhile, this is where that is noticed.
        """
        if self._finalize_ms != NEVER and self.looking and self._nobody_better():
            self._decide()
        messages = self._messages
        if messages:
            self._messages = []
        return messages

    def take_newer_config(self) -> Members | None:
        """A configuration of a higher version than ours that another member has committed.

        It is to be activated, and if its members are others than ours the election starts again.
        """
        newer, self._newer = self._newer, None
        return newer

    @property
    def deserters(self) -> Set[int]:
        """Voters that are for somebody else, or look again, since we have been elected."""
        return self._deserters

    def abandoned(self, connected: Set[int] = frozenset()) -> bool:
        """Whether what we were elected for cannot come about, as others decided otherwise.

        For a leader: so many turned to somebody else that no quorum can follow us; `connected` are
        those who do. For a learner: the leader itself did. To be asked until the role is
        established; then the connections tell.
        """
        if self.elected_state != LEADING:
            return self.elected is not None and self.elected.leader in self._deserters
        gone = self._deserters - connected
        return bool(gone) and not self.view.has_quorum(self.view.voters() - gone)

    # ------------------------------------------------------------------ what others say

    def received(
        self, sid: int, payload: bytes, now_ms: int, state: int, current_vote: Vote
    ) -> None:
        """Take a notification; `state` and `current_vote` are ours, the latter as told to others.

        One that cannot be read is ignored (ZOOKEEPER-3769).
        """
        try:
            n = Notification.decode(payload)
        except DecodeError as error:
            log.error(
                "Ignoring a notification of %d bytes from sid %d: %s", len(payload), sid, error
            )
            return
        if state == LOOKING and self.elected is not None:
            state, current_vote = self.elected_state, self.elected
        if n.config is not None and state == LOOKING and self._is_newer(n.config, sid):
            return
        if sid not in self.view.voters():
            self._answer_stranger(sid, n, now_ms, state, current_vote)
            return
        if not 0 <= n.state < len(STATE_NAMES):
            return
        log.info(
            "Notification: my state:%s; n.sid:%d, n.state:%s, n.leader:%d, n.round:0x%x, "
            "n.peerEpoch:0x%x, n.zxid:0x%x, message format version:0x%x, n.config version:0x%x",
            STATE_NAMES[state],
            sid,
            STATE_NAMES[n.state],
            n.leader,
            n.election_epoch,
            n.peer_epoch,
            n.zxid,
            n.version,
            self._version_of(n.config),
        )
        if n.state == LOOKING and n.leader == sid:
            self.histories[sid] = (n.peer_epoch, n.zxid)
        if state == LOOKING:
            if self.looking:
                self._count(sid, n, now_ms)
            return
        if n.state == LOOKING and (self._is_voter() or self._knows_newer(n.config)):
            self._note_asker(sid, now_ms)
            self._send(sid, current_vote, current_vote.election_epoch, state)
        self._note_loyalty(sid, n, current_vote)

    def _answer_stranger(
        self, sid: int, n: Notification, now_ms: int, state: int, current_vote: Vote
    ) -> None:
        """Observers, and whoever wants to join: they are told, and do not count.

        (The reference answers whatever they say, and they answer that: two that are both looking,
        or of which one is and the other observes, then talk without end.)
        """
        if n.state != LOOKING:
            return
        if state == LOOKING and now_ms - self._askers.get(sid, NOBODY) < ANSWER_INTERVAL_MS:
            return
        self._note_asker(sid, now_ms)
        self._send(sid, current_vote, self.logical_clock, state)

    def _note_asker(self, sid: int, now_ms: int) -> None:
        if not self._is_established and len(self._askers) < MAX_ASKERS:
            self._askers[sid] = now_ms

    def _is_voter(self) -> bool:
        """Only voters answer voters: those do not listen to others, and would answer back."""
        return self.my_id in self.view.voters()

    def _knows_newer(self, text: str | None) -> bool:
        """Whether we know members of whom the sender has not heard: it may look for others only."""
        return text is not None and self._version_of(text) < self.view.committed.version

    def _is_newer(self, text: str, sid: int) -> bool:
        """Whether `text` has other members and a higher version: nothing else counts then."""
        view = self.view
        if not view.reconfig_enabled or text == view.committed_text:
            return False
        members = self._parse(text)
        if members is None:
            log.error("Something went wrong while processing config received from %d", sid)
            return False
        if members.version <= view.committed.version:
            return False
        log.info(
            "%d Received version: %x my version: %x",
            self.my_id,
            members.version,
            view.committed.version,
        )
        if self._newer is None or members.version > self._newer.version:
            self._newer = members
        return not members.same_members(view.committed)

    def _parse(self, text: str) -> Members | None:
        """As a rule all send the same text, so the last one is kept."""
        if self._parsed is not None and self._parsed[0] == text:
            return self._parsed[1]
        try:
            members = parse_config_text(text, multi_address=True)
        except (ConfigException, IllegalArgument):
            return None
        self._parsed = (text, members)
        return members

    def _version_of(self, text: str | None) -> int:
        if text is None:
            return 0
        if text == self.view.committed_text:
            return self.view.committed.version
        members = self._parse(text)
        return 0 if members is None else members.version

    def _note_loyalty(self, sid: int, n: Notification, elected: Vote) -> None:
        """We have a leader, perhaps ourselves: note who is for somebody else by now.

        That is whoever began another election, or heard of somebody better before it heard of our
        result. Messages of earlier rounds may be late, and say nothing.
        """
        newer = n.election_epoch - elected.election_epoch
        if n.leader == elected.leader and (n.state != LOOKING or newer <= 0):
            self._deserters.discard(sid)
        elif newer > 0:
            self._deserters.add(sid)
        elif newer == 0:
            vote = Vote(n.leader, n.zxid, n.election_epoch, n.peer_epoch)
            if n.state != LOOKING or vote.rank() > elected.rank():
                self._deserters.add(sid)

    # ------------------------------------------------------------------ votes

    def _count(self, sid: int, n: Notification, now_ms: int) -> None:
        """A vote of a voter, while we look."""
        if n.state == OBSERVING:
            return
        if n.leader not in self.view.voters():
            log.warning(
                "Ignoring notification for non-cluster member sid %d from sid %d", n.leader, sid
            )
            if n.state == LOOKING:
                self._abstaining.add(sid)
        elif n.state == LOOKING:
            self._count_looking(sid, n, now_ms)
        elif self._joins(sid, n):
            return
        if n.state == LOOKING and n.election_epoch < self.logical_clock and self._is_voter():
            self._send(sid, self.proposal, self.logical_clock, LOOKING)
        self._evaluate(now_ms)

    def _count_looking(self, sid: int, n: Notification, now_ms: int) -> None:
        if n.zxid == NO_DATABASE:
            self._abstaining.add(sid)
            return
        if self._initial.zxid == NO_DATABASE:
            return  # we may follow, but have nothing to judge others by
        vote = Vote(n.leader, n.zxid, n.election_epoch, n.peer_epoch)
        weight = self.view.weight(n.leader)
        # Who is for nobody has a round for which nobody waits.
        if n.election_epoch > self.logical_clock or self.proposal.leader == NOBODY:
            self.logical_clock = n.election_epoch
            self._received.clear()
            self._propose(vote if vote.beats(self._initial, weight) else self._initial, now_ms)
        elif n.election_epoch < self.logical_clock:
            return
        elif vote.beats(self.proposal, weight):
            self._propose(vote, now_ms)
        elif vote.rank() < self.proposal.rank() and self._is_voter():
            # It may have missed ours while it still followed somebody. (The reference has it wait
            # until we repeat it.)
            self._send(sid, self.proposal, self.logical_clock, LOOKING)
        self._abstaining.discard(sid)
        self._received[sid] = vote

    def _propose(self, vote: Vote, now_ms: int) -> None:
        """Be for `vote` in this round, and tell everybody, ourselves included."""
        self.proposal = Vote(vote.leader, vote.zxid, self.logical_clock, vote.peer_epoch)
        voters = self.view.voters()
        if self.my_id in voters and vote.leader in voters and self._initial.zxid != NO_DATABASE:
            self._received[self.my_id] = self.proposal
        self._finalize_ms = NEVER
        self._send_all(now_ms)

    def _joins(self, sid: int, n: Notification) -> bool:
        """A voter has found a leader: join them if a quorum follows it, and it knows that it leads.

        Without the latter, servers that have not noticed the death of their leader would be
        believed (checkLeader).
        """
        clock = self.logical_clock
        vote = Vote(n.leader, n.zxid, n.election_epoch, n.peer_epoch, n.state, n.version)
        if n.election_epoch == clock:
            # Version 0: among votes of one round, the leader alone is compared.
            self._received[sid] = Vote(n.leader, n.zxid, n.election_epoch, n.peer_epoch, n.state)
            if self._is_joinable(self._received, vote):
                self._finish(vote)
                return True
        self._out_of_election[sid] = vote
        if self._is_joinable(self._out_of_election, vote):
            self.logical_clock = n.election_epoch
            self._finish(vote)
            return True
        return False

    def _is_joinable(self, votes: Mapping[int, Vote], vote: Vote) -> bool:
        if vote.leader == self.my_id:
            known = vote.election_epoch == self.logical_clock
        else:
            leader = votes.get(vote.leader)
            known = leader is not None and leader.state == LEADING
        # The committed configuration alone. Who leads without ever having heard of the proposed one
        # has no quorum of it, and will take it back. (The reference never joins such a leader.)
        return known and self.view.committed_verifier.contains_quorum(supporters(votes, vote))

    # ------------------------------------------------------------------ the decision

    def _evaluate(self, now_ms: int) -> None:
        """After a change of votes: is there a quorum, and does it have to be waited with?"""
        if not self.looking:
            return
        if not self.view.has_quorum(supporters(self._received, self.proposal)):
            self._finalize_ms = NEVER
        elif self._nobody_better():
            self._decide()
        elif self._finalize_ms == NEVER:
            self._finalize_ms = now_ms + FINALIZE_WAIT_MS

    def _nobody_better(self) -> bool:
        """Whether there is no reason to wait for a better vote, nor to doubt the one we have.

        Whoever has voted in this round is for nobody better than our proposal, or it would be
        ours. The leader itself must be among them: a vote that was sent again on a new connection
        may be old, and for somebody who is no more.
        """
        leader, view = self.proposal.leader, self.view
        for sid in view.voters():
            if sid == self.my_id or sid in self._abstaining:
                continue
            vote = self._received.get(sid)
            if vote is not None and not vote.beats(self.proposal, view.weight(vote.leader)):
                if sid != leader or not self._unreachable(sid):
                    continue
            elif sid != leader and self._unreachable(sid):
                continue
            return False
        return True

    def _decide(self) -> None:
        """Our proposal has won."""
        self._finish(self.proposal)

    def _finish(self, vote: Vote) -> None:
        self.looking = False
        self.elected = Vote(vote.leader, vote.zxid, vote.election_epoch, vote.peer_epoch)
        if vote.leader == self.my_id:
            self.elected_state = LEADING
        elif self.view.my_role == OBSERVER:
            self.elected_state = OBSERVING
        else:
            self.elected_state = FOLLOWING
        self._resend_ms = self._redial_ms = self._finalize_ms = NEVER
        # Who still looks need not ask. It also takes the place of a vote that is still to be sent,
        # and is not ours any more. Whoever is not there is told when it asks.
        self._messages.clear()
        for sid in sorted(self.view.voters().union(self._askers)):
            if sid != self.my_id and not self._unreachable(sid):
                self._send(sid, self.elected, self.elected.election_epoch, self.elected_state)

    # ------------------------------------------------------------------ what we say

    def _send_all(self, now_ms: int) -> None:
        for sid in sorted(self.view.voters()):
            if sid != self.my_id:
                self._send(sid, self.proposal, self.logical_clock, LOOKING)
        self._resend_ms = now_ms + self._interval_ms

    def _send(self, sid: int, vote: Vote, election_epoch: int, state: int) -> None:
        notification = Notification(
            state,
            vote.leader,
            vote.zxid,
            election_epoch,
            vote.peer_epoch,
            VERSION,
            self.view.committed_text,
        )
        self._messages.append((sid, notification.encode()))


def supporters(votes: Mapping[int, Vote], vote: Vote) -> set[int]:
    """Whose votes support what `vote` supports."""
    return {sid for sid, other in votes.items() if other.counts_as(vote)}
