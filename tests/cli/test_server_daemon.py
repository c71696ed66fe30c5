"""zkpy-server start, stop, restart: words, exit codes, the pid file; with stand-ins for a server.

What zkServer.sh says is in tests/golden/cli/zkServer-3.9.5.txt.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.cli import daemon, pid_file, server
from zkpy.cli.daemon import Daemon
from zkpy.cli.pid_file import PidFile, is_alive, parse_pid

READY = "import os, signal, sys; os.write(int(os.environ['ZKPY_READY_FD']), b'x'); "
WAITS = READY + "print('serving', flush=True); signal.pause()"
FAILS = (
    "import sys; print('2026-11-25 03:51:47,846 [myid:] - ERROR [main:x@1] - no');"
    " sys.exit('Invalid config, exiting abnormally: no')"
)
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *words]


class Place:
    """A folder with a configuration, where stand-ins are started."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.config = folder / "zoo.cfg"
        self.config.write_text(f"dataDir={folder}/data\nclientPort=2181\n")
        self.pid_file = folder / "data" / "zookeeper_server.pid"
        self.output = folder / "logs" / "zookeeper-zk-server-host1.out"
        self.err = ""

    def daemon(self, code: str = WAITS) -> Daemon:
        return Daemon(str(self.config), python(code), "conf")

    def said(self, code: int) -> tuple[int, str]:
        """The exit code and stdout; stderr is left in `err`."""
        captured = self.capsys.readouterr()
        self.err = captured.err
        return code, captured.out

    def start(self, code: str = WAITS) -> tuple[int, str]:
        return self.said(self.daemon(code).start())

    def stop(self) -> tuple[int, str]:
        return self.said(self.daemon().stop())

    def pid(self) -> int:
        return int(self.pid_file.read_text())


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    for name in os.environ.keys() & {"ZOOPIDFILE", "ZOO_DATADIR_AUTOCREATE_DISABLE", "ZOOCFGDIR"}:
        monkeypatch.delenv(name)
    for name, value in {"USER": "zk", "HOSTNAME": "host1", "ZOO_LOG_DIR": "logs"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    found = Place(tmp_path, capsys)
    yield found
    for path in tmp_path.rglob("*.pid"):
        pid = parse_pid(path.read_text())
        if pid is not None and pid != os.getpid() and is_alive(pid):
            os.kill(pid, signal.SIGKILL)


STARTED = (0, "Starting zookeeper ... STARTED\n")
STOPPED = (0, "Stopping zookeeper ... STOPPED\n")


def test_from_start_to_stop(place: Place) -> None:
    missing = f"no zookeeper to stop (could not find file {place.pid_file})"
    assert place.stop() == (0, f"Stopping zookeeper ... {missing}\n")
    assert not (place.folder / "data").exists()

    assert place.start() == STARTED
    pid = place.pid()
    assert is_alive(pid)
    assert place.pid_file.read_bytes() == b"%d" % pid, "and no end of line"
    assert os.getsid(pid) == pid != os.getsid(0), "a session of its own: no hangup reaches it"
    running = f"already running as process {pid}."
    assert place.start(FAILS) == (1, f"Starting zookeeper ... {running}\n")
    assert (place.pid(), is_alive(pid)) == (pid, True)

    assert place.stop() == STOPPED
    assert not is_alive(pid)
    assert not place.pid_file.exists()
    assert place.stop() == (0, f"Stopping zookeeper ... {missing}\n")


def test_output_goes_to_a_file_that_each_start_begins_anew(place: Place) -> None:
    place.output.parent.mkdir()
    place.output.write_text("of an earlier start\n")
    code = WAITS.replace("'serving'", "sys.stdin.read(), os.getcwd(), os.environ['ZOOCFGDIR']")
    assert place.start(code) == STARTED
    deadline = time.monotonic() + 10
    while not place.output.read_text().endswith("\n"):
        assert time.monotonic() < deadline
        os.sched_yield()
    assert place.output.read_text() == f" {place.folder} conf\n"
    assert len(os.listdir(f"/proc/{place.pid()}/fd")) == 4, "three, and the one to say it is ready"
    place.stop()


def test_a_server_that_ends_has_failed_and_its_reason_is_told(place: Place) -> None:
    assert place.start(FAILS) == (1, "Starting zookeeper ... FAILED TO START\n")
    assert place.err == "Invalid config, exiting abnormally: no\n"
    # As there, the file stays behind; it hinders nobody.
    pid = place.pid()
    assert place.stop() == STOPPED
    assert place.err == f"zkpy-server: kill: ({pid}) - No such process\n"
    assert not place.pid_file.exists()
    place.start(FAILS)
    assert place.start() == STARTED


def test_a_server_that_ends_without_a_word(place: Place) -> None:
    assert place.start("raise SystemExit(1)")[0] == 1
    output = place.output.relative_to(place.folder)
    assert place.err == f"zkpy-server: it ended without a word; its output is in {output}\n"


def test_one_that_takes_long_counts_as_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "START_WAIT_S", 0.01)
    assert place.start("import signal; signal.pause()") == STARTED


