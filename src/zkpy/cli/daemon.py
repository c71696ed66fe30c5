"""zkpy-server start, stop and restart: a server in the background, its pid file and its output.

What is said on stdout is what zkServer.sh says; reasons, which it leaves to its log, are on stderr.
Source: zkServer.sh, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from zkpy.cli.pid_file import PidFile, holder_of, is_alive
from zkpy.cli.server_files import missing_directory, output_path, pid_path, read_entries
from zkpy.protocol.config_error import ConfigException
from zkpy.server.aio.ready import READY_FD

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "zkpy-server"
# One that serves later, because it has much to load, counts as started all the same: zkServer.sh
# looks after one second whether the process lives.
START_WAIT_S: Final = 2.0
# zkServer.sh does not wait; the server itself gives up on a hanging disk after 1.5 s.
STOP_WAIT_S: Final = 10.0
STOP_POLL_S: Final = 0.02
REASON_BYTES: Final = 65_536
LOG_LINE: Final = re.compile(r"\d{4}-\d\d-\d\d |Using config: |\s|$")


class Daemon:
    """The server of one configuration file, as it is found in the background."""

    def __init__(self, config_path: str, command: list[str], config_directory: str) -> None:
        """`command` serves in the foreground; `config_directory` is where its java.env is."""
        self.command = command
        self.config_directory = config_directory
        self.output = output_path()
        self.entries: dict[str, str] = {}
        self.unreadable: ConfigException | None = None
        try:
            self.entries = read_entries(config_path)
        except ConfigException as error:
            self.unreadable = error
        self.pid_path = pid_path(self.entries)

    def start(self) -> int:
        """Start it and wait for the outcome; returns the exit code."""
        if self._is_missing():
            return 1
        _say("Starting zookeeper ... ")
        if self.unreadable is not None or self.pid_path is None:
            reason = self.unreadable or ConfigException("dataDir is not set")
            return _end("FAILED TO START", reason.stderr_line)
        existed = os.path.exists(self.pid_path)
        try:
            pid_file = PidFile.create(self.pid_path)
        except OSError as error:
            return _end("FAILED TO WRITE PID", _reason(self.pid_path, error))
        with pid_file:
            pid = pid_file.running() or self._holder_of_data()
            if pid is not None:
                if not existed:
                    pid_file.remove()
                return _end(f"already running as process {pid}.")
            return self._launch(pid_file)

    def _is_missing(self) -> bool:
        text = None if self.unreadable else missing_directory(self.entries)
        if text is not None:
            print(text)
        return text is not None

    def _holder_of_data(self) -> int | None:
        """A server which was started without us, or whose pid file is lost."""
        from zkpy.persistence.store import LOCK  # with much behind it, which stop does not need

        return holder_of(f"{self.entries.get('dataDir', '')}/version-2/{LOCK}")

    def _launch(self, pid_file: PidFile) -> int:
        try:
            output = _open_output(self.output)
        except OSError as error:
            pid_file.remove()
            return _end("FAILED TO START", _reason(self.output, error))
        ready, told = os.pipe()
        with open(ready, "rb", buffering=0) as pipe:
            try:
                with open(output, "wb") as file:
                    process = subprocess.Popen(
                        self.command,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=file,
                        start_new_session=True,  # the end of a terminal is not its end
                        pass_fds=(told,),
                        env={
                            **os.environ,
                            READY_FD: str(told),
                            "ZOOCFGDIR": self.config_directory,
                        },
                    )
            except OSError as error:
                pid_file.remove()
                return _end("SERVER DID NOT START", _reason(self.command[0], error))
            finally:
                os.close(told)
            try:
                pid_file.write(process.pid)
            except OSError as error:
                process.terminate()  # else nobody would know of it
                return _end("FAILED TO WRITE PID", _reason(pid_file.path, error))
            if _has_started(process, pipe.fileno()):
                return _end("STARTED", code=0)
        # As in zkServer.sh the pid file stays, and the next start or stop finds it stale.
        return _end("FAILED TO START", reason_in(self.output))

    def stop(self) -> int:
        """Stop it and wait until it is gone; returns the exit code."""
        if self._is_missing():
            return 1
        _say("Stopping zookeeper ... ")
        if self.pid_path is None:
            reason = self.unreadable or "dataDir is not set"
            return _end("FAILED TO STOP", f"{NAME}: no pid file is known: {reason}")
        try:
            pid_file = PidFile.find(self.pid_path)
            if pid_file is None:
                return _end(f"no zookeeper to stop (could not find file {self.pid_path})", code=0)
            with pid_file:
                return self._end_process(pid_file)
        except OSError as error:
            return _end("FAILED TO STOP", _reason(self.pid_path, error))

    def _end_process(self, pid_file: PidFile) -> int:
        pid = pid_file.running()
        if pid is None:
            pid_file.remove()
            return _end("STOPPED", f"{NAME}: kill: ({pid_file.text()}) - No such process", code=0)
        try:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)  # one that is suspended would not take notice
        except ProcessLookupError:
            pass
        except PermissionError as error:
            return _end("FAILED TO STOP", f"{NAME}: kill: ({pid}) - {error.strerror}")
        if not _wait_until(lambda: not is_alive(pid), STOP_WAIT_S):
            return _end(
                "FAILED TO STOP",
                f"{NAME}: process {pid} is still there after {STOP_WAIT_S:g} s;"
                f" kill -9 {pid} ends it, and no acknowledged write is lost by that",
            )
        pid_file.remove()
        return _end("STOPPED", code=0)


def _open_output(path: str) -> int:
    """Open the output file, emptied; its folder is made. Raises OSError."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # Appending: servers that share a folder would write over each other's lines.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    if os.geteuid() == 0:
        flags |= os.O_NOFOLLOW
    return os.open(path, flags, 0o666)


def _has_started(process: subprocess.Popen[bytes], ready: int) -> bool:
    """Whether it serves, or at least still lives after a while."""
    if select.select([ready], [], [], START_WAIT_S)[0] and not os.read(ready, 1):
        # Its end of the pipe is closed, so it is about to end.
        try:
            process.wait(START_WAIT_S)
        except subprocess.TimeoutExpired:
            pass
    return process.poll() is None


def reason_in(path: str) -> str:
    """Why a server has ended: the last line of its output that was not for the log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - REASON_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        return _reason(path, error)
    told = [line for line in lines if not LOG_LINE.match(line)]
    return told[-1] if told else f"{NAME}: it ended without a word; its output is in {path}"


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(STOP_POLL_S)
    return True


def _say(text: str) -> None:
    print(text, end="", flush=True)


def _end(text: str, reason: str = "", code: int = 1) -> int:
    """End the line on stdout, with the reason on stderr; returns the exit code."""
    print(text, flush=True)
    if reason:
        print(reason, file=sys.stderr)
    return code


def _reason(path: str, error: OSError) -> str:
    return f"{NAME}: {path}: {error.strerror or error}"
