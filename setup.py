"""Builds zkpy, and with ZKPY_COMPILE=1 in the environment its request path as C.

All else is in pyproject.toml. Without the variable the result is pure Python and needs no compiler;
with it mypyc translates the modules below, which stay installed as Python beside what is compiled.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup

# The way of a request through every role of a member. Not here is what mypyc cannot translate
# (classes under `if TYPE_CHECKING`, records that read their own annotations), what interpreted code
# derives from, and what no request waits for.
#
# Compiled code differs in this, so these modules avoid it: a value of another type than annotated
# is a TypeError; a slice of bytes must not end before it begins; constants of a module are copied
# to where they are used.
COMPILED = {
    "protocol": ["errors", "packets", "paths", "txn_check", "zxid"],
    "datatree": [
        "acls",
        "apply",
        "children",
        "digest",
        "node",
        "quota",
        "serialize",
        "tree",
        "watches",
    ],
    "session": ["auth", "expiry", "learner_tracker", "tracker"],
    "persistence": ["logreader", "txnlog"],
    "quorum": [
        "committed_log",
        "follower",
        "leader",
        "leader_elect",
        "learner",
        "learner_handler",
        "learner_link",
        "observer",
        "standalone",
        "sync_requests",
    ],
    "server": [
        "changes",
        "cnxn",
        "decode",
        "final",
        "idle_server",
        "leader_server",
        "learner_server",
        "local_sessions",
        "prep",
        "reads",
        "readonly_server",
        "replies",
        "request",
        "special",
        "stats",
        "throttle",
        "zkserver",
    ],
}
# One minor version: another one may find more to object to, or translate otherwise.
MYPYC = "mypy==2.4.*"


def extensions() -> list[Extension]:
    """The extension modules; none where setuptools only asks for names and requirements."""
    if {"egg_info", "dist_info"} & set(sys.argv):
        return []
    from mypyc.build import mypycify

    paths = [
        f"src/zkpy/{package}/{name}.py" for package, names in COMPILED.items() for name in names
    ]
    level = os.environ.get("ZKPY_COMPILE_LEVEL", "3")
    return mypycify(paths, opt_level=level, debug_level="0")


if __name__ == "__main__":
    if os.environ.get("ZKPY_COMPILE") == "1":
        setup(setup_requires=[MYPYC], ext_modules=extensions())
    else:
        setup()
