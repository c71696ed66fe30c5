"""zkpy-server: what zkServer.sh does. Here the command line, and serving in the foreground.

Source: zkServer.sh, QuorumPeerMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from zkpy.cli.server_files import (
    config_directory,
    config_path,
    properties_of,
    read_environment_files,
    read_file,
)
from zkpy.server.config import ConfigException, config_from_arguments, load_config

if TYPE_CHECKING:
    from zkpy.server.config import Config

COMMANDS: Final = (
    "start", "start-foreground", "stop", "version", "restart", "status", "print-cmd",
)  # fmt: skip
USAGE: Final = f"Usage: zkpy-server [--config <conf-dir>] {{{'|'.join(COMMANDS)}}}"
HELP: Final = f"""{USAGE} [cfg]
       zkpy-server port datadir [ticktime] [maxcnxns]

start             start a server in the background and wait for the outcome
stop              stop it, and wait until it is gone
restart           stop, and start
status            print its mode: standalone, leader, follower, observer or read-only
start-foreground  serve until SIGTERM or SIGINT; the exit code is 0 after a clean stop
version           print the version of ZooKeeper whose behaviour this is
print-cmd         print the command that start would run

cfg               the configuration, by default zoo.cfg. With a slash it is a path; without, it is
                  looked for in <conf-dir>, then in the current directory
--config <dir>    <conf-dir>; by default $ZOOCFGDIR, else ./conf, /etc/zkpy or /etc/zookeeper,
                  whichever first has the file
-Dname=value      a Java system property, such as -Dzookeeper.snapCount=10000; zoo.cfg wins

Environment, also as lines NAME=VALUE in <conf-dir>/zookeeper-env.sh and <conf-dir>/java.env:
ZOOCFGDIR, ZOOCFG; ZOOPIDFILE (<dataDir>/zookeeper_server.pid); ZOO_LOG_DIR (./logs), where start
leaves the output as zookeeper-$USER-server-$HOSTNAME.out; ZOO_LOG_LEVEL (DEBUG, INFO, WARN, ERROR);
SERVER_JVMFLAGS and JVMFLAGS, and for status on a TLS port CLIENT_JVMFLAGS (only -Dname=value);
ZOO_DATADIR_AUTOCREATE_DISABLE."""
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
UPGRADE: Final = "upgrade is not needed: the data format is unchanged since 3.x"


def _split(arguments: list[str]) -> tuple[str | None, list[str], list[str]]:
    """(--config, -D tokens, the words that are left)."""
    config_dir = None
    flags: list[str] = []
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--config":
            config_dir = next(rest, None)
        elif word == "-D":
            flags.append("-D" + next(rest, ""))
        elif word.startswith("-D"):
            flags.append(word)
        else:
            words.append(word)
    return config_dir, flags, words


def start_foreground(config: Config) -> int:
    """Serve until told to stop; returns the exit code."""
    if config.secure_client_port is None and not config.client_port_unification:
        # asyncio imports ssl if it can, which takes 6 ms and 5 MB, and nothing here would use it.
        sys.modules["ssl"] = None  # type: ignore[assignment]
        import asyncio  # noqa: F401 - to be done with it before ssl is back

        del sys.modules["ssl"]
    from zkpy.server.aio.process import run

    return run(config)


def _fail(error: ConfigException) -> int:
    import logging

    from zkpy.server.aio.logs import configure

    configure(None)
    log = logging.getLogger(__name__)
    for level, text in error.messages:
        log.log(level, "%s", text)
    log.error("%s", error.stderr_line)
    print(error.stderr_line, file=sys.stderr)
    log.error("Exiting with code %d", error.exit_code)
    return error.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if not __debug__:
        print("zkpy-server does not run with -O: its assertions guard data", file=sys.stderr)
        return EXIT_USAGE
    config_dir, flags, words = _split(sys.argv[1:] if arguments is None else arguments)
    if "--help" in words or "-h" in words:
        print(HELP)
        return 0
    command = words[0] if words else ""
    if command.isdigit():
        read_environment_files(config_dir)
        return _serve("", words, flags)
    if command == "upgrade":
        print(UPGRADE)
        return 0
    if command not in COMMANDS or len(words) > 2:
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    read_environment_files(config_dir)
    path = config_path(config_dir, words[1] if len(words) > 1 else None)
    announce(path)
    try:
        return run_command(command, path, config_dir, flags)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def announce(path: str) -> None:
    """Say which configuration it is, as each command does first."""
    print(f"Using config: {path}", file=sys.stderr, flush=True)


def run_command(command: str, shown_path: str, config_dir: str | None, flags: list[str]) -> int:
    """Run one of COMMANDS on the configuration at this path; returns the exit code."""
    path = os.path.abspath(shown_path)
    if command == "start-foreground":
        return _serve(path, [], flags)
    if command == "version":
        from zkpy.server.version import BUILT_ON, VERSION

        print(f"Apache ZooKeeper, version {VERSION} {BUILT_ON}")
        return 0
    if command == "print-cmd":
        import shlex

        print(shlex.join(serving_command(path, flags)))
        return 0
    if command == "status":
        from zkpy.cli.status import status

        return status(path, flags)
    from zkpy.cli.daemon import Daemon

    directory = os.path.abspath(config_directory(config_dir, "zoo.cfg"))
    daemon = Daemon(path, serving_command(path, flags), directory)
    if command == "start":
        return daemon.start()
    if command == "stop":
        return daemon.stop()
    announce(shown_path)  # zkServer.sh runs itself, twice
    code = daemon.stop()
    if code:
        return code
    announce(shown_path)
    return daemon.start()


def serving_command(path: str, flags: list[str]) -> list[str]:
    """The command that serves in the foreground, as a process of its own."""
    python = [sys.executable]
    if sys.path[0] not in ("", os.getcwd()):
        python.append("-P")  # what lies in the current directory is not for import, as here
    return [*python, "-m", "zkpy.cli.server", "start-foreground", path, *flags]


def _serve(path: str, words: list[str], flags: list[str]) -> int:
    """Serve as the file `path` says, or, without, as `port datadir ...` on the command line."""
    from zkpy.server.aio.sockets import resolve

    try:
        properties = properties_of(flags)
        if words:
            config = config_from_arguments(words, properties)
        else:
            config = load_config(path, properties=properties, read_file=read_file, resolve=resolve)
    except ConfigException as error:
        return _fail(error)
    from zkpy.server.aio.logs import configure

    configure(config.my_id)
    return start_foreground(config)


if __name__ == "__main__":
    sys.exit(main())
