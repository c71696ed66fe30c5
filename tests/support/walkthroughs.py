"""A folder in which the commands of the documents can be typed as they stand there.

It looks like the project's: conf/ with the three members, scripts/, examples/; its bin/ holds the
programs. Only ports and times are other ones, and the data lies below it.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from zkpy.testing.ensemble import free_port

from .oracle import PROJECT, SOURCE

# The reader waits for sessions of five seconds; the test does not.
TICK_TIME_MS = 500
PROGRAMS: Mapping[str, list[str]] = {
    "python": [sys.executable],
    "zkpy-server": [sys.executable, "-m", "zkpy.cli.server"],
}


def make_folder(folder: Path, programs: Mapping[str, list[str]]) -> Path:
    """The folder, without anything in conf/; `programs` are found by their names in it."""
    (folder / "conf").mkdir(parents=True)
    (folder / "bin").mkdir()
    for name in ("scripts", "examples"):
        (folder / name).symlink_to(PROJECT / name)
    for name, command in {**PROGRAMS, **programs}.items():
        script = folder / "bin" / name
        # exec: the process is the program, with the number the shell knows.
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    """For the shells in the terminals."""
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCE),
        "PYTHON": sys.executable,
        "HOME": str(folder),
        "TZ": "UTC",
    }


def write_cluster(folder: Path) -> dict[str, str]:
    """conf/z1.cfg to z3.cfg as in the project. Returns its ports -> those in their place."""
    ports: dict[str, str] = {}
    for original in sorted((PROJECT / "conf").glob("z?.cfg")):
        text = original.read_text().replace("./data", str(folder / "data"))
        text = re.sub(r"tickTime=\d+", f"tickTime={TICK_TIME_MS}", text)
        for port in sorted(set(re.findall(r"(?<=[:=])\d{4}\b", text))):
            ports.setdefault(port, str(free_port()))
            text = re.sub(rf"(?<=[:=]){port}\b", ports[port], text)
        (folder / "conf" / original.name).write_text(text)
    return ports


def with_ports(text: str, ports: Mapping[str, str]) -> str:
    return re.sub(r"\b\d{4}\b", lambda found: ports.get(found[0], found[0]), text)
