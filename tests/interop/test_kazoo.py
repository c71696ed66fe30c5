"""kazoo, the common Python client, with all its recipes: against zkpy, and against Apache ZooKeeper
to check the tests themselves.

Each test has a node of its own and as many clients, each with a session, as it asks for.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.oracle import Server
from tests.support.rawclient import RawClient

kazoo = pytest.importorskip("kazoo")

from kazoo import exceptions as errors  # noqa: E402
from kazoo.client import KazooClient, KazooState, TransactionRequest  # noqa: E402
from kazoo.handlers.threading import KazooTimeoutError  # noqa: E402
from kazoo.protocol.states import EventType, KeeperState, WatchedEvent  # noqa: E402
from kazoo.recipe.cache import TreeCache, TreeEvent  # noqa: E402
from kazoo.recipe.lease import MultiNonBlockingLease, NonBlockingLease  # noqa: E402
from kazoo.recipe.watchers import PatientChildrenWatch  # noqa: E402
from kazoo.retry import KazooRetry  # noqa: E402
from kazoo.security import (  # noqa: E402
    OPEN_ACL_UNSAFE,
    READ_ACL_UNSAFE,
    make_acl,
    make_digest_acl,
)

pytestmark = pytest.mark.interop

SERVER_CONFIG = {"DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU="}
WAIT_S = 15.0

NewClient = Callable[..., Any]


@pytest.fixture
def new_client(server: Server) -> Iterator[NewClient]:
    """`new_client(timeout=10.0, ...)` -> a started KazooClient."""
    clients: list[Any] = []

    def start(timeout: float = 10.0, **options: Any) -> Any:
        retry = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.3)
        client = KazooClient(server.hosts, timeout=timeout, connection_retry=retry, **options)
        clients.append(client)
        client.start(timeout=WAIT_S)
        return client

    yield start
    for client in clients:
        client.stop()
        client.close()


@pytest.fixture
def zk(new_client: NewClient) -> Any:
    return new_client()


@pytest.fixture
def path(zk: Any) -> str:
    path = f"/k-{uuid.uuid4().hex[:8]}"
    zk.create(path)
    return path


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S} s"
        time.sleep(0.01)


class Thread(threading.Thread):
    """Runs `target` at once; `finish` joins, and raises what the target raised."""

    def __init__(self, target: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.target = target
        self.error: BaseException | None = None
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.target()
        except BaseException as error:
            self.error = error

    def finish(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive(), "the thread hangs"
        if self.error is not None:
            raise self.error
        return self.result


def lose_connection(client: Any) -> None:
    """Cut the client's TCP connection; its session lives on."""
    client._connection._socket.shutdown(2)


def expire(server: Server, client: Any) -> None:
    """End the client's session behind its back."""
    session_id, password = client.client_id
    with RawClient(server.address) as thief:
        assert thief.connect(session_id, password).session_id == session_id
        thief.end_session()


# Nodes


def test_create_read_update_delete(zk: Any, path: str) -> None:
    assert zk.create(f"{path}/a", b"one") == f"{path}/a"
    data, stat = zk.get(f"{path}/a")
    assert (data, stat.version, stat.dataLength) == (b"one", 0, 3)
    assert zk.set(f"{path}/a", b"two", version=0).version == 1
    with pytest.raises(errors.BadVersionError):
        zk.set(f"{path}/a", b"three", version=0)
    with pytest.raises(errors.NodeExistsError):
        zk.create(f"{path}/a")
    with pytest.raises(errors.NoNodeError):
        zk.get(f"{path}/b")
    assert zk.exists(f"{path}/b") is None
    with pytest.raises(errors.NotEmptyError):
        zk.delete(path)
    zk.delete(f"{path}/a", version=1)
    assert zk.get_children(path) == []


def test_create_options(zk: Any, path: str) -> None:
    assert zk.create(f"{path}/deep/er", makepath=True) == f"{path}/deep/er"
    created, stat = zk.create(f"{path}/both", b"x", include_data=True)
    assert (created, stat.dataLength) == (f"{path}/both", 1)
    assert zk.create(f"{path}/s-", sequence=True) == f"{path}/s-0000000002"
    zk.create(f"{path}/e", ephemeral=True)
    assert zk.exists(f"{path}/e").ephemeralOwner == zk.client_id[0]
    with pytest.raises(errors.NoChildrenForEphemeralsError):
        zk.create(f"{path}/e/x")
    zk.ensure_path(f"{path}/x/y/z")
    zk.delete(f"{path}/x", recursive=True)
    names, stat = zk.get_children(path, include_data=True)
    assert sorted(names) == ["both", "deep", "e", "s-0000000002"]
    assert stat.numChildren == 4


