"""Group commit: when a batch waits for more, and when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.aio.in_process import config_of, eventually

from zkpy.persistence.errors import DiskWriteError
from zkpy.server.aio.log_writer import LogWriter

LONG_MS = 600_000


class FakeLog:
    """Counts commits; everything is durable at once."""

    directory = "/data/version-2"

    def __init__(self) -> None:
        self.durable_zxid = 0
        self.commits = 0
        self.prepared = 0
        self.closed = False
        self.error: BaseException | None = None

    def commit(self) -> float:
        if self.error is not None:
            raise self.error
        self.commits += 1
        self.durable_zxid += 1
        return 0.5

    def prepare_ahead(self) -> float:
        self.prepared += 1
        return 0.0

    def close(self) -> None:
        self.closed = True


class Writer:
    """A LogWriter on a FakeLog, and what it has reported."""

    def __init__(self, **settings: Any) -> None:
        self.log = FakeLog()
        self.durable: list[tuple[int, float]] = []
        self.errors: list[BaseException] = []
        self.ended = threading.Event()
        self.writer = LogWriter(
            self.log,  # type: ignore[arg-type]
            config_of(**settings),
            lambda zxid, sync_ms: self.durable.append((zxid, sync_ms)),
            self.errors.append,
            self.ended.set,
        )

    def stop(self) -> None:
        self.writer.stop()
        assert self.ended.wait(10)


@pytest.fixture
def writers() -> Iterator[list[Writer]]:
    made: list[Writer] = []
    yield made
    for writer in made:
        writer.stop()


def started(writers: list[Writer], **settings: Any) -> Writer:
    writer = Writer(**settings)
    writers.append(writer)
    writer.writer.start()
    return writer


def test_by_default_nothing_waits(writers: list[Writer]) -> None:
    writer = started(writers)
    for count in range(1, 4):
        writer.writer.wake(1)
        eventually(lambda count=count: len(writer.durable) == count)  # type: ignore[misc]
    assert writer.durable[-1] == (3, 0.5)
    eventually(lambda: writer.log.prepared >= 1)


def test_all_that_waits_goes_into_one_commit() -> None:
    writer = Writer()
    for _ in range(100):
        writer.writer.wake(5)
    writer.writer.stop()
    writer.writer.start()
    assert writer.ended.wait(10)
    assert writer.log.commits == 1
    assert writer.log.closed


def test_stop_commits_what_is_left(writers: list[Writer]) -> None:
    writer = started(writers, flush_delay_ms=LONG_MS, max_write_queue_poll_time_ms=LONG_MS)
    writer.writer.wake(1)
    writer.stop()
    assert writer.log.commits == 1
    assert writer.log.closed
    assert not writer.errors


def test_a_batch_waits_for_its_size(writers: list[Writer]) -> None:
    writer = started(
        writers, flush_delay_ms=LONG_MS, max_write_queue_poll_time_ms=LONG_MS, max_batch_size=10
    )
    writer.writer.wake(4)
    writer.writer.wake(5)
    time.sleep(0.05)
    assert not writer.durable
    writer.writer.wake(1)
    eventually(lambda: len(writer.durable) == 1)


def test_a_batch_waits_no_longer_than_the_delay(writers: list[Writer]) -> None:
    writer = started(writers, flush_delay_ms=100, max_write_queue_poll_time_ms=LONG_MS)
    start = time.monotonic()
    writer.writer.wake(1)
    eventually(lambda: writer.durable)
    assert time.monotonic() - start < 5


def test_a_batch_waits_no_longer_than_nothing_comes(writers: list[Writer]) -> None:
    writer = started(writers, flush_delay_ms=LONG_MS, max_write_queue_poll_time_ms=20)
    writer.writer.wake(1)
    eventually(lambda: writer.durable)


def test_the_poll_time_is_a_third_of_the_delay_by_default() -> None:
    assert config_of(flush_delay_ms=30).max_write_queue_poll_time_ms == 10


def test_an_error_is_reported_once_and_ends_the_thread() -> None:
    writer = Writer()
    writer.log.error = DiskWriteError("/data/version-2/log.1", "No space left on device", 4711)
    writer.writer.start()
    writer.writer.wake(1)
    assert writer.ended.wait(10)
    assert [str(error) for error in writer.errors] == [
        "/data/version-2/log.1 at offset 4711: No space left on device"
    ]
    assert not writer.durable
    assert not writer.log.closed


def test_any_other_error_is_as_bad() -> None:
    writer = Writer()
    writer.log.error = ZeroDivisionError("what?")
    writer.writer.start()
    writer.writer.wake(1)
    assert writer.ended.wait(10)
    (error,) = writer.errors
    assert isinstance(error, DiskWriteError)
    assert str(error) == "/data/version-2: SyncThread:0 died: ZeroDivisionError('what?')"
    assert error.__cause__ is writer.log.error
