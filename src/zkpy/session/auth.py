"""Who a connection is, by scheme, and whether an ACL lets it do something.

Owns providers and the three ACL algorithms: check, expansion, masking. Must not know requests or
nodes. A connection's ids are an immutable tuple; a successful auth packet gives it a longer one.
Source: ProviderRegistry and the providers, ZooKeeperServer.checkACL, PrepRequestProcessor.fixupACL,
ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Protocol, TypeAlias

from zkpy.protocol.acl import ACL, Acls
from zkpy.protocol.errors import AuthFailed, InvalidACL, MarshallingError, ProtocolError
from zkpy.session.addresses import parse_address, parse_network

log = logging.getLogger(__name__)

Id: TypeAlias = "tuple[str, str]"  # scheme, id

SUPER_SCHEME: Final = "super"
WORLD_SCHEME: Final = "world"
ANYONE: Final = "anyone"
AUTH_SCHEME: Final = "auth"

# Java's names of message digests to those of hashlib.
DIGEST_ALGORITHMS: Final = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA-512/224": "sha512_224",
    "SHA-512/256": "sha512_256",
    "SHA3-224": "sha3_224",
    "SHA3-256": "sha3_256",
    "SHA3-384": "sha3_384",
    "SHA3-512": "sha3_512",
}

# Parsed networks of ACL ids. Clients choose the ids, so they are dropped all at once when many.
MAX_PARSED_NETWORKS: Final = 1024


class AuthenticationProvider(Protocol):
    """One scheme. The ids it gives out and is asked about are those without the scheme."""

    @property
    def scheme(self) -> str:
        """The name in auth packets and ACLs."""

    @property
    def is_authenticated(self) -> bool:
        """Whether its ids stand for a proven identity, which an ACL of scheme `auth` may name."""

    def handle(self, auth: bytes | None, address: str) -> list[Id]:
        """The ids an auth packet earns a connection from `address`.

        Raises AuthFailed, or ProtocolError to have the connection closed without a reply. Any
        other exception counts as AuthFailed.
        """

    def matches(self, id: str, acl_id: str) -> bool:
        """Whether a connection with `id` is meant by an ACL entry for `acl_id`."""

    def is_valid(self, acl_id: str) -> bool:
        """Whether an ACL may be set for `acl_id`."""

    def user_name(self, id: str) -> str:
        """What whoAmI shows of `id`."""


class DigestAuthenticationProvider:
    """`user:password` becomes the id `user:hash`; any password is accepted.

    `algorithm` is Java's or hashlib's name. Whoever computes the id `super_digest` is super.
    Source: DigestAuthenticationProvider, ZooKeeper 3.9.
    """

    __slots__ = ("_algorithm", "_super_digest")
    scheme: Final = "digest"
    is_authenticated: Final = True

    def __init__(self, *, algorithm: str = "SHA1", super_digest: str = "") -> None:
        """Raises ValueError for an algorithm that is not known."""
        name = DIGEST_ALGORITHMS.get(algorithm.upper(), algorithm.lower())
        if name not in DIGEST_ALGORITHMS.values():
            raise ValueError(f"no such digest algorithm: {algorithm}")
        self._algorithm = name
        self._super_digest = super_digest.encode("utf-8", "surrogatepass")

    def generate_digest(self, id_password: str) -> str:
        """The id of `user:password`."""
        # Most servers never see a password, and importing these takes some ms of the start.
        import hashlib
        from binascii import b2a_base64

        # The scheme fixes the hash; it is no protection for weak passwords.
        hashed = hashlib.new(self._algorithm, id_password.encode(), usedforsecurity=False)
        user = id_password.partition(":")[0]
        return f"{user}:{b2a_base64(hashed.digest(), newline=False).decode()}"

    def handle(self, auth: bytes | None, address: str) -> list[Id]:
        if auth is None:
            raise AuthFailed
        digest = self.generate_digest(auth.decode("utf-8", "replace"))
        ids = [(self.scheme, digest)]
        if self._super_digest:
            from hmac import compare_digest

            # In constant time: how much of the hash was right must not show.
            if compare_digest(digest.encode(), self._super_digest):
                ids.insert(0, (SUPER_SCHEME, ""))
        return ids

    def matches(self, id: str, acl_id: str) -> bool:
        return id == acl_id

    def is_valid(self, acl_id: str) -> bool:
        # Java's split(":"): empty parts at the end do not count.
        parts = acl_id.rstrip(":").split(":")
        return len(parts) == 2

    def user_name(self, id: str) -> str:
        return id.partition(":")[0]


class IPAuthenticationProvider:
    """The remote address is the id; an ACL names an address or a network.

    An address with a zone (`fe80:...%eth0`) matches nothing, as the zone is no part of ACLs.
    Source: IPAuthenticationProvider, ZooKeeper 3.9.
    """

    __slots__ = ("_addresses", "_networks")
    scheme: Final = "ip"
    is_authenticated: Final = False

    def __init__(self) -> None:
        self._networks: dict[str, tuple[int, int, int] | None] = {}
        self._addresses: dict[str, tuple[int, int] | None] = {}

    def handle(self, auth: bytes | None, address: str) -> list[Id]:
        return [(self.scheme, address)]

    def matches(self, id: str, acl_id: str) -> bool:
        try:
            address = self._addresses[id]
            network = self._networks[acl_id]
        except KeyError:
            address, network = self._parse(id, acl_id)
        if address is None or network is None:
            return False
        number, size, counting = network
        return address[1] == size and (address[0] ^ number) >> (size - counting) == 0

    def _parse(
        self, id: str, acl_id: str
    ) -> tuple[tuple[int, int] | None, tuple[int, int, int] | None]:
        if len(self._addresses) >= MAX_PARSED_NETWORKS:
            self._addresses.clear()
        if len(self._networks) >= MAX_PARSED_NETWORKS:
            self._networks.clear()
        address = self._addresses[id] = parse_address(id)
        network = self._networks[acl_id] = parse_network(acl_id)
        return address, network

    def is_valid(self, acl_id: str) -> bool:
        return parse_network(acl_id) is not None

    def user_name(self, id: str) -> str:
        return id


class EnsembleAuthenticationProvider:
    """Lets a client say which ensemble it means, so that it leaves a wrong one.

    `names` are the accepted ones, with or without space around them, None accepts all. Gives no
    ids. Source: EnsembleAuthenticationProvider, ZooKeeper 3.9.
    """

    __slots__ = ("_names",)
    scheme: Final = "ensemble"
    is_authenticated: Final = False

    def __init__(self, names: Iterable[str] | None = None) -> None:
        self._names = None if names is None else frozenset(name.strip() for name in names)

    def handle(self, auth: bytes | None, address: str) -> list[Id]:
        name = (auth or b"").decode("utf-8", "replace")
        if name and self._names is not None and name not in self._names:
            # No reply: -115 would end the client's session instead of sending it elsewhere.
            raise ProtocolError(
                f"Unexpected ensemble name: ensemble name: {name!r:.64} client ip: {address}"
            )
        return []

    def matches(self, id: str, acl_id: str) -> bool:
        return False

    def is_valid(self, acl_id: str) -> bool:
        return False

    def user_name(self, id: str) -> str:
        return id


class ProviderRegistry:
    """The providers of a server, by scheme, and the ACL rules over them.

    `skip_acl`: every check allows (zookeeper.skipACL=yes).
    """

    __slots__ = ("_providers", "skip_acl")

    def __init__(
        self, providers: Iterable[AuthenticationProvider], *, skip_acl: bool = False
    ) -> None:
        self._providers = {provider.scheme: provider for provider in providers}
        self.skip_acl = skip_acl

    def provider_of(self, scheme: str | None) -> AuthenticationProvider | None:
        """The provider of `scheme`, if there is one; `world`, `auth` and `super` have none."""
        return self._providers.get(scheme) if scheme is not None else None

    def authenticate(self, scheme: str | None, auth: bytes | None, address: str) -> tuple[Id, ...]:
        """The ids an auth packet adds to a connection from `address`, perhaps none or known ones.

        Raises AuthFailed: reply with it, then close. Raises ProtocolError: close at once.
        """
        provider = self.provider_of(scheme)
        if provider is None:
            log.warning("%s: no provider of scheme %.64r", address, scheme)
            raise AuthFailed
        try:
            return tuple(provider.handle(auth, address))
        except (AuthFailed, ProtocolError):
            raise
        except Exception as error:
            # Providers are pluggable, and a client must not be able to stop us through one.
            log.exception("%s: provider of scheme %r failed", address, scheme)
            raise AuthFailed from error

    def check_acls(self, acls: Acls, perms: int, ids: tuple[Id, ...]) -> bool:
        """Whether a connection with `ids` has any of `perms` on a node with `acls`."""
        for entry in acls:
            # Nearly all there is in practice.
            if entry[0] & perms and entry[2] == ANYONE and entry[1] == WORLD_SCHEME:
                return True
        if not acls or self.skip_acl:
            return True
        for id_scheme, _ in ids:
            if id_scheme == SUPER_SCHEME:
                return True
        return self._names_any(acls, perms, ids)

    def _names_any(self, acls: Acls, perms: int, ids: tuple[Id, ...]) -> bool:
        for entry_perms, scheme, acl_id in acls:
            if not entry_perms & perms or acl_id is None:
                continue
            provider = self.provider_of(scheme)
            if provider is None:
                continue
            for id_scheme, id in ids:
                if id_scheme == scheme and provider.matches(id, acl_id):
                    return True
        return False

    def fix_acls(self, acls: Acls | None, ids: tuple[Id, ...]) -> Acls:
        """The list to store for the one of a request from a connection with `ids`.

        Raises InvalidACL; MarshallingError for a null id where an id is looked at.
        """
        fixed: list[ACL] = []
        seen: set[ACL] = set()
        for entry in acls or ():
            if entry in seen and entry.id is None:
                raise MarshallingError
            seen.add(entry)
        for entry in dict.fromkeys(acls or ()):
            if entry.scheme == AUTH_SCHEME:
                fixed += self._entries_of_connection(entry.perms, ids)
            else:
                self._check_entry(entry)
                fixed.append(entry)
        if not fixed:
            raise InvalidACL
        return tuple(fixed)

    def _entries_of_connection(self, perms: int, ids: tuple[Id, ...]) -> list[ACL]:
        entries = []
        for scheme, id in ids:
            provider = self.provider_of(scheme)
            if provider is not None and provider.is_authenticated:
                entries.append(ACL(perms, scheme, id))
        if not entries:
            raise InvalidACL
        return entries

    def _check_entry(self, entry: ACL) -> None:
        """Raise InvalidACL or MarshallingError unless `entry` may be stored as it is."""
        scheme, acl_id = entry.scheme, entry.id
        if scheme == WORLD_SCHEME:
            if acl_id is None:
                raise MarshallingError
            if acl_id == ANYONE:
                return
        provider = self.provider_of(scheme)
        if provider is None:
            raise InvalidACL
        if acl_id is None:
            raise MarshallingError
        if not provider.is_valid(acl_id):
            raise InvalidACL

    def mask_acls(self, acls: Acls, ids_have_admin: bool) -> Acls:
        """What getACL shows: without ADMIN the hashes of digest ids are left out."""
        if ids_have_admin:
            return acls
        return tuple([_masked(entry) for entry in acls])

    def user_names(self, ids: tuple[Id, ...]) -> list[tuple[str, str]]:
        """The (scheme, user) pairs of whoAmI; schemes without a provider show no user."""
        names = []
        for scheme, id in ids:
            provider = self.provider_of(scheme)
            names.append((scheme, "" if provider is None else provider.user_name(id)))
        return names


def add_ids(ids: tuple[Id, ...], added: tuple[Id, ...]) -> tuple[Id, ...]:
    """`ids` and those of `added` that are new; the same object if there are none."""
    new = [id for id in dict.fromkeys(added) if id not in ids]
    return ids + tuple(new) if new else ids


def _masked(entry: ACL) -> ACL:
    if entry.scheme != DigestAuthenticationProvider.scheme or entry.id is None:
        return entry
    user, colon, _ = entry.id.partition(":")
    return ACL(entry.perms, entry.scheme, f"{user}:x") if colon else entry
