"""Admission, rule 3: what is a loss, and the quarantine that follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from redlock.core.admission import State
from redlock.core.identity import Identity, Memory
from redlock.core.quarantine import quarantine_span
from tests.core.admission.clients import (
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
    renamed,
    restarted,
    states,
    tell_again,
    us,
    written,
)
from tests.core.flows import identity_of

LOSSES = {
    "restarted": (restarted(1, 3), "it restarted"),
    "promoted": (
        identity_of(1, 3, memory=renamed(1), promoted_at="77"),
        "it was a replica, and was promoted",
    ),
    "renamed": (
        identity_of(1, 3, memory=renamed(1)),
        "its replication id changed: it was promoted, or a replica or a backup came or left",
    ),
    "copied": (identity_of(1, 3, memory=renamed(1), marker=marker_of(0, 3).text()), "it restarted"),
    "flushed": (flushed(1, 3), "its marker is gone"),
    "replaced": (flushed(1, 3, memory=memory_of(1, "b")), "its marker is gone"),
    "renamed, and another client put a blank": (
        flushed(1, 3, memory=renamed(1), marker=blank_of(renamed(1))),
        "its replication id changed: it was promoted, or a replica or a backup came or left",
    ),
    "promoted, and another client put a blank": (
        flushed(1, 3, memory=renamed(1), marker=blank_of(renamed(1)), promoted_at="77"),
        "it was a replica, and was promoted",
    ),
    "restored": (
        restarted(1, 3, marker=marker_of(1, 3, memory=memory_of(1, "a")).text()),
        "it restarted",
    ),
    "evicted": (identity_of(1, 3, evicted=1), "it evicted keys"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_node_that_forgot_does_not_vote_until_its_locks_have_ended(loss: str) -> None:
    """On the client's clock, from when it saw the loss; then it is marked as the memory that it
    is, with a floor."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    identity, how = LOSSES[loss]
    admission.seen(1, identity, 100.0)
    standing = admission.standing(1, 100.0)
    assert standing.state is State.QUARANTINED
    assert standing.fault is not None
    assert (
        standing.fault.detail
        == f"forgot its locks ({how}) and is in quarantine: it votes again in 62.2 s"
    )
    tell_again(admission, 100.0)
    for at in (100.0, 130.0, 100.0 + SPAN - 0.001):
        assert quarantined(obey(admission, 1, at)) == pytest.approx(100.0 + SPAN)
    at = 100.0 + SPAN + 0.001
    told = admission.identity(1)
    assert told is not None
    expected, marker = written(admission.standing(1, at).mark)
    assert expected == told.marker
    assert marker == marker_of(
        1,
        3,
        memory=identity.memory,
        evicted=identity.evicted,
        floor=us(at + 60.0),
        since_us=us(0.0),
    ), "the floor is by the others' clocks"
    assert obey(admission, 1, at).state is State.ADMITTED
    assert states(admission, 100.0)[::2] == [State.ADMITTED] * 2


@pytest.mark.parametrize(
    "loss", ["restarted", "promoted", "renamed", "copied", "restored", "evicted"]
)
def test_a_loss_is_made_known_by_a_blank_where_a_marker_still_stands(loss: str) -> None:
    """Others may not have found it yet; its promises stand on the other nodes, which were asked
    since."""
    admission = met(3)
    identity, _ = LOSSES[loss]
    admission.seen(1, identity, 100.0)
    assert admission.standing(1, 100.0).mark is None, "before the others have told"
    tell_again(admission, 100.0)
    mark = admission.standing(1, 100.0).mark
    assert mark is not None
    assert mark.is_blank
    assert (mark.expected, mark.args[1]) == (identity.marker, identity.memory.replication_id)
    assert int(str(mark.args[3])) == us(100.0), "by the latest clock of the others"


def test_a_blank_over_the_only_marker_there_is_would_lose_its_promises() -> None:
    """One node alone, or one whose others have all forgotten: there the marker stays while it is
    waited on."""
    for nodes in (1, 3):
        admission = client_of(nodes)
        admission.seen(
            0, restarted(0, nodes, marker=marker_of(0, nodes, max_ttl=600.0).text()), 0.0
        )
        for node in range(1, nodes):
            admission.seen(node, flushed(node, nodes, marker=blank_of(memory_of(node))), 0.0)
        # One node alone, or a majority forgot: then a client that never knew it may count from its
        # restart.
        assert quarantined(admission.standing(0, 0.0)) == pytest.approx(
            -1.0 + quarantine_span(600.0)
        )


