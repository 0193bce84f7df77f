"""The start of the model's world, and every step that leads on from a state, with each node in
its own place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from chaos.model.clients import client_steps, delivered
from chaos.model.nodes import Happening, node_steps
from chaos.model.state import IDLE, NODES, OPEN, Client, Configuration, Control, Node, Violation

__all__ = ["Change", "matters", "start", "steps"]


class Change(NamedTuple):
    """One step: what happens, at which node if at one, the state afterwards, and the property
    that it breaks."""

    text: str
    control: Control
    nodes: tuple[Node, ...]
    place: int | None = None
    happening: Happening | None = None
    violation: Violation | None = None


def start(bounds: Configuration) -> tuple[Control, tuple[Node, ...]]:
    """Nothing granted, nothing on its way, every node empty."""
    clients = tuple([Client(IDLE, tries) for tries in bounds.tries])
    node = Node(None, 0, 0, None, (), (None,) * len(clients))
    return Control(clients, (), bounds.crashes), (node,) * NODES


def steps(bounds: Configuration, control: Control, nodes: tuple[Node, ...]) -> Iterator[Change]:
    """Every step from this state."""
    if not matters(bounds, control):
        return
    for place, node in enumerate(nodes):
        for happening, changed, after in node_steps(bounds, control, node):
            others = (*nodes[:place], changed, *nodes[place + 1 :])
            yield Change(f"node {place + 1}: {happening.text}", after, others, place, happening)
    for step in client_steps(bounds, control, [node.replies for node in nodes]):
        told = tuple([delivered(bounds, node, step) for node in nodes])
        yield Change(step.text, step.control, told, violation=step.violation)


def matters(bounds: Configuration, control: Control) -> bool:
    """Whether a property can still break: each speaks of two grants, and is judged when one is
    decided or confirmed."""
    if not bounds.reduced:
        return True
    to_come = sum([client.tries + (client.phase == OPEN) for client in control.clients])
    if len(control.granted) + to_come < 2:
        return False
    return to_come > 0 or any(client.asked or client.questions for client in control.clients)
