"""Simulated ensembles whose members come and go: each host has a zoo.cfg and dynamic files.

At each start a host reads them as the real server does; a joiner begins with the list it joins and
itself. `Admin` asks for reconfigurations.
"""

from __future__ import annotations

import struct
from random import Random
from typing import TYPE_CHECKING, Any

from zkpy.protocol.config_error import ConfigException
from zkpy.protocol.records import GetDataResponse, ReconfigRequest
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.members import OBSERVER, PARTICIPANT, Members
from zkpy.server.config import load_config
from zkpy.server.config_files import ConfigFiles
from zkpy.testing import requests
from zkpy.testing.cluster import Cluster, Shape, server_spec
from zkpy.testing.faults import Nemesis
from zkpy.testing.host import DATA_DIR, Host
from zkpy.testing.scheduler import SECOND
from zkpy.testing.simulation import OVERRIDES, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.server.settings import Config
    from zkpy.testing.network import End

PATH = "/etc/zk/zoo.cfg"
SETTINGS = f"""tickTime=500
initLimit=10
syncLimit=4
dataDir={DATA_DIR}
maxClientCnxns=0
skipACL=yes
reconfigEnabled=true
standaloneEnabled=false
"""


class ReconfigHost(Host):
    """Reads its configuration from its disk at each start."""

    cluster: ReconfigCluster

    def start(self) -> None:
        try:
            self.config = self.cluster.config(self.sid, None)
        except ConfigException as error:
            assert str(error) == f"My id {self.sid} not in the peer list"
            # It was removed: somebody makes it a joiner again.
            lines = [line for line in self.cluster.newest_lines() if f".{self.sid}=" not in line]
            lines.append(f"server.{self.sid}={server_spec(self.sid, OBSERVER)}")
            self.disk.put(PATH, (SETTINGS + "\n".join(lines)).encode())
            self.cluster.trace(self, "is a joiner again")
            self.config = self.cluster.config(self.sid, None)
        super().start()


