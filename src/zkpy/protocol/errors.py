"""Error codes a server sends, one exception class per code, and the errors of the wire itself.

A `KeeperError` becomes a reply with its code; a `ProtocolError` ends the connection it came from.
Source: KeeperException.Code, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import ClassVar


class ProtocolError(Exception):
    """The peer broke the protocol: its connection is closed, nothing else happens."""


class DecodeError(ProtocolError):
    """Bytes that are not the record they should be (short, or with an impossible length)."""


class KeeperError(Exception):
    """A request that is refused: the reply carries `code`."""

    code: ClassVar[int] = -1


class RuntimeInconsistency(KeeperError):
    code = -2


class MarshallingError(KeeperError):
    """The request could not be decoded."""

    code = -5


class Unimplemented(KeeperError):
    code = -6


class BadArguments(KeeperError):
    code = -8


class UnknownSession(KeeperError):
    code = -12


class NewConfigNoQuorum(KeeperError):
    code = -13


class ReconfigInProgress(KeeperError):
    code = -14


class NoNode(KeeperError):
    code = -101


class NoAuth(KeeperError):
    code = -102


class BadVersion(KeeperError):
    code = -103


class NoChildrenForEphemerals(KeeperError):
    code = -108


class NodeExists(KeeperError):
    code = -110


class NotEmpty(KeeperError):
    code = -111


class SessionExpired(KeeperError):
    code = -112


class InvalidACL(KeeperError):
    code = -114


class AuthFailed(KeeperError):
    code = -115


class SessionMoved(KeeperError):
    """Never a reply: the connection is closed instead."""

    code = -118


class NotReadOnly(KeeperError):
    code = -119


class EphemeralOnLocalSession(KeeperError):
    code = -120


class NoWatcher(KeeperError):
    code = -121


class ReconfigDisabled(KeeperError):
    code = -123


class SessionClosedRequireSaslAuth(KeeperError):
    code = -124


class QuotaExceeded(KeeperError):
    code = -125


class ThrottledOp(KeeperError):
    code = -127


ERRORS: dict[int, type[KeeperError]] = {cls.code: cls for cls in KeeperError.__subclasses__()}
