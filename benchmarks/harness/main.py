"""The command line: what to measure, against which servers, and where the result goes."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from benchmarks.harness import report
from benchmarks.harness.client import Address
from benchmarks.harness.ensemble import Ensemble, Member
from benchmarks.harness.loadgen import LoadFailed, compile_loadgen
from benchmarks.harness.plan import Maker, Plan, Results, Settings
from benchmarks.harness.rows import ENSEMBLE_ROWS, LOAD, ROWS, Row, choose
from benchmarks.harness.servers import Server, apache_command, find_classpath, zkpy_command

PROJECT = Path(__file__).resolve().parent.parent.parent
# A disk in memory makes syncing free, and the comparison worthless.
IN_MEMORY = ("tmpfs", "ramfs")
TABLE_END = "<!-- end of table -->"


def arguments() -> argparse.ArgumentParser:
    """All options."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run",
        description="Measure zkpy and Apache ZooKeeper with the same load, side by side, and "
        "print the table of benchmarks/README.md; or measure one running server (--server).",
    )
    add = parser.add_argument
    add("--rows", metavar="NAME,...", help="only these rows; shell patterns (default: all)")
    add("--list", action="store_true", help="list the rows and end")
    add("--seconds", type=float, default=5, help="measured time per run (default: 5)")
    add("--repeats", type=int, default=3, help="runs per row and server (default: 3)")
    add("--warm-up", type=float, default=4, metavar="SECONDS", help="each warm-up load (default 4)")
    add("--only", choices=("zkpy", "apache"), help="measure one of the two")
    add("--ensemble", action="store_true", help="ensembles of three members, and their rows")
    add("--server", metavar="HOST:PORT", help="measure this running server instead")
    add("--pid", metavar="PID", help="its process, when it is on this machine: for CPU time")
    add("--zkpy-python", default=sys.executable, metavar="PATH", help="Python that runs zkpy")
    add("--installed", action="store_true", help="zkpy as installed there, not the one in src")
    add("--compiled", action="store_true", help="zkpy compiled; takes a minute more, and pip")
    add(
        "--apache-classpath", metavar="PATHS", help="jars, or a folder; default: scripts/get-oracle"
    )
    add("--java", default="java", help="default: java")
    add("--java-flags", default="", help="such as '-Xmx1000m'; default: none")
    add("--data", type=Path, metavar="FOLDER", help="on a real disk; default: a temporary folder")
    add("--json", type=Path, metavar="FILE", help="also write every single figure there")
    add("--update-readme", action="store_true", help="put the table into benchmarks/README.md")
    return parser


