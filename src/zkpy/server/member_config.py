"""MemberConfig: what a member does about a configuration that is proposed or committed.

Owns the order: files, then the config node, then ports and connections. What a new configuration
means for the member's role is decided in quorum/reconfig.py and carried out by Member.
Source: QuorumPeer.processReconfig, setLastSeenQuorumVerifier, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkpy.quorum.effects import RebindClientPort, RebindElectionPort
from zkpy.quorum.reconfig import activate

if TYPE_CHECKING:
    from zkpy.quorum.cnx_manager import QuorumCnxManager
    from zkpy.quorum.effects import Effect
    from zkpy.quorum.members import Members
    from zkpy.quorum.reconfig import Activation
    from zkpy.quorum.view import View
    from zkpy.server.config_files import ConfigFiles
    from zkpy.server.database import ZKDatabase
    from zkpy.server.settings import Config


class MemberConfig:
    """Configurations of one member, on disk (if it has `files`) and in effect.

    `saved_proposal`: what `view.last_proposed` was when it was last on disk.
    """

    def __init__(
        self,
        config: Config,
        view: View,
        database: ZKDatabase,
        cnx_manager: QuorumCnxManager,
        effects: list[Effect],
        files: ConfigFiles | None,
    ) -> None:
        self._view = view
        self._database = database
        self._cnx_manager = cnx_manager
        self._effects = effects
        self._files = files
        self.saved_proposal: Members = view.last_proposed
        self._client_address: tuple[str, int] | None = None
        if config.client_port is not None:
            self._client_address = (config.client_port_address, config.client_port)

    def save_proposal(self) -> None:
        """A configuration was proposed: durable before it is acknowledged."""
        self.saved_proposal = self._view.last_proposed
        if self._files is not None:
            self._files.proposed(self._view.last_proposed, self._view.committed)

    def activate(
        self, members: Members, designated: int | None, current_leader: int | None
    ) -> Activation:
        """Make `members` the committed configuration, if it is newer, and go by its addresses."""
        view = self._view
        result = activate(
            view,
            members,
            designated,
            current_leader=current_leader,
            client_address=self._client_address,
        )
        if result.activated and self._files is not None:
            self._files.activated(view.committed, view.last_proposed)
            self.saved_proposal = view.last_proposed
        if result.node_due:
            self._database.set_config(view.committed)
        if not result.changed:
            return result
        own = view.server(view.my_id)
        if result.election_addresses_changed and own is not None:
            self._effects.append(RebindElectionPort(own.election_addresses))
        self._cnx_manager.restart()
        if result.client_address is not None:
            self._client_address = result.client_address
            self._effects.append(RebindClientPort(result.client_address))
        return result
