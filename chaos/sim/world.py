"""Virtual time, the network, and the nodes in it. Everything comes from one seed; nothing reads a
real clock.

A connection is an ordered stream in each direction. What is sent is late, held by a partition and
delivered when it heals, swallowed, or cut off with the connection; what was sent before a client
gave up may still arrive and be executed.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from typing import Any, Protocol

from chaos.history import Broken, Healed, NodeSeen, Note, Record
from chaos.sim.node import SimNode

__all__ = ["DIAL_TIMEOUT", "EARS", "Connection", "CutOff", "World"]

STEPS_MAX = 200_000
DIAL_TIMEOUT = 0.5
DIALS_MAX = 120
"""To one node in a second: a link waits 0.02 s after a dial that failed, so fifty; and several
candidates on one set look at the lock ten times a second each, and dial twice for every look where
a connection breaks at that."""
UP, DOWN = "up", "down"
EARS = -1
"""The way of connections that listen, which carry no votes."""

_GENTLE = frozenset({"hush", "deafen", "forbid", "plant", "jump", "freeze", "nap", "kill", "enter"})
"""What costs a waiter a lease of a place at most, and no client a node."""

_ORDERLY = frozenset({"hush", "forbid"})
"""What costs messages alone; places are kept by their leases then."""

Serve = Callable[[Any, float], Any]
"""What a node does with a payload at an instant; None: it has nothing to say to it."""


class Vigil(Protocol):
    """Who looks after the queue."""

    def granted(self, client: str, resource: str, owner: str) -> None:
        """A client decided that it was granted a lock."""


class CutOff(Exception):
    """Something between client and node breaks the connection, after what was *answered* until
    then."""

    def __init__(self, answered: Any) -> None:
        super().__init__(answered)
        self.answered = answered


class Connection:
    """One TCP connection of *client* to *node*. The client's side reads by *received* and
    *closed*."""

    __slots__ = (
        "client",
        "closed",
        "closed_by_client",
        "closed_by_node",
        "closed_since",
        "down_at",
        "freed",
        "held",
        "node",
        "received",
        "serve",
        "swallowed",
        "up_at",
        "way",
        "world",
    )

    def __init__(
        self,
        world: World,
        client: str,
        node: SimNode,
        serve: Serve,
        received: Callable[[Connection, Any], None],
        closed: Callable[[Connection, str], None],
        way: int = 0,
    ) -> None:
        self.way = way
        """Which of the client's sets it is of; the first renews leases, and brings what is owed."""
        self.world = world
        self.client = client
        self.node = node
        self.serve = serve
        self.received = received
        self.closed = closed
        self.closed_by_client = False
        self.closed_by_node = False
        self.closed_since = 0.0
        self.up_at = 0.0
        self.down_at = 0.0
        self.held: deque[tuple[str, Any]] = deque()
        self.freed: set[str] = set()
        """Owners whose release the node executed as it came by this connection."""
        self.swallowed: frozenset[str] = frozenset()
        """The ways on which something was swallowed: a stream cannot go on past a gap."""

    @property
    def over(self) -> bool:
        """Whether nothing can come by it any more."""
        return self.closed_by_node or (
            self.closed_by_client and not self.held and self.up_at < self.world.now
        )

    def send(self, payload: Any) -> None:
        """The client writes; order is kept whatever the delays."""
        if self.closed_by_client or self.closed_by_node:
            return
        world = self.world
        at = world.now + world.delay(self.node.index)
        if at < self.up_at:
            at = self.up_at
        self.up_at = at
        world.at(at, self._arrive, payload)

    def close(self) -> None:
        """The client gives up; what it wrote may still arrive, or not."""
        self._give_up()
        if self.world.lossy and self.world.draw() < 0.3:
            self.closed_by_node = True

    def reset(self, *, late: bool) -> None:
        """The client hears that the connection is gone. *late*: what was under way to the node
        arrives all the same."""
        if not self.closed_by_client:
            self._give_up()
            self.world.at(
                self.world.now + self.world.delay(self.node.index), self.closed, self, "was reset"
            )
        self.closed_by_node = self.closed_by_node or not late

    def _give_up(self) -> None:
        if not self.closed_by_client:
            self.closed_by_client, self.closed_since = True, self.world.now

    @property
    def listens(self) -> bool:
        """Whether its server takes it for alive: of an end it hears no sooner than of anything
        else."""
        if self.closed_by_node or not self.closed_by_client:
            return not self.closed_by_node
        cut = (self.client, self.node.index, UP) in self.world.cuts
        return cut or self.world.now < self.closed_since + self.world.delay_mean

    def push(self, payload: bytes) -> None:
        """The node says what nobody asked for."""
        world = self.world
        if (self.client, self.node.index) not in world.hushed:
            self._reply(payload)

    def _reply(self, answer: Any) -> None:
        world = self.world
        if not self.closed_by_client:
            at = world.now + world.delay(self.node.index)
            if at < self.down_at:
                at = self.down_at
            self.down_at = at
            world.at(at, self._answer, answer)

    def _arrive(self, payload: Any) -> None:
        node = self.node
        if self.closed_by_node or not node.up:
            return
        if (node.paused or self.world.cuts or self.swallowed) and self._stopped(UP, payload):
            return
        self._serve(payload)

    def _serve(self, payload: Any) -> None:
        world = self.world
        self.node.line = self
        try:
            answer = self.serve(payload, world.now)
        except CutOff as cut_off:
            answer = cut_off.answered
            world.at(world.now + 2 * world.delay_mean, partial(self.reset, late=False))
        if answer is not None:
            self._reply(answer)

    def _answer(self, payload: Any) -> None:
        if self.closed_by_client or self.closed_by_node:
            return
        if (self.world.cuts or self.swallowed) and self._stopped(DOWN, payload):
            return
        self.received(self, payload)

    def _stopped(self, way: str, payload: Any) -> bool:
        """Whether it does not get through now; then it is held for later, or lost."""
        if way in self.swallowed:
            return True
        cuts = self.world.cuts.get((self.client, self.node.index, way))
        if cuts and any(cuts):
            self.swallowed |= {way}
            return True
        if cuts or (way == UP and self.node.paused):
            self.held.append((way, payload))
            return True
        return False

    def let(self, way: str, count: int) -> None:
        """Let the first *count* held payloads of *way* pass, whatever stops the others."""
        for entry in [entry for entry in self.held if entry[0] == way][:count]:
            self.held.remove(entry)
            if way == DOWN and not self.closed_by_client:
                self.received(self, entry[1])
            elif way == UP and self.node.up and not self.closed_by_node:
                self._serve(entry[1])

    def resume(self) -> None:
        """The way is free again. A stream with a gap in it is reset by whoever is asked to go on
        with it."""
        world = self.world
        if self.swallowed:
            self.reset(late=False)
        elif world.lossy and world.draw() < 0.5:
            self.reset(late=world.draw() < 0.5)
        self.go_on()

    def go_on(self) -> None:
        """Try again with what was held, in order."""
        held, self.held = self.held, deque()
        for way, payload in held:
            self.world.at(self.world.now, self._arrive if way == UP else self._answer, payload)