def test_unicode_and_big_data(zk: Any, path: str) -> None:
    zk.create(f"{path}/\u00fc\u4e2d", bytes(900_000))
    data, _ = zk.get(f"{path}/\u00fc\u4e2d")
    assert data == bytes(900_000)
    assert zk.get_children(path) == ["\u00fc\u4e2d"]


def test_many_children(zk: Any, path: str) -> None:
    results = [zk.create_async(f"{path}/child-", sequence=True) for _ in range(1000)]
    names = [result.get(WAIT_S) for result in results]
    assert names == [f"{path}/child-{number:010d}" for number in range(1000)]
    assert len(zk.get_children(path)) == 1000


def test_async_api(zk: Any, path: str) -> None:
    writes = [zk.set_async(path, str(number).encode()) for number in range(100)]
    reads = [zk.get_async(path) for _ in range(10)]
    assert [result.get(WAIT_S).version for result in writes] == list(range(1, 101))
    assert {result.get(WAIT_S)[0] for result in reads} == {b"99"}
    done = threading.Event()
    zk.exists_async(path).rawlink(lambda _result: done.set())
    assert done.wait(WAIT_S)
    assert zk.sync_async(path).get(WAIT_S) == path


def test_transactions(zk: Any, path: str) -> None:
    transaction: TransactionRequest = zk.transaction()
    transaction.create(f"{path}/a", b"x")
    transaction.create(f"{path}/s-", sequence=True)
    transaction.check(path, version=0)
    transaction.set_data(f"{path}/a", b"y", version=0)
    transaction.delete(f"{path}/a", version=1)
    results = transaction.commit()
    assert results[:3] == [f"{path}/a", f"{path}/s-0000000001", True]
    assert results[3].version == 1
    assert results[4] is True

    with zk.transaction() as transaction:
        transaction.create(f"{path}/b")
        transaction.create(f"{path}/nope/nope")
        transaction.delete(path)
    # The context manager drops the results; run it again to see them.
    failed = zk.transaction()
    failed.create(f"{path}/b")
    failed.create(f"{path}/nope/nope")
    failed.delete(path)
    results = failed.commit()
    assert [type(result) for result in results] == [
        errors.RolledBackError,
        errors.NoNodeError,
        errors.RuntimeInconsistency,
    ]
    assert zk.get_children(path) == ["s-0000000001"]


def test_server_version_and_commands(zk: Any) -> None:
    assert len(zk.server_version()) >= 3
    assert zk.command(b"ruok") == "imok"
    assert "Mode: standalone" in zk.command(b"srvr")


# ACLs


def test_digest_acl(new_client: NewClient, zk: Any, path: str) -> None:
    acl = make_digest_acl("bob", "secret", all=True)
    zk.create(f"{path}/locked", b"x", acl=[acl])
    with pytest.raises(errors.NoAuthError):
        zk.get(f"{path}/locked")
    bob = new_client(auth_data=[("digest", "bob:secret")])
    assert bob.get(f"{path}/locked")[0] == b"x"
    zk.add_auth("digest", "bob:secret")
    assert zk.get(f"{path}/locked")[0] == b"x"
    assert zk.get_acls(f"{path}/locked")[0] == [acl]


def test_auth_survives_reconnect(new_client: NewClient, path: str) -> None:
    bob = new_client(auth_data=[("digest", "bob:secret")])
    bob.create(f"{path}/locked", b"x", acl=[make_digest_acl("bob", "secret", all=True)])
    lose_connection(bob)
    assert bob.retry(bob.get, f"{path}/locked")[0] == b"x"


def test_default_acl_and_set_acls(new_client: NewClient, path: str) -> None:
    client = new_client(
        auth_data=[("digest", "ann:pw")], default_acl=[make_acl("auth", "", all=True)]
    )
    client.create(f"{path}/mine")
    acls, stat = client.get_acls(f"{path}/mine")
    assert [(acl.perms, acl.id.scheme) for acl in acls] == [(31, "digest")]
    assert client.set_acls(f"{path}/mine", READ_ACL_UNSAFE, version=stat.aversion).aversion == 1
    with pytest.raises(errors.NoAuthError):
        client.set(f"{path}/mine", b"x")
    with pytest.raises(errors.InvalidACLError):
        client.create(f"{path}/bad", acl=[make_acl("digest", "no colon", all=True)])


