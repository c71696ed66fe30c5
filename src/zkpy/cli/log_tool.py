"""zkpy-log: dump, verify and recover transaction logs; also takes what TxnLogToolkit takes.

Source of the second form and of the text: TxnLogToolkit, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zkpy.cli.log_records import (
    CHECKSUM,
    GOOD,
    TORN,
    Entry,
    LogDisk,
    LogFile,
    Sequence,
    is_log_name,
)
from zkpy.cli.tools import (
    EXIT_DAMAGE,
    EXIT_OK,
    EXIT_USAGE,
    Progress,
    ToolError,
    complain,
    for_terminal,
    moment_ms,
    number,
    run,
)
from zkpy.cli.txn_text import (
    header_object,
    header_text,
    paths_of,
    txn_line,
    txn_object,
)
from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.files import log_zxid
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import TxnHeader, decode_txn

if TYPE_CHECKING:
    import argparse

    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import TxnDigest

USAGE: Final = """\
usage: zkpy-log {dump|verify|recover} [options] FILE...     (zkpy-log COMMAND --help)
       zkpy-log [-dhrvc] <txn_log_file_name> (-z <zxid>)    as TxnLogToolkit
 -c,--chop         Chop mode. Chop txn file to a zxid.
 -d,--dump         Dump mode. Dump all entries of the log file with printing the content of a \
nodepath (default)
 -h,--help         Print help message
 -r,--recover      Recovery mode. Re-calculate CRC for broken entries.
 -v,--verbose      Be verbose in recovery mode: print all entries, not just fixed ones.
 -y,--yes          Non-interactive mode: repair all CRC errors without asking
 -z,--zxid <arg>   Used with chop. Zxid to which to chop."""
DESCRIPTION: Final = (
    "Reads transaction logs of zkpy and Apache ZooKeeper, never writes to them. The exit code is 1 "
    "where a log is damaged; file, offset and reason are on stderr then."
)
NO_END_MARK: Final = "Last transaction was partial."


class Filter(NamedTuple):
    """Which txns to print: those for which all conditions hold. Bounds are inclusive."""

    paths: tuple[str, ...] = ()
    sessions: tuple[int, ...] = ()
    first_zxid: int = -(1 << 63)
    last_zxid: int = (1 << 63) - 1
    since_ms: int = -(1 << 63)
    until_ms: int = (1 << 63) - 1

    def accepts(self, header: TxnHeader, record: Record | None) -> bool:
        """Whether to print it. `record` is None where it cannot be read."""
        if not self.first_zxid <= header.zxid <= self.last_zxid:
            return False
        if not self.since_ms <= header.time <= self.until_ms:
            return False
        if self.sessions and header.client_id not in self.sessions:
            return False
        if not self.paths:
            return True
        return record is not None and any(map(self._is_below, paths_of(record)))

    def _is_below(self, path: str) -> bool:
        return any(path == top or path.startswith(f"{top}/") for top in self.paths)


class Decoded(NamedTuple):
    """A txn as far as it can be read; `header` is None if not even that."""

    header: TxnHeader | None
    record: Record | None
    digest: TxnDigest | None
    problem: str


def decode(txn: bytes) -> Decoded:
    """Read a txn that may be damaged."""
    try:
        header, record, digest = decode_txn(txn)
    except DecodeError as error:
        try:
            header = TxnHeader.decode(txn)[0]
        except DecodeError:
            return Decoded(None, None, None, str(error))
        return Decoded(header, None, None, str(error))
    return Decoded(header, record, digest, "")


def entry_line(decoded: Decoded) -> str:
    """The txn on a line, as far as it can be read, without the line's end."""
    if decoded.header is None:
        return f"unreadable: {decoded.problem}"
    if decoded.record is None:
        return f"{header_text(decoded.header)} unreadable: {decoded.problem}"
    return txn_line(decoded.header, decoded.record).removesuffix("\n")


def write_line(text: str) -> None:
    """Print a line of data."""
    sys.stdout.write(for_terminal(text) + "\n")


def report(path: str, offset: int, reason: str) -> None:
    """Say on stderr what is wrong, and where."""
    complain(str(CorruptFile(path, reason, offset)))


# ---------------------------------------------------------------------- files


