"""zkpy-log: the text of TxnLogToolkit, JSON, filters, and what it says of damage."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import sys
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.transcripts import DISK, Run, runs_of, utc
from tests.datatree.txn_source import TxnSource
from tests.persistence.data_dir import create, log_file, set_data

from zkpy.cli import log_records, log_tool, tools
from zkpy.cli.log_records import Entry, LogDisk, LogFile
from zkpy.cli.tools import Progress
from zkpy.cli.txn_text import OP_NAMES
from zkpy.datatree.apply import apply_txn
from zkpy.datatree.tree import DataTree
from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.logreader import DEFAULT_MAX_RECORD_BYTES, FileReader
from zkpy.persistence.txnlog import FileTxnLog
from zkpy.protocol import txns as t
from zkpy.protocol.acl import ACL
from zkpy.protocol.jute import Record
from zkpy.protocol.zoodefs import OpCode

__all__ = ["utc"]
pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
LOG = "standalone-395/version-2/log.1"

# File in golden/disk/torn: where it is damaged, and what is said about it.
TORN = {
    "bad_EOR_last": (2890, "the last record has no end mark"),
    "bad_EOR_mid": (873, "no end mark, but a complete record follows at 975"),
    "crc_flip_last": (2890, "CRC check failed"),
    "cut_mid_last": (2890, "the file ends in a record"),
    "data_flip_last": (2890, "CRC check failed"),
    "dup_5": (444, "zxid 0x5 follows 0x5"),
    "hole_f": (1383, "zxid 0x10 follows 0xe; missing: 0xf"),
    "len_huge_next": (2996, "Unreasonable length = 2147483647"),
    "len_minus1_next": (2996, "Unreasonable length = -1"),
    "zero_EOR_last": (2890, "the last record has no end mark"),
    "zero_last_half": (2890, "the last record has no end mark"),
}
# Nothing is wrong with these, or a file cut in padding looks the same.
WHOLE = {"closesession_digest_only", "cut_in_crc", "nopad"}


def run(*arguments: str) -> int:
    return log_tool.main(list(arguments))


def dump_json(capsys: Capture, *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run("dump", "--json", *arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# ---------------------------------------------------------------------- against Apache's tool


@pytest.mark.parametrize(
    "golden", runs_of("disk-3.9.5.txt", "TxnLogToolkit"), ids=lambda r: r.command
)
def test_a_dump_is_that_of_txn_log_toolkit(
    golden: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DISK)
    code = run(*golden.words[1:])
    out, err = capsys.readouterr()
    name = golden.words[1]
    if golden.code == 0:
        assert out == golden.out
        assert (code == 0) == (err == "")
        return
    # Where Apache's gives up, ours says where and goes on.
    assert code == 1
    assert f"{name} at offset " in err
    if "partial" in golden.err:
        assert err.startswith("Last transaction was partial.\n")
    apache, ours = golden.out.splitlines(), out.splitlines()
    same = 0
    while same < len(apache) and apache[same] == ours[same]:
        same += 1
    assert len(apache) - same <= 2, "all but the damaged record is the same"


def parsed_line(line: str) -> tuple[t.TxnHeader, str]:
    """Header and the rest of an entry of the transcript."""
    match = re.fullmatch(
        r"(?s)(.*? UTC) session 0x(\w+) cxid 0x(\w+) zxid 0x(\w+) (\w+) (.*)", line
    )
    assert match is not None, line
    date = datetime.strptime(match[1], "%m/%d/%y, %I:%M:%S %p UTC").replace(tzinfo=UTC)
    session, cxid, zxid = (int(match[number], 16) for number in (2, 3, 4))
    types = {name: type for type, name in OP_NAMES.items()}
    header = t.TxnHeader(session, cxid, zxid, int(date.timestamp() * 1000), types[match[5]])
    return header, match[6]


def parsed_record(type: int, text: str) -> Record:
    if type == OpCode.CREATE_SESSION:
        return t.CreateSessionTxn(int(text))
    if type == OpCode.CLOSE_SESSION:
        assert text == "v{}"
        return t.CloseSessionTxn([])
    if type == OpCode.SET_DATA:
        path, data, version = re.fullmatch(r"([^,]*),(.*),(\d+)", text).groups()  # type: ignore[union-attr]
        return t.SetDataTxn(path, data.encode(), int(version))
    assert type == OpCode.CREATE
    match = re.fullmatch(r"(?s)([^,]*),(.*),\[31,s\{'world,'anyone\}\n\],false,(\d+)", text)
    assert match is not None, text
    return t.CreateTxn(
        match[1], match[2].encode(), (ACL(31, "world", "anyone"),), False, int(match[3])
    )


def log_of_transcript() -> bytes:
    """The log.100000001 that the commands of tools-3.9.5.txt were given."""
    (dump,) = [r for r in runs_of("tools-3.9.5.txt", "TxnLogToolkit") if "-d" in r.words]
    entries = re.split(r"\n(?=\d+/\d+/\d+, |EOF)", dump.out)[1:-1]
    records = []
    for entry in entries:
        header, rest = parsed_line(entry)
        records.append(t.encode_txn(header, parsed_record(header.type, rest), None))
    assert len(records) == 24
    return log_file(*records)


def test_the_transcript_of_txn_log_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    good = log_of_transcript()
    Path("log.100000001").write_bytes(good)
    Path("log.bad").write_bytes(good[:23] + bytes([good[23] ^ 1]) + good[24:])
    shutil.copy(DISK / "standalone-395/version-2/snapshot.0", ".")
    answers = iter(["n\n", "a\n"])  # what was typed at the two questions
    for golden in runs_of("tools-3.9.5.txt", "TxnLogToolkit"):
        arguments = golden.words[1:]
        Path("log.bad.fixed").unlink(missing_ok=True)
        if "already exists" in golden.err:
            Path("log.bad.fixed").touch()
        if "Would you like" in golden.out:
            monkeypatch.setattr(sys, "stdin", io.StringIO(next(answers)))
        code = run(*arguments)
        out, err = capsys.readouterr()
        if "usage:" in golden.out:
            # The name differs, and there is more to say.
            assert out.startswith("usage: zkpy-log")
            assert set(golden.out.splitlines()[1:]) <= set(out.splitlines())
        else:
            # Nothing is echoed where input is no terminal, so no line ends at the question.
            assert out == golden.out.replace("(Yes/No/Abort) ? \n", "(Yes/No/Abort) ? ")
        assert set(golden.err.splitlines()) <= set(err.splitlines())
        is_dump_of_damage = arguments == ["log.bad"]
        assert code == (1 if is_dump_of_damage else golden.code), golden.command
    assert Path("log.bad").read_bytes()[24:] == good[24:]
    chopped = Path("log.100000001.chopped4294967299").read_bytes()
    assert good.startswith(chopped)


def test_chopping(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "log.1"
    content = log_file(*map(set_data, (1, 2, 5, 6, 0x100000003)))
    path.write_bytes(content)
    header = "ZooKeeper Transactional Log File with dbid 0 txnlog format version 2\n"
    assert run("--chop", "--zxid", "5", str(path)) == 0
    assert capsys.readouterr().out == (
        f"{header}There is intra-epoch gap between 2 and 5\nChopping at 5 new log has 3 records\n"
    )
    chopped = tmp_path / "log.1.chopped5"
    assert chopped.read_bytes() == log_file(*map(set_data, (1, 2, 5)))
    chopped.unlink()
    for zxid, text in (
        ("3", "There is intra-epoch gap between 2 and 5\nThis log does not contain zxid 3\n"),
        (
            "0x100000003",
            "There is inter-epoch gap between 6 and 100000003\nEOF reached after 5 txns.\n",
        ),
    ):
        assert run("-c", "-z", zxid, str(path)) == 2
        out, err = capsys.readouterr()
        assert out.endswith(text)
        assert err == "Failed to chop log.1\n"
    assert run("-c", "-z", "x", str(path)) == 2
    assert capsys.readouterr().err == "Not a zxid: x\n"
    path.write_bytes(content[:30])
    assert run("-c", "-z", "1", str(path)) == 1
    assert "log.1 at offset 16: the file ends in a record" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_repair_of_what_checksums_do_not_tell(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "log.1"
    content = log_file(*map(set_data, (1, 2, 3)))
    end = len(log_file(set_data(1)))
    # A tail that was cut off is left out, as servers leave it out.
    path.write_bytes(content[:-1])
    assert run("-r", "-y", str(path)) == 0
    fixed = tmp_path / "log.1.fixed"
    assert fixed.read_bytes() == log_file(set_data(1), set_data(2))
    fixed.unlink()
    capsys.readouterr()
    path.write_bytes(content[: end + 8] + b"\x7f" + content[end + 9 :])
    assert run("-r", "-y", str(path)) == 1
    err = capsys.readouterr().err
    assert f"{path} at offset {end}: Unreasonable length" in err
    assert "zkpy-log recover" in err
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", TORN)
def test_verify_names_file_offset_and_reason(name: str, capsys: Capture) -> None:
    offset, reason = TORN[name]
    path = DISK / "torn" / f"{name}.log.1"
    assert run("verify", str(path)) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"{path} at offset {offset}: {reason}")
    assert len(err.splitlines()) == 1
    assert out.endswith(", 1 problem\n")


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_verify_of_whole_files(name: str, capsys: Capture) -> None:
    assert run("verify", str(DISK / "torn" / f"{name}.log.1")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r": (29|30) good txns, zxid 0x1 to 0x1[de], checksums fit\n$", out)


def test_no_damaged_file_is_forgotten() -> None:
    assert {path.name[:-6] for path in (DISK / "torn").glob("*.log.1")} == TORN.keys() | WHOLE


def test_verify_of_a_directory_looks_across_its_files(tmp_path: Path, capsys: Capture) -> None:
    directory = tmp_path / "version-2"
    directory.mkdir()
    (directory / "log.1").write_bytes(log_file(set_data(1), set_data(2)))
    (directory / "log.4").write_bytes(log_file(set_data(4)))
    (directory / "log.10").write_bytes(log_file(set_data(0x10)))
    (directory / "snapshot.0").touch()
    assert run("verify", str(tmp_path)) == 1
    out, err = capsys.readouterr()
    assert err == (
        f"{directory}/log.4 at offset 16: zxid 0x4 follows 0x2; missing: 0x3\n"
        f"{directory}/log.10 at offset 16: zxid 0x10 follows 0x4; missing: 0x5 to 0xf\n"
    )
    assert [line.split(":")[0][-6:] for line in out.splitlines()] == ["/log.1", "/log.4", "log.10"]


def test_an_epoch_begins_with_counter_1(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(log_file(set_data(1), set_data(0x100000001), set_data(0x300000002)))
    assert run("verify", str(path)) == 1
    err = capsys.readouterr().err
    assert "zxid 0x300000002 follows 0x100000001: its epoch has to begin with counter 1" in err
    assert len(err.splitlines()) == 1


def test_records_behind_zeros_are_found(tmp_path: Path, capsys: Capture) -> None:
    """A server takes zeros for the end, and would lose what follows them."""
    data = bytearray(log_file(set_data(1), set_data(2), set_data(3), padding=3 << 20))
    size = len(log_file(set_data(1))) - 16
    data[16 + size : 16 + 2 * size] = bytes(size)
    path = tmp_path / "log.1"
    path.write_bytes(data)
    assert run("dump", str(path)) == 1
    out, err = capsys.readouterr()
    assert err == f"{path} at offset {16 + size}: zeros in place of a record; records follow\n"
    assert f"DAMAGED - {size} bytes at offset {16 + size}: zeros in place" in out
    assert out.endswith("EOF reached after 2 txns.\n")


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", 1, "{path} at offset 0: only 0 bytes, shorter than its header\n"),
        (b"ZKLG\0\0", 1, "{path} at offset 0: only 6 bytes, shorter than its header\n"),
        (bytes(20), 2, "Invalid magic number for log.1\n{path} at offset 0: Invalid magic number"),
        (None, 1, "File doesn't exist or not readable: {path}\n"),
    ],
)
@pytest.mark.parametrize("command", [["dump"], ["recover"], ["-d"], ["-r"], ["-c", "-z", "1"]])
def test_what_is_no_log(
    command: list[str],
    content: bytes | None,
    code: int,
    message: str,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    path = tmp_path / "log.1"
    if content is not None:
        path.write_bytes(content)
    assert run(*command, str(path)) == code
    assert capsys.readouterr().err.startswith(message.format(path=path))
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["log.1"])


def test_a_txn_of_an_unknown_type_is_shown_as_far_as_it_goes(
    tmp_path: Path, capsys: Capture
) -> None:
    txn = t.TxnHeader(7, 8, 1, 0, 99).encode() + b"?"
    (tmp_path / "log.1").write_bytes(log_file(txn, set_data(2)))
    path = str(tmp_path / "log.1")
    assert run("dump", path) == 1
    out, err = capsys.readouterr()
    assert "zxid 0x1 unknown 99 unreadable: Unsupported Txn with type=99\n" in out
    assert err == f"{path} at offset 16: Unsupported Txn with type=99\n"
    assert run("dump", "--json", path) == 1
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["session"], first["type"], first["problem"]) == (
        "0x7", "unknown 99", "Unsupported Txn with type=99",
    )  # fmt: skip


def entries_of(path: Path) -> list[Entry]:
    return list(LogFile(LogDisk(Progress()), str(path)).entries())


def strict(path: Path) -> tuple[list[int], int, str]:
    """What a server makes of a file: zxids, where its data ends, and why if that is odd."""
    reader = FileReader(OsDisk(), str(path), DEFAULT_MAX_RECORD_BYTES, False)
    zxids = []
    try:
        zxids = [zxid for zxid, _ in reader.records()]
    except CorruptFile as error:
        reader = FileReader(OsDisk(), str(path), DEFAULT_MAX_RECORD_BYTES, False)
        try:
            for zxid, _ in reader.records():
                zxids.append(zxid)
        except CorruptFile:
            return zxids, error.offset or 0, error.reason
    return zxids, reader.offset, reader.torn


@given(data=st.data())
def test_damage_is_found_where_a_server_finds_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes changed or cut: the same first problem, no gap, and nothing good is left out."""
    payloads = data.draw(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
    txns = [create(zxid, f"/n{zxid}", payload) for zxid, payload in enumerate(payloads, 1)]
    content = bytearray(log_file(*txns, padding=data.draw(st.sampled_from([0, 5, 300]))))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(16, len(content) - 1))
        count = data.draw(st.sampled_from([1, 4, 60]))
        piece = data.draw(st.sampled_from([b"\0", b"\xff", b"B", b"\1"])) * count
        content[place : place + count] = piece[: len(content) - place]
    del content[data.draw(st.integers(16, len(content))) :]
    path = tmp_path_factory.mktemp("log") / "log.1"
    path.write_bytes(content)

    entries = entries_of(path)
    zxids, offset, reason = strict(path)
    good = [entry for entry in entries if entry.kind == "good"]
    assert [entry.zxid for entry in good][: len(zxids)] == zxids
    problems = [entry for entry in entries if entry.problem]
    if reason:
        assert problems[0].offset == offset
        assert problems[0].problem.startswith(reason)
    elif problems:
        assert problems[0].offset == offset, "only behind what a server takes for the end"
    ends = [16, *(entry.end for entry in entries)]
    assert [entry.offset for entry in entries] == ends[:-1]
    assert not any(content[ends[-1] :])
    # Every record that is still whole is there.
    whole = [txn for txn in txns if log_file(txn)[16:] in bytes(content)]
    assert [txn for txn in whole if txn not in [entry.txn for entry in good]] == []


