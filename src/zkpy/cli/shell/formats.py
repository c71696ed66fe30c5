"""How values look: stats, dates, ACLs, data, hex dumps, quotas; as text and as JSON.

Pure: values in, text out. It must not know who prints.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any, Final

from zkpy.protocol.acl import ACL
from zkpy.protocol.zoodefs import Perms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zkpy.client.codec import Stat

    Complain = Callable[[str], None]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
# In the order in which getAcl prints them.
_PERMS: Final = (
    ("c", Perms.CREATE),
    ("d", Perms.DELETE),
    ("r", Perms.READ),
    ("w", Perms.WRITE),
    ("a", Perms.ADMIN),
)
_64_BITS: Final = (1 << 64) - 1


def hexadecimal(number: int) -> str:
    """A zxid or session id as its 64 bits, unsigned, without padding."""
    return f"{number & _64_BITS:#x}"


def date_text(epoch_ms: int) -> str:
    """Java's Date.toString: local zone, English names, whatever the locale."""
    try:
        t = time.localtime(epoch_ms // 1000)
    except (OverflowError, ValueError, OSError):
        return f"{epoch_ms} ms"  # beyond the calendar; only a broken clock makes such nodes
    clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
    day = f"{_DAYS[t.tm_wday]} {_MONTHS[t.tm_mon - 1]} {t.tm_mday:02}"
    return f"{day} {clock} {t.tm_zone} {t.tm_year:04}"


def stat_lines(stat: Stat) -> list[str]:
    """The stat block of get -s and stat."""
    return [
        f"cZxid = {hexadecimal(stat.czxid)}",
        f"ctime = {date_text(stat.ctime)}",
        f"mZxid = {hexadecimal(stat.mzxid)}",
        f"mtime = {date_text(stat.mtime)}",
        f"pZxid = {hexadecimal(stat.pzxid)}",
        f"cversion = {stat.cversion}",
        f"dataVersion = {stat.version}",
        f"aclVersion = {stat.aversion}",
        f"ephemeralOwner = {hexadecimal(stat.ephemeralOwner)}",
        f"dataLength = {stat.dataLength}",
        f"numChildren = {stat.numChildren}",
    ]


def stat_json(stat: Stat) -> dict[str, Any]:
    """A stat under the names of the stat block.

    Numbers of 64 bits are hex text, as many readers of JSON keep 53 bits; times are ms since 1970.
    """
    return {
        "cZxid": hexadecimal(stat.czxid),
        "ctime": stat.ctime,
        "mZxid": hexadecimal(stat.mzxid),
        "mtime": stat.mtime,
        "pZxid": hexadecimal(stat.pzxid),
        "cversion": stat.cversion,
        "dataVersion": stat.version,
        "aclVersion": stat.aversion,
        "ephemeralOwner": hexadecimal(stat.ephemeralOwner),
        "dataLength": stat.dataLength,
        "numChildren": stat.numChildren,
    }


def java_order(name: str) -> bytes:
    """The key by which Java sorts strings: UTF-16 code units, not code points."""
    return name.encode("utf-16-be", "surrogatepass")


def sorted_names(names: Iterable[str]) -> list[str]:
    """Children in the order of the reference."""
    names = list(names)
    plain = all(map(str.isascii, names))
    return sorted(names) if plain else sorted(names, key=java_order)


def list_text(names: Iterable[str]) -> str:
    """`[a, b]`"""
    return f"[{', '.join(names)}]"


def data_text(data: bytes | None) -> str:
    """Data as text; what is not UTF-8 becomes U+FFFD."""
    return "null" if data is None else data.decode("utf-8", "replace")


def data_json(data: bytes | None) -> dict[str, Any]:
    """`{"data": text}`, or `{"data": base64, "encoding": "base64"}` for what is not UTF-8."""
    if data is None:
        return {"data": None}
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(data).decode(), "encoding": "base64"}


def base64_text(data: bytes | None) -> str:
    """Data of get -b; the reference encodes its word for "no data"."""
    return base64.b64encode(b"null" if data is None else data).decode()


def hex_dump(data: bytes | None) -> str:
    """Netty's table: 16 bytes a row, with their ASCII characters."""
    data = b"null" if data is None else data
    rule = "+--------+-------------------------------------------------+----------------+"
    lines = [
        " " * 9 + "+-------------------------------------------------+",
        " " * 9 + "|  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |",
        rule,
    ]
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        pairs = "".join(f" {byte:02x}" for byte in row)
        chars = "".join(chr(byte) if 0x1F < byte < 0x7F else "." for byte in row)
        lines.append(f"|{start:08x}|{pairs:<48} |{chars:<16}|")
    if data:
        lines.append(rule)
    return "\n".join(lines) if data else ""


def perms_text(perms: int) -> str:
    """`cdrwa`, or a part of it."""
    return "".join(letter for letter, bit in _PERMS if perms & bit)


def acl_lines(acls: Iterable[ACL]) -> list[str]:
    """Two lines per entry."""
    lines = []
    for acl in acls:
        lines += [f"'{acl.scheme},'{acl.id}", f": {perms_text(acl.perms)}"]
    return lines


def acl_text(acl: ACL) -> str:
    """An entry in the form that setAcl takes."""
    return f"{acl.scheme}:{acl.id}:{perms_text(acl.perms)}"


def parse_acls(text: str, complain: Complain) -> tuple[ACL, ...]:
    """`scheme:id:perms[,...]`, where the id may contain colons.

    An entry of another form and an unknown letter are told to `complain` and left out, as in
    AclParser.
    """
    bits = dict(_PERMS)
    acls = []
    # Java's split drops empty parts at the end; all of "," are, but that of "" is not.
    for entry in text.rstrip(",").split(",") if text.strip(",") or not text else ():
        scheme, _, rest = entry.partition(":")
        id_, colon, letters = rest.rpartition(":")
        if not colon:
            complain(f"{entry} does not have the form scheme:id:perm")
            continue
        perms = 0
        for letter in letters:
            if letter in bits:
                perms |= bits[letter]
            else:
                complain(f"Unknown perm type: {letter}")
        acls.append(ACL(perms, scheme, id_))
    return tuple(acls)
