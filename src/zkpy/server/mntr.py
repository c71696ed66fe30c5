"""`mntr`: every metric as a line `zk_<key> TAB <value>`; the admin server's monitor has the keys.

Source: MonitorCommand, ZooKeeper 3.9, with the default metrics provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zkpy.server import metrics
from zkpy.server.version import zookeeper_version_text

if TYPE_CHECKING:
    from zkpy.server.stats import Summary
    from zkpy.server.zkserver import ZooKeeperServer

Values = dict[str, int | float | str]


def mntr(server: ZooKeeperServer) -> str:
    """The text of the four letter word."""
    return "".join(f"zk_{key}\t{value}\n" for key, value in monitor_values(server).items())


def monitor_values(server: ZooKeeperServer) -> Values:
    """All keys without their `zk_`; version and state come first."""
    values: Values = {
        "version": zookeeper_version_text(),
        "server_state": server.role.mode(),
    }
    peer_state = server.role.peer_state()
    if peer_state is not None:
        values["peer_state"] = peer_state
    values.update(metrics.gauges(server))
    for name, by_key in metrics.quota_gauges(server).items():
        for key, number in by_key.items():
            values[f"{key}_{name}"] = number
    values.update(metrics.counters(server))
    for key, number in metrics.quota_exceeded(server).items():
        values[f"{key}_quota_exceeded_error_per_namespace"] = number
    for name, summary in metrics.basic_summaries(server).items():
        _add_basic(values, name, summary)
    for name, summary in metrics.advanced_summaries(server).items():
        _add_basic(values, name, summary)
        for label, permille in (("p50", 500), ("p95", 950), ("p99", 990), ("p999", 999)):
            values[f"{label}_{name}"] = summary.percentile(permille)
    return values


def _add_basic(values: Values, name: str, summary: Summary) -> None:
    values[f"avg_{name}"] = summary.average()
    values[f"min_{name}"] = summary.min
    values[f"max_{name}"] = summary.max
    values[f"cnt_{name}"] = summary.count
    values[f"sum_{name}"] = summary.total
