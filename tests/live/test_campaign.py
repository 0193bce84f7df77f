"""Random rounds: the same number gives the same faults, they keep to what the round assumes, and
a short one runs."""

from __future__ import annotations

import itertools
import random

import pytest

from chaos.live.backend import Data
from chaos.live.campaign import (
    CLIENTS,
    ELECTORATE,
    KINDS,
    NODES,
    ROLES,
    TOGETHER_MAX,
    Planned,
    one_round,
    rounds,
)
from chaos.live.nemesis import ClockMoved, Flushed, Killed
from chaos.live.runner import Runner
from chaos.live.scenario import Scenario
from redlock.core.quarantine import quarantine_span


def planned(scenario: Scenario) -> tuple[Planned, ...]:
    found: tuple[Planned, ...] = scenario.script.planned  # type: ignore[attr-defined]
    return found


def test_the_same_number_gives_the_same_round() -> None:
    """Clients, servers and every fault: what replay rests on."""
    for seed in range(50):
        first, again = one_round(seed, "S61-001"), one_round(seed, "S61-001")
        assert planned(first) == planned(again)
        assert (first.ttl, first.setup, first.durable, first.assumptions) == (
            again.ttl,
            again.setup,
            again.durable,
            again.assumptions,
        )
    several = [planned(scenario) for scenario in itertools.islice(rounds(7), 20)]
    assert len({repr(faults) for faults in several}) == 20


def test_a_sound_round_keeps_to_its_assumptions() -> None:
    """No clock of a server jumps, and never do more nodes forget than a quarantine covers."""
    for seed in range(300):
        scenario = one_round(seed, "S61-001")
        if not scenario.assumptions.exclusion:
            continue
        forgot = []
        for one in planned(scenario):
            assert not isinstance(one.fault, ClockMoved)
            forgets = isinstance(one.fault, Flushed) or (
                isinstance(one.fault, Killed) and one.fault.data is not Data.DURABLE
            )
            assert not (forgets and scenario.durable)
            forgot += [(one.until, node) for node in one.fault.nodes if forgets]
        for at, _ in forgot:
            span = quarantine_span(scenario.ttl)
            assert len({node for other, node in forgot if at - span <= other <= at}) <= 2


def test_faults_of_a_round_do_not_undo_each_other() -> None:
    """At most a few at once, no two on the same link, server or process, and all within the
    round."""
    for seed in range(200):
        faults = planned(one_round(seed, "S61-001"))
        for one in faults:
            together = [other for other in faults if other.since <= one.since <= other.until]
            assert len(together) <= TOGETHER_MAX
            assert set(one.fault.nodes) <= set(NODES) and set(one.fault.clients) <= set(CLIENTS)
            assert 0 <= one.since <= one.until <= 25.0


def test_every_kind_of_round_and_of_fault_is_drawn() -> None:
    """Nothing that a campaign can do is never done."""
    scenarios = [one_round(seed, "S61-001") for seed in random.Random(1).sample(range(10**6), 400)]
    assert {scenario.title.partition(": ")[2] for scenario in scenarios} == {
        kind.name for kind in KINDS
    }
    names = {one.fault.name for scenario in scenarios for one in planned(scenario)}
    assert {
        "partition",
        "lost-replies",
        "late-requests",
        "kill",
        "pause",
        "wipe",
        "clock-jump",
        "killed-client",
    } <= names
    assert len(names) >= 25


def test_elections_have_a_fair_share_of_the_rounds() -> None:
    """Two rounds in five, and all others are of locks."""
    casts = [one_round(seed, "S61-001").roles for seed in range(200)]
    assert all(roles in (ROLES, ELECTORATE) for roles in casts)
    assert 0.3 < sum(roles == ELECTORATE for roles in casts) / len(casts) < 0.5
    assert len(ROLES) == len(ELECTORATE)


@pytest.mark.parametrize("seed", [4, 3])
def test_a_short_round_is_safe(runner: Runner, seed: int) -> None:
    """A few seconds of random faults, of locks and of an election: nothing violated, and the
    clients get on when all is healed."""
    outcome = runner.run(one_round(seed, "S61-001", 6.0), seed=seed)
    assert outcome.ok, f"{outcome.observed}: {outcome.why}\n{outcome.violations}\n{runner.errors()}"
