"""Counters of a server, for the four letter words, metrics and the admin server.

Source: ServerStats, ServerMetrics, ZooKeeper 3.9.
"""

from __future__ import annotations


class ServerStats:
    """Plain attributes, counted where things happen. Times in ms, sizes in bytes."""

    __slots__ = (
        "auth_failed_count",
        "connection_rejected",
        "connection_request_count",
        "connection_revalidate_count",
        "large_requests_rejected",
        "last_response_size",
        "latency_count",
        "max_latency",
        "max_response_size",
        "min_latency",
        "min_response_size",
        "packets_received",
        "packets_sent",
        "sessionless_connections_expired",
        "stale_sessions_expired",
        "start_ms",
        "throttled_ops",
        "total_latency",
    )

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.auth_failed_count = 0
        self.connection_rejected = 0
        self.connection_request_count = 0
        self.connection_revalidate_count = 0
        self.large_requests_rejected = 0
        self.sessionless_connections_expired = 0
        self.stale_sessions_expired = 0
        self.throttled_ops = 0
        self.reset()

    def reset(self) -> None:
        """What `srst` resets: latencies, packets, response sizes."""
        self.packets_received = 0
        self.packets_sent = 0
        self.latency_count = 0
        self.total_latency = 0
        self.min_latency = 0x7FFFFFFFFFFFFFFF
        self.max_latency = 0
        self.last_response_size = -1
        self.min_response_size = -1
        self.max_response_size = -1

    def reads_served(self, count: int) -> None:
        """`count` requests were answered in the moment they came."""
        self.latency_count += count
        self.min_latency = 0

    def write_served(self, latency: int) -> None:
        """A write was answered `latency` ms after it came."""
        self.packets_sent += 1
        self.latency_count += 1
        self.total_latency += latency
        if latency < self.min_latency:
            self.min_latency = latency
        if latency > self.max_latency:
            self.max_latency = latency

    def response_size(self, size: int) -> None:
        """The replies to one chunk of requests have `size` bytes."""
        self.last_response_size = size
        if size > self.max_response_size:
            self.max_response_size = size
        if self.min_response_size < 0 or size < self.min_response_size:
            self.min_response_size = size
