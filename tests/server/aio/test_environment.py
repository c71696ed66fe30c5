"""What monitoring learns of the process and its disks."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.server.aio.in_process import InProcess, config_of
from tests.support.rawclient import four_letter_word

from zkpy.persistence.disk import OsDisk
from zkpy.server.aio.environment import OsEnvironment, size_below


def test_directories_and_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "data" / "version-2" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "version-2" / "snapshot.0").write_bytes(bytes(100))
    (tmp_path / "data" / "version-2" / "deep" / "file").write_bytes(bytes(11))
    (tmp_path / "data" / "version-2" / "link").symlink_to(tmp_path)
    environment = OsEnvironment(
        config_of(data_dir=str(tmp_path / "data"), data_log_dir=str(tmp_path / "logs"))
    )
    assert environment.data_dir() == f"{tmp_path}/data/version-2"
    assert environment.log_dir() == f"{tmp_path}/logs/version-2"
    link = len(os.readlink(tmp_path / "data" / "version-2" / "link"))
    assert environment.data_dir_size() == 111 + link
    assert environment.log_dir_size() == 0
    assert size_below(str(tmp_path / "missing")) == 0


def test_descriptors() -> None:
    environment = OsEnvironment(config_of())
    with open(os.devnull):
        more = environment.open_file_descriptors()
    assert more == environment.open_file_descriptors() + 1 or more == -1
    assert environment.max_file_descriptors() > more


def test_the_words_show_it(tmp_path: Path) -> None:
    with InProcess(OsDisk(), data_dir=str(tmp_path)) as server:
        conf = four_letter_word(server.address, "conf")
        assert f"clientPort={server.server.port}\n" in conf
        assert "secureClientPort=-1\n" in conf
        assert f"dataDir={tmp_path}/version-2\n" in conf
        assert re.search(r"dataDirSize=[1-9]\d*\n", conf)
        envi = four_letter_word(server.address, "envi")
        assert f"user.dir={os.getcwd()}\n" in envi
        assert re.search(r"os\.memory\.total=[1-9]\d*MB\n", envi)
        assert re.search(r"datadir_size: [1-9]\d*\n", four_letter_word(server.address, "dirs"))
