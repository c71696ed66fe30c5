"""zkpy-server as a person uses it, beside what zkServer.sh printed for the same commands.

The transcript is tests/golden/cli/zkServer-3.9.5.txt.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support.oracle import JVM_FLAGS, PROJECT, SOURCE, apache_missing, classpath
from tests.support.rawclient import make, open_session

from zkpy.testing.ensemble import free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

TRANSCRIPT = PROJECT / "tests" / "golden" / "cli" / "zkServer-3.9.5.txt"
TLS = PROJECT / "tests" / "golden" / "tls"
FOUND = "Client port found: {}. Client address: localhost. Client SSL: false.\n"
NO_SERVICE = "Error contacting service. It is probably not running.\n"


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Place:
    """A folder as zkServer.sh's installation is one, with conf/zoo.cfg on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.write("zoo.cfg")

    def write(self, name: str, **lines: object) -> Path:
        """A configuration in conf/; None leaves a key out."""
        settings = {
            "dataDir": self.folder / "data",
            "clientPort": self.port,
            "tickTime": 500,
            "admin.enableServer": "false",
            **lines,
        }
        path = self.folder / "conf" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{k}={v}\n" for k, v in settings.items() if v is not None))
        return path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "zkpy.cli.server", *words]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ZOO", "JVM", "CLIENT"))}
        own = {"PYTHONPATH": str(SOURCE), "USER": "zk", "HOSTNAME": "host1"}
        return {**clean, **own, **(env or {})}

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def pid_file(self) -> Path:
        return self.folder / "data" / "zookeeper_server.pid"

    @property
    def output(self) -> Path:
        return self.folder / "logs" / "zookeeper-zk-server-host1.out"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    for path in tmp_path.rglob("*.pid"):
        text = path.read_text()
        command = Path(f"/proc/{text}/cmdline")
        if text and command.exists() and b"zkpy.cli.server" in command.read_bytes():
            os.kill(int(text), signal.SIGKILL)


# ---------------------------------------------------------------------- the transcript

# What zkServer.sh's environment says, and we do not; and a number that it takes from its own text.
UNSAID = re.compile(r"/usr/bin/java|ZooKeeper JMX enabled|JMX disabled|grep: |mkdir: ")
# Commands that depend on a JVM, or on what the installation had beside it, and ensembles and TLS,
# which have tests of their own.
LEFT_OUT = ("print-cmd", "/srv/", "tls.cfg", "start-foreground", "zkServer-init", "zkCleanup",
            "ls ", "run/zk.pid")  # fmt: skip


def transcript() -> Iterator[tuple[str, Done]]:
    """Each command with what it printed and its exit code."""
    for block in TRANSCRIPT.read_text().split("\n\n")[1:]:
        command, *lines, last = block.rstrip("\n").split("\n")
        found = re.fullmatch(r"=> exit (\d+)", last)
        assert found is not None, block
        texts = ["", ""]
        for line in lines:
            if not UNSAID.match(line[3:]):
                texts[line[0] == "2"] += line[3:] + "\n"
        yield command.removeprefix("$ "), Done(int(found[1]), *texts)


def plain(done: Done, place: Place) -> Done:
    """Without what differs from run to run, and with the places of the transcript."""
    out, err = (
        re.sub(r"process \d+", "process N", text)
        .replace(f"{place.folder}/", "/opt/zk/bin/../")
        .replace(str(place.port), "2181")
        for text in (done.out, done.err)
    )
    # Where zkServer.sh names a line of itself; what grep said is one line of ours.
    err = re.sub(r"^(zkpy-server|bin/zkServer\.sh): (line \d+: )?kill: \(\d+\)", "kill: (N)", err,
                 flags=re.MULTILINE)  # fmt: skip
    err = re.sub(r"^(zkpy-server: |Invalid config).*\n", "", err, flags=re.MULTILINE)
    out = re.sub(r"version 3\S+ \d.*", "version V", out)
    out = out.replace("/opt/zk/bin/../data/", "/opt/zk/data/")
    return Done(done.code, out, err)


