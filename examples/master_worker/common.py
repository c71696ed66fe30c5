"""What master, worker and client share: where things lie in the tree, and how to get at them.

    /master             ephemeral; its data is the name of the active master
    /workers/NAME       ephemeral; a worker that lives
    /assign/NAME/TASK   NAME shall do TASK; written by the master, removed by the worker
    /tasks/TASK         its data is the command
    /tasks/TASK/result  what came out, and
    /tasks/TASK/status  done or failed; both are written at once, when the task is over

All three programs work the same way: look at the nodes that matter, leaving a watch on each; do
what there is to do; wait until a watch fires; look again. An event says only that something has
changed. So none can be missed, and a lost connection, which kazoo reports to every watch, is just
one more reason to look.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NodeExistsError, RolledBackError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry

MASTER = "/master"
WORKERS = "/workers"
ASSIGN = "/assign"
TASKS = "/tasks"

HOSTS = "127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183"
SESSION_TIMEOUT_S = 5.0
# How long to wait for servers at the start; later we wait without end.
START_TIMEOUT_S = 60.0


def say(text: str) -> None:
    print(text, flush=True)


def make_parser(description: str) -> argparse.ArgumentParser:
    """With the options that all programs have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--hosts", default=HOSTS, help="servers (default: %(default)s)")
    options.add_argument(
        "--timeout",
        type=float,
        default=SESSION_TIMEOUT_S,
        metavar="S",
        help="after so many seconds without a sign of life we count as dead (default: %(default)g)",
    )
    return options


@contextmanager
def connected(hosts: str, timeout_s: float) -> Iterator[KazooClient]:
    """A client with a session, which is closed at the end, also at that by SIGTERM or Ctrl-C.

    A process that is killed otherwise closes nothing: its ephemerals stay for `timeout_s`.
    """
    # That connections break is no news here, and kazoo has many words for it.
    logging.getLogger("kazoo").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Without end: the servers may be away for longer than our session lasts.
    retry = {"max_tries": -1, "delay": 0.1, "max_delay": 0.5}
    zk = KazooClient(
        hosts,
        timeout=timeout_s,
        connection_retry=KazooRetry(**retry),
        command_retry=KazooRetry(**retry),
    )
    try:
        zk.start(timeout=START_TIMEOUT_S)
        for path in (WORKERS, ASSIGN, TASKS):
            zk.retry(zk.ensure_path, path)
        yield zk
    except KazooTimeoutError:
        sys.exit(f"no server answers at {hosts}")
    except KeyboardInterrupt:
        say("")  # the terminal has shown ^C; the shell's prompt gets a line of its own
    finally:
        zk.stop()
        zk.close()


class Changes:
    """Whether anything has changed since one last looked."""

    def __init__(self) -> None:
        self.happened = threading.Event()

    def watch(self, _event: object = None) -> None:
        """Give this to kazoo as the watch of whatever is looked at."""
        self.happened.set()

    def look(self) -> None:
        """Call this before looking: a change between the look and `wait` then ends the wait."""
        self.happened.clear()

    def wait(self) -> None:
        self.happened.wait()


def is_ours(zk: KazooClient, stat: Any) -> bool:
    """Whether the ephemeral node with this stat (None: there is none) is of our session."""
    return (
        stat is not None and zk.client_id is not None and stat.owner_session_id == zk.client_id[0]
    )


def claim(zk: KazooClient, path: str, name: str, changes: Changes, busy: str) -> None:
    """Make the ephemeral node `path` ours. While another session has it: say `busy`, and wait."""
    said = False
    while True:
        changes.look()
        try:
            zk.retry(zk.create, path, name.encode(), ephemeral=True)
        except NodeExistsError:
            pass  # another's; or ours, if the connection was lost before the answer
        stat = zk.retry(zk.exists, path, watch=changes.watch)
        if is_ours(zk, stat):
            return
        # If it has gone just now, there is nothing to wait for.
        if stat is not None:
            if not said:
                say(busy)
                said = True
            changes.wait()


def commit(zk: KazooClient, fill: Callable[[TransactionRequest], None]) -> None:
    """Do all that `fill` puts into a transaction, or nothing of it.

    Raises the error of the operation that failed. When the connection is lost before the answer
    comes, it is done again: then the error may mean that the first time was the one that counted.
    """
    for outcome in zk.retry(_commit_once, zk, fill):
        # Those before the failed one say "rolled back".
        if isinstance(outcome, Exception) and not isinstance(outcome, RolledBackError):
            raise outcome


def _commit_once(zk: KazooClient, fill: Callable[[TransactionRequest], None]) -> list[Any]:
    transaction = zk.transaction()
    fill(transaction)
    outcomes: list[Any] = transaction.commit()
    return outcomes


def by_number(task: str) -> str:
    """Sort tasks by this: the ten digits which the server has put at the end."""
    return task[-10:]
