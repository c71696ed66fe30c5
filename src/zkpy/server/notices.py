"""What an operator should hear at the start of a server, beside what its configuration file said.

Owns what this version does not serve though the configuration asks for it: one line each.
Source of the warnings about safety: operators' guide, ZooKeeper 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkpy.server.settings import Config

INFO = 20  # logging.INFO, logging.WARNING
WARNING = 30

ABSENT = "is not served by this version of zkpy"


def notices(config: Config) -> list[tuple[int, str]]:
    """(logging level, text) of each, the dangerous ones first."""
    texts: list[str] = []
    if not config.force_sync:
        texts.append(
            "forceSync=no: transactions are NOT synced to disk before they are acknowledged; "
            "a crash of the machine loses acknowledged writes"
        )
    if config.client_port is None:
        texts.append("no clientPort: this server has no port that clients could reach")
    if config.secure_client_port is not None:
        texts.append(f"secureClientPort={config.secure_client_port} {ABSENT}: no TLS for clients")
    if config.client_port_unification:
        texts.append(f"client.portUnification {ABSENT}: clientPort takes no TLS")
    if config.admin_enable_server:
        texts.append(
            f"the admin server (admin.serverPort={config.admin_server_port}) {ABSENT}; "
            "admin.enableServer=false confirms that it is not missed"
        )
    if config.metrics_provider == "prometheus":
        texts.append(f"metricsProvider.httpPort={config.metrics_http_port} {ABSENT}")
    if config.audit_enable:
        texts.append(f"audit.enable=true {ABSENT}: no audit log is written")
    if config.quorum_mode and config.observer_master_port > 0:
        texts.append(
            f"observerMasterPort={config.observer_master_port} {ABSENT}: "
            "observers follow the leader"
        )
    if "sasl" in config.auth_providers.values():
        texts.append(f"authProvider SASL {ABSENT}: clients cannot authenticate with it")
    return [(WARNING, text) for text in texts]


def refusal(config: Config) -> str | None:
    """Why this configuration must not be served at all: what it protects would lie open."""
    if not config.quorum_mode:
        return None
    asked = {
        "sslQuorum=true": config.ssl_quorum,
        "portUnification=true": config.port_unification,
        "quorum.auth.enableSasl=true": config.quorum_enable_sasl,
    }
    for name, is_set in asked.items():
        if is_set:
            return f"{name} {ABSENT}, and without it the members would trust whoever connects"
    return None
