"""Ensembles for tests: the kinds of members there are here, their trees and logs compared."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from zkpy.datatree.apply import apply_txn
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.store import FileTxnSnapLog, LoadedDatabase, Settings
from zkpy.protocol.acl import ACL
from zkpy.protocol.txns import CreateTxn, TxnDigest, TxnHeader, encode_txn
from zkpy.protocol.zoodefs import OpCode
from zkpy.testing.ensemble import Ensemble, Kind, Member, apache_kind, zkpy_kind

from . import oracle, wire
from .oracle import APACHE_VERSIONS
from .rawclient import RawClient

ZKPY = "zkpy"
NEW, OLD = APACHE_VERSIONS

Tree = dict[str, tuple[bytes | None, list[wire.Acl], wire.Stat]]


def kind(name: str) -> Kind:
    """zkpy, or the Apache of that version; skips the test where it cannot be had."""
    reason = oracle.zkpy_missing() if name == ZKPY else oracle.apache_missing(name)
    if reason is not None:
        pytest.skip(reason)
    if name == ZKPY:
        return zkpy_kind(oracle.SOURCE)
    return apache_kind(name, oracle.classpath(name))


def new_ensemble(
    folder: Path,
    kinds: Iterable[str],
    config: Mapping[str, object] | None = None,
    **options: Any,
) -> Ensemble:
    """A stopped ensemble of these kinds, sids from 1."""
    return Ensemble(folder, [kind(name) for name in kinds], config, **options)


def session(member: Member, timeout_ms: int = 10_000) -> RawClient:
    """A client with a new session at that member."""
    client = RawClient(member.address, connect=connector(member))
    assert client.connect(timeout_ms=timeout_ms).session_id, f"{member} refuses a session"
    return client


def connector(member: Member) -> Callable[[tuple[str, int], float], socket.socket]:
    return member.network.connect


def tree_of(member: Member) -> Tree:
    """Every node as clients of that member see it, with all that was acknowledged before."""
    found: Tree = {}
    client = session(member)
    assert client.call(wire.SYNC, wire.string("/")).err == 0
    waiting = ["/"]
    while waiting:
        # Many at once: there may be thousands.
        paths, waiting = waiting[:100], waiting[100:]
        for path in paths:
            client.send(wire.GET_DATA, wire.path_watch(path))
            client.send(wire.GET_ACL, wire.string(path))
            client.send(wire.GET_CHILDREN, wire.path_watch(path))
        for path in paths:
            data, stat = client.recv_reply().value(wire.GET_DATA)
            acl, _ = client.recv_reply().value(wire.GET_ACL)
            found[path] = (data, acl, stat)
            names = client.recv_reply().value(wire.GET_CHILDREN)
            waiting += [f"{path.rstrip('/')}/{name}" for name in names]
    client.end_session()
    # When the text of the configuration was put there is each member's own affair, and the order
    # of its lines is that of a Java hash table.
    data, acl, stat = found["/zookeeper/config"]
    text = b"\n".join(sorted((data or b"").split(b"\n")))
    found["/zookeeper/config"] = (text, acl, stat._replace(mtime=0, ctime=0, mzxid=0))
    return found


def settle(ensemble: Ensemble) -> None:
    """Wait until every member has applied everything.

    Behind a txn of ours: the zxid of a learner that has joined a new epoch is that of its last
    txn, in the old one, until there is another.
    """
    session(ensemble.wait_for_leader()).end_session()
    ensemble.wait_until_equal()


def check_equal_trees(ensemble: Ensemble) -> Tree:
    """All members that run hold the same nodes, and none found a digest it does not agree with."""
    settle(ensemble)
    first, *others = ensemble.running
    tree = tree_of(first)
    for member in others:
        other = tree_of(member)
        for path in sorted(tree.keys() | other.keys()):
            assert tree.get(path) == other.get(path), (
                f"{path} differs on {first} and {member}:\n{tree.get(path)}\n{other.get(path)}"
            )
    for member in ensemble.running:
        check_digests(member)
    return tree


def check_digests(member: Member) -> None:
    """It has never found its tree to differ from what the leader's digests say.

    Unless it was sent a snapshot: Apache takes one while writes go on, so that the digests of the
    txns sent behind it are of trees between which the snapshot lies. 3.8.0 is not asked: when it
    stops to follow, two threads apply what is left, each without regard to the other.
    """
    if str(member.kind) == OLD or "Getting a snapshot from leader" in member.log_text(
        all_starts=True
    ):
        return
    found = member.monitor().get("digest_mismatches_count")
    assert found in (None, "0"), f"{member} found {found} digest mismatches"
    wrong = re.findall(
        r".*[Dd]igests? (?:are|is|does) not match.*", member.log_text(all_starts=True)
    )
    assert not wrong, f"{member}: {wrong[:3]}"


def restored(member: Member, copy: Path) -> LoadedDatabase:
    """What the directory of a stopped member holds, read by zkpy from a copy."""
    assert not member.running
    shutil.copytree(member.data_dir, copy)
    store = FileTxnSnapLog(OsDisk(), Settings(str(copy), extended_types_enabled=True))
    store.open()
    try:
        return store.restore()
    finally:
        store.close()


def append_uncommitted(member: Member, path: str) -> int:
    """Log one more create, of `path`, as if it had been proposed and then all others had died.

    Returns its zxid. The member must be stopped.
    """
    assert not member.running
    store = FileTxnSnapLog(OsDisk(), Settings(str(member.data_dir), preallocate_bytes=65536))
    store.open()
    try:
        loaded = store.restore()
        zxid = loaded.last_zxid + 1
        header = TxnHeader(0, 1, zxid, 1_700_000_000_000, OpCode.CREATE)
        acl = (ACL(31, "world", "anyone"),)
        record = CreateTxn(path, b"uncommitted", acl, False, 1)
        apply_txn(loaded.tree, header, record)
        store.log.append(zxid, encode_txn(header, record, TxnDigest(2, loaded.tree.digest)))
        store.log.commit()
    finally:
        store.close()
    return zxid


def check_directories(ensemble: Ensemble, folder: Path) -> None:
    """Every member's log and snapshots agree with the digests in them; members are all stopped.

    Not those of 3.8.0: it may fail when it joins under load (ZOOKEEPER-4394), and then logs again
    what it has logged.
    """
    for member in ensemble.members.values():
        if str(member.kind) == OLD:
            continue
        loaded = restored(member, folder / f"copy{member.sid}")
        assert loaded.digest_mismatches == 0, f"{member}"
