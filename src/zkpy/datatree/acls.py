"""ACL lists by number: nodes with the same list share one.

Numbers are local to a server. -1 stands for world:anyone:all without an entry, which only the
built-in nodes use. Source: ReferenceCountedACLCache, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

from zkpy.protocol.acl import OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.errors import DecodeError

OPEN_UNSAFE_ACL_ID: Final = -1
# Far beyond what counting reaches: a snapshot with more is damaged, and would leave no number free.
MAX_ACL_ID: Final = 1 << 62


class ReferenceCountedACLCache:
    """acls <-> id, with the number of nodes that use each."""

    __slots__ = ("_counts", "_ids", "by_id", "last_id")

    def __init__(self) -> None:
        self.by_id: dict[int, Acls] = {OPEN_UNSAFE_ACL_ID: OPEN_ACL_UNSAFE}
        self._ids: dict[Acls, int] = {}
        self._counts: dict[int, int] = {}
        self.last_id = 0

    def add(self, acls: Acls) -> int:
        """Return the id of `acls`, counting one more node with it."""
        acl_id = self._ids.get(acls)
        if acl_id is None:
            if acls == OPEN_ACL_UNSAFE:
                acls = OPEN_ACL_UNSAFE  # the one object: a check for it is an identity test
            self.last_id += 1
            acl_id = self.last_id
            self._ids[acls] = acl_id
            self.by_id[acl_id] = acls
        # An entry of a snapshot may have had no node until now.
        self._counts[acl_id] = self._counts.get(acl_id, 0) + 1
        return acl_id

    def release(self, acl_id: int) -> None:
        """One node less uses `acl_id`; the last one takes the entry with it."""
        count = self._counts.get(acl_id)
        if count is None:
            return  # -1, or an id that a fuzzy snapshot left without an entry
        if count > 1:
            self._counts[acl_id] = count - 1
            return
        del self._counts[acl_id]
        acls = self.by_id.pop(acl_id)
        if self._ids.get(acls) == acl_id:
            del self._ids[acls]

    def use(self, acl_id: int, count: int = 1) -> None:
        """Count `count` more nodes with `acl_id`, while a snapshot is loaded."""
        if acl_id in self.by_id and acl_id != OPEN_UNSAFE_ACL_ID:
            self._counts[acl_id] = self._counts.get(acl_id, 0) + count
        elif acl_id > self.last_id:
            # A node younger than the ACL map of its fuzzy snapshot. No other list may get its
            # number before the log repairs the node.
            self._skip_to(acl_id)

    def load(self, acl_id: int, acls: Acls) -> None:
        """Take over an entry of a snapshot's ACL map. Raises DecodeError if it cannot be one."""
        if acl_id == OPEN_UNSAFE_ACL_ID:
            return  # its meaning is fixed
        if acl_id in self.by_id:
            raise DecodeError(f"ACL number {acl_id} twice")
        if acls == OPEN_ACL_UNSAFE:
            acls = OPEN_ACL_UNSAFE
        self._skip_to(acl_id)
        self.by_id[acl_id] = acls
        self._ids[acls] = acl_id

    def _skip_to(self, acl_id: int) -> None:
        if acl_id > MAX_ACL_ID:
            raise DecodeError(f"ACL number {acl_id}")
        self.last_id = max(self.last_id, acl_id)

    def purge_unused(self) -> None:
        """Drop the entries no node uses, after a load."""
        for acl_id in [i for i in self.by_id if i not in self._counts]:
            if acl_id != OPEN_UNSAFE_ACL_ID:
                acls = self.by_id.pop(acl_id)
                if self._ids.get(acls) == acl_id:
                    del self._ids[acls]

    def entries(self) -> list[tuple[int, Acls]]:
        """What a snapshot's ACL map holds."""
        return [(i, acls) for i, acls in self.by_id.items() if i != OPEN_UNSAFE_ACL_ID]
