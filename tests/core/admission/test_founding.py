"""Admission, rule 6: a new cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from redlock.core.admission import Admission, State
from redlock.core.identity import Blank, Identity, Marker
from redlock.core.quarantine import quarantine_span
from tests.core.admission.clients import (
    NONCE,
    SILENT,
    SPAN,
    WALL,
    blank_of,
    client_of,
    finished,
    flushed,
    fresh_client_sees,
    marker_of,
    memory_of,
    met,
    obey,
    quarantined,
    refused,
    states,
    tell_again,
    us,
    written,
)
from tests.core.flows import identity_of


def unmarked(nodes: int, *, uptime: float = 1000.0, at: float = 0.0, **settings: Any) -> Admission:
    """A client whose nodes have all answered at *at*, each with its blank."""
    admission = client_of(nodes, **settings)
    for node in range(nodes):
        admission.seen(
            node,
            flushed(node, nodes, uptime=uptime, marker=blank_of(memory_of(node), put_at=at)),
            at,
        )
    return admission


def confirmed(admission: Admission, at: float) -> Admission:
    """Each was asked once more after the last blank was met, as the links do."""
    for _ in range(3):
        tell_again(admission, at)
    return admission


def found(admission: Admission, at: float) -> list[Marker]:
    """What a founder writes, in its order."""
    order: list[Marker] = []
    while True:
        marks = [
            (node, standing.mark)
            for node in range(len(admission.names))
            if (standing := admission.standing(node, at)).mark
        ]
        if not marks:
            return order
        for node, mark in marks:
            assert mark is not None
            order.append(written(mark)[1])
            admission.marked(node, mark, finished(mark, at), at)


def test_a_new_cluster_is_marked_at_once_when_all_its_nodes_are_up_long_enough() -> None:
    """All asked, none marked, and none can have forgotten a lock that is still valid."""
    admission = confirmed(unmarked(3), 0.1)
    assert states(admission, 0.1) == [State.MARK, State.UNKNOWN, State.UNKNOWN]
    assert found(admission, 0.1) == [marker_of(node, 3, since_us=us(0.0)) for node in range(3)]
    assert states(admission, 0.1) == [State.ADMITTED] * 3


def test_the_node_of_the_smallest_memory_decides_who_founds() -> None:
    """Two founders with different ideas: the loser takes over what the winner promised there,
    for the other nodes too."""
    admission = confirmed(unmarked(3, ttl=10.0), 0.1)
    mark = admission.standing(0, 0.1).mark
    assert mark is not None
    theirs = marker_of(0, 3, max_ttl=300.0, since_us=us(0.1))
    admission.marked(0, mark, theirs.text(), 0.1)
    assert [marker.max_ttl for marker in found(admission, 0.1)] == [300.0, 300.0]
    assert states(admission, 0.2) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 300.0


def test_founding_marks_all_nodes_though_the_first_was_seen_marked_by_somebody_else() -> None:
    """Once the first is marked, the others look as if they had forgotten; who saw all of them
    blank knows better."""
    admission = confirmed(unmarked(3), 0.1)
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(0.1)).text()), 0.2)
    assert states(admission, 0.2) == [State.UNKNOWN, State.MARK, State.MARK]
    found(admission, 0.2)
    assert states(admission, 0.3) == [State.ADMITTED] * 3


def test_a_founder_does_not_mark_again_what_is_flushed_later() -> None:
    """It was the founder once: a node whose marker it saw standing, and which is gone now,
    forgot like any other."""
    admission = confirmed(unmarked(3), 0.1)
    found(admission, 0.1)
    assert states(admission, 0.2) == [State.ADMITTED] * 3
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=100.0)), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN)


@pytest.mark.parametrize(
    "later",
    [
        flushed(1, 3, marker=blank_of(memory_of(1), put_at=0.15)),
        flushed(1, 3, memory=memory_of(1, "b")),
    ],
    ids=["another blank", "another memory"],
)
def test_a_founder_marks_only_the_very_blank_that_all_had_at_one_instant(later: Identity) -> None:
    """Others may have marked it, taken locks there and flushed it, or it restarted, between
    founding and marking."""
    admission = confirmed(unmarked(3), 0.1)
    mark = admission.standing(0, 0.1).mark
    assert mark is not None
    admission.marked(0, mark, finished(mark, 0.1), 0.1)
    admission.seen(1, later, 0.2)
    assert quarantined(obey(admission, 1, 0.2)) == pytest.approx(0.2 + SPAN)


def test_who_sees_a_founding_half_done_takes_part_as_soon_as_it_is_done() -> None:
    """It met nodes with and without a marker, and takes the latter for a loss; they were marked
    since, by their own clocks."""
    admission = client_of(3)
    admission.seen(
        0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(0.9)).text(), clock=WALL + 1.0), 1.0
    )
    for node in (1, 2):
        admission.seen(node, flushed(node, 3, clock=WALL + 1.0), 1.0)
    assert states(admission, 1.0) == [State.UNKNOWN, State.QUARANTINED, State.QUARANTINED]
    for node in (1, 2):
        marked = marker_of(node, 3, since_us=us(1.001)).text()
        admission.seen(node, identity_of(node, 3, marker=marked, clock=WALL + 1.1), 1.1)
    assert states(admission, 1.1) == [State.ADMITTED] * 3


def test_a_young_cluster_waits_and_says_how_long() -> None:
    """It may be an old one that restarted as a whole. The youngest node counts; a negative
    uptime is that of a fresh one."""
    admission = unmarked(3, uptime=1000.0)
    admission.seen(1, flushed(1, 3, uptime=12.2), 0.0)
    standing = admission.standing(0, 10.0)
    assert quarantined(standing) == pytest.approx(50.0)
    assert standing.fault is not None
    assert (
        standing.fault.detail == "has no marker yet, as in a new cluster: it grants locks in 40.0 s"
    )
    assert "init" not in standing.fault.detail
    assert states(admission, 49.9) == [State.QUARANTINED] * 3
    again = flushed(
        2, 3, uptime=-3598.0, marker=blank_of(memory_of(2), put_at=20.0), clock=WALL + 20.0
    )
    admission.seen(2, again, 20.0)
    assert quarantined(admission.standing(0, 50.0)) == pytest.approx(20.0 + SPAN)
    confirmed(admission, 20.0 + SPAN)
    assert len(found(admission, 20.0 + SPAN + 0.001)) == 3


def test_clients_that_live_for_a_second_found_a_young_cluster_by_its_blanks() -> None:
    """By the last of them that was put there, and the earliest clock of all."""
    admission = client_of(3)
    for node in range(3):
        blank = blank_of(memory_of(node), put_at=float(node))
        admission.seen(
            node, flushed(node, 3, uptime=1.0, marker=blank, clock=WALL + 64.0 + node), 64.0
        )
    assert quarantined(admission.standing(0, 64.0)) == pytest.approx(2.0 + SPAN)
    confirmed(admission, 64.3)
    assert len(found(admission, 64.3)) == 3


@pytest.mark.parametrize(
    ("settings", "longest"),
    [({"max_ttl": 20.0}, 20.0), ({}, 60.0), ({"ttl": 300.0}, 300.0), ({"ttl": 30.0}, 60.0)],
)
def test_a_new_cluster_waits_for_the_max_ttl_it_will_have(
    settings: dict[str, Any], longest: float
) -> None:
    """The caller's, or a minute, or its ttl if that is longer: a whole cluster that forgot had
    locks of up to that."""
    admission = confirmed(unmarked(3, uptime=1.0, **settings), 0.0)
    until = quarantine_span(longest) - 1.0
    assert quarantined(admission.standing(0, 1.0)) == pytest.approx(until)
    assert {marker.max_ttl for marker in found(admission, until + 0.01)} == {longest}


def test_a_durable_new_cluster_is_marked_at_once() -> None:
    """It has its data, and there are no markers among it."""
    admission = confirmed(unmarked(3, uptime=1.0, durable=True), 0.1)
    assert [marker.durable for marker in found(admission, 0.1)] == [True] * 3


def replaced(
    put_at: float, wait_ttl: float, *, nodes: Sequence[int] = (0, 1, 2), **settings: Any
) -> Admission:
    """A client that met no node before `init --replace` broke off: it had given its blanks to
    *nodes*, others have clients'."""
    admission = unmarked(3, uptime=1e6, at=put_at, **settings)
    for node in nodes:
        blank = blank_of(memory_of(node), put_at=put_at, nonce=f"{round(wait_ttl * 1000)}:{NONCE}")
        admission.seen(
            node, flushed(node, 3, uptime=1e6, marker=blank, clock=WALL + put_at), put_at
        )
    return confirmed(admission, put_at + 0.1)


