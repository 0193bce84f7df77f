"""Admission: who is fit to vote, and when the list of nodes is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from redlock.core.admission import Admission, State
from redlock.core.identity import Memory
from redlock.core.quorum import Fault, FaultKind
from tests.core.admission.clients import (
    SILENT,
    blank_of,
    client_of,
    marker_of,
    memory_of,
    met,
    refused,
    restarted,
    states,
)
from tests.core.flows import identity_of


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"role": "slave"}, "is a slave, not a master"),
        ({"role": "unknown"}, "is a unknown, not a master"),
        ({"cluster_mode": True}, "runs in cluster mode"),
        (
            {"policy": "allkeys-lru"},
            "may evict locks (maxmemory-policy allkeys-lru, must be noeviction)",
        ),
        (
            {"policy": "volatile-ttl"},
            "may evict locks (maxmemory-policy volatile-ttl, must be noeviction)",
        ),
        ({"memory": Memory("", "repl-2")}, "gave no run id"),
        ({"memory": Memory("run-2", "")}, "gave no replication id"),
    ],
)
def test_a_node_that_is_unfit_does_not_vote_and_costs_only_its_own_vote(
    changes: dict[str, Any], reason: str
) -> None:
    """One demoted node never stops a new client; its marker does not help it."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, **changes), 0.0)
    assert refused(admission.standing(1, 1.0)) == reason
    assert states(admission, 1.0) == [State.ADMITTED, State.REFUSED, State.ADMITTED]
    assert admission.out_of_reach(1.0) is None
    assert admission.problem() is None


def test_a_node_that_loads_its_data_does_not_vote_yet() -> None:
    """It is unavailable and not unfit: nobody has to be told that the configuration is wrong."""
    admission = met(3)
    for node in range(3):
        admission.seen(node, identity_of(node, 3, loading=True), 0.0)
    standing = admission.standing(1, 1.0)
    assert standing.state is State.REFUSED
    assert standing.fault == Fault(FaultKind.ERROR, "is LOADING its data")
    assert admission.out_of_reach(1.0) is None


def test_unfit_nodes_are_a_wrong_configuration_when_they_put_a_majority_out_of_reach() -> None:
    """Each of them is named with its reason."""
    admission = met(3)
    admission.seen(0, identity_of(0, 3, role="slave"), 0.0)
    assert admission.out_of_reach(1.0) is None
    admission.seen(2, identity_of(2, 3, policy="allkeys-lfu"), 0.0)
    reason = admission.out_of_reach(1.0)
    assert (
        reason
        == "n1 is a slave, not a master; n3 may evict locks (maxmemory-policy allkeys-lfu, must be noeviction)"
    )


@pytest.mark.parametrize("marker", ["", blank_of(memory_of(0))])
def test_who_saw_a_marker_of_another_cluster_founds_none_when_it_is_gone(marker: str) -> None:
    """A wrong list of one node of three, and that node is flushed: it looks new, and the other
    two hold locks."""
    admission = client_of(1)
    admission.seen(0, identity_of(0, 3), 0.0)
    assert (
        refused(admission.standing(0, 0.0))
        == "belongs to a cluster of 3 nodes, and this list has 1"
    )
    admission.seen(0, identity_of(0, 3, marker=marker), 1.0)
    reason = "has no marker, and n1 had another cluster's: it belongs to a cluster of 3 nodes, and this list has 1"
    assert refused(admission.standing(0, 100.0)) == reason
    admission.seen(0, identity_of(0, 1), 101.0)
    assert admission.standing(0, 101.0).state is State.ADMITTED


def test_what_unfit_nodes_told_long_ago_is_no_reason_to_give_up() -> None:
    """Somebody may have mended them, and who waits asks them again; refused credentials are what
    the last dial brought."""
    admission = met(3)
    for node in (0, 2):
        admission.seen(node, identity_of(node, 3, role="slave"), 1.0)
    assert admission.out_of_reach(2.0) is not None
    assert admission.out_of_reach(2.0, since=1.5) is None
    admission.seen(0, identity_of(0, 3, role="slave"), 2.0)
    admission.failed(2, Fault(FaultKind.REFUSED, "refused our credentials"))
    assert (
        admission.out_of_reach(2.0, since=1.5)
        == "n1 is a slave, not a master; n3 refused our credentials"
    )


