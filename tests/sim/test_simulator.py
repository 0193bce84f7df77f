"""The search itself: it is deterministic, it finds nothing in what ships, and it finds what is planted."""

from __future__ import annotations

import pytest

from chaos.sim.bugs import BUGS, planted
from chaos.sim.command import coverage
from chaos.sim.run import simulate
from chaos.sim.workloads import WORKLOADS

SEEDS = 60
SEEDS_FOR_A_BUG = 250


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_gives_the_same_history(workload: str) -> None:
    """Every record equal, down to its instant."""
    assert simulate(11, workload).history == simulate(11, workload).history


@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_is_found_in_what_ships(workload: str) -> None:
    """No violation in any run, and the runs were worth something: every interesting thing happened."""
    covered = coverage(simulate(0, workload))
    for seed in range(SEEDS):
        outcome = simulate(seed, workload)
        assert outcome.violations == [], f"python -m chaos sim --seed {seed} --workload {workload} --trace"
        covered += coverage(outcome)
    for what in ("second rounds", "failed tries", "quarantines", "cancels", "faults", "expiries"):
        assert covered[what], f"no {what} in {SEEDS} seeds of {workload}"


# Too rare for random seeds; their schedules have to be directed ones.
DIRECTED = {"no floor"}


@pytest.mark.parametrize("bug", sorted(set(BUGS) - DIRECTED))
def test_a_planted_bug_is_found(bug: str) -> None:
    """With one rule of the shipped code broken, some history violates a property."""
    with planted(bug):
        for seed in range(SEEDS_FOR_A_BUG):
            for workload in WORKLOADS:
                if simulate(seed, workload).violations:
                    return
    pytest.fail(f"{bug!r} was not found in {SEEDS_FOR_A_BUG} seeds of {len(WORKLOADS)} workloads")
