"""Providers, and the ACL rules against models that say what, not how."""

from __future__ import annotations

import base64
import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.acl import ACL, OPEN_ACL_UNSAFE, Acls
from zkpy.protocol.errors import AuthFailed, InvalidACL, MarshallingError, ProtocolError
from zkpy.protocol.zoodefs import Perms
from zkpy.session.auth import (
    DigestAuthenticationProvider,
    EnsembleAuthenticationProvider,
    Id,
    IPAuthenticationProvider,
    ProviderRegistry,
    add_ids,
)

SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="


class FlawedProvider:
    """A pluggable provider: ids match by first letter; its packets raise what they name."""

    scheme = "flawed"
    is_authenticated = True

    def handle(self, auth: bytes | None, address: str) -> list[Id]:
        if auth == b"close":
            raise ProtocolError("close")
        if auth == b"refuse":
            raise AuthFailed
        if auth == b"break":
            raise ZeroDivisionError
        return [("flawed", "a"), ("flawed", "b")]

    def matches(self, id: str, acl_id: str) -> bool:
        return id[:1] == acl_id[:1]

    def is_valid(self, acl_id: str) -> bool:
        return acl_id != "bad"

    def user_name(self, id: str) -> str:
        return id.upper()


def registry(*, skip_acl: bool = False, super_digest: str = SUPER_DIGEST) -> ProviderRegistry:
    return ProviderRegistry(
        [
            DigestAuthenticationProvider(super_digest=super_digest),
            IPAuthenticationProvider(),
            FlawedProvider(),
            EnsembleAuthenticationProvider(),
        ],
        skip_acl=skip_acl,
    )


# ---------------------------------------------------------------------- auth packets


@pytest.mark.parametrize(
    ("auth", "id"),
    [
        (b"bob:pw", "bob:ikIaKsbtGweaHnb/jKn7OHqbunM="),
        (b"user:pass:word", "user:yNMcEO4y6Bgll487yEAxpvnMYoo="),
        (b"foo", "foo:C+7Hteo/D9vJXQ3UfzxbwnXaijM="),
    ],
)
def test_captured_digests(auth: bytes, id: str) -> None:
    assert registry().authenticate("digest", auth, "1.2.3.4") == (("digest", id),)


def test_the_super_digest_makes_super() -> None:
    expected = {("super", ""), ("digest", SUPER_DIGEST)}
    assert set(registry().authenticate("digest", b"super:test", "")) == expected
    assert registry(super_digest="").authenticate("digest", b"super:test", "") == (
        ("digest", SUPER_DIGEST),
    )
    assert len(registry().authenticate("digest", b"super:tesT", "")) == 1


@pytest.mark.parametrize(
    ("java", "python"),
    [("SHA1", "sha1"), ("sha-256", "sha256"), ("MD5", "md5"), ("SHA-512/256", "sha512_256"),
     ("SHA3-256", "sha3_256"), ("SHA", "sha1"), ("sha384", "sha384")],
)  # fmt: skip
def test_digest_algorithms(java: str, python: str) -> None:
    hashed = base64.b64encode(hashlib.new(python, b"bob:pw").digest()).decode()
    provider = DigestAuthenticationProvider(algorithm=java)
    assert provider.handle(b"bob:pw", "") == [("digest", f"bob:{hashed}")]


def test_an_unknown_digest_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="MD4711"):
        DigestAuthenticationProvider(algorithm="MD4711")


@given(st.binary(max_size=40))
def test_any_digest_credential_is_accepted(auth: bytes) -> None:
    text = auth.decode("utf-8", "replace")
    hashed = base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()
    assert registry().authenticate("digest", auth, "") == (
        ("digest", text.split(":", 1)[0] + ":" + hashed),
    )


@pytest.mark.parametrize(
    ("scheme", "auth"),
    [
        (None, b""), ("", b""), ("world", b"anyone"), ("super", b"super:test"), ("auth", b""),
        ("sasl", b""), ("x509", b""), ("digest", None), ("flawed", b"refuse"), ("flawed", b"break"),
    ],
)  # fmt: skip
def test_what_fails(scheme: str | None, auth: bytes | None) -> None:
    with pytest.raises(AuthFailed):
        registry().authenticate(scheme, auth, "1.2.3.4")


def test_a_broken_provider_leaves_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AuthFailed), caplog.at_level(logging.ERROR):
        registry().authenticate("flawed", b"break", "1.2.3.4")
    assert "ZeroDivisionError" in caplog.text


