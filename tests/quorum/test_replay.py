"""zkpy in the place of one side of a captured peer connection says what Apache's member said."""

from __future__ import annotations

import pytest
from tests.quorum.replaying import (
    LIMIT,
    NOT_OF_LEADERS,
    NOT_OF_LEARNERS,
    LeaderReplay,
    LearnerReplay,
    behind_sasl,
    open_database,
    packets_of,
    without,
)
from tests.support.zabwire import GOLDEN_WIRE, Capture, capture, captures

from zkpy.datatree.digest import tree_digest
from zkpy.datatree.serialize import TreeReceiver
from zkpy.datatree.tree import DataTree
from zkpy.protocol.packets import (
    ACK,
    COMMIT,
    COMMITANDACTIVATE,
    DIFF,
    INFORM,
    INFORMANDACTIVATE,
    NEWLEADER,
    PING,
    PROPOSAL,
    SNAP,
    TRUNC,
    UPTODATE,
    Packet,
)
from zkpy.quorum.states import BROADCAST

PEERS = [found for found in captures() if found.kind == "peer"]
SCENARIOS = sorted({found.scenario for found in PEERS})
TRUNC_395 = GOLDEN_WIRE.parent / "disk" / "trunc-395"
# From the beginning of the ensemble's history, so that all digests can be compared.
WHOLE = ("380-fresh", "395-fresh", "380-snap", "395-snap", "395-localsession", "395-sasl")


def acks_of_3_8(found: Capture) -> set[int]:
    """Zxids that 3.8 acknowledges one by one though they came with the catch-up."""
    if not found.scenario.startswith("380"):
        return set()
    heard, _ = packets_of(found.accepted)
    types = [packet[0] for packet in heard]
    return {zxid for type, zxid, _, _ in heard[: types.index(NEWLEADER)] if type == PROPOSAL}


@pytest.mark.parametrize("found", PEERS, ids=lambda found: found.id)
def test_learner(found: Capture) -> None:
    replay = LearnerReplay(found, TRUNC_395 / "before/version-2" if "trunc" in found.id else None)
    ours = replay.run()
    assert replay.learner.failed is None
    assert replay.learner.phase == BROADCAST

    expected = [
        packet
        for packet in without(replay.theirs, NOT_OF_LEARNERS)
        if packet[0] != ACK or packet[1] not in acks_of_3_8(found)
    ]
    said = without(ours, NOT_OF_LEARNERS)
    assert said[: len(expected)] == expected
    # The capture may end before the last acknowledgement.
    assert [packet[0] for packet in said[len(expected) :]] in ([], [ACK])

    pongs = [packet for packet in replay.theirs if packet[0] == PING]
    assert [packet for packet in ours if packet[0] == PING][: len(pongs)] == pongs

    heard, _ = packets_of(found.accepted)
    carriers = (PROPOSAL, INFORM, INFORMANDACTIVATE)
    proposed = [zxid for type, zxid, _, _ in heard if type in carriers]
    if proposed:
        assert replay.database.last_zxid == replay.learner.committed_zxid == proposed[-1]
    if found.scenario in WHOLE:
        assert replay.database.digest_mismatches == 0


@pytest.mark.parametrize("found", PEERS, ids=lambda found: found.id)
def test_learner_that_gets_it_byte_by_byte(found: Capture) -> None:
    """Chunks make no difference, except to when it answers."""
    files = TRUNC_395 / "before/version-2" if "trunc" in found.id else None
    whole = LearnerReplay(found, files).run()
    replay = LearnerReplay(found, files)
    replay.connect()
    for byte in behind_sasl(found.accepted):
        replay.feed(bytes([byte]))
    assert replay.learner.failed is None
    assert packets_of(replay.sent)[0] == whole


def test_truncated_files_are_those_of_apache() -> None:
    """395-trunc on the files of that very server: the same log and the same tree remain."""
    found = capture("395-trunc", "04-peer")
    replay = LearnerReplay(found, TRUNC_395 / "before/version-2")
    assert replay.database.last_zxid == 0x100000005
    replay.run()
    _, theirs = open_database(TRUNC_395 / "after/version-2")
    ours = replay.database
    assert ours.last_zxid == theirs.last_zxid == 0x100000005
    ours.store.log.close()
    reload = ours.store.log.reader().records(0x100000001)
    assert list(reload) == list(theirs.store.log.reader().records(0x100000001))
    assert tree_digest(ours.tree.nodes) == tree_digest(theirs.tree.nodes)


# ---------------------------------------------------------------------- the leader


def of_types(packets: list[Packet], *types: int) -> list[Packet]:
    return [packet for packet in packets if packet[0] in types]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_leader(scenario: str) -> None:
    replay = LeaderReplay(scenario)
    said = replay.run()
    assert replay.leader.failed is None
    for found in replay.found:
        ours = without(said[found.name], NOT_OF_LEADERS)
        theirs = without(packets_of(found.accepted)[0], NOT_OF_LEADERS)
        # Until the learner serves nothing is left to chance.
        served = [packet[0] for packet in theirs].index(UPTODATE) + 1
        snapshot = packets_of(replay.peers[found.name].sent)[1]
        if snapshot:
            assert TreeReceiver(DataTree(), LIMIT).feed(snapshot + b"behind") == b"behind"
        assert ours[:served] == theirs[:served]
        # Behind that a commit may come before or after the next proposal.
        for types in ((PROPOSAL,), (COMMIT, COMMITANDACTIVATE), (INFORM, INFORMANDACTIVATE)):
            assert of_types(ours[served:], *types) == of_types(theirs[served:], *types)
        proposed: set[int] = set()
        for type, zxid, _, _ in ours:
            if type == PROPOSAL:
                proposed.add(zxid)
            elif type in (COMMIT, COMMITANDACTIVATE):
                assert zxid in proposed


def test_every_way_to_catch_up_was_played() -> None:
    kinds = {packet[0] for found in PEERS for packet in packets_of(found.accepted)[0]}
    assert {DIFF, TRUNC, SNAP} <= kinds
