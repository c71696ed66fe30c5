"""Inspection: shows the checker what the member on a host does, after each of its turns."""

from __future__ import annotations

from zkpy.quorum.leader import Leader
from zkpy.quorum.states import BROADCAST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from zkpy.quorum.verifier import QuorumVerifier
    from zkpy.testing.host import Host


class Inspection:
    """What was seen of one life of a process."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._leads: Leader | None = None
        self._committed_zxid = -1
        self._shown_zxid = -1
        self._verifiers: list[QuorumVerifier] = []

    def look(self) -> None:
        """Look at the member."""
        host = self.host
        member = host.member
        zab = member.zab
        if isinstance(zab, Leader) and zab.phase == BROADCAST and zab is not self._leads:
            self._established(zab)
        leader = self._leads
        # Also of one that is over: what it committed last may have ended it.
        if leader is not None and leader.committed_zxid != self._committed_zxid:
            self._committed_zxid = leader.committed_zxid
            now_us = host.cluster.scheduler.now_us
            host.cluster.checker.committed(host.sid, leader.committed_zxid, self._on_quorum, now_us)
        self._verifiers = member.view.verifiers()
        tree = member.server.tree
        if tree.last_processed_zxid != self._shown_zxid and host.has_role:
            self._shown_zxid = tree.last_processed_zxid
            host.cluster.checker.shows(host.name, tree)

    def _established(self, leader: Leader) -> None:
        self._leads = leader
        self._committed_zxid = -1
        assert leader.new_epoch is not None
        cluster = self.host.cluster
        cluster.checker.established(self.host.sid, leader.new_epoch, leader._summary[1])
        cluster.trace(self.host, "leads epoch %#x", leader.new_epoch)
        cluster.count("leader")

    def _on_quorum(self, zxid: int) -> bool:
        """Whether a quorum has a txn on disk, by the configurations of its time.

        That is those of now, or of the last time we looked, if a reconfiguration was just begun.
        """
        hosts = self.host.cluster.hosts.values()
        sids = {host.sid for host in hosts if host.durable_zxid >= zxid}
        return any(
            all(verifier.contains_quorum(sids) for verifier in verifiers)
            for verifiers in (self.host.member.view.verifiers(), self._verifiers)
            if verifiers
        )
