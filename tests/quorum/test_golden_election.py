"""zkpy's election in the place of a captured server's: the same bytes where there is no choice."""

from __future__ import annotations

import pytest
from tests.quorum.electing import Settings
from tests.support.zabwire import Capture, captures

from zkpy.protocol.packets import Notification, decode_initial, frame
from zkpy.quorum.cnx_manager import QuorumCnxManager
from zkpy.quorum.effects import Dial, Effect
from zkpy.quorum.election import FastLeaderElection
from zkpy.quorum.link import Link
from zkpy.quorum.members import parse_config_text
from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING, OBSERVING
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

NOW = 1_000_000


def dialler(found: Capture) -> int:
    initial = decode_initial(found.dialled)
    assert initial is not None
    return initial[0]


def listener(found: Capture) -> int:
    """Server N listens at 24002+10N, and with a second address at 24004+10N."""
    return (int(found.server.rpartition(":")[2]) - 24000) // 10


def frames(stream: bytes) -> list[bytes]:
    """Payloads behind the first bytes of whoever dialled."""
    payloads = []
    while stream:
        size = int.from_bytes(stream[:4], "big")
        payloads.append(stream[4 : 4 + size])
        stream = stream[4 + size :]
    return payloads


def payloads_of(found: Capture) -> tuple[list[bytes], list[bytes]]:
    """What the dialler and the listener said."""
    initial = decode_initial(found.dialled)
    assert initial is not None
    return frames(found.dialled[initial[2] :]), frames(found.accepted)


def talks(scenario: str, sid: int) -> dict[int, tuple[list[bytes], list[bytes]]]:
    """Other server -> (what it said to `sid`, what `sid` said), on all their connections."""
    found: dict[int, tuple[list[bytes], list[bytes]]] = {}
    for one in captures(scenario):
        if one.kind != "election" or not one.accepted:
            continue
        dialled, accepted = payloads_of(one)
        if listener(one) == sid:
            theirs, ours = found.setdefault(dialler(one), ([], []))
            theirs += dialled
            ours += accepted
        elif dialler(one) == sid:
            theirs, ours = found.setdefault(listener(one), ([], []))
            theirs += accepted
            ours += dialled
    return found


class Server:
    """A captured server's election, with its configuration."""

    def __init__(self, scenario: str, sid: int, zxid: int, epoch: int) -> None:
        self.talks = talks(scenario, sid)
        said = next(ours for _, ours in self.talks.values() if ours)
        config = Notification.decode(said[0]).config
        assert config is not None
        self.view = View(sid, parse_config_text(config, multi_address=True))
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        settings = Settings()
        settings.multi_address_enabled = "multiaddr" in scenario
        self.cnx_manager = QuorumCnxManager(sid, self.view, settings, self.outbox, self.effects)
        self.election = FastLeaderElection(sid, self.view, unreachable=lambda sid: False)
        self.zxid, self.epoch = zxid, epoch
        self.vote = Vote(sid, zxid, 0, epoch)

    def look(self) -> list[tuple[int, bytes]]:
        self.election.look(NOW, self.zxid, self.epoch)
        return self.election.take_messages()

    def hears(self, sid: int, payload: bytes) -> list[tuple[int, bytes]]:
        self.election.received(sid, payload, NOW, LOOKING, self.vote)
        return self.election.take_messages()


RETURNS = [
    # Server 1 comes back to an ensemble that 3 leads; its last zxid as captured.
    ("380-diff", 1, 0x100000008, 1, (FOLLOWING, 3)),
    ("395-diff", 1, 0x100000008, 1, (FOLLOWING, 3)),
    # Servers 1 and 2 have elected 2 while 3 was away; first they send it their vote of then.
    ("395-failover", 3, 0x100000003, 1, (FOLLOWING, 2)),
    ("380-fresh", 4, 0, 0, (OBSERVING, 3)),
    ("395-fresh", 4, 0, 0, (OBSERVING, 3)),
]


