"""Requests and their replies, byte by byte, against Apache ZooKeeper and zkpy alike.

Sections 4 to 6 and vectors B.4 and B.6 of the client protocol reference. Every test works under a
node of its own, on servers that serve the whole module.
"""

from __future__ import annotations

import re
import struct
import time

import pytest
from tests.support import wire
from tests.support.oracle import Server
from tests.support.rawclient import Closed, RawClient, make, zxid_now
from tests.support.wire import (
    ADD_WATCH,
    BAD_ARGUMENTS,
    BAD_VERSION,
    CHECK,
    CHECK_WATCHES,
    CLOSE_SESSION,
    CREATE,
    CREATE2,
    CREATE_CONTAINER,
    CREATE_TTL,
    DELETE,
    EXISTS,
    GET_ACL,
    GET_ALL_CHILDREN_NUMBER,
    GET_CHILDREN,
    GET_CHILDREN2,
    GET_DATA,
    GET_EPHEMERALS,
    INVALID_ACL,
    MARSHALLING,
    MULTI,
    MULTI_END,
    MULTI_READ,
    NO_AUTH,
    NO_CHILDREN_FOR_EPHEMERALS,
    NO_NODE,
    NO_WATCHER,
    NODE_EXISTS,
    NOT_EMPTY,
    OPEN_ACL,
    READ,
    RECONFIG,
    RECONFIG_DISABLED,
    REMOVE_WATCHES,
    SET_ACL,
    SET_DATA,
    SET_WATCHES,
    SET_WATCHES2,
    SYNC,
    UNIMPLEMENTED,
    Acl,
)  # fmt: skip

pytestmark = pytest.mark.interop


# B.4: multi


def test_failed_multi(client: RawClient, base: str) -> None:
    reply = client.call(
        MULTI,
        wire.multi(
            [
                (CREATE, wire.create(f"{base}/a")),
                (DELETE, wire.path_version(f"{base}/zz")),
                (CREATE, wire.create(f"{base}/b")),
                (CHECK, wire.path_version(base)),
            ]
        ),
    )
    assert reply.err == 0
    assert reply.body == bytes.fromhex(
        "ffffffff 00 00000000 00000000  ffffffff 00 ffffff9b ffffff9b"
        "ffffffff 00 fffffffe fffffffe  ffffffff 00 fffffffe fffffffe  ffffffff 01 ffffffff"
    )
    assert client.value(GET_CHILDREN, wire.path_watch(base)) == []


def test_multi(client: RawClient, base: str) -> None:
    reply = client.call(
        MULTI,
        wire.multi(
            [
                (CREATE, wire.create(f"{base}/m")),
                (SET_DATA, wire.set_data(f"{base}/m", b"data")),
                (DELETE, wire.path_version(f"{base}/m")),
            ]
        ),
    )
    path = f"{base}/m".encode()
    created = bytes.fromhex("00000001 00 00000000") + wire.buffer(path)
    assert reply.body.startswith(created + bytes.fromhex("00000005 00 00000000"))
    rest = reply.body[len(created) + 9 :]
    stat = wire.Reader(rest).stat()
    assert (stat.version, stat.data_length, stat.mzxid) == (1, 4, reply.zxid)
    assert rest[68:] == bytes.fromhex("00000002 00 00000000") + MULTI_END


def test_empty_multi(client: RawClient) -> None:
    reply = client.call(MULTI, MULTI_END)
    assert (reply.err, reply.body) == (0, MULTI_END)


def test_multi_result_types(client: RawClient, base: str) -> None:
    """create2 and createContainer answer with type 15, and create with flags 4 does too."""
    operations = [
        (CREATE, wire.create(f"{base}/a")),
        (CREATE2, wire.create(f"{base}/b")),
        (CREATE_CONTAINER, wire.create(f"{base}/c", flags=wire.CONTAINER)),
        (CREATE, wire.create(f"{base}/d", flags=wire.CONTAINER)),
        (CREATE_TTL, wire.create_ttl(f"{base}/e", flags=0)),
        (CHECK, wire.path_version(f"{base}/a", 0)),
        (SET_DATA, wire.set_data(f"{base}/a", b"x", 0)),
        (DELETE, wire.path_version(f"{base}/a", 1)),
        (CREATE2, wire.create(f"{base}/s-", flags=wire.SEQUENTIAL)),
    ]
    results = client.value(MULTI, wire.multi(operations))
    assert [(result.type, result.err) for result in results] == [
        (1, 0),
        (15, 0),
        (15, 0),
        (15, 0),
        (1, 0),
        (13, 0),
        (5, 0),
        (2, 0),
        (15, 0),
    ]
    assert results[8].value[0] == f"{base}/s-0000000005"


