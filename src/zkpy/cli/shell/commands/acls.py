"""Who may do what: getAcl, setAcl, addauth, whoami.

Source: GetAclCommand, SetAclCommand, AddAuthCommand, WhoAmICommand, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.cli.shell.commands.nodes import INVALID_ACL, visit
from zkpy.cli.shell.context import Context, checked, number
from zkpy.cli.shell.formats import acl_lines, acl_text, parse_acls, stat_json, stat_lines
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.table import OperationError, command
from zkpy.cli.shell.texts import code_text


@command("getAcl", "[-s] path", Option("s", "stats"), words=1)
async def get_acl(ctx: Context, args: Arguments) -> None:
    path = checked(args.words[0])
    acls, stat = await ctx.zk.get_acl(path)
    lines = acl_lines(acls) + (stat_lines(stat) if "s" in args else [])
    value = {"path": path, "acl": [acl_text(acl) for acl in acls], "stat": stat_json(stat)}
    ctx.result(lines, value)


@command(
    "setAcl",
    "[-s] [-v version] [-R] path acl",
    Option("s", "stats"),
    Option("v", "version", value=True),
    Option("R", "recursive"),
    words=2,
)
async def set_acl(ctx: Context, args: Arguments) -> int:
    path = args.words[0]
    acls = parse_acls(args.words[1], ctx.err)
    version = number(args.value("v")) if "v" in args else -1
    checked(path)
    if not acls:
        raise OperationError(INVALID_ACL, None)
    if "R" not in args:
        stat = await ctx.zk.set_acl(path, acls, version)
        ctx.stat_result(path, stat, "s" in args)
        return 0
    status, changed = 0, 0
    async for node in visit(ctx, path):
        try:
            await ctx.zk.set_acl(node, acls, version)
            changed += 1
        except OperationError as error:
            ctx.err(code_text(error.code, error.path))
            status = 1
    ctx.result([], {"path": path, "changed": changed})
    return status


@command("addauth", "scheme auth", words=1)
async def addauth(ctx: Context, args: Arguments) -> int:
    """A credential that is refused ends the session, as the server closes the connection."""
    auth = args.words[1].encode("utf-8", "surrogateescape") if len(args.words) > 1 else None
    await ctx.zk.add_auth(args.words[0], auth)
    return 0 if ctx.zk.is_alive else 1


@command("whoami", "", raw=True)
async def whoami(ctx: Context, args: Arguments) -> None:
    users = await ctx.zk.who_am_i()
    lines = ["Auth scheme: User", *(f"{scheme}: {user}" for scheme, user in users)]
    ctx.result(lines, [{"scheme": scheme, "user": user} for scheme, user in users])
