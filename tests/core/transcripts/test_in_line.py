"""The flow of an acquire as transcripts: whoever waits stands in a queue that the nodes keep."""

from __future__ import annotations

import pytest

from redlock.core.commands import Leave, Take
from redlock.core.events import TryFailed
from redlock.core.line import LOOK_MAX, WAITERS_MAX, Place
from redlock.errors import QueueFull
from tests.core.flows import Play, check, identity_of

LOCK_KEY = "redlock:r"

# Coming and going


def test_a_first_try_has_no_place_and_the_look_behind_it_enters() -> None:
    """A lock that is free costs one round trip and no place; one that is not is looked at at once,
    and the place goes with that look. Who goes says so, as long as the place may be known."""
    play = check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.010 3 busy ttl=3
        0.010 3 others
        0.020 1 2 busy ttl=3
            pause until 0.04
        0.030 cancel
            LEAVE place 1 -> 1 2 3
            Cancelled
    """)
    leaves = [request for request in play.sent if isinstance(request.command, Leave)]
    assert [request.not_after for request in leaves] == pytest.approx([0.04 + 1.0] * 3)


def test_who_is_told_takes_at_once_and_leaves_with_the_release() -> None:
    """No look in between: the node has looked. The release names the place, and so tells the
    next."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.020 1 2 busy ttl=3
            pause until 0.04
        0.030 3 busy
        0.030 3 others
        0.030 3 busy
        0.031 told 1
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 0.281
        0.040 1 2 granted
            held B:1024002 until 9.929, touched 1 2 3
        0.050 release
            FREE B:1024002 place 1 -> 1 2 3
            wait until 0.3
    """)


def test_a_message_that_comes_before_the_sleep_ends_it() -> None:
    """Told while the look was on its way: the pause is over before it begins."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.010 told 1
        0.020 1 2 busy
            pause until 0.04
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 0.27
    """)


def test_a_node_that_is_busy_is_asked_again_where_the_lock_was_said_to_be_free() -> None:
    """A release reaches one node after the other, and the one told first is faster: after 1, 2 and
    4 ms, and then the node has said it."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.010 3 others
        0.020 1 2 busy
            pause until 0.04
        0.020 3 busy
        0.030 told 1
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 0.28
        0.031 1 granted
        0.032 2 busy
            wait until 0.033
        0.033 tick
            TAKE B:1024002 place 1 -> 2
            wait until 0.28
        0.034 2 granted
            held B:1024002 until 9.928, touched 1 2 3
    """)
    check("""
        1 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.010 1 busy
            PEEK place 1 -> 1
            wait until 0.26
        0.010 1 busy
            pause until 0.03
        0.020 told 1
            TAKE B:1024002 place 1 -> 1
            wait until 0.27
        0.020 1 busy
            wait until 0.021
        0.021 tick
            TAKE B:1024002 place 1 -> 1
            wait until 0.27
        0.021 1 turn
            wait until 0.023
        0.023 tick
            TAKE B:1024002 place 1 -> 1
            wait until 0.27
        0.023 1 busy
            wait until 0.027
        0.027 tick
            TAKE B:1024002 place 1 -> 1
            wait until 0.27
        0.027 1 busy
            pause until 0.028
    """)
    play = check("""
        1 nodes
        0.000 acquire timeout=0.021
            TAKE A:1024000 place - -> 1
            wait until 0.021
        0.010 1 busy
            PEEK place 1 -> 1
        0.010 1 busy
            pause until 0.021
        0.020 told 1
            TAKE B:1024002 place 1 -> 1
            wait until 0.021
        0.0205 1 busy
        0.021 tick
            LEAVE place 1 -> 1
            LockContended: 0 of 1 nodes granted, 1 needed, after 0.021 s
              n1 is held by X:7... for 5 s more
    """)
    told = [record for record in play.records if isinstance(record, TryFailed)]
    assert "n1 is held by X:7" in told[-1].votes, "it was not silent, but asked once more"


def test_who_tries_in_vain_in_its_turn_tries_more_and_more_slowly() -> None:
    """However often it is told that the lock is free: a node that tells so and refuses would have
    it spin."""
    check("""
        1 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.000 1 busy
            PEEK place 1 -> 1
        0.000 1 free
            TAKE B:1024002 place 1 -> 1
        0.000 1 error
            FREE B:1024002 place ? -> 1
            LEAVE place 1 -> 1
            pause until 0.001
        0.000 told 1
        0.001 1 nothing
        0.001 1 freed
        0.001 tick
            TAKE C:1024004 place 1 -> 1
            wait until 0.251
        0.001 1 error
            FREE C:1024004 place ? -> 1
            LEAVE place 1 -> 1
            pause until 0.003
        0.003 told 1
        0.003 1 nothing
        0.003 1 freed
        0.003 tick
            TAKE D:1024006 place 1 -> 1
            wait until 0.253
        0.003 1 error
            FREE D:1024006 place ? -> 1
            LEAVE place 1 -> 1
            pause until 0.007
    """)


def test_a_lock_that_is_free_in_somebody_elses_turn_is_not_tried() -> None:
    """A try would only be refused, and split the vote of whose turn it is."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 turn
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.020 1 2 turn
            pause until 0.04
        0.020 3 turn
        0.020 3 others
        0.020 3 free
        0.040 tick
            PEEK place 1 -> 1 2 3
            wait until 0.29
        0.050 1 turn
        0.050 2 3 free
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 0.3
    """)


def test_looks_grow_rarer_and_end_with_the_lock() -> None:
    """Every 40 ms first, later a fifth of the time waited, at most 200 ms, all of it jittered; and
    at once when the ttl of the holder is over."""
    check("""
        1 nodes
        0.000 acquire timeout=50
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.000 1 busy
            PEEK place 1 -> 1
        0.000 1 busy
            pause until 0.02
        0.500 tick
            PEEK place 1 -> 1
            wait until 0.75
        0.500 1 busy
            pause until 0.55
        3.000 tick
            PEEK place 1 -> 1
            wait until 3.25
        3.000 1 busy ttl=0.05
            pause until 3.05
        9.000 tick
            PEEK place 1 -> 1
            wait until 9.25
        9.000 dice 1023
        9.000 1 busy
            pause until 9.1999
    """)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_who_gives_up_says_so_to_every_node(how: str) -> None:
    """Or the next one would wait until the place has expired. Also to a node that has no connection
    now, for as long as the place may be known there."""
    play = Play(3)
    play.acquire(timeout=0.1)
    for node in (0, 1):
        play.answer(node, "busy")
    play.dialling(2)
    asked = len(play.sent)
    if how == "cancel":
        play.cancel()
    else:
        play.now = 0.1
        play.tick()
    said = [
        f"{type(each.command).__name__} {each.command.args[0]} {each.node}"
        for each in list(play.sent)[asked:]
    ]
    assert said == [f"Leave P.1 {node}" for node in range(3)]
    assert play.cluster.lines.join(LOCK_KEY, 1, 0.0) is not None
    play.now = 1.5
    play.connected(2)
    assert not any(each.written and each.node == 2 for each in list(play.sent)[asked:])


def test_who_never_entered_has_nothing_to_leave() -> None:
    """No node knows the place yet."""
    play = check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 cancel
            FREE A:1024000 place ?, unattended -> 1 2 3
            Cancelled
    """)
    assert not any(isinstance(request.command, Leave) for request in play.sent)


