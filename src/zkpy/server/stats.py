"""Counters of a server, for the four letter words, metrics and the admin server.

Counted where things happen: what happens per request has an attribute of its own, the rest goes by
name through `count` and `record`. Source: ServerStats, ServerMetrics, ZooKeeper 3.9.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from zkpy.protocol.zoodefs import EventType

# Values below are kept apart, those above to this many leading bits: within 2 %.
_EXACT: Final = 128
_EXACT_BITS: Final = 7
DIGEST_HISTORY: Final = 1024
DEFAULT_TRACE_MASK: Final = 306

_WATCH_COUNTS: Final[dict[int, str]] = {
    EventType.NODE_CREATED: "node_created_watch_count",
    EventType.NODE_DELETED: "node_deleted_watch_count",
    EventType.NODE_DATA_CHANGED: "node_changed_watch_count",
    EventType.NODE_CHILDREN_CHANGED: "node_children_watch_count",
}


class Summary:
    """How often, how much, and the distribution of a measured integer.

    The reference draws a random sample for its percentiles; counting rounded values needs no dice.
    Source: AvgMinMaxCounter, AvgMinMaxPercentileCounter.
    """

    __slots__ = ("count", "max", "min", "total", "values")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.min = 0
        self.max = 0
        self.values: dict[int, int] = {}

    def add(self, value: int, times: int = 1) -> None:
        """Measured `value`, `times` times."""
        if not self.count or value < self.min:
            self.min = value
        if not self.count or value > self.max:
            self.max = value
        self.count += times
        self.total += value * times
        if value >= _EXACT:
            shift = value.bit_length() - _EXACT_BITS
            value = value >> shift << shift
        self.values[value] = self.values.get(value, 0) + times

    def average(self) -> float:
        """Rounded to four decimals, halves up; 0.0 if nothing was measured."""
        return average(self.total, self.count)

    def percentile(self, permille: int) -> int:
        """The value that `permille` of the measurements do not exceed; 0 if there are none."""
        left = (sum(self.values.values()) * permille + 999) // 1000
        for value in sorted(self.values):
            left -= self.values[value]
            if left <= 0:
                return value
        return 0


def average(total: int, count: int) -> float:
    """`total / count`, rounded to four decimals, halves up."""
    return (20000 * total + count) // (2 * count) / 10000 if count else 0.0


class ServerStats:
    """Times in ms, sizes in bytes.

    `reads` are answered in the moment they come, with a latency of 0; `write_*` are latencies of
    writes. `start_ms` is monotonic.
    """

    __slots__ = (
        "auth_failed_count",
        "bytes_received",
        "connection_drop_count",
        "connection_rejected",
        "connection_request_count",
        "connection_revalidate_count",
        "counters",
        "digests",
        "large_requests_rejected",
        "last_response_size",
        "max_response_size",
        "max_write_latency",
        "min_response_size",
        "min_write_latency",
        "packets_received",
        "packets_sent",
        "reads",
        "response_bytes",
        "sessionless_connections_expired",
        "stale_sessions_expired",
        "start_ms",
        "summaries",
        "throttled_ops",
        "total_write_latency",
        "trace_mask",
        "watch_bytes",
        "writes",
    )

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.auth_failed_count = 0
        self.trace_mask = DEFAULT_TRACE_MASK
        # (zxid, tree digest), for members to be compared.
        self.digests: deque[tuple[int, int]] = deque(maxlen=DIGEST_HISTORY)
        self.counters: dict[str, int] = {}
        self.summaries: dict[str, Summary] = {}
        self.reset()

    def reset(self) -> None:
        """What `srst` resets: everything that counts, not what shows a state."""
        self.counters.clear()
        self.summaries.clear()
        self.packets_received = 0
        self.packets_sent = 0
        self.bytes_received = 0
        self.response_bytes = 0
        self.watch_bytes = 0
        self.reads = 0
        self.writes = 0
        self.total_write_latency = 0
        self.min_write_latency = 0x7FFFFFFFFFFFFFFF
        self.max_write_latency = 0
        self.last_response_size = -1
        self.min_response_size = -1
        self.max_response_size = -1
        self.connection_drop_count = 0
        self.connection_rejected = 0
        self.connection_request_count = 0
        self.connection_revalidate_count = 0
        self.large_requests_rejected = 0
        self.sessionless_connections_expired = 0
        self.stale_sessions_expired = 0
        self.throttled_ops = 0

    def take_over(self, old: ServerStats) -> None:
        """Go on with what is counted since the start of the process, whatever the role.

        Packets and latencies are those of one server. Source: ServerMetrics, ServerStats.
        """
        self.counters, self.summaries = old.counters, old.summaries
        self.bytes_received = old.bytes_received
        self.response_bytes = old.response_bytes
        self.watch_bytes = old.watch_bytes
        self.connection_drop_count = old.connection_drop_count
        self.connection_rejected = old.connection_rejected
        self.connection_request_count = old.connection_request_count
        self.connection_revalidate_count = old.connection_revalidate_count
        self.large_requests_rejected = old.large_requests_rejected
        self.sessionless_connections_expired = old.sessionless_connections_expired
        self.stale_sessions_expired = old.stale_sessions_expired
        self.throttled_ops = old.throttled_ops

    # ------------------------------------------------------------------ what happens

    def count(self, name: str, times: int = 1) -> None:
        """Something rare happened; `name` is that of the metric."""
        self.counters[name] = self.counters.get(name, 0) + times

    def record(self, name: str, value: int, times: int = 1) -> None:
        """Something was measured; `name` is that of the metric."""
        summary = self.summaries.get(name)
        if summary is None:
            summary = self.summaries[name] = Summary()
        summary.add(value, times)

    def writes_served(self, count: int, total: int, least: int, most: int) -> None:
        """A batch of writes was answered; their latencies in ms: sum, least and most."""
        self.packets_sent += count
        self.writes += count
        self.total_write_latency += total
        if least < self.min_write_latency:
            self.min_write_latency = least
        if most > self.max_write_latency:
            self.max_write_latency = most
        self.record("updatelatency", most, count)

    def responses(self, total: int, last: int, least: int, most: int) -> None:
        """Replies were handed to sockets: their bytes in all, and those for single clients."""
        self.response_bytes += total
        self.last_response_size = last
        if most > self.max_response_size:
            self.max_response_size = most
        if self.min_response_size < 0 or least < self.min_response_size:
            self.min_response_size = least

    def watches_fired(self, event_type: int, watchers: int, size: int) -> None:
        """An event of `size` bytes was sent to `watchers` connections."""
        self.record(_WATCH_COUNTS[event_type], watchers)
        self.watch_bytes += size * watchers

    # ------------------------------------------------------------------ what it amounts to

    def min_latency(self) -> int:
        """The fastest request so far."""
        return 0 if self.reads or not self.writes else self.min_write_latency

    def average_latency(self) -> float:
        """Over all requests, rounded to four decimals."""
        return average(self.total_write_latency, self.reads + self.writes)

    def max_latency(self) -> int:
        """The slowest request so far."""
        return self.max_write_latency
