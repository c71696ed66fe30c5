"""Transactions that no server proposes, but that a damaged or hostile log may hold."""

from __future__ import annotations

import pytest

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import MultiTxn, SubTxn, TxnHeader
from zkpy.protocol.zoodefs import OpCode


@pytest.mark.parametrize("inner", [OpCode.MULTI, 4, 77, -12])
def test_a_part_of_a_multi_that_is_no_txn(inner: int) -> None:
    header = TxnHeader(1, 1, 1, 1, OpCode.MULTI)
    txn = MultiTxn([SubTxn(inner, b"\0\0\0\0")])
    tree = DataTree()
    with pytest.raises(DecodeError, match=f"type={inner} "):
        apply_txn(tree, header, txn)
    assert tree.last_processed_zxid == 0
