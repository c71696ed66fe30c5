"""zkpy-log recover: from a damaged log to a new one that servers accept.

What is kept has no hole: everything before the first damage. What is dropped is shown before.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import adler32

from zkpy.cli.log_records import CHECKSUM, GOOD, Entry, LogDisk, LogFile, Sequence
from zkpy.cli.log_tool import decode, entry_line, open_log, report, write_line
from zkpy.cli.tools import EXIT_DAMAGE, EXIT_OK, Progress, ToolError
from zkpy.persistence.logreader import MAGIC, RECORD_HEAD

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO

ABORTED: Final = "Recovery aborted."
# Of the txns to be dropped so many are listed, unless all are asked for.
LISTED: Final = 50
# Bytes that wait for one write.
_BUFFER_BYTES: Final = 1 << 20


class NewLog:
    """A log being written, under its own name from the start; removed unless `commit` comes.

    Raises ToolError where there is a file of that name: nothing is ever overwritten.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file: BinaryIO = open(path, "xb", _BUFFER_BYTES)  # noqa: SIM115 - see __exit__
        except OSError:
            raise ToolError(f"Recovery file {path} already exists or not writable") from None
        self._committed = False

    def begin(self, log: LogFile) -> None:
        """Write a header like that of `log`."""
        version = log.version.to_bytes(4, "big", signed=True)
        self._file.write(MAGIC + version + log.dbid.to_bytes(8, "big", signed=True))

    def add(self, txn: bytes, checksum: int | None = None) -> None:
        """Write a record, with the right checksum unless another is given."""
        value = adler32(txn) if checksum is None else checksum
        self._file.write(RECORD_HEAD.pack(value, len(txn)) + txn + b"B")

    def commit(self) -> None:
        """Make it durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._committed = True

    def __enter__(self) -> NewLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
        except OSError:
            if error is None:
                raise
        finally:
            if not self._committed:
                os.unlink(self.path)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ToolError(f"{self.path}: {error.strerror}") from None


class Judged(NamedTuple):
    """An entry, what is wrong about it or "", and whether the new log has it."""

    entry: Entry
    problem: str
    kept: bool


def judge(log: LogFile, fix_checksums: bool) -> Iterator[Judged]:
    """Say of each entry whether it is kept: as long as all before it are."""
    sequence = Sequence()
    keeping = True
    for entry in log.entries():
        problem, ends_it = _judge(entry, sequence, fix_checksums)
        keeping = keeping and not ends_it
        yield Judged(entry, problem, keeping)


def _judge(entry: Entry, sequence: Sequence, fix_checksums: bool) -> tuple[str, bool]:
    """What is wrong about an entry, and whether the new log has to end before it."""
    zxid = entry.zxid
    if entry.txn is None or zxid is None:
        return entry.problem, True
    unreadable = decode(entry.txn).problem
    if unreadable or (entry.kind == CHECKSUM and not fix_checksums):
        sequence.damaged(zxid)
        return entry.problem or unreadable, True
    previous = sequence.previous
    disorder = sequence.problem(zxid)
    # A server refuses a hole, but not a record that comes again.
    hole = bool(disorder) and previous is not None and zxid > previous
    return disorder or entry.problem, hole


class Summary(NamedTuple):
    """What `show` found."""

    kept: int
    fixed: int
    dropped: int


def show(log: LogFile, fix_checksums: bool, listed: int) -> Summary:
    """Print what would be kept and what would be dropped, in the order of the file."""
    kept = fixed = dropped = 0
    zxids: list[int] = []
    for entry, problem, keep in judge(log, fix_checksums):
        log.disk.progress.clear()
        if problem:
            report(log.path, entry.offset, problem)
        if keep:
            kept += 1
            fixed += entry.kind != GOOD
            assert entry.zxid is not None, "only records are kept"
            zxids[1:] = [entry.zxid]
            continue
        if not dropped:
            write_line(f"Kept: {kept} txns{_span(zxids)}")
            write_line("Dropped:")
        dropped += 1
        if dropped <= listed:
            write_line(_dropped_line(entry))
    if not dropped:
        write_line(f"Kept: {kept} txns{_span(zxids)}")
    elif dropped > listed:
        write_line(f"... and {dropped - listed} more (--all shows them)")
    return Summary(kept, fixed, dropped)


def _span(zxids: list[int]) -> str:
    return f", zxid {zxids[0]:#x} to {zxids[-1]:#x}" if zxids else ""


def _dropped_line(entry: Entry) -> str:
    if entry.txn is None:
        return f"{entry.end - entry.offset} bytes at offset {entry.offset}: {entry.problem}"
    line = entry_line(decode(entry.txn))
    return f"CRC ERROR - {line}" if entry.kind == CHECKSUM else line


def write(log: LogFile, path: str, fix_checksums: bool) -> int:
    """Write what is kept to a new file; returns how many txns that are."""
    count = 0
    with NewLog(path) as new:
        new.begin(log)
        for entry, _, keep in judge(log, fix_checksums):
            if not keep:
                break
            assert entry.txn is not None, "only records are kept"
            new.add(entry.txn)
            count += 1
        new.commit()
    return count


def ask(question: str, answers: str) -> str:
    """One of the letters in `answers`; "" at the end of the input."""
    while True:
        sys.stdout.write(question)
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return ""
        answer = line.strip()[:1].upper()
        if answer and answer in answers:
            return answer


def recover_command(options: argparse.Namespace) -> int:
    log = open_log(LogDisk(Progress()), options.file)
    target = options.output or f"{options.file}.fixed"
    if os.path.lexists(target) and not options.dry_run:
        raise ToolError(f"Recovery file {target} already exists or not writable")
    found = show(log, options.fix_checksums, sys.maxsize if options.all else LISTED)
    if not found.dropped and not found.fixed:
        write_line(f"{options.file}: there is nothing to recover")
        return EXIT_OK
    if options.dry_run:
        return EXIT_DAMAGE
    without = " without them" if found.dropped else ""
    if not options.yes and ask(f"Write {target}{without} (Yes/No) ? ", "YN") != "Y":
        raise ToolError(ABORTED)
    count = write(log, target, options.fix_checksums)
    write_line(f"Recovery file {target} has been written with {count} txns")
    return EXIT_OK


def add_recover(commands: Any) -> None:
    """Add the command to those of argparse."""
    parser = commands.add_parser(
        "recover",
        help="write what is good of a damaged log to a new file",
        description="Shows what of a log is damaged and what would be dropped, asks, and writes "
        "the txns before the first damage to a new file, which servers accept. Those behind it "
        "are dropped, as they may build on what is lost. The log itself stays as it is. To use "
        "the new file, stop the server and rename both: a log is called log.<zxid>.",
    )
    parser.add_argument("file")
    parser.add_argument("-o", "--output", metavar="FILE", help="the new file (FILE.fixed)")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show, exit with 1")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument("-a", "--all", action="store_true", help="list all that would be dropped")
    parser.add_argument(
        "--fix-checksums",
        action="store_true",
        help="keep txns that can be read though their checksum does not fit, with a new one: what "
        "they say may be wrong",
    )
    parser.set_defaults(command=recover_command)