# Of one coordinator


def test_only_the_first_of_a_coordinator_asks_the_nodes() -> None:
    """The second comes to a crowded lock: it does not even try. When the first one leaves it looks
    at once, and is told nothing by a node."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.020 acquire
            acquire: pause until 0.0205
        0.021 tick
            acquire: pause until 0.221
        0.021 3 others
        0.022 1 2 3 busy
            acquire: pause until 0.042
        0.030 told 1
            acquire: TAKE B:1024002 place 1 -> 1 2 3
            acquire: wait until 0.28
        0.040 1 2 granted
            acquire: held B:1024002 until 9.928, touched 1 2 3
            PEEK place 2 -> 1 2 3
            wait until 0.29
    """)


def test_who_stands_behind_its_own_looks_up_now_and_then() -> None:
    """And sees whether the first one still lives; the nodes hear nothing of that."""
    check("""
        1 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.000 1 busy
            PEEK place 1 -> 1
        0.000 acquire timeout=0.3
            acquire: pause until 0.0005
        0.001 tick
            acquire: pause until 0.201
        0.150 rung 2
            acquire: pause until 0.3
        0.160 rung 2
    """)


def test_who_gives_up_behind_its_own_says_who_holds_it() -> None:
    """It asked nobody until then: one look, which enters nothing, for what the error tells."""
    check("""
        1 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.000 1 busy
            PEEK place 1 -> 1
        0.000 1 busy
            pause until 0.02
        0.010 acquire timeout=0.1
            acquire: pause until 0.0105
        0.015 tick
            acquire: pause until 0.11
        0.110 tick
            acquire: PEEK place 1 -> 1
            acquire: wait until 0.36
            acquire: PEEK -> 1
            acquire: wait until 0.36
        0.120 1 busy ttl=3
            acquire: pause until 0.14
        0.120 1 busy ttl=3
            acquire: LockContended: 0 of 1 nodes granted, 1 needed, after 0.11 s
              n1 is held by X:7... for 3 s more
    """)


