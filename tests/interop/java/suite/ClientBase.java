package org.apache.zookeeper.test;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.File;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.apache.zookeeper.PortAssignment;
import org.apache.zookeeper.TestableZooKeeper;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZKTestCase;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.FourLetterWordMain;
import org.apache.zookeeper.client.ZKClientConfig;
import org.apache.zookeeper.server.ServerCnxnFactory;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Takes the place of the class of this name in Apache ZooKeeper's tests: theirs has a server inside
 * the test's JVM, this one starts a zkpy process. What its tests use of it is here, and no more.
 *
 * The property zkpy.command is the command without its arguments, words separated by line feeds.
 */
public abstract class ClientBase extends ZKTestCase {
    protected static final Logger LOG = LoggerFactory.getLogger(ClientBase.class);
    public static int CONNECTION_TIMEOUT = 30_000;

    protected String hostPort = "127.0.0.1:" + PortAssignment.unique();
    protected int maxCnxns = 0;
    protected ServerCnxnFactory serverFactory = null; // there is none: what is inside is not ours
    protected File tmpDir = null;
    protected boolean exceptionOnFailedConnect = false;

    private final List<ZooKeeper> clients = new ArrayList<>();
    private Process server;

    // ------------------------------------------------------------------ clients

    /** Knows whether its client is connected. */
    public static class CountdownWatcher implements Watcher {
        volatile CountDownLatch clientConnected = new CountDownLatch(1);
        volatile boolean connected;
        private KeeperState state = KeeperState.Disconnected;

        public synchronized void reset() {
            clientConnected = new CountDownLatch(1);
            become(KeeperState.Disconnected);
        }

        @Override
        public synchronized void process(WatchedEvent event) {
            become(event.getState());
        }

        private void become(KeeperState state) {
            this.state = state;
            connected = state == KeeperState.SyncConnected || state == KeeperState.ConnectedReadOnly;
            if (connected) {
                clientConnected.countDown();
            }
            notifyAll();
        }

        public synchronized boolean isConnected() {
            return connected;
        }

        public void waitForConnected(long timeout) throws InterruptedException, TimeoutException {
            await(() -> connected, timeout, "not connected");
        }

        public void waitForSyncConnected(long timeout) throws InterruptedException, TimeoutException {
            await(() -> state == KeeperState.SyncConnected, timeout, "not connected for writing");
        }

        public void waitForReadOnlyConnected(long timeout) throws InterruptedException, TimeoutException {
            await(() -> state == KeeperState.ConnectedReadOnly, timeout, "not connected for reading");
        }

        public void waitForDisconnected(long timeout) throws InterruptedException, TimeoutException {
            await(() -> !connected, timeout, "still connected");
        }

