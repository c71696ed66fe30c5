"""All commands: importing this package fills the table."""

from zkpy.cli.shell.commands import (
    acls,
    ensemble,
    follow,
    line,
    nodes,
    quotas,
    transfer,
    trees,
    watches,
)

__all__ = [
    "acls", "ensemble", "follow", "line", "nodes", "quotas", "transfer", "trees", "watches",
]  # fmt: skip