def test_a_refusal_that_rests_on_what_another_node_told_long_ago_is_no_reason_to_give_up() -> None:
    """Nodes without markers are refused for the one marker that is another cluster's, which may
    be put back by now."""
    admission = met(5)
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 7).text()), 1.0)
    for node in range(1, 5):
        admission.seen(node, identity_of(node, 5, marker=""), 2.0)
    assert (
        refused(admission.standing(1, 2.0)) == "has no marker, and no other node is of this cluster"
    )
    assert admission.out_of_reach(2.0, since=1.5) is None
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 7).text()), 2.0)
    assert "no other node is of this cluster" in str(admission.out_of_reach(2.0, since=1.5))


def test_nodes_that_are_down_or_in_quarantine_are_no_wrong_configuration() -> None:
    """They may be back at any time."""
    admission = met(5)
    for node in (0, 1):
        admission.failed(node, SILENT)
    for node in (2, 3):
        admission.seen(node, restarted(node, 5), 0.0)
    admission.seen(4, identity_of(4, 5, role="slave"), 0.0)
    assert admission.out_of_reach(1.0) is None


def test_refused_credentials_count_as_out_of_reach() -> None:
    """Waiting does not help there."""
    admission = client_of(3)
    for node in (0, 2):
        admission.failed(node, Fault(FaultKind.REFUSED, "refused our credentials"))
    assert admission.out_of_reach(0.1) == "n1, n3: refused our credentials"


def test_the_same_server_behind_two_names_is_found_by_its_run_id() -> None:
    """A "majority" of one machine: both entries are refused, and the whole list is wrong
    whatever the others say."""
    admission = met_but(3)
    assert admission.problem() is None
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 0.0)
    problem = admission.problem()
    assert problem == "n2 is the same server as n4 (run id run-2)"
    assert refused(admission.standing(1, 1.0)) == "is the same server as n4 (run id run-2)"
    assert refused(admission.standing(3, 1.0)) == "is the same server as n2 (run id run-2)"


def test_a_twin_of_long_ago_is_no_reason_to_give_up_and_gets_nobody_a_second_vote() -> None:
    """Its address may have moved back meanwhile; until it tells who it is, it does not vote."""
    admission = met_but(3)
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 2.0)
    assert admission.problem(2.5) is None
    assert refused(admission.standing(3, 3.0)) == "is the same server as n2 (run id run-2)"
    admission.seen(3, identity_of(3, 5, memory=memory_of(1)), 3.0)
    assert admission.problem(2.5) is None, (
        "that address may lead there for good, and the other one elsewhere by now"
    )
    admission.seen(1, identity_of(1, 5), 3.5)
    assert admission.problem(2.5) == "n2 is the same server as n4 (run id run-2)"


def met_but(last: int) -> Admission:
    """A client that has met all of five nodes but one."""
    admission = client_of(5)
    for node in range(5):
        if node != last:
            admission.seen(node, identity_of(node, 5), 0.0)
    return admission


def test_a_name_that_leads_to_another_nodes_server_for_a_while_does_not_make_the_list_wrong() -> (
    None
):
    """The two were met apart, so what the name stands for cannot be reached just now. Neither
    votes, as both may be one."""
    admission = met(3)
    admission.seen(2, identity_of(2, 3, memory=memory_of(1)), 2.0)
    admission.seen(1, identity_of(1, 3), 2.1)
    assert (admission.problem(), admission.out_of_reach(2.2)) == (None, None)
    standings = [admission.standing(node, 2.2) for node in (1, 2)]
    assert [(standing.state, standing.redial) for standing in standings] == [
        (State.REFUSED, True)
    ] * 2
    assert [standing.fault for standing in standings] == [
        Fault(FaultKind.UNREACHABLE, f"is the same server as {name} (run id run-2)")
        for name in ("n3", "n2")
    ]
    admission.seen(2, identity_of(2, 3), 3.0)
    assert states(admission, 3.0) == [State.ADMITTED] * 3


def test_two_nodes_that_gave_no_run_id_are_no_twins() -> None:
    """They are unfit, each for itself."""
    admission = met(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3, memory=Memory("", "")), 0.0)
    assert admission.problem() is None
