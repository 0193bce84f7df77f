"""The flow of an acquire as transcripts: looks, pauses and deadlines between its tries."""

from __future__ import annotations

from redlock.core.commands import Free, Take
from tests.core.flows import check

# Waiting


def test_every_try_has_a_fresh_owner_and_follows_the_release_of_the_last() -> None:
    """A release of the first try that comes late can then never delete the lock of the second.
    Its token is past all fences."""
    play = check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 granted
        0.020 2 3 error
            FREE A:1024000 place ? -> 1 2 3
            PEEK place 1 -> 1 2 3
            wait until 0.27
        0.030 1 2 3 freed
        0.050 1 free fence=2000000
        0.050 2 free fence=1024001
            TAKE B:2000001 place 1 -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.010 3 busy ttl=3
        0.010 3 others
        0.030 1 2 busy ttl=3
            pause until 0.05
        0.030 3 free
        0.060 tick
            PEEK place 1 -> 1 2 3
            wait until 0.31
        0.070 1 busy ttl=3
        0.080 2 3 free fence=1024001
            TAKE B:1024002 place 1 -> 1 2 3
            wait until 0.33
        0.080 1 2 3 granted
            held B:1024002 until 9.978, touched 1 2 3
    """)


def test_half_of_the_nodes_free_is_not_enough_to_try() -> None:
    """A try that cannot win would take the free nodes from the holder, who may want to top up
    there."""
    check("""
        5 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3 4 5
            wait until 0.25
        0.010 1 2 3 busy ttl=3
            FREE A:1024000 place ? -> 4 5
            PEEK place 1 -> 1 2 3 4 5
            wait until 0.26
        0.030 1 2 free
        0.040 3 4 busy ttl=3
        0.050 5 busy ttl=3
    """)


def test_a_look_waits_for_the_free_ones_no_longer_than_it_must() -> None:
    """Silent nodes end it after the node timeout; the next look follows a pause."""
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=3
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.040 1 free
        0.280 tick
            LEAVE place 1 -> 1 2 3
            pause until 0.308
        0.310 tick
            PEEK -> 1 2 3
            wait until 0.56
    """)


def test_a_pause_is_jittered_and_doubles_up_to_the_retry_delay() -> None:
    """An eighth of 0.1 s first. The dice show the jitter: from half of the pause (0) to nearly
    all of it (1023)."""
    check("""
        1 nodes barging retry_delay=0.1
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
        3 nodes barging retry_delay=8
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
        3 nodes barging retry_delay=8
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.1
        0.010 1 granted
        0.100 tick
            FREE A:1024000 place ? -> 1 2 3
            QuorumUnavailable: 1 of 3 nodes granted, 2 needed, after 0.1 s
              n2 did not answer within 0.1 s
              n3 did not answer within 0.1 s
    """)


def test_a_deadline_that_cuts_a_look_short_keeps_the_earlier_verdict() -> None:
    """Contended a moment ago: that the last look had no time to hear an answer is no outage."""
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.1
        0.010 1 2 busy ttl=9
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
        0.100 tick
            LEAVE place 1 -> 1 2 3
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.1 s
              n1 is held by X:7... for 9 s more
              n2 is held by X:7... for 9 s more
              n3 was not waited for
    """)
    check("""
        3 nodes
        0.000 acquire timeout=0.1
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.1
        0.010 1 2 error
            FREE A:1024000 place ? -> 1 2 3
            PEEK place 1 -> 1 2 3
        0.100 tick
            LEAVE place 1 -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.1
        0.010 1 2 busy ttl=9
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
        0.030 1 2 error
            LEAVE place 1 -> 1 2 3
            pause until 0.05
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
            TAKE A:1024000 place - -> 1 2 (3)
            wait until 0.25
        0.010 1 2 error
            FREE A:1024000 place ? -> 1 2
            PEEK place 1 -> 1 2 (3)
            wait until 0.26
        0.030 1 2 lost
            PEEK place 1 -> 1
            PEEK place 1 -> 2
        0.040 1 2 lost
            LEAVE place 1 -> 1 2 (3)
            pause until 0.06
        0.050 1 freed
        0.100 tick
            PEEK -> 1 2 (3)
            wait until 0.35
        0.110 1 2 free fence=1024001
            TAKE B:1024002 place 1 -> 1 2 (3)
            wait until 0.36
        0.120 1 2 granted
            held B:1024002 until 10.008, touched 1 2
    """)


def test_who_reaches_no_majority_stands_in_nobodys_way() -> None:
    """The node that it still reaches may be one of those that others need. It comes back in its old
    place, as soon as it reaches enough."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.020 3 busy
        0.020 3 freed
        0.020 1 turn
        0.020 2 3 error
            LEAVE place 1 -> 1 2 3
            pause until 0.04
        0.020 1 2 3 freed
        0.040 tick
            PEEK -> 1 2 3
            wait until 0.29
        0.050 1 busy
        0.050 2 3 error
            pause until 0.07
        0.070 tick
            PEEK -> 1 2 3
            wait until 0.32
        0.080 1 2 busy
            PEEK place 1 -> 1 2 3
            wait until 0.33
        0.080 3 busy
        0.090 1 2 busy
            pause until 0.11
    """)


# A foreign lock without an expiry


def test_a_lock_without_an_expiry_gets_one_on_request() -> None:
    """Only where it has none, and only with `repair_missing_ttl`: one of max_ttl."""
    check("""
        3 nodes repair
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 busy ttl=-0.001
        0.010 2 busy ttl=3
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
        0.020 1 2 busy ttl=-0.001
            REPAIR 60000 ms -> 1 2
            pause until 0.04
        0.020 1 repaired
    """)
    check("""
        3 nodes repair
        0.000 acquire once
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=-0.001
            FREE A:1024000 place ? -> 3
            REPAIR 60000 ms -> 1 2
            LockContended: 0 of 3 nodes granted, 2 needed, after 0.01 s
              n1 is held by X:7... without an expiry (repair_missing_ttl=True gives it one)
              n2 is held by X:7... without an expiry (repair_missing_ttl=True gives it one)
              n3 was not waited for
    """)
    check("""
        3 nodes
        0.000 acquire timeout=5
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 busy ttl=-0.001
            FREE A:1024000 place ? -> 3
            PEEK place 1 -> 1 2 3
            wait until 0.26
    """)
