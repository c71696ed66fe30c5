"""Which settings go to which part: a Config taken apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zkpy.persistence.store import Settings
from zkpy.session.auth import (
    AuthenticationProvider,
    DigestAuthenticationProvider,
    EnsembleAuthenticationProvider,
    IPAuthenticationProvider,
    ProviderRegistry,
)

if TYPE_CHECKING:
    from zkpy.server.settings import Config

log = logging.getLogger(__name__)


def settings_of(config: Config) -> Settings:
    """The part of the configuration that is about files."""
    return Settings(
        data_dir=config.data_dir,
        data_log_dir=config.data_log_dir,
        preallocate_bytes=max(0, config.pre_alloc_size_kib) * 1024,
        force_sync=config.force_sync,
        txn_log_size_limit_bytes=config.txn_log_size_limit_kib * 1024,
        max_record_bytes=config.jute_max_buffer_bytes + config.jute_max_buffer_extra_size_bytes,
        compression_method=config.snapshot_compression_method,
        digest_enabled=config.digest_enabled,
        serialize_last_processed_zxid=config.serialize_last_processed_zxid_enabled,
        trust_empty_snapshot=config.snapshot_trust_empty,
        datadir_autocreate=config.datadir_autocreate,
        db_autocreate=config.db_autocreate,
        extended_types_enabled=config.extended_types_enabled,
        emulate_353_ttl_nodes=config.emulate_353_ttl_nodes,
    )


def registry_of(config: Config) -> ProviderRegistry:
    """The authentication providers that are configured."""
    providers: list[AuthenticationProvider] = [IPAuthenticationProvider()]
    if config.digest_auth_enabled:
        providers.append(
            DigestAuthenticationProvider(
                algorithm=config.digest_alg, super_digest=config.super_digest
            )
        )
    if "ensemble" in config.auth_providers.values():
        names = config.ensemble_auth_name
        providers.append(EnsembleAuthenticationProvider(names.split(",") if names else None))
    if config.skip_acl:
        log.warning('zookeeper.skipACL=="yes", ACL checks will be skipped')
    return ProviderRegistry(providers, skip_acl=config.skip_acl)
