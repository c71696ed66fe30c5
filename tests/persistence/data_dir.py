"""Directories for tests: golden ones on a simulated disk, txns to log, a store on top."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.persistence.store import FileTxnSnapLog, Settings
from zkpy.protocol.acl import OPEN_ACL_UNSAFE
from zkpy.protocol.jute import Record
from zkpy.protocol.txns import (
    CreateTxn,
    SetDataTxn,
    TxnDigest,
    TxnHeader,
    decode_txn,
    encode_txn,
)
from zkpy.protocol.zoodefs import OpCode
from zkpy.testing.disk import SimulatedDisk

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "disk"
DATA_DIR = "/data"
DIRECTORY = f"{DATA_DIR}/version-2"


def golden(path: str) -> bytes:
    return (GOLDEN / path).read_bytes()


def golden_files(folder: str) -> dict[str, bytes]:
    """The files of a golden directory, by name."""
    path = GOLDEN / folder
    if (path / "version-2").exists():
        path /= "version-2"
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def disk_with(files: dict[str, bytes], directory: str = DIRECTORY) -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_dirs(directory)
    for name, data in files.items():
        disk.put(f"{directory}/{name}", data)
    return disk


def store_on(disk: SimulatedDisk, **settings: Any) -> FileTxnSnapLog:
    """An open store; extended types on unless told otherwise."""
    settings = {"preallocate_bytes": 16 * 1024, "extended_types_enabled": True, **settings}
    store = FileTxnSnapLog(disk, Settings(settings.pop("data_dir", DATA_DIR), **settings))
    store.open()
    return store


def header(zxid: int, type: int, client_id: int = 1) -> TxnHeader:
    return TxnHeader(client_id, zxid & 0xFFFF, zxid, 1_700_000_000_000 + zxid, type)


def set_data(zxid: int, data: bytes = b"x") -> bytes:
    """A txn for a node every tree has."""
    return encode_txn(header(zxid, OpCode.SET_DATA), SetDataTxn("/", data, zxid & 0xFFFF), None)


def create(zxid: int, path: str, data: bytes | None = b"d", cversion: int = -1) -> bytes:
    record = CreateTxn(path, data, OPEN_ACL_UNSAFE, False, cversion)
    return encode_txn(header(zxid, OpCode.CREATE), record, None)


def with_digest(tree: DataTree, header: TxnHeader, record: Record) -> bytes:
    """Apply a txn to `tree` and encode it with the digest that results."""
    apply_txn(tree, header, record)
    return encode_txn(header, record, TxnDigest(2, tree.digest))


def apply_bytes(tree: DataTree, txn: bytes) -> None:
    apply_txn(tree, *decode_txn(txn)[:2])


def log_file(*txns: bytes, padding: int = 0) -> bytes:
    """A log file's bytes, put together independently of the code under test."""
    from zlib import adler32

    out = [b"ZKLG\0\0\0\2", bytes(8)]
    for txn in txns:
        out.append(adler32(txn).to_bytes(8, "big") + len(txn).to_bytes(4, "big") + txn + b"B")
    return b"".join(out) + bytes(padding)
