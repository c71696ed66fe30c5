"""docs/walkthrough.md, typed line by line into terminals.

The page is the acceptance script of ZooKeeper's users, step by step. It is run as it stands, in the
old syntax, and once more in the new one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.oracle import PROJECT
from tests.support.transcripts import Runner, Step, steps_in
from tests.support.walkthroughs import (
    TICK_TIME_MS,
    environment_of,
    make_folder,
    with_ports,
    write_cluster,
)

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

PAGE = PROJECT / "docs" / "walkthrough.md"
ZKPY_CLI = [sys.executable, "-m", "zkpy.cli.shell"]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    folder = make_folder(tmp_path / "project", {"zkpy-cli": ZKPY_CLI})
    ports = write_cluster(folder)
    # Those the page names; others look the same, and are only somebody's address.
    ports = {port: ports[port] for port in ("2181", "2182", "2183", "3334")}
    text = (PROJECT / "conf" / "zoo.cfg").read_text()
    text = re.sub(r"tickTime=\d+", f"tickTime={TICK_TIME_MS}", text)
    (folder / "conf" / "zoo.cfg").write_text(with_ports(text, ports))

    def translate(text: str) -> str:
        text = re.sub(r"^zkpy-cli(?! -server)", "zkpy-cli -server localhost:2181", text)
        return with_ports(text.replace("-timeout 5000", "-timeout 1600"), ports)

    try:
        with Runner(folder, environment_of(folder), translate) as runner:
            yield runner
    finally:
        command = [sys.executable, "-m", "zkpy.cli.server", "stop"]
        environment = environment_of(folder)
        subprocess.run(command, cwd=folder, env=environment, timeout=30, check=False)


def test_the_page(runner: Runner) -> None:
    runner.run(steps_in(PAGE))
