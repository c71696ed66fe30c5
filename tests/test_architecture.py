"""Holds the import directions of ARCHITECTURE.md, and keeps input and output in the shell.

Reads every module under src/zkpy as text; nothing is imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
ROOT = "zkpy"

# What a package may import besides itself. The shell, server.aio, stands apart from the pure part
# of the server: the core must not know what drives it.
CORE = {"protocol", "datatree", "session", "persistence", "quorum", "server"}
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # zkpy/__init__.py: imported with every module, so it costs every start
    "protocol": set(),
    "datatree": {"protocol"},
    "session": {"protocol", "datatree"},
    "persistence": {"protocol", "datatree"},
    "quorum": {"protocol"},
    "server": CORE,
    "server.aio": CORE,
    "client": {"protocol"},
    "testing": CORE | {"server.aio", "client"},
    "cli": CORE | {"server.aio", "client"},
}

# Modules that reach the world outside: I/O, clocks, threads, processes.
OUTSIDE = {
    "asyncio", "concurrent", "fcntl", "multiprocessing", "os", "select", "selectors", "shutil",
    "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile", "threading", "time",
    "_thread",
}  # fmt: skip
SHELL = ("zkpy/server/aio/", "zkpy/client/client.py", "zkpy/cli/", "zkpy/testing/")
ALSO_ALLOWED = {"zkpy/persistence/disk.py": {"os", "threading", "time", "fcntl"}}
MAY_OPEN_FILES = (*SHELL, "zkpy/persistence/disk.py")

# Code that no reader and no checker sees; __import__ would also pass by the rules above.
HIDDEN_CODE = {"exec", "eval", "compile", "__import__", "import_module"}


def layer_of(module: str) -> str:
    """The longest key of MAY_IMPORT that holds `module` ("zkpy.server.aio.main": "server.aio")."""
    parts = module.split(".")[1:]
    for length in (2, 1):
        if len(parts) >= length and ".".join(parts[:length]) in MAY_IMPORT:
            return ".".join(parts[:length])
    # A module or package with no row of its own is only right if it is the root's __init__.
    return parts[0] if parts else ""


def imports_of(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of what is imported, `package` being the importing module's.

    `from a import b` gives a.b, as b may be a module; where it is a class the layer is the same.
    Also what stands in functions and under TYPE_CHECKING: that is known to the module, too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{above}.{base}" if base else above
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def called_name(call: ast.Call) -> str:
    """The name of a called builtin (also as builtins.name) or of import_module; else ""."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        if function.value.id in ("builtins", "importlib"):
            return function.attr
    return ""


def check_import(path: str, layer: str, name: str) -> str | None:
    """What is wrong about module `path` of `layer` importing `name`, or None."""
    top = name.split(".")[0]
    if top != ROOT:
        if top not in sys.stdlib_module_names and top != "__future__":
            return f"{top} is not in the standard library"
        allowed = path.startswith(SHELL) or top in ALSO_ALLOWED.get(path, ())
        if top in OUTSIDE and not allowed:
            return f"{top} belongs into the shell"
        return None
    target = layer_of(name)
    # The root holds nothing else to import, and has been imported anyway.
    if name in (ROOT, f"{ROOT}.__version__") or target == layer:
        return None
    if target not in MAY_IMPORT[layer]:
        return f"{layer or ROOT} must not import {target or ROOT}"
    return None