def test_a_pid_file_that_cannot_be_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOPIDFILE", f"{place.config}/zk.pid")
    assert place.start() == (1, "Starting zookeeper ... FAILED TO WRITE PID\n")
    assert place.err.startswith(f"zkpy-server: {place.config}/zk.pid: ")
    assert not place.output.exists(), "nothing was started"


def test_a_pid_file_on_a_full_disk_ends_what_was_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def full(_file: PidFile, _pid: int) -> None:
        raise OSError(28, "No space left on device")

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(PidFile, "write", full)
    assert place.start() == (1, "Starting zookeeper ... FAILED TO WRITE PID\n")
    assert place.err == f"zkpy-server: {place.pid_file}: No space left on device\n"
    assert started[0].wait() == -signal.SIGTERM


def test_a_command_that_cannot_be_run(place: Place) -> None:
    broken = Daemon(str(place.config), [f"{place.folder}/nothing"], "conf")
    assert place.said(broken.start()) == (1, "Starting zookeeper ... SERVER DID NOT START\n")
    assert place.err == f"zkpy-server: {place.folder}/nothing: No such file or directory\n"
    assert not place.pid_file.exists()


def test_an_output_that_cannot_be_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_LOG_DIR", f"{place.config}/logs")
    assert place.start() == (1, "Starting zookeeper ... FAILED TO START\n")
    assert place.err.startswith(f"zkpy-server: {place.config}/logs/zookeeper-zk-server-host1.out: ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "PATH file is missing"),
        ("dataDir=\\u00", "Malformed \\uxxxx encoding."),
        ("clientPort=1\n", "dataDir is not set"),
    ],
)
def test_a_configuration_that_cannot_be_read(
    place: Place, monkeypatch: pytest.MonkeyPatch, text: str | None, reason: str
) -> None:
    if text is None:
        place.config.unlink()
    else:
        place.config.write_text(text)
    assert place.start() == (1, "Starting zookeeper ... FAILED TO START\n")
    assert place.err.startswith("Invalid config, exiting abnormally: ")
    assert place.err.endswith(reason.replace("PATH", str(place.config)) + "\n")
    assert place.stop() == (1, "Stopping zookeeper ... FAILED TO STOP\n")
    assert place.err.startswith("zkpy-server: no pid file is known: ")
    # One that runs can be stopped all the same, if it is known where its pid file is.
    monkeypatch.setenv("ZOOPIDFILE", "run/zk.pid")
    assert place.stop() == (
        0, "Stopping zookeeper ... no zookeeper to stop (could not find file run/zk.pid)\n",
    )  # fmt: skip


def test_the_pid_file_may_be_elsewhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOPIDFILE", "run/zk.pid")
    assert place.start() == STARTED
    assert is_alive(int(Path("run/zk.pid").read_text()))
    assert place.stop() == STOPPED
    assert os.listdir("run") == []


