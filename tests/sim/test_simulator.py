"""The search itself: it is deterministic, it finds nothing in what ships, it finds what is
planted, and it is not vacuous."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.checker import Assumptions, check
from chaos.sim.bugs import BUGS, planted
from chaos.sim.client import MODES
from chaos.sim.plan import Plan, draw
from chaos.sim.regression import Regression, read, regressions
from chaos.sim.run import simulate
from chaos.sim.stage import COVERED, play
from chaos.sim.workloads import WORKLOADS

SEEDS = {"plain": 80, "wire": 30}
LOCKING = [workload for workload in WORKLOADS if workload != "elect"]
"""Those that find what breaks a lock sooner than an election does, which is much more to play."""
SEEDS_FOR_A_BUG = 150
SEEDS_FOR_AN_ASSUMPTION = 1600


PRINTED = """
import hashlib
from chaos.sim.client import MODES
from chaos.sim.run import simulate
from chaos.sim.workloads import WORKLOADS
for workload in WORKLOADS:
    for mode in MODES:
        history = repr(simulate(11, workload, mode).history)
        print(workload, mode, hashlib.sha256(history.encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """What two processes with different hash seeds made of the same seed, line by line."""
    return [
        subprocess.run(
            [sys.executable, "-c", PRINTED],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for hash_seed in ("1", "2")
    ]


def test_the_same_seed_gives_the_same_history_in_another_process(printed: list[list[str]]) -> None:
    """Every record equal, down to its instant, whatever the hash seed, of each workload in each
    mode."""
    first, second = printed
    assert [line.split()[:2] for line in first] == [
        [workload, mode] for workload in WORKLOADS for mode in MODES
    ]
    assert first == second


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_gives_the_same_history(
    printed: list[list[str]], workload: str, mode: str
) -> None:
    """Also after other histories of the same process, and the second time."""
    (told,) = [line.split()[2] for line in printed[0] if line.split()[:2] == [workload, mode]]
    history = simulate(11, workload, mode).history
    assert hashlib.sha256(repr(history).encode()).hexdigest() == told
    assert simulate(11, workload, mode).history == history


# Some 40 s of one processor, and others want it too.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_found_in_what_ships(mode: str) -> None:
    """No violation in any run, and the runs were worth something: every interesting thing
    happened."""
    covered: Counter[str] = Counter()
    for workload in WORKLOADS:
        for seed in range(SEEDS[mode]):
            outcome = simulate(seed, workload, mode)
            assert outcome.violations == [], (
                f"python -m chaos sim --seed {seed} --workload {workload} --mode {mode} --trace"
            )
            covered += outcome.covered
    never = [name for name in (*COVERED, "cancels", "losses", "faults") if not covered[name]]
    assert not never or mode == "wire"


def test_both_modes_play_the_same_plan() -> None:
    """The plan of a seed does not depend on how it is played."""
    for seed in range(20):
        assert replace(draw(seed, "hold", "plain"), mode="wire") == draw(seed, "hold", "wire")


def test_a_plan_survives_json() -> None:
    """What is printed is what is played."""
    for seed in range(50):
        plan = draw(seed, "contend")
        assert Plan.parse(plan.text()) == plan


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    """With one rule of the shipped code broken, some history violates a property."""
    bug = BUGS[name]
    with planted(name):
        if bug.plan is not None:
            found = read(bug.plan)
            assert play(replace(found.plan, mode=found.modes[0])).violations, (
                f"{bug.plan} does not find it"
            )
            return
        for seed in range(SEEDS_FOR_A_BUG):
            for workload in [bug.workload] if bug.workload else LOCKING:
                if simulate(seed, workload).violations:
                    return
    pytest.fail(f"{name!r} was not found in {SEEDS_FOR_A_BUG} seeds of each workload")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("regression", regressions(), ids=lambda regression: regression.name)
def test_what_was_caught_once_is_caught_again(regression: Regression, mode: str) -> None:
    """Clean in what ships; with its bug planted the same plan finds what it found, on bytes and
    without."""
    if mode not in regression.modes:
        pytest.skip(f"it cannot happen in mode {mode}")
    plan = replace(regression.plan, mode=mode)
    outcome = play(plan)
    assert outcome.violations == []
    assert outcome.grants or regression.name == "duplicate"
    if regression.bug:
        with planted(regression.bug):
            found = {violation.property for violation in play(plan).violations}
        assert all(any(name.startswith(wanted) for name in found) for wanted in regression.finds), (
            found
        )


REMOVED: dict[str, tuple[str, Callable[[Assumptions], bool]]] = {
    "timing": ("ME", lambda taken: not taken.timing and taken.lease_clock),
    "lease_clock": ("ME", lambda taken: not taken.lease_clock),
    "lease_clock, its holder alone": ("I4", lambda taken: not taken.lease_clock),
    "memory": ("ME", lambda taken: not taken.memory),
    "order": ("M", lambda taken: not taken.memory and not taken.order),
}


@pytest.mark.parametrize("assumption", REMOVED)
def test_without_an_assumption_a_violation_is_found(assumption: str) -> None:
    """A run that breaks an assumption, judged as if it kept it, has violations: what the checker
    promises is not for free."""
    wanted, is_removed = REMOVED[assumption]
    for seed in range(SEEDS_FOR_AN_ASSUMPTION):
        for workload in LOCKING:
            plan = draw(seed, workload)
            if not is_removed(plan.assumptions):
                continue
            outcome = play(plan)
            assert outcome.violations == []
            if any(
                found.property.startswith(wanted)
                for found in check(outcome.history, Assumptions(), outcome.ended_at)
            ):
                return
    pytest.fail(
        f"{SEEDS_FOR_AN_ASSUMPTION} seeds without {assumption} have no violation of {wanted}"
    )