@pytest.mark.parametrize(
    "operations",
    [
        [(SET_ACL, wire.set_acl("/", OPEN_ACL))],
        [(EXISTS, wire.path_watch("/"))],
        [(SYNC, wire.string("/"))],
        [(CLOSE_SESSION, b"")],
        [(CREATE, wire.create("/multi-x")), (GET_DATA, wire.path_watch("/"))],
        [(GET_DATA, wire.path_watch("/"))],
        [(CREATE, wire.create("/multi-x", flags=7))],
        [(CREATE, wire.create("/multi-x", flags=-1))],
        [(CREATE, wire.create("/multi-x", flags=5))],
        [(CREATE, wire.create("/multi-x", acl=None))],
        [(CREATE, wire.create(None))],
        [(DELETE, wire.path_version(None))],
        [(SET_DATA, wire.set_data(None))],
        [(CHECK, wire.path_version(None))],
    ],
    ids=str,
)
def test_multi_refused_as_a_whole(client: RawClient, operations: list[tuple[int, bytes]]) -> None:
    reply = client.call(MULTI, wire.multi(operations))
    assert (reply.err, reply.body) == (MARSHALLING, b"")
    assert client.call(EXISTS, wire.path_watch("/multi-x")).err == NO_NODE


NULL_ID: list[Acl] = [(31, "digest", None)]
PARTS: list[tuple[str, tuple[int, bytes], int, int]] = [
    # one part, the error of the whole (0: of the part), and the zxids consumed
    ("null ACL", (CREATE, wire.create("/q", acl=None)), MARSHALLING, 0),
    ("null ACL, TTL flags", (CREATE, wire.create("/q", flags=5, acl=None)), MARSHALLING, 0),
    ("null ACL, TTL flags 2", (CREATE2, wire.create("/q", flags=6, acl=None)), MARSHALLING, 0),
    ("null ACL, bad flags", (CREATE, wire.create("/q", flags=7, acl=None)), MARSHALLING, 1),
    ("null ACL, container", (CREATE_CONTAINER, wire.create("/q", acl=None)), MARSHALLING, 0),
    ("bad flags", (CREATE, wire.create("/q", flags=7)), MARSHALLING, 1),
    ("TTL flags", (CREATE, wire.create("/q", flags=5)), MARSHALLING, 1),
    ("null ACL, createTTL", (CREATE_TTL, wire.create_ttl("/q", flags=0, acl=None)), 0, 1),
    ("bad flags, createTTL", (CREATE_TTL, wire.create_ttl("/q", flags=7, acl=None)), 0, 1),
    ("null id", (CREATE, wire.create("/q", acl=NULL_ID)), MARSHALLING, 1),
    ("null id, create2", (CREATE2, wire.create("/q", acl=NULL_ID)), MARSHALLING, 1),
    ("null id, ip", (CREATE, wire.create("/q", acl=[(31, "ip", None)])), MARSHALLING, 1),
    ("null id, world", (CREATE, wire.create("/q", acl=[(31, "world", None)])), MARSHALLING, 1),
    ("null scheme", (CREATE, wire.create("/q", acl=[(31, None, "x")])), 0, 1),
]


@pytest.mark.parametrize(
    ("part", "err", "zxids"), [row[1:] for row in PARTS], ids=[row[0] for row in PARTS]
)
def test_which_faults_refuse_a_multi(
    client: RawClient, base: str, part: tuple[int, bytes], err: int, zxids: int
) -> None:
    """Some faults of one part are the whole request's, with or without a zxid."""
    before = zxid_now(client)
    reply = client.call(MULTI, wire.multi([(CREATE, wire.create(f"{base}/a")), part]))
    assert (reply.err, reply.zxid) == (err, before + zxids)
    if err:
        assert reply.body == b""
    else:
        codes = [result.value for result in reply.value(MULTI)]
        assert codes in ([0, INVALID_ACL], [0, BAD_ARGUMENTS])


