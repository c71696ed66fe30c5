"""What the process that started us is told, and that nothing comes of it when there is none."""

from __future__ import annotations

import os

import pytest

from zkpy.server.aio.ready import READY_FD, tell_ready


def test_who_started_us_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, told = os.pipe()
    monkeypatch.setenv(READY_FD, str(told))
    tell_ready()
    assert os.read(ready, 10) == b"\n"
    assert os.read(ready, 10) == b"", "our end is closed"
    os.close(ready)
    assert READY_FD not in os.environ, "it is nobody else's business"
    tell_ready()


def test_nobody_there_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, told = os.pipe()
    os.close(ready)
    monkeypatch.setenv(READY_FD, str(told))
    tell_ready()
    with pytest.raises(OSError):
        os.fstat(told)
    for text in ("", "x", "-1", "99999", "\u00b2"):
        monkeypatch.setenv(READY_FD, text)
        tell_ready()
