"""ClientCnxn: a session over changing connections, without sockets and clock.

Calls go in (`start`, `connected`, `received`, `lost`, `tick`, `submit`, `close`); out come bytes to
send (`take_output`), what to dial or hang up (`take_effects`), and, in one order, answers, events
and changes of state (`take_deliveries`). There is one connection at a time; the shell keeps quiet
about older ones.

- Requests are answered in the order of their submission. Those sent when a connection goes fail
  with ConnectionLoss; those not yet sent wait until all servers have been tried once.
- Only a server can say that a session has expired.
- An event stands in the deliveries before any answer that shows its cause, as it does on the wire.

Source: ClientCnxn, ZooKeeper 3.9. Times are milliseconds of any clock that never goes back.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

from zkpy.client.effects import (
    Delivery,
    Dial,
    Effect,
    HangUp,
    Notice,
    Probe,
    Removal,
    Request,
    StateChange,
)
from zkpy.client.errors import ConnectionLoss, error_of
from zkpy.client.events import (
    CONNECTED_STATES,
    FINAL_STATES,
    EventType,
    KeeperState,
    States,
    WatchedEvent,
    Watcher,
)
from zkpy.client.hosts import Address, HostProvider, format_address
from zkpy.client.paths import strip_chroot
from zkpy.client.watches import REACH, WatchManager
from zkpy.protocol.errors import (
    AuthFailed,
    DecodeError,
    KeeperError,
    NotReadOnly,
    NoWatcher,
    ProtocolError,
    SessionExpired,
)
from zkpy.protocol.framing import FrameSplitter, frame
from zkpy.protocol.records import (
    REPLY_HEADER,
    AuthPacket,
    ConnectRequest,
    ConnectResponse,
    WatcherEvent,
)
from zkpy.protocol.zoodefs import OpCode, Xid

_REQUEST = struct.Struct(">iii")  # length of what follows, xid, opcode
MAX_XID: Final = (1 << 31) - 1
NO_PASSWORD: Final = bytes(16)

# A reply may be far bigger than any request; but four letters of another protocol are no length.
REPLY_LIMIT_BYTES: Final = 64 * 1024 * 1024
# The clients of a server that has gone spread their arrival elsewhere over this time.
RECONNECT_SPREAD_MS: Final = 200
# When no server of the list could be reached; half of it to one and a half.
ROUND_DELAY_MS: Final = 1000
MAX_PING_INTERVAL_MS: Final = 10_000
MIN_PROBE_INTERVAL_MS: Final = 100
MAX_PROBE_INTERVAL_MS: Final = 60_000
NEVER: Final = 1 << 62


class ReadOnlyServer(ProtocolError):
    """A server that will not do, though it speaks the protocol."""


class ClientCnxn:
    """One session, from the first connection to its end."""

    def __init__(
        self,
        hosts: HostProvider,
        session_timeout_ms: int,
        rng: Random,
        *,
        chroot: str = "",
        auth: Sequence[tuple[str, bytes]] = (),
        read_only: bool = False,
        session: tuple[int, bytes] | None = None,
        reply_limit: int = REPLY_LIMIT_BYTES,
    ) -> None:
        self.hosts = hosts
        self.rng = rng
        self.chroot = chroot
        self.read_only = read_only
        self.requested_timeout_ms = session_timeout_ms
        self.reply_limit = reply_limit
        self.auth_info = list(auth)
        self.watches = WatchManager()

        self.state: str = States.NOT_CONNECTED
        self.session_id, self.password = session or (0, NO_PASSWORD)
        self.timeout_ms = session_timeout_ms
        self.last_zxid = 0
        # A session made by a read-only server is known to that one only.
        self.seen_rw_server = session is not None
        self.last_event_state: int = KeeperState.DISCONNECTED

        self.address: Address | None = None
        self.last_failure = ""
        self.failures = 0  # since there was a session on a connection
        self.closing: Request | None = None
        self.frames = FrameSplitter(reply_limit)
        self.last_xid = 0
        self.pending: deque[Request] = deque()  # sent
        self.pending_auth: deque[Request] = deque()  # sent; answered out of turn by some servers
        self.waiting: deque[Request] = deque()  # for a connection
        self.output: list[bytes] = []
        self.effects: list[Effect] = []
        self.deliveries: list[Delivery] = []

        self.dialing = False
        self.retry_ms = NEVER
        self.connect_deadline_ms = NEVER
        self.last_heard_ms = 0
        self.last_sent_ms = 0
        self.probe_interval_ms = MIN_PROBE_INTERVAL_MS
        self.next_probe_ms = NEVER
        self.rw_server: Address | None = None

    # What the shell takes

    def take_output(self) -> bytes:
        """The bytes to send, in order."""
        output, self.output = self.output, []
        return b"".join(output)

    def take_effects(self) -> list[Effect]:
        """What the shell is to do, in order."""
        effects, self.effects = self.effects, []
        return effects

    def take_deliveries(self) -> list[Delivery]:
        """What the application is to be told, in order."""
        deliveries, self.deliveries = self.deliveries, []
        return deliveries

    @property
    def ended(self) -> bool:
        """Whether there will be no session any more."""
        return self.state in FINAL_STATES

    @property
    def is_connected(self) -> bool:
        """Whether there is a session with a server, be it read-only."""
        return self.state in CONNECTED_STATES

    # Time

    def deadline(self) -> int:
        """When `tick` wants to be called next, unless something happens before; NEVER if not."""
        if not self.is_connected:
            return min(self.retry_ms, self.connect_deadline_ms)
        silence = self.last_heard_ms + self.timeout_ms * 2 // 3
        return min(silence, self.last_sent_ms + self._ping_interval_ms(), self.next_probe_ms)

    def tick(self, now_ms: int) -> None:
        """Do what is due: dial, ping, give up a silent connection."""
        if self.is_connected:
            if now_ms >= self.last_heard_ms + self.timeout_ms * 2 // 3:
                self._drop(f"no answer for {now_ms - self.last_heard_ms} ms", now_ms)
                return
            if now_ms >= self.last_sent_ms + self._ping_interval_ms():
                self.output.append(_REQUEST.pack(8, Xid.PING, OpCode.PING))
                self.last_sent_ms = now_ms
            if now_ms >= self.next_probe_ms:
                self.probe_interval_ms = min(2 * self.probe_interval_ms, MAX_PROBE_INTERVAL_MS)
                self.next_probe_ms = now_ms + self.probe_interval_ms
                # Not the one we are with: it hangs up when it is in a quorum again.
                others = (self.hosts.next() for _ in range(2))
                if other := next((each for each in others if each != self.address), None):
                    self.effects.append(Probe(other))
        elif now_ms >= self.retry_ms:
            self._dial(now_ms)
        elif now_ms >= self.connect_deadline_ms:
            self._drop(f"not connected within {self._connect_timeout_ms()} ms", now_ms)

    def _ping_interval_ms(self) -> int:
        return min(self.timeout_ms // 3, MAX_PING_INTERVAL_MS)

    def _connect_timeout_ms(self) -> int:
        # So that all servers can be tried before the session is over.
        return max(self.timeout_ms // len(self.hosts), 1)

    # Connections

    def start(self, now_ms: int) -> None:
        """Begin to connect."""
        assert self.state == States.NOT_CONNECTED, "started before"
        self._change_state(States.CONNECTING)
        self._dial(now_ms)

    def _dial(self, now_ms: int) -> None:
        self.address, self.rw_server = self.rw_server or self.hosts.next(), None
        self.retry_ms = NEVER
        self.connect_deadline_ms = now_ms + self._connect_timeout_ms()
        self.dialing = True
        self.effects.append(Dial(self.address))

    def connected(self, now_ms: int) -> None:
        """The connection that was dialled is there."""
        self.last_heard_ms = self.last_sent_ms = now_ms
        session_id = self.session_id if self.seen_rw_server else 0
        password = self.password if session_id else NO_PASSWORD
        timeout_ms = self.requested_timeout_ms
        request = ConnectRequest(0, self.last_zxid, timeout_ms, session_id, password).encode()
        self.output.append(frame(request + (b"\1" if self.read_only else b"\0")))

    def lost(self, reason: str, now_ms: int) -> None:
        """The connection was closed by the other side (no `reason`) or could not be opened."""
        if not reason:
            # What a server does that cannot serve yet, or speaks only TLS.
            reason = "closed without an answer" if self.dialing else "closed by the server"
        if self.address is not None and not self.ended:
            self._drop(reason, now_ms)

    def _drop(self, reason: str, now_ms: int) -> None:
        """This connection is over, whoever ended it."""
        assert self.address is not None
        self.last_failure = f"{format_address(self.address)}: {reason}"
        self.effects.append(HangUp())
        self.output.clear()
        self.dialing = False
        self.address = None
        self.frames = FrameSplitter(self.reply_limit)
        self.connect_deadline_ms = self.next_probe_ms = NEVER
        self._fail(self.pending)
        self._fail(self.pending_auth)
        if self.closing is not None and self.closing.xid:
            self._end(States.CLOSED)
        elif self.is_connected:
            self.failures = 0
            self._change_state(States.CONNECTING)
            if self.rw_server is not None:
                self._dial(now_ms)
            else:
                self.retry_ms = now_ms + self.rng.randrange(RECONNECT_SPREAD_MS)
        else:
            self._try_next(now_ms)

    def _try_next(self, now_ms: int) -> None:
        self.failures += 1
        if self.failures % len(self.hosts) != 0:
            self._dial(now_ms)
            return
        delay = min(ROUND_DELAY_MS, self.timeout_ms // 4)
        self.retry_ms = now_ms + int(delay * (0.5 + self.rng.random()))
        self._fail(self.waiting)
        if self.closing is not None:
            self._end(States.CLOSED)

    def _fail(self, requests: deque[Request]) -> None:
        """Answer them all with what this state means for them."""
        while requests:
            request = requests.popleft()
            request.error = self._refusal(request.path)
            self._answer(request, request.error.code)

    def _refusal(self, path: str | None) -> KeeperError:
        if self.state == States.AUTH_FAILED:
            return AuthFailed(path)
        if self.state in FINAL_STATES:
            return SessionExpired(path)
        return ConnectionLoss(path, self.last_failure)

    # What arrives

    def received(self, data: bytes, now_ms: int) -> None:
        """Bytes of the connection; whatever is wrong with them, it is over then."""
        self.last_heard_ms = now_ms
        try:
            for payload in self.frames.feed(data):
                if self.dialing:
                    self._on_connect_response(payload, now_ms)
                else:
                    self._on_frame(payload)
                if self.ended:
                    return
        except (ProtocolError, struct.error) as error:
            foreign = self.dialing and not isinstance(error, ReadOnlyServer)
            self._drop(f"not a ZooKeeper server ({error})" if foreign else str(error), now_ms)

    def _on_connect_response(self, payload: bytes, now_ms: int) -> None:
        try:
            response, offset = ConnectResponse.decode(payload)
        except DecodeError:
            if len(payload) == 16 and REPLY_HEADER.unpack(payload)[2] == NotReadOnly.code:
                raise ReadOnlyServer("a read-only server without local sessions") from None
            raise
        if response.timeOut <= 0:
            self.last_failure = "the session has expired"
            self._end(States.EXPIRED)
            return
        read_only = len(payload) > offset and payload[offset] != 0
        if read_only and not self.read_only:
            raise ReadOnlyServer("a read-only server")
        self.dialing = False
        self.connect_deadline_ms = NEVER
        self.failures = 0
        self.timeout_ms = response.timeOut
        self.session_id = response.sessionId
        self.password = response.passwd or NO_PASSWORD
        self.seen_rw_server |= not read_only
        if read_only:
            self.probe_interval_ms = MIN_PROBE_INTERVAL_MS
            self.next_probe_ms = now_ms + self.probe_interval_ms
        self._prime(now_ms)
        self._change_state(States.CONNECTEDREADONLY if read_only else States.CONNECTED)

    def _prime(self, now_ms: int) -> None:
        """Send what has to come first: who we are, which watches we have; then what waited.

        Watches before requests, or the answer to a read could show a change before its event.
        """
        waiting, self.waiting = self.waiting, deque()
        asked = [request for request in waiting if request.opcode == OpCode.AUTH]
        known = {request.body for request in asked}
        for scheme, auth in self.auth_info:
            body = AuthPacket(0, scheme, auth).encode()
            if body not in known:
                self._send_auth(Request(OpCode.AUTH, body))
        for request in asked:
            self._send_auth(request)
        for opcode, body in self.watches.set_watches(self.last_zxid):
            request = Request(opcode, body)
            request.xid = Xid.SET_WATCHES
            self._send(request)
        self.last_sent_ms = now_ms
        for request in waiting:
            if not request.cancelled and request.opcode != OpCode.AUTH:
                self._send_next(request)

    def _on_frame(self, payload: bytes) -> None:
        xid, zxid, err = REPLY_HEADER.unpack_from(payload)
        if xid == Xid.NOTIFICATION:
            self._on_event(payload, zxid)
            return
        if xid == Xid.PING:
            return
        if xid == Xid.AUTH:
            self._on_auth(err)
            return
        if not self.pending:
            raise ProtocolError(f"reply {xid} to nothing")
        request = self.pending[0]
        if xid != request.xid:
            raise ProtocolError(f"reply {xid} to request {request.xid}")
        if zxid > 0:
            self.last_zxid = zxid
        if err:
            request.error = error_of(err, request.path)
        elif not request.cancelled:
            request.result = request.decode(payload)
        # Only now: were it undecodable, it would fail with the connection.
        self.pending.popleft()
        self._answer(request, err)

    def _answer(self, request: Request, err: int) -> None:
        if request.registration is not None and not request.cancelled:
            self.watches.register(request.registration, err)
        if request.removal is not None:
            self._on_removal(request, request.removal, err)
        self.deliveries.append(request)
        if request is self.closing and not self.ended and err != ConnectionLoss.code:
            self.effects.append(HangUp())
            self._end(States.CLOSED)

    def _on_event(self, payload: bytes, zxid: int) -> None:
        event, _ = WatcherEvent.decode(payload, 16)
        path = event.path or "/"
        watchers = self.watches.triggered(event.type, path)
        seen = strip_chroot(self.chroot, path)
        self.deliveries.append(Notice(WatchedEvent(event.type, event.state, seen, zxid), watchers))

    def _on_auth(self, err: int) -> None:
        if not self.pending_auth:
            raise ProtocolError("an auth reply to nothing")
        request = self.pending_auth.popleft()
        if err:
            request.error = error_of(err, request.path)
        self.deliveries.append(request)
        if err == AuthFailed.code:
            self.last_failure = "authentication failed"
            self.effects.append(HangUp())
            self._end(States.AUTH_FAILED)

    def _on_removal(self, request: Request, removal: Removal, err: int) -> None:
        """Forget the watchers a removeWatches was about, and tell them so."""
        if err and not removal.local:
            return
        removed = self.watches.remove(removal.path, removal.type, removal.watcher)
        request.error = None if removed else NoWatcher(request.path)
        state = KeeperState.DISCONNECTED if err == ConnectionLoss.code else 3
        path = strip_chroot(self.chroot, removal.path)
        for type_, watchers in removed:
            self.deliveries.append(Notice(WatchedEvent(type_, state, path), watchers))

    # State

    def _change_state(self, state: str) -> None:
        """Tell of the new state, and everybody of the event that goes with it."""
        self.state = state
        self.deliveries.append(StateChange(state))
        event_state = _EVENT_STATES[state]
        if event_state == self.last_event_state:
            return  # a client that never was connected has not been disconnected
        self.last_event_state = event_state
        event = WatchedEvent(EventType.NONE, event_state)
        self.deliveries.append(Notice(event, self.watches.all()))

    def _end(self, state: str) -> None:
        assert state in FINAL_STATES
        self.state = state
        self.dialing = False
        self.address = None
        self.retry_ms = self.connect_deadline_ms = self.next_probe_ms = NEVER
        self.output.clear()
        if not self.effects or self.effects[-1] != HangUp():
            self.effects.append(HangUp())
        self._fail(self.pending)
        self._fail(self.pending_auth)
        self._fail(self.waiting)
        self._change_state(state)

    # What is asked for

    def submit(self, request: Request, now_ms: int) -> None:
        """Send it as soon as there is a connection. Raises SessionExpired or AuthFailed."""
        if self.ended or self.closing is not None:
            if self.state == States.AUTH_FAILED:
                raise AuthFailed(request.path)
            raise SessionExpired(request.path)
        if self.state not in CONNECTED_STATES:
            if request.removal is not None and request.removal.local:
                # No server knows of any watch of ours now.
                self._answer(request, ConnectionLoss.code)
            else:
                self.waiting.append(request)
            return
        self._send_next(request)
        self.last_sent_ms = now_ms

    def add_auth(self, scheme: str, auth: bytes, request: Request, now_ms: int) -> None:
        """Identify now, and on each later connection. `request`: opcode auth, its body."""
        if self.ended or self.closing is not None or not self.is_connected:
            self.submit(request, now_ms)
            self.auth_info.append((scheme, auth))
            return
        self.auth_info.append((scheme, auth))
        self._send_auth(request)
        self.last_sent_ms = now_ms

    def _send_next(self, request: Request) -> None:
        xid = self.last_xid + 1 if self.last_xid < MAX_XID else 1
        self.last_xid = request.xid = xid
        body = request.body
        self.output.append(_REQUEST.pack(len(body) + 8, xid, request.opcode))
        self.output.append(body)
        self.pending.append(request)

    def _send(self, request: Request) -> None:
        body = request.body
        self.output.append(_REQUEST.pack(len(body) + 8, request.xid, request.opcode) + body)
        self.pending.append(request)

    def _send_auth(self, request: Request) -> None:
        body = request.body
        request.xid = Xid.AUTH
        self.output.append(_REQUEST.pack(len(body) + 8, Xid.AUTH, OpCode.AUTH) + body)
        self.pending_auth.append(request)

    def has_other_watchers(self, path: str, type_: int, watcher: Watcher) -> bool:
        """Whether somebody else has, or is about to get, a watch that such a removal would end."""
        if self.watches.count(path, type_, None) > self.watches.count(path, type_, watcher):
            return True
        asked = (each.registration for each in (*self.pending, *self.waiting))
        return any(
            each is not None and each.path == path and each.kind in REACH[type_] for each in asked
        )

    def close(self, now_ms: int) -> None:
        """End the session: the server is told if there is one that knows of it."""
        if self.ended or self.closing is not None:
            return
        if not self.is_connected and not self.session_id:
            self._end(States.CLOSED)
            return
        request = Request(OpCode.CLOSE_SESSION, b"")
        self.submit(request, now_ms)
        self.closing = request

    def abandon(self) -> None:
        """Stop at once, without a word: the server lets the session expire."""
        if not self.ended:
            self._end(States.CLOSED)

    def probed(self, address: Address, answer: bytes, now_ms: int) -> None:
        """What a server said to "isro"."""
        if self.state == States.CONNECTEDREADONLY and answer == b"rw":
            self.rw_server = address
            self._drop(f"leaving for {format_address(address)}, which can write", now_ms)


_EVENT_STATES: Final = {
    States.NOT_CONNECTED: KeeperState.DISCONNECTED,
    States.CONNECTING: KeeperState.DISCONNECTED,
    States.CONNECTED: KeeperState.SYNC_CONNECTED,
    States.CONNECTEDREADONLY: KeeperState.CONNECTED_READ_ONLY,
    States.EXPIRED: KeeperState.EXPIRED,
    States.AUTH_FAILED: KeeperState.AUTH_FAILED,
    States.CLOSED: KeeperState.CLOSED,
}
