"""Addresses and listening sockets."""

from __future__ import annotations

import socket
from typing import Final

ANY_ADDRESSES: Final = frozenset({"", "0.0.0.0", "::"})
# The reference asks for 50, which a burst of reconnecting clients overruns.
DEFAULT_BACKLOG: Final = 1024


def look_up(host: str, port: int = 0) -> tuple[int, tuple[object, ...]]:
    """Family and address of a host name or IP address, IPv4 first as Java has it. Raises OSError.

    Blocks while a name server is asked.
    """
    # Bytes: a str would load the idna codec, some milliseconds, though no name here needs it.
    name: str | bytes = host.encode("ascii") if host.isascii() else host
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in found:
        if family == socket.AF_INET:
            return family, address
    family, _, _, _, address = found[0]
    return family, address


def resolve(host: str) -> str:
    """The IP address of a host name, as text. Raises OSError."""
    return str(look_up(host)[1][0])


def bound_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that has the port but does not listen yet; any address means IPv4 and IPv6.

    Raises OSError, whose `strerror` names the address.
    """
    family: int = socket.AF_INET
    address: tuple[object, ...] = ("", port)
    both = host in ANY_ADDRESSES and socket.has_dualstack_ipv6()
    if both:
        family = socket.AF_INET6
    elif host not in ANY_ADDRESSES:
        family, address = look_up(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for connections of the last run to time out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        where = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"
        raise OSError(error.errno, f"{error.strerror} ({where})") from None
    return sock
