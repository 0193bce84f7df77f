"""The flows of the first meeting and of a look as transcripts: who is waited for, and which list
is refused."""

from __future__ import annotations

from tests.core.flows import Play, check, identity_of


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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.28
        0.040 1 3 granted
            held A:1024000 until 9.928, touched 1 2 3
    """)


def test_a_silent_node_is_waited_for_no_longer_than_the_node_timeout() -> None:
    """Once: the next acquire does not wait for it again."""
    check("""
        3 nodes barging unmet
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
            TAKE A:1024000 place - -> 1 2 3
        0.100 tick
            FREE A:1024000 place ? -> 1 2 3
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
            ConfigurationError: lock 'r': no majority of these nodes may vote: n1, n2: is a slave, not
              a master: name masters alone
        1.000 acquire
            GREET -> 1 2 3
            wait until 1.25
        1.010 1 2 replica
        1.010 3 admitted
            ConfigurationError: lock 'r': no majority of these nodes may vote: n1, n2: is a slave, not
              a master: name masters alone
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
            ConfigurationError: lock 'r': no majority of these nodes may vote: n1 is a slave, not a
              master
              n2 may evict locks (maxmemory-policy allkeys-lru, must be noeviction): name masters alone
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
            ConfigurationError: lock 'r': the node list is wrong: n1 is the same server as n2 (run id
              run-1): correct the node list
    """)


def test_a_ttl_above_the_clusters_max_ttl_is_an_error_of_the_first_acquire() -> None:
    """The nodes would refuse it; the message names both."""
    check("""
        3 nodes unmet
        0.000 acquire ttl=20
            GREET -> 1 2 3
            wait until 0.25
        0.010 1 2 3 admitted max_ttl=15
            ConfigurationError: lock 'r': ttl=20 is above the cluster's max_ttl=15: ask for less, or
              raise it: `redlock init --max-ttl 20`
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
    assert play.out[0] == "FREE A:1024000 place ? -> 1 2 3"
    assert play.out[-2:] == [
        "ConfigurationError: no majority of these nodes may vote: n1, n2: is a slave, not a master:",
        "  name masters alone",
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
