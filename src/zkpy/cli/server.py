"""zkpy-server: what zkServer.sh does, as far as the foreground goes.

Source: zkServer.sh, QuorumPeerMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
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
HELP: Final = f"""{USAGE}

start-foreground  serve until SIGTERM or SIGINT; the exit code is 0 after a clean stop
version           print the version of ZooKeeper whose behaviour this is
print-cmd         print the command that start-foreground would run

cfg               the configuration, by default zoo.cfg. With a slash it is a path; without, it is
                  looked for in <conf-dir>, then in the current directory
--config <dir>    <conf-dir>; by default $ZOOCFGDIR, else ./conf, /etc/zkpy or /etc/zookeeper,
                  whichever first has the file
-Dname=value      a Java system property, such as -Dzookeeper.snapCount=10000; zoo.cfg wins

Environment, also as lines NAME=VALUE in <conf-dir>/zookeeper-env.sh and <conf-dir>/java.env:
ZOOCFGDIR, ZOOCFG, ZOO_LOG_LEVEL (DEBUG, INFO, WARN, ERROR), SERVER_JVMFLAGS and JVMFLAGS (only
-Dname=value), ZOO_DATADIR_AUTOCREATE_DISABLE."""
EXIT_USAGE: Final = 2
# Words of zkServer.sh that name something else than serving in the foreground.
UPGRADE: Final = "upgrade is not needed: the data format is unchanged since 3.x"


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
    path = os.path.join(config_directory(config_dir, name), name)
    if not os.path.isfile(path) and os.path.isfile(name):
        path = name
    return os.path.abspath(path)


def config_directory(config_dir: str | None, name: str) -> str:
    """The directory of configurations: the one given, else the first usual one that has `name`."""
    directory = config_dir or os.environ.get("ZOOCFGDIR")
    if directory is None:
        places = ("conf", "/etc/zkpy", "/etc/zookeeper")
        directory = next((p for p in places if os.path.isfile(os.path.join(p, name))), "conf")
    return directory


def read_environment_files(config_dir: str | None) -> None:
    """Take over what zookeeper-env.sh and java.env set, where they exist."""
    directory = config_directory(config_dir, "zoo.cfg")
    for name in ("zookeeper-env.sh", "java.env"):
        text = read_file(os.path.join(directory, name))
        if text is not None:
            from zkpy.cli.environment_files import variables_of  # rare, so loaded where needed

            os.environ.update(variables_of(text, os.environ))


def properties_of(arguments: list[str]) -> dict[str, str]:
    """Java system properties: of SERVER_JVMFLAGS, JVMFLAGS and the command line; the last wins.

    Raises ConfigException for flags whose quotes do not match.
    """
    tokens: list[str] = []
    for variable in ("SERVER_JVMFLAGS", "JVMFLAGS"):
        flags = os.environ.get(variable)
        if flags:
            import shlex  # its import takes a while, and mostly there are no flags

            try:
                tokens += shlex.split(flags)
            except ValueError as error:
                raise ConfigException(f"{variable}={flags}: {error}") from None
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
    read_environment_files(config_dir)
    command = words[0] if words else ""
    name = words[1] if len(words) > 1 else None
    if command == "version":
        from zkpy.server.version import BUILT_ON, VERSION

        print(f"Apache ZooKeeper, version {VERSION} {BUILT_ON}")
    elif command == "upgrade":
        print(UPGRADE)
    elif command == "print-cmd" and len(words) <= 2:
        print_command(config_path(config_dir, name), flags)
    elif command == "start-foreground" and len(words) <= 2:
        return _serve(config_path(config_dir, name), [], flags)
    elif command.isdigit():
        return _serve("", words, flags)
    else:
        print(USAGE, file=sys.stderr)
        return EXIT_USAGE
    return 0


def print_command(path: str, flags: list[str]) -> None:
    """Print what start-foreground would run."""
    import shlex

    module = ["-m", "zkpy.cli.server", "start-foreground", path]
    print(shlex.join([sys.executable, *module, *flags]))


def _serve(path: str, words: list[str], flags: list[str]) -> int:
    """Serve as the file `path` says, or, without, as `port datadir ...` on the command line."""
    from zkpy.server.aio.sockets import resolve

    try:
        properties = properties_of(flags)
        if words:
            config = config_from_arguments(words, properties)
        else:
            print(f"Using config: {path}", file=sys.stderr)
            config = load_config(path, properties=properties, read_file=read_file, resolve=resolve)
    except ConfigException as error:
        return _fail(error)
    from zkpy.server.aio.logs import configure

    configure(config.my_id)
    return start_foreground(config)


if __name__ == "__main__":
    sys.exit(main())