@pytest.mark.parametrize(("scenario", "sid", "zxid", "epoch", "result"), RETURNS)
def test_joining(scenario: str, sid: int, zxid: int, epoch: int, result: tuple[int, int]) -> None:
    server = Server(scenario, sid, zxid, epoch)
    sent = server.look()
    most = max(len(theirs) for theirs, _ in server.talks.values())
    for turn in range(most):
        for other, (theirs, _) in sorted(server.talks.items()):
            if turn < len(theirs) and server.election.elected is None:
                sent += server.hears(other, theirs[turn])
    elected = server.election.elected
    assert elected is not None
    assert (server.election.elected_state, elected.leader) == result
    # What we say to each is what it was told, until we tell what has come of it.
    for other, (_, ours) in server.talks.items():
        said = [payload for to, payload in sent if to == other]
        looking = [payload for payload in said if Notification.decode(payload).state == LOOKING]
        assert looking[: len(ours)] == ours[: len(looking)]
        assert looking


def test_answers_of_a_leader_and_of_a_follower() -> None:
    """Server 3 comes back, and is told of the leader."""
    for sid, state in ((2, LEADING), (1, FOLLOWING)):
        server = Server("395-failover", sid, 0x100000003, 1)
        theirs, ours = server.talks[3]
        vote = Vote(2, 0x100000003, 2, 2)
        for asked, answer in zip(theirs, ours[1:], strict=True):
            server.election.received(3, asked, NOW, state, vote)
            assert server.election.take_messages() == [(3, answer)]


def test_answers_to_an_observer() -> None:
    for scenario in ("380-fresh", "395-fresh"):
        for sid, state in ((1, FOLLOWING), (2, FOLLOWING), (3, LEADING)):
            server = Server(scenario, sid, 0, 0)
            server.election.logical_clock = 1
            theirs, ours = server.talks[4]
            server.election.received(4, theirs[0], NOW, state, Vote(3, 0, 1, 1))
            assert server.election.take_messages() == [(4, ours[0])]


@pytest.mark.parametrize(
    "scenario", ["380-fresh", "395-fresh", "395-localsession", "395-multiaddr"]
)
@pytest.mark.parametrize("sid", [1, 2, 3])
def test_first_election(scenario: str, sid: int) -> None:
    """All start: our first vote is the captured one, and in the end so is our last."""
    server = Server(scenario, sid, 0, 0)
    first = server.look()
    peers = [other for other in (1, 2, 3) if other != sid]
    assert [other for other, _ in first] == peers
    votes = {payload for _, ours in server.talks.values() for payload in ours}
    assert first[0][1] in votes
    sent = first
    for other in peers:
        for payload in server.talks[other][0]:
            if server.election.elected is None:
                sent += server.hears(other, payload)
    elected = server.election.elected
    assert elected is not None
    assert elected.leader == 3
    looking = [payload for _, payload in sent if Notification.decode(payload).state == LOOKING]
    assert set(looking) <= votes | {first[0][1]} | {vote_for(server, leader) for leader in (2, 3)}
    assert vote_for(server, 3) in votes


def vote_for(server: Server, leader: int) -> bytes:
    """The vote of the first election for `leader`."""
    return Notification(LOOKING, leader, 0, 1, 0, 2, server.view.committed_text).encode()


@pytest.mark.parametrize("scenario", ["380-fresh", "395-fresh", "395-multiaddr", "395-failover"])
def test_connections(scenario: str) -> None:
    """First bytes, and with the larger id the first message in one piece with them."""
    for found in captures(scenario):
        if found.kind != "election":
            continue
        sid, other = dialler(found), listener(found)
        server = Server(scenario, sid, 0, 0)
        server.cnx_manager.send(other, b"x", NOW)
        dials = [effect for effect in server.effects if isinstance(effect, Dial)]
        assert {dial.sid for dial in dials} == {other}
        host, _, port = found.server.rpartition(":")
        assert (host, int(port)) in [dial.address for dial in dials]
        link = Link(server.outbox, found.server)
        server.cnx_manager.dialled(dials[0], link, NOW)
        initial = decode_initial(found.dialled)
        assert initial is not None
        assert link.closed is (sid < other)
        ours = bytes(link.out)
        if sid > other:
            ours = ours.removesuffix(frame(b"x"))
        theirs = found.dialled[: initial[2]]
        # Several addresses come in any order.
        assert sorted(ours[20:].split(b"|")) == sorted(theirs[20:].split(b"|"))
        assert ours[:20] == theirs[:20]
