"""Sockets and their moods: slow readers, half-closed ones, floods, big requests."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
import time
from typing import Any

import pytest
from tests.server.aio import in_process
from tests.server.aio.in_process import GatedDisk, InProcess, eventually
from tests.support import wire
from tests.support.rawclient import Closed, RawClient, four_letter_word, make

from zkpy.server.aio import client_port, sockets
from zkpy.server.aio.event_loop import ServerLoop
from zkpy.server.replies import MAX_OUT_BYTES

MEBIBYTE = 1 << 20


@pytest.fixture(autouse=True, params=[ServerLoop, asyncio.new_event_loop], ids=["own", "any"])
def loop_factory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loop that a process of its own has, and on that of any program."""
    monkeypatch.setattr(in_process, "loop_factory", request.param)


def request(xid: int, op: int, body: bytes) -> bytes:
    return wire.buffer(struct.pack(">ii", xid, op) + body)


def small_window(address: tuple[str, int]) -> RawClient:
    """A session whose socket takes little before the sender has to wait."""
    client = RawClient.__new__(RawClient)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(address)
    RawClient.__init__(client, address)
    client.socket.close()
    client.socket = sock
    client.connect()
    return client


def held_bytes(server: InProcess) -> int:
    """What the server keeps for all its connections."""
    poller = server.server._runner.poller  # type: ignore[union-attr]
    assert poller is not None
    total = 0
    for port in poller.clients():
        total += len(port.unsent)
        if port.cnxn is not None:
            total += len(port.cnxn.out) + len(port.cnxn.rest)
    return total


def test_who_reads_no_replies_gets_no_requests_read() -> None:
    with InProcess() as server:
        other = server.session()
        path = "/big" + "g" * 1000
        other.value(wire.CREATE, wire.create(path, bytes(100_000)))
        client = small_window(server.address)
        client.socket.settimeout(0.5)
        flood = b"".join(
            request(xid, wire.GET_DATA, wire.path_watch(path)) for xid in range(1, 20_001)
        )
        sent = 0
        # 20 000 requests, 20 MB, for 2 GB. Only so many get through before TCP says stop.
        with pytest.raises(TimeoutError):
            while sent < len(flood):
                sent += client.socket.send(flood[sent : sent + 65536])
        most = 0
        for number in range(20):
            assert other.value(wire.GET_DATA, wire.path_watch(path))[0] == bytes(100_000)
            make(other, f"/{number}")
            most = max(most, server.call(lambda: held_bytes(server)))
        assert most < MAX_OUT_BYTES + client_port.RECEIVE_BYTES + MEBIBYTE
        # Once it reads, everything it asked for comes, in order.
        client.socket.settimeout(10)
        for xid in range(1, 201):
            reply = client.recv()
            assert (reply.xid, reply.err, len(reply.body)) == (xid, 0, 100_000 + 4 + 68)
        client.close()


def test_a_client_that_watches_much_and_reads_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from zkpy.server.aio import runner

    monkeypatch.setattr(runner, "MAX_UNREAD_BYTES", 200_000)
    with InProcess() as server:
        other = server.session()
        client = small_window(server.address)
        client.value(wire.ADD_WATCH, wire.path_type("/", 1))  # persistent, recursive
        name = "n" * 1000
        writes = 0
        while len(server.call(lambda: list(server.server.zookeeper.cnxns))) == 2:
            assert writes < 20_000, "it is not given up"
            pieces = []
            for _ in range(200):
                writes += 1
                pieces.append(request(writes, wire.CREATE, wire.create(f"/{name}{writes}")))
            other.send_raw(b"".join(pieces))
            for _ in range(200):
                other.recv()
        assert "it does not read what is sent to it" in caplog.text
        make(other, "/alive")


def test_large_requests_in_pieces_and_at_the_limit() -> None:
    with InProcess() as server:
        client = server.session()
        data = bytes(range(256)) * 3900
        frame = request(1, wire.CREATE, wire.create("/large", data))
        for start in range(0, len(frame), 100_001):
            client.send_raw(frame[start : start + 100_001])
        assert client.recv().value(wire.CREATE) == "/large"
        assert client.value(wire.GET_DATA, wire.path_watch("/large"))[0] == data
        # One byte at a time is as good.
        for byte in request(3, wire.EXISTS, wire.path_watch("/large")):
            client.send_raw(bytes([byte]))
        assert client.recv().value(wire.EXISTS).data_length == len(data)
        client.send_raw(struct.pack(">i", MEBIBYTE))
        client.expect_close()


@pytest.mark.parametrize("newline", [b"", b"\n", b"\r\n", b"\n" * 1000])
def test_four_letter_words_are_not_lost_to_a_reset(newline: bytes) -> None:
    with InProcess() as server:
        for _ in range(20):
            with RawClient(server.address) as client:
                client.send_raw(b"ruok" + newline)
                assert client.read_to_end() == b"imok"