def test_directories_that_must_be_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_DATADIR_AUTOCREATE_DISABLE", "1")
    place.config.write_text(f"dataDir={place.folder}/data\ndataLogDir={place.folder}/log\n")
    for what, folder in (("data", "data"), ("txnlog", "log")):
        line = (
            f"ZooKeeper {what} directory is missing at {place.folder}/{folder}"
            " fix the path or run initialize\n"
        )
        assert place.start() == place.stop() == (1, line)
        (place.folder / folder / "version-2").mkdir(parents=True)
    assert place.start() == STARTED


# ---------------------------------------------------------------------- that does not die


def test_a_process_that_does_not_die(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "STOP_WAIT_S", 0.05)
    assert place.start(IGNORES) == STARTED
    pid = place.pid()
    assert place.stop() == (1, "Stopping zookeeper ... FAILED TO STOP\n")
    assert f"process {pid} is still there after 0.05 s; kill -9 {pid} ends it" in place.err
    assert (place.pid(), is_alive(pid)) == (pid, True), "it can be tried again"
    # A restart does not start a second one beside it.
    monkeypatch.setenv("ZOOCFGDIR", str(place.folder))
    assert place.said(server.main(["restart"])) == (1, "Stopping zookeeper ... FAILED TO STOP\n")
    os.kill(pid, signal.SIGKILL)
    assert place.stop() == STOPPED


def test_a_suspended_process_is_woken_to_end(place: Place) -> None:
    assert place.start() == STARTED
    os.kill(place.pid(), signal.SIGSTOP)
    assert place.stop() == STOPPED


def test_a_process_of_somebody_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_pid: int, _number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    assert place.start() == STARTED
    pid = place.pid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", forbidden)
        assert place.start() == (
            1, f"Starting zookeeper ... already running as process {pid}.\n",
        )  # fmt: skip
        assert place.stop() == (1, "Stopping zookeeper ... FAILED TO STOP\n")
        assert place.err == f"zkpy-server: kill: ({pid}) - Operation not permitted\n"
    assert place.pid() == pid


# ---------------------------------------------------------------------- stale pid files


@pytest.mark.parametrize("text", ["", "0", "-1", "1 2", "zookeeper", "9" * 30, "4194305", "\udcff"])
def test_what_is_no_number_of_a_process_is_not_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    place.pid_file.parent.mkdir()
    place.pid_file.write_bytes(text.encode("utf-8", "surrogateescape"))
    sent: list[int] = []
    kill = os.kill

    def checked(pid: int, number: int) -> None:
        assert pid > 0
        kill(pid, number)
        sent.append(pid)

    monkeypatch.setattr(os, "kill", checked)
    assert place.stop() == STOPPED
    assert sent == []
    assert "No such process" in place.err
    place.pid_file.write_text(text.encode("ascii", "replace").decode())
    assert place.start() == STARTED


@given(st.text())
def test_parse_pid_gives_a_single_process_or_none(text: str) -> None:
    pid = parse_pid(text)
    assert pid is None or (pid > 0 and pid == int(text))


def test_a_number_that_another_process_has_by_now(place: Place) -> None:
    stranger = subprocess.Popen(python("import signal; signal.pause()"))
    try:
        place.pid_file.parent.mkdir()
        place.pid_file.write_text(str(stranger.pid))
        with PidFile.create(str(place.pid_file)) as file:
            assert file.running() == stranger.pid, "it is as old as the file"
        an_hour_ago = time.time() - 3600
        os.utime(place.pid_file, (an_hour_ago, an_hour_ago))
        assert place.stop() == STOPPED
        assert stranger.poll() is None
        place.pid_file.write_text(str(stranger.pid))
        os.utime(place.pid_file, (an_hour_ago, an_hour_ago))
        assert place.start() == STARTED
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_is_trusted_over_the_clock(place: Place) -> None:
    code = "import signal; signal.pause()"
    other = subprocess.Popen(python(code, "-m", "zkpy.cli.server"))
    try:
        place.pid_file.parent.mkdir()
        place.pid_file.write_text(str(other.pid))
        os.utime(place.pid_file, (0, 0))
        while not pid_file.is_server(other.pid):  # not quite born
            os.sched_yield()
        assert place.start() == (
            1, f"Starting zookeeper ... already running as process {other.pid}.\n",
        )  # fmt: skip
    finally:
        other.kill()
        other.wait()