def log_paths(arguments: list[str]) -> list[str]:
    """The files meant: those given, and the logs of directories, oldest first. Raises ToolError."""
    found = []
    for path in arguments:
        if not os.path.isdir(path):
            found.append(path)
            continue
        directory = path
        if not any(map(is_log_name, os.listdir(path))):
            directory = os.path.join(path, "version-2")  # a dataDir
        names = os.listdir(directory) if os.path.isdir(directory) else []
        logs = sorted((_start(name), name) for name in names if is_log_name(name))
        if not logs:
            raise ToolError(f"no transaction log in {path}")
        found += [os.path.join(directory, name) for _, name in logs]
    return found


def _start(name: str) -> int:
    return log_zxid(".".join(name.split(".")[:2])) or 0


def open_log(disk: LogDisk, path: str) -> LogFile:
    """Raises ToolError with TxnLogToolkit's messages, and CorruptFile."""
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise ToolError(f"File doesn't exist or not readable: {path}")
    try:
        return LogFile(disk, path)
    except CorruptFile as error:
        if error.reason.startswith("Invalid magic number"):
            raise ToolError(
                f"Invalid magic number for {os.path.basename(path)}\n{error}", EXIT_USAGE
            ) from None
        raise


def banner(log: LogFile) -> str:
    """The line that begins a dump."""
    return (
        f"ZooKeeper Transactional Log File with dbid {log.dbid} txnlog format version {log.version}"
    )


# ---------------------------------------------------------------------- dump


def dump_text(log: LogFile, wanted: Filter | None = None) -> int:
    """Print a log as TxnLogToolkit does; returns how many problems there were."""
    write_line(banner(log))
    count = shown = problems = 0
    for entry in log.entries():
        if entry.txn is None:
            problems += 1
            if entry.kind != TORN:
                size = entry.end - entry.offset
                write_line(f"DAMAGED - {size} bytes at offset {entry.offset}: {entry.problem}")
            _report_entry(log, entry)
            continue
        count += 1
        decoded = decode(entry.txn)
        if _is_wanted(wanted, decoded):
            shown += 1
            line = entry_line(decoded)
            if entry.kind == CHECKSUM:
                write_line(f"CRC ERROR - {line}")
            write_line(line)
        if entry.problem or decoded.problem:
            problems += 1
            _report_entry(log, entry, decoded.problem)
    of_them = f", {shown} of them shown" if wanted and wanted != Filter() else ""
    write_line(f"EOF reached after {count} txns{of_them}.")
    return problems


def _report_entry(log: LogFile, entry: Entry, problem: str = "") -> None:
    if "no end mark" in entry.problem:
        complain(NO_END_MARK)
    report(log.path, entry.offset, entry.problem or problem)


def _is_wanted(wanted: Filter | None, decoded: Decoded) -> bool:
    if wanted is None or decoded.header is None:
        return True
    return wanted.accepts(decoded.header, decoded.record)


def dump_json(log: LogFile, wanted: Filter) -> int:
    """Print a log as one JSON object a line; returns how many problems there were."""
    from json import dumps

    problems = 0
    for entry in log.entries():
        decoded = decode(entry.txn) if entry.txn is not None else None
        problem = entry.problem or (decoded.problem if decoded else "")
        if problem:
            problems += 1
            report(log.path, entry.offset, problem)
        if decoded is None or _is_wanted(wanted, decoded):
            found = _json_object(log, entry, decoded, problem)
            sys.stdout.write(dumps(found, ensure_ascii=False) + "\n")
    return problems


def _json_object(
    log: LogFile, entry: Entry, decoded: Decoded | None, problem: str
) -> dict[str, Any]:
    found: dict[str, Any] = {"file": log.path, "offset": entry.offset}
    if problem:
        found["problem"] = problem
        found["bytes"] = entry.end - entry.offset
    if decoded is None or decoded.header is None:
        return found
    if decoded.record is None:
        return found | header_object(decoded.header)
    return found | txn_object(decoded.header, decoded.record, decoded.digest)


