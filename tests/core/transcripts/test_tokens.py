"""The flow of one try as transcripts: tokens that are too small, and the rounds after the first."""

from __future__ import annotations

import pytest

from tests.core.flows import check


def test_a_second_round_keeps_the_owner_and_outbids_every_fence() -> None:
    """Too small on a majority: the same owner with a token past the largest fence, to all nodes."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.020 2 behind fence=1024500
        0.020 3 behind fence=1024600
        0.025 4 5 busy
            TAKE A:1024601 place - -> 1 2 3 4 5
            wait until 0.275
        0.030 1 2 3 granted
            held A:1024601 until 9.923, touched 1 2 3 4 5
    """)


def test_one_grant_begins_a_second_round_where_a_node_asked_for_a_larger_token() -> None:
    """One busy, one behind, one granting: a larger token would win, and that is known at once,
    not at the end of the time."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 busy
        0.020 2 behind fence=1024500
        0.030 3 granted
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.28
        0.040 1 busy
        0.050 2 3 granted
            held A:1024501 until 9.928, touched 1 2 3
    """)


def test_a_node_that_only_the_first_round_reached_is_owed_the_release() -> None:
    """Node 1 granted the first token and is away in the second round: it holds the lock, and
    must be told that it is free."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.015 1 dialling
        0.020 2 3 behind fence=1024500
        0.025 4 behind fence=1024500
            TAKE A:1024501 place - -> (1) 2 3 4 5
            wait until 0.275
        0.030 2 3 4 granted
            held A:1024501 until 9.923, touched 1 2 3 4 5
        0.040 1 connected
            1 is never sent TAKE A:1024501 place -
        0.050 release
            FREE A:1024501 place - -> 1 2 3 4 5
            wait until 0.3
    """)


def test_a_larger_token_is_not_tried_while_the_vote_is_open() -> None:
    """One node is ahead; the others may still grant."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 behind fence=1024500
        0.020 2 granted
        0.030 3 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)


def test_an_answer_to_the_first_round_does_not_count_in_the_second() -> None:
    """Node 3 executed both; its first answer is old news, and only the second is a vote for the
    larger token."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.26
        0.020 3 granted
        0.030 1 granted
        0.040 3 granted
            held A:1024501 until 9.908, touched 1 2 3
    """)


def test_a_clock_too_far_ahead_is_brought_back_in_the_second_round() -> None:
    """The node tells its time, and the token follows it."""
    check("""
        3 nodes
        0.000 wall 9999999999
        0.000 acquire
            TAKE A:9999998976 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=77 time=555555
            TAKE A:555556 place - -> 1 2 3
            wait until 0.26
        0.020 1 2 granted
            held A:555556 until 9.908, touched 1 2 3
    """)


@pytest.mark.parametrize("fence", [0, 5])
def test_a_node_whose_clock_is_far_behind_is_no_contention(fence: int) -> None:
    """Nobody holds anything: one node takes no token that another one's fence allows, and the
    words say why."""
    check(f"""
        3 nodes
        0.000 wall 9999999999
        0.000 2 dead
        0.000 acquire once
            TAKE A:9999998976 place - -> 1 (2) 3
            wait until 0.25
        0.010 1 granted
        0.020 3 behind fence={fence} time=555555
            TAKE A:555556 place - -> 1 (2) 3
            wait until 0.27
        0.030 3 granted
        0.040 1 behind fence=9999998976
            TAKE A:9999998977 place - -> 1 (2) 3
            wait until 0.29
        0.050 1 granted
        0.060 3 behind fence=555556 time=555555
            FREE A:9999998977 place ? -> 1 3
            QuorumUnavailable: 1 of 3 nodes granted, 2 needed, after 0.06 s
              n2 refused the connection
              n3 refused the token, which is 9999 s ahead of this node's clock: one of the clocks is wrong
    """)


def test_a_clock_far_behind_beside_somebody_else_is_contention() -> None:
    """Somebody holds it: that the clocks differ is not why."""
    check("""
        3 nodes
        0.000 wall 9999999999
        0.000 acquire once
            TAKE A:9999998976 place - -> 1 2 3
            wait until 0.25
        0.010 3 behind fence=5 time=555555
        0.020 1 busy
    """)


def test_there_are_at_most_three_rounds() -> None:
    """Who is outbid three times gives way."""
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.26
        0.020 3 behind fence=1024500
        0.030 1 2 behind fence=1024700
            TAKE A:1024701 place - -> 1 2 3
            wait until 0.28
        0.040 3 behind fence=1024700
        0.050 1 2 behind fence=1024900
            FREE A:1024701 place ? -> 1 2 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.05 s
              n1 refused the token: its fence is at 1024900
              n2 refused the token: its fence is at 1024900
              n3 was not waited for
    """)


def test_a_try_ends_after_a_third_of_the_ttl() -> None:
    """Both rounds included: a longer try could straddle a whole quarantine."""
    check("""
        3 nodes ttl=0.3 node_timeout=0.09
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.09
        0.080 1 2 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.1
        0.100 tick
            FREE A:1024501 place ? -> 1 2 3
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 did not answer within 0.02 s
              n2 did not answer within 0.02 s
              n3 did not answer within 0.02 s
    """)
    check("""
        3 nodes ttl=0.3 node_timeout=0.09
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.09
        0.080 1 behind fence=1024500
        0.100 2 behind fence=1024500
            FREE A:1024000 place ? -> 1 2 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 refused the token: its fence is at 1024500
              n2 refused the token: its fence is at 1024500
              n3 was not waited for
    """)


def test_the_next_proposal_is_past_every_fence_that_was_seen() -> None:
    """Also past what a busy node told, and past the poison of our own release."""
    play = check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 busy fence=2000000
        0.010 2 busy
            FREE A:1024000 place ? -> 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
        0.020 acquire once
            TAKE B:2000001 place - -> 1 2 3
            wait until 0.27
        0.030 1 2 granted
            held B:2000001 until 9.918, touched 1 2 3
    """)
    assert play.cluster.fences.last("r") == 2_000_001
