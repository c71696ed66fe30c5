"""The command line of the server, as far as it does not serve."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zkpy.cli import server
from zkpy.cli.environment_files import variables_of
from zkpy.server.config import Config, ConfigException


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty current directory, and nothing in the environment that counts."""
    for name in os.environ.keys() & {"ZOOCFG", "ZOOCFGDIR", "JVMFLAGS", "SERVER_JVMFLAGS"}:
        monkeypatch.delenv(name)
    # main() adds to it what it finds in files.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")


def path_of(config_dir: str | None = None, name: str | None = None) -> str:
    return os.path.relpath(server.config_path(config_dir, name))


def test_the_default_is_conf_zoo_cfg() -> None:
    assert path_of() == "conf/zoo.cfg"
    touch("conf/zoo.cfg", "zoo.cfg")
    assert path_of() == "conf/zoo.cfg"


def test_a_bare_name_is_in_the_conf_dir_or_else_here(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("z1.cfg")
    assert path_of(None, "z1.cfg") == "z1.cfg"
    touch("conf/z1.cfg")
    assert path_of(None, "z1.cfg") == "conf/z1.cfg"
    monkeypatch.setenv("ZOOCFGDIR", "elsewhere")
    assert path_of(None, "z1.cfg") == "z1.cfg"
    touch("elsewhere/z1.cfg")
    assert path_of(None, "z1.cfg") == "elsewhere/z1.cfg"
    assert path_of("conf", "z1.cfg") == "conf/z1.cfg"
    assert path_of("nowhere", "z2.cfg") == "nowhere/z2.cfg"


def test_a_name_with_a_slash_is_a_path() -> None:
    assert path_of("conf", "./z1.cfg") == "z1.cfg"
    assert server.config_path("conf", "/abs/z1.cfg") == "/abs/z1.cfg"


def test_the_name_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOCFG", "other.cfg")
    assert path_of("conf") == "conf/other.cfg"
    assert path_of("conf", "given.cfg") == "conf/given.cfg"


def test_properties_of_flags_and_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_JVMFLAGS", "-Xmx1g -Da=1 -Db='two words'")
    monkeypatch.setenv("JVMFLAGS", "-Da=2 -Dd")
    assert server.properties_of(["-Da=3", "-De=4"]) == {
        "a": "3", "b": "two words", "d": "", "e": "4",
    }  # fmt: skip
    monkeypatch.setenv("ZOO_DATADIR_AUTOCREATE_DISABLE", "1")
    assert server.properties_of([])["zookeeper.datadir.autocreate"] == "false"
    monkeypatch.setenv("JVMFLAGS", "-Da='")
    with pytest.raises(ConfigException, match="JVMFLAGS=-Da=': No closing quotation"):
        server.properties_of([])


def test_files_beside_the_configuration_set_variables() -> None:
    text = """
        # a comment
        export JVMFLAGS="-Da=1 $JVMFLAGS"   # another
        SERVER_JVMFLAGS='-Db=$x'
        EMPTY=
        LATER="${JVMFLAGS}/$EMPTY$MISSING"
        FOO=1 some command
        if [ -n "$X" ]; then
        BROKEN="over
        lines"
    """
    assert variables_of(text, {"JVMFLAGS": "-Dz=9"}) == {
        "JVMFLAGS": "-Da=1 -Dz=9",
        "SERVER_JVMFLAGS": "-Db=$x",
        "EMPTY": "",
        "LATER": "-Da=1 -Dz=9/",
    }


def test_a_server_gets_all_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    configs: list[Config] = []
    monkeypatch.setattr(server, "start_foreground", lambda config: configs.append(config) or 0)
    monkeypatch.setattr("zkpy.server.aio.logs.configure", lambda _my_id: None)
    touch("conf/zoo.cfg")
    Path("conf/zoo.cfg").write_text("dataDir=/data\nclientPort=1\nclientPortAddress=localhost\n")
    Path("conf/java.env").write_text('export SERVER_JVMFLAGS="-Dzookeeper.snapCount=77"\n')
    assert server.main(["-Dzookeeper.forceSync=no", "start-foreground"]) == 0
    (config,) = configs
    assert (config.snap_count, config.force_sync) == (77, False)
    assert config.client_port_address == "localhost"
    assert capsys.readouterr().err == f"Using config: {tmp_path}/conf/zoo.cfg\n"
    assert server.main(["--config", "none", "2181", "/data", "1000"]) == 0
    assert (configs[1].client_port, configs[1].tick_time_ms) == (2181, 1000)


def test_help_version_and_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["--help"]) == server.main(["start-foreground", "-h"]) == 0
    assert capsys.readouterr().out == (server.HELP + "\n") * 2
    assert server.main(["version"]) == server.main(["upgrade"]) == 0
    version, upgrade = capsys.readouterr().out.splitlines()
    assert version.startswith("Apache ZooKeeper, version 3.9.")
    assert version.endswith(" UTC")
    assert upgrade == "upgrade is not needed: the data format is unchanged since 3.x"
    for words in ([], ["frobnicate"], ["start-foreground", "a", "b"], ["print-cmd", "a", "b"]):
        assert server.main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == server.USAGE + "\n"


def test_print_cmd(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert server.main(["--config", "my conf", "print-cmd", "z.cfg", "-D", "a=b c"]) == 0
    assert capsys.readouterr().out.endswith(
        f" -m zkpy.cli.server start-foreground '{tmp_path}/my conf/z.cfg' '-Da=b c'\n"
    )
