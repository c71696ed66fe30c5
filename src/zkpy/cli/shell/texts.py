"""What the shell says about errors, in the reference's words.

Source: CliWrapperException, KeeperException.getCodeMessage, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import Final

# By error code; what is not here gets the text of the code.
_SENTENCES: Final = {
    -8: "Arguments are not valid : {}",
    -13: "No quorum of new config is connected and up-to-date with the leader of last commmitted "
    "config - try invoking reconfiguration after new servers are connected and synced",
    -14: "Another reconfiguration is in progress -- concurrent reconfigs not supported (yet)",
    -101: "Node does not exist: {}",
    -102: "Insufficient permission : {}",
    -103: "version No is not valid : {}",
    -108: "Ephemerals cannot have children: {}",
    -110: "Node already exists: {}",
    -111: "Node not empty: {}",
    -114: "Acl is not valid : {}",
    -119: "Not a read-only call: {}",
    -125: "Quota has exceeded : {}",
}
_NAMES: Final = {
    0: "ok",
    -1: "SystemError",
    -2: "RuntimeInconsistency",
    -3: "DataInconsistency",
    -4: "ConnectionLoss",
    -5: "MarshallingError",
    -6: "Unimplemented",
    -7: "OperationTimeout",
    -8: "BadArguments",
    -13: "NewConfigNoQuorum",
    -14: "ReconfigInProgress",
    -100: "APIError",
    -101: "NoNode",
    -102: "NoAuth",
    -103: "BadVersion",
    -108: "NoChildrenForEphemerals",
    -110: "NodeExists",
    -111: "Directory not empty",
    -112: "Session expired",
    -113: "Invalid callback",
    -114: "InvalidACL",
    -115: "AuthFailed",
    -118: "Session moved",
    -119: "Not a read-only call",
    -120: "Ephemeral node on local session",
    -121: "No such watcher",
    -123: "Reconfig is disabled",
    -124: "Session closed because client failed to authenticate",
    -125: "Quota has exceeded",
    -127: "Op throttled due to high load",
}


def code_text(code: int, path: str | None = None) -> str:
    """`KeeperErrorCode = NAME for PATH`; without a path, or with an empty one, only the name."""
    name = _NAMES.get(code, f"Unknown error {code}")
    return f"KeeperErrorCode = {name} for {path}" if path else f"KeeperErrorCode = {name}"


def error_text(code: int, path: str | None) -> str:
    """The line for an operation on `path` that failed; None prints as null."""
    sentence = _SENTENCES.get(code)
    if sentence is None:
        return code_text(code, path)
    return sentence.format("null" if path is None else path)
