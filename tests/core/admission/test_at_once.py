"""Admission: who votes without a wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from redlock.core.admission import State
from tests.core.admission.clients import (
    PATIENCE,
    SILENT,
    SPAN,
    client_of,
    flushed,
    marker_of,
    memory_of,
    met,
    obey,
    quarantined,
    renamed,
    restarted,
    states,
    us,
    written,
)
from tests.core.flows import identity_of

# Admitted at once


def test_a_node_whose_marker_names_its_memory_is_admitted_at_once() -> None:
    """Whatever its uptime; the standing carries the marker that every vote must show, and the
    memory that it is of."""
    admission = met(3)
    admission.seen(1, identity_of(1, 3, uptime=-3598.0), 0.0)
    standing = admission.standing(1, 0.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == marker_of(1, 3).text()
    assert standing.memory == memory_of(1)
    assert standing.mark is None


def test_nothing_is_known_of_a_node_before_all_were_asked() -> None:
    """Which cluster id is common, only all nodes together can tell; but a silent one is not
    waited for for ever."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3), 0.1)
    assert states(admission, PATIENCE - 0.01) == [State.UNKNOWN] * 3
    assert states(admission, PATIENCE) == [State.ADMITTED, State.ADMITTED, State.UNKNOWN]


def test_a_node_that_failed_counts_as_asked() -> None:
    """All answered or failed: nothing is left to wait for."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, identity_of(node, 3), 0.1)
    admission.failed(2, SILENT)
    assert states(admission, 0.1) == [State.ADMITTED, State.ADMITTED, State.REFUSED]
    assert admission.standing(2, 0.1).fault == SILENT


def test_a_failure_is_forgotten_when_the_node_answers() -> None:
    """The latest counts."""
    admission = met(3)
    admission.failed(1, SILENT)
    assert admission.standing(1, 1.0).state is State.REFUSED
    admission.seen(1, identity_of(1, 3), 2.0)
    assert admission.standing(1, 2.0).state is State.ADMITTED


@pytest.mark.parametrize(("nodes", "needed"), [(1, 1), (3, 2), (5, 3)])
def test_nobody_votes_before_a_majority_has_shown_a_marker(nodes: int, needed: int) -> None:
    """While a cluster is founded: should its first node forget then, all would look new again,
    and be founded anew."""
    admission = client_of(nodes)
    for node in range(needed):
        for other in range(node, nodes):
            admission.failed(other, SILENT)
        if node:
            standing = admission.standing(0, 1.0)
            assert standing.state is State.UNKNOWN
            assert standing.fault is not None
            assert (
                standing.fault.detail
                == "is not asked before a majority of the nodes has shown a marker"
            )
        admission.seen(node, identity_of(node, nodes), 1.0)
    assert admission.standing(0, 1.0).state is State.ADMITTED
    for node in range(1, nodes):
        admission.failed(node, SILENT)
    assert admission.standing(0, 1.0).state is State.ADMITTED, "once shown is enough"


def test_asking_how_a_node_stands_changes_nothing() -> None:
    """However often, and at whatever instant: only what is told does."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 10.0)
    before = admission.changes
    first = [str(admission.standing(node, 20.0)) for node in range(3)]
    for at in (0.0, 1e6, 20.0):
        states(admission, at)
    assert [str(admission.standing(node, 20.0)) for node in range(3)] == first
    assert admission.changes == before


# What is promised is no loss (rule 2)


def test_a_durable_node_gets_a_marker_for_its_new_run_at_once() -> None:
    """It has its data: by compare-and-set from the marker it has, with the floor that it had."""
    said = {"durable": True, "floor": 99, "max_ttl": 30.0, "cluster": "blue"}
    admission = met(3, marker=said)
    old = marker_of(1, 3, **said)
    admission.seen(1, restarted(1, 3, marker=old.text()), 5.0)
    assert written(admission.standing(1, 5.0).mark) == (
        old.text(),
        replace(old, memory=memory_of(1, "b")),
    )
    assert obey(admission, 1, 5.0).state is State.ADMITTED


