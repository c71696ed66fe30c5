"""Builds zkpy, and with ZKPY_COMPILE=1 in the environment its request path as C.

All else is in pyproject.toml. Without the variable the result is pure Python and needs no compiler;
with it mypyc translates the modules below, which stay installed as Python beside what is compiled.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from setuptools import Extension, setup

# The way of a request through every role of a member. Not here is what mypyc cannot translate
# (Protocol classes, records that read their own annotations) and what no request waits for.
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
MYPYC = "mypy>=2.4,<3"


def extensions() -> list[Extension]:
    """The extension modules; none while mypyc is not installed yet, as `setup_requires` is read."""
    if importlib.util.find_spec("mypyc") is None and "egg_info" in sys.argv:
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
