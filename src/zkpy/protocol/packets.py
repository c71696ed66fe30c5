"""What members say to each other: QuorumPacket (peer port) and notifications (election port).

Owns bytes <-> values, and lengths that must not be believed. It must not know what a packet means:
who may send it and when is the business of quorum/.
Source: QuorumPacket and LearnerInfo in zookeeper.jute, Leader, LearnerHandler, QuorumCnxManager and
FastLeaderElection, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from typing import Final

from zkpy.protocol.errors import DecodeError, ProtocolError
from zkpy.protocol.framing import frame as frame
from zkpy.protocol.jute import encode_text
from zkpy.protocol.zxid import epoch_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Types of QuorumPacket.
REQUEST: Final = 1
PROPOSAL: Final = 2
ACK: Final = 3
COMMIT: Final = 4
PING: Final = 5
REVALIDATE: Final = 6
SYNC: Final = 7
INFORM: Final = 8
COMMITANDACTIVATE: Final = 9
NEWLEADER: Final = 10
FOLLOWERINFO: Final = 11
UPTODATE: Final = 12
DIFF: Final = 13
TRUNC: Final = 14
SNAP: Final = 15
OBSERVERINFO: Final = 16
LEADERINFO: Final = 17
ACKEPOCH: Final = 18
INFORMANDACTIVATE: Final = 19

PACKET_NAMES: Final = {
    REQUEST: "REQUEST",
    PROPOSAL: "PROPOSAL",
    ACK: "ACK",
    COMMIT: "COMMIT",
    PING: "PING",
    REVALIDATE: "REVALIDATE",
    SYNC: "SYNC",
    INFORM: "INFORM",
    COMMITANDACTIVATE: "COMMITANDACTIVATE",
    NEWLEADER: "NEWLEADER",
    FOLLOWERINFO: "FOLLOWERINFO",
    UPTODATE: "UPTODATE",
    DIFF: "DIFF",
    TRUNC: "TRUNC",
    SNAP: "SNAP",
    OBSERVERINFO: "OBSERVERINFO",
    LEADERINFO: "LEADERINFO",
    ACKEPOCH: "ACKEPOCH",
    INFORMANDACTIVATE: "INFORMANDACTIVATE",
}

# type, zxid, data, authinfo: pairs of scheme and id
AuthInfo = tuple[tuple[str, str], ...]
Packet = tuple[int, int, "bytes | None", "AuthInfo | None"]

# jute.maxbuffer and as much again, ZooKeeper's defaults.
DEFAULT_LIMIT_BYTES: Final = 2 * 0xFFFFF

_NULL: Final = b"\xff\xff\xff\xff"
_INT: Final = struct.Struct(">i")
_LONG: Final = struct.Struct(">q")
# type, zxid, length of data; and with it the count of authinfo, which no packet lacks
_pack_head = struct.Struct(">iqi").pack
_BARE: Final = struct.Struct(">iqii")
_pack_bare = _BARE.pack
_unpack_bare = _BARE.unpack_from
_HEAD_BYTES: Final = 16
_BARE_BYTES: Final = 20


# ---------------------------------------------------------------------- QuorumPacket


def encode_packet(
    type: int,
    zxid: int,
    data: bytes | None = None,
    authinfo: Sequence[tuple[str, str]] | None = None,
) -> bytes:
    """Return the bytes of a QuorumPacket; there is no length around it."""
    if authinfo is None:
        if data is None:
            return _pack_bare(type, zxid, -1, -1)
        return _pack_head(type, zxid, len(data)) + data + _NULL
    length = -1 if data is None else len(data)
    return _pack_head(type, zxid, length) + (data or b"") + encode_authinfo(authinfo)


def encode_authinfo(authinfo: Sequence[tuple[str, str]] | None) -> bytes:
    """The end of a QuorumPacket."""
    if authinfo is None:
        return _NULL
    out = [_INT.pack(len(authinfo))]
    for pair in authinfo:
        for text in pair:
            encoded = encode_text(text)
            out.append(_INT.pack(len(encoded)))
            out.append(encoded)
    return b"".join(out)


class PacketReader:
    """Cuts a stream into packets, in chunks of whatever length.

    `limit` bounds, in bytes, the data of a packet and its authinfo: what a packet announces is
    checked before anything of it is kept, so that nobody makes us hold more.
    `raw`: a SNAP packet has come, and everything behind it is kept for `take_rest`.
    """

    __slots__ = ("_authinfo", "_chunks", "_encoded_authinfo", "_needed", "_size", "limit", "raw")

    def __init__(self, limit: int = DEFAULT_LIMIT_BYTES) -> None:
        self.limit = limit
        self.raw = False
        # The beginning of a packet, unjoined: its size, and that from which on it is looked at.
        self._chunks: list[bytes] = []
        self._size = 0
        self._needed = _BARE_BYTES
        # The last one that was not null: most requests of a learner are for clients of one kind.
        self._authinfo: AuthInfo = ()
        self._encoded_authinfo = encode_authinfo(())

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets which `data` completes, up to a SNAP.

        Raises ProtocolError on a length that cannot be, and on what begins like no packet, as
        soon as that can be seen (types have one byte, of four): the stream is of no use then.
        """
        chunks = self._chunks
        end = self._size + len(data)
        if end < self._needed or self.raw:
            if data and data[0] and not self._size and not self.raw:
                raise ProtocolError(f"no packet begins with {data[:8].hex()}")
            chunks.append(data)
            self._size = end
            return []
        if chunks:
            chunks.append(data)
            data = b"".join(chunks)
            chunks.clear()
        packets: list[Packet] = []
        append = packets.append
        limit = self.limit
        needed = _BARE_BYTES
        start = 0
        while start + _BARE_BYTES <= end:
            type, zxid, length, more = _unpack_bare(data, start)
            if type >> 8:
                raise ProtocolError(f"no packet begins with {data[start : start + 8].hex()}")
            if length == -1:
                if more == -1:
                    append((type, zxid, None, None))
                    start += _BARE_BYTES
                    if type == SNAP:
                        self.raw = True
                        break
                    continue
                content = None
                next = start + _HEAD_BYTES
            elif 0 <= length <= limit:
                next = start + _HEAD_BYTES + length
                if next + 4 > end:
                    needed = next + 4 - start
                    break
                content = data[start + _HEAD_BYTES : next]
            else:
                raise ProtocolError(f"packet of type {type} with {length} bytes, limit {limit}")
            if data[next : next + 4] == _NULL:
                authinfo = None
                next += 4
            elif data.startswith(self._encoded_authinfo, next):
                authinfo = self._authinfo
                next += len(self._encoded_authinfo)
            else:
                begin = next
                authinfo, next = _read_authinfo(data, next, limit)
                if authinfo is None:
                    needed = next - start
                    break
                self._authinfo = authinfo
                self._encoded_authinfo = data[begin:next]
            append((type, zxid, content, authinfo))
            start = next
            if type == SNAP:
                self.raw = True
                break
        self._needed = needed
        self._size = end - start
        if start < end:
            if data[start] and not self.raw:
                raise ProtocolError(f"no packet begins with {data[start : start + 8].hex()}")
            chunks.append(data[start:])
        return packets

    def take_rest(self) -> bytes:
        """Return the bytes that are behind the last packet, and start anew with the next chunk."""
        rest = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._needed = _BARE_BYTES
        self.raw = False
        return rest


