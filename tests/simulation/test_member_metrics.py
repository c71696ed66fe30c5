"""What members of an ensemble count, as monitoring looks for it."""

from __future__ import annotations

from tests.simulation.scenario import Scenario

from zkpy.server import metrics
from zkpy.testing.host import Host


def counted(host: Host) -> dict[str, int]:
    return metrics.counters(host.member.server)


def test_proposals_commits_and_how_followers_were_caught_up() -> None:
    s = Scenario()
    s.lead(s.c)
    client = s.client(s.c)
    s.create(client, "/1", "/2", "/3")
    s.settle()
    leader = counted(s.c)
    # The session, and three nodes.
    assert leader["proposal_count"] == leader["commit_count"] == 4
    assert (leader["diff_count"], leader["snap_count"]) == (2, 0)
    for follower in (s.a, s.b):
        mine = counted(follower)
        assert mine["learner_proposal_received_count"] == 4
        assert mine["proposal_count"] == mine["commit_count"] == mine["diff_count"] == 0
        summaries = metrics.basic_summaries(follower.member.server)
        assert summaries["follower_sync_time"].count == 1
        assert summaries["observer_sync_time"].count == 0
    s.finish()


def test_a_snapshot_is_counted_as_one() -> None:
    s = Scenario(committed_log_count=2, overrides={"snapshot_size_factor": -1.0})
    s.lead(s.c)
    client = s.client(s.c)
    s.settle()
    s.b.kill()
    s.create(client, *(f"/{number}" for number in range(5)))
    before = counted(s.c)
    s.start(s.b)
    s.settle()
    after = counted(s.c)
    assert after["snap_count"] == before["snap_count"] + 1
    assert after["diff_count"] == before["diff_count"]
    s.finish()


def test_counts_go_on_in_the_next_role() -> None:
    s = Scenario()
    s.lead(s.c)
    s.create(s.client(s.c), "/1")
    s.settle()
    before = counted(s.c)
    s.separate([s.c], [s.a, s.b])
    s.until(lambda: (s.leads(s.a) or s.leads(s.b)) and not s.c.has_role)
    s.heal()
    s.settle()
    after = counted(s.c)
    assert after["proposal_count"] >= before["proposal_count"] > 0
    assert after["connection_request_count"] >= before["connection_request_count"] > 0
    assert after["looking_count"] > before["looking_count"]
    s.finish()
