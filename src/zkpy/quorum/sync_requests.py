"""SyncRequests: the clients' `sync` requests at a leader, until it is known that it still leads.

A round of PINGs asks a quorum whether it still follows; requests of one turn share it. The commit
of something proposed after a request proves the same. The leader reports both; this file knows
neither proposals nor acknowledgements.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from zkpy.protocol.packets import PING, SYNC, encode_packet
from zkpy.quorum import learner_handler as phases
from zkpy.quorum.learner_handler import LearnerHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zkpy.quorum.view import View


class SyncRound:
    """A round of PINGs: once a quorum has answered, we were the leader when it began.

    `tokens` wait for it, each with the zxid that was proposed last when it came. `marks`: how many
    PINGs each learner has to have answered.
    """

    __slots__ = ("marks", "tokens")

    def __init__(self, tokens: list[tuple[object, int]]) -> None:
        self.tokens = tokens
        self.marks: dict[LearnerHandler, int] = {}


class SyncRequests:
    """Requests in the order they came: waiting for a round, in it, or for a commit; then answered.

    A token that is a LearnerHandler is answered by SYNC on its link, behind the turn's packets
    (`flush_streams`); any other comes out of `take_synced`.
    `pending`: how many are not answered yet. Without any, nothing here has to be called for a
    commit or at the end of a turn.
    """

    __slots__ = (
        "_flush_streams",
        "_my_id",
        "_proven",
        "_round",
        "_view",
        "_waiting",
        "pending",
        "synced",
    )

    def __init__(self, my_id: int, view: View, flush_streams: Callable[[], None]) -> None:
        self._my_id = my_id
        self._view = view
        self._flush_streams = flush_streams
        self.pending = 0
        self._waiting: list[tuple[object, int]] = []
        self._round: SyncRound | None = None
        self._proven: deque[tuple[object, int]] = deque()
        self.synced: list[object] = []

    def add(self, token: object, last_zxid: int) -> None:
        """A request; `last_zxid` is what was proposed last."""
        self.pending += 1
        self._waiting.append((token, last_zxid))

    def start_round(
        self, followers: Iterable[LearnerHandler], last_zxid: int, committed_zxid: int
    ) -> None:
        """The end of a turn: ask `followers`, if somebody waits and no round is on its way."""
        if not self._waiting or self._round is not None:
            return
        round = self._round = SyncRound(self._waiting)
        self._waiting = []
        ping = encode_packet(PING, last_zxid)
        self._flush_streams()
        for handler in list(followers):
            if handler.phase == phases.BROADCAST:
                handler.send(ping)
                handler.pings_sent += 1
                round.marks[handler] = handler.pings_sent
        self.ping_answered(committed_zxid)

    def ping_sent(self, handler: LearnerHandler) -> None:
        """A learner in broadcast has been sent a PING that belongs to no round."""
        if self._round is not None:
            # Whoever joined since the round began may be who it lacks.
            self._round.marks.setdefault(handler, handler.pings_sent)

    def ping_answered(self, committed_zxid: int) -> None:
        """Look whether the present round is complete."""
        round = self._round
        if round is None:
            return
        following = {h.sid for h, mark in round.marks.items() if h.pings_answered >= mark}
        following.add(self._my_id)
        if not self._view.has_quorum(following):
            return
        self._round = None
        self._proven.extend(round.tokens)
        self.release(committed_zxid)

    def release(self, committed_zxid: int) -> None:
        """Answer what is proven, as far as what was proposed before it is committed."""
        proven = self._proven
        while proven and proven[0][1] <= committed_zxid:
            token, _ = proven.popleft()
            self.pending -= 1
            if not isinstance(token, LearnerHandler):
                self.synced.append(token)
            elif not token.link.closed:
                self._flush_streams()
                token.packet(SYNC, 0)

    def release_before(self, zxid: int, committed_zxid: int) -> None:
        """Answer the syncs that came before `zxid` was proposed, now that a quorum has it.

        That quorum has followed us since they came. And the answers must not wait for the round:
        Apache's CommitProcessor expects a SYNC ahead of the COMMITs of what its clients asked for
        later, and without it answers none of them, ever.
        """
        for waiting in ([] if self._round is None else self._round.tokens, self._waiting):
            count = 0
            while count < len(waiting) and waiting[count][1] < zxid:
                count += 1
            self._proven.extend(waiting[:count])
            del waiting[:count]
        self.release(committed_zxid)

    def take_synced(self) -> list[object]:
        """The tokens whose sync is complete, in the order they came."""
        synced = self.synced
        if synced:
            self.synced = []
        return synced
