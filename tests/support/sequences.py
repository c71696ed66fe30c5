"""Random sequences of client actions, from a seed: what differential tests send to two servers.

Owns: which operations, paths, ACLs, versions and mistakes occur, and how often. A sequence is fixed
before anything is sent, so that it can be replayed, printed and shortened.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from . import wire
from .rawclient import digest_id
from .wire import OPEN_ACL, READ, Acl

CLIENTS = 3
SUPER_CREDENTIAL = b"super:test"

# Left out because the reference fails on it or because zkpy deliberately answers otherwise; the
# cases are checked against zkpy alone, or against nothing where any answer will do.
NEVER_SENT = {
    "deleteContainer (20)": "the reference lets any client delete with it; zkpy accepts it only "
    "from its own container manager",
    "createSession (-10)": "the reference answers with a ConnectResponse in mid-stream; zkpy "
    "treats it as an unknown opcode",
    "createTTL with flags 0-4 and ttl < 0": "the reference process stops while applying it",
    "createContainer with flags 1 or 3": "in the reference the pending node counts as an ephemeral "
    "until it is applied, so the answer to the next request depends on timing",
    "setACL before others in a pipeline": "the reference checks those against the old ACL or the "
    "new one, depending on timing",
    "pipelines under a hard quota": "the reference counts what is applied, so this is timing too",
    "a zookeeper_stats node that does not parse": "the reference process stops",
    "/zookeeper/quota/zookeeper_limits": "a quota on the root: the reference process stops",
    "auth or sasl in a pipeline": "the reference's reply may overtake earlier ones; zkpy keeps "
    "the order",
    "an unknown opcode in a pipeline": "the reference may lose the replies before it",
    "supplementary characters that are echoed": "the reference emits CESU-8",
}


class Request(NamedTuple):
    """An opcode, its body, and how to print it. `body` None: setWatches with the zxid last seen."""

    op: int
    body: bytes
    text: str


class Step(NamedTuple):
    """What one client does. Kinds:

    requests    send all, then read all replies (a pipeline if there are several)
    reconnect   drop TCP and resume the session
    close       closeSession, then a new session
    restart     kill -9 and start the server again, then all clients resume; never drawn
    watches     setWatches or setWatches2 with the last zxid this client has seen
    """

    client: int
    kind: str
    requests: tuple[Request, ...] = ()
    lists: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        inner = ", ".join(request.text for request in self.requests)
        return f"client {self.client} {self.kind} {inner}{self.lists or ''}"


PATHS = ["/a", "/b", "/a/x", "/a/y", "/a/x/1", "/b/\u00e9", "/c", "/a b"]
SYSTEM_PATHS = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota", "/zookeeper/quota/a"]
ODD_PATHS: list[str | bytes | None] = [
    None, "", "a", "/a/", "//a", "/a//x", "/a/.", "/a/../b", "/a\0", "/missing/x", "/\x7f",
    "/\uf000", "/\ufff1", b"/\xff\xfe", "/zookeeper/foo", "/a/x/1/2/3",
]  # fmt: skip

BOB, ANN = digest_id("bob:pw"), digest_id("ann:pw")
ACLS: list[list[Acl] | None] = [
    [(31, "auth", None)],
    [(31, "auth", "")],
    [(READ, "world", "anyone"), (31, "auth", "x")],
    [(READ, "world", "anyone")],
    [(0, "world", "anyone")],
    [(31 - READ, "world", "anyone")],
    [(31, "digest", BOB), (READ, "world", "anyone")],
    [(31, "digest", ANN)],
    [(7, "ip", "127.0.0.1"), (24, "digest", BOB)],
    [(31, "ip", "10.0.0.0/8")],
    [(31 | 64, "world", "anyone"), (31 | 64, "world", "anyone")],
    [(31, "world", "me")],
    [(31, "world", None)],
    [(31, "digest", "bad")],
    [(31, "digest", None)],
    [(31, "ip", "300.1.1.1")],
    [(31, "sasl", "x")],
    [(31, "super", "x")],
    [(31, None, "x")],
    [],
    None,
]
VERSIONS = [0, 1, 2, 3, -2, 2**31 - 1]
DATA: list[bytes | None] = [None, b"", b"x", b"hello", bytes(range(256)), b"z" * 5000]
TTLS = [1, 1000, 2**40 - 1, 2**40, 0, -1]
QUOTAS = [
    b"count=2,bytes=-1=;byteHardLimit=-1;countHardLimit=4",
    b"count=-1,bytes=100=;byteHardLimit=300;countHardLimit=-1",
    b"count=3,bytes=10=;countHardLimit=6;byteHardLimit=6000",
    b"count=3,bytes=10",
]


class Generator:
    """Draws steps from `seed`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # A guess at which of PATHS exist, so that successes are as frequent as failures.
        self.guess: set[str] = set()
        self.hard_quota = False
        weights: list[tuple[int, Any]] = [
            (22, self.create),
            (10, self.delete),
            (12, self.set_data),
            (3, self.check_acl),
            (25, self.read),
            (8, self.multi),
            (3, self.multi_read),
            (4, self.add_watch),
            (5, self.watch_type),
            (3, self.misc),
        ]
        self.makers = [maker for _, maker in weights]
        self.weights = [weight for weight, _ in weights]

    def sequence(self, length: int) -> list[Step]:
        return [self.step() for _ in range(length)]

    def step(self) -> Step:
        client = self.random.randrange(CLIENTS)
        kind = self.random.random()
        if kind < 0.03:
            return Step(client, "reconnect")
        if kind < 0.05:
            return Step(client, "close")
        if kind < 0.08:
            return self.watches(client)
        if kind < 0.11:
            return Step(client, "requests", (self.auth(),))
        if kind < 0.12:
            return Step(client, "requests", (self.fatal(),))
        if kind < 0.14:
            return Step(client, "requests", self.quota())
        if kind < 0.16:
            return Step(client, "requests", (self.set_acl(),))
        count = 1 if self.hard_quota else self.random.choice([1, 1, 1, 1, 1, 2, 3, 8])
        return Step(client, "requests", tuple(self.request() for _ in range(count)))

    def request(self) -> Request:
        (maker,) = self.random.choices(self.makers, self.weights)
        request: Request = maker()
        if self.random.random() < 0.02 and request.body:
            size = self.random.randrange(len(request.body))
            text = f"first {size} bytes of {request.text}"
            return Request(request.op, request.body[:size], text)
        return request

    # Parts of requests

    def path(self, existing: float = 0.6) -> Any:
        """A path that exists with about that probability."""
        draw = self.random.random()
        if draw < 0.88:
            wanted = self.random.random() < existing
            paths = [path for path in PATHS if (path in self.guess) == wanted]
            return self.random.choice(paths or PATHS)
        if draw < 0.95:
            return self.random.choice(SYSTEM_PATHS)
        return self.random.choice(ODD_PATHS)

    def new_path(self) -> Any:
        """For creates: mostly one that does not exist, under a parent that does."""
        if self.random.random() < 0.3:
            return self.path()
        parents = {*self.guess, ""}
        paths = [
            path for path in PATHS if path not in self.guess and path.rpartition("/")[0] in parents
        ]
        return self.random.choice(paths or PATHS)

    def note_create(self, path: Any, flags: int, acl: list[Acl] | None) -> None:
        if path in PATHS and flags in (0, 1, 4, 5) and acl:
            if path.rpartition("/")[0] in {*self.guess, ""}:
                self.guess.add(path)

    def note_delete(self, path: Any, version: int) -> None:
        if version == -1 and not any(other.startswith(f"{path}/") for other in self.guess):
            self.guess.discard(path)

    def acl(self, odd: float = 0.2) -> list[Acl] | None:
        return self.random.choice(ACLS) if self.random.random() < odd else OPEN_ACL

    def version(self) -> int:
        return self.random.choice(VERSIONS) if self.random.random() < 0.3 else -1

    def flag(self) -> bool:
        return self.random.random() < 0.4

    def data(self) -> bytes | None:
        return self.random.choice(DATA)

    # Requests

    def create(self) -> Request:
        op = self.random.choices(
            [wire.CREATE, wire.CREATE2, wire.CREATE_CONTAINER, wire.CREATE_TTL], [8, 5, 2, 2]
        )[0]
        path, data, acl = self.new_path(), self.data(), self.acl()
        flags = self.random.choices([0, 1, 2, 3, 4, 5, 6, 7, -1], [50, 12, 12, 10, 3, 1, 1, 1, 1])[
            0
        ]
        if op == wire.CREATE_CONTAINER and flags in (1, 3):
            flags = wire.CONTAINER
        self.note_create(path, flags, acl)
        if op == wire.CREATE_TTL:
            ttl_ms = self.random.choice(TTLS)
            if self.random.random() < 0.8 or ttl_ms < 0:
                flags = self.random.choice([5, 6])
            body = wire.create_ttl(path, data, flags, ttl_ms, acl)
            return request(op, body, path, data, flags, ttl_ms, acl)
        return request(op, wire.create(path, data, flags, acl), path, data, flags, acl)

    def delete(self) -> Request:
        path, version = self.path(), self.version()
        self.note_delete(path, version)
        return request(wire.DELETE, wire.path_version(path, version), path, version)

    def set_data(self) -> Request:
        path, data, version = self.path(), self.data(), self.version()
        return request(wire.SET_DATA, wire.set_data(path, data, version), path, data, version)

    def set_acl(self) -> Request:
        path, acl, version = self.path(), self.acl(0.5), self.version()
        if path == "/" and self.random.random() < 0.8:
            path = "/a"  # a closed root would make the rest of the sequence dull
        return request(wire.SET_ACL, wire.set_acl(path, acl, version), path, acl, version)

    def check_acl(self) -> Request:
        path = self.path()
        return request(wire.GET_ACL, wire.string(path), path)

    def read(self) -> Request:
        op = self.random.choice([wire.EXISTS, wire.GET_DATA, wire.GET_CHILDREN, wire.GET_CHILDREN2])
        path, watch = self.path(), self.flag()
        return request(op, wire.path_watch(path, watch), path, watch)

    def add_watch(self) -> Request:
        path, mode = self.path(), self.random.choice([0, 0, 1, 1, 2])
        return request(wire.ADD_WATCH, wire.path_type(path, mode), path, mode)

    def watch_type(self) -> Request:
        op = self.random.choice([wire.CHECK_WATCHES, wire.REMOVE_WATCHES])
        path, type_ = self.path(), self.random.choice([1, 2, 3, 3, 4, 5, 0, 6])
        return request(op, wire.path_type(path, type_), path, type_)

    def misc(self) -> Request:
        path = self.path()
        return self.random.choice(
            [
                request(wire.PING, b""),
                request(wire.SYNC, wire.string(path), path),
                request(wire.WHO_AM_I, b""),
                request(wire.GET_EPHEMERALS, wire.string(path), path),
                request(wire.GET_ALL_CHILDREN_NUMBER, wire.string(path), path),
                request(wire.RECONFIG, wire.reconfig("server.9=x", None, None), "server.9=x"),
            ]
        )

    def multi(self) -> Request:
        guess = set(self.guess)
        good = self.random.random() < 0.5
        parts: list[Request] = []
        for _ in range(self.random.choice([0, 1, 2, 2, 3, 3, 4, 6])):
            parts.append(self.good_part() if good else self.any_part())
        if not good:
            self.guess = guess  # most likely one part fails, and so all do
        return multi_request(wire.MULTI, parts)

    def good_part(self) -> Request:
        """A part that most likely succeeds."""
        kind = self.random.randrange(4)
        path: Any
        if kind == 0 or not self.guess:
            path = self.random.choice(["", *sorted(self.guess)]) + "/s-"
            op = self.random.choice([wire.CREATE, wire.CREATE2, wire.CREATE_CONTAINER])
            return request(op, wire.create(path, b"s", wire.SEQUENTIAL), path, b"s", 2)
        path = self.random.choice(sorted(self.guess))
        if kind == 1:
            return request(wire.SET_DATA, wire.set_data(path, b"multi"), path, b"multi")
        if kind == 2:
            return request(wire.CHECK, wire.path_version(path), path)
        self.note_delete(path, -1)
        if path in self.guess:
            return request(wire.CHECK, wire.path_version(path), path)
        return request(wire.DELETE, wire.path_version(path), path)

    def any_part(self) -> Request:
        kind = self.random.random()
        if kind < 0.5:
            return self.create()
        if kind < 0.65:
            return self.delete()
        if kind < 0.8:
            return self.set_data()
        if kind < 0.97:
            path, version = self.path(0.8), self.version()
            return request(wire.CHECK, wire.path_version(path, version), path, version)
        return self.random.choice([self.set_acl, self.read, self.add_watch])()

    def multi_read(self) -> Request:
        parts: list[Request] = []
        for _ in range(self.random.randrange(4)):
            op = self.random.choice([wire.GET_DATA, wire.GET_CHILDREN])
            path = self.path()
            parts.append(request(op, wire.path_watch(path, self.flag()), path))
        if self.random.random() < 0.05:
            parts.append(self.delete())
        return multi_request(wire.MULTI_READ, parts)

    def auth(self) -> Request:
        if self.random.random() < 0.1:
            return request(wire.SASL, wire.buffer(b"token"), b"token")
        scheme, credential = self.random.choice(
            [
                ("digest", b"bob:pw"),
                ("digest", b"bob:pw"),
                ("digest", b"ann:pw"),
                ("digest", b"eve"),
                ("digest", SUPER_CREDENTIAL),
                ("ip", b""),
                ("nope", b"x"),
                ("digest", None),
            ]
        )
        return request(wire.AUTH, wire.auth(scheme, credential), scheme, credential)

    def fatal(self) -> Request:
        """What makes the server close the connection."""
        op, body = self.random.choice(
            [(13, wire.path_version("/a")), (10, b""), (99, b""), (wire.SASL, wire.buffer(None))]
        )
        return request(op, body)

    def quota(self) -> tuple[Request, ...]:
        """A quota as clients set it: limits, then stats; or only a change of the limits."""
        target = self.random.choice(["/a", "/a/x"])
        node = f"/zookeeper/quota{target}"
        limits, stats = f"{node}/zookeeper_limits", f"{node}/zookeeper_stats"
        text = self.random.choice(QUOTAS)
        draw = self.random.random()
        if draw < 0.15:
            return (request(wire.DELETE, wire.path_version(limits), limits),)
        if self.random.random() < 0.5:
            text = QUOTAS[-1]  # soft
        self.hard_quota |= b"Hard" in text
        if draw < 0.3:
            return (request(wire.SET_DATA, wire.set_data(limits, text), limits, text),)
        nodes: list[tuple[str, bytes]] = [("/zookeeper/quota/a", b"")]
        if target != "/a":
            nodes.append((node, b""))
        nodes += [(limits, text), (stats, b"count=-1,bytes=-1")]
        return tuple(
            request(wire.CREATE, wire.create(path, data), path, data) for path, data in nodes
        )

    def watches(self, client: int) -> Step:
        def some() -> tuple[str, ...]:
            return tuple(self.random.choices(PATHS, k=self.random.randrange(4)))

        count = self.random.choice([3, 5])
        return Step(client, "watches", (), tuple(some() for _ in range(count)))


def request(op: int, body: bytes, *arguments: object) -> Request:
    words = ", ".join(map(short, arguments))
    return Request(op, body, f"{wire.OP_NAMES.get(op, op)}({words})")


def multi_request(op: int, parts: list[Request]) -> Request:
    body = wire.multi((part.op, part.body) for part in parts)
    return Request(op, body, f"{wire.OP_NAMES[op]}[{'; '.join(part.text for part in parts)}]")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{len(text)}"