@pytest.mark.parametrize("promised_at", ["1234"])
def test_a_durable_cluster_does_not_trust_a_promoted_replica(promised_at: str) -> None:
    """What it remembers came by asynchronous replication."""
    admission = met(3, marker={"durable": True})
    old = marker_of(1, 3, durable=True).text()
    admission.seen(1, restarted(1, 3, marker=old, promoted_at=promised_at, uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_durable_node_with_the_marker_of_another_one_has_a_copy_and_not_its_data() -> None:
    """It was made a replica, promoted and restarted; the server forgot that, and the copy names
    the node it came from."""
    admission = met(3, marker={"durable": True})
    copy = marker_of(0, 3, durable=True).text()
    admission.seen(1, restarted(1, 3, marker=copy, uptime=5000.0), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3, marker=marker_of(node, 3, durable=True).text()), 0.0)
    fresh.seen(1, restarted(1, 3, marker=copy, uptime=5000.0), 0.0)
    assert quarantined(obey(fresh, 1, 1.0)) is not None


def test_a_copy_of_a_durable_node_is_known_while_that_node_is_down() -> None:
    """A standby of a node that died is put behind another one's name: what the dead node told
    before still tells the copy."""
    admission = met(3, marker={"durable": True})
    admission.failed(0, SILENT)
    admission.seen(
        1, restarted(1, 3, marker=marker_of(0, 3, durable=True).text(), uptime=5000.0), 5.0
    )
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_durable_node_without_a_marker_has_forgotten() -> None:
    """It declared that a marked node has its data; this one is empty."""
    admission = met(3, marker={"durable": True})
    admission.seen(1, flushed(1, 3), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_new_replication_id_costs_nothing_where_no_node_is_ever_a_replica() -> None:
    """A backup came: same run, same data, and the marker is brought up to date by
    compare-and-set; on all nodes at once."""
    admission = met(3, marker={"never_replicas": True, "floor": 7})
    for node in range(3):
        old = marker_of(node, 3, never_replicas=True, floor=7)
        admission.seen(node, identity_of(node, 3, memory=renamed(node), marker=old.text()), 5.0)
        assert written(admission.standing(node, 5.0).mark) == (
            old.text(),
            replace(old, memory=renamed(node)),
        )
    for node in range(3):
        assert obey(admission, node, 5.0).state is State.ADMITTED


@pytest.mark.parametrize(
    "changes",
    [{"promoted_at": "1234"}, {"memory": memory_of(1, "b")}, {"evicted": 1}],
    ids=["promoted", "restarted", "evicted"],
)
def test_never_replicas_promises_nothing_else(changes: dict[str, Any]) -> None:
    """A node that was promoted all the same, that restarted or that evicted keys has forgotten."""
    admission = met(3, marker={"never_replicas": True})
    old = marker_of(1, 3, never_replicas=True).text()
    admission.seen(1, identity_of(1, 3, **{"memory": renamed(1), "marker": old, **changes}), 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_counter_that_was_reset_is_written_down() -> None:
    """CONFIG RESETSTAT: else as many keys again could be evicted, and nobody would see it."""
    admission = met(3, marker={"evicted": 5})
    stands = marker_of(1, 3, evicted=5)
    admission.seen(1, identity_of(1, 3, marker=stands.text()), 5.0)
    assert written(admission.standing(1, 5.0).mark)[1] == replace(stands, evicted=0)
    assert obey(admission, 1, 5.0).state is State.ADMITTED


@pytest.mark.parametrize(("run_id", "promoted_at"), [("run-2", "-1"), ("run-2:77", "77")])
def test_a_marker_of_the_former_format_is_brought_up_to_date_at_once(
    run_id: str, promoted_at: str
) -> None:
    """What it promised goes on; it named the run, and the promotion in it."""
    admission = met(3)
    old = f"redlock1 {run_id} 3 60000 0 123 -"
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3), 0.0)
    fresh.seen(1, identity_of(1, 3, marker=old, promoted_at=promoted_at), 0.0)
    assert written(fresh.standing(1, 0.0).mark) == (
        old,
        marker_of(1, 3, floor=123, since_us=us(0.0)),
    )
    assert obey(fresh, 1, 0.0).state is State.ADMITTED
    admission.seen(1, identity_of(1, 3, marker=old, promoted_at=promoted_at), 1.0)
    assert quarantined(admission.standing(1, 1.0)) is not None, (
        "who knew today's format does not go back"
    )


@pytest.mark.parametrize("run_id", ["run-2", "run-2:78", "run-1"])
def test_a_marker_of_the_former_format_that_names_another_run_is_a_loss(run_id: str) -> None:
    """As it was then."""
    fresh = client_of(3)
    for node in (0, 2):
        fresh.seen(node, identity_of(node, 3), 0.0)
    old = f"redlock1 {run_id} 3 60000 0 123 -"
    fresh.seen(1, identity_of(1, 3, marker=old, promoted_at="77"), 0.0)
    assert quarantined(obey(fresh, 1, 0.0)) is not None
