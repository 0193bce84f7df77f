"""What goes wrong: a plan of faults as data, drawn from the run's seed after its assumptions.

The assumptions come first, so that a run inside them contains only what the library promises to survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from chaos.checker import Assumptions
from chaos.sim.client import SimClient
from chaos.sim.node import SimNode
from chaos.sim.workloads import Actor
from chaos.sim.world import World

__all__ = ["assume", "plan"]

DRIFT_KEPT = 0.004
"""Clock rates within this of true time differ by less than the drift factor of 1 %."""


def assume(world: World) -> Assumptions:
    """Most runs keep every assumption; the others drop one."""
    draw = world.random.random()
    if draw < 0.8:
        return Assumptions()
    return Assumptions(timing=False) if draw < 0.9 else Assumptions(memory=False, order=False)


def plan(world: World, actors: Sequence[Actor], assumptions: Assumptions, *, until: float) -> None:
    """Set the clocks, choose the weather, and put the faults on the calendar; all is healed at *until*."""
    clients = [actor.client for actor in actors]
    draw = world.random
    _clocks(world, clients, assumptions)
    if draw.random() < 0.5:
        world.tail_share, world.tail = draw.choice([(0.05, 0.06), (0.1, 0.3), (0.02, 2.0)])
    world.lossy = draw.random() < 0.5
    for _ in range(draw.choice([0, 1, 2, 4, 8])):
        kinds = list(_INSIDE)
        if not assumptions.timing:
            kinds += [_jump, _jump]
        if not assumptions.memory:
            kinds += [_flush_all, _flush_all]
        at = draw.random() * until
        world.at(at, partial(draw.choice(kinds), world, actors, draw.random() * draw.choice([0.2, 1.0, 5.0])))
    world.at(until, partial(_heal, world, actors))


def _clocks(world: World, clients: Sequence[SimClient], assumptions: Assumptions) -> None:
    draw = world.random
    spread = DRIFT_KEPT if assumptions.timing else draw.choice([DRIFT_KEPT, 0.2])
    for node in world.nodes:
        node.set_rate(1.0 + draw.uniform(-spread, spread), world.now)
        node.jump(draw.uniform(-0.5, 0.5))
    for client in clients:
        client.rate = 1.0 + draw.uniform(-spread, spread)
        client.source.skew = draw.choice(
            [0.0, draw.uniform(-0.01, 0.01), draw.uniform(-50.0, 50.0), draw.uniform(-3600.0, 3600.0)]
        )


Kind = Callable[[World, Sequence[Actor], float], None]


def _partition(world: World, actors: Sequence[Actor], lasts: float) -> None:
    """Some clients lose some nodes, one way or both."""
    draw = world.random
    ways = draw.choice([("up", "down"), ("up",), ("down",)])
    clients = [actor.client.name for actor in actors if draw.random() < 0.5] or [actors[0].client.name]
    nodes = [node.index for node in world.nodes if draw.random() < 0.5]
    what = f"{', '.join(clients)} cut off from {nodes} ({' and '.join(ways)}) for {lasts:.3f} s"
    fault = world.break_("partition", what, tuple(nodes), tuple(clients))

    def heal() -> None:
        for client in clients:
            for node in nodes:
                world.heal(client, node)
        world.healed(fault)

    for client in clients:
        for node in nodes:
            world.cut(client, node, ways)
    world.at(world.now + lasts, heal)


def _pause_node(world: World, actors: Sequence[Actor], lasts: float) -> None:
    node = world.random.choice(world.nodes)
    if node.up:
        fault = world.break_("pause", f"n{node.index} pauses for {lasts:.3f} s", (node.index,))
        world.pause(node.index)
        _later(world, lasts, fault, partial(world.resume, node.index))


def _crash(world: World, actors: Sequence[Actor], lasts: float) -> None:
    kept = world.random.choice(["lost", "lost", "rollback", "durable"])
    for node in _some(world):
        if node.up:
            fault = world.break_("crash", f"n{node.index} crashes ({kept}) for {lasts:.3f} s", (node.index,))
            world.crash(node.index, kept)
            _later(world, lasts, fault, partial(world.start, node.index))


def _later(world: World, seconds: float, fault: str, what: Callable[[], None]) -> None:
    def heal() -> None:
        what()
        world.healed(fault)

    world.at(world.now + seconds, heal)


def _some(world: World) -> list[SimNode]:
    """Mostly one node, sometimes more, never all: a cluster that forgot as a whole looks like a new one."""
    count = world.random.choice([1, 1, 1, 2, len(world.nodes) - 1])
    return world.random.sample(world.nodes, min(count, len(world.nodes) - 1))


def _save(world: World, actors: Sequence[Actor], lasts: float) -> None:
    world.random.choice(world.nodes).save()


def _flush(world: World, actors: Sequence[Actor], lasts: float) -> None:
    for node in _some(world):
        world.blip("flush", f"n{node.index} is flushed", (node.index,))
        node.flush()


def _pause_client(world: World, actors: Sequence[Actor], lasts: float) -> None:
    client = world.random.choice(actors).client
    fault = world.break_("freeze", f"{client.name} pauses for {lasts:.3f} s", clients=(client.name,))
    client.pause(lasts)
    _later(world, lasts, fault, lambda: None)


def _cancel(world: World, actors: Sequence[Actor], lasts: float) -> None:
    world.random.choice(actors).cancel()


def _out_of_memory(world: World, actors: Sequence[Actor], lasts: float) -> None:
    node = world.random.choice(world.nodes)
    fault = world.break_("memory", f"n{node.index} is out of memory for {lasts:.3f} s", (node.index,))
    node.out_of_memory = True
    _later(world, lasts, fault, partial(setattr, node, "out_of_memory", False))


def _forget_scripts(world: World, actors: Sequence[Actor], lasts: float) -> None:
    node = world.random.choice(world.nodes)
    world.blip("scripts", f"n{node.index} forgets its scripts", (node.index,))
    node.scripts.clear()


def _jump(world: World, actors: Sequence[Actor], lasts: float) -> None:
    draw = world.random
    seconds = draw.choice([-10.0, -1.0, 1.0, 3.0, 30.0])
    for node in world.nodes:
        if draw.random() < 0.6:
            world.blip("jump", f"the clock of n{node.index} jumps by {seconds} s", (node.index,))
            node.jump(seconds)


def _flush_all(world: World, actors: Sequence[Actor], lasts: float) -> None:
    world.blip("flush", "every node is flushed", tuple(node.index for node in world.nodes))
    for node in world.nodes:
        node.flush()


_INSIDE: tuple[Kind, ...] = (
    _partition,
    _partition,
    _pause_node,
    _crash,
    _crash,
    _save,
    _flush,
    _pause_client,
    _pause_client,
    _cancel,
    _cancel,
    _out_of_memory,
    _forget_scripts,
)


def _heal(world: World, actors: Sequence[Actor]) -> None:
    world.note("", "Healed", "all is healed")
    for node in world.nodes:
        node.out_of_memory = False
        world.start(node.index)
        world.resume(node.index)
        for actor in actors:
            world.heal(actor.client.name, node.index)
