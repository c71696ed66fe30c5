"""Commands on nodes: create, delete, deleteall, get, set, ls, stat, and how 3.4 called them.

Source: CreateCommand, DeleteCommand, DeleteAllCommand, GetCommand, SetCommand, LsCommand,
StatCommand and ZKUtil, ZooKeeper 3.9; ls2 and rmr of 3.5.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from zkpy.cli.shell.context import Context, checked, number
from zkpy.cli.shell.formats import (
    base64_text,
    data_json,
    data_text,
    hex_dump,
    list_text,
    parse_acls,
    sorted_names,
    stat_json,
    stat_lines,
)
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import CliError, OperationError, command
from zkpy.cli.shell.texts import code_text
from zkpy.cli.shell.walk import listing
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.zoodefs import TTL_MAX_MS, CreateMode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NO_NODE: Final = -101
INVALID_ACL: Final = -114
LOCAL_SESSION: Final = -120
BATCH_SIZE: Final = 1000
DEPRECATED: Final = "'{}' has been deprecated. Please use '{}' instead."


@command(
    "create",
    "[-s] [-e] [-c] [-t ttl] path [data] [acl]",
    Option("e", "ephemeral"),
    Option("s", "sequential"),
    Option("c", "container"),
    Option("t", "ttl", value=True),
    words=1,
)
async def create(ctx: Context, args: Arguments) -> None:
    """Make a node; says its path on stderr, as a sequential one has a number."""
    mode, ttl_ms = create_mode(args)
    path = args.words[0]
    data = args.words[1].encode("utf-8", "surrogateescape") if len(args.words) > 1 else None
    acls = OPEN_ACL_UNSAFE
    if len(args.words) > 2:
        acls = parse_acls(args.words[2], ctx.err)
    checked(path, "s" in args)
    try:
        if not acls:
            raise OperationError(INVALID_ACL, None)
        created = await ctx.zk.create(path, data, acls, mode, ttl_ms)
    except OperationError as error:
        if error.code == LOCAL_SESSION:
            ctx.err("Unable to create ephemeral node on a local session")
        elif error.code == INVALID_ACL:
            ctx.err(code_text(error.code, error.path))
        raise
    if ctx.json:
        ctx.out_json({"path": created})
    else:
        ctx.err(f"Created {created}")


def create_mode(args: Arguments) -> tuple[int, int]:
    """The mode of a create and its TTL in ms, 0 without one. Raises CliError."""
    if "c" in args and ("e" in args or "s" in args):
        raise CliError(
            "-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential."
        )
    ttl_ms = 0
    if "t" in args:
        try:
            ttl_ms = number(args.value("t"), 64)
        except CliError:
            raise CliError("-t argument must be a long value") from None
        for name, kind in (("e", "Ephemeral"), ("c", "Container")):
            if name in args:
                raise CliError(f"TTLs cannot be used with {kind} znodes")
        if not 0 < ttl_ms <= TTL_MAX_MS:
            raise CliError(f"ttl must be positive and cannot be larger than: {TTL_MAX_MS}")
    if "c" in args:
        return CreateMode.CONTAINER, 0
    if "t" in args:
        sequential = CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL
        return (sequential if "s" in args else CreateMode.PERSISTENT_WITH_TTL), ttl_ms
    # The two flags of the protocol.
    return ("e" in args) + 2 * ("s" in args), 0


@command("delete", "[-v version] path", Option("v", "version", value=True), words=1)
async def delete(ctx: Context, args: Arguments) -> None:
    path = args.words[0]
    version = number(args.value("v")) if "v" in args else -1
    if len(args.words) > 1:
        ctx.err(DEPRECATED.format("delete path [version]", "delete [-v version] path"))
        # The reference deletes whatever the version is. Who gives one means it.
        version = number(args.words[1])
    await ctx.zk.delete(checked(path), version)
    ctx.result([], {"path": path})


@command("deleteall", "path [-b batch size]", Option("b", "batch size", value=True), words=1)
async def deleteall(ctx: Context, args: Arguments) -> int:
    try:
        batch_size = number(args.value("b")) if "b" in args else BATCH_SIZE
    except CliError:
        raise CliError("-b argument must be an int value") from None
    path = checked(args.words[0])
    paths = await listing(ctx.zk, path)
    paths.reverse()
    if batch_size > 0:
        if not await ctx.zk.delete_batches(paths, batch_size):
            ctx.err("Failed to delete some node(s) in the subtree!")
            return 1
    else:
        for path in paths:
            await ctx.zk.delete(path, -1)
    ctx.result([], {"path": args.words[0], "deleted": len(paths)})
    return 0


@command("rmr", "path", words=1, hidden=True)
async def rmr(ctx: Context, args: Arguments) -> int:
    ctx.err("The command 'rmr' has been deprecated. Please use 'deleteall' instead.")
    return await deleteall(ctx, args)


@command(
    "get",
    "[-s] [-w] [-b] [-x] path",
    Option("s", "Print znode stats additionally"),
    Option("w", "Watch for changes on the znode"),
    Option("b", "Output data in base64 format"),
    Option("x", "Output data in hexdump format"),
    words=1,
    described=True,
)
async def get(ctx: Context, args: Arguments) -> None:
    watch = "w" in args or old_watch(ctx, args, "get path [watch]", "get [-s] [-w] path")
    path = checked(args.words[0])
    data, stat = await ctx.zk.get_data(path, watch)
    if ctx.json:
        ctx.out_json({"path": path, **data_json(data), "stat": stat_json(stat)})
        return
    text = hex_dump(data) if "x" in args else base64_text(data) if "b" in args else data_text(data)
    ctx.result([text, *(stat_lines(stat) if "s" in args else [])], None)


def old_watch(ctx: Context, args: Arguments, old: str, new: str) -> bool:
    """Whether a watch is asked for as in 3.4: by any word behind the path."""
    if len(args.words) < 2:
        return False
    ctx.err(DEPRECATED.format(old, new))
    return True


@command(
    "set",
    "path data [-s] [-v version] [-b]",
    Option("s", "Print znode stats additionally"),
    Option("v", "Set with an expected version", value=True),
    Option("b", "Supply data in base64 format"),
    words=2,
    described=True,
)
async def set_data(ctx: Context, args: Arguments) -> None:
    path, text = args.words[:2]
    data = decode_base64(text) if "b" in args else text.encode("utf-8", "surrogateescape")
    version = number(args.value("v")) if "v" in args else -1
    if len(args.words) > 2 and re.fullmatch("[+-]?[0-9]{1,10}", args.words[2]):
        ctx.err(DEPRECATED.format("set path data [version]", "set [-v version] path data"))
        version = number(args.words[2])
    stat = await ctx.zk.set_data(checked(path), data, version)
    ctx.stat_result(path, stat, "s" in args)


def decode_base64(text: str) -> bytes:
    """Raises CliError, with Java's words where there is a character that is none of base64."""
    wrong = re.search("[^A-Za-z0-9+/=]", text)
    if wrong:
        raise CliError(f"Illegal base64 character {ord(wrong[0]):x}")
    try:
        # Java does not ask for padding.
        return base64.b64decode(
            text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True
        )
    except binascii.Error:
        raise CliError("Input byte array has wrong 4-byte ending unit") from None


