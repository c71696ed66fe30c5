"""zkpy-cli with an ensemble of three: its server dies, members come and go, a quorum is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.ensembles import ZKPY, new_ensemble

from zkpy.testing.ensemble import Ensemble

from .test_cli import CONNECTED, Window, cli

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

# The password of super is "admin".
CONFIG: dict[str, object] = {
    "reconfigEnabled": "true",
    "DigestAuthenticationProvider.superDigest": "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=",
}


READ_ONLY: dict[str, object] = {"readonlymode.enabled": "true", "localSessionsEnabled": "true"}


@pytest.fixture
def ensemble(tmp_path: Path, request: pytest.FixtureRequest) -> Ensemble:
    ensemble = new_ensemble(tmp_path, [ZKPY] * 3, getattr(request, "param", CONFIG))
    ensemble.start()
    ensemble.wait_until_serving()
    return ensemble


def test_its_server_dies(ensemble: Ensemble) -> None:
    """The session goes on at another one, with its ephemeral node and its watch."""
    with ensemble:
        window = Window(ensemble.hosts, "-timeout", "10000")
        try:
            window.run("create -e /eph x")
            window.run("get -w /eph")
            (serving,) = [m for m in ensemble.running if owner_of(m.ask("cons"))]
            window.type("ls /")
            serving.kill()
            window.see("state:Disconnected")
            window.see(CONNECTED, 2)
            window.last("(CONNECTED) 2] ls /")
            assert window.run("") == ["[eph, zookeeper]"]
            shown = "".join(window.run("set /eph y"))
            assert "type:NodeDataChanged path:/eph" in shown
        finally:
            window.terminal.close()


def owner_of(connections: str) -> bool:
    """Whether a session of more than a question is among the connections."""
    return "sid=0x" in connections


def test_config_and_reconfig(ensemble: Ensemble) -> None:
    with ensemble:
        hosts = ensemble.hosts
        lines = [f"server.{sid}={line}" for sid, line in ensemble.server_lines().items()]
        text = cli("-server", hosts, "config").stdout
        for line in lines:
            assert line.partition(";")[0] in text
        version = re.search("version=([0-9a-f]+)", text)
        assert version is not None
        short = cli("-server", hosts, "config", "-c").stdout.splitlines()[-1]
        assert short.startswith(f"{version[1]} ")
        assert short.count(",") == 2

        done = cli("-server", hosts, "reconfig", "-remove", "1")
        assert (done.returncode, done.stderr) == (1, "Insufficient permission : \n")
        script = "addauth digest super:admin\n"
        done = cli("-server", hosts, text=script + "reconfig -v 5 -remove 1\n")
        assert (done.returncode, done.stderr) == (1, "version No is not valid : \n")
        done = cli("-server", hosts, text=script + "reconfig -add server.4=garbage\n")
        assert (done.returncode, done.stderr) == (1, "Arguments are not valid : \n")
        done = cli("-server", hosts, text=script + "reconfig -s -remove 1\n")
        assert (done.returncode, done.stderr) == (0, "")
        _, _, new = done.stdout.partition("Committed new configuration:\n")
        assert "server.1=" not in new
        assert re.search(r"server\.3=.*\nversion=[0-9a-f]+\ncZxid = 0x0\n", new)


@pytest.mark.parametrize("ensemble", [READ_ONLY], indirect=True, ids=["read-only"])
def test_without_a_quorum(ensemble: Ensemble) -> None:
    with ensemble:
        cli("-server", ensemble.hosts, "create", "/there", "x")
        ensemble[2].kill()
        ensemble[3].kill()
        last = ensemble[1]
        ensemble.eventually(lambda: last.mode() == "read-only", "read-only mode", 30)
        hosts = f"{last.host}:{last.client_port}"
        done = cli("-server", hosts, "-timeout", "4000", "ls", "/")
        assert (done.returncode, done.stderr) == (1, "KeeperErrorCode = ConnectionLoss for /\n")
        done = cli("-server", hosts, "-r", "-waitforconnection", "get", "/there")
        assert done.returncode == 0, done.stderr
        assert "state:ConnectedReadOnly type:None" in done.stdout
        assert done.stdout.endswith("\nx\n")
        done = cli("-server", hosts, "-r", "create", "/x")
        assert (done.returncode, done.stderr) == (1, "Not a read-only call: /x\n")
