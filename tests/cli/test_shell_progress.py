"""Progress: silence while work is quick, then how far it is; and nothing left of it at the end."""

from __future__ import annotations

import sys

import pytest
from tests.cli.memory import Recorder

from zkpy.cli.shell.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def test_at_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console = Recorder()
    progress = Progress(console, "Imported", 200)
    progress.step(10)
    assert console.take() == ""
    clock.now += 1.1
    progress.step(40)
    progress.step(1)
    assert console.take() == "\r\x1b[KImported 50 of 200 (25 %) nodes"
    clock.now += 1.1
    progress.step(49)
    progress.end()
    assert console.take() == "\r\x1b[KImported 100 of 200 (50 %) nodes\r\x1b[K"
    progress.end()
    assert console.take() == ""


def test_elsewhere(clock: Clock) -> None:
    console = Recorder()
    progress = Progress(console, "Exported")
    for _ in range(12):
        clock.now += 1.0
        progress.step(100)
    progress.end()
    assert console.take() == "Exported 500 nodes\nExported 1000 nodes\n"
