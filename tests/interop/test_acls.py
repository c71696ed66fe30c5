"""Authentication and ACLs, against Apache ZooKeeper and zkpy alike.

Section 9 and vector B.5 of the client protocol reference.
"""

from __future__ import annotations

import struct

import pytest
from tests.support import wire
from tests.support.oracle import Server
from tests.support.rawclient import RawClient, digest_id, make, open_session
from tests.support.wire import (
    ALL,
    AUTH,
    AUTH_FAILED,
    CREATE,
    DELETE,
    EXISTS,
    GET_ACL,
    GET_ALL_CHILDREN_NUMBER,
    GET_CHILDREN,
    GET_DATA,
    NO_AUTH,
    READ,
    SET_ACL,
    SET_DATA,
    WHO_AM_I,
    Acl,
)  # fmt: skip

pytestmark = pytest.mark.interop


# Section 9: authentication and ACLs


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("bob:pw", "bob:ikIaKsbtGweaHnb/jKn7OHqbunM="),
        ("user:pass:word", "user:yNMcEO4y6Bgll487yEAxpvnMYoo="),
        ("foo", "foo:C+7Hteo/D9vJXQ3UfzxbwnXaijM="),
        ("super:test", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
    ],
)
def test_digest_vectors(client: RawClient, base: str, credential: str, expected: str) -> None:
    """B.5, and `auth` expands to exactly this id."""
    assert digest_id(credential) == expected
    reply = client.call(AUTH, wire.auth("digest", credential.encode()))
    assert (reply.xid, reply.zxid, reply.err, reply.body) == (-4, 0, 0, b"")
    client.value(CREATE, wire.create(f"{base}/a", acl=[(ALL, "auth", None)]))
    acl, _ = client.value(GET_ACL, wire.string(f"{base}/a"))
    assert acl == [(ALL, "digest", expected)]
    user = expected.split(":")[0]
    assert sorted(client.value(WHO_AM_I)) == [("digest", user), ("ip", "127.0.0.1")]


def test_auth_echoes_a_positive_xid(client: RawClient) -> None:
    """15.1.5"""
    assert client.call(AUTH, wire.auth("digest", b"a:b"), xid=42).err == 0
    assert client.call(AUTH, wire.auth("ip", b"whatever"), xid=-4).err == 0


@pytest.mark.parametrize(
    ("scheme", "credential"),
    [
        ("nope", b"x"),
        ("world", b"anyone"),
        ("super", b"x"),
        ("sasl", b"x"),
        ("x509", b"x"),
        ("", b"x"),
        (None, b"x"),
        ("digest", None),
    ],
)
def test_auth_failure(server: Server, scheme: str | None, credential: bytes | None) -> None:
    """B.3: -115 with zxid 0, then close."""
    with open_session(server.address) as client:
        client.send(AUTH, wire.auth(scheme, credential))
        assert client.recv_frame() == struct.pack(">iqi", -4, 0, AUTH_FAILED)
        client.expect_close()


def test_acl_permissions(client: RawClient, other: RawClient, base: str) -> None:
    """9.1: which bit guards what, and on which node."""
    other.call(AUTH, wire.auth("digest", b"bob:pw"))
    bob = digest_id("bob:pw")
    for perms in range(32):
        path = f"{base}/p{perms}"
        client.value(CREATE, wire.create(path))
        make(client, f"{path}/c", f"{path}/d")
        client.value(
            SET_ACL, wire.set_acl(path, [(perms, "world", "anyone"), (ALL, "digest", bob)])
        )

        def allowed(op: int, body: bytes) -> bool:
            reply = client.call(op, body)
            assert reply.err in (0, NO_AUTH)
            return reply.err == 0

        found = (
            (allowed(GET_DATA, wire.path_watch(path)), allowed(EXISTS, wire.path_watch(path))),
            (
                allowed(GET_CHILDREN, wire.path_watch(path)),
                allowed(GET_ALL_CHILDREN_NUMBER, wire.string(path)),
            ),
            allowed(SET_DATA, wire.set_data(path)),
            allowed(CREATE, wire.create(f"{path}/new")),
            allowed(DELETE, wire.path_version(f"{path}/c")),
            allowed(GET_ACL, wire.string(path)),
            allowed(SET_ACL, wire.set_acl(path, [(perms, "world", "anyone")])),
        )
        read, write, create, delete, admin = (bool(perms & bit) for bit in (1, 2, 4, 8, 16))
        assert found == (
            (read, read),
            (read, read),
            write,
            create,
            delete,
            read or admin,
            admin,
        ), perms
        assert allowed(GET_DATA, wire.path_watch(f"{path}/d")), "ACLs are not inherited"


def test_acl_masking(client: RawClient, other: RawClient, base: str) -> None:
    """9.7: without ADMIN the digests are masked."""
    bob = digest_id("bob:pw")
    acl: list[Acl] = [(READ, "world", "anyone"), (ALL, "digest", bob), (ALL, "ip", "10.0.0.1")]
    client.value(CREATE, wire.create(f"{base}/a", acl=acl))
    assert client.value(GET_ACL, wire.string(f"{base}/a"))[0] == [
        (READ, "world", "anyone"),
        (ALL, "digest", "bob:x"),
        (ALL, "ip", "10.0.0.1"),
    ]
    other.call(AUTH, wire.auth("digest", b"bob:pw"))
    assert other.value(GET_ACL, wire.string(f"{base}/a"))[0] == acl


@pytest.mark.parametrize(
    ("acl", "stored"),
    [
        ([(31, "world", "anyone"), (31, "world", "anyone")], [(31, "world", "anyone")]),
        ([(1, "world", "anyone"), (2, "world", "anyone")], None),
        ([(0x7FFFFFFF, "world", "anyone")], None),
        ([(-1, "world", "anyone")], None),
        ([(31, "ip", "127.0.0.1"), (1, "world", "anyone")], None),
        ([(31, "ip", "127.0.0.0/8")], None),
    ],
)
def test_stored_acls(
    client: RawClient, base: str, acl: list[Acl], stored: list[Acl] | None
) -> None:
    client.value(CREATE, wire.create(f"{base}/a", acl=acl))
    assert client.value(GET_ACL, wire.string(f"{base}/a"))[0] == (stored or acl)


@pytest.mark.parametrize(
    ("acl_id", "matches"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("127.0.0.0/8", True),
        ("127.0.0.2/30", True),
        ("127.0.0.4/30", False),
        ("0.0.0.0/0", True),
        ("::1", False),
        ("::/0", False),
    ],
)
def test_ip_acl(client: RawClient, base: str, acl_id: str, matches: bool) -> None:
    client.value(CREATE, wire.create(f"{base}/a", acl=[(READ, "ip", acl_id)]))
    reply = client.call(GET_DATA, wire.path_watch(f"{base}/a"))
    assert reply.err == (0 if matches else NO_AUTH)