def test_what_zkserver_sh_says(place: Place) -> None:
    place.write("bad.cfg", clientPort="abc")
    lines = {"server.1": "127.0.0.1:1:2:participant;127.0.0.1:2181"}
    (place.folder / "conf" / "zoo.dynamic").write_text(
        "".join(f"{key}={value.replace('2181', str(place.port))}\n" for key, value in lines.items())
    )
    (place.folder / "dyn").mkdir()
    (place.folder / "dyn" / "myid").write_text("1\n")
    place.write("dyn.cfg", clientPort=None, dataDir=place.folder / "dyn",
                dynamicConfigFile=place.folder / "conf" / "zoo.dynamic")  # fmt: skip
    compared = 0
    for command, expected in transcript():
        if any(word in command for word in LEFT_OUT):
            continue
        if command.endswith(("zkServer.sh", "upgrade")):
            continue  # usage: exit code 2, and upgrade is answered
        words = shlex.split(command)
        env = dict(word.split("=", 1) for word in words[: words.index("bin/zkServer.sh")])
        words = words[words.index("bin/zkServer.sh") + 1 :]
        done = plain(place.run(*words, env=env), place)
        assert done == plain(expected, place), command
        compared += 1
    assert compared > 15


# ---------------------------------------------------------------------- a server


def test_a_server_from_start_to_stop(place: Place) -> None:
    started = place.run("start")
    config = f"Using config: {place.folder}/conf/zoo.cfg\n"
    assert started == (0, "Starting zookeeper ... STARTED\n", config)
    # It serves by then.
    with open_session(("127.0.0.1", place.port)) as client:
        make(client, "/kept")
    pid = int(place.pid_file.read_text())
    log = place.output.read_text()
    assert f"binding to port 0.0.0.0:{place.port}" in log

    again = place.run("start")
    assert again == (1, f"Starting zookeeper ... already running as process {pid}.\n", config)
    place.pid_file.unlink()
    again = place.run("start")  # the lock on its data names it too
    assert again == (1, f"Starting zookeeper ... already running as process {pid}.\n", config)
    assert place.output.read_text().startswith(log), "nothing has changed"
    place.pid_file.write_text(str(pid))

    assert place.run("restart").code == 0
    assert int(place.pid_file.read_text()) != pid
    with open_session(("127.0.0.1", place.port)) as client:
        with pytest.raises(AssertionError):
            make(client, "/kept")  # it is there
    assert place.run("status") == (0, FOUND.format(place.port) + "Mode: standalone\n", config)
    assert place.run("stop") == (0, "Stopping zookeeper ... STOPPED\n", config)
    assert "Exiting with code 0" in place.output.read_text()
    assert place.run("status") == (1, FOUND.format(place.port) + NO_SERVICE, config)


