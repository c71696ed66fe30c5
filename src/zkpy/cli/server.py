"""zkpy-server: what zkServer.sh does, as far as the foreground goes.

    zkpy-server [--config DIR] start-foreground [CFG] [-Dname=value ...]
    zkpy-server PORT DATADIR [TICKTIME] [MAXCLIENTCNXNS]
    zkpy-server version | print-cmd

Source: zkServer.sh, QuorumPeerMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Final

from zkpy.server.config import (
    ConfigException,
    config_from_arguments,
    load_config,
    properties_from_flags,
)

if TYPE_CHECKING:
    from zkpy.server.config import Config

USAGE: Final = (
    "Usage: zkpy-server [--config <conf-dir>] {start-foreground|version|print-cmd} [cfg]\n"
    "       zkpy-server port datadir [ticktime] [maxcnxns]"
)
EXIT_USAGE: Final = 2


def read_file(path: str) -> str | None:
    """The text of a file, in the encoding of Java properties; None if there is no such file."""
    if not os.path.isfile(path):
        return None
    with open(path, encoding="iso-8859-1") as file:
        return file.read()


def config_path(config_dir: str | None, name: str | None) -> str:
    """Which file is meant, by the rules of zkServer.sh; a bare name may also be here."""
    name = name or os.environ.get("ZOOCFG") or "zoo.cfg"
    if "/" in name:
        return os.path.abspath(name)
    directory = config_dir or os.environ.get("ZOOCFGDIR")
    if directory is None:
        places = ("conf", "/etc/zkpy", "/etc/zookeeper")
        directory = next((p for p in places if os.path.isfile(os.path.join(p, name))), "conf")
    path = os.path.join(directory, name)
    if not os.path.isfile(path) and os.path.isfile(name):
        path = name
    return os.path.abspath(path)


def properties_of(arguments: list[str]) -> dict[str, str]:
    """Java system properties: of SERVER_JVMFLAGS, JVMFLAGS and the command line; the last wins."""
    tokens: list[str] = []
    for variable in ("SERVER_JVMFLAGS", "JVMFLAGS"):
        tokens += shlex.split(os.environ.get(variable, ""))
    properties = properties_from_flags(tokens + arguments)
    if os.environ.get("ZOO_DATADIR_AUTOCREATE_DISABLE"):
        properties["zookeeper.datadir.autocreate"] = "false"
    return properties


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
    from zkpy.server.aio import main as server

    return server.run(config)


def _fail(error: ConfigException) -> int:
    import logging

    from zkpy.server.aio.logs import configure

    configure(None)
    for level, text in error.messages:
        logging.getLogger(__name__).log(level, "%s", text)
    print(error.stderr_line, file=sys.stderr)
    return error.exit_code


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if not __debug__:
        print("zkpy-server does not run with -O: its assertions guard data", file=sys.stderr)
        return EXIT_USAGE
    config_dir, flags, words = _split(sys.argv[1:] if arguments is None else arguments)
    if not words or "--help" in words:
        print(USAGE, file=sys.stderr)
        return 0 if words else EXIT_USAGE
    properties = properties_of(flags)
    command = words[0]
    if command == "version":
        from zkpy.server.version import zookeeper_version_text

        print(f"Apache ZooKeeper, version {zookeeper_version_text()}")
        return 0
    if command == "print-cmd":
        path = config_path(config_dir, words[1] if len(words) > 1 else None)
        command_line = [sys.executable, "-m", "zkpy.cli.server", "start-foreground", path, *flags]
        print(shlex.join(command_line))
        return 0
    try:
        if command == "start-foreground":
            path = config_path(config_dir, words[1] if len(words) > 1 else None)
            print(f"Using config: {path}", file=sys.stderr)
            config = load_config(path, properties=properties, read_file=read_file)
        elif command.isdigit():
            config = config_from_arguments(words, properties)
        else:
            print(USAGE, file=sys.stderr)
            return EXIT_USAGE
    except ConfigException as error:
        return _fail(error)
    if config.quorum_mode:
        print("zkpy-server: this version serves standalone only", file=sys.stderr)
        return 1
    from zkpy.server.aio.logs import configure

    configure(config.my_id)
    return start_foreground(config)


if __name__ == "__main__":
    sys.exit(main())
