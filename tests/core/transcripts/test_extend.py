"""The flow of an extension as transcripts: when it moves the deadline, and when it loses the
lease."""

from __future__ import annotations

from tests.core.flows import check


def test_an_extension_moves_the_deadline_from_its_own_first_write() -> None:
    """Decided at the q-th confirmation; from now on every node may hold the lock."""
    check("""
        5 nodes
        0.000 4 5 dialling
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3 (4) (5)
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        3.000 4 5 connected
            4 is never sent TAKE A:1024000 place -
            5 is never sent TAKE A:1024000 place -
        3.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3 4 5
            wait until 3.25
        3.100 1 2 granted
        3.200 4 granted
            done
        3.300 status
            held, valid until 12.898
        3.300 release
            FREE A:1024000 place - -> 1 2 3 4 5
            wait until 3.55
    """)


def test_a_shorter_extension_leaves_the_deadline_where_it_is() -> None:
    """The holder may rely on the longer."""
    check("""
        3 nodes
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.998, touched 1 2 3
        0.990 extend
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 0.998
        0.995 1 granted
        0.998 2 granted
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0 s
              ago: stop what it guarded
        0.998 status
            over, valid until 0.998
    """)
    check("""
        3 nodes ttl=1 drift_factor=0
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.998, touched 1 2 3
        0.990 extend
            EXTEND by 1 A:1024000 -> 1 2 3
            wait until 0.998
        0.998 tick
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0 s
              ago: stop what it guarded
    """)


def test_an_extension_of_a_lease_that_ended_sends_nothing() -> None:
    """Dead for ever, whatever the nodes would say."""
    check("""
        3 nodes ttl=1
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.05
        0.010 1 2 3 granted
            held A:1024000 until 0.988, touched 1 2 3
        1.000 extend
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: its validity ended 0.012 s
              ago: stop what it guarded
    """)


def test_an_extension_that_a_majority_denies_loses_the_lease_at_once() -> None:
    """Somebody else holds the lock there, or somebody newer has been: no majority can ever
    confirm again."""
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
        1.010 1 busy
        1.020 2 behind fence=1024001
            LeaseLost: the lease on 'r' with fencing token 1024000 is lost: a majority of the nodes
              does not hold it any more: 0 of 3 nodes confirmed, 2 needed, after 0.02 s
              n1 is held by X:7... for 5 s more
              n2 refused the token: its fence is at 1024001: stop what it guarded
        1.020 status
            LOST, valid until 9.898
    """)


def test_an_extension_without_an_answer_leaves_the_lease_as_it_was() -> None:
    """Unknown is not lost: it is valid until its deadline."""
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
            TAKE A:1024000 place - -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
            wait until 0.25
        0.010 1 2 3 granted
            held A:1024000 until 9.898, touched 1 2 3
        1.000 extend
            EXTEND by 10 A:1024000 -> 1 2 3
            wait until 1.25
        1.010 1 granted
        1.020 release
            release: FREE A:1024000 place - -> 1 2 3
            release: wait until 1.27
        1.030 2 granted
            extend: LeaseReleased: the lease on 'r' was released: acquire the lock again
        1.030 status
            RELEASED, valid until 9.898
        1.040 1 2 freed
            True
    """)
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
        1.020 release
            release: FREE A:1024000 place - -> 1 2 3
            release: wait until 1.27
        1.030 1 lost
            extend: LeaseReleased: the lease on 'r' was released: acquire the lock again
            FREE A:1024000 place - -> 1
    """)


def test_max_hold_caps_every_extension() -> None:
    """Asked for is what brings the deadline exactly to the cap, and no more after that."""
    check("""
        3 nodes drift_factor=0
        0.000 acquire
            TAKE A:1024000 place - -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
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
            TAKE A:1024000 place - -> 1 2 3
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
