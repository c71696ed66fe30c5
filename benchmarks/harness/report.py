"""The table, as Markdown, and the machine it was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import rows as r
from benchmarks.harness.plan import Measurement, Results

APACHE, ZKPY = "Apache", "zkpy"
NOT_MEASURED = "-"


def table(rows: Sequence[r.Row], results: Results, servers: Sequence[str]) -> str:
    """One line per row; ratio and verdict where both servers were measured."""
    compared = APACHE in servers and ZKPY in servers
    judged = ZKPY in servers
    heads = ["load", *servers]
    heads += ["ratio"] * compared + ["must reach", "reached"] * judged
    lines = [_line(heads), _line(["---", *["--:"] * (len(heads) - 1)])]
    for row in rows:
        cells = [row.title, *(cell(row, results, server) for server in servers)]
        if compared:
            ratio = ratio_of(row, results)
            cells.append("" if ratio is None else f"{ratio:.2f}x")
        if judged:
            verdict = {None: NOT_MEASURED, True: "yes", False: "**no**"}[reached(row, results)]
            cells += [target(row), verdict]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def repeats(row: r.Row, results: Results, server: str) -> list[Measurement]:
    """What was measured, in the order of time; empty when it failed or was not tried."""
    return results.measured.get(row.name, {}).get(server, [])


def median(row: r.Row, results: Results, server: str) -> float | None:
    """The figure that stands in the table."""
    measured = repeats(row, results, server)
    return statistics.median(one.value for one in measured) if measured else None


def median_cpu_us(row: r.Row, results: Results, server: str) -> float | None:
    """CPU time of the server per operation."""
    known = [one.cpu_us for one in repeats(row, results, server) if one.cpu_us is not None]
    return statistics.median(known) if known else None


def cell(row: r.Row, results: Results, server: str) -> str:
    """`52,342 (19.1 µs)`, `0.600 s`, ..."""
    value = median(row, results, server)
    if value is None:
        return "failed" if server in results.failures.get(row.name, {}) else NOT_MEASURED
    text = amount(row, value)
    cpu_us = median_cpu_us(row, results, server)
    return text if cpu_us is None else f"{text} ({cpu_us:.1f} µs)"


def amount(row: r.Row, value: float) -> str:
    """A value in the row's unit; rates go without one, the column says it."""
    if row.unit == r.PER_S:
        return f"{value:,.0f}"
    digits = {r.SECONDS: 3, r.MILLISECONDS: 2, r.MEGABYTES: 1}.get(row.unit, 0)
    return f"{value:,.{digits}f} {row.unit}"


def target(row: r.Row) -> str:
    """What zkpy must reach, in words."""
    if row.unit != r.PER_S:
        return f"{row.must:g} {row.unit}"
    cpu = "" if row.must_cpu_us is None else f" (at most {row.must_cpu_us:g} µs)"
    return f"{row.must:g}x{cpu}"


def ratio_of(row: r.Row, results: Results) -> float | None:
    """Operations per second, zkpy's over Apache's; None for rows that have no rate."""
    zkpy, apache = median(row, results, ZKPY), median(row, results, APACHE)
    if row.unit != r.PER_S or zkpy is None or not apache:
        return None
    return zkpy / apache


def reached(row: r.Row, results: Results) -> bool | None:
    """Whether zkpy reached the row's target; None when what is needed was not measured."""
    value = median(row, results, ZKPY)
    if value is None:
        return False if ZKPY in results.failures.get(row.name, {}) else None
    if row.unit != r.PER_S:
        return value <= row.must
    ratio = ratio_of(row, results)
    if ratio is None:
        return None
    cpu_us = median_cpu_us(row, results, ZKPY)
    return ratio >= row.must and (
        row.must_cpu_us is None or (cpu_us is not None and cpu_us <= row.must_cpu_us)
    )


def limits(rows: Sequence[r.Row], results: Results) -> str:
    """For each row that zkpy missed: what its process and the machine were doing meanwhile."""
    lines = []
    for row in rows:
        if reached(row, results) is not False:
            continue
        failure = results.failures.get(row.name, {}).get(ZKPY)
        text = (
            f"failed: {failure.splitlines()[0]} {failure.splitlines()[-1]}"
            if failure
            else what_it_did(row, results)
        )
        lines.append(f"- {row.title}: {text}")
    return "\n".join(lines)


def what_it_did(row: r.Row, results: Results) -> str:
    """How busy zkpy and the machine were, and so whether CPU time or waiting is the limit."""
    ordered = sorted(repeats(row, results, ZKPY), key=lambda one: one.value)
    typical = ordered[len(ordered) // 2]
    details = typical.details
    if "server_cpu_s" not in details:
        return f"{amount(row, typical.value)} instead of {target(row)}"
    cores = details["server_cpu_s"] / details["seconds"]
    if cores > 1.3:  # three processes
        limit = "there are no more cores"
    elif cores > 0.9:
        limit = "its one core is full"
    elif details["machine_busy"] > 0.9:
        limit = "other processes had the rest"
    else:
        limit = "it waits (for the disk, for wake-ups)"
    return (
        f"zkpy used {cores:.2f} of a core, {details['server_cpu_us_per_op']:.1f} µs per operation, "
        f"with the machine {details['machine_busy']:.0%} busy: {limit}"
    )


# ------------------------------------------------------------------------------------ machine


def machine(folder: Path) -> str:
    """Date, processor, memory, system, file system of `folder` and how fast it syncs."""
    today = datetime.date.today().isoformat()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{today}; {os.cpu_count()} cores, {processor()}; {memory:.0f} GiB; "
        f"Linux {platform.release()}; {file_system(folder)}, "
        f"fdatasync of 4 KiB {sync_us(folder):.0f} µs"
    )


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, such as ext4 or tmpfs."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, kind
    return found


def sync_us(folder: Path) -> float:
    """The median time to append 4 KiB and make them durable, in microseconds."""
    samples = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(200):
            begin = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            samples.append(time.perf_counter() - begin)
    return statistics.median(samples) * 1e6


_ZKPY_VERSION = """
import platform, zkpy, zkpy.server.zkserver
compiled = "" if zkpy.server.zkserver.__file__.endswith(".py") else "compiled, "
print(f"{zkpy.__version__} {compiled}on Python {platform.python_version()}")
"""


def zkpy_version(python: str, environment: Mapping[str, str], project: Path) -> str:
    """Its version and, out of a git working tree, the commit; srvr tells only what it imitates.

    Also whether it is compiled, and which Python runs it.
    """
    version = _output([python, "-c", _ZKPY_VERSION], environment=environment)
    commit = _output(["git", "-C", str(project), "describe", "--always", "--dirty"])
    return version.replace(" ", f" ({commit}) ", 1) if commit and environment else version


def _output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints, or "" when it cannot be run or fails."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def java_version(java: str) -> str:
    """The first line of `java -version`."""
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    return (done.stderr or done.stdout).splitlines()[0].strip()