def test_after_its_quarantine_a_node_is_admitted_by_the_marker_that_was_written() -> None:
    """By whom does not matter: the loser of the compare-and-set adopts what was written since it
    saw the loss."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, clock=WALL + 1.0), 1.0)
    quarantined(admission.standing(1, 1.0))
    theirs = marker_of(1, 3, memory=memory_of(1, "b"), floor=1234, since_us=us(9.0))
    admission.seen(1, restarted(1, 3, marker=theirs.text(), clock=WALL + 10.0), 10.0)
    standing = admission.standing(1, 10.0)
    assert standing.state is State.ADMITTED
    assert standing.marker == theirs.text()


def test_a_marker_from_before_the_loss_does_not_end_it() -> None:
    """Another database was swapped in, and is swapped out again: nobody knows what was forgotten
    with it."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL + 5.0), 5.0)
    admission.seen(1, identity_of(1, 3, clock=WALL + 10.0), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)
    tell_again(admission, 10.0)
    standing = obey(admission, 1, 10.0)
    assert quarantined(standing) is not None
    assert admission.identity(1) == identity_of(1, 3, clock=WALL + 10.0), (
        "only we know, and may be wrong: nobody else waits"
    )
    expected, marker = written(admission.standing(1, 10.0 + SPAN + 0.1).mark)
    assert expected == marker_of(1, 3).text()
    assert marker.floor == us(10.0 + SPAN + 60.1)


def test_a_marker_in_another_memory_does_not_end_a_loss() -> None:
    """Since when it stands, the clock of another server says: it may be an older one, and its
    clock ahead of the lost one's."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL), 0.0)
    other = marker_of(1, 3, memory=memory_of(1, "b"), since_us=us(30.0), floor=5)
    admission.seen(
        1, identity_of(1, 3, memory=other.memory, marker=other.text(), clock=WALL + 50.0), 50.0
    )
    assert quarantined(admission.standing(1, 50.0)) == pytest.approx(50.0 + SPAN)


def test_a_quarantine_is_not_begun_anew_by_looking_again() -> None:
    """Nor by a new connection to the same memory with the same marker, nor by a failure in
    between."""
    admission = met(3)
    for at in (0.0, 10.0, 20.0):
        admission.seen(1, flushed(1, 3, uptime=1000.0 + at), at)
        assert quarantined(admission.standing(1, at)) == pytest.approx(SPAN)
        admission.failed(1, SILENT)
    admission.seen(1, flushed(1, 3), 70.0)
    assert admission.standing(1, 70.0).state is State.MARK


@pytest.mark.parametrize(
    "second",
    [
        restarted(1, 3, memory=memory_of(1, "c")),
        restarted(1, 3, memory=Memory("run-2b", "repl-2x")),
        flushed(1, 3, memory=memory_of(1, "b")),
        flushed(1, 3, memory=memory_of(1, "b"), marker=blank_of(memory_of(1, "b"), nonce="other")),
        flushed(1, 3, memory=memory_of(1, "c")),
        restarted(1, 3, evicted=1),
    ],
)
def test_a_second_loss_begins_the_quarantine_anew(second: Identity) -> None:
    """Whatever it granted in between, or somebody else's marker allowed, is forgotten as well;
    its uptime does not help."""
    admission = met(3)
    admission.seen(1, restarted(1, 3), 1.0)
    quarantined(admission.standing(1, 1.0))
    admission.seen(1, second, 50.0)
    assert quarantined(admission.standing(1, 50.0)) == pytest.approx(50.0 + SPAN)


def test_a_loss_after_being_admitted_again_is_a_new_one() -> None:
    """The same run loses its marker twice: the first loss does not count for the second."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, clock=WALL), 0.0)
    again = marker_of(1, 3, since_us=us(62.9), floor=5)
    admission.seen(1, identity_of(1, 3, marker=again.text(), clock=WALL + 63.0), 63.0)
    assert admission.standing(1, 63.0).state is State.ADMITTED
    admission.seen(1, flushed(1, 3, clock=WALL + 64.0), 64.0)
    assert quarantined(admission.standing(1, 64.0)) == pytest.approx(64.0 + SPAN)


