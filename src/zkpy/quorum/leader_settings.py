"""LeaderSettings: the numbers of zoo.cfg that a leader goes by."""

from __future__ import annotations


class LeaderSettings:
    """The numbers of zoo.cfg that a leader goes by; limits in ticks, times in ms."""

    __slots__ = (
        "force_snapshot",
        "init_limit_ticks",
        "max_diff_syncs",
        "max_record_bytes",
        "max_snap_syncs",
        "max_wait_for_epoch_ms",
        "snapshot_size_factor",
        "sync_limit_ticks",
        "tick_time_ms",
    )

    def __init__(
        self,
        *,
        tick_time_ms: int,
        init_limit_ticks: int,
        sync_limit_ticks: int,
        max_record_bytes: int,
        snapshot_size_factor: float = 0.33,
        force_snapshot: bool = False,
        max_snap_syncs: int = 10,
        max_diff_syncs: int = 100,
        max_wait_for_epoch_ms: int = -1,
    ) -> None:
        self.tick_time_ms = tick_time_ms
        self.init_limit_ticks = init_limit_ticks
        self.sync_limit_ticks = sync_limit_ticks
        self.max_record_bytes = max_record_bytes
        self.snapshot_size_factor = snapshot_size_factor
        self.force_snapshot = force_snapshot
        self.max_snap_syncs = max_snap_syncs
        self.max_diff_syncs = max_diff_syncs
        self.max_wait_for_epoch_ms = max_wait_for_epoch_ms
