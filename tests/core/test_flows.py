"""The flows of the core as transcripts, by the rules of ARCHITECTURE.md. How to read one: `flows.py`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.commands import Canvass, Command, Free, Take
from redlock.core.effects import NEVER, Cancelled, Request
from redlock.core.events import LeaseGranted, LeaseReleasing, LeaseRenewed, TryFailed, TryStarted
from redlock.core.lease import Holding, Status
from redlock.core.quorum import Kind, Tally, Vote, majority
from redlock.core.release import abandon
from redlock.errors import LeaseLost, LeaseReleased, LockContended, QuorumUnavailable
from tests.core.flows import Play, check, identity_of, replay

# One try


def test_a_vote_is_decided_at_the_qth_grant() -> None:
    """Three of five, in any order; the slowest nodes are not waited for."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 5 granted
        0.020 2 busy
        0.030 1 granted
        0.040 3 granted
            held A:1024000 until 9.898, touched 1 2 3 4 5
    """)


@pytest.mark.parametrize("nodes", range(1, 8))
def test_a_lease_needs_a_majority_of_grants(nodes: int) -> None:
    """For every number of nodes: with one grant less than a majority there is no lease, with a majority there is."""
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
            TAKE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 busy
        0.020 2 3 busy
            FREE A:1024000 -> 4 5
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
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.020 2 3 4 error
            FREE A:1024000 -> 1 2 3 4 5
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
            TAKE A:1024000 -> 1 (2) 3
            wait until 0.25
        0.010 1 3 granted
            held A:1024000 until 9.898, touched 1 3
    """)


def test_silence_ends_a_try_after_the_node_timeout() -> None:
    """Silent nodes may have executed the TAKE, so they are given back to as well."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 granted
        0.250 tick
            FREE A:1024000 -> 1 2 3 4 5
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
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 granted
        0.020 3 4 5 busy
            FREE A:1024000 -> 1 2
            LockContended: 2 of 5 nodes granted, 3 needed, after 0.02 s
              n3 is held by X:7... for 5 s more
              n4 is held by X:7... for 5 s more
              n5 is held by X:7... for 5 s more
    """)


def test_a_lost_try_is_given_back_before_it_is_explained() -> None:
    """Two busy and one faulty node: lost. Contention or outage is what the next answer tells, and nobody waits for that."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 -> 3 4 5
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
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 -> 3 4 5
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
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 -> 3 4 5
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 -> 1 2 3
            wait until 0.26
        0.030 1 2 behind fence=1024700
            TAKE A:1024701 -> 1 2 3
            wait until 0.28
        0.040 1 2 behind fence=1024900
            FREE A:1024701 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.100 1 2 behind fence=1024005
            TAKE A:1024006 -> 1 2 3
            wait until 0.35
        0.200 1 2 granted
            held A:1024006 until 9.998, touched 1 2 3
    """)


def test_a_grant_at_the_end_of_its_validity_is_no_grant() -> None:
    """The process was stopped while the reply was on its way: the clock is read after the deciding reply."""
    check("""
        3 nodes ttl=1 drift_factor=0 node_timeout=0.3
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.3
        0.010 1 granted
        0.998 2 granted
            FREE A:1024000 -> 1 2 3
            QuorumUnavailable: 2 of 3 nodes granted, 2 needed, but only after the validity was over,
              after 0.998 s
              n3 was not waited for
    """)
    check("""
        3 nodes ttl=1 drift_factor=0 node_timeout=0.3
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.3
        0.010 1 granted
        2.000 2 granted
            FREE A:1024000 -> 1 2 3
            pause until 2.00625
        2.000 1 2 freed
        2.010 tick
            PEEK -> 1 2 3
            wait until 2.31
        2.020 1 free
        2.020 3 granted
        2.020 2 free
            TAKE B:1024002 -> 1 2 3
            wait until 2.32
        2.030 3 freed
        2.040 1 2 granted
            held B:1024002 until 3.008, touched 1 2 3
    """)


# Tokens and rounds


def test_a_second_round_keeps_the_owner_and_outbids_every_fence() -> None:
    """Too small on a majority: the same owner with a token past the largest fence, to all nodes."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.020 2 behind fence=1024500
        0.020 3 behind fence=1024600
        0.025 4 5 busy
            TAKE A:1024601 -> 1 2 3 4 5
            wait until 0.275
        0.030 1 2 3 granted
            held A:1024601 until 9.923, touched 1 2 3 4 5
    """)


def test_one_grant_begins_a_second_round_where_a_node_asked_for_a_larger_token() -> None:
    """One busy, one behind, one granting: a larger token would win, and that is known at once, not at the end of the time."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 busy
        0.020 2 behind fence=1024500
        0.030 3 granted
            TAKE A:1024501 -> 1 2 3
            wait until 0.28
        0.040 1 busy
        0.050 2 3 granted
            held A:1024501 until 9.928, touched 1 2 3
    """)


def test_a_node_that_only_the_first_round_reached_is_owed_the_release() -> None:
    """Node 1 granted the first token and is away in the second round: it holds the lock, and must be told that it is free."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 granted
        0.015 1 dialling
        0.020 2 3 behind fence=1024500
        0.025 4 behind fence=1024500
            TAKE A:1024501 -> (1) 2 3 4 5
            wait until 0.275
        0.030 2 3 4 granted
            held A:1024501 until 9.923, touched 1 2 3 4 5
        0.040 1 connected
            1 is never sent TAKE A:1024501
        0.050 release
            FREE A:1024501 -> 1 2 3 4 5
            wait until 0.3
    """)


