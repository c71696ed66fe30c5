"""Members of an ensemble embedded in one program: the real sockets, threads and timers of a shell.

What they agree on is the simulation's matter; here it is that the shell does what they ask for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.server.aio.in_process import InProcess, config_of, eventually
from tests.support import wire
from tests.support.oracle import free_port
from tests.support.rawclient import RawClient, four_letter_word, open_session

from zkpy.quorum.effects import ELECTION, Dial
from zkpy.quorum.learner_handler import SNAPSHOT_PIECE_BYTES
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import BROADCAST, LEADING
from zkpy.server.aio import quorum_port
from zkpy.server.aio.election_port import UNABLE_TO_BIND_QUORUM_PORT, UnableToBind
from zkpy.server.aio.member import MemberRunner, MemberServer
from zkpy.server.member import Member
from zkpy.testing.disk import SimulatedDisk


class MemberInProcess(InProcess):
    """A member on a loop of its own, in a thread."""

    def __init__(self, disk: Any = None, **settings: Any) -> None:
        super().__init__(disk, **settings)
        self.server = MemberServer(config_of(**settings), self.disk)

    @property
    def member(self) -> Member:
        return self.server.member  # type: ignore[attr-defined, no-any-return]

    def serving(self) -> bool:
        zab = self.member.zab
        return zab is not None and zab.phase == BROADCAST and self.member.server.serving


class Ensemble:
    """Members 1 to `count`, each with a disk that outlives it."""

    def __init__(self, count: int = 3, **settings: Any) -> None:
        self.settings = settings
        ports = {sid: (free_port(), free_port()) for sid in range(1, count + 1)}
        host = settings.pop("host", "127.0.0.1")
        self.ports = ports
        lines = [
            f"server.{sid}={host}:{peer}:{election}" for sid, (peer, election) in ports.items()
        ]
        self.members = parse_config_text("\n".join(lines))
        self.disks = {sid: SimulatedDisk() for sid in ports}
        self.running: dict[int, MemberInProcess] = {}

    def start(self, *sids: int, **settings: Any) -> None:
        for sid in sids or tuple(self.ports):
            member = MemberInProcess(
                self.disks[sid],
                members=self.members,
                my_id=sid,
                quorum_mode=True,
                tick_time_ms=200,
                init_limit_ticks=25,
                sync_limit_ticks=10,
                **{**self.settings, **settings},
            )
            self.running[sid] = member.__enter__()

    def wait(self) -> None:
        eventually(self._is_whole, "not everybody serves under one leader")

    def _is_whole(self) -> bool:
        members = [process.member for process in self.running.values()]
        leaders = [member for member in members if member.state == LEADING]
        if len(leaders) != 1 or not all(process.serving() for process in self.running.values()):
            return False
        # A member that has not noticed the end of its leader serves as well.
        followed = {member.current_vote.leader for member in members}
        return followed == {leaders[0].my_id}

    def stop(self, *sids: int) -> None:
        for sid in sids or tuple(self.running):
            self.running.pop(sid).__exit__()

    @property
    def leader(self) -> int:
        leading = [s for s, m in self.running.items() if m.serving() and m.member.state == LEADING]
        assert len(leading) == 1
        return leading[0]

    def session(self, sid: int) -> RawClient:
        return self.running[sid].session()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


@pytest.fixture
def three() -> Iterator[Ensemble]:
    with Ensemble() as ensemble:
        ensemble.start()
        ensemble.wait()
        yield ensemble


def make(client: RawClient, path: str, data: bytes = b"", flags: int = 0) -> None:
    client.value(wire.CREATE, wire.create(path, data, flags))


def get(client: RawClient, path: str) -> bytes:
    client.value(wire.SYNC, wire.string(path))
    data: bytes = client.value(wire.GET_DATA, wire.path_watch(path))[0]
    return data


def test_what_is_written_at_one_is_read_at_all(three: Ensemble) -> None:
    for sid in three.running:
        with three.session(sid) as client:
            make(client, f"/by{sid}", b"%d" % sid)
    for sid in three.running:
        with three.session(sid) as client:
            for other in three.running:
                assert get(client, f"/by{other}") == b"%d" % other


def test_the_leader_goes_and_comes_back(three: Ensemble) -> None:
    first = three.leader
    with three.session(first) as client:
        make(client, "/before", b"1")
    three.stop(first)
    three.wait()
    second = three.leader
    assert second != first
    with three.session(second) as client:
        make(client, "/between", b"2")
    three.start(first)
    three.wait()
    assert three.leader == second, "who comes back follows"
    with three.session(first) as client:
        assert get(client, "/before") == b"1"
        assert get(client, "/between") == b"2"


def test_a_session_moves_with_its_ephemeral_node(three: Ensemble) -> None:
    leader = three.leader
    followers = [sid for sid in three.running if sid != leader]
    client = three.session(leader)
    make(client, "/mine", flags=1)
    session = client.session
    three.stop(leader)
    three.wait()
    with RawClient(three.running[followers[0]].address) as again:
        assert again.connect(session.session_id, session.password).session_id != 0
        assert again.call(wire.EXISTS, wire.path_watch("/mine")).err == 0
        again.end_session()
    with three.session(followers[1]) as other:
        other.value(wire.SYNC, wire.string("/"))
        assert other.call(wire.EXISTS, wire.path_watch("/mine")).err == wire.NO_NODE
    client.close()


def test_everything_is_there_after_all_were_stopped(three: Ensemble) -> None:
    with three.session(1) as client:
        make(client, "/kept", b"x")
    three.stop()
    three.start()
    three.wait()
    with three.session(2) as client:
        assert get(client, "/kept") == b"x"


def test_a_large_state_comes_as_a_snapshot(three: Ensemble) -> None:
    late = 1
    three.stop(late)
    three.wait()
    with three.session(three.leader) as client:
        for number in range(40):
            make(client, f"/n{number}", bytes(100_000))
    three.disks[late] = SimulatedDisk()
    for sid in list(three.running):  # their committed logs reach back, so they start anew
        three.stop(sid)
    three.start(2, 3, force_snapshot_sync=True)
    three.wait()
    three.start(late, force_snapshot_sync=True)
    three.wait()
    with three.session(late) as client:
        assert get(client, "/n39") == bytes(100_000)
    assert len(three.running[late].member.database.tree.nodes) == len(
        three.running[2].member.database.tree.nodes
    )


def test_without_a_quorum_nobody_is_served_but_four_letter_words_are() -> None:
    with Ensemble() as ensemble:
        ensemble.start(1)
        address = ensemble.running[1].address
        assert "not currently serving requests" in four_letter_word(address, "srvr")
        assert four_letter_word(address, "ruok") == "imok"
        with RawClient(address) as client:
            client.send_connect()
            client.expect_close()
        ensemble.start(2)
        ensemble.wait()
        with ensemble.session(1) as client:
            make(client, "/x")


def test_a_server_for_reads_alone_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """The line that tests of other clients wait for."""
    caplog.set_level(logging.INFO)
    with Ensemble(read_only_mode_enabled=True) as ensemble:
        ensemble.start(1)
        eventually(lambda: "Read-only server started" in caplog.text, "no word of it")


def test_a_leader_that_is_not_to_serve_leaves_that_to_others() -> None:
    with Ensemble(leader_serves=False) as ensemble:
        ensemble.start()
        for member in ensemble.running.values():
            eventually(lambda m=member: m.member.zab and m.member.zab.phase == BROADCAST)
        leader = next(s for s, m in ensemble.running.items() if m.member.state == LEADING)
        other = next(s for s in ensemble.running if s != leader)
        with RawClient(ensemble.running[leader].address) as client:
            client.send_connect()
            client.expect_close()
        with ensemble.session(other) as client:
            make(client, "/x")


def test_names_and_all_addresses() -> None:
    with Ensemble(host="localhost", quorum_listen_on_all_ips=True) as ensemble:
        ensemble.start()
        ensemble.wait()
        with ensemble.session(1) as client:
            make(client, "/x")


def test_a_name_that_does_not_resolve_is_that_members_matter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Ensemble() as ensemble:
        text = ensemble.members.text().replace("server.3=127.0.0.1", "server.3=nowhere.invalid")
        ensemble.members = parse_config_text(text)
        ensemble.start(1, 2)
        ensemble.wait()
        with ensemble.session(1) as client:
            make(client, "/x")
    assert "Cannot open channel to 3 at election address nowhere.invalid:" in caplog.text


def test_one_of_several_addresses_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    """Of its own, to listen at, and of others, to connect to; a missing one is tried again."""
    caplog.set_level(logging.INFO)
    with Ensemble(election_port_bind_retry=0) as ensemble, socket.socket() as blocker:
        blocker.bind(("127.0.0.1", 0))
        blocker.listen()
        taken = blocker.getsockname()[1]
        lines = []
        for sid, line in enumerate(ensemble.members.text().splitlines()[:3], 1):
            spec, _, rest = line.partition(":participant")
            more = taken if sid == 1 else free_port()
            own = f"127.0.0.1:{free_port()}:{more}"
            lines.append(f"{spec}|nowhere.invalid:1:2|{own}:participant{rest}")
        ensemble.members = parse_config_text("\n".join(lines), multi_address=True)
        ensemble.start()
        ensemble.wait()
        with ensemble.session(1) as client:
            make(client, "/x")
        blocker.close()
        port = f"1 is accepting connections now, my election bind port: /127.0.0.1:{taken}"
        eventually(lambda: port in caplog.text, "the election port was not tried again")
    assert "Exception while listening to address nowhere.invalid:2: " in caplog.text
    assert "Couldn't bind to nowhere.invalid:1: " in caplog.text


def test_a_name_that_is_slow_to_find_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer: each role begins with the addresses there are."""
    found = quorum_port.look_up_all

    async def look_up_all(loop: Any, host: str, port: int) -> Any:
        if host == "slow.example":
            await asyncio.sleep(5)
        return await found(loop, host, port)

    monkeypatch.setattr(quorum_port, "look_up_all", look_up_all)
    with Ensemble() as ensemble:
        text = ensemble.members.text()
        text = text.replace(":participant", "|slow.example:1:2:participant")
        ensemble.members = parse_config_text(text, multi_address=True)
        began = time.monotonic()
        ensemble.start()
        ensemble.wait()
        with ensemble.session(1) as client:
            make(client, "/x")
        ensemble.stop(ensemble.leader)
        ensemble.wait()
        assert time.monotonic() - began < 4