        private synchronized void await(BooleanSupplier condition, long timeout, String otherwise)
                throws InterruptedException, TimeoutException {
            long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeout);
            while (!condition.getAsBoolean()) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                if (left <= 0) {
                    throw new TimeoutException(otherwise + ": " + state);
                }
                wait(left);
            }
        }
    }

    protected TestableZooKeeper createClient() throws IOException, InterruptedException {
        return createClient(hostPort);
    }

    protected TestableZooKeeper createClient(String hosts) throws IOException, InterruptedException {
        return createClient(new CountdownWatcher(), hosts);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher)
            throws IOException, InterruptedException {
        return createClient(watcher, hostPort);
    }

    protected TestableZooKeeper createClient(String hosts, int timeout)
            throws IOException, InterruptedException {
        return createClient(new CountdownWatcher(), hosts, timeout);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher, String hosts)
            throws IOException, InterruptedException {
        return createClient(watcher, hosts, CONNECTION_TIMEOUT);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher, String hosts, int timeout)
            throws IOException, InterruptedException {
        watcher.reset();
        TestableZooKeeper client = new TestableZooKeeper(hosts, timeout, watcher);
        if (!watcher.clientConnected.await(timeout, TimeUnit.MILLISECONDS)) {
            if (exceptionOnFailedConnect) {
                throw new java.net.ProtocolException("not connected in " + timeout + " ms");
            }
            fail("not connected in " + timeout + " ms");
        }
        synchronized (clients) {
            clients.add(client);
        }
        return client;
    }

    public static ZooKeeper createZKClient(String hosts) throws Exception {
        return createZKClient(hosts, CONNECTION_TIMEOUT);
    }

    public static ZooKeeper createZKClient(String hosts, int sessionTimeout) throws IOException {
        return createZKClient(hosts, sessionTimeout, CONNECTION_TIMEOUT);
    }

    public static ZooKeeper createZKClient(String hosts, int sessionTimeout, long connectionTimeout)
            throws IOException {
        return createZKClient(hosts, sessionTimeout, connectionTimeout, new ZKClientConfig());
    }

    public static ZooKeeper createZKClient(
            String hosts, int sessionTimeout, long connectionTimeout, ZKClientConfig config)
            throws IOException {
        CountdownWatcher watcher = new CountdownWatcher();
        ZooKeeper client = new ZooKeeper(hosts, sessionTimeout, watcher, config);
        try {
            watcher.waitForConnected(connectionTimeout);
        } catch (InterruptedException | TimeoutException e) {
            fail("not connected to " + hosts);
        }
        return client;
    }

    // ------------------------------------------------------------------ the server

    protected void startServer() throws Exception {
        int port = portOf(hostPort);
        File config = new File(tmpDir, "zkpy.cfg");
        try (PrintWriter out = new PrintWriter(config)) {
            out.println("tickTime=3000");
            out.println("dataDir=" + tmpDir.getAbsolutePath());
            out.println("clientPort=" + port);
            out.println("maxClientCnxns=" + maxCnxns);
        }
        List<String> command = new ArrayList<>(List.of(System.getProperty("zkpy.command").split("\n")));
        // Tests set properties, which a server in the same JVM would see.
        for (String name : System.getProperties().stringPropertyNames()) {
            if (name.matches("(zookeeper|znode|jute|readonlymode)[.].*")) {
                command.add("-D" + name + "=" + System.getProperty(name));
            }
        }
        command.add("start-foreground");
        command.add(config.getPath());
        File log = new File(testBaseDir, "zkpy.log");
        server = new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(log))
                .start();
        assertTrue(waitForServerUp("127.0.0.1:" + port, CONNECTION_TIMEOUT), "server is up");
    }

    protected void stopServer() throws Exception {
        if (server != null) {
            server.destroy();
            assertTrue(server.waitFor(10, TimeUnit.SECONDS), "server ends");
            server = null;
        }
    }

    public static boolean waitForServerUp(String hosts, long timeout) {
        return eventually(timeout, () -> statOf(hosts).startsWith("Zookeeper version:"));
    }

    public static boolean waitForServerDown(String hosts, long timeout) {
        return eventually(timeout, () -> statOf(hosts).isEmpty());
    }

    private static boolean eventually(long timeout, BooleanSupplier condition) {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeout);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                return false;
            }
            try {
                Thread.sleep(10);
            } catch (InterruptedException e) {
                return false;
            }
        }
        return true;
    }

    private static String statOf(String hosts) {
        try {
            return FourLetterWordMain.send4LetterWord("127.0.0.1", portOf(hosts), "stat");
        } catch (Exception e) {
            return "";
        }
    }

    public static class HostPort {
        String host;
        int port;

        public HostPort(String host, int port) {
            this.host = host;
            this.port = port;
        }
    }

    public static List<HostPort> parseHostPortList(String hosts) {
        List<HostPort> found = new ArrayList<>();
        for (String one : hosts.split(",")) {
            int colon = one.lastIndexOf(':');
            found.add(new HostPort(one.substring(0, colon), portOf(one)));
        }
        return found;
    }

    private static int portOf(String hosts) {
        String first = hosts.split("[,/]")[0];
        return Integer.parseInt(first.substring(first.lastIndexOf(':') + 1));
    }

    // ------------------------------------------------------------------ a test's frame

    @BeforeEach
    public void setUp() throws Exception {
        setUpWithServerId(1);
    }

    /** The id would only be seen in the ids of sessions. */
    protected void setUpWithServerId(int serverId) throws Exception {
        setupTestEnv();
        setUpAll();
        tmpDir = createTmpDir();
        startServer();
    }

    @AfterEach
    public void tearDown() throws Exception {
        try {
            tearDownAll();
        } finally {
            stopServer();
        }
        assertTrue(recursiveDelete(tmpDir), "nothing is left of " + tmpDir);
    }

    public static void setupTestEnv() {
        System.setProperty("zookeeper.preAllocSize", "100");
    }

    protected void setUpAll() throws Exception {
        clients.clear();
    }

    protected void tearDownAll() throws Exception {
        synchronized (clients) {
            for (ZooKeeper client : clients) {
                client.close();
            }
            clients.clear();
        }
    }

    public static File createTmpDir() throws IOException {
        return Files.createTempDirectory(testBaseDir.toPath(), "test").toFile();
    }

    static void verifyThreadTerminated(Thread thread, long millis) throws InterruptedException {
        thread.join(millis);
        assertTrue(!thread.isAlive(), thread.getName() + " has ended");
    }

    public static boolean recursiveDelete(File folder) {
        try (Stream<Path> found = Files.walk(folder.toPath())) {
            return found.sorted(Comparator.reverseOrder()).map(Path::toFile).allMatch(File::delete);
        } catch (IOException e) {
            return false;
        }
    }

    protected static String getHexSessionId(long sessionId) {
        return "0x" + Long.toHexString(sessionId);
    }
}
