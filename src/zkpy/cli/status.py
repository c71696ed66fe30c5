"""zkpy-server status: find where the server of a configuration listens, and ask it for its mode.

It reads zoo.cfg without judging it: the server may have been started from an older version of it.
Source: zkServer.sh, FourLetterWordMain, ZooKeeper 3.9.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from zkpy.cli.server_files import flags_in, missing_directory, properties_of, read_entries
from zkpy.protocol.config_error import ConfigException
from zkpy.protocol.properties import load_properties

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from zkpy.server.config import TlsSettings

    ReadFile = Callable[[str], str | None]
    Say = Callable[[str], None]

TIMEOUT_S: Final = 5.0
# An answer to srvr has some hundred bytes; what sends more is no ZooKeeper.
MAX_ANSWER_BYTES: Final = 65_536
MAX_PORT: Final = 65535
NUMBER: Final = re.compile(r"[0-9]+")
MODE: Final = re.compile(r"^Mode: [!-~]+$", re.MULTILINE)
# Answers without a mode, from servers which are there all the same.
NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests"
NOT_ALLOWED: Final = "srvr is not executed because it is not in the whitelist."
# What an address that stands for all addresses is reached by.
LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
NO_SERVICE: Final = "Error contacting service. It is probably not running."
TLS_NOTE: Final = """ 
Note: We used secureClientPort ({port}) to establish connection, but we failed. The 'status'
  command establishes a client connection to the server to execute diagnostic commands. Please make sure you
  provided all the Client SSL connection related parameters in the CLIENT_JVMFLAGS environment variable! E.g.:
  CLIENT_JVMFLAGS="-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty
  -Dzookeeper.ssl.trustStore.location=/tmp/clienttrust.jks -Dzookeeper.ssl.trustStore.password=password
  -Dzookeeper.ssl.keyStore.location=/tmp/client.jks -Dzookeeper.ssl.keyStore.password=password
  -Dzookeeper.client.secure=true" ./zkServer.sh status
 """  # noqa: E501, W291 - its lines are those of zkServer.sh, blanks included


class Target(NamedTuple):
    """Where to ask; the port is the configuration's text."""

    host: str
    port: str
    tls: bool


def find_target(entries: Mapping[str, str], read_file: ReadFile, say: Say) -> Target | None:
    """Where the server of these zoo.cfg lines takes clients; None if nowhere.

    What `say` gets are the lines of zkServer.sh about it.
    """
    host = entries.get("clientPortAddress", "")
    port = entries.get("clientPort", "")
    if not NUMBER.fullmatch(port):
        found = _client_part(entries, read_file, say)
        found_host, _, found_port = found.rpartition(":")
        host, port = found_host or host, found_port or port
    tls = not port
    if tls:
        say("Client port not found. Looking for secureClientPort in the static config.")
        host = entries.get("secureClientPortAddress", "")
        port = entries.get("secureClientPort", "")
        if not port:
            return None
    return Target(host.removeprefix("[").removesuffix("]") or "localhost", port, tls)


def _client_part(entries: Mapping[str, str], read_file: ReadFile, say: Say) -> str:
    """`port` or `host:port` of the server line that is ours; "" where there is none."""
    data_dir = entries.get("dataDir")
    my_id = ((data_dir and read_file(f"{data_dir}/myid")) or "").strip()
    if not NUMBER.fullmatch(my_id):
        say(
            "myid could not be determined, will not able to locate clientPort in the server"
            " configs."
        )
        return ""
    key = f"server.{my_id}"
    found = entries.get(key, "").partition(";")[2].strip()
    if not found:
        say("Client port not found in static config file. Looking in dynamic config file.")
        text = read_file(entries.get("dynamicConfigFile", ""))
        found = load_properties(text or "").get(key, "").partition(";")[2].strip()
    if not found:
        say("Client port not found in the server configs")
    return found


