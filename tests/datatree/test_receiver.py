"""TreeReceiver: the stream behind a SNAP packet, in chunks of any size, whole or damaged."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datatree.test_serialize import LIMIT, check_same, chunks_of, grown

from zkpy.datatree.apply import apply_bytes
from zkpy.datatree.digest import tree_digest
from zkpy.datatree.serialize import SIGNATURE, TreeReceiver, encode_node, serialize_stream
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.packets import PROPOSAL, SNAP, PacketReader

WIRE = Path(__file__).parents[1] / "golden" / "wire"


def new_receiver(limit: int = LIMIT) -> TreeReceiver:
    return TreeReceiver(DataTree(extended_types=True), limit)


def received(data: bytes, rng: Random) -> tuple[DataTree, bytes]:
    """The tree, and what follows the stream."""
    receiver = new_receiver()
    chunks = chunks_of(data, rng)
    for chunk in chunks:
        rest = receiver.feed(chunk)
        if rest is not None:
            return receiver.finished_tree(), rest + b"".join(chunks)
    raise AssertionError("the stream did not end")


@given(st.randoms(use_true_random=False), st.integers(0, 30), st.binary(max_size=20))
def test_any_tree_in_any_chunks(rng: Random, count: int, behind: bytes) -> None:
    tree = grown(rng, count)
    loaded, rest = received(b"".join(serialize_stream(tree)) + behind, rng)
    check_same(tree, loaded)
    assert rest == behind


@given(st.randoms(use_true_random=False), st.data())
def test_damage_is_an_error_or_a_wait_and_never_a_tree(rng: Random, data: st.DataObject) -> None:
    """Nothing else is raised, wherever a bit is wrong; a cut stream is waited for."""
    stream = bytearray(b"".join(serialize_stream(grown(rng, 10))))
    cut = data.draw(st.integers(0, len(stream) - 1))
    assert new_receiver().feed(bytes(stream[:cut])) is None
    stream[cut] ^= 1 << data.draw(st.integers(0, 7))
    try:
        receiver = new_receiver()
        rest = None
        for chunk in chunks_of(bytes(stream), rng):
            assert rest is None or cut < len(stream)
            rest = receiver.feed(chunk)
            if rest is not None:
                break
    except DecodeError:
        return
    if rest is not None:
        tree = receiver.finished_tree()
        assert tree.digest == tree_digest(tree.nodes)


@pytest.mark.parametrize("scenario", ["395-snap", "380-snap"])
def test_what_real_leaders_sent(scenario: str) -> None:
    """The digests of the txns behind the snapshot tell that the tree is the leader's."""
    reader = PacketReader()
    packets = reader.feed((WIRE / scenario / "04-peer.s2c").read_bytes())
    assert packets[-1][0] == SNAP
    stream = reader.take_rest()
    for seed in range(5):
        tree, rest = received(stream, Random(seed))
        stream = b"".join(serialize_stream(tree)) + rest  # ours, from now on
        tree.last_processed_zxid = packets[-1][1]
        compared = 0
        for type, zxid, data, _ in PacketReader().feed(rest):
            if type == PROPOSAL:
                assert data is not None
                result = apply_bytes(tree, data)
                assert result.zxid == zxid
                assert result.digest == tree.digest
                compared += 1
        assert compared > 0


def test_the_signature_has_to_follow() -> None:
    stream = b"".join(serialize_stream(DataTree()))
    for position in range(1, len(SIGNATURE) + 1):
        wrong = bytearray(stream)
        wrong[-position] ^= 1
        with pytest.raises(DecodeError, match="Missing signature"):
            new_receiver().feed(bytes(wrong))
        receiver = new_receiver()
        assert receiver.feed(stream[:-position]) is None
        with pytest.raises(DecodeError, match="Missing signature"):
            receiver.feed(b"x" * position)


def test_the_signature_as_data_ends_nothing() -> None:
    tree = DataTree(extended_types=True)
    data = b"\x00\x00\x00\x01/" + SIGNATURE
    for number in range(3):
        tree.create_node(f"/n{number}", data, OPEN_ACL_UNSAFE, 0, -1, number + 1, 0)
    loaded, rest = received(b"".join(serialize_stream(tree)), Random(1))
    check_same(tree, loaded)
    assert rest == b""


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (b"\xff\xff\xff\xff\0", "Unreasonable length = -1 at 8"),
        (struct.pack(">i", LIMIT + 1) + b"/", "Unreasonable length = "),
        (struct.pack(">i", 0) + struct.pack(">i", LIMIT + 1), "Unreasonable length = "),
        (struct.pack(">i", 0) + struct.pack(">i", -2), "Unreasonable length = -2"),
        (encode_node("/a", DataTree().nodes["/"]), "before its parent"),
        (b"\0\0\0\x01/", "without a root"),
    ],
)
def test_what_is_no_tree(nodes: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        new_receiver().feed(bytes(8) + nodes)


@pytest.mark.patches
def test_a_large_node_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with every chunk of it, which would copy it a thousand times."""
    tree = DataTree(extended_types=True)
    tree.create_node("/large", bytes(LIMIT), OPEN_ACL_UNSAFE, 0, -1, 1, 0)
    for number in range(100):
        tree.create_node(f"/n{number}", b"x", OPEN_ACL_UNSAFE, 0, -1, number + 2, 0)
    stream = b"".join(serialize_stream(tree))
    receiver = new_receiver()
    joins = 0
    append = type(receiver._input).append

    def counted(self: object, chunks: list[bytes]) -> None:
        nonlocal joins
        joins += 1
        append(self, chunks)  # type: ignore[arg-type]

    monkeypatch.setattr(type(receiver._input), "append", counted)
    rest = None
    for start in range(0, len(stream), 1000):
        rest = receiver.feed(stream[start : start + 1000])
    assert rest == b""
    check_same(tree, receiver.finished_tree())
    assert joins < 30


def test_the_state_that_is_replaced_stays_until_the_end() -> None:
    receiver = new_receiver()
    with pytest.raises(AssertionError):
        receiver.finished_tree()
    assert receiver.feed(b"".join(serialize_stream(DataTree()))) == b""
    with pytest.raises(AssertionError, match="nothing of the stream is left"):
        receiver.feed(b"more")