def test_a_peer_port_that_is_taken_uses_up_no_epochs() -> None:
    with Ensemble(1) as ensemble:
        with socket.create_server(("127.0.0.1", ensemble.ports[1][0])):
            ensemble.start()
            time.sleep(1)
            epoch = ensemble.running[1].member.database.accepted_epoch
            assert 2 < epoch < 20
        ensemble.wait()


def test_the_same_address_twice_is_one(caplog: pytest.LogCaptureFixture) -> None:
    with Ensemble(1) as ensemble:
        peer, election = ensemble.ports[1]
        line = f"server.1=127.0.0.1:{peer}:{election}|127.0.0.1:{free_port()}:{election}"
        ensemble.members = parse_config_text(line, multi_address=True)
        ensemble.start()
        ensemble.wait()
    assert "Exception while listening" not in caplog.text


def test_an_election_port_that_is_taken_is_tried_again() -> None:
    with Ensemble(election_port_bind_retry=5) as ensemble:
        ensemble.start(2)
        blocker = socket.create_server(("127.0.0.1", ensemble.ports[1][1]))
        timer = threading.Timer(0.3, blocker.close)
        timer.start()
        ensemble.start(1)
        ensemble.wait()


def test_an_election_port_moves_again_before_it_was_had() -> None:
    with Ensemble(1) as ensemble:
        ensemble.start()
        ensemble.wait()
        process = ensemble.running[1]
        port = process.server._runner.election_port  # type: ignore[attr-defined]
        one, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        with one, other:
            for blocker in (one, other):
                process.call(lambda blocker=blocker: port.rebind([blocker.getsockname()]))
                time.sleep(0.05)
            address = other.getsockname()
        eventually(lambda: port._listeners, "it does not listen")
        socket.create_connection(address).close()
        assert process.serving()
        assert not process.server._stopped.done()  # type: ignore[attr-defined]


