"""What a history comes to, on histories written by hand: no run is needed to see that a verdict
can be bad."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chaos.checker import Assumptions
from chaos.history import Accepted, Called, Note, Record, Refused, Seen
from chaos.live.play import Claim, Injection, Phase
from chaos.live.scenario import Expected, Role, Scenario, Steady
from chaos.live.verdict import Verdict, judge
from redlock.core.events import LeaseGranted, LeaseReleasing, TryStarted

DURING = [Phase("before", 0.0, 10.0), Phase("during", 10.0, 20.0), Phase("after", 20.0, 30.0)]


def lease(
    client: str, token: int, since: float, until: float | None, *, valid: float = 5.0
) -> list[Record]:
    """A grant, and its release if it has one."""
    owner = f"{client}-{token}"
    records: list[Record] = [
        Seen(since - 0.1, client, TryStarted(since - 0.1, "r", owner, token, 1)),
        Seen(since, client, LeaseGranted(since, "r", owner, token, since - 0.1, since + valid)),
        Called(since, client, "r", "acquire", 0.1, "granted", token),
    ]
    if until is not None:
        records.append(Seen(until, client, LeaseReleasing(until, "r", owner, token)))
    return records


def verdict(
    expected: Expected,
    history: Sequence[Record],
    *,
    claims: Sequence[Claim] = (),
    trouble: str = "",
    assumptions: Assumptions | None = None,
    also: frozenset[Expected] = frozenset(),
) -> Verdict:
    """Judge *history* as a scenario with *expected*."""
    scenario = Scenario(
        id="T",
        title="by hand",
        expected=expected,
        roles=(Role("contend", "blocking"),),
        script=Steady(),
        assumptions=assumptions or Assumptions(),
        also=also,
    )
    return judge(
        scenario,
        history,
        DURING,
        claims,
        [Injection("link", "f", 0.01, heals=False)],
        trouble,
        30.0,
    )


ORDERLY = [*lease("a", 1, 1.0, 2.0), *lease("b", 2, 11.0, 12.0), *lease("a", 3, 21.0, 22.0)]
OVERLAP = [*lease("a", 1, 11.0, 14.0), *lease("b", 2, 12.0, 13.0)]


def test_an_orderly_run_is_safe() -> None:
    """Grants in every phase, one after the other."""
    found = verdict(Expected.SAFE, ORDERLY)
    assert (found.observed, found.ok) == (Expected.SAFE, True)
    assert found.metrics["grants"] == 3 and found.metrics["overlap_ms"] == 0
    assert found.metrics["availability"] == {"before": 1.0, "during": 1.0, "after": 1.0}


def test_two_holders_are_a_violation_and_how_long_is_told() -> None:
    """Where mutual exclusion was promised, an overlap is never as expected."""
    for expected in (Expected.SAFE, Expected.DEGRADED, Expected.UNSAFE):
        found = verdict(expected, OVERLAP)
        assert (found.observed, found.ok) == ("violated", False)
        assert found.metrics["overlap_ms"] == pytest.approx(1000.0)


def test_three_holders_at_once_count_no_longer_than_two() -> None:
    """How long there was more than one is a time of the run, and not a sum over pairs."""
    three = [*OVERLAP, *lease("c", 3, 12.5, 13.5)]
    assert verdict(Expected.SAFE, three).metrics["overlap_ms"] == pytest.approx(1500.0)


def test_unsafe_by_assumption_needs_a_clean_store() -> None:
    """A stale write that the store took is a violation under every assumption."""
    stale = [Accepted(12.5, "b", "r", 2, 0, 1), Accepted(13.5, "a", "r", 1, 1, 2)]
    found = verdict(
        Expected.UNSAFE, [*OVERLAP, *stale], assumptions=Assumptions(timing=False, kept=True)
    )
    assert not found.ok and found.metrics["stale_accepted"] == 1
    refused = [Accepted(12.5, "b", "r", 2, 0, 1), Refused(13.5, "a", "r", 1, 2)]
    found = verdict(
        Expected.UNSAFE, [*OVERLAP, *refused], assumptions=Assumptions(timing=False, kept=True)
    )
    assert found.ok and found.metrics["stale_refused"] == 1


def test_a_lost_update_of_the_shadow_shows_that_the_fault_bit() -> None:
    """A zombie's write that only the token kept out counts as unsafe by assumption, without any
    overlap of leases."""
    bitten = [*ORDERLY, Note(12.0, "a", "unfenced-lost-update", "r")]
    assert verdict(Expected.UNSAFE, bitten).ok
    assert verdict(Expected.SAFE, bitten).observed == Expected.UNSAFE


def test_a_control_that_is_not_found_out_has_failed() -> None:
    """It must be convicted; an orderly history of broken clients means that the campaign is
    blind."""
    assert verdict(Expected.MUST_FAIL, OVERLAP).ok
    assert not verdict(Expected.MUST_FAIL, ORDERLY).ok
    assert not verdict(Expected.MUST_FAIL, OVERLAP, trouble="its script did not come to its end").ok


def test_unavailable_means_that_somebody_asked_and_nobody_was_granted() -> None:
    """Not that nobody asked, and not that somebody else held it."""
    quiet = [*lease("a", 1, 1.0, 2.0), *lease("a", 3, 21.0, 22.0)]
    denied = [*quiet, Called(15.0, "b", "r", "acquire", 3.0, "unavailable")]
    assert verdict(Expected.UNAVAILABLE, denied).ok
    assert not verdict(Expected.UNAVAILABLE, quiet).ok
    assert not verdict(
        Expected.UNAVAILABLE, [*quiet, Called(15.0, "b", "r", "acquire", 3.0, "contended")]
    ).ok
    assert not verdict(Expected.UNAVAILABLE, [*denied, *lease("a", 2, 16.0, 17.0)]).ok
    assert not verdict(Expected.SAFE, denied).ok


def test_degraded_is_not_safe_and_safe_is_not_worse_than_degraded() -> None:
    """What was to be safe may not lose acquires; what may lose some may also lose none."""
    losing = [*ORDERLY, Called(15.0, "b", "r", "acquire", 3.0, "unavailable")]
    assert verdict(Expected.DEGRADED, losing).ok and verdict(Expected.DEGRADED, ORDERLY).ok
    assert not verdict(Expected.SAFE, losing).ok
    assert verdict(Expected.SAFE, losing, also=frozenset({Expected.DEGRADED})).ok


def test_a_claim_that_does_not_hold_a_crash_and_trouble_fail_any_scenario() -> None:
    """Whatever the figures say."""
    assert not verdict(Expected.SAFE, ORDERLY, claims=[Claim("it rains", False)]).ok
    assert not verdict(Expected.SAFE, ORDERLY, trouble="a grant did not happen").ok
    assert not verdict(Expected.SAFE, [*ORDERLY, Note(15.0, "a", "crashed", "ValueError")]).ok
    assert verdict(Expected.SAFE, ORDERLY, claims=[Claim("it rains", True)]).ok


def test_acquires_of_locks_that_nobody_else_wants_say_what_the_nodes_are_worth() -> None:
    """Where there are such, availability and latency are theirs alone."""
    alone = [
        Called(15.0, "p", "r:p", "acquire", 0.5, "granted", 9),
        Called(16.0, "p", "r:p", "acquire", 3.0, "unavailable"),
    ]
    figures = verdict(Expected.DEGRADED, [*ORDERLY, *alone]).metrics
    assert figures["availability"]["during"] == 0.5
    assert figures["acquire"]["during"]["max"] == 0.5