def test_a_larger_token_is_not_tried_while_the_vote_is_open() -> None:
    """One node is ahead; the others may still grant."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 behind fence=1024500
        0.020 2 granted
        0.030 3 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)


def test_an_answer_to_the_first_round_does_not_count_in_the_second() -> None:
    """Node 3 executed both; its first answer is old news, and only the second is a vote for the larger token."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 -> 1 2 3
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
            TAKE A:9999998976 -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=77 time=555555
            TAKE A:555556 -> 1 2 3
            wait until 0.26
        0.020 1 2 granted
            held A:555556 until 9.908, touched 1 2 3
    """)


@pytest.mark.parametrize("fence", [0, 5])
def test_a_node_whose_clock_is_far_behind_is_no_contention(fence: int) -> None:
    """Nobody holds anything: one node takes no token that another one's fence allows, and the words say why."""
    check(f"""
        3 nodes
        0.000 wall 9999999999
        0.000 2 dead
        0.000 acquire once
            TAKE A:9999998976 -> 1 (2) 3
            wait until 0.25
        0.010 1 granted
        0.020 3 behind fence={fence} time=555555
            TAKE A:555556 -> 1 (2) 3
            wait until 0.27
        0.030 3 granted
        0.040 1 behind fence=9999998976
            TAKE A:9999998977 -> 1 (2) 3
            wait until 0.29
        0.050 1 granted
        0.060 3 behind fence=555556 time=555555
            FREE A:9999998977 -> 1 3
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
            TAKE A:9999998976 -> 1 2 3
            wait until 0.25
        0.010 3 behind fence=5 time=555555
        0.020 1 busy
    """)


def test_there_are_at_most_three_rounds() -> None:
    """Who is outbid three times gives way."""
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 -> 1 2 3
            wait until 0.26
        0.020 3 behind fence=1024500
        0.030 1 2 behind fence=1024700
            TAKE A:1024701 -> 1 2 3
            wait until 0.28
        0.040 3 behind fence=1024700
        0.050 1 2 behind fence=1024900
            FREE A:1024701 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.09
        0.080 1 2 behind fence=1024500
            TAKE A:1024501 -> 1 2 3
            wait until 0.1
        0.100 tick
            FREE A:1024501 -> 1 2 3
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 did not answer within 0.02 s
              n2 did not answer within 0.02 s
              n3 did not answer within 0.02 s
    """)
    check("""
        3 nodes ttl=0.3 node_timeout=0.09
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.09
        0.080 1 behind fence=1024500
        0.100 2 behind fence=1024500
            FREE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 busy fence=2000000
        0.010 2 busy
            FREE A:1024000 -> 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
        0.020 acquire once
            TAKE B:2000001 -> 1 2 3
            wait until 0.27
        0.030 1 2 granted
            held B:2000001 until 9.918, touched 1 2 3
    """)
    assert play.cluster.fences.last("r") == 2_000_001


# What is given back


def test_a_release_goes_to_all_nodes_that_may_have_executed_a_take() -> None:
    """To those that granted, found the token too small, failed or were silent; not to one that said somebody else holds it."""
    check("""
        7 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5 6 7
            wait until 0.25
        0.010 1 granted
        0.020 2 behind fence=5
        0.030 3 busy
        0.040 4 error
        0.050 5 lost
            TAKE A:1024000 -> 5
        0.060 5 lost
        0.250 tick
            FREE A:1024000 -> 1 2 4 5 6 7
            QuorumUnavailable: 1 of 7 nodes granted, 4 needed, after 0.25 s
              n2 refused the token: its fence is at 5
              n3 is held by X:7... for 5 s more
              n4 said OOM
              n5 lost the connection
              n6 did not answer within 0.25 s
              n7 did not answer within 0.25 s
    """)


def test_a_node_that_was_busy_in_every_round_holds_nothing_of_ours() -> None:
    """Node 4 was busy twice. Node 5 was busy once, and may have executed the second TAKE."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 behind fence=1024500
            TAKE A:1024501 -> 1 2 3 4 5
            wait until 0.26
        0.020 4 5 busy
        0.030 1 2 busy
        0.040 4 busy
            FREE A:1024501 -> 1 2 3 4 5
            LockContended: 0 of 5 nodes granted, 3 needed, after 0.04 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
              n4 is held by X:7... for 5 s more
              n5 was not waited for
        0.050 3 behind fence=1024600
    """)


def test_a_node_that_answered_busy_only_when_asked_again_is_released_too() -> None:
    """What happened to the first request on the lost connection, nobody knows."""
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 lost
            TAKE A:1024000 -> 1
        0.020 1 busy
        0.030 2 3 busy
            FREE A:1024000 -> 1 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.03 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
    """)


