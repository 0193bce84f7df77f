"""Virtual time, the network, and what goes wrong in it. Everything comes from one seed; nothing reads a real clock.

A connection is an ordered stream in each direction. Packets are late, held by a partition and delivered when it heals, or
cut off with the connection; bytes that were sent before a client gave up may still arrive and be executed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

import hiredis

from chaos.history import Broken, Healed, NodeSeen, Note, Record
from chaos.sim.node import SimNode, commands

__all__ = ["Connection", "World"]

STEPS_MAX = 200_000


class Connection:
    """One TCP connection of *client* to *node*. The client's side reads by *received* and *closed*."""

    __slots__ = (
        "_reader",
        "client",
        "closed",
        "closed_by_client",
        "closed_by_node",
        "down_at",
        "node",
        "received",
        "up_at",
        "world",
    )

    def __init__(
        self, world: World, client: str, node: SimNode, received: Callable[[bytes], None], closed: Callable[[str], None]
    ) -> None:
        self.world = world
        self.client = client
        self.node = node
        self.received = received
        self.closed = closed
        self.closed_by_client = False
        self.closed_by_node = False
        self.up_at = 0.0
        self.down_at = 0.0
        self._reader = hiredis.Reader()

    def send(self, data: bytes) -> None:
        """The client writes; order is kept whatever the delays."""
        if self.closed_by_client or self.closed_by_node:
            return
        world = self.world
        self.up_at = max(self.up_at, world.now + world.delay())
        world.at(self.up_at, lambda: self._arrive(data))

    def close(self) -> None:
        """The client gives up; what it wrote may still arrive."""
        self.closed_by_client = True

    def break_off(self, why: str) -> None:
        """The connection ends for both; what was under way is gone."""
        if not self.closed_by_node:
            self.closed_by_node = True
            if not self.closed_by_client:
                self.world.at(self.world.now + self.world.delay(), lambda: None if self.closed_by_client else self.closed(why))

    def _arrive(self, data: bytes) -> None:
        world, node = self.world, self.node
        if self.closed_by_node or not node.up:
            return
        if world.blocked(self.client, node.index, "up") or node.paused:
            world.hold(self, lambda: self._arrive(data))
            return
        self._reader.feed(data)
        out = b"".join([node.execute(words, world.now) for words in commands(self._reader)])
        if out and not self.closed_by_client:
            self.down_at = max(self.down_at, world.now + world.delay())
            world.at(self.down_at, lambda: self._answer(out))

    def _answer(self, data: bytes) -> None:
        if self.closed_by_client or self.closed_by_node:
            return
        if self.world.blocked(self.client, self.node.index, "down"):
            self.world.hold(self, lambda: self._answer(data))
            return
        self.received(data)