def test_after_the_restart_of_a_majority_a_new_client_counts_from_it() -> None:
    """No blank is put over the last markers that keep the promises, so clients that live for a
    second go by the uptime."""
    admission = client_of(3)
    admission.seen(0, restarted(0, 3, uptime=30.0, clock=WALL + 100.0), 100.0)
    admission.seen(1, restarted(1, 3, uptime=20.0, clock=WALL + 100.0), 100.0)
    assert quarantined(admission.standing(1, 100.0)) == pytest.approx(100.0 + SPAN), (
        "before all have told"
    )
    admission.seen(2, restarted(2, 3, uptime=10.0, clock=WALL + 100.0), 100.0)
    for node, uptime in enumerate((30.0, 20.0, 10.0)):
        assert quarantined(admission.standing(node, 100.0)) == pytest.approx(100.0 - uptime + SPAN)


def test_a_durable_node_is_given_an_older_copy_in_a_run_that_was_marked() -> None:
    """The run was known by its own marker: no restart brought the text of the run before back,
    so the data are others."""
    admission = met(3, marker={"durable": True})
    copy = marker_of(1, 3, durable=True, memory=memory_of(1, "before"))
    admission.seen(1, identity_of(1, 3, memory=renamed(1), marker=copy.text()), 10.0)
    assert quarantined(admission.standing(1, 10.0)) == pytest.approx(10.0 + SPAN)


def test_a_client_that_never_saw_a_restarted_node_counts_from_when_it_looks() -> None:
    """An older copy may have come in long after the restart, and brought the text of the run
    before: nobody can tell."""
    assert quarantined(fresh_client_sees(restarted(1, 3, uptime=1e6), at=100.0)) == pytest.approx(
        100.0 + SPAN
    )


@pytest.mark.parametrize(
    "identity",
    [
        identity_of(1, 3, memory=renamed(1), uptime=1e6),
        flushed(1, 3, uptime=1e6, marker=""),
        flushed(1, 3, memory=memory_of(1, "b"), marker="", uptime=1e6),
        restarted(1, 3, uptime=-3598.0),
        restarted(1, 3, uptime=0.0),
        restarted(1, 3, uptime=1e6, promoted_at="77"),
        restarted(1, 3, uptime=1e6, marker=marker_of(0, 3).text()),
    ],
    ids=["renamed", "flushed", "replaced", "negative", "zero", "promoted", "copied"],
)
def test_uptime_shortens_nothing_where_it_tells_nothing(identity: Identity) -> None:
    """A flush leaves no trace in it, a clock that steps makes it negative, and a promoted
    replica's is another's."""
    seen = replace(identity, clock=WALL + 100.0)
    assert quarantined(fresh_client_sees(seen, at=100.0)) == pytest.approx(100.0 + SPAN)


def test_uptime_shortens_nothing_for_a_client_that_had_seen_the_node() -> None:
    """Its own clock knows better: the node's may have stepped."""
    admission = met(3)
    assert admission.standing(1, 1.0).state is State.ADMITTED
    admission.seen(1, restarted(1, 3, uptime=7202.0), 2.0)
    assert quarantined(admission.standing(1, 2.0)) == pytest.approx(2.0 + SPAN)


def test_clients_that_live_for_a_second_count_from_when_the_blank_was_put_there() -> None:
    """The first of them puts it, with the latest clock of all; those that come later count by
    the earliest."""
    blank = blank_of(memory_of(1), put_at=10.0)
    waiting = flushed(1, 3, marker=blank, clock=WALL + 30.0)
    assert quarantined(fresh_client_sees(waiting, at=30.0)) == pytest.approx(10.0 + SPAN)
    late = flushed(1, 3, marker=blank, clock=WALL + 73.0)
    assert fresh_client_sees(late, at=73.0).state is State.ADMITTED


