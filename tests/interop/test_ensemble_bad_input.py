"""Members with wrong configurations or directories, and with much to catch up: a clear line in the
log, the right exit code, and the ensemble goes on.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from tests.support import wire
from tests.support.ensembles import (
    NEW,
    OLD,
    ZKPY,
    check_equal_trees,
    new_ensemble,
    session,
    tree_of,
)

from zkpy.testing.ensemble import Ensemble, Member

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

WAIT_S = 30.0


def ended(member: Member) -> int:
    """Start a member that cannot run; returns its exit code."""
    member.start()
    assert member.process is not None
    code = member.process.wait(WAIT_S)
    member.process = None
    return code


def rewrite(member: Member, old: str, new: str) -> None:
    text = member.config_path.read_text()
    assert old in text
    member.config_path.write_text(text.replace(old, new))


def test_members_that_cannot_start(tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY] * 3) as ensemble:
        ensemble.start(1, 2)
        third = ensemble[3]
        my_id = third.data_dir / "myid"

        my_id.unlink()
        assert ended(third) == 2
        assert "myid file is missing" in third.log_text()
        my_id.write_text("three\n")
        assert ended(third) == 2
        assert re.search(r"serverid three\s+is not a number", third.log_text())
        my_id.write_text("9\n")
        assert ended(third) == 1
        assert "My id 9 not in the peer list" in third.log_text()
        my_id.write_text("3\n")

        rewrite(third, "initLimit=30", "initLimit=0")
        assert ended(third) == 2
        assert "initLimit is not set" in third.log_text()
        rewrite(third, "initLimit=0", "initLimit=30")

        # Somebody else has its election port.
        with socket.create_server((third.host, third.election_port)):
            rewrite(third, "initLimit=30", "initLimit=30\nelectionPortBindRetry=2")
            assert ended(third) == 14
            assert "won't be able to participate in leader election" in third.log_text()

        # An epoch that contradicts the log.
        ensemble.start(3)
        with session(third) as client:
            client.value(wire.CREATE, wire.create("/x"))
        ensemble.wait_until_equal()
        third.stop()
        accepted = third.data_dir / "version-2" / "acceptedEpoch"
        kept = accepted.read_text()
        accepted.write_text("0")
        assert ended(third) == 1
        assert "The accepted epoch, 0 is less than the current epoch, 1" in third.log_text()
        accepted.write_text("not a number")
        assert ended(third) == 1
        assert "acceptedEpoch at offset 0: Found b'not a number', not an epoch" in third.log_text()
        accepted.write_text(kept)

        # All along the others served; and it still can.
        ensemble.start(3)
        check_equal_trees(ensemble)


def test_two_members_with_one_id(tmp_path: Path) -> None:
    """The second claims the id of the first: both are told, the others go on."""
    with new_ensemble(tmp_path, [ZKPY] * 4) as ensemble:
        lines = {sid: ensemble[sid].server_line for sid in (1, 2, 3)}
        for sid in (1, 2, 3):
            ensemble[sid].write_config(ensemble.config, lines)
        twin = ensemble[4]
        lines[3] = twin.server_line
        twin.write_config(ensemble.config, lines)
        (twin.data_dir / "myid").write_text("3\n")
        ensemble.start(2, 1)
        ensemble.start(3)
        assert ensemble.wait_for_leader().sid == 2
        twin.start()
        with session(ensemble[1]) as client:
            for number in range(200):
                client.value(wire.CREATE, wire.create(f"/n{number}"))
        assert ensemble.wait_for_leader().sid == 2
        twin.kill()
        ensemble.wait_until_serving()
        check_equal_trees(ensemble)


@pytest.mark.parametrize("kind", [ZKPY, NEW])
def test_a_member_with_another_list(kind: str, tmp_path: Path) -> None:
    with new_ensemble(tmp_path, [ZKPY, kind, ZKPY]) as ensemble:
        # It thinks that there are five, so that it takes three to make it follow. Whether it does
        # depends on when it hears of the others; they go on.
        lines = ensemble.server_lines()
        nobody = {4: "127.0.0.1:1:2:participant", 5: "127.0.0.1:3:4:participant"}
        ensemble[1].write_config(ensemble.config, lines | nobody)
        ensemble.start(3, 2)
        ensemble[1].start()
        ensemble.eventually(
            lambda: "Cannot open channel to 5" in ensemble[1].log_text(), "a dial", WAIT_S
        )
        with session(ensemble[2]) as client:
            for number in range(100):
                client.value(wire.CREATE, wire.create(f"/n{number}"))
        ensemble[1].stop()
        ensemble[1].write_config(ensemble.config, lines)
        ensemble.start(1)
        with session(ensemble[1]) as client:
            client.value(wire.CREATE, wire.create("/x"))
        check_equal_trees(ensemble)


def test_a_directory_of_another_ensemble(tmp_path: Path) -> None:
    """A younger history gives way to the ensemble's, whole; none of it is left."""
    with new_ensemble(tmp_path / "other", [ZKPY] * 3) as other:
        other.start()
        with session(other[3]) as client:
            client.value(wire.CREATE, wire.create("/of-another"))
        other.wait_until_equal()
        for member in other.members.values():
            member.stop()
        stray = other[3].data_dir
        with new_ensemble(tmp_path / "this", [ZKPY] * 3) as ensemble:
            ensemble.start(1, 2)
            grow(ensemble, 700)
            # More elections than the other has seen: ours is the later epoch.
            ensemble.kill()
            ensemble.start(1, 2)
            grow(ensemble, 10)
            replace_data(ensemble[3], stray)
            ensemble.start(3)
            tree = check_equal_trees(ensemble)
            assert "/of-another" not in tree


