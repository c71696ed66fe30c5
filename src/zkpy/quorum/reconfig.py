"""Reconfig: from a request to the next members, and from members to what their activation changes.

Owns the rules of one change of configuration. It must not know files, packets or the tree: the
server writes those, told by an `Activation`.
Source: PrepRequestProcessor.pRequest2Txn (reconfig), QuorumPeer.processReconfig and
updateLearnerType, Leader.getDesignatedLeader, ZooKeeper 3.9.
"""

from __future__ import annotations

from logging import getLogger

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.errors import (
    BadArguments,
    BadVersion,
    MarshallingError,
    NewConfigNoQuorum,
    ReconfigInProgress,
)
from zkpy.protocol.properties import LONG_BITS, load_properties, parse_integer, trim
from zkpy.quorum.members import (
    OBSERVER,
    PARTICIPANT,
    Members,
    QuorumServer,
    bracketed,
    check_counts,
    check_keys,
    java_split,
    parse_members,
    parse_server,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zkpy.protocol.records import ReconfigRequest
    from zkpy.quorum.view import View

log = getLogger(__name__)

# Hosts that mean another machine on each member: equal text is no clash.
_NOT_COMPARED = ("0.0.0.0", "0:0:0:0:0:0:0:0", "localhost", "0:0:0:0:0:0:0:1")


# ---------------------------------------------------------------------- the request


def new_members(
    request: ReconfigRequest,
    view: View,
    zxid: int,
    *,
    standalone_enabled: bool,
    is_quorum_synced: Callable[[Members], bool],
    multi_address: bool = False,
) -> Members:
    """The members that `request` asks for; their version is `zxid`, that of its txn.

    `is_quorum_synced` tells whether a quorum of the voters given to it is connected and up to date
    now, the leader itself counted. Checks are in the reference's order.

    Raises ReconfigInProgress, BadVersion, BadArguments, NewConfigNoQuorum; MarshallingError where
    the reference meets an error that it does not expect (a number that is none).
    """
    last_proposed = view.last_proposed
    if last_proposed.version != view.committed.version:
        raise ReconfigInProgress
    if request.curConfigId not in (-1, last_proposed.version):
        raise BadVersion(
            f"Reconfiguration from version {request.curConfigId} failed"
            f" -- last seen version is {last_proposed.version}"
        )
    try:
        if request.newMembers is not None:
            log.info("Non-incremental reconfig")
            members = _bulk(request.newMembers, standalone_enabled, multi_address)
        else:
            log.info("Incremental reconfig")
            members = _incremental(request, last_proposed, multi_address)
    except IllegalArgument as error:
        raise MarshallingError(str(error)) from None
    except ConfigException as error:
        raise BadArguments(str(error)) from None
    needed = 2 if standalone_enabled else 1
    if len(members.participants) < needed:
        message = (
            "Reconfig failed - new configuration must include"
            f" at least {needed} follower{'s' if needed > 1 else ''}"
        )
        log.warning("%s", message)
        raise BadArguments(message)
    members = members.with_version(zxid)
    if not is_quorum_synced(members):
        log.warning(
            "Reconfig failed - there must be a connected and synced quorum in new configuration"
        )
        raise NewConfigNoQuorum
    return members


def _bulk(text: str, standalone_enabled: bool, multi_address: bool) -> Members:
    """All members anew, one `key=value` per line or between commas."""
    entries = load_properties(text.replace(",", "\n"))
    check_keys(entries)
    members = parse_members(entries, multi_address=multi_address)
    check_counts(members, standalone_enabled=standalone_enabled, note=log.log)
    return members


def _incremental(request: ReconfigRequest, last: Members, multi_address: bool) -> Members:
    """`last` without those who leave and with those who join, or change their line."""
    if last.hierarchical:
        message = (
            "Incremental reconfiguration requested but last configuration seen"
            " has a non-majority quorum system"
        )
        log.warning("%s", message)
        raise BadArguments(message)
    servers = dict(last.servers)
    for leaving in split_list(request.leavingServers):
        servers.pop(parse_integer(leaving, LONG_BITS), None)
    for joining in split_list(request.joiningServers):
        server = parse_joining(joining, multi_address=multi_address)
        for other in servers.values():
            if other.sid != server.sid:
                check_address_duplicate(server, other)
        servers[server.sid] = server
    return Members(servers)


def split_list(text: str | None) -> list[str]:
    """The parts of a comma list, trimmed; empty ones do not count."""
    return [part for piece in (text or "").split(",") if (part := trim(piece))]


def parse_joining(text: str, *, multi_address: bool = False) -> QuorumServer:
    """Parse `server.N=spec`, also `N=spec`. Raises ConfigException, BadArguments."""
    parts = [part for piece in java_split(text, "=") if (part := trim(piece))]
    if len(parts) != 2:
        raise BadArguments("Wrong format of server string")
    sid = parse_integer(parts[0].rpartition(".")[2], LONG_BITS)
    server = parse_server(sid, parts[1], multi_address=multi_address)
    if server.client_address is None:
        raise BadArguments(
            "Wrong format of server string - each server should have 3 ports specified"
        )
    return server


def check_address_duplicate(server: QuorumServer, other: QuorumServer) -> None:
    """Raises BadArguments if a port of `server` is also one of `other`.

    Hosts are compared as text: the reference compares what their names resolve to, which for names
    that it cannot resolve means not at all.
    """
    theirs = set(_comparable(other))
    for host, port in _comparable(server):
        if (host, port) in theirs:
            address = f"{bracketed(host)}:{port}"
            raise BadArguments(
                f"{address} of server.{server.sid} conflicts {address} of server.{other.sid}"
            )


def _comparable(server: QuorumServer) -> list[tuple[str, int]]:
    addresses = [*server.quorum_addresses, *server.election_addresses]
    if server.client_address is not None:
        addresses.append(server.client_address)
    return [
        (host.lower(), port)
        for host, port in addresses
        if host.lower() not in _NOT_COMPARED and not host.startswith("127.")
    ]


# ---------------------------------------------------------------------- activation


class Activation:
    """What came of making `members` the committed configuration.

    `activated`: they are newer than those before, so the files are to be written. In any case the
    config node is to be written from the view (`node_due`), unless reconfig is disabled.
    `changed`: more than the version differs; only then can any of the rest be set.
    `client_address`: where this member's clients are from now on, if that is new; else None.
    `role`: PARTICIPANT also for one that is not in the list (it follows without a vote).
    `designated_leader`: whom to follow, or to be, at once and without an election; None: elect.
    """

    __slots__ = (
        "activated",
        "changed",
        "client_address",
        "designated_leader",
        "election_addresses_changed",
        "leader_changed",
        "node_due",
        "previous",
        "quorum_addresses_changed",
        "role",
        "role_changed",
    )

    def __init__(self, previous: Members, role: str) -> None:
        self.previous = previous
        self.role = role
        self.node_due = False
        self.activated = False
        self.changed = False
        self.role_changed = False
        self.leader_changed = False
        self.designated_leader: int | None = None
        self.client_address: tuple[str, int] | None = None
        self.quorum_addresses_changed = False
        self.election_addresses_changed = False

    @property
    def leaves_role(self) -> bool:
        """Whether leading, following or observing as until now is over."""
        return self.role_changed or self.leader_changed


def activate(
    view: View,
    members: Members,
    designated_leader: int | None,
    *,
    current_leader: int | None,
    client_address: tuple[str, int] | None = None,
) -> Activation:
    """Make `members` the committed configuration of `view`, if they are newer than it.

    `designated_leader` is what a leader said with the commit, None where nobody did (UPTODATE, a
    notification). `current_leader` is that of the current vote. `client_address` is where this
    member serves clients now.
    """
    previous, my_id = view.committed, view.my_id
    result = Activation(previous, role_in(previous, my_id))
    if not view.reconfig_enabled:
        return result
    result.node_due = True
    if members.version <= previous.version:
        return result
    result.activated = True
    view.set_committed(members)
    if members.same_members(previous):
        return result
    result.changed = True
    _compare_addresses(result, previous.servers.get(my_id), members.servers.get(my_id))
    if result.client_address == client_address:
        result.client_address = None
    _compare_roles(result, members, my_id)
    if designated_leader is not None:
        result.leader_changed = current_leader is not None and designated_leader != current_leader
        if result.leader_changed:
            log.warning("Suggested leader: %d", designated_leader)
        elif designated_leader == my_id and result.quorum_addresses_changed:
            result.leader_changed = True  # to lead again, where it can be reached from now on
        if result.leaves_role:
            result.designated_leader = designated_leader
    else:
        result.leader_changed = not _same_voter(previous, members, current_leader)
    return result


def role_in(members: Members, sid: int) -> str:
    """OBSERVER if listed so; who is not listed at all takes part without a vote."""
    server = members.servers.get(sid)
    return OBSERVER if server is not None and server.role == OBSERVER else PARTICIPANT


def _compare_addresses(
    result: Activation, before: QuorumServer | None, now: QuorumServer | None
) -> None:
    if now is None:
        return  # nobody is told to look for us elsewhere: we stay where we are
    result.client_address = now.client_address
    if before is None:
        result.quorum_addresses_changed = result.election_addresses_changed = True
        return
    result.quorum_addresses_changed = set(now.quorum_addresses) != set(before.quorum_addresses)
    result.election_addresses_changed = set(now.election_addresses) != set(
        before.election_addresses
    )


def _compare_roles(result: Activation, members: Members, my_id: int) -> None:
    role = role_in(members, my_id)
    if role == result.role:
        return
    result.role = role
    result.role_changed = True
    if role == OBSERVER:
        log.info("Becoming an observer")
    elif my_id in members.servers:
        log.info("Becoming a voting participant")
    else:
        log.info("Becoming a non-voting participant")


def _same_voter(before: Members, now: Members, sid: int | None) -> bool:
    """Whether `sid` votes in both, with the same quorum addresses."""
    if sid is None:
        return False
    old, new = before.participants.get(sid), now.participants.get(sid)
    if old is None or new is None:
        return False
    return set(old.quorum_addresses) == set(new.quorum_addresses)


def designated_leader(
    my_id: int,
    committed: Members,
    members: Members,
    acked: Iterable[int],
    acked_later: Iterable[Iterable[int]],
) -> int:
    """Who leads once `members` are active; the caller, the leader until now, if that can be.

    `acked` are those who acked the reconfig txn, `acked_later` the same for each proposal that is
    outstanding behind it, in order: the more of them a successor has, the fewer get lost.
    """
    if _same_voter(committed, members, my_id):
        return my_id
    voters = members.participants
    candidates = {sid for sid in acked if sid in voters and sid != my_id}
    if not candidates:
        return my_id  # alone, at a new address: it goes on leading there
    for later in acked_later:
        fewer = candidates.intersection(later)
        if not fewer:
            break
        candidates = fewer
        if len(candidates) == 1:
            break
    return min(candidates)
