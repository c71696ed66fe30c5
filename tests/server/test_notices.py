"""What an operator hears at the start."""

from __future__ import annotations

from typing import Any

import pytest

from zkpy.server.notices import WARNING, notices, refusal
from zkpy.server.settings import make_config


def texts(**settings: Any) -> list[str]:
    settings.setdefault("client_port", 2181)
    settings.setdefault("admin_enable_server", False)
    found = notices(make_config(data_dir="/data", **settings))
    assert all(level == WARNING for level, _ in found)
    return [text for _, text in found]


def test_nothing_to_say() -> None:
    assert texts() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"force_sync": False}, "forceSync=no: transactions are NOT synced"),
        ({"client_port": None}, "no clientPort"),
        ({"secure_client_port": 2281}, "secureClientPort=2281 is not served by this version"),
        ({"client_port_unification": True}, "client.portUnification is not served"),
        ({"admin_enable_server": True}, "(admin.serverPort=8080) is not served"),
        ({"metrics_provider": "prometheus"}, "metricsProvider.httpPort=7000 is not served"),
        ({"audit_enable": True}, "audit.enable=true is not served"),
        ({"auth_providers": {"1": "sasl"}}, "authProvider SASL is not served"),
        ({"quorum_mode": True, "observer_master_port": 2191}, "observerMasterPort=2191 is not"),
    ],
)
def test_one_line_each(settings: dict[str, Any], words: str) -> None:
    (text,) = texts(**settings)
    assert words in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ssl_quorum": True}, "sslQuorum=true is not served"),
        ({"port_unification": True}, "portUnification=true is not served"),
        ({"quorum_enable_sasl": True}, "quorum.auth.enableSasl=true is not served"),
    ],
)
def test_members_that_should_know_each_other_do_not_start_without(
    settings: dict[str, Any], words: str
) -> None:
    assert refusal(make_config(data_dir="/data", **settings)) is None, "alone it protects nothing"
    reason = refusal(make_config(data_dir="/data", quorum_mode=True, **settings))
    assert reason is not None and reason.startswith(words)
