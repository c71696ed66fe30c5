"""An ensemble as operators and clients see it: the walk-through of three nodes, sessions that move
between members, kazoo on each of them, and strangers at the ports between servers.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.support import wire
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    check_equal_trees,
    new_ensemble,
    session,
)
from tests.support.rawclient import Closed, RawClient

from zkpy.testing.ensemble import Ensemble, Member

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

NOT_SERVING = "This ZooKeeper instance is not currently serving requests"
WAIT_S = 20.0

THREE = pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((ZKPY, ZKPY, ZKPY), id="zkpy"),
        pytest.param((ZKPY, NEW, OLD), id="zkpy-follows-apache"),
        pytest.param((NEW, ZKPY, ZKPY), id="zkpy-leads-apache"),
    ],
)


def wait_for_log(ensemble: Ensemble, member: Member, pattern: str) -> re.Match[str]:
    found: list[re.Match[str]] = []

    def said() -> bool:
        match = re.search(pattern, member.log_text(), re.MULTILINE)
        if match:
            found.append(match)
        return match is not None

    ensemble.eventually(said, f"{member} says {pattern}", WAIT_S)
    return found[0]


def get(client: RawClient, path: str) -> bytes:
    assert client.call(wire.SYNC, wire.string(path)).err == 0
    data, _ = client.value(wire.GET_DATA, wire.path_watch(path))
    assert isinstance(data, bytes)
    return data


def exists(client: RawClient, path: str) -> bool:
    return client.call(wire.EXISTS, wire.path_watch(path)).err == 0


def resumed(member: Member, client: RawClient, last_zxid: int = 0) -> RawClient:
    """The same session, at that member, as clients do it: until the member lets them."""
    assert client.session is not None
    deadline = time.monotonic() + WAIT_S
    while True:
        again = RawClient(member.address)
        try:
            found = again.connect(
                client.session.session_id, client.session.password, 10_000, last_zxid
            )
        except (Closed, OSError):
            assert time.monotonic() < deadline, f"{member} does not resume the session"
            time.sleep(0.02)
            continue
        assert found.session_id == client.session.session_id
        return again


def test_three_nodes_from_the_first_start_to_the_last_survivor(tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY] * 3) as ensemble:
        one, two, three = ensemble.members.values()
        # Alone it looks for the others, and serves nobody.
        one.start()
        for other in (two, three):
            address = re.escape(f"/127.0.0.1:{other.election_port}")
            wait_for_log(
                ensemble,
                one,
                f"Cannot open channel to {other.sid} at election address {address}"
                "(.|\n)*?Connection refused",
            )
        assert re.search(r"LOOKING$", one.log_text(), re.MULTILINE)
        assert "New election. My id = 1, proposed zxid=0x0" in one.log_text()
        assert one.ask("srvr").strip() == NOT_SERVING
        assert one.ask("ruok") == "imok"
        with RawClient(one.address) as client, pytest.raises(Closed):
            client.connect()
        # Two elect the larger id.
        two.start()
        ensemble.wait_until_serving([one, two])
        assert (one.mode(), two.mode()) == ("follower", "leader")
        wait_for_log(ensemble, two, r"LEADING - LEADER ELECTION TOOK - \d+ MS$")
        wait_for_log(ensemble, one, r"FOLLOWING - LEADER ELECTION TOOK - \d+ MS$")
        # The third joins, though its id is larger.
        three.start()
        ensemble.wait_until_serving()
        assert [m.mode() for m in (one, two, three)] == ["follower", "leader", "follower"]
        client = session(two)
        client.value(wire.CREATE, wire.create("/x", b"1"))
        client.value(wire.CREATE, wire.create("/mine", b"", flags=wire.EPHEMERAL))
        for member in (one, three):
            with session(member) as reader:
                assert get(reader, "/x") == b"1"
        assert one.zxid() is not None
        assert (one.zxid() or 0) >> 32 == 1
        # The leader dies: the session lives on at another member, with its ephemeral node.
        two.kill()
        client = resumed(one, client)
        assert exists(client, "/mine")
        assert ensemble.wait_for_leader().sid == 3
        client.value(wire.SET_DATA, wire.set_data("/x", b"2"))
        assert (ensemble[3].zxid() or 0) >> 32 == 2
        # Back as a follower, with all data.
        two.start()
        ensemble.wait_until_serving()
        assert two.mode() == "follower"
        with session(two) as reader:
            assert get(reader, "/x") == b"2"
        check_equal_trees(ensemble)
        # One of three is too few.
        three.kill()
        two.kill()
        ensemble.eventually(lambda: one.ask("srvr").strip() == NOT_SERVING, "too few", WAIT_S)
        with pytest.raises((Closed, OSError)):
            client.call(wire.EXISTS, wire.path_watch("/x"))
        assert one.ask("ruok") == "imok"
        two.start()
        ensemble.wait_until_serving()
        with session(one) as reader:
            assert get(reader, "/x") == b"2"


@THREE
def test_sessions_belong_to_the_ensemble(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds) as ensemble:
        ensemble.start()
        observer = session(ensemble[3])
        client = session(ensemble[1])
        client.value(wire.CREATE, wire.create("/watched", b"0"))
        client.value(wire.CREATE, wire.create("/mine", b"", flags=wire.EPHEMERAL))
        # To each member in turn: the same session, its ephemeral node, its watches by setWatches.
        for sid in (2, 3, 1):
            _, stat = client.value(wire.GET_DATA, wire.path_watch("/watched", True))
            seen = stat.mzxid
            client.close()
            observer.value(wire.SET_DATA, wire.set_data("/watched", b"%d" % sid))
            zxid = observer.call(wire.SYNC, wire.string("/")).zxid
            client = resumed(ensemble[sid], client, zxid)
            client.send(wire.SET_WATCHES, wire.set_watches(seen, ["/watched"], [], []))
            reply, event = client.recv(), client.recv()
            if reply.is_event:  # either order is right
                reply, event = event, reply
            assert (reply.err, event.event().path) == (0, "/watched")
            assert event.event().type == wire.NODE_DATA_CHANGED
            assert exists(client, "/mine")
            client.value(wire.SET_DATA, wire.set_data("/mine", b"%d" % sid))
        # A wrong password is no way in, at any member.
        assert client.session is not None
        for member in ensemble.members.values():
            with RawClient(member.address) as thief:
                found = thief.connect(client.session.session_id, b"x" * 16)
                assert found.session_id == 0
        # An older connection of a session that has moved is closed when it writes.
        newer = resumed(ensemble[2], client)
        newer.value(wire.SET_DATA, wire.set_data("/mine", b"new"))
        with pytest.raises((Closed, TimeoutError)):
            client.timeout_s = 3
            client.call(wire.SET_DATA, wire.set_data("/mine", b"old"))
        assert get(newer, "/mine") == b"new"
        # Its end takes the node away, everywhere.
        newer.end_session()
        for member in ensemble.members.values():
            with session(member) as reader:
                reader.call(wire.SYNC, wire.string("/"))
                assert not exists(reader, "/mine")
        check_equal_trees(ensemble)


@THREE
def test_the_leader_decides_when_a_session_expires(kinds: Sequence[str], tmp_path: Path) -> None:
    with new_ensemble(tmp_path, kinds) as ensemble:
        ensemble.start()
        quiet: dict[int, RawClient] = {}
        busy: dict[int, RawClient] = {}
        for sid, member in ensemble.members.items():
            quiet[sid] = session(member, 1500)
            quiet[sid].value(wire.CREATE, wire.create(f"/q{sid}", b"", flags=wire.EPHEMERAL))
            busy[sid] = session(member, 1500)
            busy[sid].value(wire.CREATE, wire.create(f"/b{sid}", b"", flags=wire.EPHEMERAL))
        reader = session(ensemble[1])
        deadline = time.monotonic() + WAIT_S
        while any(exists(reader, f"/q{sid}") for sid in quiet):
            assert time.monotonic() < deadline, f"sessions do not expire{ensemble.logs()}"
            for client in busy.values():  # only pings: the learners tell the leader of them
                assert client.call(wire.PING).err == 0
            time.sleep(0.2)
        for sid, client in busy.items():
            assert exists(client, f"/b{sid}")
        for sid, client in quiet.items():
            assert client.session is not None
            with RawClient(ensemble[sid % 3 + 1].address) as again:
                found = again.connect(client.session.session_id, client.session.password)
                assert found.session_id == 0, "an expired session was resumed"


@THREE
def test_kazoo_on_each_member(kinds: Sequence[str], tmp_path: Path) -> None:
    kazoo = pytest.importorskip("kazoo.client")
    clients: list[Any] = []
    with new_ensemble(tmp_path, kinds) as ensemble:
        ensemble.start()
        try:
            for member in ensemble.members.values():
                host, port = member.address
                others = [
                    f"{one.host}:{one.client_port}"
                    for one in ensemble.members.values()
                    if one is not member
                ]
                hosts = ",".join([f"{host}:{port}", *others])
                client = kazoo.KazooClient(hosts, timeout=10, randomize_hosts=False)
                client.start(WAIT_S)
                clients.append(client)
            use_kazoo(ensemble, clients)
        finally:
            for client in clients:
                client.stop()
                client.close()
        check_equal_trees(ensemble)


def use_kazoo(ensemble: Ensemble, clients: list[Any]) -> None:
    one, two, three = clients
    one.create("/app/config", b"0", makepath=True)
    seen: list[bytes] = []
    two.sync("/app")
    two.DataWatch("/app/config", lambda data, _stat: seen.append(data))
    one.set("/app/config", b"1")
    ensemble.eventually(lambda: b"1" in seen, "a watch across members", WAIT_S)
    # A lock passes from member to member; its holders never overlap.
    counter = [0]
    for client in (*clients, *clients):
        with client.Lock("/app/lock", str(client.client_id[0])):
            counter[0] += 1
            assert client.set("/app/config", b"%d" % counter[0])
    transaction = three.transaction()
    transaction.check("/app/config", three.get("/app/config")[1].version)
    transaction.create("/app/made", b"")
    transaction.delete("/app/made")
    assert not [r for r in transaction.commit() if isinstance(r, Exception)]
    three.create("/app/mine", b"", ephemeral=True, sequence=True)
    # The leader dies: every client goes on, with its session.
    before = [client.client_id[0] for client in clients]
    leader = ensemble.wait_for_leader()
    leader.kill()
    ensemble.wait_for_leader()
    for client in clients:
        client.retry(client.set, "/app/config", b"after")
    assert [client.client_id[0] for client in clients] == before
    assert len([n for n in three.get_children("/app") if n.startswith("mine")]) == 1
    leader.start()
    ensemble.wait_until_serving()


def notification(length: int, *, version: int = 2) -> bytes:
    body = struct.pack(">iqqqqi", 0, 9, 2**40, 1, 1, version)
    return struct.pack(">i", length) + body


ELECTION_GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(64),
    b"\xff" * 64,
    struct.pack(">q", 77),  # a server that is not in the list, in the old form
    struct.pack(">qqi", -65536, 99, 14) + b"127.0.0.1:3333",
    struct.pack(">qqi", -65535, 2, 2**31 - 1),
    struct.pack(">qqi", -65536, 2, -5),
    struct.pack(">qqi", -65536, 2, 5) + b"\xff\xfe\xfd\xfc\xfb",
    struct.pack(">q", -1),
]
# What a member sends who calls itself 1, 2 or 3: each is somebody else's id, or one's own.
IMPOSTORS = [
    struct.pack(">qqi", -65536, sid, 14) + b"127.0.0.1:3333" + rest
    for sid in (1, 2, 3)
    for rest in (
        b"",
        struct.pack(">i", 2**31 - 1),
        struct.pack(">i", -1),
        notification(3),
        notification(40),
        notification(40, version=2**31 - 1),
    )
]
STRANGE_LEARNER = struct.pack(">qiq", 99, 0x10000, 0)
PEER_GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    bytes(64),
    b"\xff" * 64,
    struct.pack(">iqi", 11, 0, 2**31 - 1),  # FOLLOWERINFO with two gigabytes to come
    struct.pack(">iqi", 11, 2**40, 20) + STRANGE_LEARNER[:10],
    struct.pack(">iqii", 3, 2**33, -1, -1),  # an ACK of nothing
    struct.pack(">iqii", 999, 0, -1, -1),
    struct.pack(">iqi", 11, 0, 20) + STRANGE_LEARNER + struct.pack(">i", -1),
    struct.pack(">iqi", 11, 0, 20) + struct.pack(">qiq", 99, 1, 0) + struct.pack(">i", -1),
]
LEARNER_IMPOSTORS = [
    struct.pack(">iqi", 11, zxid, 20) + struct.pack(">qiq", sid, 0x10000, 0) + b"\xff" * 4 + rest
    for sid in (1, 2, 3)
    for zxid in (0, 2**32, 2**62)
    for rest in (b"", bytes(40), struct.pack(">iqi", 18, 2**32, 4) + bytes(4) + b"\xff" * 4)
]


def send(address: tuple[str, int], data: bytes, hold: list[socket.socket]) -> None:
    try:
        connection = socket.create_connection(address, 5)
    except (ConnectionRefusedError, ConnectionResetError):
        return  # only a leader listens on its peer port, and impostors may have just deposed it
    hold.append(connection)
    try:
        connection.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        pass  # it went after the connection


def test_strangers_at_the_ports_between_servers(tmp_path: Path) -> None:
    random = Random(4)
    hold: list[socket.socket] = []
    with new_ensemble(tmp_path, [ZKPY] * 3) as ensemble:
        ensemble.start()
        leader = ensemble.wait_for_leader()
        client = session(leader)
        client.value(wire.CREATE, wire.create("/x", b"0"))
        zxid = leader.zxid()
        assert zxid is not None
        noise = [random.randbytes(random.randrange(1, 300)) for _ in range(30)]
        for member in ensemble.members.values():
            for data in (*ELECTION_GARBAGE, *noise, b""):
                send((member.host, member.election_port), data, hold)
            for data in (*PEER_GARBAGE, *noise, b""):
                send((member.host, member.peer_port), data, hold)
        # Nobody has ended, the same one leads in the same epoch, and writes go through.
        for number in range(50):
            client.value(wire.SET_DATA, wire.set_data("/x", b"%d" % number))
        for member in ensemble.members.values():
            assert member.running, ensemble.logs()
            with session(member) as reader:
                assert get(reader, "/x") == b"49"
        assert ensemble.wait_for_leader() is leader
        assert (leader.zxid() or 0) >> 32 == zxid >> 32, f"an election{ensemble.logs()}"
        # What was refused was said, with who and why.
        for member in ensemble.members.values():
            warned = [line for line in member.log_text().splitlines() if " WARN " in line]
            assert sum("127.0.0.1:" in line for line in warned) > 5, ensemble.logs()
            assert "Traceback" not in member.log_text()
        # Whoever takes a member's id takes its place, for a moment: it comes back.
        for data in IMPOSTORS:
            for member in ensemble.members.values():
                send((member.host, member.election_port), data, hold)
        for data in LEARNER_IMPOSTORS:
            send((leader.host, leader.peer_port), data, hold)
        ensemble.wait_until_serving()
        # And a real election still works among all that.
        leader.kill()
        ensemble.wait_for_leader()
        leader.start()
        ensemble.wait_until_serving()
        check_equal_trees(ensemble)
    for connection in hold:
        connection.close()


@pytest.fixture(params=[ZKPY, NEW])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_host_names(kind: str, tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY, kind, ZKPY]) as ensemble:
        lines = {sid: m.server_line for sid, m in ensemble.members.items()}
        lines = {sid: line.replace("127.0.0.1", "localhost") for sid, line in lines.items()}
        for member in ensemble.members.values():
            member.write_config(ensemble.config, lines)
        ensemble.start()
        client = session(ensemble[1])
        client.value(wire.CREATE, wire.create("/x"))
        check_equal_trees(ensemble)
