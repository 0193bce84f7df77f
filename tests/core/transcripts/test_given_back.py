"""The flow of one try as transcripts: what was not won is given back, wherever a TAKE may have
been executed."""

from __future__ import annotations

from tests.core.flows import check


def test_a_release_goes_to_all_nodes_that_may_have_executed_a_take() -> None:
    """To those that granted, found the token too small, failed or were silent; not to one that
    said somebody else holds it."""
    check("""
        7 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5 6 7
            wait until 0.25
        0.010 1 granted
        0.020 2 behind fence=5
        0.030 3 busy
        0.040 4 error
        0.050 5 lost
            TAKE A:1024000 place - -> 5
        0.060 5 lost
        0.250 tick
            FREE A:1024000 place ? -> 1 2 4 5 6 7
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
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 behind fence=1024500
            TAKE A:1024501 place - -> 1 2 3 4 5
            wait until 0.26
        0.020 4 5 busy
        0.030 1 2 busy
        0.040 4 busy
            FREE A:1024501 place ? -> 1 2 3 4 5
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 lost
            TAKE A:1024000 place - -> 1
        0.020 1 busy
        0.030 2 3 busy
            FREE A:1024000 place ? -> 1 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.03 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 was not waited for
    """)


def test_what_was_not_written_is_withdrawn_and_needs_no_release() -> None:
    """Nodes 4 and 5 are being dialled. When they are connected, the try is over: nothing of it
    may reach them."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 busy
            LockContended: 0 of 5 nodes granted, 3 needed, after 0.01 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 is held by X:7... for 5 s more
              n4 was not waited for
              n5 was not waited for
        0.020 4 5 connected
            4 is never sent TAKE A:1024000 place -
            5 is never sent TAKE A:1024000 place -
    """)
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
        0.030 release
            FREE A:1024000 place - -> 1 2 3
            wait until 0.28
    """)


def test_a_request_is_never_written_after_its_time() -> None:
    """The node was connected too late for the round: it never hears of it."""
    check("""
        3 nodes
        0.000 3 dialling
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 (3)
            wait until 0.25
        0.010 1 granted
        0.300 3 connected
            3 is never sent TAKE A:1024000 place -
        0.300 tick
            FREE A:1024000 place ? -> 1 2
            PEEK place 1 -> 1 2 3
            wait until 0.55
    """)


def test_a_lost_connection_is_asked_again_once() -> None:
    """A server that closes idle connections must not cost the first acquire of the day its
    majority."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.001 1 2 3 lost
            TAKE A:1024000 place - -> 1
            TAKE A:1024000 place - -> 2
            TAKE A:1024000 place - -> 3
        0.010 1 3 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.001 1 2 3 lost
            TAKE A:1024000 place - -> 1
            TAKE A:1024000 place - -> 2
            TAKE A:1024000 place - -> 3
        0.010 1 2 lost
            FREE A:1024000 place ? -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 stranger
            TAKE A:1024000 place - -> 1
        0.020 2 granted
        0.030 1 granted
            held A:1024000 until 9.898, touched 1 2 3
    """)
    check("""
        3 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 stranger
            TAKE A:1024000 place - -> 1
        0.020 2 granted
        0.030 1 stranger
        0.040 3 lost
            TAKE A:1024000 place - -> 3
        0.050 3 stranger
            FREE A:1024000 place ? -> 1 2 3
            QuorumUnavailable: 1 of 3 nodes granted, 2 needed, after 0.05 s
              n1 is not the node that was admitted
              n3 is not the node that was admitted
    """)


def test_nothing_is_asked_again_once_the_try_was_given_back() -> None:
    """A TAKE behind its own release would leave a lock that nobody knows of."""
    check("""
        5 nodes
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 busy
        0.020 3 error
            FREE A:1024000 place ? -> 3 4 5
        0.030 4 lost
        0.040 5 stranger
            QuorumUnavailable: 0 of 5 nodes granted, 3 needed, after 0.04 s
              n1 is held by X:7... for 5 s more
              n2 is held by X:7... for 5 s more
              n3 said OOM
              n4 lost the connection
              n5 is not the node that was admitted
    """)