def test_multi_sees_its_own_effects(client: RawClient, base: str) -> None:
    closed: list[Acl] = [(READ, "world", "anyone")]
    results = client.value(
        MULTI,
        wire.multi(
            [
                (CREATE, wire.create(f"{base}/p", acl=closed)),
                (CREATE, wire.create(f"{base}/p/c")),
            ]
        ),
    )
    assert [result.value for result in results] == [0, NO_AUTH]
    results = client.value(
        MULTI,
        wire.multi(
            [
                (CREATE, wire.create(f"{base}/e", flags=wire.EPHEMERAL)),
                (CREATE, wire.create(f"{base}/e/c")),
            ]
        ),
    )
    assert [result.value for result in results] == [0, NO_CHILDREN_FOR_EPHEMERALS]


def test_multi_with_data_and_children(client: RawClient, base: str) -> None:
    """15.1: counters and versions of a failed multi are as if it had never been."""
    make(client, f"{base}/a")
    failed = [
        (SET_DATA, wire.set_data(f"{base}/a", b"x")),
        (CREATE, wire.create(f"{base}/s-", flags=wire.SEQUENTIAL)),
        (DELETE, wire.path_version(f"{base}/nope")),
    ]
    results = client.value(MULTI, wire.multi(failed))
    assert [result.value for result in results] == [0, 0, NO_NODE]
    assert client.value(SET_DATA, wire.set_data(f"{base}/a", b"y", 0)).version == 1
    path = client.value(CREATE, wire.create(f"{base}/s-", flags=wire.SEQUENTIAL))
    assert path == f"{base}/s-0000000001"


def test_multi_read(client: RawClient, base: str) -> None:
    make(client, f"{base}/a")
    operations = [
        (GET_DATA, wire.path_watch(f"{base}/a", True)),
        (GET_DATA, wire.path_watch(f"{base}/nope", True)),
        (wire.GET_CHILDREN, wire.path_watch(base, True)),
    ]
    results = client.value(MULTI_READ, wire.multi(operations))
    assert [(result.type, result.err) for result in results] == [(4, 0), (-1, NO_NODE), (8, 0)]
    assert results[1].value == NO_NODE
    assert results[2].value == ["a"]
    client.value(SET_DATA, wire.set_data(f"{base}/a"))
    assert client.events == [], "the watch flags of a multiRead are ignored"


# B.6 and sections 4 and 5: error codes

