"""Admission, rule 4: an older memory under the same name."""

from __future__ import annotations

from typing import Any

import pytest

from redlock.core.admission import State
from redlock.core.identity import Memory
from tests.core.admission.clients import (
    SILENT,
    SPAN,
    WALL,
    blank_of,
    client_of,
    finished,
    flushed,
    marker_of,
    memory_of,
    met,
    obey,
    quarantined,
    refused,
    restarted,
    states,
    tell_again,
    us,
)
from tests.core.flows import identity_of


def test_an_address_that_moves_to_a_standby_and_back_is_a_loss() -> None:
    """Each server's marker names itself; what was granted on the newer one the older never knew."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=us(60.0), since_us=us(0.0))
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED, (
        "it was marked after a wait, as a restarted one is"
    )
    admission.seen(1, identity_of(1, 3), 20.0)
    standing = admission.standing(1, 20.0)
    assert quarantined(standing) == pytest.approx(20.0 + SPAN)
    assert standing.fault is not None
    assert "an older marker came back under its name" in standing.fault.detail
    tell_again(admission, 20.0)
    blank = admission.standing(1, 20.0).mark
    assert blank is not None
    assert blank.is_blank, "so that clients which never met the newer one wait as well"


@pytest.mark.parametrize("ours", [True, False], ids=["marked by us", "marked by another client"])
def test_an_older_memory_that_came_back_votes_again_after_its_wait(ours: bool) -> None:
    """Whoever's marker ends the wait, from then on that memory is the present one, and the other
    one is the older."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=us(60.0), since_us=us(0.0))
    standby = identity_of(1, 3, memory=newer.memory, marker=newer.text())
    admission.seen(1, standby, 10.0)
    admission.seen(1, identity_of(1, 3, clock=WALL + 20.0), 20.0)
    tell_again(admission, 20.0)
    assert quarantined(obey(admission, 1, 20.0)) == pytest.approx(20.0 + SPAN)
    over = 20.0 + SPAN + 1.0
    if ours:
        obey(admission, 1, over)
    else:
        marker = marker_of(1, 3, floor=us(over + 60.0), since_us=us(over - 1.0))
        admission.seen(1, identity_of(1, 3, marker=marker.text(), clock=WALL + over), over)
    assert admission.standing(1, over).state is State.ADMITTED
    admission.seen(1, standby, over + 1.0)
    assert quarantined(admission.standing(1, over + 1.0)) == pytest.approx(over + 1.0 + SPAN)


def test_a_memory_that_was_only_seen_is_newer_all_the_same() -> None:
    """Somebody else may have marked it, and taken locks there."""
    admission = met(3)
    admission.seen(1, flushed(1, 3, memory=memory_of(1, "b"), marker=""), 10.0)
    admission.seen(1, identity_of(1, 3), 11.0)
    assert quarantined(admission.standing(1, 11.0)) == pytest.approx(11.0 + SPAN)


