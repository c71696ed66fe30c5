"""Arbitrary values for the fields of any record, made from its annotations."""

from __future__ import annotations

from hypothesis import strategies as st

from zkpy.protocol.acl import ACL
from zkpy.protocol.jute import RECORDS, Record
from zkpy.protocol.txns import SubTxn

INTS = st.integers(-(1 << 31), (1 << 31) - 1)
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
# No surrogates: they do not survive the wire.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BUFFERS = st.binary(max_size=20)
ACLS = st.lists(
    st.builds(ACL, INTS, st.none() | TEXTS, st.none() | TEXTS), max_size=3
).map(tuple)  # fmt: skip

_STRATEGIES: dict[str, st.SearchStrategy[object]] = {
    "Int": INTS,
    "Long": LONGS,
    "Bool": st.booleans(),
    "UString": st.none() | TEXTS,
    "Buffer": st.none() | BUFFERS,
    "Acls": st.none() | ACLS,
}


def _values_of(annotation: str) -> st.SearchStrategy[object]:
    plain = annotation.removesuffix(" | None")
    if plain in _STRATEGIES:
        return _STRATEGIES[plain]
    if plain.startswith("Vector["):
        vector = st.lists(_values_of(plain[7:-1]), max_size=4)
        return st.none() | vector if plain != annotation else vector
    return records_of(RECORDS[plain])


def records_of(cls: type[Record]) -> st.SearchStrategy[Record]:
    """Any value of a record class; a wire-level value, not necessarily a sensible one."""
    annotations: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        annotations.update(vars(base).get("__annotations__", {}))
    fields = {name: _values_of(annotations[name]) for name in cls.fields}
    if cls is SubTxn:
        return st.builds(SubTxn, fields["type"], fields["data"])
    return st.builds(cls, **fields)