CODES: list[tuple[int, bytes, int]] = [
    (CREATE, wire.create("foo"), BAD_ARGUMENTS),
    (CREATE, wire.create(""), BAD_ARGUMENTS),
    (CREATE, wire.create("//a"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/."), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/.."), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/a\0b"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\x1f"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\x7f"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\u009f"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\uf8ff"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\ufff0"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/\U0001f600"), BAD_ARGUMENTS),
    (CREATE, wire.create(b"{base}/\xff"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/ok \u00a0\uf900\\*:..."), 0),
    (CREATE, wire.create("{base}/.a"), 0),
    (CREATE, wire.create("{base}/a."), 0),
    (CREATE, wire.create("{base}/\u00fc\u20ac"), 0),
    (CREATE, wire.create(None), MARSHALLING),
    (CREATE, wire.create("/"), NODE_EXISTS),
    (CREATE, wire.create("/zz/"), NO_NODE),
    (CREATE, wire.create("{base}/"), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/", flags=wire.SEQUENTIAL), 0),
    (CREATE, wire.create("/zz/a"), NO_NODE),
    (CREATE, wire.create("/zz/a", acl=[]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=None), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "auth", None)]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "auth", "")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, None, "x")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "world", None)]), MARSHALLING),
    (CREATE, wire.create("{base}/q", acl=[(31, "world", "me")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "super", "x")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "sasl", "x")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "digest", None)]), MARSHALLING),
    (CREATE, wire.create("{base}/q", acl=[(31, "digest", "a")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "digest", "a:")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "digest", "a:b:c")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q1", acl=[(31, "digest", "a:b")]), 0),
    (CREATE, wire.create("{base}/q2", acl=[(31, "digest", ":b")]), 0),
    (CREATE, wire.create("{base}/q3", acl=[(31, "digest", "a:b:")]), 0),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", None)]), MARSHALLING),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "localhost")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "1.2.3")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "1.2.3.256")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "1.2.3.4/33")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "1.2.3.4/")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "1.2.3.4/8/8")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "::ffff:1.2.3.4")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "fe80::1%eth0")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q", acl=[(31, "ip", "::1/129")]), INVALID_ACL),
    (CREATE, wire.create("{base}/q4", acl=[(31, "ip", "1.2.3.4/0")]), 0),
    (CREATE, wire.create("{base}/q5", acl=[(31, "ip", "::1/128")]), 0),
    (CREATE, wire.create("{base}/q6", acl=[(31, "ip", "1:2:3:4:5:6:7:8")]), 0),
    (CREATE, wire.create("{base}/f", flags=7), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/f", flags=-1), BAD_ARGUMENTS),
    (CREATE, wire.create("{base}/f", flags=5), UNIMPLEMENTED),
    (CREATE2, wire.create("{base}/f", flags=6), UNIMPLEMENTED),
    (CREATE_TTL, wire.create_ttl("{base}/f"), UNIMPLEMENTED),
    (CREATE_TTL, wire.create_ttl("{base}/f", flags=0), BAD_ARGUMENTS),
    (DELETE, wire.path_version("/"), BAD_ARGUMENTS),
    (DELETE, wire.path_version("/zookeeper"), BAD_ARGUMENTS),
    (DELETE, wire.path_version("/zookeeper/quota"), BAD_ARGUMENTS),
    (DELETE, wire.path_version("/zookeeper/config"), BAD_ARGUMENTS),
    (DELETE, wire.path_version(None), MARSHALLING),
    (DELETE, wire.path_version("nope"), BAD_ARGUMENTS),
    (DELETE, wire.path_version("/a\0"), BAD_ARGUMENTS),
    (DELETE, wire.path_version("{base}/zz/"), NO_NODE),
    (DELETE, wire.path_version("/zz/zz"), NO_NODE),
    (DELETE, wire.path_version("{base}/zz"), NO_NODE),
    (DELETE, wire.path_version("{base}", 7), BAD_VERSION),
    (DELETE, wire.path_version("{base}"), NOT_EMPTY),
    (SET_DATA, wire.set_data("/zookeeper/config"), NO_AUTH),
    (SET_DATA, wire.set_data("/"), 0),
    (SET_DATA, wire.set_data(""), BAD_ARGUMENTS),
    (SET_DATA, wire.set_data(None), BAD_ARGUMENTS),
    (SET_DATA, wire.set_data("{base}/"), BAD_ARGUMENTS),
    (SET_DATA, wire.set_data("/zz"), NO_NODE),
    (SET_DATA, wire.set_data("{base}", b"", 3), BAD_VERSION),
    (SET_DATA, wire.set_data("{base}", None), 0),
    (SET_DATA, wire.set_data("{base}", b"", -2), BAD_VERSION),
    (SET_ACL, wire.set_acl(None, OPEN_ACL), BAD_ARGUMENTS),
    (SET_ACL, wire.set_acl("zz", OPEN_ACL), BAD_ARGUMENTS),
    (SET_ACL, wire.set_acl("zz", None), BAD_ARGUMENTS),
    (SET_ACL, wire.set_acl("/zz", None), INVALID_ACL),
    (SET_ACL, wire.set_acl("/zz", OPEN_ACL), NO_NODE),
    (SET_ACL, wire.set_acl("{base}", OPEN_ACL, 3), BAD_VERSION),
    (SET_ACL, wire.set_acl("/zookeeper/config", OPEN_ACL), NO_AUTH),
    (EXISTS, wire.path_watch(None), MARSHALLING),
    (EXISTS, wire.path_watch("/zz"), NO_NODE),
    (EXISTS, wire.path_watch("zz"), NO_NODE),
    (EXISTS, wire.path_watch("{base}/"), NO_NODE),
    (EXISTS, wire.path_watch("/a\0"), BAD_ARGUMENTS),
    (GET_DATA, wire.path_watch("/a\0"), NO_NODE),
    (GET_DATA, wire.path_watch(None), MARSHALLING),
    (GET_DATA, wire.path_watch("zz"), NO_NODE),
    (GET_CHILDREN, wire.path_watch(None), MARSHALLING),
    (GET_CHILDREN, wire.path_watch("/zz"), NO_NODE),
    (GET_CHILDREN2, wire.path_watch(None), MARSHALLING),
    (GET_CHILDREN2, wire.path_watch("//"), NO_NODE),
    (GET_ACL, wire.string(None), MARSHALLING),
    (GET_ACL, wire.string("/zz"), NO_NODE),
    (GET_ALL_CHILDREN_NUMBER, wire.string(None), MARSHALLING),
    (GET_ALL_CHILDREN_NUMBER, wire.string("/zz"), NO_NODE),
    (GET_EPHEMERALS, wire.string(None), 0),
    (SYNC, wire.string("zz"), 0),
    (SYNC, wire.string(None), 0),
    (RECONFIG, wire.reconfig("server.1=x", None, None), RECONFIG_DISABLED),
    (ADD_WATCH, wire.path_type("{base}", 2), MARSHALLING),
    (ADD_WATCH, wire.path_type("{base}", -1), MARSHALLING),
    (REMOVE_WATCHES, wire.path_type("{base}", 3), NO_WATCHER),
    (REMOVE_WATCHES, wire.path_type("{base}", 1), NO_WATCHER),
    (REMOVE_WATCHES, wire.path_type("{base}", 0), MARSHALLING),
    (REMOVE_WATCHES, wire.path_type("{base}", 6), MARSHALLING),
    (CHECK_WATCHES, wire.path_type("{base}", 2), NO_WATCHER),
    (CHECK_WATCHES, wire.path_type("{base}", 9), MARSHALLING),
    (SET_WATCHES, wire.set_watches(0, None, [], []), MARSHALLING),
    (SET_WATCHES2, wire.set_watches(0, [], [], [], [], None), MARSHALLING),
    (MULTI_READ, MULTI_END, 0),
]


