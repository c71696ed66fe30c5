"""Which servers there are: the connect string, and the order in which they are tried.

Source: ConnectStringParser, StaticHostProvider, ZooKeeper 3.9.
"""

from __future__ import annotations

from random import Random
from typing import Final, TypeAlias

from zkpy.client.paths import validate_path

Address: TypeAlias = tuple[str, int]

DEFAULT_PORT: Final = 2181


def parse_address(text: str) -> Address:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address. Raises ValueError."""
    text = text.strip()
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"not an address: {text!r}")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError(f"no host in {text!r}")
    if not port:
        return host, DEFAULT_PORT
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"not a port: {port!r} in {text!r}")
    return host, int(port)


def parse_hosts(hosts: str) -> tuple[list[Address], str]:
    """Split `host:port,host:port/chroot`; the chroot is "" where there is none.

    Raises ValueError on a bad address or chroot.
    """
    servers, slash, rest = hosts.partition("/")
    chroot = slash + rest
    if chroot == "/":
        chroot = ""
    if chroot:
        validate_path(chroot)
    addresses = [parse_address(part) for part in servers.split(",") if part.strip()]
    if not addresses:
        raise ValueError("A HostProvider may not be empty!")
    return addresses, chroot


def format_address(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HostProvider:
    """The servers in an order of this client's own, round and round."""

    __slots__ = ("_index", "servers")

    def __init__(self, servers: list[Address], rng: Random) -> None:
        assert servers
        self.servers = list(servers)
        # So that a thousand clients with one connect string do not all go to the first server.
        rng.shuffle(self.servers)
        self._index = -1

    def __len__(self) -> int:
        return len(self.servers)

    def next(self) -> Address:
        self._index = (self._index + 1) % len(self.servers)
        return self.servers[self._index]
