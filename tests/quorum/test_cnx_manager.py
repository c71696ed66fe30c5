"""Who dials whom, which connection is kept, and what waits for it."""

from __future__ import annotations

import logging
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.quorum.electing import Settings, members_of

from zkpy.protocol.packets import MAX_NOTIFICATION_BYTES, encode_initial, frame
from zkpy.quorum.cnx_manager import (
    BLOCKED_RETRY_MS,
    DIAL_BACK_MS,
    MAX_ADDRESSES,
    MAX_HANDSHAKES,
    MAX_RECEIVED,
    MAX_UNSENT_BYTES,
    NEVER,
    OBSERVER_ID,
    REDIAL_MS,
    SILENT_MS,
    QuorumCnxManager,
    address_text,
)
from zkpy.quorum.effects import ELECTION, Dial, Effect
from zkpy.quorum.link import Link
from zkpy.quorum.members import Members, QuorumServer
from zkpy.quorum.view import View

NOW = 1_000_000
VOTE = b"a vote"


def greeting(sid: int, host: str | None = None) -> bytes:
    return encode_initial(sid, [(host or f"h{sid}", 3888)], False)


class Manager(QuorumCnxManager):
    """Member `my_id` of 1, 2, 3 with observer 4, and the hands of its shell."""

    def __init__(self, my_id: int, members: Members | None = None, multi: bool = False) -> None:
        settings = Settings()
        settings.multi_address_enabled = multi
        view = View(my_id, members or members_of([1, 2, 3], [4]), reconfig_enabled=True)
        super().__init__(my_id, view, settings, [], [])

    def new_link(self) -> Link:
        return Link(self._outbox, "10.0.0.3:41822")

    def take_dials(self) -> list[Dial]:
        effects: list[Effect] = self._effects[:]
        self._effects.clear()
        dials = [effect for effect in effects if isinstance(effect, Dial)]
        assert len(dials) == len(effects)
        return dials

    def dial_of(self, sid: int) -> Dial:
        (dial,) = self.take_dials()
        assert (dial.sid, dial.purpose) == (sid, ELECTION)
        return dial

    def connected_to(self, sid: int, now_ms: int = NOW) -> Link:
        """A link to `sid`, made by whoever has the larger id; the greeting is taken off."""
        link = self.new_link()
        if sid > self.my_id:
            self.accepted(link, now_ms)
            self.received(link, greeting(sid), now_ms)
        else:
            self.connect(sid, now_ms)
            self.dialled(self.dial_of(sid), link, now_ms)
            assert link.out.startswith(greeting(self.my_id))
            del link.out[: len(greeting(self.my_id))]
        assert not link.closed
        return link

    def connect(self, sid: int, now_ms: int = NOW) -> None:
        """Have it dialled, with nothing to say."""
        self.send(sid, VOTE, now_ms)
        self._peers[sid].queued = None


def taken(link: Link) -> bytes:
    """What was sent on a link since it was last looked at."""
    out = bytes(link.out)
    link.out.clear()
    return out


# ---------------------------------------------------------------------- first bytes


def test_first_bytes_are_the_captured_ones() -> None:
    """V1 of server 1 in wire/395-fresh; V2 if multi-address is enabled (ZOOKEEPER-3720)."""
    server = QuorumServer(1, (("127.0.0.1", 24011, 24012), ("127.0.0.2", 24013, 24014)))
    other = QuorumServer(0, (("127.0.0.3", 1, 2),))
    v1 = bytes.fromhex("ffffffffffff000000000000000000010000000f") + b"127.0.0.1:24012"
    v2 = bytes.fromhex("ffffffffffff000100000000000000010000001f")
    for multi, first_bytes in (
        (False, v1),
        (True, v2 + b"127.0.0.1:24012|127.0.0.2:24014"),
    ):
        manager = Manager(1, Members({0: other, 1: server}), multi)
        manager.connect(0)
        link = manager.new_link()
        manager.dialled(manager.dial_of(0), link, NOW)
        assert taken(link) == first_bytes