def test_super_user(new_client: NewClient, zk: Any, path: str) -> None:
    zk.create(f"{path}/locked", b"x", acl=[make_digest_acl("bob", "secret", all=True)])
    root = new_client(auth_data=[("digest", "super:test")])
    assert root.get(f"{path}/locked")[0] == b"x"
    root.set_acls(f"{path}/locked", OPEN_ACL_UNSAFE)
    assert zk.get(f"{path}/locked")[0] == b"x"


def test_failed_auth(new_client: NewClient) -> None:
    client = new_client()
    with pytest.raises(errors.AuthFailedError):
        client.add_auth("nonsense", "x")


# Sessions


def test_ephemerals_go_with_the_session(new_client: NewClient, zk: Any, path: str) -> None:
    mortal = new_client()
    mortal.create(f"{path}/e", ephemeral=True)
    gone = threading.Event()
    assert zk.exists(f"{path}/e", watch=lambda event: gone.set())
    mortal.stop()
    assert gone.wait(WAIT_S)
    assert zk.get_children(path) == []


def test_session_survives_a_lost_connection(new_client: NewClient, zk: Any, path: str) -> None:
    client = new_client()
    session = client.client_id
    client.create(f"{path}/e", ephemeral=True)
    states: list[str] = []
    client.add_listener(states.append)
    lose_connection(client)
    eventually(lambda: states == [KazooState.SUSPENDED, KazooState.CONNECTED], "reconnect")
    assert client.client_id == session
    assert zk.exists(f"{path}/e")


def test_session_expiry(server: Server, new_client: NewClient, zk: Any, path: str) -> None:
    client = new_client()
    session = client.client_id
    client.create(f"{path}/e", ephemeral=True)
    states: list[str] = []
    client.add_listener(states.append)
    expire(server, client)
    eventually(
        lambda: KazooState.LOST in states and states[-1] == KazooState.CONNECTED, "a new session"
    )
    assert client.client_id != session
    assert zk.exists(f"{path}/e") is None


def test_silent_client_expires(server: Server, zk: Any, path: str) -> None:
    """A session without a client: its ephemeral goes after the timeout, not before."""
    with RawClient(server.address) as silent:
        silent.connect(timeout_ms=1500)
        from tests.support import wire

        silent.value(wire.CREATE, wire.create(f"{path}/e", flags=wire.EPHEMERAL))
    started = time.monotonic()
    gone = threading.Event()
    assert zk.exists(f"{path}/e", watch=lambda event: gone.set())
    assert gone.wait(WAIT_S)
    assert time.monotonic() - started > 1.3


def test_restart_of_the_server(server: Server, new_client: NewClient, zk: Any, path: str) -> None:
    """kill -9: what was acknowledged is there, sessions and their ephemerals live on."""
    client = new_client(timeout=20.0)
    session = client.client_id
    client.create(f"{path}/e", b"ephemeral", ephemeral=True)
    for number in range(50):
        client.create(f"{path}/n-{number}", str(number).encode())
    states: list[str] = []
    client.add_listener(states.append)
    server.restart()
    assert client.retry(client.get, f"{path}/e")[0] == b"ephemeral"
    assert client.client_id == session
    assert KazooState.LOST not in states
    assert len(client.get_children(path)) == 51
    assert client.get(f"{path}/n-49")[0] == b"49"
    client.create(f"{path}/after")
    assert zk.retry(zk.exists, f"{path}/after")


def test_kazoo_gives_up_where_nobody_listens() -> None:
    client = KazooClient("127.0.0.1:1", timeout=0.5)
    with pytest.raises(KazooTimeoutError):
        client.start(timeout=0.5)
    client.close()


# Watches


def test_one_shot_watches(new_client: NewClient, zk: Any, path: str) -> None:
    events: list[WatchedEvent] = []
    zk.get(path, watch=events.append)
    zk.get_children(path, watch=events.append)
    zk.exists(f"{path}/x", watch=events.append)
    other = new_client()
    other.set(path, b"1")
    other.create(f"{path}/x")
    other.set(path, b"2")
    eventually(lambda: len(events) == 3, "three events")
    assert [(event.type, event.state, event.path) for event in events] == [
        (EventType.CHANGED, KeeperState.CONNECTED, path),
        (EventType.CREATED, KeeperState.CONNECTED, f"{path}/x"),
        (EventType.CHILD, KeeperState.CONNECTED, path),
    ]


