"""Bytes between members, written down a second time and on purpose, and the captured streams.

Owns: a slow, plain encoder and reader of QuorumPackets, notifications and QuorumAuthPackets, and
access to tests/golden/wire. Must not import zkpy: a mistake in its codec has to show up as a
difference here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

GOLDEN_WIRE = Path(__file__).parents[1] / "golden" / "wire"

(REQUEST, PROPOSAL, ACK, COMMIT, PING, REVALIDATE, SYNC, INFORM, COMMITANDACTIVATE) = range(1, 10)
(NEWLEADER, FOLLOWERINFO, UPTODATE, DIFF, TRUNC, SNAP, OBSERVERINFO) = range(10, 17)
(LEADERINFO, ACKEPOCH, INFORMANDACTIVATE) = range(17, 20)

AUTH_MAGIC = bytes.fromhex("5f2435013501edcc")
IN_PROGRESS, SUCCESS = 0, 1

Id = tuple[str, str]
Packet = tuple[int, int, "bytes | None", "tuple[Id, ...] | None"]


def int32(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


def int64(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def buffer(value: bytes | None) -> bytes:
    return int32(-1) if value is None else int32(len(value)) + value


def packet(
    type: int, zxid: int, data: bytes | None = None, authinfo: tuple[Id, ...] | None = None
) -> bytes:
    """A QuorumPacket."""
    out = int32(type) + int64(zxid) + buffer(data)
    if authinfo is None:
        return out + int32(-1)
    out += int32(len(authinfo))
    for scheme, id in authinfo:
        out += buffer(scheme.encode()) + buffer(id.encode())
    return out


def learner_info(sid: int, version: int = 0x10000, config_version: int = 0) -> bytes:
    return int64(sid) + int32(version) + int64(config_version)


def initial_message(sid: int, addresses: str, version: int = -65536) -> bytes:
    text = addresses.encode()
    return int64(version) + int64(sid) + int32(len(text)) + text


def notification(
    state: int, leader: int, zxid: int, round: int, epoch: int, config: bytes = b""
) -> bytes:
    """The payload of version 2."""
    vote = int32(state) + int64(leader) + int64(zxid) + int64(round) + int64(epoch)
    return vote + int32(2) + buffer(config)


class Cursor:
    """Reads forward; an IndexError says that the bytes are used up."""

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    @property
    def at_end(self) -> bool:
        return self.offset == len(self.data)

    @property
    def rest(self) -> bytes:
        return self.data[self.offset :]

    def take(self, size: int) -> bytes:
        if self.offset + size > len(self.data):
            raise IndexError(f"{size} bytes at {self.offset} of {len(self.data)}")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big", signed=True)

    def buffer(self) -> bytes | None:
        length = self.integer(4)
        return None if length == -1 else self.take(length)

    def text(self) -> str:
        data = self.buffer()
        assert data is not None
        return data.decode()

    def packet(self) -> Packet:
        type, zxid, data, count = self.integer(4), self.integer(8), self.buffer(), self.integer(4)
        if count == -1:
            return type, zxid, data, None
        return type, zxid, data, tuple((self.text(), self.text()) for _ in range(count))

    def auth_packets(self) -> list[tuple[int, bytes]]:
        """The QuorumAuthPackets (status, token) that are next, if any."""
        found = []
        while self.data.startswith(AUTH_MAGIC, self.offset):
            self.offset += len(AUTH_MAGIC)
            status, token = self.integer(4), self.buffer()
            assert token is not None
            found.append((status, token))
        return found


def encode_auth(packets: list[tuple[int, bytes]]) -> bytes:
    return b"".join(AUTH_MAGIC + int32(status) + buffer(token) for status, token in packets)


class Capture(NamedTuple):
    """One captured connection. `events`: (time in s, direction, kind, offset, length), in order."""

    scenario: str
    name: str
    kind: str
    server: str
    dialled: bytes
    accepted: bytes
    events: list[tuple[float, str, str, int, int]]

    @property
    def id(self) -> str:
        return f"{self.scenario}/{self.name}"

    def __repr__(self) -> str:
        return f"capture({self.scenario!r}, {self.name!r})"

    def segments(self, direction: str) -> list[bytes]:
        """The bytes of "c2s" or "s2c" as TCP brought them."""
        stream = self.dialled if direction == "c2s" else self.accepted
        return [
            stream[offset : offset + length]
            for _, which, kind, offset, length in self.events
            if which == direction and kind == "DATA"
        ]


def capture(scenario: str, name: str) -> Capture:
    """One connection, by its names."""
    return next(found for found in captures(scenario) if found.name == name)


def captures(scenario: str = "*") -> list[Capture]:
    """Every captured connection, or those of one scenario."""
    found = []
    for index in sorted(GOLDEN_WIRE.glob(f"{scenario}/index.json")):
        for entry in json.loads(index.read_text()):
            stem = index.parent / entry["name"]
            events = [tuple(event) for event in entry["events"]]
            found.append(
                Capture(
                    index.parent.name,
                    entry["name"],
                    entry["kind"],
                    entry["server"],
                    stem.with_suffix(".c2s").read_bytes(),
                    stem.with_suffix(".s2c").read_bytes(),
                    events,
                )
            )
    return found