def test_many_starts_at_once_start_one(place: Place) -> None:
    starting = [
        subprocess.Popen(
            place.command("start"),
            cwd=place.folder,
            env=place.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(4)
    ]
    said = sorted(process.communicate()[0] for process in starting)
    pid = place.pid_file.read_text()
    running = f"Starting zookeeper ... already running as process {pid}.\n"
    assert said == ["Starting zookeeper ... STARTED\n", running, running, running]
    assert sorted(process.returncode for process in starting) == [0, 1, 1, 1]
    assert place.run("stop").code == 0


def test_why_a_start_fails_is_told(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        place.write("taken.cfg", clientPort=port, clientPortAddress="127.0.0.1")
        done = place.run("start", "taken.cfg")
    assert done.code == 1
    assert done.out == "Starting zookeeper ... FAILED TO START\n"
    assert done.err.splitlines()[1:] == [
        f"Unexpected exception, exiting abnormally: Address already in use (127.0.0.1:{port})"
    ]


def test_flags_and_files_of_the_environment_reach_the_server(place: Place) -> None:
    conf = place.folder / "elsewhere"
    conf.mkdir()
    (place.folder / "conf" / "java.env").write_text("SERVER_JVMFLAGS=-Dzookeeper.snapCount=1\n")
    (conf / "java.env").write_text('export SERVER_JVMFLAGS="-Dzookeeper.maxCnxns=77"\n')
    place.write("zoo.cfg").rename(conf / "z.cfg")
    flag = "-Dzookeeper.4lw.commands.whitelist=conf"
    assert place.run("--config", "elsewhere", "start", "z.cfg", flag).code == 0
    log = place.output.read_text()
    assert "maxCnxns configured value is 77." in log
    assert "snapCount is reset" not in log, "of another folder"
    with socket.create_connection(("127.0.0.1", place.port)) as connection:
        connection.sendall(b"conf")
        assert connection.recv(10_000).startswith(b"clientPort=")
    assert place.run("--config", "elsewhere", "stop", "z.cfg").code == 0


def test_a_folder_of_modules_is_not_imported_from(place: Place) -> None:
    """The script, unlike `python -m`, does not look for modules where it is called."""
    (place.folder / "asyncio.py").write_text("raise SystemExit('taken over')")
    call = "import sys; from zkpy.cli.server import main; sys.exit(main())"
    for command, code in (("start", 0), ("stop", 0)):
        done = subprocess.run(
            [sys.executable, "-P", "-c", call, command],
            cwd=place.folder,
            env=place.environment(),
            timeout=60,
            check=False,
        )
        assert done.returncode == code, place.output.read_text()


# ---------------------------------------------------------------------- status


def test_status_with_words_restricted(place: Place) -> None:
    place.write("zoo.cfg", **{"4lw.commands.whitelist": "ruok"})
    assert place.run("start").code == 0
    assert place.run("status").out == FOUND.format(place.port) + "Mode: standalone\n"
    assert place.run("stop").code == 0


def test_status_on_ipv6(place: Place) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    place.write("zoo.cfg", clientPortAddress="[::1]")
    done = place.run("start")
    if "Cannot assign requested address" in done.err:
        pytest.skip("no IPv6 on the loopback interface")
    assert done.code == 0
    line = f"Client port found: {place.port}. Client address: ::1. Client SSL: false.\n"
    assert place.run("status").out == f"{line}Mode: standalone\n"
    assert place.run("stop").code == 0


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"x" * 100_000])
def test_status_of_what_is_no_zookeeper(place: Place, banner: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.port = other.getsockname()[1]
        place.write("zoo.cfg", clientPortAddress="127.0.0.1")

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4)
                connection.sendall(banner)

        thread = threading.Thread(target=answer)
        thread.start()
        done = place.run("status")
        thread.join()
    assert done.code == 1
    assert done.out.endswith(f"Client SSL: false.\n{NO_SERVICE}")


