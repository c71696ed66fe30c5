"""Error codes: one class each, and the numbers of the protocol."""

from __future__ import annotations

from zkpy.protocol import errors
from zkpy.protocol.errors import ERRORS, KeeperError

# What a server can put into a reply, by the protocol's table.
CODES = {
    "RuntimeInconsistency": -2, "MarshallingError": -5, "Unimplemented": -6, "BadArguments": -8,
    "UnknownSession": -12, "NewConfigNoQuorum": -13, "ReconfigInProgress": -14, "NoNode": -101,
    "NoAuth": -102, "BadVersion": -103, "NoChildrenForEphemerals": -108, "NodeExists": -110,
    "NotEmpty": -111, "SessionExpired": -112, "InvalidACL": -114, "AuthFailed": -115,
    "SessionMoved": -118, "NotReadOnly": -119, "EphemeralOnLocalSession": -120, "NoWatcher": -121,
    "ReconfigDisabled": -123, "SessionClosedRequireSaslAuth": -124, "QuotaExceeded": -125,
    "ThrottledOp": -127,
}  # fmt: skip


def test_codes() -> None:
    assert {cls.__name__: code for code, cls in ERRORS.items()} == CODES
    for name, code in CODES.items():
        assert issubclass(getattr(errors, name), KeeperError)
        assert ERRORS[code].code == code
