"""export and import: a subtree to a file and back. ZooKeeper's shell has neither."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Final

from zkpy.cli.shell.context import Context, checked
from zkpy.cli.shell.parser import Arguments, Option
from zkpy.cli.shell.progress import Progress
from zkpy.cli.shell.session import operation_error
from zkpy.cli.shell.table import CliError, OperationError, command
from zkpy.cli.shell.texts import error_text
from zkpy.cli.shell.walk import CHUNK, NO_AUTH, NO_NODE, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkpy.cli.shell.exports import Exported
    from zkpy.client.codec import Stat
    from zkpy.client.ops import Op
    from zkpy.protocol.acl import Acls

NODE_EXISTS: Final = -110
# One multi: far below any server's jute.maxbuffer, unless a single node is bigger.
BATCH_NODES: Final = 100
BATCH_BYTES: Final = 256 * 1024


@command("export", "path file|-", words=2, extra=True)
async def export(ctx: Context, args: Arguments) -> int:
    """Write a subtree; the file is there once it is whole. Exit status 1 if parts are unreadable.

    An export of / leaves out /zookeeper, which every ensemble has of its own.
    """
    from zkpy.cli.shell.exports import end_line, header_line

    root, name = checked(args.words[0]), args.words[1]
    with output_file(name) as file:
        file.write(header_line(root) + "\n")
        exporter = Exporter(ctx, root, file)
        await exporter.run()
        file.write(end_line(exporter.count) + "\n")
    if exporter.masked:
        ctx.err(f"ACLs with passwords that only ADMIN may see: {exporter.masked}")
    ctx.err(f"Exported {exporter.count} nodes of {root} to {name}")
    if ctx.json and name != "-":
        ctx.out_json({"path": root, "file": name, "nodes": exporter.count})
    return 1 if exporter.hidden else 0


class Exporter:
    """Writes a line per node. `hidden`: not readable; `masked`: with hashes the server hides."""

    def __init__(self, ctx: Context, root: str, file: IO[str]) -> None:
        self.ctx = ctx
        self.root = root
        self.file = file
        self.progress = Progress(ctx.console, "Exported")
        self.count = 0
        self.hidden = 0
        self.masked = 0

    async def run(self) -> None:
        paths: list[str] = []
        try:
            async for found in walk(self.ctx.zk, self.root):
                if self.root == "/" and (found.path + "/").startswith("/zookeeper/"):
                    continue
                if found.stat is None:
                    self.ctx.err(error_text(NO_AUTH, found.path))
                    self.hidden += 1
                    continue
                paths.append(found.path)
                if len(paths) == CHUNK:
                    await self.write(paths)
                    paths = []
            await self.write(paths)
        finally:
            self.progress.end()

    async def write(self, paths: list[str]) -> None:
        from zkpy.cli.shell.exports import Exported, node_line

        nodes = await asyncio.gather(*(fetch(self.ctx, path) for path in paths))
        for path, node in zip(paths, nodes, strict=True):
            if node is None:
                continue
            data, acls, stat = node
            relative = "" if path == self.root else path.removeprefix(self.root.rstrip("/"))
            exported = Exported(relative, data, acls, stat.ephemeralOwner != 0)
            self.file.write(node_line(exported) + "\n")
            self.count += 1
            # What getAcl gives to others in place of the hash.
            self.masked += any(a.scheme == "digest" and (a.id or "").endswith(":x") for a in acls)
        self.progress.step(len(paths))


async def fetch(ctx: Context, path: str) -> tuple[bytes | None, Acls, Stat] | None:
    """What of a node goes into the file; None if it is gone."""
    try:
        (data, stat), (acls, _) = await asyncio.gather(ctx.zk.get_data(path), ctx.zk.get_acl(path))
    except OperationError as error:
        if error.code == NO_NODE:
            return None
        raise
    return data, acls, stat


@contextmanager
def output_file(name: str) -> Iterator[IO[str]]:
    """A text file that gets its name when it is complete; `-` is stdout. Raises CliError."""
    if name == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    part = f"{name}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, name)
    except OSError as error:
        raise CliError(f"{name}: {error.strerror}") from None
    finally:
        if os.path.exists(part):
            os.unlink(part)


@command(
    "import",
    "[-f] file|- [path]",
    Option("f", "Overwrite data and ACLs of nodes that are there"),
    words=1,
    extra=True,
)
async def import_file(ctx: Context, args: Arguments) -> int:
    """Create what an export has, below `path` or where it was; ephemeral nodes are left out."""
    from zkpy.cli.shell.exports import ExportError, read_export

    name = args.words[0]
    with closing(input_file(name)) as file:
        try:
            # First to the end: a file that is not whole must not leave half of it behind.
            items = read_export(file)
            root = next(items)
            total = sum(1 for _ in items)
        except ExportError as error:
            raise CliError(f"{name}: {error}") from None
        except UnicodeDecodeError as error:
            raise CliError(f"{name}: not UTF-8 at byte {error.start}") from None
        target = checked(args.words[1] if len(args.words) > 1 else str(root))
        file.seek(0)
        nodes = (item for item in read_export(file) if not isinstance(item, str))
        importer = Importer(ctx, target, "f" in args, total)
        await importer.run(nodes)
    if importer.ephemerals:
        ctx.err(f"Ephemeral nodes left out: {importer.ephemerals}")
    ctx.err(f"Imported {importer.count} nodes to {target}")
    if ctx.json:
        ctx.out_json({"path": target, "file": name, "nodes": importer.count})
    return 0


def input_file(name: str) -> IO[str]:
    """An open text file that can be read twice. Raises CliError."""
    if name == "-":
        import tempfile

        # Closed, and with that gone, by the caller.
        copy = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115
        copy.writelines(sys.stdin)
        copy.seek(0)
        return copy
    try:
        return open(name, encoding="utf-8", newline="\n")
    except OSError as error:
        raise CliError(f"{name}: {error.strerror}") from None


class Importer:
    """Creates nodes in batches, parents before children."""

    def __init__(self, ctx: Context, target: str, overwrite: bool, total: int) -> None:
        self.ctx = ctx
        self.prefix = "" if target == "/" else target
        self.overwrite = overwrite
        self.progress = Progress(ctx.console, "Imported", total)
        self.count = 0
        self.ephemerals = 0

    async def run(self, nodes: Iterator[Exported]) -> None:
        """Raises CliError or OperationError, after saying how far it came."""
        batch: list[Exported] = []
        size = 0
        try:
            for node in nodes:
                if node.is_ephemeral:
                    self.ephemerals += 1
                    continue
                size += len(node.data or b"")
                if batch and (len(batch) == BATCH_NODES or size > BATCH_BYTES):
                    await self.write(batch)
                    batch, size = [], len(node.data or b"")
                batch.append(node)
            await self.write(batch)
        except BaseException:
            self.progress.end()
            if self.count:
                self.ctx.err(f"Imported only {self.count} nodes")
            raise
        self.progress.end()

    def path_of(self, node: Exported) -> str:
        return self.prefix + node.path or "/"

    async def write(self, batch: list[Exported]) -> None:
        """One multi, then the ACLs of nodes that were there."""
        from zkpy.client.ops import Create, SetData
        from zkpy.protocol.errors import KeeperError

        there = await self.those_there(batch)
        ops: list[Op] = []
        for node in batch:
            path = self.path_of(node)
            if path in there:
                ops.append(SetData(path, node.data))
            else:
                ops.append(Create(path, node.data, node.acls))
        try:
            if ops:
                await self.ctx.zk.zk.multi(ops)
        except KeeperError as error:
            failed = operation_error(error, ops[getattr(error, "index", 0)].path)
            if failed.code == NODE_EXISTS:
                failed.reason = " (-f overwrites)"
            raise failed from None
        old = [node for node in batch if self.path_of(node) in there]
        for node in old:
            await self.ctx.zk.set_acl(self.path_of(node), node.acls, -1)
        self.count += len(batch)
        self.progress.step(len(batch))

    async def those_there(self, batch: list[Exported]) -> set[str]:
        """Paths of nodes that exist. The root does always: it is not created, nor an error.

        Raises OperationError if there are others, and they are not to be overwritten.
        """
        paths = [self.path_of(node) for node in batch]
        if not self.overwrite:
            if "/" in paths:
                batch[:] = [node for node in batch if self.path_of(node) != "/"]
            return set()
        stats = await asyncio.gather(*(self.ctx.zk.exists(path) for path in paths))
        return {path for path, stat in zip(paths, stats, strict=True) if stat is not None}
