"""What is prepared, logged and applied agree, however the disk and the clients are timed.

The server applies its own writes from notes that prep took; a restart applies the logged bytes.
Both have to give the same tree, and the digest that each txn carries has to be right.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.datatree.tree_compare import check_inner_consistency, content
from tests.server.machine import Client, Machine
from tests.support import wire
from tests.support.rawclient import digest_id

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.digest import tree_digest
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.txns import MultiTxn, decode_txn
from zkpy.protocol.zoodefs import OpCode

SETTINGS: dict[str, Any] = {"extended_types_enabled": True, "enforce_quota": True}

# Those that are there from the start come more often: most requests shall succeed.
START = ["/a", "/a/x", "/a/y", "/b", "/c", "/zookeeper/quota/a"]
PATHS = [
    *START, *START, "/", "/a/x/1", "/a/x/2", "/b/z", "/d",
    "/zookeeper/quota/a/zookeeper_limits", "/zookeeper/quota/a/zookeeper_stats",
]  # fmt: skip
NEW_PATHS = ["/a/n", "/b/n", "/c/n", "/n", "/a/x/n", *PATHS]
MINE: list[wire.Acl] = [(wire.ALL, "digest", digest_id("u:p"))]
READ_ONLY: list[wire.Acl] = [(wire.READ | wire.ADMIN, "world", "anyone")]

paths = st.sampled_from(PATHS)
new_paths = st.sampled_from(NEW_PATHS)
data = st.sampled_from([None, b"", b"x", b"y" * 40, b"count=9,bytes=99=;countHardLimit=4"])
versions = st.sampled_from([*[-1] * 9, 0, 1, 2])
acls = st.sampled_from([*[wire.OPEN_ACL] * 15, MINE, READ_ONLY])

Op = tuple[int, bytes]


def create(op: int, path: str, value: bytes | None, flags: int, acl: list[wire.Acl]) -> Op:
    if op == wire.CREATE_TTL:
        return op, wire.create_ttl(path, value, flags, 1000, acl)
    return op, wire.create(path, value, flags, acl)


plain_creates = st.builds(
    create,
    st.sampled_from([wire.CREATE, wire.CREATE, wire.CREATE2, wire.CREATE_CONTAINER]),
    new_paths,
    data,
    st.sampled_from([0, 0, 1, 2, 2, 3, 4]),
    acls,
)
ttl_creates = st.builds(
    create, st.just(wire.CREATE_TTL), new_paths, data, st.sampled_from([5, 6]), acls
)
creates = st.one_of(plain_creates, plain_creates, ttl_creates)
deletes = st.builds(lambda p, v: (wire.DELETE, wire.path_version(p, v)), paths, versions)
set_datas = st.builds(
    lambda p, d, v: (wire.SET_DATA, wire.set_data(p, d, v)), paths, data, versions
)
set_acls = st.builds(lambda p, a, v: (wire.SET_ACL, wire.set_acl(p, a, v)), paths, acls, versions)
checks = st.builds(lambda p, v: (wire.CHECK, wire.path_version(p, v)), paths, versions)
parts = st.one_of(creates, deletes, set_datas, set_datas, checks)


def replay(log: list[tuple[int, bytes]], digests: bool = True) -> DataTree:
    """The tree that the logged txns make of an empty one; each digest is checked."""
    tree = DataTree(extended_types=True)
    for zxid, txn in log:
        header, record, digest = decode_txn(txn)
        assert header.zxid == zxid == tree.last_processed_zxid + 1
        apply_txn(tree, header, record)
        if header.type == OpCode.ERROR or not digests:
            assert digest is None
        else:
            assert digest is not None
            assert digest.version == 2
            assert digest.tree_digest == tree.digest, f"at {zxid}: {record}"
    return tree


def assert_same(live: DataTree, replayed: DataTree) -> None:
    assert content(live) == content(replayed)
    assert live.sessions == replayed.sessions
    assert live.ephemerals == replayed.ephemerals
    assert live.containers == replayed.containers
    assert live.ttls == replayed.ttls
    assert live.ephemerals_count == replayed.ephemerals_count
    assert live.data_size == replayed.data_size
    assert live.quota.paths == replayed.quota.paths
    assert live.last_processed_zxid == replayed.last_processed_zxid


class PrepMachine(RuleBasedStateMachine):
    """Three clients at most, everything pipelined, the disk as slow as it likes."""

    settings: dict[str, Any] = SETTINGS

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(**self.settings)
        self.clients: list[Client] = []
        first = self.connect_one()
        for path in START:
            first.create(path)

    def teardown(self) -> None:
        machine = self.machine
        machine.flush()
        outstanding = machine.server.prep.outstanding
        assert outstanding.records == {}
        digests = machine.config.digest_enabled
        replayed = replay(machine.log, digests)
        assert_same(machine.tree, replayed)
        if digests:
            assert machine.tree.digest == outstanding.digest == replayed.digest
        check_inner_consistency(machine.tree)

    def client(self, number: int) -> Client:
        return self.clients[number % len(self.clients)]

    def drop_closed(self) -> None:
        """Go on with the connections that are left, one at least."""
        self.clients = [client for client in self.clients if not client.cnxn.closed]
        if not self.clients:
            self.connect_one()

    def connect_one(self, wait: bool = True) -> Client:
        client = self.machine.plain()
        client.connect(timeout_ms=6000, flush=wait)
        self.clients.append(client)
        return client

    @rule(authenticated=st.booleans(), wait=st.booleans())
    def connect(self, authenticated: bool, wait: bool) -> None:
        if len(self.clients) < 3:
            client = self.connect_one(wait)
            if authenticated:
                client.send(wire.AUTH, wire.auth("digest", b"u:p"))

    @rule(number=st.integers(0, 2), ops=st.lists(st.one_of(creates, deletes, set_datas, set_acls)))
    def write(self, number: int, ops: list[Op]) -> None:
        client = self.client(number)
        for op, body in ops:
            client.send(op, body)

    @rule(number=st.integers(0, 2), ops=st.lists(parts, max_size=6))
    def multi(self, number: int, ops: list[Op]) -> None:
        server = self.machine.server
        self.machine.log += server.zab.take_appended()
        outstanding = server.prep.outstanding
        before = dict(outstanding.records), outstanding.digest
        self.client(number).send(wire.MULTI, wire.multi(ops))
        proposed = server.zab.take_appended()
        self.machine.log += proposed
        if not proposed:
            return
        ((_, txn),) = proposed
        _, record, _ = decode_txn(txn)
        if not isinstance(record, MultiTxn):
            return
        failed = [sub for sub in record.txns or () if sub.type == OpCode.ERROR]
        if failed:
            assert (outstanding.records, outstanding.digest) == before

    @rule(number=st.integers(0, 2), how=st.sampled_from(["stay", "close", "drop", "expire"]))
    def leave(self, number: int, how: str) -> None:
        client = self.client(number)
        if how == "close":
            client.send(wire.CLOSE_SESSION)
        elif how != "stay":
            client.drop()
        self.drop_closed()
        if how == "expire":
            self.machine.advance(30_000)
            self.drop_closed()

    @rule(count=st.integers(0, 5))
    def durable(self, count: int) -> None:
        zab = self.machine.zab
        self.machine.durable(min(zab.committed_zxid + count, zab.last_zxid))
        self.drop_closed()

    @rule()
    def flush(self) -> None:
        self.machine.flush()
        self.drop_closed()

    @rule()
    def time_passes(self) -> None:
        """TTL nodes and containers go."""
        for client in self.clients:
            client.send(wire.PING)
        self.machine.advance(2000)
        self.drop_closed()

    @rule(number=st.integers(0, 2), path=paths)
    def read(self, number: int, path: str) -> None:
        self.client(number).send(wire.GET_DATA, wire.path_watch(path))

    @invariant()
    def cached_replies_are_those_of_the_tree(self) -> None:
        tree = self.machine.tree
        for path, body in tree.response_cache.items():
            node = tree.nodes[path]
            assert tree.acls_of(node) == OPEN_ACL_UNSAFE
            assert body == wire.buffer(node.data) + tree.wire_stat(node)

    @invariant()
    def the_digest_is_that_of_the_tree(self) -> None:
        tree = self.machine.tree
        if self.machine.config.digest_enabled:
            assert tree.digest == tree_digest(tree.nodes)


class WithoutDigests(PrepMachine):
    """The same without digests, and with session ends that do not list their nodes."""

    settings = {**SETTINGS, "digest_enabled": False, "close_session_txn_enabled": False}


TestPrep = PrepMachine.TestCase
TestPrep.settings = settings(stateful_step_count=60)
TestWithoutDigests = WithoutDigests.TestCase
TestWithoutDigests.settings = settings(max_examples=15, stateful_step_count=60)


# ------------------------------------------------------------------ what pipelining must not break


def pipelined(machine: Machine, client: Client, *ops: Op) -> list[int]:
    """The codes of requests that are all sent before the first is durable."""
    for op, body in ops:
        client.send(op, body)
    machine.flush()
    codes = [reply.err for reply in client.replies()]
    assert_same(machine.tree, replay(machine.log))
    return codes


def test_writes_see_what_is_on_its_way(machine: Machine, client: Client) -> None:
    assert pipelined(
        machine,
        client,
        (wire.CREATE, wire.create("/a")),
        (wire.CREATE, wire.create("/a")),
        (wire.CREATE, wire.create("/a/b")),
        (wire.DELETE, wire.path_version("/a")),
        (wire.SET_DATA, wire.set_data("/a/b", b"1", 0)),
        (wire.SET_DATA, wire.set_data("/a/b", b"2", 0)),
        (wire.SET_DATA, wire.set_data("/a/b", b"2", 1)),
        (wire.DELETE, wire.path_version("/a/b", 1)),
        (wire.DELETE, wire.path_version("/a/b", 2)),
        (wire.DELETE, wire.path_version("/a", 0)),
        (wire.SET_DATA, wire.set_data("/a")),
        (wire.CREATE, wire.create("/a")),
    ) == [
        0, wire.NODE_EXISTS, 0, wire.NOT_EMPTY, 0, wire.BAD_VERSION, 0, wire.BAD_VERSION, 0, 0,
        wire.NO_NODE, 0,
    ]  # fmt: skip


def test_acls_on_their_way_count(machine: Machine, client: Client) -> None:
    assert pipelined(
        machine,
        client,
        (wire.CREATE, wire.create("/a")),
        (wire.SET_ACL, wire.set_acl("/a", READ_ONLY)),
        (wire.CREATE, wire.create("/a/b")),
        (wire.SET_DATA, wire.set_data("/a")),
        (wire.SET_ACL, wire.set_acl("/a", wire.OPEN_ACL, 0)),
        (wire.SET_ACL, wire.set_acl("/a", wire.OPEN_ACL, 1)),
        (wire.CREATE, wire.create("/a/b")),
    ) == [0, 0, wire.NO_AUTH, wire.NO_AUTH, wire.BAD_VERSION, 0, 0]


def test_sequence_numbers_count_what_is_on_its_way(machine: Machine, client: Client) -> None:
    for _ in range(3):
        client.send(wire.CREATE, wire.create("/n", flags=wire.SEQUENTIAL))
    client.send(wire.CREATE, wire.create("/missing/n", flags=wire.SEQUENTIAL))
    client.send(wire.CREATE, wire.create("/n", flags=wire.EPHEMERAL_SEQUENTIAL))
    client.send(wire.DELETE, wire.path_version("/n0000000001"))
    client.send(wire.CREATE, wire.create("/n", flags=wire.SEQUENTIAL))
    machine.flush()
    names = [r.value(wire.CREATE) for r in client.replies() if not r.err and r.body]
    assert names == [f"/n{number:010d}" for number in range(5)]


def test_a_session_ends_with_a_node_on_its_way(machine: Machine) -> None:
    client, other = machine.connect(), machine.connect()
    client.create("/e1", flags=wire.EPHEMERAL)
    client.create("/e2", flags=wire.EPHEMERAL)
    client.send(wire.CREATE, wire.create("/e3", flags=wire.EPHEMERAL))
    client.send(wire.DELETE, wire.path_version("/e1"))
    client.send(wire.CLOSE_SESSION)
    other.send(wire.CREATE, wire.create("/e3"))
    other.send(wire.CREATE, wire.create("/e1"))
    machine.flush()
    assert [reply.err for reply in other.replies()] == [0, 0]
    assert set(machine.tree.nodes) >= {"/e1", "/e3"}
    assert "/e2" not in machine.tree.nodes
    assert_same(machine.tree, replay(machine.log))


def test_a_failed_multi_is_as_if_it_had_not_been(machine: Machine, client: Client) -> None:
    client.create("/a", b"old")
    outstanding = machine.server.prep.outstanding
    client.send(wire.SET_DATA, wire.set_data("/a", b"1"))
    before = dict(outstanding.records), outstanding.digest
    client.send(
        wire.MULTI,
        wire.multi(
            [
                (wire.SET_DATA, wire.set_data("/a", b"2")),
                (wire.CREATE, wire.create("/a/b", flags=wire.SEQUENTIAL)),
                (wire.DELETE, wire.path_version("/a/b0000000000")),
                (wire.SET_DATA, wire.set_data("/a", b"3", 7)),
            ]
        ),
    )
    assert (outstanding.records, outstanding.digest) == before
    client.send(wire.CREATE, wire.create("/a/b", flags=wire.SEQUENTIAL))
    machine.flush()
    replies = client.replies()
    assert [result.err for result in replies[1].value(wire.MULTI)] == [0, 0, 0, wire.BAD_VERSION]
    assert replies[2].value(wire.CREATE) == "/a/b0000000000"
    assert_same(machine.tree, replay(machine.log))


def test_a_sequence_at_its_end(machine: Machine, client: Client) -> None:
    """2^31 - 1 is the last number; the counter stays there."""
    from zkpy.datatree.node import NODE_STAT

    client.create("/s")
    node = machine.tree.nodes["/s"]
    fields = list(NODE_STAT.unpack(node.stat))
    fields[6] = 0x7FFFFFFF
    node.stat = NODE_STAT.pack(*fields)
    pzxid = fields[2]
    names = []
    for _ in range(2):
        reply = client.call(wire.CREATE, wire.create("/s/n", flags=wire.SEQUENTIAL))
        names.append(reply.err or reply.value(wire.CREATE))
    assert names == ["/s/n2147483647", wire.NODE_EXISTS]
    assert client.value(wire.EXISTS, wire.path_watch("/s")).pzxid == pzxid


def test_versions_wrap(machine: Machine, client: Client) -> None:
    from zkpy.datatree.node import NODE_STAT

    client.create("/v")
    node = machine.tree.nodes["/v"]
    fields = list(NODE_STAT.unpack(node.stat))
    fields[5] = fields[7] = 0x7FFFFFFF
    node.stat = NODE_STAT.pack(*fields)
    assert client.value(wire.SET_DATA, wire.set_data("/v")).version == -0x80000000
    stat = client.value(wire.SET_ACL, wire.set_acl("/v", wire.OPEN_ACL))
    assert stat.aversion == -0x80000000
    assert client.code(wire.SET_DATA, wire.set_data("/v", b"", -0x80000000)) == 0
    check = wire.multi([(wire.CHECK, wire.path_version("/v", -0x7FFFFFFF))])
    assert client.value(wire.MULTI, check)[0].err == 0
