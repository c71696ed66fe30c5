"""Elections as text: who dials whom, and says what, when. Reviewed as a diff.

`ZKPY_REWRITE=1 pytest tests/quorum/test_election_transcripts.py` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.quorum.electing import Network, Node, members_of

FOLDER = Path(__file__).parent / "transcripts"
DELAY_MS = (1.0, 1.0)


def members(
    network: Network, *, observers: tuple[int, ...] = (), late: tuple[int, ...] = ()
) -> None:
    """Voters 1 to 3 and observers, one after the other within a millisecond; `late` are not up."""
    config = members_of([1, 2, 3], observers)
    for number, sid in enumerate([1, 2, 3, *observers]):
        node = Node(network, sid, config)
        node.alive = sid not in late
        if node.alive:
            network.after(number * 0.25, node.start)


def start(network: Network) -> None:
    members(network, observers=(4,))
    network.run(500)


def leader_killed(network: Network) -> None:
    members(network)
    network.run(500)
    network.notes.clear()
    network.kill(3)
    network.run(500)


def late_starter(network: Network) -> None:
    members(network, late=(3,))
    network.run(500)
    network.notes.append("")
    network.nodes[3].alive = True
    network.nodes[3].start()
    network.run(500)


def better_log(network: Network) -> None:
    members(network)
    network.nodes[1].zxid = 0x10
    network.nodes[2].epoch = 1
    network.run(500)


def alone(network: Network) -> None:
    members(network, late=(2, 3))
    network.run(5000)


SCENARIOS: list[Callable[[Network], None]] = [
    start,
    leader_killed,
    late_starter,
    better_log,
    alone,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_transcript(scenario: Callable[[Network], None]) -> None:
    network = Network(0, DELAY_MS)
    scenario(network)
    text = "\n".join(network.notes) + "\n"
    path = FOLDER / f"election_{scenario.__name__}.txt"
    if os.environ.get("ZKPY_REWRITE"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
