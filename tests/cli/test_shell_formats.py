"""How the shell shows values, and its errors."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.cli.shell import formats
from zkpy.cli.shell.texts import error_text
from zkpy.protocol.acl import ACL

PERMS = "cdrwa"


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "text"),
    [("UTC", "Sun Nov 22 12:40:09 UTC 2026"), ("Asia/Tokyo", "Sun Nov 22 21:40:09 JST 2026")],
)
def test_dates_are_java_s(zone: pytest.MonkeyPatch, name: str, text: str) -> None:
    zone.setenv("TZ", name)
    time.tzset()
    assert formats.date_text(1_795_351_209_999) == text


def test_dates_beyond_the_calendar() -> None:
    assert formats.date_text(1 << 80) == f"{1 << 80} ms"


def test_hexadecimal_is_unsigned() -> None:
    assert formats.hexadecimal(0) == "0x0"
    assert formats.hexadecimal(-1) == "0xffffffffffffffff"


def test_children_are_sorted_as_in_java() -> None:
    names = ["\uffee", "\U0001f600", "b", "B", "a"]  # 😀 begins with a surrogate, below U+FFEE
    assert formats.sorted_names(names) == ["B", "a", "b", "\U0001f600", "\uffee"]


def test_hex_dump() -> None:
    lines = formats.hex_dump(bytes(range(0x18, 0x29))).splitlines()
    assert lines[3:5] == [
        "|00000000| 18 19 1a 1b 1c 1d 1e 1f 20 21 22 23 24 25 26 27 |........ !\"#$%&'|",
        "|00000010| 28                                              |(               |",
    ]
    assert formats.hex_dump(b"") == ""


def test_data_as_json() -> None:
    assert formats.data_json(None) == {"data": None}
    assert formats.data_json("ü".encode()) == {"data": "ü"}
    assert formats.data_json(b"\xff\0") == {"data": "/wA=", "encoding": "base64"}


ACLS = st.lists(
    st.builds(
        ACL,
        st.integers(0, 31),
        st.sampled_from(["world", "digest", "ip", "x509"]),
        st.text(st.characters(codec="ascii", exclude_characters=",")),
    ),
    min_size=1,
)


@given(ACLS)
def test_acls_come_back(acls: list[ACL]) -> None:
    """What getAcl --json shows is what setAcl takes; ids may have colons, not commas."""
    complaints: list[str] = []
    text = ",".join(map(formats.acl_text, acls))
    assert formats.parse_acls(text, complaints.append) == tuple(acls)
    assert complaints == []


@pytest.mark.parametrize(
    ("text", "acls", "complaints"),
    [
        ("world:anyone:r", [ACL(1, "world", "anyone")], []),
        ("digest:bob:a:b=:cd", [ACL(12, "digest", "bob:a:b=")], []),
        ("auth::a", [ACL(16, "auth", "")], []),
        ("world:anyone:", [ACL(0, "world", "anyone")], []),
        ("world:anyone:rz", [ACL(1, "world", "anyone")], ["Unknown perm type: z"]),
        ("bad", [], ["bad does not have the form scheme:id:perm"]),
        (
            "a:b,world:anyone:r,",
            [ACL(1, "world", "anyone")],
            ["a:b does not have the form scheme:id:perm"],
        ),
        ("", [], [" does not have the form scheme:id:perm"]),
        (",", [], []),
    ],
)
def test_parse_acls(text: str, acls: list[ACL], complaints: list[str]) -> None:
    said: list[str] = []
    assert formats.parse_acls(text, said.append) == tuple(acls)
    assert said == complaints


@pytest.mark.parametrize(
    ("code", "path", "text"),
    [
        (-101, "/a", "Node does not exist: /a"),
        (-110, "/a", "Node already exists: /a"),
        (-111, "/a", "Node not empty: /a"),
        (-108, "/a", "Ephemerals cannot have children: /a"),
        (-102, "/a", "Insufficient permission : /a"),
        (-103, "", "version No is not valid : "),
        (-8, "/", "Arguments are not valid : /"),
        (-114, None, "Acl is not valid : null"),
        (-119, "/x", "Not a read-only call: /x"),
        (-125, "/q", "Quota has exceeded : /q"),
        (-4, "/", "KeeperErrorCode = ConnectionLoss for /"),
        (-4, None, "KeeperErrorCode = ConnectionLoss"),
        (-123, "", "KeeperErrorCode = Reconfig is disabled"),
        (-121, "/a", "KeeperErrorCode = No such watcher for /a"),
        (-6, "/t", "KeeperErrorCode = Unimplemented for /t"),
        (-112, "/t", "KeeperErrorCode = Session expired for /t"),
        (-4711, "/t", "KeeperErrorCode = Unknown error -4711 for /t"),
        (-13, "", "No quorum of new config is connected and up-to-date with the leader of last "
         "commmitted config - try invoking reconfiguration after new servers are connected and "
         "synced"),
        (-14, "", "Another reconfiguration is in progress -- concurrent reconfigs not supported "
         "(yet)"),
    ],
)  # fmt: skip
def test_error_texts(code: int, path: str | None, text: str) -> None:
    assert error_text(code, path) == text
