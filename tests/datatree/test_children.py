"""WideChildren against a dict, also while its slices are being listed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from zkpy.datatree import children as module
from zkpy.datatree.children import WideChildren, slices_of
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE

PATHS = [f"/parent/n-{number}" for number in range(200)]
paths = st.sampled_from(PATHS)


class Listing:
    """An iteration under way, what it owes and what it has listed."""

    def __init__(self, slices: Iterator[list[str]], there: set[str]) -> None:
        self.slices = slices
        self.owed = there
        self.known = set(there)
        self.listed: list[str] = []


class WideChildrenMachine(RuleBasedStateMachine):
    """Buckets of four, so that every few additions split one."""

    listings = Bundle("listings")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "BUCKET", 4)
        self.children = WideChildren({})
        self.model: dict[str, None] = {}
        self.under_way: list[Listing] = []

    def teardown(self) -> None:
        self.patch.undo()

    @rule(path=paths)
    def add(self, path: str) -> None:
        self.children[path] = None
        self.model[path] = None
        for listing in self.under_way:
            listing.known.add(path)

    @rule(start=st.integers(0, 190))
    def add_many(self, start: int) -> None:
        for path in PATHS[start : start + 10]:
            self.add(path)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        self.children.pop(path, None)
        self.model.pop(path, None)
        for listing in self.under_way:
            listing.owed.discard(path)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_one_that_is_there(self, data: st.DataObject) -> None:
        self.remove(data.draw(st.sampled_from(sorted(self.model))))

    @rule(target=listings)
    def begin(self) -> Listing:
        listing = Listing(self.children.slices(), set(self.model))
        self.under_way.append(listing)
        return listing

    @rule(listing=listings)
    def list_a_slice(self, listing: Listing) -> None:
        for path in next(listing.slices, []):
            assert path in listing.known
            listing.listed.append(path)

    @rule(listing=consumes(listings))
    def finish(self, listing: Listing) -> None:
        for found in listing.slices:
            listing.listed += found
        assert len(set(listing.listed)) == len(listing.listed)
        assert listing.owed <= set(listing.listed) <= listing.known
        self.under_way.remove(listing)

    @invariant()
    def as_the_dict(self) -> None:
        assert len(self.children) == len(self.model)
        assert set(self.children) == set(self.model)
        assert len(list(self.children)) == len(self.model)
        assert all((path in self.children) is (path in self.model) for path in PATHS[::7])


TestWideChildrenMachine = WideChildrenMachine.TestCase


def test_nothing_has_no_slices() -> None:
    assert list(slices_of(None)) == []


def test_a_dict_is_one_slice_of_its_own() -> None:
    children = dict.fromkeys(PATHS[:3])
    slices = slices_of(children)
    found = next(slices)
    children.clear()
    assert found == PATHS[:3]
    assert list(slices) == []


def test_slices_are_bounded() -> None:
    children = WideChildren(dict.fromkeys(f"/n{number}" for number in range(50_000)))
    sizes = [len(found) for found in children.slices()]
    assert sum(sizes) == 50_000
    assert max(sizes) <= module.BUCKET


class Colliding(str):
    """A path whose hash is that of all others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 77

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other


@pytest.mark.patches
def test_colliding_hashes_do_not_grow_the_directory_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BUCKET", 4)
    monkeypatch.setattr(module, "MAX_DEPTH", 10)
    children = WideChildren({Colliding(number): None for number in range(50)})
    assert len(children) == 50
    assert len(children._directory) <= 1 << 10
    assert len(list(children)) == 50


@pytest.mark.patches
def test_a_parent_becomes_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    from zkpy.datatree import tree as tree_module

    monkeypatch.setattr(tree_module, "WIDE", 20)
    tree = DataTree()
    for number in range(40):
        tree.create_node(f"/n{number}", b"", OPEN_ACL_UNSAFE, 0, -1, number + 1, 1)
    root = tree.nodes["/"]
    assert isinstance(root.children, WideChildren)
    assert set(tree.child_names("/", root)) == {f"n{n}" for n in range(40)} | {"zookeeper"}
    for number in range(40):
        tree.delete_node(f"/n{number}", 100)
    assert tree.child_names("/", root) == ["zookeeper"]
    tree.create_node("/one", b"", OPEN_ACL_UNSAFE, 0, -1, 200, 1)
    wide = tree.nodes["/one"]
    for number in range(25):
        tree.create_node(f"/one/{number}", b"", OPEN_ACL_UNSAFE, 0, -1, 201, 1)
    for number in range(25):
        tree.delete_node(f"/one/{number}", 202)
    assert wide.children is None
