"""TLS of the command line programs: stores of all kinds, versions, names, and what is refused."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from tests.support.tls import TLS, handshake

from zkpy.cli.tls import client_context, client_settings
from zkpy.protocol.config_error import ConfigException
from zkpy.server.config import TlsSettings
from zkpy.server.settings import tls_defaults


def settings(**values: object) -> TlsSettings:
    locations = {name: str(TLS / str(v)) for name, v in values.items() if "location" in name}
    return TlsSettings({**tls_defaults(quorum=False), **values, **locations})


KEY_STORES = [
    ("server.pem", ""),
    ("server-encrypted.pem", "secret"),
    ("server.jks", "password"),
]


@pytest.mark.parametrize(("key_store", "password"), KEY_STORES)
@pytest.mark.parametrize(
    ("trust_store", "trust_password"), [("ca.pem", ""), ("trust.jks", "password")]
)
def test_stores_of_all_kinds(
    key_store: str, password: str, trust_store: str, trust_password: str
) -> None:
    context = client_context(
        settings(
            key_store_location=key_store,
            key_store_password=password,
            trust_store_location=trust_store,
            trust_store_password=trust_password,
            hostname_verification=False,
        )
    )
    assert handshake(context) == "TLSv1.3"


def test_versions_are_those_that_are_enabled() -> None:
    for names, version in (
        ("TLSv1.2", "TLSv1.2"),
        ("TLSv1.3,TLSv1.2", "TLSv1.3"),
        ("x", "TLSv1.3"),
    ):
        context = client_context(
            settings(
                trust_store_location="ca.pem",
                enabled_protocols=names,
                hostname_verification=False,
            )
        )
        assert handshake(context, need_certificate=False) == version


def test_a_server_that_is_not_trusted() -> None:
    unknown = client_context(settings(hostname_verification=False))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(unknown)
    # The server's own settings: what it shows itself is trusted, with or without a trust store.
    own = client_context(
        settings(key_store_location="server.pem", hostname_verification=False),
        trust_own_chain=True,
    )
    assert handshake(own) == "TLSv1.3"


def test_names_are_checked_unless_switched_off() -> None:
    for check in (True, False):
        context = client_context(
            settings(trust_store_location="ca.pem", hostname_verification=check)
        )
        assert context.check_hostname is check
        if check:
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                handshake(context, need_certificate=False, name="zk2.example.com")
        else:
            handshake(context, need_certificate=False, name="zk2.example.com")


@pytest.mark.parametrize(
    ("stores", "reason"),
    [
        ({"key_store_location": "none.pem"}, "none.pem: No such file or directory"),
        ({"key_store_location": "ca.pem"}, "ca.pem: no private key in it"),
        ({"key_store_location": "trust.jks"}, "trust.jks: no private key in it"),
        ({"key_store_location": "server-encrypted.pem"}, "the key cannot be read"),
        ({"key_store_location": "server.jks", "key_store_password": "x"}, "password is wrong"),
        ({"key_store_location": "server.p12"}, "openssl pkcs12 -in .*server.p12 -nodes -out"),
        ({"trust_store_location": "README.md"}, "README.md: no certificate in it"),
        ({"trust_store_location": "ca.pem", "trust_store_type": "BCFKS"}, "convert it to PEM"),
    ],
)
def test_stores_that_cannot_be_used(stores: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigException, match=reason):
        client_context(settings(**stores))


def test_the_settings_of_a_client(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden\n")
    found = client_settings(
        {
            "zookeeper.ssl.keyStore.location": "/k.jks",
            "zookeeper.ssl.keyStore.passwordPath": f"{tmp_path}/secret",
            "zookeeper.ssl.hostnameVerification": "false",
        }
    )
    assert found.key_store_location == "/k.jks"
    assert found.key_store_password == "hidden"
    assert not found.hostname_verification
    with pytest.raises(ConfigException, match="Cannot read the password file /none"):
        client_settings({"zookeeper.ssl.trustStore.passwordPath": "/none"})


def test_no_key_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client_context(settings(key_store_location="server.jks", key_store_password="password"))
    assert os.listdir(tmp_path) == []