def test_what_was_not_written_is_withdrawn_and_needs_no_release() -> None:
    """Nodes 4 and 5 are being dialled. When they are connected, the try is over: nothing of it may reach them."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 busy
            LockContended: 0 of 5 nodes granted, 3 needed, after 0.01 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 is held by X:7... for 5 s more
              n4 was not waited for
              n5 was not waited for
        0.020 4 5 connected
            4 is never sent TAKE A:1024000
            5 is never sent TAKE A:1024000
    """)
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        0.020 4 5 connected
            4 is never sent TAKE A:1024000
            5 is never sent TAKE A:1024000
        0.030 release
            FREE A:1024000 -> 1 2 3
            wait until 0.28
    """)


def test_a_request_is_never_written_after_its_time() -> None:
    """The node was connected too late for the round: it never hears of it."""
    check("""
        3 nodes
        0.000 3 dialling
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 (3)
            wait until 0.25
        0.010 1 granted
        0.300 3 connected
            3 is never sent TAKE A:1024000
        0.300 tick
            FREE A:1024000 -> 1 2
            pause until 0.30625
    """)


def test_a_lost_connection_is_asked_again_once() -> None:
    """A server that closes idle connections must not cost the first acquire of the day its majority."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.001 1 2 3 lost
            TAKE A:1024000 -> 1
            TAKE A:1024000 -> 2
            TAKE A:1024000 -> 3
        0.010 1 3 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.001 1 2 3 lost
            TAKE A:1024000 -> 1
            TAKE A:1024000 -> 2
            TAKE A:1024000 -> 3
        0.010 1 2 lost
            FREE A:1024000 -> 1 2 3
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 lost the connection
              n2 lost the connection
              n3 was not waited for
    """)


def test_a_node_that_must_be_admitted_anew_is_asked_again_once() -> None:
    """The marker was another one: the connection admits the node again, and the vote follows."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 stranger
            TAKE A:1024000 -> 1
        0.020 2 granted
        0.030 1 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 stranger
            TAKE A:1024000 -> 1
        0.020 2 granted
        0.030 1 stranger
        0.040 3 lost
            TAKE A:1024000 -> 3
        0.050 3 stranger
            FREE A:1024000 -> 1 2 3
            QuorumUnavailable: 1 of 3 nodes granted, 2 needed, after 0.05 s
              n1 is not the node that was admitted
              n3 is not the node that was admitted
    """)


def test_nothing_is_asked_again_once_the_try_was_given_back() -> None:
    """A TAKE behind its own release would leave a lock that nobody knows of."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 -> 3 4 5
        0.030 4 lost
        0.040 5 stranger
            QuorumUnavailable: 0 of 5 nodes granted, 3 needed, after 0.04 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 said OOM
              n4 lost the connection
              n5 is not the node that was admitted
    """)


# Waiting


def test_every_try_has_a_fresh_owner_and_follows_the_release_of_the_last() -> None:
    """A release of the first try that comes late can then never delete the lock of the second. Its token is past all fences."""
    play = check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 granted
        0.020 2 3 error
            FREE A:1024000 -> 1 2 3
            pause until 0.02625
        0.030 1 2 3 freed
        0.040 tick
            PEEK -> 1 2 3
            wait until 0.29
        0.050 1 free fence=2000000
        0.050 2 free fence=1024001
            TAKE B:2000001 -> 1 2 3
            wait until 0.3
        0.060 1 2 granted
            held B:2000001 until 9.948, touched 1 2 3
    """)
    assert [type(request.command) for request in play.sent][:6] == [Take] * 3 + [Free] * 3


def test_a_waiter_looks_before_it_tries() -> None:
    """While a majority looks busy, nothing is written; a majority that looks free is tried."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 -> 3
            pause until 0.01625
        0.010 3 busy ttl=3
        0.010 3 others
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.27
        0.030 1 2 busy ttl=3
            pause until 0.0425
        0.030 3 free
        0.060 tick
            PEEK -> 1 2 3
            wait until 0.31
        0.070 1 busy ttl=3
        0.080 2 3 free fence=1024001
            TAKE B:1024002 -> 1 2 3
            wait until 0.33
        0.080 1 2 3 granted
            held B:1024002 until 9.978, touched 1 2 3
    """)


def test_half_of_the_nodes_free_is_not_enough_to_try() -> None:
    """A try that cannot win would take the free nodes from the holder, who may want to top up there."""
    check("""
        5 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 busy ttl=3
            FREE A:1024000 -> 4 5
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3 4 5
            wait until 0.27
        0.030 1 2 free
        0.040 3 4 busy ttl=3
        0.050 5 busy ttl=3
    """)


def test_a_look_waits_for_the_free_ones_no_longer_than_it_must() -> None:
    """Silent nodes end it after the node timeout; the next look follows a pause."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 -> 3
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.27
        0.030 1 free
        0.270 tick
            pause until 0.2825
        0.300 tick
            PEEK -> 1 2 3
            wait until 0.55
    """)


def test_a_pause_is_jittered_and_doubles_up_to_the_retry_delay() -> None:
    """An eighth of 0.1 s first. The dice show the jitter: from half of the pause (0) to nearly all of it (1023)."""
    check("""
        1 nodes retry_delay=0.1
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1
            wait until 0.25
        0.000 dice 1023 1023 1023 1023 1023 0
        0.000 1 busy ttl=3
            pause until 0.0124939
        1.000 tick
            PEEK -> 1
            wait until 1.25
        1.000 1 busy ttl=3
            pause until 1.02499
        2.000 tick
            PEEK -> 1
            wait until 2.25
        2.000 1 busy ttl=3
            pause until 2.04998
        3.000 tick
            PEEK -> 1
            wait until 3.25
        3.000 1 busy ttl=3
            pause until 3.09995
        3.500 tick
            PEEK -> 1
            wait until 3.75
        3.500 1 busy ttl=3
            pause until 3.59995
        4.000 tick
            PEEK -> 1
            wait until 4.25
        4.000 1 busy ttl=3
            pause until 4.05
    """)


def test_a_pause_ends_when_the_lock_does() -> None:
    """The nodes told for how long: a majority is free when the second of three has expired."""
    check("""
        3 nodes retry_delay=8
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 busy ttl=0.1
        0.010 2 busy ttl=0.2
            FREE A:1024000 -> 3
            pause until 0.21
        0.211 tick
            PEEK -> 1 2 3
            wait until 0.461
    """)


def test_a_pause_ends_at_the_callers_deadline() -> None:
    """And the verdict is that of the last try."""
    check("""
        3 nodes retry_delay=8
        0.000 acquire timeout=0.1
            TAKE A:1024000 -> 1 2 3
            wait until 0.1
        0.010 1 2 busy ttl=9
            FREE A:1024000 -> 3
            pause until 0.1
        0.100 tick
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 is held by X:7... for 9 s more
              n2 is held by X:7... for 9 s more
              n3 was not waited for
    """)


