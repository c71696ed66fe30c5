"""Commands about the shell itself: history, redo, help, connect, close, quit.

Source: ZooKeeperMain.processZKCmd, CloseCommand, ZooKeeper 3.9; help of 3.4.
"""

from __future__ import annotations

from typing import Final

from zkpy.cli.shell.context import Context
from zkpy.cli.shell.parser import Arguments, split_words
from zkpy.cli.shell.table import COMMANDS, NOT_FOUND, CliError, command, help_text
from zkpy.protocol.properties import decode_integer

HISTORY_SHOWN: Final = 11


@command("history", "", offline=True, raw=True)
async def history(ctx: Context, args: Arguments) -> None:
    shell = ctx.shell
    first = max(0, shell.count + 1 - HISTORY_SHOWN)
    entries = {n: shell.history.get(n) for n in range(first, shell.count + 1)}
    lines = [f"{n} - {'null' if line is None else line}" for n, line in entries.items()]
    ctx.result(lines, [{"number": n, "line": line} for n, line in entries.items()])
    if not shell.is_alive:
        ctx.err("Not connected") if ctx.json else ctx.out("Not connected")


@command("redo", "cmdno", offline=True, raw=True)
async def redo(ctx: Context, args: Arguments) -> int:
    shell = ctx.shell
    if not args.words:
        return 0
    wanted = decode_integer(args.words[0], 32)
    if wanted is None:
        raise CliError(f'For input string: "{args.words[0]}"')
    if not 0 <= wanted < shell.count:
        raise CliError("Command index out of range")
    line = shell.history[wanted]
    words = split_words(line)
    if words[0] == "redo":
        raise CliError("No redoing redos")
    shell.history[shell.count] = line
    return await shell.run(words)


@command("help", "[cmd]", extra=True, offline=True, raw=True)
async def show_help(ctx: Context, args: Arguments) -> None:
    if not args.words:
        ctx.out(help_text())
        return
    name = args.words[0]
    known = COMMANDS.get(name)
    if known is None:
        raise CliError(f"Command not found: {name}", NOT_FOUND)
    lines = [f"{known.name} {known.syntax}"]
    if known.options:
        lines += known.option_lines()
    ctx.out("\n".join(lines))


@command("connect", "host:port", offline=True, raw=True)
async def connect(ctx: Context, args: Arguments) -> None:
    shell = ctx.shell
    await shell.connect(args.words[0] if args.words else shell.hosts)
    # For a moment, so that the prompt can say CONNECTED; commands wait anyway.
    await ctx.zk.connected()


@command("close", "")
async def close(ctx: Context, args: Arguments) -> None:
    await ctx.zk.close()


@command("quit", "", offline=True, raw=True)
async def leave(ctx: Context, args: Arguments) -> int:
    """The exit status is that of the command before."""
    shell = ctx.shell
    await shell.close()
    shell.finished = True
    return shell.status


@command("exit", "", offline=True, raw=True, hidden=True)
async def leave_too(ctx: Context, args: Arguments) -> int:
    return await leave(ctx, args)
