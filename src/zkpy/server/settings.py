"""`Config`: every setting of a server as a typed attribute, units in the names, read only.

Owns the defaults and what follows from other settings. It must not know where values came from:
zoo.cfg is parsed in `config.py`.
"""

from __future__ import annotations

from zkpy.quorum.members import ANY_ADDRESS, Members
from zkpy.server.config_keys import KEYS, TLS_KEYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

UNSET = -1
# What the reference keeps at least: fewer would make catching up need whole snapshots too often.
MIN_COMMIT_LOG_COUNT = 500
MIN_QUORUM_CNXN_THREADS = 20
INT_MASK = 0xFFFFFFFF

# `srvr` is always on: zkServer.sh status, and with it many scripts, ask it.
ALWAYS_ON_FOUR_LETTER_WORDS = frozenset(("srvr",))


class ReadOnly:
    """Attributes are given once, to the constructor."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: settings are read once and do not change")


class TlsSettings(ReadOnly):
    """The keys `ssl.*` (towards clients) or `ssl.quorum.*` (between servers).

    Passwords are resolved: the content of a passwordPath file is already in `*_password`.
    `client_auth` is `none`, `want` or `need`.
    """

    key_store_location: str
    key_store_password: str
    key_store_password_path: str
    key_store_type: str
    trust_store_location: str
    trust_store_password: str
    trust_store_password_path: str
    trust_store_type: str
    protocol: str
    enabled_protocols: str
    cipher_suites: str
    client_auth: str
    hostname_verification: bool
    client_hostname_verification: bool
    allow_reverse_dns_lookup: bool
    crl: bool
    ocsp: bool
    handshake_detection_timeout_ms: int
    auth_provider: str


class Config(ReadOnly):
    """The settings of one server. Attributes of the first group say what the file added up to.

    - `path`, `initial_config`: the file's name and text, "" without file; `entries`: its lines.
    - `properties`: the Java properties in effect, prefix included, zoo.cfg over the command line.
    - `messages`: (logging level, text) to log, in the reference's order and words.
    - `quorum_mode`: whether to run as member of an ensemble; `members`: the server list, perhaps
      empty; `last_proposed`: the list of a `.dynamic.next` file; `my_id`: the number in `myid`.
    - `client_port` None: no plaintext listener; 0: any free port. `*_port_address` is 0.0.0.0
      for all addresses, IPv6 included.
    - `four_letter_words`: those allowed; `*` in it allows all.
    - `auth_providers`: free name after `authProvider.` -> scheme (sasl, x509, ensemble).
    - `metrics_provider`: `default`, `null` or `prometheus`.
    - `digest_alg`: as hashlib spells it.

    For numbers with a special value see config_keys.py and the admin guide of ZooKeeper 3.9.
    """

    path: str
    initial_config: str
    entries: dict[str, str]
    properties: dict[str, str]
    messages: tuple[tuple[int, str], ...]
    quorum_mode: bool
    members: Members
    last_proposed: Members | None
    my_id: int | None
    client_tls: TlsSettings
    quorum_tls: TlsSettings
    four_letter_words: frozenset[str]
    auth_providers: dict[str, str]
    super_users: frozenset[str]
    enforce_auth_schemes: tuple[str, ...]
    metrics_provider: str

    # Data and clients
    data_dir: str
    data_log_dir: str
    client_port: int | None
    client_port_address: str
    secure_client_port: int | None
    secure_client_port_address: str
    client_port_listen_backlog: int
    tick_time_ms: int
    min_session_timeout_ms: int
    max_session_timeout_ms: int
    max_client_cnxns: int
    max_cnxns: int
    jute_max_buffer_bytes: int
    jute_max_buffer_extra_size_bytes: int
    global_outstanding_limit: int
    read_only_mode_enabled: bool
    extended_types_enabled: bool
    emulate_353_ttl_nodes: bool
    enforce_quota: bool
    skip_acl: bool
    enable_eager_acl_check: bool
    client_tcp_keep_alive: bool
    server_cnxn_factory: str
    sessionless_cnxn_timeout_ms: int
    large_request_max_bytes: int
    large_request_threshold_bytes: int
    throttled_op_wait_time_ms: int
    request_throttle_max_requests: int
    request_throttle_stall_time_ms: int
    request_throttle_drop_stale: bool
    request_stale_connection_check: bool
    request_stale_latency_check: bool
    connection_throttle_tokens: int
    connection_throttle_fill_time_ms: int
    connection_throttle_fill_count: int
    connection_throttle_freeze_time_ms: int
    connection_throttle_drop_increase: float
    connection_throttle_drop_decrease: float
    connection_throttle_decrease_ratio: float
    connection_throttle_weight_enabled: bool
    connection_throttle_global_session_weight: int
    connection_throttle_local_session_weight: int
    connection_throttle_renew_session_weight: int
    watch_manager_name: str
    close_session_txn_enabled: bool

    # Storage
    autopurge_snap_retain_count: int
    autopurge_purge_interval_hours: int
    snap_count: int
    snap_size_limit_kib: int
    txn_log_size_limit_kib: int
    pre_alloc_size_kib: int
    force_sync: bool
    fsync_warning_threshold_ms: int
    snapshot_compression_method: str
    snapshot_trust_empty: bool
    datadir_autocreate: bool
    db_autocreate: bool
    digest_enabled: bool
    serialize_last_processed_zxid_enabled: bool
    commit_log_count: int
    snapshot_size_factor: float
    flush_delay_ms: int
    max_write_queue_poll_time_ms: int
    max_batch_size: int
    container_check_interval_ms: int
    container_max_per_minute: int
    container_max_never_used_interval_ms: int

    # Ensemble
    init_limit_ticks: int
    sync_limit_ticks: int
    connect_to_learner_master_limit_ticks: int
    election_alg: int
    leader_serves: bool
    cnx_timeout_ms: int
    quorum_cnxn_timeout_ms: int
    quorum_cnxn_threads_size: int
    quorum_listen_on_all_ips: bool
    election_port_bind_retry: int
    peer_type: str
    standalone_enabled: bool
    reconfig_enabled: bool
    dynamic_config_file: str
    sync_enabled: bool
    observer_master_port: int
    observer_master_size_limit_bytes: int
    observer_reconnect_delay_ms: int
    observer_election_delay_ms: int
    local_sessions_enabled: bool
    local_sessions_upgrading_enabled: bool
    tcp_keep_alive: bool
    min_notification_interval_ms: int
    max_notification_interval_ms: int
    max_time_to_wait_for_epoch_ms: int
    max_concurrent_snap_syncs: int
    max_concurrent_diff_syncs: int
    leader_connect_delay_during_retry_ms: int
    force_snapshot_sync: bool
    multi_address_enabled: bool
    multi_address_reachability_check_enabled: bool
    multi_address_reachability_check_timeout_ms: int
    oracle_path: str
    leader_nodelay: bool
    follower_nodelay: bool
    initial_zxid: int

    # Admin server, metrics, audit
    admin_enable_server: bool
    admin_server_port: int
    admin_server_address: str
    admin_command_url: str
    admin_idle_timeout_ms: int
    admin_port_unification: bool
    admin_force_https: bool
    admin_need_client_auth: bool
    admin_snapshot_enabled: bool
    admin_restore_enabled: bool
    admin_rate_limiter_interval_ms: int
    metrics_provider_class_name: str
    metrics_http_host: str
    metrics_http_port: int
    metrics_export_jvm_info: bool
    audit_enable: bool
    pause_monitor: bool
    pause_warn_threshold_ms: int
    pause_info_threshold_ms: int
    pause_sleep_time_ms: int

    # Client authentication
    digest_auth_enabled: bool
    super_digest: str
    digest_alg: str
    ip_auth_use_x_forwarded_for: bool
    x509_super_user: str
    ensemble_auth_name: str
    enforce_auth_enabled: bool
    session_require_client_sasl_auth: bool
    allow_sasl_failed_clients: bool
    sasl_server_config: str
    jaas_config_path: str

    # Quorum authentication
    quorum_enable_sasl: bool
    quorum_learner_require_sasl: bool
    quorum_server_require_sasl: bool
    quorum_learner_login_context: str
    quorum_server_login_context: str
    quorum_service_principal: str

    # TLS, apart from the stores
    ssl_quorum: bool
    port_unification: bool
    ssl_quorum_reload_cert_files: bool
    client_port_unification: bool
    client_cert_reload: bool
    fips_mode: bool

    @property
    def warnings(self) -> list[str]:
        """The texts of `messages` an operator should look at."""
        return [text for level, text in self.messages if level >= 30]

    @classmethod
    def standalone(
        cls, port: int, data_dir: str, tick_time_ms: int = 3000, max_client_cnxns: int = 0
    ) -> Config:
        """What `port dataDir [tickTime] [maxClientCnxns]` on the command line means.

        Source: ServerConfig.parse(String[]), where maxClientCnxns is 0 (no limit), not 60.
        """
        return make_config(
            client_port=port,
            data_dir=data_dir,
            tick_time_ms=tick_time_ms,
            max_client_cnxns=max_client_cnxns,
        )


def tls_defaults(*, quorum: bool) -> dict[str, object]:
    defaults = {row[0]: row[4] for row in TLS_KEYS}
    # Between servers the dialled side knows the names of all members, so it checks them.
    defaults["client_hostname_verification"] = quorum
    return defaults


def defaults() -> dict[str, object]:
    """A value for every attribute of Config: what an empty zoo.cfg means."""
    values: dict[str, object] = {row[0]: row[4] for row in KEYS}
    values.update(
        path="",
        initial_config="",
        entries={},
        properties={},
        messages=(),
        quorum_mode=False,
        members=Members({}),
        last_proposed=None,
        my_id=None,
        client_tls=TlsSettings(tls_defaults(quorum=False)),
        quorum_tls=TlsSettings(tls_defaults(quorum=True)),
        four_letter_words=ALWAYS_ON_FOUR_LETTER_WORDS,
        auth_providers={},
        super_users=frozenset(),
        enforce_auth_schemes=(),
        metrics_provider="default",
        digest_alg="sha1",
    )
    return values


def derive(values: dict[str, object]) -> None:
    """Fill in, in `values`, what follows from other settings where it was left unset."""

    def number(name: str) -> int:
        value = values[name]
        assert isinstance(value, int), name
        return value

    def default(name: str, unset: object, value: object) -> None:
        if values[name] == unset:
            values[name] = value

    default("data_log_dir", "", values["data_dir"])
    default("client_port_address", "", ANY_ADDRESS)
    default("secure_client_port_address", "", ANY_ADDRESS)
    default("min_session_timeout_ms", UNSET, int32(2 * number("tick_time_ms")))
    default("max_session_timeout_ms", UNSET, int32(20 * number("tick_time_ms")))
    default("connect_to_learner_master_limit_ticks", 0, values["init_limit_ticks"])
    sync_ms = number("sync_limit_ticks") * number("tick_time_ms")
    default("quorum_cnxn_timeout_ms", UNSET, sync_ms)
    default("jute_max_buffer_extra_size_bytes", UNSET, values["jute_max_buffer_bytes"])
    default("max_write_queue_poll_time_ms", UNSET, number("flush_delay_ms") // 3)
    values["commit_log_count"] = max(MIN_COMMIT_LOG_COUNT, number("commit_log_count"))
    values["quorum_cnxn_threads_size"] = max(
        MIN_QUORUM_CNXN_THREADS, number("quorum_cnxn_threads_size")
    )
    factor = values["snapshot_size_factor"]
    if not isinstance(factor, float) or not factor <= 1:  # NaN is refused here too
        values["snapshot_size_factor"] = 0.33


def int32(value: int) -> int:
    """Wrap as Java's int does: a huge tickTime must fail the same check as there."""
    return (value + 0x80000000 & INT_MASK) - 0x80000000


def make_config(**overrides: object) -> Config:
    """A Config without a file, for tests and embedding: defaults, then `overrides` by attribute.

    Settings that follow from others do so here too. Raises TypeError for an unknown attribute.
    """
    values = defaults()
    for name, value in overrides.items():
        if name not in values:
            raise TypeError(f"Config has no attribute {name!r}")
        values[name] = value
    derive(values)
    return Config(values)
