"""Properties of the client: -client-configuration, and -D in CLIENT_JVMFLAGS and JVMFLAGS.

Source: ZKClientConfig, ClientX509Util, ZooKeeper 3.9.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from zkpy.cli.shell.options import EXIT_USAGE
from zkpy.cli.shell.table import CliError

if TYPE_CHECKING:
    from ssl import SSLContext

SECURE: Final = "zookeeper.client.secure"
MAX_BUFFER: Final = "jute.maxbuffer"


def client_properties(path: str | None) -> dict[str, str]:
    """What the flags and then the file `path` say. Raises CliError, with status 2."""
    properties: dict[str, str] = {}
    if os.environ.get("CLIENT_JVMFLAGS") or os.environ.get("JVMFLAGS"):
        from zkpy.cli.server_files import flags_in
        from zkpy.protocol.config_error import ConfigException
        from zkpy.server.config import properties_from_flags

        try:
            properties = properties_from_flags(flags_in("CLIENT_JVMFLAGS", "JVMFLAGS"))
        except ConfigException as error:
            raise CliError(str(error), EXIT_USAGE) from None
    if path is not None:
        properties |= read_properties(path)
    return properties


def read_properties(path: str) -> dict[str, str]:
    """Raises CliError, with status 2."""
    from zkpy.protocol.config_error import ConfigException
    from zkpy.protocol.properties import load_properties

    try:
        with open(path, encoding="iso-8859-1") as file:
            return load_properties(file.read())
    except FileNotFoundError:
        reason = f"{path} file is missing"
    except OSError as error:
        reason = error.strerror or "cannot be read"
    except ConfigException as error:
        reason = str(error)
    raise CliError(f"Error while processing {path}: {reason}", EXIT_USAGE)


def ssl_context(properties: dict[str, str]) -> SSLContext | None:
    """For connections with TLS; None unless they are asked for. Raises CliError, with status 2."""
    if properties.get(SECURE, "").lower() != "true":
        return None
    from zkpy.cli.tls import client_context, client_settings
    from zkpy.protocol.config_error import ConfigException

    try:
        return client_context(client_settings(properties))
    except ConfigException as error:
        raise CliError(str(error), EXIT_USAGE) from None


def reply_limit(properties: dict[str, str]) -> int | None:
    """Bytes of the biggest reply that is read; None where nothing is said, or no number."""
    from zkpy.protocol.properties import decode_integer

    text = properties.get(MAX_BUFFER)
    limit = None if text is None else decode_integer(text, 32)
    return limit if limit and limit > 0 else None
