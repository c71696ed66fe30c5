"""The server list: `server.N` lines, groups and weights, and the configuration text made of them.

Owns text <-> values. It must not know sockets or name lookups: a host is text here, resolved each
time somebody dials it. Quorums are counted elsewhere, from `Members`.

Source: QuorumPeer.QuorumServer, ConfigUtils, QuorumMaj, QuorumHierarchical and
QuorumPeerConfig.parseDynamicConfig, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.properties import LONG_BITS, load_properties, parse_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PARTICIPANT = "participant"
OBSERVER = "observer"

ANY_ADDRESS = "0.0.0.0"
PORT_MAX = 0xFFFF
WARNING = 30  # logging.WARNING, logging.ERROR
ERROR = 40

WRONG_FORMAT = (
    " does not have the form server_config or server_config;client_config"
    " where server_config is the pipe separated list of host:port:port or host:port:port:type"
    " and client_config is port or host:port"
)

# host, quorum port, election port
PeerAddress = tuple[str, int, int]


class QuorumServer:
    """One member: where its peers and, if the line says so, its clients reach it.

    `addresses` are (host, quorum port, election port), in the order written; hosts of IPv6 have
    no brackets. `client_address` is None when the line has no client part. A value: do not change.
    """

    __slots__ = ("addresses", "client_address", "role", "sid")

    def __init__(
        self,
        sid: int,
        addresses: tuple[PeerAddress, ...],
        role: str = PARTICIPANT,
        client_address: tuple[str, int] | None = None,
    ) -> None:
        assert addresses, "a member has at least one address"
        self.sid = sid
        self.addresses = addresses
        self.role = role
        self.client_address = client_address

    @property
    def is_participant(self) -> bool:
        """Whether it votes."""
        return self.role == PARTICIPANT

    @property
    def quorum_addresses(self) -> list[tuple[str, int]]:
        """Where it listens as leader."""
        return [(host, quorum_port) for host, quorum_port, _ in self.addresses]

    @property
    def election_addresses(self) -> list[tuple[str, int]]:
        """(host, port) of its election port, several with multi-address."""
        return [(host, election_port) for host, _, election_port in self.addresses]

    def spec(self) -> str:
        """The canonical text after `server.N=`: role always, addresses sorted by host."""
        ordered = sorted(self.addresses, key=host_of)
        text = "|".join(f"{bracketed(h)}:{quorum}:{election}" for h, quorum, election in ordered)
        text += ":" + self.role
        if self.client_address is not None:
            text += f";{bracketed(self.client_address[0])}:{self.client_address[1]}"
        return text

    def _identity(self) -> object:
        # Addresses are compared as sets, as the reference does: their order means nothing.
        return (self.sid, self.role, sorted(set(self.addresses)), self.client_address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuorumServer) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self.sid)

    def __repr__(self) -> str:
        return f"server.{self.sid}={self.spec()}"


class Members:
    """One configuration of the ensemble: servers by id, groups and weights, and its version.

    `groups` maps a group id to its sids; `weights` has every participant when `hierarchical`, and
    is empty otherwise (each server then counts 1). `version` is the zxid of the reconfig txn, 0 if
    no leader ever established the configuration. A value: do not change.
    """

    __slots__ = ("groups", "hierarchical", "servers", "version", "weights")

    def __init__(
        self,
        servers: Mapping[int, QuorumServer],
        *,
        version: int = 0,
        hierarchical: bool = False,
        groups: Mapping[int, tuple[int, ...]] | None = None,
        weights: Mapping[int, int] | None = None,
    ) -> None:
        self.servers = dict(sorted(servers.items()))
        self.version = version
        self.hierarchical = hierarchical
        self.groups = dict(sorted((groups or {}).items()))
        self.weights = dict(sorted((weights or {}).items()))

    @property
    def participants(self) -> dict[int, QuorumServer]:
        """The voters, ascending by id."""
        return {sid: s for sid, s in self.servers.items() if s.role == PARTICIPANT}

    @property
    def observers(self) -> dict[int, QuorumServer]:
        """Those that have no vote, by id."""
        return {sid: s for sid, s in self.servers.items() if s.role == OBSERVER}

    def weight_of(self, sid: int) -> int:
        """1 for every server without hierarchy; with it, 0 for one that has no weight."""
        return self.weights.get(sid, 0) if self.hierarchical else 1

    def lines(self) -> list[str]:
        """Canonical `key=value` lines without the version."""
        lines = [f"server.{sid}={server.spec()}" for sid, server in self.servers.items()]
        for gid, sids in self.groups.items():
            lines.append(f"group.{gid}=" + ":".join(map(str, sids)))
        lines.extend(f"weight.{sid}={weight}" for sid, weight in self.weights.items())
        return lines

    def text(self) -> str:
        """The content of /zookeeper/config: lines and `version=HEX`, joined by LF, no LF after."""
        return "\n".join([*self.lines(), f"version={self.version & (1 << LONG_BITS) - 1:x}"])

    def with_version(self, version: int) -> Members:
        """The same members under another version."""
        return Members(
            self.servers,
            version=version,
            hierarchical=self.hierarchical,
            groups=self.groups,
            weights=self.weights,
        )

    def same_members(self, other: Members) -> bool:
        """Whether ids, roles, addresses, groups and weights agree, whatever the versions."""
        return (
            self.servers == other.servers
            and self.hierarchical == other.hierarchical
            and self.groups == other.groups
            and self.weights == other.weights
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Members)
            and self.version == other.version
            and self.same_members(other)
        )

    def __hash__(self) -> int:
        return hash((self.version, tuple(self.servers)))

    def __repr__(self) -> str:
        return self.text().replace("\n", " ")


def host_of(address: PeerAddress) -> str:
    return address[0]


def bracketed(host: str) -> str:
    """A host before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def parse_server(sid: int, spec: str, *, multi_address: bool = False) -> QuorumServer:
    """Parse what follows `server.N=`.

    `multi_address` allows several addresses with `|` between them. Raises ConfigException.
    """
    sections = java_split(spec, ";")
    if not 1 <= len(sections) <= 2:
        raise ConfigException(spec + WRONG_FORMAT, key=f"server.{sid}")
    # The reference judges the client part first, so a line wrong twice gets the same message.
    client_address = parse_client(sections[1], spec) if len(sections) == 2 else None
    texts = java_split(sections[0], "|")
    if len(texts) > 1 and not multi_address:
        raise ConfigException(
            "Multiple address feature is disabled,"
            f" but multiple addresses were specified for sid {sid}"
        )
    addresses: list[PeerAddress] = []
    role: str | None = None
    for text in texts:
        fields = split_address(text)
        if not 3 <= len(fields) <= 4:
            raise ConfigException(spec + WRONG_FORMAT, key=f"server.{sid}")
        host = fields[0]
        quorum_port = parse_port(fields[1], host)
        election_port = parse_port(fields[2], host)
        if quorum_port == election_port:
            raise ConfigException(
                "Client and election port must be different!"
                f" Please update the configuration file on server.{sid}"
            )
        if len(fields) == 4:
            this_role = parse_role(fields[3])
            if role not in (None, this_role):
                raise ConfigException(
                    "Multiple addresses should have similar roles:"
                    f" {str(role).upper()} vs {this_role.upper()}"
                )
            role = this_role
        addresses.append((canonical_host(host), quorum_port, election_port))
    if not addresses:
        raise ConfigException(spec + WRONG_FORMAT, key=f"server.{sid}")
    return QuorumServer(sid, tuple(addresses), role or PARTICIPANT, client_address)


