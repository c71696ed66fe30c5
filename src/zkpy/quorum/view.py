"""View: the configurations a member goes by, the committed one and the last proposed one.

Owns who votes, what is a quorum, and where a member is dialled. It must not know how a
configuration comes about, nor files.

Source: QuorumPeer (getCurrentAndNextConfigVoters, setQuorumVerifier, setLastSeenQuorumVerifier),
ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.quorum.members import PARTICIPANT, Members, QuorumServer
from zkpy.quorum.verifier import QuorumVerifier, verifier_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set


class View:
    """What member `my_id` knows of the ensemble.

    A change of one of the configurations makes new verifiers: whoever keeps one (an election under
    way, a proposal being counted) goes on with the old configuration.
    """

    __slots__ = (
        "_voters",
        "committed",
        "committed_text",
        "committed_verifier",
        "last_proposed",
        "last_proposed_verifier",
        "my_id",
        "reconfig_enabled",
    )

    def __init__(
        self,
        my_id: int,
        committed: Members,
        last_proposed: Members | None = None,
        reconfig_enabled: bool = False,
    ) -> None:
        self.my_id = my_id
        self.reconfig_enabled = reconfig_enabled
        self._take(committed, last_proposed or committed)

    def _take(self, committed: Members, last_proposed: Members) -> None:
        self.committed = committed
        # As notifications, NEWLEADER and /zookeeper/config have it.
        self.committed_text = committed.text()
        self.committed_verifier = verifier_of(committed)
        self.last_proposed = last_proposed
        self.last_proposed_verifier = verifier_of(last_proposed)
        self._voters = self.committed_verifier.voters | self.last_proposed_verifier.voters

    def set_committed(self, members: Members) -> bool:
        """A configuration was activated; False, and nothing happens, if its version is not higher.

        It counts as proposed, too, unless a later proposal is known.
        """
        if members.version <= self.committed.version:
            return False
        proposed = self.last_proposed
        self._take(members, members if members.version > proposed.version else proposed)
        return True

    def set_last_proposed(self, members: Members, *, by_new_leader: bool = False) -> bool:
        """A configuration was proposed; False, and nothing happens, if its version is not higher.

        `by_new_leader`: with NEWLEADER. Then it also takes the place of a later one, as long as
        that is not committed: nobody who leads now has that proposal, and nobody ever will.
        Nothing happens if reconfiguration is disabled: then only the static configuration counts.
        """
        floor = self.committed if by_new_leader else self.last_proposed
        version = members.version
        if not self.reconfig_enabled or version < floor.version:
            return False
        if version == self.last_proposed.version:
            return False
        self._take(self.committed, members)
        return True

    def verifiers(self) -> list[QuorumVerifier]:
        """Of the configurations that must each have a quorum: the committed, and a later one."""
        if self.last_proposed.version > self.committed.version:
            return [self.committed_verifier, self.last_proposed_verifier]
        return [self.committed_verifier]

    def voters(self) -> frozenset[int]:
        """Of both configurations."""
        return self._voters

    def has_quorum(self, sids: Set[int]) -> bool:
        """Whether `sids` hold a quorum of each configuration that counts."""
        return all(verifier.contains_quorum(sids) for verifier in self.verifiers())

    def weight(self, sid: int) -> int:
        """0: never elected. Of a server that is only proposed, its weight there."""
        if sid in self.committed.servers:
            return self.committed_verifier.weight(sid)
        return self.last_proposed_verifier.weight(sid)

    def role_of(self, sid: int) -> str | None:
        """PARTICIPANT or OBSERVER in the committed configuration, None if it is not in it."""
        server = self.committed.servers.get(sid)
        return None if server is None else server.role

    @property
    def my_role(self) -> str:
        """Ours; a member that is in no configuration follows without a vote, as a participant."""
        return self.role_of(self.my_id) or PARTICIPANT

    @property
    def i_vote(self) -> bool:
        """Whether the committed configuration has us as a voter."""
        return self.my_id in self.committed_verifier.voters

    def server(self, sid: int) -> QuorumServer | None:
        """As committed; as proposed if it is only in that configuration."""
        return self.committed.servers.get(sid) or self.last_proposed.servers.get(sid)

    def election_addresses(self, sid: int) -> list[tuple[str, int]]:
        """Where `sid` may be reached for an election, the committed addresses first.

        Empty for a stranger: it is not dialled.
        """
        addresses: list[tuple[str, int]] = []
        for members in (self.committed, self.last_proposed):
            server = members.servers.get(sid)
            if server is not None:
                addresses += server.election_addresses
        return list(dict.fromkeys(addresses))