def test_data_watch(new_client: NewClient, zk: Any, path: str) -> None:
    seen: list[bytes | None] = []

    @zk.DataWatch(f"{path}/d")
    def _on_data(data: bytes | None, stat: Any) -> None:
        if not seen or seen[-1] != data:
            seen.append(data)

    other = new_client()
    for data in (b"1", b"2", b"3"):
        other.ensure_path(f"{path}/d")
        other.set(f"{path}/d", data)
        eventually(lambda data=data: seen[-1] == data, f"{data!r}")
    other.delete(f"{path}/d")
    eventually(lambda: seen[-1] is None, "the deletion")
    assert seen[0] is None


def test_data_watch_survives_reconnect(new_client: NewClient, zk: Any, path: str) -> None:
    seen: list[bytes] = []

    @zk.DataWatch(path)
    def _on_data(data: bytes, stat: Any) -> None:
        seen.append(data)

    lose_connection(zk)
    new_client().set(path, b"while away")
    eventually(lambda: seen[-1] == b"while away", "the change")


def test_children_watch(new_client: NewClient, zk: Any, path: str) -> None:
    seen: list[list[str]] = []

    @zk.ChildrenWatch(path)
    def _on_children(children: list[str]) -> bool:
        seen.append(sorted(children))
        return "stop" not in children

    other = new_client()
    for name in ("a", "b", "stop"):
        other.create(f"{path}/{name}")
        eventually(lambda name=name: name in seen[-1], name)
    other.create(f"{path}/unseen")
    other.sync(path)
    assert seen[0] == []
    assert seen[-1] == ["a", "b", "stop"]


def test_patient_children_watch(new_client: NewClient, zk: Any, path: str) -> None:
    other = new_client()
    other.create(f"{path}/a")
    watcher = PatientChildrenWatch(zk, path, time_boundary=0.3)
    result = watcher.start()
    other.create(f"{path}/b")
    children, again = result.get(WAIT_S)
    assert sorted(children) == ["a", "b"]
    other.create(f"{path}/c")
    again.get(WAIT_S)


def test_tree_cache(new_client: NewClient, zk: Any, path: str) -> None:
    zk.create(f"{path}/a", b"a")
    zk.create(f"{path}/a/b", b"b")
    cache = TreeCache(zk, path)
    events: list[Any] = []
    ready = threading.Event()
    cache.listen(lambda event: events.append((event.event_type, event.event_data)))
    cache.listen(lambda event: ready.set() if event.event_type == TreeEvent.INITIALIZED else None)
    cache.start()
    assert ready.wait(WAIT_S)
    assert cache.get_data(f"{path}/a/b").data == b"b"
    other = new_client()
    other.set(f"{path}/a/b", b"B")
    eventually(lambda: cache.get_data(f"{path}/a/b").data == b"B", "the update")
    other.create(f"{path}/a/b/c", b"c")
    eventually(lambda: cache.get_data(f"{path}/a/b/c") is not None, "the new node")
    lose_connection(zk)
    other.delete(f"{path}/a/b/c")
    eventually(lambda: cache.get_data(f"{path}/a/b/c") is None, "the deletion")
    assert cache.get_children(f"{path}/a") == frozenset(["b"])
    cache.close()


# Recipes


def test_lock(new_client: NewClient, path: str) -> None:
    """Four clients in turn: never two inside, and each comes in."""
    inside: list[str] = []
    order: list[str] = []

    def work(name: str) -> Callable[[], None]:
        client = new_client()

        def run() -> None:
            lock = client.Lock(f"{path}/lock", name)
            for _ in range(5):
                with lock:
                    inside.append(name)
                    assert inside == [name]
                    time.sleep(0.002)
                    inside.remove(name)
                    order.append(name)

        return run

    threads = [Thread(work(name)) for name in "abcd"]
    for thread in threads:
        thread.finish()
    assert sorted(order) == sorted("abcd" * 5)


def test_lock_contenders_and_timeout(new_client: NewClient, path: str) -> None:
    one, two = new_client(), new_client()
    lock, rival = one.Lock(f"{path}/lock", "one"), two.Lock(f"{path}/lock", "two")
    assert lock.acquire()
    assert not rival.acquire(blocking=False)
    with pytest.raises(errors.LockTimeout):
        rival.acquire(timeout=0.3)
    waiting = Thread(rival.acquire)
    eventually(lambda: lock.contenders() == ["one", "two"], "the contender")
    lock.release()
    assert waiting.finish() is True
    rival.release()
    assert one.get_children(f"{path}/lock") == []


