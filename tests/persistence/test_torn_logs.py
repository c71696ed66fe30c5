"""Damaged logs: the reference's results for the captured damage, and where zkpy is stricter.

Then damage anywhere: a cut loses at most the record it is in, a flipped bit is refused or loses
only the end, and nothing ever yields data that was not written.
"""

from __future__ import annotations

import json
from zlib import adler32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.persistence.data_dir import (
    DIRECTORY,
    disk_with,
    golden,
    golden_files,
    log_file,
    set_data,
    store_on,
)

from zkpy.persistence.errors import CorruptFile
from zkpy.persistence.logreader import FILE_HEADER, FileReader, LogReader

SNAPSHOT_0 = golden("standalone-395/version-2/snapshot.0")
LOG_1 = golden("standalone-395/version-2/log.1")
LOG_1F = golden("standalone-395/version-2/log.1f")
EXPECTED = json.loads(golden("torn/expected.json"))["expect"]
# The reference drops records 10 to 30 without a word, because the end mark of record 9 is bad.
STRICTER = {"bad_EOR_mid": "FAIL"}
REASONS = {
    "crc_flip_last": "log.1 at offset 2890: CRC check failed",
    "data_flip_last": "log.1 at offset 2890: CRC check failed",
    "len_minus1_next": "log.1 at offset 2996: Unreasonable length = -1",
    "len_huge_next": "log.1 at offset 2996: Unreasonable length = 2147483647",
    "hole_f": "record 0x10 follows 0xe; missing: 0xf",
    "bad_EOR_mid": "no end mark, but a complete record follows",
}


def restored(files: dict[str, bytes]) -> int:
    return store_on(disk_with({"snapshot.0": SNAPSHOT_0, **files})).restore().last_zxid


def zxids(*files: tuple[str, bytes], after: int | None = None) -> list[int]:
    reader = LogReader(disk_with(dict(files)), DIRECTORY)
    return [zxid for zxid, _ in reader.records(0, after=after)]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_captured_damage(name: str) -> None:
    expected = STRICTER.get(name, EXPECTED[name])
    if isinstance(expected, dict):
        expected = expected["3.9.5"]
    files = {"log.1": golden(f"torn/{name}.log.1")}
    if expected == "FAIL":
        with pytest.raises(CorruptFile, match="offset") as error:
            restored(files)
        assert "/data/version-2/log.1 at" in str(error.value)
        assert REASONS[name] in str(error.value)
        assert error.value.exit_code == 1
    else:
        assert restored(files) == int(expected, 16)


def test_a_second_file() -> None:
    cut_at_9 = golden("torn/bad_EOR_mid.log.1")[:975]
    cases: list[tuple[dict[str, bytes], int | str]] = [
        ({"log.1": LOG_1, "log.1f": b""}, 0x1E),
        ({"log.1": LOG_1, "log.1f": b"ZKLG\0\0"}, "only 6 bytes"),
        ({"log.1": LOG_1, "log.1f": FILE_HEADER}, 0x1E),
        ({"log.1": LOG_1, "log.1f": b"ZKLX" + FILE_HEADER[4:]}, "Invalid magic number"),
        ({"log.1": LOG_1, "log.1f": LOG_1F}, 0x21),
        ({"log.1": b"", "log.1f": LOG_1F}, "only 0 bytes"),
        # A tear in a file that is not the last one shows as a hole.
        ({"log.1": cut_at_9, "log.1f": LOG_1F}, "missing: 0xa to 0x1e (/data"),
        # A copy is not a log.
        ({"log.1": LOG_1, "log.1.bak": LOG_1}, 0x1E),
    ]
    for files, expected in cases:
        if isinstance(expected, int):
            assert restored(files) == expected
        else:
            with pytest.raises(CorruptFile) as error:
                restored(files)
            assert expected in str(error.value)


def test_a_log_that_does_not_continue_the_snapshot_is_refused() -> None:
    reader = FileReader(disk_with({"log.1": LOG_1}), f"{DIRECTORY}/log.1", 1 << 20, True)
    txns = [txn for _, txn in reader.records()]
    with pytest.raises(CorruptFile, match="record 0x3 follows 0x0; missing: 0x1 to 0x2"):
        restored({"log.3": log_file(*txns[2:])})
    # Unless an epoch begins: its zxids do not continue those before.
    assert restored({"log.100000001": log_file(set_data(1 << 32 | 1))}) == 1 << 32 | 1


def test_an_empty_newest_log_is_replaced_by_the_next_one() -> None:
    disk = disk_with({"snapshot.0": SNAPSHOT_0, "log.1": b""})
    store = store_on(disk)
    assert store.restore().last_zxid == 0
    store.log.append(1, set_data(1))
    store.close()
    assert store_on(disk).restore().last_zxid == 1


def test_a_torn_tail_is_continued_in_a_new_file() -> None:
    torn = log_file(set_data(1), set_data(2))[:-10]
    files = ("log.1", torn + bytes(500))
    assert zxids(files) == [1]
    assert zxids(files, ("log.2", log_file(set_data(2), set_data(3)))) == [1, 2, 3]
    assert zxids(files, ("log.100000001", log_file(set_data((1 << 32) + 1)))) == [1, (1 << 32) + 1]
    with pytest.raises(CorruptFile, match=r"ends at offset .*has no end mark"):
        zxids(files, ("log.3", log_file(set_data(3))))