def parse_client(text: str, spec: str) -> tuple[str, int]:
    """Parse `port` or `host:port`; `spec` is the whole line for the error."""
    fields = split_address(text)
    if not 1 <= len(fields) <= 2:
        raise ConfigException(spec + WRONG_FORMAT)
    host = fields[0] if len(fields) == 2 else ANY_ADDRESS
    return canonical_host(host), parse_port(fields[-1], host)


def canonical_host(host: str) -> str:
    """A host in the form that members of both implementations write, and so can compare.

    Raises ConfigException for what no text can hold, such as half a surrogate pair.
    Source: InetSocketAddress.getHostString, which knows IPv6 literals in one form only.
    """
    if not host:
        return "localhost"
    if not host.isprintable():
        raise ConfigException(f"{host!r} is no host name")
    if ":" not in host:
        return host
    from ipaddress import IPv6Address  # slow to import, and rarely needed

    literal, percent, scope = host.partition("%")
    try:
        address = IPv6Address(literal)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    groups = address.exploded.split(":")
    return ":".join(f"{int(group, 16):x}" for group in groups) + percent + scope


def parse_port(text: str, host: str) -> int:
    """The port in `host:port`. Raises ConfigException, IllegalArgument."""
    try:
        port = parse_integer(text, 32)
    except IllegalArgument:
        raise ConfigException(f"Address unresolved: {host}:{text}") from None
    return check_port(port)


def check_port(port: int, key: str | None = None) -> int:
    """`port`, if it is one. Raises IllegalArgument."""
    if not 0 <= port <= PORT_MAX:
        raise IllegalArgument(f"port out of range:{port}", key=key)
    return port


def parse_role(text: str) -> str:
    """PARTICIPANT or OBSERVER. Raises ConfigException."""
    role = text.strip().lower()
    if role not in (PARTICIPANT, OBSERVER):
        raise ConfigException(f"Unrecognised peertype: {text}")
    return role


def split_address(text: str) -> list[str]:
    """Split at colons, keeping an IPv6 host in brackets whole and giving it without them.

    Source: ConfigUtils.getHostAndPort.
    """
    if not text.startswith("["):
        return java_split(text, ":")
    end = text.find("]")
    if end < 0:
        raise ConfigException(f"{text} starts with '[' but has no matching ']'")
    host, rest = text[1:end], text[end + 1 :]
    if not host:
        raise ConfigException(f"{text} host is empty.")
    if not rest:
        return [host]
    if not rest.startswith(":"):
        raise ConfigException(f"{text} does not have : after ]")
    return [host, *java_split(rest[1:], ":")]


