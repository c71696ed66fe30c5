"""The few client calls the harness needs itself, blocking and one at a time.

Everything that is measured for its rate goes through the load generator; this is for "is it up",
for the first read after a start, and for removing what a benchmark left on a server.
"""

from __future__ import annotations

import socket
import struct
import time

Address = tuple[str, int]

ANSWER_LIMIT_S = 60.0
# A server that is loading may accept a connection and then forget it: Apache's can, when a request
# for a session comes before its database is there. So an attempt is given up early and made again.
ATTEMPT_LIMIT_S = 0.25

CREATE, DELETE, GET_DATA, SET_DATA, GET_CHILDREN, CLOSE = 1, 2, 4, 5, 8, -11
NO_NODE, NODE_EXISTS = -101, -110


class ServerError(Exception):
    """The server answered with an error, closed the connection, or did not answer in time."""


class Session:
    """One session over one connection."""

    def __init__(self, address: Address, timeout_s: float = ANSWER_LIMIT_S) -> None:
        self.socket = socket.create_connection(address, timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.xid = 0
        try:
            self._open()
        except BaseException:
            self.socket.close()
            raise
        self.socket.settimeout(ANSWER_LIMIT_S)

    def _open(self) -> None:
        # protocolVersion, lastZxidSeen, timeOut in ms, sessionId, passwd, readOnly
        self._send(struct.pack(">iqiqi16sb", 0, 0, 30000, 0, 16, bytes(16), 0))
        _, granted_ms = struct.unpack_from(">ii", self._receive())
        if granted_ms <= 0:
            raise ServerError("the server refused a session")

    def _send(self, frame: bytes) -> None:
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)

    def _receive_exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            chunk = self.socket.recv(size - len(received))
            if not chunk:
                raise ServerError("the server closed the connection")
            received += chunk
        return bytes(received)

    def _receive(self) -> bytes:
        (length,) = struct.unpack(">i", self._receive_exactly(4))
        return self._receive_exactly(length)

    def call(self, opcode: int, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request; returns the error of its reply and what follows the reply header."""
        self.xid += 1
        self._send(struct.pack(">ii", self.xid, opcode) + body)
        frame = self._receive()
        xid, _, error = struct.unpack_from(">iqi", frame)
        if xid != self.xid:
            raise ServerError(f"reply to xid {xid}, expected {self.xid}")
        return error, frame[16:]

    def get_data(self, path: str) -> int:
        """Read a znode; returns the error code, 0 for none."""
        return self.call(GET_DATA, _string(path) + b"\0")[0]

    def create(self, path: str) -> None:
        """Make a znode, open to all; it may be there. Raises ServerError."""
        acl = struct.pack(">ii", 1, 31) + _string("world") + _string("anyone")
        error, _ = self.call(CREATE, _string(path) + _string("") + acl + struct.pack(">i", 0))
        if error not in (0, NODE_EXISTS):
            raise ServerError(f"error {error} creating {path}")

    def set_data(self, path: str, data: bytes) -> None:
        """Raises ServerError."""
        body = _string(path) + struct.pack(">i", len(data)) + data + struct.pack(">i", -1)
        error, _ = self.call(SET_DATA, body)
        if error:
            raise ServerError(f"error {error} setting {path}")

    def delete_tree(self, path: str) -> None:
        """Remove a znode and all below it; it need not be there. Raises ServerError."""
        error, body = self.call(GET_CHILDREN, _string(path) + b"\0")
        if error == NO_NODE:
            return
        if error:
            raise ServerError(f"error {error} listing {path}")
        for name in _strings(body):
            self.delete_tree(f"{path}/{name}")
        error, _ = self.call(DELETE, _string(path) + struct.pack(">i", -1))
        if error not in (0, NO_NODE):
            raise ServerError(f"error {error} deleting {path}")

    def close(self) -> None:
        """End the session, so that the server does not have to expire it later."""
        try:
            self.call(CLOSE)
        except (OSError, ServerError):
            pass
        self.socket.close()


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">i", len(encoded)) + encoded


def _strings(body: bytes) -> list[str]:
    (count,) = struct.unpack_from(">i", body)
    names, offset = [], 4
    for _ in range(count):
        (length,) = struct.unpack_from(">i", body, offset)
        names.append(body[offset + 4 : offset + 4 + length].decode())
        offset += 4 + length
    return names


def first_session(address: Address, deadline: float) -> Session | None:
    """Connect again and again until a session is there; None when `deadline` (monotonic) passes.

    A refused connection costs about 30 µs, so trying every millisecond takes no CPU worth naming
    from the server that is starting.
    """
    while time.monotonic() < deadline:
        try:
            return Session(address, ATTEMPT_LIMIT_S)
        except (OSError, ServerError):
            time.sleep(0.001)
    return None


def four_letter_word(address: Address, word: str) -> str:
    """The answer to a four letter word, or "" where it is not allowed."""
    try:
        with socket.create_connection(address, 10) as connection:
            connection.sendall(word.encode())
            answer = bytearray()
            while chunk := connection.recv(65536):
                answer += chunk
    except OSError:
        return ""
    return answer.decode(errors="replace")


def server_version(address: Address) -> str:
    """What the server calls its version, without the build's date and hash."""
    for line in four_letter_word(address, "srvr").splitlines():
        if line.lower().startswith("zookeeper version:"):
            return line.split(":", 1)[1].split(",")[0].strip().split("-")[0]
    return "unknown"