def test_error_codes(client: RawClient, base: str) -> None:
    """B.6 and the orders of checks of section 4, one after another on one node."""
    make(client, f"{base}/child")
    name = base.encode()
    found = []
    expected = []
    for op, body, err in CODES:
        # A path begins with its length: the place holder is replaced together with it.
        at = body.find(b"{base}")
        if at >= 0:
            length = struct.unpack_from(">i", body, at - 4)[0] + len(name) - len(b"{base}")
            body = body[: at - 4] + wire.int32(length) + name + body[at + len(b"{base}") :]
        reply = client.call(op, body)
        found.append((wire.OP_NAMES[op], body, reply.err))
        expected.append((wire.OP_NAMES[op], body, err))
        assert reply.err == 0 or reply.body == b"", "errors are header-only"
    assert found == expected


def test_null_paths_of_watches(client: RawClient) -> None:
    """addWatch takes any path, null too; then the others find or miss it as any other."""
    for op, body, err in [
        (CHECK_WATCHES, wire.path_type(None, 3), NO_WATCHER),
        (ADD_WATCH, wire.path_type(None, 0), 0),
        (CHECK_WATCHES, wire.path_type(None, 4), 0),
        (REMOVE_WATCHES, wire.path_type(None, 3), 0),
        (REMOVE_WATCHES, wire.path_type(None, 3), NO_WATCHER),
        (SET_WATCHES, wire.set_watches(0, [None], [], []), MARSHALLING),
        (SET_WATCHES, wire.set_watches(0, [], [None], []), MARSHALLING),
        (SET_WATCHES2, wire.set_watches(0, [], [], [], [None], [None]), 0),
    ]:
        assert (op, client.call(op, body).err) == (op, err)


def test_root_sequential(client: RawClient) -> None:
    """ "/" with a sequential flag is "/" and digits."""
    path = client.value(CREATE, wire.create("/", flags=wire.SEQUENTIAL))
    assert re.fullmatch(r"/\d{10}", path)
    client.value(DELETE, wire.path_version(path))


def test_system_nodes(server: Server, client: RawClient) -> None:
    """5.4 and the Stat of B.3, as far as other tests of the module leave them alone."""
    for path, acl, cversion, aversion, children in [
        ("/zookeeper", OPEN_ACL, -2, 0, 2),
        ("/zookeeper/quota", OPEN_ACL, 0, 0, 0),
        ("/zookeeper/config", [(READ, "world", "anyone")], 0, -1, 0),
    ]:
        data, stat = client.value(GET_DATA, wire.path_watch(path))
        assert data == b""
        assert stat == wire.Stat(0, 0, 0, 0, 0, cversion, aversion, 0, 0, children, 0)
        assert client.value(GET_ACL, wire.string(path)) == (acl, stat)
    names, _ = client.value(GET_CHILDREN2, wire.path_watch("/zookeeper"))
    assert sorted(names) == ["config", "quota"]


