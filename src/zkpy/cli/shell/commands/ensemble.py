"""The ensemble and the session: config, reconfig, sync, version, getEphemerals and the like.

Source: GetConfigCommand, ReconfigCommand, SyncCommand, GetEphemeralsCommand,
GetAllChildrenNumberCommand, VersionCommand, ConfigUtils, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy import __version__
from zkpy.cli.shell.context import Context, checked
from zkpy.cli.shell.formats import data_text, list_text, stat_json, stat_lines
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import COMMANDS, CliError, OperationError, command

SYNC_TIMEOUT_S: Final = 30.0


@command(
    "config",
    "[-c] [-w] [-s]",
    Option("s", "stats"),
    Option("w", "watch"),
    Option("c", "client connection string"),
)
async def config(ctx: Context, args: Arguments) -> None:
    data, stat = await ctx.zk.get_config("w" in args)
    text = data_text(data)
    shown = client_addresses(text) if "c" in args else text
    lines = [shown, *(stat_lines(stat) if "s" in args else [])]
    ctx.result(lines, {"config": text, "stat": stat_json(stat)})


def client_addresses(text: str) -> str:
    """`VERSION host:port,...` in the order of the ids; a server without client port is empty."""
    from zkpy.protocol.config_error import ConfigException
    from zkpy.protocol.properties import load_properties
    from zkpy.quorum.members import parse_server

    servers = {}
    entries = load_properties(text)
    for key, value in entries.items():
        kind, _, sid = key.partition(".")
        if kind == "server" and sid.isdecimal():
            try:
                address = parse_server(int(sid), value).client_address
            except ConfigException:
                continue
            servers[int(sid)] = "{}:{}".format(*address) if address else ""
    return f"{entries.get('version', '')} {','.join(servers[sid] for sid in sorted(servers))}"


@command(
    "reconfig",
    "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | "
    "[-add serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]",
    Option("s", "stats"),
    Option("v", "required current config version", value=True),
    Option("file", "path of config file to parse for membership", value=True),
    Option("members", "comma-separated list of config strings for a new membership", value=True),
    Option("add", "comma-separated list of config strings for new servers", value=True),
    Option("remove", "comma-separated list of server IDs to remove", value=True),
)
async def reconfig(ctx: Context, args: Arguments) -> None:
    whole, parts = (
        {"file", "members"} & args.options.keys(),
        {"add", "remove"} & args.options.keys(),
    )
    if not whole and not parts:
        COMMANDS["reconfig"].fail()
    version = config_version(args.value("v")) if "v" in args else -1
    if whole and parts:
        raise CliError(
            "Can't use -file or -members together with -add or -remove (mixing incremental and "
            "non-incremental modes is not allowed)"
        )
    if len(whole) > 1:
        raise CliError("Can't use -file and -members together (conflicting non-incremental modes)")
    joining, leaving, members = (
        args.value(name).lower() if name in args else None for name in ("add", "remove", "members")
    )
    if "file" in args:
        members = members_in(args.value("file"))
    data, stat = await ctx.zk.reconfig(joining, leaving, members, version)
    text = data_text(data)
    lines = [f"Committed new configuration:\n{text}", *(stat_lines(stat) if "s" in args else [])]
    ctx.result(lines, {"config": text, "stat": stat_json(stat)})


def config_version(text: str) -> int:
    """A version in hexadecimal, as `config` shows it. Raises CliError."""
    try:
        version = int(text, 16) if text.lstrip("+-").isalnum() else 1 << 64
    except ValueError:
        version = 1 << 64
    if not -(1 << 63) <= version < 1 << 63:
        raise CliError("-v must be followed by a long (configuration version)")
    return version


def members_in(path: str) -> str:
    """The servers of a dynamic configuration file as a request wants them. Raises CliError."""
    from zkpy.protocol.config_error import ConfigException
    from zkpy.protocol.properties import load_properties
    from zkpy.quorum.members import parse_members

    try:
        with open(path, encoding="iso-8859-1") as file:
            entries = load_properties(file.read())
        entries.pop("version", None)
        return "\n".join(parse_members(entries).lines())
    except OSError as error:
        raise CliError(f"Error processing {path}: {error.strerror}") from None
    except ConfigException as error:
        raise CliError(f"Error processing {path}: {error}") from None


@command("sync", "path", words=1)
async def sync(ctx: Context, args: Arguments) -> int:
    path = checked(args.words[0])
    import asyncio

    try:
        code = 0
        await asyncio.wait_for(ctx.zk.sync(path), SYNC_TIMEOUT_S)
    except OperationError as error:
        code = error.code
    except TimeoutError:
        raise CliError(f"Sync has failed: no answer within {SYNC_TIMEOUT_S:.0f} s") from None
    text = "Sync is OK" if code == 0 else f"Sync has failed. rc={code}"
    ctx.result([text], {"path": path, "rc": code})
    return 1 if code else 0


@command("getEphemerals", "path")
async def get_ephemerals(ctx: Context, args: Arguments) -> None:
    """Of this session; the path is a prefix."""
    prefix = checked(args.words[0] if args.words else "/")
    paths = await ctx.zk.get_ephemerals(prefix)
    ctx.result([list_text(paths)], paths)


@command("getAllChildrenNumber", "path", words=1)
async def get_all_children_number(ctx: Context, args: Arguments) -> None:
    path = checked(args.words[0])
    count = await ctx.zk.get_all_children_number(path)
    ctx.result([str(count)], {"path": path, "count": count})


@command("version", "", exact=True, offline=True)
async def version(ctx: Context, args: Arguments) -> None:
    text = f"zkpy-{__version__} (ZooKeeper 3.9 protocol)"
    ctx.result([f"ZooKeeper CLI version: {text}"], {"version": text})
