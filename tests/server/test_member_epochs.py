"""The last epoch: whoever has entered it can lead no other, and must not try for ever."""

from __future__ import annotations

from random import Random

import pytest
from tests.quorum.replaying import open_database
from tests.server.machine import START_MS, WALL_MS

from zkpy.persistence.errors import EpochError
from zkpy.protocol.zxid import EPOCH_MAX
from zkpy.quorum.leader import Leader
from zkpy.quorum.members import parse_config_text
from zkpy.server.member import Member
from zkpy.server.settings import make_config
from zkpy.session.auth import DigestAuthenticationProvider, ProviderRegistry

MEMBERS = """server.1=h1:2888:3888:participant;2181
server.2=h2:2888:3888:observer;2181
version=0"""


def only_voter(accepted_epoch: int) -> Member:
    config = make_config(
        data_dir="/data",
        my_id=1,
        members=parse_config_text(MEMBERS),
        quorum_mode=True,
        tick_time_ms=1000,
        init_limit_ticks=10,
        sync_limit_ticks=5,
    )
    _, database = open_database()
    database.write_accepted_epoch(accepted_epoch)
    database.write_current_epoch(accepted_epoch)
    registry = ProviderRegistry([DigestAuthenticationProvider(super_digest="")], skip_acl=False)
    return Member(config, database, registry, now_ms=START_MS, wall_ms=WALL_MS, rng=Random(1))


def test_behind_the_last_epoch_a_leader_ends() -> None:
    member = only_voter(EPOCH_MAX)
    with pytest.raises(EpochError, match="There is no epoch after the accepted one, 7ffffffe"):
        member.start()


def test_the_last_epoch_is_led_once() -> None:
    member = only_voter(EPOCH_MAX - 1)
    member.start()
    member.take_appended()
    assert isinstance(member.zab, Leader)
    assert member.zab.new_epoch == member.database.accepted_epoch == EPOCH_MAX
    member.zab.fail("the term is over")
    with pytest.raises(EpochError):
        member.tick()