def test_status_on_a_tls_port(place: Place) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    context.load_verify_locations(TLS / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                assert secured.recv(4) == b"srvr"
                secured.sendall(b"Mode: follower\n")

        thread = threading.Thread(target=answer)
        thread.start()
        stores = {"ssl.keyStore.location": TLS / "server.pem"}
        place.write("tls.cfg", clientPort=None, secureClientPort=port, **stores)
        done = place.run("status", "tls.cfg")
        thread.join()
    line = f"Client port found: {port}. Client address: localhost. Client SSL: true.\n"
    assert (done.code, done.out.endswith(f"{line}Mode: follower\n")) == (0, True), done


@pytest.mark.skipif(apache_missing() is not None, reason=str(apache_missing()))
def test_apaches_server_is_seen_and_stopped_too(place: Place) -> None:
    """With TLS only, its own stores, and the pid file that zkServer.sh would have written."""
    port = free_port()
    config = place.write(
        "tls.cfg",
        clientPort=None,
        secureClientPort=port,
        serverCnxnFactory="org.apache.zookeeper.server.NettyServerCnxnFactory",
        **{
            "ssl.keyStore.location": TLS / "server.jks",
            "ssl.keyStore.password": "password",
            "ssl.trustStore.location": TLS / "trust.jks",
            "ssl.trustStore.password": "password",
        },
    )
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    with place.folder.joinpath("apache.log").open("wb") as log:
        process = subprocess.Popen(
            ["java", *JVM_FLAGS, "-cp", classpath("3.9.5"), main, str(config)],
            stdout=log,
            stderr=log,
        )
    try:
        place.pid_file.parent.mkdir(exist_ok=True)
        place.pid_file.write_text(str(process.pid))
        done = place.run("status", "tls.cfg")
        while done.code and process.poll() is None:  # until it serves
            done = place.run("status", "tls.cfg")
        assert done.out.endswith("Client SSL: true.\nMode: standalone\n"), done
        running = f"Starting zookeeper ... already running as process {process.pid}.\n"
        assert place.run("start", "tls.cfg").out == running
        assert place.run("stop", "tls.cfg").out == "Stopping zookeeper ... STOPPED\n"
        assert process.wait(10) == 143
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------------- an ensemble


def write_ensemble(place: Place) -> dict[int, Path]:
    """z1.cfg to z4.cfg in conf/, the fourth an observer with its port in the server lines only."""
    ports = {number: [free_port() for _ in range(3)] for number in (1, 2, 3, 4)}
    servers: dict[str, object] = {
        f"server.{n}": f"127.0.0.1:{quorum}:{election}:participant;127.0.0.1:{client}"
        for n, (client, quorum, election) in ports.items()
    }
    servers["server.4"] = str(servers["server.4"]).replace("participant", "observer")
    configs = {}
    for number in ports:
        data = place.folder / f"z{number}"
        data.mkdir()
        (data / "myid").write_text(f"{number}\n")
        lines = {"dataDir": data, "clientPort": None, "initLimit": 20, "syncLimit": 10}
        configs[number] = place.write(f"z{number}.cfg", **lines, **servers)
    # And one whose list is in a file of its own.
    dynamic = place.folder / "conf" / "z3.cfg.dynamic"
    dynamic.write_text("".join(f"{key}={value}\n" for key, value in servers.items()))
    lines = {"dataDir": place.folder / "z3", "clientPort": None, "initLimit": 20, "syncLimit": 10}
    configs[3] = place.write("z3.cfg", dynamicConfigFile=dynamic, **lines)
    return configs


def test_the_modes_of_an_ensemble(place: Place) -> None:
    configs = write_ensemble(place)
    for number, config in configs.items():
        done = place.run("start", str(config), env={"ZOO_LOG_DIR": f"logs{number}"})
        assert done.out == "Starting zookeeper ... STARTED\n", done
    modes: dict[int, str] = {}
    while len(modes) < len(configs):
        for number, config in configs.items():
            done = place.run("status", str(config))
            if done.code == 0:
                modes[number] = done.out.splitlines()[-1]
            else:  # before the first election it says that it is there
                assert "not currently serving requests" in done.out or NO_SERVICE in done.out
    assert modes.pop(4) == "Mode: observer"
    assert sorted(modes.values()) == ["Mode: follower", "Mode: follower", "Mode: leader"]
    looked_up = "Client port not found in static config file. Looking in dynamic config file.\n"
    assert place.run("status", str(configs[3])).out.startswith(looked_up)

    for number in (1, 2, 3):
        done = place.run("stop", str(configs[number]))
        assert done.out == "Stopping zookeeper ... STOPPED\n", done
    # Whoever is left does not serve, and status says so (not that it is not running).
    done = place.run("status", str(configs[4]))
    while done.code == 0:  # until it has noticed
        done = place.run("status", str(configs[4]))
    last = done.out.splitlines()[-1]
    assert (done.code, last) == (1, "This ZooKeeper instance is not currently serving requests")
    assert place.run("stop", str(configs[4])).code == 0


def test_scripts_cluster_and_zkpy_server_see_each_other(place: Place) -> None:
    ports = [free_port() for _ in range(9)]
    servers: dict[str, object] = {
        f"server.{n}": f"127.0.0.1:{ports[n]}:{ports[n + 3]}" for n in (1, 2, 3)
    }
    (place.folder / "conf" / "zoo.cfg").unlink()
    for number in (1, 2, 3):
        lines = {"dataDir": place.folder / f"z{number}", "clientPort": ports[(0, 0, 7, 8)[number]]}
        limits = {"initLimit": 20, "syncLimit": 10, "clientPortAddress": "127.0.0.1"}
        place.write(f"z{number}.cfg", **lines, **limits, **servers)

    def cluster(*words: str) -> str:
        script = [sys.executable, str(PROJECT / "scripts/cluster"), "--conf", "conf"]
        return subprocess.run(
            [*script, *words],
            cwd=place.folder,
            env=place.environment({"PYTHON": sys.executable}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    try:
        assert "leader" in cluster("start")
        pid = (place.folder / "z1" / "zookeeper_server.pid").read_text()
        running = f"Starting zookeeper ... already running as process {pid}.\n"
        assert place.run("start", "z1.cfg").out == running
        assert "Mode: " in place.run("status", "z1.cfg").out
        assert place.run("stop", "z1.cfg").out == "Stopping zookeeper ... STOPPED\n"
        assert re.search("^1 .*stopped$", cluster("status"), re.MULTILINE)
        assert place.run("start", "z1.cfg").out == "Starting zookeeper ... STARTED\n"
        assert "1 runs already" in cluster("start")
    finally:
        assert cluster("stop").count("stopped") == 3
