"""What the flows tell observers, as a transcript."""

from __future__ import annotations

from redlock.core.events import LeaseGranted, LeaseReleasing, LeaseRenewed, TryFailed, TryStarted
from tests.core.flows import check


def test_every_step_is_told_in_order() -> None:
    """The history that a checker judges: tries, grant, renewal, release, each with owner, token
    and instants."""
    play = check("""
        3 nodes
        0.000 3 dead
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 (3)
            wait until 0.25
        0.010 1 2 error
            FREE A:1024000 place ? -> 1 2
            PEEK place 1 -> 1 2 (3)
            wait until 0.26
        0.010 1 2 nothing
        0.030 1 2 free
            TAKE B:1024002 place 1 -> 1 2 (3)
            wait until 0.28
        0.040 1 2 behind fence=1025000
            TAKE B:1025001 place 1 -> 1 2 (3)
            wait until 0.29
        0.050 1 2 granted
            held B:1025001 until 9.938, touched 1 2
        1.000 extend
            EXTEND by 10 B:1025001 -> 1 2 (3)
            wait until 1.25
        1.010 1 2 granted
            done
        2.000 release
            FREE B:1025001 place 1 -> 1 2 (3)
            wait until 2.25
    """)
    votes = "0 of 3 nodes granted, 2 needed, after 0.01 s; n1 said OOM; n3 refused the connection"
    assert play.records == [
        TryStarted(0.0, "r", "A", 1024000, 1),
        TryFailed(0.01, "r", "A", 1024000, votes),
        TryStarted(0.03, "r", "B", 1024002, 1),
        TryStarted(0.04, "r", "B", 1025001, 2),
        LeaseGranted(0.05, "r", "B", 1025001, 0.04, 0.04 + 9.898),
        LeaseRenewed(1.01, "r", "B", 1025001, 1.0 + 9.898),
        LeaseReleasing(2.0, "r", "B", 1025001),
    ]
