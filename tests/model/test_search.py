"""The search against slower, obvious ones: the tables, the exchange of nodes and what is left
out hide nothing."""

from __future__ import annotations

from collections import deque

import pytest

from chaos.model.catalogue import MUTANTS, SOUND, Mutant
from chaos.model.search import explore
from chaos.model.state import Configuration, Control, Node
from chaos.model.world import start, steps
from tests.model.explored import explored

# Up to ten seconds of CPU each, on a machine that may be busy with much else.
pytestmark = pytest.mark.timeout(900)

SMALL = [
    SOUND[0]._replace(proposals=1, rounds=1),
    SOUND[0]._replace(rounds=1, proposals=1, duplicates=False, reduced=False),
    next(bounds for bounds in SOUND if bounds.timing and bounds.crashes)._replace(
        rounds=1, proposals=1, questions=0
    ),
    next(bounds for bounds in SOUND if bounds.timing and bounds.questions)._replace(
        rounds=1, proposals=2, questions=1
    ),
    next(mutant.configuration for mutant in MUTANTS if mutant.name == "no-quarantine"),
    next(mutant.configuration for mutant in MUTANTS if mutant.name == "incr"),
]


def plain(bounds: Configuration, *, exchange: bool) -> tuple[int, int, str]:
    """States, depth and the property that is broken first, by the textbook; *exchange*: nodes
    may be exchanged."""
    first = start(bounds)
    depth: dict[tuple[Control, tuple[Node, ...]], int] = {first: 0}
    todo = deque([first])
    while todo:
        control, nodes = state = todo.popleft()
        for change in steps(bounds, control, nodes):
            if change.violation:
                return len(depth), depth[state] + 1, change.violation.property
            after = (
                change.control,
                tuple(sorted(change.nodes, key=repr)) if exchange else change.nodes,
            )
            if after not in depth:
                depth[after] = depth[state] + 1
                todo.append(after)
    return len(depth), max(depth.values()), ""


@pytest.mark.parametrize("bounds", SMALL, ids=lambda bounds: bounds.name)
def test_it_visits_what_a_plain_search_visits(bounds: Configuration) -> None:
    """As many states, as deep, and the same property broken, as a plain search with sets of
    whole states."""
    outcome = explored(bounds)
    states, depth, broken = plain(bounds, exchange=True)
    assert (outcome.depth, outcome.broken) == (depth, broken)
    if not broken:  # Otherwise the two stop at different states of the last level.
        assert outcome.states == states


@pytest.mark.parametrize("bounds", SMALL[:1] + SMALL[-2:], ids=lambda bounds: bounds.name)
def test_exchanging_nodes_makes_no_difference(bounds: Configuration) -> None:
    """A search that tells the nodes apart finds the same, as deep, among up to six times as many
    states."""
    outcome = explored(bounds)
    states, depth, broken = plain(bounds, exchange=False)
    assert (outcome.depth, outcome.broken) == (depth, broken)
    assert outcome.states < states <= 6 * outcome.states or broken


@pytest.mark.parametrize(
    "mutant",
    [mutant for mutant in MUTANTS if mutant.name != "memory-lost"],
    ids=lambda mutant: mutant.name,
)
def test_what_is_left_out_hides_no_violation(mutant: Mutant) -> None:
    """With every request kept and every state followed, the shortest trace is as long and breaks
    the same."""
    outcome = explore(mutant.configuration._replace(reduced=False))
    assert (outcome.broken, outcome.depth) == (mutant.breaks, explored(mutant.configuration).depth)


def test_it_stops_when_there_are_too_many_states() -> None:
    """A search that was cut short does not call itself complete."""
    outcome = explore(SOUND[0], states_max=1000)
    assert not outcome.complete and not outcome.trace and 1000 < outcome.states < 10_000
