"""The command line of zkpy-cli: options, then perhaps a command with its arguments.

Source: ZooKeeperMain.MyCommandOptions, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.cli.shell.context import number
from zkpy.cli.shell.table import CliError

DEFAULT_HOSTS: Final = "localhost:2181"
DEFAULT_TIMEOUT_MS: Final = 30_000
EXIT_USAGE: Final = 2

HELP: Final = """Usage: zkpy-cli [option ...] [cmd arg ...]

Without cmd, commands are read from the terminal or from standard input; `help` lists them.

-server HOSTS              host[:port][,host[:port]...][/chroot]; by default localhost:2181
-timeout MS                the session timeout; by default 30000
-r                         accept a server that is read-only for now
-waitforconnection         wait up to the timeout for a connection, not only until all have refused
-client-configuration FILE properties such as zookeeper.client.secure, zookeeper.ssl.*
--json                     results, and events, as JSON, one document a line
--keep-session             leave the session to expire, with its ephemeral nodes
--legacy-events            no zxid in event lines, as before ZooKeeper 3.9
-v                         say on stderr what the client does
-h, -help, --help          this text

Exit status: 0 done; 1 the command failed; 2 the options are wrong; 127 unknown command.

Environment: ZKPY_LEGACY_EVENTS=1, ZKPY_LOG=INFO; CLIENT_JVMFLAGS and JVMFLAGS (only
-Dname=value)."""

_FLAGS: Final = {
    "-r": "read_only",
    "-waitforconnection": "wait",
    "--json": "json",
    "--keep-session": "keep_session",
    "--legacy-events": "legacy_events",
    "-v": "verbose",
    "-h": "help",
    "-help": "help",
    "--help": "help",
}
_VALUES: Final = {"-server": "hosts", "-timeout": "timeout", "-client-configuration": "file"}


class Options:
    """What was asked for; `words` is the command and its arguments, empty for a session."""

    def __init__(self) -> None:
        self.hosts = DEFAULT_HOSTS
        self.timeout = str(DEFAULT_TIMEOUT_MS)
        self.file: str | None = None
        self.read_only = False
        self.wait = False
        self.json = False
        self.keep_session = False
        self.legacy_events = False
        self.verbose = False
        self.help = False
        self.words: list[str] = []
        self.unknown: list[str] = []  # options that nobody knows; they are passed over

    @property
    def quiet(self) -> bool:
        """Whether stdout is for data alone: no banner, and no events of the connection."""
        return self.json or (self.words[:1] == ["export"] and "-" in self.words)

    def timeout_ms(self) -> int:
        """Raises CliError."""
        timeout_ms = number(self.timeout)
        if timeout_ms <= 0:
            raise CliError("-timeout must be more than 0", EXIT_USAGE)
        return timeout_ms


def parse_command_line(arguments: list[str]) -> Options:
    """Raises CliError, with status 2, for an option whose value is missing."""
    options = Options()
    rest = iter(arguments)
    for word in rest:
        if word in _VALUES:
            value = next(rest, None)
            if value is None:
                raise CliError(f"Error: no argument found for option {word}", EXIT_USAGE)
            setattr(options, _VALUES[word], value)
        elif word in _FLAGS:
            setattr(options, _FLAGS[word], True)
        elif word.startswith("-"):
            options.unknown.append(word)
        else:
            options.words = [word, *rest]
    return options