class World:
    """The clock, the queue of what is to happen, the nodes and the network between them and the clients."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.history: list[Record] = []
        self.nodes = [SimNode(index, self.identity) for index in range(nodes)]
        self.delay_mean = 0.0005
        self.tail_share = 0.0
        self.tail = 0.0
        self.lossy = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._faults = 0
        self._cuts: set[tuple[str, int, str]] = set()
        self._held: list[tuple[Connection, Callable[[], None]]] = []
        self._connections: list[Connection] = []

    def identity(self) -> str:
        """A run id."""
        return f"{self.random.getrandbits(160):040x}"

    # Time

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do *what* at the true instant *when*."""
        self._order += 1
        heappush(self._queue, (when if when > self.now else self.now, self._order, what))

    def run(self, until: float) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, what = heappop(queue)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise RuntimeError(f"no end after {STEPS_MAX} steps")
            what()
        self.now = max(self.now, until)

    def delay(self) -> float:
        """One way through the network."""
        draw = self.random.random
        delay = self.delay_mean * (0.5 + draw())
        return delay + self.tail * draw() if self.tail_share and draw() < self.tail_share else delay

    # Network

    def connect(
        self,
        client: str,
        index: int,
        received: Callable[[bytes], None],
        closed: Callable[[str], None],
        done: Callable[[Connection | None], None],
    ) -> None:
        """Dial; *done* gets the connection, or None if nobody accepts. A paused node's kernel still accepts."""
        node = self.nodes[index]

        def accept() -> None:
            if node.up and not self.blocked(client, index, "up") and not self.blocked(client, index, "down"):
                connection = Connection(self, client, node, received, closed)
                self._connections = [
                    other for other in self._connections if not (other.closed_by_client and other.closed_by_node)
                ]
                self._connections.append(connection)
                done(connection)
            elif not node.up:
                done(None)
            else:
                self.at(self.now + 0.5, lambda: done(None))

        self.at(self.now + 2 * self.delay(), accept)

    def blocked(self, client: str, index: int, way: str) -> bool:
        """Whether a partition holds what goes this way."""
        return bool(self._cuts) and (client, index, way) in self._cuts

    def hold(self, connection: Connection, what: Callable[[], None]) -> None:
        """Keep a packet until the way is free."""
        self._held.append((connection, what))

    def cut(self, client: str, index: int, ways: tuple[str, ...]) -> None:
        """A partition begins."""
        self._cuts.update((client, index, way) for way in ways)

    def heal(self, client: str, index: int) -> None:
        """It ends; what was held arrives, unless the connection is broken off instead."""
        self._cuts.difference_update({(client, index, "up"), (client, index, "down")})
        if self.lossy and self.random.random() < 0.5:
            self._break_off(lambda connection: connection.client == client and connection.node.index == index, "was reset")
        self.release(lambda connection: connection.client == client and connection.node.index == index)

    def release(self, which: Callable[[Connection], bool]) -> None:
        """Let go of what was held on these connections, in order."""
        going = [entry for entry in self._held if which(entry[0])]
        self._held = [entry for entry in self._held if not which(entry[0])]
        for _, what in going:
            self.at(self.now, what)

    # Nodes

    def pause(self, index: int) -> None:
        """SIGSTOP."""
        self.nodes[index].paused = True
        self.saw(index, "paused")

    def resume(self, index: int) -> None:
        """SIGCONT: it executes what came meanwhile."""
        node = self.nodes[index]
        if node.paused:
            node.paused = False
            self.saw(index, "up")
        self.release(lambda connection: connection.node.index == index)

    def crash(self, index: int, kept: str) -> None:
        """The process ends; its connections with it."""
        self.nodes[index].crash(kept, self.now)
        self.saw(index, "down")
        self._break_off(lambda connection: connection.node.index == index, "was reset")
        self._held = [entry for entry in self._held if entry[0].node.index != index]

    def start(self, index: int) -> None:
        """The process is started again, if it is down."""
        if not self.nodes[index].up:
            self.nodes[index].start(self.now)
            self.saw(index, "up")

    def _break_off(self, which: Callable[[Connection], bool], why: str) -> None:
        for connection in self._connections:
            if which(connection):
                connection.break_off(why)
        self._connections = [connection for connection in self._connections if not connection.closed_by_node]

    # History

    def break_(self, kind: str, what: str, nodes: tuple[int, ...] = (), clients: tuple[str, ...] = ()) -> str:
        """Note that a fault begins; give its id."""
        self._faults += 1
        fault = f"{kind}-{self._faults}"
        self.history.append(Broken(self.now, "", fault, what, nodes, clients))
        return fault

    def healed(self, fault: str) -> None:
        """Note that a fault ended."""
        self.history.append(Healed(self.now, "", fault))

    def blip(self, kind: str, what: str, nodes: tuple[int, ...] = (), clients: tuple[str, ...] = ()) -> None:
        """Note a fault of a moment."""
        self.healed(self.break_(kind, what, nodes, clients))

    def saw(self, node: int, state: str) -> None:
        """Note how a node stands now."""
        self.history.append(NodeSeen(self.now, "", node, state))

    def note(self, client: str, kind: str, text: str) -> None:
        """Note anything else."""
        self.history.append(Note(self.now, client, kind, text))
