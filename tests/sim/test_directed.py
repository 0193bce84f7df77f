"""Schedules that random seeds would hardly ever draw, each for one rule, each shown to bite."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from chaos.checker import Assumptions, Violation, check
from chaos.sim.bugs import planted
from chaos.sim.client import SimClient
from chaos.sim.workloads import Actor, Store
from chaos.sim.world import World
from redlock.core.admission import Marker, quarantine_span
from redlock.policy import Policy

MAX_TTL = 3.0


def three_nodes() -> tuple[World, list[Actor]]:
    """A marked cluster of three and two clients, nothing going wrong yet."""
    world = World(seed=1, nodes=3)
    for node in world.nodes:
        node.data["redlock:node"] = (Marker(node.run_id, 3, MAX_TTL, False).text(), None)
    store = Store(world)
    return world, [Actor(SimClient(name, world, Policy(ttl=2.0), range(3)), store, "r") for name in ("A", "B")]


def play(world: World, actors: list[Actor], scripts: list[Callable[[Actor], Generator[Any, Any, None]]]) -> list[Violation]:
    for actor, script in zip(actors, scripts, strict=True):
        actor.begin(script(actor))
    world.run(60.0)
    assert all(actor.finished for actor in actors)
    return check(world.history, Assumptions(), world.now)


def fence_of_a_fast_client_forgotten() -> tuple[list[Violation], list[Actor]]:
    """A's clock is 50 s ahead, and its token stands on nodes 0 and 1; node 1 forgets; B's majority is 1 and 2."""
    world, actors = three_nodes()
    ahead, behind = actors
    ahead.client.source.skew = 50.0
    world.cut("A", 2, ("up", "down"))

    def first(actor: Actor) -> Generator[Any, Any, None]:
        holding = yield from actor.acquire(2.0, timeout=2.0)
        assert holding is not None
        yield from actor.release(holding)

    def second(actor: Actor) -> Generator[Any, Any, None]:
        # It knows the markers of all nodes, and is cut off from node 0 before A takes its token.
        yield 3.5
        holding = None
        while holding is None:
            holding = yield from actor.acquire(2.0, timeout=1.0)
        yield from actor.release(holding)

    def meet(actor: Actor) -> Generator[Any, Any, None]:
        actor.keys = ("redlock:other", "redlock:other:fence")
        holding = yield from actor.acquire(2.0, timeout=2.0)
        assert holding is not None
        yield from actor.release(holding)
        actor.keys = ("redlock:r", "redlock:r:fence")
        world.history.clear()
        yield from second(actor)

    def begin_late(actor: Actor) -> Generator[Any, Any, None]:
        yield 1.0
        yield from first(actor)

    world.at(0.9, partial(world.cut, "B", 0, ("up", "down")))
    world.at(3.0, partial(world.crash, 1, "lost"))
    world.at(3.1, partial(world.nodes[1].start, 3.1))
    violations = play(world, [ahead, behind], [begin_late, meet])
    assert world.now > 3.1 + quarantine_span(MAX_TTL)
    return violations, actors


def test_tokens_rise_over_a_loss_of_memory_though_a_clock_was_ahead() -> None:
    """The floor in the marker that ends a quarantine is beyond every token that was let through before it."""
    violations, actors = fence_of_a_fast_client_forgotten()
    assert violations == []
    assert [actor.grants for actor in actors] == [1, 2]
    with planted("no floor"):
        broken, _ = fence_of_a_fast_client_forgotten()
    assert {violation.property for violation in broken} == {
        "M: later grants have larger tokens",
        "D: tokens rise with every grant",
    }
