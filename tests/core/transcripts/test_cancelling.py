"""The flow of an acquire as transcripts: whoever goes away leaves nothing behind."""

from __future__ import annotations

import pytest

from redlock.core.commands import Canvass, Free, Leave
from redlock.core.effects import NEVER, Cancelled
from redlock.core.events import LeaseGranted, LeaseReleasing
from redlock.core.lease import Status
from redlock.core.release import abandon
from tests.core.flows import Play, check, replay
from tests.core.transcripts.judged import check_given_back, check_nothing_follows, owners


def test_a_cancelled_try_is_released_by_its_last_requests() -> None:
    """Every node that may have executed a TAKE, with the script's text, because nobody will read
    an answer."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 granted
        0.020 cancel
            FREE A:1024000 place ?, unattended -> 1 2 3
            Cancelled
    """)


def test_a_cancelled_second_round_is_released_with_its_larger_token() -> None:
    """The poison has to be past both."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.26
        0.020 cancel
            FREE A:1024501 place ?, unattended -> 1 2 3
            Cancelled
    """)


def test_a_cancel_while_a_lost_try_is_explained_releases_once_more() -> None:
    """The releases are on their way; they are idempotent, and these carry the text."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 place ? -> 3 4 5
        0.030 cancel
            FREE A:1024000 place ?, unattended -> 3 4 5
            Cancelled
    """)


def test_a_cancel_during_a_pause_or_a_look_has_nothing_to_release() -> None:
    """The last try was given back when it failed."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.011 cancel
            LEAVE place 1 -> 1 2 3
            Cancelled
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.030 cancel
            LEAVE place 1 -> 1 2 3
            Cancelled
    """)


def test_a_cancel_never_reaches_nodes_that_were_never_written_to() -> None:
    """Node 3 is being dialled: its TAKE is withdrawn."""
    check("""
        3 nodes
        0.000 3 dialling
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 (3)
            wait until 0.25
        0.010 cancel
            FREE A:1024000 place ?, unattended -> 1 2
            Cancelled
        0.020 3 connected
            3 is never sent TAKE A:1024000 place -
    """)


STORY = """
    5 nodes
    0.000 acquire
    0.000 5 dialling
    0.010 1 granted
    0.010 2 behind fence=1024100
    0.010 3 behind fence=1024200
    0.020 4 busy
    0.020 5 lost
    0.030 1 lost
    0.040 1 granted
    0.040 2 busy
    0.050 3 4 error
    0.060 5 connected
    0.070 1 2 3 4 freed
    0.090 1 free fence=1024300
    0.090 2 3 free fence=1024300
    0.100 1 granted
    0.110 2 lost
    0.120 4 free
    0.130 4 granted
"""


def test_an_interrupt_is_answered_like_a_cancel() -> None:
    """Ctrl-C lands in the flow, wherever it waits: the releases go out, and it goes on its way."""
    play = Play(3)
    course = play.acquire()
    wait = course.flow.throw(KeyboardInterrupt())
    assert wait.until == NEVER
    assert [(request.node, type(request.command)) for request in wait.send] == [
        (node, Free) for node in range(3)
    ]
    with pytest.raises(KeyboardInterrupt):
        next(course.flow)


def test_a_flow_that_is_dropped_goes_quietly() -> None:
    """Nobody would write what it asks for: it must not ask."""
    course = Play(3).acquire()
    course.flow.close()
    with pytest.raises(StopIteration):
        next(course.flow)


def test_a_lease_whose_caller_went_away_is_given_back_unattended() -> None:
    """The cancel came between the winning vote and the caller: every node that may hold it, and
    never twice."""
    play = Play(3)
    play.dialling(2)
    play.acquire()
    for node in (0, 1):
        play.answer(node, "granted")
    lease = play.holding
    assert lease is not None
    releases = abandon(play.cluster, lease, play.now)
    assert [request.node for request in releases] == [0, 1]
    assert all(
        request.command.words()[0] == "EVAL" and request.not_after == float("inf")
        for request in releases
    )
    assert (lease.status, lease.held(play.now)) == (Status.RELEASED, False)
    # Whoever listens was told of the grant, and must be told of its end: a history would show it
    # beside the next holder.
    told = [
        (type(record), record.at)
        for record in play.records
        if isinstance(record, LeaseGranted | LeaseReleasing)
    ]
    assert told == [(LeaseGranted, play.now), (LeaseReleasing, play.now)]
    assert play.release().value is False
    abandon(play.cluster, lease, play.now)
    assert len([record for record in play.records if isinstance(record, LeaseReleasing)]) == 1


@pytest.mark.parametrize("step", range(2, len(STORY.strip().splitlines()) + 1))
def test_a_cancel_at_any_wait_leaves_nothing_behind(step: int) -> None:
    """The same story, cut after every line: whatever may have executed a TAKE has its release by
    then, or gets it last."""
    play, _ = replay(STORY, until=step)
    course = play.courses[0]
    assert not course.done
    before = len(play.sent)
    play.cancel()
    assert isinstance(course.error, Cancelled)
    for owner in owners(play):
        check_given_back(play, owner)
    last = list(play.sent)[before:]
    releases = [each for each in last if isinstance(each.command, Free)]
    assert all(isinstance(each.command, Free) and each.command.unattended for each in releases)
    leaves = last[len(releases) :]
    entered = any(isinstance(each.command, Canvass) for each in play.sent)
    assert [(type(each.command), each.node) for each in leaves] == [
        (Leave, node) for node in range(5 if entered else 0)
    ]
    ends = [wait for wait in course.waits if wait.until == NEVER][-bool(releases) - entered :]
    assert [each for wait in ends for each in wait.send] == last
    check_nothing_follows(play)