@pytest.mark.parametrize("who", ["its own", "another's"])
def test_one_clock_that_steps_ends_no_quarantine(who: str) -> None:
    """The node's own after its boot, or another's: the earliest of all counts."""
    blank = blank_of(memory_of(1), put_at=10.0)
    own, others = (9999.0, 20.0) if who == "its own" else (20.0, 9999.0)
    waiting = flushed(1, 3, marker=blank, clock=WALL + own)
    assert quarantined(fresh_client_sees(waiting, at=20.0, clock=WALL + others)) == pytest.approx(
        10.0 + SPAN
    )


def test_a_blank_that_came_back_with_a_snapshot_says_nothing_of_this_memory() -> None:
    """It was put there long ago, and the node was marked, used and lost since."""
    old = flushed(
        1,
        3,
        memory=memory_of(1, "b"),
        marker=blank_of(memory_of(1), put_at=-1000.0),
        clock=WALL + 30.0,
    )
    assert quarantined(fresh_client_sees(old, at=30.0)) == pytest.approx(30.0 + SPAN)


def test_a_client_that_knew_the_node_counts_by_its_own_clock_alone() -> None:
    """However long ago the blank says that it was put."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, marker=blank_of(memory_of(1), put_at=-1000.0)), 5.0)
    tell_again(admission, 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_blank_that_was_long_on_its_way_begins_the_wait() -> None:
    """The nothing that it was written over may be another one than was met: marked, used and
    lost in between."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, marker=""), 0.0)
    tell_again(admission, 0.0)
    mark = admission.standing(1, 0.0).mark
    assert mark is not None and mark.is_blank
    admission.marked(1, mark, finished(mark, 5.0), 5.0, asked_at=0.0)
    tell_again(admission, 5.0)
    assert quarantined(admission.standing(1, 5.0)) == pytest.approx(5.0 + SPAN)


def test_a_floor_is_by_the_clocks_of_the_others() -> None:
    """The node itself may just have booted with a clock of last year; a floor that it had is
    never lowered."""
    admission = met(3, marker={"floor": 42})
    admission.seen(1, flushed(1, 3, clock=WALL - 9e5), 0.0)
    admission.seen(
        0, identity_of(0, 3, marker=marker_of(0, 3, floor=42).text(), clock=WALL + 2.0), 0.0
    )
    _, marker = written(admission.standing(1, 100.0).mark)
    assert marker.floor == us(100.0 + 60.0 + 2.0)
    admission = met(3, marker={"floor": us(1e6)})
    admission.seen(1, flushed(1, 3), 0.0)
    tell_again(admission, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(1e6)


def test_a_clock_that_is_far_ahead_makes_no_floor_that_a_majority_did_not_allow() -> None:
    """Who granted a token with this node had two of the other four with it: the second latest of
    their clocks has to do."""
    admission = met(5)
    admission.seen(1, restarted(1, 5), 0.0)
    for node, clock in ((0, WALL + 86400.0), (2, WALL + 3.0), (3, WALL + 2.0), (4, WALL - 50.0)):
        admission.seen(node, identity_of(node, 5, clock=clock), 0.0)
    obey(admission, 1, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(100.0 + 60.0 + 3.0)
    admission.failed(4, SILENT)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(86400.0 + 100.0 + 60.0), (
        "it may have been the other one"
    )


@pytest.mark.parametrize(
    ("own", "counts"), [(-20.0, -15.0), (1.0, 1.0), (20.0, 20.0), (3600.0, 45.0)]
)
def test_where_the_others_cannot_all_be_asked_the_nodes_own_clock_counts_as_well(
    own: float, counts: float
) -> None:
    """A token was granted by this node and the one that is down, and the third one's clock is 15
    s behind: at most a minute."""
    admission = met(3)
    admission.seen(1, restarted(1, 3, clock=WALL + own), 0.0)
    admission.seen(2, identity_of(2, 3, clock=WALL - 15.0), 0.0)
    admission.failed(0, SILENT)
    obey(admission, 1, 0.0)
    assert written(admission.standing(1, 100.0).mark)[1].floor == us(100.0 + 60.0 + counts)


def test_a_single_node_floors_by_its_own_clock() -> None:
    """There is no other."""
    admission = met(1)
    admission.seen(0, flushed(0, 1), 0.0)
    assert written(admission.standing(0, 100.0).mark)[1].floor == us(160.0)
