"""Every metric of a server by its name in the reference, also those that are always 0 here.

`mntr`, the admin server and the Prometheus endpoint print what this gathers; nothing is counted
here. Imported when first asked for. Source: ServerMetrics, ZooKeeperServer.registerMetrics,
ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zkpy.datatree.quota import StatsTrack, limits_path, stats_path
from zkpy.server.stats import Summary

if TYPE_CHECKING:
    from zkpy.server.zkserver import ZooKeeperServer


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COUNTERS: Final = _words(
    """
    add_dead_watcher_stall_time bytes_received_count cnxn_closed_without_zk_server_running
    commit_count connection_drop_count connection_rejected connection_request_count
    connection_revalidate_count dead_watchers_cleared dead_watchers_queued diff_count
    digest_mismatches_count ensemble_auth_fail ensemble_auth_skip ensemble_auth_success
    insecure_admin_count large_requests_rejected learner_commit_received_count
    learner_proposal_received_count looking_count outstanding_changes_queued
    outstanding_changes_removed prep_processor_request_queued proposal_count
    quit_leading_due_to_disloyal_voter request_commit_queued request_throttle_wait_count
    requests_not_forwarded_to_commit_processor response_bytes response_packet_cache_hits
    response_packet_cache_misses response_packet_get_children_cache_hits
    response_packet_get_children_cache_misses restore_error_count restore_rate_limited_count
    revalidate_count sessionless_connections_expired skip_learner_request_to_next_processor_count
    snap_count snapshot_error_count snapshot_rate_limited_count stale_replies stale_requests
    stale_requests_dropped stale_sessions_expired sync_processor_request_queued throttled_ops
    tls_handshake_exceeded unrecoverable_error_count unsuccessful_handshake watch_bytes
    """
)

BASIC_SUMMARIES: Final = _words(
    """
    commit_commit_proc_req_queued commit_process_time
    concurrent_request_processing_in_commit_processor connection_token_deficit dbinittime
    election_time follower_sync_time fsynctime inflight_diff_count inflight_snap_count
    leader_unavailable_time learner_request_processor_queue_size netty_queued_buffer_capacity
    node_changed_watch_count node_children_watch_count node_created_watch_count
    node_deleted_watch_count observer_sync_time pending_session_queue_size prep_process_time
    prep_processor_queue_size proposal_process_time read_commit_proc_issued
    read_commit_proc_req_queued reads_after_write_in_session_queue reads_issued_from_session_queue
    requests_in_session_queue restore_time session_queues_drained snapshottime socket_closing_time
    startup_snap_load_time startup_txns_load_time startup_txns_loaded sync_process_time
    sync_processor_batch_size sync_processor_queue_size
    time_waiting_empty_pool_in_commit_processor_read_ms unavailable_time
    write_batch_time_in_commit_processor write_commit_proc_issued write_commit_proc_req_queued
    """
)

# With percentiles.
ADVANCED_SUMMARIES: Final = _words(
    """
    close_session_prep_time commit_propagation_latency dead_watchers_cleaner_latency
    jvm_pause_time_ms local_write_committed_time_ms om_commit_process_time_ms
    om_proposal_process_time_ms prep_processor_queue_time_ms propagation_latency
    proposal_ack_creation_latency proposal_latency quorum_ack_latency read_commitproc_time_ms
    read_final_proc_time_ms readlatency request_throttle_queue_time_ms
    server_write_committed_time_ms sync_processor_queue_and_flush_time_ms
    sync_processor_queue_flush_time_ms sync_processor_queue_time_ms updatelatency
    write_commitproc_time_ms write_final_proc_time_ms
    """
)


def gauges(server: ZooKeeperServer) -> dict[str, int | float]:
    """What is so now."""
    stats = server.stats
    tree = server.tree
    environment = server.environment
    values: dict[str, int | float] = {
        "avg_latency": stats.average_latency(),
        "max_latency": stats.max_latency(),
        "min_latency": stats.min_latency(),
        "packets_received": stats.packets_received,
        "packets_sent": stats.packets_sent,
        "num_alive_connections": len(server.cnxns),
        "outstanding_requests": outstanding_requests(server),
        "uptime": server.now_ms - stats.start_ms,
        "znode_count": tree.node_count(),
        "watch_count": tree.data_watches.size + tree.child_watches.size,
        "ephemerals_count": tree.ephemerals_count,
        # The path of the root has one byte.
        "approximate_data_size": tree.data_size + 1,
        "global_sessions": server.tracker.sessions,
        "local_sessions": 0,
        "open_file_descriptor_count": environment.open_file_descriptors(),
        "max_file_descriptor_count": environment.max_file_descriptors(),
        "connection_drop_probability": server.connection_drop_probability(),
        "last_client_response_size": stats.last_response_size,
        "max_client_response_size": stats.max_response_size,
        "min_client_response_size": stats.min_response_size,
        "outstanding_tls_handshake": 0,
        "auth_failed_count": stats.auth_failed_count,
        "non_mtls_remote_conn_count": 0,
        "non_mtls_local_conn_count": 0,
    }
    values.update(server.role.gauges())
    return values


def quota_gauges(server: ZooKeeperServer) -> dict[str, dict[str, int]]:
    """Limits and usage by top-level node: metric -> key -> value. -1 is unlimited."""
    nodes = server.tree.nodes
    values: dict[str, dict[str, int]] = {
        "quota_count_limit_per_namespace": {},
        "quota_bytes_limit_per_namespace": {},
        "quota_count_usage_per_namespace": {},
        "quota_bytes_usage_per_namespace": {},
    }
    # The quota nearest to the top speaks for its top-level node.
    for path in sorted(server.tree.quota.paths, key=lambda path: (-path.count("/"), path)):
        limits_node = nodes.get(limits_path(path))
        stats_node = nodes.get(stats_path(path))
        limits = StatsTrack(limits_node.data if limits_node else None)
        usage = StatsTrack(stats_node.data if stats_node else None)
        hard_count, hard_bytes = limits.count_hard_limit, limits.byte_hard_limit
        numbers = (
            hard_count if hard_count > -1 else limits.count,
            hard_bytes if hard_bytes > -1 else limits.bytes,
            usage.count,
            usage.bytes,
        )
        for by_key, number in zip(values.values(), numbers, strict=True):
            by_key[namespace_of(path)] = number
    return values


def namespace_of(path: str) -> str:
    """The first component of a path."""
    return path.split("/", 2)[1]


def counters(server: ZooKeeperServer) -> dict[str, int]:
    """What happened, and how often."""
    stats = server.stats
    values = dict.fromkeys(COUNTERS, 0)
    values.update(
        bytes_received_count=stats.bytes_received,
        connection_drop_count=stats.connection_drop_count,
        connection_rejected=stats.connection_rejected,
        connection_request_count=stats.connection_request_count,
        connection_revalidate_count=stats.connection_revalidate_count,
        large_requests_rejected=stats.large_requests_rejected,
        response_bytes=stats.response_bytes,
        sessionless_connections_expired=stats.sessionless_connections_expired,
        stale_sessions_expired=stats.stale_sessions_expired,
        throttled_ops=stats.throttled_ops,
        watch_bytes=stats.watch_bytes,
    )
    values.update(stats.counters)
    return values


def quota_exceeded(server: ZooKeeperServer) -> dict[str, int]:
    """Refusals by hard quota, by top-level node."""
    return server.prep.quota_exceeded


def basic_summaries(server: ZooKeeperServer) -> dict[str, Summary]:
    """Measurements without percentiles, those of namespaces and learners among them."""
    values = {name: Summary() for name in BASIC_SUMMARIES}
    for name, summary in server.stats.summaries.items():
        if not is_advanced(name):
            values[name] = summary
    return values


def advanced_summaries(server: ZooKeeperServer) -> dict[str, Summary]:
    """Measurements with percentiles."""
    stats = server.stats
    values = {name: Summary() for name in ADVANCED_SUMMARIES}
    for name, summary in stats.summaries.items():
        if is_advanced(name):
            values[name] = summary
    # Reads are served in the moment they come; counting how many is all it costs them.
    if stats.reads:
        values["readlatency"].add(0, stats.reads)
    update = Summary()
    update.count = stats.writes
    update.total = stats.total_write_latency
    update.max = stats.max_write_latency
    update.min = stats.min_write_latency if stats.writes else 0
    update.values = values["updatelatency"].values
    values["updatelatency"] = update
    return values


def is_advanced(name: str) -> bool:
    """Whether a summary has percentiles."""
    return name in ADVANCED_SUMMARIES or name.endswith(("_ack_latency", "_handler_qp_time_ms"))


def outstanding_requests(server: ZooKeeperServer) -> int:
    """Requests that were received and are not answered: writes, and reads behind them."""
    waiting = {request.cnxn: None for request in server.in_flight}
    reads = sum(
        type(entry) is tuple for cnxn in waiting if cnxn is not None for entry in cnxn.pending
    )
    return len(server.in_flight) + reads
