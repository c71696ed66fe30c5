"""Which opcode takes and answers which record, and what kind of request it is.

The table serves the client, the tools and the tests; the server's request path has its own code.
"""

from __future__ import annotations

from typing import Final

from zkpy.protocol import records as r
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import OpCode

READ: Final = "read"
WRITE: Final = "write"
CONNECTION: Final = "connection"

OPERATIONS: Final[dict[int, tuple[type[Record] | None, type[Record] | None, str]]] = {
    OpCode.CREATE: (r.CreateRequest, r.CreateResponse, WRITE),
    OpCode.CREATE2: (r.CreateRequest, r.Create2Response, WRITE),
    OpCode.CREATE_CONTAINER: (r.CreateRequest, r.Create2Response, WRITE),
    OpCode.CREATE_TTL: (r.CreateTTLRequest, r.Create2Response, WRITE),
    OpCode.DELETE: (r.DeleteRequest, None, WRITE),
    OpCode.SET_DATA: (r.SetDataRequest, r.StatResponse, WRITE),
    OpCode.SET_ACL: (r.SetACLRequest, r.StatResponse, WRITE),
    OpCode.RECONFIG: (r.ReconfigRequest, r.GetDataResponse, WRITE),
    OpCode.CLOSE_SESSION: (None, None, WRITE),
    OpCode.EXISTS: (r.PathWatchRequest, r.StatResponse, READ),
    OpCode.GET_DATA: (r.PathWatchRequest, r.GetDataResponse, READ),
    OpCode.GET_CHILDREN: (r.PathWatchRequest, r.ChildrenResponse, READ),
    OpCode.GET_CHILDREN2: (r.PathWatchRequest, r.GetChildren2Response, READ),
    OpCode.GET_ACL: (r.PathRequest, r.GetACLResponse, READ),
    OpCode.GET_ALL_CHILDREN_NUMBER: (r.PathRequest, r.GetAllChildrenNumberResponse, READ),
    OpCode.GET_EPHEMERALS: (r.PathRequest, r.ChildrenResponse, READ),
    OpCode.SYNC: (r.PathRequest, r.CreateResponse, READ),
    OpCode.PING: (None, None, CONNECTION),
    OpCode.AUTH: (r.AuthPacket, None, CONNECTION),
    OpCode.SASL: (r.SASLToken, r.SASLToken, CONNECTION),
    OpCode.WHO_AM_I: (None, r.WhoAmIResponse, CONNECTION),
    OpCode.ADD_WATCH: (r.AddWatchRequest, r.ErrorResponse, CONNECTION),
    OpCode.CHECK_WATCHES: (r.WatchesRequest, None, CONNECTION),
    OpCode.REMOVE_WATCHES: (r.WatchesRequest, None, CONNECTION),
    OpCode.SET_WATCHES: (r.SetWatches, None, CONNECTION),
    OpCode.SET_WATCHES2: (r.SetWatches2, None, CONNECTION),
}