# Section 5.2, 6: sequential names and Stat


def test_sequential_names(client: RawClient, base: str) -> None:
    """The counter counts every child ever created, whatever its prefix, and never goes back."""

    def create(name: str, flags: int = wire.SEQUENTIAL) -> str:
        return str(client.value(CREATE, wire.create(f"{base}/{name}", flags=flags)))

    assert create("a-") == f"{base}/a-0000000000"
    assert create("plain", flags=0) == f"{base}/plain"
    assert create("b-") == f"{base}/b-0000000002"
    client.value(DELETE, wire.path_version(f"{base}/b-0000000002"))
    assert client.call(CREATE, wire.create(f"{base}/plain")).err == NODE_EXISTS
    assert create("") == f"{base}/0000000003"
    assert create("e", wire.EPHEMERAL_SEQUENTIAL) == f"{base}/e0000000004"


def test_pipelined_sequential_names(client: RawClient, base: str) -> None:
    xids = [
        client.send(CREATE, wire.create(f"{base}/n", flags=wire.SEQUENTIAL)) for _ in range(200)
    ]
    replies = [client.recv() for _ in xids]
    assert [reply.xid for reply in replies] == xids
    assert [reply.value(CREATE) for reply in replies] == [
        f"{base}/n{number:010d}" for number in range(200)
    ]
    first = replies[0].zxid
    assert [reply.zxid for reply in replies] == list(range(first, first + 200))


def test_stat_of_parent_and_child(client: RawClient, base: str) -> None:
    _, before = client.value(GET_DATA, wire.path_watch(base))
    reply = client.call(CREATE2, wire.create(f"{base}/c", b"12345"))
    path, child = reply.value(CREATE2)
    zxid = reply.zxid
    now_ms = time.time() * 1000
    assert path == f"{base}/c"
    assert child == wire.Stat(zxid, zxid, child.ctime, child.ctime, 0, 0, 0, 0, 5, 0, zxid)
    assert abs(child.ctime - now_ms) < 60_000
    _, parent = client.value(GET_CHILDREN2, wire.path_watch(base))
    assert parent == before._replace(cversion=1, num_children=1, pzxid=zxid)

    reply = client.call(SET_DATA, wire.set_data(f"{base}/c", b"1"))
    changed = reply.value(SET_DATA)
    assert changed == child._replace(
        mzxid=reply.zxid, mtime=changed.mtime, version=1, data_length=1
    )
    assert client.value(EXISTS, wire.path_watch(base)) == parent

    stat = client.value(SET_ACL, wire.set_acl(f"{base}/c", OPEN_ACL))
    assert stat == changed._replace(aversion=1)

    reply = client.call(DELETE, wire.path_version(f"{base}/c", 1))
    assert (reply.err, reply.body) == (0, b"")
    _, parent = client.value(GET_CHILDREN2, wire.path_watch(base))
    assert parent == before._replace(cversion=2, num_children=0, pzxid=reply.zxid)


def test_null_and_empty_data(client: RawClient, base: str) -> None:
    for data in (None, b"", b"x"):
        client.value(SET_DATA, wire.set_data(base, data))
        found, stat = client.value(GET_DATA, wire.path_watch(base))
        assert found == data
        assert stat.data_length == len(data or b"")


@pytest.mark.parametrize(
    ("op", "flags", "ephemeral"),
    [
        (CREATE2, 0, False),
        (CREATE2, 1, True),
        (CREATE2, 2, False),
        (CREATE2, 3, True),
        (CREATE2, 4, False),
        (CREATE_CONTAINER, 0, False),
        (CREATE_CONTAINER, 1, False),
        (CREATE_CONTAINER, 2, False),
        (CREATE_CONTAINER, 3, False),
        (CREATE_CONTAINER, 4, False),
    ],
)
def test_owner_and_children_by_mode(
    client: RawClient, base: str, op: int, flags: int, ephemeral: bool
) -> None:
    path, stat = client.value(op, wire.create(f"{base}/n", flags=flags))
    assert path == f"{base}/n" + ("0000000000" if flags in (2, 3) else "")
    assert client.session is not None
    assert stat.ephemeral_owner == (client.session.session_id if ephemeral else 0)
    reply = client.call(CREATE, wire.create(f"{path}/c"))
    assert reply.err == (NO_CHILDREN_FOR_EPHEMERALS if ephemeral else 0)


