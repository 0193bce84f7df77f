"""The flow of a release as transcripts: where it goes, and who confirms it."""

from __future__ import annotations

import pytest

from redlock.core.effects import NEVER
from redlock.errors import LeaseLost, LeaseReleased
from tests.core.flows import Play, check


def test_a_release_is_confirmed_by_a_majority() -> None:
    """True at the q-th node that holds nothing of it any more; the others stay owed."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3 4 5
        1.000 release
            FREE A:1024000 place - -> 1 2 3 4 5
            wait until 1.25
        1.010 4 5 busy
        1.010 4 5 others
        1.020 1 freed
        1.030 2 nothing
        1.040 3 freed
            True
        1.050 status
            RELEASED, valid until 9.898
    """)


def test_a_node_that_was_never_written_to_needs_no_release() -> None:
    """It holds nothing: it counts as confirmed."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 1 freed
            True
    """)


def test_a_release_that_no_majority_confirms_is_false() -> None:
    """Not an error, and still over for its holder."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 1 freed
        1.250 tick
            False
        1.250 status
            RELEASED, valid until 9.898
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 1 freed
        1.020 2 3 others
            False
    """)


def test_a_release_stays_owed_to_nodes_that_cannot_be_written_to() -> None:
    """Decided, and yet node 3 gets it when it is connected again: a release is never withdrawn."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 3 dialling
        1.000 release
            FREE A:1024000 place - -> 1 2 (3)
            wait until 1.25
        1.010 1 2 freed
            True
        9.000 3 connected
        9.000 3 freed
    """)


def test_a_release_that_was_lost_with_its_connection_is_sent_again() -> None:
    """Asked for again at once; after that the connection's owner owes it."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 1 2 lost
            FREE A:1024000 place - -> 1
            FREE A:1024000 place - -> 2
        1.020 1 2 nothing
            True
    """)


def test_an_expired_lease_is_released_all_the_same_and_false() -> None:
    """A node may hold the lock for longer than the lease was valid."""
    check("""
        3 nodes ttl=1
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.988, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.05
        1.010 1 2 freed
            False
    """)


def test_a_lost_lease_is_released_all_the_same_and_false() -> None:
    """Where the nodes still hold something of it; it stays lost."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 2 busy
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: a majority of the nodes
              does not hold it any more: 0 of 3 nodes confirmed, 2 needed, after 0.01 s
              n1, n2: is held by X:7... for 5 s more: stop what it guarded
        1.020 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.27
        1.030 3 granted
        1.030 1 2 others
            False
        1.040 status
            LOST, valid until 9.898
    """)


def test_a_second_release_is_false_and_sends_nothing() -> None:
    """Once is enough: it stays owed."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 release
            release: False
        1.020 1 2 freed
            True
        1.030 release
            False
    """)


def test_a_proposal_after_our_own_release_is_past_its_poison() -> None:
    """Otherwise every second acquire of a busy client would need two rounds."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 place - -> 1 2 3
            wait until 1.25
        1.010 1 2 3 freed
            True
        1.010 acquire
            TAKE B:1024002 place - -> 1 2 3
            wait until 1.26
    """)


@pytest.mark.parametrize("lost", [False, True], ids=["held", "lost before, as by a close"])
def test_a_release_revokes_the_extensions_under_way(lost: bool) -> None:
    """Whoever lost the script may not put the lock back behind its release: neither what was
    written nor what waits is sent."""
    play = Play(3)
    play.acquire()
    for node in range(3):
        play.answer(node, "granted")
    play.dialling(2)
    extension = play.extend()
    asked = [request for request in play.sent if getattr(request.command, "mode", "") == "extend"]
    assert play.holding is not None
    if lost:
        play.holding.lose("this Redlock was closed")
    play.release()
    assert len(asked) == 3
    assert all(request.not_after == NEVER for request in asked)
    play.fail(0, "lost")
    assert extension.done and isinstance(extension.error, LeaseLost if lost else LeaseReleased)
    assert play.holding.rounds == ()
