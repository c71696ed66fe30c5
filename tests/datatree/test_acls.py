"""The cache of ACL lists against a count of the nodes that use each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zkpy.datatree.acls import OPEN_UNSAFE_ACL_ID, ReferenceCountedACLCache
from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, Acls
from zkpy.protocol.errors import DecodeError

LISTS: list[Acls] = [OPEN_ACL_UNSAFE, READ_ACL_UNSAFE, (), (ACL(31, "digest", "a:b"),)]


class ACLCacheMachine(RuleBasedStateMachine):
    """Nodes come and go, each with a list."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = ReferenceCountedACLCache()
        self.nodes: list[tuple[int, Acls]] = []

    @rule(acls=st.sampled_from(LISTS))
    def add(self, acls: Acls) -> None:
        acl_id = self.cache.add(tuple(acls))
        assert acl_id > 0
        self.nodes.append((acl_id, acls))

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.nodes) - 1))
        acl_id, _ = self.nodes.pop(index)
        self.cache.release(acl_id)

    @rule(acl_id=st.sampled_from([-1, 0, 10**9]))
    def release_what_has_no_entry(self, acl_id: int) -> None:
        self.cache.release(acl_id)

    @invariant()
    def each_node_finds_its_list(self) -> None:
        for acl_id, acls in self.nodes:
            assert self.cache.by_id[acl_id] == acls
        counts = Counter(acl_id for acl_id, _ in self.nodes)
        assert dict(self.cache.entries()) == dict(self.nodes)
        assert self.cache._counts == counts
        assert len(counts) == len({acls for _, acls in self.nodes})
        assert self.cache.by_id[OPEN_UNSAFE_ACL_ID] == OPEN_ACL_UNSAFE


TestACLCacheMachine = ACLCacheMachine.TestCase


def test_numbers_are_not_used_again() -> None:
    cache = ReferenceCountedACLCache()
    first = cache.add(READ_ACL_UNSAFE)
    cache.release(first)
    assert cache.add(READ_ACL_UNSAFE) == first + 1


def test_loading_keeps_used_entries_and_their_numbers() -> None:
    cache = ReferenceCountedACLCache()
    cache.load(4, READ_ACL_UNSAFE)
    cache.load(7, READ_ACL_UNSAFE)
    cache.load(9, OPEN_ACL_UNSAFE)
    for acl_id in (4, 4, 7, OPEN_UNSAFE_ACL_ID):
        cache.use(acl_id)
    cache.purge_unused()
    assert cache.entries() == [(4, READ_ACL_UNSAFE), (7, READ_ACL_UNSAFE)]
    assert cache.add(OPEN_ACL_UNSAFE) == 10
    for _ in range(2):
        cache.release(4)
    cache.release(7)
    assert cache.entries() == [(10, OPEN_ACL_UNSAFE)]
    assert cache.add(READ_ACL_UNSAFE) == 11


def test_a_number_without_an_entry_is_given_to_no_other_list() -> None:
    cache = ReferenceCountedACLCache()
    cache.load(4, READ_ACL_UNSAFE)
    cache.use(6)
    cache.purge_unused()
    assert cache.add(OPEN_ACL_UNSAFE) == 7


def test_world_anyone_is_one_object() -> None:
    cache = ReferenceCountedACLCache()
    mine = (ACL(31, "world", "anyone"),)
    assert cache.by_id[cache.add(mine)] is OPEN_ACL_UNSAFE
    cache.load(8, (ACL(31, "world", "anyone"),))
    assert cache.by_id[8] is OPEN_ACL_UNSAFE


def test_an_entry_that_no_node_used_can_be_taken_up() -> None:
    cache = ReferenceCountedACLCache()
    cache.load(4, READ_ACL_UNSAFE)
    assert cache.add(READ_ACL_UNSAFE) == 4
    cache.purge_unused()
    assert cache.entries() == [(4, READ_ACL_UNSAFE)]


def test_numbers_of_a_damaged_map() -> None:
    cache = ReferenceCountedACLCache()
    cache.load(OPEN_UNSAFE_ACL_ID, READ_ACL_UNSAFE)
    assert cache.by_id[OPEN_UNSAFE_ACL_ID] == OPEN_ACL_UNSAFE
    assert cache.add(READ_ACL_UNSAFE) == 1
    cache.load(5, ())
    with pytest.raises(DecodeError, match="twice"):
        cache.load(5, OPEN_ACL_UNSAFE)
    for damaged in (cache.load, lambda acl_id, _: cache.use(acl_id)):
        with pytest.raises(DecodeError):
            damaged((1 << 63) - 1, ())