def _read_authinfo(data: bytes, offset: int, limit: int) -> tuple[AuthInfo | None, int]:
    """Return (pairs, offset behind), or (None, an offset not there yet). Raises ProtocolError."""
    (count,) = _INT.unpack_from(data, offset)
    if not 0 <= count * 8 <= limit:
        raise ProtocolError(f"packet with {count} ids")
    most = offset + limit
    offset += 4
    texts = []
    for _ in range(2 * count):
        if offset + 4 > len(data):
            return None, offset + 4
        (length,) = _INT.unpack_from(data, offset)
        offset += 4
        if not 0 <= length <= most - offset:
            raise ProtocolError(f"id of {length} bytes, limit {limit}")
        if offset + length > len(data):
            return None, offset + length
        texts.append(data[offset : offset + length].decode("utf-8", "replace"))
        offset += length
    return tuple(zip(texts[::2], texts[1::2], strict=True)), offset


# ---------------------------------------------------------------------- what packets carry


class LearnerInfo:
    """Who a learner is: data of FOLLOWERINFO and OBSERVERINFO.

    `server_id` is -1 where the learner has not said it. `config_version` is the zxid of the
    configuration the learner has committed.
    """

    __slots__ = ("config_version", "protocol_version", "server_id")

    def __init__(
        self, server_id: int, protocol_version: int = 0x10000, config_version: int = 0
    ) -> None:
        self.server_id = server_id
        self.protocol_version = protocol_version
        self.config_version = config_version

    def encode(self) -> bytes:
        """Return the 20 bytes."""
        return _LEARNER_INFO.pack(self.server_id, self.protocol_version, self.config_version)

    @classmethod
    def decode(cls, data: bytes | None) -> LearnerInfo:
        """Learners older than 3.4.6 and 3.5 leave out the last fields. Raises DecodeError."""
        if data is None:
            return cls(-1, 1, 0)
        if len(data) == 20:
            return cls(*_LEARNER_INFO.unpack(data))
        if len(data) == 12:
            return cls(*_SESSION.unpack(data))
        if len(data) == 8:
            return cls(_LONG.unpack(data)[0], 1, 0)
        raise DecodeError(f"LearnerInfo of {len(data)} bytes")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LearnerInfo) and self.encode() == other.encode()

    def __hash__(self) -> int:
        return hash(self.server_id)

    def __repr__(self) -> str:
        return (
            f"LearnerInfo({self.server_id}, {self.protocol_version:#x}, {self.config_version:#x})"
        )


