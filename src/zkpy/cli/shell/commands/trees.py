"""tree and find: a subtree at a glance. ZooKeeper's shell has neither."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from zkpy.cli.shell.context import Context, checked, number
from zkpy.cli.shell.formats import hexadecimal
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import CliError, OperationError, command
from zkpy.cli.shell.texts import error_text
from zkpy.cli.shell.walk import NO_AUTH, NO_NODE, Found, walk

if TYPE_CHECKING:
    from collections.abc import Callable


def depth_of(args: Arguments) -> int | None:
    """Of -d; None is any. Raises CliError."""
    if "d" not in args:
        return None
    depth = number(args.value("d"))
    if depth < 0:
        raise CliError("-d must not be negative")
    return depth


def node_json(found: Found) -> dict[str, Any]:
    value: dict[str, Any] = {"path": found.path, "depth": found.depth}
    if found.stat is None:
        return {**value, "error": "NoAuth"}
    return {
        **value,
        "dataLength": found.stat.dataLength,
        "numChildren": found.stat.numChildren,
        "ephemeralOwner": hexadecimal(found.stat.ephemeralOwner),
    }


@command(
    "tree",
    "[-s] [-d depth] [path]",
    Option("s", "Print the size of the data and what is ephemeral"),
    Option("d", "Levels below the path", value=True),
    extra=True,
)
async def tree(ctx: Context, args: Arguments) -> int:
    depth, path = depth_of(args), checked(args.words[0] if args.words else "/")
    branch, last, bar = ("├── ", "└── ", "│   ") if speaks_utf8() else ("|-- ", "`-- ", "|   ")
    count = hidden = 0
    prefixes = [""]  # of the children of each level
    async for found in walk(ctx.zk, path, depth):
        count += 1
        hidden += found.names is None
        if ctx.json:
            ctx.out_json(node_json(found))
            continue
        del prefixes[found.depth :]
        name, prefix = path, ""
        if found.depth:
            name = found.path.rpartition("/")[2]
            prefix = prefixes[-1] + (last if found.is_last else branch)
            prefixes.append(prefixes[-1] + ("    " if found.is_last else bar))
        else:
            prefixes = [""]
        ctx.out(prefix + name + remarks(found, "s" in args))
    if not ctx.json:
        ctx.out(f"\n{count} node{'' if count == 1 else 's'}")
    return 1 if hidden else 0


def speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def remarks(found: Found, sizes: bool) -> str:
    """What stands behind a name."""
    if found.stat is None:
        return " (no permission to read)"
    if not sizes:
        return ""
    owner = found.stat.ephemeralOwner
    kind = f", ephemeral of {hexadecimal(owner)}" if owner else ""
    return f" ({found.stat.dataLength} bytes{kind})"


@command(
    "find",
    "[path] [-name glob] [-data regex] [-e] [-d depth]",
    Option("name", "Only nodes whose name matches, * and ? as in a shell", value=True),
    Option("data", "Only nodes whose data matches the regular expression", value=True),
    Option("e", "Only ephemeral nodes"),
    Option("d", "Levels below the path", value=True),
    extra=True,
)
async def find(ctx: Context, args: Arguments) -> int:
    """Exit status 1 if a part of the tree could not be read."""
    depth, path = depth_of(args), checked(args.words[0] if args.words else "/")
    named = name_test(args)
    pattern = data_pattern(args)
    status = 0
    async for found in walk(ctx.zk, path, depth):
        if found.stat is None:
            ctx.err(error_text(NO_AUTH, found.path))
            status = 1
        elif "e" in args and not found.stat.ephemeralOwner:
            continue
        if not named(found.path.rpartition("/")[2]):
            continue
        if pattern is not None:
            if found.stat is None or not await matches(ctx, found.path, pattern):
                continue
        ctx.result([found.path], node_json(found))
    return status


def name_test(args: Arguments) -> Callable[[str], object]:
    if "name" not in args:
        return lambda name: True
    from fnmatch import translate

    return re.compile(translate(args.value("name"))).match


def data_pattern(args: Arguments) -> re.Pattern[bytes] | None:
    """Raises CliError."""
    if "data" not in args:
        return None
    try:
        return re.compile(args.value("data").encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise CliError(f"-data {args.value('data')}: {error}") from None


async def matches(ctx: Context, path: str, pattern: re.Pattern[bytes]) -> bool:
    """Whether the data of a node matches; a node that is gone does not."""
    try:
        data, _ = await ctx.zk.get_data(path)
    except OperationError as error:
        if error.code == NO_NODE:
            return False
        raise
    return pattern.search(data or b"") is not None
