"""zkpy-cli: reads the command line, runs one command, a script or a session, says how it went.

Source: ZooKeeperMain, zkCli.sh, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from zkpy.cli.shell.console import Console
from zkpy.cli.shell.options import HELP, Options, parse_command_line
from zkpy.cli.shell.table import CliError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkpy.cli.shell.shell import Shell
    from zkpy.client.events import WatchedEvent

EXIT_INTERRUPTED: Final = 130
EXIT_PIPE: Final = 141


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    console = Console()
    try:
        return _main(sys.argv[1:] if arguments is None else arguments, console)
    except CliError as error:
        console.err(str(error))
        return error.status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_PIPE  # the reader has seen enough, as with `head`


def _main(arguments: list[str], console: Console) -> int:
    options = parse_command_line(arguments)
    if options.help:
        console.out(HELP)
        return 0
    for word in options.unknown:
        console.err(f"Unknown option: {word}")
    if not options.quiet:
        console.out(f"Connecting to {options.hosts}")
    if options.verbose or os.environ.get("ZKPY_LOG"):
        log_to_stderr(os.environ.get("ZKPY_LOG") or "INFO")
    shell = make_shell(options, console)
    if options.words:
        from zkpy.cli.shell.oneshot import run_command

        return run_command(shell, options)
    from zkpy.cli.shell.interactive import run_session

    return run_session(shell, options)


def make_shell(options: Options, console: Console) -> Shell:
    """The shell, with what options and properties say about its sessions. Raises CliError."""
    from zkpy.cli.shell.properties import client_properties, reply_limit, ssl_context
    from zkpy.cli.shell.session import Session
    from zkpy.cli.shell.shell import Shell

    properties = client_properties(options.file)
    ssl, limit, timeout_ms = ssl_context(properties), reply_limit(properties), options.timeout_ms()

    def open_session(hosts: str, watcher: Callable[[WatchedEvent], None]) -> Session:
        return Session(
            hosts,
            watcher,
            timeout_ms=timeout_ms,
            read_only=options.read_only,
            wait=options.wait,
            ssl=ssl,
            reply_limit=limit,
        )

    return Shell(
        console,
        open_session,
        options.hosts,
        json=options.json,
        legacy_events=options.legacy_events or bool(os.environ.get("ZKPY_LEGACY_EVENTS")),
    )


def log_to_stderr(level: str) -> None:
    """Show what the client logs. Raises CliError for a level nobody knows."""
    import logging

    try:
        logging.basicConfig(
            level=level.upper(), format="%(asctime)s %(levelname)-5s [%(name)s] %(message)s"
        )
    except ValueError:
        raise CliError(f"no log level: {level}") from None
