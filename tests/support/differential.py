"""Sends one sequence to a server and writes down what a client can see; compares two such records.

Owns: the connections, the barriers that make the arrival of events definite, and what is made equal
before comparing: times (checked against each other instead), session ids, the order of children and
of other unordered lists.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from . import wire
from .oracle import Server
from .rawclient import Closed, RawClient, Reply, four_letter_word
from .sequences import CLIENTS, SUPER_CREDENTIAL, Step
from .wire import Stat

SESSION_TIMEOUT_MS = 60_000
REPLY_TIMEOUT_S = 8.0
# What both servers of a comparison get. Caches off: the reference's serves outdated quota usage.
# Containers and TTL nodes are not collected, as nobody knows when that would happen.
CONFIG = {
    "tickTime": 3000,
    "extendedTypesEnabled": "true",
    "enforceQuota": "true",
    "maxResponseCacheSize": 0,
    "maxGetChildrenResponseCacheSize": 0,
    "DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU=",
}
PROPERTIES = {"znode.container.checkIntervalMs": 86_400_000}

SYSTEM: dict[str, list[wire.Acl]] = {
    "/": wire.OPEN_ACL,
    "/zookeeper": wire.OPEN_ACL,
    "/zookeeper/quota": wire.OPEN_ACL,
    "/zookeeper/config": [(wire.READ, "world", "anyone")],
}


class Seen(NamedTuple):
    """One thing a client saw: "reply", "event" or "closed", with its parts made comparable."""

    client: int
    kind: str
    what: tuple[Any, ...] = ()

    def __str__(self) -> str:
        parts = ", ".join(map(str, self.what))
        text = f"client {self.client} {self.kind} {parts}"
        return text if len(text) < 600 else f"{text[:600]}..."


class Times:
    """Wall-clock times differ between servers; but one txn has one time, the same in every Stat."""

    def __init__(self) -> None:
        self.of_zxid: dict[int, int] = {0: 0}

    def check(self, stat: Stat) -> Stat:
        """`stat` with its times replaced by what is wrong with them, or by 0."""
        ctime = self._verdict(stat.czxid, stat.ctime)
        mtime = self._verdict(stat.mzxid, stat.mtime)
        return stat._replace(ctime=ctime, mtime=mtime)

    def _verdict(self, zxid: int, time_ms: int) -> int:
        known = self.of_zxid.setdefault(zxid, time_ms)
        plausible = zxid == 0 or abs(time_ms - time.time() * 1000) < 3_600_000
        return 0 if known == time_ms and plausible else time_ms


class Side:
    """One server, the clients of a sequence on it, and what they have seen."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.times = Times()
        self.sessions: dict[int, str] = {}
        self.clients: list[RawClient] = []
        self.ops: list[dict[int, int]] = []

    def open(self) -> None:
        """Fresh sessions for all clients."""
        self.sessions.clear()
        self.clients = [self._new_client() for _ in range(CLIENTS)]
        self.ops = [{} for _ in range(CLIENTS)]

    def _new_client(self) -> RawClient:
        client = RawClient(self.server.address)
        session = client.connect(timeout_ms=SESSION_TIMEOUT_MS)
        assert session.session_id, "no session"
        self.sessions[session.session_id] = f"session {len(self.sessions)}"
        return client

    def run(self, step: Step) -> list[Seen]:
        """Perform `step` and return all that its client saw, then what the others did."""
        index = step.client
        if step.kind == "restart":
            self.server.restart()
            return [seen for index in range(CLIENTS) for seen in self._reconnect(index)]
        if step.kind == "reconnect":
            seen = self._reconnect(index)
        elif step.kind == "close":
            seen = self._close(index)
        elif step.kind == "watches":
            seen = self._watches(step)
        else:
            seen = self._requests(step)
        for other in range(CLIENTS):
            if other != index:
                events = self._barrier(other)
                seen += sorted(events, key=repr) if step.kind == "close" else events
        return seen

    def _send(self, index: int, op: int, body: bytes) -> int:
        xid = self.clients[index].send(op, body)
        self.ops[index][xid] = op
        return xid

    def _receive(self, index: int, replies: int) -> list[Seen]:
        """Read until `replies` replies have come, or the end."""
        seen: list[Seen] = []
        try:
            while replies:
                reply = self.clients[index].recv(REPLY_TIMEOUT_S)
                seen.append(self._seen(index, reply))
                replies -= not reply.is_event
        except Closed:
            seen.append(Seen(index, "closed"))
        except TimeoutError:
            seen.append(Seen(index, "nothing more, but no close"))
        return seen

    def _requests(self, step: Step) -> list[Seen]:
        index = step.client
        for request in step.requests:
            self._send(index, request.op, request.body)
        seen = self._receive(index, len(step.requests))
        last = seen[-1]
        # Fatal requests are alone in their step: the reply, then the close.
        fatal = step.requests[0].op in (10, 13, 99)
        if fatal or (last.kind == "reply" and last.what[2] == wire.AUTH_FAILED):
            seen += self._receive(index, 1)
        if seen[-1].kind == "closed":
            seen += self._reconnect(index)
        return seen

    def _reconnect(self, index: int) -> list[Seen]:
        """Drop TCP, resume. The resume closes the old connection, so its watches are gone."""
        old = self.clients[index]
        old.close()
        assert old.session is not None
        client = RawClient(self.server.address)
        session = client.connect(
            old.session.session_id, old.session.password, SESSION_TIMEOUT_MS, self._last_zxid(old)
        )
        self.clients[index] = client
        self.ops[index] = {}
        same = session == old.session
        return [Seen(index, "resumed", (same, session if not same else ""))]

    def _close(self, index: int) -> list[Seen]:
        self._send(index, wire.CLOSE_SESSION, b"")
        seen = self._receive(index, 1)
        # Ephemerals go in an order that is nobody's business.
        seen = sorted(seen[:-1], key=repr) + seen[-1:] + self._receive(index, 1)
        self.clients[index].close()
        self.clients[index] = self._new_client()
        self.ops[index] = {}
        return seen

    def _watches(self, step: Step) -> list[Seen]:
        client = self.clients[step.client]
        op = wire.SET_WATCHES if len(step.lists) == 3 else wire.SET_WATCHES2
        self._send(step.client, op, wire.set_watches(self._last_zxid(client), *step.lists))
        return self._receive(step.client, 1)

    def _barrier(self, index: int) -> list[Seen]:
        """All that was queued for a client comes before the reply to a ping sent now."""
        self._send(index, wire.PING, b"")
        return self._receive(index, 1)[:-1]

    @staticmethod
    def _last_zxid(client: RawClient) -> int:
        return max((reply.zxid for reply in client.received if not reply.is_event), default=0)

    # Making things comparable

    def _seen(self, index: int, reply: Reply) -> Seen:
        if reply.is_event:
            event = reply.event()
            return Seen(index, "event", (event.type, event.state, event.path, event.zxid))
        op = self.ops[index].get(reply.xid, 0)
        # Bodies behind an error are leftovers with times in them: only their presence counts.
        value: Any = f"{len(reply.body)} bytes" if reply.body else ""
        if reply.err == 0:
            try:
                value = self.comparable(op, reply.value(op))
            except (AssertionError, ValueError, OverflowError) as error:
                value = f"cannot be decoded: {error}: {reply.body.hex()}"
        return Seen(index, "reply", (reply.xid, reply.zxid, reply.err, value))

    def comparable(self, op: int, value: Any) -> Any:
        """A decoded response without what is allowed to differ."""
        if op in (wire.GET_CHILDREN, wire.GET_EPHEMERALS, wire.WHO_AM_I):
            return sorted(value)
        if op == wire.GET_CHILDREN2:
            return sorted(value[0]), self._stat(value[1])
        if op == wire.GET_ACL:
            return self._acl(value[0]), self._stat(value[1])
        if op in (wire.MULTI, wire.MULTI_READ):
            return [
                (result.type, result.err, self.comparable(result.type, result.value))
                for result in value
            ]
        if isinstance(value, Stat):
            return self._stat(value)
        if isinstance(value, tuple):
            return tuple(self._stat(part) if isinstance(part, Stat) else part for part in value)
        return value

    def _stat(self, stat: Stat) -> Any:
        owner: Any = stat.ephemeral_owner
        return self.times.check(stat)._replace(ephemeral_owner=self.sessions.get(owner, owner))

    @staticmethod
    def _acl(acl: list[wire.Acl]) -> list[wire.Acl]:
        """`auth` expands to the ids of a connection in any order: sort runs of equal perms."""
        out: list[wire.Acl] = []
        run: list[wire.Acl] = []
        for entry in acl:
            if run and (entry[1] != "digest" or run[-1][0] != entry[0]):
                out += sorted(run, key=repr)
                run = []
            if entry[1] == "digest":
                run.append(entry)
            else:
                out.append(entry)
        return out + sorted(run, key=repr)

    # The end of a sequence

    def finish(self) -> list[Seen]:
        """What is left behind: the whole tree and some counts; then clean up for the next one."""
        seen = [Seen(-1, "count", item) for item in self._counts()]
        with RawClient(self.server.address) as janitor:
            janitor.connect(timeout_ms=SESSION_TIMEOUT_MS)
            janitor.call(wire.AUTH, wire.auth("digest", SUPER_CREDENTIAL))
            seen += [Seen(-1, "node", node) for node in self._dump(janitor, "/")]
            number = janitor.value(wire.GET_ALL_CHILDREN_NUMBER, wire.string("/"))
            seen.append(Seen(-1, "count", ("all children", number)))
            self.close()
            self._clean(janitor)
            zxid = janitor.call(wire.SYNC, wire.string("/")).zxid
            seen.append(Seen(-1, "count", ("zxid", zxid)))
            janitor.end_session()
        return seen

    def close(self) -> None:
        """End all sessions."""
        for client in self.clients:
            client.end_session()
        self.clients = []

    def _counts(self) -> list[tuple[str, str]]:
        lines = four_letter_word(self.server.address, "mntr").splitlines()
        values = dict(line.split("\t", 1) for line in lines)
        # Not approximate_data_size: the reference forgets quota usage it rewrites in place.
        keys = ["znode_count", "ephemerals_count", "global_sessions"]
        return [(key, values.get(f"zk_{key}", "missing")) for key in keys]

    def watch_counts(self) -> str:
        """From wchs; a connection that is closing may still be counted for a moment."""
        return four_letter_word(self.server.address, "wchs").rstrip("\n")

    def _dump(self, janitor: RawClient, path: str) -> Iterator[tuple[Any, ...]]:
        data = self.comparable(wire.GET_DATA, janitor.value(wire.GET_DATA, wire.path_watch(path)))
        acl = self.comparable(wire.GET_ACL, janitor.value(wire.GET_ACL, wire.string(path)))
        names = janitor.value(wire.GET_CHILDREN, wire.path_watch(path))
        yield path, data, acl
        for name in sorted(names):
            yield from self._dump(janitor, f"{path.rstrip('/')}/{name}")

    def _clean(self, janitor: RawClient, path: str = "/") -> None:
        """Delete all but the system nodes, and give those back their ACLs and data."""
        for name in sorted(janitor.value(wire.GET_CHILDREN, wire.path_watch(path))):
            self._clean(janitor, f"{path.rstrip('/')}/{name}")
        if path not in SYSTEM:
            janitor.value(wire.DELETE, wire.path_version(path))
            return
        acl, _ = janitor.value(wire.GET_ACL, wire.string(path))
        if acl != SYSTEM[path]:
            janitor.value(wire.SET_ACL, wire.set_acl(path, SYSTEM[path]))
        data, _ = janitor.value(wire.GET_DATA, wire.path_watch(path))
        if data != b"":
            janitor.value(wire.SET_DATA, wire.set_data(path))


