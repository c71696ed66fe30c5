"""View: the two configurations a member goes by."""

from __future__ import annotations

from tests.quorum.electing import members_of

from zkpy.quorum.members import OBSERVER, PARTICIPANT, Members, QuorumServer
from zkpy.quorum.view import View

OLD = members_of([1, 2, 3], [4], 0x100)
NEW = members_of([3, 4, 5], [2], 0x200)


def test_one_configuration() -> None:
    view = View(2, OLD)
    assert view.last_proposed is OLD
    assert view.voters() == {1, 2, 3}
    assert len(view.verifiers()) == 1
    assert view.has_quorum({1, 2})
    assert not view.has_quorum({1, 4})
    assert view.committed_text == OLD.text()
    assert [view.role_of(sid) for sid in (1, 4, 5)] == [PARTICIPANT, OBSERVER, None]


def test_roles() -> None:
    assert (View(1, OLD).my_role, View(1, OLD).i_vote) == (PARTICIPANT, True)
    assert (View(4, OLD).my_role, View(4, OLD).i_vote) == (OBSERVER, False)
    # In no configuration: it follows, without a vote.
    assert (View(9, OLD).my_role, View(9, OLD).i_vote) == (PARTICIPANT, False)


def test_both_configurations_have_to_agree() -> None:
    view = View(1, OLD, reconfig_enabled=True)
    assert view.set_last_proposed(NEW)
    assert view.voters() == {1, 2, 3, 4, 5}
    assert [verifier.members for verifier in view.verifiers()] == [OLD, NEW]
    assert not view.has_quorum({1, 2})
    assert not view.has_quorum({4, 5})
    assert view.has_quorum({1, 3, 5})
    # Roles, and whether we vote, go by what is committed.
    assert view.role_of(4) == OBSERVER
    assert view.role_of(5) is None


def test_activation() -> None:
    view = View(2, OLD, reconfig_enabled=True)
    view.set_last_proposed(NEW)
    assert view.set_committed(NEW)
    assert len(view.verifiers()) == 1
    assert view.voters() == {3, 4, 5}
    assert view.my_role == OBSERVER
    assert view.committed_text == NEW.text()


def test_a_configuration_learned_as_committed_counts_as_proposed() -> None:
    view = View(1, OLD)
    assert view.set_committed(NEW)
    assert view.last_proposed is NEW


def test_a_later_proposal_survives_an_activation() -> None:
    later = members_of([1, 2, 3], [], 0x300)
    view = View(1, OLD, later, reconfig_enabled=True)
    assert view.set_committed(NEW)
    assert view.last_proposed is later
    assert [verifier.members for verifier in view.verifiers()] == [NEW, later]


def test_versions_do_not_go_back() -> None:
    view = View(1, NEW, reconfig_enabled=True)
    assert not view.set_committed(OLD)
    assert not view.set_committed(members_of([1], [], 0x200)), "a version has one meaning"
    assert not view.set_last_proposed(OLD)
    assert view.committed is NEW
    assert view.last_proposed is NEW


def test_proposals_without_reconfig_are_not_kept() -> None:
    """ZOOKEEPER-2819, 3829: the static list is what counts then."""
    view = View(1, OLD)
    assert not view.set_last_proposed(NEW)
    assert view.voters() == {1, 2, 3}


def test_an_old_proposal_at_boot_still_names_voters() -> None:
    view = View(1, NEW, OLD)
    assert view.voters() == {1, 2, 3, 4, 5}
    assert [verifier.members for verifier in view.verifiers()] == [NEW]


def test_servers_and_addresses() -> None:
    moved = QuorumServer(3, (("other", 1, 2), ("h3", 2888, 3888)))
    proposed = Members({3: moved, 7: QuorumServer(7, (("h7", 1, 3),))}, version=0x300)
    view = View(1, OLD, proposed, reconfig_enabled=True)
    assert view.server(3) == OLD.servers[3]
    assert view.server(7) == proposed.servers[7]
    assert view.server(8) is None
    # The committed address first, each once.
    assert view.election_addresses(3) == [("h3", 3888), ("other", 2)]
    assert view.election_addresses(7) == [("h7", 3)]
    assert view.election_addresses(8) == []


def test_weights() -> None:
    groups = ("group.1=1:2", "group.2=3", "weight.2=0")
    view = View(1, members_of([1, 2, 3], [4], 0x100, *groups), NEW, reconfig_enabled=True)
    assert [view.weight(sid) for sid in (1, 2, 3, 4)] == [1, 0, 1, 0]
    assert view.weight(5) == 1, "only proposed"
    assert View(1, OLD).weight(4) == 1