def grow(ensemble: Ensemble, count: int) -> None:
    with session(ensemble.wait_for_leader()) as client:
        for number in range(count):
            client.send(wire.CREATE, wire.create("/s-", b"%d" % number, flags=wire.SEQUENTIAL))
        for _ in range(count):
            client.recv_reply().value(wire.CREATE)


def replace_data(member: Member, source: Path) -> None:
    version_2 = member.data_dir / "version-2"
    assert not version_2.exists()
    (source / "version-2").rename(version_2)


@pytest.mark.parametrize(
    ("kinds", "joiner"),
    [
        pytest.param((ZKPY, ZKPY), NEW, id="apache-395-from-zkpy"),
        pytest.param((ZKPY, ZKPY), OLD, id="apache-380-from-zkpy"),
        pytest.param((NEW, NEW), ZKPY, id="zkpy-from-apache-395"),
        pytest.param((OLD, OLD), ZKPY, id="zkpy-from-apache-380"),
        pytest.param((ZKPY, ZKPY), ZKPY, id="zkpy-from-zkpy"),
    ],
)
def test_a_rich_tree_in_one_snapshot(kinds: tuple[str, str], joiner: str, tmp_path: Path) -> None:
    """All sorts of nodes, sessions with ephemerals, a thousand children, a megabyte of data."""
    config = {"extendedTypesEnabled": "true", "jute.maxbuffer": None}
    with new_ensemble(tmp_path, [*kinds, joiner], config) as ensemble:
        ensemble.start(1, 2)
        leader = ensemble.wait_for_leader()
        client = session(leader, 60_000)
        value = client.value
        acl = [(wire.READ, "world", "anyone"), (wire.ALL, "ip", "127.0.0.1")]
        value(wire.CREATE, wire.create("/a", b"", acl=acl))
        value(wire.CREATE, wire.create("/a/\u00e9\u4e2d", None))
        value(wire.CREATE_CONTAINER, wire.create("/a/c", b"c", flags=wire.CONTAINER))
        value(wire.CREATE, wire.create("/a/c/child", b""))
        value(wire.CREATE_TTL, wire.create_ttl("/a/t", b"t", ttl_ms=10_000_000))
        value(wire.CREATE, wire.create("/a/e", b"e", flags=wire.EPHEMERAL))
        value(wire.CREATE, wire.create("/a/big", bytes(1_000_000)))
        value(wire.CREATE, wire.create("/many", b""))
        for number in range(1000):
            client.send(wire.CREATE, wire.create("/many/s-", b"%d" % number, flags=2))
        for _ in range(1000):
            client.recv_reply().value(wire.CREATE)
        for number in range(0, 1000, 7):
            client.send(wire.DELETE, wire.path_version(f"/many/s-{number:010d}"))
        for _ in range(0, 1000, 7):
            client.recv_reply().value(wire.DELETE)
        ensemble.start(3)
        text = ensemble[3].log_text()
        assert "Getting a snapshot from leader" in text, ensemble.logs()
        tree = check_equal_trees(ensemble)
        assert tree["/a/e"][2].ephemeral_owner
        assert len(tree) > 850
        # The session's end reaches the new one.
        client.end_session()
        assert "/a/e" not in tree_of(ensemble[3])
        ensemble[3].stop()
        ensemble.start(3)
        check_equal_trees(ensemble)
