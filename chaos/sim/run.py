"""One history from one seed."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.checker import Assumptions, Violation, check
from chaos.history import Record
from chaos.sim.client import SimClient
from chaos.sim.faults import assume, plan
from chaos.sim.workloads import WORKLOADS, Actor, Store
from chaos.sim.world import World
from redlock.core.admission import Marker
from redlock.policy import Policy

__all__ = ["Outcome", "simulate"]

MAX_TTL = 3.0
TTL = 2.0
FAULTS_UNTIL = 12.0
HEALED_FOR = 40.0
"""Long enough for every quarantine to end and every waiter to have its turn."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    workload: str
    assumptions: Assumptions
    history: list[Record]
    violations: list[Violation]
    grants: int
    steps: int


def simulate(seed: int, workload: str) -> Outcome:
    """Run *workload* in the world of *seed*: the same history every time, on any machine."""
    world = World(seed, nodes=_size(seed))
    assumptions = assume(world)
    for node in world.nodes:
        node.data["redlock:node"] = (Marker(node.run_id, len(world.nodes), MAX_TTL, False).text(), None)
        node.save()
    policy = Policy(ttl=TTL)
    store = Store(world)
    actors = [Actor(SimClient(f"c{index}", world, policy, range(len(world.nodes))), store, "r") for index in range(2 + seed % 2)]
    plan(world, actors, assumptions, until=FAULTS_UNTIL)
    for actor in actors:
        actor.begin(WORKLOADS[workload](actor, 2 + seed % 3))
    world.run(FAULTS_UNTIL + HEALED_FOR)
    violations = check(world.history, assumptions, world.now)
    violations += [
        Violation("I15: everybody finishes after healing", world.now, f"{actor.client.name} did not finish")
        for actor in actors
        if not actor.finished
    ]
    violations += _left_behind(world, actors)
    return Outcome(seed, workload, assumptions, world.history, violations, sum(actor.grants for actor in actors), world.steps)


def _size(seed: int) -> int:
    return 5 if seed % 4 else 3


def _left_behind(world: World, actors: list[Actor]) -> list[Violation]:
    """Rules 4 and 7, asked of the nodes: every lock that was taken was given back, and for good."""
    kept = {owner for actor in actors for owner in actor.kept}
    revived = [
        Violation("R7: a release is final", world.now, f"n{node.index} was taken by {owner[:8]} after its release")
        for node in world.nodes
        for owner in node.revived
    ]
    return revived + [
        Violation("R4: everything is given back", world.now, f"n{node.index} was never freed by {owner[:8]}")
        for node in world.nodes
        for owner in node.taken
        if owner not in node.freed and owner not in kept
    ]