@pytest.mark.parametrize("nodes", [(0, 1, 2), (2,)])
@pytest.mark.parametrize(("wait_ttl", "longest"), [(20.0, 60.0), (300.0, 300.0)])
@pytest.mark.parametrize("durable", [None, True])
def test_a_cluster_whose_replacement_broke_off_is_no_new_one(
    nodes: Sequence[int], wait_ttl: float, longest: float, durable: bool | None
) -> None:
    """Its nodes are up for long, and may have granted locks until the blanks came: those are
    waited for, and their tokens."""
    admission = replaced(5.0, wait_ttl, nodes=nodes, durable=durable)
    until = 5.0 + quarantine_span(longest)
    standing = admission.standing(0, until - 1.5)
    assert quarantined(standing) == pytest.approx(until)
    assert standing.fault is not None
    assert standing.fault.detail == (
        "has no marker, as `redlock init --replace` has not ended: run it again, or it grants locks in 1.5 s"
    )
    markers = found(admission, until + 0.01)
    assert [marker.floor for marker in markers] == [
        pytest.approx(us(until + 0.01 + 60.0), abs=1000)
    ] * 3
    assert states(admission, until + 0.01) == [State.ADMITTED] * 3


def test_a_blank_says_that_others_are_of_a_replacement() -> None:
    """Who restarts in between, or is flushed, gets a client's blank; all of them may, one after
    the other."""
    admission = replaced(5.0, 300.0)
    admission.seen(1, flushed(1, 3, marker="", clock=WALL + 6.0), 6.0)
    mark = admission.standing(1, 6.0).mark
    assert mark is not None
    put = Blank.parse(finished(mark, 6.0))
    assert put is not None
    assert put.wait_ttl == 300.0


