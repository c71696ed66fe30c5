"""Members that come, go, move and change roles: simulated ensembles with files and clients."""

from __future__ import annotations

from random import Random

import pytest
from tests.simulation.reconfiguring import Admin, ReconfigCluster, ReconfigSimulation

from zkpy.quorum.members import OBSERVER, PARTICIPANT
from zkpy.testing.cluster import Shape, server_spec
from zkpy.testing.host import Host
from zkpy.testing.scheduler import SECOND

BAD_ARGUMENTS, BAD_VERSION, IN_PROGRESS, NO_QUORUM = -8, -103, -14, -13
DISABLED = -123

seeds = pytest.mark.parametrize("seed", range(4))


def started(seed: int, shape: Shape | None = None) -> tuple[ReconfigCluster, Admin]:
    """An ensemble at rest, and who reconfigures it."""
    cluster = ReconfigCluster(Random(seed), shape or Shape(3))
    cluster.start()
    cluster.settle()
    return cluster, Admin(cluster)


def line(sid: int, role: str = PARTICIPANT) -> str:
    return f"server.{sid}={server_spec(sid, role)}"


def leader_of(cluster: ReconfigCluster) -> int:
    leader = cluster.leader()
    assert leader is not None
    return leader.sid


def followers_of(cluster: ReconfigCluster) -> list[int]:
    return [sid for sid, role in cluster.roles().items() if role.startswith("following")]


def pause(cluster: ReconfigCluster, seconds: float = 1.0) -> None:
    cluster.scheduler.run_until(cluster.scheduler.now_us + int(seconds * SECOND))


@seeds
def test_the_first_leader_establishes_the_static_list(seed: int) -> None:
    cluster, _ = started(seed)
    members = cluster.members()
    assert members.version == 1 << 32
    for host in cluster.hosts.values():
        assert host.disk.exists("/etc/zk/zoo.cfg.dynamic.100000000")
        assert b"server." not in host.disk.read("/etc/zk/zoo.cfg")
        assert b"server.1=z1:" in host.disk.read("/etc/zk/zoo.cfg.bak")
    # Once: another epoch leaves it as it is (ZOOKEEPER-1783).
    cluster.hosts[leader_of(cluster)].kill()
    pause(cluster, 3)
    for host in cluster.hosts.values():
        if not host.up:
            host.start()
    cluster.settle()
    assert cluster.members().version == 1 << 32


@seeds
def test_a_joiner_follows_without_a_vote_until_it_is_added(seed: int) -> None:
    cluster, admin = started(seed)
    role = (PARTICIPANT, OBSERVER)[seed % 2]
    cluster.add_joiner(4, role)
    cluster.settle()
    assert cluster.roles()[4] == "following - broadcast"
    assert 4 not in cluster.members().servers
    # Through any member, the joiner itself included.
    assert admin.reconfig(line(4, role), at=seed + 1) == 0
    cluster.settle()
    assert cluster.members().servers[4].role == role
    assert admin.text == cluster.members().text()
    assert cluster.roles()[4].startswith("observing" if role == OBSERVER else "following")
    # All start from what they have on disk.
    for host in cluster.hosts.values():
        host.power_off()
    for host in cluster.hosts.values():
        host.start()
    cluster.settle()
    assert 4 in cluster.members().servers


@pytest.mark.parametrize("seed", range(12))
def test_added_while_it_catches_up(seed: int) -> None:
    """ZOOKEEPER-2172: the change arrives in the midst of everything."""
    cluster, admin = started(seed)
    rng = cluster.rng
    cluster.add_joiner(4, rng.choice((PARTICIPANT, OBSERVER)))
    pause(cluster, rng.random() * 0.1)
    role = rng.choice((PARTICIPANT, OBSERVER))
    assert admin.reconfig(line(4, role)) == 0
    cluster.settle()
    assert cluster.members().servers[4].role == role


