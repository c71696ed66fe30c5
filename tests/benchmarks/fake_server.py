"""A ZooKeeper of a hundred lines: sessions, a flat map of paths, data watches. No durability.

It decodes every request in full and counts them, so that a load generator that sends frames encoded
beforehand is held to what it says it sent.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections import Counter
from types import TracebackType

CREATE, DELETE, GET_DATA, SET_DATA, SYNC, PING, MULTI, CLOSE = 1, 2, 4, 5, 9, 11, 14, -11
NODE_EXISTS, NO_NODE = -110, -101
STAT = bytes(68)
DATA_CHANGED, CONNECTED = 3, 3


class Body:
    """Reads the fields of one request in their order; at the end nothing may be left."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.offset = 0

    def take(self, layout: str) -> int:
        (value,) = struct.unpack_from(">" + layout, self.frame, self.offset)
        self.offset += struct.calcsize(">" + layout)
        return int(value)

    def buffer(self) -> bytes:
        length = self.take("i")
        self.offset += length
        assert self.offset <= len(self.frame)
        return self.frame[self.offset - length : self.offset]

    def string(self) -> str:
        return self.buffer().decode()

    def end(self) -> None:
        assert self.offset == len(self.frame), "bytes left over"


class FakeServer:
    """Answers on a free port of loopback from a thread of its own, as a context manager."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.nodes: dict[str, bytes] = {"/": b""}
        self.most_nodes = 1
        self.requests: Counter[int] = Counter()
        self.sessions = 0
        self.failure: BaseException | None = None
        self.failing_reads = False  # answer each getData with an error
        self.watchers: dict[str, list[socket.socket]] = {}
        self.pending: dict[socket.socket, bytes] = {}
        self.new: set[socket.socket] = set()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.stopping = False
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self) -> FakeServer:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping = True
        self.thread.join()
        for connection in [self.listener, *self.pending]:
            connection.close()
        self.selector.close()
        if self.failure is not None:
            raise self.failure

    def serve(self) -> None:
        try:
            while not self.stopping:
                for key, _ in self.selector.select(0.02):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    if connection is self.listener:
                        self.accept()
                    else:
                        self.read(connection)
        except BaseException as error:
            self.failure = error
            for connection in list(self.pending):
                connection.close()

    def accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(connection, selectors.EVENT_READ)
        self.pending[connection] = b""
        self.new.add(connection)

    def drop(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        del self.pending[connection]
        connection.close()

    def read(self, connection: socket.socket) -> None:
        try:
            received = connection.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            self.drop(connection)
            return
        buffered = self.pending[connection] + received
        replies = b""
        while len(buffered) >= 4:
            (length,) = struct.unpack_from(">i", buffered)
            if len(buffered) < 4 + length:
                break
            reply = self.answer(connection, Body(buffered[4 : 4 + length]))
            replies += struct.pack(">i", len(reply)) + reply
            buffered = buffered[4 + length :]
        self.pending[connection] = buffered
        connection.sendall(replies)

    def answer(self, connection: socket.socket, body: Body) -> bytes:
        if connection in self.new:
            return self.open_session(connection, body)
        xid, opcode = body.take("i"), body.take("i")
        self.requests[opcode] += 1
        error, record = 0, b""
        if opcode == MULTI:
            record = self.multi(body)
        elif opcode not in (PING, CLOSE):
            error, record = self.apply(connection, opcode, body)
        body.end()
        return struct.pack(">iqi", xid, 0, error) + (b"" if error else record)

    def open_session(self, connection: socket.socket, body: Body) -> bytes:
        self.new.remove(connection)
        self.sessions += 1
        assert (body.take("i"), body.take("q")) == (0, 0)
        timeout_ms, session = body.take("i"), body.take("q")
        assert (session, body.buffer(), body.take("b")) == (0, bytes(16), 0)
        body.end()
        return struct.pack(">iiqi16sb", 0, timeout_ms, self.sessions, 16, bytes(16), 0)

    def apply(self, connection: socket.socket, opcode: int, body: Body) -> tuple[int, bytes]:
        path = body.string()
        if opcode == CREATE:
            data = body.buffer()
            acl = [(body.take("i"), body.string(), body.string()) for _ in range(body.take("i"))]
            assert (acl, body.take("i")) == ([(31, "world", "anyone")], 0)
            return self.create(path, data)
        if opcode == GET_DATA:
            if body.take("b"):
                self.watchers.setdefault(path, []).append(connection)
            if path not in self.nodes or self.failing_reads:
                return NO_NODE, b""
            return 0, struct.pack(">i", len(self.nodes[path])) + self.nodes[path] + STAT
        if opcode == SET_DATA:
            data = body.buffer()
            assert body.take("i") == -1
            if path not in self.nodes:
                return NO_NODE, b""
            self.nodes[path] = data
            self.notify(path)
            return 0, STAT
        if opcode == SYNC:
            return 0, struct.pack(">i", len(path)) + path.encode()
        assert (opcode, body.take("i")) == (DELETE, -1)
        assert not any(other.startswith(path + "/") for other in self.nodes), "not empty"
        return (0, b"") if self.nodes.pop(path, None) is not None else (NO_NODE, b"")

    def create(self, path: str, data: bytes) -> tuple[int, bytes]:
        if path in self.nodes:
            return NODE_EXISTS, b""
        assert (path.rpartition("/")[0] or "/") in self.nodes, f"{path} has no parent"
        self.nodes[path] = data
        self.most_nodes = max(self.most_nodes, len(self.nodes))
        return 0, struct.pack(">i", len(path)) + path.encode()

    def notify(self, path: str) -> None:
        event = struct.pack(">iqiiii", -1, -1, 0, DATA_CHANGED, CONNECTED, len(path))
        event += path.encode()
        for watcher in self.watchers.pop(path, []):
            watcher.sendall(struct.pack(">i", len(event)) + event)

    def multi(self, body: Body) -> bytes:
        results = b""
        while True:
            opcode, done, error = body.take("i"), body.take("b"), body.take("i")
            assert error == -1
            if done:
                assert opcode == -1
                return results + struct.pack(">ibi", -1, 1, -1)
            assert opcode == SET_DATA
            path, data = body.string(), body.buffer()
            assert body.take("i") == -1
            self.nodes[path] = data
            results += struct.pack(">ibi", SET_DATA, 0, 0) + STAT
