"""MemberConfig: what is done about a configuration, and in which order."""

from __future__ import annotations

from typing import Any

from zkpy.quorum.effects import RebindClientPort, RebindElectionPort
from zkpy.quorum.members import Members, parse_config_text
from zkpy.quorum.view import View
from zkpy.server.member_config import MemberConfig
from zkpy.server.settings import make_config

V1, V2 = 1 << 32, 2 << 32


def members(version: int, client: str = "2181", election: int = 3888, voters: int = 3) -> Members:
    lines = [f"server.{sid}=h{sid}:2888:3888:participant;2181" for sid in range(2, voters + 1)]
    lines += [f"server.1=h1:2888:{election}:participant;{client}", f"version={version:x}"]
    return parse_config_text("\n".join(lines))


class Recorder:
    """Files, database, connections and effects of a member: what was done, in order."""

    def __init__(self, *, reconfig_enabled: bool = True, with_files: bool = True) -> None:
        self.done: list[Any] = []
        self.view = View(1, members(V1), None, reconfig_enabled)
        config = make_config(data_dir="/data", my_id=1, client_port=2181)
        recorder: Any = self
        self.config = MemberConfig(
            config, self.view, recorder, recorder, recorder, recorder if with_files else None
        )

    def proposed(self, last_proposed: Members, committed: Members) -> None:
        self.done.append(("proposed", last_proposed.version, committed.version))

    def activated(self, committed: Members, last_proposed: Members) -> None:
        self.done.append(("activated", committed.version))

    def set_config(self, committed: Members) -> None:
        self.done.append(("node", committed.version))

    def restart(self) -> None:
        self.done.append("restart")

    def append(self, effect: Any) -> None:
        self.done.append(type(effect))


def test_a_proposal_is_written_once() -> None:
    member = Recorder()
    assert member.config.saved_proposal is member.view.last_proposed
    member.view.set_last_proposed(members(V2))
    assert member.config.saved_proposal is not member.view.last_proposed
    member.config.save_proposal()
    assert member.done == [("proposed", V2, V1)]
    assert member.config.saved_proposal is member.view.last_proposed


def test_files_come_before_the_node_and_the_node_before_the_ports() -> None:
    member = Recorder()
    result = member.config.activate(members(V2, client="2182", election=3999), None, 1)
    assert member.done == [
        ("activated", V2), ("node", V2), RebindElectionPort, "restart", RebindClientPort,
    ]  # fmt: skip
    assert not result.leaves_role
    assert member.config.saved_proposal is member.view.last_proposed


def test_a_client_port_that_is_in_use_already_is_not_bound_again() -> None:
    member = Recorder()
    member.config.activate(members(V2, client="2182"), None, 1)
    member.done.clear()
    member.config.activate(members(V2 + 1, client="2182", voters=4), None, 1)
    assert member.done == [("activated", V2 + 1), ("node", V2 + 1), "restart"]


def test_what_differs_in_its_version_only_restarts_nothing() -> None:
    member = Recorder()
    member.config.activate(members(V2), None, 1)
    assert member.done == [("activated", V2), ("node", V2)]


def test_an_older_configuration_only_writes_the_node() -> None:
    member = Recorder()
    member.config.activate(members(V1, voters=5), None, 1)
    assert member.done == [("node", V1)]


def test_without_reconfig_nothing_is_done_and_without_a_zoo_cfg_nothing_is_written() -> None:
    member = Recorder(reconfig_enabled=False)
    member.config.activate(members(V2), None, 1)
    assert member.done == []
    member = Recorder(with_files=False)
    member.view.set_last_proposed(members(V2))
    member.config.save_proposal()
    member.config.activate(members(V2), None, 1)
    assert member.done == [("node", V2)]


def test_who_is_designated_ends_the_role() -> None:
    result = Recorder().config.activate(members(V2), 2, 1)
    assert not result.leaves_role, "the same members"
    result = Recorder().config.activate(members(V2, voters=4), 2, 1)
    assert result.leaves_role and result.designated_leader == 2