@seeds
def test_the_leader_is_removed_and_nobody_elects(seed: int) -> None:
    cluster, admin = started(seed)
    old = leader_of(cluster)
    rounds = {sid: host.member.election.logical_clock for sid, host in cluster.hosts.items()}
    before_us = cluster.scheduler.now_us
    assert admin.reconfig(None, str(old)) == 0
    cluster.settle()
    assert cluster.scheduler.now_us - before_us < SECOND
    assert leader_of(cluster) != old
    assert old not in cluster.members().servers
    assert cluster.roles()[old] == "following - broadcast"
    for sid, host in cluster.hosts.items():
        assert host.member.election.logical_clock == rounds[sid]
    # And comes back, as what it was.
    assert admin.reconfig(line(old), at=old) == 0
    cluster.settle()
    assert old in cluster.members().participants


@seeds
def test_roles(seed: int) -> None:
    cluster, admin = started(seed, Shape(3, 1))
    assert cluster.roles()[4].startswith("observing")
    assert admin.reconfig(line(4)) == 0
    cluster.settle()
    assert cluster.roles()[4].startswith("following")
    follower = followers_of(cluster)[0]
    assert admin.reconfig(line(follower, OBSERVER), at=follower) == 0
    cluster.settle()
    assert cluster.roles()[follower].startswith("observing")
    leader = leader_of(cluster)
    assert admin.reconfig(line(leader, OBSERVER)) == 0
    cluster.settle()
    assert leader_of(cluster) != leader
    assert cluster.roles()[leader].startswith("observing")
    assert admin.reconfig(line(leader)) == 0
    cluster.settle()
    whole = "\n".join(line(sid, OBSERVER if sid == 1 else PARTICIPANT) for sid in (1, 2, 3))
    assert admin.reconfig(None, None, whole) == 0
    cluster.settle()
    assert sorted(cluster.members().servers) == [1, 2, 3]
    assert cluster.roles()[1].startswith("observing")
    assert cluster.roles()[4].startswith("following"), "without a vote"


@seeds
def test_addresses_move(seed: int) -> None:
    cluster, admin = started(seed)
    leader, follower = leader_of(cluster), followers_of(cluster)[0]
    name = f"z{follower}"
    for ports, client in ((f"{name}:2888:4888", 2181), (f"{name}:3999:4888", 2182)):
        assert admin.reconfig(f"{follower}={ports};{client}") == 0
        cluster.settle()
        assert leader_of(cluster) == leader
        # The client port is where it is said to be, also when it moves back.
        for port in (2183, client):
            assert admin.reconfig(f"{follower}={ports};{port}", at=follower) == 0
            cluster.settle()
            assert cluster.network.is_listening((name, port))
        assert not cluster.network.is_listening((name, 2183))
    # A leader that moves its quorum port is another leader.
    assert admin.reconfig(f"{leader}=z{leader}:3999:4888;2181") == 0
    cluster.settle()
    assert leader_of(cluster) != leader
    cluster.hosts[leader_of(cluster)].kill()
    pause(cluster, 3)
    for host in cluster.hosts.values():
        if not host.up:
            host.start()
    cluster.settle()
    cluster.members()


def test_refusals() -> None:
    cluster, admin = started(1)
    # Asked thrice in one turn: the first is on its way.
    assert admin.reconfig(None, "9", times=3) == IN_PROGRESS
    assert [code for code, _ in admin.replies] == [0, IN_PROGRESS, IN_PROGRESS]
    cluster.settle()
    assert admin.reconfig(",".join(line(sid) for sid in (4, 5, 6))) == NO_QUORUM
    assert admin.reconfig(None, "1,2,3") == BAD_ARGUMENTS
    assert admin.reconfig(None, "3", version=5) == BAD_VERSION
    follower = followers_of(cluster)[0]
    cluster.hosts[follower].kill()
    pause(cluster, 4)
    others = ",".join(str(sid) for sid in followers_of(cluster))
    assert admin.reconfig(None, others) == NO_QUORUM
    assert cluster.leader() is not None


