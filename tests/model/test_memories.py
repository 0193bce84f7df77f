"""The world of memories: what ships holds in every state, and each rule taken away is missed by a shortest trace that replays."""

from __future__ import annotations

from collections import deque

import pytest

from chaos.model.memory.catalogue import LONG_MEMORIES, MEMORIES, MEMORY_MUTANTS, MemoryMutant
from chaos.model.memory.state import BACKUP, FLUSH, MOVE, PROMOTE, RESTART, SHIPPED, STANDBY, SWAP, Memories, State
from chaos.model.memory.world import start, steps
from tests.model.explored import explored

pytestmark = pytest.mark.timeout(900)  # Up to thirty seconds of CPU each, on a machine that may be busy with much else.

STEPS = {
    "text-alone": 9,
    "memory-without-name": 9,
    "replica-votes": 9,
    "memory-unwaited": 12,
    "older-believed": 15,
    "any-marker-ends-a-loss": 15,
    "marked-over-nothing": 14,
    "link-alone": 14,
    "late-vote-counts": 14,
    "any-blank": 11,
    "promise-of-any-run": 11,
    "floor-left-out": 13,
    "floor-by-own-clock": 14,
    "replace-without-floor": 12,
    "max-ttl-first": 16,
    "waits-by-max-ttl": 16,
    "founded-by-majority": 16,
    "founded-over-time": 15,
    "votes-while-founding": 17,
    "blank-by-client": 16,
}
"""How long the shortest traces are."""

ids = [mutant.name for mutant in MEMORY_MUTANTS]


@pytest.mark.parametrize("bounds", MEMORIES, ids=lambda bounds: bounds.name)
def test_what_forgot_does_not_vote_in_any_state(bounds: Memories) -> None:
    """One holder at a time, and tokens that do not fall, whatever happened to the one memory."""
    outcome = explored(bounds)
    assert outcome.complete, f"{outcome.broken}: {[change.text for change in outcome.trace]}"
    assert outcome.grants == (2 if bounds.tokens else 1)  # Of two that hold at once there is none.


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_a_mutant_breaks_its_property_in_so_many_steps(mutant: MemoryMutant) -> None:
    """The property that the catalogue names, by a trace of the length that is known."""
    outcome = explored(mutant.configuration)
    assert (outcome.broken, len(outcome.trace), outcome.depth) == (mutant.breaks, STEPS[mutant.name], STEPS[mutant.name])


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_the_trace_replays(mutant: MemoryMutant) -> None:
    """Each step of the trace is one that the world allows where it stands, and only the last breaks something."""
    bounds, trace = mutant.configuration, explored(mutant.configuration).trace
    state = start(bounds)
    for change in trace:
        assert change in list(steps(bounds, state)), change.text
        state = change.state  # type: ignore[union-attr]
    assert [change.violation is not None for change in trace] == [False] * (len(trace) - 1) + [True]


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_the_rule_makes_the_difference(mutant: MemoryMutant) -> None:
    """Within the same bounds, with the rule in force, every property holds."""
    outcome = explored(mutant.mended._replace(name="mended"))
    assert outcome.complete, f"{outcome.broken}: {[change.text for change in outcome.trace]}"


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_a_mutant_differs_in_its_rules_alone(mutant: MemoryMutant) -> None:
    """From what holds, but for the name."""
    weak = mutant.configuration
    assert weak._replace(name="", rules=SHIPPED) == mutant.mended._replace(name="")
    assert weak.rules != SHIPPED


def test_every_rule_is_taken_away_by_some_mutant_or_named_here() -> None:
    """A rule that no mutant takes away would be one that nothing shows to matter."""
    weakened = {rule for mutant in MEMORY_MUTANTS for rule in SHIPPED._fields if not getattr(mutant.configuration.rules, rule)}
    assert set(SHIPPED._fields) == weakened


def test_everything_that_can_happen_to_a_memory_is_explored() -> None:
    """Each kind of loss, and what is no loss; fresh clients, tokens and the operator."""
    assert {kind for bounds in MEMORIES for kind in bounds.kinds} == {FLUSH, RESTART, PROMOTE, STANDBY, MOVE, SWAP, BACKUP}
    assert any(bounds.fresh for bounds in MEMORIES) and any(bounds.tokens for bounds in MEMORIES)
    assert any(bounds.replaces for bounds in MEMORIES) and any(bounds.blank for bounds in MEMORIES)
    assert any(bounds.raises for bounds in MEMORIES)
    assert any(bounds.losses > 1 for bounds in LONG_MEMORIES)


def plain(bounds: Memories) -> tuple[int, str]:
    """Depth and the property that is broken first, by a search that exchanges nothing and leaves nothing out."""
    first = start(bounds)
    depth: dict[State, int] = {first: 0}
    todo = deque([first])
    while todo:
        state = todo.popleft()
        for change in steps(bounds, state):
            if change.violation:
                return depth[state] + 1, change.violation.property
            if change.state not in depth:
                depth[change.state] = depth[state] + 1
                todo.append(change.state)
    return max(depth.values()), ""


@pytest.mark.parametrize("name", ["text-alone", "memory-without-name", "replica-votes", "memory-unwaited", "promise-of-any-run"])
def test_what_is_left_out_and_exchanged_hides_no_violation(name: str) -> None:
    """With all in their own places and no state passed over, the shortest trace is as long, and breaks the same."""
    (mutant,) = [mutant for mutant in MEMORY_MUTANTS if mutant.name == name]
    assert plain(mutant.configuration._replace(reduced=False)) == (explored(mutant.configuration).depth, mutant.breaks)
