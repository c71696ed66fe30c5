"""What an ensemble does on its own account: local sessions that become global, containers and TTL
nodes that go away, quotas, several addresses per member; zkpy's and Apache's members together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.support import wire
from tests.support.ensembles import NEW, ZKPY, check_equal_trees, new_ensemble, session
from tests.support.rawclient import RawClient

from zkpy.testing.ensemble import Member

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

WAIT_S = 20.0

# The largest id leads, if it starts with one other.
MIXES = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY, ZKPY, ZKPY), id="zkpy"),
        pytest.param((NEW, NEW, ZKPY), id="zkpy-leads-apache"),
        pytest.param((ZKPY, ZKPY, NEW), id="apache-leads-zkpy"),
    ],
)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def exists(member: Member, path: str) -> bool:
    with session(member) as client:
        assert client.call(wire.SYNC, wire.string(path)).err == 0
        found = client.call(wire.EXISTS, wire.path_watch(path)).err == 0
        client.end_session()
    return found


@MIXES
def test_local_sessions_become_global(kinds: Sequence[str], tmp_path: Path) -> None:
    config = {"localSessionsEnabled": "true", "localSessionsUpgradingEnabled": "true"}
    with new_ensemble(tmp_path, kinds, config) as ensemble:
        ensemble.start(3, 1)
        ensemble.start(2)
        before = ensemble.wait_for_leader().zxid()
        clients = {sid: session(member) for sid, member in ensemble.members.items()}
        for client in clients.values():
            assert client.call(wire.EXISTS, wire.path_watch("/x")).err == wire.NO_NODE
        # Sessions of readers cost nobody a txn.
        assert ensemble.wait_for_leader().zxid() == before
        for sid, client in clients.items():
            client.value(wire.CREATE, wire.create(f"/plain{sid}"))
            client.value(wire.CREATE, wire.create(f"/mine{sid}", b"", flags=wire.EPHEMERAL))
            client.value(wire.SET_DATA, wire.set_data(f"/mine{sid}", b"still mine"))
        for sid, client in clients.items():
            # Global now: it can move to another member.
            assert client.session is not None
            with RawClient(ensemble[sid % 3 + 1].address) as moved:
                found = moved.connect(client.session.session_id, client.session.password)
                assert found.session_id == client.session.session_id
                moved.value(wire.SET_DATA, wire.set_data(f"/mine{sid}", b"moved"))
                moved.end_session()
            assert not exists(ensemble[sid], f"/mine{sid}")
        check_equal_trees(ensemble)


@MIXES
def test_containers_and_ttl_nodes_go_away(kinds: Sequence[str], tmp_path: Path) -> None:
    config = {"extendedTypesEnabled": "true"}
    properties = {"znode.container.checkIntervalMs": 200}
    with new_ensemble(tmp_path, kinds, config, properties=properties) as ensemble:
        ensemble.start(3, 1)
        ensemble.start(2)
        with session(ensemble[1]) as client:
            client.value(wire.CREATE_CONTAINER, wire.create("/c", b"", flags=wire.CONTAINER))
            client.value(wire.CREATE, wire.create("/c/child", b""))
            client.value(wire.CREATE_TTL, wire.create_ttl("/t", b"", ttl_ms=300))
            client.value(wire.CREATE_TTL, wire.create_ttl("/kept", b"", ttl_ms=100_000))
            eventually(lambda: not exists(ensemble[1], "/t"), "a TTL node")
            assert exists(ensemble[2], "/c")
            client.value(wire.DELETE, wire.path_version("/c/child"))
            eventually(lambda: not exists(ensemble[2], "/c"), "a container")
        tree = check_equal_trees(ensemble)
        assert "/kept" in tree


@MIXES
def test_quotas_count_on_every_member(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds) as ensemble:
        ensemble.start(3, 1)
        ensemble.start(2)
        with session(ensemble[2]) as client:
            client.value(wire.CREATE, wire.create("/q"))
            client.value(wire.CREATE, wire.create("/zookeeper/quota/q"))
            limits = b"count=5,bytes=100"
            client.value(wire.CREATE, wire.create("/zookeeper/quota/q/zookeeper_limits", limits))
            stats = "/zookeeper/quota/q/zookeeper_stats"
            client.value(wire.CREATE, wire.create(stats, b"count=1,bytes=0"))
            for number in range(3):
                client.value(wire.CREATE, wire.create(f"/q/{number}", b"12345"))
            client.call(wire.SYNC, wire.string("/"))
        for member in ensemble.members.values():
            with session(member) as client:
                client.call(wire.SYNC, wire.string("/"))
                data, _ = client.value(wire.GET_DATA, wire.path_watch(stats))
                assert data.startswith(b"count=4,bytes=15"), member


def test_several_addresses_per_member(tmp_path: Path) -> None:
    properties = {"zookeeper.multiAddress.enabled": "true"}
    with new_ensemble(tmp_path, [ZKPY, NEW, ZKPY], properties=properties) as ensemble:
        lines = {}
        for sid, member in ensemble.members.items():
            ports = f"{member.peer_port}:{member.election_port}"
            lines[sid] = f"127.0.0.1:{ports}|127.0.0.2:{ports}"
        for member in ensemble.members.values():
            member.write_config(ensemble.config, lines)
        ensemble.start()
        for sid, member in ensemble.members.items():
            with session(member) as client:
                client.value(wire.CREATE, wire.create(f"/x{sid}"))
        leader = ensemble.wait_for_leader()
        leader.kill()
        ensemble.wait_for_leader()
        ensemble.start(leader.sid)
        check_equal_trees(ensemble)
