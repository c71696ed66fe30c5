"""Every captured configuration: same verdict, same messages, same order as ZooKeeper 3.9.5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from zkpy.protocol.config_error import UNEXPECTED, ConfigException
from zkpy.server.config import Config, load_config

GOLDEN = Path(__file__).parents[1] / "golden" / "config" / "startup-3.9.5.txt"

TWO_SERVERS = "server.1=127.0.0.1:2888:3888\nserver.2=127.0.0.1:2889:3889\n"
# Case -> what the files beside zoo.cfg held. No entry: the id in the log, or else 1.
MY_IDS = {
    "quorum: myid missing": None,
    "quorum: myid not a number": "one\n",
    "quorum: myid empty": "",
    "quorum: myid with trailing blank": "1 \n",
    "quorum: myid two lines (first is used)": "1\n2\n",
}
DYNAMIC_FILES = {
    "dynamic file with alien key": TWO_SERVERS + "tickTime=2000\n",
    "dynamic file with version": TWO_SERVERS + "version=100000000\n",
    "client port differs between static and dynamic": (
        "server.1=127.0.0.1:2888:3888;2199\nserver.2=127.0.0.1:2889:3889\n"
    ),
}

STARTS = ""
# Case -> our error where it is not the captured one, and why.
DIFFERENT = {
    # Blanks around the id are stripped: editors and `echo` leave them behind.
    "quorum: myid with trailing blank": STARTS,
    # The key in zoo.cfg is enough.
    "multi-address with multiAddress.enabled": STARTS,
    # TLS needs no special connection factory.
    "secureClientPort without key store (NIO)": STARTS,
    # A reason instead of a null pointer, and the exit code of a bad configuration.
    "groups: unknown member": "Server 4 of group 1 is not in the server list",
    # We complain of the first bad line of the file; the reference of the first in hash order.
    "quorum: server line without election port": (
        "127.0.0.1:2888 does not have the form server_config or server_config;client_config"
        " where server_config is the pipe separated list of host:port:port or host:port:port:type"
        " and client_config is port or host:port"
    ),
    "server line and dynamicConfigFile together": (
        "parameter: server.1 must be in a separate dynamic config file"
    ),
}
# Words that belong to the end of the process, not to the reading of the file.
ENDINGS = (
    "Invalid config, exiting abnormally",
    "Invalid arguments, exiting abnormally",
    "Unexpected exception",
    "zookeeper.enforce.auth.enabled is true",
    "Authentication scheme foo",
    "Thread Thread[main,5,main] died",
    "We got a connection request from a server with our own ID",
)


class Case(NamedTuple):
    title: str
    text: str
    logged: list[str]
    error: str
    exit_code: int | None
    stderr: str
    my_id: str | None


def parse_case(block: str) -> Case:
    title, *lines = block.rstrip("\n").split("\n")
    text = "".join(line[5:] + "\n" for line in lines if line.startswith("cfg| "))
    logged: list[str] = []
    causes: list[str] = []
    my_id = None
    for line in lines:
        if match := re.match(r"log\| \[myid:(\d*)] - (?:WARN |ERROR) \[.*?] - (.*)", line):
            my_id = match[1] or my_id
            if not match[2].startswith(ENDINGS) and match[2] not in logged:
                logged.append(match[2])
        elif match := re.match(r"(?:log|2)\| (?:Caused by: )?(?:\w+\.)+([\w$]+): (.*)", line):
            name, message = match[1], match[2]
            if name not in ("ClassNotFoundException", "ExceptionInInitializerError"):
                if name == "NumberFormatException":
                    message = f"{name}: {message}"
                elif name == "FileNotFoundException":
                    assert message.endswith("(No such file or directory)")
                causes.append(message)
    stderr = next((line[3:] for line in lines if line.startswith("2| ")), "")
    status = lines[-1].removeprefix("=> exit ")
    code = None if status == "STILL RUNNING" else int(status)
    return Case(title, text, logged, ": ".join(causes) if code else "", code, stderr, my_id)


CASES = [parse_case(block) for block in GOLDEN.read_text("latin-1").split("## ")[1:]]


def load(case: Case) -> Config:
    path = "zoo.cfg" if case.title.startswith("relative config") else "/srv/zk/zoo.cfg"
    path = "./zoo.cfg" if case.title.startswith("./relative") else path
    files = {} if case.title == "file missing" else {path: case.text}
    my_id = MY_IDS.get(case.title, case.my_id or "1")
    if my_id is not None:
        files["/srv/zk/data/myid"] = my_id
    if case.title in DYNAMIC_FILES:
        files["/srv/zk/dyn"] = DYNAMIC_FILES[case.title]
    return load_config(path, properties={}, read_file=files.get, resolve=resolve)


def resolve(host: str) -> str:
    if host == "no.such.host.invalid":
        raise OSError(host)
    return host


def ours(messages: object) -> list[str]:
    """Warnings, without the ones the reference does not give."""
    assert isinstance(messages, (list, tuple))
    return [m for level, m in messages if level >= 30 and not m.startswith("unknown config")]


def test_the_capture_was_understood() -> None:
    assert len(CASES) == 88
    assert {case.title for case in CASES} >= {*MY_IDS, *DYNAMIC_FILES, *DIFFERENT}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_same_as_the_reference(case: Case) -> None:
    expected = DIFFERENT.get(case.title, case.error)
    if expected == STARTS:
        config = load(case)
        assert ours(config.messages)[: len(case.logged)] == case.logged
        return
    with pytest.raises(ConfigException) as caught:
        load(case)
    error = caught.value
    assert str(error) == expected
    assert ours(error.messages) == case.logged
    if case.title not in DIFFERENT:
        assert error.exit_code == case.exit_code
        # The reference says nothing on stderr when it ends with 1, or dies with a stack there.
        assert error.headline == (case.stderr if case.exit_code == 2 else UNEXPECTED)