def copy_of_zkpy(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The environment in which Python finds zkpy: a copy, which no edit changes during the run."""
    if options.installed:
        return {}
    copy = folder / "src"
    shutil.copytree(PROJECT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    if options.compiled:
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, folder)
        compiled = folder / "compiled"
        # Our pip, as that Python may have none.
        pip = [sys.executable, "-m", "pip", "--python", options.zkpy_python, "install", "--quiet"]
        command = [*pip, "--no-deps", "--target", str(compiled), str(folder)]
        environment = {**os.environ, "ZKPY_COMPILE": "1", "ZKPY_COMPILE_LEVEL": "3"}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise LoadFailed("zkpy could not be compiled")
        return {"PYTHONPATH": str(compiled)}
    # Not left to the first start: PYTHONDONTWRITEBYTECODE would make each one compile everything.
    subprocess.run([options.zkpy_python, "-m", "compileall", "-q", str(copy)], check=True)
    return {"PYTHONPATH": str(copy)}


def server_makers(
    options: argparse.Namespace, folder: Path, environment: dict[str, str]
) -> dict[str, Maker]:
    """Name -> what makes a server in a new folder below `folder`. Raises LoadFailed."""
    makers: dict[str, Maker] = {}
    if options.only != "zkpy":
        classpath = find_classpath(PROJECT, options.apache_classpath)
        if shutil.which(options.java) is None or classpath is None:
            raise LoadFailed(
                "no Apache ZooKeeper: needs java, and scripts/get-oracle or --apache-classpath; "
                "--only zkpy measures zkpy alone"
            )
        flags = shlex.split(options.java_flags)

        command = apache_command(options.java, flags, classpath)
        makers[report.APACHE] = maker(options, report.APACHE, folder, command, {})
    if options.only != "apache":
        command = zkpy_command(options.zkpy_python)
        makers[report.ZKPY] = maker(options, report.ZKPY, folder, command, environment)
    return makers


def maker(
    options: argparse.Namespace,
    kind: str,
    folder: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
) -> Maker:
    """What makes a server of that kind, or three that are an ensemble, in new folders."""

    def server(name: str) -> Server:
        return Server(kind, command, new_folder(folder, f"{kind}-{name}"), environment)

    def member(name: str) -> Member:
        return Member(kind, command, new_folder(folder, f"{kind}-{name}"), environment)

    return (lambda name: Ensemble(member, name)) if options.ensemble else server


def new_folder(parent: Path, name: str) -> Path:
    """Make a folder that must not be there yet."""
    folder = parent / name
    folder.mkdir()
    return folder


def work_folder(given: Path | None) -> Path:
    """Where the servers' data goes. Raises LoadFailed unless it is on a disk."""
    candidates = [given] if given else [Path(tempfile.gettempdir()), Path("/var/tmp"), PROJECT]
    for folder in candidates:
        if folder.is_dir() and report.file_system(folder) not in IN_MEMORY:
            return folder
    raise LoadFailed(f"not a folder on a disk: {', '.join(map(str, candidates))}; see --data")


def parse_address(text: str) -> Address:
    """`host:port`. Raises LoadFailed."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise LoadFailed(f"HOST:PORT, not {text}")
    return host, int(port)


def full_report(
    options: argparse.Namespace,
    rows: Sequence[Row],
    results: Results,
    servers: Sequence[str],
    where: str,
) -> str:
    """The table, what it was measured on, and what limits the rows that zkpy missed."""
    cpu_of = "all three members" if options.ensemble else "the server"
    versions = ", ".join(f"{name} {results.versions.get(name, '?')}" for name in servers)
    if report.APACHE in servers:
        flags = f"with {options.java_flags}" if options.java_flags else "with its default settings"
        versions += f", {report.java_version(options.java)} {flags}"
    parts = [
        f"{where}; {versions}. Medians of {options.repeats} x {options.seconds:g} s;\n"
        f"operations per second, in brackets the CPU time of {cpu_of} for each.",
        report.table(rows, results, servers),
    ]
    if report.ZKPY in servers and (limits := report.limits(rows, results)):
        parts += ["Not reached:", limits]
    return "\n\n".join(parts)


def table_begin(options: argparse.Namespace) -> str:
    """The line in benchmarks/README.md behind which the table of these options stands."""
    flags = "".join(f"{flag} " for flag in ("--ensemble", "--compiled") if vars(options)[flag[2:]])
    return f"<!-- table: benchmarks/run {flags}--update-readme -->"


def update_readme(text: str, begin: str) -> None:
    """Put the report in place of the one that benchmarks/README.md has."""
    readme = PROJECT / "benchmarks" / "README.md"
    before, rest = readme.read_text().split(begin)
    after = rest.partition(TABLE_END)[2]
    readme.write_text(f"{before}{begin}\n{text}\n{TABLE_END}{after}")


def run(options: argparse.Namespace) -> int:
    """Measure and report; returns the exit code: 1 when anything failed to be measured."""
    if options.compiled and (options.installed or options.server or options.only == "apache"):
        raise LoadFailed("--compiled is for a zkpy that is made here")
    rows = choose(options.rows, ENSEMBLE_ROWS if options.ensemble else ROWS)
    if options.list:
        for row in rows:
            print(f"{row.name:14} {row.title} (must reach {report.target(row)})")
        return 0
    # Thousands of connections each: for the servers, which inherit it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parent = work_folder(options.data)
    with ExitStack() as stack:
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="zkpy-benchmark-", dir=parent)
        )
        folder = Path(name)
        where = report.machine(folder)
        settings = Settings(options.seconds, options.repeats, options.warm_up)
        if options.server:
            rows = [row for row in rows if row.kind == LOAD]
            plan = Plan(compile_loadgen(folder), rows, settings)
            address = parse_address(options.server)
            servers = [options.server]
            results = plan.run_against(options.server, address, options.pid)
        else:
            environment = copy_of_zkpy(options, folder)
            makers = server_makers(options, folder, environment)
            servers = list(makers)
            plan = Plan(compile_loadgen(folder), rows, settings)
            results = plan.run(list(makers.values()))
            if report.ZKPY in servers:
                version = report.zkpy_version(options.zkpy_python, environment, PROJECT)
                results.versions[report.ZKPY] = version
    text = full_report(options, rows, results, servers, where)
    print(text)
    if options.update_readme:
        update_readme(text, table_begin(options))
    if options.json:
        content = {"machine": where, "options": vars(options), **asdict(results)}
        options.json.write_text(json.dumps(content, indent=1, default=str) + "\n")
    return 1 if results.failures else 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """End as an interrupt from the terminal does."""
    raise KeyboardInterrupt


def main() -> int:
    """What benchmarks/run calls."""
    signal.signal(signal.SIGTERM, interrupt)  # so that servers and folders go in that case too
    try:
        return run(arguments().parse_args())
    except (LoadFailed, ValueError) as error:
        print(f"benchmarks/run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks/run: interrupted", file=sys.stderr)
        return 130
