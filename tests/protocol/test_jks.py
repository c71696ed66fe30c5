"""Java key stores: those of keytool are read, and damage is found whatever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.jks import DIGEST_BYTES, WHITENER, KeyStoreError, load_key_store

FOLDER = Path(__file__).parent.parent / "golden" / "tls"
SERVER = (FOLDER / "server.jks").read_bytes()
TRUST = (FOLDER / "trust.jks").read_bytes()


def signed(body: bytes, password: str = "password") -> bytes:
    """A store with the digest that belongs to its content."""
    return body + hashlib.sha1(password.encode("utf-16-be") + WHITENER + body).digest()


def test_a_key_store_holds_what_the_pem_file_holds() -> None:
    store = load_key_store(SERVER, "password")
    ((key, chain),) = store.keys
    assert key + chain == (FOLDER / "server.pem").read_text()
    assert store.trusted == []


def test_a_trust_store_is_read_without_a_password_too() -> None:
    for password in ("password", ""):
        store = load_key_store(TRUST, password)
        assert (store.keys, store.trusted) == ([], [(FOLDER / "ca.pem").read_text()])


def test_version_1_has_no_types_of_certificates() -> None:
    body = TRUST[:-DIGEST_BYTES].replace(b"\0\0\0\2", b"\0\0\0\1", 1).replace(b"\0\5X.509", b"")
    store = load_key_store(signed(body), "password")
    assert store.trusted == [(FOLDER / "ca.pem").read_text()]


@pytest.mark.parametrize(
    ("content", "password", "reason"),
    [
        (SERVER, "wrong", "the key store was tampered with, or the password is wrong"),
        (SERVER, "", "the password of the key is wrong"),
        (b"", "x", "not a Java key store"),
        ((FOLDER / "server.p12").read_bytes(), "password", "not a Java key store"),
        (b"\xfe\xed\xfe\xed" + bytes(8), "x", "not a Java key store"),
        (b"\xfe\xed\xfe\xed\0\0\0\3" + bytes(24), "", "version 3 of Java key stores is not known"),
        (
            b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\3" + bytes(30),
            "",
            "an entry of the unknown kind 3",
        ),
    ],
)
def test_what_is_refused(content: bytes, password: str, reason: str) -> None:
    with pytest.raises(KeyStoreError, match=reason):
        load_key_store(content, password)


@given(st.data())
def test_any_damage_is_found_by_the_digest(data: st.DataObject) -> None:
    store = data.draw(st.sampled_from([SERVER, TRUST]))
    at = data.draw(st.integers(0, len(store) - 1))
    damaged = bytearray(store)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(damaged), store[:at]):
        with pytest.raises(KeyStoreError):
            load_key_store(broken, "password")


@given(st.data())
def test_nonsense_with_a_good_digest_raises_nothing_else(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from([SERVER, TRUST]))[:-DIGEST_BYTES])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(12, len(body)))
    for content in (bytes(body), bytes(body[:cut])):
        try:
            load_key_store(signed(content), "password")
        except KeyStoreError:
            pass
