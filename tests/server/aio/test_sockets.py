"""Addresses and bound sockets."""

from __future__ import annotations

import errno
import socket

import pytest

from zkpy.server.aio import sockets


def test_numbers_are_themselves() -> None:
    assert sockets.look_up("127.0.0.1", 2181) == (socket.AF_INET, ("127.0.0.1", 2181))
    assert sockets.resolve("::1") == "::1"


def test_names_are_looked_up_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 5, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 5)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert sockets.look_up("localhost", 5) == (socket.AF_INET, ("127.0.0.1", 5))
    found.pop()
    assert sockets.resolve("localhost") == "::1"


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"not known|resolution"):
        sockets.resolve("no.such.host.invalid")


def test_a_socket_is_bound_and_does_not_listen() -> None:
    sock = sockets.bound_socket("127.0.0.1", 0)
    with sock, pytest.raises(ConnectionRefusedError):
        socket.create_connection(sock.getsockname())


def test_who_cannot_be_bound_is_named() -> None:
    with pytest.raises(OSError, match=r"\(192\.0\.2\.1:2181\)") as caught:
        sockets.bound_socket("192.0.2.1", 2181)  # an address of nobody
    assert caught.value.errno == errno.EADDRNOTAVAIL
