"""zkpy.client against zkpy's server and Apache ZooKeeper, as processes, over TCP and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.interop.conftest import StartServer, node_numbers
from tests.support.oracle import PROJECT, Server, free_port

from zkpy.client import (
    ACL,
    Check,
    ConnectionLoss,
    Create,
    CreateMode,
    Delete,
    GetChildren,
    GetData,
    KeeperError,
    MultiFailed,
    Perms,
    SetData,
    States,
    WatchedEvent,
    ZooKeeper,
)
from zkpy.protocol.errors import AuthFailed, NoAuth, NoNode, NoWatcher, SessionExpired

pytestmark = pytest.mark.interop

SERVER_CONFIG = {"extendedTypesEnabled": "true"}
LIMIT_S = 30.0
TLS = PROJECT / "tests" / "golden" / "tls"


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await coroutine

    asyncio.run(limited())


def client(server: Server, **options: Any) -> ZooKeeper:
    options.setdefault("session_timeout_ms", 5000)
    return ZooKeeper(server.hosts, **options)


@pytest.fixture
def base(server: Server) -> str:
    path = f"/client{next(node_numbers)}"

    async def make() -> None:
        async with client(server) as zk:
            await zk.create(path)

    run(make())
    return path


def test_every_operation(server: Server, base: str) -> None:
    async def use() -> None:
        async with client(server, chroot=base) as zk:
            assert await zk.create("/a", b"1") == "/a"
            path, created = await zk.create2("/a/b", None)
            assert path == "/a/b"
            assert created.ephemeralOwner == 0
            assert await zk.exists("/a/b") == created
            assert (await zk.get_data("/a/b"))[0] is None
            stat = await zk.set_data("/a", b"22", 0)
            assert await zk.get_data("/a") == (b"22", stat)
            assert await zk.get_children("/a") == ["b"]
            assert await zk.get_children2("/a") == (["b"], stat)
            mode = CreateMode.EPHEMERAL_SEQUENTIAL
            ephemeral = await zk.create("/e-", mode=mode)
            assert ephemeral == "/e-0000000001"
            assert await zk.get_ephemerals() == [ephemeral]
            await zk.create("/c", mode=CreateMode.CONTAINER)
            await zk.create("/t", mode=CreateMode.PERSISTENT_WITH_TTL, ttl_ms=100_000)
            assert await zk.get_all_children_number("/") == 5
            assert await zk.sync("/a") == "/a"
            acl = (ACL(Perms.ALL, "world", "anyone"), ACL(Perms.READ, "ip", "127.0.0.1"))
            assert (await zk.set_acl("/a", acl, 0)).aversion == 1
            assert (await zk.get_acl("/a"))[0] == acl
            assert ("ip", "127.0.0.1") in await zk.who_am_i()
            assert (await zk.get_config())[0] == b""
            with pytest.raises(KeeperError):
                await zk.reconfig(leaving="1")
            await zk.delete("/a/b")
            with pytest.raises(NoNode):
                await zk.delete("/a/b")

    run(use())


def test_multi(server: Server, base: str) -> None:
    async def use() -> None:
        async with client(server, chroot=base) as zk:
            results = await zk.multi(
                [
                    Create("/m", b"1"),
                    Create("/m/c", mode=CreateMode.CONTAINER),
                    Create("/m/s-", mode=CreateMode.PERSISTENT_SEQUENTIAL),
                    Create("/m/t", mode=CreateMode.PERSISTENT_WITH_TTL, ttl_ms=100_000),
                    SetData("/m", b"2", 0),
                    Check("/m", 1),
                    Delete("/m/c"),
                ]
            )
            assert results[:4] == ["/m", "/m/c", "/m/s-0000000001", "/m/t"]
            assert results[4].version == 1
            assert results[5:] == [None, None]
            with pytest.raises(NoNode) as caught:
                await zk.multi([Create("/n"), Delete("/none"), Check("/m")])
            assert isinstance(caught.value, MultiFailed)
            assert [error and error.code for error in caught.value.results] == [None, -101, -2]
            reads = await zk.multi_read([GetData("/m"), GetData("/none"), GetChildren("/m")])
            assert reads[0] == await zk.get_data("/m")
            assert isinstance(reads[1], NoNode)
            assert sorted(reads[2]) == ["s-0000000001", "t"]
            assert await zk.multi([]) == []

    run(use())


def test_watches(server: Server, base: str) -> None:
    async def use() -> None:
        told: list[str] = []

        def watcher(event: WatchedEvent) -> None:
            if event.path is not None:
                told.append(f"{event.type_name} {event.path}")

        async with client(server, chroot=base) as zk:
            await zk.exists("/a", watch=watcher)
            _, zxid = await zk.create("/a", b"0"), zk.last_zxid
            await zk.get_data("/a", watch=watcher)
            await zk.get_children("/a", watch=watcher)
            await zk.set_data("/a", b"1")
            await zk.create("/a/b")
            assert told == ["NodeCreated /a", "NodeDataChanged /a", "NodeChildrenChanged /a"]
            told.clear()
            async with zk.watch("/") as events:
                await zk.set_data("/a/b", b"")
                event = await anext(events)
                assert (event.path, event.zxid) == ("/a/b", zxid + 3)
            await zk.get_data("/a", watch=watcher)
            await zk.remove_watches("/a", watcher)
            assert told == ["DataWatchRemoved /a"]
            with pytest.raises(NoWatcher):
                await zk.remove_watches("/a", watcher)

    run(use())


def test_authentication(server: Server, base: str) -> None:
    async def use() -> None:
        async with client(server, chroot=base, auth=[("digest", b"bob:pw")]) as zk:
            await zk.create("/mine", acl=[ACL(Perms.ALL, "auth", "")])
            await zk.add_auth("digest", b"ann:pw")
            users = {user for scheme, user in await zk.who_am_i() if scheme == "digest"}
            assert users == {"ann", "bob"}
        async with client(server, chroot=base) as zk:
            with pytest.raises(NoAuth):
                await zk.get_data("/mine")
            with pytest.raises(AuthFailed):
                await zk.add_auth("nonsense", b"")
            assert zk.state == States.AUTH_FAILED

    run(use())


def test_a_restart_of_the_server(server: Server, base: str) -> None:
    """The session goes on, with its watches and identity, and what changed meanwhile is told."""

    async def use() -> None:
        told: list[str] = []

        def watcher(event: WatchedEvent) -> None:
            told.append(f"{event.state_name} {event.type_name} {event.path}")

        options = {"chroot": base, "auth": [("digest", b"bob:pw")], "session_timeout_ms": 20_000}
        async with client(server, **options) as zk:
            session_id = zk.session_id
            await zk.create("/e", mode=CreateMode.EPHEMERAL)
            await zk.create("/a", b"0", acl=[ACL(Perms.ALL, "auth", "")])
            await zk.get_data("/a", watch=watcher)
            await zk.add_watch("/", watcher)
            server.kill()
            with pytest.raises(ConnectionLoss):
                await zk.get_data("/a")
                await zk.get_data("/a")
            await asyncio.to_thread(server.start)
            await zk.connect()
            assert zk.session_id == session_id
            await zk.set_data("/a", b"1")
            assert await zk.get_ephemerals() == ["/e"]
        assert told[:3] == [
            "Disconnected None None",
            "SyncConnected None None",
            "SyncConnected NodeDataChanged /a",
        ]

    run(use())


def test_a_session_that_another_client_has_closed(server: Server) -> None:
    async def use() -> None:
        first = await client(server).connect()
        session = (first.session_id, first.session_password)
        second = await client(server, session=session).connect()
        await second.close()
        with pytest.raises(SessionExpired):
            await first.wait_for(States.CLOSED)
        assert first.state == States.EXPIRED
        await first.close()

    run(use())


def test_many_requests_at_once(server: Server, base: str) -> None:
    async def use() -> None:
        async with client(server, chroot=base) as zk:
            await asyncio.gather(*(zk.create(f"/n{number}") for number in range(500)))
            assert len(await zk.get_children("/")) == 500
            big = bytes(900_000)
            await zk.set_data("/", big)
            assert (await zk.get_data("/"))[0] == big

    run(use())


def test_a_port_that_speaks_something_else() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        writer.close()

    async def use() -> None:
        listener = await asyncio.start_server(greet, "127.0.0.1", 0)
        host, port = listener.sockets[0].getsockname()
        zk = ZooKeeper(f"{host}:{port}")
        with pytest.raises(ConnectionLoss, match="not a ZooKeeper server"):
            await zk.exists("/")
        await zk.close()
        listener.close()
        await listener.wait_closed()
        zk = ZooKeeper(f"localhost:{port}")
        with pytest.raises(ConnectionLoss, match=f"localhost:{port}: Connection refused"):
            await zk.exists("/")
        await zk.close()

    run(use())


def test_tls(start_server: StartServer) -> None:
    port = free_port()
    start_server(
        "apache",
        {
            "secureClientPort": port,
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "ssl.keyStore.location": TLS / "server.jks",
            "ssl.keyStore.password": "password",
            "ssl.trustStore.location": TLS / "trust.jks",
            "ssl.trustStore.password": "password",
        },
    )
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    context.load_cert_chain(TLS / "server.pem")  # the server asks for one, and knows this one's CA
    context.check_hostname = False

    async def use() -> None:
        async with ZooKeeper(f"127.0.0.1:{port}", ssl=context) as zk:
            big = bytes(range(256)) * 3000
            await zk.create("/tls", big)
            assert (await zk.get_data("/tls"))[0] == big
            assert {scheme for scheme, _ in await zk.who_am_i()} == {"ip", "x509"}
        stranger = ssl.create_default_context()
        for hosts, wrong, reason in (
            (f"127.0.0.1:{port}", stranger, "certificate verify failed"),
            (f"127.0.0.1:{port}", None, "closed without an answer|not a ZooKeeper server"),
        ):
            zk = ZooKeeper(hosts, ssl=wrong)
            with pytest.raises(ConnectionLoss, match=reason):
                await zk.exists("/")
            await zk.close()

    run(use())


def test_tls_to_a_server_without(server: Server) -> None:
    async def use() -> None:
        zk = ZooKeeper(server.hosts, ssl=ssl.create_default_context())
        with pytest.raises(ConnectionLoss, match=server.hosts):
            await zk.exists("/")
        await zk.close()

    run(use())
