"""The first bytes of a connection: a four letter word, or a ConnectRequest and its session.

Source: ZooKeeperServer.processConnectRequest, ServerCnxn.checkFourLetterWord, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import DecodeError
from zkpy.protocol.records import ConnectRequest
from zkpy.protocol.zoodefs import OpCode
from zkpy.server import commands
from zkpy.server.cnxn import CONNECTING, ESTABLISHED, ServerCnxn
from zkpy.session.password import password_of

if TYPE_CHECKING:
    from zkpy.server.zkserver import ZooKeeperServer

log = logging.getLogger(__name__)

_INT: Final = struct.Struct(">i")
_RESPONSE: Final = struct.Struct(">iiiqi")  # frame length, version, timeout, session, 16
STMK_ARGUMENT_BYTES: Final = 8


class Handshake:
    """Brings a connection from NEW to ESTABLISHED, or answers a four letter word."""

    def __init__(self, server: ZooKeeperServer) -> None:
        self.server = server

    def first_bytes(self, cnxn: ServerCnxn, data: bytes) -> None:
        """Handle what came before the session is there; keep what is not complete."""
        server = self.server
        if len(data) < 4:
            server.keep(cnxn, data, 0)
            return
        command = commands.COMMANDS.get(data[:4])
        if command is not None:
            self._command(cnxn, command, data)
            return
        (length,) = _INT.unpack_from(data)
        if len(data) < 4 + length or not 0 <= length <= server.max_frame:
            server.keep(cnxn, data, 0)
            return
        body = data[4 : 4 + length]
        try:
            request, offset = ConnectRequest.decode(body)
        except DecodeError:
            server.close(cnxn)
            return
        cnxn.read_only_flag = length > offset
        cnxn.stats.received += 1
        server.stats.packets_received += 1
        server.stats.bytes_received += 4 + length
        server.stats.connection_request_count += 1
        # What the client pipelined behind it waits until the session is there.
        cnxn.held = True
        cnxn.rest += data[4 + length :]
        self._connect(cnxn, request, length > offset and body[offset] != 0)

    def _command(self, cnxn: ServerCnxn, name: str, data: bytes) -> None:
        server = self.server
        if name == "stmk" and len(data) < 4 + STMK_ARGUMENT_BYTES:
            if commands.is_enabled(server.config, name):
                cnxn.rest += data
                cnxn.need = 4 + STMK_ARGUMENT_BYTES
                return
        server.stats.packets_received += 1
        server.stats.bytes_received += 4
        cnxn.stats.received += 1
        text = commands.execute(server, cnxn, name, data[4:])
        if text is not None:
            cnxn.out += text
            server.stats.packets_sent += 1
        server.close(cnxn)

    def _connect(self, cnxn: ServerCnxn, request: ConnectRequest, takes_read_only: bool) -> None:
        server = self.server
        if not server.serving:
            server.stats.count("cnxn_closed_without_zk_server_running")
            server.close(cnxn)
            return
        if server.read_only and not takes_read_only:
            log.info("Refusing session request for not-read-only client %s", cnxn)
        renewed = request.sessionId != 0
        if not server.admits_session(renewed) or not server.admits_client(request, takes_read_only):
            server.close(cnxn)
            return
        last_zxid = server.caught_up_zxid
        if request.lastZxidSeen > last_zxid:
            log.info(
                "Refusing session(0x%x) request for client %s as it has seen zxid 0x%x our last "
                "zxid is 0x%x client must try another server",
                request.sessionId & (1 << 64) - 1,
                cnxn,
                request.lastZxidSeen,
                last_zxid,
            )
            server.close(cnxn)
            return
        config = server.config
        cnxn.timeout_ms = min(
            max(request.timeOut, config.min_session_timeout_ms), config.max_session_timeout_ms
        )
        cnxn.state = CONNECTING
        server.sessionless.remove(cnxn)
        if request.sessionId == 0:
            server.create_session(cnxn)
        # The password first: a wrong one must not close the connection of the right client.
        elif request.passwd == password_of(request.sessionId):
            server.revalidate_session(cnxn, request.sessionId)
        else:
            self.session_refused(cnxn, request.sessionId)

    def session_refused(self, cnxn: ServerCnxn, session_id: int) -> None:
        """Tell the client that there is no such session; it will begin a new one."""
        server = self.server
        log.info("Invalid session 0x%x for client %s", session_id & (1 << 64) - 1, cnxn)
        self._respond(cnxn, 0, 0, bytes(16))
        server.close(cnxn)

    def session_found(self, cnxn: ServerCnxn, session_id: int) -> None:
        """The session that `cnxn` asked for lives: it is bound to `cnxn` from now on."""
        server = self.server
        old = server.cnxn_of_session.get(session_id)
        if old is not None and old is not cnxn:
            server.close(old)
        cnxn.session_id = session_id
        server.cnxn_of_session[session_id] = cnxn
        server.stats.connection_revalidate_count += 1
        self.session_valid(cnxn)

    def session_created(self, cnxn: ServerCnxn) -> None:
        """The session of `cnxn` is committed."""
        cnxn.stats.last_op = OpCode.CREATE_SESSION
        self.session_valid(cnxn)

    def session_valid(self, cnxn: ServerCnxn) -> None:
        """Tell the client that its session is there, and go on."""
        cnxn.state = ESTABLISHED
        cnxn.stats.last_zxid = self.server.tree.last_processed_zxid
        self._respond(cnxn, cnxn.timeout_ms, cnxn.session_id, password_of(cnxn.session_id))
        self.server.resume(cnxn)

    def _respond(self, cnxn: ServerCnxn, timeout_ms: int, session_id: int, passwd: bytes) -> None:
        flag = bytes((self.server.read_only,)) if cnxn.read_only_flag else b""
        cnxn.out += _RESPONSE.pack(36 + len(flag), 0, timeout_ms, session_id, 16) + passwd + flag
        cnxn.stats.sent += 1
        self.server.stats.packets_sent += 1
        self.server.mark_dirty(cnxn)