def test_a_try_ends_at_the_callers_deadline() -> None:
    """No earlier verdict: silence is an outage."""
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 -> 1 2 3
            wait until 0.1
        0.010 1 granted
        0.100 tick
            FREE A:1024000 -> 1 2 3
            QuorumUnavailable: 1 of 3 nodes granted, 2 needed, after 0.1 s
              n2 did not answer within 0.1 s
              n3 did not answer within 0.1 s
    """)


def test_a_deadline_that_cuts_a_look_short_keeps_the_earlier_verdict() -> None:
    """Contended a moment ago: that the last look had no time to hear an answer is no outage."""
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 -> 1 2 3
            wait until 0.1
        0.010 1 2 busy ttl=9
            FREE A:1024000 -> 3
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.1
        0.100 tick
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 is held by X:7... for 9 s more
              n2 is held by X:7... for 9 s more
              n3 was not waited for
    """)
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 -> 1 2 3
            wait until 0.1
        0.010 1 2 error
            FREE A:1024000 -> 1 2 3
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.1
        0.100 tick
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 said OOM
              n2 said OOM
              n3 was not waited for
    """)


def test_a_look_that_finds_an_outage_before_the_deadline_says_so() -> None:
    """Contended at first, and then the nodes went away."""
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 -> 1 2 3
            wait until 0.1
        0.010 1 2 busy ttl=9
            FREE A:1024000 -> 3
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.1
        0.030 1 2 error
            pause until 0.0425
        0.100 tick
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 said OOM
              n2 said OOM
              n3 was not waited for
    """)


def test_who_waits_for_ever_outlives_an_outage() -> None:
    """No timeout: try after try."""
    check("""
        3 nodes
        0.000 3 dead
        0.000 acquire
            TAKE A:1024000 -> 1 2 (3)
            wait until 0.25
        0.010 1 2 error
            FREE A:1024000 -> 1 2
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 (3)
            wait until 0.27
        0.030 1 2 lost
            PEEK -> 1
            PEEK -> 2
        0.040 1 2 lost
            pause until 0.0525
        0.100 tick
            PEEK -> 1 2 (3)
            wait until 0.35
        0.110 1 2 free fence=1024001
            TAKE B:1024002 -> 1 2 (3)
            wait until 0.36
        0.120 1 2 granted
            held B:1024002 until 10.008, touched 1 2
    """)


# A foreign lock without an expiry


def test_a_lock_without_an_expiry_gets_one_on_request() -> None:
    """Only where it has none, and only with `repair_missing_ttl`: one of max_ttl."""
    check("""
        3 nodes repair
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 busy ttl=-0.001
        0.010 2 busy ttl=3
            FREE A:1024000 -> 3
            REPAIR 60000 ms -> 1
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.27
        0.020 1 repaired
        0.030 1 2 busy ttl=3
            pause until 0.0425
    """)
    check("""
        3 nodes repair
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=-0.001
            FREE A:1024000 -> 3
            REPAIR 60000 ms -> 1 2
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 is held by X:7... without an expiry (repair_missing_ttl=True gives it one)
              n2 is held by X:7... without an expiry (repair_missing_ttl=True gives it one)
              n3 was not waited for
    """)
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=-0.001
            FREE A:1024000 -> 3
            pause until 0.01625
    """)


# Cancelling


def test_a_cancelled_try_is_released_by_its_last_requests() -> None:
    """Every node that may have executed a TAKE, with the script's text, because nobody will read an answer."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 granted
        0.020 cancel
            FREE A:1024000, unattended -> 1 2 3
            Cancelled
    """)


def test_a_cancelled_second_round_is_released_with_its_larger_token() -> None:
    """The poison has to be past both."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 behind fence=1024500
            TAKE A:1024501 -> 1 2 3
            wait until 0.26
        0.020 cancel
            FREE A:1024501, unattended -> 1 2 3
            Cancelled
    """)


def test_a_cancel_while_a_lost_try_is_explained_releases_once_more() -> None:
    """The releases are on their way; they are idempotent, and these carry the text."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 -> 3 4 5
        0.030 cancel
            FREE A:1024000, unattended -> 3 4 5
            Cancelled
    """)


def test_a_cancel_during_a_pause_or_a_look_has_nothing_to_release() -> None:
    """The last try was given back when it failed."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 -> 3
            pause until 0.01625
        0.011 cancel
            Cancelled
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 -> 3
            pause until 0.01625
        0.020 tick
            PEEK -> 1 2 3
            wait until 0.27
        0.030 cancel
            Cancelled
    """)


def test_a_cancel_never_reaches_nodes_that_were_never_written_to() -> None:
    """Node 3 is being dialled: its TAKE is withdrawn."""
    check("""
        3 nodes
        0.000 3 dialling
        0.000 acquire
            TAKE A:1024000 -> 1 2 (3)
            wait until 0.25
        0.010 cancel
            FREE A:1024000, unattended -> 1 2
            Cancelled
        0.020 3 connected
            3 is never sent TAKE A:1024000
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
    0.080 tick
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
    assert [(request.node, type(request.command)) for request in wait.send] == [(node, Free) for node in range(3)]
    with pytest.raises(KeyboardInterrupt):
        next(course.flow)


def test_a_flow_that_is_dropped_goes_quietly() -> None:
    """Nobody would write what it asks for: it must not ask."""
    course = Play(3).acquire()
    course.flow.close()
    with pytest.raises(StopIteration):
        next(course.flow)


def test_a_lease_whose_caller_went_away_is_given_back_unattended() -> None:
    """The cancel came between the winning vote and the caller: every node that may hold it, and never twice."""
    play = Play(3)
    play.dialling(2)
    play.acquire()
    for node in (0, 1):
        play.answer(node, "granted")
    lease = play.holding
    assert lease is not None
    releases = abandon(play.cluster, lease, play.now)
    assert [request.node for request in releases] == [0, 1]
    assert all(request.command.words()[0] == "EVAL" and request.not_after == float("inf") for request in releases)
    assert (lease.status, lease.held(play.now)) == (Status.RELEASED, False)
    # Whoever listens was told of the grant, and must be told of its end: a history would show it beside the next holder.
    told = [(type(record), record.at) for record in play.records if isinstance(record, LeaseGranted | LeaseReleasing)]
    assert told == [(LeaseGranted, play.now), (LeaseReleasing, play.now)]
    assert play.release().value is False
    abandon(play.cluster, lease, play.now)
    assert len([record for record in play.records if isinstance(record, LeaseReleasing)]) == 1


