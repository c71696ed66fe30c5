"""Java key stores (JKS): bytes -> certificates and private keys in PEM.

Owns the file format and its protection, which is two uses of SHA-1. It must not know files, nor
what a certificate says.

Source: sun.security.provider.JavaKeyStore and KeyProtector, OpenJDK 17.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from hmac import compare_digest

MAGIC = 0xFEEDFEED
KEY_ENTRY = 1
CERTIFICATE_ENTRY = 2
DIGEST_BYTES = 20
# Known to everybody; it is hashed between password and content.
WHITENER = b"Mighty Aphrodite"
# 1.3.6.1.4.1.42.2.17.1.1, the protection of keys that JKS has.
KEY_PROTECTOR = bytes.fromhex("06 0a 2b 06 01 04 01 2a 02 11 01 01")
SEQUENCE = 0x30
OCTET_STRING = 0x04


class KeyStoreError(ValueError):
    """The file is damaged, of another kind, or the password is not its."""


class KeyStore:
    """What a store holds, in its order: PEM texts.

    `keys` are (private key, certificate chain), `trusted` certificates of others.
    """

    def __init__(self) -> None:
        self.keys: list[tuple[str, str]] = []
        self.trusted: list[str] = []


def is_jks(content: bytes) -> bool:
    return content[:4] == MAGIC.to_bytes(4, "big")


def load_key_store(content: bytes, password: str) -> KeyStore:
    """Read a store; its keys are taken to have its password. Raises KeyStoreError."""
    secret = password.encode("utf-16-be")
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if not is_jks(content) or len(body) < 12:
        raise KeyStoreError("not a Java key store")
    # With an empty password Java does not check a trust store, and many are used like that.
    if secret and not compare_digest(sha1(secret + WHITENER + body).digest(), digest):
        raise KeyStoreError("the key store was tampered with, or the password is wrong")
    reader = _Reader(body)
    reader.number(4)
    version = reader.number(4)
    if version not in (1, 2):
        raise KeyStoreError(f"version {version} of Java key stores is not known")
    store = KeyStore()
    for _ in range(reader.number(4)):
        tag = reader.number(4)
        reader.block(2)  # the alias
        reader.number(8)  # when it was made
        if tag == KEY_ENTRY:
            key = _unprotect(reader.block(4), secret)
            chain = [reader.certificate(version) for _ in range(reader.number(4))]
            store.keys.append((_pem("PRIVATE KEY", key), "".join(chain)))
        elif tag == CERTIFICATE_ENTRY:
            store.trusted.append(reader.certificate(version))
        else:
            raise KeyStoreError(f"an entry of the unknown kind {tag}")
    return store


class _Reader:
    """Big-endian numbers and blocks; trusts no length. Raises KeyStoreError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, size: int) -> bytes:
        taken = self.data[self.offset : self.offset + size]
        if len(taken) < size:
            raise KeyStoreError("the key store is cut off")
        self.offset += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> bytes:
        """Bytes behind their length, a number of `size` bytes."""
        return self.take(self.number(size))

    def certificate(self, version: int) -> str:
        if version == 2:
            self.block(2)  # its type: X.509
        return _pem("CERTIFICATE", self.block(4))

    def element(self, tag: int) -> bytes:
        """The content of a DER element."""
        if self.number(1) != tag:
            raise KeyStoreError("a key in an unknown form")
        length = self.number(1)
        if length & 0x80:
            length = self.number(length & 0x7F)
        return self.take(length)


def _unprotect(protected: bytes, secret: bytes) -> bytes:
    """EncryptedPrivateKeyInfo -> PrivateKeyInfo (PKCS#8), both in DER."""
    info = _Reader(_Reader(protected).element(SEQUENCE))
    if not info.element(SEQUENCE).startswith(KEY_PROTECTOR):
        raise KeyStoreError("a key protected in an unknown way")
    data = info.element(OCTET_STRING)
    if len(data) < 2 * DIGEST_BYTES:
        raise KeyStoreError("a key that is cut off")
    salt, hidden, check = (
        data[:DIGEST_BYTES],
        data[DIGEST_BYTES:-DIGEST_BYTES],
        data[-DIGEST_BYTES:],
    )
    stream = b""
    digest = salt
    while len(stream) < len(hidden):
        digest = sha1(secret + digest).digest()
        stream += digest
    size = len(hidden)
    plain = int.from_bytes(hidden, "big") ^ int.from_bytes(stream[:size], "big")
    key = plain.to_bytes(size, "big")
    if not compare_digest(sha1(secret + key).digest(), check):
        raise KeyStoreError("the password of the key is wrong")
    return key


def _pem(label: str, data: bytes) -> str:
    text = b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
