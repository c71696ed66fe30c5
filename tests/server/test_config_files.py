"""The files of a changing server list: golden ones, what is kept, and crashes at any point."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkpy.persistence.errors import DiskWriteError
from zkpy.protocol.properties import load_properties
from zkpy.quorum.members import Members, parse_config_text, parse_dynamic_file
from zkpy.server.config import Config, load_config
from zkpy.server.config_files import ConfigFiles, edit_static, escaped, keys_with_lines
from zkpy.testing import disk as faults
from zkpy.testing.disk import SimulatedDisk

GOLDEN = Path(__file__).parents[1] / "golden" / "disk" / "ensemble-395-reconfig"
PATH = "/etc/zk/zoo.cfg"
STATIC = b"""# our ensemble
tickTime=2000
initLimit=10
syncLimit=5
dataDir=/data
clientPort=2181
reconfigEnabled=true
standaloneEnabled=false
server.1=h1:2888:3888;2181
server.2=h2:2888:3888;2181
server.3=h3:2888:3888;2181
"""
NOTHING = Members({})
CHANGING = (faults.CREATE, faults.WRITE, faults.SYNC, faults.RENAME, faults.REMOVE, faults.SYNC_DIR)


def members(version: int, *sids: int) -> Members:
    lines = [f"server.{sid}=h{sid}:2888:3888:participant;0.0.0.0:2181" for sid in sids]
    return parse_config_text("\n".join([*lines, f"version={version:x}"]))


def disk_with(static: bytes = STATIC) -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.put(PATH, static)
    disk.put("/data/myid", b"1\n")
    return disk


def boot(disk: SimulatedDisk) -> Config:
    """Read everything as a start does."""

    def read_file(path: str) -> str | None:
        return disk.read(path).decode("iso-8859-1") if disk.exists(path) else None

    return load_config(PATH, properties={}, read_file=read_file)


@pytest.mark.parametrize("sid", [1, 3, 4])
def test_files_of_a_real_ensemble(sid: int) -> None:
    golden = {file.name: file.read_bytes() for file in (GOLDEN / f"server{sid}").glob("zoo.cfg*")}
    path = f"/var/lib/zk/{sid}/zoo.cfg"
    disk = SimulatedDisk()
    disk.put(path, golden["zoo.cfg.bak"])
    files = ConfigFiles(disk, path, sid)
    files.back_up()
    for name in sorted(name for name in golden if ".dynamic." in name):
        committed = parse_dynamic_file(golden[name].decode(), name)
        files.proposed(committed, NOTHING)
        files.activated(committed, committed)
    ours = {name: disk.read(f"/var/lib/zk/{sid}/{name}") for name in disk.list_dir(path[:-8])}
    # zoo.cfg is in hash order there.
    static, expected = ours.pop("zoo.cfg"), golden.pop("zoo.cfg")
    assert ours == golden
    assert load_properties(static.decode()) == load_properties(expected.decode())
    assert static.endswith(b"\ndynamicConfigFile=" + path.encode() + b".dynamic.10000000c\n")


def test_a_proposed_list_has_its_version() -> None:
    disk = disk_with()
    text = "server.1=a:1:2\nserver.2=b:1:2\ngroup.1=1:2\nweight.1=3\nversion=1A\n"
    ConfigFiles(disk, PATH, 1).proposed(parse_config_text(text), NOTHING)
    assert disk.read(PATH + ".dynamic.next") == (
        b"group.1=1:2\nserver.1=a:1:2:participant\nserver.2=b:1:2:participant\n"
        b"version=1a\nweight.1=3\nweight.2=1"
    )


def test_boot_after_each_step() -> None:
    disk = disk_with()
    files = ConfigFiles(disk, PATH, 1)
    established, next_one = members(0x100000000, 1, 2, 3), members(0x100000004, 1, 2)
    files.activated(established, established)
    config = boot(disk)
    assert config.members == established
    assert config.last_proposed is None
    assert config.client_port == 2181  # now of the list
    files.proposed(next_one, established)
    config = boot(disk)
    assert (config.members, config.last_proposed) == (established, next_one)
    files.proposed(established, established)
    assert boot(disk).last_proposed is None, "the next leader never heard of it"
    files.proposed(next_one, established)
    # An older one is committed: what is proposed remains so.
    files.activated(established, next_one)
    assert boot(disk).last_proposed == next_one
    files.activated(next_one, next_one)
    config = boot(disk)
    assert (config.members, config.last_proposed) == (next_one, None)
    # Left over by a crash: no change is under way.
    for old in (established, next_one):
        files.proposed(old, NOTHING)
        assert boot(disk).last_proposed is None
    assert disk.exists(PATH + ".dynamic.100000000"), "old lists are kept"


def test_client_port_stays_unless_the_list_has_it() -> None:
    text = STATIC.decode()
    assert "clientPort=2181" in edit_static(text, "/d", drop_client_port=False)
    assert "clientPort" not in edit_static(text, "/d", drop_client_port=True)
    secure = "secureClientPort=2281\nclientPortAddress=h\n"
    assert edit_static(secure, "/d", drop_client_port=True) == (
        "secureClientPort=2281\ndynamicConfigFile=/d\n"
    )
    for sid, kept in ((1, False), (2, True), (9, True)):
        disk = disk_with()
        without = parse_config_text("server.1=h1:1:2;2181\nserver.2=h2:1:2\nversion=5")
        ConfigFiles(disk, PATH, sid).activated(without, without)
        assert (b"clientPort" in disk.read(PATH)) == kept


def test_what_is_not_ours_stays_as_it_is() -> None:
    text = (
        "#!c\r\n! server.1=no\r\n\r\n  dataDir : /a\\\\b \\\r\n   c\r\n"
        "server.1=a:1:2\\\r\n :observer\r\n"
        "group.1=1\nweight.1 2\npeerType=observer\ndynamicConfigFile=/old\nü=\xfc\x0c\x1c\nlast=1"
    )
    assert edit_static(text, "/new\\x/\u20ac\U0001f600", drop_client_port=False) == (
        "#!c\r\n! server.1=no\r\n\r\n  dataDir : /a\\\\b \\\r\n   c\r\nü=\xfc\x0c\x1c\nlast=1\n"
        "dynamicConfigFile=/new\\\\x/\\u20ac\\ud83d\\ude00\n"
    )
    assert edit_static("", "/d", drop_client_port=False) == "dynamicConfigFile=/d\n"
    assert edit_static("a=1\\", "/d", drop_client_port=False) == "a=1\ndynamicConfigFile=/d\n"


@given(st.text(st.sampled_from("ab=: \t\\\r\n#!sü"), max_size=40))
def test_lines_are_split_as_properties_are(text: str) -> None:
    pieces = list(keys_with_lines(text))
    joined = "".join(lines for _, lines in pieces)
    assert joined == text or (text.endswith("\\") and joined == text[:-1])
    assert {key for key, _ in pieces if key is not None} >= load_properties(text).keys()


@given(st.text(max_size=20))
def test_any_value_survives(text: str) -> None:
    value = text.strip()
    if value.isprintable():
        assert load_properties("k=" + escaped(value)) == {"k": value.strip()}


class PowerCut(Exception):
    pass


@pytest.mark.parametrize("left", range(34))
def test_a_crash_leaves_the_list_before_or_after(left: int) -> None:
    for seed in range(30):
        life_and_crash(Random(seed), left)


def life_and_crash(rng: Random, left: int) -> None:
    """Write until the `left`-th change of the disk, lose power, start again."""
    disk = disk_with()
    countdown = left

    def before(kind: str, path: str) -> None:
        nonlocal countdown
        if kind in CHANGING:
            countdown -= 1
            if countdown < 0:
                raise PowerCut

    files = ConfigFiles(disk, PATH, 1)
    established, next_one = members(0x100000000, 1, 2, 3), members(0x100000004, 1, 2)
    disk.before = before
    done = "nothing"
    try:
        files.back_up()
        files.activated(established, established)
        done = "established"
        files.proposed(next_one, established)
        done = "proposed"
        files.activated(next_one, next_one)
        done = "committed"
    except PowerCut:
        pass
    disk.before = None
    disk.crash(rng)
    config = boot(disk)
    found = config.members.version, config.last_proposed and config.last_proposed.version
    before_it, after_it = (0x100000000, None), (0x100000004, None)
    between = (0x100000000, 0x100000004)
    possible = {
        "nothing": [(0, None), before_it],
        "established": [before_it, between],
        "proposed": [between, after_it],
        "committed": [after_it],
    }
    assert found in possible[done]
    assert config.client_port == 2181
    if disk.exists(PATH + ".bak"):
        assert disk.read(PATH + ".bak") == STATIC
    # The next life goes on from there, whatever was left over.
    files = ConfigFiles(disk, PATH, 1)
    files.proposed(next_one, established)
    files.activated(next_one, next_one)
    disk.crash(rng)
    assert boot(disk).members == next_one


def test_a_full_disk_is_told() -> None:
    disk = disk_with()
    disk.fail(faults.SYNC, ".dynamic.")
    with pytest.raises(DiskWriteError):
        ConfigFiles(disk, PATH, 1).activated(members(5, 1, 2), members(5, 1, 2))
    assert boot(disk).members.version == 0