def test_a_flushed_node_among_marked_ones_is_not_a_new_cluster() -> None:
    """It looks like one, with its long uptime: A holds {1,2}, 2 is flushed, and a fresh client
    would win {2,3}."""
    assert quarantined(fresh_client_sees(flushed(1, 3, uptime=1e6))) == pytest.approx(SPAN)


def test_one_marked_node_is_enough_to_be_an_old_cluster() -> None:
    """The four unmarked ones have forgotten then, however long they are up."""
    admission = unmarked(5, uptime=1e6)
    admission.seen(3, identity_of(3, 5), 0.0)
    for at in (0.0, SPAN - 0.001):
        assert [state for node, state in enumerate(states(admission, at)) if node != 3] == [
            State.QUARANTINED
        ] * 4


@pytest.mark.parametrize("why", ["refused the connection", "was never asked", "loading", "slave"])
def test_a_cluster_is_founded_only_by_all_its_nodes(why: str) -> None:
    """With one node never marked, one flush and a partition made two clusters: the others may be
    the marked majority."""
    admission = client_of(3)
    for node in (0, 1):
        admission.seen(node, flushed(node, 3), 0.0)
    if why == "refused the connection":
        admission.failed(2, SILENT)
    elif why in ("loading", "slave"):
        changes = {"loading": True} if why == "loading" else {"role": "slave"}
        admission.seen(2, flushed(2, 3, **changes), 0.0)
    confirmed(admission, 1.0)
    standing = admission.standing(0, 1000.0)
    assert quarantined(standing) is None
    assert standing.fault is not None
    help_of = {"loading": "n3 is LOADING its data", "slave": "n3 is a slave, not a master"}
    asked = "n3 cannot be asked: start it, or run `redlock init`"
    assert (
        standing.fault.detail == f"has no marker: the cluster is new and {help_of.get(why, asked)}"
    )
    assert admission.out_of_reach(1000.0) is None