class ReconfigCluster(Cluster):
    """An ensemble with reconfiguration enabled."""

    def __init__(self, rng: Random, shape: Shape, **options: Any) -> None:
        options["overrides"] = {"reconfig_enabled": True, **options.get("overrides", {})}
        self.hosts = {}
        self.first_text = shape.text()
        super().__init__(rng, shape, **options)
        sids = list(self.hosts)
        self.hosts = {}
        for sid in sids:
            self.add_host(sid, self.first_text)

    def add_host(self, sid: int, server_lines: str) -> Host:
        """A new machine with that server list in its zoo.cfg."""
        host = self.hosts[sid] = ReconfigHost(self, sid, Cluster.config(self, sid, Members({})))
        host.disk.put(f"{DATA_DIR}/myid", b"%d\n" % sid)
        host.disk.put(PATH, f"{SETTINGS}{server_lines}\n".encode())
        host.config = self.config(sid, None)
        return host

    def add_joiner(self, sid: int, role: str = "participant") -> Host:
        """A machine that knows the first list and itself, started now."""
        host = self.add_host(sid, f"{self.first_text}\nserver.{sid}={server_spec(sid, role)}")
        host.start()
        return host

    def config(self, sid: int, members: object) -> Config:
        if sid not in self.hosts:
            return super().config(sid, members)
        disk = self.hosts[sid].disk

        def read_file(path: str) -> str | None:
            return disk.read(path).decode("iso-8859-1") if disk.exists(path) else None

        config = load_config(PATH, properties={}, read_file=read_file)
        vars(config).update(self.overrides, commit_log_count=self.committed_log_count)
        return config

    def newest_lines(self) -> list[str]:
        """The newest server list that anybody goes by."""
        views = [host.member.view for host in self.hosts.values() if hasattr(host, "member")]
        return max((view.committed for view in views), key=lambda m: m.version).lines()

    def config_files(self, host: Host) -> ConfigFiles:
        files = ConfigFiles(host.disk, PATH, host.sid)
        if not host.config.dynamic_config_file:
            files.back_up()
        return files

    def settle(self, seconds: int = 30) -> None:
        """Until everybody serves, in the same state and configuration."""
        done = self.scheduler.run_while(lambda: not self.all_agree(), seconds * SECOND)
        assert done, self.describe()
        # For what follows from it, such as ports that move.
        self.scheduler.run_until(self.scheduler.now_us + SECOND // 10)

    def all_agree(self) -> bool:
        """Whether all serve and go by the same configuration."""
        if not self.all_serve():
            return False
        versions = {
            (host.member.view.committed.version, host.member.view.last_proposed.version)
            for host in self.hosts.values()
        }
        return len(versions) == 1 and len(set(*versions)) == 1

    def members(self) -> Members:
        """What all go by, as all have it: in memory, in the tree, and in their files."""
        leader = self.leader()
        assert leader is not None
        members = leader.member.view.committed
        for sid, host in self.hosts.items():
            assert host.member.view.committed == members, host
            node = host.member.server.tree.nodes["/zookeeper/config"]
            assert node.data == members.text().encode(), host
            if sid in members.servers:
                config = self.config(sid, None)
                assert config.members == members, host
                assert config.last_proposed is None, host
        return members

    def roles(self) -> dict[int, str]:
        """What each member is doing."""
        return {sid: host.member.role.peer_state() for sid, host in self.hosts.items() if host.up}

    def describe(self) -> str:
        parts = []
        for sid, host in self.hosts.items():
            view = host.member.view if host.up else None
            parts.append(
                f"{sid} {host.member.role.peer_state()} {host.member.database.last_zxid:#x}"
                f" config {view.committed.version:#x}/{view.last_proposed.version:#x}"
                if view
                else f"{sid} down"
            )
        return "; ".join(parts)


class Admin:
    """A client that asks for reconfigurations, of one member, one connection each."""

    def __init__(self, cluster: ReconfigCluster) -> None:
        self.cluster = cluster
        self.replies: list[tuple[int, bytes]] = []
        self.wanted = 0
        self.lost_connection = False
        self._inbox = bytearray()
        self._frames: list[bytes] = []
        self._end: End | None = None
        self._connected_once = False
        self._held = False

    def reconfig(
        self,
        joining: str | None = None,
        leaving: str | None = None,
        whole: str | None = None,
        version: int = -1,
        *,
        at: int | None = None,
        times: int = 1,
        seconds: int = 20,
    ) -> int | None:
        """The error code, of the last of `times` equal requests; None if the connection ended."""
        self.send(joining, leaving, whole, version, at=at, times=times)
        self.cluster.scheduler.run_while(lambda: not self.over, seconds * SECOND)
        if len(self.replies) < times:
            return None
        return self.replies[-1][0]

    @property
    def over(self) -> bool:
        return self.lost_connection or len(self.replies) == self.wanted

    def send(
        self,
        joining: str | None,
        leaving: str | None,
        whole: str | None = None,
        version: int = -1,
        *,
        at: int | None = None,
        times: int = 1,
        hold: bool = False,
    ) -> None:
        """Ask, of the leader or member `at`; `replies` get what comes back.

        `hold`: only make a session, to ask at `release`.
        """
        self._held = hold
        cluster = self.cluster
        leader = cluster.leader()
        assert leader is not None or at is not None
        if self._end is not None:
            self._end.close()
            self._end = None
        self.replies = []
        self.wanted = times
        self.lost_connection = self._connected_once = False
        self._inbox.clear()
        body = ReconfigRequest(joining, leaving, whole, version).encode()
        self._frames = [
            struct.pack(">iii", 8 + len(body), xid, OpCode.RECONFIG) + body
            for xid in range(1, times + 1)
        ]
        address = cluster.hosts[at or leader.sid]._client_address  # type: ignore[union-attr]
        cluster.network.connect("admin", address, 1000, self._connected, self._failed)

    def release(self) -> None:
        """Ask what was held."""
        assert self._end is not None and self._connected_once, "not connected yet"
        self._end.send(b"".join(self._frames))

    def _failed(self, _reason: str) -> None:
        self.lost_connection = True

    def _connected(self, end: End) -> None:
        self._end = end
        end.socket = self
        end.send(requests.connect_frame(0, 10_000, 0, bytes(16)))

    def lost(self, _end: End, _reason: str) -> None:
        self.lost_connection = True

    def received(self, end: End, data: bytes) -> None:
        self._inbox += data
        while len(self._inbox) >= 4:
            size = 4 + int.from_bytes(self._inbox[:4], "big")
            if len(self._inbox) < size:
                return
            frame = bytes(self._inbox[4:size])
            del self._inbox[:size]
            if not self._connected_once:
                self._connected_once = True
                if not self._held:
                    self.release()
                continue
            xid, _, err = struct.unpack_from(">iqi", frame)
            if xid > 0:
                self.replies.append((err, frame[16:]))

    @property
    def text(self) -> str:
        """The configuration in the last reply."""
        data = GetDataResponse.decode(self.replies[-1][1])[0].data
        assert data is not None
        return data.decode()


class ReconfigSimulation(Simulation):
    """Clients at work and everything breaking, while somebody changes the members all the time."""

    def __init__(
        self, seed: int, *, joiners: int = 2, tracer: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        values: dict[str, object] = {name: rng.choice(some) for name, some in OVERRIDES.items()}
        values["leader_serves"] = True
        self.cluster: ReconfigCluster = ReconfigCluster(
            rng,
            Shape(3),
            overrides=values,
            preallocate_bytes=rng.choice((0, 100)),
            committed_log_count=rng.choice((3, 10, 500)),
            tracer=tracer,
        )
        for sid in range(4, 4 + joiners):
            spec = server_spec(sid, rng.choice((PARTICIPANT, OBSERVER)))
            self.cluster.add_host(sid, f"{self.cluster.first_text}\nserver.{sid}={spec}")
        self.cluster.checker.expiry_slack_ms = self.cluster.checker_slack_ms
        self.cluster.on_death = self._died
        self.nemesis = Nemesis(self.cluster)
        self.clients = []
        self.admin = Admin(self.cluster)
        self.codes: dict[int, int] = {}
        self.cluster.scheduler.after(SECOND, self._change)

    def _change(self) -> None:
        """Ask a random member for random members; then again and again."""
        if self.nemesis.healed:
            return
        for code, _ in self.admin.replies:
            self.codes[code] = self.codes.get(code, 0) + 1
        rng = self.rng
        hosts = self.cluster.hosts
        leader = self.cluster.leader()
        at = leader.sid if leader and rng.random() < 0.5 else rng.choice(list(hosts))
        if hosts[at].up:
            self.admin.send(*self._request(), at=at)
        self.cluster.scheduler.after(rng.randrange(2 * SECOND), self._change)

    def _request(self) -> tuple[str | None, str | None, str | None]:
        rng = self.rng
        sid = rng.choice(list(self.cluster.hosts))
        kind = rng.random()
        if kind < 0.25:
            return None, str(sid), None
        if kind < 0.8:
            role = rng.choice((PARTICIPANT, PARTICIPANT, OBSERVER))
            return f"server.{sid}={server_spec(sid, role)}", None, None
        sids = rng.sample(list(self.cluster.hosts), rng.randint(3, len(self.cluster.hosts)))
        roles = [PARTICIPANT, PARTICIPANT, *rng.choices((PARTICIPANT, OBSERVER), k=len(sids) - 2)]
        lines = [f"server.{s}={server_spec(s, r)}" for s, r in zip(sids, roles, strict=True)]
        self.cluster.trace("admin", "wants %s", lines)
        return None, None, "\n".join(lines)

    def finish(self) -> None:
        """As without reconfigurations; and all end with the same members."""
        super().finish()
        self.cluster.settle()
        self.cluster.members()