def test_disabled() -> None:
    cluster = ReconfigCluster(Random(1), Shape(3), overrides={"reconfig_enabled": False})
    cluster.start()
    assert cluster.scheduler.run_while(lambda: not cluster.all_serve(), 30 * SECOND)
    assert Admin(cluster).reconfig(None, "3") == DISABLED
    for host in cluster.hosts.values():
        assert host.member.view.committed.version == 0
        assert not host.disk.exists("/etc/zk/zoo.cfg.dynamic.100000000")
        node = host.member.server.tree.nodes["/zookeeper/config"]
        assert node.data == host.member.view.committed.text().encode()


@seeds
def test_from_one_server_to_five_and_back(seed: int) -> None:
    cluster, admin = started(seed, Shape(1))
    rng = cluster.rng
    for sid in (2, 3, 4, 5):
        cluster.add_joiner(sid)
        cluster.settle()
        assert admin.reconfig(line(sid), at=rng.choice((1, sid))) == 0
        cluster.settle()
        assert sid in cluster.members().participants
    for sid in rng.sample([1, 2, 3, 4, 5], 4):
        # A client of the leader that goes may be hung up on.
        assert admin.reconfig(None, str(sid), at=rng.randint(1, 5)) in (0, None)
        cluster.settle()
        assert sid not in cluster.members().servers


@seeds
def test_what_only_the_old_leader_has_proposed_is_forgotten(seed: int) -> None:
    cluster, admin = started(seed)
    old = cluster.hosts[leader_of(cluster)]
    others = [host for host in cluster.hosts.values() if host is not old]
    admin.send(None, str(others[0].sid), hold=True)
    pause(cluster, 0.5)
    for other in others:
        cluster.network.block(old.name, other.name)
    admin.release()
    pause(cluster, 0.5)
    assert old.member.view.last_proposed.version > old.member.view.committed.version
    assert old.disk.exists("/etc/zk/zoo.cfg.dynamic.next")
    pause(cluster, 6)
    assert leader_of(cluster) != old.sid
    if seed % 2:
        old.power_off()
    cluster.network.heal()
    if not old.up:
        old.start()
    cluster.settle()
    assert sorted(cluster.members().servers) == [1, 2, 3]
    assert not old.disk.exists("/etc/zk/zoo.cfg.dynamic.next")
    # Not even if it leads again.
    for _ in range(4):
        cluster.hosts[leader_of(cluster)].kill()
        pause(cluster, 4)
        for host in cluster.hosts.values():
            if not host.up:
                host.start()
        cluster.settle()
        assert cluster.members().version == 1 << 32


@seeds
def test_voters_of_both_lists_agree(seed: int) -> None:
    """Who votes in the proposed list only has that txn in its log, and the candidate does not."""
    cluster, admin = started(seed)
    cluster.add_joiner(4)
    cluster.settle()
    while leader_of(cluster) != 3:
        others = [sid for sid in (1, 2) if sid != leader_of(cluster)]
        for sid in (leader_of(cluster), *others[:1]):
            cluster.hosts[sid].kill()
        pause(cluster, 3)
        for host in cluster.hosts.values():
            if not host.up:
                host.start()
        cluster.settle()
    old, joiner = cluster.hosts[3], cluster.hosts[4]
    admin.send(None, None, f"{line(3)}\n{line(4)}", hold=True)
    pause(cluster)
    for sid in (1, 2):
        cluster.network.block("z3", f"z{sid}")
    old.sync_us = (20 * SECOND, 30 * SECOND)
    admin.release()
    pause(cluster, 0.1)
    proposed = old.member.view.last_proposed.version
    assert joiner.durable_zxid == proposed > old.durable_zxid
    old.power_off()
    cluster.hosts[2].kill()
    old.sync_us = (100, 3000)
    cluster.network.heal()
    old.start()
    assert old.member.view.last_proposed.version == proposed > old.member.database.last_zxid
    # 1 knows the committed list and votes for 3, which needs 4, too.
    assert cluster.scheduler.run_while(lambda: cluster.leader() is None, 20 * SECOND)
    assert leader_of(cluster) == 3
    cluster.hosts[2].start()
    cluster.settle()
    assert sorted(cluster.members().servers) == [3, 4], (
        "it may have been committed, for all they know"
    )