def test_who_leaves_while_the_next_one_asks_wakes_it_all_the_same() -> None:
    """In another thread, between the answer that it is not first and its sleep."""
    play = Play(1)
    first = play.cluster.lines.join(LOCK_KEY, 1, 0.0)
    assert first is not None
    is_first = play.cluster.lines.is_first

    def leaves_behind(place: Place, now: float) -> bool:
        answer = is_first(place, now)
        if first in place.line.places:
            first.due_at = now
            play.cluster.lines.leave(first)
        return answer

    play.cluster.lines.is_first = leaves_behind  # type: ignore[method-assign]
    course = play.acquire()
    play.now = course.wait.until
    play.tick()
    assert not course.wait.pause and course.wait.until < play.now + 2 * LOOK_MAX
    assert len(play.sent) == 1, "it looks"


def test_a_first_one_that_stalls_is_passed_over() -> None:
    """Its thread died at a bad moment, or is stopped: a second behind its time the next one asks.
    If it comes back after all, it asks by itself."""
    play = Play(1)
    stalled = play.cluster.lines.join(LOCK_KEY, 1, 0.0)
    assert stalled is not None
    course = play.acquire()
    while not play.sent:
        assert play.now < 1.2
        play.now = course.wait.until
        play.tick()
    assert play.now > 1.0
    assert play.cluster.lines.is_first(stalled, play.now)
    waiting = play.cluster.lines.join(LOCK_KEY, 1 << 60, play.now)
    assert waiting is not None and not play.cluster.lines.is_first(waiting, play.now)


# Full


def test_too_many_waiters_of_one_coordinator_are_an_error_of_their_own() -> None:
    """Nobody is asked for one more."""
    play = Play(3)
    for _ in range(WAITERS_MAX):
        play.cluster.lines.join(LOCK_KEY, 1, 0.0)
    course = play.acquire(timeout=1.0)
    play.now = 0.1
    assert isinstance(course.error, QueueFull), course.error
    assert "as many wait for this lock as may" in str(course.error)
    assert not play.sent


