"""Paths as the caller gives them: checked with ZooKeeper's words, before anything is sent.

Source: PathUtils.validatePath, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.protocol.paths import is_valid_path


def validate_path(path: str, is_sequential: bool = False) -> None:
    """Raise ValueError, with ZooKeeper's text, if `path` cannot name a node.

    A sequential node's path may end with a slash: its name is only the number then.
    """
    if not isinstance(path, str):
        raise ValueError("Path cannot be null")
    full = path + "1" if is_sequential else path
    if not is_valid_path(full):
        raise ValueError(_reason(full))


def _reason(path: str) -> str:
    if not path:
        return "Path length must be > 0"
    if path[0] != "/":
        return "Path must start with / character"
    if path[-1] == "/":
        return "Path must not end with / character"
    return f'Invalid path string "{path}" caused by {_fault(path)}'


def _fault(path: str) -> str:
    for index, char in enumerate(path[1:], 1):
        last, after = path[index - 1], path[index + 1 : index + 2]
        if char == "\0":
            return f"null character not allowed @{index}"
        if char == "/" and last == "/":
            return f"empty node name specified @{index}"
        if char == "." and last == "." and path[index - 2] == "/" and after in ("", "/"):
            return f"relative paths not allowed @{index}"
        if char == "." and last == "/" and after in ("", "/"):
            return f"relative paths not allowed @{index}"
        if not is_valid_path("/" + char) and char not in "/.":
            return f"invalid character @{index}"
    raise AssertionError(f"nothing wrong with {path!r}")


def prepend_chroot(chroot: str, path: str, is_sequential: bool = False) -> str:
    """The path as the server knows it. A sequential "/" stays below the chroot."""
    if path == "/" and chroot and not is_sequential:
        return chroot
    return chroot + path


def strip_chroot(chroot: str, path: str) -> str:
    """The path as the caller knows it; one outside (/zookeeper/config) stays as it is."""
    if not chroot:
        return path
    if path == chroot:
        return "/"
    return path[len(chroot) :] if path.startswith(chroot + "/") else path
