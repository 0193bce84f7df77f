"""The schedule of renewals and deadlines, by hand: what is due when, and what is never due."""

from __future__ import annotations

from redlock.core.grant import Grant
from redlock.core.lease import Holding
from redlock.core.renewal import COMPACT_MIN, RENEW_SHARE, RETRY_MAX, Renewal, Watch

TTL = 9.0


def holding(ttl: float = TTL, *, now: float = 0.0) -> Holding:
    return Holding(
        Grant("orders", "k", "k:fence", "owner", 1, 600.0), ttl, now, now + ttl, frozenset({0})
    )


def watch(lease: Holding, *, renew: bool = True, now: float = 0.0) -> Watch:
    return Watch(lease, lambda _: None, ttl=lease.ttl if renew else None, now=now)


def test_a_lease_at_the_end_of_its_max_hold_is_not_renewed_and_is_lost_in_time() -> None:
    """No renewal could move its deadline: none is begun, and the next look is at the deadline
    and not at once."""
    lease = holding()
    lease.limit(TTL)
    schedule = Renewal()
    schedule.add(watch(lease))
    assert schedule.next_at == TTL
    for now in (TTL / RENEW_SHARE, TTL - 0.1):
        assert schedule.due(now, 10) == ([], [])
        assert schedule.next_at == TTL
    extend, lost = schedule.due(TTL, 10)
    assert extend == [] and [each.holding for each in lost] == [lease]


def test_a_renewal_that_reaches_the_max_hold_is_the_last_one() -> None:
    """Also where the lease was due once more when that renewal was confirmed."""
    lease = holding()
    lease.limit(1.5 * TTL)
    schedule = Renewal()
    one = watch(lease)
    schedule.add(one)
    assert schedule.due(TTL / RENEW_SHARE, 10) == ([one], [])
    lease.renewed(2 * TTL, TTL)
    assert lease.valid_until == lease.hold_until
    assert not schedule.extended(one, None, 4.0)
    assert schedule.due(lease.hold_until - 0.1, 10) == ([], [])
    assert schedule.due(lease.hold_until, 10) == ([], [one])


def test_a_lease_that_waits_for_its_renewal_is_not_renewed_past_its_max_hold() -> None:
    """Its entry in the schedule is from before `limit` had its word."""
    lease = holding()
    schedule = Renewal()
    schedule.add(watch(lease))
    lease.hold_until = lease.valid_until
    assert schedule.due(TTL / RENEW_SHARE, 10) == ([], [])


def test_no_more_than_the_limit_are_due_and_the_others_keep_their_deadlines() -> None:
    """What there is no room for is due later, or lost, but never forgotten."""
    schedule = Renewal()
    leases = [holding() for _ in range(3)]
    for lease in leases:
        schedule.add(watch(lease))
    extend, lost = schedule.due(TTL / RENEW_SHARE, 2)
    assert [each.holding for each in extend] == leases[:2] and not lost and schedule.ready
    extend, lost = schedule.due(TTL / RENEW_SHARE + 0.1, 2)
    assert [each.holding for each in extend] == leases[2:] and not schedule.ready
    _, lost = schedule.due(TTL, 0)
    assert {id(each.holding) for each in lost} == {id(lease) for lease in leases}


def test_a_failed_renewal_is_tried_again_soon_and_a_confirmed_one_after_a_third() -> None:
    """At most half a second between tries, however long the lease."""
    lease = holding(90.0)
    schedule = Renewal()
    one = watch(lease)
    schedule.add(one)
    schedule.due(30.0, 1)
    assert not schedule.extended(one, TimeoutError(), 31.0)
    assert schedule.next_at == 31.0 + RETRY_MAX
    schedule.due(31.5, 1)
    lease.renewed(31.5 + 90.0, 90.0)
    assert not schedule.extended(one, None, 32.0)
    assert schedule.next_at == 32.0 + (lease.valid_until - 32.0) / RENEW_SHARE


def test_a_renewal_that_would_be_tried_again_after_the_deadline_does_not_put_the_deadline_off() -> (
    None
):
    """The lease is lost when its validity ends, and not at the next try, half a second later."""
    lease = holding(90.0)
    schedule = Renewal()
    one = watch(lease)
    schedule.add(one)
    schedule.due(89.5, 1)
    assert not schedule.extended(one, TimeoutError(), 89.9)
    extend, lost = schedule.due(90.0, 1)
    assert not extend and one in lost


def test_a_lease_is_lost_once() -> None:
    """Also where a retry fell past its deadline, which then has two entries, and where a renewal
    of it is still under way."""
    lease = holding()
    schedule = Renewal()
    one = watch(lease)
    schedule.add(one)
    assert schedule.due(TTL / RENEW_SHARE, 10) == ([one], [])
    assert not schedule.extended(one, TimeoutError(), TTL - 0.01)
    assert schedule.due(TTL, 10) == ([], [one])
    assert schedule.due(TTL + 1.0, 10) == ([], [])
    two = watch(holding(now=20.0), now=20.0)
    schedule.add(two)
    assert schedule.due(20.0 + TTL / RENEW_SHARE, 10) == ([two], [])
    assert schedule.due(20.0 + TTL, 10) == ([], [two])
    assert not schedule.extended(two, TimeoutError(), 20.0 + TTL)


def test_what_was_given_back_does_not_stay_until_its_ttl_has_passed() -> None:
    """Twenty thousand leases of an hour, each released at once, beside some that are kept: the
    schedule stays small, and what is under watch is still due when it should be.
    """
    schedule = Renewal()
    kept = [watch(holding(3600.0 + number)) for number in range(100)]
    lost = watch(holding(5.0), renew=False)
    for each in (*kept, lost):
        schedule.add(each)
    lost.holding.lose("it was dropped")
    for number in range(20_000):
        each = watch(holding(3600.0), renew=number % 2 == 0)
        schedule.add(each)
        each.holding.end()
        assert len(schedule._heap) <= 2 * (len(kept) + 1) + COMPACT_MIN
    assert schedule.due(5.0, 1000) == ([], [lost])
    assert schedule.due(1200.0 + 100.0, 1000) == (kept, [])
