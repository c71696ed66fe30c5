"""TLS of the command line programs: key and trust stores as ZooKeeper names them -> SSLContext.

Stores are PEM or JKS. PKCS12 and BCFKS need ciphers that Python does not have: they are refused,
with the command that converts them.

Source: X509Util and ClientX509Util, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from typing import TYPE_CHECKING, Final

from zkpy.cli.server_files import read_file
from zkpy.protocol.config_error import ConfigException
from zkpy.protocol.jks import KeyStore, KeyStoreError, is_jks, load_key_store
from zkpy.server.config_parser import Parser

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zkpy.server.config import TlsSettings

CERTIFICATE: Final = re.compile(
    "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL
)
PRIVATE_KEY: Final = re.compile(
    "-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \\1PRIVATE KEY-----\n?", re.DOTALL
)
VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
DER_SEQUENCE: Final = b"\x30"


def client_settings(properties: Mapping[str, str]) -> TlsSettings:
    """The `zookeeper.ssl.*` of a client's -D flags. Raises ConfigException."""
    return Parser("", properties, read_file, None).tls_settings("ssl.", quorum=False)


def client_context(settings: TlsSettings, *, trust_own_chain: bool = False) -> ssl.SSLContext:
    """The context for connections to a server.

    With `trust_own_chain` the settings are those of the server that is asked: its own certificate
    is trusted beside those of its trust store. Without a trust store the system's certificates
    count. Raises ConfigException when a store cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = settings.hostname_verification
    names = [name.strip() for name in settings.enabled_protocols.split(",") if name.strip()]
    versions = [VERSIONS[name] for name in names if name in VERSIONS]
    context.minimum_version = min(versions, default=ssl.TLSVersion.TLSv1_2)
    if versions:
        context.maximum_version = max(versions)
    trusted: list[str] = []
    if settings.key_store_location:
        store = load_store(
            settings.key_store_location, settings.key_store_type, settings.key_store_password
        )
        if not store.keys:
            raise ConfigException(f"{settings.key_store_location}: no private key in it")
        key, chain = store.keys[0]
        _use_key(context, settings.key_store_location, key + chain, settings.key_store_password)
        if trust_own_chain:
            trusted.append(chain)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if settings.trust_store_location:
        location = settings.trust_store_location
        store = load_store(location, settings.trust_store_type, settings.trust_store_password)
        if not store.trusted:
            raise ConfigException(f"{location}: no certificate in it")
        trusted += store.trusted
    if trusted:
        context.load_verify_locations(cadata="".join(trusted))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def load_store(path: str, kind: str, password: str) -> KeyStore:
    """Read a store of the given kind (JKS, PEM, ...; "" tells by the name). ConfigException."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigException(f"{path}: {error.strerror}") from None
    kind = (kind or os.path.splitext(path)[1].removeprefix(".")).upper()
    if is_jks(content):
        try:
            return load_key_store(content, password)
        except KeyStoreError as error:
            raise ConfigException(f"{path}: {error}") from None
    # keytool has long made PKCS12 whatever the name of the file says.
    if kind in ("P12", "PKCS12", "BCFKS") or content.startswith(DER_SEQUENCE):
        raise ConfigException(
            f"{path}: PKCS12 and BCFKS stores cannot be read here; convert it to PEM:"
            f" openssl pkcs12 -in {path} -nodes -out {os.path.splitext(path)[0]}.pem"
        )
    return _load_pem(content.decode("ascii", "replace"))


def _load_pem(text: str) -> KeyStore:
    """One file with certificates, and for a key store with the private key."""
    store = KeyStore()
    certificates = [found[0].rstrip() + "\n" for found in CERTIFICATE.finditer(text)]
    store.trusted = certificates
    key = PRIVATE_KEY.search(text)
    if key is not None and certificates:
        store.keys.append((key[0].rstrip() + "\n", "".join(certificates)))
    return store


def _use_key(context: ssl.SSLContext, location: str, pem: str, password: str) -> None:
    """Load a key and its chain, which the ssl module takes only from a file, into `context`."""
    # Of a file that only this user can read, and which has no name for longer than it takes.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        try:
            # A function, as without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(file.name, password=lambda: password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise ConfigException(f"{location}: the key cannot be read: {reason}") from None
