"""The world of memories: what ships holds in every state, and each rule taken away is missed by
a shortest trace that replays."""

from __future__ import annotations

from collections import deque
from functools import cache

import pytest

from chaos.model.memory.catalogue import LONG_MEMORIES, MEMORIES, MEMORY_MUTANTS, MemoryMutant
from chaos.model.memory.state import (
    BACKUP,
    FLUSH,
    MOVE,
    PROMOTE,
    RESTART,
    SHIPPED,
    STANDBY,
    SWAP,
    Memories,
    State,
)
from chaos.model.memory.world import start, steps
from chaos.model.search import Outcome, explore
from tests.model.explored import explored

# Up to five seconds of CPU each, on a machine that may be busy with much else.
pytestmark = pytest.mark.timeout(900)

STATES_MAX = 1500
"""Where a search stops here, after the level in which it gets there. `python -m chaos model`
visits all states."""

STEPS = {
    "text-alone": 7,
    "memory-without-name": 7,
    "replica-votes": 7,
    "memory-unwaited": 10,
    "older-believed": 12,
    "older-marker-believed": 13,
    "any-marker-ends-a-loss": 13,
    "marked-over-nothing": 12,
    "waits-before-blank": 14,
    "link-alone": 12,
    "late-vote-counts": 12,
    "any-blank": 9,
    "waits-by-uptime": 9,
    "promise-of-any-run": 9,
    "floor-left-out": 10,
    "floor-by-own-clock": 11,
    "replace-without-floor": 10,
    "max-ttl-first": 14,
    "waits-by-max-ttl": 14,
    "founded-by-majority": 12,
    "founded-over-time": 11,
    "votes-while-founding": 13,
    "blank-by-client": 14,
}
"""How long the shortest traces are."""

ids = [mutant.name for mutant in MEMORY_MUTANTS]


@cache
def begun(bounds: Memories) -> Outcome:
    """What a search finds among the first states."""
    return explore(bounds, STATES_MAX)


@pytest.mark.parametrize("bounds", MEMORIES, ids=lambda bounds: bounds.name)
def test_what_forgot_does_not_vote(bounds: Memories) -> None:
    """One holder at a time, and tokens that do not fall, whatever happened to the one memory."""
    outcome = begun(bounds._replace(name=""))
    assert not outcome.trace, f"{outcome.broken}: {[change.text for change in outcome.trace]}"
    assert outcome.complete or outcome.states > STATES_MAX


def test_small_worlds_are_visited_to_the_end() -> None:
    """Every state of these, and in each of them somebody gets the lock."""
    outcomes = [begun(bounds._replace(name="")) for bounds in MEMORIES]
    complete = [
        (bounds.name, outcome.grants)
        for bounds, outcome in zip(MEMORIES, outcomes, strict=True)
        if outcome.complete
    ]
    small = [
        "memory lost",
        "backups, never replicas",
        "keys swapped and back",
        "fresh clients, a blank comes back",
    ]
    assert [name for name, _ in complete] == small
    assert {grants for _, grants in complete} == {1}  # Of two that hold at once there is none.


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_a_mutant_breaks_its_property_in_so_many_steps(mutant: MemoryMutant) -> None:
    """The property that the catalogue names, by a trace of the length that is known."""
    outcome = explored(mutant.configuration)
    assert (outcome.broken, len(outcome.trace), outcome.depth) == (
        mutant.breaks,
        STEPS[mutant.name],
        STEPS[mutant.name],
    )


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_the_trace_replays(mutant: MemoryMutant) -> None:
    """Each step of the trace is one that the world allows where it stands, and only the last
    breaks something."""
    bounds, trace = mutant.configuration, explored(mutant.configuration).trace
    state = start(bounds)
    for change in trace:
        assert change in list(steps(bounds, state)), change.text
        state = change.state
    assert [change.violation is not None for change in trace] == [False] * (len(trace) - 1) + [True]


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_the_rule_makes_the_difference(mutant: MemoryMutant) -> None:
    """Within the same bounds, with the rule in force, every property holds; in as many states as
    there is time for here."""
    outcome = begun(mutant.mended._replace(name=""))
    assert not outcome.trace, f"{outcome.broken}: {[change.text for change in outcome.trace]}"


@pytest.mark.parametrize("mutant", MEMORY_MUTANTS, ids=ids)
def test_a_mutant_differs_in_its_rules_alone(mutant: MemoryMutant) -> None:
    """From what holds, but for the name."""
    weak = mutant.configuration
    assert weak._replace(name="", rules=SHIPPED) == mutant.mended._replace(name="")
    assert weak.rules != SHIPPED


def test_every_rule_is_taken_away_by_some_mutant_or_named_here() -> None:
    """A rule that no mutant takes away would be one that nothing shows to matter."""
    weakened = {
        rule
        for mutant in MEMORY_MUTANTS
        for rule in SHIPPED._fields
        if not getattr(mutant.configuration.rules, rule)
    }
    assert set(SHIPPED._fields) == weakened


def test_everything_that_can_happen_to_a_memory_is_explored() -> None:
    """Each kind of loss, and what is no loss; fresh clients, tokens and the operator."""
    assert {kind for bounds in MEMORIES for kind in bounds.kinds} == {
        FLUSH,
        RESTART,
        PROMOTE,
        STANDBY,
        MOVE,
        SWAP,
        BACKUP,
    }
    assert any(bounds.fresh for bounds in MEMORIES) and any(bounds.tokens for bounds in MEMORIES)
    assert any(bounds.replaces for bounds in MEMORIES) and any(bounds.blank for bounds in MEMORIES)
    assert any(bounds.raises for bounds in MEMORIES)
    assert any(bounds.losses > 1 for bounds in LONG_MEMORIES)


def plain(bounds: Memories) -> tuple[int, str]:
    """Depth and the property that is broken first, by a search that exchanges nothing and leaves
    nothing out."""
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


@pytest.mark.parametrize("name", ["text-alone", "replica-votes", "memory-unwaited"])
def test_what_is_left_out_and_exchanged_hides_no_violation(name: str) -> None:
    """With all in their own places and no state passed over, the same breaks; two votes are
    steps of their own then."""
    (mutant,) = [mutant for mutant in MEMORY_MUTANTS if mutant.name == name]
    assert plain(mutant.configuration._replace(reduced=False)) == (
        explored(mutant.configuration).depth + 2,
        mutant.breaks,
    )