def test_half_closed_sockets() -> None:
    with InProcess() as server:
        with RawClient(server.address) as client:
            client.send_raw(b"srvr")
            client.socket.shutdown(socket.SHUT_WR)
            assert b"Mode: standalone" in client.read_to_end()
        session = server.session()
        session.send(wire.CREATE, wire.create("/node"))
        session.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(Closed):
            while True:
                session.recv()
        other = server.session()
        assert other.value(wire.EXISTS, wire.path_watch("/node")).version == 0
        eventually(lambda: len(server.call(lambda: list(server.server.zookeeper.cnxns))) == 1)


def test_who_does_not_hang_up_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_port, "LINGER_SECONDS", 0.05)
    with InProcess() as server:
        client = RawClient(server.address)
        client.send_raw(b"ruok")
        assert client.read_to_end() == b"imok"
        poller = server.server._runner.poller  # type: ignore[union-attr]
        assert poller is not None
        eventually(lambda: not server.call(poller.clients))


def test_a_reset_is_a_close() -> None:
    with InProcess() as server:
        for _ in range(20):
            client = server.session()
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        eventually(lambda: not server.call(lambda: list(server.server.zookeeper.cnxns)))
        make(server.session(), "/alive")


def test_too_many_from_one_address(caplog: pytest.LogCaptureFixture) -> None:
    with InProcess(max_client_cnxns=3) as server:
        clients = [server.session() for _ in range(3)]
        with pytest.raises(Closed):
            with RawClient(server.address) as client:
                client.connect()
        assert "Too many connections from /127.0.0.1 - max is 3" in caplog.text
        clients[0].end_session()
        eventually(lambda: len(server.call(lambda: list(server.server.zookeeper.cnxns))) == 2)
        server.session()


def test_keep_alive_and_no_delay() -> None:
    for keep_alive in (False, True):
        with InProcess(client_tcp_keep_alive=keep_alive) as server:
            with server.session():
                poller = server.server._runner.poller  # type: ignore[union-attr]
                assert poller is not None
                (port,) = server.call(poller.clients)
                sock = port._sock
                option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert bool(option) == keep_alive
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Socket(socket.socket):
        def listen(self, backlog: int = 0) -> None:  # type: ignore[override]
            seen.append(backlog)
            super().listen(backlog)

    monkeypatch.setattr(socket, "socket", Socket)
    for configured, expected in ((-1, sockets.DEFAULT_BACKLOG), (0, 1024), (7, 7)):
        with InProcess(client_port_listen_backlog=configured):
            assert seen.pop() == expected


def test_a_silent_connection_is_closed() -> None:
    with InProcess(sessionless_cnxn_timeout_ms=100) as server:
        start = time.monotonic()
        with RawClient(server.address) as client:
            client.expect_close()
        assert time.monotonic() - start < 5


def test_floods_of_connections() -> None:
    with InProcess() as server:
        clients = [RawClient(server.address) for _ in range(200)]
        for client in clients:
            client.send_connect()
        assert len({client.recv_connect().session_id for client in clients}) == 200
        assert "Connections: 201" in four_letter_word(server.address, "srvr")
        for client in clients:
            client.close()


def test_a_write_pipeline_is_bounded() -> None:
    """While the disk is busy, one client's writes fill memory only so far."""
    disk = GatedDisk()
    with InProcess(disk) as server:
        client = server.session()
        client.socket.settimeout(0.5)
        disk.close_gate()
        data = bytes(100_000)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 2000:
                sent += 1
                client.socket.sendall(request(sent, wire.CREATE, wire.create(f"/{sent}", data)))
        assert server.call(lambda: len(server.server.zookeeper.in_flight)) < 400
        disk.open_gate()
        client.socket.settimeout(10)
        for xid in range(1, sent):
            assert client.recv().xid == xid
        client.close()


def test_without_epoll_and_eventfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: the loop watches each socket itself."""
    monkeypatch.delattr(select, "epoll")
    monkeypatch.delattr(os, "eventfd", raising=False)
    with InProcess() as server:
        client, other = server.session(), server.session()
        client.value(wire.CREATE, wire.create("/big", bytes(900_000)))
        for _ in range(20):
            client.send(wire.GET_DATA, wire.path_watch("/big"))
        make(other, "/node")
        for _ in range(20):
            assert len(client.recv().body) > 900_000
        assert four_letter_word(server.address, "ruok") == "imok"
        client.end_session()
        make(other, "/alive")


def test_out_of_descriptors_the_others_are_served_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_port, "ACCEPT_PAUSE_SECONDS", 0.05)
    failures = 3

    class Socket(socket.socket):
        def accept(self) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    with InProcess() as server:
        client = server.session()
        listener = server.server._listener
        assert listener is not None
        old = listener._sock
        listener._sock = Socket(old.family, old.type, old.proto, old.detach())
        late = server.session()  # after the pauses
        assert failures == 0
        make(client, "/node")
        make(late, "/alive")
    assert caplog.text.count("cannot accept a connection: Too many open files") == 3
