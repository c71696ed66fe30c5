"""Watches: addWatch, removewatches, printwatches.

Source: AddWatchCommand, RemoveWatchesCommand, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.cli.shell.context import Context, checked
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import COMMANDS, command
from zkpy.protocol.zoodefs import AddWatchMode, WatcherType

MODES: Final = {
    "PERSISTENT": AddWatchMode.PERSISTENT,
    "PERSISTENT_RECURSIVE": AddWatchMode.PERSISTENT_RECURSIVE,
}
# The first option that is there decides.
KINDS: Final = (
    ("c", WatcherType.CHILDREN),
    ("d", WatcherType.DATA),
    ("p", WatcherType.PERSISTENT),
    ("r", WatcherType.PERSISTENT_RECURSIVE),
)


@command(
    "addWatch",
    "[-m mode] path # optional mode is one of [PERSISTENT, PERSISTENT_RECURSIVE] "
    "- default is PERSISTENT_RECURSIVE",
    Option("m", "", value=True),
    words=1,
    exact=True,
)
async def add_watch(ctx: Context, args: Arguments) -> None:
    mode = MODES.get(args.value("m").upper() if "m" in args else "PERSISTENT_RECURSIVE")
    if mode is None:
        COMMANDS["addWatch"].fail()
    path = checked(args.words[0])
    await ctx.zk.add_watch(path, mode)
    ctx.result([], {"path": path})


@command(
    "removewatches",
    "path [-c|-d|-a] [-l]",
    Option("c", "child watcher type"),
    Option("d", "data watcher type"),
    Option("p", "persistent watcher type"),
    Option("r", "persistent recursive watcher type"),
    Option("a", "any watcher type"),
    Option("l", "remove locally when there is no server connection"),
    words=1,
)
async def removewatches(ctx: Context, args: Arguments) -> None:
    kind = next((kind for letter, kind in KINDS if letter in args), WatcherType.ANY)
    path = checked(args.words[0])
    await ctx.zk.remove_watches(path, kind, "l" in args)
    ctx.result([], {"path": path})


@command("printwatches", "on|off", offline=True, raw=True)
async def printwatches(ctx: Context, args: Arguments) -> None:
    if args.words:
        ctx.shell.print_watches = args.words[0] == "on"
    state = "on" if ctx.shell.print_watches else "off"
    lines = [] if args.words else [f"printwatches is {state}"]
    ctx.result(lines, {"printwatches": state})
