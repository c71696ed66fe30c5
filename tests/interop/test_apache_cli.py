"""Apache's own command line (ZooKeeperMain): with zkpy it must say what it says with Apache.

Each script is piped into the program twice, once per server; both servers have seen the same
scripts before, so that even zxids agree.
"""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

import pytest
from tests.support import oracle

from .conftest import StartServer

pytestmark = pytest.mark.interop

SCRIPTS = {
    "nodes": """
        create /app "some text"
        create /app "again"
        create /app/one 1
        create -s /app/seq- x
        create -s /app/seq- y
        create -e /app/eph e
        create -e -s /app/es- e
        create -c /app/container
        create -t 1000 /app/ttl
        create /app/container/child
        create /missing/node x
        create /bad/ x
        create bad x
        create /app/eph/child x
        get /app
        get -s /app
        get -b /app
        get -x /app
        get /nope
        set /app changed
        set -s /app changed
        set -v 2 /app third
        set -v 1 /app fails
        set /nope x
        get /app
        ls /
        ls -s /app
        ls -R /
        ls /nope
        stat /app
        stat /nope
        delete -v 5 /app/one
        delete /app/one
        delete /app
        delete /nope
        getAllChildrenNumber /
        getEphemerals
        getEphemerals /app
        sync /app
        deleteall /app
        ls /
        delete /
        deleteall /zookeeper
    """,
    "acls": """
        create /a x
        getAcl /a
        getAcl -s /a
        setAcl /a world:anyone:r
        getAcl /a
        set /a no
        setAcl /a world:anyone:cdrwa
        addauth digest bob:secret
        whoami
        create /mine x auth::cdrwa
        getAcl /mine
        create /digest x digest:ann:abc=:crw
        getAcl /digest
        create /ip x ip:127.0.0.1:cdrwa
        getAcl /ip
        create /bad x digest:nocolon:r
        create /bad x ip:1.2.3.4.5:r
        setAcl -v 7 /mine world:anyone:r
        setAcl -s /mine world:anyone:r
        setAcl /mine world:anyone:cdrwa
        create /tree
        create /tree/a
        create /tree/a/b
        setAcl -R /tree world:anyone:cdr
        getAcl /tree/a/b
        setAcl /zookeeper/config world:anyone:cdrwa
        deleteall /tree
        setAcl /nope world:anyone:r
        getAcl /nope
    """,
    "quota": """
        create /q
        create /q/a 12345
        setquota -n 2 /q
        listquota /q
        setquota -b 100 /q
        listquota /q
        setquota -N 4 /q
        setquota -B 200 /q
        listquota /q
        create /q/b 1
        create /q/c 1
        create /q/d 1
        listquota /q
        set /q/a longerdata
        listquota /q
        delete /q/b
        listquota /q
        get /zookeeper/quota/q/zookeeper_limits
        get /zookeeper/quota/q/zookeeper_stats
        ls -R /zookeeper
        setquota -n 1 /q/a
        delquota -n /q
        listquota /q
        delquota /q
        listquota /q
        setquota -n 5 /nope
        deleteall /q
    """,
    "watches": """
        create /w
        addWatch /w
        create /w/a
        set /w/a 1
        removewatches /w
        set /w/a 2
        addWatch -m PERSISTENT /w
        create /w/b
        set /w 1
        delete /w/b
        removewatches /w -a
        get -w /w
        set /w 2
        set /w 3
        ls -w /w
        create /w/c
        stat -w /w/c
        delete /w/c
        removewatches /nothing
        printwatches
        printwatches off
        sync /w
        deleteall /w
        sync /
    """,
    "rest": """
        config
        config -s
        config -c
        reconfig -add server.1=127.0.0.1:1:2;3
        reconfig -s -remove 1
        create -t 0 /t
        history
        ls /zookeeper
        stat /zookeeper
        stat /
        get -s /zookeeper/config
        close
        ls /
        nonsense
        ls
        get
    """,
}


class Output(NamedTuple):
    """What a script printed. Events come on a thread of their own, in the midst of other lines."""

    lines: list[str]
    events: list[str]


def run(server: oracle.Server, script: str, *options: str) -> Output:
    """Pipe `script` into ZooKeeperMain."""
    command = [
        "java",
        *oracle.JVM_FLAGS,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
        "-cp",
        oracle.classpath("3.9.5"),
        "org.apache.zookeeper.ZooKeeperMain",
        "-server",
        server.hosts,
        *options,
    ]
    text = "\n".join(line.strip() for line in script.strip().splitlines()) + "\nquit\n"
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return normalise(done.stdout.replace(server.hosts, "SERVER"))


def normalise(text: str) -> Output:
    text = re.sub(r"(?m)^(ctime|mtime) = (?!Thu Jan 01 00:00:00 UTC 1970).*$", r"\1 = TIME", text)
    text = re.sub(r"(?m)^ephemeralOwner = 0x\w{6,}$", "ephemeralOwner = SESSION", text)
    lines = []
    events = []
    for line in text.splitlines():
        if line.startswith("WatchedEvent state:"):
            # The end of the session may or may not be told before the program ends.
            if "type:None" not in line:
                events.append(line)
        elif line.startswith("["):
            lines.append(f"[{', '.join(sorted(line.strip('[]').split(', ')))}]")
        elif line and line != "WATCHER::":
            lines.append(line)
    # whoami prints one line per id, in any order.
    for at in range(1, len(lines)):
        if re.match(r"(ip|digest): ", lines[at]) and re.match(r"(ip|digest): ", lines[at - 1]):
            lines[at - 1 : at + 1] = sorted(lines[at - 1 : at + 1])
    return Output(lines, events)


@pytest.fixture(scope="module")
def servers(start_server: StartServer) -> tuple[oracle.Server, oracle.Server]:
    config = {"tickTime": 2000}
    return start_server("apache", config), start_server("zkpy", config)


@pytest.fixture(scope="module")
def apache(start_server: StartServer) -> oracle.Server:
    return start_server("apache")


def test_the_scripts_do_something(apache: oracle.Server) -> None:
    """Checks the test: Apache's own answers are the expected ones."""
    output = run(apache, SCRIPTS["nodes"])
    for line in ("Created /app", "third", "Created /app/seq-0000000001", "numChildren = 6"):
        assert line in output.lines, "\n".join(output.lines)
    output = run(apache, SCRIPTS["watches"])
    assert "WatchedEvent state:SyncConnected type:NodeDeleted path:/w/c zxid: " in " ".join(
        output.events
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_words(servers: tuple[oracle.Server, oracle.Server], name: str) -> None:
    expected, got = (run(server, SCRIPTS[name]) for server in servers)
    assert len(expected.lines) > 10
    assert got.lines == expected.lines
    assert got.events == expected.events


def test_single_command(servers: tuple[oracle.Server, oracle.Server]) -> None:
    """One command on the program's own command line."""
    expected, got = (run(server, "", "ls", "-R", "/zookeeper") for server in servers)
    assert got == expected
    assert "/zookeeper/quota" in got.lines
