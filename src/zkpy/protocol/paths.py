"""Znode paths: what may be created, and the parent of a path.

Comparison is by code point, without normalisation. Source: PathUtils, ZooKeeper 3.9.
"""

from __future__ import annotations

import re
from typing import Final

# Control characters, surrogates and private use (hence all beyond U+FFFF), specials; empty, "."
# and ".." components. One scan in C instead of a loop per character.
_BAD: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff]|//|/\.\.?(?:/|\Z)"
)


def is_valid_path(path: str | None) -> bool:
    """Whether `path` may name a znode to create, set or check (client-visible rule, -8 if not)."""
    if not path or path[0] != "/":
        return False
    if path.isascii() and path.isprintable() and "//" not in path and "/." not in path:
        # Nearly all there are, several times faster than by the pattern.
        return path[-1] != "/" or len(path) == 1
    if path[-1] == "/":
        return len(path) == 1
    return _BAD.search(path) is None


def parent_of(path: str) -> str:
    """The text before the last slash; "" is the root."""
    return path[: path.rfind("/")] if "/" in path else ""
