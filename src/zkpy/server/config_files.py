"""The files beside zoo.cfg that keep a changing server list, and zoo.cfg's pointer to the newest.

Owns their names, their format, and the order in which they are replaced. When that is due is the
member's matter; reading them is `config_parser`'s. A crash at any point leaves a zoo.cfg that can
be started from, with the list before or after.

Source: QuorumPeerConfig.writeDynamicConfig, editStaticConfig and backupOldConfig,
QuorumPeer.setQuorumVerifier, ZooKeeper 3.9.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zkpy.protocol.properties import BLANKS, split_key, trim, unescape
from zkpy.quorum.members import is_member_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkpy.persistence.disk import Disk
    from zkpy.quorum.members import Members

DYNAMIC: Final = ".dynamic."
NEXT: Final = ".dynamic.next"
BACKUP: Final = ".bak"
TEMPORARY: Final = ".tmp"
MASK64: Final = (1 << 64) - 1

# zoo.cfg is ISO-8859-1, whatever the locale: each byte stays what it is.
STATIC_ENCODING: Final = "iso-8859-1"
# Not splitlines(), which knows more line ends than properties do.
_LINES: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class ConfigFiles:
    """The files of the zoo.cfg at `path`, which is absolute; `my_id` is this member's.

    Everything is durable when a method returns. Errors: DiskReadError, DiskWriteError.
    """

    def __init__(self, disk: Disk, path: str, my_id: int) -> None:
        self._disk = disk
        self._my_id = my_id
        self.path = path

    def back_up(self) -> None:
        """Keep a copy of zoo.cfg as `zoo.cfg.bak`, before the server list leaves it.

        Due at each start with server lines in zoo.cfg, in quorum mode with reconfig enabled.
        """
        self._write(self.path + BACKUP, self._disk.read(self.path))

    def proposed(self, last_proposed: Members, committed: Members) -> None:
        """Note a configuration later than the committed one: it may have to be completed.

        One that is not later takes back what was noted: a leader has never heard of it.
        """
        if last_proposed.version <= committed.version:
            self._forget_proposed()
        else:
            self._write(self.path + NEXT, dynamic_text(last_proposed.text().split("\n")))

    def activated(self, committed: Members, last_proposed: Members) -> None:
        """Make `committed` what the next start reads; forget `last_proposed` unless it is later."""
        path = f"{self.path}{DYNAMIC}{committed.version & MASK64:x}"
        self._write(path, dynamic_text(committed.lines()))
        own = committed.servers.get(self._my_id)
        static = self._disk.read(self.path).decode(STATIC_ENCODING)
        edited = edit_static(
            static, path, drop_client_port=own is not None and own.client_address is not None
        )
        if edited != static:
            self._write(self.path, edited.encode(STATIC_ENCODING))
        # Last: as long as zoo.cfg does not name the committed list, a start needs the proposed one.
        if last_proposed.version <= committed.version:
            self._forget_proposed()

    def _forget_proposed(self) -> None:
        if self._disk.exists(self.path + NEXT):
            self._disk.remove(self.path + NEXT)
            self._disk.fsync_dir(self._directory)

    @property
    def _directory(self) -> str:
        return self.path.rpartition("/")[0] or "/"

    def _write(self, path: str, data: bytes) -> None:
        temporary = path + TEMPORARY
        if self._disk.exists(temporary):
            # Left over from a crash; as a new file it cannot share anything with `path`.
            self._disk.remove(temporary)
        file = self._disk.create(temporary)
        try:
            file.write(data, 0)
            file.fdatasync()
        finally:
            file.close()
        self._disk.rename(temporary, path)
        self._disk.fsync_dir(self._directory)


def dynamic_text(lines: list[str]) -> bytes:
    """`key=value` lines in the order of their text, no LF behind the last."""
    return "\n".join(sorted(map(escaped, lines))).encode("ascii")


def edit_static(text: str, dynamic_path: str, *, drop_client_port: bool) -> str:
    """zoo.cfg with `dynamic_path` in place of its server list.

    `drop_client_port`: the list has our client address. Every other line, comments too, stays as
    it is, where the reference keeps only keys and values, in some order.
    """
    kept: list[str] = []
    for key, lines in keys_with_lines(text):
        if key is not None:
            if is_member_key(key) or key.startswith(("dynamicConfigFile", "peerType")):
                continue
            if drop_client_port and key.startswith("clientPort"):
                continue
        kept.append(lines)
    edited = "".join(kept)
    if edited and not edited.endswith(("\n", "\r")):
        edited += "\n"
    return edited + f"dynamicConfigFile={escaped(dynamic_path)}\n"


def keys_with_lines(text: str) -> Iterator[tuple[str | None, str]]:
    """(key, its lines as they are, LFs included) in a properties text; comments have no key.

    The lines joined are the text, but for a backslash at its very end, which continues nothing.
    """
    lines = _LINES.findall(text)
    index = 0
    while index < len(lines):
        raw = line = lines[index]
        index += 1
        content = line.lstrip(BLANKS).rstrip("\r\n")
        if not content or content[0] in "#!":
            yield None, raw
            continue
        while (len(content) - len(content.rstrip("\\"))) % 2:
            content = content[:-1]
            if index == len(lines):
                raw = raw.removesuffix("\\")
                break
            raw += lines[index]
            content += lines[index].lstrip(BLANKS).rstrip("\r\n")
            index += 1
        yield trim(unescape(content[: split_key(content)[0]])), raw


def escaped(text: str) -> str:
    """`text` as part of a properties value: ASCII, so that the reader's charset does not matter."""
    text = text.replace("\\", "\\\\")
    if text.isascii():
        return text
    units = text.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)