def test_a_twin_founds_nothing() -> None:
    """A node that is listed twice is no majority of anything, and the list is wrong."""
    admission = unmarked(5)
    admission.seen(4, flushed(1, 5), 0.0)
    assert "is the same server as" in refused(confirmed(admission, 1.0).standing(4, 1.0))
    assert admission.problem() is not None
    assert all(
        standing.mark is None for node in range(5) if (standing := admission.standing(node, 1000.0))
    )


def test_a_foreign_node_founds_nothing() -> None:
    """Our list is wrong, or the cluster is not new."""
    admission = unmarked(3)
    admission.seen(2, identity_of(2, 3, marker="nonsense"), 0.0)
    assert refused(confirmed(admission, 1.0).standing(0, 1000.0)).startswith(
        "has no marker, and n3 had another cluster's"
    )


def test_a_client_that_had_seen_a_marker_founds_nothing() -> None:
    """All nodes were flushed under it: they forgot, however long they are up, and are marked as
    they were."""
    admission = met(3, marker={"cluster": "blue", "max_ttl": 30.0})
    assert states(admission, 1.0) == [State.ADMITTED] * 3
    for node in range(3):
        admission.seen(node, flushed(node, 3, uptime=1e6), 2.0)
    tell_again(admission, 2.0)
    for at in (2.0, 2.0 + quarantine_span(30.0) - 0.001):
        assert states(admission, at) == [State.QUARANTINED] * 3
    expected, marker = written(admission.standing(1, 1000.0).mark)
    assert expected == blank_of(memory_of(1))
    assert (marker.cluster, marker.max_ttl) == ("blue", 30.0)
    assert marker.floor > 0


def test_what_nodes_told_before_the_last_of_them_was_met_founds_nothing() -> None:
    """Somebody else founded the cluster, holds {1,2}, and 2 was flushed: its new blank meets
    what 1 and 3 told long ago."""
    admission = confirmed(unmarked(3), 0.1)
    assert admission.standing(0, 0.1).state is State.MARK
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=5.0)), 5.0)
    assert admission.standing(0, 5.0).state is State.UNKNOWN
    assert [admission.outdated(node) for node in range(3)] == [True] * 3
    admission.seen(0, identity_of(0, 3, marker=marker_of(0, 3, since_us=us(1.0)).text()), 5.1)
    assert quarantined(admission.standing(1, 5.1)) == pytest.approx(5.1 + SPAN)


def test_a_question_that_went_out_before_the_last_blank_was_met_confirms_nothing() -> None:
    """Its answer may be from before that node was used."""
    admission = client_of(2)
    admission.seen(0, flushed(0, 2), 0.0)
    asked, as_of = 0.9, admission.changes
    admission.seen(1, flushed(1, 2), 1.0)
    admission.seen(0, flushed(0, 2), 2.1, asked_at=asked, as_of=as_of)
    admission.seen(1, flushed(1, 2), 2.1)
    assert states(admission, 2.1) == [State.UNKNOWN] * 2
    assert admission.outdated(0)
    assert len(found(confirmed(admission, 2.2), 2.2)) == 2


@pytest.mark.parametrize("others", ["marked", "new"])
@pytest.mark.parametrize("stands", ["", "redlock1 blank 1234", blank_of(memory_of(7))])
def test_a_node_without_a_marker_gets_a_blank_first(others: str, stands: str) -> None:
    """Nothing is equal to nothing: a marker is written only where that blank stands, and so where
    nothing was lost since.

    A blank of the former format, or one that came with a copy of another node, is none.
    """
    admission = met(3) if others == "marked" else unmarked(3)
    admission.seen(1, flushed(1, 3, marker=stands), 1.0)
    mark = admission.standing(1, 1.0).mark
    assert mark is not None
    assert mark.is_blank
    assert mark.expected == stands
    assert finished(mark, 1.0) == f"redlock2 blank {us(1.0)} {us(1.0)} repl-2 {NONCE}"


def test_an_unfit_or_foreign_node_gets_no_blank() -> None:
    """It is not ours to write to."""
    admission = met(3, marker={"nodes": 5})
    admission.seen(1, flushed(1, 3, marker=""), 0.0)
    admission.seen(2, flushed(2, 3, marker="", role="slave"), 0.0)
    assert [admission.standing(node, 1.0).mark for node in range(3)] == [None] * 3
