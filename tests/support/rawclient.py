"""A synchronous ZooKeeper client on a bare socket, for tests that look at frames.

Owns: the socket, framing, the handshake and the order of arrival. Sends any bytes under any opcode,
right or wrong. Must not import zkpy (see wire.py).
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from . import wire
from .wire import Event, Reader

NO_PASSWORD = bytes(16)
SPECIAL_XIDS = {wire.PING: -2, wire.AUTH: -4, wire.SET_WATCHES: -8, wire.SET_WATCHES2: -8}


class Closed(Exception):
    """The server closed the connection (end of file or reset)."""


class Session(NamedTuple):
    """ConnectResponse. `read_only` is None when the byte was absent."""

    protocol_version: int
    timeout_ms: int
    session_id: int
    password: bytes
    read_only: bool | None


class Reply(NamedTuple):
    """A frame of the server after the handshake: ReplyHeader and the bytes behind it."""

    xid: int
    zxid: int
    err: int
    body: bytes

    @property
    def is_event(self) -> bool:
        return self.xid == -1

    def event(self) -> Event:
        reader = Reader(self.body)
        event = Event(reader.int32(), reader.int32(), reader.string(), self.zxid)
        reader.end()
        return event

    def value(self, op: int) -> Any:
        """The decoded response record; the whole body must be used up."""
        assert self.err == 0, f"error {self.err} has no value"
        reader = Reader(self.body)
        value = wire.decode_body(op, reader)
        reader.end()
        return value


class RawClient:
    """One TCP connection. `received` holds every frame in order of arrival, events included."""

    def __init__(
        self,
        address: tuple[str, int],
        timeout_s: float = 10.0,
        connect: Callable[[tuple[str, int], float], socket.socket] = socket.create_connection,
    ) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self.socket = connect(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session: Session | None = None
        self.received: list[Reply] = []
        self.events: list[Event] = []
        self._pending = bytearray()
        self._xid = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # Bytes and frames

    def send_raw(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from None

    def send_frame(self, payload: bytes) -> None:
        self.send_raw(struct.pack(">i", len(payload)) + payload)

    def recv_frame(self, timeout_s: float | None = None) -> bytes:
        """The next payload. Raises Closed, or TimeoutError when nothing came in time."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        self._fill(4, deadline)
        (length,) = struct.unpack_from(">i", self._pending)
        self._fill(4 + length, deadline)
        payload = bytes(self._pending[4 : 4 + length])
        del self._pending[: 4 + length]
        return payload

    def _fill(self, size: int, deadline: float) -> None:
        while len(self._pending) < size:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"only {len(self._pending)} of {size} bytes in time")
            self.socket.settimeout(left_s)
            try:
                chunk = self.socket.recv(65536)
            except ConnectionResetError as error:
                raise Closed(str(error)) from None
            except TimeoutError:
                continue
            if not chunk:
                raise Closed(f"end of file, {len(self._pending)} bytes of a frame pending")
            self._pending += chunk

    def expect_close(self, timeout_s: float | None = None) -> None:
        """Fail unless the server closes now, without another byte."""
        try:
            payload = self.recv_frame(timeout_s)
        except Closed:
            assert not self._pending, f"closed after half a frame: {self._pending.hex()}"
            return
        except TimeoutError:
            raise AssertionError("the server left the connection open") from None
        raise AssertionError(f"a frame instead of a close: {payload.hex()}")

    def expect_silence(self, wait_s: float = 0.3) -> None:
        """Fail if a frame or a close arrives within `wait_s`."""
        try:
            payload = self.recv_frame(wait_s)
        except TimeoutError:
            return
        raise AssertionError(f"a frame instead of silence: {payload.hex()}")

    def read_to_end(self) -> bytes:
        """Everything up to end of file: for four letter words."""
        self.socket.settimeout(self.timeout_s)
        while chunk := self.socket.recv(65536):
            self._pending += chunk
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def close(self) -> None:
        """Drop the TCP connection; the session lives on."""
        self.socket.close()

    # Handshake

    def connect(
        self,
        session_id: int = 0,
        password: bytes | None = NO_PASSWORD,
        timeout_ms: int = 10_000,
        last_zxid_seen: int = 0,
        read_only: bool | None = False,
    ) -> Session:
        """Open or resume a session; `read_only=None` leaves the byte out."""
        self.send_connect(session_id, password, timeout_ms, last_zxid_seen, read_only)
        return self.recv_connect()

    def send_connect(
        self,
        session_id: int = 0,
        password: bytes | None = NO_PASSWORD,
        timeout_ms: int = 10_000,
        last_zxid_seen: int = 0,
        read_only: bool | None = False,
    ) -> None:
        payload = wire.int32(0) + wire.int64(last_zxid_seen) + wire.int32(timeout_ms)
        payload += wire.int64(session_id) + wire.buffer(password)
        if read_only is not None:
            payload += wire.boolean(read_only)
        self.send_frame(payload)

    def recv_connect(self) -> Session:
        reader = Reader(self.recv_frame())
        version, timeout_ms, session_id = reader.int32(), reader.int32(), reader.int64()
        password = reader.buffer()
        assert password is not None
        read_only = reader.boolean() if reader.left else None
        reader.end()
        self.session = Session(version, timeout_ms, session_id, password, read_only)
        return self.session

    # Requests

    def send(self, op: int, body: bytes = b"", xid: int | None = None) -> int:
        """Send without waiting; returns the xid, which by default is what clients use."""
        if xid is None:
            xid = SPECIAL_XIDS.get(op)
        if xid is None:
            self._xid += 1
            xid = self._xid
        self.send_frame(struct.pack(">ii", xid, op) + body)
        return xid

    def recv(self, timeout_s: float | None = None) -> Reply:
        """The next frame, be it a reply or an event."""
        payload = self.recv_frame(timeout_s)
        xid, zxid, err = struct.unpack_from(">iqi", payload)
        reply = Reply(xid, zxid, err, payload[16:])
        self.received.append(reply)
        if reply.is_event:
            self.events.append(reply.event())
        return reply

    def recv_reply(self, timeout_s: float | None = None) -> Reply:
        """The next reply; events before it go to `events`."""
        while True:
            reply = self.recv(timeout_s)
            if not reply.is_event:
                return reply

    def recv_event(self, timeout_s: float | None = None) -> Event:
        """The next frame, which has to be an event."""
        reply = self.recv(timeout_s)
        assert reply.is_event, f"a reply instead of an event: {reply}"
        return self.events[-1]

    def call(self, op: int, body: bytes = b"", xid: int | None = None) -> Reply:
        """Send and wait for the reply, which must carry the xid sent (-2 for a ping)."""
        xid = self.send(op, body, xid)
        reply = self.recv_reply()
        assert reply.xid == (-2 if op == wire.PING else xid), f"xid {reply.xid} answers {xid}"
        return reply

    def value(self, op: int, body: bytes = b"") -> Any:
        """The decoded response of a request that has to succeed."""
        return self.call(op, body).value(op)

    def end_session(self) -> None:
        """closeSession and close."""
        try:
            self.call(wire.CLOSE_SESSION)
        except Closed:
            pass
        self.close()


def open_session(address: tuple[str, int], timeout_ms: int = 10_000) -> RawClient:
    """A client with a new session."""
    client = RawClient(address)
    session = client.connect(timeout_ms=timeout_ms)
    assert session.session_id != 0
    return client


def four_letter_word(address: tuple[str, int], word: str, timeout_s: float = 5.0) -> str:
    """The answer to a four letter word; "" when the server just closes."""
    with RawClient(address, timeout_s) as client:
        client.send_raw(word.encode())
        return client.read_to_end().decode()


def zxid_now(client: RawClient) -> int:
    """The last zxid the client's server has applied."""
    return client.call(wire.SYNC, wire.string("/")).zxid


def make(client: RawClient, *paths: str, flags: int = 0) -> None:
    """Create nodes without data, open to all."""
    for path in paths:
        client.value(wire.CREATE, wire.create(path, flags=flags))


def digest_id(credential: str) -> str:
    """The id that the scheme digest makes of `user:password`."""
    user = credential.split(":")[0]
    return f"{user}:{base64.b64encode(hashlib.sha1(credential.encode()).digest()).decode()}"