class World:
    """The clock, the queue of what is to happen, the nodes and the network between them and the
    clients."""

    def __init__(self, seed: int, nodes: int, *, memory: bool = True) -> None:
        self.random = random.Random(seed)
        self.draw = self.random.random
        self.memory = memory
        """Whether nodes forget at most what admission sees, as `Assumptions` has it."""
        self.now = 0.0
        self.steps = 0
        self.history: list[Record] = []
        self.split_votes = 0
        self.owners: dict[str, str] = {}
        """By owner of a try, whose it is."""
        self.tokens: dict[tuple[str, int], set[str]] = {}
        """By resource and token, who asked for it."""
        self.broken_at = -math.inf
        """When a fault began or ended last."""
        self.lasting = 0
        """How many faults are under way."""
        self.hurt_at = -math.inf
        """The same of those that keep clients from nodes, and not from messages alone."""
        self.hurting = 0
        self.eased_at = -math.inf
        """When something was done last that may leave a dead place in front of a queue."""
        self.shoved = False
        """Whether anything was done to places, and not to messages alone."""
        self.wrongs: list[tuple[float, str, str]] = []
        """When, which property, and what: grants that the nodes know nothing of."""
        self.nodes = [SimNode(index, self.identity) for index in range(nodes)]
        self.delay_mean = 0.0005
        self.tail_share = 0.0
        self.tail = 0.0
        self.lossy = False
        self.slow: dict[int, float] = {}
        """By node, seconds that everything to and from it takes longer."""
        self.hushed: set[tuple[str, int]] = set()
        """Clients and nodes between which messages get lost."""
        self.vigil: Vigil | None = None
        self.cuts: dict[tuple[str, int, str], list[bool]] = {}
        """By client, node and way, the partitions that stop it; True: it swallows, False: it
        holds."""
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._faults = 0
        self._connections: list[Connection] = []
        self._dials: dict[tuple[str, int, int], deque[float]] = {}

    def identity(self) -> str:
        """A run id."""
        return f"{self.random.getrandbits(160):040x}"

    # Time

    def at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        """Do *what* at the true instant *when*."""
        self._order += 1
        heappush(self._queue, (when if when > self.now else self.now, self._order, what, arguments))

    def run(self, until: float) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, what, arguments = heappop(queue)
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise RuntimeError(f"no end after {STEPS_MAX} steps")
            what(*arguments)
        if until > self.now:
            self.now = until

    @property
    def idle(self) -> bool:
        """Whether nothing will ever happen again."""
        return not self._queue

    def delay(self, index: int) -> float:
        """One way through the network, to or from a node."""
        draw = self.draw()
        delay = self.delay_mean * (0.5 + draw)
        if draw < self.tail_share:
            delay += self.tail * self.draw()
        return delay + self.slow.get(index, 0.0) if self.slow else delay

    # Network

    def connect(
        self,
        client: str,
        index: int,
        serve: Serve,
        received: Callable[[Connection, Any], None],
        closed: Callable[[Connection, str], None],
        done: Callable[[Connection | None], None],
        *,
        way: int = 0,
    ) -> None:
        """Dial; *done* gets the connection, or None if nobody accepts. A paused node's kernel still
        accepts.

        *way*: which of the client's sets it is for.
        """
        node = self.nodes[index]
        self._dialled(client, index, way)

        def accept() -> None:
            if not node.up:
                done(None)
            elif (client, index, UP) in self.cuts or (client, index, DOWN) in self.cuts:
                self.at(self.now + DIAL_TIMEOUT, done, None)
            else:
                connection = Connection(self, client, node, serve, received, closed, way)
                self._connections = [other for other in self._connections if not other.over]
                self._connections.append(connection)
                done(connection)

        self.at(self.now + self.delay(index) + self.delay(index), accept)

    def _dialled(self, client: str, index: int, way: int) -> None:
        """R11: whatever a node does, it is not dialled as fast as it can be reached."""
        dials = self._dials.setdefault((client, index, way), deque(maxlen=DIALS_MAX))
        if len(dials) == DIALS_MAX and self.now - dials[0] < 1.0:
            text = f"{client} dials n{index} {DIALS_MAX} times in {self.now - dials[0]:.3f} s"
            self.wrongs.append((self.now, "R11: dials have a bound", text))
            dials.clear()
        dials.append(self.now)

    def cut(
        self, clients: Iterable[str], nodes: Iterable[int], ways: Iterable[str], *, swallow: bool
    ) -> Callable[[], None]:
        """A partition begins; call what it gives to heal it. *swallow*: what it stops is lost,
        and not held."""
        cells = [(client, node, way) for client in clients for node in nodes for way in ways]
        for cell in cells:
            self.cuts.setdefault(cell, []).append(swallow)
        return partial(self._heal, cells, swallow)

    def _heal(self, cells: list[tuple[str, int, str]], swallow: bool) -> None:
        for cell in cells:
            cuts = self.cuts.get(cell, [])
            if swallow in cuts:
                cuts.remove(swallow)
            if not cuts:
                self.cuts.pop(cell, None)
        crossed = {(client, node) for client, node, _ in cells}
        for connection in self.connections():
            if (connection.client, connection.node.index) in crossed:
                connection.resume()

    @property
    def calm_since(self) -> float:
        """Since when nothing is broken, slow or lossy; infinity: something is."""
        return math.inf if self.lasting or self.tail_share else self.broken_at

    def heal_all(self) -> None:
        """No partition is left."""
        self.hushed.clear()
        self.cuts.clear()
        self.slow.clear()
        for connection in self.connections():
            connection.resume()

    def connections(self, client: str | None = None, node: int | None = None) -> list[Connection]:
        """Those that are not over, of *client* and to *node* if given."""
        self._connections = [connection for connection in self._connections if not connection.over]
        return [
            connection
            for connection in self._connections
            if client in (None, connection.client) and node in (None, connection.node.index)
        ]

    # Nodes

    def pause(self, index: int) -> None:
        """SIGSTOP."""
        node = self.nodes[index]
        if node.up and not node.paused:
            node.paused = True
            self.saw(index, "paused")

    def resume(self, index: int) -> None:
        """SIGCONT: it executes what came meanwhile."""
        node = self.nodes[index]
        if node.paused:
            node.paused = False
            self.saw(index, "up")
            for connection in self.connections(node=index):
                connection.go_on()

    def crash(self, index: int, kept: str) -> None:
        """The process ends; its connections with it."""
        self.nodes[index].crash(kept, self.now)
        self.saw(index, "down")
        for connection in self.connections(node=index):
            connection.held.clear()
            connection.reset(late=False)

    def reload(self, index: int, kept: str) -> None:
        """The process ends and is there again, behind something that keeps the connections of
        its clients."""
        if self.nodes[index].up:
            self.nodes[index].crash(kept, self.now)
            self.nodes[index].start(self.now)
            self.saw(index, "up")

    def move(self, index: int, *, living: bool) -> None:
        """The node's name leads to its standby from now on. *living*: something in between keeps
        the clients' connections."""
        node = self.nodes[index]
        node.stand_in(self.now)
        self.saw(index, "another server")
        if not living:
            for connection in self.connections(node=index):
                connection.held.clear()
                connection.reset(late=False)

    def start(self, index: int) -> None:
        """The process is started again, if it is down."""
        if not self.nodes[index].up:
            self.nodes[index].start(self.now)
            self.saw(index, "up")

    # What the nodes say of a vote

    def granted(self, client: str, resource: str, owner: str, token: int, nodes: int) -> None:
        """A client of so many *nodes* decided that it was granted *token*: a majority of the
        servers must have granted it.

        Every marker refuses a list of too few. Where they may be lost all at once it can found a
        cluster of its own.
        """
        if self.vigil is not None:
            self.vigil.granted(client, resource, owner)
        claims = sum(node.taken.get(owner) == token for node in self.nodes)
        nodes = len(self.nodes) if self.memory else nodes
        if 2 * claims <= nodes:
            text = (
                f"{client} counted token {token} as granted, and {claims} of {nodes} servers had"
                " granted it"
            )
            self.wrongs.append((self.now, "I9: a grant stands on a majority", text))

    def failed(self, client: str, resource: str, owner: str) -> None:
        """A try failed: was the vote split?"""
        holders = [
            node.data["redlock:" + resource][0]
            for node in self.nodes
            if "redlock:" + resource in node.data
        ]
        if len(set(holders)) > 1 and 2 * max(map(holders.count, holders)) <= len(self.nodes):
            self.split_votes += 1

    # History

    def broken(
        self, kind: str, what: str, nodes: Iterable[int] = (), clients: Iterable[str] = ()
    ) -> str:
        """Note that a fault begins; give its id."""
        self._faults += 1
        self.lasting += 1
        self.broken_at = self.now
        if kind in _GENTLE:
            self.eased_at = self.now
            self.shoved |= kind not in _ORDERLY
        else:
            self.hurting += 1
            self.hurt_at = self.now
        fault = f"{kind}-{self._faults}"
        self.history.append(Broken(self.now, "", fault, what, tuple(nodes), tuple(clients)))
        return fault

    def healed(self, fault: str) -> None:
        """Note that a fault ended."""
        self.lasting -= 1
        self.broken_at = self.now
        if fault.partition("-")[0] in _GENTLE:
            self.eased_at = self.now
        else:
            self.hurting -= 1
            self.hurt_at = self.now
        self.history.append(Healed(self.now, "", fault))

    def saw(self, node: int, state: str) -> None:
        """Note how a node stands now."""
        self.history.append(NodeSeen(self.now, "", node, state))

    def note(self, client: str, kind: str, text: str) -> None:
        """Note anything else."""
        self.history.append(Note(self.now, client, kind, text))