def test_damage_far_into_a_file(tmp_path: Path) -> None:
    """Behind more than one piece of what is read at once."""
    txns = [create(zxid, f"/n{zxid}", bytes(100_000)) for zxid in range(1, 41)]
    content = bytearray(log_file(*txns))
    bad = [len(log_file(*txns[:index])) for index in (15, 30)]
    content[bad[0] + 7] ^= 1
    content[bad[1] + 8] = 0x7F  # a length beyond the file
    path = tmp_path / "log.1"
    path.write_bytes(content)
    entries = entries_of(path)
    assert [(e.kind, e.offset) for e in entries if e.problem] == [
        ("checksum", bad[0]),
        ("lost", bad[1]),
    ]
    assert [entry.txn for entry in entries if entry.kind == "good"] == [
        txn for index, txn in enumerate(txns) if index not in (15, 30)
    ]


@given(
    garbage=st.lists(
        st.one_of(st.binary(max_size=300), st.integers(0, 400).map(bytes)), max_size=4
    ),
    payload=st.binary(max_size=30),
    chunk_bytes=st.sampled_from([64, 100, 1000]),
)
def test_the_next_record_is_found_behind_anything(
    tmp_path_factory: pytest.TempPathFactory,
    garbage: list[bytes],
    payload: bytes,
    chunk_bytes: int,
) -> None:
    """In whatever pieces the file is read, and even if there are zeros in between."""
    path = tmp_path_factory.mktemp("log") / "log.1"
    junk = b"".join(garbage)
    txn = create(2, "/b", payload)
    good = log_file(create(1, "/a", b""))
    path.write_bytes(good + junk + log_file(txn)[16:] + bytes(200))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_records, "CHUNK_BYTES", chunk_bytes)
        found = list(LogFile(LogDisk(Progress()), str(path), 150).entries())
    last = found[-1]
    assert (last.kind, last.txn, last.offset) == ("good", txn, len(good + junk))


