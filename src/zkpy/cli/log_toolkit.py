"""What TxnLogToolkit does with its own options: dump, repair of checksums, chopping.

Source: TxnLogToolkit, LogChopper, ZooKeeper 3.9. Unlike there, new files are not padded, none is
left half written, and damage ends with exit code 1.
"""

from __future__ import annotations

import os
import sys
from getopt import GetoptError, gnu_getopt
from typing import Final

from zkpy.cli.log_records import CHECKSUM, GOOD, TORN, LogDisk, LogFile, Sequence
from zkpy.cli.log_recover import ABORTED, NewLog, ask
from zkpy.cli.log_tool import (
    USAGE,
    banner,
    decode,
    dump_text,
    entry_line,
    open_log,
    report,
    write_line,
)
from zkpy.cli.tools import EXIT_DAMAGE, EXIT_OK, EXIT_USAGE, Progress, ToolError, number
from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.logreader import RECORD_HEAD, RECORD_HEAD_BYTES
from zkpy.protocol.zxid import epoch_of

LONG_OPTIONS: Final = ["chop", "dump", "help", "recover", "verbose", "yes", "zxid="]
QUESTION: Final = "Would you like to fix it (Yes/No/Abort) ? "


def toolkit(arguments: list[str]) -> int:
    """Run TxnLogToolkit's command line; returns the exit code."""
    try:
        pairs, files = gnu_getopt(arguments, "cdhrvyz:", LONG_OPTIONS)
    except GetoptError as error:
        print(f"Unrecognized option: {_as_typed(error.opt)}\n", file=sys.stderr)
        print(USAGE)
        return EXIT_DAMAGE
    options = {name.lstrip("-")[:1]: value for name, value in pairs}
    if "h" in options or not files:
        print(USAGE)
        return EXIT_OK if "h" in options else EXIT_DAMAGE
    if "c" in options and "z" in options:
        return chop(files[0], options["z"])
    if "r" in options:
        return repair(files[0], "v" in options, "y" in options)
    problems = dump_text(open_log(LogDisk(Progress(prints=True)), files[0]))
    return EXIT_DAMAGE if problems else EXIT_OK


def _as_typed(option: str) -> str:
    return f"-{option}" if len(option) == 1 else f"--{option}"


def repair(path: str, verbose: bool, yes: bool) -> int:
    """Copy a log to PATH.fixed, with right checksums where that is wanted."""
    target = f"{path}.fixed"
    if os.path.lexists(target):
        raise ToolError(f"Recovery file {target} already exists or not writable")
    log = open_log(LogDisk(Progress(prints=True)), path)
    with NewLog(target) as new:
        new.begin(log)
        write_line(banner(log))
        count, fixed = _copy(log, new, verbose, yes)
        write_line(f"EOF reached after {count} txns.")
        new.commit()
    write_line(f"Recovery file {target} has been written with {fixed} fixed CRC error(s)")
    return EXIT_OK


def _copy(log: LogFile, new: NewLog, verbose: bool, yes: bool) -> tuple[int, int]:
    """Returns how many txns there are and how many checksums were put right."""
    count = fixed = 0
    for entry in log.entries():
        if entry.txn is None:
            report(log.path, entry.offset, entry.problem)
            if entry.kind == TORN:
                break
            raise ToolError("That is not repaired by checksums: see `zkpy-log recover --help`")
        line = entry_line(decode(entry.txn))
        checksum = None
        if entry.kind == CHECKSUM:
            write_line(f"{'CRC FIXED' if yes else 'CRC ERROR'} - {line}")
            answer = "Y" if yes else ask(QUESTION, "YNA")
            if answer in ("", "A"):
                # As Apache's: whoever aborts gets what was asked for.
                raise ToolError(ABORTED, EXIT_OK if answer else EXIT_DAMAGE)
            if answer == "Y":
                fixed += 1
            else:
                head = log.disk.read(log.path, entry.offset, RECORD_HEAD_BYTES)
                checksum = RECORD_HEAD.unpack(head)[0]
        if verbose:
            write_line(line)
        new.add(entry.txn, checksum)
        count += 1
    return count, fixed


def chop(path: str, zxid_text: str) -> int:
    """Copy a log up to a zxid to PATH.chopped<zxid>, the zxid in decimal."""
    try:
        zxid = number(zxid_text)
    except ValueError:
        raise ToolError(f"Not a zxid: {zxid_text}", EXIT_USAGE) from None
    log = open_log(LogDisk(Progress()), path)
    write_line(banner(log))
    sequence = Sequence()
    count = 0
    found = False
    with NewLog(f"{path}.chopped{zxid}") as new:
        new.begin(log)
        for entry in log.entries():
            if entry.kind != GOOD or entry.txn is None or entry.zxid is None:
                raise CorruptFile(path, entry.problem, entry.offset)
            previous = sequence.previous
            if sequence.problem(entry.zxid):
                kind = "intra" if epoch_of(entry.zxid) == epoch_of(previous or 0) else "inter"
                write_line(
                    f"There is {kind}-epoch gap between {previous or 0:x} and {entry.zxid:x}"
                )
            if entry.zxid > zxid:
                break
            found = entry.zxid == zxid
            new.add(entry.txn)
            count += 1
        else:
            write_line(f"EOF reached after {count} txns.")
            raise ToolError(f"Failed to chop {os.path.basename(path)}", EXIT_USAGE)
        if not found:
            write_line(f"This log does not contain zxid {zxid:x}")
            raise ToolError(f"Failed to chop {os.path.basename(path)}", EXIT_USAGE)
        write_line(f"Chopping at {zxid:x} new log has {count} records")
        new.commit()
    return EXIT_OK
