"""Apache ZooKeeper's own tests of what clients see, with zkpy as their server.

They come with ZooKeeper, compiled; java/suite/ClientBase.java takes the place of their base class,
which would start Apache's server. Left out is what looks inside that server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import oracle

pytestmark = pytest.mark.interop

SOURCE = Path(__file__).parent / "java" / "suite" / "ClientBase.java"
LAUNCHER = "org.junit.platform.console.ConsoleLauncher"
SUPER_TEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="

# Of the package org.apache.zookeeper, and how many tests there are in all.
CLASSES = [
    "test.ChrootTest",
    "test.ACLCountTest",
    "test.ACLRootTest",
    "test.AuthTest",
    "test.CreateTest",
    "test.DigestAuthDisabledTest",
    "test.EnforceQuotaTest",
    "test.EnsembleAuthTest",
    "test.EventTypeTest",
    "test.FourLetterWordsTest",
    "test.FourLetterWordsWhiteListTest",
    "test.GetChildren2Test",
    "test.MaxCnxnsTest",
    "test.MultiAsyncTransactionTest",
    "test.MultiOperationTest",
    "test.NullDataTest",
    "test.PersistentRecursiveWatcherTest",
    "test.PersistentWatcherACLTest",
    "test.PersistentWatcherTest",
    "test.SessionInvalidationTest",
    "test.StatTest",
    "test.SyncCallTest",
    "test.WatcherFuncTest",
    "GetAllChildrenNumberTest",
    "GetEphemeralsTest",
    "RemoveWatchesCmdTest",
    "server.CreateTTLTest",
]
TESTS = 160
LONG_CLASSES = [
    "test.ACLTest",
    "test.AsyncOpsTest",
    "test.AsyncTest",
    "test.ClientHammerTest",
    "test.ClientRetryTest",
    "test.ClientTest",
    "test.DisconnectedWatcherTest",
    "test.ServerCnxnTest",
    "test.SessionTest",
    "test.SessionTimeoutTest",
    "test.WatcherTest",
    "RemoveWatchesTest",
    "ZooKeeperTest",
]
LONG_TESTS = 180
# What looks inside the server after all.
INSIDE = [
    "WatcherTest#testWatcherCount",
    "ClientTest#testPathValidation",
    "ACLTest#testAuthWithIPV6Server",
    "RemoveWatchesTest#testNoWatcherServerException",
    "CreateTTLTest#test(Modifying|Multi|CreateAsync|CreateSequential|Create)",
    "RemoveWatchesTest#testRemoveAll[A-Za-z]*Watches",
    "RemoveWatchesTest#testRemovePersistentWatchesOnAPathPartially",
]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled base class."""
    return oracle.compile_java(SOURCE, "tests", tmp_path_factory.mktemp("classes"))


def run(classes: Path, names: list[str], folder: Path, timeout_s: float) -> int:
    """Run these test classes; how many tests passed. None may fail."""
    server = [sys.executable, "-m", "zkpy.cli.server"]
    command = [
        "java",
        *oracle.JVM_FLAGS,
        f"-Dbuild.test.dir={folder}",
        "-Dzkpy.command=" + "\n".join(server),
        f"-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_TEST}",
        f"-Dorg.slf4j.simpleLogger.logFile={folder / 'client.log'}",
        "-cp",
        f"{classes}:{oracle.classpath('tests')}",
        LAUNCHER,
        "execute",
        "--disable-banner",
        "--details=summary",
        *(f"--exclude-methodname=.*{name}.*" for name in INSIDE),
        *(f"--select-class=org.apache.zookeeper.{name}" for name in names),
    ]
    environment = {**os.environ, "PYTHONPATH": str(oracle.SOURCE)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, _ = process.communicate(timeout=timeout_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # with the server of the test it is at
            raise
    assert process.returncode == 0, out[-8000:]
    passed = re.search(r"\[ +(\d+) tests successful", out)
    assert passed is not None, out
    return int(passed[1])


@pytest.mark.timeout(450)
def test_what_clients_see(classes: Path, tmp_path: Path) -> None:
    """All in one Java process, with a new server for each test."""
    assert run(classes, CLASSES, tmp_path, 400) == TESTS


@pytest.mark.timeout(950)
@pytest.mark.skipif("ZKPY_LONG" not in os.environ, reason="takes minutes; ZKPY_LONG=1 runs it")
def test_what_takes_longer(classes: Path, tmp_path: Path) -> None:
    """Those with many cases, many clients, or sessions that have to expire."""
    assert run(classes, LONG_CLASSES, tmp_path, 900) == LONG_TESTS