@seeds
def test_what_is_only_proposed_is_activated_by_nobody(seed: int) -> None:
    """Not by a server that comes while the change waits for the new voters, either."""
    cluster, admin = started(seed)
    for sid in (4, 5):
        cluster.add_joiner(sid)
    cluster.settle()
    leader = leader_of(cluster)
    network = cluster.network
    for sid in (4, 5):
        network.block(f"z{sid}", f"z{leader}")
    admin.send(None, None, "\n".join(line(sid) for sid in (leader, 4, 5)))
    pause(cluster, 0.2)
    proposed = cluster.hosts[leader].member.view.last_proposed.version
    host = cluster.hosts[next(sid for sid in (1, 2, 3) if sid != leader)]
    host.kill()
    host.start()
    pause(cluster, 0.5)
    assert host.has_role
    view = host.member.view
    assert view.committed.version < proposed == view.last_proposed.version
    network.heal()
    cluster.settle()
    assert cluster.members().version == proposed


@seeds
def test_observers_do_not_count_for_a_new_quorum(seed: int) -> None:
    """Nor who was just made one and still follows: it may come back as one that acks nothing."""
    cluster, admin = started(seed)
    for sid in (4, 5):
        cluster.add_joiner(sid)
    cluster.settle()
    leader = leader_of(cluster)
    for sid in (4, 5):
        cluster.network.block(f"z{leader}", f"z{sid}")  # it will not hear of it
    joining = ",".join(line(sid, OBSERVER) for sid in (4, 5))
    assert admin.reconfig(joining) == 0
    whole = "\n".join(line(sid) for sid in (leader, 4, 5))
    assert admin.reconfig(None, None, whole) == NO_QUORUM
    cluster.network.heal()
    cluster.settle()
    assert admin.reconfig(None, None, whole) == NO_QUORUM


def test_an_observer_without_a_log_comes_to_vote() -> None:
    cluster = ReconfigCluster(Random(1), Shape(3, 1), overrides={"sync_enabled": False})
    admin = Admin(cluster)
    cluster.start()
    cluster.settle()
    for _ in range(3):
        assert admin.reconfig(None, "9") == 0
        cluster.settle()
    observer = cluster.hosts[4]
    assert observer.durable_zxid < observer.member.database.last_zxid
    assert admin.reconfig(line(4)) == 0
    cluster.settle()
    assert admin.reconfig(None, "9") == 0
    cluster.settle()
    observer.power_off()
    observer.start()
    cluster.settle()
    assert cluster.roles()[4].startswith("following")


@pytest.mark.parametrize("seed", range(10))
def test_power_fails_during_changes(seed: int) -> None:
    cluster, admin = started(seed)
    rng = cluster.rng

    def died(host: Host) -> None:
        cluster.scheduler.after(rng.randrange(2 * SECOND), lambda: host.up or host.start())

    cluster.on_death = died
    for _ in range(4):
        for host in cluster.hosts.values():
            if rng.random() < 0.5:
                host.operations_left = rng.randrange(40)
        role = rng.choice((PARTICIPANT, PARTICIPANT, OBSERVER))
        admin.send(line(rng.randint(1, 3), role), None, at=rng.randint(1, 3))
        pause(cluster, rng.random() * 3)
        for host in cluster.hosts.values():
            host.operations_left = None
            if not host.up:
                host.start()
        cluster.settle(60)
        cluster.members()


@seeds
def test_clients_and_faults(seed: int) -> None:
    simulation = ReconfigSimulation(seed)
    simulation.run(faults=12)
    assert simulation.codes