def test_an_older_memory_is_a_loss_though_no_quarantine_lay_between() -> None:
    """A durable node went on under a new name, with the same floor. Its name leads back: no
    promise tells the two apart."""
    admission = met(3, marker={"durable": True})
    before = marker_of(1, 3, durable=True)
    newer = marker_of(1, 3, durable=True, memory=memory_of(1, "b"), since_us=us(9.0))
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=before.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.MARK, "it restarted with its data"
    admission.seen(1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED
    admission.seen(1, identity_of(1, 3, marker=before.text()), 20.0)
    assert quarantined(admission.standing(1, 20.0)) == pytest.approx(20.0 + SPAN)


@pytest.mark.parametrize(
    "older",
    [{"floor": 4}, {"max_ttl": 50.0, "wait_ttl": 70.0}, {"wait_ttl": 65.0}, {"cluster": "green"}],
    ids=["floor", "max_ttl", "wait_ttl", "cluster"],
)
def test_a_marker_that_is_no_successor_is_a_loss(older: dict[str, Any]) -> None:
    """The same memory, as with SWAPDB twice: what was known of the name can only have grown."""
    known = {"floor": 5, "wait_ttl": 70.0}
    admission = met(5, marker=known)
    admission.seen(1, identity_of(1, 5, marker=marker_of(1, 5, **{**known, **older}).text()), 10.0)
    if "cluster" in older:
        assert "belongs to cluster" in refused(admission.standing(1, 10.0))
    else:
        assert quarantined(admission.standing(1, 10.0)) is not None


@pytest.mark.parametrize(
    "newer", [{"floor": 6}, {"max_ttl": 65.0}, {"wait_ttl": 80.0}, {"never_replicas": True}]
)
def test_a_marker_that_was_raised_is_a_successor(newer: dict[str, Any]) -> None:
    """By `redlock init`, or after a wait."""
    known = {"floor": 5, "wait_ttl": 70.0}
    admission = met(3, marker=known)
    admission.seen(1, identity_of(1, 3, marker=marker_of(1, 3, **{**known, **newer}).text()), 10.0)
    assert admission.standing(1, 10.0).state is State.ADMITTED


def test_two_servers_that_swap_their_addresses_vote_where_they_are() -> None:
    """The set of memories is the same, and each names itself."""
    admission = met(3)
    admission.failed(0, SILENT)
    admission.failed(1, SILENT)
    for node, other in ((0, 1), (1, 0)):
        admission.seen(node, identity_of(other, 3), 10.0)
    assert states(admission, 10.0) == [State.ADMITTED] * 3


def test_servers_that_swap_their_addresses_and_swap_them_back_are_no_older_ones() -> None:
    """As a name service mixes them up for a second: whatever floors they have, and in whatever
    order they are met."""
    admission = client_of(3)
    servers = [
        identity_of(node, 3, marker=marker_of(node, 3, floor=100 - node).text())
        for node in range(3)
    ]
    for at, order in enumerate([(0, 1, 2), (1, 0, 2), (0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 1, 2)]):
        for node in sorted(range(3), key=lambda node: (node + at) % 3):
            admission.seen(node, servers[order[node]], float(at))
        assert states(admission, float(at)) == [State.ADMITTED] * 3


def test_a_server_that_is_in_the_list_no_more_is_an_older_one_under_any_name() -> None:
    """The others have moved up, and it knows nothing of what they granted since."""
    admission = met(3)
    admission.seen(0, identity_of(1, 3), 10.0)
    stranger = marker_of(1, 3, memory=memory_of(1, "b"))
    admission.seen(1, identity_of(1, 3, memory=stranger.memory, marker=stranger.text()), 10.0)
    assert states(admission, 10.0) == [State.ADMITTED] * 3
    admission.seen(0, identity_of(0, 3), 20.0)
    assert quarantined(admission.standing(0, 20.0)) == pytest.approx(20.0 + SPAN)


def test_a_name_that_led_elsewhere_for_a_moment_costs_its_client_alone() -> None:
    """Nobody else met that server. The client waits, as it might have been the newer one; a
    blank would make everybody wait."""
    admission = met(3)
    admission.seen(
        0, identity_of(0, 3, memory=Memory("stray", "stray"), marker="", policy="allkeys-lru"), 10.0
    )
    admission.seen(0, identity_of(0, 3), 11.0)
    assert quarantined(admission.standing(0, 11.0)) == pytest.approx(11.0 + SPAN)
    tell_again(admission, 12.0)
    assert admission.standing(0, 12.0).mark is None


@pytest.mark.parametrize("idle", [False, True], ids=["same memory", "restarted meanwhile"])
def test_an_idle_client_takes_a_cluster_that_was_replaced_for_what_it_is(idle: bool) -> None:
    """`redlock init --replace` may lower what was promised, as no lock lives. Nothing was
    forgotten, and nothing is put back."""
    admission = met(3, marker={"max_ttl": 600.0, "since_us": us(0.0)})
    for node in range(3):
        memory = memory_of(node, "b" if idle else "")
        new = marker_of(
            node,
            3,
            memory=memory,
            max_ttl=2.0,
            cluster="other",
            floor=us(160.0),
            since_us=us(100.0),
        )
        admission.seen(node, identity_of(node, 3, memory=memory, marker=new.text()), 200.0)
    assert states(admission, 200.0) == [State.ADMITTED] * 3
    assert admission.max_ttl() == 2.0


def test_an_answer_that_waited_unread_tells_nothing_new_after_a_fault_either() -> None:
    """A dial that was refused says nothing of when another connection's answer was written."""
    admission = met(3)
    raised = marker_of(1, 3, max_ttl=70.0).text()
    admission.seen(1, identity_of(1, 3, marker=raised), 10.0, asked_at=9.9)
    admission.failed(1, SILENT)
    admission.seen(1, identity_of(1, 3), 20.0, asked_at=5.0)
    admission.seen(1, identity_of(1, 3, marker=raised), 21.0, asked_at=20.9)
    assert admission.standing(1, 21.0).state is State.ADMITTED


def test_a_marker_whose_answer_waited_unread_ends_no_wait() -> None:
    """It was written at the end of the wait, and lost again by a second restart, of which
    another connection was told."""
    admission, over = met(3), 10.0 + SPAN
    blank = blank_of(memory_of(1, "b"), put_at=10.0)
    admission.seen(1, restarted(1, 3, marker=blank), 10.0)
    tell_again(admission, 11.0)
    mark = admission.standing(1, over).mark
    assert mark is not None and not mark.is_blank
    admission.seen(
        1, restarted(1, 3, memory=memory_of(1, "c"), marker=blank), over + 2.0, asked_at=over + 1.0
    )
    admission.marked(1, mark, finished(mark, over), over + 3.0, asked_at=over)
    tell_again(admission, over + 3.0)
    assert quarantined(obey(admission, 1, over + 3.0)) == over + 3.0 + SPAN


def test_an_answer_that_waited_unread_does_not_bring_an_older_memory_back() -> None:
    """It was asked for before another connection was told of what came after it."""
    admission = met(3)
    newer = marker_of(1, 3, memory=memory_of(1, "b"), floor=9)
    admission.seen(
        1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 10.0, asked_at=9.9
    )
    admission.seen(1, identity_of(1, 3), 20.0, asked_at=5.0)
    mark = marker_of(1, 3).write(identity_of(1, 3, marker="x"))
    admission.marked(1, mark, marker_of(1, 3).text(), 20.0, asked_at=5.0)
    assert admission.standing(1, 20.0).marker == newer.text()
    admission.failed(1, SILENT)
    admission.seen(
        1, identity_of(1, 3, memory=newer.memory, marker=newer.text()), 30.0, asked_at=29.0
    )
    assert admission.standing(1, 30.0).state is State.ADMITTED