def test_lock_passes_on_when_the_holder_expires(
    server: Server, new_client: NewClient, path: str
) -> None:
    holder, waiter = new_client(), new_client()
    assert holder.Lock(f"{path}/lock").acquire()
    waiting = Thread(lambda: waiter.Lock(f"{path}/lock").acquire(timeout=WAIT_S))
    eventually(lambda: len(waiter.get_children(f"{path}/lock")) == 2, "the waiter")
    expire(server, holder)
    assert waiting.finish() is True


def test_read_and_write_locks(new_client: NewClient, path: str) -> None:
    one, two = new_client(), new_client()
    read1, read2 = one.ReadLock(f"{path}/rw"), two.ReadLock(f"{path}/rw")
    assert read1.acquire()
    assert read2.acquire(timeout=WAIT_S)
    write = one.WriteLock(f"{path}/rw")
    assert not write.acquire(blocking=False)
    read1.release()
    waiting = Thread(write.acquire)
    time.sleep(0.1)
    assert waiting.is_alive()
    read2.release()
    assert waiting.finish() is True
    assert not two.ReadLock(f"{path}/rw").acquire(blocking=False)
    write.release()


def test_semaphore(new_client: NewClient, path: str) -> None:
    clients = [new_client() for _ in range(3)]
    leases = [client.Semaphore(f"{path}/sem", max_leases=2) for client in clients]
    assert leases[0].acquire()
    assert leases[1].acquire()
    assert not leases[2].acquire(blocking=False)
    assert len(leases[2].lease_holders()) == 2
    waiting = Thread(leases[2].acquire)
    leases[0].release()
    assert waiting.finish() is True
    leases[1].release()
    leases[2].release()


def test_election(server: Server, new_client: NewClient, path: str) -> None:
    leaders: list[str] = []
    clients = {name: new_client() for name in "abc"}
    done = {name: threading.Event() for name in "abc"}

    def lead(name: str) -> None:
        leaders.append(name)
        done[name].wait(WAIT_S)

    def candidate(name: str) -> Thread:
        election = clients[name].Election(f"{path}/election", name)
        return Thread(lambda: election.run(lead, name))

    threads: dict[str, Thread] = {}
    for count, name in enumerate("abc"):
        threads[name] = candidate(name)
        eventually(
            lambda count=count: len(clients["a"].retry(get_or_empty, clients["a"], path)) > count,
            "a candidate",
        )
    election = clients["a"].Election(f"{path}/election")
    assert election.contenders() == ["a", "b", "c"]
    for number, name in enumerate("abc"):
        eventually(lambda number=number: len(leaders) == number + 1, "a leader")
        assert leaders[-1] == name
        done[name].set()
        threads[name].finish()
    assert leaders == ["a", "b", "c"]


def get_or_empty(client: Any, path: str) -> list[str]:
    try:
        return list(client.get_children(f"{path}/election"))
    except errors.NoNodeError:
        return []


def test_queue(new_client: NewClient, zk: Any, path: str) -> None:
    queue = zk.Queue(f"{path}/queue")
    assert queue.get() is None
    for item in (b"one", b"two", b"three"):
        queue.put(item)
    queue.put(b"first", priority=10)
    assert len(queue) == 4
    other = new_client().Queue(f"{path}/queue")
    assert [queue.get(), other.get(), other.get(), queue.get()] == [
        b"first",
        b"one",
        b"two",
        b"three",
    ]
    assert other.get() is None


def test_locking_queue(new_client: NewClient, path: str) -> None:
    one, two = (new_client().LockingQueue(f"{path}/queue") for _ in range(2))
    one.put_all([b"a", b"b"])
    one.put(b"urgent", priority=1)
    assert one.get() == b"urgent"
    assert two.get() == b"a"
    assert two.consume()
    assert one.holds_lock()
    assert one.release()
    assert two.get(timeout=WAIT_S) == b"urgent"
    assert two.consume()
    assert one.get() == b"b"
    assert one.consume()
    assert two.get(timeout=0.2) is None
    assert len(one) == 0


def test_counter(new_client: NewClient, path: str) -> None:
    """Conditional setData under contention: no increment is lost."""

    def work() -> Callable[[], None]:
        counter = new_client().Counter(f"{path}/counter")

        def run() -> None:
            for _ in range(10):
                counter.__add__(1)

        return run

    threads = [Thread(work()) for _ in range(3)]
    for thread in threads:
        thread.finish()
    counter = new_client().Counter(f"{path}/counter")
    assert counter.value == 30
    counter -= 5
    assert counter.value == 25
    assert new_client().Counter(f"{path}/float", default=1.5).value == 1.5


