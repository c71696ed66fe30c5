"""FileSnap: the tree in a file.

    header, sessions, ACL map, nodes; seal; digest section, seal; zxid section, seal

A seal is the Adler32 of all bytes before it. Owns header, seals, sections, file names and the
order of fallback; what the tree looks like as bytes is datatree/serialize.py's.
Source: FileSnap, SnapStream, ZooKeeper 3.9.
"""

from __future__ import annotations

import struct
from logging import getLogger
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import adler32

from zkpy.datatree.serialize import SnapshotInput, deserialize_tree, serialize_tree
from zkpy.persistence.errors import CorruptFile, DiskError, DiskReadError
from zkpy.persistence.files import TEMPORARY, snapshots_in
from zkpy.persistence.logreader import DEFAULT_MAX_RECORD_BYTES
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.txns import DIGEST_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zkpy.datatree.tree import DataTree
    from zkpy.persistence.compression import Compressor
    from zkpy.persistence.disk import Disk, DiskFile

log = getLogger(__name__)

MAGIC: Final = b"ZKSN"
FILE_HEADER: Final = MAGIC + b"\0\0\0\x02" + b"\xff" * 8
SEAL_END: Final = b"\0\0\0\x01/"
SEAL_BYTES: Final = 13
ZXID_SECTION_BYTES: Final = 8 + SEAL_BYTES
# Snapshots tried at a start, newest first. Source: FileSnap.deserialize.
MAX_TRIES: Final = 100
MIN_SIZE_BYTES: Final = 10
CHUNK_BYTES: Final = 1 << 20
# Lengths in a snapshot are checked only against nonsense: the seals tell whether the bytes are
# good, and a node written under a larger jute.maxbuffer should not keep a server from starting.
MIN_LENGTH_LIMIT_BYTES: Final = 1 << 25

SUFFIX_OF_METHOD: Final = {"gz": ".gz", "snappy": ".snappy"}

_SEAL = struct.Struct(">Q5s")
_DIGEST = struct.Struct(">qiQ")
_LONG = struct.Struct(">q")


class SnapshotDigest(NamedTuple):
    """Zxid of the last txn applied before the section was written, and the tree digest then."""

    zxid: int
    version: int
    tree_digest: int


class LoadedSnapshot(NamedTuple):
    """`zxid`: from the name, where replay starts. The sections are None where the file has none."""

    zxid: int
    name: str
    tree: DataTree
    digest: SnapshotDigest | None
    last_processed_zxid: int | None


