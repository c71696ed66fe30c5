"""Replies in the order of requests: what comes behind a write of its session waits for it.

A write is answered when it is committed, a read at once. Until the write is, everything behind it
lies in `cnxn.pending`. Source: CommitProcessor, ZooKeeper 3.9.
"""

from __future__ import annotations

import logging
import struct
from typing import TYPE_CHECKING, Final

from zkpy.protocol.zoodefs import OpCode
from zkpy.server.request import Request

if TYPE_CHECKING:
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.server.zkserver import ZooKeeperServer

log = logging.getLogger(__name__)

# Replies queued for one connection before its next frame has to wait for the socket.
MAX_OUT_BYTES: Final = 256 * 1024
# Events pile up for a client that watches much and reads nothing: then it is closed.
MAX_UNREAD_BYTES: Final = 64 * 1024 * 1024

_INT: Final = struct.Struct(">i")
# A ready frame that waits for its turn among the deferred requests of a connection. Not a number a
# client can send: opcodes are 32 bits.
_READY: Final = 1 << 32
# The same for an error, of which only the code is known yet, and for a record.
_REFUSED: Final = _READY + 1
_RECORD: Final = _READY + 2


class Replies:
    """Answers the connections of one server; of writes only what came behind them."""

    def __init__(self, server: ZooKeeperServer) -> None:
        self._server = server

    def answer(self, cnxn: ServerCnxn, frame: bytes) -> None:
        """Send a ready frame, behind the replies to earlier requests."""
        server = self._server
        if cnxn.pending:
            cnxn.pending.append((0, _READY, frame, ()))
        else:
            cnxn.out += frame
            cnxn.stats.sent += 1
            server.stats.packets_sent += 1
            server.mark_dirty(cnxn)

    def refuse(self, cnxn: ServerCnxn, xid: int, code: int) -> None:
        """Refuse a request that has no txn; the zxid shown is the one applied at its turn."""
        server = self._server
        if cnxn.pending:
            cnxn.pending.append((xid, _REFUSED, _INT.pack(code), ()))
        else:
            server.reads.refuse(cnxn, xid, code)
            server.stats.packets_sent += 1
            server.mark_dirty(cnxn)

    def answer_record(self, cnxn: ServerCnxn, xid: int, record: bytes) -> None:
        """A success without a txn; the zxid shown is the one applied at its turn."""
        server = self._server
        if cnxn.pending:
            cnxn.pending.append((xid, _RECORD, record, ()))
        else:
            server.reads.reply(cnxn, xid, record)
            server.stats.packets_sent += 1
            server.mark_dirty(cnxn)

    def serve_deferred(self, cnxn: ServerCnxn) -> None:
        """Answer what waited behind a write of its session, up to the next one.

        Or as far as there is room. Only if another write is behind them can they not wait for
        it: they would see what it does.
        """
        server = self._server
        pending = cnxn.pending
        room = MAX_OUT_BYTES
        reads = ready = last_xid = last_op = 0
        while pending and type(pending[0]) is tuple:
            if len(cnxn.out) >= room:
                if room == MAX_UNREAD_BYTES:
                    log.warning("closing %s: its replies take too much memory", cnxn)
                    cnxn.out.clear()
                    server.close(cnxn)
                    break
                if all(type(entry) is tuple for entry in pending):
                    server.hold(cnxn)
                    break
                room = MAX_UNREAD_BYTES
            xid, op, body, ids = pending.popleft()  # type: ignore[misc]
            if op == _READY:
                cnxn.out += body
                ready += 1
            elif op == _REFUSED:
                server.reads.refuse(cnxn, xid, int.from_bytes(body, "big", signed=True))
                ready += 1
            elif op == _RECORD:
                server.reads.reply(cnxn, xid, body)
                ready += 1
            else:
                last_xid, last_op = xid, op
                server.reads.handlers[op](cnxn, xid, body, 0, len(body), ids)
                reads += 1
        server.stats.packets_sent += ready + reads
        server.stats.reads += reads
        cnxn.stats.sent += ready
        if reads:
            zxid = server.tree.last_processed_zxid
            cnxn.stats.replied(reads, last_xid, last_op, zxid, server.now_ms)

    def answer_deferred(self, cnxn: ServerCnxn) -> None:
        """What `cnxn` waited for is there: now what came behind it, be it the end."""
        server = self._server
        pending = cnxn.pending
        if pending and type(pending[0]) is tuple:
            self.serve_deferred(cnxn)
        if cnxn.finishing and not pending:
            server.close(cnxn)

    def await_sync(self, cnxn: ServerCnxn, xid: int, body: bytes) -> Request:
        """Let a sync and all that comes after it wait for `sync_completed` of what is returned.

        That is a barrier, and the sync a read behind it.
        """
        server = self._server
        barrier = Request(cnxn, cnxn.session_id, 0, OpCode.SYNC, cnxn.ids, server.now_ms)
        cnxn.pending.append(barrier)
        cnxn.pending.append((xid, OpCode.SYNC, body, cnxn.ids))
        return barrier

    def sync_completed(self, barrier: Request) -> None:
        """What was committed when the sync was asked for has been applied here."""
        server = self._server
        cnxn = barrier.cnxn
        if cnxn is None or cnxn.closed:
            return
        head = cnxn.pending.popleft()
        assert head is barrier, "replies in the order of requests"
        self.answer_deferred(cnxn)
        server.mark_dirty(cnxn)
