"""zkpy-cleanup: what zkCleanup.sh does: remove old snapshots, and logs no kept one needs.

Which files may go is decided by persistence/purge.py, as for the server's autopurge.
Source: zkCleanup.sh, PurgeTxnLog, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from zkpy.cli.tools import EXIT_OK, ToolError, medium_date, run
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.purge import MIN_RETAIN_COUNT, purge

USAGE: Final = """\
Usage:
zkpy-cleanup dataLogDir [snapDir] -n count
zkpy-cleanup [--config <conf-dir>] [cfg] -n count
\tdataLogDir -- path to the txn log directory
\tsnapDir -- path to the snapshot directory
\tcount -- the number of old snaps/logs you want to keep, value should be greater than or equal \
to 3
\tcfg -- a configuration, by default zoo.cfg: dataDir and dataLogDir are taken from it
\t--dry-run -- only say what would be removed"""
EXIT_USAGE: Final = 1
VERSION_2: Final = "version-2"


class UsageError(ToolError):
    """The usage on stdout, and the message, if there is one, on stderr."""

    def __init__(self, message: str) -> None:
        super().__init__(message, EXIT_USAGE)


class Arguments:
    """The command line, sorted."""

    def __init__(self, words: list[str]) -> None:
        self.words: list[str] = []
        self.count: str | None = None
        self.config_dir: str | None = None
        self.dry_run = False
        rest = iter(words)
        for word in rest:
            if word == "-n":
                self.count = next(rest, None)
            elif word == "--config":
                self.config_dir = next(rest, None)
            elif word == "--dry-run":
                self.dry_run = True
            elif word.startswith("-"):
                raise UsageError("")
            else:
                self.words.append(word)


def directories(arguments: Arguments) -> tuple[str, str]:
    """(dataLogDir, snapDir): those given, else those of a configuration. Raises UsageError."""
    words = arguments.words
    if len(words) == 1 and not os.path.isdir(words[0]):
        # A file, or a bare name that is one in the directory of configurations.
        if os.path.isfile(words[0]) or words[0].endswith(".cfg"):
            return configured(arguments.config_dir, words[0])
    if not words:
        return configured(arguments.config_dir, None)
    if len(words) > 2 or arguments.config_dir is not None:
        raise UsageError("")
    for path in words:
        if not os.path.exists(path):
            raise UsageError(f"Path '{os.path.abspath(path)}' does not exist. ")
    return words[0], words[-1]


def configured(config_dir: str | None, name: str | None) -> tuple[str, str]:
    """(dataLogDir, dataDir) of a configuration, of which nothing else has to be right."""
    from zkpy.cli.server_files import config_path, read_environment_files, read_file
    from zkpy.protocol.properties import load_properties

    read_environment_files(config_dir)
    path = config_path(config_dir, name)
    text = read_file(path)
    if text is None:
        raise UsageError(f"{path} file is missing")
    settings = load_properties(text)
    data_dir = settings.get("dataDir", "").strip()
    if not data_dir:
        raise UsageError(f"dataDir is not set in {path}")
    log_dir = settings.get("dataLogDir", "").strip() or data_dir
    for directory in (log_dir, data_dir):
        if not os.path.exists(directory):
            raise UsageError(f"Path '{os.path.abspath(directory)}' does not exist. ")
    return log_dir, data_dir


def count_of(text: str) -> int:
    """How many snapshots to keep. Raises UsageError."""
    try:
        count = int(text)
    except ValueError:
        raise UsageError(f"'{text}' can not be parsed to integer.") from None
    if count < MIN_RETAIN_COUNT:
        raise UsageError(f"count should be greater than or equal to {MIN_RETAIN_COUNT}")
    return count


class TellingDisk(OsDisk):
    """Says which file it is about to remove; with `dry_run` it only says so."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run

    def remove(self, path: str) -> None:
        verb = "Would remove" if self._dry_run else "Removing"
        try:
            date = medium_date(int(os.stat(path).st_mtime * 1000))
        except OSError:
            date = "?"  # gone since it was listed; removing it says so
        print(f"{verb} file: {date}\t{path}", flush=True)
        if not self._dry_run:
            super().remove(path)


def clean(log_dir: str, snap_dir: str, count: int, *, dry_run: bool) -> None:
    """Remove what may go. Raises DiskError."""
    logs, snapshots = (os.path.join(path, VERSION_2) for path in (log_dir, snap_dir))
    for path in dict.fromkeys((logs, snapshots)):
        if not os.path.isdir(path):
            # Nothing was written yet, or another directory is meant. No reason to fail a cron job.
            print(f"{path} does not exist: there is nothing to remove", file=sys.stderr)
            return
    purge(TellingDisk(dry_run=dry_run), snapshots, logs, count)


def _main(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(USAGE)
        return EXIT_OK
    try:
        arguments = Arguments(words)
        if arguments.count is None:
            raise UsageError("")
        # In the order in which PurgeTxnLog looks.
        log_dir, snap_dir = directories(arguments)
        count = count_of(arguments.count)
    except UsageError as error:
        print(USAGE)
        if str(error):
            raise
        return EXIT_USAGE
    clean(log_dir, snap_dir, count, dry_run=arguments.dry_run)
    return EXIT_OK


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_main, arguments)


if __name__ == "__main__":
    sys.exit(main())