def test_repeated_records_are_read_again() -> None:
    assert zxids(("log.1", log_file(set_data(1), set_data(2), set_data(2), set_data(3)))) == [
        1,
        2,
        2,
        3,
    ]


def test_only_the_files_needed_are_read() -> None:
    disk = disk_with(
        {
            "log.1": b"damaged",
            "log.5": log_file(*map(set_data, range(5, 9))),
            "log.9": log_file(*map(set_data, range(9, 12))),
        }
    )
    reader = LogReader(disk, DIRECTORY)
    assert [zxid for zxid, _ in reader.records(7)] == [7, 8, 9, 10, 11]
    assert [zxid for zxid, _ in reader.records(9)] == [9, 10, 11]
    assert [zxid for zxid, _ in reader.records(6, until=8)] == [6, 7, 8]
    assert [zxid for zxid, _ in reader.records(6, until=9)] == [6, 7, 8, 9]
    assert reader.last_zxid() == 11
    with pytest.raises(CorruptFile):
        list(reader.records(5))


def test_a_record_beyond_the_limit_is_read_if_it_is_whole() -> None:
    # The reference refuses it, and so a start after jute.maxbuffer was lowered.
    disk = disk_with({"log.1": log_file(set_data(1, bytes(5000)), set_data(2))})
    assert [zxid for zxid, _ in LogReader(disk, DIRECTORY, 1000).records(0)] == [1, 2]


def test_a_txn_without_header_is_damage() -> None:
    with pytest.raises(CorruptFile, match="a txn of 3 bytes"):
        zxids(("log.1", log_file(b"abc")))


# ---------------------------------------------------------------------- anywhere

RECORDS = [set_data(zxid, b"BB" * zxid) for zxid in range(1, 7)]
STARTS = [16]
for record in RECORDS:
    STARTS.append(STARTS[-1] + len(record) + 13)


@pytest.mark.parametrize("padding", [0, 600])
def test_cut_at_each_byte_the_complete_records_stay(padding: int) -> None:
    whole = log_file(*RECORDS)
    for size in range(16, len(whole) + 1):
        complete = sum(start <= size for start in STARTS[1:])
        assert zxids(("log.1", whole[:size] + bytes(padding))) == list(range(1, complete + 1))
    for size in range(1, 16):
        with pytest.raises(CorruptFile):
            zxids(("log.1", whole[:size]))


def test_the_end_of_the_captured_log_cut_at_each_byte() -> None:
    reader = FileReader(disk_with({"log.1": LOG_1}), f"{DIRECTORY}/log.1", 1 << 20, True)
    starts = [(reader.offset, zxid) for zxid, _ in reader.records()]
    for size in range(starts[-2][0], reader.offset):
        last = max(zxid for start, zxid in starts if start <= size) - 1
        assert restored({"log.1": LOG_1[:size]}) == (last if size < reader.offset else 0x1E)


@pytest.mark.parametrize("padding", [0, 600])
@pytest.mark.parametrize("flip", [0x01, 0x10, 0x80, 0xFF, 0x42])
def test_each_byte_flipped_in_turn(flip: int, padding: int) -> None:
    for number in (0, 2, len(RECORDS) - 1):
        start, end = STARTS[number], STARTS[number + 1]
        for offset in range(start, end):
            data = bytearray(log_file(*RECORDS) + bytes(padding))
            data[offset] ^= flip
            try:
                found = zxids(("log.1", bytes(data)))
            except CorruptFile as error:
                assert error.offset == start
                continue
            # Only a bad end mark at the very end passes for a torn record.
            assert offset == end - 1
            assert number == len(RECORDS) - 1
            assert found == list(range(1, number + 1))


def test_a_length_of_zero_before_other_records_is_damage() -> None:
    data = bytearray(log_file(*RECORDS))
    data[STARTS[2] + 8 : STARTS[2] + 12] = bytes(4)
    with pytest.raises(CorruptFile, match="length 0 is damaged"):
        zxids(("log.1", bytes(data)))


@given(st.integers(16, STARTS[-1] - 1), st.binary(min_size=1, max_size=40))
def test_overwritten_anywhere_nothing_unwritten_is_read(offset: int, junk: bytes) -> None:
    whole = bytearray(log_file(*RECORDS))
    whole[offset : offset + len(junk)] = junk
    reader = LogReader(disk_with({"log.1": bytes(whole)}), DIRECTORY)
    read = []
    try:
        for _, txn in reader.records(0):
            read.append(txn)
    except CorruptFile:
        pass
    whole_before = sum(start <= offset for start in STARTS[1:])
    assert read[:whole_before] == RECORDS[:whole_before]
    # A checksum of 32 bits may fit by chance, but not in these examples.
    assert read == RECORDS[: len(read)]


@pytest.mark.patches
def test_chunks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (16, 17, 50, 64):
        monkeypatch.setattr("zkpy.persistence.logreader.CHUNK_BYTES", size)
        assert zxids(("log.1", log_file(*RECORDS, padding=90))) == [1, 2, 3, 4, 5, 6]
    assert adler32(RECORDS[0]) == int.from_bytes(log_file(RECORDS[0])[16:24], "big")


def test_golden_second_log_is_what_the_first_continues() -> None:
    files = golden_files("standalone-395")
    assert restored({name: files[name] for name in ("log.1", "log.1f")}) == 0x21
