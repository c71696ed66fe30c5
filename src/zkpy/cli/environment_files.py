"""zookeeper-env.sh and java.env: variables that zkServer.sh would take from its configuration.

Only lines `NAME=VALUE` and `export NAME=VALUE` count, with $NAME and ${NAME} replaced as a shell
does outside single quotes; whatever else a script does there is not done here.
Source: zkEnv.sh, ZooKeeper 3.9.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)")
_REFERENCE = re.compile(r"'[^']*'|\$(?:\{(\w+)\}|(\w+))")


def variables_of(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What the lines of a file set, on top of `environment`."""
    found: dict[str, str] = {}

    def value_of(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return match[0]  # in single quotes
        return found.get(name, environment.get(name, ""))

    for line in text.splitlines():
        assignment = _ASSIGNMENT.match(line)
        if assignment is None:
            continue
        name, value = assignment.groups()
        try:
            words = shlex.split(_REFERENCE.sub(value_of, value), comments=True)
        except ValueError:
            continue  # quotes that another line closes: a script, not an assignment
        if len(words) <= 1:  # with more, it is a command with a variable of its own
            found[name] = words[0] if words else ""
    return found
