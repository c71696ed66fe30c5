"""Checks that the reference leaves to the part that uses a setting, done here at the start.

Owns names of classes and algorithms, and hints for misspelt keys. Messages and exit codes are
those of the part in question: ServerCnxnFactory, AuthenticationHelper, ProviderRegistry,
PrometheusMetricsProvider and others of ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.protocol.config_error import UNEXPECTED, ConfigException, IllegalArgument
from zkpy.protocol.properties import INT_BITS, LONG_BITS, parse_integer
from zkpy.server.config_keys import KEYS, KNOWN_PREFIXES, known_keys
from zkpy.server.config_values import strict_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Note = Callable[[int, str], None]

INFO = 20  # logging.INFO, logging.WARNING
WARNING = 30

PACKAGE = "org.apache.zookeeper."
METRICS_PROVIDERS = {
    PACKAGE + "metrics.impl.DefaultMetricsProvider": "default",
    PACKAGE + "metrics.impl.NullMetricsProvider": "null",
    PACKAGE + "metrics.prometheus.PrometheusMetricsProvider": "prometheus",
}
CNXN_FACTORIES = (
    "",
    PACKAGE + "server.NIOServerCnxnFactory",
    PACKAGE + "server.NettyServerCnxnFactory",
)
WATCH_MANAGERS = (
    "",
    PACKAGE + "server.watch.WatchManager",
    PACKAGE + "server.watch.WatchManagerOptimized",
)
AUTH_PROVIDERS = {
    PACKAGE + "server.auth.SASLAuthenticationProvider": "sasl",
    PACKAGE + "server.auth.X509AuthenticationProvider": "x509",
    PACKAGE + "server.auth.EnsembleAuthenticationProvider": "ensemble",
    PACKAGE + "server.auth.DigestAuthenticationProvider": "digest",
    PACKAGE + "server.auth.IPAuthenticationProvider": "ip",
}
# Java's name, which any case matches -> hashlib's.
DIGEST_ALGORITHMS = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SHA3-224": "sha3_224",
    "SHA3-256": "sha3_256",
    "SHA3-384": "sha3_384",
    "SHA3-512": "sha3_512",
}
# The default of preAllocSize; a bad value of that key is read more strictly than others.
PRE_ALLOC_SIZE_KIB = 65536
USAGE_STANDALONE = "Usage: ZooKeeperServerMain configfile | port datadir [ticktime] [maxcnxns]"
USAGE_QUORUM = "Usage: QuorumPeerMain configfile"


def check_components(
    values: dict[str, object],
    entries: Mapping[str, str],
    properties: Mapping[str, str],
    note: Note,
) -> None:
    """Judge `values` (by attribute of Config) and bring them to their final form.

    Raises ConfigException with the exit code and headline the reference would end with.
    """
    usage = USAGE_QUORUM if values["quorum_mode"] else USAGE_STANDALONE
    check_metrics(values, entries, usage)
    check_digest_algorithm(values)
    check_auth_providers(values, properties, note)
    check_enforced_auth(values, usage)
    if values["server_cnxn_factory"] not in CNXN_FACTORIES:
        raise unexpected(f"Couldn't instantiate {values['server_cnxn_factory']}")
    check_max_cnxns(values, note)
    if values["quorum_mode"] and "zookeeper.cnxTimeout" in properties:
        values["cnx_timeout_ms"] = usage_number(
            properties["zookeeper.cnxTimeout"], "cnxTimeout", usage
        )
    if values["watch_manager_name"] not in WATCH_MANAGERS:
        raise unexpected(f"Couldn't instantiate {values['watch_manager_name']}")
    check_storage(values, properties, note)
    if values["quorum_mode"]:
        members = values["members"]
        if values["my_id"] not in members.servers:  # type: ignore[attr-defined]
            raise unexpected(f"My id {values['my_id']} not in the peer list")


def unexpected(message: str) -> ConfigException:
    return ConfigException(message, exit_code=1, headline=UNEXPECTED)


def usage_number(text: str, key: str, usage: str) -> int:
    try:
        return parse_integer(text, INT_BITS, key=key)
    except IllegalArgument as error:
        raise ConfigException(str(error), key=key, headline=usage) from None


def check_metrics(values: dict[str, object], entries: Mapping[str, str], usage: str) -> None:
    if values["metrics_provider"] != "prometheus":
        return  # other providers do not look at their settings
    for name, key, kind, value_type, _, _ in KEYS:
        if kind != "provider" or key not in entries:
            continue
        if value_type == "int":
            values[name] = usage_number(entries[key], key, usage)
        elif value_type == "bool":
            values[name] = entries[key].lower() == "true"
        else:
            values[name] = strict_value(value_type, key, entries[key])


def check_digest_algorithm(values: dict[str, object]) -> None:
    algorithm = str(values["digest_alg"])
    if algorithm.upper() not in DIGEST_ALGORITHMS:
        raise unexpected(
            f"don't support this ACL digest algorithm: {algorithm} in the current environment"
        )
    values["digest_alg"] = DIGEST_ALGORITHMS[algorithm.upper()]


def check_auth_providers(
    values: dict[str, object], properties: Mapping[str, str], note: Note
) -> None:
    prefix = "zookeeper.authProvider."
    providers: dict[str, str] = {}
    for key, class_name in properties.items():
        if key.startswith(prefix):
            if class_name in AUTH_PROVIDERS:
                providers[key.removeprefix(prefix)] = AUTH_PROVIDERS[class_name]
            else:
                note(WARNING, f"Problems loading {class_name}")
    if values["secure_client_port"] is not None and "x509" not in providers:
        providers["x509"] = "x509"
    values["auth_providers"] = providers


def check_enforced_auth(values: dict[str, object], usage: str) -> None:
    schemes = values["enforce_auth_schemes"]
    providers = values["auth_providers"]
    assert isinstance(schemes, tuple) and isinstance(providers, dict)
    if values["session_require_client_sasl_auth"]:
        values["enforce_auth_enabled"] = True
        values["enforce_auth_schemes"] = ("sasl",)
        return
    if not values["enforce_auth_enabled"]:
        return
    if not schemes:
        raise ConfigException(
            "zookeeper.enforce.auth.enabled is true"
            " zookeeper.enforce.auth.schemes must be  configured.",
            headline=usage,
        )
    available = {"ip", *providers.values()}
    if values["digest_auth_enabled"]:
        available.add("digest")
    for scheme in schemes:
        if scheme not in available:
            raise ConfigException(
                f"Authentication scheme {scheme} is not available.", headline=usage
            )


def check_max_cnxns(values: dict[str, object], note: Note) -> None:
    if values["client_port"] is None and values["secure_client_port"] is None:
        return  # the reference warns per listener
    max_cnxns = values["max_cnxns"]
    assert isinstance(max_cnxns, int)
    if max_cnxns < 0:
        note(WARNING, "maxCnxns should be greater than or equal to 0, using default value 0.")
        values["max_cnxns"] = 0
    elif max_cnxns == 0:
        note(WARNING, "maxCnxns is not configured, using default value 0.")
    else:
        note(INFO, f"maxCnxns configured value is {max_cnxns}.")


def check_storage(values: dict[str, object], properties: Mapping[str, str], note: Note) -> None:
    size = properties.get("zookeeper.preAllocSize")
    if size is not None:
        try:
            values["pre_alloc_size_kib"] = parse_integer(size, LONG_BITS)
        except IllegalArgument:
            note(WARNING, f"{size} is not a valid value for preAllocSize")
            values["pre_alloc_size_kib"] = PRE_ALLOC_SIZE_KIB
    snap_count = values["snap_count"]
    assert isinstance(snap_count, int)
    if snap_count < 2:
        note(WARNING, "SnapCount should be 2 or more. Now, snapCount is reset to 2")
        values["snap_count"] = 2
    if values["snapshot_compression_method"] not in ("gz", "snappy"):
        values["snapshot_compression_method"] = ""


def check_key_names(entries: Mapping[str, str], note: Note) -> None:
    """Warn of each key that nothing reads, with the nearest one that something does."""
    unknown = [key for key in entries if not key.startswith(KNOWN_PREFIXES)]
    known = known_keys()
    unknown = [key for key in unknown if key not in known]
    if not unknown:
        return
    from difflib import get_close_matches  # slow to import, and most files need no hint

    folded = {key.lower(): key for key in sorted(known)}
    for key in unknown:
        near = get_close_matches(key.lower(), folded, n=1)
        hint = f" (did you mean '{folded[near[0]]}'?)" if near else ""
        note(WARNING, f"unknown configuration key '{key}'{hint}")
