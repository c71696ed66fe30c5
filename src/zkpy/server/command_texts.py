"""What the four letter words print, line for line as Apache ZooKeeper does.

Imported when the first of them is asked for. Reads the server's state; `crst`, `srst` and `stmk`
also change it. Source: org.apache.zookeeper.server.command, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from zkpy.protocol.zoodefs import OpCode
from zkpy.server import commands
from zkpy.server.cnxn import ServerCnxn
from zkpy.server.metrics import outstanding_requests
from zkpy.server.mntr import mntr
from zkpy.server.version import zookeeper_version_text

if TYPE_CHECKING:
    from zkpy.datatree.watches import Watcher
    from zkpy.server.interfaces import Sessions
    from zkpy.server.zkserver import ZooKeeperServer

NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests"
STMK_ARGUMENT_BYTES: Final = 8
_MASK64: Final = (1 << 64) - 1

_DAYS: Final = "Mon Tue Wed Thu Fri Sat Sun"
_MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"

# What `lop` calls the last operation of a connection.
LAST_OPERATIONS: Final[dict[int | None, str]] = {
    None: "NA",
    OpCode.NOTIFICATION: "null",
    OpCode.CREATE_SESSION: "SESS",
    OpCode.PING: "PING",
    OpCode.CREATE: "CREA",
    OpCode.CREATE2: "CREA",
    OpCode.CREATE_CONTAINER: "CREA",
    OpCode.CREATE_TTL: "CREA",
    OpCode.DELETE: "DELE",
    OpCode.DELETE_CONTAINER: "DELE",
    OpCode.EXISTS: "EXIS",
    OpCode.GET_DATA: "GETD",
    OpCode.SET_DATA: "SETD",
    OpCode.GET_ACL: "GETA",
    OpCode.SET_ACL: "SETA",
    OpCode.GET_CHILDREN: "GETC",
    OpCode.GET_CHILDREN2: "GETC",
    OpCode.GET_ALL_CHILDREN_NUMBER: "GETACN",
    OpCode.SYNC: "SYNC",
    OpCode.MULTI: "MULT",
    OpCode.MULTI_READ: "MLTR",
    OpCode.CHECK: "CHEC",
    OpCode.RECONFIG: "RECO",
    OpCode.CLOSE_SESSION: "CLOS",
    OpCode.SET_WATCHES: "SETW",
    OpCode.SET_WATCHES2: "STW2",
    OpCode.ADD_WATCH: "ADDW",
    OpCode.CHECK_WATCHES: "CHKW",
    OpCode.REMOVE_WATCHES: "REMW",
    OpCode.WHO_AM_I: "HOMI",
    OpCode.GET_EPHEMERALS: "GETE",
}


def text_of(server: ZooKeeperServer, cnxn: ServerCnxn, name: str, rest: bytes) -> str | None:
    """The answer to a known and allowed word; None for silence."""
    if name == "ruok":
        return "imok"
    if name == "isro":
        return _isro(server)
    if name == "envi":
        return _envi(server)
    if name == "gtmk":
        return str(server.stats.trace_mask)
    if name == "stmk":
        mask = int.from_bytes(rest[:STMK_ARGUMENT_BYTES], "big", signed=True)
        server.stats.trace_mask = mask
        return str(mask)
    if name == commands.TELNET_CLOSE:
        return None
    if not server.serving:
        return NOT_SERVING + ("" if name == "hash" else "\n")
    return _TEXTS[name](server, cnxn)


# ---------------------------------------------------------------------- the server


def _isro(server: ZooKeeperServer) -> str:
    if not server.serving:
        return "null"
    return "ro" if server.role.read_only() else "rw"


def _envi(server: ZooKeeperServer) -> str:
    lines = [("zookeeper.version", zookeeper_version_text())]
    lines += server.environment.environment_lines()
    return "Environment:\n" + "".join(f"{key}={value}\n" for key, value in lines)


def _srvr(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    return _head(server) + _numbers(server)


def _stat(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    clients = "".join(f" {_client(each, cnxn)})\n" for each in server.cnxns)
    return f"{_head(server)}Clients:\n{clients}\n{_numbers(server)}"


def _head(server: ZooKeeperServer) -> str:
    text = f"Zookeeper version: {zookeeper_version_text()}\n"
    if server.role.read_only():
        text += "READ-ONLY mode; serving only read-only clients\n"
    return text


def _numbers(server: ZooKeeperServer) -> str:
    stats = server.stats
    latency = f"{stats.min_latency()}/{stats.average_latency()}/{stats.max_latency()}"
    text = (
        f"Latency min/avg/max: {latency}\n"
        f"Received: {stats.packets_received}\n"
        f"Sent: {stats.packets_sent}\n"
        f"Connections: {len(server.cnxns)}\n"
        f"Outstanding: {outstanding_requests(server)}\n"
        f"Zxid: 0x{server.tree.last_processed_zxid & _MASK64:x}\n"
        f"Mode: {server.role.mode()}\n"
        f"Node count: {server.tree.node_count()}\n"
    )
    sizes = server.role.proposal_sizes()
    if sizes is not None:
        text += "Proposal sizes last/min/max: {}/{}/{}\n".format(*sizes)
    return text


def _srst(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    server.stats.reset()
    server.prep.quota_exceeded.clear()
    server.role.reset_proposal_sizes()
    return "Server stats reset.\n"


def _conf(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    config = server.config
    environment = server.environment
    lines = (
        ("clientPort", environment.client_port()),
        ("secureClientPort", environment.secure_client_port()),
        ("dataDir", environment.data_dir()),
        ("dataDirSize", environment.data_dir_size()),
        ("dataLogDir", environment.log_dir()),
        ("dataLogSize", environment.log_dir_size()),
        ("tickTime", config.tick_time_ms),
        ("maxClientCnxns", config.max_client_cnxns),
        ("minSessionTimeout", config.min_session_timeout_ms),
        ("maxSessionTimeout", config.max_session_timeout_ms),
        ("clientPortListenBacklog", config.client_port_listen_backlog),
        ("serverId", server.role.server_id()),
    )
    return "".join(f"{key}={value}\n" for key, value in lines) + server.role.config_text()


def _dirs(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    environment = server.environment
    return (
        f"datadir_size: {environment.data_dir_size()}\nlogdir_size: {environment.log_dir_size()}\n"
    )


def _hash(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    return "".join(f"{zxid:x}: {digest}\n" for zxid, digest in server.stats.digests)


def _mntr(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    return mntr(server)


# ---------------------------------------------------------------------- connections


def peer_name(cnxn: ServerCnxn) -> str:
    """Address and port of a client as Java prints them, IPv6 in eight groups."""
    address = cnxn.address
    if ":" in address:
        address = f"[{_eight_groups(address)}]"
    return f"/{address}:{cnxn.port}"


def _eight_groups(address: str) -> str:
    address, _, zone = address.partition("%")
    left, gap, right = address.partition("::")
    groups = left.split(":") if left else []
    tail = right.split(":") if right else []
    if gap:
        groups += ["0"] * (8 - len(groups) - len(tail))
    groups += tail
    text = ":".join(group.lstrip("0") or "0" for group in groups)
    return f"{text}%{zone}" if zone else text


def _client(cnxn: ServerCnxn, asking: ServerCnxn) -> str:
    """The part that stat and cons share, without the closing bracket."""
    # What a selector would wait for: 1 to read, 4 to write. The asking one is being served.
    ops = 0 if cnxn.held or cnxn is asking else 1
    if cnxn.write_blocked:
        ops |= 4
    # Special requests such as pings do not count, nor replies that wait for their turn.
    queued = sum(
        (entry[0] if type(entry) is tuple else entry.xid) > 0  # type: ignore[union-attr]
        for entry in cnxn.pending
    )
    stats = cnxn.stats
    return f"{peer_name(cnxn)}[{ops:x}](queued={queued},recved={stats.received},sent={stats.sent}"


def _cons(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    lines = [f" {_client(each, cnxn)}{_session(each)})\n" for each in server.cnxns]
    return "".join(lines) + "\n"


def _session(cnxn: ServerCnxn) -> str:
    if not cnxn.session_id:
        return ""
    stats = cnxn.stats
    count = stats.latency_count
    lcxid = f",lcxid=0x{stats.last_cxid:x}" if stats.last_cxid >= 0 else ""
    return (
        f",sid=0x{cnxn.session_id & _MASK64:x}"
        f",lop={LAST_OPERATIONS.get(stats.last_op, 'NA')}"
        f",est={cnxn.established_wall_ms},to={cnxn.timeout_ms}{lcxid}"
        f",lzxid=0x{stats.last_zxid & _MASK64:x}"
        f",lresp={stats.last_response_ms},llat={stats.last_latency}"
        f",minlat={stats.min_latency if count else 0}"
        f",avglat={stats.total_latency // count if count else 0}"
        f",maxlat={stats.max_latency}"
    )


def _crst(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    for each in server.cnxns:
        each.stats.reset()
    return "Connection stats reset.\n"


# ---------------------------------------------------------------------- sessions


def date_text(wall_ms: int) -> str:
    """A time as Java's Date prints it, in UTC whatever the time zone of the machine."""
    time = datetime.fromtimestamp(wall_ms // 1000, UTC)
    day, month = _DAYS.split()[time.weekday()], _MONTHS.split()[time.month - 1]
    return f"{day} {month} {time.day:02d} {time:%H:%M:%S} UTC {time.year}"


def _dump(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    return (
        "SessionTracker dump:\n"
        + (server.role.sessions_text() or session_sets(server, server.tracker, "Session Sets"))
        + "ephemeral nodes dump:\n"
        + _ephemerals(server)
        + "Connections dump:\n"
        + _connections(server)
    )


def _bucket(server: ZooKeeperServer, expiry_ms: int, lines: list[str]) -> str:
    date = date_text(server.wall_ms + expiry_ms - server.now_ms)
    return f"{len(lines)} expire at {date}:\n" + "".join(f"\t{line}\n" for line in lines)


def session_sets(server: ZooKeeperServer, tracker: Sessions, name: str) -> str:
    """Sessions by the time at which they expire."""
    buckets = tracker.expiry_map()
    count = sum(len(sessions) for _, sessions in buckets)
    text = f"{name} ({len(buckets)})/({count}):\n"
    for expiry_ms, sessions in buckets:
        lines = [f"0x{session_id & _MASK64:x}" for session_id in sessions]
        text += _bucket(server, expiry_ms, lines)
    return text


def _ephemerals(server: ZooKeeperServer) -> str:
    ephemerals = server.tree.ephemerals
    parts = [f"Sessions with Ephemerals ({len(ephemerals)}):\n"]
    for session_id, paths in ephemerals.items():
        parts.append(f"0x{session_id & _MASK64:x}:\n")
        parts += [f"\t{path}\n" for path in paths]
    return "".join(parts)


def _connections(server: ZooKeeperServer) -> str:
    """A connection expires with its session, or when it has none for too long."""
    expiries = {
        session_id: expiry_ms
        for expiry_ms, sessions in server.tracker.expiry_map()
        for session_id in sessions
    }
    buckets: dict[int, list[str]] = {}
    for cnxn in server.cnxns:
        expiry_ms = server.sessionless.expiry_of.get(cnxn, server.now_ms)
        line = f"ip: {peer_name(cnxn)} sessionId: 0x{cnxn.session_id & _MASK64:x}"
        buckets.setdefault(expiries.get(cnxn.session_id, expiry_ms), []).append(line)
    text = f"Connections Sets ({len(buckets)})/({len(server.cnxns)}):\n"
    return text + "".join(_bucket(server, *bucket) for bucket in sorted(buckets.items()))


# ---------------------------------------------------------------------- watches


def _wchs(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    watches = server.tree.data_watches
    return (
        f"{len(watches.by_watcher)} connections watching {len(watches.by_path)} paths\n"
        f"Total watches:{watches.size}\n"
    )


def _wchc(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    parts: list[str] = []
    for watcher, paths in server.tree.data_watches.by_watcher.items():
        parts += _session_ids("", [watcher])
        parts += [f"\t{path}\n" for path in paths]
    return "".join(parts) + "\n"


def _wchp(server: ZooKeeperServer, cnxn: ServerCnxn) -> str:
    parts: list[str] = []
    for path, watchers in server.tree.data_watches.by_path.items():
        parts.append(f"{path}\n")
        parts += _session_ids("\t", watchers)
    return "".join(parts) + "\n"


def _session_ids(indent: str, watchers: Iterable[Watcher]) -> list[str]:
    return [
        f"{indent}0x{watcher.session_id & _MASK64:x}\n"
        for watcher in watchers
        if isinstance(watcher, ServerCnxn)
    ]


_TEXTS: Final[dict[str, Callable[[ZooKeeperServer, ServerCnxn], str]]] = {
    "conf": _conf,
    "cons": _cons,
    "crst": _crst,
    "dirs": _dirs,
    "dump": _dump,
    "hash": _hash,
    "mntr": _mntr,
    "srst": _srst,
    "srvr": _srvr,
    "stat": _stat,
    "wchc": _wchc,
    "wchp": _wchp,
    "wchs": _wchs,
}
