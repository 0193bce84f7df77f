"""The validity arithmetic, and the one-way life of a holding, against a version that remembers
everything that happened."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.grant import Grant
from redlock.core.lease import Holding, Status, longest_ttl, valid_until, validity
from redlock.errors import LeaseLost, LeaseReleased

INSTANTS = st.floats(0.0, 1e7)
TTLS = st.floats(0.01, 1e5)
DRIFTS = st.floats(0.0, 0.49)
ROUNDING = 1e-6
"""Floats of this size carry about a nanosecond; a node's TTL is a whole number of milliseconds."""


def holding(until: float = 10.0, granted_at: float = 0.0) -> Holding:
    return Holding(
        Grant("r", "redlock:r", "redlock:r:fence", "A", 7, 600.0),
        10.0,
        granted_at,
        until,
        frozenset({0, 1, 2}),
    )


@settings(deadline=None)
@given(INSTANTS, TTLS, DRIFTS)
def test_validity_is_the_ttl_less_drift_from_the_first_write_on(
    sent_at: float, ttl: float, drift: float
) -> None:
    """`sent_at + ttl - (ttl * drift_factor + 2 ms)`, computed exactly."""
    exact = (
        Fraction(sent_at) + Fraction(ttl) - (Fraction(ttl) * Fraction(drift) + Fraction(2, 1000))
    )
    assert valid_until(sent_at, ttl, drift) == pytest.approx(float(exact), abs=ROUNDING)
    assert valid_until(sent_at, ttl, drift) < sent_at + ttl


@settings(deadline=None)
@given(TTLS, DRIFTS)
def test_validity_ends_before_the_lock_on_the_fastest_clock_does(ttl: float, drift: float) -> None:
    """A node whose clock runs faster by *drift* drops the key after ttl / (1 + drift) of our
    seconds: later than the validity."""
    assert validity(ttl, drift) < ttl / (1 + drift)


@settings(deadline=None)
@given(INSTANTS, TTLS, DRIFTS)
def test_longest_ttl_is_the_inverse_of_valid_until(
    sent_at: float, ttl: float, drift: float
) -> None:
    """Asking for the longest ttl moves the deadline exactly to where it may be."""
    until = valid_until(sent_at, ttl, drift)
    assert longest_ttl(sent_at, until, drift) == pytest.approx(ttl, abs=ROUNDING)
    assert valid_until(sent_at, longest_ttl(sent_at, until, drift), drift) == pytest.approx(
        until, abs=ROUNDING
    )


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("renewed"), st.floats(0.0, 30.0)),
        st.tuples(st.just("limit"), st.floats(0.1, 30.0)),
        st.tuples(st.just("lose"), st.just(0.0)),
        st.tuples(st.just("end"), st.just(0.0)),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(EVENTS, st.lists(st.floats(0.0, 40.0), min_size=1))
def test_a_lease_lives_once_and_its_deadline_moves_forward_only(
    events: list[tuple[str, float]], instants: list[float]
) -> None:
    """Held: before the latest deadline it was given, within `max_hold`, and before anything
    ended it. The first end stays."""
    lease = holding(until=10.0, granted_at=1.0)
    deadline, cap, ended = 10.0, float("inf"), ""
    for event, number in events:
        if event == "renewed":
            lease.renewed(number, 5.0)
            deadline = max(deadline, min(number, cap)) if not ended else deadline
        elif event == "limit":
            lease.limit(number)
            cap = 1.0 + number
            deadline = min(deadline, cap)
        elif event == "lose":
            assert lease.lose("gone") == (not ended)
            ended = ended or "LOST"
        else:
            assert lease.end() == (not ended)
            ended = ended or "RELEASED"
        assert lease.valid_until == deadline
        assert lease.status.name == (ended or "HELD")
    for at in instants:
        held = at < deadline and not ended
        assert lease.held(at) == held
        error = lease.error(at)
        assert (error is None) == held
        if not held:
            assert isinstance(error, LeaseReleased if ended == "RELEASED" else LeaseLost)


def test_a_lease_is_over_at_its_deadline_and_not_after_it() -> None:
    """The instant `valid_until` itself is no longer covered."""
    assert holding(until=10.0).held(9.999999)
    assert not holding(until=10.0).held(10.0)


def test_a_renewal_after_the_end_changes_nothing() -> None:
    """A late reply to an extension must not bring a released or lost lease back."""
    for status in (Status.RELEASED, Status.LOST):
        lease = holding(until=10.0)
        lease.end() if status is Status.RELEASED else lease.lose("gone")
        lease.renewed(20.0, 10.0)
        assert (lease.valid_until, lease.status, lease.held(5.0)) == (10.0, status, False)


def test_a_shorter_renewal_keeps_deadline_and_ttl() -> None:
    """`extend(ttl=1)` of a lease of 10 s leaves it as it is: the holder may rely on the longer."""
    lease = holding(until=10.0)
    lease.renewed(3.0, 1.0)
    assert (lease.valid_until, lease.ttl) == (10.0, 10.0)


def test_no_renewal_moves_the_deadline_past_max_hold() -> None:
    """Not even one that was asked for before the limit was set."""
    lease = holding(until=10.0, granted_at=1.0)
    lease.limit(12.0)
    lease.renewed(20.0, 10.0)
    assert lease.valid_until == 13.0
    lease.renewed(30.0, 10.0)
    assert lease.valid_until == 13.0


def test_the_error_names_resource_token_and_reason() -> None:
    """What a holder reads when it may not go on."""
    lease = holding(until=10.0)
    assert (
        str(lease.error(12.5))
        == "the lease on 'r' with fencing token 7 is lost: its validity ended 2.5 s ago:"
        " stop what it guarded"
    )
    lease.lose("a majority said so")
    assert (
        str(lease.error(1.0))
        == "the lease on 'r' with fencing token 7 is lost: a majority said so:"
        " stop what it guarded"
    )
    released = holding()
    released.end()
    assert str(released.error(1.0)) == "the lease on 'r' was released: acquire the lock again"