@pytest.mark.parametrize("step", range(2, len(STORY.strip().splitlines()) + 1))
def test_a_cancel_at_any_wait_leaves_nothing_behind(step: int) -> None:
    """The same story, cut after every line: whatever may have executed a TAKE has its release by then, or gets it last."""
    play, _ = replay(STORY, until=step)
    course = play.courses[0]
    assert not course.done
    before = len(play.sent)
    play.cancel()
    assert isinstance(course.error, Cancelled)
    for owner in owners(play):
        check_given_back(play, owner)
    releases = list(play.sent)[before:]
    assert all(isinstance(request.command, Free) and request.command.unattended for request in releases)
    if releases:
        last = course.waits[-1]
        assert (last.until, set(last.send)) == (NEVER, set(releases))
    check_nothing_follows(play)


# Extending


def test_an_extension_moves_the_deadline_from_its_own_first_write() -> None:
    """Decided at the q-th confirmation; from now on every node may hold the lock."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        3.000 4 5 connected
            4 is never sent TAKE A:1024000
            5 is never sent TAKE A:1024000
        3.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3 4 5
            wait until 3.25
        3.100 1 2 granted
        3.200 4 granted
            done
        3.300 status
            held, valid until 12.898
        3.300 release
            FREE A:1024000 -> 1 2 3 4 5
            wait until 3.55
    """)


def test_a_shorter_extension_leaves_the_deadline_where_it_is() -> None:
    """The holder may rely on the longer."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 granted
            held A:1024000 until 9.898, touched 1 2 3
        0.020 3 granted
        1.000 extend ttl=1
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 1.25
        1.100 1 2 granted
            done
        1.200 status
            held, valid until 9.898
    """)


def test_an_extension_counts_only_while_the_old_validity_lasts() -> None:
    """A majority that confirms at the deadline, or after it, comes too late: the lease is lost."""
    check("""
        3 nodes ttl=1 drift_factor=0
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.998, touched 1 2 3
        0.990 extend
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 0.998
        0.995 1 granted
        0.998 2 granted
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0 s ago
        0.998 status
            over, valid until 0.998
    """)
    check("""
        3 nodes ttl=1 drift_factor=0
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.998, touched 1 2 3
        0.990 extend
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 0.998
        0.995 1 granted
        0.997 2 granted
            done
        0.997 status
            held, valid until 1.988
    """)
    check("""
        3 nodes ttl=1 drift_factor=0
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.998, touched 1 2 3
        0.990 extend
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 0.998
        0.998 tick
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0 s ago
    """)


def test_an_extension_of_a_lease_that_ended_sends_nothing() -> None:
    """Dead for ever, whatever the nodes would say."""
    check("""
        3 nodes ttl=1
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.988, touched 1 2 3
        1.000 extend
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0.012 s
              ago
    """)


def test_an_extension_that_a_majority_denies_loses_the_lease_at_once() -> None:
    """Somebody else holds the lock there, or somebody newer has been: no majority can ever confirm again."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 busy
        1.020 2 behind fence=1024001
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: a majority of the nodes
              does not hold it any more: 0 of 3 nodes confirmed, 2 needed, after 0.02 s
              n1 is held by X:7... for 5 s more
              n2 refused the token: its fence is at 1024001
        1.020 status
            LOST, valid until 9.898
    """)


def test_an_extension_without_an_answer_leaves_the_lease_as_it_was() -> None:
    """Unknown is not lost: it is valid until its deadline."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 busy
        1.020 2 error
            QuorumUnavailable: 0 of 3 nodes confirmed, 2 needed, after 0.02 s
              n1 is held by X:7... for 5 s more
              n2 said OOM
              n3 was not waited for
        1.020 status
            held, valid until 9.898
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 granted
        1.250 tick
            QuorumUnavailable: 1 of 3 nodes confirmed, 2 needed, after 0.25 s
              n2 did not answer within 0.25 s
              n3 did not answer within 0.25 s
        1.250 status
            held, valid until 9.898
    """)


