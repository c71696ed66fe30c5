"""Incidents of ZooKeeper's history, each as a scenario, and as a member that has the fault again.

Broadcast, sessions, members. Numbers and names are those of quorum-protocol.md, section 10. Each
test is run twice: as it is, when all has to be well, and with what `broken` brings back, when it
has to fail.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.simulation import broken, test_reconfig
from tests.simulation.incidents import (
    holds,
)
from tests.simulation.scenario import Scenario

from zkpy.protocol.errors import ProtocolError
from zkpy.protocol.packets import (
    PROPOSAL,
    Packet,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.quorum.follower import Follower
from zkpy.quorum.members import PARTICIPANT, parse_config_text
from zkpy.testing import requests
from zkpy.testing.cluster import Shape, server_spec
from zkpy.testing.history import require
from zkpy.testing.scheduler import SECOND


def test_27_zookeeper_1277() -> None:
    """The counter of an epoch runs out: another epoch begins, and nothing acknowledged is lost."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        jump(s, 0xFFFFFFF0)
        client = s.client(s.a, s.b, s.c)
        for number in range(20):
            while s.history.now(f"/{number}") is None:
                s.until(lambda: client.established)
                s.write_unseen(client, f"/{number}")
                s.until(lambda: not client.sent)
        assert max(s.checker.leaders) == 2
        s.finish()

    holds(scenario, broken.counter_runs_over)


def jump(s: Scenario, counter: int) -> None:
    """Have all be at this counter of the first epoch, of which nothing has been written."""
    zxid = 1 << 32 | counter
    s.history.base = zxid
    for host in s.hosts.values():
        member = host.member
        zab: Any = member.zab
        zab.last_zxid = zab.committed_zxid = zab.durable_zxid = zxid
        member.database.last_zxid = zxid
        member.database.store.replace(member.database.tree)
        host.durable_zxid = zxid
        if host is s.c:
            member.server.prep.last_zxid = zxid
            for handler in zab.handlers:
                handler.acked = zxid


def test_28_zookeeper_2355() -> None:
    """A follower that cannot read a closeSession: that session's ephemerals survive nowhere."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.b)
        s.call(client, requests.create("/e", b"", 1))
        s.settle()
        role = s.a.member.zab
        with pytest.MonkeyPatch.context() as patch:
            original = Follower._broadcast

            def broadcast(self: Follower, packets: list[Packet]) -> None:
                for packet in packets:
                    if self is role and self.failed is None and is_close_session(packet):
                        packets.remove(packet)
                        original(self, packets)
                        raise ProtocolError("unreadable")
                original(self, packets)

            patch.setattr(Follower, "_broadcast", broadcast)
            s.call(client, requests.close_session())
            client.gone = True
            s.until(lambda: s.position(s.a) == len(s.history.order), limit_s=1)
        s.finish()

    holds(scenario, broken.unreadable_proposals_passed_over)


def is_close_session(packet: Packet) -> bool:
    type, _, data, _ = packet
    return (
        type == PROPOSAL
        and data is not None
        and int.from_bytes(data[28:32], "big", signed=True) == OpCode.CLOSE_SESSION
    )


def test_30_zookeeper_4537() -> None:
    """One client, one request after the other and some at once: none waits for ever."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        for host in s.hosts.values():
            client = s.client(host)
            path = f"/{host.sid}"
            s.create(client, path)
            for _ in range(20):
                s.call(client, requests.set_data(path, b"1"))
                s.call(
                    client,
                    requests.set_data(path, b"2"),
                    requests.read(OpCode.GET_DATA, path),
                    requests.sync(),
                    requests.read(OpCode.EXISTS, path),
                    requests.set_data(path, b"3"),
                )
        s.finish()

    holds(scenario, broken.replies_not_followed_by_what_waits)


def test_31_zookeeper_4712_4541() -> None:
    """A role ends while its txns are still being logged: each is logged once, in order."""

    def scenario() -> None:
        s = Scenario()
        s.lead(s.c)
        client = s.client(s.c)
        s.create(client, "/before")
        s.slow_disk(s.c, 700)
        s.separate([s.c], [s.a, s.b])
        for number in range(20):
            s.write_unseen(client, f"/{number}")
            s.run(0.1)
        s.until(lambda: not s.c.has_role)
        s.heal()
        s.settle()
        s.finish()

    holds(scenario, broken.uncommitted_logged_again)


def test_35_zookeeper_2819_3829() -> None:
    """Without reconfiguration a rolling restart changes the members: each goes by its own list."""

    def scenario() -> None:
        s = Scenario(4, shape=Shape(3), committed_log_count=2)
        larger = parse_config_text(Shape(4).text())
        s.cluster.add_member(4, larger)
        hosts = list(s.hosts.values())
        s.start(*hosts[:3])
        s.settle(*hosts[:3])
        s.create(s.client(s.c), *(f"/{i}" for i in range(5)))
        s.start(hosts[3])  # gets a SNAP
        s.settle()
        for host in hosts[:3]:
            host.kill()
            host.config = s.cluster.config(host.sid, larger)
            s.start(host)
            s.settle()
        for host in hosts:
            node = host.member.database.tree.nodes["/zookeeper/config"]
            require(node.data == larger.text().encode(), "%s goes by %s", host, node.data)
        s.finish()

    holds(scenario, broken.config_taken_from_the_snapshot)


def test_33_zookeeper_1783_1324() -> None:
    """What a joiner begins with is not taken for the configuration, however it is asked for it."""

    def scenario() -> None:
        cluster, _ = test_reconfig.started(1)
        established = cluster.members()
        joiner = cluster.add_joiner(4)
        cluster.settle()
        for _ in range(2):
            # All look for a leader at once, the joiner among them.
            leader = cluster.leader()
            assert leader is not None
            leader.kill()
            cluster.scheduler.run_until(cluster.scheduler.now_us + SECOND)
            leader.start()
            joiner.kill()
            joiner.start()
            cluster.settle()
        assert cluster.members() == established

    holds(scenario, broken.any_configuration_is_newer)


def test_34_zookeeper_2172() -> None:
    """A joiner is added while it catches up: COMMITANDACTIVATE between NEWLEADER and UPTODATE."""

    def scenario() -> None:
        cluster, admin = test_reconfig.started(1)
        cluster.hosts[4] = joiner = cluster.add_host(4, f"{cluster.first_text}\n{line(4)}")
        # What it gets by DIFF takes it a while to log: before that it acknowledges nothing.
        joiner.sync_us = (SECOND, SECOND + 1)
        assert admin.reconfig(line(1)) == 0
        joiner.start()
        cluster.scheduler.run_while(
            lambda: joiner.member.role.peer_state() != "following - synchronization - diff",
            SECOND,
        )
        assert admin.reconfig(line(4)) == 0
        assert not joiner.has_role
        cluster.settle()
        assert cluster.members().servers[4].role == PARTICIPANT

    holds(scenario, broken.activation_while_catching_up_forgotten)


def line(sid: int) -> str:
    return f"server.{sid}={server_spec(sid)}"
