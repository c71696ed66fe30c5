"""Member: one server of an ensemble, put together: election, role, request processors.

    LOOKING -> elected -> Leader | Follower | Observer -> caught up: clients are served
       ^                                                          |
       +---- log drained, what it holds applied <---- whatever ended the role

Pure: a shell (server/aio/member.py, or the simulation's) calls in and performs what comes out, once
per loop turn: `take_appended` to the log, `outbox` links, `server.take_dirty()`, `take_effects`.
Between two roles the tree is what the log on disk is; that is what an election advertises.
Source: QuorumPeer, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zkpy.persistence.errors import EpochError
from zkpy.protocol.packets import COMMIT, COMMITANDACTIVATE
from zkpy.protocol.zxid import EPOCH_MAX, epoch_of
from zkpy.quorum.cnx_manager import QuorumCnxManager
from zkpy.quorum.effects import ELECTION, Dial, Effect, Stop
from zkpy.quorum.election import FastLeaderElection
from zkpy.quorum.follower import Follower
from zkpy.quorum.leader import Leader
from zkpy.quorum.leader_settings import LeaderSettings
from zkpy.quorum.learner_handler import LearnerHandler
from zkpy.quorum.link import Link
from zkpy.quorum.members import OBSERVER
from zkpy.quorum.observer import Observer
from zkpy.quorum.states import (
    BROADCAST,
    DISCOVERY,
    FOLLOWING,
    LEADING,
    LOOKING,
    OBSERVING,
    STATE_NAMES,
)
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote
from zkpy.server.idle_server import IdleZooKeeperServer
from zkpy.server.leader_server import LeaderZooKeeperServer
from zkpy.server.learner_server import LearnerZooKeeperServer
from zkpy.server.member_config import MemberConfig
from zkpy.server.member_role import MemberRole
from zkpy.server.readonly_server import ReadOnlyZooKeeperServer

if TYPE_CHECKING:
    from random import Random

    from zkpy.quorum.learner import Learner
    from zkpy.quorum.members import Members
    from zkpy.server.config_files import ConfigFiles
    from zkpy.server.database import ZKDatabase
    from zkpy.server.environment import Environment
    from zkpy.server.settings import Config
    from zkpy.server.zkserver import ZooKeeperServer
    from zkpy.session.auth import ProviderRegistry

log = logging.getLogger(__name__)

# Read-only service begins so long after the last role ended. Source: QuorumPeer.run.
MIN_READ_ONLY_DELAY_MS: Final = 2000
# After so many roles in a row that ended before they began, the next election waits: at first 10
# ms, then twice as long each time.
FUTILE_ROLES: Final = 4
MAX_FUTILE_DELAY_MS: Final = 500
NEVER: Final = 1 << 62
UNEXPECTED_ERROR: Final = 1


class Member:
    """One member, from the start of its process to the end.

    `now_ms` (monotonic) and `wall_ms` (since 1970) are set by the shell before its calls; `server`
    is whom clients talk to at present, and may be another after each call.
    """

    def __init__(
        self,
        config: Config,
        database: ZKDatabase,
        auth: ProviderRegistry,
        *,
        now_ms: int,
        wall_ms: int,
        rng: Random,
        environment: Environment | None = None,
        config_files: ConfigFiles | None = None,
    ) -> None:
        assert config.my_id is not None, "checked with the configuration"
        self.config = config
        self.my_id = config.my_id
        self.database = database
        self.auth = auth
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self._rng = rng
        self._environment = environment
        self.view = View(self.my_id, config.members, config.last_proposed, config.reconfig_enabled)
        self.outbox: list[Link] = []
        self._effects: list[Effect] = []
        self.state = LOOKING
        self.current_vote = Vote(self.my_id, database.last_zxid, 0, database.current_epoch)
        self.cnx_manager = QuorumCnxManager(
            self.my_id, self.view, config, self.outbox, self._effects
        )
        self.election = FastLeaderElection(
            self.my_id,
            self.view,
            min_notification_interval_ms=config.min_notification_interval_ms,
            max_notification_interval_ms=config.max_notification_interval_ms,
            unreachable=self.cnx_manager.unreachable,
        )
        self._member_config = MemberConfig(
            config, self.view, database, self.cnx_manager, self._effects, config_files
        )
        self.zab: Leader | Learner | None = None
        # Txns still to be logged; zxid of the last one handed to the log.
        self._left_over: list[tuple[int, bytes]] = []
        self._logged_zxid = 0
        self._durable_zxid = 0
        self._draining: list[tuple[int, bytes]] | None = None
        self._designated: Vote | None = None
        # We have been an observer that does not log (syncEnabled=false).
        self._unlogged = False
        self._zxid_before_role = database.last_zxid
        self._led = False
        # A leader must not begin with an epoch below that.
        self._least_epoch = 0
        # How often in a row a leader that we had reached would not have us, or we had no peer port.
        self._futile_roles = 0
        self._peer_port_failed = False
        self._peer_state = ""  # the last that was logged
        self._looking_since_ms = now_ms
        self._read_only_ms = NEVER
        self._look_at_ms = NEVER
        self.role = MemberRole(self)
        self.server: ZooKeeperServer = self._idle_server()

    # ------------------------------------------------------------------ start, inputs

    def start(self) -> None:
        """Begin to look for a leader. The election port has to be open."""
        log.info("Starting quorum peer, myid=%d", self.my_id)
        self.database.set_config(self.view.committed)
        self._look()
        self._settle()

    def new_link(self, address: str) -> Link:
        """A connection that the shell has made or accepted; `address` is the other side's."""
        return Link(self.outbox, address)

    def election_accepted(self, link: Link) -> None:
        """Somebody connected to the election port."""
        self.cnx_manager.accepted(link, self.now_ms)
        self._settle()

    def learner_accepted(self, link: Link) -> None:
        """Somebody connected to the peer port."""
        if isinstance(self.zab, Leader):
            self.zab.accept(link, self.now_ms)
        else:
            link.close()  # the port is just being closed
        self._settle()

    def dialled(self, dial: Dial, link: Link) -> None:
        """A connection that was asked for stands."""
        if dial.purpose == ELECTION:
            self.cnx_manager.dialled(dial, link, self.now_ms)
        elif self.zab is not None and not isinstance(self.zab, Leader):
            self.zab.dialled(dial, link, self.now_ms)
        else:
            link.close()
        self._settle()

    def dial_failed(self, dial: Dial, reason: str) -> None:
        """A connection that was asked for could not be made."""
        if dial.purpose == ELECTION:
            self.cnx_manager.dial_failed(dial, reason, self.now_ms)
        elif self.zab is not None and not isinstance(self.zab, Leader):
            self.zab.dial_failed(dial, reason, self.now_ms)
        self._settle()

    def peer_port_open(self) -> None:
        """Learners can connect now; nothing depends on it."""

    def peer_port_failed(self, reason: str) -> None:
        """Without a peer port nobody can follow us."""
        if isinstance(self.zab, Leader):
            self._peer_port_failed = True
            self.zab.fail(f"Couldn't bind to the peer port: {reason}")
        self._settle()

    def received(self, link: Link, data: bytes) -> None:
        """Bytes from another member."""
        owner = link.owner
        if link.closed or owner is None:
            return
        owner.received(link, data, self.now_ms)
        if owner is self.cnx_manager:
            self._settle()
        else:
            self._settle_role()

    def lost(self, link: Link, reason: str) -> None:
        """A connection to another member is gone."""
        if link.closed or link.owner is None:
            return
        link.closed = True
        link.owner.lost(link, reason)
        self._settle()

    def has_more(self, link: Link) -> bool:
        """Whether `drained` will add to what is queued on `link`."""
        return isinstance(link.owner, LearnerHandler) and link.owner.in_snapshot

    def drained(self, link: Link) -> None:
        """The network has taken all that was queued on `link`: there may be more to send."""
        if isinstance(link.owner, LearnerHandler):
            link.owner.pump(self.now_ms)

    def durable(self, zxid: int) -> None:
        """Everything that was taken from `take_appended`, up to `zxid`, is on disk."""
        self._durable_zxid = zxid
        if self.zab is None:
            if self._draining is not None:
                self._drained()
        else:
            self.zab.durable(zxid)
        self._settle_role()

    # ------------------------------------------------------------------ outputs

    def take_appended(self) -> list[tuple[int, bytes]]:
        """What is to be logged, in zxid order. The end of a turn: batches leave for the peers."""
        zab = self.zab
        if zab is not None:
            if self.view.last_proposed is not self._member_config.saved_proposal:
                self._member_config.save_proposal()
            self._left_over += zab.take_appended()
            # What clients have asked for may have brought the role to an end, or a sync to its.
            while zab.failed is not None or (isinstance(zab, Leader) and zab.has_synced):
                self._settle_role()
                zab = self.zab
                if zab is None:
                    break
                self._left_over += zab.take_appended()
        appended = self._left_over
        if appended:
            self._left_over = []
            self._logged_zxid = appended[-1][0]
            # After a TRUNC zxids start lower than what was once durable.
            self._durable_zxid = min(self._durable_zxid, appended[0][0] - 1)
        return appended

    def take_effects(self) -> list[Effect]:
        """What else the shell is to do, in order."""
        effects = self._effects[:]
        self._effects.clear()  # the list is shared
        return effects

    # ------------------------------------------------------------------ time

    def next_timer_ms(self) -> int:
        """When `tick` has something to do next (monotonic ms)."""
        due = min(self.cnx_manager.next_timer_ms(), self._read_only_ms, self._look_at_ms)
        if self.state == LOOKING and self._draining is None:
            due = min(due, self.election.next_timer_ms())
        if self.zab is not None:
            zab_due = self.zab.next_timer_ms()
            if zab_due is not None:
                due = min(due, zab_due)
        return min(due, self.server.next_timer_ms())

    def tick(self) -> None:
        """Time has passed."""
        now_ms = self.now_ms
        if now_ms >= self._look_at_ms:
            self._look_at_ms = NEVER
            self._look()
        self.cnx_manager.tick(now_ms)
        if self.state == LOOKING and self._draining is None and self._look_at_ms == NEVER:
            self.election.tick(now_ms)
        if self.zab is not None:
            self.zab.tick(now_ms)
        if now_ms >= self._read_only_ms:
            self._serve_read_only()
        self._tell_time()
        self.server.tick()
        self._settle()

    def _tell_time(self) -> None:
        self.server.now_ms = self.now_ms
        self.server.wall_ms = self.database.wall_ms = self.wall_ms

    # ------------------------------------------------------------------ what follows from inputs

    def _settle(self) -> None:
        """After every call: carry results from one machine to the next until all are at rest."""
        self._settle_election()
        self._settle_role()
        self._settle_election()

    def _settle_role(self) -> None:
        """The same where the votes of others are not concerned."""
        self._tell_time()
        zab = self.zab
        while zab is not None:
            if isinstance(zab, Leader):
                self._settle_leader(zab)
            else:
                self._settle_learner(zab)
            if zab.failed is not None and zab is self.zab:
                self._leave(zab.failed)
            if zab is self.zab:
                break
            zab = self.zab
        if self.zab is None:
            self._settle_election()

    def _settle_election(self) -> None:
        cnx_manager, election = self.cnx_manager, self.election
        while True:
            received = cnx_manager.take_received()
            for sid, payload in received:
                election.received(sid, payload, self.now_ms, self.state, self.current_vote)
            messages = election.take_messages()
            for sid, payload in messages:
                cnx_manager.send(sid, payload, self.now_ms)
            if not received and not messages:
                break
        if self.state != LOOKING or self._draining is not None:
            return
        newer = election.take_newer_config()
        if newer is not None:
            self._activate(newer, None, -1)
            if self._must_reload():
                self._reload_database()
                self._replace_server(self._idle_server())
            self._elect()
        elif election.elected is not None and self._look_at_ms == NEVER:
            self._begin_role(election.elected, election.elected_state)

    # ------------------------------------------------------------------ LOOKING

    def _look(self) -> None:
        log.info("LOOKING")
        self.server.stats.count("looking_count")
        self.state = LOOKING
        self._looking_since_ms = self.now_ms
        if self.config.read_only_mode_enabled:
            delay_ms = max(MIN_READ_ONLY_DELAY_MS, self.config.tick_time_ms)
            self._read_only_ms = self.now_ms + delay_ms
        self._elect()

    def _elect(self) -> None:
        database = self.database
        zxid = database.last_zxid
        self.cnx_manager.begin_asking()
        self.current_vote = Vote(
            self.my_id, zxid, self.election.logical_clock, database.current_epoch
        )
        self.election.look(self.now_ms, zxid, database.current_epoch)

    def _idle_server(self) -> ZooKeeperServer:
        server = IdleZooKeeperServer(
            self.config, self.database.tree, self.auth, now_ms=self.now_ms, wall_ms=self.wall_ms
        )
        return self._equip(server)

    def _equip(self, server: ZooKeeperServer) -> ZooKeeperServer:
        if self._environment is not None:
            server.environment = self._environment
        server.role = self.role
        return server

    def _serve_read_only(self) -> None:
        self._read_only_ms = NEVER
        if self.state != LOOKING:
            return
        log.info("Starting read-only server, as no leader was found")
        self._replace_server(
            ReadOnlyZooKeeperServer(
                self.config, self.database.tree, self.auth, now_ms=self.now_ms, wall_ms=self.wall_ms
            )
        )
        log.info("Read-only server started")

    def _replace_server(self, server: ZooKeeperServer) -> None:
        """Clients of the old one are hung up on: they find their way back, or to another member."""
        old = self.server
        for cnxn in list(old.cnxns):
            old.close(cnxn)
        server.stats.take_over(old.stats)
        # What it still has to send, and the sockets to close.
        server.dirty.extend(old.take_dirty())
        self.server = self._equip(server)
        self._tell_time()

    # ------------------------------------------------------------------ roles

    def _begin_role(self, vote: Vote, state: int) -> None:
        took_ms = self.now_ms - self._looking_since_ms
        self.current_vote = vote
        self.state = state
        self._read_only_ms = NEVER
        self._tell_peer_state()
        log.info("%s - LEADER ELECTION TOOK - %d MS", STATE_NAMES[state], took_ms)
        self.server.stats.record("election_time", took_ms)
        self.cnx_manager.forget()
        self._replace_server(self._idle_server())
        self._zxid_before_role = self.database.last_zxid
        # What is applied while catching up is compared with the digests of its proposer.
        self.database.tree.count_digest = self.config.digest_enabled
        if state == LEADING:
            leader = self._new_leader()
            self.zab = leader
            leader.lead(self.now_ms)
        else:
            self.zab = self._new_learner(state)
            self.zab.follow(vote, self.now_ms)
        self._tell_peer_state()

    def _tell_peer_state(self) -> None:
        """One line for each step from the election to the broadcast, as operators look for them."""
        peer_state = self.role.peer_state()
        if peer_state != self._peer_state:
            self._peer_state = peer_state
            log.info("Peer state changed: %s", peer_state)

    def _new_leader(self) -> Leader:
        config = self.config
        accepted_epoch = self.database.accepted_epoch
        if accepted_epoch >= EPOCH_MAX:
            # The end of the term alone would lead to the next election like it.
            raise EpochError(f"There is no epoch after the accepted one, {accepted_epoch:x}")
        settings = LeaderSettings(
            tick_time_ms=config.tick_time_ms,
            init_limit_ticks=config.init_limit_ticks,
            sync_limit_ticks=config.sync_limit_ticks,
            max_record_bytes=self._max_record_bytes,
            snapshot_size_factor=config.snapshot_size_factor,
            force_snapshot=config.force_snapshot_sync,
            max_snap_syncs=config.max_concurrent_snap_syncs,
            max_diff_syncs=config.max_concurrent_diff_syncs,
            max_wait_for_epoch_ms=config.max_time_to_wait_for_epoch_ms,
        )
        return Leader(
            self.my_id,
            self.view,
            self.database,
            settings,
            self.outbox,
            self._effects,
            self.now_ms,
            self._least_epoch,
            self.election.histories,
            self.server.stats.counters,
        )

    def _new_learner(self, state: int) -> Learner:
        config = self.config
        kind = Observer if state == OBSERVING else Follower
        learner = kind(
            self.my_id,
            self.view,
            self.database,
            tick_time_ms=config.tick_time_ms,
            init_limit_ticks=config.init_limit_ticks,
            sync_limit_ticks=config.sync_limit_ticks,
            connect_limit_ticks=config.connect_to_learner_master_limit_ticks,
            max_record_bytes=self._max_record_bytes,
            outbox=self.outbox,
            effects=self._effects,
            now_ms=self.now_ms,
            retry_delay_ms=config.leader_connect_delay_during_retry_ms,
        )
        if isinstance(learner, Observer):
            learner.sync_enabled = config.sync_enabled
        return learner

    @property
    def _max_record_bytes(self) -> int:
        return self.config.jute_max_buffer_bytes + self.config.jute_max_buffer_extra_size_bytes

    def _settle_leader(self, leader: Leader) -> None:
        server = self.server
        if leader.phase == BROADCAST and not isinstance(server, LeaderZooKeeperServer):
            self._serve_as_leader(leader)
            server = self.server
        if not isinstance(server, LeaderZooKeeperServer):
            self._tell_peer_state()
            leader.deserted(self.election.deserters)
            if self.election.abandoned({handler.sid for handler in leader.handlers}):
                leader.fail("those who elected this server follow another one")
            return
        server.commit_until(leader.committed_zxid)
        while leader.reconfigured and leader is self.zab:
            members, designated, zxid = leader.reconfigured[0]
            if self._activate(members, designated, zxid):
                self._leave("the configuration changed")
                return
            leader.reconfig_activated()
            server.commit_until(leader.committed_zxid)
        server.take_inbox()
        server.complete_syncs()

    def _serve_as_leader(self, leader: Leader) -> None:
        assert leader.new_epoch is not None
        self.current_vote = self.current_vote.with_peer_epoch(leader.new_epoch)
        self.election.established(self.current_vote, self.state)
        while leader.reconfigured:
            members, designated, zxid = leader.reconfigured[0]
            if self._activate(members, designated, zxid):
                self._leave("the configuration changed")
                return
            leader.reconfig_activated()
        self.database.set_config(self.view.committed)
        server = LeaderZooKeeperServer(
            self.config,
            self.database.tree,
            leader,
            self.auth,
            now_ms=self.now_ms,
            wall_ms=self.wall_ms,
        )
        # leaderServes=no: clients are hung up on, and find a learner.
        server.serving = self.config.leader_serves
        self._replace_server(server)
        self._tell_peer_state()

    def _settle_learner(self, learner: Learner) -> None:
        if learner.phase != BROADCAST:
            self._tell_peer_state()
            if learner.phase == DISCOVERY and self.election.abandoned():
                self._leave("the leader follows another one")
            return
        server = self.server
        if not isinstance(server, LearnerZooKeeperServer):
            if not self._activate_learned(learner):
                return
            assert learner.new_epoch is not None
            self.current_vote = self.current_vote.with_peer_epoch(learner.new_epoch)
            self.election.established(self.current_vote, self.state)
            server = LearnerZooKeeperServer(
                self.config,
                self.database,
                learner,
                self.auth,
                now_ms=self.now_ms,
                wall_ms=self.wall_ms,
            )
            self._replace_server(server)
            kind = "observer" if self.state == OBSERVING else "follower"
            server.stats.record(f"{kind}_sync_time", self.now_ms - learner.sync_began_ms)
            self._tell_peer_state()
        items = learner.take_delivered()
        if items:
            server.deliver(items)
        self._activate_learned(learner)

    def _activate_learned(self, learner: Learner) -> bool:
        """Activate what the leader has committed; False if that ended our role."""
        while learner.reconfigured:
            members, designated, zxid = learner.reconfigured.pop(0)
            if self._activate(members, designated, zxid):
                self._leave("the configuration changed")
                return False
        return True

    # ------------------------------------------------------------------ configuration

    def _activate(self, members: Members, designated: int | None, zxid: int) -> bool:
        """Make `members` the committed configuration; whether our role is over by that."""
        vote = self.current_vote
        result = self._member_config.activate(members, designated, vote.leader)
        if result.designated_leader is not None:
            self._designated = Vote(
                result.designated_leader, zxid, vote.election_epoch, epoch_of(zxid)
            )
        return result.leaves_role

    # ------------------------------------------------------------------ the end of a role

    def _leave(self, reason: str) -> None:
        """Hang up on everybody; look again once the log has all it was given.

        Our disk then may hold more than was committed: those txns are applied as well, so that the
        election is told what we really have, and the next leader can take them back.
        """
        zab = self.zab
        assert zab is not None
        log.warning("%s ended: %s", STATE_NAMES[self.state], reason)
        if isinstance(zab, Leader):
            pending = list(zab.outstanding)
        else:
            commits = (COMMIT, COMMITANDACTIVATE)
            pending = [(z, txn or b"") for type, z, txn in zab.take_delivered() if type in commits]
            pending += zab.pending
        self._left_over += zab.take_appended()
        if isinstance(zab, Leader):
            zab.close()
        else:
            zab.shutdown(reason)
        self.zab = None
        fatal = getattr(zab, "fatal_exit_code", None)
        if fatal is not None:
            self._effects.append(Stop(fatal, reason))
        if isinstance(zab, Observer) and not zab.sync_enabled:
            self._unlogged = True
        self._led = isinstance(zab, Leader)
        self._reload = not isinstance(zab, Leader) and zab.database_dirty
        if isinstance(zab, Leader):
            self._least_epoch = max(self._least_epoch, zab.needed_epoch)
            self._futile_roles = self._futile_roles + 1 if self._peer_port_failed else 0
            self._peer_port_failed = False
        elif zab.link is not None:
            self._futile_roles = 0 if zab.phase == BROADCAST else self._futile_roles + 1
        self._replace_server(self._idle_server())
        self.state = LOOKING
        self.election.stop()
        self.current_vote = Vote(
            self.my_id,
            self.database.last_zxid,
            self.election.logical_clock,
            self.database.current_epoch,
        )
        self._draining = pending
        if not self._left_over and self._durable_zxid >= self._logged_zxid:
            self._drained()

    def _must_reload(self) -> bool:
        """Whether we have become a voter, and memory has what our log never was given."""
        return self._unlogged and self.view.my_role != OBSERVER

    def _reload_database(self) -> None:
        self.database.reload()
        self._unlogged = False

    def _drained(self) -> None:
        """Continue `_leave` when the log is on disk."""
        if self._left_over or self._durable_zxid < self._logged_zxid:
            return
        pending, self._draining = self._draining, None
        database = self.database
        if self._reload or self._must_reload():
            self._reload_database()
        else:
            database.tree.count_digest = self.config.digest_enabled
            if self._led and database.last_zxid & 0xFFFFFFFF == 0:
                # The mark of an epoch in which nothing was written: no txn on disk has it. (A
                # learner's may be that of a snapshot, which then is on disk.)
                database.last_zxid = self._zxid_before_role
            for zxid, txn in pending or ():
                database.apply(zxid, txn)
        self.database.set_config(self.view.committed)
        self._replace_server(self._idle_server())
        designated, self._designated = self._designated, None
        if designated is not None:
            state = LEADING if designated.leader == self.my_id else FOLLOWING
            if state == FOLLOWING and self.view.my_role == OBSERVER:
                state = OBSERVING
            self._looking_since_ms = self.now_ms
            self._begin_role(designated, state)
            return
        delay_ms = 0
        if self._futile_roles >= FUTILE_ROLES:
            # It may go on like that: dozens of elections a second would help nobody.
            doublings = min(self._futile_roles - FUTILE_ROLES, 16)
            delay_ms = min(10 << doublings, MAX_FUTILE_DELAY_MS)
        was_observer = self.view.my_role == OBSERVER
        if was_observer and self.config.observer_election_delay_ms > 0:
            # Not all observers at once upon the voters, when a leader is lost.
            delay_ms += self._rng.randrange(self.config.observer_election_delay_ms)
        if delay_ms:
            self._look_at_ms = self.now_ms + delay_ms
            self.state = LOOKING
        else:
            self._look()
