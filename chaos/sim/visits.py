"""A search that is small, and comes everywhere: all regressions, corners of their own, and seeds
of every workload."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from chaos.checker import Assumptions
from chaos.sim import queue
from chaos.sim.client import MODES
from chaos.sim.plan import Plan, Player
from chaos.sim.regression import regressions
from chaos.sim.run import simulate
from chaos.sim.stage import Outcome, play
from chaos.sim.workloads import WORKLOADS
from redlock.core import ballot, line, renewal

__all__ = ["VISITS", "search"]

_ALL = (0, 1, 2)
VISITS: dict[str, Plan] = {
    "a lock without an expiry is repaired, also by one who tries once": Plan(
        repair=True,
        steps=(
            (0.1, "foreign", _ALL, 1.0),
            (0.2, "acquire", "A", 0.0),
            (0.5, "foreign", _ALL, 1.0),
            (0.6, "acquire", "B"),
        ),
    ),
    "a repair is answered with nonsense": Plan(
        repair=True,
        steps=(
            (0.1, "acquire", "A", 1.0, "s"),
            (0.2, "foreign", _ALL, 1.0),
            (0.3, "slow", _ALL, 0.03, 0.5),
            (0.4, "acquire", "A:1", 0.0),
            (0.47, "babble", _ALL, 1.0),
        ),
        players=(Player("A", actors=2), Player("B")),
    ),
    "a node that tells no uptime restarts": Plan(
        steps=(
            (0.1, "unfit", (0,), "timeless", 5.0),
            (0.2, "acquire", "A"),
            (0.3, "crash", (0,), "durable", 0.1),
            (0.5, "release", "A"),
        ),
    ),
    "whoever looks finds a node down": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.3, "crash", (0,), "durable", 2.0),
            (0.6, "look", "A"),
            (0.7, "look", "A"),
            (0.9, "release", "A"),
        ),
    ),
    "nodes that must not vote": Plan(
        nodes=5,
        steps=(
            (0.1, "unfit", (0,), "clustered", 5.0),
            (0.1, "unfit", (1,), "replica", 5.0),
            (0.2, "acquire", "A"),
            (0.3, "unfit", (2,), "evicting", 5.0),
            (0.4, "acquire", "B"),
            (0.5, "release", "A"),
        ),
    ),
    "markers of other formats": Plan(
        steps=(
            (0.1, "scribble", (0,), 0, 5.0),
            (0.1, "scribble", (1,), 1, 5.0),
            (0.2, "acquire", "A", 0.0),
            (0.5, "look", "B"),
        )
    ),
    "a list too short meets a node without a marker": Plan(
        nodes=5,
        players=(Player("A"), Player("x", nodes=_ALL)),
        steps=((0.1, "flush", (0,)), (0.2, "acquire", "x", 0.0)),
    ),
    "a list too short meets a marker, and then none": Plan(
        assumptions=Assumptions(memory=False),
        players=(Player("A"), Player("x", nodes=(0,))),
        steps=((0.1, "acquire", "x", 0.0), (0.2, "flush", (0,)), (0.3, "acquire", "x", 0.0)),
    ),
    "a list too short founds a cluster where all markers are gone": Plan(
        assumptions=Assumptions(memory=False),
        uptime=100.0,
        players=(Player("A"), Player("x", nodes=(0,))),
        steps=((0.1, "flush", (0, 1, 2)), (0.2, "acquire", "x", 3.0)),
    ),
    "one node alone that has no marker": Plan(
        nodes=1, marked=False, uptime=100.0, steps=((0.1, "acquire", "A", 8.0),)
    ),
    "all but one were flushed, and that one restarted": Plan(
        assumptions=Assumptions(memory=False),
        steps=(
            (0.2, "crash", (0,), "durable", 0.1),
            (0.25, "flush", (1, 2)),
            (1.5, "acquire", "B", 8.0),
        ),
    ),
    "markers of an earlier version": Plan(
        before=True,
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "crash", (0,), "durable", 0.1),
            (0.5, "look", "B"),
            (0.6, "release", "A"),
        ),
    ),
    "a node that gives no run id": Plan(
        steps=((0.05, "unfit", (0,), "nameless", 5.0), (0.1, "acquire", "A"), (0.5, "release", "A"))
    ),
    "a memory that changes under the marker's write": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "flush", (0,)),
            (0.25, "slow", (0,), 0.05, 3.0),
            (0.3, "extend", "A", 2.0),
            *((0.32 + 0.03 * number, "backup", (0,)) for number in range(20)),
            (0.95, "release", "A"),
        )
    ),
    "a node forgets among nodes of another cluster": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "release", "A"),
            (0.3, "scribble", (1, 2), 0, 5.0),
            (0.3, "flush", (0,)),
            (0.4, "look", "A"),
            (0.5, "look", "A"),
        )
    ),
    "a node without a marker beside one of another cluster that must not vote": Plan(
        steps=(
            (0.01, "scribble", (1,), 0, 5.0),
            (0.01, "unfit", (1,), "evicting", 5.0),
            (0.01, "flush", (0,)),
            (0.01, "crash", (2,), "durable", 1.0),
            (0.1, "acquire", "A", 0.5),
        )
    ),
    "a client that insists on what the cluster does not promise": Plan(
        players=(Player("A"), Player("x", durable=True), Player("y", max_ttl=4.0)),
        steps=(
            (0.1, "acquire", "x", 0.0),
            (0.1, "acquire", "y", 0.0),
            (0.2, "acquire", "A"),
            (0.3, "release", "A"),
        ),
    ),
    "an extension finds somebody else on a majority": Plan(
        assumptions=Assumptions(memory=False),
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "evict", _ALL, "lock"),
            (0.3, "foreign", _ALL, 1.0),
            (0.4, "extend", "A", 2.0),
        ),
    ),
    "names that are ours": Plan(
        steps=((0.1, "acquire", "A", 0.0, ""), (0.2, "acquire", "A", 0.0, "node"))
    ),
    "a client nobody listens to": Plan(
        players=(Player("A", quiet=True), Player("B", quiet=True)),
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "acquire", "B", 0.0),
            (0.3, "extend", "A", 2.0),
            (0.4, "release", "A"),
            (0.5, "acquire", "B"),
            (0.6, "release", "B"),
        ),
    ),
    "a cancel that comes with the vote that decides": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "release", "A"),
            (0.3, "cancel", "A", 2),
            (0.3, "acquire", "A"),
        )
    ),
    "a release that comes while the lease is being renewed": Plan(
        steps=((0.1, "auto", "A"), (0.6, "slow", _ALL, 0.03, 0.5), (0.8, "release", "A"))
    ),
    "a client that sleeps past its lease while that is being renewed": Plan(
        steps=((0.1, "auto", "A"), (0.6, "slow", _ALL, 0.03, 0.5), (0.8, "freeze", "A", 4.0))
    ),
    "a look that is answered with nonsense": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "mumble", (0,), 2.0),
            (1.3, "extend", "A", 2.0),
            (1.5, "release", "A"),
        )
    ),
    "a marker of another cluster": Plan(
        steps=((0.1, "scribble", (0,), 2, 5.0), (0.2, "acquire", "A"), (0.5, "release", "A"))
    ),
    "a new cluster with a node that must not vote": Plan(
        marked=False,
        steps=(
            (0.1, "unfit", (0,), "replica", 2.0),
            (0.2, "acquire", "A", 5.0),
            (6.0, "release", "A"),
        ),
    ),
    "a coordinator is closed while its candidate leads": Plan(
        steps=(
            (0.1, "lead", "A", (), (("ensures", True),)),
            (0.2, "lead", "B"),
            (1.0, "close", "A"),
        )
    ),
    "a candidate resigns while it is told that it leads": Plan(
        steps=((0.1, "lead", "A", (("shy", True),)), (0.2, "lead", "B"))
    ),
    "a candidate resigns between two campaigns": Plan(
        steps=(
            (0.1, "lead", "A", (("again", 2.0),)),
            (1.0, "fail", "A", "return"),
            (1.5, "resign", "A"),
        )
    ),
    "a candidate that tries once is not eligible": Plan(
        steps=(
            (0.1, "lead", "A", (("timeout", 0.0),)),
            (0.11, "ineligible", "A", 2.0),
            (0.2, "observe", "B"),
        )
    ),
    "a leader whose lock was taken from it": Plan(
        assumptions=Assumptions(memory=False),
        steps=((0.1, "lead", "A"), (1.0, "evict", _ALL, "lock"), (1.0, "foreign", _ALL, 3.0)),
    ),
    "nodes refuse a candidate that they let in before": Plan(
        steps=(
            (0.1, "lead", "A"),
            (0.2, "lead", "B"),
            (0.9, "unfit", (0,), "evicting", 5.0),
            (1.0, "unfit", (1,), "clustered", 5.0),
            (1.1, "unfit", (2,), "evicting", 5.0),
            (1.2, "cancel", "A", 0),
        )
    ),
    "a leader is cancelled": Plan(steps=((0.1, "lead", "A"), (1.0, "cancel", "A", 0))),
    "whoever looks is told nonsense": Plan(
        steps=(
            (0.1, "acquire", "A"),
            (0.2, "babble", (0,), 1.0),
            (0.3, "look", "B"),
            (1.5, "release", "A"),
        )
    ),
    "a process that ends in the middle of a try": Plan(
        steps=(
            (0.1, "acquire", "A", 1.0, "s"),
            (0.2, "release", "A"),
            (0.3, "acquire", "A"),
            (0.3003, "kill", "A"),
        )
    ),
}
"""Corners that random seeds hardly ever come to, and that no planted bug is about."""


_MANY = Plan(
    players=(Player("A", actors=3), Player("B", actors=2)),
    steps=(
        (0.05, "hush", ("A",), (0,), 0.01),
        (0.1, "acquire", "B"),
        (0.1, "acquire", "B:1", 1.0, "s"),
        (0.2, "acquire", "A", 1.5),
        (0.3, "acquire", "A:1", 1.5),
        (0.4, "enter", "C", 1.0),
        (0.6, "acquire", "A:2", 1.0, "s"),
        (1.0, "release", "B"),
        (1.0, "release", "B:1"),
        (1.3, "release", "A"),
        (1.3, "release", "A:1"),
        (1.6, "release", "A:1"),
        (1.6, "release", "A:2"),
        (1.9, "release", "A"),
    ),
)
"""Several wait for one lock, in two processes, where a bound of waiters is small."""
BOUNDS: tuple[tuple[object, str, float], ...] = (
    (line, "WAITERS_MAX", 1),
    (line, "CROWDS_MAX", 1),
    (line, "STALLED", -1.0),
    (queue, "PLACES_MAX", 1),
)


def search(seeds: int) -> None:
    """Run them; raises AssertionError at a violation."""
    for plan in VISITS.values():
        for mode in MODES:
            _clean(play(replace(plan, mode=mode)))
    for regression in regressions():
        for mode in regression.modes:
            _clean(play(replace(regression.plan, mode=mode)))
    for module, bound, value in BOUNDS:
        with patch.object(module, bound, value):
            _clean(play(_MANY))
    with patch.object(ballot, "_FENCES_MAX", 1):  # Or it would take thousands of resources.
        _clean(simulate(1, "contend"))
    with patch.object(renewal, "COMPACT_MIN", 1):  # Or it would take a thousand leases.
        for seed in range(3):
            _clean(simulate(seed, "auto"))
    for workload in WORKLOADS:
        for seed in range(seeds):
            _clean(simulate(seed, workload, "wire" if seed % 4 == 0 else "plain"))


def _clean(outcome: Outcome) -> None:
    if outcome.violations:
        raise AssertionError(f"{outcome.violations[0]} in {outcome.plan.text()}")
