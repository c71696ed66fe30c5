"""Cluster: the hosts of a simulated ensemble, its configuration, and what is broken at present."""

from __future__ import annotations

from zkpy.persistence.store import Settings
from zkpy.quorum.leader import Leader
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import BROADCAST
from zkpy.server.settings import make_config
from zkpy.session.auth import (
    DigestAuthenticationProvider,
    IPAuthenticationProvider,
    ProviderRegistry,
)
from zkpy.testing.checker import Checker
from zkpy.testing.history import require
from zkpy.testing.host import DATA_DIR, Host
from zkpy.testing.network import Network
from zkpy.testing.scheduler import Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random
    from typing import Final

    from zkpy.quorum.members import Members
    from zkpy.server.config_files import ConfigFiles
    from zkpy.server.database import ZKDatabase
    from zkpy.server.settings import Config
    from zkpy.testing.network import Address

CLIENT_PORT: Final = 2181
QUORUM_PORT: Final = 2888
ELECTION_PORT: Final = 3888


class Shape:
    """What an ensemble is like: voters 1.., then observers; with groups, voters are weighed."""

    def __init__(
        self,
        voters: int = 3,
        observers: int = 0,
        groups: list[list[int]] | None = None,
        weights: dict[int, int] | None = None,
    ) -> None:
        self.voters = voters
        self.observers = observers
        self.groups = groups or []
        self.weights = weights or {}

    def text(self) -> str:
        """The lines of the server list."""
        lines = []
        for sid in range(1, self.voters + self.observers + 1):
            role = "participant" if sid <= self.voters else "observer"
            lines.append(f"server.{sid}={server_spec(sid, role)}")
        for number, group in enumerate(self.groups, 1):
            lines.append(f"group.{number}=" + ":".join(map(str, group)))
        lines.extend(f"weight.{sid}={weight}" for sid, weight in self.weights.items())
        return "\n".join(lines)


def server_spec(sid: int, role: str = "participant") -> str:
    """What stands behind `server.N=`."""
    return f"z{sid}:{QUORUM_PORT}:{ELECTION_PORT}:{role};{CLIENT_PORT}"


class Cluster:
    """All hosts; those of `extra_sids` are not in the configuration in the beginning.

    `overrides` are attributes of Config. `trace`, if set, is told what happens.
    """

    def __init__(
        self,
        rng: Random,
        shape: Shape,
        *,
        overrides: dict[str, object] | None = None,
        preallocate_bytes: int = 0,
        committed_log_count: int = 500,
        tracer: Callable[[str], None] | None = None,
    ) -> None:
        self.rng = rng
        self.shape = shape
        self.tracer = tracer
        self.scheduler = Scheduler()
        self.network = Network(self.scheduler, rng)
        self.checker = Checker()
        self.counts: dict[str, int] = {}
        self.running: Host | None = None
        # Called with a host whose process has ended by itself.
        self.on_death: Callable[[Host], None] = lambda host: None
        # Called with a host that has received a snapshot, and has it in memory only.
        self.on_snap: Callable[[Host], None] = lambda host: None
        self.preallocate_bytes = preallocate_bytes
        self.committed_log_count = committed_log_count
        self.auth = ProviderRegistry(
            [IPAuthenticationProvider(), DigestAuthenticationProvider()],
            skip_acl=bool((overrides or {}).get("reconfig_enabled")),
        )
        self.overrides = overrides or {}
        self.checker.local_sessions = bool(self.overrides.get("local_sessions_enabled"))
        members = parse_config_text(shape.text())
        self.hosts = {sid: Host(self, sid, self.config(sid, members)) for sid in members.servers}

    def config(self, sid: int, members: object) -> Config:
        """The settings of a member."""
        values: dict[str, object] = {
            "data_dir": DATA_DIR,
            "my_id": sid,
            "members": members,
            "quorum_mode": True,
            "client_port": CLIENT_PORT,
            "tick_time_ms": 500,
            "init_limit_ticks": 10,
            "sync_limit_ticks": 4,
            "cnx_timeout_ms": 1000,
            "max_client_cnxns": 0,
            **self.overrides,
        }
        config = make_config(**values)
        # Fewer than a real server would keep, so that catching up takes all its ways.
        vars(config)["commit_log_count"] = self.committed_log_count
        return config

    def settings_of(self, config: Config) -> Settings:
        return Settings(
            DATA_DIR,
            preallocate_bytes=self.preallocate_bytes,
            extended_types_enabled=config.extended_types_enabled,
        )

    def config_files(self, host: Host) -> ConfigFiles | None:
        """Where a host keeps its dynamic configuration."""
        return None

    @property
    def checker_slack_ms(self) -> int:
        config = next(iter(self.hosts.values())).config
        # And their clocks may be a little fast.
        return config.tick_time_ms * (config.sync_limit_ticks + 2) + 500

    # ------------------------------------------------------------------ looking

    def client_address(self, sid: int) -> Address:
        return (f"z{sid}", CLIENT_PORT)

    def addresses(self) -> list[Address]:
        return [self.client_address(sid) for sid in self.hosts]

    def leader(self) -> Host | None:
        """The established leader of the newest epoch."""
        found: list[tuple[int, Host]] = []
        for host in self.hosts.values():
            if not host.up:
                continue
            zab = host.member.zab
            if isinstance(zab, Leader) and zab.phase == BROADCAST and zab.new_epoch is not None:
                found.append((zab.new_epoch, host))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def all_serve(self) -> bool:
        """Whether every member serves clients."""
        if self.leader() is None:
            return False
        for host in self.hosts.values():
            if not host.up or host.stopped:
                return False
            if not host.has_role:
                return False
        return True

    def at_rest(self) -> bool:
        """Whether, besides, all have applied all there is."""
        history = self.checker.history
        return self.all_serve() and all(
            history.position(host.member.server.tree.last_processed_zxid) == len(history.order)
            for host in self.hosts.values()
        )

    def check_loaded(self, host: Host, database: ZKDatabase) -> None:
        """What a member finds on its disk after a start."""
        require(
            database.current_epoch <= database.accepted_epoch,
            "%s: current epoch %s, accepted %s",
            host,
            database.current_epoch,
            database.accepted_epoch,
        )
        mismatch = database.tree.kill_dead_sessions()
        require(not mismatch, "%s has ephemerals of dead sessions: %s", host, mismatch)

    # ------------------------------------------------------------------ doing

    def add_member(self, sid: int, members: Members) -> Host:
        """Another host, which has that server list."""
        host = self.hosts[sid] = Host(self, sid, self.config(sid, members))
        return host

    def start(self) -> None:
        """Start all hosts, one soon after the other."""
        for host in self.hosts.values():
            self.scheduler.after(self.rng.randrange(200_000), self._start_host, host)

    def _start_host(self, host: Host) -> None:
        if not host.up:
            host.start()

    def died(self, host: Host) -> None:
        """The process of `host` has ended by itself."""
        self.on_death(host)

    def count(self, what: str) -> None:
        """Note that something of interest has happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def trace(self, who: object, text: str, *values: object) -> None:
        """Tell the tracer, if there is one."""
        if self.tracer is not None:
            now_us = self.scheduler.now_us
            self.tracer(f"{now_us / 1e6:10.6f} {who!s:>4}: {text % values if values else text}")
