"""Fixtures of the interop tests: real servers, as processes, skipped where they cannot be had."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# The helpers in tests/support are a plain package.
TESTS = str(Path(__file__).resolve().parents[1])
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

from support import oracle  # noqa: E402

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
