"""A write on its way: from the client's frame to the reply, through log and quorum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkpy.protocol.txns import TxnHeader

if TYPE_CHECKING:
    from zkpy.protocol.jute import Record
    from zkpy.protocol.txns import SubTxn
    from zkpy.server.changes import ChangeRecord
    from zkpy.server.cnxn import ServerCnxn
    from zkpy.session.auth import Id


class Request:
    """What the pipeline knows of one write.

    `cnxn` is None for what the server itself asks for (expiry, container removal) and for requests
    of other members' clients. `ids` are those the connection had when the request was received.
    `time` is the wall clock in ms when the txn was made, `received_ms` monotonic.
    """

    __slots__ = (
        "changes",
        "cnxn",
        "digest",
        "ids",
        "large_bytes",
        "op",
        "parts",
        "received_ms",
        "session_id",
        "time",
        "txn",
        "type",
        "xid",
        "zxid",
    )

    def __init__(
        self,
        cnxn: ServerCnxn | None,
        session_id: int,
        xid: int,
        op: int,
        ids: tuple[Id, ...],
        received_ms: int,
    ) -> None:
        self.cnxn = cnxn
        self.session_id = session_id
        self.xid = xid
        self.op = op
        self.ids = ids
        self.received_ms = received_ms
        self.zxid: int  # set by prep
        # Its share of the room for large requests, 0 for an ordinary one.
        self.large_bytes = 0
        self.time: int  # set by prep
        # The type of its txn: that of the request, or of an error.
        self.type = op
        # What applying needs besides `changes`: a record, or the parts of a multi (of a setData its
        # change, of anything else its sub-txn).
        self.txn: Record | None = None
        self.parts: list[ChangeRecord | SubTxn] | None = None
        self.digest: int  # set by prep: of the tree once this is applied
        self.changes: list[ChangeRecord] = []

    def header(self) -> TxnHeader:
        """The header of its txn."""
        return TxnHeader(self.session_id, self.xid, self.zxid, self.time, self.type)
