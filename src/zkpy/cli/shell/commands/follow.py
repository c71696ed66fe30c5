"""watch: what happens below a node, as it happens. ZooKeeper's shell has it not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from zkpy.cli.shell.context import Context, checked
from zkpy.cli.shell.formats import data_json, data_text
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import OperationError, command

if TYPE_CHECKING:
    from zkpy.client.events import WatchedEvent


@command(
    "watch",
    "[-v] path",
    Option("v", "Print the data of created and changed nodes as well"),
    words=1,
    extra=True,
)
async def watch(ctx: Context, args: Arguments) -> None:
    """Follow a node and everything below it until Ctrl-C."""
    path = checked(args.words[0])
    if not ctx.json:
        ctx.err(f"Watching {path} and what is below; Ctrl-C ends it")
    async with ctx.zk.follow(path) as events:
        async for event in events:
            await show(ctx, event, "v" in args)


async def show(ctx: Context, event: WatchedEvent, with_data: bool) -> None:
    """A line for an event. The data is that of now: it may have changed again."""
    now = time.time()
    clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"
    line = f"{clock} {event.type_name} {event.path}"
    value: dict[str, Any] = {
        "time": int(now * 1000),
        "event": event.type_name,
        "path": event.path,
        "zxid": event.zxid,
    }
    if event.zxid != -1:
        line += f" zxid {event.zxid}"
    if with_data and event.type_name in ("NodeCreated", "NodeDataChanged"):
        assert event.path is not None
        try:
            data, stat = await ctx.zk.get_data(event.path)
        except OperationError:
            pass  # gone again, or not ours to read; the event tells enough
        else:
            line += f" version {stat.version}: {data_text(data)}"
            value |= {"dataVersion": stat.version, **data_json(data)}
    ctx.result([line], value)
