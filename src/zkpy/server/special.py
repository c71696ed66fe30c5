"""What is neither read nor write: auth, sasl, and every request that is refused as a whole.

Source: ZooKeeperServer.processPacket, processSasl, FinalRequestProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zkpy.protocol.errors import (
    AuthFailed,
    DecodeError,
    ProtocolError,
    SessionClosedRequireSaslAuth,
    ThrottledOp,
    Unimplemented,
)
from zkpy.protocol.records import AuthPacket
from zkpy.protocol.zoodefs import OpCode
from zkpy.server.decode import decode_buffer
from zkpy.server.reads import REPLY
from zkpy.session.auth import add_ids

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.zkserver import ZooKeeperServer

log = logging.getLogger(__name__)

# Ids of one connection: each is compared with each ACL entry, for every request.
MAX_IDS: Final = 1000


class SpecialOperations:
    """Operations on the connection itself, and refusals."""

    def __init__(self, server: ZooKeeperServer, writes: frozenset[int]) -> None:
        self.server = server
        self._writes = writes

    def handle(self, cnxn: ServerCnxn, xid: int, op: int, body: bytes, throttled: bool) -> None:
        """Answer, or refuse, what is neither read nor write here and now."""
        server = self.server
        if op == OpCode.AUTH:
            self._authenticate(cnxn, xid, body)
        elif op == OpCode.SASL:
            self._sasl(cnxn, xid, body)
        elif not server.may_speak(cnxn):
            server.replies.answer(cnxn, REPLY.pack(16, xid, 0, SessionClosedRequireSaslAuth.code))
            server.finish(cnxn)
        elif throttled and (op in server.reads.handlers or op in self._writes):
            self._throttled(cnxn, xid, op, body)
        elif op == OpCode.SYNC:
            server.sync_requested(cnxn, xid, body)
        else:
            log.warning("closing %s: unknown opcode %s", cnxn, op)
            server.replies.answer(cnxn, REPLY.pack(16, xid, -1, Unimplemented.code))
            server.finish(cnxn)

    def _throttled(self, cnxn: ServerCnxn, xid: int, op: int, body: bytes) -> None:
        """A request that waited too long to be let in is not executed, except for a few."""
        server = self.server
        if op == OpCode.PING:
            if cnxn.pending:
                cnxn.pending.append((xid, op, body, cnxn.ids))
            else:
                server.replies.answer(cnxn, REPLY.pack(16, -2, server.tree.last_processed_zxid, 0))
        elif op == OpCode.CLOSE_SESSION:
            server.write(cnxn, xid, op, body, 0, len(body))
        else:
            server.stats.throttled_ops += 1
            server.replies.refuse(cnxn, xid, ThrottledOp.code)

    def _authenticate(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """New ids count at once; the reply waits for its turn, as kazoo needs it."""
        server = self.server
        try:
            packet, _ = AuthPacket.decode(body)
        except DecodeError:
            server.finish(cnxn)
            return
        try:
            if len(cnxn.ids) >= MAX_IDS:
                raise AuthFailed
            added = server.auth.authenticate(packet.scheme, packet.auth, cnxn.address)
        except AuthFailed:
            server.stats.auth_failed_count += 1
            log.warning("Authentication failed for scheme: %.64r of %s", packet.scheme, cnxn)
            server.replies.answer(cnxn, REPLY.pack(16, xid, 0, AuthFailed.code))
            server.finish(cnxn)
            return
        except ProtocolError as error:
            log.warning("closing %s: %s", cnxn, error)
            server.close(cnxn)
            return
        cnxn.ids = add_ids(cnxn.ids, added)
        server.replies.answer(cnxn, REPLY.pack(16, xid, 0, 0))

    def _sasl(self, cnxn: ServerCnxn, xid: int, body: bytes) -> None:
        """Without a SASL configuration any token is answered with none."""
        server = self.server
        try:
            token, _ = decode_buffer(body, 0, len(body))
        except DecodeError:
            token = None
        if token is None:
            server.finish(cnxn)
            return
        server.replies.answer(cnxn, REPLY.pack(20, xid, 0, 0) + b"\xff\xff\xff\xff")
