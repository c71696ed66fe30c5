"""What election and ZAB need of the replicated state and of the disk, as a Protocol.

`server/database.py` implements it over the tree, the log and the snapshots. Calls here are rare
(elections, catch-up) and complete when they return; what is frequent, appending to the log, goes
through `take_appended` and comes back as `durable`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from zkpy.quorum.committed_log import CommittedLog
    from zkpy.quorum.members import Members

    class SnapshotReceiver(Protocol):
        """Takes the raw stream behind a SNAP packet, chunk by chunk."""

        def feed(self, data: bytes) -> bytes | None:
            """None: more is needed. Else the stream is complete, and this is what follows it.

            Raises DecodeError for what is no snapshot stream (also a wrong signature).
            """

    class Database(Protocol):
        """The state of one member."""

        # Txns committed most recently, for DIFF.
        committed_log: CommittedLog

        @property
        def last_zxid(self) -> int:
            """Of the last txn applied to the tree."""

        @last_zxid.setter
        def last_zxid(self, zxid: int) -> None: ...

        @property
        def accepted_epoch(self) -> int: ...

        @property
        def current_epoch(self) -> int: ...

        def write_accepted_epoch(self, epoch: int) -> None:
            """Durable on return. Raises DiskWriteError."""

        def write_current_epoch(self, epoch: int) -> None:
            """Durable on return. Raises DiskWriteError."""

        def apply(self, zxid: int, txn: bytes) -> object:
            """Apply a committed txn; also into `committed_log`. What came of it is the server's.

            Idempotent, as what follows a fuzzy snapshot may be in it already. Raises DecodeError.
            """

        def snapshot_receiver(self) -> SnapshotReceiver:
            """For one SNAP; the present state stays until `install_snapshot`."""

        def install_snapshot(self, receiver: SnapshotReceiver, zxid: int) -> None:
            """Replace the tree by what was received; only in memory. `last_zxid` is `zxid` then.

            From here to the end of `save_snapshot` memory is ahead of the disk.
            """

        def save_snapshot(self) -> None:
            """Write a snapshot of the tree; durable on return. Raises DiskWriteError."""

        def truncate(self, zxid: int) -> bool:
            """Forget every txn above `zxid`, on disk and in memory; False if that cannot be."""

        def has_snapshot_at(self, zxid: int) -> bool:
            """Whether a snapshot on disk is of just that zxid."""

        def reload(self) -> None:
            """Read the state from disk again, as at a start: memory may be ahead of the disk."""

        def set_config(self, members: Members) -> None:
            """Write /zookeeper/config in memory: text, version -1, mzxid = members.version."""

        def snapshot_slices(self) -> Iterator[bytes]:
            """The stream to send behind SNAP, up to and with the signature, in slices.

            The tree may change between slices (fuzzy).
            """

        def log_records(self, zxid: int, budget_bytes: int) -> Iterator[tuple[int, bytes]] | None:
            """(zxid, txn) of the log on disk: from `zxid` or, if that is a snapshot's, behind it.

            Only what is known to be of our history and without a hole: it ends where that ends.
            None if the log does not reach back that far, or more than `budget_bytes` (if >= 0)
            would have to be read.
            """

        def snapshot_size(self) -> int:
            """Bytes of the newest snapshot file; 0 without one."""