def test_ephemerals(client: RawClient, other: RawClient, base: str) -> None:
    make(client, f"{base}/a", f"{base}/b", flags=wire.EPHEMERAL)
    make(other, f"{base}/c", flags=wire.EPHEMERAL)
    for prefix, expected in [
        (base, [f"{base}/a", f"{base}/b"]),
        (f"{base}/b", [f"{base}/b"]),
        (base[:-1], [f"{base}/a", f"{base}/b"]),
        ("/nope", []),
        ("/", [f"{base}/a", f"{base}/b"]),
        ("", [f"{base}/a", f"{base}/b"]),
        (None, [f"{base}/a", f"{base}/b"]),
    ]:
        assert sorted(client.value(GET_EPHEMERALS, wire.string(prefix))) == expected
    client.call(CLOSE_SESSION)
    assert other.value(GET_CHILDREN, wire.path_watch(base)) == ["c"]
    client.close()


def test_all_children_number(client: RawClient, base: str) -> None:
    make(client, f"{base}/a", f"{base}/a/b", f"{base}/c", f"{base}x")
    assert client.value(GET_ALL_CHILDREN_NUMBER, wire.string(base)) == 3
    assert client.value(GET_ALL_CHILDREN_NUMBER, wire.string(f"{base}/c")) == 0


def test_quota_usage(client: RawClient, base: str) -> None:
    """10.3: the stats node holds what is below `base`, in place: its Stat stays."""
    node = f"/zookeeper/quota{base}"
    limits, stats = f"{node}/zookeeper_limits", f"{node}/zookeeper_stats"

    def usage() -> bytes | None:
        data, stat = client.value(GET_DATA, wire.path_watch(stats))
        assert (stat.version, stat.mzxid, stat.data_length) == (0, stat.czxid, len(data))
        return data  # type: ignore[no-any-return]

    client.value(SET_DATA, wire.set_data(base, b"12345"))
    make(client, node)
    client.value(CREATE, wire.create(limits, b"count=3,bytes=10"))
    client.value(CREATE, wire.create(stats, b"count=-1,bytes=-1"))
    assert usage() == b"count=1,bytes=5"
    client.value(CREATE, wire.create(f"{base}/a", b"67"))
    assert usage() == b"count=2,bytes=7"
    client.value(SET_DATA, wire.set_data(f"{base}/a", b"6"))
    assert usage() == b"count=2,bytes=6"
    client.value(DELETE, wire.path_version(f"{base}/a"))
    assert usage() == b"count=1,bytes=5"
    # What happens while there are no limits is not counted, and is missed for good: the usage
    # becomes too small, even negative, and stays so until the stats node is made again.
    client.value(DELETE, wire.path_version(limits))
    client.value(SET_DATA, wire.set_data(base, b"123456789"))
    client.value(CREATE, wire.create(limits, b"count=3,bytes=10"))
    client.value(SET_DATA, wire.set_data(base, b""))
    assert usage() == b"count=1,bytes=-4"
    client.value(SET_DATA, wire.set_data(base, b"1"))
    assert usage() == b"count=1,bytes=-3"


def test_sync_echoes_the_path(client: RawClient) -> None:
    for path in ("/", "/nope", "bad", "", None):
        assert client.value(SYNC, wire.string(path)) == path


# Sections 1.2 and 13: sizes


def test_largest_frame(client: RawClient, base: str) -> None:
    """Exactly jute.maxbuffer bytes are fine, also when the answer is longer than that."""
    overhead = 8 + len(wire.set_data(base, b""))
    data = bytes(0xFFFFF - overhead)
    client.value(SET_DATA, wire.set_data(base, data))
    found, stat = client.value(GET_DATA, wire.path_watch(base))
    assert found == data
    assert stat.data_length == len(data)
    client.value(SET_DATA, wire.set_data(base, b""))
    client.send(SET_DATA, wire.set_data(base, data + b"x"))
    with pytest.raises(Closed):
        client.recv()
    client.close()


def test_many_bytes_in_one_write(client: RawClient, base: str) -> None:
    """A thousand frames in one segment train, answered in order."""
    client.send_raw(
        b"".join(
            wire.buffer(struct.pack(">ii", xid, EXISTS) + wire.path_watch(base))
            for xid in range(1, 1001)
        )
    )
    assert [client.recv().xid for _ in range(1000)] == list(range(1, 1001))
