"""zkpy-log recover: what is dropped is shown, what is written a server accepts."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.transcripts import DISK, utc
from tests.persistence.data_dir import create, log_file, set_data

from zkpy.cli import log_recover, log_tool
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.logreader import LogReader

__all__ = ["utc"]
pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    return log_tool.main(["recover", *arguments])


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def damaged(tmp_path: Path, *, count: int = 4, bad: int = 3) -> tuple[Path, int]:
    """A log of `count` records where the checksum of record `bad` is wrong; where that stands."""
    data = bytearray(log_file(*map(set_data, range(1, count + 1))))
    offset = len(log_file(*map(set_data, range(1, bad))))
    data[offset + 7] ^= 1
    path = tmp_path / "log.1"
    path.write_bytes(data)
    return path, offset


def test_it_shows_asks_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path, offset = damaged(tmp_path)
    before = path.read_bytes()
    answer(monkeypatch, "what?\nyes\n")
    assert run(str(path)) == 0
    out, err = capsys.readouterr()
    lines = [re.sub(r"^.* zxid (?=0x.* setData)", "", line) for line in out.splitlines()]
    assert lines[:4] == [
        "Kept: 2 txns, zxid 0x1 to 0x2",
        "Dropped:",
        "0x3 setData /,x,3",
        "0x4 setData /,x,4",
    ]
    assert "\nCRC ERROR - " in out
    assert out.count(f"Write {path}.fixed without them (Yes/No) ? ") == 2
    assert out.endswith(f"Recovery file {path}.fixed has been written with 2 txns\n")
    assert err == f"{path} at offset {offset}: CRC check failed\n"
    assert (tmp_path / "log.1.fixed").read_bytes() == log_file(set_data(1), set_data(2))
    assert path.read_bytes() == before


@pytest.mark.parametrize("typed", ["n\n", "", "No\n"])
def test_without_a_yes_nothing_is_written(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path, _ = damaged(tmp_path)
    answer(monkeypatch, typed)
    assert run(str(path)) == 1
    assert capsys.readouterr().err.endswith("Recovery aborted.\n")
    assert list(tmp_path.iterdir()) == [path]


def test_dry_run_only_shows(tmp_path: Path, capsys: Capture) -> None:
    path, _ = damaged(tmp_path)
    assert run("--dry-run", str(path)) == 1
    assert "Dropped:" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    path, _ = damaged(tmp_path)
    other = tmp_path / "other"
    other.write_text("precious")
    for arguments in (["-o", str(other)], ["-o", str(path)]):
        assert run("--yes", str(path), *arguments) == 1
        assert capsys.readouterr().err.endswith("already exists or not writable\n")
    assert run("--yes", str(path), "-o", str(tmp_path / "no" / "where")) == 1
    assert other.read_text() == "precious"
    assert log_tool.main(["verify", str(path)]) == 1


def test_a_good_log_needs_none(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "log.1"
    # That a record comes again is odd, but servers accept it.
    path.write_bytes(log_file(set_data(1), set_data(2), set_data(2), padding=100))
    assert run("--yes", str(path)) == 0
    out, err = capsys.readouterr()
    assert out.endswith("there is nothing to recover\n")
    assert "zxid 0x2 follows 0x2" in err
    assert list(tmp_path.iterdir()) == [path]


def test_checksums_can_be_put_right(tmp_path: Path, capsys: Capture) -> None:
    path, _ = damaged(tmp_path)
    assert run("--yes", "--fix-checksums", str(path)) == 0
    assert "Dropped" not in capsys.readouterr().out
    assert (tmp_path / "log.1.fixed").read_bytes() == log_file(*map(set_data, range(1, 5)))


def test_a_hole_ends_what_is_kept(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(log_file(*map(set_data, (1, 2, 4, 5))))
    assert run("--yes", "--fix-checksums", str(path)) == 0
    assert "zxid 0x4 follows 0x2; missing: 0x3" in capsys.readouterr().err
    assert (tmp_path / "log.1.fixed").read_bytes() == log_file(set_data(1), set_data(2))


def test_a_long_list_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(log_recover, "LISTED", 2)
    path, _ = damaged(tmp_path, count=9)
    assert run("-n", str(path)) == 1
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert out.endswith("... and 5 more (--all shows them)\n")
    assert run("-n", "--all", str(path)) == 1
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_full_disk_leaves_no_half_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path, _ = damaged(tmp_path)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_recover.os, "fsync", full)
    assert run("--yes", str(path)) == 1
    assert capsys.readouterr().err.endswith("log.1.fixed: No space left on device\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", sorted((DISK / "torn").glob("*.log.1")), ids=lambda p: p.name)
def test_golden_damage(path: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "log.1"
    assert run("--yes", str(path), "-o", str(target)) == 0
    out = capsys.readouterr().out
    if not target.exists():
        assert "nothing to recover" in out
        return
    kept = list(LogReader(OsDisk(), str(tmp_path)).records(0))
    expected = {"hole_f": 0xE, "len_huge_next": 0x1E, "len_minus1_next": 0x1E, "bad_EOR_mid": 0x1E}
    assert [zxid for zxid, _ in kept] == [*range(1, expected.get(path.name[:-6], 0x1D) + 1)]
    assert log_tool.main(["verify", str(target)]) == 0


@given(data=st.data())
def test_what_is_written_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is damaged: a server reads the new log, and it has what was good at first."""
    sizes = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=8))
    txns = [create(zxid, f"/n{zxid}", bytes(size)) for zxid, size in enumerate(sizes, 1)]
    content = bytearray(log_file(*txns, padding=50))
    place = data.draw(st.integers(16, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    untouched = [
        txn for index, txn in enumerate(txns) if len(log_file(*txns[: index + 1])) <= place
    ]
    directory = tmp_path_factory.mktemp("log")
    path = directory / "damaged"
    path.write_bytes(content)
    options = data.draw(st.sampled_from([[], ["--fix-checksums"]]))
    target = directory / "log.1"
    assert run("--yes", str(path), "-o", str(target), *options) == 0
    assert path.read_bytes() == content
    if not target.exists():
        target.write_bytes(content)  # nothing to recover
    kept = [txn for _, txn in LogReader(OsDisk(), str(directory)).records(1)]
    assert kept[: len(untouched)] == untouched
    if not options:
        assert kept == txns[: len(kept)], "nothing but what was logged, without a hole"
