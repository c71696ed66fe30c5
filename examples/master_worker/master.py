#!/usr/bin/env python3
"""A master: one of those running leads, and gives the tasks to the workers; the others wait.

Whoever creates the ephemeral node /master leads. When its session ends, for whatever reason, the
node is gone, the others are told by their watch, and the first to create it again leads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from common import (
    ASSIGN,
    MASTER,
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
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError


class Move(NamedTuple):
    """Give `task` to `worker`; `source` is the dead worker it is taken from, if any."""

    task: str
    source: str | None
    worker: str


def plan(
    alive: Iterable[str], assigned: Mapping[str, Iterable[str]], waiting: Iterable[str]
) -> list[Move]:
    """Who gets which task: those of dead workers and those in `waiting`, oldest first.

    `assigned` holds the unfinished tasks of each worker, dead or alive. The next task goes to the
    worker who has the fewest.
    """
    load = {worker: len(list(assigned.get(worker, ()))) for worker in sorted(alive)}
    if not load:
        return []
    homeless: list[tuple[str, str | None]] = [(task, None) for task in waiting]
    for worker, tasks in assigned.items():
        if worker not in load:
            homeless += [(task, worker) for task in tasks]
    moves = []
    for task, source in sorted(homeless, key=lambda pair: by_number(pair[0])):
        worker = min(load, key=lambda name: load[name])
        load[worker] += 1
        moves.append(Move(task, source, worker))
    return moves


class Master:
    def __init__(self, zk: KazooClient, name: str) -> None:
        self.zk = zk
        self.name = name
        self.changes = Changes()
        self.term = -1  # the version of /assign since we lead

    def run(self) -> None:
        while True:
            claim(self.zk, MASTER, self.name, self.changes, f"{self.name}: backup")
            self.lead()
            say(f"{self.name}: no longer the master")

    def is_master(self) -> bool:
        return is_ours(self.zk, self.zk.retry(self.zk.exists, MASTER, watch=self.changes.watch))

    def lead(self) -> None:
        """Assign tasks for as long as /master is ours.

        A master can be deposed without knowing it: it was stopped for a while, its session has
        expired, another leads, and here it comes with an old idea of who does what. So each of our
        writes is a transaction which checks that /assign still has the version we gave it; the
        next master's first act is to give it another.
        """
        self.term = self.zk.retry(self.zk.set, ASSIGN, self.name.encode()).version
        say(f"{self.name}: active")
        while True:
            self.changes.look()
            if not self.is_master():
                return
            try:
                self.assign_tasks()
            except BadVersionError:
                return
            self.changes.wait()

    def children(self, path: str, *, watched: bool = False) -> list[str]:
        watch = self.changes.watch if watched else None
        return list(self.zk.retry(self.zk.get_children, path, watch=watch))

    def assign_tasks(self) -> None:
        """Look at everything, and give each task to a worker who lives.

        It is a look at everything, whatever has changed: simple and always right, but a master of
        many thousand tasks would keep in mind what it knows.
        """
        alive = self.children(WORKERS, watched=True)
        tasks = self.children(TASKS, watched=True)
        assigned = {
            worker: self.children(f"{ASSIGN}/{worker}")
            for worker in self.children(ASSIGN, watched=True)
        }
        known = {task for tasks in assigned.values() for task in tasks}
        # A finished task leaves /assign in the transaction which gives it its status, and nobody
        # but us puts one there. So what is in neither place has never been assigned.
        waiting = [
            task
            for task in tasks
            if task not in known and not self.zk.retry(self.zk.exists, f"{TASKS}/{task}/status")
        ]
        # Only to those which have a node for it.
        for move in plan(set(alive) & set(assigned), assigned, waiting):
            self.carry_out(move)

    def carry_out(self, move: Move) -> None:
        def fill(transaction: TransactionRequest) -> None:
            transaction.check(ASSIGN, self.term)
            if move.source is not None:
                transaction.delete(f"{ASSIGN}/{move.source}/{move.task}")
            transaction.create(f"{ASSIGN}/{move.worker}/{move.task}")

        try:
            commit(self.zk, fill)
        except (NoNodeError, NodeExistsError):
            # Finished after all by the one we thought dead, or done by our own first try.
            self.changes.watch()
            return
        origin = "" if move.source is None else f", from {move.source}, which is gone"
        say(f"{self.name}: {move.task} to {move.worker}{origin}")


def main() -> int:
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument("name", help="of this master, for the others to see")
    options = parser.parse_args()
    with connected(options.hosts, options.timeout) as zk:
        Master(zk, options.name).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
