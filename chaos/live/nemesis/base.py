"""What all faults are: whom they hit, how they are broken and healed, and the world that they
act on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from chaos.history import Stopped
from chaos.live.backend import Ability
from chaos.live.cluster import Cluster
from chaos.live.crew import Member

__all__ = ["Nemesis", "World", "named", "slug"]


class World(Protocol):
    """What faults act on."""

    cluster: Cluster
    members: Mapping[str, Member]
    kept: dict[tuple[str, int], Any]
    """What a fault needs for its end, by its name and a node: settings as they were, a
    connection, a thread."""

    def stopped(self, record: Stopped) -> None:
        """Note that a client's belief ended with it."""

    def beliefs_of(self, client: str) -> Iterable[tuple[str, int]]:
        """Resource and token of every lease that *client* may hold now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nemesis:
    """Base of all faults. *nodes*, *clients*: whom it hits."""

    kind: ClassVar[str] = "fault"
    requires: ClassVar[frozenset[Ability]] = frozenset()
    momentary: ClassVar[bool] = False
    nodes: tuple[int, ...] = ()
    clients: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A word for it; with a number behind, its name in the history."""
        return self.kind

    @property
    def needs(self) -> frozenset[Ability]:
        """What it needs of the servers."""
        return self.requires

    @property
    def what(self) -> str:
        """A line for people."""
        return f"{self.kind} of {named(self.nodes, self.clients)}"

    @property
    def size(self) -> str:
        """What its injection is measured as: "link", "node", "client" or "many"."""
        return (
            "node"
            if len(self.nodes) == 1 and not self.clients
            else "client"
            if len(self.clients) == 1
            else "many"
        )

    def start(self, world: World, fault: str) -> None:
        """Break it; *fault* is unique in the run."""
        raise NotImplementedError

    def stop(self, world: World, fault: str) -> None:
        """Heal it."""


def slug(label: str) -> str:
    """A label as part of a toxic's name, which is part of a path."""
    return re.sub("[^a-z0-9]+", "-", label.lower())


def named(nodes: Sequence[int], clients: Sequence[str]) -> str:
    told = []
    if clients:
        told.append(", ".join(clients))
    if nodes:
        told.append(
            f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}"
        )
    return " and ".join(told) or "nobody"
