"""The flow of one try as transcripts: how the vote is counted, and how long what it wins is
valid."""

from __future__ import annotations

import pytest

from redlock.core.lease import Holding
from redlock.core.quorum import majority
from tests.core.flows import Play, check

# One try


def test_a_vote_is_decided_at_the_qth_grant() -> None:
    """Three of five, in any order; the slowest nodes are not waited for."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 5 granted
        0.020 2 busy
        0.030 1 granted
        0.040 3 granted
            held A:1024000 until 9.898, touched 1 2 3 4 5
    """)


@pytest.mark.parametrize("nodes", range(1, 8))
def test_a_lease_needs_a_majority_of_grants(nodes: int) -> None:
    """For every number of nodes: with one grant less than a majority there is no lease, with a
    majority there is."""
    play = Play(nodes)
    course = play.acquire()
    for node in range(majority(nodes)):
        assert not course.done
        play.answer(node, "granted")
    assert isinstance(course.value, Holding)


def test_one_node_answering_twice_is_one_vote() -> None:
    """Not even from a driver that hands out an answer twice."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.020 1 granted
        0.021 1 twice
        0.030 2 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)


def test_a_try_is_lost_as_soon_as_a_majority_is_out_of_reach() -> None:
    """Two nodes were not heard: they cannot change it, and get their release."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 busy
        0.020 2 3 busy
            FREE A:1024000 place ? -> 4 5
            LockContended: 0 of 5 nodes granted, 3 needed, after 0.02 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 is held by X:7... for 5 s more
              n4 was not waited for
              n5 was not waited for
    """)


def test_an_outage_is_known_as_soon_as_no_majority_can_answer() -> None:
    """Not contended: whether somebody holds the lock is unknown."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.020 2 3 4 error
            FREE A:1024000 place ? -> 1 2 3 4 5
            QuorumUnavailable: 1 of 5 nodes granted, 3 needed, after 0.02 s
              n2 said OOM
              n3 said OOM
              n4 said OOM
              n5 was not waited for
    """)


def test_a_node_that_is_down_costs_no_time() -> None:
    """It fails at once, and the others decide."""
    check("""
        3 nodes
        0.000 2 dead
        0.000 acquire
            TAKE A:1024000 place - -> 1 (2) 3
            wait until 0.25
        0.010 1 3 granted
            held A:1024000 until 9.898, touched 1 3
    """)


def test_silence_ends_a_try_after_the_node_timeout() -> None:
    """Silent nodes may have executed the TAKE, so they are given back to as well."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 granted
        0.250 tick
            FREE A:1024000 place ? -> 1 2 3 4 5
            QuorumUnavailable: 2 of 5 nodes granted, 3 needed, after 0.25 s
              n3 did not answer within 0.25 s
              n4 did not answer within 0.25 s
              n5 did not answer within 0.25 s
    """)


def test_a_split_vote_is_contention() -> None:
    """All answered, nobody has a majority: somebody else is there."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 granted
        0.020 3 4 5 busy
            FREE A:1024000 place ? -> 1 2
            LockContended: 2 of 5 nodes granted, 3 needed, after 0.02 s
              n3 is held by X:7... for 5 s more
              n4 is held by X:7... for 5 s more
              n5 is held by X:7... for 5 s more
    """)


def test_a_lost_try_is_given_back_before_it_is_explained() -> None:
    """Two busy and one faulty node: lost. Contention or outage is what the next answer tells,
    and nobody waits for that."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 place ? -> 3 4 5
        0.100 4 busy
            LockContended: 0 of 5 nodes granted, 3 needed, after 0.1 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 said OOM
              n4 is held by X:7... for 5 s more
              n5 was not waited for
    """)
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 place ? -> 3 4 5
        0.100 4 5 error
            QuorumUnavailable: 0 of 5 nodes granted, 3 needed, after 0.1 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 said OOM
              n4 said OOM
              n5 said OOM
    """)
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 place ? -> 3 4 5
        0.250 tick
            QuorumUnavailable: 0 of 5 nodes granted, 3 needed, after 0.25 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 said OOM
              n4 did not answer within 0.25 s
              n5 did not answer within 0.25 s
    """)


def test_too_small_a_token_everywhere_is_contention() -> None:
    """A majority answered; that it did not grant is because of somebody else."""
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3
            wait until 0.26
        0.030 1 2 behind fence=1024700
            TAKE A:1024701 place - -> 1 2 3
            wait until 0.28
        0.040 1 2 behind fence=1024900
            FREE A:1024701 place ? -> 1 2 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.04 s
              n1 refused the token: its fence is at 1024900
              n2 refused the token: its fence is at 1024900
              n3 was not waited for
    """)


# Validity


def test_validity_counts_from_the_first_write_and_not_from_the_reply() -> None:
    """Ten seconds from 0, less drift, although the deciding reply took 0.2 s."""
    check("""
        3 nodes ttl=10
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.100 1 granted
        0.200 2 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)


def test_a_second_round_has_a_validity_of_its_own() -> None:
    """The script sets the ttl anew, so it counts from the second round's first write."""
    check("""
        3 nodes ttl=10
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.100 1 2 behind fence=1024005
            TAKE A:1024006 place - -> 1 2 3
            wait until 0.35
        0.200 1 2 granted
            held A:1024006 until 9.998, touched 1 2 3
    """)


def test_a_grant_at_the_end_of_its_validity_is_no_grant() -> None:
    """The process was stopped while the reply was on its way: the clock is read after the
    deciding reply."""
    check("""
        3 nodes ttl=1 drift_factor=0 node_timeout=0.3
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.3
        0.010 1 granted
        0.998 2 granted
            FREE A:1024000 place ? -> 1 2 3
            QuorumUnavailable: 2 of 3 nodes granted, 2 needed, but only after the validity was over,
              after 0.998 s
              n3 was not waited for
    """)
    check("""
        3 nodes ttl=1 drift_factor=0 node_timeout=0.3
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.3
        0.010 1 granted
        0.997 2 granted
            held A:1024000 until 0.998, touched 1 2 3
    """)


def test_a_late_grant_is_given_back_and_tried_again() -> None:
    """It was an outage of our own; the next try has a new owner."""
    check("""
        3 nodes ttl=1 node_timeout=0.3
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.3
        0.010 1 granted
        2.000 2 granted
            FREE A:1024000 place ? -> 1 2 3
            PEEK place 1 -> 1 2 3
            wait until 2.3
        2.000 1 2 freed
        2.100 1 free
        2.100 3 granted
        2.100 2 free
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 2.4
        2.100 3 freed
        2.100 1 2 granted
            held B:1024002 until 3.088, touched 1 2 3
    """)
