#!/usr/bin/env python3
"""A worker: tells the masters that it lives, does the tasks it is given, and writes the results.

A task is done at least once, and its outcome is written exactly once: if this worker is taken for
dead while it works, the task is given to another one, and what it writes then is refused.
"""

from __future__ import annotations

import sys
import time

from common import (
    ASSIGN,
    TASKS,
    WORKERS,
    Changes,
    by_number,
    claim,
    commit,
    connected,
    is_ours,
    make_parser,
    say,
)
from kazoo.client import KazooClient, TransactionRequest
from kazoo.exceptions import NodeExistsError, NoNodeError


def perform(command: str) -> tuple[str, str]:
    """Status and result of a command: what a real worker is there for."""
    verb, *words = command.split() or [""]
    try:
        if verb == "sum":
            return "done", str(sum(int(word) for word in words))
        if verb == "upper":
            return "done", " ".join(words).upper()
        if verb == "sleep":
            time.sleep(float(words[0]))
            return "done", f"slept {words[0]} s"
    except (IndexError, ValueError) as error:
        return "failed", str(error)
    return "failed", f"unknown command: {verb}"


class Worker:
    def __init__(self, zk: KazooClient, name: str) -> None:
        self.zk = zk
        self.name = name
        self.node = f"{WORKERS}/{name}"
        self.inbox = f"{ASSIGN}/{name}"
        self.changes = Changes()

    def run(self) -> None:
        while True:
            self.register()
            self.work()
            say(f"{self.name}: the session has expired; registering again")

    def is_registered(self) -> bool:
        return is_ours(self.zk, self.zk.retry(self.zk.exists, self.node, watch=self.changes.watch))

    def register(self) -> None:
        # First the inbox: the master gives tasks to whoever is registered.
        self.zk.retry(self.zk.ensure_path, self.inbox)
        busy = f"{self.name}: waiting for the session of another {self.name} to end"
        claim(self.zk, self.node, self.name, self.changes, busy)
        say(f"{self.name}: registered")

    def work(self) -> None:
        """Do what is in the inbox, oldest first, for as long as we are registered."""
        while True:
            self.changes.look()
            if not self.is_registered():
                return
            tasks = self.zk.retry(self.zk.get_children, self.inbox, watch=self.changes.watch)
            if tasks:
                self.do(min(tasks, key=by_number))
            else:
                self.changes.wait()

    def do(self, task: str) -> None:
        try:
            command = self.zk.retry(self.zk.get, f"{TASKS}/{task}")[0].decode(errors="replace")
        except NoNodeError:
            say(f"{self.name}: {task} was withdrawn")
            self.drop(task)
            return
        say(f"{self.name}: {task}: {command}")
        status, result = perform(command)

        def fill(transaction: TransactionRequest) -> None:
            # First: it says whether the task is still ours.
            transaction.delete(f"{self.inbox}/{task}")
            transaction.create(f"{TASKS}/{task}/result", result.encode())
            transaction.create(f"{TASKS}/{task}/status", status.encode())

        try:
            commit(self.zk, fill)
        except (NoNodeError, NodeExistsError):
            # Also when it is our own, written just before the connection was lost.
            say(f"{self.name}: {task} already has an outcome, or another worker")
            self.drop(task)
        else:
            say(f"{self.name}: {task}: {status}")

    def drop(self, task: str) -> None:
        try:
            self.zk.retry(self.zk.delete, f"{self.inbox}/{task}")
        except NoNodeError:
            pass


def main() -> int:
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument("name", help="of this worker; no two may have the same")
    options = parser.parse_args()
    with connected(options.hosts, options.timeout) as zk:
        Worker(zk, options.name).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
