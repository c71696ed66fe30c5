"""The tools for files next to Apache's, on the same files: random logs and snapshots of zkpy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from tests.cli.test_snapshot_tool import details
from tests.cli.transcripts import DISK, runs_of, transcript, utc
from tests.datatree.txn_source import TxnSource
from tests.support.oracle import JVM_FLAGS, SOURCE, ZkpyServer, apache_missing, classpath
from tests.support.rawclient import open_session

from zkpy.cli import log_tool, snapshot_tool
from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.snapshot import FileSnap
from zkpy.persistence.txnlog import FileTxnLog
from zkpy.protocol.txns import TxnDigest, encode_txn

__all__ = ["utc"]
pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("utc")]

PACKAGE = "org.apache.zookeeper.server."
TOOLKIT = "persistence.TxnLogToolkit"
LOCALE = ("-Duser.timezone=UTC", "-Duser.language=en", "-Duser.country=US")


def apache(tool: str, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """Exit status and stdout of one of Apache's tools."""
    reason = apache_missing()
    if reason is not None:
        pytest.skip(reason)
    found = subprocess.run(
        ["java", *JVM_FLAGS, *LOCALE, "-Dfile.encoding=UTF-8", "-cp", classpath("3.9.5"),
         PACKAGE + tool, *arguments],
        capture_output=True, cwd=cwd, timeout=60,
    )  # fmt: skip
    return found.returncode, found.stdout.decode()


def grow(directory: Path, seed: int, count: int) -> DataTree:
    """Log `count` random txns in `directory`, and take a snapshot at the end."""
    tree = DataTree(extended_types=True)
    source = TxnSource(Random(seed), tree)
    log = FileTxnLog(OsDisk(), str(directory), preallocate_bytes=1 << 16)
    for _ in range(count):
        header, record = source.next()
        apply_txn(tree, header, record)
        log.append(header.zxid, encode_txn(header, record, TxnDigest(2, tree.digest)))
    log.close()
    FileSnap(OsDisk(), str(directory)).save(tree)
    return tree


@pytest.mark.parametrize("seed", [1, 2])
def test_random_logs_and_snapshots(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = grow(tmp_path, seed, 300)
    (log,) = tmp_path.glob("log.*")
    code, expected = apache(TOOLKIT, str(log))
    assert log_tool.main([str(log)]) == code == 0
    assert capsys.readouterr().out == expected

    (snapshot,) = tmp_path.glob("snapshot.*")
    code, expected = apache("SnapshotFormatter", "-d", str(snapshot))
    assert snapshot_tool.main(["-d", str(snapshot)]) == code == 0
    ours, theirs = details(capsys.readouterr().out), details(expected)
    assert ours == theirs
    assert len(ours[1]) == len(tree.nodes) - 1  # the root is there under two names


def test_what_is_repaired_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grow(tmp_path, 3, 50)
    (log,) = tmp_path.glob("log.*")
    data = bytearray(log.read_bytes())
    data[23] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(data)
    fixed = tmp_path / "bad.fixed"
    code, expected = apache(TOOLKIT, "-r", "-y", "bad", cwd=tmp_path)
    theirs = fixed.read_bytes().rstrip(b"\0")
    fixed.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert log_tool.main(["-r", "-y", "bad"]) == code == 0
    assert capsys.readouterr().out == expected
    assert fixed.read_bytes().rstrip(b"\0") == theirs == log.read_bytes().rstrip(b"\0")


def test_the_transcript_is_still_what_apache_prints() -> None:
    some = [*runs_of("disk-3.9.5.txt", "SnapshotRecursiveSummary")[:1]]
    some += [
        run for run in transcript("disk-3.9.5.txt") if "standalone-395/version-2/log.1" in run.words
    ]
    assert len(some) == 2
    for run in some:
        tool = {"TxnLogToolkit": TOOLKIT}.get(run.words[0], run.words[0])
        assert apache(tool, *run.words[1:], cwd=DISK) == (run.code, run.out)


def test_on_the_files_of_a_server_that_runs(tmp_path: Path) -> None:
    """As a person would: the commands as processes, while the server writes."""
    with ZkpyServer(tmp_path) as server:
        open_session(server.address).end_session()
        data_dir = str(server.data_dir)
        for module, *arguments in (
            ("log_tool", "verify", data_dir),
            ("log_tool", "dump", data_dir),
            ("snapshot_tool", "summary", f"{data_dir}/version-2/snapshot.0"),
            ("cleanup", data_dir, "-n", "3"),
        ):
            found = subprocess.run(
                [sys.executable, "-m", f"zkpy.cli.{module}", *arguments],
                env={"PYTHONPATH": str(SOURCE)},
                capture_output=True,
                timeout=30,
            )
            assert (found.returncode, found.stderr) == (0, b""), module
            if "dump" in arguments:
                assert b"createSession" in found.stdout
                assert b"closeSession" in found.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    grow(tmp_path, 4, 2000)
    program = f"{sys.executable} -m zkpy.cli.log_tool dump {tmp_path} | head -n 1"
    found = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program}"],
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=30,
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.startswith(b"ZooKeeper Transactional Log File")