def test_a_queue_that_is_full_on_a_majority_is_an_error() -> None:
    """A place that one node alone could not take is none the less in line."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.010 3 others
        0.020 1 full
        0.020 2 busy
            pause until 0.04
        0.020 3 busy
        0.040 tick
            PEEK place 1 -> 1 2 3
            wait until 0.29
        0.040 1 2 full
            LEAVE place 1 -> 1 2 3
            QueueFull: 0 of 3 nodes granted, 2 needed, after 0 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
    """)


# Who does not wait, and who comes late


def test_a_single_try_respects_the_queue_and_enters_nothing() -> None:
    """It is refused where others wait, and leaves nothing behind."""
    play = check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 turn
            FREE A:1024000 place ? -> 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 is free, and it is another's turn
              n2 is free, and it is another's turn
              n3 was not waited for
        0.020 acquire once looking
            PEEK -> 1 2 3
            wait until 0.27
    """)
    assert play.cluster.lines.join(LOCK_KEY, 1, 0.0) is not None


def test_who_stands_back_has_no_place() -> None:
    """It cannot stand in front of those it lets pass, and takes the lock past all who wait."""
    play = Play(1)
    play.acquire(stand_back=0.5)
    play.answer(0, "busy")
    assert [request.command.args[2] for request in play.sent] == [""]
    play.now = play.courses[0].wait.until
    play.tick()
    assert [request.command.args for request in play.sent][1:] == [()]
    play.answer(0, "free")
    play.now += 1.0
    play.tick()
    play.answer(0, "free")
    taken = [request.command for request in play.sent if isinstance(request.command, Take)]
    assert [take.args[2] for take in taken] == ["", ""]


def test_who_comes_to_a_crowded_lock_gives_way_and_looks_first() -> None:
    """Most come from its release: whoever that told is to be faster. A second later nothing is left
    of it; and who tries once, or knows no queue, tries at once."""
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.000 1 2 3 busy
            FREE A:1024000 place ? -> 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
        0.900 acquire once
            TAKE B:1024002 place - -> 1 2 3
            wait until 1.15
        0.900 3 others
        0.900 1 2 granted
            held B:1024002 until 10.798, touched 1 2 3
        0.990 acquire
            pause until 0.9905
        0.991 tick
            PEEK place 1 -> 1 2 3
            wait until 1.241
        0.991 cancel
            LEAVE place 1 -> 1 2 3
            Cancelled
        1.100 acquire
            TAKE C:1024003 place - -> 1 2 3
            wait until 1.35
    """)
    check("""
        1 nodes barging
        0.000 acquire once
            TAKE A:1024000 -> 1
            wait until 0.25
        0.000 1 busy
            LockContended: 0 of 1 nodes granted, 1 needed, after 0 s
              n1 is held by X:7... for 5 s more
        0.100 acquire
            TAKE B:1024002 -> 1
            wait until 0.35
        0.100 1 busy
            pause until 0.10625
    """)


def test_a_deaf_coordinator_says_so() -> None:
    """Nodes would take it for gone, as nobody listens; its places live by their lease alone."""
    check("""
        1 nodes deaf
        0.000 acquire
            TAKE A:1024000 place - -> 1
            wait until 0.25
        0.000 1 busy
            PEEK deaf place 1 -> 1
    """)


def test_a_ticket_is_the_time_of_coming_by_the_middle_of_the_nodes_clocks() -> None:
    """Ours may be wrong, and one node's as well. A waiter keeps the ticket of its call, whatever it
    tried before."""
    play = Play(3)
    for node, clock in enumerate((7.0, 1000.0, 9e9)):
        play.admission.seen(node, identity_of(node, 3, clock=clock), 0.0)
    play.now = 2.0
    play.acquire()
    play.now = 2.1
    for node in (0, 1):
        play.answer(node, "busy")
    looks = [request.command.args for request in play.sent][-3:]
    assert looks == [("1002000000 P.1",)] * 3
    assert Play(3, met=False).cluster.ticket(5.0) == 1_024_000, "until one is known, by ours"
