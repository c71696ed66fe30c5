"""One command on the command line: connect, run it, leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkpy.cli.shell.options import Options
    from zkpy.cli.shell.shell import Shell


def run_command(shell: Shell, options: Options) -> int:
    """Returns the exit status. The session ends with it unless it is to be kept."""
    return asyncio.run(one_shot(shell, options))


async def one_shot(shell: Shell, options: Options) -> int:
    """Connect, run the command, leave."""
    shell.print_connection = not options.quiet
    try:
        # The command waits for the connection, or until all servers have refused.
        await shell.connect(shell.hosts)
        return await shell.run(options.words)
    finally:
        if not options.keep_session and shell.session is not None and shell.is_alive:
            await shell.session.close(silent=True)