_LEARNER_INFO: Final = struct.Struct(">qiq")
_SESSION: Final = struct.Struct(">qi")  # session id, timeout in ms
_VALID: Final = struct.Struct(">q?")
_REQUEST: Final = struct.Struct(">qii")
_pack_request = _REQUEST.pack
_pack_request_head = struct.Struct(">iqiqii").pack
_unpack_request = _REQUEST.unpack_from


def encode_request_packet(
    session_id: int, cxid: int, op: int, payload: bytes, authinfo: bytes
) -> bytes:
    """A whole REQUEST packet; `authinfo` is what `encode_authinfo` made."""
    length = 16 + len(payload)
    return _pack_request_head(REQUEST, -1, length, session_id, cxid, op) + payload + authinfo


def encode_request(session_id: int, cxid: int, op: int, payload: bytes) -> bytes:
    """Data of REQUEST; `payload` is the client's request without its header."""
    return _pack_request(session_id, cxid, op) + payload


def decode_request(data: bytes | None) -> tuple[int, int, int, bytes]:
    """Return (session id, cxid, op, payload). Raises DecodeError."""
    if data is None or len(data) < 16:
        raise DecodeError(f"REQUEST of {_length(data)} bytes")
    session_id, cxid, op = _unpack_request(data)
    return session_id, cxid, op, data[16:]


def encode_touches(touches: Iterable[tuple[int, int]]) -> bytes:
    """Data of a learner's PING: (session id, timeout in ms) of those heard from; maybe empty."""
    pack = _SESSION.pack
    return b"".join([pack(session_id, timeout_ms) for session_id, timeout_ms in touches])


def decode_touches(data: bytes | None) -> list[tuple[int, int]]:
    """Return (session id, timeout in ms) of each. Raises DecodeError."""
    if not data:
        return []
    if len(data) % 12:
        raise DecodeError(f"PING of {len(data)} bytes")
    return list(_SESSION.iter_unpack(data))


def encode_revalidation(session_id: int, timeout_ms: int) -> bytes:
    """Data of a learner's REVALIDATE: is that session still there?"""
    return _SESSION.pack(session_id, timeout_ms)


def decode_revalidation(data: bytes | None) -> tuple[int, int]:
    """Return (session id, timeout in ms). Raises DecodeError."""
    if data is None or len(data) < 12:
        raise DecodeError(f"REVALIDATE of {_length(data)} bytes")
    session_id, timeout_ms = _SESSION.unpack_from(data)
    return session_id, timeout_ms


def encode_revalidated(session_id: int, valid: bool) -> bytes:
    """Data of the leader's REVALIDATE: whether the session is there."""
    return _VALID.pack(session_id, valid)


def decode_revalidated(data: bytes | None) -> tuple[int, bool]:
    """Return (session id, whether it is there). Raises DecodeError."""
    if data is None or len(data) < 9:
        raise DecodeError(f"REVALIDATE of {_length(data)} bytes")
    session_id, valid = _VALID.unpack_from(data)
    return session_id, valid


def _length(data: bytes | None) -> int:
    return -1 if data is None else len(data)


# ---------------------------------------------------------------------- election connections

# A longer frame ends the connection. Source: QuorumCnxManager.PACKETMAXSIZE.
MAX_NOTIFICATION_BYTES: Final = 524288
MAX_INITIAL_BYTES: Final = 2048
PROTOCOL_VERSION_V1: Final = -65536  # one address
PROTOCOL_VERSION_V2: Final = -65535  # several, with "|" between
_INITIAL: Final = struct.Struct(">qqi")
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", "0:0:0:0:0:0:0:0"})
# A host of more is in no configuration; it would go to log lines and to the resolver.
_HOST_CHARACTERS: Final = 255


def encode_initial(sid: int, addresses: Sequence[tuple[str, int]], multi_address: bool) -> bytes:
    """What the dialling side says first: who it is, and its election addresses (host, port).

    Only the first address goes out unless `multi_address`, for the sake of members before 3.6. To
    be sent in one piece: the reference reads it with a single read.
    """
    chosen = addresses if multi_address else addresses[:1]
    text = encode_text("|".join([_join(host, port) for host, port in chosen]))
    version = PROTOCOL_VERSION_V2 if multi_address else PROTOCOL_VERSION_V1
    return _INITIAL.pack(version, sid, len(text)) + text