# ---------------------------------------------------------------------- what FileTxnLog wrote


def record_of(found: dict[str, Any]) -> Record:
    """The record that an object of the JSON form describes."""
    types = {name: type for type, name in OP_NAMES.items()}
    type = types[found["type"]]
    if type == OpCode.MULTI:
        subs = [record_of(sub) for sub in found["txns"]]
        kinds = [types[sub["type"]] for sub in found["txns"]]
        return t.MultiTxn([t.SubTxn(k, s.encode()) for k, s in zip(kinds, subs, strict=True)])
    values = {"parent_cversion": "parentCVersion", "timeout_ms": "timeout"}
    cls = t.TXN_RECORDS[type]
    fields: dict[str, Any] = {n: found.get(values.get(n, n)) for n in cls.fields}
    if "data" in fields:
        text = fields["data"]
        encoded = found.get("dataBase64")
        fields["data"] = text.encode() if text is not None else encoded and b64decode(encoded)
    if fields.get("acl") is not None:
        fields["acl"] = tuple(
            ACL(sum(1 << "rwcda".index(letter) for letter in a["perms"]), a["scheme"], a["id"])
            for a in fields["acl"]
        )
    return cls(**fields)


@given(seed=st.integers(0, 1 << 32))
def test_a_dump_says_all_that_was_logged(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    tree = DataTree()
    source = TxnSource(Random(seed), tree)
    log = FileTxnLog(OsDisk(), str(directory), preallocate_bytes=1 << 16)
    logged: list[bytes] = []
    for _ in range(40):
        header, record = source.next()
        apply_txn(tree, header, record)
        digest = t.TxnDigest(2, tree.digest) if source.rng.random() < 0.8 else None
        logged.append(t.encode_txn(header, record, digest))
        log.append(header.zxid, logged[-1])
        if source.rng.random() < 0.1:
            log.commit()
            log.roll()
    log.close()

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert run("dump", "--json", str(directory)) == 0
        objects = [json.loads(line) for line in out.getvalue().splitlines()]
        out.truncate(0)
        assert run("dump", str(directory)) == 0
    assert len(objects) == len(logged)
    for found, txn in zip(objects, logged, strict=True):
        ids = [int(found[name], 16) for name in ("session", "zxid")]
        type = {name: type for type, name in OP_NAMES.items()}[found["type"]]
        header = t.TxnHeader(ids[0], found["cxid"], ids[1], found["time"], type)
        digest = found.get("digest")
        expected = digest and t.TxnDigest(digest["version"], int(digest["treeDigest"], 16))
        assert t.encode_txn(header, record_of(found), expected) == txn
        with open(found["file"], "rb") as file:
            file.seek(found["offset"] + 12)
            assert file.read(len(txn)) == txn
    zxids = [int(z, 16) for z in re.findall(r"^\S+, .* zxid 0x(\w+) ", out.getvalue(), re.M)]
    assert zxids == [int(found["zxid"], 16) for found in objects]


# ---------------------------------------------------------------------- filters


def zxids(capsys: Capture, *arguments: str) -> list[int]:
    return [int(found["zxid"], 16) for found in dump_json(capsys, *arguments, str(DISK / LOG))]


def test_filters(capsys: Capture) -> None:
    # The workload is in golden/disk/README.md.
    assert zxids(capsys, "--zxid", "0x13") == [0x13]
    assert zxids(capsys, "--from-zxid", "29") == [0x1D, 0x1E]
    assert zxids(capsys, "--from-zxid", "0x3", "--to-zxid", "0x4") == [3, 4]
    assert zxids(capsys, "--session", "0x1000011029b0001") == [2, 8, 9, 0x1B]
    # Below /a, in a multi (13), as an ephemeral of a closed session (1b), not /a of quotas.
    assert zxids(capsys, "--path", "/a") == [
        3, 4, 7, 8, 9, 0xC, 0xD, 0xE, 0x13, 0x1A, 0x1B,
    ]  # fmt: skip
    assert zxids(capsys, "--path", "/a/") == zxids(capsys, "--path", "/a")
    assert zxids(capsys, "--path", "/m1", "--path", "/m2") == [0x13]
    assert zxids(capsys, "--path", "/a", "--session", "0x1000011029b0001") == [8, 9, 0x1B]


def test_filter_by_time(capsys: Capture) -> None:
    times = {int(f["zxid"], 16): f["time"] for f in dump_json(capsys, str(DISK / LOG))}
    some = times[0x10]
    later = [zxid for zxid, time in times.items() if time >= some]
    assert zxids(capsys, "--since", str(some)) == later
    iso = datetime.fromtimestamp(some / 1000, UTC).isoformat(timespec="milliseconds")
    assert zxids(capsys, "--since", iso) == later
    assert zxids(capsys, "--since", iso.replace("+00:00", "")) == later, "local time, here UTC"
    assert zxids(capsys, "--until", str(some)) == [z for z, time in times.items() if time <= some]
    assert zxids(capsys, "--since", "2026-11-22", "--until", "2026-11-23") == list(times)
    assert zxids(capsys, "--since", "2026-11-23") == []


def test_the_text_says_how_many_are_shown(capsys: Capture) -> None:
    assert run("dump", "--path", "/m1", str(DISK / LOG)) == 0
    out = capsys.readouterr().out
    assert out.endswith("EOF reached after 30 txns, 1 of them shown.\n")
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments", [["--since", "yesterday"], ["--zxid", "z"], ["--session", ""], ["--what"], []]
)
def test_wrong_arguments(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as error:
        run("dump", *arguments, *([LOG] if arguments else []))
    assert error.value.code == 2
    assert re.search("^zkpy-log( dump)?: error: ", capsys.readouterr().err, re.M)


# ---------------------------------------------------------------------- surroundings


def test_a_directory_stands_for_its_logs(capsys: Capture) -> None:
    found = dump_json(capsys, str(DISK / "standalone-395"))
    assert [int(each["zxid"], 16) for each in found] == list(range(1, 0x22))
    assert run("dump", str(DISK / "odd")) == 1
    assert capsys.readouterr().err == f"no transaction log in {DISK / 'odd'}\n"


def test_a_compressed_log(tmp_path: Path, capsys: Capture) -> None:
    plain = (DISK / LOG).read_bytes()
    path = tmp_path / "log.1.gz"
    path.write_bytes(gzip.compress(plain))
    assert run("dump", str(path)) == 0
    out = capsys.readouterr().out
    assert run("dump", str(DISK / LOG)) == 0
    assert capsys.readouterr().out == out
    assert run("verify", str(tmp_path)) == 0
    capsys.readouterr()
    path.write_bytes(gzip.compress(plain)[:-700])
    assert run("verify", str(path)) == 1
    assert re.search(r"log.1.gz at offset \d+: gzip data ends early", capsys.readouterr().err)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(log_file(*map(set_data, range(1, 20000))))
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run("verify", str(path)) == 0
    assert sys.stderr.getvalue() == "", "it was quick"  # type: ignore[attr-defined]
    monkeypatch.setattr(tools, "QUIET_S", 0.0)
    monkeypatch.setattr(tools, "UPDATE_S", 0.0)
    assert run("verify", str(path)) == 0
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert f"\rreading {path}: 100 %" in shown
    assert shown.endswith("\r\x1b[K"), "the line is removed at the end"
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert run("verify", str(path)) == 0
    assert sys.stderr.getvalue() == "", "no terminal"
    # Where the dump itself goes to the terminal there is no need.
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert run("dump", str(path)) == 0
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_data_does_not_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(log_file(create(1, "/a", b"\x1b[2J\x9b\0\tx")))
    for stream, shown in ((Terminal(), "/a,\\x1b[2J\ufffd\\x00\tx,"), (io.StringIO(), "\x1b[2J")):
        monkeypatch.setattr(sys, "stdout", stream)
        assert run("dump", str(path)) == 0
        assert shown in stream.getvalue()


def test_nothing_is_written_to_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    shutil.copy(DISK / "torn/crc_flip_last.log.1", path)
    path.chmod(0o400)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    for command in (["dump"], ["verify"], ["recover", "-y"], ["-d"], ["-c", "-z", "5"]):
        run(*command, str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(log_tool.os, "listdir", refuse)
    monkeypatch.setattr(tools, "_discard_output", lambda: None)
    assert run("dump", str(tmp_path)) == 1
    assert capfd.readouterr().err == f"{tmp_path}: Permission denied\n"


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(log_tool, "dump_text", interrupt)
    assert run("dump", str(DISK / LOG)) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help(capsys: Capture) -> None:
    assert run("-h") == 0
    assert run() == 1
    for command in ("dump", "verify", "recover"):
        with pytest.raises(SystemExit) as error:
            run(command, "--help")
        assert error.value.code == 0
    assert "usage: zkpy-log" in capsys.readouterr().out