def test_a_hostile_scheme_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AuthFailed), caplog.at_level(logging.WARNING):
        registry().authenticate("x" * 100_000, b"", "1.2.3.4")
    assert len(caplog.text) < 500


def test_a_provider_may_have_the_connection_closed() -> None:
    with pytest.raises(ProtocolError):
        registry().authenticate("flawed", b"close", "")


@pytest.mark.parametrize("auth", [None, b"", b"whatever"])
def test_the_ip_scheme_accepts_any_packet(auth: bytes | None) -> None:
    assert registry().authenticate("ip", auth, "1.2.3.4") == (("ip", "1.2.3.4"),)


def test_ensemble_names() -> None:
    some = EnsembleAuthenticationProvider(["east", " west "])
    for auth in (None, b"", b"east", b"west"):
        assert some.handle(auth, "") == []
    with pytest.raises(ProtocolError):
        some.handle(b"north", "1.2.3.4")
    assert EnsembleAuthenticationProvider(None).handle(b"north", "") == []
    assert not some.is_valid("east")
    assert not some.matches("east", "east")


def test_added_ids() -> None:
    ids = (("ip", "1.2.3.4"),)
    assert add_ids(ids, ids) is ids
    more = (("digest", "a:b"), ("ip", "1.2.3.4"), ("digest", "a:b"))
    assert add_ids(ids, more) == (("ip", "1.2.3.4"), ("digest", "a:b"))


# ---------------------------------------------------------------------- ids in ACLs


@pytest.mark.parametrize(
    ("acl_id", "valid"),
    [
        ("a:b", True), (":b", True), ("a:b:", True), ("a:b::", True), ("a", False), ("a:", False),
        ("a:b:c", False), ("", False), (":", False), ("::", False), ("a::b", False),
        (":a:", True), ("::b", False),
    ],
)  # fmt: skip
def test_digest_ids(acl_id: str, valid: bool) -> None:
    assert DigestAuthenticationProvider().is_valid(acl_id) is valid


@pytest.mark.parametrize(
    ("scheme", "acl_id", "error"),
    [
        ("world", "anyone", None),
        ("world", "somebody", InvalidACL),
        ("world", "", InvalidACL),
        ("world", None, MarshallingError),
        ("super", "", InvalidACL),
        ("super", None, InvalidACL),
        ("x509", "CN=a", InvalidACL),
        ("sasl", "bob", InvalidACL),
        (None, "anyone", InvalidACL),
        (None, None, InvalidACL),
        ("", "", InvalidACL),
        ("digest", "bob:hash", None),
        ("digest", "bob", InvalidACL),
        ("digest", None, MarshallingError),
        ("ip", "10.0.0.0/8", None),
        ("ip", "10.0.0.0/33", InvalidACL),
        ("ip", "localhost", InvalidACL),
        ("ip", None, MarshallingError),
        ("flawed", "anything", None),
        ("flawed", "bad", InvalidACL),
        ("ensemble", "east", InvalidACL),
    ],
)
def test_what_may_be_stored(
    scheme: str | None, acl_id: str | None, error: type[Exception] | None
) -> None:
    acls = (ACL(31, scheme, acl_id),)
    if error is None:
        assert registry().fix_acls(acls, ()) == acls
    else:
        with pytest.raises(error):
            registry().fix_acls(acls, (("ip", "1.2.3.4"), ("digest", "bob:hash")))


# ---------------------------------------------------------------------- expansion

IDS: tuple[Id, ...] = (
    ("ip", "10.1.2.3"),
    ("digest", "bob:hash"),
    ("super", ""),
    ("flawed", "abc"),
    ("gone", "who"),
)
ids_of_a_connection = st.lists(st.sampled_from(IDS), unique=True).map(tuple)
entries = st.builds(
    ACL,
    st.sampled_from([0, 1, 3, 8, 16, 31, 32, -1]),
    st.sampled_from(["world", "auth", "ip", "digest", "flawed", "super", None]),
    st.sampled_from(["anyone", None, "10.0.0.0/8", "bob:hash", "bad", "abc", "amy:hash"]),
)
acl_lists = st.lists(entries, max_size=6).map(tuple)


@pytest.mark.parametrize("acls", [None, ()])
def test_no_list_is_no_list(acls: Acls | None) -> None:
    with pytest.raises(InvalidACL):
        registry().fix_acls(acls, IDS)


