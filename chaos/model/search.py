"""Breadth-first search over all states of a configuration, each visited once, so that a trace it
finds is a shortest one.

Every control and every node is numbered once; a state is those numbers packed into one integer, the
nodes sorted, because exchanging nodes makes no difference. What a node can do depends on itself and
the control alone, and what clients can do on the control and the answers, so both are worked out
once for each combination and looked up from then on.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from chaos.model.clients import Step, client_steps, delivered
from chaos.model.memory import world as memory
from chaos.model.memory.state import Memories
from chaos.model.memory.state import State as MemoryState
from chaos.model.nodes import node_steps
from chaos.model.state import HELD, Configuration, Control, Node
from chaos.model.world import Change, matters, start, steps

__all__ = ["Outcome", "explore"]

# Of a node's number; 262,144 different nodes are ten times more than any configuration has needed.
BITS = 18
MASK = (1 << BITS) - 1
MASK_3 = (1 << 3 * BITS) - 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found.

    *states*: how many were visited, each standing for all that differ from it by an exchange of
    nodes. *depth*: steps to the farthest. *seconds*: of CPU. *complete*: there are no others.
    *grants*: the most that one state has seen, for a world in which nothing is granted breaks
    nothing. *trace*: the shortest way to a violation, which is its last step.
    """

    configuration: Configuration | Memories
    states: int
    transitions: int
    depth: int
    seconds: float
    complete: bool
    grants: int
    trace: tuple[Change | memory.Change, ...] = ()

    @property
    def broken(self) -> str:
        """The property that was broken, or nothing."""
        violation = self.trace[-1].violation if self.trace else None
        return violation.property if violation else ""


def explore(configuration: Configuration | Memories, states_max: float = math.inf) -> Outcome:
    """Visit every state; stop at the first that breaks a property, or after the level that
    exceeds *states_max* states."""
    if isinstance(configuration, Memories):
        return _explore_memories(configuration, states_max)
    began = time.process_time()
    search = _Search(configuration)
    frontier, depth, transitions, complete = [search.first()], 0, 0, True
    while frontier and complete:
        found, count = search.expand(frontier)
        transitions += count
        depth += bool(found) or search.broken is not None
        frontier = found if search.broken is None else []
        complete = search.broken is None and (not frontier or len(search.parents) <= states_max)
    seconds = time.process_time() - began
    grants = max(len(control.granted) for control in search.controls)
    return Outcome(
        configuration,
        len(search.parents),
        transitions,
        depth,
        seconds,
        complete,
        grants,
        search.trace(),
    )


def _explore_memories(bounds: Memories, states_max: float) -> Outcome:
    """The same by the textbook: these worlds are small, and their nodes are not alike."""
    began = time.process_time()
    first = memory.canonical(bounds, memory.start(bounds))
    parents: dict[MemoryState, MemoryState | None] = {first: None}
    parts: dict[object, object] = {}
    """States share what they have in common: it takes a tenth of the space."""
    frontier, depth, transitions, grants, broken = [first], 0, 0, 0, None
    while frontier and broken is None and len(parents) <= states_max:
        found = []
        for state in frontier:
            for change in memory.steps(bounds, state):
                transitions += 1
                if change.violation:
                    broken = state
                    break
                after = memory.canonical(bounds, change.state)
                if after not in parents:
                    after = MemoryState(*[parts.setdefault(part, part) for part in after])  # type: ignore[arg-type]
                    parents[after] = state
                    found.append(after)
                    grants = max(
                        grants,
                        sum([client.phase == HELD for client in after.clients]),
                        len(after.granted),
                    )
            if broken is not None:
                break
        depth += bool(found) or broken is not None
        frontier = found
    trace = () if broken is None else _retraced(bounds, parents, broken)
    complete = broken is None and not frontier
    seconds = time.process_time() - began
    return Outcome(bounds, len(parents), transitions, depth, seconds, complete, grants, trace)


def _retraced(
    bounds: Memories, parents: dict[MemoryState, MemoryState | None], last: MemoryState
) -> tuple[memory.Change, ...]:
    """The way to what was broken, with every node and client in a place of its own."""
    path: list[MemoryState] = []
    at: MemoryState | None = last
    while at is not None:
        path.append(at)
        at = parents[at]
    state, changes = memory.start(bounds), []
    for target in reversed(path[:-1]):
        todo = memory.steps(bounds, state)
        changes.append(
            next(change for change in todo if target in memory.images(bounds, change.state))
        )
        state = changes[-1].state
    return (*changes, next(change for change in memory.steps(bounds, state) if change.violation))


