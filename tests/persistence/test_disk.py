"""OsDisk: the operating system's errors say which file, where and why; the lock holds."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zkpy.persistence.disk import OsDisk
from zkpy.persistence.errors import DirectoryInUse, DiskReadError, DiskWriteError

SOURCE = Path(__file__).resolve().parents[2] / "src"
disk = OsDisk()


def test_write_read_truncate(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    file = disk.create(path)
    file.write(b"hello", 0)
    file.write(memoryview(b"world"), 10)
    assert file.fdatasync() >= 0
    file.close()
    file.close()
    assert disk.read(path) == b"hello" + bytes(5) + b"world"
    assert disk.read(path, 3, 4) == b"lo\0\0"
    assert disk.read(path, 100, 4) == b""
    assert list(disk.read_chunks(path, 6)) == [b"hello\0", b"\0\0\0\0wo", b"rld"]
    assert disk.size(path) == 15
    file = disk.open(path)
    file.truncate(3)
    file.close()
    assert disk.read(path) == b"hel"
    disk.create(path).close()
    assert disk.size(path) == 0


def test_directories(tmp_path: Path) -> None:
    deep = f"{tmp_path}/a/b/c"
    assert not disk.exists(deep)
    assert not disk.is_writable(deep)
    disk.make_dirs(deep)
    disk.make_dirs(deep)
    assert disk.is_writable(deep)
    for name in ("z", "y", "x"):
        disk.create(f"{deep}/{name}").close()
    disk.rename(f"{deep}/z", f"{deep}/x")
    disk.remove(f"{deep}/y")
    disk.fsync_dir(deep)
    assert disk.list_dir(deep) == ["x"]
    assert disk.exists(f"{deep}/x")
    assert not disk.is_writable(f"{deep}/x")
    with pytest.raises(DiskWriteError, match="x: File exists"):
        disk.make_dirs(f"{deep}/x")


def test_relative_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk.make_dirs("one/two")
    assert (tmp_path / "one" / "two").is_dir()


def test_errors_say_which_file_and_why(tmp_path: Path) -> None:
    path = f"{tmp_path}/none"
    for read in (disk.size, disk.read, disk.list_dir, lambda p: list(disk.read_chunks(p, 9))):
        with pytest.raises(DiskReadError, match=f"{path}.*No such file or directory") as error:
            read(path)
        assert error.value.errno == errno.ENOENT
        assert error.value.exit_code == 1
    for write in (disk.open, disk.remove, disk.fsync_dir, lambda p: disk.create(f"{p}/x")):
        with pytest.raises(DiskWriteError, match=f"{path}.*No such file or directory") as failed:
            write(path)
        assert failed.value.exit_code == 10
    with pytest.raises(DiskWriteError, match="none: No such file"):
        disk.rename(f"{tmp_path}/other", path)
    with pytest.raises(DiskWriteError):
        disk.lock(f"{path}/lock")


def test_a_failing_write_says_where() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    file = disk.open("/dev/full")
    with pytest.raises(DiskWriteError) as error:
        file.write(b"x", 5)
    file.close()
    assert str(error.value) == "/dev/full at offset 5: No space left on device"
    with pytest.raises(DiskWriteError, match="Bad file descriptor"):
        file.write(b"x", 0)


def test_what_is_written_in_parts_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    file = disk.create(f"{tmp_path}/file")
    file.write(b"0123456789", 2)
    file.close()
    assert disk.read(f"{tmp_path}/file") == b"\0\x000123456789"


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path = f"{tmp_path}/zkpy.lock"
    lock = disk.lock(path)
    with pytest.raises(DirectoryInUse) as error:
        disk.lock(path)
    assert f"{tmp_path} is in use by another server (process {os.getpid()})" in str(error.value)
    assert error.value.exit_code == 3
    lock.release()
    lock.release()
    disk.lock(path).release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = f"{tmp_path}/zkpy.lock"
    code = (
        "import sys, time\n"
        "from zkpy.persistence.disk import OsDisk\n"
        "lock = OsDisk().lock(sys.argv[1])\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(DirectoryInUse, match=f"process {child.pid}"):
            disk.lock(path)
    finally:
        child.kill()
        child.communicate()
    disk.lock(path).release()


def test_settle_keeps_what_is_there(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    file = disk.create(path)
    file.write(b"x" * 10_000, 0)
    disk.settle(path)
    assert disk.read(path) == b"x" * 10_000
    file.close()
    with pytest.raises(DiskWriteError, match="No such file"):
        disk.settle(f"{tmp_path}/none")