def expected_of(entry: ACL, ids: tuple[Id, ...]) -> list[ACL] | type[Exception]:
    """What becomes of one entry, case by case."""
    match entry:
        case ACL(_, "world", "anyone"):
            return [entry]
        case ACL(_, "auth", _):
            proven = [ACL(entry.perms, *id) for id in ids if id[0] in ("digest", "flawed")]
            return proven or InvalidACL
        case ACL(_, None | "super", _):
            return InvalidACL
        case ACL(_, _, None):
            return MarshallingError
        case ACL(_, "ip", "10.0.0.0/8") | ACL(_, "digest", "bob:hash" | "amy:hash"):
            return [entry]
        case ACL(_, "flawed", id) if id != "bad":
            return [entry]
        case _:
            return InvalidACL


@given(acl_lists, ids_of_a_connection)
def test_expansion(acls: Acls, ids: tuple[Id, ...]) -> None:
    expected: list[ACL] = []
    error: type[Exception] | None = InvalidACL if not acls else None
    unique = list(dict.fromkeys(acls))
    if any(entry.id is None and acls.count(entry) > 1 for entry in unique):
        error = MarshallingError
    for entry in unique:
        outcome = expected_of(entry, ids)
        if isinstance(outcome, list):
            expected += outcome
        else:
            error = error or outcome
    if error is not None:
        with pytest.raises(error):
            registry().fix_acls(acls, ids)
    else:
        assert registry().fix_acls(acls, ids) == tuple(expected)


def test_the_first_wrong_entry_decides() -> None:
    no_scheme, no_id = ACL(1, None, "x"), ACL(1, "ip", None)
    with pytest.raises(InvalidACL):
        registry().fix_acls((no_scheme, no_id), ())
    with pytest.raises(MarshallingError):
        registry().fix_acls((no_id, no_scheme), ())


def test_expanded_entries_may_repeat_given_ones() -> None:
    given_entry = ACL(31, "digest", "bob:hash")
    ids = (("digest", "bob:hash"),)
    assert registry().fix_acls((given_entry, ACL(31, "auth", "")), ids) == (given_entry,) * 2


# ---------------------------------------------------------------------- check


def grants(entry: ACL, perms: int, ids: tuple[Id, ...]) -> bool:
    """Whether one entry lets the connection in."""
    if not any(entry.perms & bit and perms & bit for bit in (1, 2, 4, 8, 16)):
        return False
    if (entry.scheme, entry.id) == ("world", "anyone"):
        return True
    mine = [id for scheme, id in ids if scheme == entry.scheme]
    if entry.id is None or not mine:
        return False
    if entry.scheme == "digest":
        return entry.id in mine
    if entry.scheme == "flawed":
        return any(id[0] == entry.id[0] for id in mine)
    # The only address is 10.1.2.3, the only network 10.0.0.0/8.
    return entry.scheme == "ip" and entry.id == "10.0.0.0/8"


@given(acl_lists, st.integers(1, 31), ids_of_a_connection)
def test_check(acls: Acls, perms: int, ids: tuple[Id, ...]) -> None:
    expected = not acls or ("super", "") in ids or any(grants(entry, perms, ids) for entry in acls)
    assert registry().check_acls(acls, perms, ids) is expected
    assert registry(skip_acl=True).check_acls(acls, perms, ids)


def test_any_required_bit_suffices() -> None:
    acls = (ACL(Perms.READ, "world", "anyone"),)
    assert registry().check_acls(acls, Perms.READ | Perms.ADMIN, ())
    assert not registry().check_acls(acls, Perms.WRITE | Perms.ADMIN, ())


def test_an_entry_without_permissions_gives_none() -> None:
    assert not registry().check_acls((ACL(0, "world", "anyone"),), Perms.ALL, IDS[:2])


def test_anyone_of_another_scheme_is_not_the_world() -> None:
    assert not registry().check_acls((ACL(31, "digest", "anyone"),), Perms.READ, IDS[:2])


# ---------------------------------------------------------------------- masking, whoAmI


def test_masking() -> None:
    acls = (
        ACL(31, "digest", "bob:hash"),
        ACL(1, "digest", ":b:c"),
        ACL(1, "digest", "plain"),
        ACL(1, "digest", None),
        ACL(1, "sasl", "bob:hash"),
        *OPEN_ACL_UNSAFE,
    )
    assert registry().mask_acls(acls, True) is acls
    assert registry().mask_acls(acls, False) == (
        ACL(31, "digest", "bob:x"),
        ACL(1, "digest", ":x"),
        *acls[2:],
    )


def test_user_names() -> None:
    assert registry().user_names(IDS) == [
        ("ip", "10.1.2.3"),
        ("digest", "bob"),
        ("super", ""),
        ("flawed", "ABC"),
        ("gone", ""),
    ]
