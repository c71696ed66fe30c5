"""The shape of a log line."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator

import pytest

from zkpy.server.aio import logs


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What logging is set to is restored afterwards."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(threading.current_thread(), "_name", "MainThread")
    level, name = root.level, logging.getLevelName(logging.WARNING)
    yield
    root.setLevel(level)
    logging.addLevelName(logging.WARNING, name)


Captured = pytest.CaptureFixture[str]


def test_a_line(capsys: Captured) -> None:
    logs.configure(3)
    logging.getLogger("zkpy.server.aio.main").warning("session 0x%x", 255)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[myid:3\] - WARN  "
        r"\[main:zkpy\.server\.aio\.main@\d+\] - session 0xff\n",
        capsys.readouterr().out,
    )


def test_one_record_is_one_line(capsys: Captured) -> None:
    logs.configure(None)
    logging.getLogger("x").info("from a client: %s", "a\nb\x1b[31m\u00e9")
    text = capsys.readouterr().out
    assert text.endswith("from a client: a\\nb\\x1b[31mé\n")
    assert " [myid:] - INFO  [" in text
    assert text.count("\n") == 1


def test_an_exception_follows(capsys: Captured) -> None:
    logs.configure(None)
    try:
        raise ZeroDivisionError("what?")
    except ZeroDivisionError:
        logging.getLogger("x").exception("it broke")
    assert "it broke\nTraceback (most recent call last):" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("level", "expected"), [("WARN", logging.WARNING), ("debug", logging.DEBUG), ("x", 20)]
)
def test_levels(monkeypatch: pytest.MonkeyPatch, level: str, expected: int) -> None:
    monkeypatch.setenv("ZOO_LOG_LEVEL", level)
    logs.configure(None)
    assert logging.getLogger().level == expected
