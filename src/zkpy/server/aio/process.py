"""A server as a process of its own: signals, exit codes, and what only a process may change.

Source: ZooKeeperServerMain, QuorumPeerMain, ExitCode, ZooKeeper 3.9.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from zkpy.persistence.errors import PersistenceError
from zkpy.protocol.config_error import UNEXPECTED
from zkpy.server.aio.event_loop import ServerLoop
from zkpy.server.aio.main import Server
from zkpy.server.aio.ready import tell_ready
from zkpy.server.notices import notices, refusal
from zkpy.server.version import zookeeper_version_text

if TYPE_CHECKING:
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)

# Nodes live long and hold no cycles: young objects are looked at often, old ones never, since a
# full collection over a million nodes would hold the loop for a second.
GC_THRESHOLDS: Final = (10_000, 5, 1_000_000)
# A disk that hangs must not keep us: what it has not confirmed was not acknowledged.
STOP_SECONDS: Final = 1.5
INVALID_INVOCATION: Final = 2
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code, with the reason logged if not 0."""
    # As long as the loop is held by loading, only a handler that raises gets a word in.
    for number in STOP_SIGNALS:
        signal.signal(number, _leave)
    log.info("Starting server: ZooKeeper %s", zookeeper_version_text())
    for level, text in (*config.messages, *notices(config)):
        log.log(level, "%s", text)
    reason = refusal(config)
    if reason is not None:
        return _report(f"Invalid config, exiting abnormally: {reason}", INVALID_INVOCATION)
    raise_file_limit()
    code = 0
    try:
        with asyncio.Runner(loop_factory=ServerLoop) as runner:
            runner.run(_serve(config))
    except PersistenceError as error:
        code = _report(error.stderr_line, error.exit_code)
    except OSError as error:
        code = _report(f"{UNEXPECTED}: {error.strerror or error}", 1)
    except Exception as error:
        log.error("%s: %r", UNEXPECTED, error, exc_info=error)
        code = _report(f"{UNEXPECTED}: {error!r}", 1)
    log.log(logging.ERROR if code else logging.INFO, "Exiting with code %d", code)
    return code


def _report(line: str, code: int) -> int:
    """Once for the log, and once for who started the server by hand."""
    log.error("%s", line)
    print(line, file=sys.stderr)
    return code


async def _serve(config: Config) -> None:
    server = new_server(config)
    loop = asyncio.get_running_loop()
    failure: list[BaseException] = []
    stop = asyncio.Event()

    def told(number: int) -> None:
        log.info("%s: shutting down", signal.Signals(number).name)
        stop.set()

    def uncaught(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        log.error("%s", context.get("message"))
        failure.append(error if isinstance(error, Exception) else RuntimeError(str(context)))
        stop.set()

    # The parts report what goes wrong in them; what slips through must not go on either.
    loop.set_exception_handler(uncaught)
    # What is loaded stays: looking for garbage among it costs a second per million nodes.
    gc.disable()
    await server.start()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, told, number)
    tell_ready()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    failing = asyncio.ensure_future(server.wait())
    failing.add_done_callback(lambda _: stop.set())
    await stop.wait()
    # We are leaving anyway: a second one must not turn that into a death by signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if failing.done():
        log.error("Severe unrecoverable error: %s", failing.exception())
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.stop()
    except TimeoutError:
        log.warning("the disk does not answer: leaving without it; no acknowledged write is lost")
    else:
        await asyncio.wait({failing})
    if failing.done():
        failing.result()
    if failure:
        raise failure[0]
    log.info("shut down")


def new_server(config: Config) -> Server:
    """A standalone server, or a member of an ensemble where the configuration has one."""
    if not config.quorum_mode:
        return Server(config)
    from zkpy.server.aio.member import MemberServer  # an ensemble's code, where there is one

    return MemberServer(config)


def _leave(number: int, _frame: object) -> NoReturn:
    log.info("%s: leaving before the start was complete", signal.Signals(number).name)
    sys.exit(0)


def raise_file_limit() -> None:
    """Allow as many descriptors, and so clients, as the system lets us, as a JVM does."""
    try:
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ImportError, OSError, ValueError):
        pass  # not a Unix, or forbidden: then it stays as it is
