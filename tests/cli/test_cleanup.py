"""zkpy-cleanup: what zkCleanup.sh and PurgeTxnLog do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.cli.transcripts import DISK, Run, runs_of, utc

from zkpy.cli import cleanup

__all__ = ["utc"]
pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
SNAPSHOT = DISK / "standalone-395/version-2/snapshot.0"
# As in tools-3.9.5.txt before the first cleanup.
BEFORE = [
    "log.1", "log.53", "log.73", "log.77", "log.7b", "log.7f",
    "snapshot.0", "snapshot.52", "snapshot.72", "snapshot.76", "snapshot.7a", "snapshot.7e",
]  # fmt: skip
AFTER = ["log.73", "log.77", "log.7b", "log.7f", "snapshot.76", "snapshot.7a", "snapshot.7e"]
REMOVED = [name for name in BEFORE if name not in AFTER]
TIME = 1795352235  # Nov 22, 2026, 12:57:15 PM


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty directory; nothing in the environment says where a configuration is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("ZOOCFG", "ZOOCFGDIR"):
        os.environ.pop(name, None)


def fill(directory: str, names: list[str]) -> Path:
    path = Path(directory, "version-2")
    path.mkdir(parents=True)
    for name in names:
        if name.startswith("log"):
            (path / name).touch()
        else:
            shutil.copy(SNAPSHOT, path / name)
        os.utime(path / name, (TIME, TIME))
    return path


def left(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def run(*arguments: str) -> int:
    return cleanup.main(list(arguments))


RUNS = runs_of("tools-3.9.5.txt", "PurgeTxnLog")


@pytest.mark.parametrize("golden", [r for r in RUNS if r.code], ids=lambda r: r.command)
def test_wrong_calls(golden: Run, tmp_path: Path, capsys: Capture) -> None:
    fill("data", BEFORE)
    assert run(*golden.words[1:]) == golden.code == 1
    out, err = capsys.readouterr()
    assert err == golden.err.replace("/srv/tt", str(tmp_path))
    # The name differs, and there is more to say.
    assert out.startswith("Usage:\nzkpy-cleanup dataLogDir [snapDir] -n count\n")
    assert set(golden.out.splitlines()[2:]) <= set(out.splitlines())
    assert left(Path("data/version-2")) == BEFORE


def test_the_transcript(capsys: Capture) -> None:
    data = fill("data", BEFORE)
    first, second = [r for r in RUNS if not r.code]
    assert first.command == "PurgeTxnLog data -n 3"
    assert run("data", "-n", "3") == 0
    out, err = capsys.readouterr()
    paths = [line.split("\t")[1] for line in first.out.splitlines()]
    assert sorted(line.split("\t")[1] for line in out.splitlines()) == sorted(paths)
    assert "Removing file: Nov 22, 2026, 12:57:15 PM\tdata/version-2/log.1" in out.splitlines()
    assert "Removing file: Nov 22, 2026, 12:57:15 PM\tdata/version-2/log.1\n" in first.out
    assert err == ""
    assert left(data) == AFTER
    assert run("data", "-n", "3") == 0
    assert capsys.readouterr().out == second.out == ""


def test_two_directories() -> None:
    logs = fill("logs", [name for name in BEFORE if name.startswith("log")])
    snapshots = fill("snapshots", [name for name in BEFORE if name.startswith("snap")])
    assert run("logs", "snapshots", "-n", "3") == 0
    assert left(logs) + left(snapshots) == AFTER


def test_dry_run(capsys: Capture) -> None:
    data = fill("data", BEFORE)
    assert run("data", "-n", "3", "--dry-run") == 0
    out = capsys.readouterr().out
    assert sorted(line.rpartition("/")[2] for line in out.splitlines()) == REMOVED
    assert out.startswith("Would remove file: Nov 22, 2026")
    assert left(data) == BEFORE


def test_without_a_valid_snapshot_nothing_goes(capsys: Capture) -> None:
    data = fill("data", BEFORE)
    for path in data.glob("snapshot.*"):
        path.write_bytes(b"ZKSN")
    assert run("data", "-n", "3") == 0
    assert capsys.readouterr().out == ""
    assert left(data) == BEFORE


def write_config(path: str, text: str) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(text)


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("conf/zoo.cfg", []),
        ("etc/zoo.cfg", ["--config", "etc"]),
        ("etc/z1.cfg", ["--config", "etc", "z1.cfg"]),
        ("etc/z1.cfg", ["./etc/z1.cfg"]),
        ("z1.cfg", ["z1.cfg"]),
    ],
)
def test_directories_of_a_configuration(place: str, arguments: list[str]) -> None:
    """As zkCleanup.sh; whatever else is in the file does not matter."""
    logs = fill("logs", [name for name in BEFORE if name.startswith("log")])
    snapshots = fill("snapshots", [name for name in BEFORE if name.startswith("snap")])
    write_config(place, "  dataDir=snapshots  \ndataLogDir = logs\nserver.1=?\nclientPort=x\n")
    assert run(*arguments, "-n", "3") == 0
    assert left(logs) + left(snapshots) == AFTER


def test_the_configuration_may_come_from_the_environment() -> None:
    data = fill("data", BEFORE)
    write_config("etc/z1.cfg", "dataDir=data\n")
    os.environ.update(ZOOCFGDIR="etc", ZOOCFG="z1.cfg")
    assert run("-n", "3") == 0
    assert left(data) == AFTER


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{here}/conf/zoo.cfg file is missing\n"),
        ("clientPort=1\n", "dataDir is not set in {here}/conf/zoo.cfg\n"),
        ("dataDir=nosuch\n", "Path '{here}/nosuch' does not exist. \n"),
    ],
)
def test_a_wrong_configuration(
    text: str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    if text is not None:
        write_config("conf/zoo.cfg", text)
    assert run("-n", "3") == 1
    assert capsys.readouterr().err == message.format(here=tmp_path)


def test_a_server_that_never_ran(capsys: Capture) -> None:
    Path("data").mkdir()
    assert run("data", "-n", "3") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "data/version-2 does not exist: there is nothing to remove\n")
    assert left(Path("data")) == []


def test_what_cannot_be_removed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    data = fill("data", BEFORE)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("zkpy.persistence.disk.os.unlink", refuse)
    assert run("data", "-n", "3") == 1
    assert capsys.readouterr().err == "data/version-2/snapshot.0: Permission denied\n"
    assert left(data) == BEFORE


def test_help(capsys: Capture) -> None:
    assert run("--help") == 0
    assert "--dry-run" in capsys.readouterr().out
    assert run("-n") == 1