@command(
    "ls",
    "[-s] [-w] [-R] path",
    Option("?", "help"),
    Option("s", "stat"),
    Option("w", "watch"),
    Option("R", "recurse"),
)
async def ls(ctx: Context, args: Arguments) -> None:
    if "?" in args:
        ctx.out("usage: ls [options] path\n -?   help\n -R   recurse\n -s   stat\n -w   watch")
    watch = "w" in args or old_watch(ctx, args, "ls path [watch]", "ls [-w] path")
    if not args.words:
        raise CliError("ls [-s] [-w] [-R] path")
    path = checked(args.words[0])
    if "R" in args:
        found = []
        async for node in visit(ctx, path, watch):
            if ctx.json:
                found.append(node)
            else:
                ctx.out(node)
        ctx.result([], {"path": path, "paths": found})
        return
    names, stat = await ctx.zk.get_children(path, watch)
    names = sorted_names(names)
    lines = [list_text(names), *(stat_lines(stat) if "s" in args else [])]
    ctx.result(lines, {"path": path, "children": names, "stat": stat_json(stat)})


async def visit(ctx: Context, path: str, watch: bool = False) -> AsyncIterator[str]:
    """The nodes from `path` on: all children of a node come before any grandchild.

    A node that goes meanwhile is passed over. Source: ZKUtil.visitSubTreeDFS.
    """
    await ctx.zk.get_data(path, watch)
    yield path
    todo = [path]
    while todo:
        node = todo.pop()
        try:
            names, _ = await ctx.zk.get_children(node, watch)
        except OperationError as error:
            if error.code != NO_NODE:
                raise
            continue
        prefix = "" if node == "/" else node
        children = [f"{prefix}/{name}" for name in sorted_names(names)]
        for child in children:
            yield child
        todo += reversed(children)


@command("ls2", "path [watch]", words=1, hidden=True)
async def ls2(ctx: Context, args: Arguments) -> None:
    ctx.err("'ls2' has been deprecated. Please use 'ls [-s] path' instead.")
    if len(args.words) > 1:
        args.options["w"] = ""
    args.options["s"] = ""
    del args.words[1:]
    await ls(ctx, args)


@command("stat", "[-w] path", Option("w", "watch"), words=1)
async def stat(ctx: Context, args: Arguments) -> None:
    watch = "w" in args or old_watch(ctx, args, "stat path [watch]", "stat [-w] path")
    path = checked(args.words[0])
    found = await ctx.zk.exists(path, watch)
    if found is None:
        raise OperationError(NO_NODE, path)
    ctx.stat_result(path, found, True)
