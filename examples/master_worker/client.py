#!/usr/bin/env python3
"""A client: hands in tasks, waits for their outcome, prints it and clears up."""

from __future__ import annotations

import sys
import uuid

from common import TASKS, Changes, commit, connected, make_parser, say
from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NoNodeError


def submit(zk: KazooClient, command: str) -> str:
    """The name of a new task.

    When the connection is lost, a create may or may not have happened, and doing it again may make
    a second task: the server puts another number behind the name. So ours has a mark in it, by
    which it is found.
    """
    mark = f"task-{uuid.uuid4().hex[:8]}-"

    def create_unless_there() -> str:
        zk.sync(TASKS)  # the server we talk to now may be behind the one that created it
        for task in zk.get_children(TASKS):
            if task.startswith(mark):
                return str(task)
        path = zk.create(f"{TASKS}/{mark}", command.encode(), sequence=True)
        return str(path).rpartition("/")[2]

    return str(zk.retry(create_unless_there))


def wait_for_outcome(zk: KazooClient, task: str) -> tuple[str, str]:
    """Status and result. Raises NoNodeError when somebody has deleted the task."""
    changes = Changes()
    path = f"{TASKS}/{task}"
    while True:
        changes.look()
        zk.retry(zk.get, path, watch=changes.watch)
        if zk.retry(zk.exists, f"{path}/status", watch=changes.watch):
            break
        changes.wait()
    status, result = (zk.retry(zk.get, f"{path}/{name}")[0] for name in ("status", "result"))
    return status.decode(), result.decode()


def clear_up(zk: KazooClient, task: str) -> None:
    def fill(transaction: TransactionRequest) -> None:
        for path in ("/result", "/status", ""):
            transaction.delete(f"{TASKS}/{task}{path}")

    try:
        commit(zk, fill)
    except NoNodeError:
        pass  # done by the first try, if the connection was lost


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("command", nargs="+", help='"sum 1 2 3", "upper some words", "sleep 5"')
    parser.add_argument("--keep", action="store_true", help="leave the tasks in the tree")
    options = parser.parse_args()
    failed = 0
    with connected(options.hosts, options.timeout) as zk:
        tasks = {submit(zk, command): command for command in options.command}
        for task in tasks:
            say(f"{task}: handed in")
        for task, command in tasks.items():
            try:
                status, result = wait_for_outcome(zk, task)
            except NoNodeError:
                status, result = "failed", "somebody has deleted the task"
            failed += status != "done"
            say(f"{command}: {status}: {result}")
            if not options.keep:
                clear_up(zk, task)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
