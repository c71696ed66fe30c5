"""Server lines, groups and weights, counts, and the configuration text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.quorum.members import (
    OBSERVER,
    PARTICIPANT,
    Members,
    QuorumServer,
    check_counts,
    parse_config_text,
    parse_dynamic_file,
    parse_members,
    parse_server,
    version_from_filename,
)

WRONG_FORMAT = "does not have the form server_config or server_config;client_config"


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("h:1:2", "h:1:2:participant"),
        ("h:1:2:OBSERVER", "h:1:2:observer"),
        ("h:1:2: Participant ;2181", "h:1:2:participant;0.0.0.0:2181"),
        ("h:1:2;c:2181", "h:1:2:participant;c:2181"),
        ("[::1]:1:2;[::]:3", "[0:0:0:0:0:0:0:1]:1:2:participant;[0:0:0:0:0:0:0:0]:3"),
        ("[FE80::0a%eth0]:1:2", "[fe80:0:0:0:0:0:0:a%eth0]:1:2:participant"),
        ("[::ffff:10.0.0.1]:1:2;:3", "10.0.0.1:1:2:participant;localhost:3"),
        ("[a:b]:1:2", "[a:b]:1:2:participant"),
        ("h:1:2;", "h:1:2:participant"),
        ("b:1:2|a:3:4", "a:3:4|b:1:2:participant"),
        ("b:1:2:observer|a:3:4", "a:3:4|b:1:2:observer"),
    ],
)
def test_canonical_text(spec: str, canonical: str) -> None:
    server = parse_server(7, spec, multi_address=True)
    assert server.spec() == canonical
    assert repr(server) == "server.7=" + canonical
    assert parse_server(7, canonical, multi_address=True) == server


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("h", WRONG_FORMAT),
        ("", WRONG_FORMAT),
        (";", WRONG_FORMAT),
        ("h:1", WRONG_FORMAT),
        ("h:1:2:observer:x", WRONG_FORMAT),
        ("h:1:2;3;4", WRONG_FORMAT),
        ("h:1:2;a:b:3", WRONG_FORMAT),
        ("h:a:2", "Address unresolved: h:a"),
        ("h:1:b", "Address unresolved: h:b"),
        ("h:1:2;c", "Address unresolved: 0.0.0.0:c"),
        ("h:2:2", "Client and election port must be different!"),
        ("h:1:2:leader", "Unrecognised peertype: leader"),
        ("h:1:70000", "port out of range:70000"),
        ("h:-1:2", "port out of range:-1"),
        ("[::1:1:2", "starts with '[' but has no matching ']'"),
        ("[]:1:2", "host is empty."),
        ("[::1]1:2", "does not have : after ]"),
        ("[::1]", WRONG_FORMAT),
        (
            "a:1:2:observer|b:1:2:participant",
            "Multiple addresses should have similar roles: OBSERVER vs PARTICIPANT",
        ),
    ],
)
def test_bad_lines(spec: str, message: str) -> None:
    with pytest.raises(ConfigException) as caught:
        parse_server(1, spec, multi_address=True)
    assert message in str(caught.value)


def test_several_addresses_need_the_feature() -> None:
    with pytest.raises(ConfigException, match=r"Multiple address feature is disabled, .* sid 3"):
        parse_server(3, "a:1:2|b:1:2")


def test_addresses_and_equality() -> None:
    server = parse_server(1, "b:1:2|a:3:4;c:5", multi_address=True)
    assert server.quorum_addresses == [("b", 1), ("a", 3)]
    assert server.election_addresses == [("b", 2), ("a", 4)]
    assert server.client_address == ("c", 5)
    assert server.is_participant
    assert server == parse_server(1, "a:3:4|b:1:2:participant;c:5", multi_address=True)
    assert hash(server) == hash(parse_server(1, "a:3:4|b:1:2;c:5", multi_address=True))
    for other in ("b:1:2;c:5", "b:1:2|a:3:4", "b:1:2:observer|a:3:4;c:5"):
        assert server != parse_server(1, other, multi_address=True)
    assert server != 1


hosts = st.sampled_from(["localhost", "10.0.0.1", "0:0:0:0:0:0:0:1", "zk-1.example"])
ports = st.integers(0, 0xFFFF)
addresses = st.tuples(hosts, ports, ports).filter(lambda a: a[1] != a[2])
servers = st.builds(
    QuorumServer,
    st.integers(0, 255),
    st.lists(addresses, min_size=1, max_size=3).map(tuple),
    st.sampled_from([PARTICIPANT, OBSERVER]),
    st.none() | st.tuples(hosts, ports),
)


@given(st.lists(servers, max_size=5), st.integers(0, 2**63 - 1))
def test_text_round_trip(members: list[QuorumServer], version: int) -> None:
    original = Members({server.sid: server for server in members}, version=version)
    again = parse_config_text(original.text(), multi_address=True)
    assert again == original
    assert again.text() == original.text()


def test_text() -> None:
    members = parse_members(
        {
            "server.10": "h:1:2",
            "server.9": "h:3:4:observer;5",
            "server.2": "i:3:4",
            "tickTime": "not looked at",
            "version": "1f00000000",
        }
    )
    assert members.text() == (
        "server.2=i:3:4:participant\n"
        "server.9=h:3:4:observer;0.0.0.0:5\n"
        "server.10=h:1:2:participant\n"
        "version=1f00000000"
    )
    assert repr(members).count("\n") == 0
    assert list(members.participants) == [2, 10]
    assert list(members.observers) == [9]
    assert members.weight_of(9) == members.weight_of(10) == 1
    assert Members({}, version=-1).text() == "version=ffffffffffffffff"


def test_versions_do_not_make_members_differ() -> None:
    one = parse_config_text("server.1=h:1:2\nversion=1")
    two = one.with_version(2)
    assert one != two
    assert one.same_members(two)
    assert not one.same_members(parse_config_text("server.1=h:1:3\nversion=1"))
    assert hash(one) == hash(two.with_version(1))
    assert one != "server.1=h:1:2"


def test_hierarchy() -> None:
    text = (
        "server.1=h:1:2:participant\n"
        "server.2=h:3:4:participant\n"
        "server.3=h:5:6:observer\n"
        "group.1=1:3\n"
        "group.2=2\n"
        "weight.1=0\n"
        "weight.2=1\n"
        "version=0"
    )
    members = parse_config_text(text.replace("weight.2=1\n", ""))
    assert members.hierarchical
    assert members.groups == {1: (1, 3), 2: (2,)}
    assert members.weights == {1: 0, 2: 1}
    assert [members.weight_of(sid) for sid in (1, 2, 3, 4)] == [0, 1, 0, 0]
    assert members.text() == text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("group.1=1", "Server 2is not in a group"),
        ("weight.1=1", "Server 1is not in a group"),
        ("group.1=1:2\ngroup.2=2", "Server 2is in multiple groups"),
        ("group.1=1:2:4", "Server 4 of group 1 is not in the server list"),
        ("group.1=1:x", 'For input string: "x"'),
        ("group.x=1:2", 'For input string: "x"'),
        ("groups=1:2", 'For input string: "groups"'),
        ("group.1=1:2\nweight.1=a", 'For input string: "a"'),
        ("group.1=1:2\nweight.1=", 'For input string: ""'),
        ("server.x=h:1:2", 'For input string: "x"'),
        ("server.=h:1:2", 'For input string: ""'),
        ("version=0x1", 'For input string: "0x1"'),
        ("tickTime=2000", "Unrecognised parameter: tickTime"),
    ],
)
def test_bad_configurations(lines: str, message: str) -> None:
    with pytest.raises(ConfigException) as caught:
        parse_config_text("server.1=h:1:2\nserver.2=h:3:4\n" + lines)
    assert message in str(caught.value)


def test_a_stranger_with_a_weight_is_accepted_as_in_the_reference() -> None:
    members = parse_config_text("server.1=h:1:2\ngroup.1=1:4\nweight.4=1")
    assert members.weights == {1: 1, 4: 1}


@given(st.text(st.sampled_from("ab12[]:;|=.\nsergopwti ")))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_config_text("server.1=" + text, multi_address=True)
    except ConfigException:
        pass


def members_of(participants: int, observers: int) -> Members:
    roles = [PARTICIPANT] * participants + [OBSERVER] * observers
    return Members({n: QuorumServer(n, (("h", 1, 2),), role) for n, role in enumerate(roles)})


IGNORED = "Invalid configuration, only one server specified (ignoring)"
NO_FAILURE = "No server failure will be tolerated. You need at least 3 servers."
EVEN = "Non-optimal configuration, consider an odd number of servers."


@pytest.mark.parametrize(
    ("participants", "observers", "standalone", "told"),
    [
        (0, 0, True, []),
        (1, 0, True, [(40, IGNORED)]),
        (1, 0, False, [(30, NO_FAILURE)]),
        (1, 2, False, [(30, NO_FAILURE)]),
        (2, 0, True, [(30, NO_FAILURE)]),
        (3, 1, True, []),
        (4, 1, True, [(30, EVEN)]),
        (5, 0, False, []),
    ],
)
def test_counts(
    participants: int, observers: int, standalone: bool, told: list[tuple[int, str]]
) -> None:
    notes: list[tuple[int, str]] = []
    check_counts(
        members_of(participants, observers),
        standalone_enabled=standalone,
        note=lambda level, text: notes.append((level, text)),
    )
    assert notes == told


@pytest.mark.parametrize(
    ("participants", "observers", "standalone", "message"),
    [
        (0, 1, True, "Observers w/o participants is an invalid configuration"),
        (1, 1, True, "Observers w/o quorum is an invalid configuration"),
        (0, 0, False, "standaloneEnabled = false then number of participants should be >0"),
        (0, 1, False, "standaloneEnabled = false then number of participants should be >0"),
    ],
)
def test_impossible_counts(
    participants: int, observers: int, standalone: bool, message: str
) -> None:
    with pytest.raises(IllegalArgument) as caught:
        check_counts(
            members_of(participants, observers),
            standalone_enabled=standalone,
            note=lambda level, text: None,
        )
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/etc/zoo.cfg.dynamic.100000000", 0x100000000),
        ("/etc/zoo.cfg.dynamic", 0),
        ("/etc/dyn", 0),
        ("/etc.d/dyn", 0),
        ("zoo.cfg.dynamic.next", 0),
        ("a.1F", 0x1F),
    ],
)
def test_version_from_filename(path: str, version: int) -> None:
    assert version_from_filename(path) == version


def test_dynamic_file() -> None:
    members = parse_dynamic_file("server.1=h:1:2;3\n", "/zoo.cfg.dynamic.a")
    assert members.version == 10
    assert members.servers[1].client_address == ("0.0.0.0", 3)
    with pytest.raises(ConfigException, match="dynamic file shouldn't have version inside"):
        parse_dynamic_file("server.1=h:1:2;3\nversion=a\n", "/dyn")
    with pytest.raises(ConfigException) as caught:
        parse_dynamic_file("server.x=h:1:2\n", "/dyn")
    assert str(caught.value) == (
        'Error processing /dyn: NumberFormatException: For input string: "x"'
    )
    assert caught.value.key == "server.x"


@pytest.mark.parametrize("spec", ["\ud800:2888:3888", "h:1:2;\ud800:2181", "h\0:1:2", "h\x1b:1:2"])
def test_a_host_that_no_text_can_hold(spec: str) -> None:
    with pytest.raises(ConfigException, match="is no host name"):
        parse_server(9, spec)
    # Escaped it comes from anybody: in a notification, in NEWLEADER, in a reconfig.
    with pytest.raises(ConfigException):
        parse_config_text(f"server.9={ascii(spec)[1:-1].replace(chr(92) + 'x', chr(92) + 'u00')}")
