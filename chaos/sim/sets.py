"""The sets of connections of one simulated client: one link per node in each, over shared `Node`s
and one shared admission.

A client of tasks has one set, which all its runs share and which is always read, as the asyncio
driver has. A client of threads has several, as the blocking driver has: a run checks one out for as
long as it waits for answers, nobody reads a set that is idle, and a release goes by the set that
carried its acquire wherever that one is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.sim.links import MODES
from chaos.sim.world import Connection
from redlock.core.effects import Request
from redlock.core.quorum import Fault, FaultKind
from redlock.transport.linkset import LinkSet

if TYPE_CHECKING:
    from chaos.sim.client import SimClient

__all__ = ["Ended", "SimSet", "SimSets"]


@dataclass(frozen=True, slots=True)
class Ended:
    """What comes last by a connection: *why* it is gone."""

    why: str


class SimSet:
    """One connection to each node, and the shipped links over them. *shared*: many runs use it
    at once, and it is always read."""

    __slots__ = (
        "_armed",
        "_arrivals",
        "_connections",
        "_held_up",
        "_unread",
        "client",
        "following",
        "linkset",
        "number",
        "reads",
        "shared",
    )

    def __init__(
        self,
        client: SimClient,
        number: int,
        *,
        shared: bool,
        make_link: Callable[..., Any] | None = None,
    ) -> None:
        self.client = client
        self.number = number
        self.shared = shared
        self.reads = shared
        """Whether somebody reads what comes. What does not is read by the next one who takes the
        set."""
        self.following: deque[list[Request]] = deque()
        """Releases of other threads, to be written before the set is idle again."""
        self._connections: list[Connection | None] = [None] * len(client.shared_nodes)
        self._arrivals: deque[tuple[int, Connection | None]] = deque()
        self._unread: deque[tuple[int, Connection, Any]] = deque()
        self._armed = float("inf")
        self._held_up = [0] * len(client.shared_nodes)
        """By node, what came while the process was paused."""
        self.linkset = LinkSet(
            client.shared_nodes,
            self,
            client.clock,
            silence=max(1.0, 4 * client.cluster.patience),
            make_link=make_link or MODES[client.mode][0],
        )

    # What the links need

    def write(self, node: int, data: Any) -> None:
        """Bytes, or the payloads of a plain link."""
        connection = self._connections[node]
        if connection is None or not data:
            return
        if type(data) is bytes:
            connection.send(data)
        else:
            for payload in data:
                connection.send(payload)

    def hang_up(self, node: int) -> None:
        """Close the connection to *node*."""
        connection, self._connections[node] = self._connections[node], None
        if connection is not None:
            connection.close()

    def dial(self, node: int) -> None:
        """Connect to *node*. Raises RuntimeError where there is no thread for that."""
        self.client.dial(self, node)

    def readable(self, node: int) -> bool:
        """Whether something came from *node* that nobody has read."""
        connection = self._connections[node]
        return self._held_up[node] > 0 or any(other is connection for _, other, _ in self._unread)

    def wake_at(self, instant: float) -> None:
        """Tick then, if somebody uses the set; whoever takes it later asks anew."""
        if self.reads:
            self._armed = instant
            self.client.arm(instant, self._tick, instant)

    def _tick(self, instant: float) -> None:
        if instant != self._armed or not self.reads:
            return
        if self.linkset.next_at <= self.client.clock():
            self.linkset.tick()
        else:  # The clock stood still meanwhile, or there is less to wait for.
            self.linkset.look_ahead()

    # What comes

    def dialled(self, node: int, connection: Connection | None) -> None:
        """A dial ended: the links hear of it as soon as somebody uses the set."""
        if not self.reads:
            self._arrivals.append((node, connection))
        elif connection is None:
            self.linkset.dial_failed(node, Fault(FaultKind.UNREACHABLE, "refused the connection"))
        else:
            self._connections[node] = connection
            self.linkset.connected(node)

    def hear(self, node: int, connection: Connection, payload: Any) -> None:
        """Something came by one of the connections, or its end: the links hear of it once
        somebody reads."""
        if not self.reads:
            self._unread.append((node, connection, payload))
        elif connection is self._connections[node]:
            if type(payload) is Ended:
                self._connections[node] = None
                self.linkset.lost(node, Fault(FaultKind.LOST, payload.why))
            else:
                self.linkset.received(node, payload)

    def hold_up(self, node: int, connection: Connection, payload: Any) -> None:
        """The process is paused: what comes waits for it."""
        self._held_up[node] += 1
        client = self.client
        client.world.at(
            client.paused_until, client.when_awake, self._go_on, node, connection, payload
        )

    def _go_on(self, node: int, connection: Connection, payload: Any) -> None:
        self._held_up[node] -= 1
        self.hear(node, connection, payload)

    def read(self) -> None:
        """Hear what came while nobody read, as long as somebody does."""
        if self.reads and (self._unread or self._arrivals):
            self._read_all()

    def tend(self) -> None:
        """A connection of the idle set ended: somebody looks after it, and reads all that is
        there."""
        reads, self.reads = self.reads, True
        self._read_all()
        self.linkset.poke()
        self.linkset.settle()
        self.reads = reads

    def take(self) -> None:
        """Somebody uses the set from now on: first of all what dialling brought, then what came."""
        self.reads = True
        self._welcome()
        self.linkset.look_ahead()
        world = self.client.world
        world.at(world.now, self.client.when_awake, self.read)

    def _welcome(self) -> None:
        while self._arrivals:
            self.dialled(*self._arrivals.popleft())

    def _read_all(self) -> None:
        self._welcome()
        unread, self._unread = self._unread, deque()
        while unread:
            self.hear(*unread.popleft())

    def rest(self) -> None:
        """Nobody reads it any more."""
        self.reads = False

    def close(self) -> None:
        """Close every connection."""
        self._unread.clear()
        while self._arrivals:
            connection = self._arrivals.popleft()[1]
            if connection is not None:
                connection.close()
        for node in range(len(self._connections)):
            self.hang_up(node)


class SimSets:
    """All sets of a client, and who waits for one. *most*: how many its threads may have at
    once; 0: it has tasks instead."""

    def __init__(self, client: SimClient, most: int) -> None:
        self._client = client
        self._most = most
        self.all: list[SimSet] = []
        self._idle: deque[SimSet] = deque()
        self._threads = 0
        self._waiters: deque[Callable[[], None]] = deque()
        self.home = self._make(shared=True)
        """The set of all tasks, or that of the thread which renews leases and brings what is
        owed."""

    @property
    def threads(self) -> bool:
        """Whether runs check sets out."""
        return self._most > 0

    def _make(self, *, shared: bool) -> SimSet:
        connections = SimSet(self._client, len(self.all), shared=shared)
        self.all.append(connections)
        return connections

    def check_out(self, prefer: SimSet | None, late: list[int] | None = None) -> SimSet | None:
        """A set for one run alone: *prefer* if it is free, so that a release cannot overtake its
        acquire. None: all are in use.

        *late* takes the nodes that owe an answer on *prefer*, if that is in other hands.
        """
        if not self._most:
            return self.home
        if prefer is not None and not prefer.shared:
            if prefer in self._idle:
                self._idle.remove(prefer)
                return self._taken(prefer)
            if late is not None:
                late += prefer.linkset.late
        if self._idle:
            return self._taken(self._idle.pop())
        if self._threads == self._most:
            return None
        self._threads += 1
        return self._taken(self._make(shared=False))

    def _taken(self, connections: SimSet) -> SimSet:
        connections.take()
        return connections

    def check_in(self, connections: SimSet) -> None:
        """A run does not wait for answers any more."""
        if connections.shared:
            return
        while connections.following:
            connections.linkset.send(connections.following.popleft(), None)
        connections.reads = False
        self._idle.append(connections)
        if self._waiters:
            world = self._client.world
            world.at(world.now, self._client.when_awake, self._waiters.popleft())

    def queue_up(self, again: Callable[[], None]) -> None:
        """Call *again* when a set comes back."""
        self._waiters.append(again)

    def leave(self, again: Callable[[], None]) -> bool:
        """Wait no more; False: it was called already, or will be at this instant."""
        if again in self._waiters:
            self._waiters.remove(again)
            return True
        return False

    def follow(self, connections: SimSet, late: Sequence[int], requests: Sequence[Request]) -> None:
        """Write releases on *connections* as well, which was in other hands, to the nodes that were
        *late* there.

        A release that overtakes its acquire finds an older lock on a node now and then, and must
        leave it alone; then only one behind the acquire is final.
        """
        behind = [
            Request(each.node, each.command, each.not_after)
            for each in requests
            if each.node in late
        ]
        if behind:
            connections.following.append(behind)
            if connections in self._idle:
                self._idle.remove(connections)
                self.check_in(connections)
