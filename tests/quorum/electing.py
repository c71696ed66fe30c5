"""Members that only elect, on a network in virtual time, from one seed.

A `Node` is a connection manager and an election, driven as a member drives them, with the least of
a role behind it: a leader needs a quorum of followers, a follower a leader that leads.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random

from zkpy.protocol.packets import Notification
from zkpy.quorum.cnx_manager import QuorumCnxManager
from zkpy.quorum.effects import Dial, Effect
from zkpy.quorum.election import NOBODY, FastLeaderElection
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.states import FOLLOWING, LEADING, LOOKING, OBSERVING, STATE_NAMES
from zkpy.quorum.view import View
from zkpy.quorum.vote import Vote

# How long a leader without followers, and a follower without leader, keep trying.
ROLE_LIMIT_MS = 400
CHECK_MS = 10
BEGIN_MS = 1_000_000.0


class Settings:
    cnx_timeout_ms = 5000
    quorum_cnxn_timeout_ms = 4000
    multi_address_enabled = False


def server_line(sid: int, role: str = "participant") -> str:
    return f"server.{sid}=h{sid}:2888:3888:{role};0.0.0.0:2181"


def members_of(
    voters: Iterable[int], observers: Iterable[int] = (), version: int = 0, *more: str
) -> Members:
    lines = [server_line(sid) for sid in voters]
    lines += [server_line(sid, "observer") for sid in observers]
    lines += [*more, f"version={version:x}"]
    return parse_config_text("\n".join(lines))


class ReferenceElection(FastLeaderElection):
    """As the reference does it: 200 ms are always waited, and the result is told to nobody."""

    def _nobody_better(self) -> bool:
        return False

    def _finish(self, vote: Vote) -> None:
        super()._finish(vote)
        self._messages.clear()


class Node:
    def __init__(
        self,
        network: Network,
        sid: int,
        members: Members,
        *,
        zxid: int = 0,
        epoch: int = 0,
        last_proposed: Members | None = None,
        kind: type[FastLeaderElection] = FastLeaderElection,
        reconfig_enabled: bool = False,
        clock: int = 0,
    ) -> None:
        self.network = network
        self.sid = sid
        self.zxid = zxid
        self.epoch = epoch
        self.view = View(sid, members, last_proposed, reconfig_enabled)
        self.outbox: list[Link] = []
        self.effects: list[Effect] = []
        self.cnx_manager = QuorumCnxManager(sid, self.view, Settings(), self.outbox, self.effects)
        self.election = kind(sid, self.view, unreachable=self.cnx_manager.unreachable)
        self.election.logical_clock = clock
        self.state = LOOKING
        self.vote = Vote(sid, zxid, 0, epoch)
        self.alive = True
        self.established = False
        self.look_began = 0
        self.role_began = 0
        # (time it took, vote) of every election.
        self.elections: list[tuple[int, Vote]] = []
        self.sent: list[tuple[int, int, bytes]] = []
        network.nodes[sid] = self

    def start(self) -> None:
        self.look()
        self.settle()
        self.network.after(CHECK_MS, self._check)

    def look(self) -> None:
        self.state = LOOKING
        self.established = False
        self.look_began = self.network.now_ms
        self.vote = Vote(self.sid, self.zxid, self.election.logical_clock, self.epoch)
        self.network.note(f"{self.sid} is LOOKING")
        self.election.look(self.network.now_ms, self.zxid, self.epoch)

    def settle(self) -> None:
        now_ms = self.network.now_ms
        while True:
            received = self.cnx_manager.take_received()
            for sid, payload in received:
                self.election.received(sid, payload, now_ms, self.state, self.vote)
            messages = self.election.take_messages()
            for sid, payload in messages:
                self.sent.append((now_ms, sid, payload))
                self.network.note(f"{self.sid} to {sid}: {vote_text(payload)}")
                self.cnx_manager.send(sid, payload, now_ms)
            if not received and not messages:
                break
        if self.state == LOOKING:
            newer = self.election.take_newer_config()
            if newer is not None:
                restart = not newer.same_members(self.view.committed)
                self.view.set_committed(newer)
                if restart:
                    self.cnx_manager.restart()
                    self.look()
                    self.settle()
                    return
            if self.election.elected is not None:
                self._begin_role(self.election.elected)
        self.network.flush(self)

    def _begin_role(self, vote: Vote) -> None:
        now_ms = self.network.now_ms
        self.state = self.election.elected_state
        self.vote = vote
        self.cnx_manager.forget()
        self.role_began = now_ms
        self.elections.append((now_ms - self.look_began, vote))
        self.network.note(f"{self.sid} is {STATE_NAMES[self.state]}, leader {vote.leader}")

    def _check(self) -> None:
        """What the role comes to."""
        if not self.alive:
            return
        network = self.network
        network.after(CHECK_MS, self._check)
        if self.state == LOOKING:
            return
        patience = network.now_ms - self.role_began < ROLE_LIMIT_MS
        if self.state == LEADING:
            followers = {
                node.sid
                for node in network.nodes.values()
                if node.alive
                and node.state == FOLLOWING
                and node.vote.leader == self.sid
                and not network.is_cut(node.sid, self.sid)
            }
            if self.view.has_quorum(followers | {self.sid}):
                if not self.established:
                    self.established = True
                    self.epoch = max(network.nodes[sid].epoch for sid in followers | {self.sid}) + 1
                    self.zxid = self.epoch << 32
                    self._tell_epoch()
                return
            if self.established or not patience or self.election.abandoned(followers):
                self._leave()
            return
        leader = network.nodes[self.vote.leader]
        if not leader.alive or leader.state != LEADING or network.is_cut(self.sid, leader.sid):
            if self.established or not patience or self.election.abandoned():
                self._leave()
        elif leader.established and not self.established:
            self.established = True
            self.epoch, self.zxid = leader.epoch, leader.zxid
            self._tell_epoch()

    def _tell_epoch(self) -> None:
        self.vote = self.vote.with_peer_epoch(self.epoch)
        self.election.established(self.vote, self.state)
        self.settle()

    def _leave(self) -> None:
        self.election.stop()
        self.look()
        self.settle()

    def tick(self) -> None:
        if not self.alive:
            return
        now_ms = self.network.now_ms
        self.cnx_manager.tick(now_ms)
        if self.state == LOOKING:
            self.election.tick(now_ms)
        self.settle()

    def __repr__(self) -> str:
        return f"{self.sid}:{STATE_NAMES[self.state]}->{self.vote.leader}"


class Network:
    """Streams between nodes, each in order, with random delays; hosts h1, h2, ..."""

    def __init__(self, seed: int = 0, delay_ms: tuple[float, float] = (0.2, 2.0)) -> None:
        self.rng = Random(seed)
        self.delay_ms = delay_ms
        self.time = BEGIN_MS
        self.nodes: dict[int, Node] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        # Links that are connected: each to its other end, and when its last bytes arrive.
        self._other: dict[Link, tuple[Node, Link]] = {}
        self._arrival: dict[Link, float] = {}
        # Pairs that hear nothing of each other: what is sent waits. And those who refuse.
        self.cut: set[tuple[int, int]] = set()
        # What happens, for transcripts.
        self.notes: list[str] = []

    @property
    def now_ms(self) -> int:
        return int(self.time)

    def note(self, text: str) -> None:
        self.notes.append(f"{self.time - BEGIN_MS:8.1f} {text}")

    def after(self, delay_ms: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.time + delay_ms, self._count, call))

    def _delay(self) -> float:
        return self.rng.uniform(*self.delay_ms)

    def is_cut(self, one: int, other: int) -> bool:
        return (one, other) in self.cut or (other, one) in self.cut

    def run(self, duration_ms: float) -> None:
        """Let the time pass."""
        end = self.time + duration_ms
        while True:
            due = min((timer_of(node) for node in self.nodes.values()), default=end)
            event = self._events[0][0] if self._events else end
            self.time = max(self.time, min(due, event, end))
            if self.time >= end:
                return
            if event <= due:
                heapq.heappop(self._events)[2]()
            else:
                for node in list(self.nodes.values()):
                    if timer_of(node) <= self.time:
                        node.tick()

    def until(self, done: Callable[[], bool], limit_ms: float) -> float:
        """Run until `done`; how long it took."""
        began = self.time
        while not done():
            assert self.time - began < limit_ms, f"not after {limit_ms} ms: {self}"
            self.run(1)
        return self.time - began

    def flush(self, node: Node) -> None:
        """Perform what a node asks for."""
        for effect in node.effects:
            assert isinstance(effect, Dial)
            self.note(f"{node.sid} dials {effect.sid}")
            self._dial(node, effect)
        node.effects.clear()
        links = node.outbox[:]
        node.outbox.clear()
        for link in links:
            link.dirty = False
            data, link.out = bytes(link.out), bytearray()
            self._carry(link, data or None, link.closed)

    def _carry(self, link: Link, data: bytes | None, end: bool) -> None:
        if link not in self._other:
            return
        node, other = self._other[link]
        self._arrival[link] = arrival = max(
            self.time + self._delay(), self._arrival.get(link, 0) + 0.001
        )
        if end:
            del self._other[link]

        def arrive() -> None:
            if not node.alive or other.closed or other.owner is None:
                return
            if self._held(link, other, arrive):
                return
            if data is not None:
                other.owner.received(other, data, self.now_ms)
            if end and not other.closed:
                self._other.pop(other, None)
                other.closed = True
                other.owner.lost(other, "end of stream")
            node.settle()

        self.after(arrival - self.time, arrive)

    def _held(self, link: Link, other: Link, arrive: Callable[[], None]) -> bool:
        """Whether the two are cut off from each other; then it comes later."""
        one, two = link.transport, other.transport
        assert isinstance(one, int)
        assert isinstance(two, int)
        if not self.is_cut(one, two):
            return False
        self.after(50, arrive)
        return True

    def _dial(self, node: Node, dial: Dial) -> None:
        host = dial.address[0]

        def arrive() -> None:
            if not node.alive:
                return
            peer = next((n for n in self.nodes.values() if f"h{n.sid}" == host), None)
            if peer is not None and self.is_cut(node.sid, peer.sid):
                self.after(dial.timeout_ms, lambda: failed("timed out"))
            elif peer is None or not peer.alive:
                failed("Connection refused")
            else:
                self._connect(node, peer, dial)

        def failed(reason: str) -> None:
            if node.alive:
                self.note(f"{node.sid} cannot reach {dial.sid}: {reason}")
                node.cnx_manager.dial_failed(dial, reason, self.now_ms)
                node.settle()

        self.after(self._delay(), arrive)

    def _connect(self, node: Node, peer: Node, dial: Dial) -> None:
        self.note(f"{node.sid} is connected to {peer.sid}")
        link = Link(node.outbox, f"h{peer.sid}:3888")
        other = Link(peer.outbox, f"h{node.sid}:40000")
        link.transport, other.transport = node.sid, peer.sid
        self._other[link] = (peer, other)
        self._other[other] = (node, link)
        peer.cnx_manager.accepted(other, self.now_ms)
        node.cnx_manager.dialled(dial, link, self.now_ms)
        peer.settle()
        node.settle()

    def lose(self, one: int | None = None, other: int | None = None) -> None:
        """A link, any or that between two nodes, breaks; both sides notice, each in its time."""
        links = [
            link
            for link, (node, _) in self._other.items()
            if one is None or {link.transport, node.sid} == {one, other}
        ]
        if links:
            link = self.rng.choice(links)
            for end in (link, self._other[link][1]):
                if end in self._other:
                    self._broken(end)

    def _broken(self, link: Link) -> None:
        sid = link.transport
        assert isinstance(sid, int)
        self._other.pop(link, None)

        def notice() -> None:
            node = self.nodes[sid]
            if not link.closed and link.owner is not None:
                link.closed = True
                link.owner.lost(link, "Connection reset by peer")
                node.settle()

        self.after(self._delay(), notice)

    def kill(self, sid: int) -> None:
        """The process is gone; its kernel says so."""
        node = self.nodes[sid]
        node.alive = False
        self.note(f"{sid} is killed")
        for link, (peer, other) in list(self._other.items()):
            if link.transport == sid:
                self._other.pop(link)
                if peer.alive:
                    self._broken(other)

    def isolate(self, sid: int) -> None:
        """Nobody hears of it, nor it of anybody."""
        self.cut |= {(sid, other) for other in self.nodes if other != sid}

    def leaders(self) -> list[int]:
        return [n.sid for n in self.nodes.values() if n.alive and n.state == LEADING]

    def stable(self, of: Iterable[int] | None = None) -> bool:
        """One leader, and everybody who lives (or who is asked for) is with it."""
        nodes = [n for n in self.nodes.values() if n.alive and (of is None or n.sid in of)]
        leaders = {n.sid for n in nodes if n.state == LEADING}
        return len(leaders) == 1 and all(
            n.state in (LEADING, FOLLOWING, OBSERVING)
            and n.vote.leader in leaders
            and (n.state == LEADING) == (n.sid in leaders)
            for n in nodes
        )

    def __repr__(self) -> str:
        return f"{self.time - BEGIN_MS:.0f} ms: {list(self.nodes.values())}"


def vote_text(payload: bytes) -> str:
    n = Notification.decode(payload)
    leader = "nobody" if n.leader == NOBODY else f"{n.leader} zxid={n.zxid:#x}"
    epoch = "" if n.leader == NOBODY else f" epoch={n.peer_epoch}"
    return f"{STATE_NAMES[n.state]} {leader} round={n.election_epoch}{epoch}"


def timer_of(node: Node) -> float:
    if not node.alive:
        return float("inf")
    due = node.cnx_manager.next_timer_ms()
    if node.state == LOOKING:
        due = min(due, node.election.next_timer_ms())
    return float(due)


def ensemble(
    count: int, seed: int = 0, *, observers: Iterable[int] = (), **more: object
) -> Network:
    """`count` voters 1, 2, ..., and observers; all start within 2 ms."""
    network = Network(seed)
    observers = list(observers)
    members = members_of(range(1, count + 1), observers)
    for sid in [*range(1, count + 1), *observers]:
        node = Node(network, sid, members, **more)  # type: ignore[arg-type]
        network.after(network.rng.uniform(0, 2), node.start)
    return network