def test_barrier(new_client: NewClient, path: str) -> None:
    one, two = new_client().Barrier(f"{path}/b"), new_client().Barrier(f"{path}/b")
    one.create()
    assert two.wait(0.1) is False
    waiting = Thread(lambda: two.wait(WAIT_S))
    time.sleep(0.05)
    assert one.remove() is True
    assert waiting.finish() is True
    assert one.remove() is False


def test_double_barrier(new_client: NewClient, path: str) -> None:
    barriers = [new_client().DoubleBarrier(f"{path}/db", 3) for _ in range(3)]
    entering = [Thread(barrier.enter) for barrier in barriers[:2]]
    time.sleep(0.1)
    assert all(thread.is_alive() for thread in entering)
    Thread(barriers[2].enter).finish()
    for thread in entering:
        thread.finish()
    assert all(barrier.participating for barrier in barriers)
    leaving = [Thread(barrier.leave) for barrier in barriers]
    for thread in leaving:
        thread.finish()
    assert not any(barrier.participating for barrier in barriers)


@pytest.mark.parametrize("kind", ["Party", "ShallowParty"])
def test_party(server: Server, new_client: NewClient, path: str, kind: str) -> None:
    clients = [new_client() for _ in range(3)]
    parties = [
        getattr(client, kind)(f"{path}/party", f"member{number}")
        for number, client in enumerate(clients)
    ]
    for party in parties:
        party.join()
    assert sorted(parties[0]) == ["member0", "member1", "member2"]
    parties[1].leave()
    assert sorted(parties[0]) == ["member0", "member2"]
    expire(server, clients[2])
    eventually(lambda: list(parties[0]) == ["member0"], "the expired member")
    assert len(parties[0]) == 1


class Member(threading.Thread):
    """One process of a group that shares out `items`."""

    def __init__(self, client: Any, path: str, items: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        # By default all members of one process share one identifier.
        self.partitioner = client.SetPartitioner(
            path, items, identifier=f"{id(self)}", time_boundary=0.2
        )
        self.part: list[int] = []
        self.quit = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.quit.is_set():
            self.part = list(self.partitioner) if self.partitioner.acquired else []
            if self.partitioner.release:
                self.partitioner.release_set()
            elif self.partitioner.allocating:
                self.partitioner.wait_for_acquire(0.1)
            elif self.partitioner.acquired:
                time.sleep(0.01)
            else:
                return
        self.partitioner.finish()


def test_set_partitioner(new_client: NewClient, path: str) -> None:
    items = tuple(range(7))
    one, two = (Member(new_client(), f"{path}/set", items) for _ in range(2))
    eventually(lambda: sorted(one.part + two.part) == list(items), "a partition for two")
    assert sorted([len(one.part), len(two.part)]) == [3, 4]
    two.quit.set()
    eventually(lambda: sorted(one.part) == list(items), "a partition for one")
    one.quit.set()
    one.join(WAIT_S)


def test_leases(new_client: NewClient, path: str) -> None:
    from datetime import timedelta

    one, two = new_client(), new_client()
    for_a_minute = timedelta(minutes=1)
    assert NonBlockingLease(one, f"{path}/lease", for_a_minute, identifier="one")
    assert not NonBlockingLease(two, f"{path}/lease", for_a_minute, identifier="two")
    assert NonBlockingLease(one, f"{path}/lease", for_a_minute, identifier="one")
    leases = [
        MultiNonBlockingLease(two, 2, f"{path}/leases", for_a_minute, identifier=str(number))
        for number in range(3)
    ]
    assert [bool(lease) for lease in leases] == [True, True, False]


def test_retry_with_expired_session(server: Server, new_client: NewClient, path: str) -> None:
    """KazooRetry carries a call over a lost session."""
    client = new_client()
    expire(server, client)
    client.retry(client.ensure_path, f"{path}/made")
    assert client.retry(client.exists, f"{path}/made")


def test_chroot(new_client: NewClient, zk: Any, path: str, server: Server) -> None:
    client = KazooClient(server.hosts + path)
    client.start(WAIT_S)
    try:
        client.create("/inside", b"x")
        assert client.get_children("/") == ["inside"]
        assert zk.get(f"{path}/inside")[0] == b"x"
    finally:
        client.stop()
        client.close()
