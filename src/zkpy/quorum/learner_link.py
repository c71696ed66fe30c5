"""LearnerLink: a learner's connection to its leader, from the first dial to the end.

Owns dialling and its retries, the time limits, what a connection's end means for the role, and the
packets of clients' business to the leader. What the leader says is Learner's, which this is the
base of. Source: Learner.connectToLeader, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import DEBUG, getLogger
from typing import Final

from zkpy.protocol.packets import (
    PING,
    REVALIDATE,
    LearnerInfo,
    encode_authinfo,
    encode_packet,
    encode_request_packet,
    encode_revalidation,
    encode_touches,
)
from zkpy.quorum.effects import LEADER, Dial
from zkpy.quorum.states import BROADCAST, DISCOVERY, ELECTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zkpy.quorum.database import Database
    from zkpy.quorum.effects import Effect
    from zkpy.quorum.link import Link
    from zkpy.quorum.view import View
    from zkpy.quorum.vote import Vote

    Ids = tuple[tuple[str, str], ...]

log = getLogger(__name__)

PROTOCOL_VERSION: Final = 0x10000
# Between the end of an election and the leader's open port there may be a moment: the first retry
# is early. A port that refuses for so long belongs to a leader that is gone; a new election finds
# out, and costs less than waiting. The reference gives up after 5 tries in 0.4 s.
FIRST_RETRY_MS: Final = 10
REFUSED_FOR_MS: Final = 1000


class LearnerLink:
    """One attempt to reach one leader and to stay connected. LinkOwner.

    `phase` is ELECTION until `follow`, then DISCOVERY; Learner sets the others.
    `failed`: why the role is over, for good; `fatal_exit_code`: set with it if not only the role
    but the process has to end.
    """

    # Set by Follower and Observer: the packet that registers, and the words of log lines.
    info_type: int
    name: str
    participle: str

    def __init__(
        self,
        my_id: int,
        view: View,
        database: Database,
        *,
        tick_time_ms: int,
        init_limit_ticks: int,
        sync_limit_ticks: int,
        connect_limit_ticks: int,
        effects: list[Effect],
        now_ms: int,
        retry_delay_ms: int,
    ) -> None:
        self.my_id = my_id
        self.view = view
        self.database = database
        self._init_limit_ms = tick_time_ms * init_limit_ticks
        self._sync_limit_ms = tick_time_ms * sync_limit_ticks
        self._connect_limit_ms = tick_time_ms * (connect_limit_ticks or init_limit_ticks)
        self._retry_delay_ms = retry_delay_ms
        self._effects = effects
        self.debug = log.isEnabledFor(DEBUG)

        self.phase = ELECTION
        self.failed: str | None = None
        self.fatal_exit_code: int | None = None
        self.leader_id: int | None = None
        self.link: Link | None = None
        # Connecting: the leader's addresses that are to be dialled next, and the dials under way.
        self._addresses: list[tuple[str, int]] = []
        self._dials: list[Dial] = []
        self._tries = 0
        self._delay_ms = min(FIRST_RETRY_MS, retry_delay_ms)
        self._connect_deadline_ms = self._refused_deadline_ms = now_ms
        self._retry_ms: int | None = None
        # Silence of the leader; `_heard_ms` None: we were busy, count from the next tick.
        self._now_ms = self._connected_ms = now_ms
        self._heard_ms: int | None = now_ms
        self._silence_limit_ms = self._init_limit_ms
        # While the log writes what we caught up with: up to where.
        self._awaited_zxid: int | None = None
        # The ids that came with the last request, and what they are on the wire: mostly the same.
        self._ids: Ids | None = None
        self._encoded_ids = encode_authinfo(None)

    # ------------------------------------------------------------------ connecting

    def follow(self, vote: Vote, now_ms: int) -> None:
        """Dial the leader that was elected."""
        assert self.phase == ELECTION, "one Learner, one attempt"
        self._now_ms = now_ms
        self.phase = DISCOVERY
        self.leader_id = vote.leader
        server = self.view.server(vote.leader)
        if server is None:
            self._fail(f"Couldn't find the leader with id = {vote.leader}")
            return
        self._addresses = list(server.quorum_addresses)
        self._connect_deadline_ms = now_ms + self._connect_limit_ms
        self._refused_deadline_ms = now_ms + min(REFUSED_FOR_MS, self._connect_limit_ms)
        self._dial()

    def _dial(self) -> None:
        """Dial all addresses of the leader at once: the first that answers wins."""
        assert self.leader_id is not None
        self._retry_ms = None
        left_ms = max(1, self._connect_deadline_ms - self._now_ms)
        dials = [Dial(LEADER, self.leader_id, address, left_ms) for address in self._addresses]
        self._addresses.clear()
        self._dials += dials
        self._effects.extend(dials)

    def dialled(self, dial: Dial, link: Link, now_ms: int) -> None:
        """The leader accepted the connection: register."""
        self._now_ms = now_ms
        if self.failed is not None or self.link is not None or dial not in self._dials:
            link.close()
            return
        log.info("Successfully connected to leader, using address: %s", link)
        self._dials.remove(dial)
        self._retry_ms = None
        self.link = link
        link.owner = self
        self._connected_ms = self._heard_ms = now_ms
        info = LearnerInfo(self.my_id, PROTOCOL_VERSION, self.view.committed.version)
        link.send(encode_packet(self.info_type, self.database.accepted_epoch << 32, info.encode()))

    def dial_failed(self, dial: Dial, reason: str, now_ms: int) -> None:
        """Try again a little later, until it has taken too long.

        Not only when all addresses have failed: a name server may not answer for minutes.
        """
        self._now_ms = now_ms
        if dial not in self._dials:
            return
        self._dials.remove(dial)
        if self.failed is not None or self.link is not None:
            return
        self._addresses.append(dial.address)
        if self._retry_ms is not None:
            return
        self._tries += 1
        where = f"{dial.address[0]}:{dial.address[1]}"
        if now_ms + self._delay_ms > self._refused_deadline_ms:
            if not self._dials:
                self._fail(f"cannot connect to leader {dial.sid} at {where}: {reason}")
            return
        if self._tries == 1 or self.debug:
            log.warning(
                "Unexpected exception, tries=%d, remaining init limit=%d, connecting to %s: %s",
                self._tries,
                self._connect_deadline_ms - now_ms,
                where,
                reason,
            )
        self._retry_ms = now_ms + self._delay_ms
        self._delay_ms = min(2 * self._delay_ms, self._retry_delay_ms)

    # ------------------------------------------------------------------ time and the end

    def tick(self, now_ms: int) -> None:
        """Retry a dial; give up on a leader that is silent."""
        self._now_ms = now_ms
        due_ms = self.next_timer_ms()
        if due_ms is None or now_ms < due_ms:
            return
        if self.link is None:
            if now_ms >= self._connect_deadline_ms:
                self._fail(f"no connection to leader {self.leader_id} in time")
            elif self._retry_ms is not None:
                self._dial()
        elif self._heard_ms is None:
            self._heard_ms = now_ms
        else:
            self._fail(f"nothing from the leader for {now_ms - self._heard_ms} ms")

    def next_timer_ms(self) -> int | None:
        """When `tick` has something to do; None if nothing is due ever."""
        if self.failed is not None or self.phase == ELECTION:
            return None
        if self.link is None:
            return self._connect_deadline_ms if self._retry_ms is None else self._retry_ms
        if self._awaited_zxid is not None:
            return None  # our disk is at work: the leader waits for us, not we for it
        if self._heard_ms is None:
            return self._now_ms
        return self._heard_ms + self._silence_limit_ms

    def lost(self, link: Link, reason: str) -> None:
        """The connection is gone, and the role with it."""
        if link is self.link:
            self._fail(reason or "connection closed by the leader")

    def shutdown(self, reason: str) -> None:
        """End the role from this side."""
        if self.failed is None:
            log.info("shutdown %s", self.name)
            self._end(reason)

    def _fail(self, reason: str, exit_code: int | None = None) -> None:
        """The role is over."""
        if self.failed is not None:
            return
        if self.link is not None:
            reason = f"leader {self.leader_id} at {self.link}: {reason}"
        self.fatal_exit_code = exit_code
        log.warning("Exception when %s the leader: %s", self.participle, reason)
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.failed = reason
        link = self.link
        if link is not None:
            log.info(
                "Disconnected from leader (with address: %s). Was connected for %dms."
                " Sync state: %s",
                link,
                self._now_ms - self._connected_ms,
                "true" if self.phase == BROADCAST else "false",
            )
            link.close()

    # ------------------------------------------------------------------ in and out

    def received(self, link: Link, data: bytes, now_ms: int) -> None:
        """A chunk of the leader's stream."""
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        assert self.link is not None
        self.link.send(data)

    def request(self, session_id: int, cxid: int, op: int, payload: bytes, ids: Ids | None) -> None:
        """Forward a client's request; `ids` are those of its connection, None for our own."""
        if ids != self._ids:
            self._ids = ids
            self._encoded_ids = encode_authinfo(ids)
        self._send(encode_request_packet(session_id, cxid, op, payload, self._encoded_ids))

    def revalidate(self, session_id: int, timeout_ms: int) -> None:
        """Ask the leader whether the session that a client brings is alive."""
        self._send(encode_packet(REVALIDATE, -1, encode_revalidation(session_id, timeout_ms)))

    def pong(self, zxid: int, touches: list[tuple[int, int]]) -> None:
        """Answer a PING: sessions heard of since the last one, (session id, timeout in ms)."""
        self._send(encode_packet(PING, zxid, encode_touches(touches)))
