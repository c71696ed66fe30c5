"""A server inside the test's process, on a loop in a thread, so that plain blocking clients fit.

`GatedDisk` is a real or simulated disk whose log syncs wait until the test lets them go.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.rawclient import RawClient, open_session

from zkpy.server.aio.event_loop import ServerLoop
from zkpy.server.aio.main import Server
from zkpy.server.settings import Config, make_config
from zkpy.testing.disk import SimulatedDisk

if TYPE_CHECKING:
    from zkpy.persistence.disk import Disk, DiskFile

T = TypeVar("T")
WAIT_S = 10.0

# As a process of its own does; an embedded server has whatever loop its program has.
loop_factory: Callable[[], asyncio.AbstractEventLoop] = ServerLoop


def config_of(**settings: Any) -> Config:
    """Loopback, any free port, all four letter words, data on `/data`."""
    settings.setdefault("data_dir", "/data")
    settings.setdefault("client_port", 0)
    settings.setdefault("client_port_address", "127.0.0.1")
    settings.setdefault("four_letter_words", frozenset("*"))
    settings.setdefault("max_client_cnxns", 0)
    settings.setdefault("pre_alloc_size_kib", 64)
    return make_config(**settings)


class InProcess:
    """A server that has started; on a simulated disk unless a `disk` is given."""

    def __init__(self, disk: Disk | None = None, **settings: Any) -> None:
        self.disk = disk if disk is not None else SimulatedDisk()
        self.server = Server(config_of(**settings), self.disk)
        self.loop = loop_factory()
        self._thread = threading.Thread(target=self.loop.run_forever, name="server's loop")

    def __enter__(self) -> InProcess:
        self._thread.start()
        try:
            self.run(self.server.start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self.run(self.server.stop())
        finally:
            self._end()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server.port)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the server's loop, wait for the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def call(self, function: Callable[[], T]) -> T:
        """Call on the server's loop, wait for the result."""

        async def calling() -> T:
            return function()

        return self.run(calling())

    def session(self) -> RawClient:
        """A client with a session."""
        return open_session(self.address)

    def failure(self) -> BaseException:
        """Wait until the server cannot go on, and return why."""
        try:
            self.run(self.server.wait())
        except Exception as error:
            return error
        raise AssertionError("it was stopped")


class GatedDisk:
    """`disk`, but syncs of files with `part` in their path wait while `close_gate` is in effect.

    `waiting` counts those that have arrived there.
    """

    def __init__(self, disk: Disk | None = None, part: str = "log.") -> None:
        self._disk = disk if disk is not None else SimulatedDisk()
        self._part = part
        self._open = threading.Event()
        self._open.set()
        self.waiting = 0

    def close_gate(self) -> None:
        self._open.clear()

    def open_gate(self) -> None:
        self._open.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def create(self, path: str) -> DiskFile:
        return GatedFile(self, self._disk.create(path))

    def open(self, path: str) -> DiskFile:
        return GatedFile(self, self._disk.open(path))

    def pass_gate(self, path: str) -> None:
        if self._part in path and not self._open.is_set():
            self.waiting += 1
            assert self._open.wait(WAIT_S)


class GatedFile:
    def __init__(self, disk: GatedDisk, file: DiskFile) -> None:
        self._gate = disk
        self._file = file

    @property
    def path(self) -> str:
        return self._file.path

    @path.setter
    def path(self, path: str) -> None:
        self._file.path = path

    def write(self, data: bytes | memoryview, offset: int) -> None:
        self._file.write(data, offset)

    def fdatasync(self) -> float:
        self._gate.pass_gate(self._file.path)
        return self._file.fdatasync()

    def truncate(self, size_bytes: int) -> None:
        self._file.truncate(size_bytes)

    def close(self) -> None:
        self._file.close()


def eventually(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what or "it does not happen"
        time.sleep(0.002)
