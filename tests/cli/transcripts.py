"""Transcripts of Apache's tools: what was typed, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FILES = GOLDEN / "cli" / "files"
DISK = GOLDEN / "disk"


class Run(NamedTuple):
    """One command of a transcript."""

    command: str
    out: str
    err: str
    code: int

    @property
    def words(self) -> list[str]:
        """The command's words, the tool's name first."""
        return self.command.split()


def transcript(name: str) -> list[Run]:
    """The commands of a file, in its order."""
    runs = []
    command = ""
    streams: dict[str, list[str]] = {"1": [], "2": []}
    for line in (FILES / name).read_bytes().decode().split("\n"):
        if line.startswith("$ "):
            command = line[2:]
            streams = {"1": [], "2": []}
        elif line[1:3] == "| ":
            streams[line[0]].append(line[3:] + "\n")
        elif line.startswith("=> exit "):
            out, err = ("".join(streams[number]) for number in "12")
            runs.append(Run(command, out, err, int(line[8:])))
    return runs


def runs_of(name: str, tool: str) -> list[Run]:
    """The commands of one tool."""
    return [run for run in transcript(name) if run.words[0] == tool]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dates as in the transcripts."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()
