"""Members in network namespaces of their own, so that the network between them can be cut.

Owns: the namespaces, one per member and one for the switch, where the clients' sockets live too.
Nothing of it touches the machine's own network. A cut is silent, as that of a cable: packets to
the other member go to a hardware address which nobody has. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable
from types import TracebackType

from zkpy.testing.ensemble import Address, Network

CLONE_NEWNET = 0x40000000
SUBNET = "10.77.61"
CLIENTS = f"{SUBNET}.254"
NOBODY = "02:00:00:00:00:01"  # no interface here has it
_libc = ctypes.CDLL(None, use_errno=True)
_entering = threading.Lock()


def missing() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if shutil.which("ip") is None:
        return "no ip command"
    name = f"zkprobe{random.SystemRandom().randrange(10**6)}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if done.returncode:
        return f"network namespaces: {done.stderr.decode().strip()}"
    try:
        link = ["ip", "-n", name, "link", "add", "sw", "type", "bridge"]
        done = subprocess.run(link, capture_output=True, check=False)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return f"network namespaces: {done.stderr.decode().strip()}" if done.returncode else None


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Namespaces(Network):
    """Namespaces of members 1 to `count`; a context manager that removes them."""

    def __init__(self, count: int) -> None:
        self.sids = range(1, count + 1)
        self.name = f"zk{os.getpid()}-{random.SystemRandom().randrange(10**6)}"
        self.hub = f"{self.name}-hub"
        self.made: list[str] = []
        self.lladdr: dict[int, str] = {}

    def __enter__(self) -> Namespaces:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _build(self) -> None:
        self._add(self.hub)
        run("ip", "-n", self.hub, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self.hub, "addr", "add", f"{CLIENTS}/24", "dev", "switch")
        run("ip", "-n", self.hub, "link", "set", "switch", "up")
        for sid in self.sids:
            own = self.namespace(sid)
            self._add(own)
            ends = ["link", "add", f"port{sid}", "type", "veth", "peer", "name", "eth0"]
            run("ip", "-n", self.hub, *ends, "netns", own)
            run("ip", "-n", self.hub, "link", "set", f"port{sid}", "master", "switch", "up")
            run("ip", "-n", own, "addr", "add", f"{self.host(sid)}/24", "dev", "eth0")
            run("ip", "-n", own, "link", "set", "eth0", "up")
            words = run("ip", "-n", own, "-o", "link", "show", "eth0").split()
            self.lladdr[sid] = words[words.index("link/ether") + 1]

    def _add(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self.made.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        while self.made:
            subprocess.run(["ip", "netns", "del", self.made.pop()], check=False)

    def namespace(self, sid: int) -> str:
        return f"{self.name}-{sid}"

    def host(self, sid: int) -> str:
        return f"{SUBNET}.{sid}"

    def prefix(self, sid: int) -> list[str]:
        # exec: the process is then the member's own, to be signalled.
        return ["ip", "netns", "exec", self.namespace(sid)]

    def connect(self, address: Address, timeout_s: float) -> socket.socket:
        """From the switch, which is never cut off from any member."""
        with _entering:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            there = os.open(f"/var/run/netns/{self.hub}", os.O_RDONLY)
            try:
                _enter(there)
                try:
                    connection = socket.socket()
                finally:
                    _enter(home)
            finally:
                os.close(there)
                os.close(home)
        connection.settimeout(timeout_s)
        try:
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    # Cuts

    def cut_one_way(self, source: int, target: int) -> None:
        """Nothing that `source` sends reaches `target` any more."""
        self._neighbour(source, target, NOBODY)

    def cut(self, one: int, other: int) -> None:
        """Nothing passes between the two."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def isolate(self, *sids: int) -> None:
        """Nothing passes between these and the others; among themselves they talk."""
        for one in sids:
            for other in self.sids:
                if other not in sids:
                    self.cut(one, other)

    def heal(self, pairs: Iterable[tuple[int, int]] | None = None) -> None:
        """Everything (or the direction of each pair) passes again."""
        both = ((a, b) for a in self.sids for b in self.sids if a != b)
        for source, target in both if pairs is None else pairs:
            self._neighbour(source, target, self.lladdr[target])

    def _neighbour(self, source: int, target: int, lladdr: str) -> None:
        words = ["neigh", "replace", self.host(target), "lladdr", lladdr, "dev", "eth0"]
        run("ip", "-n", self.namespace(source), *words, "nud", "permanent")


def _enter(namespace: int) -> None:
    """Of the calling thread only."""
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