class Difference(NamedTuple):
    """Where two servers parted: the step (or the end), and what each showed that differs."""

    where: int
    kind: str
    step: str
    expected: list[str]
    got: list[str]

    def __str__(self) -> str:
        lines = [f"step {self.where}: {self.step}"]
        lines += [f"  expected {line}" for line in self.expected or ["nothing"]]
        lines += [f"  got      {line}" for line in self.got or ["nothing"]]
        return "\n".join(lines)


class Broken(Exception):
    """A server did not do what any server does."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


Excuse = Callable[[Step | None, Seen, Seen], bool]


class Pair:
    """Two servers under the same sequences. `expected` is the one believed."""

    def __init__(self, expected: Server, got: Server, excuses: list[Excuse]) -> None:
        self.sides = (Side(expected), Side(got))
        self.excuses = excuses

    def compare(self, steps: list[Step]) -> Difference | None:
        """Run `steps` on both, in step. After a difference both start again with empty trees."""
        try:
            difference = self._compare(steps)
        except Broken as broken:
            difference = broken.difference
        if difference is not None:
            self.reset()
        return difference

    def _compare(self, steps: list[Step]) -> Difference | None:
        end = len(steps)
        self._both(Side.open, 0, "opening sessions")
        for number, step in enumerate(steps):
            expected, got = self._both(partial(Side.run, step=step), number, str(step))
            difference = self._differ(number, step, expected, got)
            if difference is not None:
                return difference
        if not self._watch_counts_agree():
            expected, got = (side.watch_counts() for side in self.sides)
            return Difference(end, "watches", "watch counts at the end", [expected], [got])
        return self._differ(end, None, *self._both(Side.finish, end, "the end"))

    def _both(self, action: Callable[[Side], Any], number: int, text: str) -> tuple[Any, Any]:
        """Do it on both sides; a server that hangs or dies is a difference too."""
        results = []
        for side in self.sides:
            try:
                results.append(action(side))
            except (OSError, Closed, AssertionError, ValueError) as error:
                lines = [f"{side.server.name} is broken: {error!r}", side.server.log_tail()]
                believed = side is self.sides[0]
                raise Broken(
                    Difference(
                        number, "broken", text, lines if believed else [], [] if believed else lines
                    )
                ) from error
        return results[0], results[1]

    def reset(self) -> None:
        for side in self.sides:
            for client in side.clients:
                client.close()
            side.server.wipe()
            side.times = Times()

    def _watch_counts_agree(self) -> bool:
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            expected, got = (side.watch_counts() for side in self.sides)
            if expected == got:
                return True
            time.sleep(0.05)
        return False

    def _differ(
        self, number: int, step: Step | None, expected: list[Seen], got: list[Seen]
    ) -> Difference | None:
        if expected == got:
            return None
        if len(expected) == len(got):
            pairs = [(a, b) for a, b in zip(expected, got, strict=True) if a != b]
            pairs = [pair for pair in pairs if not self._excused(step, *pair)]
            if not pairs:
                return None
            expected, got = [a for a, _ in pairs], [b for _, b in pairs]
        text = "the tree at the end" if step is None else str(step)
        kind = "tree" if step is None else "reply"
        return Difference(number, kind, text, list(map(str, expected)), list(map(str, got)))

    def _excused(self, step: Step | None, expected: Seen, got: Seen) -> bool:
        return any(excuse(step, expected, got) for excuse in self.excuses)

    def shorten(self, steps: list[Step], difference: Difference, tries: int) -> list[Step]:
        """Leave out steps, then requests, while a difference of the same kind remains.

        Stops after `tries` runs.
        """

        def found_in(candidate: list[Step]) -> Difference | None:
            found = self.compare(candidate) if candidate else None
            return found if found is not None and found.kind == difference.kind else None

        steps = steps[: difference.where + 1]
        size = max(1, len(steps) // 2)
        while size and tries > 0:
            at = 0
            while at < len(steps) and tries > 0:
                candidate = steps[:at] + steps[at + size :]
                tries -= 1
                found = found_in(candidate)
                if found is not None:
                    steps = candidate[: found.where + 1]
                else:
                    at += size
            size //= 2
        for at, step in enumerate(steps):
            for request in step.requests if len(step.requests) > 1 else ():
                requests = tuple(kept for kept in steps[at].requests if kept is not request)
                candidate = [*steps[:at], step._replace(requests=requests), *steps[at + 1 :]]
                tries -= 1
                if requests and tries > 0 and found_in(candidate) is not None:
                    steps = candidate
        return steps
