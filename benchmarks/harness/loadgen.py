"""Compiling and running the load generator."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent / "loadgen.c"
RUN_LIMIT_S = 600.0

Result = dict[str, Any]


class LoadFailed(Exception):
    """A load could not be run, or not without errors: there is no figure."""


def find_compiler() -> str | None:
    """The C compiler: $CC, or the system's."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


def compile_loadgen(folder: Path) -> Path:
    """Build the generator into `folder` with the system's C compiler. Raises LoadFailed."""
    compiler = find_compiler()
    if not compiler:
        raise LoadFailed("no C compiler (cc): the load generator is C, and compiled for each run")
    program = folder / "loadgen"
    command = [compiler, "-O2", "-o", str(program), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadFailed(f"{compiler} cannot compile {SOURCE}:\n{done.stderr}")
    return program


class LoadGenerator:
    """One run of the generator, which can be waited for or ended early."""

    def __init__(
        self, program: Path, target: str, arguments: Sequence[str], pids: str | None = None
    ) -> None:
        """`target` is host:port, or several with commas between; `pids` likewise."""
        mode, *rest = arguments
        command = [str(program), mode, target, *rest]
        if pids is not None:
            command += ["--pid", pids]
        self.command = command
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> Result:
        """Wait for the result. Raises LoadFailed, also when replies were errors."""
        try:
            output, error = self.process.communicate(timeout=RUN_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.abandon()
            raise LoadFailed("the load generator did not end") from None
        except BaseException:  # an interrupt: it must not go on without us
            self.abandon()
            raise
        if self.process.returncode:
            raise LoadFailed(error.strip() or f"exit code {self.process.returncode}")
        result: Result = json.loads(output)
        if result["errors"] or result["disconnects"]:
            raise LoadFailed(
                f"{result['errors']} replies with an error or missing, "
                f"{result['disconnects']} connections lost"
            )
        return result

    def end_early(self) -> Result:
        """Ask for the result now. Raises LoadFailed."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def abandon(self) -> None:
        """End it without a result; harmless when it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