def test_who_was_removed_still_says_where_it_is() -> None:
    manager = Manager(3)
    manager.view.set_committed(members_of([1, 2], [], 0x100))
    manager.connect(1)
    link = manager.new_link()
    manager.dialled(manager.dial_of(1), link, NOW)
    assert taken(link) == greeting(3)


@pytest.mark.parametrize("split", [1, 7, 8, 15, 16, 19, 20, 25])
def test_first_bytes_come_in_pieces(split: int) -> None:
    manager = Manager(1)
    link = manager.new_link()
    manager.accepted(link, NOW)
    data = greeting(2) + frame(VOTE)
    manager.received(link, data[:split], NOW)
    assert manager.take_received() == []
    manager.received(link, data[split:], NOW)
    assert manager.take_received() == [(2, VOTE)]


def test_both_versions_of_the_first_bytes_are_understood() -> None:
    manager = Manager(1)
    link = manager.new_link()
    manager.accepted(link, NOW)
    manager.received(link, encode_initial(3, [("h3", 3888), ("h33", 1)], True), NOW)
    assert manager.connected() == [3]


BAD_FIRST_BYTES = {
    "version": struct.pack(">qqi", -65534, 2, 7) + b"h2:3888",
    "empty": struct.pack(">qqi", -65536, 2, 0),
    "negative": struct.pack(">qqi", -65536, 2, -1),
    "long": struct.pack(">qqi", -65536, 2, 2049),
    "port": struct.pack(">qqi", -65536, 2, 7) + b"h2:nope",
    "utf-8": struct.pack(">qqi", -65536, 2, 7) + b"\xff\xfe:3888"[:7],
    "negative id": struct.pack(">qqi", -65536, -5, 7) + b"h2:3888",
    "observer without id": struct.pack(">qqi", -65536, OBSERVER_ID, 7) + b"h2:3888",
    "own id": struct.pack(">qqi", -65536, 1, 7) + b"h1:3888",
    "a client": b"\x00\x00\x00\x2d" + bytes(20),
    "http": b"GET / HTTP/1.1\r\nHost: zoo1:3888\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_FIRST_BYTES.values(), ids=BAD_FIRST_BYTES.keys())
def test_bad_first_bytes_end_that_connection(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(1)
    link, other = manager.new_link(), manager.new_link()
    manager.accepted(link, NOW)
    manager.accepted(other, NOW)
    with caplog.at_level(logging.WARNING):
        manager.received(link, data, NOW)
    assert link.closed
    assert "Initial message parsing error! From /10.0.0.3:41822" in caplog.text
    assert manager.connected() == []
    assert manager.take_dials() == []
    manager.received(other, greeting(2) + frame(VOTE), NOW)
    assert manager.take_received() == [(2, VOTE)]


def test_silent_diallers_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """§10, 25: one says nothing, one ten bytes. Others connect; both are given up."""
    manager = Manager(1)
    silent, short = manager.new_link(), manager.new_link()
    manager.accepted(silent, NOW)
    manager.accepted(short, NOW)
    manager.received(short, greeting(2)[:10], NOW)
    link = manager.connected_to(2)
    limit_ms = Settings.quorum_cnxn_timeout_ms
    assert manager.next_timer_ms() == NOW + limit_ms
    manager.tick(NOW + limit_ms - 1)
    assert not silent.closed
    with caplog.at_level(logging.INFO):
        manager.tick(NOW + limit_ms)
    assert silent.closed
    assert short.closed
    assert not link.closed
    assert manager.next_timer_ms() == NEVER
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING"], "a port scan is no reason to worry"


def test_handshakes_are_bounded() -> None:
    manager = Manager(1)
    links = [manager.new_link() for _ in range(MAX_HANDSHAKES + 3)]
    for link in links:
        manager.accepted(link, NOW)
    assert [link.closed for link in links] == [True] * 3 + [False] * MAX_HANDSHAKES
    for link in links[3:]:
        manager.lost(link, "gone")
    assert manager.next_timer_ms() == NEVER


# ---------------------------------------------------------------------- who keeps what


def test_larger_id_keeps_the_connection_it_made(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(2)
    manager.send(1, VOTE, NOW)
    dial = manager.dial_of(1)
    assert (dial.address, dial.timeout_ms) == (("h1", 3888), 5000)
    link = manager.new_link()
    manager.dialled(dial, link, NOW)
    # In one piece: the reference reads once.
    assert taken(link) == greeting(2) + frame(VOTE)
    manager.received(link, frame(b"answer"), NOW)
    assert manager.take_received() == [(1, b"answer")]


def test_smaller_id_says_who_it_is_and_hangs_up(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(2)
    manager.send(3, VOTE, NOW)
    link = manager.new_link()
    with caplog.at_level(logging.INFO):
        manager.dialled(manager.dial_of(3), link, NOW)
    assert taken(link) == greeting(2)
    assert link.closed
    assert (
        "Have smaller server identifier, so dropping the connection: (myId:2 --> sid:3)"
        in caplog.text
    )
    # The other dials, and gets what was to be said.
    back = manager.connected_to(3)
    assert taken(back) == frame(VOTE)


def test_asked_by_a_smaller_one_we_dial_back(caplog: pytest.LogCaptureFixture) -> None:
    """At the address it gave, as it may be in no configuration yet."""
    manager = Manager(3)
    link = manager.new_link()
    with caplog.at_level(logging.INFO):
        manager.accepted(link, NOW)
    assert "Received connection request from /10.0.0.3:41822" in caplog.text
    manager.received(link, greeting(2, "elsewhere"), NOW)
    assert link.closed
    assert manager.dial_of(2).address == ("elsewhere", 3888)


def test_wildcard_address_means_the_configured_one() -> None:
    """ZOOKEEPER-2164."""
    manager = Manager(3)
    for host in ("0.0.0.0", "::"):
        link = manager.new_link()
        manager.accepted(link, NOW)
        manager.received(link, greeting(2, host), NOW)
        dial = manager.dial_of(2)
        assert dial.address == ("h2", 3888)
        manager.dial_failed(dial, "refused", NOW)


def test_wildcard_address_of_a_stranger_leads_nowhere() -> None:
    manager = Manager(30)
    link = manager.new_link()
    manager.accepted(link, NOW)
    manager.received(link, greeting(20, "0.0.0.0"), NOW)
    assert manager.take_dials() == []
    assert manager._peers == {}


def test_a_smaller_one_that_asks_again_gets_a_new_connection() -> None:
    """It may have forgotten the one there is; churn at the start is normal."""
    manager = Manager(3)
    link = manager.connected_to(2)
    again = manager.new_link()
    manager.accepted(again, NOW)
    manager.received(again, greeting(2), NOW)
    assert link.closed
    assert again.closed
    new = manager.new_link()
    manager.dialled(manager.dial_of(2), new, NOW)
    assert manager.connected() == [2]
    # Bytes and the end of the old one mean nothing any more.
    manager.received(link, frame(b"late"), NOW)
    manager.lost(link, "end")
    assert manager.take_received() == []
    assert manager.connected() == [2]


def test_a_larger_one_replaces_its_connection() -> None:
    manager = Manager(1)
    first = manager.connected_to(3)
    second = manager.connected_to(3)
    assert first.closed
    assert not second.closed
    manager.send(3, VOTE, NOW)
    assert taken(second) == frame(VOTE)
    assert taken(first) == b""


@pytest.mark.parametrize("sid", [1, 3])
def test_who_never_answers_is_connected_to_anew(sid: int, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(2)
    stranger = manager.connected_to(sid)
    manager.begin_asking()
    manager.send(sid, VOTE, NOW)
    manager.send(sid, VOTE, NOW + SILENT_MS - 1)
    assert not stranger.closed
    manager.send(sid, VOTE, NOW + SILENT_MS)
    assert stranger.closed
    assert f"No word from id {sid} by way of /10.0.0.3:41822" in caplog.text
    # As ever: the smaller one asks, the larger one makes the connection, and the vote goes there.
    link, now_ms = manager.new_link(), NOW + SILENT_MS
    manager.dialled(manager.dial_of(sid), link, now_ms)
    if sid > manager.my_id:
        assert link.closed
        link = manager.connected_to(sid, now_ms)
    assert taken(link).endswith(frame(VOTE))
    # Time counts from here on.
    manager.send(sid, VOTE, now_ms)
    manager.send(sid, VOTE, now_ms + SILENT_MS - 1)
    assert not link.closed


def test_an_answer_or_a_new_election_ends_the_silence() -> None:
    manager = Manager(2)
    link = manager.connected_to(3)
    manager.send(3, VOTE, NOW)
    manager.received(link, frame(VOTE), NOW + 1)
    manager.send(3, VOTE, NOW + 2 * SILENT_MS)
    manager.begin_asking()
    manager.send(3, VOTE, NOW + 4 * SILENT_MS)
    assert not link.closed
    assert manager.take_dials() == []


def test_first_bytes_that_were_overtaken() -> None:
    """It made one connection, dropped it and made another; the older one comes to word late."""
    manager = Manager(1)
    older, newer = manager.new_link(), manager.new_link()
    for link in (older, newer):
        manager.accepted(link, NOW)
    manager.received(newer, greeting(3), NOW)
    manager.received(older, greeting(3) + frame(VOTE), NOW)
    assert older.closed
    assert not newer.closed
    assert manager.take_received() == []
    manager.send(3, VOTE, NOW)
    assert taken(newer) == frame(VOTE)
    assert manager.next_timer_ms() == NEVER


def test_dialled_meanwhile_by_the_larger_one() -> None:
    """Our first bytes would make it start over, so they are not sent."""
    manager = Manager(1)
    manager.send(3, VOTE, NOW)
    dial = manager.dial_of(3)
    link = manager.connected_to(3)
    late = manager.new_link()
    manager.dialled(dial, late, NOW)
    assert late.closed
    assert taken(late) == b""
    assert not link.closed
    assert taken(link) == frame(VOTE)


def test_asked_while_dialling() -> None:
    """The dial under way counts; another address it gives is dialled as well."""
    manager = Manager(3)
    manager.send(2, VOTE, NOW)
    dial = manager.dial_of(2)
    for host, more in (("h2", []), ("elsewhere", [("elsewhere", 3888)]), ("elsewhere", [])):
        link = manager.new_link()
        manager.accepted(link, NOW)
        manager.received(link, greeting(2, host), NOW)
        assert [d.address for d in manager.take_dials()] == more
    manager.dial_failed(dial, "refused", NOW)
    assert not manager.unreachable(2)


def test_first_bytes_of_long_ago() -> None:
    """Before 3.5: the id alone, of one of the members."""
    manager = Manager(2)
    link, smaller = manager.new_link(), manager.new_link()
    manager.accepted(link, NOW)
    manager.received(link, struct.pack(">q", 3) + frame(VOTE), NOW)
    assert manager.take_received() == [(3, VOTE)]
    manager.accepted(smaller, NOW)
    manager.received(smaller, struct.pack(">q", 1), NOW)
    assert manager.dial_of(1).address == ("h1", 3888)


def test_own_id(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(2)
    link = manager.new_link()
    manager.accepted(link, NOW)
    manager.received(link, greeting(2), NOW)
    assert "We got a connection request from a server with our own ID" in caplog.text
    assert link.closed
    assert manager.take_dials() == []


# ---------------------------------------------------------------------- messages


def test_message_to_ourselves_stays_here() -> None:
    manager = Manager(2)
    manager.send(2, VOTE, NOW)
    assert manager.take_received() == [(2, VOTE)]
    assert manager.take_received() == []
    assert manager.take_dials() == []


def test_newest_message_waits() -> None:
    manager = Manager(2)
    for number in range(5):
        manager.send(1, b"%d" % number, NOW)
    dial = manager.dial_of(1)
    link = manager.new_link()
    manager.dialled(dial, link, NOW)
    assert taken(link) == greeting(2) + frame(b"4")


def test_last_message_is_sent_again_on_a_new_connection() -> None:
    manager = Manager(1)
    link = manager.connected_to(3)
    manager.send(3, b"old", NOW)
    manager.send(3, b"new", NOW)
    assert taken(link) == frame(b"old") + frame(b"new")
    assert taken(manager.connected_to(3)) == frame(b"new")
    assert taken(manager.connected_to(3)) == frame(b"new")
    # Unless there is a newer one.
    manager.lost(manager._peers[3].link or link, "gone")
    manager.send(3, b"newer", NOW)
    manager.take_dials()
    assert taken(manager.connected_to(3)) == frame(b"newer")


def test_what_is_out_of_date_is_not_said_on_new_connections() -> None:
    manager = Manager(2)
    link = manager.connected_to(3)
    manager.send(3, b"old", NOW)
    manager.send(1, b"waits", NOW)
    manager.forget()
    assert taken(link) == frame(b"old")
    assert taken(manager.connected_to(3)) == b""
    dial = manager.dial_of(1)
    link = manager.new_link()
    manager.dialled(dial, link, NOW)
    assert taken(link) == greeting(2)
    manager.send(1, b"new", NOW)
    assert taken(link) == frame(b"new")


def test_new_peers_hear_nothing_at_first() -> None:
    assert taken(Manager(1).connected_to(3)) == b""


def test_message_for_a_stranger(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(1)
    manager.send(9, VOTE, NOW)
    assert "Invalid server id: 9" in caplog.text
    assert manager.take_dials() == []
    assert manager._peers == {}
    # Once it has connected it gets its answers, and is forgotten when it leaves.
    link = manager.connected_to(9)
    manager.send(9, VOTE, NOW)
    assert taken(link) == frame(VOTE)
    manager.lost(link, "gone")
    assert manager._peers == {}


def test_received_messages_are_bounded() -> None:
    manager = Manager(1)
    link = manager.connected_to(2)
    manager.received(link, b"".join(frame(b"%d" % n) for n in range(MAX_RECEIVED + 5)), NOW)
    received = manager.take_received()
    assert len(received) == MAX_RECEIVED
    assert received[0] == (2, b"5")
    assert received[-1] == (2, b"104")


@pytest.mark.parametrize("length", [0, -1, MAX_NOTIFICATION_BYTES + 1, 1 << 31 - 1])
def test_bad_length_ends_the_connection(length: int, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(1)
    link = manager.connected_to(2)
    manager.received(link, frame(VOTE) + struct.pack(">i", length), NOW)
    assert manager.take_received() == [(2, VOTE)]
    assert link.closed
    assert manager.connected() == []
    assert "Connection broken for id 2, my id = 1: " in caplog.text
    assert f"Received packet with invalid packet: {length}" in caplog.text


def test_longest_message() -> None:
    manager = Manager(1)
    link = manager.connected_to(2)
    data = frame(bytes(MAX_NOTIFICATION_BYTES)) + frame(VOTE)
    for start in range(0, len(data), 65536):
        manager.received(link, data[start : start + 65536], NOW)
    assert [len(payload) for _, payload in manager.take_received()] == [524288, len(VOTE)]


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.data())
def test_messages_in_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    manager = Manager(1)
    link = manager.new_link()
    manager.accepted(link, NOW)
    stream = greeting(2) + b"".join(map(frame, payloads))
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        manager.received(link, stream[:size], NOW)
        stream = stream[size:]
        received += manager.take_received()
    assert received == [(2, payload) for payload in payloads]


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_no_bytes_break_it(chunks: list[bytes], greeted: bool) -> None:
    """Whatever comes, that connection at most ends, and another member's goes on."""
    manager = Manager(1)
    good = manager.connected_to(3)
    link = manager.connected_to(2) if greeted else manager.new_link()
    if not greeted:
        manager.accepted(link, NOW)
    for chunk in chunks:
        manager.received(link, chunk, NOW)
    manager.take_received()
    manager.tick(NOW + Settings.quorum_cnxn_timeout_ms)
    manager.received(good, frame(VOTE), NOW)
    assert manager.take_received() == [(3, VOTE)]


def test_a_peer_that_takes_nothing_is_not_flooded() -> None:
    manager = Manager(1)
    link = manager.connected_to(3)
    link.unsent = MAX_UNSENT_BYTES + 1
    for number in range(3):
        manager.send(3, b"%d" % number, NOW)
    assert taken(link) == b""
    assert manager.next_timer_ms() == NOW + BLOCKED_RETRY_MS
    manager.tick(NOW + BLOCKED_RETRY_MS)
    assert taken(link) == b""
    assert manager.next_timer_ms() == NOW + 2 * BLOCKED_RETRY_MS
    link.unsent = 0
    manager.tick(NOW + 2 * BLOCKED_RETRY_MS)
    assert taken(link) == frame(b"2")
    assert manager.next_timer_ms() == NEVER


# ---------------------------------------------------------------------- dialling


def test_one_dial_per_peer_and_all_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """ZOOKEEPER-3756: a peer that does not answer keeps nobody from the others."""
    manager = Manager(3)
    for sid in (1, 2, 1):
        manager.send(sid, VOTE, NOW)
    one, two = manager.take_dials()
    assert (one.sid, two.sid) == (1, 2)
    link = manager.new_link()
    manager.dialled(two, link, NOW)
    assert manager.connected() == [2]
    with caplog.at_level(logging.WARNING):
        manager.dial_failed(one, "Connection refused", NOW)
    assert "Cannot open channel to 1 at election address h1:3888: Connection refused" in caplog.text


def test_addresses_in_the_log() -> None:
    assert address_text(("127.0.0.1", 3334)) == "/127.0.0.1:3334"
    assert address_text(("fe80::1", 3334)) == "/[fe80::1]:3334"
    assert address_text(("zoo2", 3888)) == "zoo2:3888"


def test_all_addresses_are_dialled_and_the_first_answer_counts() -> None:
    server = QuorumServer(1, (("a", 1, 2), ("b", 1, 2), ("c", 1, 2)))
    manager = Manager(3, Members({1: server, 3: QuorumServer(3, (("h3", 2888, 3888),))}), True)
    manager.send(1, VOTE, NOW)
    a, b, c = manager.take_dials()
    manager.dial_failed(a, "refused", NOW)
    assert not manager.unreachable(1)
    link, late = manager.new_link(), manager.new_link()
    manager.dialled(c, link, NOW)
    manager.dialled(b, late, NOW)
    assert late.closed
    assert taken(late) == b""
    assert not link.closed
    # Nor does it matter if one fails late.
    manager.dial_failed(b, "timed out", NOW)
    assert manager.connected() == [1]


def test_number_of_addresses_a_peer_may_give() -> None:
    manager = Manager(3)
    link = manager.new_link()
    manager.accepted(link, NOW)
    manager.received(link, encode_initial(1, [(f"a{n}", 1) for n in range(50)], True), NOW)
    assert len(manager.take_dials()) == MAX_ADDRESSES


def test_committed_and_proposed_address() -> None:
    manager = Manager(3)
    moved = QuorumServer(1, (("moved", 2888, 3888),))
    servers = {**manager.view.committed.servers, 1: moved}
    manager.view.set_last_proposed(Members(servers, version=0x100))
    manager.send(1, VOTE, NOW)
    assert [dial.address[0] for dial in manager.take_dials()] == ["h1", "moved"]


def test_who_refused_is_not_asked_again_at_once() -> None:
    manager = Manager(3)
    manager.send(1, b"1", NOW)
    manager.dial_failed(manager.dial_of(1), "refused", NOW)
    manager.send(1, b"2", NOW + REDIAL_MS - 1)
    assert manager.take_dials() == []
    manager.send(1, b"3", NOW + REDIAL_MS)
    link = manager.new_link()
    manager.dialled(manager.dial_of(1), link, NOW)
    assert taken(link) == greeting(3) + frame(b"3")


def test_who_was_asked_to_dial_gets_time_to() -> None:
    """Each request makes it drop the connection it may just have made."""
    manager = Manager(1)
    manager.connect(3)
    manager.dialled(manager.dial_of(3), manager.new_link(), NOW)
    manager.send(3, VOTE, NOW + DIAL_BACK_MS - 1)
    assert manager.take_dials() == []
    manager.send(3, VOTE, NOW + DIAL_BACK_MS)
    assert manager.dial_of(3)


def test_late_answers_to_dials_nobody_waits_for() -> None:
    manager = Manager(3)
    manager.send(1, VOTE, NOW)
    dial = manager.dial_of(1)
    manager.restart()
    link = manager.new_link()
    manager.dialled(dial, link, NOW)
    assert link.closed
    manager.dial_failed(dial, "refused", NOW)
    assert manager._peers == {}


def test_a_removed_member_is_not_dialled(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(3)
    link = manager.connected_to(1)
    manager.view.set_committed(members_of([2, 3], [], 0x100))
    manager.send(1, VOTE, NOW)
    assert taken(link) == frame(VOTE), "while it is connected it is told"
    manager.lost(link, "gone")
    manager.send(1, VOTE, NOW)
    assert "Invalid server id: 1" in caplog.text
    assert manager.take_dials() == []


# ---------------------------------------------------------------------- who can be reached


def test_unreachable() -> None:
    manager = Manager(2)
    assert not manager.unreachable(1), "not tried"
    assert manager.unreachable(77)
    manager.send(1, VOTE, NOW)
    dial = manager.dial_of(1)
    assert not manager.unreachable(1), "under way"
    manager.dial_failed(dial, "refused", NOW)
    assert manager.unreachable(1)
    manager.send(1, VOTE, NOW + 200)
    assert not manager.unreachable(1)
    link = manager.new_link()
    manager.dialled(manager.dial_of(1), link, NOW)
    assert not manager.unreachable(1)
    manager.lost(link, "gone")
    assert manager.unreachable(1)


def test_a_larger_one_that_was_asked_to_dial_is_expected() -> None:
    manager = Manager(1)
    link = manager.connected_to(3)
    manager.lost(link, "gone")
    assert manager.unreachable(3)
    manager.send(3, VOTE, NOW)
    manager.dialled(manager.dial_of(3), manager.new_link(), NOW)
    assert not manager.unreachable(3)
    # Its answer to being asked is to drop what there was.
    manager.send(3, VOTE, NOW + 500)
    manager.dial_failed(manager.dial_of(3), "refused", NOW)
    assert manager.unreachable(3)


def test_lost_connection_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(1)
    manager.lost(manager.connected_to(2), "Connection reset by peer")
    assert [record.getMessage() for record in caplog.records] == [
        "Connection broken for id 2, my id = 1: from /10.0.0.3:41822: Connection reset by peer",
        "Interrupting SendWorker thread from RecvWorker. sid: 2. myId: 1",
        "Send worker leaving thread id 2 my id = 1",
    ]


# ---------------------------------------------------------------------- the end


def test_close_and_restart() -> None:
    manager = Manager(1)
    links = [manager.connected_to(2), manager.connected_to(3), manager.new_link()]
    manager.accepted(links[2], NOW)
    manager.received(links[0], frame(VOTE), NOW)
    manager.close()
    assert all(link.closed for link in links)
    assert manager.take_received() == []
    assert manager.next_timer_ms() == NEVER
    refused = manager.new_link()
    manager.accepted(refused, NOW)
    assert refused.closed
    manager.restart()
    assert taken(manager.connected_to(3)) == b"", "nothing is left of before"
