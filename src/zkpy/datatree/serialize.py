"""The tree as bytes, in slices: what a snapshot file and a SNAP stream have in common.

    sessions, ACL map, nodes (parents first), terminator "/"

The tree may change between two slices (a fuzzy snapshot): replaying the log from the snapshot's
zxid on repairs that. Knows nothing of files, checksums or seals.
Source: SerializeUtils, DataTree.serialize, ZooKeeper 3.9.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from typing import Final
from zlib import adler32, crc32

from zkpy.datatree.acls import OPEN_UNSAFE_ACL_ID
from zkpy.datatree.children import WIDE, Children, WideChildren, slices_of
from zkpy.datatree.digest import node_digest, tree_digest
from zkpy.datatree.node import DataNode
from zkpy.datatree.tree import DataTree
from zkpy.protocol.acl import encode_acls, read_acls
from zkpy.protocol.errors import DecodeError
from zkpy.protocol.jute import NULL, encode_text
from zkpy.protocol.txns import MASK64

_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")
_SESSION = struct.Struct(">qi")
# ACL id and stat as stored: czxid mzxid, ctime to aversion, ephemeralOwner, pzxid.
_ACL_AND_STAT = struct.Struct(">q16s28s8s8s")
ACL_AND_STAT_BYTES: Final = 68
NO_OWNER: Final = bytes(8)
SLASH: Final = 0x2F

# Nodes per slice: about 100 us of work.
SLICE_NODES: Final = 64
TERMINATOR: Final = b"\x00\x00\x00\x01/"
# Ends a stream to a learner. Source: LearnerHandler.run.
SIGNATURE: Final = b"\x00\x00\x00\x0aBenWasHere"


def encode_node(path: str, node: DataNode) -> bytes:
    """Path, data, ACL id and stat, as stored."""
    name = encode_text(path)
    data = node.data
    stat = node.stat
    return b"".join(
        (
            _INT.pack(len(name)),
            name,
            NULL if data is None else _INT.pack(len(data)),
            data or b"",
            _LONG.pack(node.acl),
            # Stored order has pzxid last: czxid mzxid | ctime .. owner | pzxid.
            stat[:16],
            stat[24:],
            stat[16:24],
        )
    )


def serialize_tree(tree: DataTree) -> Iterator[bytes]:
    """Yield the tree in slices; between two the caller may do other work, and the tree change."""
    sessions = list(tree.sessions.items())
    acls = tree.acl_cache.entries()
    yield _INT.pack(len(sessions))
    for start in range(0, len(sessions), 1024):
        yield b"".join([_SESSION.pack(*entry) for entry in sessions[start : start + 1024]])
    yield _INT.pack(len(acls))
    for start in range(0, len(acls), SLICE_NODES):
        yield b"".join(
            [_LONG.pack(i) + encode_acls(a) for i, a in acls[start : start + SLICE_NODES]]
        )
    yield encode_node("", tree.nodes[""])
    yield from _serialize_below(tree)
    yield TERMINATOR


def serialize_stream(tree: DataTree) -> Iterator[bytes]:
    """What follows a SNAP packet: the tree as `serialize_tree` yields it, and the signature."""
    yield from serialize_tree(tree)
    yield SIGNATURE


def _serialize_below(tree: DataTree) -> Iterator[bytes]:
    parents = [""]
    while parents:
        parent = tree.nodes.get(parents.pop())
        if parent is None:
            continue  # deleted since it was written
        for paths in slices_of(parent.children):
            for start in range(0, len(paths), SLICE_NODES):
                yield _encode_slice(tree, paths[start : start + SLICE_NODES], parents)


def _encode_slice(tree: DataTree, paths: list[str], parents: list[str]) -> bytes:
    """As `encode_node` for many, in one go; those with children are added to `parents`."""
    nodes = tree.nodes
    length = _INT.pack
    out: list[bytes] = []
    acl_id = 0
    acl = _LONG.pack(acl_id)
    for path in paths:
        node = nodes.get(path)
        if node is None:
            continue  # deleted since its parent was listed
        if node.children:
            parents.append(path)
        if node.acl != acl_id:
            acl_id = node.acl
            acl = _LONG.pack(acl_id)
        name = path.encode() if path.isascii() else encode_text(path)
        data = node.data
        stat = node.stat
        if data is None:
            out += (length(len(name)), name, NULL, acl, stat[:16], stat[24:], stat[16:24])
        else:
            size = length(len(data))
            out += (length(len(name)), name, size, data, acl, stat[:16], stat[24:], stat[16:24])
    return b"".join(out)


class SnapshotInput:
    """Chunks of bytes read as one stream, with the Adler32 of what has been consumed."""

    __slots__ = ("_checksum", "_chunks", "_summed", "buf", "consumed", "pos")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._checksum = 1
        self._summed = 0
        self.buf = b""
        self.pos = 0
        self.consumed = 0

    def refill(self) -> None:
        """Drop what is consumed and append the next chunk. Raises DecodeError at the end."""
        self._settle()
        chunk = next(self._chunks, b"")
        if not chunk:
            raise DecodeError(f"ends at {self.consumed + len(self.buf) - self.pos}, in a record")
        self.buf = self.buf[self.pos :] + chunk
        self.pos = self._summed = 0

    def _settle(self) -> None:
        if self.pos > self._summed:
            part = memoryview(self.buf)[self._summed : self.pos]
            self._checksum = adler32(part, self._checksum)
            self.consumed += self.pos - self._summed
            self._summed = self.pos

    def checksum(self) -> int:
        """Adler32 of all bytes consumed so far."""
        self._settle()
        return self._checksum

    def offset(self) -> int:
        """How many bytes have been consumed."""
        self._settle()
        return self.consumed

    def take(self, size: int) -> bytes:
        """The next `size` bytes. Raises DecodeError if there are fewer."""
        while len(self.buf) - self.pos < size:
            self.refill()
        start = self.pos
        self.pos = start + size
        return self.buf[start : self.pos]

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.remaining(1) == 0

    def remaining(self, most: int) -> int:
        """How many bytes are left, counted up to `most`."""
        while len(self.buf) - self.pos < most:
            self._settle()
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self.buf = self.buf[self.pos :] + chunk
            self.pos = self._summed = 0
        return min(len(self.buf) - self.pos, most)

    def take_int(self) -> int:
        """The next signed 32-bit integer."""
        value: int = _INT.unpack(self.take(4))[0]
        return value

    def take_long(self) -> int:
        """The next signed 64-bit integer."""
        value: int = _LONG.unpack(self.take(8))[0]
        return value

    def take_buffer(self, limit: int) -> bytes | None:
        """The next buffer. Raises DecodeError on a length below -1 or above `limit` bytes."""
        length = self.take_int()
        if length == -1:
            return None
        if not 0 <= length <= limit:
            raise DecodeError(f"Unreasonable length = {length} at {self.offset() - 4}")
        return self.take(length)


def deserialize_tree(source: SnapshotInput, tree: DataTree, limit: int) -> None:
    """Fill `tree`, which is new, from what `serialize_tree` yields; lengths up to `limit` bytes.

    Sessions, indexes, ACL counts and, if the tree counts it, the digest are complete afterwards.
    Raises DecodeError on anything that is not a tree (also a node before its parent).
    """
    reader = TreeReader(tree, limit)
    while reader.read(source):
        source.refill()


class TreeReceiver:
    """Reads what `serialize_stream` yields, as it comes over a connection.

    Each chunk is worked on when it comes, so that none holds up the caller for long.
    """

    __slots__ = ("_chunks", "_complete", "_input", "_missing", "_reader", "_tree")

    def __init__(self, tree: DataTree, limit: int) -> None:
        """`tree` is new; lengths up to `limit` bytes are believed."""
        self._tree = tree
        self._reader: TreeReader | None = TreeReader(tree, limit)
        self._input = _ReceivedInput()
        # What came since the last attempt, and how many bytes more are needed for the next.
        self._chunks: list[bytes] = []
        self._missing = 1
        self._complete = False

    def feed(self, data: bytes) -> bytes | None:
        """None: more is needed. Else the stream is complete, and this is what follows it.

        Raises DecodeError for what is no such stream (also a wrong signature).
        """
        assert not self._complete, "nothing of the stream is left"
        self._chunks.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return None  # joined once, however many chunks a node comes in
        source = self._input
        source.append(self._chunks)
        self._chunks.clear()
        missing = 0
        if self._reader is not None:
            missing = self._read_tree(self._reader)
            if not missing:
                self._reader = None
        if self._reader is None:
            missing = self._read_signature()
        self._missing = missing
        return None if missing else source.buf[source.pos :]

    def _read_tree(self, reader: TreeReader) -> int:
        # Nothing of what is made here is garbage; looking for it would take a third of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return reader.read(self._input)
        finally:
            if collecting:
                gc.enable()

    def _read_signature(self) -> int:
        source = self._input
        end = source.pos + len(SIGNATURE)
        found = source.buf[source.pos : end]
        if not SIGNATURE.startswith(found):
            raise DecodeError(f"Missing signature. Got {found.hex()}")
        if len(found) < len(SIGNATURE):
            return len(SIGNATURE) - len(found)
        source.pos = end
        self._complete = True
        return 0

    def finished_tree(self) -> DataTree:
        """The tree, once the stream is complete."""
        assert self._complete, "the stream has ended"
        return self._tree


class _ReceivedInput:
    """Bytes of a connection, for TreeReader."""

    __slots__ = ("buf", "dropped", "pos")

    def __init__(self) -> None:
        self.buf = b""
        self.pos = 0
        self.dropped = 0

    def append(self, chunks: list[bytes]) -> None:
        """Drop what is consumed, and add `chunks`."""
        self.buf = b"".join((self.buf[self.pos :], *chunks))
        self.dropped += self.pos
        self.pos = 0

    def offset(self) -> int:
        """How many bytes have been consumed."""
        return self.dropped + self.pos


class TreeReader:
    """Fills a tree from a stream of which only a part is there at a time."""

    def __init__(self, tree: DataTree, limit: int) -> None:
        """`tree` is new. Lengths up to `limit` bytes are believed."""
        self._tree = tree
        self._limit = limit
        self._left = -1  # sessions or ACLs still to come; -1: their number is to come
        self._parts = [self._read_sessions, self._read_acls, self._read_nodes]
        # Siblings mostly come one after the other: where those below `_parent` are noted.
        self._parent: str | None = None
        self._siblings: Children = {}
        self._in_digest = False
        self._wide: list[str] = []
        self._counts: dict[int, int] = {}
        self._taken = 0
        _clear_built_in(tree)

    def read(self, source: SnapshotInput | _ReceivedInput) -> int:
        """Take what is complete of `source`; return 0 at the end of the tree.

        Else return how many bytes more are needed to go on, at least. Raises DecodeError.
        """
        parts = self._parts
        while parts:
            missing = parts[0](source)
            if missing:
                return missing
            del parts[0]
        return 0

    def _read_count(self, source: SnapshotInput | _ReceivedInput) -> bool:
        """Whether the number of what comes next is known."""
        if self._left < 0:
            if len(source.buf) - source.pos < 4:
                return False
            self._left = max(_INT.unpack_from(source.buf, source.pos)[0], 0)
            source.pos += 4
        return True

    def _read_sessions(self, source: SnapshotInput | _ReceivedInput) -> int:
        if not self._read_count(source):
            return 1
        size = min(self._left, (len(source.buf) - source.pos) // _SESSION.size) * _SESSION.size
        part = source.buf[source.pos : source.pos + size]
        self._tree.sessions.update(_SESSION.iter_unpack(part))
        source.pos += size
        self._left -= size // _SESSION.size
        if self._left:
            return _SESSION.size - (len(source.buf) - source.pos)
        self._left = -1
        return 0

    def _read_acls(self, source: SnapshotInput | _ReceivedInput) -> int:
        if not self._read_count(source):
            return 1
        buf = source.buf
        while self._left:
            pos = source.pos
            if pos + 8 > len(buf):
                return pos + 8 - len(buf)
            try:
                acls, end = read_acls(buf, pos + 8)
            except DecodeError:
                if len(buf) - pos > self._limit:
                    raise  # longer than a txn can be: do not look for its end any further
                return 1
            self._tree.acl_cache.load(_LONG.unpack_from(buf, pos)[0], acls or ())
            source.pos = end
            self._left -= 1
        return 0

    def _read_nodes(self, source: SnapshotInput | _ReceivedInput) -> int:
        """DataTree.add_loaded_node for a million nodes."""
        tree = self._tree
        nodes = tree.nodes
        counts = self._counts
        count_digest = tree.count_digest
        parent_path = self._parent
        siblings = self._siblings
        in_digest = self._in_digest
        limit = self._limit
        digest = size = taken = 0
        int_at = _INT.unpack_from
        rest_at = _ACL_AND_STAT.unpack_from
        buf = source.buf
        pos = source.pos
        have = len(buf)
        missing = -1
        while missing < 0:
            # The smallest node has 76 bytes; the terminator has 5.
            if pos + 5 > have:
                missing = pos + 5 - have
                break
            (length,) = int_at(buf, pos)
            start = pos + 4
            end = start + length
            if length == 1 and buf[start] == SLASH:
                source.pos = end
                missing = 0
                break
            if not 0 <= length <= limit:
                source.pos = pos
                raise DecodeError(f"Unreasonable length = {length} at {source.offset()}")
            stop = end + 4
            if stop > have:
                missing = stop + ACL_AND_STAT_BYTES - have
                break
            (data_length,) = int_at(buf, end)
            if data_length >= 0:
                stop += data_length
            if not -1 <= data_length <= limit:
                source.pos = end
                raise DecodeError(f"Unreasonable length = {data_length} at {source.offset()}")
            if stop + ACL_AND_STAT_BYTES > have:
                missing = stop + ACL_AND_STAT_BYTES - have
                break
            data = None if data_length < 0 else buf[end + 4 : stop]
            name = buf[start:end]
            acl, first, middle, owner, pzxid = rest_at(buf, stop)
            stat = first + pzxid + middle + owner
            pos = stop + ACL_AND_STAT_BYTES
            try:
                path = str(name, "utf-8")
            except UnicodeDecodeError:
                path = name.decode("utf-8", "replace")
                name = encode_text(path)
            above = path[: path.rfind("/")]
            if above != parent_path or not path:
                if not path:
                    nodes[""] = DataNode(data, acl, stat)
                if len(siblings) >= WIDE:
                    self._wide.append(parent_path or "")
                siblings = _siblings_below(above, path, nodes)
                parent_path = above
                in_digest = count_digest and not f"{above}/".startswith("/zookeeper/")
            if path:
                nodes[path] = DataNode(data, acl, stat)
                siblings[path] = None
            counts[acl] = counts.get(acl, 0) + 1
            taken += 1
            size += len(path) + data_length if data else len(path)
            if owner != NO_OWNER:
                tree.index_owner(path, int.from_bytes(owner, "big", signed=True))
            if in_digest:
                digest += crc32(stat, crc32(data, crc32(name)) if data else crc32(name))
        self._parent = parent_path
        self._siblings = siblings
        self._in_digest = in_digest
        self._taken += taken
        tree.data_size += size
        tree.digest = (tree.digest + digest) & MASK64
        if missing:
            source.pos = pos
            return missing
        self._finish()
        return 0

    def _finish(self) -> None:
        tree = self._tree
        nodes = tree.nodes
        for above in (*self._wide, self._parent or ""):
            children = nodes[above].children if above in nodes else None
            if isinstance(children, dict) and len(children) >= WIDE:
                nodes[above].children = WideChildren(children)
        for acl, count in self._counts.items():
            tree.acl_cache.use(acl, count)
        if self._taken != len(nodes) and tree.count_digest:
            tree.digest = tree_digest(nodes)  # a path came twice
        _restore_built_in(tree)
        nodes["/"] = nodes[""]
        tree.finish_loading()


def _clear_built_in(tree: DataTree) -> None:
    tree.nodes.clear()
    tree.acl_cache.__init__()  # type: ignore[misc]
    tree.data_size = tree.digest = 0


def _restore_built_in(tree: DataTree) -> None:
    if "" not in tree.nodes:
        raise DecodeError("snapshot without a root node")
    fresh = DataTree()
    for path in ("/zookeeper", "/zookeeper/config", "/zookeeper/quota"):
        if path not in tree.nodes:
            node = fresh.nodes[path]
            acl = node.acl
            if acl != OPEN_UNSAFE_ACL_ID:
                acl = tree.acl_cache.add(fresh.acls_of(node))
            tree.add_loaded_node(path, DataNode(b"", acl, node.stat))
            tree.digest += node_digest(path, b"", node.stat)


def _siblings_below(above: str, path: str, nodes: dict[str, DataNode]) -> Children:
    """Where the children of `above` are noted. Raises DecodeError if it is missing."""
    parent = nodes.get(above)
    if parent is None:
        raise DecodeError(f"node {path!r} before its parent")
    if parent.children is None:
        parent.children = {}
    return parent.children