def ask(target: Target, context: ssl.SSLContext | None, timeout_s: float = TIMEOUT_S) -> str:
    """The answer to srvr. Raises OSError; ValueError for what is no port."""
    deadline = time.monotonic() + timeout_s
    port = int(target.port) if NUMBER.fullmatch(target.port) else 0
    if not 0 < port <= MAX_PORT:  # looking up an address would take it modulo 65536
        raise ValueError(f"{target.port} is not a port")
    address = (LOOPBACK.get(target.host, target.host), port)
    with socket.create_connection(address, timeout_s) as connection:
        if context is not None:
            with context.wrap_socket(connection, server_hostname=target.host) as secured:
                return converse(secured, deadline)
        return converse(connection, deadline)


def converse(connection: socket.socket, deadline: float) -> str:
    """Send srvr and read to the end, or as much as an answer may have. Raises OSError."""
    connection.sendall(b"srvr")
    answer = b""
    while len(answer) < MAX_ANSWER_BYTES:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            chunk = connection.recv(MAX_ANSWER_BYTES)
        except OSError:
            if MODE.search(answer.decode("utf-8", "replace")):
                break  # some end a connection without the manners of TLS
            raise
        if not chunk:
            break
        answer += chunk
    return answer.decode("utf-8", "replace")


def status(config_path: str, flags: list[str]) -> int:
    """Print what zkServer.sh prints; returns the exit code."""
    try:
        entries = read_entries(config_path)
    except ConfigException as error:
        _complain(str(error))
        entries = {}
    else:
        missing = missing_directory(entries)
        if missing is not None:
            print(missing)
            return 1
    target = find_target(entries, _read_leniently, print)
    if target is None:
        print("Unable to find either secure or unsecure client port in any configs. Terminating.")
        return 1
    secure = "true" if target.tls else "false"
    print(f"Client port found: {target.port}. Client address: {target.host}. Client SSL: {secure}.")
    answer = _answer_of(target, config_path, flags)
    mode = MODE.search(answer)
    if mode is not None:
        print(mode[0])
        return 0
    for line in (NOT_SERVING, NOT_ALLOWED):
        if answer.startswith(line):
            print(line)
            return 1
    if target.tls:
        print(TLS_NOTE.format(port=target.port))
    print(NO_SERVICE)
    return 1


def _answer_of(target: Target, config_path: str, flags: list[str]) -> str:
    """What the server answers, or "", with the reason on stderr where it is not the usual one."""
    try:
        context = _context(config_path, flags) if target.tls else None
        return ask(target, context)
    except ConnectionRefusedError:
        return ""  # nobody listens: the line that follows says it
    except TimeoutError:
        _complain(f"{target.host}:{target.port}: no answer within {TIMEOUT_S:g} s")
    except OSError as error:
        reason = getattr(error, "verify_message", "") or error.strerror or str(error)
        _complain(f"{target.host}:{target.port}: {reason}")
    except ValueError as error:
        _complain(str(error))
    return ""


def _context(config_path: str, flags: list[str]) -> ssl.SSLContext:
    """With the stores that CLIENT_JVMFLAGS names as for zkServer.sh, else with the server's own.

    Raises ConfigException (a ValueError) and OSError.
    """
    from zkpy.cli.tls import client_context, client_settings
    from zkpy.server.config import load_config, properties_from_flags

    properties = properties_from_flags(flags_in("CLIENT_JVMFLAGS", "JVMFLAGS") + flags)
    own = not any(f"zookeeper.ssl.{s}Store.location" in properties for s in ("key", "trust"))
    settings: TlsSettings
    if own:
        from zkpy.cli.server_files import read_file

        config = load_config(config_path, properties=properties_of(flags), read_file=read_file)
        settings = config.client_tls
    else:
        settings = client_settings(properties)
    context = client_context(settings, trust_own_chain=own)
    # Whoever answers there is asked for nothing but its mode, and `localhost` is in no certificate.
    context.check_hostname = False
    return context


def _read_leniently(path: str) -> str | None:
    """As much as can be read: a file that cannot is as good as none."""
    try:
        with open(path, encoding="iso-8859-1") as file:
            return file.read()
    except OSError:
        return None


def _complain(reason: str) -> None:
    print(f"zkpy-server: {reason}", file=sys.stderr)
