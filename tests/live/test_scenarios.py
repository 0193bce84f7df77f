"""The CI share of the campaigns: scenarios whose verdict hangs on events alone, and every
control."""

from __future__ import annotations

import pytest

from chaos.live.runner import Runner
from chaos.live.scenario import Expected
from chaos.live.scenarios import SCENARIOS

SHARE = (
    *("S01", "S03", "S04", "S08b", "S12", "S13", "S14", "S15", "S19"),
    *("S25b", "S26", "S33", "S34", "S35", "S36", "S37"),
    *("S40", "S41", "S41b", "S45", "S47b", "S48", "S48b", "S49"),
    *("S53", "S54", "S55", "S58", "S59"),
    *("S70", "S70b", "S71", "S71b"),
    *("S38", "S39b", "S82", "S83", "S84", "S86", "S88", "S90"),
    *("S93", "S93b", "S95", "S97", "S98b"),
)
"""At least one of each kind of fault, and of each way a script decides; the others run in
campaigns."""
CONTROLS = tuple(
    name for name, scenario in SCENARIOS.items() if scenario.expected is Expected.MUST_FAIL
)


@pytest.mark.parametrize("name", SHARE)
def test_a_scenario_ends_as_expected(runner: Runner, name: str) -> None:
    """No violation of what its faults leave standing, everything it claims, and the outcome of
    the table."""
    outcome = runner.run(SCENARIOS[name])
    assert outcome.ok, f"{outcome.observed}: {outcome.why}\n{outcome.violations}\n{runner.errors()}"


@pytest.mark.parametrize("name", CONTROLS)
def test_a_broken_rule_is_found(runner: Runner, name: str) -> None:
    """Clients that break one rule are convicted by the checker, from a history like any other."""
    outcome = runner.run(SCENARIOS[name])
    assert outcome.ok and outcome.violations, f"{outcome.why}\n{runner.errors()}"


def test_every_promised_scenario_is_in_the_table() -> None:
    """S01 to S61, S80 to S101, and C1 to C7; what is not run says why."""
    names = set(SCENARIOS)
    assert {f"S{number:02d}" for number in range(1, 62)} <= names
    assert {f"S{number}" for number in range(80, 102)} <= names
    assert {f"C{number}" for number in range(1, 8)} <= names
    assert not [name for name, scenario in SCENARIOS.items() if scenario.not_run]
