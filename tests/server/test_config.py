"""Where settings come from, what bad values do, and what follows from what."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.protocol.config_error import UNEXPECTED
from zkpy.server import config_keys
from zkpy.server.config import (
    Config,
    ConfigException,
    TlsSettings,
    config_from_arguments,
    load_config,
    make_config,
    parse_config,
    properties_from_flags,
)
from zkpy.server.settings import defaults, tls_defaults

BASE = "dataDir=/data\nclientPort=2181\n"
QUORUM = BASE + "initLimit=10\nsyncLimit=5\n"
SERVERS = "server.1=h:1:2\nserver.2=i:1:2\nserver.3=j:1:2\n"


def parse(text: str, files: Mapping[str, str] | None = None, **properties: str) -> Config:
    """Parse BASE and `text`; properties have `_` for the dots of their names."""
    named = {name.replace("_", "."): value for name, value in properties.items()}
    contents = {"/data/myid": "1\n"} if files is None else files
    return parse_config(BASE + text, path="/zoo.cfg", properties=named, read_file=contents.get)


def refusal(text: str, files: Mapping[str, str] | None = None) -> ConfigException:
    with pytest.raises(ConfigException) as caught:
        parse(text, files)
    return caught.value


# -- the table and the class ---------------------------------------------------------------------

TYPES = {"int": "int", "long": "int", "double": "float", "text": "str"}


@pytest.mark.parametrize(
    ("rows", "owner"), [(config_keys.KEYS, Config), (config_keys.TLS_KEYS, TlsSettings)]
)
def test_the_table_and_the_annotations_agree(
    rows: tuple[config_keys.Row, ...], owner: type
) -> None:
    for name, key, kind, value_type, default, mark in rows:
        expected = TYPES.get(value_type, "bool") + (" | None" if default is None else "")
        assert owner.__annotations__[name] == expected, key
        assert kind in ("cfg", "prop", "bare", "either", "both", "provider")
        assert mark in ("must", "should", "rare")
    names = [row[0] for row in rows]
    keys = [row[1] for row in rows]
    assert len(set(names)) == len(names)
    assert len(set(keys)) == len(keys)


def test_every_attribute_has_a_default() -> None:
    assert defaults().keys() == Config.__annotations__.keys()
    assert tls_defaults(quorum=True).keys() == TlsSettings.__annotations__.keys()


def test_aliases_name_known_keys() -> None:
    assert set(config_keys.ALIASES.values()) <= config_keys.known_keys()


def test_settings_do_not_change() -> None:
    config = make_config()
    with pytest.raises(AttributeError, match="tick_time_ms"):
        config.tick_time_ms = 1
    with pytest.raises(AttributeError):
        config.client_tls.protocol = "TLSv1.2"


# -- defaults and what follows -------------------------------------------------------------------


def test_minimal_ensemble_file() -> None:
    text = (
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/var/lib/zookeeper\nclientPort=2181\n"
        "# ensemble only\nserver.1=127.0.0.1:2222:2223\nserver.2=127.0.0.1:3333:3334\n"
        "server.3=127.0.0.1:4444:4445\n"
    )
    files = {"/etc/zoo.cfg": text, "/var/lib/zookeeper/myid": "2"}
    config = load_config("/etc/zoo.cfg", properties={}, read_file=files.get)
    assert config.quorum_mode
    assert config.my_id == 2
    assert (config.client_port, config.client_port_address) == (2181, "0.0.0.0")
    assert (config.data_dir, config.data_log_dir) == ("/var/lib/zookeeper",) * 2
    assert (config.min_session_timeout_ms, config.max_session_timeout_ms) == (4000, 40000)
    assert config.connect_to_learner_master_limit_ticks == 10
    assert config.quorum_cnxn_timeout_ms == 10000
    assert list(config.members.servers) == [1, 2, 3]
    assert config.warnings == ["maxCnxns is not configured, using default value 0."]
    assert config.initial_config == text
    assert config.messages[0] == (20, "Reading configuration from: /etc/zoo.cfg")


def test_defaults() -> None:
    config = parse("")
    assert not config.quorum_mode
    assert config.tick_time_ms == 3000
    assert config.max_client_cnxns == 60
    assert config.jute_max_buffer_bytes == config.jute_max_buffer_extra_size_bytes == 0xFFFFF
    assert config.snap_count == 100000
    assert config.four_letter_words == {"srvr"}
    assert config.digest_alg == "sha1"
    assert config.metrics_provider == "default"
    assert config.secure_client_port is None
    assert config.admin_enable_server and config.admin_server_port == 8080
    assert config.force_sync and config.leader_serves and not config.skip_acl
    assert not config.client_tls.client_hostname_verification
    assert config.quorum_tls.client_hostname_verification
    assert not config.quorum_tls.allow_reverse_dns_lookup


def test_derived_settings() -> None:
    config = parse("flushDelay=30\njute.maxbuffer=2000\ncommitLogCount=7\n")
    assert config.max_write_queue_poll_time_ms == 10
    assert config.jute_max_buffer_extra_size_bytes == 2000
    assert config.commit_log_count == 500
    config = parse("flushDelay=30\nmaxWriteQueuePollTime=1\nquorum.cnxn.threads.size=3\n")
    assert config.max_write_queue_poll_time_ms == 1
    assert config.quorum_cnxn_threads_size == 20
    assert parse("snapshotSizeFactor=1.5\n").snapshot_size_factor == 0.33
    assert parse("snapshotSizeFactor=nan\n").snapshot_size_factor == 0.33
    assert parse("snapshotSizeFactor=-1\n").snapshot_size_factor == -1.0


def test_a_session_timeout_may_be_given_alone() -> None:
    config = parse("tickTime=1000\nmaxSessionTimeout=5000\n")
    assert (config.min_session_timeout_ms, config.max_session_timeout_ms) == (2000, 5000)
    assert "must not be larger" in str(refusal("tickTime=1000\nmaxSessionTimeout=1999\n"))
    # 20 times this does not fit in 32 bits: the reference wraps, and refuses
    assert "must not be larger" in str(refusal("tickTime=200000000\n"))


# -- where a value comes from --------------------------------------------------------------------


def test_the_file_wins_over_the_command_line() -> None:
    config = parse("snapCount=7\n", zookeeper_snapCount="9", zookeeper_globalOutstandingLimit="5")
    assert config.snap_count == 7
    assert config.global_outstanding_limit == 5
    assert config.properties["zookeeper.snapCount"] == "7"
    assert config.entries["snapCount"] == "7"


def test_keys_without_prefix_work_both_ways() -> None:
    assert parse("", jute_maxbuffer="5000").jute_max_buffer_bytes == 5000
    assert parse("jute.maxbuffer=6000\n", jute_maxbuffer="5000").jute_max_buffer_bytes == 6000
    assert parse("", zookeeper_jute_maxbuffer="5000").jute_max_buffer_bytes == 0xFFFFF
    config = parse("readonlymode.enabled=true\n")
    assert config.read_only_mode_enabled
    assert config.four_letter_words == {"srvr", "isro"}


def test_either_name_of_the_fsync_warning() -> None:
    assert parse("", fsync_warningthresholdms="5").fsync_warning_threshold_ms == 5
    both = {"zookeeper_fsync_warningthresholdms": "6", "fsync_warningthresholdms": "5"}
    assert parse("", **both).fsync_warning_threshold_ms == 6
    assert parse("fsync.warningthresholdms=7\n", **both).fsync_warning_threshold_ms == 7


def test_parser_keys_are_not_properties() -> None:
    config = parse("tickTime=2000\n", zookeeper_tickTime="9", zookeeper_maxClientCnxns="9")
    assert config.tick_time_ms == 2000
    assert config.max_client_cnxns == 60


def test_nicknames() -> None:
    assert parse("connectionMaxTokens=3\n").connection_throttle_tokens == 3
    assert parse("", zookeeper_connectionMaxTokens="4").connection_throttle_tokens == 4
    both = "connectionMaxTokens=3\nconnection_throttle_tokens=5\n"
    assert parse(both).connection_throttle_tokens == 5
    assert not [m for m in parse(both).warnings if "unknown" in m]


def test_sync_enabled_of_observers() -> None:
    assert parse("").sync_enabled
    assert not parse("syncEnabled=false\n").sync_enabled
    assert parse("syncEnabled=false\nobserver.syncEnabled=true\n").sync_enabled
    assert not parse("syncEnabled=true\n", zookeeper_observer_syncEnabled="no").sync_enabled


def test_multi_address_by_property_and_by_key() -> None:
    line = "initLimit=1\nsyncLimit=1\nserver.1=a:1:2|b:1:2\nserver.2=c:1:2\n"
    assert parse(line, zookeeper_multiAddress_enabled="true").multi_address_enabled
    assert parse("multiAddress.enabled=true\n" + line).multi_address_enabled
    assert "Multiple address feature is disabled" in str(refusal(line))
    assert "Invalid option 1 for multiAddress.enabled" in str(refusal("multiAddress.enabled=1\n"))


def test_flags() -> None:
    tokens = "-Xmx1g -Dzookeeper.snapCount=7 -Da.b=c=d -Dempty= -Dbare -D -Dzookeeper.snapCount=8"
    assert properties_from_flags(tokens.split()) == {
        "zookeeper.snapCount": "8",
        "a.b": "c=d",
        "empty": "",
        "bare": "",
    }


# -- bad values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["abc", "", "1 # one", "99999999999", "1_0", "0x10"])
def test_bad_parser_number(text: str) -> None:
    error = refusal(f"initLimit={text}\n")
    assert str(error) == (
        f'Error processing /zoo.cfg: NumberFormatException: For input string: "{text}"'
    )
    assert error.key == "initLimit"
    assert error.exit_code == 2
    assert error.stderr_line == f"Invalid config, exiting abnormally: {error} (initLimit)"


def test_bad_property_number_is_the_default() -> None:
    for text in ("abc", "", "9999999999", "1.5"):
        assert parse(f"admin.serverPort={text}\n").admin_server_port == 8080
    assert parse("admin.serverPort=0x1F90\n").admin_server_port == 8080
    assert parse("admin.serverPort=010\n").admin_server_port == 8
    assert parse("snapSizeLimitInKb=9999999999\n").snap_size_limit_kib == 9999999999
    assert parse("connection_throttle_drop_increase=x\n").connection_throttle_drop_increase == 0.02


def test_property_booleans() -> None:
    for text in ("true", "TRUE"):
        assert parse(f"enforceQuota={text}\ndigest.enabled={text}\n").enforce_quota
    for text in ("yes", "1", "", "false"):
        config = parse(f"enforceQuota={text}\ndigest.enabled={text}\n")
        assert not config.enforce_quota
        assert not config.digest_enabled


def test_special_booleans() -> None:
    config = parse("leaderServes=no\nforceSync=no\nskipACL=yes\nadmin.enableServer=false\n")
    assert not (config.leader_serves or config.force_sync or config.admin_enable_server)
    assert config.skip_acl
    config = parse("leaderServes=No\nforceSync=false\nskipACL=true\nadmin.enableServer=False\n")
    assert config.leader_serves and config.force_sync and config.admin_enable_server
    assert not config.skip_acl


def test_a_broken_escape() -> None:
    assert str(refusal("a=\\u1\n")) == "Error processing /zoo.cfg: Malformed \\uxxxx encoding."


def test_storage_checks() -> None:
    config = parse("preAllocSize=64\nsnapshot.compression.method=gz\nmaxCnxns=-1\n")
    assert config.pre_alloc_size_kib == 64
    assert config.snapshot_compression_method == "gz"
    assert config.max_cnxns == 0
    assert config.warnings[-1].startswith("maxCnxns should be")
    config = parse("preAllocSize=0x40\nsnapshot.compression.method=zip\nmaxCnxns=9\n")
    assert config.pre_alloc_size_kib == 65536
    assert config.snapshot_compression_method == ""
    assert config.warnings[-1] == "0x40 is not a valid value for preAllocSize"
    assert (20, "maxCnxns configured value is 9.") in config.messages


# -- unknown keys --------------------------------------------------------------------------------


def test_unknown_keys() -> None:
    config = parse("tickTme=1\nzzqq=1\nauthProvider.9=x\nsuperUser.1=bob\nssl.keystore=a\n")
    assert [m for m in config.warnings if "unknown" in m] == [
        "unknown configuration key 'tickTme' (did you mean 'tickTime'?)",
        "unknown configuration key 'zzqq'",
        "unknown configuration key 'ssl.keystore' (did you mean 'ssl.keyStore.type'?)",
    ]
    assert config.properties["zookeeper.tickTme"] == "1"


def test_the_hint_comes_with_the_error_it_explains() -> None:
    with pytest.raises(ConfigException, match="dataDir is not set") as caught:
        parse_config("datadir=/x\n", path="/z", properties={}, read_file=lambda _: None)
    hint = "unknown configuration key 'datadir' (did you mean 'dataDir'?)"
    assert (30, hint) in caught.value.messages


def test_every_known_key_is_accepted() -> None:
    for key in config_keys.known_keys() - {"dynamicConfigFile"}:
        try:
            warnings = parse(f"{key}=\n").warnings
        except ConfigException as error:
            warnings = [text for _, text in error.messages]
        assert not [text for text in warnings if "unknown" in text], key


# -- listeners and the own server line -----------------------------------------------------------


def test_ports() -> None:
    config = parse_config("dataDir=/d", path="/z", properties={}, read_file=lambda _: None)
    assert config.client_port is None
    assert "clientPort is not set" in [text for _, text in config.messages]
    assert parse("clientPort=0\n").client_port == 0
    config = parse("clientPortAddress=[::1]\nsecureClientPort=2281\n")
    assert config.client_port_address == "::1"
    assert (20, "clientPortAddress is [::1]:2181") in config.messages
    assert config.secure_client_port == 2281
    assert config.auth_providers == {"x509": "x509"}
    assert str(refusal("secureClientPort=-1\n")).endswith("port out of range:-1")


def test_client_address_of_the_own_line() -> None:
    config = parse("server.1=h:1:2;10.0.0.1:2181\n")
    assert (config.client_port, config.client_port_address) == (2181, "10.0.0.1")
    assert not config.quorum_mode
    text = "dataDir=/data\nserver.1=h:1:2;2199\n"
    config = parse_config(text, path="/z", properties={}, read_file={"/data/myid": "1"}.get)
    assert (config.client_port, config.client_port_address) == (2199, "0.0.0.0")
    # another server's line says nothing about us
    assert parse("server.1=h:1:2;2199\n", {"/data/myid": "2"}).client_port == 2181
    assert parse("server.1=h:1:2;2199\n", {}).client_port == 2181


def test_client_addresses_that_disagree() -> None:
    error = refusal("clientPortAddress=localhost\nserver.1=h:1:2;10.0.0.1:2181\n")
    assert str(error) == (
        "client address for this server (id = 1) in static config file is"
        " localhost/localhost:2181 is different from client address found in dynamic file:"
        " /10.0.0.1:2181"
    )
    names = {"localhost": "127.0.0.1"}
    config = parse_config(
        BASE + "clientPortAddress=localhost\nserver.1=h:1:2;127.0.0.1:2181\n",
        path="/z",
        properties={},
        read_file={"/data/myid": "1"}.get,
        resolve=lambda host: names.get(host, host),
    )
    assert config.client_port_address == "127.0.0.1"


# -- the ensemble --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "my_id"), [("1", 1), (" 2 \r\n", 2), ("3\n9\n", 3), ("-4", -4), ("+5", 5)]
)
def test_my_id(text: str, my_id: int) -> None:
    assert parse("", {"/data/myid": text}).my_id == my_id


@pytest.mark.parametrize("text", ["", "\n1\n", "one", "1 2", "99999999999999999999"])
def test_bad_my_id(text: str) -> None:
    assert "is not a number" in str(refusal("", {"/data/myid": text}))


def test_my_id_is_optional_when_standalone() -> None:
    assert parse("", {}).my_id is None
    with pytest.raises(ConfigException, match="myid file is missing"):
        parse_config(QUORUM + SERVERS, path="/z", properties={}, read_file=lambda _: None)


def test_an_id_outside_the_list_ends_with_1() -> None:
    with pytest.raises(ConfigException) as caught:
        parse_config(QUORUM + SERVERS, path="/z", properties={}, read_file={"/data/myid": "9"}.get)
    assert str(caught.value) == "My id 9 not in the peer list"
    assert (caught.value.exit_code, caught.value.headline) == (1, UNEXPECTED)


def test_dynamic_file() -> None:
    files = {
        "/data/myid": "2",
        "/dyn.1f": SERVERS,
        "/zoo.cfg.dynamic.next": SERVERS + "server.4=k:1:2\nversion=2f",
    }
    text = "initLimit=1\nsyncLimit=1\ndynamicConfigFile=/dyn.1f\n"
    assert parse(text, files).last_proposed is None, "without reconfig only the list counts"
    text += "reconfigEnabled=true\n"
    config = parse(text, files)
    assert config.quorum_mode
    assert config.members.version == 0x1F
    assert config.last_proposed is not None
    assert config.last_proposed.version == 0x2F
    assert list(config.last_proposed.servers) == [1, 2, 3, 4]
    del files["/zoo.cfg.dynamic.next"]
    assert parse(text, files).last_proposed is None
    error = refusal("dynamicConfigFile=/dyn.1f\n", files)
    assert str(error) == "Error processing /dyn.1f: initLimit is not set"
    files["/zoo.cfg.dynamic.next"] = "version=x"
    assert str(refusal(text, files)).startswith("Error processing /zoo.cfg.dynamic.next: Number")
    assert "No such file" in str(refusal("dynamicConfigFile=\n", files))


# -- collections and components ------------------------------------------------------------------


def test_four_letter_words() -> None:
    words = parse("4lw.commands.whitelist=stat, ruok,, conf\n").four_letter_words
    assert words == {"srvr", "stat", "ruok", "conf"}
    assert "*" in parse("4lw.commands.whitelist=*\n").four_letter_words


def test_super_users_and_providers() -> None:
    package = "org.apache.zookeeper.server.auth."
    config = parse(
        "superUser=a\nsuperUser.2=b\n"
        f"authProvider.1={package}SASLAuthenticationProvider\n"
        f"authProvider.cert={package}X509AuthenticationProvider\n"
        "authProvider.2=foo.Bar\n"
    )
    assert config.super_users == {"a", "b"}
    assert config.auth_providers == {"1": "sasl", "cert": "x509"}
    assert "Problems loading foo.Bar" in config.warnings


def test_enforced_authentication() -> None:
    config = parse("enforce.auth.enabled=true\nenforce.auth.schemes=ip, digest\n")
    assert config.enforce_auth_enabled
    assert config.enforce_auth_schemes == ("ip", "digest")
    config = parse("sessionRequireClientSASLAuth=true\n")
    assert config.enforce_auth_enabled
    assert config.enforce_auth_schemes == ("sasl",)
    error = refusal(
        "DigestAuthenticationProvider.enabled=false\n"
        "enforce.auth.enabled=true\nenforce.auth.schemes=digest\n"
    )
    assert error.stderr_line == (
        "Usage: ZooKeeperServerMain configfile | port datadir [ticktime] [maxcnxns]:"
        " Authentication scheme digest is not available."
    )


def test_metrics() -> None:
    prometheus = (
        "metricsProvider.className="
        "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n"
    )
    config = parse(
        prometheus
        + "metricsProvider.httpPort=7\nmetricsProvider.httpHost=h\n"
        + "metricsProvider.exportJvmInfo=false\n"
    )
    assert config.metrics_provider == "prometheus"
    assert (config.metrics_http_host, config.metrics_http_port) == ("h", 7)
    assert not config.metrics_export_jvm_info
    assert refusal(prometheus + "metricsProvider.httpPort=x\n").exit_code == 2
    # the default provider does not look at settings of others
    assert parse("metricsProvider.httpPort=x\n").metrics_http_port == 7000
    null = "metricsProvider.className=org.apache.zookeeper.metrics.impl.NullMetricsProvider\n"
    assert parse(null).metrics_provider == "null"


def test_digest_algorithm() -> None:
    assert parse("DigestAuthenticationProvider.digestAlg=sha-256\n").digest_alg == "sha256"
    assert parse("DigestAuthenticationProvider.digestAlg=SHA3-512\n").digest_alg == "sha3_512"


def test_tls() -> None:
    files = {"/secret": "pass word\n", "/data/myid": "1"}
    config = parse(
        "ssl.keyStore.location=/k.pem\nssl.keyStore.password=x\nssl.keyStore.passwordPath=/secret\n"
        "ssl.clientAuth=NONE\nssl.quorum.trustStore.location=/t.pem\nssl.quorum.crl=true\n",
        files,
    )
    assert config.client_tls.key_store_location == "/k.pem"
    assert config.client_tls.key_store_password == "pass word"
    assert config.client_tls.client_auth == "none"
    assert config.quorum_tls.trust_store_location == "/t.pem"
    assert config.quorum_tls.crl and not config.client_tls.crl
    assert "password file /nope" in str(refusal("ssl.trustStore.passwordPath=/nope\n"))
    error = refusal("ssl.quorum.clientAuth=maybe\n")
    assert "Invalid option maybe for ssl.quorum.clientAuth" in str(error)


# -- without a file ------------------------------------------------------------------------------


def test_arguments() -> None:
    config = config_from_arguments(["2181", "/d//x/"], {"zookeeper.snapCount": "7"})
    assert (config.client_port, config.data_dir, config.data_log_dir) == (2181, "/d/x", "/d/x")
    assert (config.tick_time_ms, config.max_client_cnxns, config.snap_count) == (3000, 0, 7)
    config = config_from_arguments(["2181", "/d", "1000", "9"], {})
    assert (config.tick_time_ms, config.max_client_cnxns) == (1000, 9)
    assert config.min_session_timeout_ms == 2000
    assert "running in standalone mode" in config.warnings[0]
    for arguments in ([], ["2181"], ["a", "/d"], ["1", "/d", "x"], ["1", "2", "3", "4", "5"]):
        with pytest.raises(ConfigException) as caught:
            config_from_arguments(arguments, {})
        assert caught.value.exit_code == 2
        assert caught.value.headline.startswith("Usage: ZooKeeperServerMain configfile |")


def test_standalone() -> None:
    config = Config.standalone(2181, "/d")
    assert (config.client_port, config.data_dir, config.max_client_cnxns) == (2181, "/d", 0)
    assert Config.standalone(2181, "/d", 1000, 5).max_session_timeout_ms == 20000


def test_make_config() -> None:
    config = make_config(tick_time_ms=10, data_dir="/d", my_id=3)
    assert (config.max_session_timeout_ms, config.data_log_dir, config.my_id) == (200, "/d", 3)
    with pytest.raises(TypeError, match="tick_time"):
        make_config(tick_time=10)


def test_missing_and_unreadable_files() -> None:
    with pytest.raises(ConfigException) as caught:
        load_config("/z", properties={}, read_file=lambda _: None)
    assert caught.value.stderr_line == (
        "Invalid config, exiting abnormally: Error processing /z: /z file is missing"
    )

    def refuse(path: str) -> str | None:
        raise PermissionError(13, "Permission denied", path)

    with pytest.raises(ConfigException, match=r"/z \(Permission denied\)"):
        load_config("/z", properties={}, read_file=refuse)
    with pytest.raises(ConfigException, match=r"/data/myid \(Permission denied\)"):
        parse_config(BASE, path="/z", properties={}, read_file=refuse)


# -- anything ------------------------------------------------------------------------------------

some_keys = st.sampled_from(
    [*sorted(config_keys.known_keys()), "server.1", "server.x", "group.1", "weight.1", "any"]
)
some_values = st.sampled_from(
    ["", "0", "-1", "3", "true", "no", "a", "h:1:2", "h:3:4:observer;5", "1:2", "/a", "9" * 30]
) | st.text(max_size=8)
lines = st.builds(lambda key, value: f"{key}={value}", some_keys, some_values)


@given(st.lists(lines).map("\n".join) | st.text(), some_values)
def test_nothing_but_a_config_exception(text: str, content: str) -> None:
    for start in (BASE, ""):
        try:
            config = parse_config(
                start + text, path="/z", properties={}, read_file=lambda _: content
            )
        except ConfigException as error:
            assert error.exit_code in (1, 2)
            assert str(error)
        else:
            assert config.data_dir
