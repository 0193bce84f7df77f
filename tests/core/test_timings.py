"""The sums inside a term: accepted only with a margin, by a second formula that adds up instants
one after another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redlock.core.policy import Policy
from redlock.core.timings import ElectionTimings
from redlock.errors import ConfigurationError

SHARES = st.one_of(st.none(), st.floats(0.0, 1.2, allow_nan=False))


def margin(timings: ElectionTimings) -> float:
    """A leader renews at 0 and never again. Everything is as late as it may be, and the nodes'
    clocks are as fast as they may be: seconds from the end of its work to the next leader."""
    next_may_start = timings.ttl - timings.ttl * timings.drift_factor - 0.002
    told_to_stop = next_may_start - timings.kill - timings.stop + timings.slack
    stopped = told_to_stop + timings.stop  # As long as it may take, and stopped by force then.
    return next_may_start - stopped


@settings(deadline=None, max_examples=2000)
@given(
    st.floats(0.05, 1e4),
    *[SHARES] * 6,
    st.floats(0.0, 0.4),
)
def test_what_is_accepted_leaves_a_margin(
    ttl: float,
    renewal: float | None,
    node_timeout: float | None,
    jeopardy: float | None,
    stop: float | None,
    kill: float | None,
    slack: float | None,
    drift_factor: float,
) -> None:
    """Whatever is given: the next leader starts when the last one has certainly stopped; and a
    renewal that fails is known before the jeopardy."""
    shares = {
        "renewal": renewal,
        "node_timeout": node_timeout,
        "jeopardy": jeopardy,
        "stop": stop,
        "kill": kill,
        "slack": slack,
    }
    given = {name: share * ttl for name, share in shares.items() if share is not None}
    try:
        timings = ElectionTimings(ttl=ttl, drift_factor=drift_factor, **given)
    except ConfigurationError:
        return
    assert margin(timings) > 0
    validity = ttl - ttl * drift_factor - 0.002
    failed = timings.renewal + timings.node_timeout + timings.slack
    assert failed <= validity - timings.kill - timings.stop - timings.jeopardy + 1e-9


@pytest.mark.parametrize("ttl", [0.1, 0.3, 0.5, 1.0, 2.0, 15.0, 60.0, 3600.0])
def test_what_is_derived_from_a_ttl_holds(ttl: float) -> None:
    """With nothing but a ttl given, at any scale."""
    timings = ElectionTimings(ttl=ttl)
    assert margin(timings) > 0
    assert 0 < timings.jeopardy_after < timings.validity - timings.stop_before


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        ({"kill": 0.5}, ["14.85", "kill=0.5", "slack=0.5"]),
        ({"kill": 0.2}, ["15.15", "14.85"]),
        ({"stop": 10.0}, ["4.5", "1.098"]),
        ({"renewal": 9.0}, ["9.75", "8.098"]),
        ({"drift_factor": 0.45}, ["4.5", "1.498"]),
    ],
)
def test_a_sum_that_does_not_hold_is_refused_with_both_numbers(
    arguments: dict[str, float], numbers: list[str]
) -> None:
    """The message has what was added up, and what it had to stay below."""
    with pytest.raises(ConfigurationError) as caught:
        ElectionTimings(ttl=15.0, **arguments)
    assert all(number in str(caught.value) for number in numbers), caught.value


@pytest.mark.parametrize(
    "arguments",
    [
        *[{name: -1.0} for name in ("renewal", "node_timeout", "jeopardy", "stop", "kill")],
        *[{name: float("nan")} for name in ("ttl", "renewal", "stop", "slack")],
        *[{name: 0.0} for name in ("ttl", "renewal", "kill", "slack", "node_timeout")],
        {"stop": True},
        {"ttl": float("inf")},
        {"drift_factor": 0.5},
    ],
)
def test_what_is_no_duration_is_refused(arguments: dict[str, float]) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        ElectionTimings(**{"ttl": 15.0, **arguments})


def test_a_coordinator_that_waits_longer_is_counted() -> None:
    """Its drift and its node timeout are what renewals really have."""
    timings = ElectionTimings(ttl=15.0).under(Policy(ttl=15.0, node_timeout=1.0, drift_factor=0.02))
    assert (timings.node_timeout, timings.drift_factor) == (1.0, 0.02)
    with pytest.raises(ConfigurationError, match="node_timeout=4"):
        ElectionTimings(ttl=15.0).under(Policy(ttl=15.0, node_timeout=4.5))


def test_the_budget_is_in_order() -> None:
    """Instants after the last renewal follow each other as a term ends."""
    budget = ElectionTimings().budget()
    after = [value for name, value in budget.items() if name.endswith("after")]
    assert after == sorted(after)
    assert budget["margin"] > 0