def test_a_release_during_an_extension_wins() -> None:
    """Replies that come later change nothing, and nothing is asked again behind the release."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 granted
        1.020 release
            release: FREE A:1024000 -> 1 2 3
            release: wait until 1.27
        1.030 2 granted
            extend: LeaseReleased: the lease on 'r' was released
        1.030 status
            RELEASED, valid until 9.898
        1.040 1 2 freed
            True
    """)
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.020 release
            release: FREE A:1024000 -> 1 2 3
            release: wait until 1.27
        1.030 1 lost
            extend: LeaseReleased: the lease on 'r' was released
            FREE A:1024000 -> 1
    """)


def test_max_hold_caps_every_extension() -> None:
    """Asked for is what brings the deadline exactly to the cap, and no more after that."""
    check("""
        3 nodes drift_factor=0
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.000 1 2 3 granted
            held A:1024000 until 9.998, touched 1 2 3
        0.000 limit 12
        5.000 extend
            EXTEND by 7.002 A:1024000 -> 1 2 3
            wait until 5.25
        5.000 1 2 3 granted
            done
        5.000 status
            held, valid until 12
        11.00 extend ttl=10
            EXTEND by 1.002 A:1024000 -> 1 2 3
            wait until 11.25
        11.00 1 2 3 granted
            done
        11.00 status
            held, valid until 12
        12.00 status
            over, valid until 12
    """)


def test_a_limit_below_the_validity_ends_the_lease_earlier() -> None:
    """From the grant on."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        0.010 limit 2
        0.010 status
            held, valid until 2.01
    """)


def test_a_cancelled_extension_changes_nothing() -> None:
    """The lease is what it was; what the nodes did is only longer."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 cancel
            Cancelled
        1.010 status
            held, valid until 9.898
    """)


# Verifying


def test_verify_asks_for_this_very_grant_and_moves_no_deadline() -> None:
    """A majority that still holds it: no newer grant existed when it began."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        0.020 4 5 connected
            4 is never sent TAKE A:1024000
            5 is never sent TAKE A:1024000
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
            TAKE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
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
              n2 is held by X:7... for 5 s more
        1.010 status
            LOST, valid until 9.898
    """)


# Releasing


def test_a_release_is_confirmed_by_a_majority() -> None:
    """True at the q-th node that holds nothing of it any more; the others stay owed."""
    check("""
        5 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3 4 5
        1.000 release
            FREE A:1024000 -> 1 2 3 4 5
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
            TAKE A:1024000 -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 freed
            True
    """)


def test_a_release_that_no_majority_confirms_is_false() -> None:
    """Not an error, and still over for its holder."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 3 dialling
        1.000 release
            FREE A:1024000 -> 1 2 (3)
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 2 lost
            FREE A:1024000 -> 1
            FREE A:1024000 -> 2
        1.020 1 2 nothing
            True
    """)


def test_an_expired_lease_is_released_all_the_same_and_false() -> None:
    """A node may hold the lock for longer than the lease was valid."""
    check("""
        3 nodes ttl=1
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.988, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
            wait until 1.05
        1.010 1 2 freed
            False
    """)


def test_a_lost_lease_is_released_all_the_same_and_false() -> None:
    """Where the nodes still hold something of it; it stays lost."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 2 busy
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: a majority of the nodes
              does not hold it any more: 0 of 3 nodes confirmed, 2 needed, after 0.01 s
              n1, n2: is held by X:7... for 5 s more
        1.020 release
            FREE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
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
            TAKE A:1024000 -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 release
            FREE A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 2 3 freed
            True
        1.010 acquire
            TAKE B:1024002 -> 1 2 3
            wait until 1.26
    """)


# Meeting the nodes, and looking


def test_the_first_use_meets_the_nodes() -> None:
    """All of them at once; each may be admitted, refused or down."""
    check("""
        3 nodes unmet
        0.000 acquire
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 admitted
        0.020 2 replica
        0.030 3 admitted
            TAKE A:1024000 -> 1 2 3
            wait until 0.28
        0.040 1 3 granted
            held A:1024000 until 9.928, touched 1 2 3
    """)


def test_a_silent_node_is_waited_for_no_longer_than_the_node_timeout() -> None:
    """Once: the next acquire does not wait for it again."""
    check("""
        3 nodes unmet
        0.000 acquire once
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 2 admitted
        0.250 tick
            TAKE A:1024000 -> 1 2 3
            wait until 0.5
        0.260 1 2 busy
            FREE A:1024000 -> 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.26 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
        0.300 acquire
            TAKE B:1024002 -> 1 2 3
            wait until 0.55
    """)


def test_the_callers_deadline_cuts_the_meeting_short() -> None:
    """And the cluster is not met by that: the next call meets it again."""
    check("""
        3 nodes unmet
        0.000 acquire timeout=0.1
            GREET -> 1 2 3
            wait until 0.1
        0.010 1 admitted
        0.100 tick
            TAKE A:1024000 -> 1 2 3
        0.100 tick
            FREE A:1024000 -> 1 2 3
            QuorumUnavailable: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 did not answer within 0 s
              n2 did not answer within 0 s
              n3 did not answer within 0 s
        0.150 acquire
            GREET -> 1 2 3
            wait until 0.4
    """)


def test_a_wrong_list_is_an_error_of_every_call() -> None:
    """Not only of the first: the cluster counts as met only when there is nothing wrong with it."""
    check("""
        3 nodes unmet
        0.000 acquire
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 2 replica
        0.020 3 admitted
            ConfigurationError: no majority of these nodes may vote: n1 is a slave, not a master
              n2 is a slave, not a master
        1.000 acquire
            GREET -> 1 2 3
            wait until 1.25
        1.010 1 2 replica
        1.010 3 admitted
            ConfigurationError: no majority of these nodes may vote: n1 is a slave, not a master
              n2 is a slave, not a master
    """)


def test_unfit_nodes_are_an_error_only_when_they_put_a_majority_out_of_reach() -> None:
    """One is a missing vote; two of three are a wrong configuration."""
    check("""
        3 nodes unmet
        0.000 acquire
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 replica
        0.010 2 evicting
        0.020 3 admitted
            ConfigurationError: no majority of these nodes may vote: n1 is a slave, not a master
              n2 may evict locks (maxmemory-policy allkeys-lru, must be noeviction)
    """)


def test_the_same_server_twice_is_an_error_at_once() -> None:
    """Whatever the others say."""
    check("""
        3 nodes unmet
        0.000 acquire
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 admitted
        0.010 2 twin of=1
        0.020 3 admitted
            ConfigurationError: the node list is wrong: n1 is the same server as n2 (run id run-1)
    """)


def test_a_ttl_above_the_clusters_max_ttl_is_an_error_of_the_first_acquire() -> None:
    """The nodes would refuse it; the message names both."""
    check("""
        3 nodes unmet
        0.000 acquire ttl=20
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 2 3 admitted max_ttl=15
            ConfigurationError: ttl=20 is above the cluster's max_ttl=15
    """)


def test_nodes_that_are_found_unfit_later_are_an_error_of_that_acquire() -> None:
    """They were demoted after the first use. The try is given back first."""
    play = Play(3)
    play.acquire(once=True)
    for node in (0, 1):
        play.admission.seen(node, identity_of(node, 3, role="slave"), 0.0)
    play.out.clear()
    for node in (0, 1):
        play.fail(node, "error")
    assert play.out[0] == "FREE A:1024000 -> 1 2 3"
    assert play.out[-2:] == [
        "ConfigurationError: no majority of these nodes may vote: n1 is a slave, not a master",
        "  n2 is a slave, not a master",
    ]


def test_a_peek_waits_for_all_nodes() -> None:
    """It reads, from whoever the node is, and waits for the slowest at most the node timeout."""
    check("""
        3 nodes
        0.000 peek
            PEEK at any node -> 1 2 3
            wait until 0.25
        0.010 1 2 free
        0.020 3 busy ttl=2
            0 of 3 nodes answered, 2 needed, after 0.02 s
              n1 is free
              n2 is free
              n3 is held by X:7... for 2 s more
    """)
    check("""
        3 nodes
        0.000 peek
            PEEK at any node -> 1 2 3
            wait until 0.25
        0.010 1 2 free
        0.250 tick
            0 of 3 nodes answered, 2 needed, after 0.25 s
              n1 is free
              n2 is free
              n3 did not answer within 0.25 s
    """)


def test_every_node_is_asked_anew_who_it_is() -> None:
    """`nodes()`: each with its reason, also those that do not answer."""
    check("""
        4 nodes
        0.000 nodes
            GREET anew -> 1 2 3 4
            wait until 0.25
        0.010 1 admitted
        0.020 2 replica
        0.030 3 unreachable
        0.250 tick
            admitted
              is a slave, not a master
              refused the connection
              did not answer
    """)


@pytest.mark.parametrize("lost", [False, True], ids=["held", "lost before, as by a close"])
def test_a_release_revokes_the_extensions_under_way(lost: bool) -> None:
    """Whoever lost the script may not put the lock back behind its release: neither what was written nor what waits is sent."""
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


# What is told to observers


def test_every_step_is_told_in_order() -> None:
    """The history that a checker judges: tries, grant, renewal, release, each with owner, token and instants."""
    play = check("""
        3 nodes
        0.000 3 dead
        0.000 acquire
            TAKE A:1024000 -> 1 2 (3)
            wait until 0.25
        0.010 1 2 error
            FREE A:1024000 -> 1 2
            pause until 0.01625
        0.010 1 2 nothing
        0.020 tick
            PEEK -> 1 2 (3)
            wait until 0.27
        0.030 1 2 free
            TAKE B:1024002 -> 1 2 (3)
            wait until 0.28
        0.040 1 2 behind fence=1025000
            TAKE B:1025001 -> 1 2 (3)
            wait until 0.29
        0.050 1 2 granted
            held B:1025001 until 9.938, touched 1 2
        1.000 extend
            EXTEND by 10 B:1025001 -> 1 2 (3)
            wait until 1.25
        1.010 1 2 granted
            done
        2.000 release
            FREE B:1025001 -> 1 2 (3)
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