class SnapshotWriter:
    """One snapshot under way: bytes are computed by one call and written by another.

    `feed` and `finish` only compute and may run in one thread (the event loop), `write` and
    `commit` do I/O and may run in another one. `finish` comes before `commit`. `abort` may come at
    any time: what is being written then is written, and removed by the thread that wrote it.
    """

    def __init__(self, disk: Disk, directory: str, zxid: int, suffix: str = "") -> None:
        """`zxid`: of the last txn applied before the first byte was fed. Does no I/O."""
        self.zxid = zxid
        self.name = f"snapshot.{zxid:x}{suffix}"
        self.size_bytes = 0
        self._disk = disk
        self._directory = directory
        self._suffix = suffix
        self._compressor: Compressor | None = None
        self._file: DiskFile | None = None
        self._writing = False
        self._aborted = False
        self._checksum = adler32(FILE_HEADER)
        self._pending = [FILE_HEADER]
        self._fed_bytes = len(FILE_HEADER)
        self._taken_bytes = 0

    @property
    def path(self) -> str:
        """Where the snapshot will be once committed."""
        return f"{self._directory}/{self.name}"

    @property
    def pending_bytes(self) -> int:
        """Bytes fed and not yet written; the caller bounds its memory by calling `write`."""
        return self._fed_bytes - self._taken_bytes

    def feed(self, data: bytes) -> None:
        """Take a slice of the serialized tree."""
        self._checksum = adler32(data, self._checksum)
        self._pending.append(data)
        self._fed_bytes += len(data)

    def finish(
        self,
        digest: SnapshotDigest | None = None,
        last_processed_zxid: int | None = None,
    ) -> None:
        """Seal the tree and add the sections that are given, each with its seal."""
        self._seal()
        if digest is not None:
            self.feed(_DIGEST.pack(*digest))
            self._seal()
        if last_processed_zxid is not None:
            self.feed(_LONG.pack(last_processed_zxid))
            self._seal()

    def _seal(self) -> None:
        self.feed(_SEAL.pack(self._checksum, SEAL_END))

    def write(self) -> None:
        """Write what has been fed. Raises DiskWriteError."""
        self._writing = True
        try:
            if not self._aborted:
                self._write()
        finally:
            self._done_writing()

    def commit(self) -> None:
        """Write the rest, make it durable, and give the file its name. Raises DiskWriteError."""
        self._writing = True
        try:
            if not self._aborted:
                self._write()
                self._commit()
        finally:
            self._done_writing()

    def abort(self) -> None:
        """Give up, leave no file behind; does nothing after `commit`. Raises nothing."""
        self._aborted = True
        if not self._writing:
            self._remove()

    def _done_writing(self) -> None:
        # With the opposite order in abort(): at least one of the two threads removes the file.
        self._writing = False
        if self._aborted:
            self._remove()

    def _write(self) -> None:
        pending = self._pending
        count = len(pending)
        data = b"".join(pending[:count])
        del pending[:count]
        self._taken_bytes += len(data)
        if self._file is None:
            self._file = self._disk.create(f"{self._directory}/{TEMPORARY}{self.name}")
            if self._suffix:
                from zkpy.persistence.compression import COMPRESSORS

                self._compressor = COMPRESSORS[self._suffix]()
        if self._compressor is not None:
            data = self._compressor.compress(data)
        self._append(self._file, data)

    def _append(self, file: DiskFile, data: bytes) -> None:
        if data:
            file.write(data, self.size_bytes)
            self.size_bytes += len(data)

    def _commit(self) -> None:
        file = self._file
        assert file is not None, "written before"
        if self._compressor is not None:
            self._append(file, self._compressor.flush())
        file.fdatasync()
        file.close()
        self._disk.rename(file.path, self.path)
        self._file = None
        self._disk.fsync_dir(self._directory)

    def _remove(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
            self._disk.remove(file.path)
        except DiskError as error:
            log.warning("left over until the next start: %s", error)


class FileSnap:
    """The snapshots of one directory."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        compression_method: str = "",
        digest_enabled: bool = True,
        serialize_last_processed_zxid: bool = True,
        max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
    ) -> None:
        """`compression_method`: "gz", "snappy", anything else is none."""
        self.directory = directory
        self._disk = disk
        self._suffix = SUFFIX_OF_METHOD.get(compression_method, "")
        self._digest_enabled = digest_enabled
        self._serialize_last_processed_zxid = serialize_last_processed_zxid
        self._limit_bytes = max(max_record_bytes, MIN_LENGTH_LIMIT_BYTES)

    # ------------------------------------------------------------------ writing

    def writer(self, tree: DataTree) -> SnapshotWriter:
        """Begin a snapshot of `tree`; feed it what `serialize_tree(tree)` yields from now on."""
        return SnapshotWriter(self._disk, self.directory, tree.last_processed_zxid, self._suffix)

    def finish(self, writer: SnapshotWriter, tree: DataTree) -> None:
        """Seal what `writer` was fed, with the sections this server is set to write.

        To be called in the same turn as the last slice was taken: the digest section says how far
        the tree had come.
        """
        zxid = tree.last_processed_zxid
        digest = None
        if self._digest_enabled:
            digest = SnapshotDigest(zxid, DIGEST_VERSION, tree.digest if zxid else 0)
        writer.finish(digest, zxid if self._serialize_last_processed_zxid else None)

    def save(self, tree: DataTree) -> SnapshotWriter:
        """Write a whole snapshot at once. Raises DiskWriteError; removes what is unfinished."""
        writer = self.writer(tree)
        try:
            for data in serialize_tree(tree):
                writer.feed(data)
                if writer.pending_bytes >= CHUNK_BYTES:
                    writer.write()
            self.finish(writer, tree)
            writer.commit()
        except BaseException:
            writer.abort()
            raise
        return writer

    def remove_newer(self, kept: LoadedSnapshot) -> None:
        """Remove the snapshots listed before `kept`, newest first. Raises DiskError."""
        for zxid, name in snapshots_in(self._disk, self.directory):
            if (zxid, name) == (kept.zxid, kept.name):
                break
            log.info("removing %s, which may show txns that are truncated", name)
            self._disk.remove(f"{self.directory}/{name}")
            self._disk.fsync_dir(self.directory)

    def remove_others(self, path: str) -> None:
        """Remove all snapshots but the one at `path`, newest first. Raises DiskError."""
        removed = False
        for _, name in snapshots_in(self._disk, self.directory):
            other = f"{self.directory}/{name}"
            if other != path:
                log.info("removing %s: the log does not lead from it to %s", other, path)
                self._disk.remove(other)
                removed = True
        if removed:
            self._disk.fsync_dir(self.directory)

    # ------------------------------------------------------------------ reading

    def find_valid(self, limit: int = MAX_TRIES) -> list[tuple[int, str]]:
        """(zxid, name) of up to `limit` snapshots that look complete, newest first."""
        found: list[tuple[int, str]] = []
        for zxid, name in snapshots_in(self._disk, self.directory):
            if len(found) >= limit:
                break
            if self._looks_complete(name):
                found.append((zxid, name))
            else:
                log.info("Invalid snapshot %s", name)
        return found

    def _looks_complete(self, name: str) -> bool:
        path = f"{self.directory}/{name}"
        try:
            if name.endswith((".gz", ".snappy")):
                from zkpy.persistence.compression import GZIP_MAGIC, SNAPPY_MAGIC

                magic = GZIP_MAGIC if name.endswith(".gz") else SNAPPY_MAGIC
                return self._disk.read(path, 0, len(magic)) == magic
            size = self._disk.size(path)
            end = len(SEAL_END)
            return size >= MIN_SIZE_BYTES and self._disk.read(path, size - end, end) == SEAL_END
        except DiskReadError as error:
            log.warning("%s", error)
            return False

    def load_newest(
        self, new_tree: Callable[[], DataTree], accept: Callable[[int], bool] | None = None
    ) -> LoadedSnapshot | None:
        """Load the newest snapshot that can be read; None if none even looks complete.

        `new_tree` makes an empty tree for each attempt; `accept` says whether a snapshot may be
        used, by a zxid its content may include. Raises CorruptFile if there are some but none
        loads.
        """
        candidates = self.find_valid()
        if accept is not None:
            candidates = [found for found in candidates if accept(found[0])]
        for zxid, name in candidates:
            try:
                loaded = self.load(zxid, name, new_tree())
            except (CorruptFile, DiskReadError) as error:
                log.warning("problem reading snap file %s", error)
                continue
            content = max(
                loaded.last_processed_zxid or 0, loaded.digest.zxid if loaded.digest else 0
            )
            if accept is None or accept(content):
                return loaded
        if candidates and accept is None:
            reason = f"Not able to find valid snapshots, tried {len(candidates)}"
            raise CorruptFile(self.directory, reason)
        return None

    def load(self, zxid: int, name: str, tree: DataTree) -> LoadedSnapshot:
        """Fill `tree`, which is new, from a file. Raises CorruptFile and DiskReadError.

        `tree.last_processed_zxid` is `zxid` then.
        """
        path = f"{self.directory}/{name}"
        source = SnapshotInput(self.chunks_of(path))
        try:
            digest, last_processed_zxid = read_snapshot(source, tree, self._limit_bytes)
        except DecodeError as error:
            raise CorruptFile(path, str(error), source.offset()) from None
        tree.last_processed_zxid = zxid
        return LoadedSnapshot(zxid, name, tree, digest, last_processed_zxid)

    def chunks_of(self, path: str) -> Iterator[bytes]:
        """A snapshot file's content, uncompressed. Raises DecodeError and DiskReadError."""
        chunks = self._disk.read_chunks(path, CHUNK_BYTES)
        for suffix in (".gz", ".snappy"):
            if path.endswith(suffix):
                from zkpy.persistence.compression import DECOMPRESSORS

                return DECOMPRESSORS[suffix](chunks)
        return chunks


def read_snapshot(
    source: SnapshotInput, tree: DataTree, limit_bytes: int
) -> tuple[SnapshotDigest | None, int | None]:
    """Read a file's content into `tree`; return the digest and zxid sections.

    Which sections are there is told by how many bytes are left, not by settings: the reference
    goes by its settings, and cannot read its own files after they change. Raises DecodeError.
    """
    header = source.take(len(FILE_HEADER))
    if header[:4] != MAGIC:
        raise DecodeError(f"mismatching magic headers {header[:4].hex()} != {MAGIC.hex()}")
    deserialize_tree(source, tree, limit_bytes)
    _check_seal(source)
    digest = None
    last_processed_zxid = None
    rest = source.remaining(ZXID_SECTION_BYTES + 1)
    if rest > ZXID_SECTION_BYTES:
        digest = _take_digest(source, limit_bytes)
        _check_seal(source)
        rest = source.remaining(ZXID_SECTION_BYTES + 1)
    if rest:
        last_processed_zxid = source.take_long()
        _check_seal(source)
    if not source.at_end():
        raise DecodeError("bytes behind the last seal")
    return digest, last_processed_zxid


def _take_digest(source: SnapshotInput, limit_bytes: int) -> SnapshotDigest:
    zxid = source.take_long()
    version = source.take_int()
    if version >= DIGEST_VERSION:
        return SnapshotDigest(zxid, version, source.take_long() & (1 << 64) - 1)
    source.take_buffer(limit_bytes)  # older: the digest as text, which nothing compares
    return SnapshotDigest(zxid, version, 0)


def _check_seal(source: SnapshotInput) -> None:
    expected = source.checksum()
    checksum, end = _SEAL.unpack(source.take(SEAL_BYTES))
    if checksum != expected or end != SEAL_END:
        raise DecodeError(f"CRC corruption: sealed with {checksum:#x}, content has {expected:#x}")
