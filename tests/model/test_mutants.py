"""Every weakened protocol is refuted by a shortest trace that replays, and holds as soon as its
one rule is back in force."""

from __future__ import annotations

import pytest

from chaos.model.catalogue import MUTANTS, Mutant
from chaos.model.world import Change, start, steps
from tests.model.explored import explored

# Up to ten seconds of CPU each, on a machine that may be busy with much else.
pytestmark = pytest.mark.timeout(900)

STEPS = {
    "incr": 10,
    "two-phase": 17,
    "raise-not-strict": 9,
    "lock-first": 10,
    "owner-reused": 11,
    "top-up-unchecked": 14,
    "extension-shortens": 12,
    "turn-takes": 8,
    "counter-restarts": 11,
    "no-floor": 11,
    "no-quarantine": 9,
    "timing-broken": 9,
    "memory-lost": 16,
}
"""How long the shortest traces are, every start of a try counted."""

ids = [mutant.name for mutant in MUTANTS]


@pytest.mark.parametrize("mutant", MUTANTS, ids=ids)
def test_a_mutant_breaks_its_property_in_so_many_steps(mutant: Mutant) -> None:
    """The property that the catalogue names, by a trace of the length that is known."""
    outcome = explored(mutant.configuration)
    assert (outcome.broken, len(outcome.trace), outcome.depth) == (
        mutant.breaks,
        STEPS[mutant.name],
        STEPS[mutant.name],
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=ids)
def test_the_trace_replays(mutant: Mutant) -> None:
    """Each step of the trace is one that the world allows where it stands, and only the last
    breaks something."""
    bounds, trace = mutant.configuration, explored(mutant.configuration).trace
    control, nodes = start(bounds)
    for change in trace:
        assert change in list(steps(bounds, control, nodes)), change.text
        control, nodes = change.control, change.nodes
    assert [change.violation is not None for change in trace] == [False] * (len(trace) - 1) + [True]


@pytest.mark.parametrize("mutant", MUTANTS, ids=ids)
def test_the_rule_makes_the_difference(mutant: Mutant) -> None:
    """Within the same bounds, with the rule or the assumption in force and duplicates besides,
    every property holds."""
    outcome = explored(mutant.mended._replace(name="mended"))
    assert outcome.complete, f"{outcome.broken}: {[change.text for change in outcome.trace]}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=ids)
def test_a_mutant_differs_in_one_thing(mutant: Mutant) -> None:
    """From what holds, but for duplicates and names: one rule, another script, or one
    assumption."""
    weak, mended = mutant.configuration, mutant.mended
    changed = {name for name in weak._fields if getattr(weak, name) != getattr(mended, name)} - {
        "name",
        "duplicates",
    }
    rules = {
        name
        for name in weak.rules._fields
        if getattr(weak.rules, name) != getattr(mended.rules, name)
    }
    assert len(changed - {"protocol"}) <= 1 and len(rules) <= 1 and changed


def test_properties_are_all_broken_by_something() -> None:
    """U, M, ME and X: none of them is one that cannot fail; D in the test below."""
    assert {explored(mutant.configuration).broken for mutant in MUTANTS} == {"U", "M", "ME", "X"}


def test_d_can_be_broken() -> None:
    """Grants in another order than their tokens: without timing, by a try that was slow, and
    that breaks nothing else."""
    (clockless,) = [mutant.mended for mutant in MUTANTS if mutant.name == "raise-not-strict"]
    outcome = explored(clockless._replace(properties=("U", "M", "D")))
    last = outcome.trace[-1]
    assert outcome.broken == "D" and isinstance(last, Change) and last.control.granted == (1, 2)