# Any schedule


def takes(play: Play, owner: str = "") -> dict[Request, Take]:
    """Every TAKE that was sent, of one owner or of all, in order."""
    found = {request: request.command for request in play.sent if isinstance(request.command, Take)}
    return {request: command for request, command in found.items() if owner in ("", command.owner)}


def owners(play: Play) -> list[str]:
    """The tries in order."""
    return list(dict.fromkeys(take.owner for take in takes(play).values()))


def released(play: Play, owner: str) -> dict[int, list[int]]:
    """The nodes that were sent a FREE of *owner*, with the places of these in all that was sent."""
    found: dict[int, list[int]] = {}
    for place, request in enumerate(play.sent):
        if isinstance(request.command, Free) and request.command.args[0] == owner:
            found.setdefault(request.node, []).append(place)
    return found


def said(play: Play, request: Request) -> Kind | None:
    """What the node answered, if it did."""
    vote = play.heard.get(request)
    return vote.kind if isinstance(vote, Vote) else None


def may_be_held(play: Play, owner: str) -> set[int]:
    """Nodes that were sent a TAKE of *owner* and did not say that the lock is somebody else's."""
    return {request.node for request in takes(play, owner) if request.written and said(play, request) is not Kind.BUSY}


def check_given_back(play: Play, owner: str) -> None:
    """Released with its largest token on every node that may hold it, and never taken there behind its release."""
    requests = list(play.sent)
    mine, freed = takes(play, owner), released(play, owner)
    assert may_be_held(play, owner) <= freed.keys(), f"{owner} was not given back everywhere"
    token = max(take.token for take in mine.values())
    assert all(requests[place].command.args[1] == token for places in freed.values() for place in places)
    for request in mine:
        if request.written and request.node in freed:
            assert requests.index(request) < freed[request.node][0], f"{owner} was taken behind its release"
        if play.holding is None or play.holding.owner != owner:
            assert request.not_after == NEVER, f"{owner} may be taken again behind its release, by a server that lost the script"


def check_nothing_follows(play: Play) -> None:
    """The flow is over: no TAKE that waits for a connection is written any more."""
    written = {request for request in takes(play) if request.written}
    for node in range(len(play.cluster.names)):
        play.connected(node)
    assert {request for request in takes(play) if request.written} == written


def check_grant(play: Play, ttl: float, drift_factor: float) -> None:
    """A majority granted this very token, and the validity counts from before the first of them was asked."""
    lease = play.holding
    assert lease is not None
    round = [request for request, take in takes(play, lease.owner).items() if take.token == lease.token]
    grants = {request.node for request in round if said(play, request) is Kind.GRANTED}
    assert len(grants) > len(play.cluster.names) / 2
    began_at = min(play.sent[request] for request in round)
    assert lease.valid_until == pytest.approx(began_at + ttl - ttl * drift_factor - 0.002)
    assert play.now < lease.valid_until
    assert may_be_held(play, lease.owner) <= lease.touched


def check_manners(play: Play, ttl: float) -> None:
    """Owners, tokens, rounds, times and looks of all tries of a play."""
    requests = list(play.sent)
    assert [take.owner for take in takes(play).values()] == sorted(take.owner for take in takes(play).values())
    for number, owner in enumerate(owners(play)):
        mine = takes(play, owner)
        first = next(iter(mine))
        tokens = list(dict.fromkeys(take.token for take in mine.values()))
        assert tokens == sorted(tokens)
        assert len(tokens) <= 3
        ends_at = play.sent[first] + ttl / 3 + 1e-9
        assert all(play.sent[request] <= ends_at for request in mine if request.written)
        assert all(request.not_after <= ends_at for request in mine)
        asked = [(request.node, take.token) for request, take in mine.items()]
        assert all(asked.count(question) <= 2 for question in asked)
        if number:
            before = requests[: requests.index(first)]
            look = next(request.command for request in reversed(before) if isinstance(request.command, Canvass))
            free = {request.node for request in before if request.command is look and said(play, request) is Kind.FREE}
            assert len(free) > len(play.cluster.names) / 2, "tried while no majority looked free"


