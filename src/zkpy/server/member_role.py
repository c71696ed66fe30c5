"""MemberRole: what monitoring wants to know of a member of an ensemble, whatever it does now.

Looks things up in the Member when it is asked; keeps nothing.
Source: QuorumPeer, QuorumBean and the ZooKeeperServers of each role, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zkpy.quorum import learner_handler as phases
from zkpy.quorum.leader import Leader
from zkpy.quorum.states import (
    ELECTION,
    FOLLOWING,
    LEADING,
    LOOKING,
    OBSERVING,
    STATE_NAMES,
    SYNC_NONE,
)
from zkpy.server.role import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.quorum.learner_handler import LearnerHandler
    from zkpy.server.member import Member
    from zkpy.session.learner_tracker import LocalSessionTracker

_MODES: Final = {LEADING: "leader", FOLLOWING: "follower", OBSERVING: "observer"}
ELECTION_ALG: Final = 3  # FastLeaderElection, the only one there is
MASK64: Final = (1 << 64) - 1


class MemberRole(Role):
    """The role of `member`, which changes."""

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def _leader(self) -> Leader | None:
        zab = self._member.zab
        return zab if isinstance(zab, Leader) else None

    def read_only(self) -> bool:
        """Whether clients get nothing but reads: there is no leader."""
        return self._member.server.read_only

    def mode(self) -> str:
        """What `srvr` calls it."""
        member = self._member
        return (
            "read-only" if member.server.read_only else _MODES.get(member.state, "leaderelection")
        )

    def peer_state(self) -> str:
        """Such as `following - synchronization - diff`."""
        member = self._member
        zab = member.zab
        words = [STATE_NAMES[member.state].lower()]
        if zab is not None and member.state != LOOKING:
            if zab.phase != ELECTION:
                words.append(zab.phase)
            mode = SYNC_NONE if isinstance(zab, Leader) else zab.sync_mode
            if mode != SYNC_NONE:
                words.append(mode)
        return " - ".join(words)

    def server_id(self) -> int:
        """The number in `myid`."""
        return self._member.my_id

    def config_text(self) -> str:
        """What `conf` appends: limits, own ports, and who the members are."""
        member = self._member
        config = member.config
        view = member.view
        own = view.server(member.my_id)
        addresses = () if own is None else own.addresses
        text = (
            f"initLimit={config.init_limit_ticks}\n"
            f"syncLimit={config.sync_limit_ticks}\n"
            f"electionAlg={ELECTION_ALG}\n"
            f"electionPort={'|'.join(str(port) for _, _, port in addresses)}\n"
            f"quorumPort={'|'.join(str(port) for _, port, _ in addresses)}\n"
            f"peerType={0 if own is None or own.is_participant else 1}\n"
        )
        if member.server.read_only:
            return text
        return f"{text}membership: \n{view.committed.text()}"

    # ------------------------------------------------------------------ metrics

    def proposal_sizes(self) -> tuple[int, int, int] | None:
        """Last, smallest and largest proposal in bytes, of a leader; -1 before the first."""
        leader = self._leader
        if leader is None:
            return None
        last, smallest, largest = leader.proposal_sizes
        return last, smallest, largest

    def reset_proposal_sizes(self) -> None:
        """`srst` asks a leader to start over."""
        leader = self._leader
        if leader is not None:
            leader.proposal_sizes[:] = [-1, -1, -1]

    def gauges(self) -> dict[str, int]:
        """What only members have, and only leaders."""
        member = self._member
        local = self._local
        values = {
            "quorum_size": len(member.view.committed.participants),
            "local_sessions": 0 if local is None else local.sessions,
        }
        leader = self._leader
        if leader is not None:
            values.update(self._leader_gauges(leader))
        elif member.state == FOLLOWING:
            values["synced_observers"] = 0
        return values

    def _leader_gauges(self, leader: Leader) -> dict[str, int]:
        member = self._member
        voters = member.view.committed.participants

        def count(wanted: Callable[[LearnerHandler], bool]) -> int:
            return sum(
                handler.phase == phases.BROADCAST
                and handler.deadline_tick >= leader.tick_count
                and wanted(handler)
                for handler in leader.handlers
            )

        last, smallest, largest = leader.proposal_sizes
        return {
            "learners": len(leader.handlers),
            "followers": sum(not handler.is_observer for handler in leader.handlers),
            "synced_followers": count(lambda h: not h.is_observer and h.sid in voters),
            "synced_non_voting_followers": count(
                lambda h: not h.is_observer and h.sid not in voters
            ),
            "synced_observers": count(lambda h: h.is_observer),
            "pending_syncs": leader.pending_syncs,
            "leader_uptime": member.now_ms - member.server.stats.start_ms,
            "last_proposal_size": last,
            "min_proposal_size": smallest,
            "max_proposal_size": largest,
        }

    # ------------------------------------------------------------------ sessions

    @property
    def _local(self) -> LocalSessionTracker | None:
        local: LocalSessionTracker | None = getattr(self._member.server.tracker, "local", None)
        return local

    def sessions_text(self) -> str | None:
        """What `dump` says: local sessions with their expiry, global ones with it at the leader."""
        from zkpy.server.command_texts import session_sets

        server = self._member.server
        local = self._local
        text = "" if local is None else session_sets(server, local, "Local Session Sets")
        if self._leader is not None:
            if local is None:
                return None
            return text + session_sets(server, server.tracker, "Global Session Sets")
        sessions = sorted(server.tree.sessions.items())
        text += f"Global Sessions({len(sessions)}):\n"
        return text + "".join(
            f"0x{session_id & MASK64:x}\t{timeout_ms}ms\n" for session_id, timeout_ms in sessions
        )
