"""Quotas: setquota, listquota, delquota. They are text in nodes below /zookeeper/quota.

Source: SetQuotaCommand, ListQuotaCommand, DelQuotaCommand, Quotas, StatsTrack, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.cli.shell.commands.nodes import NO_NODE, visit
from zkpy.cli.shell.context import Context, checked, number
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import CliError, OperationError, command
from zkpy.datatree.quota import LIMITS_NODE, QUOTA_ROOT, STATS_NODE, limits_path, stats_path
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.zoodefs import CreateMode

NODE_EXISTS: Final = -110
# The letters of the options and what they limit.
KEYS: Final = {"n": "count", "b": "bytes", "N": "countHardLimit", "B": "byteHardLimit"}
LETTERS: Final = {
    "n": "num soft quota",
    "b": "bytes soft quota",
    "N": "num hard quota",
    "B": "bytes hard quota",
}


class Track(dict[str, int]):
    """The text of a quota node: names and numbers; -1 is no limit.

    Not `zkpy.datatree.quota.StatsTrack`: that writes no limits of -1, and the reference shows what
    is written.
    """

    def number(self, key: str) -> int:
        return self.get(key, -1)

    @classmethod
    def parse(cls, data: bytes | None) -> Track:
        """Raises CliError on text that is no quota: whoever may write there can write anything."""
        track = cls()
        text = (data or b"").decode("utf-8", "replace")
        for part in text.replace(";", ",").split(","):
            key, _, rest = part.partition("=")
            if key:
                track[key] = number(rest.partition("=")[0] or "-1", 64)
        return track

    def __str__(self) -> str:
        text = f"count={self.number('count')},bytes={self.number('bytes')}"
        rest = sorted(self.keys() - {"count", "bytes"})
        # The second "=" is where older readers stop.
        return text + "=" * bool(rest) + "".join(f";{key}={self[key]}" for key in rest)


@command(
    "setquota",
    "-n|-b|-N|-B val path",
    *(Option(letter, text, value=True, group=True) for letter, text in LETTERS.items()),
    words=1,
    required=True,
)
async def setquota(ctx: Context, args: Arguments) -> None:
    path = args.words[0]
    if path.startswith(QUOTA_ROOT):
        ctx.err(f"cannot set a quota under the path: {QUOTA_ROOT}")
        return
    (letter,) = args.options
    limit = limit_of(ctx, letter, args.value(letter))
    if limit is None:
        return
    if await ctx.zk.exists(checked(path)) is None:
        raise CliError(f"{path} does not exist.")
    await refuse_nested(ctx, path)
    await make_parents(ctx, path)
    if await ctx.zk.exists(limits_path(path)) is None:
        track = Track(dict.fromkeys(KEYS.values(), -1))
        track[KEYS[letter]] = limit
        await make(ctx, limits_path(path), str(track).encode())
        await make(ctx, stats_path(path), b"count=0,bytes=0")
        # The server replaces the zeros by what there is.
        await warn(ctx, path, Track.parse((await ctx.zk.get_data(limits_path(path)))[0]))
    else:
        track = Track.parse((await ctx.zk.get_data(limits_path(path)))[0])
        track[KEYS[letter]] = limit
        await warn(ctx, path, track)
        await ctx.zk.set_data(limits_path(path), str(track).encode(), -1)
    ctx.result([], {"path": path, "limits": track})


def limit_of(ctx: Context, letter: str, text: str) -> int | None:
    """The number behind an option; None, and a line, if it is not one."""
    counts = letter in "nN"
    try:
        limit = number(text, 32 if counts else 64)
    except CliError:
        ctx.err("NumberFormatException happens when parsing the option value")
        return None
    if counts and limit <= 0:
        ctx.err("the num quota must be greater than zero")
        return None
    if limit < 0:
        ctx.err("the bytes quota must be greater than or equal to zero")
        return None
    return limit


async def refuse_nested(ctx: Context, path: str) -> None:
    """Raise CliError if a node below or above `path` has a quota."""
    try:
        async for node in visit(ctx, QUOTA_ROOT + path):
            above, _, leaf = node.rpartition("/")
            if leaf == LIMITS_NODE and above != QUOTA_ROOT + path:
                child = above.removeprefix(QUOTA_ROOT)
                raise CliError(f"{path} has a child {child} which has a quota")
    except OperationError as error:
        if error.code != NO_NODE:
            raise
    parts = path.split("/")
    for count in range(2, len(parts)):
        parent = "/".join(parts[:count])
        if await ctx.zk.exists(limits_path(parent)) is not None:
            raise CliError(f"{path} has a parent {parent} which has a quota")


async def make_parents(ctx: Context, path: str) -> None:
    """Make what is missing of /zookeeper/quota and of `path` below it."""
    parts = (QUOTA_ROOT + path).rstrip("/").split("/")
    for count in range(3, len(parts) + 1):
        node = "/".join(parts[:count])
        if await ctx.zk.exists(node) is None:
            await make(ctx, node, None)


async def make(ctx: Context, path: str, data: bytes | None) -> None:
    """Create a node, unless somebody else just did."""
    try:
        await ctx.zk.create(path, data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, 0)
    except OperationError as error:
        if error.code != NODE_EXISTS:
            raise


async def warn(ctx: Context, path: str, limits: Track) -> None:
    """Say so if there is already more than `limits` allow."""
    usage = Track.parse((await ctx.zk.get_data(stats_path(path)))[0])
    for name, soft, hard in (
        ("count", "count", "countHardLimit"),
        ("bytes", "bytes", "byteHardLimit"),
    ):
        used = usage.number(name)
        if any(-1 < limits.number(key) < used for key in (soft, hard)):
            text = f"the {name} quota you create is less than the existing {name}:{used}"
            (ctx.err if ctx.json else ctx.out)(f"[Warning]: {text}")


@command("listquota", "path", words=1)
async def listquota(ctx: Context, args: Arguments) -> None:
    path = args.words[0]
    ctx.err(f"absolute path is {QUOTA_ROOT}{path}/{LIMITS_NODE}")
    try:
        limits = Track.parse((await ctx.zk.get_data(checked(limits_path(path))))[0])
        usage = Track.parse((await ctx.zk.get_data(stats_path(path)))[0])
    except OperationError as error:
        if error.code != NO_NODE:
            raise
        ctx.err(f"quota for {path} does not exist.")
        ctx.result([], {"path": path, "limits": None, "stat": None})
        return
    lines = [f"Output quota for {path} {limits}", f"Output stat for {path} {usage}"]
    ctx.result(lines, {"path": path, "limits": limits, "stat": usage})


@command(
    "delquota",
    "[-n|-b|-N|-B] path",
    *(Option(letter, text, group=True) for letter, text in LETTERS.items()),
    words=1,
)
async def delquota(ctx: Context, args: Arguments) -> None:
    path = args.words[0]
    limits = checked(limits_path(path))
    if await ctx.zk.exists(limits) is None:
        ctx.result([f"Quota does not exist for {path}"], {"path": path, "limits": None})
        return
    if not args.options:
        for leaf in (LIMITS_NODE, STATS_NODE):
            await remove(ctx, f"{QUOTA_ROOT}{path}/{leaf}")
        await trim(ctx, QUOTA_ROOT + path)
        ctx.result([], {"path": path, "limits": None})
        return
    track = Track.parse((await ctx.zk.get_data(limits))[0])
    for letter in args.options:
        track[KEYS[letter]] = -1
    await ctx.zk.set_data(limits, str(track).encode(), -1)
    ctx.result([], {"path": path, "limits": track})


async def remove(ctx: Context, path: str) -> None:
    """Delete a node, if it is there."""
    try:
        await ctx.zk.delete(path, -1)
    except OperationError as error:
        if error.code != NO_NODE:
            raise


async def trim(ctx: Context, node: str) -> None:
    """Delete `node` and what is above it, up to /zookeeper/quota, as long as it is empty."""
    while node != QUOTA_ROOT and not (await ctx.zk.get_children(node))[0]:
        await ctx.zk.delete(node, -1)
        node = node.rpartition("/")[0]