def dump_command(options: argparse.Namespace) -> int:
    wanted = Filter(
        tuple(path.rstrip("/") for path in options.path),
        tuple(options.session),
        options.from_zxid if options.zxid is None else options.zxid,
        options.to_zxid if options.zxid is None else options.zxid,
        options.since,
        options.until,
    )
    disk = LogDisk(Progress(prints=True))
    problems = 0
    for path in log_paths(options.file):
        log = open_log(disk, path)
        problems += dump_json(log, wanted) if options.json else dump_text(log, wanted)
    return EXIT_DAMAGE if problems else EXIT_OK


# ---------------------------------------------------------------------- verify


def verify_command(options: argparse.Namespace) -> int:
    disk = LogDisk(Progress())
    sequence = Sequence()
    problems = 0
    before = ("", -1)
    for path in log_paths(options.file):
        directory, name = os.path.split(path)
        start = _start(name) if is_log_name(name) else -1
        if directory != before[0] or start <= before[1]:
            sequence = Sequence()  # not what follows the one before
        before = (directory, start)
        try:
            problems += verify(open_log(disk, path), sequence)
        except CorruptFile as error:
            problems += 1
            disk.progress.clear()
            report(path, error.offset or 0, error.reason)
    return EXIT_DAMAGE if problems else EXIT_OK


def verify(log: LogFile, sequence: Sequence) -> int:
    """Read all of a log and say what is wrong; returns how many problems there were."""
    count = 0
    first = last = None
    problems: list[tuple[int, str]] = []
    for entry in log.entries():
        reason = entry.problem
        if entry.kind == TORN:
            reason += " (a server passes it over: it was never acknowledged)"
        zxid = entry.zxid
        if entry.kind == GOOD:
            assert entry.txn is not None
            assert zxid is not None, "FileReader lets none pass that is too short for a header"
            count += 1
            last = zxid
            first = last if first is None else first
            reason = decode(entry.txn).problem or sequence.problem(last)
        elif zxid is not None:
            sequence.damaged(zxid)
        if reason:
            problems.append((entry.offset, reason))
    log.disk.progress.clear()
    for offset, reason in problems:
        report(log.path, offset, reason)
    span = f", zxid {first:#x} to {last:#x}" if first is not None else ""
    found = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    write_line(f"{log.path}: {count} good txns{span}, {found if problems else 'checksums fit'}")
    return len(problems)


# ---------------------------------------------------------------------- the command line


def date(text: str) -> int:
    """ms since 1970. Raises ValueError; argparse shows this function's name then."""
    return moment_ms(text)


def parser() -> argparse.ArgumentParser:
    """The commands; TxnLogToolkit's form is not among them."""
    import argparse

    top = argparse.ArgumentParser("zkpy-log", description=DESCRIPTION)
    commands = top.add_subparsers(required=True)
    files = "a log, or a directory: all logs in it"

    dump = commands.add_parser("dump", help="print txns as text or JSON")
    dump.add_argument("file", nargs="+", help=files)
    dump.add_argument("--json", action="store_true", help="an object a line, with the same fields")
    default = Filter()
    dump.add_argument(
        "--path", action="append", default=[], help="only txns of this znode and those below"
    )
    dump.add_argument(
        "--session", action="append", default=[], type=number, help="only of this session (0x...)"
    )
    dump.add_argument("--zxid", type=number, help="only this one")
    dump.add_argument("--from-zxid", type=number, default=default.first_zxid, metavar="ZXID")
    dump.add_argument("--to-zxid", type=number, default=default.last_zxid, metavar="ZXID")
    time_help = "as 2026-11-22T13:10:33, with Z or an offset for other zones, or ms since 1970"
    dump.add_argument(
        "--since", type=date, default=default.since_ms, metavar="TIME", help=time_help
    )
    dump.add_argument("--until", type=date, default=default.until_ms, metavar="TIME")
    dump.set_defaults(command=dump_command)

    verify_ = commands.add_parser("verify", help="check checksums, records and their order")
    verify_.add_argument("file", nargs="+", help=files)
    verify_.set_defaults(command=verify_command)

    from zkpy.cli.log_recover import add_recover

    add_recover(commands)
    return top


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("dump", "verify", "recover"):
        options = parser().parse_args(arguments)
        command: Any = options.command
        return int(command(options))
    from zkpy.cli.log_toolkit import toolkit

    return toolkit(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(_main, arguments)


if __name__ == "__main__":
    sys.exit(main())
