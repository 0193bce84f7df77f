"""The flow of `verify` as transcripts: it asks for one grant, and moves nothing."""

from __future__ import annotations

from tests.core.flows import check


def test_verify_asks_for_this_very_grant_and_moves_no_deadline() -> None:
    """A majority that still holds it: no newer grant existed when it began."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        0.020 4 5 connected
            4 is never sent TAKE A:1024000 place -
            5 is never sent TAKE A:1024000 place -
        1.000 verify
            VERIFY A:1024000 -> 1 2 3 4 5
            wait until 1.25
        1.100 1 2 3 granted
            done
        1.100 status
            held, valid until 9.898
    """)


def test_verify_takes_a_missing_lock_for_no_evidence() -> None:
    """It is not put back, and not counted; somebody newer, or somebody else, is a denial."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 verify
            VERIFY A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 2 behind fence=1024000
            QuorumUnavailable: 0 of 3 nodes confirmed, 2 needed, after 0.01 s
              n1 refused the token: its fence is at 1024000
              n2 refused the token: its fence is at 1024000
              n3 was not waited for
        1.010 status
            held, valid until 9.898
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 verify
            VERIFY A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 behind fence=1024001
        1.010 2 busy
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: a majority of the nodes
              does not hold it any more: 0 of 3 nodes confirmed, 2 needed, after 0.01 s
              n1 refused the token: its fence is at 1024001
              n2 is held by X:7... for 5 s more: stop what it guarded
        1.010 status
            LOST, valid until 9.898
    """)
