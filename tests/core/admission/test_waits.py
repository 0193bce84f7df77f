"""Admission, rule 5: by what a quarantine waits, and by whose word it ends."""

from __future__ import annotations

import pytest

from redlock.core.admission import State
from redlock.core.quarantine import quarantine_span
from tests.core.admission.clients import (
    SILENT,
    SPAN,
    blank_of,
    client_of,
    flushed,
    marker_of,
    memory_of,
    met,
    quarantined,
    refused,
    restarted,
    states,
    tell_again,
    us,
    written,
)
from tests.core.flows import identity_of


@pytest.mark.parametrize(("nodes", "others"), [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_a_quarantine_ends_only_when_enough_other_markers_are_known(
    nodes: int, others: int
) -> None:
    """q - 1 of them, told since the loss: with the node itself they are a majority, which any
    raise has met."""
    admission = met(nodes)
    admission.seen(0, flushed(0, nodes), 10.0)
    for node in range(1, nodes):
        admission.failed(node, SILENT)
    for node in range(1, others):
        admission.seen(node, identity_of(node, nodes), 20.0)
    standing = admission.standing(0, 1000.0)
    assert quarantined(standing) is None
    assert standing.fault is not None
    assert standing.fault.detail.endswith(
        "until a majority has told that max_ttl was not raised meanwhile"
    )
    admission.seen(others, identity_of(others, nodes), 1000.0)
    assert admission.standing(0, 1000.0).state is State.MARK


def test_a_quarantine_does_not_end_on_what_the_others_told_before_the_loss() -> None:
    """`max_ttl` was raised while this client saw nobody but the node, and what that forgot lives
    for longer."""
    admission = met(3)
    admission.seen(1, flushed(1, 3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    for at in (10.0 + SPAN + 0.1, 1000.0):
        assert quarantined(admission.standing(1, at)) is None
    raised = marker_of(2, 3, wait_ttl=3000.0).text()
    admission.seen(2, identity_of(2, 3, marker=raised), 1000.0, asked_at=9.9)
    assert admission.outdated(2), "it was asked before the loss, whenever it was read"
    admission.seen(2, identity_of(2, 3, marker=raised), 1000.0)
    assert quarantined(admission.standing(1, 1000.0)) == pytest.approx(
        10.0 + quarantine_span(3000.0)
    )


def test_who_told_before_a_loss_is_asked_again_and_who_cannot_be_is_not() -> None:
    """Once for each loss; a node that failed is asked as any failed one is."""
    admission = met(3)
    assert not any(admission.outdated(node) for node in range(3))
    before = admission.changes
    admission.seen(1, flushed(1, 3), 10.0)
    assert admission.changes > before + 1
    assert [admission.outdated(node) for node in range(3)] == [True, False, True]
    admission.failed(2, SILENT)
    admission.seen(0, identity_of(0, 3), 10.0)
    assert not any(admission.outdated(node) for node in range(3))


def test_a_foreign_node_does_not_make_a_quarantine_longer() -> None:
    """A wrong address in the list, of a cluster with locks of a day; its `max_ttl` is not ours,
    nor is it written."""
    admission = met(3)
    for marker in (
        marker_of(2, 5, max_ttl=86400.0),
        marker_of(2, 3, cluster="green", max_ttl=86400.0),
    ):
        admission.seen(2, identity_of(2, 3, marker=marker.text()), 0.0)
        admission.seen(1, flushed(1, 3), 0.0)
        tell_again(admission, 0.0)
        assert quarantined(admission.standing(1, 0.0)) == pytest.approx(SPAN)
        assert written(admission.standing(1, 100.0).mark)[1].max_ttl == 60.0


def test_a_majority_that_forgot_votes_again_when_all_nodes_have_told() -> None:
    """No marker can come any more that states a longer max_ttl; the ones that are left, and what
    was seen, must do."""
    admission = met(5)
    for node in (0, 1, 2):
        admission.seen(node, flushed(node, 5), 10.0)
    admission.seen(3, identity_of(3, 5, marker=marker_of(3, 5, max_ttl=100.0).text()), 10.0)
    assert [quarantined(admission.standing(node, 10.0)) for node in (0, 1, 2)] == [
        pytest.approx(10.0 + 103.0)
    ] * 3
    admission.seen(4, identity_of(4, 5), 10.0)
    assert states(admission, 113.1) == [State.MARK] * 3 + [State.ADMITTED] * 2


def test_a_single_node_needs_no_others() -> None:
    """A plain lock's server that restarted waits for its own max_ttl."""
    admission = met(1)
    admission.seen(0, restarted(0, 1), 0.0)
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(SPAN)
    assert admission.standing(0, SPAN + 0.1).state is State.MARK


@pytest.mark.parametrize("who", ["another node", "the node itself", "a node that is gone"])
def test_the_longest_wait_ttl_that_any_marker_states_is_waited_for(who: str) -> None:
    """`wait_ttl` may have been raised on some nodes only, and what the node itself was told
    counts as well."""
    longer = {"wait_ttl": 300.0}
    admission = met(3, marker=longer if who == "the node itself" else None)
    if who != "the node itself":
        admission.seen(2, identity_of(2, 3, marker=marker_of(2, 3, **longer).text()), 0.0)
    if who == "a node that is gone":
        admission.failed(2, SILENT)
    admission.seen(1, flushed(1, 3), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + quarantine_span(300.0))


def test_a_node_without_a_marker_gets_what_the_others_say() -> None:
    """Their number, id, promises and the longest max_ttl and wait_ttl, but not their floor."""
    said = {"cluster": "blue", "durable": True, "never_replicas": True, "floor": 5, "max_ttl": 30.0}
    admission = client_of(3)
    for node in (0, 2):
        longer = {"max_ttl": 45.0, "wait_ttl": 90.0} if node == 2 else {}
        admission.seen(
            node, identity_of(node, 3, marker=marker_of(node, 3, **{**said, **longer}).text()), 0.0
        )
    admission.seen(1, flushed(1, 3, memory=memory_of(1, "b")), 0.0)
    expected, marker = written(admission.standing(1, 1000.0).mark)
    assert expected == blank_of(memory_of(1, "b"))
    promised = {**said, "max_ttl": 45.0, "wait_ttl": 90.0, "floor": us(1060.0), "since_us": us(0.0)}
    assert marker == marker_of(1, 3, memory=memory_of(1, "b"), **promised)


def test_a_node_without_a_marker_never_gets_that_of_a_foreign_node() -> None:
    """A wrong address in the list must not draw a good node into another cluster."""
    admission = met(5, marker={"cluster": "blue"})
    admission.seen(0, identity_of(0, 5, marker=marker_of(0, 3, cluster="green").text()), 0.0)
    admission.seen(4, flushed(4, 5), 0.0)
    tell_again(admission, 0.0)
    assert written(admission.standing(4, 1000.0).mark)[1].cluster == "blue"


def test_a_wrong_list_never_marks_a_good_node() -> None:
    """Three of five nodes were listed, and one of them was flushed: it is the five's, whatever
    the others are to us."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3), 0.0)
    for at in (0.0, 1000.0):
        assert "n1 had another cluster's" in refused(admission.standing(1, at))


def test_a_quarantined_node_is_refused_for_what_its_marker_says_first() -> None:
    """A restarted node of another cluster is no node of this one after its quarantine either."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, marker=marker_of(1, 5).text()), 0.0)
    assert "of 5 nodes" in refused(admission.standing(1, 1000.0))