def test_an_election_port_that_stays_taken_ends_the_start() -> None:
    with Ensemble(election_port_bind_retry=1) as ensemble:
        with socket.create_server(("127.0.0.1", ensemble.ports[1][1])):
            with pytest.raises(UnableToBind) as caught:
                ensemble.start(1)
    assert caught.value.exit_code == UNABLE_TO_BIND_QUORUM_PORT == 14


def test_a_client_port_moves_and_lets_go_of_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the new one is taken: it is tried until it is had."""
    with Ensemble(1) as ensemble:
        ensemble.start()
        ensemble.wait()
        process = ensemble.running[1]
        old = process.address
        with ensemble.session(1) as client:
            with socket.create_server(("127.0.0.1", 0)) as blocker:
                new: tuple[str, int] = blocker.getsockname()
                process.call(lambda: process.server._rebind_client_port(new))  # type: ignore[attr-defined]
                socket.create_server(old).close()
                error = "Error reconfiguring client port to 127.0.0.1:"
                eventually(lambda: error in caplog.text, "it has not tried")
            eventually(lambda: process.address == new, "it has not got the port")
            make(client, "/x")
            with open_session(new) as other:
                assert get(other, "/x") == b""
        process.call(lambda: process.server._rebind_client_port(old))  # type: ignore[attr-defined]
        eventually(lambda: process.address == old, "it is not back")
        open_session(old).close()


GARBAGE = [
    b"",
    b"\xff",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 5000,
    struct.pack(">qqi", -65536, 9, 1 << 30),
    struct.pack(">iqi", 11, 0, -5),
    os.urandom(3000),
]


def test_garbage_at_the_ports_of_members_hurts_nobody(three: Ensemble) -> None:
    leader = three.leader
    open_sockets = []
    for sid, (peer, election) in three.ports.items():
        for port in (peer, election) if sid == leader else (election,):
            for data in GARBAGE:
                sock = socket.create_connection(("127.0.0.1", port), timeout=5)
                sock.sendall(data)
                open_sockets.append(sock)
    for sid in three.running:
        with three.session(sid) as client:
            make(client, f"/still{sid}")
    assert three.leader == leader
    for sock in open_sockets:
        sock.close()
    with three.session(leader) as client:
        make(client, "/and-after")
    assert three.leader == leader


def test_nothing_is_left_of_members_that_were_stopped() -> None:
    def lives() -> None:
        with Ensemble() as ensemble:
            ensemble.start()
            ensemble.wait()
            with ensemble.session(1) as client:
                make(client, "/x")

    lives()
    before = {thread.name for thread in threading.enumerate()}
    lives()
    deadline = time.monotonic() + 5
    while {t.name for t in threading.enumerate() if not t.name.startswith("asyncio_")} - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_several_members_fit_on_one_loop() -> None:
    ensemble = Ensemble()

    async def all_of_them() -> None:
        servers = [
            MemberServer(
                config_of(
                    members=ensemble.members, my_id=sid, quorum_mode=True, tick_time_ms=200,
                    init_limit_ticks=25, sync_limit_ticks=10,
                ),
                SimulatedDisk(),
            )
            for sid in ensemble.ports
        ]  # fmt: skip
        await asyncio.gather(*(server.start() for server in servers))
        deadline = time.monotonic() + 10
        while not all(server.member.server.serving for server in servers):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

        def work() -> None:
            with open_session(("127.0.0.1", servers[0].port)) as client:
                make(client, "/x")

        await asyncio.to_thread(work)
        await asyncio.gather(*(server.stop() for server in servers))

    asyncio.run(all_of_them())


def test_out_of_descriptors_a_peer_port_pauses(
    three: Ensemble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quorum_port, "ACCEPT_PAUSE_SECONDS", 0.05)
    failures = 3

    class Socket(socket.socket):
        def accept(self) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    process = three.running[three.leader]
    server = process.server
    assert isinstance(server, MemberServer) and server._runner is not None
    (listener,) = server._runner.peer_listeners
    old = listener._sock
    listener._sock = Socket(old.family, old.type, old.proto, old.detach())
    follower = next(sid for sid in three.ports if sid != three.leader)
    three.stop(follower)
    three.start(follower)
    three.wait()
    assert failures == 0
    assert caplog.text.count("cannot accept a connection: Too many open files") == 3


def test_the_snapshot_of_a_replaced_tree_is_over_before_anything_else_is_written() -> None:
    """Its thread may be about to name a file, which a start would take for the newest."""
    calls: list[str] = []
    old = SimpleNamespace(
        tree=object(), abort=lambda: calls.append("abort"), join=lambda: calls.append("join")
    )
    new = SimpleNamespace(tree=object())
    member = SimpleNamespace(
        server=SimpleNamespace(serving=True, take_dirty=list),
        database=SimpleNamespace(tree=new.tree),
        outbox=[],
        take_appended=list,
        take_effects=list,
    )
    runner: Any = MemberRunner.__new__(MemberRunner)
    vars(runner).update(
        member=member, server=member.server, _snapshots=old, _new_snapshots=lambda: new
    )
    runner.flush()
    assert calls == ["abort", "join"]
    assert runner._snapshots is new


@pytest.mark.parametrize(
    "host",
    ["\u00e9..x", "\u00e9" * 80, "x" * 70 + ".invalid"],
    ids=["empty label", "long label", "long ASCII label"],
)
def test_a_name_that_can_be_none_is_a_dial_that_fails(host: str) -> None:
    """Else nobody would hear of it, and that member would never be dialled again."""
    with pytest.raises(OSError):
        asyncio.run(quorum_port.connect(Dial(ELECTION, 2, (host, 3888), 1000)))


def test_an_error_while_a_snapshot_is_sent_ends_the_process(three: Ensemble) -> None:
    leader = three.leader
    follower = next(sid for sid in three.ports if sid != leader)
    three.stop(follower)
    database = three.running[leader].member.database

    def slices() -> Iterator[bytes]:
        yield bytes(SNAPSHOT_PIECE_BYTES)
        raise RuntimeError("a bug")

    database.snapshot_slices = slices  # type: ignore[method-assign]
    three.running[leader].member.zab.settings.force_snapshot = True  # type: ignore[union-attr]
    three.start(follower)
    stopped = three.running[leader].server._stopped
    assert stopped is not None
    eventually(stopped.done, "the leader goes on")
    assert str(stopped.exception()) == "a bug"
