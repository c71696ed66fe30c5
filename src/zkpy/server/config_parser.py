"""The reading of one zoo.cfg, step by step.

Owns the order of the checks, which is the reference's, so that a file wrong twice gives the same
message as there. It must not touch files, names or the clock: it asks `read_file` and `resolve`.

Source: QuorumPeerConfig.parse, parseProperties and setupQuorumPeerConfig, ZooKeeper 3.9.
"""

from __future__ import annotations

from zkpy.protocol.config_error import ConfigException, IllegalArgument
from zkpy.protocol.properties import LONG_BITS, load_properties, parse_integer, trim
from zkpy.quorum.members import (
    ANY_ADDRESS,
    OBSERVER,
    PARTICIPANT,
    Members,
    bracketed,
    check_counts,
    check_port,
    is_member_key,
    parse_config_text,
    parse_dynamic_file,
    parse_members,
    parse_role,
)
from zkpy.server.config_checks import METRICS_PROVIDERS, check_components, check_key_names
from zkpy.server.config_keys import ALIASES, KEYS, TLS_KEYS
from zkpy.server.config_values import lenient_value, strict_value
from zkpy.server.settings import (
    ALWAYS_ON_FOUR_LETTER_WORDS,
    Config,
    TlsSettings,
    defaults,
    derive,
    tls_defaults,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Path -> content, decoded as ISO-8859-1, or None if there is no such regular file.
    ReadFile = Callable[[str], str | None]
    # Host name or literal -> IP address. Raises OSError if there is none.
    Resolve = Callable[[str], str]

INFO = 20  # logging.INFO, logging.WARNING
WARNING = 30

MIN_SNAP_RETAIN_COUNT = 3
PREFIX = "zookeeper."
NEXT_DYNAMIC_SUFFIX = ".dynamic.next"


class Parser:
    """One reading of one zoo.cfg: collects values, properties and messages on the way."""

    def __init__(
        self,
        path: str,
        properties: Mapping[str, str],
        read_file: ReadFile,
        resolve: Resolve | None,
    ) -> None:
        self.path = path
        self.read_file = read_file
        self.resolve = resolve
        self.properties = dict(properties)
        for alias, key in ALIASES.items():
            if PREFIX + alias in self.properties:
                self.properties.setdefault(PREFIX + key, self.properties[PREFIX + alias])
        self.messages: list[tuple[int, str]] = []
        self.entries: dict[str, str] = {}
        self.values = defaults()
        self.members = Members({})
        self.my_id: int | None = None

    def note(self, level: int, text: str) -> None:
        self.messages.append((level, text))

    # -- the order of everything -------------------------------------------------------------

    def parse(self, text: str) -> Config:
        self.note(INFO, f"Reading configuration from: {self.path}")
        self.warn_if_relative(self.path)
        self.values["initial_config"] = text
        try:
            entries = load_properties(text)
        except IllegalArgument as error:
            raise self.processing(self.path, error) from None
        return self.parse_entries(entries)

    def parse_entries(self, entries: dict[str, str]) -> Config:
        self.entries = entries
        # First: a misspelt key is often the cause of the error that follows.
        check_key_names(entries, self.note)
        dynamic_path = entries.get("dynamicConfigFile")
        try:
            self.take_parser_keys()
            self.take_properties()
            self.check_quorum_sasl()
            self.check_static()
            if dynamic_path is None:
                self.members = parse_members(entries, multi_address=self.multi_address)
                self.check_ensemble()
        except IllegalArgument as error:
            raise self.processing(self.path, error) from None
        if dynamic_path is not None:
            self.read_dynamic_file(dynamic_path)
        if not self.quorum_mode:
            self.note(
                WARNING,
                "Either no config or no quorum defined in config, running in standalone mode",
            )
        self.take_collections()
        self.values.update(
            path=self.path,
            entries=entries,
            properties=self.properties,
            quorum_mode=self.quorum_mode,
            members=self.members,
            my_id=self.my_id,
        )
        derive(self.values)
        check_components(self.values, entries, self.properties, self.note)
        self.values["messages"] = tuple(self.messages)
        return Config(self.values)

    def processing(self, path: str, error: IllegalArgument) -> ConfigException:
        if not path:  # started with a port and a directory instead of a file
            return error
        return ConfigException(f"Error processing {path}: {error}", key=error.key)

    # -- single keys -------------------------------------------------------------------------

    def take_parser_keys(self) -> None:
        """Keys the reference's parser reads itself: in the file's order, nonsense is fatal."""
        strict = {r[1]: (r[0], r[3]) for r in KEYS if r[2] in ("cfg", "both")}
        dynamic = "dynamicConfigFile" in self.entries
        for key, value in self.entries.items():
            if key in strict:
                name, kind = strict[key]
                self.values[name] = self.checked(key, strict_value(kind, key, value))
            elif dynamic and is_member_key(key):
                raise ConfigException(
                    f"parameter: {key} must be in a separate dynamic config file", key=key
                )
        for _, key, kind, _, _, _ in KEYS:
            if kind == "both" and key in self.entries:
                self.properties[PREFIX + key] = self.entries[key]

    def checked(self, key: str, value: object) -> object:
        if key in ("dataDir", "dataLogDir"):
            assert isinstance(value, str)
            self.warn_if_relative(value)
            return normalised(value)
        if key == "electionAlg" and value != 3:
            raise ConfigException("Invalid electionAlg value. Only 3 is supported.", key=key)
        if key == "peerType":
            assert isinstance(value, str)
            return parse_role(value)
        return value

    def take_properties(self) -> None:
        """Let zoo.cfg overrule the properties, then read those in the table."""
        strict = {row[1] for row in KEYS if row[2] in ("cfg", "both")}
        bare = {row[1] for row in KEYS if row[2] == "bare"}
        for key, value in self.entries.items():
            working = ALIASES.get(key, key)
            if working != key and working in self.entries:
                continue  # the file has both names: the real one wins
            if working in bare:
                self.properties[working] = value
            elif working not in strict and not key.startswith("metricsProvider."):
                self.properties[PREFIX + working] = value
        for name, key, kind, value_type, default, _ in KEYS:
            if kind in ("prop", "either") or (kind == "both" and key not in self.entries):
                text = self.properties.get(PREFIX + key)
                if text is None and kind == "either":
                    text = self.properties.get(key)
            elif kind == "bare":
                text = self.properties.get(key)
            else:
                continue
            if text is not None:
                self.values[name] = lenient_value(value_type, text, default)
        sync_enabled = self.properties.get(PREFIX + "observer.syncEnabled")
        if sync_enabled is not None:
            self.values["sync_enabled"] = sync_enabled.lower() == "true"

    def take_collections(self) -> None:
        """Settings that are lists or families of keys."""
        words = {trim(word) for word in self.listed("4lw.commands.whitelist")}
        if self.values["read_only_mode_enabled"]:
            words.add("isro")  # clients in read-only mode look for a better server with it
        self.values["four_letter_words"] = ALWAYS_ON_FOUR_LETTER_WORDS | words
        self.values["enforce_auth_schemes"] = tuple(self.listed("enforce.auth.schemes"))
        self.values["super_users"] = frozenset(
            value
            for key, value in self.properties.items()
            if key == PREFIX + "superUser" or key.startswith(PREFIX + "superUser.")
        )
        class_name = self.text("metrics_provider_class_name")
        self.values["metrics_provider"] = METRICS_PROVIDERS[class_name]
        self.values["client_tls"] = self.tls_settings("ssl.", quorum=False)
        self.values["quorum_tls"] = self.tls_settings("ssl.quorum.", quorum=True)

    def listed(self, key: str) -> list[str]:
        """The non-empty parts of a comma list property, trimmed."""
        text = self.properties.get(PREFIX + key, "")
        return [trimmed for part in text.split(",") if (trimmed := trim(part))]

    def tls_settings(self, prefix: str, *, quorum: bool) -> TlsSettings:
        values = tls_defaults(quorum=quorum)
        for name, key, _, value_type, default, _ in TLS_KEYS:
            text = self.properties.get(PREFIX + prefix + key)
            if text is not None:
                values[name] = lenient_value(value_type, text, default)
        for store in ("key_store", "trust_store"):
            password_path = values[store + "_password_path"]
            if password_path:
                values[store + "_password"] = self.password(str(password_path))
        mode = str(values["client_auth"]).lower()
        if mode not in ("none", "want", "need"):
            # The reference starts and then fails every handshake.
            raise ConfigException(
                f"Invalid option {values['client_auth']} for {prefix}clientAuth."
                " Choose 'none', 'want' or 'need'.",
                key=prefix + "clientAuth",
            )
        values["client_auth"] = mode
        return TlsSettings(values)

    def password(self, path: str) -> str:
        text = self.read_text(path)
        if text is None:
            raise ConfigException(f"Cannot read the password file {path}")
        return text.removesuffix("\n").removesuffix("\r")

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str), name
        return value

    def number(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int), name
        return value

    @property
    def multi_address(self) -> bool:
        return bool(self.values["multi_address_enabled"])

    # -- keys together -----------------------------------------------------------------------

    def check_quorum_sasl(self) -> None:
        enabled = self.values["quorum_enable_sasl"]
        learner = self.values["quorum_learner_require_sasl"]
        server = self.values["quorum_server_require_sasl"]
        for disabled, required, missing, wanted in (
            (not enabled, server, "enableSasl", "serverRequireSasl"),
            (not enabled, learner, "enableSasl", "learnerRequireSasl"),
            (not learner, server, "learnerRequireSasl", "serverRequireSasl"),
        ):
            if disabled and required:
                raise IllegalArgument(
                    f"quorum.auth.{missing} is disabled, so cannot enable quorum.auth.{wanted}"
                )

    def check_static(self) -> None:
        """What the reference checks of the static part, in its order."""
        retain = self.number("autopurge_snap_retain_count")
        if retain < MIN_SNAP_RETAIN_COUNT:
            self.note(
                WARNING,
                f"Invalid autopurge.snapRetainCount: {retain}."
                f" Defaulting to {MIN_SNAP_RETAIN_COUNT}",
            )
            self.values["autopurge_snap_retain_count"] = MIN_SNAP_RETAIN_COUNT
        if not self.values["data_dir"]:
            raise IllegalArgument("dataDir is not set")
        self.check_listener("clientPort", "client_port")
        self.check_listener("secureClientPort", "secure_client_port")
        if self.values["secure_client_port"] is not None:
            self.check_ssl_auth_provider()
        observer_master_port = self.number("observer_master_port")
        if observer_master_port <= 0:
            self.note(INFO, "observerMasterPort is not set")
        else:
            self.note(INFO, f"observerMasterPort is {observer_master_port}")
        if self.values["tick_time_ms"] == 0:
            raise IllegalArgument("tickTime is not set")
        limits = dict(self.values)
        derive(limits)
        minimum, maximum = limits["min_session_timeout_ms"], limits["max_session_timeout_ms"]
        assert isinstance(minimum, int) and isinstance(maximum, int)
        if minimum > maximum:
            raise IllegalArgument("minSessionTimeout must not be larger than maxSessionTimeout")
        class_name = self.text("metrics_provider_class_name")
        self.note(INFO, f"metricsProvider.className is {class_name}")
        if class_name not in METRICS_PROVIDERS:
            raise IllegalArgument(
                "metrics provider class was not found", key="metricsProvider.className"
            )

    def check_listener(self, key: str, name: str) -> None:
        port = self.values[name]
        address = self.text(name + "_address")
        if port is None:
            self.note(INFO, f"{key} is not set")
            if address:
                raise IllegalArgument(f"{key}Address is set but {key} is not set")
            return
        assert isinstance(port, int)
        host = address.removeprefix("[").removesuffix("]") or ANY_ADDRESS
        ip = self.looked_up(host)
        check_port(port, key)
        self.values[name + "_address"] = host
        self.note(INFO, f"{key}Address is {bracketed(ip)}:{port}")

    def looked_up(self, host: str) -> str:
        if self.resolve is None or host == ANY_ADDRESS:
            return host
        try:
            return self.resolve(host)
        except OSError:
            raise IllegalArgument(f"{host}: Name or service not known") from None

    def check_ssl_auth_provider(self) -> None:
        scheme = self.properties.get(PREFIX + "ssl.authProvider", "x509")
        if scheme != "x509" and PREFIX + "authProvider." + scheme not in self.properties:
            raise ConfigException(
                f"No auth provider configured for the SSL authentication scheme '{scheme}'."
            )

    # -- the ensemble ------------------------------------------------------------------------

    @property
    def quorum_mode(self) -> bool:
        voters = len(self.members.participants)
        return voters > 1 or (not self.values["standalone_enabled"] and voters >= 1)

    def check_ensemble(self) -> None:
        standalone_enabled = bool(self.values["standalone_enabled"])
        check_counts(self.members, standalone_enabled=standalone_enabled, note=self.note)
        self.read_my_id()
        self.agree_on_client_address()
        self.agree_on_peer_type()
        if self.quorum_mode:
            if self.values["init_limit_ticks"] == 0:
                raise IllegalArgument("initLimit is not set")
            if self.values["sync_limit_ticks"] == 0:
                raise IllegalArgument("syncLimit is not set")
            if self.my_id is None:
                raise IllegalArgument("myid file is missing")

    def read_my_id(self) -> None:
        text = self.read_text(self.text("data_dir") + "/myid")
        if text is None:
            return
        first_line = text.replace("\r", "\n").partition("\n")[0] if text else "null"
        try:
            # The reference refuses surrounding blanks, which editors and echo leave behind.
            self.my_id = parse_integer(trim(first_line), LONG_BITS)
        except IllegalArgument:
            raise IllegalArgument(f"serverid {first_line} is not a number") from None

    def agree_on_client_address(self) -> None:
        """Join clientPort and the client part of the own server line; both must agree."""
        own = self.members.servers.get(self.my_id) if self.my_id is not None else None
        if own is None or own.client_address is None:
            return
        host, port = own.client_address
        static_port = self.values["client_port"]
        if static_port is not None:
            static_host = self.text("client_port_address")
            wildcard = static_host in (ANY_ADDRESS, "::")
            same_host = wildcard or self.looked_up(static_host) == self.looked_up(host)
            if port != static_port or not same_host:
                static = f"{self.socket_text(static_host)}:{static_port}"
                raise ConfigException(
                    f"client address for this server (id = {self.my_id}) in static config file is"
                    f" {static} is different from client address found in dynamic file:"
                    f" {self.socket_text(host)}:{port}"
                )
        self.values["client_port"] = port
        self.values["client_port_address"] = host

    def socket_text(self, host: str) -> str:
        """A host as the reference prints it in an address: the name, if any, a slash, the IP."""
        ip = self.looked_up(host)
        literal = ":" in host or host.replace(".", "").isdigit()
        return f"{'' if literal else host}/{bracketed(ip)}"

    def agree_on_peer_type(self) -> None:
        listed = OBSERVER if self.my_id in self.members.observers else PARTICIPANT
        configured = self.text("peer_type")
        if listed != configured:
            self.note(
                WARNING,
                f"Peer type from servers list ({listed.upper()}) doesn't match"
                f" peerType ({configured.upper()}). Defaulting to servers list.",
            )
            self.values["peer_type"] = listed

    def read_dynamic_file(self, path: str) -> None:
        text = self.read_text(path)
        if text is None:
            raise ConfigException(f"Error processing {path}: {path} (No such file or directory)")
        self.members = parse_dynamic_file(text, path, multi_address=self.multi_address)
        try:
            self.check_ensemble()
        except IllegalArgument as error:
            raise self.processing(path, error) from None
        if self.values["reconfig_enabled"]:
            self.values["last_proposed"] = self.read_last_proposed()

    def read_last_proposed(self) -> Members | None:
        """What was proposed after the configuration in use; it may have been committed elsewhere.

        What is not later was left over by a crash, and would look like a change under way.
        """
        path = self.path + NEXT_DYNAMIC_SUFFIX
        text = self.read_text(path)
        if text is None:
            return None
        try:
            proposed = parse_config_text(text, multi_address=self.multi_address)
        except IllegalArgument as error:
            raise self.processing(path, error) from None
        return proposed if proposed.version > self.members.version else None

    # -- files -------------------------------------------------------------------------------

    def read_text(self, path: str) -> str | None:
        try:
            return self.read_file(path)
        except OSError as error:
            raise IllegalArgument(f"{path} ({error.strerror})") from error

    def warn_if_relative(self, path: str) -> None:
        if path and not path.startswith(("/", "./")):
            self.note(WARNING, f"{path} is relative. Prepend ./ to indicate that you're sure!")


def normalised(path: str) -> str:
    """Drop doubled slashes and one at the end, as java.io.File does."""
    while "//" in path:
        path = path.replace("//", "/")
    return path if path == "/" else path.removesuffix("/")
