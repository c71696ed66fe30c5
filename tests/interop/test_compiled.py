"""The compiled wheel: built as a user would, it does what the source does.

The suites below run a second time, over the compiled modules; those that replace parts of modules
are left out there (`patches`).
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.support.oracle import PROJECT

pytestmark = [pytest.mark.interop, pytest.mark.slow]

COMPILED: dict[str, list[str]] = runpy.run_path(str(PROJECT / "setup.py"))["COMPILED"]
SUITES = ["client", "datatree", "persistence", "protocol", "quorum", "server", "session", "testing"]
BUILT_FROM = ["pyproject.toml", "setup.py", "README.md", "LICENSE"]


def why_not() -> str | None:
    """Why nothing can be compiled here."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "no C compiler"
    if importlib.util.find_spec("pip") is None:
        return "no pip"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "no Python.h: the header files of this Python are not installed"
    return None


def build(folder: Path, **environment: str) -> Path:
    """A wheel of this checkout, made in `folder`."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        shutil.copy(PROJECT / name, source)
    shutil.copytree(
        PROJECT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    # Without isolation: what the build needs is among what the tests need.
    run(
        ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "..", "."],
        source,
        **environment,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a Python prints that has to succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zkpy in it, compiled."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compiled")
    # Not optimised: that takes the C compiler twice as long, and changes nothing that is tested.
    wheel = build(folder, ZKPY_COMPILE="1", ZKPY_COMPILE_LEVEL="0")
    assert sysconfig.get_platform().replace("-", "_") in wheel.name
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_without_the_variable_it_is_pure_python(tmp_path: Path) -> None:
    wheel = build(tmp_path, ZKPY_COMPILE="")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]


@pytest.mark.timeout(600)
def test_what_is_compiled(compiled: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for package, names in COMPILED.items():
        for name in names:
            assert (compiled / "zkpy" / package / (name + suffix)).exists()
            # The source stays beside it, for who reads.
            assert (compiled / "zkpy" / package / (name + ".py")).exists()
    (metadata,) = compiled.glob("*.dist-info/METADATA")
    required = [line for line in metadata.read_text().split("\n") if "Requires-Dist" in line]
    assert all("extra ==" in line for line in required), "the server needs nothing at run time"
    code = "import zkpy.server.prep as p, zkpy.quorum.leader as l; print(p.__file__, l.__file__)"
    loaded = run(["-S", "-c", code], compiled, PYTHONPATH=str(compiled)).split()
    assert all(path.endswith(suffix) for path in loaded)


def run_tests(compiled: Path, *tests: str) -> None:
    """Run tests of this checkout over the compiled modules, and servers that have them."""
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    printed = run(
        [*arguments, "-o", f"pythonpath={compiled} .", *tests],
        PROJECT,
        PYTHONPATH=str(compiled),
        ZKPY_SOURCE_DIR=str(compiled),
        ZKPY_COMPILED="1",
    )
    assert " passed" in printed


@pytest.mark.timeout(600)
def test_the_suites_pass_when_compiled(compiled: Path) -> None:
    run_tests(compiled, *(f"tests/{suite}" for suite in SUITES))


@pytest.mark.timeout(600)
def test_kazoo_is_served_when_compiled(compiled: Path) -> None:
    run_tests(compiled, "tests/interop/test_kazoo.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["standalone", "ensemble", "reconfig"])
def test_simulations_pass_when_compiled(compiled: Path, kind: str) -> None:
    code = (
        "import sys, zkpy.server.prep as prep; assert not prep.__file__.endswith('.py')\n"
        "from tests.simulation.run import main; sys.exit(main())"
    )
    printed = run(
        ["-c", code, "--only", kind, "--seeds", "20", "--jobs", "1"],
        PROJECT,
        PYTHONPATH=f"{compiled}{os.pathsep}{PROJECT}",
    )
    assert "none failed" in printed
