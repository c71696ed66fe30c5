"""Workload: clients of a simulated ensemble, speaking the client protocol's bytes.

Each keeps one session over any number of connections, to whichever member answers, and does what
client libraries do: pings, watches set again, another session when one has expired.
"""

from __future__ import annotations

import struct
from collections import deque

from zkpy.protocol import records as r
from zkpy.protocol.zoodefs import OpCode, Xid
from zkpy.testing import requests
from zkpy.testing.checker import CHILD, DATA, EXIST
from zkpy.testing.history import require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from zkpy.testing.checker import Checker, SessionView
    from zkpy.testing.cluster import Cluster
    from zkpy.testing.network import Address, End
    from zkpy.testing.requests import Request, RequestSource

NO_PASSWORD: Final = bytes(16)
CONNECT_TIMEOUT_MS: Final = 1000
RECONNECT_US: Final = 200_000
_REPLY: Final = struct.Struct(">iqi")


class Client:
    """One client. `left`: requests it still wants to make.

    `think_us`: how long it waits between, at most. `addresses`: the members it knows.
    `read_only`: it makes do with a member that has no leader.
    """

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        source: RequestSource,
        *,
        left: int,
        timeout_ms: int,
        addresses: list[Address],
        think_us: int = 400_000,
        read_only: bool = False,
    ) -> None:
        self.cluster = cluster
        self.number = number
        self.name = f"c{number}"
        self.source = source
        self.left = left
        self.timeout_ms = timeout_ms
        self.addresses = addresses
        self.think_us = think_us
        self.read_only = read_only
        self.rng = cluster.rng
        self.checker: Checker = cluster.checker
        self.session: SessionView | None = None
        self.password = NO_PASSWORD
        self.end: End | None = None
        self.established = False
        self.sent: deque[Request] = deque()
        self.done = 0
        self.lost_requests = 0
        # Says goodbye, or vanishes without a word, once there is nothing left to do.
        self.ending = ""
        self.gone = False
        self._xid = 0
        self._inbox = bytearray()
        self._attempt = 0
        self._heard_us = 0

    def __repr__(self) -> str:
        return self.name

    @property
    def idle(self) -> bool:
        """Whether it has nothing left to do, and waits for nothing."""
        return self.gone or (not self.left and not self.sent and self.established)

    # ------------------------------------------------------------------ the connection

    def start(self) -> None:
        """Begin, soon."""
        self._later(RECONNECT_US, self._connect, self._attempt)

    def _later(self, most_us: int, call: object, *args: object) -> None:
        delay_us = self.rng.randrange(1, most_us)
        self.cluster.scheduler.after(delay_us, call, *args)  # type: ignore[arg-type]

    def _connect(self, attempt: int) -> None:
        if self.gone or self.end is not None or attempt != self._attempt:
            return
        self._attempt += 1
        address = self.rng.choice(self.addresses)
        self.cluster.network.connect(
            self.name, address, CONNECT_TIMEOUT_MS, self._connected, self._connect_failed
        )

    def _connect_failed(self, _reason: str) -> None:
        self._later(RECONNECT_US, self._connect, self._attempt)

    def _connected(self, end: End) -> None:
        if self.gone:
            end.close()
            return
        self.end = end
        end.socket = self
        self.established = False
        self._inbox.clear()
        self._heard_us = self.cluster.scheduler.now_us
        view = self.session
        frame = requests.connect_frame(
            view.last_zxid if view else 0,
            self.timeout_ms,
            view.session_id if view else 0,
            self.password,
            self.read_only,
        )
        end.send(frame)
        if view is not None and (view.watches or view.persistent.watches):
            self._set_watches(view)
        self._watch_over(end)

    def _watch_over(self, end: End) -> None:
        """Ping when idle; hang up when nothing is heard for too long."""
        if end is not self.end:
            return
        silent_us = self.cluster.scheduler.now_us - self._heard_us
        timeout_us = 1000 * (self.session.timeout_ms if self.session else self.timeout_ms)
        if silent_us > timeout_us * 2 // 3:
            self._hang_up("silence")
            return
        if self.established:
            end.send(requests.PING_FRAME)
        self.cluster.scheduler.after(timeout_us // 3, self._watch_over, end)

    def _hang_up(self, reason: str) -> None:
        end, self.end = self.end, None
        if end is not None:
            end.close()
        self._down(reason)

    def _down(self, reason: str) -> None:
        self.cluster.trace(self, "disconnected: %s", reason)
        self.established = False
        self.lost_requests += len(self.sent)
        if any(request.op == OpCode.CLOSE_SESSION for request in self.sent):
            # A client does not ask for a session again that it has closed.
            self.session = None
            self.password = NO_PASSWORD
        self.sent.clear()
        self._attempt += 1
        self._later(RECONNECT_US, self._connect, self._attempt)

    # Socket

    def lost(self, end: End, reason: str) -> None:
        if end is self.end:
            self.end = None
            self._down(reason)

    def received(self, end: End, data: bytes) -> None:
        if end is not self.end:
            return
        self._heard_us = self.cluster.scheduler.now_us
        inbox = self._inbox
        inbox += data
        while len(inbox) >= 4 and end is self.end:
            length = int.from_bytes(inbox[:4], "big")
            if len(inbox) < 4 + length:
                break
            payload = bytes(inbox[4 : 4 + length])
            del inbox[: 4 + length]
            if self.established:
                self._frame(payload)
            else:
                self._session(payload)

    # ------------------------------------------------------------------ replies

    def _session(self, payload: bytes) -> None:
        response, _ = r.ConnectResponse.decode(payload)
        now_us = self.cluster.scheduler.now_us
        if response.sessionId == 0:
            self.cluster.trace(self, "session is refused")
            self.checker.refused(self.session)
            self.session = None
            self.password = NO_PASSWORD
            self.sent.clear()
            self._hang_up("expired")
            return
        new = self.session is None
        self.session = self.checker.connected(
            self.session, response.sessionId, response.timeOut, now_us
        )
        if new:
            self.cluster.count("session")
        else:
            self.cluster.count("resumed")
        self.password = response.passwd or b""
        self.established = True
        self.cluster.trace(
            self, "session %#x on %s", response.sessionId, self.end and self.end.peer_address[0]
        )
        self._later(self.think_us, self._act, self.end)

    def _frame(self, payload: bytes) -> None:
        xid, zxid, err = _REPLY.unpack_from(payload)
        view = self.session
        assert view is not None
        now_us = self.cluster.scheduler.now_us
        if xid == Xid.NOTIFICATION:
            event, _ = r.WatcherEvent.decode(payload[16:])
            assert event.path is not None
            self.checker.event(view, event.type, event.path, zxid, now_us)
            return
        if xid == Xid.PING:
            self.checker.pinged(view, zxid, now_us)
            return
        require(self.sent, "%s: a reply to nothing", self)
        request = self.sent.popleft()
        require(xid == request.xid, "%s: the reply to %s answers %s", self, xid, request)
        if xid == Xid.SET_WATCHES:
            self.checker.watches_set(view, request.version, zxid, now_us)
            return
        self.done += 1
        if request.op == OpCode.CLOSE_SESSION:
            self._closed(err)
            return
        self.checker.replied(view, request, zxid, err, payload[16:], now_us)

    def _closed(self, err: int) -> None:
        require(err == 0, "closeSession fails with %s", err)
        view = self.session
        assert view is not None
        self.checker.closed(view)
        self.session = None
        self.password = NO_PASSWORD
        if self.ending == "close":
            self._vanish()
        else:
            self._hang_up("closed")

    # ------------------------------------------------------------------ requests

    def _act(self, end: End | None) -> None:
        """What a client does next on this connection."""
        if end is None or end is not self.end or self.gone or not self.established:
            return
        rng = self.rng
        if not self.left:
            if self.ending and not self.sent:
                self._end()
            elif self.ending:
                self._later(self.think_us, self._act, end)
            return
        if rng.random() < 0.02:
            self._hang_up("on a whim")
            return
        if rng.random() < 0.01:
            self.send([requests.close_session()])
            return
        count = min(self.left, rng.choice((1, 1, 1, 2, 4)))
        if len(self.sent) < 20:
            self.left -= count
            self.send([self.source.request() for _ in range(count)])
        self._later(self.think_us, self._act, end)

    def _end(self) -> None:
        if self.ending == "close":
            self.send([requests.close_session()])
        else:
            self._vanish()

    def _vanish(self) -> None:
        self.gone = True
        self.session = None
        end, self.end = self.end, None
        if end is not None:
            end.close()

    def finish(self, ending: str = "") -> None:
        """Make no further requests; then close the session, vanish, or stay."""
        self.left = 0
        self.ending = ending
        if self.end is not None:
            self._later(self.think_us, self._act, self.end)

    def send(self, batch: list[Request]) -> None:
        """Send requests in one go."""
        end = self.end
        assert end is not None
        data = b""
        for request in batch:
            if request.xid != Xid.SET_WATCHES:
                self._xid += 1
                request.xid = self._xid
            self.checker.sent(request)
            self.sent.append(request)
            data += request.frame()
        end.send(data)

    def _set_watches(self, view: SessionView) -> None:
        lists: list[list[str]] = [[], [], [], [], []]
        for kind, path in view.watches:
            lists[(DATA, EXIST, CHILD).index(kind)].append(path)
        for path, recursive in view.persistent.watches:
            lists[4 if recursive else 3].append(path)
        self.send([requests.set_watches(view.last_zxid, *lists)])
