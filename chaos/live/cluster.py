"""The servers of a scenario, and the network between every client and every one of them: a proxy
for each pair.

The matrix of proxies is the network: a row is a client, a column a node, a cell a link that can be
cut, slowed or held by itself. Changes of several cells are made at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from chaos.live.backend import Backend, Node, Setup
from chaos.live.toxiproxy import Toxic, Toxics

__all__ = ["Cluster", "Link"]

Link = tuple[str, int]
"""A client's name and a node's number."""


class Cluster:
    """A backend behind proxies. Clients are called c1, c2, ...; nodes are numbered from 1."""

    def __init__(self, backend: Backend, toxics: Toxics) -> None:
        self.backend = backend
        self.toxics = toxics
        self._upstreams: dict[str, tuple[str, int]] = {}
        self._listens: dict[str, tuple[str, int]] = {}

    def fresh(self, setup: Setup, clients: Sequence[str]) -> None:
        """Clean servers, and a clean way from each of *clients* to each node."""
        self.backend.fresh(setup)
        self.toxics.reset()
        for client in clients:
            for node in self.backend.nodes:
                self._lay(client, node)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The nodes' numbers."""
        return tuple(node.number for node in self.backend.nodes)

    def node(self, number: int) -> Node:
        """The node of that number."""
        return next(node for node in self.backend.nodes if node.number == number)

    def url(self, client: str, number: int) -> str:
        """The URL by which *client* reaches a node."""
        parts = urlsplit(self.node(number).url)
        host, port = self._listens[_name((client, number))]
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}:{port}"))

    def number_of(self, url: str) -> int | None:
        """Whose proxy, or server, listens at *url* (as events name nodes); None if it is none of
        ours."""
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        for name, listens in self._listens.items():
            if listens == address:
                return int(name.rpartition("n")[2])
        return next((node.number for node in self.backend.nodes if node.address == address), None)

    def add(self, links: Iterable[Link], fault: str, toxics: Sequence[Toxic]) -> None:
        """Put *toxics* on every one of *links*."""
        self.toxics.add([_name(link) for link in links], fault, toxics)

    def remove(self, links: Iterable[Link], fault: str, toxics: Sequence[Toxic]) -> None:
        """Take them away again."""
        self.toxics.remove([_name(link) for link in links], fault, toxics)

    def replace(self, links: Iterable[Link], fault: str) -> None:
        """Take a fault's toxics away with everything they hold; the links' connections end."""
        self.toxics.together([partial(self.toxics.replace, _name(link), fault) for link in links])

    def enable(self, links: Iterable[Link], *, enabled: bool) -> None:
        """Open or close the ports of *links*."""
        self.toxics.together(
            [partial(self.toxics.enable, _name(link), enabled=enabled) for link in links]
        )

    def point(self, links: Iterable[Link], number: int) -> None:
        """Let *links* lead to another node."""
        address = self.node(number).address
        for link in links:
            self._upstreams[_name(link)] = address
        self.toxics.together([partial(self.toxics.point, _name(link), address) for link in links])

    def on_nodes(self, numbers: Iterable[int], act: Callable[[Node], object]) -> None:
        """Do something to several nodes at once."""
        nodes = [self.node(number) for number in numbers]
        with ThreadPoolExecutor(max(1, len(nodes))) as pool:
            list(pool.map(act, nodes))

    def _lay(self, client: str, node: Node) -> None:
        name = _name((client, node.number))
        if name not in self._listens:
            self._listens[name] = self.toxics.create(
                name, f"127.0.{10 + int(client[1:])}.{node.number}", node.address
            )
        elif self._upstreams[name] != node.address:
            self.toxics.point(name, node.address)
        self._upstreams[name] = node.address


def _name(link: Link) -> str:
    return f"{link[0]}-n{link[1]}"
