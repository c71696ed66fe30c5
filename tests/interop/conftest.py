"""Fixtures of the interop tests: real servers, as processes, skipped where they cannot be had."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import pytest
from tests.support import oracle, rawclient

node_numbers = itertools.count(1)

StartServer = Callable[..., oracle.Server]


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server(kind, config, properties)` -> a running server; killed after the module."""
    servers: list[oracle.Server] = []

    def start(
        kind: str,
        config: Mapping[str, object] | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> oracle.Server:
        reason = oracle.missing(kind)
        if reason is not None:
            pytest.skip(reason)
        folder = tmp_path_factory.mktemp(kind)
        server = oracle.KINDS[kind](folder, config, properties)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module", params=["apache", "zkpy"])
def server(request: pytest.FixtureRequest, start_server: StartServer) -> oracle.Server:
    """Each kind of server in turn, one process per module; a module may set SERVER_CONFIG."""
    config = getattr(request.module, "SERVER_CONFIG", None)
    properties = getattr(request.module, "SERVER_PROPERTIES", None)
    return start_server(request.param, config, properties)


def session_of(server: oracle.Server) -> Iterator[rawclient.RawClient]:
    with rawclient.open_session(server.address) as client:
        yield client
        if client.socket.fileno() != -1:  # the test may have closed it
            client.end_session()


@pytest.fixture
def client(server: oracle.Server) -> Iterator[rawclient.RawClient]:
    """A raw client with a session."""
    yield from session_of(server)


@pytest.fixture
def other(server: oracle.Server) -> Iterator[rawclient.RawClient]:
    """A second one."""
    yield from session_of(server)


@pytest.fixture
def base(client: rawclient.RawClient) -> str:
    """A node of this test's own; others may be left from earlier tests."""
    path = f"/t{next(node_numbers)}"
    rawclient.make(client, path)
    return path
