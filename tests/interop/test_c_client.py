"""Apache's client in C: c/client_checks.c, compiled here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.support import oracle

pytestmark = pytest.mark.interop

SOURCE = Path(__file__).parent / "c" / "client_checks.c"
CHECKS = "nodes ttl watches multi acls moved config"
LIBRARY = oracle.ORACLE / "c-client" / "lib"
SERVER_PROPERTIES = {
    "zookeeper.extendedTypesEnabled": "true",
    "znode.container.checkIntervalMs": 200,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    reason = oracle.c_client_missing()
    if reason is not None:
        pytest.skip(reason)
    program = tmp_path_factory.mktemp("c") / "client_checks"
    include = oracle.ORACLE / "c-client" / "include"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-DTHREADED", "-I", str(include)]
    command += ["-o", str(program), str(SOURCE), "-L", str(LIBRARY), "-lzookeeper_mt", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return program


def start(program: Path, server: oracle.Server, *checks: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(program), server.hosts, *checks],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(LIBRARY)},
    )


# Against Apache it only checks the checks.
@pytest.mark.parametrize(
    "server", [pytest.param("apache", marks=pytest.mark.slow), "zkpy"], indirect=True
)
def test_every_call(program: Path, server: oracle.Server) -> None:
    """What the library offers, one session after the other, in one process."""
    with start(program, server, *CHECKS.split()) as process:
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out.splitlines() == [f"ok {name}" for name in CHECKS.split()], out + err[-3000:]


@pytest.mark.parametrize("kind", [pytest.param("apache", marks=pytest.mark.slow), "zkpy"])
def test_a_restart(program: Path, kind: str, tmp_path: Path) -> None:
    """The library connects again and sets its watches, with the session it had."""
    reason = oracle.missing(kind)
    if reason is not None:
        pytest.skip(reason)
    with oracle.KINDS[kind](tmp_path) as server, start(program, server, "restart") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "restart now\n"
            server.kill()
            server.restart()
            out, err = process.communicate("go on\n", timeout=60)
        finally:
            process.kill()
    assert out.splitlines() == ["ok restart"], out + err[-3000:]