def java_split(text: str, separator: str) -> list[str]:
    """Split as String.split does: empty parts at the end are dropped, so `a:1:2;` has no client."""
    parts = text.split(separator)
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts


def is_member_key(key: str) -> bool:
    """Whether a key of zoo.cfg says who the members are."""
    return key.startswith(("server.", "group", "weight"))


def parse_members(entries: Mapping[str, str], *, multi_address: bool = False) -> Members:
    """Take the server list out of `entries`; other keys are not looked at.

    Raises ConfigException, and IllegalArgument for bad numbers and unknown group members.
    """
    servers: dict[int, QuorumServer] = {}
    groups: dict[int, tuple[int, ...]] = {}
    weights: dict[int, int] = {}
    group_of: dict[int, int] = {}
    version = 0
    hierarchical = any(key.startswith(("group", "weight")) for key in entries)
    for key, value in entries.items():
        if key.startswith("server."):
            sid = id_in(key)
            servers[sid] = parse_server(sid, value, multi_address=multi_address)
        elif key == "version":
            version = parse_integer(value, LONG_BITS, key=key, radix=16)
        elif key.startswith("group"):
            gid = id_in(key)
            sids = tuple(parse_integer(sid, LONG_BITS, key=key) for sid in java_split(value, ":"))
            for sid in sids:
                if sid in group_of:
                    raise ConfigException(f"Server {sid}is in multiple groups")
                group_of[sid] = gid
            groups[gid] = sids
        elif key.startswith("weight"):
            weights[id_in(key)] = parse_integer(value, LONG_BITS, key=key)
    if hierarchical:
        complete_hierarchy(servers, group_of, weights)
    return Members(
        servers, version=version, hierarchical=hierarchical, groups=groups, weights=weights
    )


def id_in(key: str) -> int:
    """The number after the first dot of `server.N`, `group.N` or `weight.N`."""
    return parse_integer(key[key.find(".") + 1 :], LONG_BITS, key=key)


def complete_hierarchy(
    servers: Mapping[int, QuorumServer], group_of: Mapping[int, int], weights: dict[int, int]
) -> None:
    """Check the groups, and give weight 1 to each participant without one."""
    for sid, server in servers.items():
        if server.role == PARTICIPANT:
            if sid not in group_of:
                raise ConfigException(f"Server {sid}is not in a group")
            weights.setdefault(sid, 1)
    for sid, gid in group_of.items():
        # The reference dies of a null pointer here, unless the stranger has a weight.
        if sid not in servers and sid not in weights:
            raise ConfigException(f"Server {sid} of group {gid} is not in the server list")


def check_counts(
    members: Members, *, standalone_enabled: bool, note: Callable[[int, str], None]
) -> None:
    """Refuse impossible numbers of voters; tell `note` (logging level, text) of unwise ones."""
    voters, observers = len(members.participants), len(members.observers)
    if voters == 0:
        if not standalone_enabled:
            raise IllegalArgument(
                "standaloneEnabled = false then number of participants should be >0"
            )
        if observers:
            raise IllegalArgument("Observers w/o participants is an invalid configuration")
    elif voters == 1 and standalone_enabled:
        note(ERROR, "Invalid configuration, only one server specified (ignoring)")
        if observers:
            raise IllegalArgument("Observers w/o quorum is an invalid configuration")
    elif voters <= 2:
        note(WARNING, "No server failure will be tolerated. You need at least 3 servers.")
    elif voters % 2 == 0:
        note(WARNING, "Non-optimal configuration, consider an odd number of servers.")


def parse_config_text(text: str, *, multi_address: bool = False) -> Members:
    """Parse a configuration as peers and /zookeeper/config carry it, version line included."""
    entries = load_properties(text)
    check_keys(entries)
    return parse_members(entries, multi_address=multi_address)


def parse_dynamic_file(text: str, path: str, *, multi_address: bool = False) -> Members:
    """Parse a dynamic configuration file; its version is in the name `path`, not inside.

    Raises ConfigException; bad values come as `Error processing PATH: REASON`.
    """
    try:
        entries = load_properties(text)
        if "version" in entries:
            raise ConfigException("dynamic file shouldn't have version inside")
        check_keys(entries)
        members = parse_members(entries, multi_address=multi_address)
    except IllegalArgument as error:
        raise ConfigException(f"Error processing {path}: {error}", key=error.key) from None
    return members.with_version(version_from_filename(path))


def check_keys(entries: Mapping[str, str]) -> None:
    """Raises ConfigException for a key that has no place in a dynamic file."""
    for key in entries:
        if not is_member_key(key) and key != "version":
            raise ConfigException(f"Unrecognised parameter: {key}", key=key)


def version_from_filename(path: str) -> int:
    """The hexadecimal number after the last dot of `path`; 0 if there is none."""
    _, dot, suffix = path.rpartition(".")
    if not dot:
        return 0
    try:
        return parse_integer(suffix, LONG_BITS, radix=16)
    except IllegalArgument:
        return 0
