import static java.util.concurrent.TimeUnit.SECONDS;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/** Curator's recipes against one server: CuratorChecks HOSTS CHECK. Exit status 0 when all is well. */
public class CuratorChecks {
    static String hosts;
    static final List<CuratorFramework> clients = Collections.synchronizedList(new ArrayList<>());

    interface Check {
        void run() throws Exception;
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static CuratorFramework client() throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(hosts, 10_000, 10_000, new RetryOneTime(100));
        clients.add(client);
        client.start();
        require(client.blockUntilConnected(10, SECONDS), "connected");
        return client;
    }

    static void require(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError("not so: " + what);
        }
    }

    static void eventually(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + SECONDS.toNanos(15);
        while (!condition.holds()) {
            require(System.nanoTime() < deadline, what);
            Thread.sleep(10);
        }
    }

    /** End the session behind the client's back, as an expiry does. */
    static void expire(CuratorFramework client) throws Exception {
        org.apache.zookeeper.ZooKeeper zk = client.getZookeeperClient().getZooKeeper();
        CountDownLatch connected = new CountDownLatch(1);
        org.apache.zookeeper.ZooKeeper thief = new org.apache.zookeeper.ZooKeeper(
                hosts, 10_000, event -> connected.countDown(), zk.getSessionId(), zk.getSessionPasswd());
        connected.await(10, SECONDS);
        thief.close();
    }

    static void nodes() throws Exception {
        CuratorFramework client = client();
        client.create().creatingParentsIfNeeded().forPath("/nodes/a/b", "x".getBytes());
        client.create().creatingParentContainersIfNeeded().forPath("/containers/a/b");
        Stat stat = new Stat();
        byte[] data = client.getData().storingStatIn(stat).forPath("/nodes/a/b");
        require(Arrays.equals(data, "x".getBytes()) && stat.getVersion() == 0, "data");
        client.setData().withVersion(0).forPath("/nodes/a/b", "y".getBytes());
        try {
            client.setData().withVersion(0).forPath("/nodes/a/b");
            require(false, "bad version");
        } catch (KeeperException.BadVersionException expected) {
        }
        String path = client.create().withProtection()
                .withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/nodes/s-");
        require(path.matches("/nodes/_c_[-0-9a-f]{36}-s-0000000001"), path);
        List<CuratorTransactionResult> results = client.transaction().forOperations(
                client.transactionOp().create().forPath("/nodes/t"),
                client.transactionOp().check().withVersion(1).forPath("/nodes/a/b"),
                client.transactionOp().setData().forPath("/nodes/t", "t".getBytes()),
                client.transactionOp().delete().forPath("/nodes/t"));
        require(results.size() == 4 && results.get(2).getResultStat().getVersion() == 1, "results");
        try {
            client.transaction().forOperations(
                    client.transactionOp().create().forPath("/nodes/u"),
                    client.transactionOp().delete().forPath("/nodes/missing"));
            require(false, "failed transaction");
        } catch (KeeperException.NoNodeException expected) {
        }
        require(client.checkExists().forPath("/nodes/u") == null, "rolled back");
        CountDownLatch done = new CountDownLatch(1);
        client.getChildren().inBackground((c, event) -> {
            require(event.getChildren().size() == 2, "children");
            done.countDown();
        }).forPath("/nodes");
        require(done.await(10, SECONDS), "background");
        client.delete().guaranteed().deletingChildrenIfNeeded().forPath("/nodes");
        require(client.checkExists().forPath("/nodes") == null, "deleted");
    }

    static void mutex() throws Exception {
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger total = new AtomicInteger();
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<?>> futures = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            InterProcessMutex lock = new InterProcessMutex(client(), "/mutex");
            futures.add(pool.submit(() -> {
                for (int round = 0; round < 10; round++) {
                    require(lock.acquire(20, SECONDS), "acquired");
                    require(lock.acquire(1, SECONDS), "acquired again: it is reentrant");
                    require(inside.incrementAndGet() == 1, "alone");
                    total.incrementAndGet();
                    inside.decrementAndGet();
                    lock.release();
                    lock.release();
                }
                return null;
            }));
        }
        for (Future<?> future : futures) {
            future.get(60, SECONDS);
        }
        pool.shutdown();
        require(total.get() == 40, "all rounds");
    }

    static void locks() throws Exception {
        InterProcessReadWriteLock one = new InterProcessReadWriteLock(client(), "/rw");
        InterProcessReadWriteLock two = new InterProcessReadWriteLock(client(), "/rw");
        one.readLock().acquire();
        require(two.readLock().acquire(5, SECONDS), "two readers");
        require(!two.writeLock().acquire(200, java.util.concurrent.TimeUnit.MILLISECONDS), "no writer");
        one.readLock().release();
        two.readLock().release();
        require(two.writeLock().acquire(5, SECONDS), "a writer");
        two.writeLock().release();

        InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(client(), "/semaphore", 2);
        Lease first = semaphore.acquire(5, SECONDS);
        Lease second = semaphore.acquire(5, SECONDS);
        require(first != null && second != null, "two leases");
        require(semaphore.acquire(200, java.util.concurrent.TimeUnit.MILLISECONDS) == null, "no third");
        semaphore.returnLease(first);
        require(semaphore.acquire(5, SECONDS) != null, "a third after all");
        semaphore.returnAll(Collections.singleton(second));
    }

    static void leader() throws Exception {
        CuratorFramework[] both = {client(), client()};
        LeaderLatch one = new LeaderLatch(both[0], "/latch", "one");
        LeaderLatch two = new LeaderLatch(both[1], "/latch", "two");
        one.start();
        require(one.await(10, SECONDS), "one leads");
        two.start();
        eventually("two participants", () -> two.getParticipants().size() == 2);
        require(!two.hasLeadership() && two.getLeader().getId().equals("one"), "two follows");
        expire(both[0]);
        require(two.await(15, SECONDS), "two leads after the session of one has ended");
        eventually("one follows", () -> !one.hasLeadership() && one.getParticipants().size() == 2);
        one.close();
        two.close();

        CountDownLatch terms = new CountDownLatch(4);
        List<LeaderSelector> selectors = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            LeaderSelector selector = new LeaderSelector(
                    client(), "/selector", new LeaderSelectorListenerAdapter() {
                        @Override
                        public void takeLeadership(CuratorFramework c) {
                            terms.countDown();
                        }
                    });
            selector.autoRequeue();
            selector.start();
            selectors.add(selector);
        }
        require(terms.await(20, SECONDS), "four terms");
        selectors.forEach(LeaderSelector::close);
    }

    static void persistentNode() throws Exception {
        CuratorFramework client = client();
        CuratorFramework watcher = client();
        PersistentNode node =
                new PersistentNode(client, CreateMode.EPHEMERAL, false, "/persistent/node", "x".getBytes());
        node.start();
        require(node.waitForInitialCreate(10, SECONDS), "created");
        long owner = watcher.checkExists().forPath("/persistent/node").getEphemeralOwner();
        watcher.delete().forPath("/persistent/node");
        eventually("created again", () -> watcher.checkExists().forPath("/persistent/node") != null);
        expire(client);
        eventually("created by the next session", () -> {
            Stat stat = watcher.checkExists().forPath("/persistent/node");
            return stat != null && stat.getEphemeralOwner() != owner;
        });
        node.close();

        GroupMember one = new GroupMember(client(), "/group", "one", "1".getBytes());
        GroupMember two = new GroupMember(client(), "/group", "two", "2".getBytes());
        one.start();
        two.start();
        eventually("two members", () -> one.getCurrentMembers().size() == 2);
        two.close();
        eventually("one member", () -> one.getCurrentMembers().size() == 1);
        one.close();
    }

    static void cache() throws Exception {
        CuratorFramework client = client();
        CuratorFramework writer = client();
        writer.create().creatingParentsIfNeeded().forPath("/cache/a", "1".getBytes());
        ConcurrentHashMap<String, String> seen = new ConcurrentHashMap<>();
        CuratorCache cache = CuratorCache.build(client, "/cache");
        cache.listenable().addListener((type, before, after) -> {
            if (after == null) {
                seen.remove(before.getPath());
            } else {
                seen.put(after.getPath(), new String(after.getData()));
            }
        });
        cache.start();
        eventually("first content", () -> "1".equals(seen.get("/cache/a")));
        for (int i = 0; i < 50; i++) {
            writer.create().creatingParentsIfNeeded().forPath("/cache/n/" + i, ("" + i).getBytes());
        }
        writer.setData().forPath("/cache/a", "2".getBytes());
        writer.delete().forPath("/cache/n/7");
        eventually("new content", () -> seen.size() == 52 && "2".equals(seen.get("/cache/a")));
        require(!seen.containsKey("/cache/n/7") && "49".equals(seen.get("/cache/n/49")), "content");
        ChildData data = cache.get("/cache/n/3").orElse(null);
        require(data != null && new String(data.getData()).equals("3"), "cached data");
        expire(client);
        writer.setData().forPath("/cache/a", "3".getBytes());
        writer.delete().deletingChildrenIfNeeded().forPath("/cache/n");
        eventually("content after a new session", () -> seen.size() == 2 && "3".equals(seen.get("/cache/a")));
        cache.close();
    }

    static void watches() throws Exception {
        CuratorFramework client = client();
        CuratorFramework writer = client();
        List<String> events = Collections.synchronizedList(new ArrayList<>());
        PersistentWatcher recursive = new PersistentWatcher(client, "/watched", true);
        recursive.getListenable().addListener(event -> {
            if (event.getPath() != null) {
                events.add(event.getType() + " " + event.getPath());
            }
        });
        CountDownLatch reset = new CountDownLatch(1);
        recursive.getResetListenable().addListener(reset::countDown);
        recursive.start();
        require(reset.await(10, SECONDS), "watching");
        writer.create().creatingParentsIfNeeded().forPath("/watched/a");
        writer.setData().forPath("/watched/a", "x".getBytes());
        writer.delete().forPath("/watched/a");
        List<String> expected = Arrays.asList(
                "NodeCreated /watched", "NodeCreated /watched/a",
                "NodeDataChanged /watched/a", "NodeDeleted /watched/a");
        eventually("events", () -> events.equals(expected));
        recursive.close();

        CountDownLatch removed = new CountDownLatch(1);
        org.apache.curator.framework.api.CuratorWatcher once = event -> {
            if (event.getType() == org.apache.zookeeper.Watcher.Event.EventType.DataWatchRemoved) {
                removed.countDown();
            }
        };
        client.getData().usingWatcher(once).forPath("/watched");
        client.watches().remove(once).forPath("/watched");
        require(removed.await(10, SECONDS), "removed");
        require(client.getConfig().forEnsemble() != null, "the configuration node");
    }

    static void counters() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(3);
        List<Future<?>> futures = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            DistributedAtomicLong value =
                    new DistributedAtomicLong(client(), "/long", new RetryOneTime(10));
            futures.add(pool.submit(() -> {
                for (int done = 0; done < 10; ) {
                    if (value.increment().succeeded()) {
                        done++;
                    }
                }
                return null;
            }));
        }
        for (Future<?> future : futures) {
            future.get(60, SECONDS);
        }
        DistributedAtomicLong value =
                new DistributedAtomicLong(client(), "/long", new RetryOneTime(10));
        require(value.get().postValue() == 30, "30 increments");

        SharedCount one = new SharedCount(client(), "/count", 5);
        SharedCount two = new SharedCount(client(), "/count", 5);
        one.start();
        two.start();
        one.setCount(6);
        eventually("the new count", () -> two.getCount() == 6);
        one.close();
        two.close();

        List<Future<Boolean>> members = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client(), "/barrier", 3);
            members.add(pool.submit(() -> barrier.enter(20, SECONDS) && barrier.leave(20, SECONDS)));
        }
        for (Future<Boolean> member : members) {
            require(member.get(60, SECONDS), "through the barrier");
        }
        pool.shutdown();
    }

    public static void main(String[] arguments) throws Exception {
        hosts = arguments[0];
        ConcurrentHashMap<String, Check> checks = new ConcurrentHashMap<>();
        checks.put("nodes", CuratorChecks::nodes);
        checks.put("mutex", CuratorChecks::mutex);
        checks.put("locks", CuratorChecks::locks);
        checks.put("leader", CuratorChecks::leader);
        checks.put("persistentNode", CuratorChecks::persistentNode);
        checks.put("cache", CuratorChecks::cache);
        checks.put("watches", CuratorChecks::watches);
        checks.put("counters", CuratorChecks::counters);
        int failures = 0;
        for (String name : Arrays.copyOfRange(arguments, 1, arguments.length)) {
            try {
                checks.get(name).run();
                System.out.println("ok " + name);
            } catch (Throwable error) {
                failures++;
                System.out.println("failed " + name);
                error.printStackTrace(System.out);
            }
            clients.forEach(CuratorFramework::close);
            clients.clear();
        }
        System.exit(failures);
    }
}
