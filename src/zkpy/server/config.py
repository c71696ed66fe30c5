"""zoo.cfg, validated: text in, `Config` or `ConfigException` out. The one door to the settings.

It must not touch files, names or the clock: files come through `read_file`, name lookups through
`resolve`. Nothing else in zkpy reads settings.
"""

from __future__ import annotations

from zkpy.protocol.config_error import ConfigException
from zkpy.server.config_checks import USAGE_STANDALONE
from zkpy.server.config_parser import Parser
from zkpy.server.settings import Config, TlsSettings, make_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zkpy.server.config_parser import ReadFile, Resolve

__all__ = [
    "Config",
    "ConfigException",
    "TlsSettings",
    "config_from_arguments",
    "load_config",
    "make_config",
    "parse_config",
    "properties_from_flags",
]


def load_config(
    path: str,
    *,
    properties: Mapping[str, str],
    read_file: ReadFile,
    resolve: Resolve | None = None,
) -> Config:
    """Read and parse the file `path`. Raises ConfigException, also for a missing file."""
    try:
        text = read_file(path)
    except OSError as error:
        raise ConfigException(f"Error processing {path}: {path} ({error.strerror})") from error
    if text is None:
        raise ConfigException(f"Error processing {path}: {path} file is missing")
    return parse_config(
        text, path=path, properties=properties, read_file=read_file, resolve=resolve
    )


def parse_config(
    text: str,
    *,
    path: str,
    properties: Mapping[str, str],
    read_file: ReadFile,
    resolve: Resolve | None = None,
) -> Config:
    """Parse zoo.cfg, given as `text` decoded from ISO-8859-1.

    `properties` are Java system properties with their full names, e.g. from
    `properties_from_flags`; zoo.cfg wins over them. `read_file` gives myid, dynamic configuration
    and password files. Without `resolve` client addresses are compared as text, and one that does
    not exist is found only when it is bound.

    Raises ConfigException and nothing else; what is to be logged before it is in its `messages`.
    """
    parser = Parser(path, properties, read_file, resolve)
    try:
        return parser.parse(text)
    except ConfigException as error:
        error.messages = parser.messages
        raise


def config_from_arguments(arguments: Sequence[str], properties: Mapping[str, str]) -> Config:
    """The Config of `port dataDir [tickTime] [maxClientCnxns]`; properties count here too.

    Raises ConfigException, whose headline is the usage line.
    """
    if not 2 <= len(arguments) <= 4:
        raise ConfigException(
            f"Invalid number of arguments:[{', '.join(arguments)}]", headline=USAGE_STANDALONE
        )
    entries = {"clientPort": arguments[0], "dataDir": arguments[1], "maxClientCnxns": "0"}
    entries.update(zip(("tickTime", "maxClientCnxns"), arguments[2:], strict=False))
    parser = Parser("", properties, lambda _: None, None)
    try:
        return parser.parse_entries(entries)
    except ConfigException as error:
        error.headline = USAGE_STANDALONE
        error.messages = parser.messages
        raise


def properties_from_flags(tokens: Iterable[str]) -> dict[str, str]:
    """Collect `-Dname=value` out of Java flags; the last wins and other flags are ignored."""
    properties: dict[str, str] = {}
    for token in tokens:
        if token.startswith("-D") and len(token) > 2:
            name, _, value = token[2:].partition("=")
            properties[name] = value
    return properties
