"""The timings of a coordinator: which relations are refused, naming both values, and what is
derived."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redlock.core.lease import validity
from redlock.core.policy import FENCE_KEPT, Policy, warn_about_nodes
from redlock.errors import ConfigurationError

TTLS = st.floats(0.001, 10_000.0)
NO_DURATIONS = [0, 0.0, -1.0, math.inf, -math.inf, math.nan, True, "10", None, [], 1j]


def refused(**settings: Any) -> str:
    """The message with which *settings* are refused."""
    with pytest.raises(ConfigurationError) as caught:
        Policy(**settings)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ttl", "retry_delay", "node_timeout", "max_ttl", "fence_ttl"])
@pytest.mark.parametrize("value", NO_DURATIONS)
def test_a_time_that_is_no_positive_finite_number_is_refused_by_name(name: str, value: Any) -> None:
    """The message names setting and value. None means "derived" for two of them, 0 "for ever"
    for the fence."""
    if (value is None and name in ("node_timeout", "max_ttl")) or (
        name == "fence_ttl" and value is not True and value == 0
    ):
        settings: dict[str, Any] = {name: value}
        Policy(**settings)
    else:
        message = refused(**{name: value})
        assert name in message
        assert repr(value) in message


@pytest.mark.parametrize("value", [-0.01, 0.5, 1.0, math.nan, math.inf, "0.01", None])
def test_a_drift_factor_that_leaves_no_validity_is_refused(value: Any) -> None:
    """Up to, and without, one half."""
    assert repr(value) in refused(drift_factor=value)


@pytest.mark.parametrize(
    "settings", [{"key_prefix": None}, {"key_prefix": b"x"}, {"durable": "yes"}]
)
def test_settings_of_another_type_are_refused(settings: dict[str, Any]) -> None:
    """Before anything is sent."""
    assert next(iter(settings)) in refused(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"ttl": 1.0, "node_timeout": 0.33},
        {"ttl": 0.004},
        {"ttl": 10.0, "max_ttl": 5.0},
        {"ttl": 10.0, "fence_ttl": 10.0},
        {"ttl": 10.0, "max_ttl": 60.0, "fence_ttl": 59.0},
        {"ttl": 10.0, "max_ttl": 60.0, "fence_ttl": 60.05},
    ],
)
def test_relations_that_cannot_work_are_refused_by_the_constructor(
    settings: dict[str, Any],
) -> None:
    """And the message names what was set."""
    message = refused(**settings)
    for value in settings.values():
        assert f"{value:g}" in message or value == 10.0


@settings(deadline=None)
@given(TTLS, st.floats(0.0, 0.49), st.one_of(st.none(), st.floats(0.001, 100.0)))
@example(ttl=10.0, drift=0.01, timeout=None)
@example(ttl=0.01, drift=0.01, timeout=None)
def test_a_ttl_is_accepted_exactly_if_three_node_timeouts_fit(
    ttl: float, drift: float, timeout: float | None
) -> None:
    """A try may take a third of the ttl; a ttl that cannot serve a single round would never be
    granted."""
    derived = min(max(0.05 * ttl, 0.02), 0.25, ttl / 5) if timeout is None else timeout
    fits = 3 * derived < ttl - (ttl * drift + 0.002)
    if fits:
        policy = Policy(ttl=ttl, drift_factor=drift, node_timeout=timeout)
        assert policy.node_timeout_for(ttl) == derived
        assert derived <= ttl / 3
    else:
        message = refused(ttl=ttl, drift_factor=drift, node_timeout=timeout)
        assert f"ttl={ttl:g}" in message
        assert f"node_timeout={derived:g}" in message


@settings(deadline=None)
@given(TTLS, TTLS)
def test_a_ttl_above_max_ttl_is_refused_naming_both(ttl: float, max_ttl: float) -> None:
    """`max_ttl` is the cluster's: nodes that forgot wait that long."""
    policy = Policy(ttl=1.0)
    if ttl > max_ttl and 3 * policy.node_timeout_for(ttl) < validity(ttl, 0.01):
        with pytest.raises(ConfigurationError, match=r"above the cluster's max_ttl") as caught:
            policy.check_ttl(ttl, max_ttl)
        assert f"ttl={ttl:g}" in str(caught.value)
        assert f"max_ttl={max_ttl:g}" in str(caught.value)


@settings(deadline=None)
@given(
    st.floats(0.1, 1000.0),
    st.one_of(st.none(), st.floats(0.1, 1000.0)),
    st.one_of(st.just(0.0), st.floats(0.001, 1000.0)),
)
def test_a_fence_outlives_every_lock(ttl: float, max_ttl: float | None, fence_ttl: float) -> None:
    """A fence that may expire before a lock does would let tokens fall; 0 keeps it for ever."""
    longest = max(ttl, max_ttl or 0.0)
    if max_ttl is not None and ttl > max_ttl:
        return
    if fence_ttl == 0 or fence_ttl * FENCE_KEPT > longest:
        assert Policy(ttl=ttl, max_ttl=max_ttl, fence_ttl=fence_ttl).fence_ttl == fence_ttl
    else:
        message = refused(ttl=ttl, max_ttl=max_ttl, fence_ttl=fence_ttl)
        assert f"fence_ttl={fence_ttl:g}" in message
        assert f"{longest:g}" in message


def test_a_policy_cannot_be_changed() -> None:
    """Timings that were checked stay as they were."""
    with pytest.raises(AttributeError):
        Policy().ttl = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (1, "plain lock"),
        (2, "tolerate no failure"),
        (4, "no more failures than 3"),
        (6, "no more failures than 5"),
    ],
)
def test_a_number_of_nodes_that_buys_nothing_is_a_warning_that_says_so(
    nodes: int, words: str
) -> None:
    """Even or fewer than three: what it costs, in a sentence."""
    with pytest.warns(UserWarning, match=words):
        warn_about_nodes(nodes)


@pytest.mark.parametrize("nodes", [3, 5, 7])
def test_three_five_and_seven_nodes_are_fine(nodes: int) -> None:
    """No warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about_nodes(nodes)
