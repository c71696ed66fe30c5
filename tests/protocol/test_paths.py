"""Path rules against a model that looks at one character after the other."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zkpy.protocol.paths import is_valid_path, parent_of

FORBIDDEN = [
    (0x0000, 0x001F),
    (0x007F, 0x009F),
    (0xD800, 0xF8FF),
    (0xFFF0, 0xFFFF),
    (0x10000, 0x10FFFF),
]
EDGES = [
    chr(c) for low, high in FORBIDDEN for c in (low - 1, low, high, high + 1) if 0 <= c < 0x110000
]


def is_valid(path: str | None) -> bool:
    """The table of rules, one by one."""
    if path is None or path == "" or not path.startswith("/"):
        return False
    if path == "/":
        return True
    components = path[1:].split("/")
    for component in components:
        if component in ("", ".", ".."):
            return False
    for character in path:
        for low, high in FORBIDDEN:
            if low <= ord(character) <= high:
                return False
    return True


components = st.sampled_from(
    ["", ".", "..", "...", "a", "a.", ".a", "..a", "a..", "é", " ", "\n", "*"]
)
near_paths = st.lists(components, max_size=5).map("/".join) | st.lists(
    components, min_size=1, max_size=4
).map(lambda names: "/" + "/".join(names))


@given(near_paths | st.text(st.characters(), max_size=8).map(lambda text: "/" + text))
@example("/")
@example("//")
@example("/a/")
@example("/.")
@example("/..")
@example("/./a")
@example("/a/..")
@example("/a/../b")
@example("/...")
@example("/a\n")
@example("/.\n")
@example("a/b")
def test_against_the_model(path: str) -> None:
    assert is_valid_path(path) is is_valid(path)


@pytest.mark.parametrize("character", EDGES, ids=lambda c: f"U+{ord(c):04X}")
@pytest.mark.parametrize("form", ["/{}", "/a{}", "/{}a", "/a/{}/b"])
def test_the_edges_of_the_forbidden_ranges(character: str, form: str) -> None:
    path = form.format(character)
    assert is_valid_path(path) is is_valid(path)


def test_every_character_of_the_plane() -> None:
    for code in range(0x11000):
        path = f"/a{chr(code)}b"
        assert is_valid_path(path) is is_valid(path), hex(code)


@pytest.mark.parametrize("path", [None, "", "a", "a/b", "/a//b", "/a/", "//"])
def test_invalid(path: str | None) -> None:
    assert not is_valid_path(path)


@pytest.mark.parametrize(
    ("path", "parent"),
    [("/a", ""), ("/a/b", "/a"), ("/", ""), ("", ""), ("a", ""), ("/a/b/c", "/a/b")],
)
def test_parent(path: str, parent: str) -> None:
    assert parent_of(path) == parent
