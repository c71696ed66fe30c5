"""Curator, the common Java client, with its recipes: java/CuratorChecks.java, compiled here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.support import oracle

pytestmark = pytest.mark.interop

SOURCE = Path(__file__).parent / "java" / "CuratorChecks.java"
CHECKS = "nodes mutex locks leader persistentNode cache watches counters"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    return oracle.compile_java(SOURCE, "curator", tmp_path_factory.mktemp("classes"))


# Against Apache it only checks the checks.
@pytest.mark.parametrize(
    "server", [pytest.param("apache", marks=pytest.mark.slow), "zkpy"], indirect=True
)
def test_recipes(classes: Path, server: oracle.Server) -> None:
    """All in one Java process: most of the time goes into starting it."""
    command = [
        "java",
        *oracle.JVM_FLAGS,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{classes}:{oracle.classpath('curator')}",
        "CuratorChecks",
        server.hosts,
        *CHECKS.split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    expected = [f"ok {name}" for name in CHECKS.split()]
    assert done.stdout.splitlines() == expected, done.stdout[-6000:] + done.stderr[-3000:]