def decode_initial(buffer: bytes) -> tuple[int, list[tuple[str, int]], int] | None:
    """Return (sid, election addresses, bytes consumed), or None if there are bytes missing.

    The addresses are empty if the peer has none that could be dialled, only wildcards, or is older
    than 3.5 and says nothing but its id. Raises ProtocolError.
    """
    if len(buffer) < 8:
        return None
    (version,) = _LONG.unpack_from(buffer)
    if version >= 0:
        return version, [], 8
    if version not in (PROTOCOL_VERSION_V1, PROTOCOL_VERSION_V2):
        raise ProtocolError(f"Got unrecognized protocol version {version}")
    if len(buffer) < _INITIAL.size:
        return None
    _, sid, length = _INITIAL.unpack_from(buffer)
    if not 0 < length <= MAX_INITIAL_BYTES:
        raise ProtocolError(f"Unreasonable buffer length: {length}")
    end = _INITIAL.size + length
    if len(buffer) < end:
        return None
    try:
        text = str(buffer[_INITIAL.size : end], "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("Badly formed address: not UTF-8") from None
    addresses = [_split(address) for address in text.split("|")]
    return sid, [address for address in addresses if address[0] not in _WILDCARDS], end


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(address: str) -> tuple[str, int]:
    """host:port or [IPv6]:port. Raises ProtocolError."""
    host, colon, digits = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or len(host) > _HOST_CHARACTERS or not host.isprintable():
        raise ProtocolError(f"Badly formed address: {address[:_HOST_CHARACTERS]!r}")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6 and int(digits) <= 0xFFFF):
        raise ProtocolError(f"Bad port number: {digits[:20]!r}")
    return host, int(digits)


class Notification:
    """A vote, as one member tells it to another.

    `state` is the sender's (ServerState; unchecked). `leader`, `zxid` and `peer_epoch` are the
    vote, `election_epoch` the sender's round, `config` the text of the configuration it has
    committed (None where it says nothing).
    """

    __slots__ = ("config", "election_epoch", "leader", "peer_epoch", "state", "version", "zxid")

    def __init__(
        self,
        state: int,
        leader: int,
        zxid: int,
        election_epoch: int,
        peer_epoch: int,
        version: int = 2,
        config: str | None = None,
    ) -> None:
        self.state = state
        self.leader = leader
        self.zxid = zxid
        self.election_epoch = election_epoch
        self.peer_epoch = peer_epoch
        self.version = version
        self.config = config

    def encode(self) -> bytes:
        """Return the payload, without the length in front."""
        vote = _VOTE.pack(
            self.state,
            self.leader,
            self.zxid,
            self.election_epoch,
            self.peer_epoch,
            self.version,
        )
        if self.version < 2:
            return vote
        text = encode_text(self.config or "")
        return vote + _INT.pack(len(text)) + text

    @classmethod
    def decode(cls, payload: bytes) -> Notification:
        """What the payload ends with tells which version wrote it; bytes behind are ignored.

        Raises DecodeError: ZOOKEEPER-3769, the message is to be ignored and nothing else.
        """
        size = len(payload)
        if size < 28:
            raise DecodeError(f"Got a short response: {size}")
        state, leader, zxid, election_epoch = _VOTE_28.unpack_from(payload)
        if size == 28:
            return cls(state, leader, zxid, election_epoch, epoch_of(zxid), 0)
        if size < 40:
            raise DecodeError(f"notification of {size} bytes")
        _, _, _, _, peer_epoch, version = _VOTE.unpack_from(payload)
        if size == 40:
            return cls(state, leader, zxid, election_epoch, peer_epoch, 0)
        config = None
        if version > 1:
            if size < 44:
                raise DecodeError(f"notification of {size} bytes")
            (length,) = _INT.unpack_from(payload, 40)
            if not 0 <= length <= size - 44:
                raise DecodeError(f"configuration of {length} bytes in {size}")
            config = payload[44 : 44 + length].decode("utf-8", "replace") or None
        return cls(state, leader, zxid, election_epoch, peer_epoch, version, config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notification) and self._fields() == other._fields()

    def _fields(self) -> tuple[object, ...]:
        return (
            self.state,
            self.leader,
            self.zxid,
            self.election_epoch,
            self.peer_epoch,
            self.version,
            self.config,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Notification(state={self.state}, leader={self.leader}, zxid={self.zxid:#x}, "
            f"round={self.election_epoch:#x}, peerEpoch={self.peer_epoch:#x}, "
            f"version={self.version:#x}, config={self.config!r})"
        )


_VOTE_28: Final = struct.Struct(">iqqq")
_VOTE: Final = struct.Struct(">iqqqqi")