class _Search:
    """The tables of one search."""

    def __init__(self, bounds: Configuration) -> None:
        self.bounds = bounds
        self.controls: list[Control] = []
        self.nodes: list[Node] = []
        self.views: list[int] = []
        """For each node, the number of its replies: nodes that answered alike look alike to
        clients."""
        self.parents: dict[int, int] = {}
        self.broken: int | None = None
        """The first state from which a step breaks a property."""
        self._control_numbers: dict[Control, int] = {}
        self._node_numbers: dict[Node, int] = {}
        self._view_numbers: dict[object, int] = {}
        self._moves: dict[int, tuple[tuple[int, int], ...]] = {}
        """(control, node) -> what the node can do: (control shifted, node)."""
        self._decisions: dict[tuple[int, int, int, int], tuple[tuple[int, _Delivery], ...]] = {}
        """(control, views) -> what clients can do: (control shifted or -1 for a broken property,
        node -> node)."""
        self._deliveries: dict[object, _Delivery] = {}

    def first(self) -> int:
        """The state in which nothing has happened."""
        control, nodes = start(self.bounds)
        state = self._number(control) << 3 * BITS | self._pack(nodes)
        self.parents[state] = -1
        return state

    def expand(self, frontier: list[int]) -> tuple[list[int], int]:
        """The states first reached from *frontier*, and how many steps lead on from it; sets
        `broken` and stops there."""
        parents, views, all_moves, all_decisions = (
            self.parents,
            self.views,
            self._moves,
            self._decisions,
        )
        found: list[int] = []
        transitions = 0
        for state in frontier:
            control, a, b, c = (
                state >> 3 * BITS,
                state >> 2 * BITS & MASK,
                state >> BITS & MASK,
                state & MASK,
            )
            done = -1
            for x, p, q in ((a, b, c), (b, a, c), (c, a, b)):
                if x == done:  # Two nodes that are alike do the same.
                    continue
                done = x
                key = control << BITS | x
                moves = all_moves.get(key)
                if moves is None:
                    moves = all_moves[key] = self._worked_out(control, x)
                transitions += len(moves)
                for base, y in moves:
                    if y <= p:
                        new = base | y << 2 * BITS | p << BITS | q
                    elif y <= q:
                        new = base | p << 2 * BITS | y << BITS | q
                    else:
                        new = base | p << 2 * BITS | q << BITS | y
                    if new not in parents:
                        parents[new] = state
                        found.append(new)
            view = (control, views[a], views[b], views[c])
            decisions = all_decisions.get(view)
            if decisions is None:
                decisions = all_decisions[view] = self._decided(state)
            transitions += len(decisions)
            for base, after in decisions:
                if base < 0:
                    self.broken = state
                    return found, transitions
                x, y, z = after[a], after[b], after[c]
                if x > y:
                    x, y = y, x
                if y > z:
                    y, z = z, y
                    if x > y:
                        x, y = y, x
                new = base | x << 2 * BITS | y << BITS | z
                if new not in parents:
                    parents[new] = state
                    found.append(new)
        return found, transitions

    def trace(self) -> tuple[Change, ...]:
        """The shortest way to what was broken, every node in a place of its own; nothing if
        nothing was."""
        if self.broken is None:
            return ()
        states, state = [], self.broken
        while state >= 0:
            states.append(state)
            state = self.parents[state]
        control, nodes = start(self.bounds)
        changes: list[Change] = []
        for state in reversed(states[:-1]):
            changes.append(
                next(
                    change
                    for change in steps(self.bounds, control, nodes)
                    if self._is(state, change)
                )
            )
            control, nodes = changes[-1].control, changes[-1].nodes
        last = next(change for change in steps(self.bounds, control, nodes) if change.violation)
        return (*changes, last)

    def _is(self, state: int, change: Change) -> bool:
        return (
            self._number(change.control) == state >> 3 * BITS
            and self._pack(change.nodes) == state & MASK_3
        )

    # Numbers

    def _number(self, control: Control) -> int:
        number = self._control_numbers.setdefault(control, len(self.controls))
        if number == len(self.controls):
            self.controls.append(control)
        return number

    def number_of(self, node: Node) -> int:
        """This node's number; the first time, its next one."""
        number = self._node_numbers.setdefault(node, len(self.nodes))
        if number == len(self.nodes):
            if number > MASK:
                raise OverflowError(f"more than {MASK} different nodes")
            self.nodes.append(node)
            self.views.append(self._view_numbers.setdefault(node.replies, len(self._view_numbers)))
        return number

    def _pack(self, nodes: tuple[Node, ...]) -> int:
        a, b, c = sorted(self.number_of(node) for node in nodes)
        return a << 2 * BITS | b << BITS | c

    # Worked out once

    def _worked_out(self, control: int, node: int) -> tuple[tuple[int, int], ...]:
        if not matters(self.bounds, self.controls[control]):
            return ()
        todo = node_steps(self.bounds, self.controls[control], self.nodes[node])
        return tuple(
            {
                (self._number(after) << 3 * BITS, self.number_of(changed)): None
                for _, changed, after in todo
            }
        )

    def _decided(self, state: int) -> tuple[tuple[int, _Delivery], ...]:
        control = self.controls[state >> 3 * BITS]
        if not matters(self.bounds, control):
            return ()
        nodes = [self.nodes[state >> shift & MASK] for shift in (2 * BITS, BITS, 0)]
        decided: list[tuple[int, _Delivery]] = []
        for step in client_steps(self.bounds, control, [node.replies for node in nodes]):
            delivery = self._deliveries.get(step[1:])
            if delivery is None:
                delivery = self._deliveries[step[1:]] = _Delivery(self, step)
            base = -1 if step.violation else self._number(step.control) << 3 * BITS
            decided.append((base, delivery))
        return tuple(decided)


class _Delivery(dict[int, int]):
    """Node -> that node after a client's step, worked out when it is first asked for."""

    def __init__(self, search: _Search, step: Step) -> None:
        super().__init__()
        self._search = search
        self._step = step

    def __missing__(self, node: int) -> int:
        search = self._search
        after = self[node] = search.number_of(
            delivered(search.bounds, search.nodes[node], self._step)
        )
        return after
