"""All commands: importing this package fills the table."""

from zkpy.cli.shell.commands import acls, ensemble, extras, line, nodes, quotas, watches

__all__ = ["acls", "ensemble", "extras", "line", "nodes", "quotas", "watches"]
