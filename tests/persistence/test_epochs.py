"""acceptedEpoch and currentEpoch: format, atomic replacement, the checks at a load."""

from __future__ import annotations

from random import Random

import pytest
from tests.persistence.data_dir import DIRECTORY, disk_with, golden_files

from zkpy.persistence.epochs import EpochFiles, Epochs
from zkpy.persistence.errors import CorruptFile, EpochError
from zkpy.testing import disk as faults


def load(last_zxid: int, **files: bytes) -> tuple[Epochs, dict[str, bytes]]:
    disk = disk_with({name.replace("_", "."): data for name, data in files.items()})
    epochs = EpochFiles(disk, DIRECTORY).load(last_zxid)
    return epochs, {name: disk.read(f"{DIRECTORY}/{name}") for name in disk.list_dir(DIRECTORY)}


def test_missing_files_are_made_from_the_last_zxid() -> None:
    epochs, files = load(0x300000005)
    assert epochs == (3, 3)
    assert files == {"acceptedEpoch": b"3", "currentEpoch": b"3"}
    assert load(0)[0] == (0, 0)


def test_what_is_there_is_read() -> None:
    for text in (b"12", b"12\n", b"12\nmore"):
        assert load(0xB00000001, acceptedEpoch=b"13", currentEpoch=text)[0] == (13, 12)
    files = golden_files("ensemble-395-reconfig/server1")
    disk = disk_with(files)
    assert EpochFiles(disk, DIRECTORY).load(0x10000000C) == (2, 2)


def test_the_epoch_under_way_when_the_process_ended() -> None:
    epochs, files = load(0x200000000, acceptedEpoch=b"2", currentEpoch=b"1", currentEpoch_tmp=b"2")
    assert epochs == (2, 2)
    assert files["currentEpoch"] == b"2"
    # Only if the last zxid asks for it.
    epochs, _ = load(0x100000000, acceptedEpoch=b"2", currentEpoch=b"1", currentEpoch_tmp=b"2")
    assert epochs == (2, 1)


def test_an_epoch_that_was_joined_but_for_its_number() -> None:
    """ZOOKEEPER-1653, 4269: the end came before the temporary, in it, or before its renaming."""
    for temporary in ({}, {"currentEpoch_tmp": b""}, {"currentEpoch_tmp": b"3"}):
        epochs, files = load(0x200000007, acceptedEpoch=b"3", currentEpoch=b"1", **temporary)
        assert epochs == (3, 2)
        assert files["currentEpoch"] == b"2"


def test_an_epoch_without_a_next_one_is_none() -> None:
    with pytest.raises(CorruptFile, match="not an epoch"):
        load(0, acceptedEpoch=b"2147483647", currentEpoch=b"0")
    assert load(0, acceptedEpoch=b"2147483646", currentEpoch=b"0")[0] == (2147483646, 0)


def test_contradictions_are_refused() -> None:
    with pytest.raises(EpochError) as error:
        load(0x200000007, acceptedEpoch=b"1", currentEpoch=b"1")
    assert str(error.value).startswith("The current epoch, 1, is older than the last zxid, 0x2")
    with pytest.raises(EpochError, match="The accepted epoch, 1 is less than the current epoch, 2"):
        load(0x200000007, acceptedEpoch=b"1", currentEpoch=b"2")
    with pytest.raises(EpochError):
        load(0x300000007, acceptedEpoch=b"2", currentEpoch=b"1", currentEpoch_tmp=b"3")


@pytest.mark.parametrize("text", [b"", b"x", b"1 2", b"\xff", b"\n"])
def test_what_is_no_number(text: bytes) -> None:
    with pytest.raises(CorruptFile, match="currentEpoch at offset 0: Found"):
        load(0, currentEpoch=text)


def test_a_promise_is_durable_when_it_is_given() -> None:
    disk = disk_with({"acceptedEpoch": b"1"})
    operations: list[tuple[str, str]] = []
    disk.before = lambda kind, path: operations.append((kind, path.rpartition("/")[2]))
    EpochFiles(disk, DIRECTORY).write_accepted(2)
    assert operations == [
        (faults.CREATE, "acceptedEpoch.tmp"),
        (faults.WRITE, "acceptedEpoch.tmp"),
        (faults.SYNC, "acceptedEpoch.tmp"),
        (faults.RENAME, "acceptedEpoch"),
        (faults.SYNC_DIR, "version-2"),
    ]
    assert disk.read(f"{DIRECTORY}/acceptedEpoch") == b"2"


@pytest.mark.seeds(40)
def test_after_a_crash_there_is_the_old_epoch_or_the_new_one(seed: int) -> None:
    rng = Random(seed)
    disk = disk_with({"acceptedEpoch": b"10", "currentEpoch": b"10"})
    epochs = EpochFiles(disk, DIRECTORY)
    left = [rng.randrange(8)]

    class Stopped(Exception):
        pass

    def before(kind: str, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    disk.before = before
    promised = 10
    try:
        for epoch in (11, 12):
            epochs.write_accepted(epoch)
            promised = epoch
    except Stopped:
        pass
    disk.before = None
    disk.crash(rng)
    assert epochs.load(10 << 32).accepted in (promised, promised + 1)