def test_our_own_number_is_not_the_server(place: Place) -> None:
    place.pid_file.parent.mkdir()
    place.pid_file.write_text(str(os.getpid()))
    assert place.start() == STARTED  # as in a container, where numbers begin anew


def test_a_dead_process_nobody_has_waited_for_is_dead() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid)
    process.wait()
    assert not is_alive(process.pid)


def test_a_running_server_without_a_pid_file(place: Place) -> None:
    other = subprocess.Popen(python("import signal; signal.pause()", "-m", "zkpy.cli.server"))
    try:
        while not pid_file.is_server(other.pid):
            os.sched_yield()
        lock = place.folder / "data" / "version-2" / "zkpy.lock"
        lock.parent.mkdir(parents=True)
        lock.write_text(f"{other.pid}\n")
        assert place.start() == (
            1, f"Starting zookeeper ... already running as process {other.pid}.\n",
        )  # fmt: skip
        assert not place.pid_file.exists()
        os.utime(lock, (0, 0))  # another one's number by now
        assert place.start() == STARTED
    finally:
        other.kill()
        other.wait()


def test_commands_go_one_by_one(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "x.pid")
    assert PidFile.find(path) is None
    code = f"import sys; sys.path.insert(0, {os.path.dirname(pid_file.__file__)!r}); "
    code += f"import pid_file; file = pid_file.PidFile.find({path!r}); print(file.text())"
    with PidFile.create(path) as first:
        waiting = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True)
        # Whatever it has opened by now: it gets the file that has the name in the end.
        first.remove()
        with PidFile.create(path) as second:
            second.write(4711)
            assert first.text() == ""
    assert waiting.communicate()[0] == "4711\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="a rule for root")
def test_root_follows_no_links(place: Place) -> None:
    target = place.folder / "precious"
    target.write_text("precious")
    for link in (place.pid_file, place.output):
        link.parent.mkdir()
        link.symlink_to(target)
        assert place.start()[0] == 1
        assert "Too many levels of symbolic links" in place.err
        link.unlink()
        assert target.read_text() == "precious"


# ---------------------------------------------------------------------- the command line


def test_restart_stops_and_starts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "serving_command", lambda _path, _flags: python(WAITS))
    config = "./zoo.cfg"
    assert place.said(server.main(["start", config])) == STARTED
    assert place.err == f"Using config: {config}\n"
    pid = place.pid()
    assert place.said(server.main(["restart", config])) == (0, STOPPED[1] + STARTED[1])
    assert place.err == f"Using config: {config}\n" * 3, "as zkServer.sh, which runs itself"
    assert not is_alive(pid)
    assert is_alive(place.pid())
    assert place.said(server.main(["stop", config])) == STOPPED


def test_the_command_serves_in_the_foreground(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["-m", "zkpy.cli.server", "start-foreground", "/z.cfg", "-Da=b"]
    monkeypatch.setattr(sys, "path", [str(place.folder)])
    assert server.serving_command("/z.cfg", ["-Da=b"]) == [sys.executable, *words]
    # Not with what happens to lie in the current directory, unless we were ourselves.
    monkeypatch.setattr(sys, "path", ["/usr/bin"])
    assert server.serving_command("/z.cfg", ["-Da=b"]) == [sys.executable, "-P", *words]


def test_an_interrupted_command_ends_quietly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_daemon: Daemon) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Daemon, "start", interrupted)
    assert place.said(server.main(["start", "./zoo.cfg"])) == (130, "")
