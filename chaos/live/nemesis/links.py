"""Faults of the network: cells of the proxy matrix cut, slowed, held, closed, or led elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar

from chaos.live.cluster import Link
from chaos.live.nemesis.base import Nemesis, World, named, slug
from chaos.live.toxiproxy import Toxic

__all__ = [
    "Closed",
    "Repointed",
    "Toxified",
    "among",
    "bandwidth",
    "black_hole",
    "cut_before_reply",
    "held_back",
    "isolation",
    "late_replies",
    "latency",
    "lost_replies",
    "lost_requests",
    "resets",
    "slicing",
    "slow_close",
]

LONG_MS = 3_600_000
"""A latency that is as good as for ever, until it is taken away and what it held is delivered."""
_LONG = 0.1
"""Seconds of latency from which on a client may have given up on what is still held."""


def among(clients: Iterable[str], nodes: Iterable[int]) -> tuple[Link, ...]:
    """Every link between these."""
    return tuple(product(clients, nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnLinks(Nemesis):
    links: tuple[Link, ...]
    nodes: tuple[int, ...] = field(init=False, default=())
    clients: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(sorted({number for _, number in self.links})))
        object.__setattr__(self, "clients", tuple(sorted({client for client, _ in self.links})))

    @property
    def size(self) -> str:
        if len(self.links) == 1:
            return "link"
        return "node" if len(self.nodes) == 1 else "client" if len(self.clients) == 1 else "many"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxified(_OnLinks):
    """Toxics on links. *label* names what they play.

    *cuts*: connections end when it heals, and what was held is lost: what held replies for longer
    than clients wait. *delivers*: requests that it held reach their nodes when it heals. These must
    live until then: the proxy server waits for a node that is gone, and answers nobody meanwhile.
    """

    label: str
    toxics: tuple[Toxic, ...]
    cuts: bool = False
    delivers: bool = False

    @property
    def name(self) -> str:
        return slug(self.label)

    @property
    def what(self) -> str:
        return f"{self.label} between {named((), self.clients)} and {named(self.nodes, ())}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.add(self.links, fault, self.toxics)

    def stop(self, world: World, fault: str) -> None:
        if self.cuts:
            world.cluster.replace(self.links, fault)
        else:
            world.cluster.remove(self.links, fault, self.toxics)


def black_hole(links: tuple[Link, ...]) -> Toxified:
    """A partition: neither requests nor replies pass, connections hang; they end when it heals."""
    return Toxified(links=links, label="partition", toxics=(_drop("upstream"), _drop("downstream")))


def lost_requests(links: tuple[Link, ...]) -> Toxified:
    """A one-way partition: requests never arrive."""
    return Toxified(links=links, label="lost requests", toxics=(_drop("upstream"),))


def lost_replies(links: tuple[Link, ...]) -> Toxified:
    """A one-way partition: requests are executed, their replies never arrive."""
    return Toxified(links=links, label="lost replies", toxics=(_drop("downstream"),))


def latency(
    links: tuple[Link, ...], seconds: float, *, jitter: float = 0.0, stream: str = "downstream"
) -> Toxified:
    """Slow links; order is kept."""
    attributes = {"latency": round(seconds * 1000), "jitter": round(jitter * 1000)}
    label = f"{seconds * 1000:.0f} ms of latency"
    return Toxified(
        links=links,
        label=label,
        toxics=(Toxic("latency", stream, attributes),),
        cuts=seconds > _LONG,
    )


def held_back(links: tuple[Link, ...]) -> Toxified:
    """Requests are held, and delivered when this heals, whether or not who sent them still
    waits."""
    toxic = Toxic("latency", "upstream", {"latency": LONG_MS})
    return Toxified(links=links, label="late requests", toxics=(toxic,), delivers=True)


def late_replies(links: tuple[Link, ...]) -> Toxified:
    """Requests are executed, and their replies held until this heals."""
    return Toxified(
        links=links,
        label="late replies",
        toxics=(Toxic("latency", "downstream", {"latency": LONG_MS}),),
    )


def cut_before_reply(links: tuple[Link, ...]) -> Toxified:
    """Every request is executed, and its connection ends at the first byte of the reply."""
    return Toxified(
        links=links,
        label="cut before reply",
        toxics=(Toxic("limit_data", "downstream", {"bytes": 0}),),
    )


def resets(links: tuple[Link, ...]) -> Toxified:
    """Connections end, new ones with a reset."""
    return Toxified(
        links=links, label="resets", toxics=(Toxic("reset_peer", "downstream", {"timeout": 0}),)
    )


def slow_close(links: tuple[Link, ...], seconds: float) -> Toxified:
    """The end of a connection is told late."""
    toxic = Toxic("slow_close", "downstream", {"delay": round(seconds * 1000)})
    return Toxified(links=links, label="slow close", toxics=(toxic,))


def bandwidth(links: tuple[Link, ...], kilobytes: int) -> Toxified:
    """A thin line, both ways, in kilobytes a second."""
    toxics = tuple(
        Toxic("bandwidth", stream, {"rate": kilobytes}) for stream in ("upstream", "downstream")
    )
    return Toxified(links=links, label=f"{kilobytes} KB/s", toxics=toxics, cuts=True)


def slicing(links: tuple[Link, ...], size: int = 1, delay_us: int = 20) -> Toxified:
    """Bytes come one by one, both ways."""
    attributes = {"average_size": size, "size_variation": 0, "delay": delay_us}
    toxics = tuple(Toxic("slicer", stream, attributes) for stream in ("upstream", "downstream"))
    return Toxified(links=links, label="slicing", toxics=toxics, cuts=True)


def isolation(client: str, nodes: Iterable[int]) -> Toxified:
    """One client sees no node any more."""
    return black_hole(among([client], nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(_OnLinks):
    """The port is closed: connections end, and new ones are refused."""

    kind: ClassVar[str] = "closed port"

    @property
    def name(self) -> str:
        return "closed-port"

    def start(self, world: World, fault: str) -> None:
        world.cluster.enable(self.links, enabled=False)

    def stop(self, world: World, fault: str) -> None:
        world.cluster.enable(self.links, enabled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repointed(_OnLinks):
    """The address leads to another server: a VIP that moved, a second name of a server that is
    listed already."""

    kind: ClassVar[str] = "moved address"
    to: int

    @property
    def name(self) -> str:
        return "moved-address"

    @property
    def what(self) -> str:
        return f"the address of {named(self.nodes, ())} leads to node {self.to}"

    def start(self, world: World, fault: str) -> None:
        world.cluster.point(self.links, self.to)

    def stop(self, world: World, fault: str) -> None:
        for number in self.nodes:
            world.cluster.point([link for link in self.links if link[1] == number], number)


def _drop(stream: str) -> Toxic:
    return Toxic("timeout", stream, {"timeout": 0})