WORDS = {
    Take: ["granted", "granted", "granted", "busy", "behind", "stranger"],
    Canvass: ["free", "free", "free", "busy", "stranger"],
    Free: ["freed", "others"],
}
EVENTS = ["answer"] * 10 + ["lost", "lost", "error", "tick", "tick", "twice", "dialling", "connected", "dead"]
HOLDING = ["extend", "extend", "extend", "verify", "release", "limit", "nearly over", "over"]
Step = tuple[str, int, int, float]


def steps(what: list[str]) -> st.SearchStrategy[list[Step]]:
    """What happens, to which node, with which of several words, and after how long."""
    pauses = st.sampled_from([0.0, 0.0, 0.001, 0.001, 0.02, 0.3, 12.0])
    return st.lists(st.tuples(st.sampled_from(what), st.integers(0, 4), st.integers(0, 5), pauses), min_size=8, max_size=40)


def happen(play: Play, what: str, node: int, which: int) -> None:
    """One thing that may happen, if it can."""
    node %= len(play.cluster.names)
    asked = play.asked(node)
    if what == "answer" and asked is not None:
        words = WORDS[type(asked)]
        word = words[which % len(words)]
        fence = getattr(asked, "token", 7) + which
        play.answer(node, word, **({"fence": str(fence)} if word in ("behind", "busy", "free") else {}))
    elif what == "lost" or (what == "error" and asked is not None):
        play.fail(node, what)
    elif what == "tick":
        waiting = [course.wait.until for course in play.courses if not course.done]
        if waiting:
            play.now = max(play.now, min(waiting))
            play.tick()
    elif what == "twice" and play.has_answered(node):
        play.twice(node)
    elif what in ("dialling", "connected", "dead"):
        getattr(play, what)(node)


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1.0, 10.0]), st.sets(st.integers(0, 4)), steps(EVENTS), st.booleans(), st.booleans())
def test_no_schedule_of_an_acquire_breaks_a_rule(
    nodes: int, ttl: float, unconnected: set[int], events: list[Step], cancel: bool, keeps: bool
) -> None:
    """Whatever the nodes answer, and whenever: a majority or no lease, nothing left behind, and good manners."""
    play = Play(nodes, ttl=ttl, keeps=keeps)
    for node in unconnected:
        play.dialling(node % nodes)
    course = play.acquire()
    for what, node, which, pause in events:
        play.now += pause
        happen(play, what, node, which)
        if course.done:
            break
        for owner in owners(play)[:-1]:
            check_given_back(play, owner)
    if not course.done and cancel:
        play.cancel()
    if isinstance(course.value, Holding):
        check_grant(play, ttl, 0.01)
    if course.done:
        for owner in owners(play):
            if play.holding is None or play.holding.owner != owner:
                check_given_back(play, owner)
        check_nothing_follows(play)
    check_manners(play, ttl)


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 5), steps(EVENTS + HOLDING * 2), st.booleans())
def test_no_schedule_of_extensions_moves_a_deadline_too_far(nodes: int, events: list[Step], keeps: bool) -> None:
    """The deadline is one that a majority confirmed before the old one was over; it never moves back, and an end is an end."""
    play = Play(nodes, ttl=1.0, keeps=keeps)
    play.acquire()
    for node in range(nodes):
        play.answer(node, "granted")
    lease = play.holding
    assert lease is not None
    deadline, cap, ended = lease.valid_until, float("inf"), False
    confirmed: dict[Command, set[int]] = {}
    for what, node, which, pause in events:
        play.now += pause if pause < 12 else 0.0
        before = lease.valid_until
        asked = play.asked(node % nodes)
        if what == "extend":
            play.extend(ttl=0.4 + which / 5)
        elif what == "verify":
            play.verify()
        elif what == "release":
            ended = True
            play.release()
        elif what == "limit" and cap == float("inf"):
            cap = 1.0 + which / 3
            lease.limit(cap)
            deadline, before = min(deadline, cap), min(before, cap)
        elif what in ("nearly over", "over"):
            play.now = max(play.now, lease.valid_until - (0.0 if what == "over" else 0.01))
        else:
            known = len(play.heard)
            happen(play, what, node, which)
            if len(play.heard) > known and isinstance(asked, Take) and said(play, list(play.heard)[-1]) is Kind.GRANTED:
                votes = confirmed.setdefault(asked, set())
                votes.add(node % nodes)
                if len(votes) > nodes / 2 and asked.mode == "extend" and not ended and play.now < deadline:
                    began_at = min(at for request, at in play.sent.items() if request.command is asked)
                    deadline = max(deadline, min(cap, began_at + asked.ttl * 0.99 - 0.002))
        assert before <= lease.valid_until <= deadline + 1e-9
        assert lease.valid_until <= cap
        assert not (lease.held(play.now) and (ended or play.now >= deadline))
        ended = ended or lease.status is not Status.HELD
    if lease.freed:
        check_given_back(play, lease.owner)
        assert all(len(places) <= 2 for places in released(play, lease.owner).values())
        assert all(request.not_after == float("inf") for request in play.sent if request.command.final and not request.written)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["granted", "busy", "behind", "free", "error", "late"]), min_size=1, max_size=5))
def test_an_error_says_contended_exactly_if_a_majority_answered(answers: list[str]) -> None:
    """One try, all nodes heard, no second round to be had: somebody else, or an outage."""
    nodes = len(answers)
    play = Play(nodes, ttl=1.0)
    course = play.acquire(once=True)
    for node, word in enumerate(answers):
        if course.done or word in ("granted", "behind", "free", "late"):
            continue
        play.fail(node, "error") if word == "error" else play.answer(node, "busy")
    if not course.done:
        play.now = course.wait.until
        play.tick()
    busy = answers.count("busy")
    assert isinstance(course.error, LockContended if busy > nodes / 2 else QuorumUnavailable)
    assert isinstance(course.error.tally, Tally)