def violations(source: Path) -> list[str]:
    """Each breach under `source`/zkpy as "path:line: reason"."""
    found = []
    for file in sorted((source / ROOT).rglob("*.py")):
        path = file.relative_to(source).as_posix()
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        is_package = file.name == "__init__.py"
        package = module if is_package else module.rpartition(".")[0]
        layer = layer_of(module)
        if layer not in MAY_IMPORT:
            found.append(f"{path}:1: {layer} has no place among the layers")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=path)
        for line, name in imports_of(tree, package):
            if reason := check_import(path, layer, name):
                found.append(f"{path}:{line}: {reason}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = called_name(node)
                if called in HIDDEN_CODE:
                    found.append(f"{path}:{node.lineno}: {called}() hides code")
                elif called == "open" and not path.startswith(MAY_OPEN_FILES):
                    found.append(f"{path}:{node.lineno}: open() belongs into the shell")
    return found


def test_source_keeps_the_layers() -> None:
    assert len(list((SOURCE / ROOT).rglob("*.py"))) >= len(MAY_IMPORT), "looking in the wrong place"
    assert violations(SOURCE) == []


def check_one(root: Path, path: str, text: str) -> list[str]:
    """The violations of a tree with the one module `path`."""
    file = root / path
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return violations(root)


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("zkpy/protocol/x.py", "import zkpy.datatree.tree", "protocol must not import datatree"),
        ("zkpy/protocol/x.py", "from zkpy import server", "protocol must not import server"),
        ("zkpy/protocol/x.py", "from ..server import z", "protocol must not import server"),
        ("zkpy/protocol/x.py", "from .. import quorum", "protocol must not import quorum"),
        ("zkpy/protocol/__init__.py", "from ..cli import z", "protocol must not import cli"),
        ("zkpy/session/x.py", "import zkpy.persistence", "session must not import persistence"),
        ("zkpy/persistence/x.py", "import zkpy.session", "persistence must not import session"),
        ("zkpy/quorum/x.py", "import zkpy.datatree", "quorum must not import datatree"),
        ("zkpy/quorum/x.py", "from zkpy.persistence import a", "must not import persistence"),
        ("zkpy/server/x.py", "from zkpy.server.aio import a", "server must not import server.aio"),
        ("zkpy/server/x.py", "from .aio import a", "server must not import server.aio"),
        ("zkpy/server/x.py", "from . import aio", "server must not import server.aio"),
        ("zkpy/server/x.py", "import zkpy.client.core", "server must not import client"),
        ("zkpy/server/aio/x.py", "from ...testing import a", "server.aio must not import testing"),
        ("zkpy/client/x.py", "from zkpy.server import a", "client must not import server"),
        ("zkpy/testing/x.py", "import zkpy.cli.server", "testing must not import cli"),
        ("zkpy/cli/x.py", "import zkpy.testing.disk", "cli must not import testing"),
        ("zkpy/__init__.py", "from .client import z", "zkpy must not import client"),
        ("zkpy/helpers/x.py", "", "helpers has no place among the layers"),
        ("zkpy/helpers.py", "", "helpers has no place among the layers"),
        ("zkpy/protocol/x.py", "def f():\n    import zkpy.cli", "x.py:2: protocol must not"),
        ("zkpy/quorum/x.py", "import asyncio.events", "asyncio belongs into the shell"),
        ("zkpy/server/x.py", "from os import path", "os belongs into the shell"),
        ("zkpy/client/core.py", "import time", "time belongs into the shell"),
        ("zkpy/persistence/disk.py", "import socket", "socket belongs into the shell"),
        ("zkpy/persistence/txnlog.py", "import os", "os belongs into the shell"),
        ("zkpy/persistence/txnlog.py", "open('f')", "open() belongs into the shell"),
        ("zkpy/cli/x.py", "import kazoo.client", "kazoo is not in the standard library"),
        ("zkpy/cli/x.py", "exec('1')", "exec() hides code"),
        ("zkpy/protocol/x.py", "import builtins\nbuiltins.eval('1')", "eval() hides code"),
        ("zkpy/protocol/x.py", "__import__('os')", "__import__() hides code"),
        ("zkpy/cli/x.py", "import importlib\nimportlib.import_module('a')", "import_module()"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, path: str, text: str, reason: str) -> None:
    found = check_one(tmp_path, path, text)
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("zkpy/datatree/x.py", "from __future__ import annotations\nfrom ..protocol import jute"),
        ("zkpy/server/x.py", "from zkpy.quorum.leader import Leader\nfrom . import prep"),
        ("zkpy/server/aio/x.py", "import asyncio, os\nfrom ..zkserver import ZooKeeperServer"),
        ("zkpy/client/client.py", "import asyncio\nfrom .core import Core"),
        ("zkpy/persistence/disk.py", "import os, threading, time\nopen('f')"),
        ("zkpy/testing/x.py", "import random\nfrom zkpy.server.aio.main import serve"),
        ("zkpy/cli/x.py", "import zkpy\nfrom zkpy import __version__\nfrom ..client import core"),
        ("zkpy/protocol/x.py", "import re\nre.compile('a')"),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, text: str) -> None:
    assert check_one(tmp_path, path, text) == []
