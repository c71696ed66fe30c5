"""The election port on real sockets: a member, and another one played by hand."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.aio.in_process import eventually
from tests.server.aio.test_member import MemberInProcess
from tests.support.oracle import free_port

from zkpy.protocol.packets import Notification, encode_initial, frame
from zkpy.quorum.effects import ELECTION, Dial, RebindElectionPort
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING
from zkpy.server.aio import quorum_port
from zkpy.server.aio.quorum_port import connect, look_up_all


class Other:
    """The hand-made member: listens where it is dialled, and dials."""

    def __init__(self, sid: int) -> None:
        self.sid = sid
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.listener.settimeout(5)

    def dial(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        sock.sendall(encode_initial(self.sid, [("127.0.0.1", self.port)], False))
        return sock

    def accept(self) -> tuple[socket.socket, bytes]:
        """Whoever dials us, and its first bytes."""
        sock, _ = self.listener.accept()
        sock.settimeout(5)
        head = receive(sock, 20)
        return sock, head + receive(sock, struct.unpack(">i", head[16:])[0])


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, "closed"
        data += more
    return data


def next_notification(sock: socket.socket) -> Notification:
    (size,) = struct.unpack(">i", receive(sock, 4))
    return Notification.decode(receive(sock, size))


def is_closed(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1 << 16)
    except ConnectionResetError:
        return True


def vote(state: int, leader: int, zxid: int = 0, round: int = 1, epoch: int = 0) -> bytes:
    return frame(Notification(state, leader, zxid, round, epoch, 2, "").encode())


def pair(my_id: int, other: Other, **settings: Any) -> tuple[MemberInProcess, int]:
    """A member of an ensemble of two, not started, and its election port."""
    port = free_port()
    members = parse_config_text(
        f"server.{my_id}=127.0.0.1:{free_port()}:{port}\n"
        f"server.{other.sid}=127.0.0.1:{free_port()}:{other.port}"
    )
    settings = {"tick_time_ms": 200, "init_limit_ticks": 25, "sync_limit_ticks": 10, **settings}
    member = MemberInProcess(members=members, my_id=my_id, quorum_mode=True, **settings)
    return member, port


@pytest.fixture
def larger() -> Iterator[Other]:
    other = Other(9)
    yield other
    other.listener.close()


@pytest.fixture
def smaller() -> Iterator[Other]:
    other = Other(0)
    yield other
    other.listener.close()


def test_member_dials_the_smaller_one_and_keeps_the_connection(smaller: Other) -> None:
    with pair(1, smaller)[0] as one:
        sock, first_bytes = smaller.accept()
        port = one.member.view.election_addresses(1)[0][1]
        assert first_bytes == encode_initial(1, [("127.0.0.1", port)], False)
        n = next_notification(sock)
        assert (n.state, n.leader, n.election_epoch) == (LOOKING, 1, 1)
        assert n.config == one.member.view.committed_text
        sock.sendall(vote(LOOKING, 1))
        eventually(lambda: one.member.state == LEADING)
        n = next_notification(sock)
        assert (n.state, n.leader) == (LEADING, 1)
        sock.close()


def test_larger_one_is_dialled_and_dials_back(larger: Other) -> None:
    member, port = pair(1, larger)
    with member as one:
        asked, first_bytes = larger.accept()
        assert first_bytes[8:16] == struct.pack(">q", 1)
        assert is_closed(asked)
        sock = larger.dial(port)
        n = next_notification(sock)
        assert (n.state, n.leader) == (LOOKING, 1)
        sock.sendall(vote(LOOKING, 9))
        # Nobody else is there to wait for: in milliseconds.
        eventually(lambda: one.member.state == FOLLOWING)
        assert one.member.current_vote.leader == 9
        sock.close()


def test_silent_and_odd_diallers_keep_nobody_waiting(larger: Other) -> None:
    member, port = pair(1, larger)
    with member as one:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(20)]
        for sock in silent[:10]:
            sock.sendall(b"\xff\xff\xff\xff\xff\xff\x00\x00\x00")
        garbage = socket.create_connection(("127.0.0.1", port), timeout=5)
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_closed(garbage)
        sock = larger.dial(port)
        sock.sendall(vote(LOOKING, 9))
        eventually(lambda: one.member.state == FOLLOWING)
        # tickTime x syncLimit is what they have to say who they are.
        started = time.monotonic()
        assert all(is_closed(sock) for sock in silent)
        assert time.monotonic() - started < 4
        for one_of_them in [*silent, garbage, sock]:
            one_of_them.close()


def test_first_bytes_and_votes_in_single_bytes(larger: Other) -> None:
    member, port = pair(1, larger)
    with member as one:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = encode_initial(9, [("127.0.0.1", larger.port)], True) + vote(LOOKING, 9)
        for offset in range(len(data)):
            sock.sendall(data[offset : offset + 1])
        eventually(lambda: one.member.state == FOLLOWING)
        sock.close()


def test_oversized_message_ends_that_connection_only(larger: Other) -> None:
    member, port = pair(1, larger)
    with member as one:
        sock = larger.dial(port)
        sock.sendall(struct.pack(">i", 524289))
        while not is_closed(sock):
            pass
        again = larger.dial(port)
        again.sendall(vote(LOOKING, 9))
        eventually(lambda: one.member.state == FOLLOWING)
        sock.close()
        again.close()


def test_log_line_and_options(larger: Other, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        member, port = pair(1, larger, tcp_keep_alive=True)
        with member as one:
            sock = larger.dial(port)
            next_notification(sock)

            def options() -> list[tuple[int, int]]:
                return [
                    (
                        link.transport._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),  # type: ignore[attr-defined]
                        link.transport._sock.getsockopt(  # type: ignore[attr-defined]
                            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
                        ),
                    )
                    for link in one.member.cnx_manager._channels
                ]

            assert one.call(options) == [(1, 2000)]
            sock.close()
    assert f"1 is accepting connections now, my election bind port: /127.0.0.1:{port}" in (
        caplog.text
    )
    assert "Received connection request from /127.0.0.1:" in caplog.text


def test_listening_elsewhere_after_a_reconfig(larger: Other) -> None:
    member, port = pair(1, larger)
    moved = free_port()
    with member as one:
        one.call(lambda: one.member._effects.append(RebindElectionPort([("127.0.0.1", moved)])))
        one.call(lambda: one.server._runner.flush())  # type: ignore[union-attr]

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", moved), timeout=5).close()
            except ConnectionRefusedError:
                return False
            return True

        eventually(listens)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


# ---------------------------------------------------------------------- names


def dial_to(host: str, port: int, timeout_ms: int = 5000) -> Dial:
    return Dial(ELECTION, 1, (host, port), timeout_ms)


def no_look_ups(*arguments: object, **named: object) -> Any:
    raise AssertionError("an address needs no look-up")


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_addresses_are_not_looked_up(
    host: str, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_look_ups)

    async def run() -> list[tuple[int, tuple[object, ...]]]:
        return await look_up_all(asyncio.get_running_loop(), host, 5)

    assert asyncio.run(run()) == [(family, (host, 5))]


def test_names_are_looked_up_each_time(larger: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that moves, or gets its address late, is found at the next dial."""
    found: list[tuple[Any, ...]] = []
    asked: list[object] = []

    def getaddrinfo(host: object, port: int, **named: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    monkeypatch.setattr(quorum_port.socket, "getaddrinfo", getaddrinfo)

    async def run() -> None:
        with pytest.raises(OSError, match="Name or service not known"):
            await connect(dial_to("zoo9", larger.port))
        # The first address is dead, the second answers.
        for port in (free_port(), larger.port):
            found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)))
        sock, address = await connect(dial_to("zoo9", larger.port))
        assert address == f"127.0.0.1:{larger.port}"
        sock.close()

    asyncio.run(run())
    assert asked == [b"zoo9", b"zoo9"]


def test_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dial fails in its time, and the loop went on meanwhile."""
    answer = threading.Event()
    monkeypatch.setattr(quorum_port.socket, "getaddrinfo", lambda *_, **__: answer.wait(10))

    async def run() -> None:
        turns = 0
        dialling = asyncio.ensure_future(connect(dial_to("zoo9", 1, timeout_ms=50)))
        while not dialling.done():
            await asyncio.sleep(0.001)
            turns += 1
        with pytest.raises(OSError, match="no answer in 50 ms"):
            dialling.result()
        assert turns > 5

    asyncio.run(run())
    answer.set()


def test_refused(larger: Other) -> None:
    async def run() -> None:
        with pytest.raises(OSError, match="Connection refused"):
            await connect(dial_to("127.0.0.1", free_port()))

    asyncio.run(run())
